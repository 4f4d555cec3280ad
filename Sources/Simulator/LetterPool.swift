// The memory of all letters and notices of a simulation.
//
// Role: every message in flight or waiting in a mailbox is one letter of 1 KiB, named by its number. Queues of letters
// are lists through `next`, so no queue has memory of its own.
// Invariants: a letter is in one list, in one event, being run, or free; nothing is allocated while there are free ones;
// what is given back is overwritten in its first line, so that a server that kept a pointer reads rubbish.

import CFosWire
import Messaging

/// A list of letters, oldest first.
struct LetterList: BitwiseCopyable {
    var head: UInt32 = 0
    var tail: UInt32 = 0
    var count: Int32 = 0
}

struct LetterPool: ~Copyable {
    private var chunks: [UnsafeMutablePointer<fos_letter>] = []
    private var next: [UInt32] = [0]
    private var free: UInt32 = 0
    private(set) var inUse = 0
    private(set) var peak = 0
    private static var chunkLetters: Int { 256 }

    deinit { for chunk in chunks { chunk.deallocate() } }

    /// Number 0 is no letter.
    @inline(__always) subscript(_ number: UInt32) -> UnsafeMutablePointer<fos_letter> {
        chunks[Int(number - 1) / LetterPool.chunkLetters] + Int(number - 1) % LetterPool.chunkLetters
    }

    /// A letter whose header and envelope are zero.
    mutating func take() -> UInt32 {
        if free == 0 { grow() }
        let number = free
        free = next[Int(number)]
        next[Int(number)] = 0
        inUse += 1
        peak = max(peak, inUse)
        let letter = self[number]
        letter.pointee.envelope = fos_envelope()
        letter.pointee.message = fos_message()
        return number
    }

    mutating func giveBack(_ number: UInt32) {
        UnsafeMutableRawPointer(self[number]).initializeMemory(as: UInt8.self, repeating: 0xaa, count: 192)
        next[Int(number)] = free
        free = number
        inUse -= 1
    }

    mutating func append(_ number: UInt32, to list: inout LetterList) {
        if list.tail == 0 { list.head = number } else { next[Int(list.tail)] = number }
        list.tail = number
        list.count += 1
    }
    mutating func removeFirst(of list: inout LetterList) -> UInt32 {
        let number = list.head
        guard number != 0 else { return 0 }
        list.head = next[Int(number)]
        if list.head == 0 { list.tail = 0 }
        next[Int(number)] = 0
        list.count -= 1
        return number
    }

    private mutating func grow() {
        let base = UInt32(chunks.count * LetterPool.chunkLetters)
        chunks.append(.allocate(capacity: LetterPool.chunkLetters))
        next.append(contentsOf: repeatElement(0, count: LetterPool.chunkLetters))
        for index in (1...UInt32(LetterPool.chunkLetters)).reversed() {
            next[Int(base + index)] = free
            free = base + index
        }
    }
}
