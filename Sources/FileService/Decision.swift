// What a store keeps of a transaction that its coordinator must be able to finish after a crash: the decision record.
//
// Role: transactions between servers are two-phase commits with presumed abort (Mohan, Lindsay and Obermarck, TODS 1986). A
// record is written in the turn that sends what cannot be taken back, and forgotten in the turn that decides the answer, when
// all who take part have acknowledged. A coordinator that comes back without a record has aborted.
// Who decides: a rename whose new name means nothing is decided by its coordinator. Where somebody else must agree last (the
// owner of what a name loses, or is to lead to), the decision is that one's, and the record says whom to ask (`asked`); so
// no transaction takes a message more than without a store.
// Invariants: `cookie` is of this transaction alone, over all lives of its coordinator; the names are in the letter, which the
// store keeps beside the record.

import CFosWire
import FileStorage
public import Messaging

/// One transaction of a coordinator, from its point of no return on.
public struct DecisionRecord: BitwiseCopyable, Sendable {
    public enum Kind: UInt8, Sendable, BitwiseCopyable {
        /// A name that is to lead to an inode elsewhere: LINK.
        case link
        /// The same, of a directory that is made there: MKDIR.
        case directory
        /// A name that goes with its inode elsewhere: UNLINK, RMDIR.
        case removal
        case rename
        /// The shards of a directory that is removed, or whole and empty: they go (SHARD_DROP).
        case shards
    }
    public enum Step: UInt8, Sendable, BitwiseCopyable {
        /// Whether it happens, the owner of `asked` has decided or not.
        case asked
        /// It happens; the inodes learn that their names move.
        case decided
        /// The inodes know; the new name's owner is told.
        case committing
    }
    public var cookie: UInt64
    public var kind: Kind
    public var step: Step
    /// The record of the (old) name: a directory, or a shard of one. Of `shards`, the directory.
    public var directory: UInt64
    /// The inode whose owner decides; of a directory to be made, a slot of its owner's. Of `shards`: how many, shard 0 included.
    public var asked: UInt64
    // RENAME
    public var newParent: UInt64
    /// The record here that has the new name; 0: another server has it.
    public var newRecord: UInt64 = 0
    /// The slot of the shard in which another server has it; .max: it is in no shard.
    public var newShardSlot: UInt16 = .max
    public var source: UInt64
    public var victim: UInt64
    public var flags: UInt32
    public var sourceKind: UInt8
    public var victimKind: UInt8
    public var holdsTree: Bool
}

/// A record with what belongs to it, as a store gives it back.
public struct StoredDecision: Sendable {
    public var record: DecisionRecord
    /// The (old) name.
    public var name: [UInt8]
    /// Header and payload of the request.
    public var message: [UInt8]
    public init(record: DecisionRecord, name: [UInt8], message: [UInt8]) {
        self.record = record
        self.name = name
        self.message = message
    }
}

/// What a transaction of another server has done to an inode here: what its coordinator asks for when it is back.
public struct StoredEffect: Sendable, Hashable {
    public var inode: UInt64
    public var cookie: UInt64
    public var coordinator: MailboxAddress
    /// So many, the newest, a store is to keep.
    public static var kept: Int { Limits.takenLinks }
    public init(inode: UInt64, cookie: UInt64, coordinator: MailboxAddress) {
        self.inode = inode
        self.cookie = cookie
        self.coordinator = coordinator
    }
}

extension FileServer {
    /// What other servers know a transaction by. A server that took another one's place goes on with that one's, and gives its
    /// own none of those that were given before.
    func cookie(_ id: ContinuationID) -> UInt64 {
        if let recovered = continuations.state(id)?.pointee.recoveredCookie, recovered != 0 { return recovered }
        return UInt64(life) << 32 | UInt64(id.rawValue)
    }

    /// Before what cannot be taken back is sent.
    mutating func recordDecision<K: Kernel>(_ id: ContinuationID, _ step: DecisionRecord.Step, asked: UInt64, _ kernel: K) {
        guard Store.outlivesServer, let state = continuations.state(id), let directory = state.pointee.directory,
            let dentry = state.pointee.dentry
        else { return }
        let kind: DecisionRecord.Kind
        switch state.pointee.kind {
        case .insertion: kind = dentry.pointee.kind == Mode.directoryKind ? .directory : .link
        case .removal: kind = .removal
        case .rename: kind = .rename
        default: return
        }
        state.pointee.isRecorded = true
        let message = kept(id).message
        let bytes = UnsafeRawBufferPointer(start: message, count: MemoryLayout<fos_message>.size + Int(message.pointee.length))
        let record = DecisionRecord(
            cookie: cookie(id), kind: kind, step: step, directory: directory.pointee.number, asked: asked,
            newParent: state.pointee.newParent,
            newRecord: state.pointee.newDirectory?.pointee.number ?? 0, newShardSlot: state.pointee.newShardSlot,
            source: state.pointee.source, victim: state.pointee.victim, flags: state.pointee.renameFlags,
            sourceKind: state.pointee.sourceKind,
            victimKind: state.pointee.victimKind, holdsTree: state.pointee.holdsTree)
        committed(.decision(record, name: dentry.name, message: bytes), kernel)
    }

    /// The shards of a directory are sealed and empty, and go with it.
    mutating func recordEnd<K: Kernel>(ofShards count: Int, of directory: UInt64, _ id: ContinuationID, _ kernel: K) {
        guard Store.outlivesServer, let state = continuations.state(id) else { return }
        state.pointee.isRecorded = true
        let record = DecisionRecord(
            cookie: cookie(id), kind: .shards, step: .decided, directory: directory, asked: UInt64(count), newParent: 0, source: 0,
            victim: 0, flags: 0,
            sourceKind: 0, victimKind: 0, holdsTree: false)
        committed(
            .decision(record, name: UnsafeRawBufferPointer(start: nil, count: 0), message: UnsafeRawBufferPointer(start: nil, count: 0)),
            kernel)
    }

    /// It is decided, and nobody will ask any more.
    mutating func forgetDecision<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), state.pointee.isRecorded else { return }
        state.pointee.isRecorded = false
        committed(.forgotten(cookie: cookie(id)), kernel)
    }
}
