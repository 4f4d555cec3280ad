// A bounded slab of continuations: the state of transactions that wait for a response.
//
// Invariants: capacity is fixed at start; `take` gives nil when full (the caller answers RETRY); a continuation id
// carries a generation, so a late response finds nothing rather than a stranger.

/// Fixed-capacity storage of `State`, named by `ContinuationID`. O(1), no allocation after `init`.
public struct ContinuationSlab<State: BitwiseCopyable>: ~Copyable {
    @usableFromInline let states: UnsafeMutablePointer<State>
    @usableFromInline let generations: UnsafeMutablePointer<UInt16>
    @usableFromInline let next: UnsafeMutablePointer<UInt16>
    @usableFromInline let capacity: Int
    @usableFromInline var free: Int
    public private(set) var peak = 0
    public private(set) var count = 0

    /// - Parameter capacity: most continuations at once, at most 65,535.
    public init(capacity: Int) {
        precondition(capacity > 0 && capacity < 0xffff)
        self.capacity = capacity
        states = .allocate(capacity: capacity)
        generations = .allocate(capacity: capacity)
        next = .allocate(capacity: capacity)
        for index in 0..<capacity {
            generations[index] = 1
            next[index] = UInt16(index + 1)
        }
        free = 0
    }

    deinit {
        states.deallocate()
        generations.deallocate()
        next.deallocate()
    }

    public var isFull: Bool { free == capacity }

    /// Stores a state; nil when the slab is full.
    public mutating func insert(_ state: State) -> ContinuationID? {
        guard free < capacity else { return nil }
        let index = free
        free = Int(next[index])
        // Even generations are free, odd ones are in use, and 0 is never an id.
        generations[index] |= 1
        next[index] = UInt16.max
        states.advanced(by: index).initialize(to: state)
        count += 1
        peak = max(peak, count)
        return ContinuationID(rawValue: UInt32(generations[index]) << 16 | UInt32(index))
    }

    /// The live state of an id; nil for a late or invented one. Valid until `remove`.
    public func state(_ id: ContinuationID) -> UnsafeMutablePointer<State>? {
        let index = Int(id.rawValue & 0xffff)
        guard index < capacity, next[index] == UInt16.max, generations[index] == UInt16(id.rawValue >> 16) else { return nil }
        return states + index
    }

    /// Ends a continuation. False if the id is not live.
    @discardableResult
    public mutating func remove(_ id: ContinuationID) -> Bool {
        guard state(id) != nil else { return false }
        let index = Int(id.rawValue & 0xffff)
        generations[index] = (generations[index] &+ 2) | 1
        next[index] = UInt16(free)
        free = index
        count -= 1
        return true
    }

    /// The id in use at a slab index, for walks that change what they walk over; nil if it is free.
    public func id(at index: Int) -> ContinuationID? {
        guard index >= 0, index < capacity, next[index] == UInt16.max else { return nil }
        return ContinuationID(rawValue: UInt32(generations[index]) << 16 | UInt32(index))
    }

    /// The ids in use, for lifecycle news such as a client's death. O(capacity).
    public func forEach(_ body: (ContinuationID, UnsafeMutablePointer<State>) -> Void) {
        for index in 0..<capacity where next[index] == UInt16.max {
            body(ContinuationID(rawValue: UInt32(generations[index]) << 16 | UInt32(index)), states + index)
        }
    }
}
