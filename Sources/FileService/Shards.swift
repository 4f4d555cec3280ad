// Sharded directories: which record has the entries that a request is about.
//
// Role: between the directory that a request names and the functions that serve entries. They are handed a record with
// entries (the directory itself, or a shard of it) and need not know which.
// Protocol (fos/shard.h): the directory's owner has shard 0, and every name of a shard that is not in use yet. A server
// with a shard serves the names that belong to it; anybody else forwards to the directory's owner, who knows.
// Invariants: a name is in one record at any time, and while it is on its way it is answered RETRY; a record that is
// sealed answers RETRY for every name; mode, owner and group of a shard are those of its directory. While directories may be
// sharded, no slot moves; and a shard that dies with its server is not told from one that is late, so a fleet whose servers die
// one by one is run without.

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
}

/// Where the record with a name is.
enum EntryPlace {
    case here(InodePointer)
    case elsewhere(Int)
    /// On its way, or not to be touched now.
    case moving
    case gone
}

extension FileServer {
    /// Serves a request for a name of a directory that is sharded, if it is one, by the record that has the name. False: it
    /// is about an inode as a whole, or a directory that is whole as far as this server knows.
    mutating func serveEntry<K: Kernel>(_ operation: fos_operation, _ number: UInt64, _ request: Request, _ kernel: K) -> Bool {
        if sharding.threshold == 0 { return false }
        if isHere(number) {
            guard inodes.find(number)?.pointee.isSharded == true else { return false }
        } else if shards.count == 0 {
            return false
        }
        guard let name = entryName(of: request) else { return false }
        switch place(of: name, in: number) {
        case .here(let record): serve(operation, record, request, kernel)
        case .elsewhere(let owner): pass(request, to: owner, kernel)
        case .moving: answer(Status.retry, kernel)
        case .gone: answer(isLost(number) ? -EIO : -ESTALE, kernel)
        }
        return true
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
    func owner(ofShard shard: Int, of directory: UInt64) -> Int {
        slots.owner(ofSlot: Int(fos_shard_slot(directory, UInt32(shard))))
    }

    /// Where a name of a directory is, as far as this server knows. `isLocked`: a transaction holds the name, so it stays
    /// where it is, sealed or not, until that is over.
    func place(of name: UnsafeRawBufferPointer, in directory: UInt64, isLocked: Bool = false) -> EntryPlace {
        guard isHere(directory) else {
            if let bits = shards.bits(of: directory), let record = shards.find(directory, shard(of: name, in: directory, bits: bits)) {
                return isLocked || !record.pointee.flags.contains(.sealed) ? .here(record) : .moving
            }
            return .elsewhere(ownerIndex(of: directory))
        }
        guard let inode = inodes.find(directory) else { return .gone }
        guard inode.pointee.isSharded else { return .here(inode) }
        if inode.pointee.flags.contains(.sealed), !isLocked { return .moving }
        let shard = shard(of: name, in: directory, bits: inode.pointee.shardBits)
        if shard == 0 || shard >= inode.pointee.activeShards + inode.pointee.movingShards { return .here(inode) }
        if shard >= inode.pointee.activeShards { return .moving }
        let owner = owner(ofShard: shard, of: directory)
        guard owner == member else { return .elsewhere(owner) }
        guard let record = shards.find(directory, shard) else { return .moving }
        return isLocked || !record.pointee.flags.contains(.sealed) ? .here(record) : .moving
    }

    /// The entries of a directory, or of a shard of it, have changed: times, and the events that `Shards+Together` asks for.
    @inline(__always) mutating func markEntriesModified(_ directory: InodePointer, _ now: Timestamp) {
        markModified(directory, now)
        if !directory.pointee.flags.isDisjoint(with: [.shard, .sharded]) { directory.pointee.shardEvents.insert(.modified) }
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
