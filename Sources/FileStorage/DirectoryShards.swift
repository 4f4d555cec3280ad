// What an inode record says of sharding: of a directory that is spread over shards, and of a shard.
//
// Role: a shard is an inode record of its slot's owner whose `parent` is the directory that it is part of, so that it
// moves with its slot as any inode does. Both kinds keep their place in words that a directory does not use: `size` has
// the parts below, `device` the first cookie that was not the undivided directory's.
// Invariants: a directory is `.sharded` or none of this is set; a record is never `.sharded` and `.shard`; names of
// shards from `active + moving` on are still in the directory's own record, and those in between are on their way.

extension InodeFlags {
    /// Of a sharded directory or a shard: entries are not served now. The bit means something else of regular files, as does
    /// that of `.spreading`.
    public static var sealed: InodeFlags { InodeFlags(rawValue: 64) }
    /// A directory whose entries are, or are about to be, spread over shards.
    public static var sharded: InodeFlags { InodeFlags(rawValue: 128) }
    /// Of a sharded directory: entries are on their way to shards. Of a shard: it is being filled.
    public static var spreading: InodeFlags { InodeFlags(rawValue: 4) }
}

/// Events since the times of a directory were last made equal in all shards.
public struct ShardEvents: OptionSet, BitwiseCopyable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static var modified: ShardEvents { ShardEvents(rawValue: 1) }
    public static var accessed: ShardEvents { ShardEvents(rawValue: 2) }
}

extension Inode {
    /// Bits of `size`: the number of a shard, or the shards that are in use (0 ..< 16); those that are being filled, or who has
    /// sealed a shard (16 ..< 32); the logarithm of all (32 ..< 40); events (40 ..< 48), and those before a seal (48 ..< 56); doubt (56);
    /// whether what a seal was for is done (57).
    @inlinable func part(_ shift: UInt64, _ mask: UInt64) -> Int { Int(truncatingIfNeeded: size >> shift & mask) }
    @inlinable mutating func setPart(_ shift: UInt64, _ mask: UInt64, _ value: Int) {
        size = size & ~(mask << shift) | (UInt64(truncatingIfNeeded: value) & mask) << shift
    }

    /// Of a shard: which one, from 1.
    @inlinable public var shardIndex: Int {
        get { part(0, 0xffff) }
        set { setPart(0, 0xffff, newValue) }
    }
    /// Of a sharded directory: shards that have their entries, its own record included, from the first on.
    @inlinable public var activeShards: Int {
        get { part(0, 0xffff) }
        set { setPart(0, 0xffff, newValue) }
    }
    /// Of a sharded directory: shards behind those that are being filled.
    @inlinable public var movingShards: Int {
        get { part(16, 0xffff) }
        set { setPart(16, 0xffff, newValue) }
    }
    /// Of a sealed shard: the member that has sealed it, as the owner of the directory, and will open it or drop it.
    @inlinable public var sealer: Int {
        get { part(16, 0xffff) }
        set { setPart(16, 0xffff, newValue) }
    }
    /// Binary logarithm of the directory's shards.
    @inlinable public var shardBits: Int {
        get { part(32, 0xff) }
        set { setPart(32, 0xff, newValue) }
    }
    @inlinable public var shardEvents: ShardEvents {
        get { ShardEvents(rawValue: UInt8(truncatingIfNeeded: part(40, 0xff))) }
        set { setPart(40, 0xff, Int(newValue.rawValue)) }
    }
    /// Of a sealed shard: what its events were.
    @inlinable public var eventsBeforeSeal: ShardEvents {
        get { ShardEvents(rawValue: UInt8(truncatingIfNeeded: part(48, 0xff))) }
        set { setPart(48, 0xff, Int(newValue.rawValue)) }
    }
    /// Of a shard: a server has died, and whether the directory was lost with it is not known yet.
    @inlinable public var isDoubted: Bool {
        get { isShard && part(56, 1) != 0 }
        set { setPart(56, 1, newValue ? 1 : 0) }
    }
    /// Of a sealed directory: what its shards were sealed for is done, and they open with its new state; else they open as they were.
    @inlinable public var isChanged: Bool {
        get { part(57, 1) != 0 }
        set { setPart(57, 1, newValue ? 1 : 0) }
    }
    /// Cookies below are of entries that were there before the directory was sharded.
    @inlinable public var firstShardCookie: UInt64 {
        get { UInt64(device) }
        set { device = UInt32(truncatingIfNeeded: newValue) }
    }
    @inlinable public var isShard: Bool { flags.contains(.shard) }
    @inlinable public var isSharded: Bool { flags.contains(.sharded) }
    /// The directory that a record of entries is, or is part of.
    @inlinable public var directoryNumber: UInt64 { isShard ? parent : number }

    /// The directory is whole again.
    public mutating func forgetShards() {
        size = 0
        device = 0
        flags.subtract([.sharded, .sealed, .spreading])
    }
}
