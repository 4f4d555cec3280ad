// The events of a simulation that are still to come, earliest first.
//
// Role: the one priority queue of the simulator: a heap of four children a node (shallower, and kinder to the cache,
// than two).
// Invariants: events of one time come in the order in which they were scheduled, so a run is decided by its seed alone;
// memory grows by doubling, to what was ever scheduled at once, and not with the length of a run.

/// Virtual time since the start of a run, in picoseconds; a UInt64 of it is 213 days.
public typealias VirtualTime = UInt64

struct Event: BitwiseCopyable {
    enum Kind: UInt8 {
        /// A letter reaches a mailbox.
        case letter
        /// A core goes on with what waits in its mailboxes.
        case turn
        /// A reply reaches a client's thread.
        case reply
        /// A notice reaches a client.
        case notice
        /// A client's thread goes on.
        case thread
        /// About 10 ms went by for a server.
        case tick
        /// What the composition has planned: a fault, a sample.
        case action
    }
    var time: VirtualTime
    var order: UInt64
    var kind: Kind
    /// Letter or notice, in the pool.
    var letter: UInt32 = 0
    /// Mailbox, core, thread or action, by `kind`.
    var target: UInt32 = 0

    @inline(__always) func isBefore(_ other: Event) -> Bool { time != other.time ? time < other.time : order < other.order }
}

struct EventQueue: ~Copyable {
    private var heap: UnsafeMutablePointer<Event>
    private var capacity = 1024
    private(set) var count = 0
    private(set) var peak = 0
    private var scheduled: UInt64 = 0

    init() { heap = .allocate(capacity: capacity) }
    deinit { heap.deallocate() }

    var isEmpty: Bool { count == 0 }
    var nextTime: VirtualTime? { count > 0 ? heap[0].time : nil }

    mutating func schedule(_ kind: Event.Kind, at time: VirtualTime, letter: UInt32 = 0, target: UInt32 = 0) {
        if count == capacity { grow() }
        scheduled += 1
        let event = Event(time: time, order: scheduled, kind: kind, letter: letter, target: target)
        var position = count
        count += 1
        peak = max(peak, count)
        while position > 0 {
            let parent = (position - 1) >> 2
            guard event.isBefore(heap[parent]) else { break }
            heap[position] = heap[parent]
            position = parent
        }
        heap[position] = event
    }

    mutating func next() -> Event? {
        guard count > 0 else { return nil }
        let first = heap[0]
        count -= 1
        guard count > 0 else { return first }
        let last = heap[count]
        var position = 0
        while true {
            let firstChild = position << 2 + 1
            guard firstChild < count else { break }
            var least = firstChild
            for child in firstChild + 1..<max(min(firstChild + 4, count), firstChild + 1) where heap[child].isBefore(heap[least]) {
                least = child
            }
            guard heap[least].isBefore(last) else { break }
            heap[position] = heap[least]
            position = least
        }
        heap[position] = last
        return first
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Event>.allocate(capacity: capacity * 2)
        larger.initialize(from: heap, count: count)
        heap.deallocate()
        heap = larger
        capacity *= 2
    }
}
