// An inode: attributes and the root of the content of one file, directory or symbolic link.
//
// Role: the record that `InodeTable` finds by number. It lives in the arena at an address that does not change while
// the inode exists, so pointers to it may be kept across messages as long as something counts a reference.
// Invariants: 192 bytes, three cache lines (a million files must stay under 600 bytes each, with their names); an
// inode of zeros is an empty regular file but for its mode; `content` is at offset 0 and is a Directory, a PageMap or
// a SymlinkTarget as the type bits of `mode` say.

public import Messaging

public typealias InodePointer = UnsafeMutablePointer<Inode>

/// What the kernel-cache client may hold of an inode.
public struct InodeLeases: OptionSet, BitwiseCopyable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static var attributes: InodeLeases { InodeLeases(rawValue: 1) }
    public static var pages: InodeLeases { InodeLeases(rawValue: 2) }
    /// That some names of a directory are absent; `AbsentNames` has which.
    public static var negativeEntries: InodeLeases { InodeLeases(rawValue: 4) }
    public static var listing: InodeLeases { InodeLeases(rawValue: 8) }
    /// Pages or attributes that it has been told to give back; whether it has, is not yet known.
    public static var leaving: InodeLeases { InodeLeases(rawValue: 16) }
}

/// State bits of an inode. Bits from 4 upwards are for the service to name.
public struct InodeFlags: OptionSet, BitwiseCopyable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// A directory that has been removed: nothing may be created in it.
    public static var dead: InodeFlags { InodeFlags(rawValue: 1) }
    /// A part of a sharded directory, not an inode that a name leads to (`DirectoryShards`).
    public static var shard: InodeFlags { InodeFlags(rawValue: 2) }
}

/// Room for the largest content root. Never read as such.
public struct InodeContent: BitwiseCopyable {
    @usableFromInline var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
    @inlinable public init() {}
}

public struct Inode: BitwiseCopyable {
    /// Directory, PageMap or SymlinkTarget; reached through the accessors of `InodePointer`.
    @usableFromInline var content = InodeContent()

    /// index × 4096 + slot.
    public var number: UInt64
    /// Bytes.
    public var size: UInt64 = 0
    /// Counts changes of data or attributes.
    public var version: UInt64 = 0
    /// Lookups that the kernel-cache client has not yet forgotten.
    public var kernelReferences: UInt64 = 0
    /// Of a directory: the inode number of its parent.
    public var parent: UInt64 = 0
    public var locks: UnsafeMutablePointer<LockList>? = nil
    public var xattrs = XattrList()

    // Times in parts, so that four of them take 48 bytes and not 64.
    @usableFromInline var accessedSeconds: Int64 = 0
    @usableFromInline var modifiedSeconds: Int64 = 0
    @usableFromInline var changedSeconds: Int64 = 0
    @usableFromInline var bornSeconds: Int64 = 0
    @usableFromInline var accessedNanoseconds: UInt32 = 0
    @usableFromInline var modifiedNanoseconds: UInt32 = 0
    @usableFromInline var changedNanoseconds: UInt32 = 0
    @usableFromInline var bornNanoseconds: UInt32 = 0

    /// Type and permission bits, as st_mode.
    public var mode: UInt32 = 0
    public var uid: UInt32 = 0
    public var gid: UInt32 = 0
    public var links: UInt32 = 0
    /// Of a device node, as new_encode_dev in Linux.
    public var device: UInt32 = 0
    /// Differs for every inode that ever had this number.
    public var generation: UInt32
    /// References that clients other than the kernel-cache client hold by OPEN.
    public var references: UInt32 = 0
    /// Marker of the continuation that works on this inode; 0 if none.
    public var busy: UInt32 = 0
    public var subdirectories: UInt32 = 0
    public var leases = InodeLeases()
    public var flags = InodeFlags()
    /// Of a file that clients map: which of the server's mappings, from 1; 0: none.
    public var mapping: UInt16 = 0

    @usableFromInline init(number: UInt64, generation: UInt32) {
        self.number = number
        self.generation = generation
    }

    @inlinable public var accessed: Timestamp {
        get { Timestamp(seconds: accessedSeconds, nanoseconds: accessedNanoseconds) }
        set { (accessedSeconds, accessedNanoseconds) = (newValue.seconds, newValue.nanoseconds) }
    }
    @inlinable public var modified: Timestamp {
        get { Timestamp(seconds: modifiedSeconds, nanoseconds: modifiedNanoseconds) }
        set { (modifiedSeconds, modifiedNanoseconds) = (newValue.seconds, newValue.nanoseconds) }
    }
    @inlinable public var changed: Timestamp {
        get { Timestamp(seconds: changedSeconds, nanoseconds: changedNanoseconds) }
        set { (changedSeconds, changedNanoseconds) = (newValue.seconds, newValue.nanoseconds) }
    }
    @inlinable public var born: Timestamp {
        get { Timestamp(seconds: bornSeconds, nanoseconds: bornNanoseconds) }
        set { (bornSeconds, bornNanoseconds) = (newValue.seconds, newValue.nanoseconds) }
    }

    // Type bits of st_mode (inode(7)).
    @inlinable public var isDirectory: Bool { mode & 0o170000 == 0o040000 }
    @inlinable public var isRegular: Bool { mode & 0o170000 == 0o100000 }
    @inlinable public var isSymlink: Bool { mode & 0o170000 == 0o120000 }
}

extension UnsafeMutablePointer where Pointee == Inode {
    /// The content of a directory. The caller has checked the type, here as in the next two.
    @inlinable public var directory: UnsafeMutablePointer<Directory> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Directory.self)
    }
    /// The data pages of a regular file.
    @inlinable public var pageMap: UnsafeMutablePointer<PageMap> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: PageMap.self)
    }
    /// The target of a symbolic link.
    @inlinable public var symlink: UnsafeMutablePointer<SymlinkTarget> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SymlinkTarget.self)
    }

    @inlinable public var isDirectory: Bool { pointee.isDirectory }
    @inlinable public var isRegular: Bool { pointee.isRegular }
    @inlinable public var isSymlink: Bool { pointee.isSymlink }

    /// Gives back all memory that the inode's content and extended attributes hold; the record itself stays.
    public func destroyContent(_ arena: inout Arena, _ pool: inout PagePool) {
        if isDirectory {
            directory.pointee.destroy(&arena, &pool)
        } else if isRegular {
            pageMap.pointee.destroy(&pool)
        } else if isSymlink {
            symlink.pointee.destroy(&arena, &pool)
        }
        pointee.xattrs.destroy(&arena, &pool)
    }
}

/// The target of a symbolic link: bytes in the arena. All zeros is an empty one.
public struct SymlinkTarget: BitwiseCopyable {
    @usableFromInline var storage: UnsafeMutableRawPointer? = nil
    public private(set) var length: UInt32 = 0

    public init() {}

    /// The target, without NUL. Valid until `set` or `destroy`.
    @inlinable public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage, count: Int(length)) }

    /// Stores a target of 1 to 4,095 bytes. False if memory is out; the old one then stays.
    public mutating func set(_ bytes: UnsafeRawBufferPointer, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        guard let base = bytes.baseAddress, bytes.count > 0, bytes.count <= 65536 else { return false }
        guard let copy = arena.allocate(bytes.count, &pool) else { return false }
        copy.copyMemory(from: base, byteCount: bytes.count)
        destroy(&arena, &pool)
        storage = copy
        length = UInt32(bytes.count)
        return true
    }

    public mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) {
        if let storage { arena.release(storage, Int(length), &pool) }
        storage = nil
        length = 0
    }
}
