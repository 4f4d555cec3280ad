// What a transaction that waits remembers. The letter it belongs to is kept beside it, in the server's `letters`.
//
// Invariants: a continuation that holds locks (locked entries, the tree lock) waits for members only, never for a
// client or the kernel; one that waits for acknowledgements has let go of everything but its answer. The letter holds
// the request until the outcome is decided, and the answer afterwards (`isDecided`).

import CFosWire
import FileStorage
import Messaging

/// What a run of a request knows of earlier runs of the same one.
struct Rerun: OptionSet, BitwiseCopyable {
    let rawValue: UInt8
    /// The kernel has written back and dropped the pages that this request touches.
    static var flushed: Rerun { Rerun(rawValue: 1) }
    /// Every peer was asked for credits; there are none.
    static var outOfSpace: Rerun { Rerun(rawValue: 2) }
    /// Part of it is done, and the letter says what is left.
    static var begun: Rerun { Rerun(rawValue: 4) }
    /// The shards of a directory have said what the server's `gathered` holds.
    static var gathered: Rerun { Rerun(rawValue: 8) }
    /// Delegations have been ended for what they held. Once, or new ones would put it off again and again.
    static var undelegated: Rerun { Rerun(rawValue: 16) }
}

/// Messages that a transaction must still send, because a mailbox was full after the point of no return.
struct Owed: OptionSet, BitwiseCopyable {
    let rawValue: UInt16
    static var commit: Owed { Owed(rawValue: 1) }
    static var abort: Owed { Owed(rawValue: 2) }
    static var moveSource: Owed { Owed(rawValue: 4) }
    static var moveVictim: Owed { Owed(rawValue: 8) }
    static var treeUnlock: Owed { Owed(rawValue: 16) }
    /// A directory that was to move learns that it stays.
    static var moveBack: Owed { Owed(rawValue: 64) }
    /// The letter itself, to the owner of `target`.
    static var letter: Owed { Owed(rawValue: 32) }
    /// The next message to a shard.
    static var shards: Owed { Owed(rawValue: 128) }
    /// A transaction of before a crash goes on.
    static var outcome: Owed { Owed(rawValue: 256) }
    /// A directory that a dead server's rename was to move learns that it stays.
    static var stays: Owed { Owed(rawValue: 512) }
    /// Not before the next tick, or before a server is back: it was refused several times.
    static var late: Owed { Owed(rawValue: 1024) }
}

struct Continuation: BitwiseCopyable {
    enum Kind: UInt8 {
        /// Only acknowledgements are awaited; the letter is the answer.
        case answer
        /// Runs its letter again when the kernel has flushed.
        case flush
        /// Runs its letter again when peers have given credits.
        case credits
        /// Runs its letter again when others had their turn: a long request in steps.
        case step
        /// A name that waits for an inode elsewhere: MKDIR, LINK.
        case insertion
        /// A name that goes when its inode elsewhere has agreed: UNLINK, RMDIR.
        case removal
        case rename, space, copy
        /// Runs its letter again when the memory fleet has granted extents.
        case pages
        /// An extent asked for ahead of need; nobody waits for it.
        case stock
        /// A name that a rename of a dead server had locked, until it is known whether what it leads to is still there.
        case orphan
        /// Asks, or fills, the shards of a directory; its letter runs again when they have answered.
        case shards
        /// A question to the owner of a directory, about a shard that is in doubt; nobody is answered by it.
        case doubt
        /// A question to the coordinator of a prepared name that may have been aborted; nobody is answered by it.
        case inquiry
        /// Owes a letter; nobody is answered by it.
        case passing
        // Of slots in motion, without a letter: the answers of a taker; the way to a slot's new owner; the slot table.
        case move, sync, table
    }
    enum Phase: UInt8 {
        case start, treeLock, ancestry, prepare, source, victimAttributes, victimAncestry, victim, moves, commit, undone
        // Messages to shards that are answered (`ShardWork`).
        case fill, summary, seal, unseal, drop
    }

    var kind: Kind
    var phase = Phase.start
    var rerun = Rerun()
    var owed = Owed()
    /// The outcome is known, all locks are gone, the letter holds the answer.
    var isDecided = false
    var holdsTree = false
    /// Responses of members still to come.
    var responses: Int32 = 0
    /// Notices sent for this transaction, less the acknowledgements that came; members' notices count once their
    /// response says so, so it can be negative for a moment.
    var acknowledgements: Int32 = 0

    /// The entry that the transaction has locked, and its directory.
    var dentry: DentryPointer? = nil
    var directory: InodePointer? = nil
    /// The inode elsewhere.
    var target: UInt64 = 0

    // RENAME
    var newDirectory: InodePointer? = nil  // if it is here
    var newDentry: DentryPointer? = nil    // prepared here
    var newParent: UInt64 = 0
    var source: UInt64 = 0
    var victim: UInt64 = 0
    var renameFlags: UInt32 = 0            // enum fos_peer_flag
    var sourceKind: UInt8 = 0
    var victimKind: UInt8 = 0
    var isPrepared = false
    var newShardSlot = UInt16.max          // of the shard in which the new name is prepared; .max: in no shard
    var newMode: UInt32 = 0                // of the new parent, for the rules of exchange
    var newUID: UInt32 = 0

    var shards = ShardWork()

    // Of a server with a store
    /// The store has a decision record of it.
    var isRecorded = false
    /// Whoever decides has been asked what it did.
    var isAskingOutcome = false
    /// How far it had come (DecisionRecord.Step).
    var recoveredStep: UInt8 = 0
    /// What others know it by, if it is one of before a crash; 0: its own number.
    var recoveredCookie: UInt64 = 0

    // COPY: where in the destination it began, bytes.
    var copyOffset: UInt64 = 0
    // CREDITS, SPACE, COPY: numbers whose meaning each says where it uses them.
    var numbers: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    init(_ kind: Kind) { self.kind = kind }
}
