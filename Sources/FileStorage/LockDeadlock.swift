// Deadlock detection: would this wait close a circle of waits?
//
// The owners of POSIX locks and their waits form a graph: a waiting owner points at the owners of all locks that
// conflict with what it waits for, on any inode of this server. A request that must wait is refused with EDEADLK when
// the search from it comes back to its own owner (fcntl(2), F_SETLKW). As in Linux, OFD locks and flocks take no part,
// threads of one process are one owner, and the search gives up (no deadlock) after a bounded number of waits.
// Linux bounds no more than that; here others wait meanwhile, so the looks at locks and waiters are bounded too, over all
// searches of one request: with many locks and waits on a file a circle may be missed, and then ends with a signal.
// No circle lasts: a new wait is searched from before it begins, and a new lock from all waits that it is in the way of.
// Circles through inodes of several servers are not seen, as each server knows its own waits only.

extension LockTable {
    /// Waits that one search looks at.
    static var searchLimit: Int { 1024 }
    /// Locks and waiters that all searches of one request look at: a few milliseconds.
    static var looksLimit: Int { 1 << 18 }

    /// Whether a wait for `request` on this list leads back to the request's owner.
    mutating func closesCircle(_ list: UnsafeMutablePointer<LockList>, _ request: LockRequest) -> Bool {
        if request.owner.isDescription || waiterCount == 0 || looks <= 0 { return false }
        search += 1
        var work: UnsafeMutablePointer<LockWaiter>? = nil
        var met = 0
        var current = request
        var place = list
        while true {
            var next = place.pointee.ranges
            while let record = next {
                next = record.pointee.next
                looks -= 1
                if looks <= 0 { return false }
                let held = record.pointee.lock
                guard held.conflicts(current), !held.owner.isDescription else { continue }
                if held.owner == request.owner { return true }
                // Everything that the holder of this lock waits for is still to be followed, each wait once.
                var chain = waiters[LockTable.bucket(held.owner)]
                while let waiter = chain {
                    chain = waiter.pointee.chain
                    looks -= 1
                    guard waiter.pointee.request.owner == held.owner, !waiter.pointee.isFlock,
                        waiter.pointee.search != search
                    else { continue }
                    met += 1
                    if met > LockTable.searchLimit { return false }
                    waiter.pointee.search = search
                    waiter.pointee.work = work
                    work = waiter
                }
            }
            guard let waiter = work else { return false }
            work = waiter.pointee.work
            current = waiter.pointee.request
            place = waiter.pointee.list
        }
    }
}
