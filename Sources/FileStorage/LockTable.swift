// Byte-range locks and flocks of the inodes of one server, as Linux has them (fcntl(2), flock(2)).
//
// Role: decides who holds what, who waits, and whose wait ends. Pure: it sends nothing. A request that must wait is
// queued under a token; after every call that changes something the service takes the outcomes and replies.
// Files: LockRanges.swift splits and merges ranges, LockDeadlock.swift searches the waits for a circle,
// LockWaiters.swift queues and ends waits.
// Invariants: a waiter conflicts with some lock held by another owner; locks are granted in the order of the queue
// among those whose conflicts are gone, while a new request competes only with held locks, not with waiters (both as
// in Linux); memory is bounded by the limits, and beyond them the answer is ENOLCK.

public struct LockTable: ~Copyable {
    /// Locks held, of both kinds.
    public internal(set) var lockCount = 0
    public internal(set) var waiterCount = 0

    /// Locks and waiters of one client.
    var limitPerClient: Int
    /// Locks of each kind on one inode, and waiters: they bound the time of one request, which looks at all of them.
    static var locksPerInode: Int { 16384 }
    static var waitersPerInode: Int { 1024 }

    var lists: UnsafeMutablePointer<LockList>? = nil
    var firstOutcome: UnsafeMutablePointer<LockWaiter>? = nil
    var lastOutcome: UnsafeMutablePointer<LockWaiter>? = nil
    /// Waiters by owner, chained.
    let waiters: UnsafeMutablePointer<UnsafeMutablePointer<LockWaiter>?>
    static var waiterBuckets: Int { 256 }
    /// Clients that have locks or waiters, chained.
    let clients: UnsafeMutablePointer<UnsafeMutablePointer<LockClient>?>
    static var clientBuckets: Int { 64 }
    /// Number of the last deadlock search.
    var search: UInt64 = 0
    /// What is left of `looksLimit` for the searches of the present request.
    var looks = 0

    public init(limitPerClient: Int = 65536) {
        self.limitPerClient = limitPerClient
        waiters = .allocate(capacity: LockTable.waiterBuckets)
        waiters.initialize(repeating: nil, count: LockTable.waiterBuckets)
        clients = .allocate(capacity: LockTable.clientBuckets)
        clients.initialize(repeating: nil, count: LockTable.clientBuckets)
    }

    deinit {
        waiters.deallocate()
        clients.deallocate()
    }

    /// F_GETLK: the first lock that would keep this request from being granted; nil if none would.
    public func test(_ inode: InodePointer, _ request: LockRequest) -> LockRequest? {
        guard request.kind != .unlock, request.start <= request.end, let list = inode.pointee.locks else { return nil }
        return LockTable.conflict(list.pointee.ranges, request)
    }

    /// F_SETLK, F_SETLKW: sets, converts or removes a byte-range lock. With a token it waits where needed.
    public mutating func set(
        _ inode: InodePointer, _ request: LockRequest, token: UInt64?, _ arena: inout Arena, _ pool: inout PagePool
    ) -> LockResult {
        looks = LockTable.looksLimit
        guard request.start <= request.end else { return .invalid }
        if request.kind == .unlock, inode.pointee.locks == nil { return .granted }
        guard let list = list(inode, &arena, &pool) else { return .noLocks }
        defer { releaseIfEmpty(list, &arena, &pool) }
        if request.kind != .unlock, LockTable.conflict(list.pointee.ranges, request) != nil {
            guard let token else { return .wouldBlock }
            if closesCircle(list, request) { return .deadlock }
            guard enqueue(list, request, isFlock: false, token: token, &arena, &pool) else { return .noLocks }
            return .waiting
        }
        guard applyRange(list, request, &arena, &pool) != .failed else { return .noLocks }
        wake(list, flocks: false, request.start, request.end, &arena, &pool)
        return .granted
    }

    /// flock(2): LOCK_SH, LOCK_EX or LOCK_UN. A conversion is not atomic: where it conflicts, the lock held before is
    /// lost, whether the request then waits or fails.
    public mutating func flock(
        _ inode: InodePointer, _ owner: LockOwner, _ kind: LockKind, token: UInt64?,
        _ arena: inout Arena, _ pool: inout PagePool
    ) -> LockResult {
        if kind == .unlock {
            releaseFlock(inode, owner: owner, &arena, &pool)
            return .granted
        }
        guard let list = list(inode, &arena, &pool) else { return .noLocks }
        defer { releaseIfEmpty(list, &arena, &pool) }
        let request = LockRequest(owner: owner, kind: kind, start: 0, end: .max, pid: 0)
        if LockTable.conflict(list.pointee.flocks, request) != nil {
            if let token, !enqueue(list, request, isFlock: true, token: token, &arena, &pool) { return .noLocks }
            removeFlocks(list, &arena, &pool) { $0.owner == owner }
            wake(list, flocks: true, 0, .max, &arena, &pool)
            return token == nil ? .wouldBlock : .waiting
        }
        guard applyFlock(list, request, &arena, &pool) else { return .noLocks }
        wake(list, flocks: true, 0, .max, &arena, &pool)
        return .granted
    }

    /// Removes all byte-range locks of an owner on an inode, as close(2) of any descriptor does for POSIX locks.
    public mutating func release(
        _ inode: InodePointer, owner: LockOwner, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        looks = LockTable.looksLimit
        guard let list = inode.pointee.locks else { return }
        removeRanges(list, &arena, &pool) { $0.owner == owner }
        wake(list, flocks: false, 0, .max, &arena, &pool)
        releaseIfEmpty(list, &arena, &pool)
    }

    /// Removes the flock of an owner on an inode, as the last close of its open file description does.
    public mutating func releaseFlock(
        _ inode: InodePointer, owner: LockOwner, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        guard let list = inode.pointee.locks else { return }
        removeFlocks(list, &arena, &pool) { $0.owner == owner }
        wake(list, flocks: true, 0, .max, &arena, &pool)
        releaseIfEmpty(list, &arena, &pool)
    }

    /// Removes all locks and waiters of a client that is gone. Its own waiters leave no outcome.
    public mutating func releaseAll(client: UInt32, _ arena: inout Arena, _ pool: inout PagePool) {
        looks = LockTable.looksLimit
        // Waiters first, in all lists, so that none of them is granted a lock by the removal of another.
        var next = lists
        while let list = next {
            var waiter = list.pointee.firstWaiter
            while let current = waiter {
                waiter = current.pointee.next
                if list.pointee.isFrozen { continue }
                if current.pointee.request.owner.client == client {
                    dequeue(current)
                    free(current, &arena, &pool)
                }
            }
            next = list.pointee.next
        }
        next = lists
        while let list = next {
            next = list.pointee.next
            if list.pointee.isFrozen { continue }
            removeRanges(list, &arena, &pool) { $0.owner.client == client }
            removeFlocks(list, &arena, &pool) { $0.owner.client == client }
            wake(list, flocks: false, 0, .max, &arena, &pool)
            wake(list, flocks: true, 0, .max, &arena, &pool)
            releaseIfEmpty(list, &arena, &pool)
        }
    }

    /// Removes all locks of an inode that is about to go. Its waiters end with the outcome `.cancelled`.
    public mutating func releaseAll(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) {
        guard let list = inode.pointee.locks else { return }
        while let waiter = list.pointee.firstWaiter { finish(waiter, .cancelled) }
        removeRanges(list, &arena, &pool) { _ in true }
        removeFlocks(list, &arena, &pool) { _ in true }
        releaseIfEmpty(list, &arena, &pool)
    }

    // Bookkeeping.

    static func conflict(_ first: UnsafeMutablePointer<LockRecord>?, _ request: LockRequest) -> LockRequest? {
        var next = first
        while let record = next {
            if record.pointee.lock.conflicts(request) { return record.pointee.lock }
            next = record.pointee.next
        }
        return nil
    }

    /// The list of an inode, made if there is none.
    private mutating func list(
        _ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool
    ) -> UnsafeMutablePointer<LockList>? {
        if let list = inode.pointee.locks { return list }
        guard let memory = arena.allocate(MemoryLayout<LockList>.size, &pool) else { return nil }
        let list = memory.bindMemory(to: LockList.self, capacity: 1)
        list.initialize(to: LockList(inode: inode))
        list.pointee.next = lists
        lists?.pointee.previous = list
        lists = list
        inode.pointee.locks = list
        return list
    }

    mutating func releaseIfEmpty(
        _ list: UnsafeMutablePointer<LockList>, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        guard list.pointee.ranges == nil, list.pointee.flocks == nil, list.pointee.firstWaiter == nil else { return }
        list.pointee.inode.pointee.locks = nil
        if let previous = list.pointee.previous {
            previous.pointee.next = list.pointee.next
        } else {
            lists = list.pointee.next
        }
        list.pointee.next?.pointee.previous = list.pointee.previous
        arena.release(list, MemoryLayout<LockList>.size, &pool)
    }

    /// Counts one more lock or waiter against a client; false at its limit or without memory.
    mutating func charge(_ client: UInt32, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let bucket = Int(client) & (LockTable.clientBuckets - 1)
        var next = clients[bucket]
        while let record = next {
            if record.pointee.client == client {
                guard record.pointee.count < limitPerClient else { return false }
                record.pointee.count += 1
                return true
            }
            next = record.pointee.next
        }
        guard limitPerClient > 0, let memory = arena.allocate(MemoryLayout<LockClient>.size, &pool) else { return false }
        let record = memory.bindMemory(to: LockClient.self, capacity: 1)
        record.initialize(to: LockClient(next: clients[bucket], client: client, count: 1))
        clients[bucket] = record
        return true
    }

    mutating func discharge(_ client: UInt32, _ arena: inout Arena, _ pool: inout PagePool) {
        let bucket = Int(client) & (LockTable.clientBuckets - 1)
        var previous: UnsafeMutablePointer<LockClient>? = nil
        var next = clients[bucket]
        while let record = next, record.pointee.client != client {
            previous = record
            next = record.pointee.next
        }
        guard let record = next else { preconditionFailure("what is counted was charged") }
        record.pointee.count -= 1
        if record.pointee.count > 0 { return }
        if let previous {
            previous.pointee.next = record.pointee.next
        } else {
            clients[bucket] = record.pointee.next
        }
        arena.release(record, MemoryLayout<LockClient>.size, &pool)
    }

    /// A record for a lock of this client; nil at a limit or without memory.
    mutating func makeRecord(
        _ lock: LockRequest, _ arena: inout Arena, _ pool: inout PagePool
    ) -> UnsafeMutablePointer<LockRecord>? {
        guard charge(lock.owner.client, &arena, &pool) else { return nil }
        guard let memory = arena.allocate(MemoryLayout<LockRecord>.size, &pool) else {
            discharge(lock.owner.client, &arena, &pool)
            return nil
        }
        let record = memory.bindMemory(to: LockRecord.self, capacity: 1)
        record.initialize(to: LockRecord(next: nil, lock: lock))
        lockCount += 1
        return record
    }

    mutating func free(_ record: UnsafeMutablePointer<LockRecord>, _ arena: inout Arena, _ pool: inout PagePool) {
        discharge(record.pointee.lock.owner.client, &arena, &pool)
        lockCount -= 1
        arena.release(record, MemoryLayout<LockRecord>.size, &pool)
    }
}
