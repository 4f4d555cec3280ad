// Answers under way: which workers have, or may soon have, a server's answer in hand that the kernel has not got yet.
//
// Why: a server records what the kernel may keep when it answers, not when the kernel reads the answer. A notice that
// revokes it could overtake the answer, find nothing to revoke, and the kernel would then keep what is untrue for ever.
// Protocol: the word of a worker is odd from before its first message until its reply has been written to the device.
// The notice thread waits, before it revokes, until every word that it finds odd has changed.
// Invariants: a word has one writer. There is no circle of waits: a worker waits for servers, which answer the kernel
// without waiting for its acknowledgements. Should that ever fail, the wait ends after a second.

import CFosWire
import Glibc

struct AnswersUnderWay {
    /// One word a worker, each on a cache line of its own. Allocated once and kept for the life of the mount.
    private let words: UnsafeMutablePointer<UInt32>
    private let places: Int
    private static var stride: Int { 64 / MemoryLayout<UInt32>.stride }
    /// Looks before the waiting thread sleeps: it may run on the CPU that the worker needs.
    private static var looks: Int { 64 }
    private static var longestWait: UInt32 { 1_000_000 }

    init(places: Int) {
        self.places = places
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: places * 64, alignment: 64)
        words = bytes.bindMemory(to: UInt32.self, capacity: places * AnswersUnderWay.stride)
        words.initialize(repeating: 0, count: places * AnswersUnderWay.stride)
    }

    func deallocate() { UnsafeMutableRawPointer(words).deallocate() }

    /// The word of the worker at a place of the pool.
    func word(_ place: Int) -> UnsafeMutablePointer<UInt32> {
        precondition(place >= 0 && place < places)
        return words + place * AnswersUnderWay.stride
    }

    /// Waits until all answers that servers have given so far are with the kernel. False if one has not come in time.
    func settle() -> Bool {
        var isSettled = true
        for place in 0..<places {
            let word = word(place)
            let seen = fos_load_acquire_u32(word)
            guard seen & 1 != 0 else { continue }
            var waited: UInt32 = 0
            var look = 0
            while fos_load_acquire_u32(word) == seen, waited < AnswersUnderWay.longestWait {
                look += 1
                if look < AnswersUnderWay.looks {
                    fos_spin_pause()
                } else {
                    let pause: UInt32 = waited < 1000 ? 20 : 500
                    usleep(pause)
                    waited += pause
                }
            }
            if waited >= AnswersUnderWay.longestWait { isSettled = false }
        }
        return isSettled
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// The calling worker begins to serve a request. Only a worker of the pool has a word.
    func beginAnswer() {
        guard let word = pointee.answering else { return }
        fos_store_release_u32(word, fos_load_relaxed_u32(word) | 1)
    }

    /// The calling worker's reply is with the kernel. May be called again.
    func endAnswer() {
        guard let word = pointee.answering else { return }
        let value = fos_load_relaxed_u32(word)
        fos_store_release_u32(word, value &+ (value & 1))
    }
}
