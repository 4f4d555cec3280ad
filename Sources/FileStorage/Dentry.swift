// A directory entry: one name, and the inode that it names.
//
// Role: the record that `Directory` finds by name and by cookie. Of variable size: a fixed part of 28 bytes, then the
// name's bytes. Invariant: its address stays the same from `insert` to `remove`, whatever the directory does meanwhile.

public typealias DentryPointer = UnsafeMutablePointer<Dentry>

/// State bits of an entry.
public struct DentryFlags: OptionSet, BitwiseCopyable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// A transaction across owners holds the entry.
    public static var locked: DentryFlags { DentryFlags(rawValue: 1) }
    /// Reserves the name for a transaction; not yet visible.
    public static var placeholder: DentryFlags { DentryFlags(rawValue: 2) }
    /// The kernel-cache client may hold this entry.
    public static var kernelLease: DentryFlags { DentryFlags(rawValue: 4) }
}

public struct Dentry: BitwiseCopyable {
    public var inode: UInt64
    /// The entry's place in listings; grows with every insertion, never used twice in one directory.
    public internal(set) var cookie: UInt64
    public internal(set) var hash: UInt32
    public internal(set) var nameLength: UInt8
    /// DT_* of readdir(3).
    public var kind: UInt8
    public var flags = DentryFlags()
    /// Marker of the transaction that has locked the entry.
    public var transaction: UInt32 = 0

    @usableFromInline init(inode: UInt64, cookie: UInt64, hash: UInt32, nameLength: UInt8, kind: UInt8) {
        self.inode = inode
        self.cookie = cookie
        self.hash = hash
        self.nameLength = nameLength
        self.kind = kind
    }

    /// Bytes of the fixed part; the name follows at once.
    @usableFromInline static var headerBytes: Int { 28 }

    /// Bytes of the whole record.
    @inlinable var recordBytes: Int { Dentry.headerBytes + Int(nameLength) }
}

extension UnsafeMutablePointer where Pointee == Dentry {
    /// The name's bytes, 1 to 255, without NUL.
    @inlinable public var name: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: UnsafeRawPointer(self) + Dentry.headerBytes, count: Int(pointee.nameLength))
    }
}
