// Waits for locks: the queue of each inode, the waiters by owner, and the outcomes not yet taken.

extension LockTable {
    /// Ends a wait without an outcome, as an interrupted system call does. False if no such wait goes on.
    public mutating func cancel(token: UInt64, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        for bucket in 0..<LockTable.waiterBuckets {
            var next = waiters[bucket]
            while let waiter = next {
                next = waiter.pointee.chain
                guard waiter.pointee.token == token else { continue }
                let list = waiter.pointee.list
                dequeue(waiter)
                free(waiter, &arena, &pool)
                releaseIfEmpty(list, &arena, &pool)
                return true
            }
        }
        return false
    }

    /// The next wait that has ended, in the order of ending; nil when all have been taken.
    public mutating func takeOutcome(_ arena: inout Arena, _ pool: inout PagePool) -> LockOutcome? {
        guard let waiter = firstOutcome else { return nil }
        firstOutcome = waiter.pointee.next
        if firstOutcome == nil { lastOutcome = nil }
        let outcome = LockOutcome(token: waiter.pointee.token, result: waiter.pointee.result)
        free(waiter, &arena, &pool)
        return outcome
    }

    static func bucket(_ owner: LockOwner) -> Int {
        let mixed = (owner.id ^ UInt64(owner.client) << 32) &* 0x9e37_79b9_7f4a_7c15
        return Int(mixed >> 56)
    }

    /// Queues a request; false at a limit or without memory.
    mutating func enqueue(
        _ list: UnsafeMutablePointer<LockList>, _ request: LockRequest, isFlock: Bool, token: UInt64,
        _ arena: inout Arena, _ pool: inout PagePool
    ) -> Bool {
        guard list.pointee.waiterCount < LockTable.waitersPerInode, charge(request.owner.client, &arena, &pool) else {
            return false
        }
        guard let memory = arena.allocate(MemoryLayout<LockWaiter>.size, &pool) else {
            discharge(request.owner.client, &arena, &pool)
            return false
        }
        let waiter = memory.bindMemory(to: LockWaiter.self, capacity: 1)
        let bucket = LockTable.bucket(request.owner)
        waiter.initialize(
            to: LockWaiter(
                next: nil, previous: list.pointee.lastWaiter, chain: waiters[bucket], work: nil, search: 0, list: list,
                token: token, request: request, isFlock: isFlock, result: .waiting))
        waiters[bucket] = waiter
        if let last = list.pointee.lastWaiter { last.pointee.next = waiter } else { list.pointee.firstWaiter = waiter }
        list.pointee.lastWaiter = waiter
        list.pointee.waiterCount += 1
        waiterCount += 1
        return true
    }

    /// Takes a waiter out of its queue and out of the owner hash.
    mutating func dequeue(_ waiter: UnsafeMutablePointer<LockWaiter>) {
        let list = waiter.pointee.list
        if let previous = waiter.pointee.previous {
            previous.pointee.next = waiter.pointee.next
        } else {
            list.pointee.firstWaiter = waiter.pointee.next
        }
        if let next = waiter.pointee.next {
            next.pointee.previous = waiter.pointee.previous
        } else {
            list.pointee.lastWaiter = waiter.pointee.previous
        }
        list.pointee.waiterCount -= 1
        waiterCount -= 1
        let bucket = LockTable.bucket(waiter.pointee.request.owner)
        if waiters[bucket] == waiter {
            waiters[bucket] = waiter.pointee.chain
        } else {
            var next = waiters[bucket]
            while let before = next, before.pointee.chain != waiter { next = before.pointee.chain }
            next?.pointee.chain = waiter.pointee.chain
        }
    }

    /// Ends a wait with an outcome.
    mutating func finish(_ waiter: UnsafeMutablePointer<LockWaiter>, _ result: LockResult) {
        dequeue(waiter)
        waiter.pointee.result = result
        waiter.pointee.next = nil
        if let last = lastOutcome { last.pointee.next = waiter } else { firstOutcome = waiter }
        lastOutcome = waiter
    }

    mutating func free(_ waiter: UnsafeMutablePointer<LockWaiter>, _ arena: inout Arena, _ pool: inout PagePool) {
        discharge(waiter.pointee.request.owner.client, &arena, &pool)
        arena.release(waiter, MemoryLayout<LockWaiter>.size, &pool)
    }

    /// Grants what can be granted after the locks on [start, end] have changed, and ends the waits that have become
    /// part of a circle by it. A waiter elsewhere has the conflicts that it had before.
    mutating func wake(
        _ list: UnsafeMutablePointer<LockList>, flocks: Bool, _ start: UInt64, _ end: UInt64,
        _ arena: inout Arena, _ pool: inout PagePool
    ) {
        var (start, end) = (start, end)
        var isChanged = true
        while isChanged {
            isChanged = false
            var next = list.pointee.firstWaiter
            while let waiter = next {
                next = waiter.pointee.next
                let request = waiter.pointee.request
                guard waiter.pointee.isFlock == flocks, request.overlaps(start, end) else { continue }
                looks -= list.pointee.rangeCount
                if LockTable.conflict(flocks ? list.pointee.flocks : list.pointee.ranges, request) != nil {
                    // The change may have put another lock in its way, whose owner waits for this one in another thread.
                    if !flocks, closesCircle(list, request) { finish(waiter, .deadlock) }
                    continue
                }
                if flocks {
                    finish(waiter, applyFlock(list, request, &arena, &pool) ? .granted : .noLocks)
                    continue
                }
                let applied = applyRange(list, request, &arena, &pool)
                finish(waiter, applied == .failed ? .noLocks : .granted)
                if applied == .failed { continue }
                // The waiters passed already are looked at again: at once if this one converted a lock of its own,
                // which may let them go, else when all have had their turn, for the circles that it may have closed.
                start = min(start, request.start)
                end = max(end, request.end)
                if applied == .reduced || looks > 0 { isChanged = true }
                if applied == .reduced { break }
            }
        }
    }
}
