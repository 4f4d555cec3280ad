// Which transactions of other servers have lately taken a link of an inode here: what is asked when one of those servers dies.
//
// Why: a rename takes the link of what its new name meant before it commits the name. If its server dies in between, the
// name's server must know whether the name goes with its link, or stays.
// What is known of an inode moves with it to another server.
// Invariants: the newest `Limits.takenLinks` are kept; one is needed from the taking to the commit, a round trip or two.

import CFosWire
import FileStorage
import Messaging

extension Limits {
    static var takenLinks: Int { 256 }
}

struct TakenLinks: ~Copyable {
    private struct Taken: BitwiseCopyable {
        var inode: UInt64 = 0
        var cookie: UInt64 = 0
        var coordinator: fos_mailbox = 0
    }
    private let ring: UnsafeMutablePointer<Taken>
    private var next = 0

    init() {
        ring = .allocate(capacity: Limits.takenLinks)
        ring.initialize(repeating: Taken(), count: Limits.takenLinks)
    }
    deinit { ring.deallocate() }

    mutating func add(_ inode: UInt64, _ cookie: UInt64, of coordinator: fos_mailbox) {
        ring[next] = Taken(inode: inode, cookie: cookie, coordinator: coordinator)
        next = (next + 1) % Limits.takenLinks
    }
    /// The next one of an inode, at `place` or later, and where it is.
    func next(of inode: UInt64, from place: Int) -> (link: fos_peer_link, place: Int)? {
        guard let found = (place..<Limits.takenLinks).first(where: { ring[$0].inode == inode && ring[$0].coordinator != 0 }) else {
            return nil
        }
        return (fos_peer_link(cookie: ring[found].cookie, coordinator: UInt64(ring[found].coordinator)), found)
    }
    /// The inode that a transaction has changed last.
    func inode(_ cookie: UInt64, of coordinator: fos_mailbox) -> UInt64? {
        for index in 0..<Limits.takenLinks where ring[index].cookie == cookie && ring[index].coordinator == coordinator {
            return ring[index].inode
        }
        return nil
    }
    func contains(_ inode: UInt64, _ cookie: UInt64, of coordinator: fos_mailbox) -> Bool {
        for index in 0..<Limits.takenLinks
        where ring[index].inode == inode && ring[index].cookie == cookie && ring[index].coordinator == coordinator {
            return true
        }
        return false
    }
}
