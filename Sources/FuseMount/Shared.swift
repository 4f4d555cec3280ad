// Words that several threads of the front end share.
//
// Swift's inout-to-pointer conversions do not promise one address, so a shared word is its own small allocation and
// every access goes through the wire's atomic helpers.

import CFosWire

/// One 32-bit counter or flag, shared between threads. Allocated once and kept for the life of the mount.
struct SharedWord {
    private let word: UnsafeMutablePointer<UInt32>

    init(_ value: UInt32 = 0) {
        // A line of its own: the idle count is written with every request.
        let line = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
        word = line.bindMemory(to: UInt32.self, capacity: 16)
        word.initialize(repeating: 0, count: 16)
        word.pointee = value
    }

    func deallocate() { UnsafeMutableRawPointer(word).deallocate() }

    var value: UInt32 { fos_load_acquire_u32(word) }
    func store(_ value: UInt32) { fos_store_release_u32(word, value) }
    /// Adds and returns the new value.
    @discardableResult
    func add(_ amount: UInt32) -> UInt32 { fos_fetch_add_u32(word, amount) &+ amount }
    /// Subtracts and returns the new value.
    @discardableResult
    func subtract(_ amount: UInt32) -> UInt32 { fos_fetch_add_u32(word, 0 &- amount) &- amount }
    /// Sets the word from one value to another. True for the one thread that did it.
    func exchange(_ expected: UInt32, _ desired: UInt32) -> Bool { fos_compare_exchange_u32(word, expected, desired) != 0 }
}
