// Notices that found the ring full after the point of no return of a transaction. Sent at the next tick.
//
// Invariant: first in, first out; a fixed capacity, whose memory is touched only when it is needed.

import CFosWire

struct NoticeQueue: ~Copyable {
    private let slots: UnsafeMutablePointer<fos_notice>
    private let capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
    }
    deinit { slots.deallocate() }

    /// False when it is full.
    mutating func append(_ notice: UnsafePointer<fos_notice>) -> Bool {
        guard count < capacity else { return false }
        (slots + (head + count) % capacity).initialize(to: notice.pointee)
        count += 1
        return true
    }
    /// The oldest one. The queue is not empty.
    var first: UnsafePointer<fos_notice> { UnsafePointer(slots + head) }
    mutating func removeFirst() {
        precondition(count > 0, "nothing is owed")
        head = (head + 1) % capacity
        count -= 1
    }
    mutating func removeAll() { count = 0 }
}
