// Which client holds how many references to which inode, and what it may do through them.
//
// Role: references of clients other than the front end, so that a client's death gives all of them back. An open file
// stays readable and writable when its mode changes (POSIX), so what OPEN granted is kept here too, for as long as there
// are references that were granted it.
// Invariants: `inode.references` is the sum of the counts of its entries. Entries are bounded, for each client and in
// all, as the memory is not the mount's. Open addressing with linear probing and backward-shift deletion (Knuth 6.4,
// algorithm R); grows when three quarters full, shrinks never.

import CFosWire
import FileStorage
import Glibc

struct OpenFileTable: ~Copyable {
    private struct Entry: BitwiseCopyable {
        var inode: UInt64 = 0  // 0 = free
        var client: UInt32 = 0
        var count: UInt32 = 0
        /// References for reading, and for writing; some are for both, and some for neither.
        var readers: UInt32 = 0
        var writers: UInt32 = 0
    }
    private var entries: UnsafeMutablePointer<Entry>
    private var mask: Int
    private(set) var count = 0
    /// Entries of each client, by its index.
    private var clients: UnsafeMutablePointer<UInt32>
    private var clientCapacity = 64

    init() {
        clients = .allocate(capacity: clientCapacity)
        clients.initialize(repeating: 0, count: clientCapacity)
        mask = 255
        entries = .allocate(capacity: 256)
        entries.initialize(repeating: Entry(), count: 256)
    }
    deinit {
        entries.deallocate()
        clients.deallocate()
    }

    /// The error of one more open file of a client; 0 if there is room.
    func refusal(_ client: UInt32) -> Int32 {
        if Int(client) < clientCapacity, clients[Int(client)] >= Limits.openFilesOfClient { return -EMFILE }
        return count < Limits.openFiles ? 0 : -ENFILE
    }

    /// The access that open(2) flags ask for.
    static func granted(_ openFlags: UInt32) -> UInt32 {
        switch openFlags & (OpenFlag.accessMode | OpenFlag.path) {
        case 0: Access.read
        case OpenFlag.writeOnly: Access.write
        case OpenFlag.readWrite: Access.read | Access.write
        default: 0
        }
    }

    /// The access that a client says its references were for, as it gives them back.
    static func granted(release flags: UInt32) -> UInt32 {
        (flags & FOS_RELEASE_READING.rawValue != 0 ? Access.read : 0) | (flags & FOS_RELEASE_WRITING.rawValue != 0 ? Access.write : 0)
    }

    @inline(__always) private func home(_ inode: UInt64, _ client: UInt32) -> Int {
        var hash = (inode ^ UInt64(client) << 40) &* 0x9e37_79b9_7f4a_7c15
        hash ^= hash >> 29
        return Int(truncatingIfNeeded: hash) & mask
    }
    private func find(_ inode: UInt64, _ client: UInt32) -> Int? {
        var position = home(inode, client)
        while entries[position].inode != 0 {
            if entries[position].inode == inode, entries[position].client == client { return position }
            position = (position + 1) & mask
        }
        return nil
    }

    func granted(_ client: UInt32, _ inode: UInt64) -> UInt32 {
        guard count > 0, let position = find(inode, client) else { return 0 }
        return (entries[position].readers > 0 ? Access.read : 0) | (entries[position].writers > 0 ? Access.write : 0)
    }

    func contains(_ client: UInt32, _ inode: UInt64) -> Bool { count > 0 && find(inode, client) != nil }

    /// One reference more. The caller has asked for the refusal.
    mutating func add(_ client: UInt32, _ inode: InodePointer, granted: UInt32) {
        let number = inode.pointee.number
        if let position = find(number, client) {
            guard entries[position].count < UInt32.max else { return }
            entries[position].count += 1
            entries[position].readers += granted & Access.read != 0 ? 1 : 0
            entries[position].writers += granted & Access.write != 0 ? 1 : 0
        } else {
            if (count + 1) * 4 > (mask + 1) * 3 { grow() }
            insert(
                Entry(
                    inode: number, client: client, count: 1, readers: granted & Access.read != 0 ? 1 : 0,
                    writers: granted & Access.write != 0 ? 1 : 0))
            count += 1
            countEntry(of: client)
        }
        inode.pointee.references += 1
    }

    /// At most `times` references less; a client cannot give back what it has not taken. `granted`: what they were for,
    /// if the client says so; what it does not give back it may go on using.
    mutating func remove(_ client: UInt32, _ inode: InodePointer, _ times: UInt32, granted: UInt32) {
        guard let position = find(inode.pointee.number, client) else { return }
        let taken = min(times, entries[position].count)
        entries[position].count -= taken
        let (readers, writers) = (entries[position].readers, entries[position].writers)
        entries[position].readers = min(granted & Access.read != 0 ? readers - min(taken, readers) : readers, entries[position].count)
        entries[position].writers = min(granted & Access.write != 0 ? writers - min(taken, writers) : writers, entries[position].count)
        inode.pointee.references -= taken
        if entries[position].count == 0 { delete(position) }
    }

    // MARK: Inodes that move to another server

    /// The first client at or after an index that has anything open.
    func nextClient(from client: UInt32) -> UInt32? {
        var index = Int(client)
        while index < clientCapacity {
            if clients[index] > 0 { return UInt32(index) }
            index += 1
        }
        return nil
    }

    /// What a client holds of an inode.
    func held(_ client: UInt32, _ inode: UInt64) -> (count: UInt32, readers: UInt32, writers: UInt32)? {
        guard count > 0, let position = find(inode, client) else { return nil }
        return (entries[position].count, entries[position].readers, entries[position].writers)
    }

    /// References that a client took at another server. The limits were kept there.
    mutating func adopt(_ client: UInt32, _ inode: InodePointer, count taken: UInt32, readers: UInt32, writers: UInt32) {
        guard taken > 0, find(inode.pointee.number, client) == nil else { return }
        if (count + 1) * 4 > (mask + 1) * 3 { grow() }
        insert(Entry(inode: inode.pointee.number, client: client, count: taken, readers: min(readers, taken), writers: min(writers, taken)))
        count += 1
        countEntry(of: client)
        inode.pointee.references += taken
    }

    /// Forgets all references to an inode that is here no more.
    mutating func dropAll(_ inode: InodePointer) {
        var client: UInt32 = 0
        while inode.pointee.references > 0, let found = nextClient(from: client) {
            client = found + 1
            guard let position = find(inode.pointee.number, found) else { continue }
            inode.pointee.references -= min(entries[position].count, inode.pointee.references)
            delete(position)
        }
    }

    /// Takes out the next entry of a client at or after a position; nil when there is none. A deletion moves entries
    /// back into the hole at the position, or over the end of the table, where the scan has been or still comes.
    mutating func removeNext(of client: UInt32, from position: inout Int) -> (inode: UInt64, count: UInt32)? {
        while count > 0, position <= mask {
            let entry = entries[position]
            if entry.inode != 0, entry.client == client {
                delete(position)
                return (entry.inode, entry.count)
            }
            position += 1
        }
        return nil
    }

    private func insert(_ entry: Entry) {
        var position = home(entry.inode, entry.client)
        while entries[position].inode != 0 { position = (position + 1) & mask }
        entries[position] = entry
    }

    private mutating func delete(_ start: Int) {
        var hole = start
        var position = start
        count -= 1
        clients[Int(entries[start].client)] -= 1
        while true {
            position = (position + 1) & mask
            if entries[position].inode == 0 { break }
            // An entry may move into the hole if its home is not cyclically within (hole, position].
            let distanceHome = (position - home(entries[position].inode, entries[position].client)) & mask
            if distanceHome >= (position - hole) & mask {
                entries[hole] = entries[position]
                hole = position
            }
        }
        entries[hole] = Entry()
    }

    private mutating func countEntry(of client: UInt32) {
        if Int(client) >= clientCapacity {
            let capacity = max(clientCapacity * 2, Int(client) + 1)
            let larger = UnsafeMutablePointer<UInt32>.allocate(capacity: capacity)
            larger.initialize(repeating: 0, count: capacity)
            larger.update(from: clients, count: clientCapacity)
            clients.deallocate()
            clients = larger
            clientCapacity = capacity
        }
        clients[Int(client)] += 1
    }

    private mutating func grow() {
        let old = entries
        let oldCount = mask + 1
        mask = oldCount * 2 - 1
        entries = .allocate(capacity: oldCount * 2)
        entries.initialize(repeating: Entry(), count: oldCount * 2)
        for position in 0..<oldCount where old[position].inode != 0 { insert(old[position]) }
        old.deallocate()
    }
}
