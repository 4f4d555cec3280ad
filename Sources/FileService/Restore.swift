// Bringing back what a store has kept, into a server that has just been made.
//
// Protocol: `FileServer(…, hasRoot: false)`, then `restore` before its first message. What was open only (no names left)
// does not come back: those who had it open had it from the server that died.
// Invariants: numbers, generations, versions and times are as they were, so clients see the same files, and what is made next is
// none of those that are gone; names that a rename of another server had prepared are locked again, until that server commits or
// undoes it. Entries have the cookies that they had, so listings go on where they were. Shards and sharded directories come back as they
// were in the last turn; what was under way with them goes on in `Shards+Recovery`.

import FileStorage
import Fleet
public import Messaging

/// One inode as a store keeps it.
public struct StoredInode {
    public struct Entry: Sendable {
        public var inode: UInt64
        public var kind: UInt8
        /// Its cookie in listings.
        public var place: UInt64
        /// Locked for a rename of another server; without an inode it only reserves the name.
        public var prepared: Prepared?
        public init(inode: UInt64, kind: UInt8, place: UInt64, prepared: Prepared? = nil) {
            self.inode = inode
            self.kind = kind
            self.place = place
            self.prepared = prepared
        }
    }
    public struct Prepared: Sendable {
        public var coordinator: MailboxAddress
        public var cookie: UInt64
        public init(coordinator: MailboxAddress, cookie: UInt64) {
            self.coordinator = coordinator
            self.cookie = cookie
        }
    }
    /// Numbers, counts, times, mode and owner; pointers in it mean nothing.
    public var record: Inode
    public var target: [UInt8] = []
    /// Pages of 4 KiB by index.
    public var pages: [UInt64: [UInt8]] = [:]
    public var attributes: [(name: [UInt8], value: [UInt8])] = []
    public var entries: [[UInt8]: Entry] = [:]
    public init(record: Inode) { self.record = record }
}

extension FileServer {
    /// - Parameter generations: the highest that each slot has given, also to inodes that are gone, so that none is given twice.
    /// - Returns: false if there are not enough pages for it all.
    public mutating func restore(_ stored: [StoredInode], generations: [Int: UInt32]) -> Bool {
        var bySlot: [Int: [StoredInode]] = [:]
        for inode in stored where inode.record.links > 0 { bySlot[SlotTable.slot(ofInode: inode.record.number), default: []].append(inode) }
        for slot in bySlot.keys.sorted() {
            guard restore(slot: slot, bySlot[slot, default: []].sorted { $0.record.number < $1.record.number }) else { return false }
        }
        for (slot, generation) in generations { inodes.skipGenerations(slot: slot, through: generation) }
        return true
    }

    /// A fresh table gives indices in rising order; those between are given back afterwards.
    private mutating func restore(slot: Int, _ stored: [StoredInode]) -> Bool {
        var between: [InodePointer] = []
        for wanted in stored {
            var made: InodePointer?
            while made == nil {
                guard let inode = inodes.create(slot: slot, &arena, &pool) else { return false }
                precondition(inode.pointee.number <= wanted.record.number, "a store has an inode that the table gave before")
                if inode.pointee.number == wanted.record.number { made = inode } else { between.append(inode) }
            }
            guard let inode = made, fill(inode, wanted) else { return false }
        }
        for inode in between { inodes.remove(inode, &arena, &pool) }
        return true
    }

    private mutating func fill(_ inode: InodePointer, _ stored: StoredInode) -> Bool {
        let record = stored.record
        inode.pointee.mode = record.mode
        inode.pointee.uid = record.uid
        inode.pointee.gid = record.gid
        inode.pointee.links = record.links
        inode.pointee.device = record.device
        inode.pointee.generation = record.generation
        inode.pointee.size = record.size
        inode.pointee.version = record.version
        inode.pointee.parent = record.parent
        inode.pointee.accessed = record.accessed
        inode.pointee.modified = record.modified
        inode.pointee.changed = record.changed
        inode.pointee.born = record.born
        for (name, value) in stored.attributes {
            let outcome = name.withUnsafeBytes { name in value.withUnsafeBytes { inode.pointee.xattrs.set(name, $0, .any, &arena, &pool) } }
            guard case .done = outcome else { return false }
        }
        if inode.isSymlink { return stored.target.withUnsafeBytes { inode.symlink.pointee.set($0, &arena, &pool) } }
        if inode.isDirectory { return fillDirectory(inode, stored) }
        guard inode.isRegular else { return true }
        for index in stored.pages.keys.sorted() {
            guard let page = inode.pageMap.pointee.ensure(index, zeroed: true, &pool), let bytes = stored.pages[index] else { return false }
            page.copyMemory(from: bytes, byteCount: min(bytes.count, Limits.pageBytes))
        }
        return true
    }

    private mutating func fillDirectory(_ inode: InodePointer, _ stored: StoredInode) -> Bool {
        inode.directory.initialize(to: Directory(seed: stored.record.number &* 0x9e37_79b9_7f4a_7c15))
        let nextCookie = max(stored.record.nextCookie, (stored.entries.values.map(\.place).max() ?? 0) + 1)
        restoreSharding(inode, stored.record, nextCookie: nextCookie)
        let isShard = inode.pointee.isShard
        for (name, entry) in stored.entries.sorted(by: { $0.value.place < $1.value.place }) {
            let made = name.withUnsafeBytes { name in
                isShard
                    ? inode.directory.pointee.adopt(name, inode: entry.inode, kind: entry.kind, lowCookie: entry.place, &arena, &pool)
                    : inode.directory.pointee.adopt(name, inode: entry.inode, kind: entry.kind, cookie: entry.place, &arena, &pool)
            }
            guard let dentry = made else { return false }
            let isPlaceholder = entry.inode == 0
            if entry.kind == Mode.directoryKind, !isPlaceholder { inode.pointee.subdirectories &+= 1 }
            guard let prepared = entry.prepared else { continue }
            lock(dentry, in: inode)
            if isPlaceholder { dentry.pointee.flags.insert(.placeholder) }
            preparedNames.add(
                PreparedName(coordinator: prepared.coordinator, cookie: prepared.cookie, directory: inode.pointee.number, dentry: dentry))
        }
        inode.directory.pointee.skipCookies(to: nextCookie)
        return true
    }
}

extension Inode {
    /// Of a directory's record, also of a copy: the cookie that the next entry would have got.
    fileprivate var nextCookie: UInt64 {
        var copy = self
        return withUnsafeMutablePointer(to: &copy) { $0.directory.pointee.nextCookie }
    }
}
