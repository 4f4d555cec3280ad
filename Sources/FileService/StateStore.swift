// What a store behind the file fleet is told: every change that a server commits, once, in the order of committing.
//
// Role: the seam for durable stores (they come without a change to the servers' logic). A server's state in memory is
// what requests are answered from; a store follows it.
// Protocol: `committed` is called in the same transaction that changed the state, after the change and before the
// answer. It must not block: a store that needs the disk queues the record.
// Invariants: pointers in a change are valid during the call only.

public import FileStorage
public import Messaging

/// One committed change of a server's state.
public enum Change: BitwiseCopyable {
    /// An inode was made or its attributes, link count, parent or symlink target changed. Of directories, sharded ones and shards also
    /// what `DirectoryShards` says: how far the entries are spread, and what is sealed.
    case inode(InodePointer)
    /// An inode is gone, with all its data.
    case freed(UInt64)
    /// An inode is another server's from now on, whose store has heard of all of it.
    case departed(UInt64)
    /// A name now leads to an inode, whatever it led to before. `record` is the number of the record that has the name: the directory's, or
    /// that of a shard of it. `place`: its cookie in listings.
    case entry(record: UInt64, name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, place: UInt64)
    /// A name leads nowhere any more, or is in another record from now on.
    case entryRemoved(record: UInt64, name: UnsafeRawBufferPointer)
    /// A name is locked for a rename of another server's, to be committed or undone by it; it may lead nowhere yet.
    case prepared(record: UInt64, name: UnsafeRawBufferPointer, coordinator: MailboxAddress, cookie: UInt64, place: UInt64)
    /// It is not any more.
    case released(record: UInt64, name: UnsafeRawBufferPointer)
    /// A transaction of this server's cannot be taken back from now on, or has come further. What it sends must not leave before
    /// the record is safe. `message` is header and payload of its request.
    case decision(DecisionRecord, name: UnsafeRawBufferPointer, message: UnsafeRawBufferPointer)
    /// It is over.
    case forgotten(cookie: UInt64)
    /// A transaction of another server's gave an inode a link, took one, or made the directory. The newest
    /// `StoredEffect.kept` are to be kept.
    case effect(inode: UInt64, cookie: UInt64, coordinator: MailboxAddress)
    /// Bytes of a file changed; what is a hole now reads as zeros.
    case data(InodePointer, offset: UInt64, length: UInt64)
    /// All extended attributes of an inode, as they are now.
    case attributes(InodePointer)
}

public protocol StateStore: ~Copyable {
    /// Whether a server that dies comes back with what the store has kept.
    static var outlivesServer: Bool { get }
    mutating func committed(_ change: Change)
}

/// The store of a mount that lives in memory: it keeps nothing.
public struct MemoryStore: StateStore {
    public init() {}
    @inlinable public static var outlivesServer: Bool { false }
    @inlinable public mutating func committed(_ change: Change) {}
}
