// Sharded directories: which record has the entries that a request is about.
//
// Role: between the directory that a request names and the functions that serve entries. They are handed a record with
// entries (the directory itself, or a shard of it) and need not know which.
// Protocol (fos/shard.h): the directory's owner has shard 0, and every name of a shard that is not in use yet. A server
// with a shard serves the names that belong to it; anybody else passes the request on, to where the shard should be or to the
// directory's owner, who knows.
// Invariants: a name is in one record at any time, and while it is on its way it is answered RETRY; a record that is
// sealed answers RETRY for every name; mode, owner and group of a shard are those of its directory. A shard moves with its
// slot as any inode does (`SlotMotion`), but not while it is sealed: a seal counts as a transaction. What a server's death
// does to shards: `Shards+Loss`.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

/// When directories are sharded.
public struct Sharding: Sendable {
    /// Entries from which on a directory is spread; 0: never.
    public var threshold: Int
    /// Binary logarithm of the most shards.
    public var bitsMax: Int
    /// - Parameters:
    ///   - threshold: entries; a listing or a stat(2) of a sharded directory is a message to each shard, so it should have
    ///     thousands.
    ///   - bitsMax: 0...12; there are no more shards than members, rounded up to a power of two.
    public init(threshold: Int = 4096, bitsMax: Int = 10) {
        self.threshold = max(0, threshold)
        self.bitsMax = min(max(0, bitsMax), Int(FOS_SHARD_BITS_MAX))
    }
    /// Every directory stays with one server.
    public static var never: Sharding { Sharding(threshold: 0) }
    /// What a mount has unless it says otherwise. With fewer than four servers, or several of them on one core, one of them serves a
    /// directory as fast, and listing and removing it takes fewer messages.
    public static func usual(servers: Int, cores: Int) -> Sharding { servers >= 4 && cores >= 4 ? Sharding() : .never }
}

/// Where the record with a name is.
enum EntryPlace {
    case here(InodePointer)
    /// At another member, or on the way to it: the slot that it goes by.
    case elsewhere(Int, slot: Int)
    /// On its way, or not to be touched now.
    case moving
    /// There is no such directory.
    case gone
    /// With a server that has died.
    case lost
}

extension FileServer {
    /// Serves a request for a name of a directory that is sharded, by the record that has the name. False: it is about the
    /// directory as a whole, or as far as this server knows the directory is.
    mutating func serveEntry<K: Kernel>(_ operation: fos_operation, _ number: UInt64, _ request: Request, _ kernel: K) -> Bool {
        guard let name = entryName(of: request) else { return false }
        switch place(of: name, in: number, request, kernel) {
        case .here(let record):
            if isOnItsWay(record), motion.giving?.isClosing != false || !Self.isReading(operation) {
                motion.delayed += 1
                answer(Status.retry, kernel)
            } else {
                serve(operation, record, request, kernel)
            }
        case .elsewhere(let owner, let slot): pass(request, to: owner, slot: slot, kernel)
        case .moving: answer(Status.retry, kernel)
        case .gone: answer(isLost(number) ? -EIO : -ESTALE, kernel)
        case .lost: answer(-EIO, kernel)
        }
        return true
    }

    /// Whether a directory that is elsewhere may have a shard here.
    func mayHaveShards<K: Kernel>(_ directory: UInt64, _ kernel: K) -> Bool {
        sharding.threshold > 0 && kernel.shardBits(of: directory) > 0
    }

    /// The name of the entry that a request is about, if it is about one.
    private func entryName(of request: Request) -> UnsafeRawBufferPointer? {
        let payload = request.payload
        var length: UInt32 = 0
        guard let base = payload.baseAddress,
            let name = fos_entry_name(
                UInt32(request.operation), base.assumingMemoryBound(to: UInt8.self), UInt32(payload.count), &length)
        else { return nil }
        return UnsafeRawBufferPointer(start: name, count: Int(length))
    }

    func shard(of name: UnsafeRawBufferPointer, in directory: UInt64, bits: Int) -> Int {
        Int(fos_shard_of(directory, name.baseAddress, UInt32(name.count), UInt32(bits)))
    }
    func slot(ofShard shard: Int, of directory: UInt64) -> Int { Int(fos_shard_slot(directory, UInt32(shard))) }

    /// The member that has a shard, or knows who has; or would have it. `isSettled`: the slot's giver has not got it.
    func owner(ofShard shard: Int, of directory: UInt64, isSettled: Bool = false) -> Int {
        if shards.find(directory, shard) != nil { return member }
        let slot = slot(ofShard: shard, of: directory)
        // Before the taker has agreed it knows of nothing.
        if let giving = motion.giving, giving.slot == slot { return giving.stage == .begin ? member : giving.taker }
        if let taking = motion.taking, taking.slot == slot { return isSettled ? member : taking.giver }
        return slots.owner(ofSlot: slot)
    }

    /// The record of a directory that is here, or on its way from here.
    func directoryHere(_ number: UInt64) -> InodePointer? { isHere(number) ? inodes.find(number) : onItsWay(number) }

    func isOnItsWay(_ record: InodePointer) -> Bool { motion.giving?.inode == record }

    /// Where a name of a directory is, as far as this server knows. `isLocked`: a transaction holds the name, so it stays
    /// where it is, sealed or not, until that is over. `request`: which is about the name, with what others said of it.
    func place<K: Kernel>(
        of name: UnsafeRawBufferPointer, in directory: UInt64, isLocked: Bool = false, _ request: Request?, _ kernel: K
    ) -> EntryPlace {
        let settled = request?.envelope.pointee.settled ?? 0
        guard let inode = directoryHere(directory) else {
            if isHere(directory) { return .gone }
            let owner = EntryPlace.elsewhere(ownerIndex(of: directory), slot: SlotTable.slot(ofInode: directory))
            // With the directory all its shards are lost. Who has a shard's slot may not have heard of it yet, and would pass the request
            // on to where the directory was.
            if members.isDead(ownerIndex(of: directory)), !isLocked { return .lost }
            guard sharding.threshold > 0 else { return owner }
            let shard = shard(of: name, in: directory, bits: kernel.shardBits(of: directory))
            return shard == 0 ? owner : place(ofShard: shard, of: directory, isLocked, settled, otherwise: owner)
        }
        guard inode.pointee.isSharded else { return .here(inode) }
        if inode.pointee.flags.contains(.sealed), !isLocked { return .moving }
        let shard = shard(of: name, in: directory, bits: inode.pointee.shardBits)
        if shard == 0 || shard >= inode.pointee.activeShards + inode.pointee.movingShards { return .here(inode) }
        if shard >= inode.pointee.activeShards { return .moving }
        return place(ofShard: shard, of: directory, isLocked, (settled | Settled.inUse) & ~Settled.noShard, otherwise: .moving)
    }

    private func place(ofShard shard: Int, of directory: UInt64, _ isLocked: Bool, _ settled: UInt8, otherwise: EntryPlace) -> EntryPlace {
        if let record = shards.find(directory, shard) {
            if isLocked { return .here(record) }
            if record.pointee.isDoubted { return members.isDead(ownerIndex(of: directory)) ? .lost : .moving }
            return record.pointee.flags.contains(.sealed) ? .moving : .here(record)
        }
        let slot = slot(ofShard: shard, of: directory)
        if isUnknown(slot: slot) { return .moving }
        if settled & Settled.noShard != 0 { return otherwise }
        let owner = owner(ofShard: shard, of: directory, isSettled: settled & Settled.shard != 0)
        if owner != member { return .elsewhere(owner, slot: slot) }
        return settled & Settled.inUse != 0 && isLost(slot: slot) ? .lost : otherwise
    }

    /// The same, for who will change the name here: a record that is on its way is not changed.
    func placeToChange<K: Kernel>(_ name: UnsafeRawBufferPointer, in directory: UInt64, _ kernel: K) -> EntryPlace {
        let place = place(of: name, in: directory, nil, kernel)
        if case .here(let record) = place, isOnItsWay(record) { return .moving }
        return place
    }

    /// The entries of a directory, or of a shard of it, have changed: times, and the events that `Shards+Together` asks for.
    @inline(__always) mutating func markEntriesModified(_ directory: InodePointer, _ now: Timestamp) {
        markModified(directory, now)
        if !directory.pointee.flags.isDisjoint(with: [.shard, .sharded]) { directory.pointee.shardEvents.insert(.modified) }
    }

    /// The store hears what a name of a record leads to.
    @inline(__always) mutating func committedName(_ directory: InodePointer, _ dentry: DentryPointer) {
        store.committed(
            .entry(
                record: directory.pointee.number, name: dentry.name, inode: dentry.pointee.inode, kind: dentry.pointee.kind,
                place: dentry.pointee.cookie))
    }

    /// A change of one entry is made: the store follows it, and clients see the epoch of the name's shard move.
    @inline(__always) mutating func committedEntry<K: Kernel>(_ directory: InodePointer, _ name: UnsafeRawBufferPointer, _ kernel: K) {
        store.committed(.inode(directory))
        if directory.pointee.flags.isDisjoint(with: [.shard, .sharded]) { return kernel.changed(inode: directory.pointee.number) }
        let number = directory.pointee.directoryNumber
        kernel.changed(inode: fos_shard_key(number, UInt32(shard(of: name, in: number, bits: directory.pointee.shardBits))))
    }

    /// A directory has an entry more: if it is large now, its entries begin to spread.
    @inline(__always) mutating func considerSpreading<K: Kernel>(_ directory: InodePointer, _ kernel: K) {
        let count = directory.directory.pointee.count
        guard sharding.threshold > 0, count >= sharding.threshold, count % sharding.threshold == 0,
            directory.pointee.flags.isDisjoint(with: [.shard, .sharded, .dead])
        else { return }
        beginSpreading(directory, kernel)
    }
}
