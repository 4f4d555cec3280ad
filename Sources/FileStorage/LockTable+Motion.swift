// The locks of an inode that moves to another server: read out one by one, set again there, and forgotten here.
//
// Invariants: while a list is frozen neither a client's death nor anything else changes it; the other server hears of
// deaths itself. What is adopted is not refused by the limits, which it passed when it was asked for.

extension LockTable {
    /// The held lock at a place in the order of the list, byte ranges first; nil beyond the last.
    public func held(_ inode: InodePointer, at place: Int) -> (lock: LockRequest, isFlock: Bool)? {
        guard let list = inode.pointee.locks else { return nil }
        var left = place
        if let found = LockTable.record(list.pointee.ranges, &left) { return (found, false) }
        if let found = LockTable.record(list.pointee.flocks, &left) { return (found, true) }
        return nil
    }

    private static func record(_ first: UnsafeMutablePointer<LockRecord>?, _ left: inout Int) -> LockRequest? {
        var next = first
        while let record = next {
            if left == 0 { return record.pointee.lock }
            left -= 1
            next = record.pointee.next
        }
        return nil
    }

    /// The request that has waited longest for a lock of the inode.
    public func firstWaiter(_ inode: InodePointer) -> (token: UInt64, request: LockRequest, isFlock: Bool)? {
        guard let waiter = inode.pointee.locks?.pointee.firstWaiter else { return nil }
        return (waiter.pointee.token, waiter.pointee.request, waiter.pointee.isFlock)
    }

    public func setFrozen(_ inode: InodePointer, _ isFrozen: Bool) { inode.pointee.locks?.pointee.isFrozen = isFrozen }

    /// Sets a lock that was held elsewhere. False when out of memory.
    public mutating func adopt(_ inode: InodePointer, _ lock: LockRequest, isFlock: Bool, _ arena: inout Arena, _ pool: inout PagePool)
        -> Bool
    {
        let limit = limitPerClient
        limitPerClient = .max
        defer { limitPerClient = limit }
        if isFlock { return flock(inode, lock.owner, lock.kind, token: nil, &arena, &pool) == .granted }
        return set(inode, lock, token: nil, &arena, &pool) == .granted
    }

    /// Takes out the request that has waited longest, which leaves no outcome.
    public mutating func forgetFirstWaiter(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) {
        guard let list = inode.pointee.locks, let waiter = list.pointee.firstWaiter else { return }
        dequeue(waiter)
        free(waiter, &arena, &pool)
        releaseIfEmpty(list, &arena, &pool)
    }

    /// Forgets the held locks. Nobody is granted anything by it.
    public mutating func forgetHeld(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) {
        guard let list = inode.pointee.locks else { return }
        freeAll(&list.pointee.ranges, &arena, &pool)
        freeAll(&list.pointee.flocks, &arena, &pool)
        list.pointee.rangeCount = 0
        list.pointee.flockCount = 0
        releaseIfEmpty(list, &arena, &pool)
    }
    private mutating func freeAll(_ first: inout UnsafeMutablePointer<LockRecord>?, _ arena: inout Arena, _ pool: inout PagePool) {
        while let record = first {
            first = record.pointee.next
            free(record, &arena, &pool)
        }
    }
}
