// The limits of one file server, as numbers and as the sums they come from.

import CFosWire

enum Limits {
    /// Transactions of one server that wait for something. A fleet of 256 members with a client of 256 channels each
    /// has 256 requests under way at a server in the common worst case; the rest is answered RETRY.
    static var continuations: Int { 1024 }
    /// Lock requests that wait. They wait as long as a program likes, so they do not share the bound above.
    static var lockWaiters: Int { 4096 }
    /// Inodes that one client has open at a server, and all clients: as many as Linux lets a process and a machine by
    /// default (fs.nr_open is sixteen times the first). The second is 32 MiB of a server's memory.
    static var openFilesOfClient: UInt32 { 65536 }
    static var openFiles: Int { 1 << 20 }
    /// Revocations that met a full notice ring: as many as there are continuations, with four notices each.
    static var owedNotices: Int { 4096 }
    /// For which the kernel believes that a name is absent.
    static var absentNanoseconds: UInt64 { UInt64(FOS_ABSENT_SECONDS) * 1_000_000_000 }
    /// Files beside the one that is read, of which the kernel is told to let go with it: at first, and at most. And how many
    /// inode numbers are looked at for them.
    static var flushedAheadAtFirst: Int { 4 }
    static var flushedAheadMost: Int { 32 }
    static var flushedAheadNumbers: Int { 64 }
    /// Free slots in the notice ring that a change asks for before it begins: a rename sends at most
    /// two entries, two directories and two inodes.
    static var noticesOfOneChange: Int { 8 }
    /// Forwards of one request: the client's hint was stale, and then the fleet's own tables disagree for a moment.
    static var hops: UInt16 { 16 }
    /// Messages to shards of one directory that are under way at once, and what one step of spreading a directory
    /// moves: shards, and about so many entries.
    static var shardsAtOnce: Int32 { 16 }
    static var shardsOfStep: Int { 32 }
    /// A message to a shard, or a step of spreading, that is refused is repeated so often at once, and then with each tick.
    static var shardTriesAtOnce: UInt8 { 16 }
    static var entriesOfStep: Int { 1024 }
    /// Largest size of a file: off_t.
    static var fileBytes: UInt64 { UInt64(Int64.max) }
    /// Messages about a file that clients may write to in shared memory, and did not, until they may no longer: meanwhile
    /// nobody keeps anything of it.
    static var idleUsesOfWriting: UInt32 { 16 }
    /// Files of one server that clients have mapped: each is a descriptor of the process.
    static var mappedFiles: Int { 128 }
    /// Channels that one server has delegated a file to, a power of two; what is held for the record of one, and how many credits a
    /// server must have to delegate anything (32 MiB): where space is short, a write says so at once.
    static var delegations: Int { 128 }
    static var pagesOfRecord: Int { Int(creditsOfPages(UInt64(FOS_DELEGATED_BYTES_MAX) / UInt64(FOS_PAGE_BYTES) + 2)) }
    static var creditsToDelegate: Int { 8192 }
    static var pageBytes: Int { Int(FOS_PAGE_BYTES) }
    /// Pages that a server asks its peers for beyond what it needs at once (4 MiB), so that it does not ask often.
    static var creditsBulk: UInt64 { 1024 }
    /// Pages that any metadata operation may need: a chunk of the arena, and one more.
    static var creditsOfMetadata: UInt64 { 32 }
    /// Nodes of a page map that a range may need beside those it fills: at each of its two ends one a level (9 bits of the
    /// index each, 54 bits), and the roots that a map grows when an index beyond its height is first used.
    static var mapNodes: UInt64 { 21 }
    /// Pages that one step of a long FALLOCATE gives, clears or takes away (16 MiB: some milliseconds), so that others wait
    /// no longer than that.
    static var pagesOfStep: UInt64 { 4096 }
    /// Discarded pages that are given back with a request (3 us), and at a tick (a millisecond; 6 GiB a second).
    static var discardedOfRequest: UInt64 { 64 }
    static var discardedOfTick: UInt64 { 16384 }
    /// Upper bound of the credits for so many new pages of a file.
    static func creditsOfPages(_ missing: UInt64) -> UInt64 { missing == 0 ? 0 : missing + missing / 511 + mapNodes }
    /// Free pages below which a server asks the memory fleet for an extent of 4 MiB, more than the largest write needs; and
    /// those that it keeps when others go back.
    static var pagesInStock: Int { 768 }
    static var pagesKept: Int { 2048 }
    /// Extents that one request asks for at once, and that one tick gives back.
    static var extentsAtOnce: Int { 8 }
    static var extentsOfTick: Int { 32 }
    /// Bytes that one COPY_RANGE moves at most: within a server, and through messages from another one.
    static var copyBytes: UInt64 { UInt64(FOS_TRANSFER_BYTES_MAX) }
    static var copyBytesBetweenServers: UInt64 { 256 * 1024 }
    /// st_size of a directory, for each entry.
    static var bytesOfEntry: UInt64 { 32 }
    /// statfs: empty files that a free page has room for (an inode, its entry and their share of the tables).
    static var inodesOfPage: UInt64 { 8 }
    /// Bytes of a READ from which on the front end is lent the pages; below, copying is cheaper than a second message.
    static var leastLent: Int { 128 * 1024 }
    /// Names of links and bits of open(2), as Linux numbers them on every architecture that fos runs on.
    static var linksMax: UInt32 { UInt32(FOS_LINKS_MAX) }
}

/// open(2) flags, as the wire carries them (x86-64 and most others).
enum OpenFlag {
    static var accessMode: UInt32 { 0o3 }
    static var writeOnly: UInt32 { 0o1 }
    static var readWrite: UInt32 { 0o2 }
    static var exclusive: UInt32 { 0o200 }
    static var truncate: UInt32 { 0o1000 }
    static var directory: UInt32 { 0o200000 }
    static var noAccessTime: UInt32 { 0o1000000 }
    static var path: UInt32 { 0o10000000 }
}

/// Type and permission bits of st_mode (inode(7)).
enum Mode {
    static var typeMask: UInt32 { 0o170000 }
    static var fifo: UInt32 { 0o010000 }
    static var characterDevice: UInt32 { 0o020000 }
    static var directory: UInt32 { 0o040000 }
    static var blockDevice: UInt32 { 0o060000 }
    static var regular: UInt32 { 0o100000 }
    static var symlink: UInt32 { 0o120000 }
    static var socket: UInt32 { 0o140000 }
    static var permissions: UInt32 { 0o7777 }
    /// Permissions without setuid, setgid and sticky.
    static var plain: UInt32 { 0o777 }
    static var setUser: UInt32 { 0o4000 }
    static var setGroup: UInt32 { 0o2000 }
    static var sticky: UInt32 { 0o1000 }
    static var groupExecute: UInt32 { 0o010 }

    /// DT_* of readdir(3).
    @inline(__always) static func kind(_ mode: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: (mode & typeMask) >> 12) }
    static var directoryKind: UInt8 { 4 }
}
