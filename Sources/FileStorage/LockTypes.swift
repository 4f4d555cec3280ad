// What a lock request is, what becomes of it, and the records that the lock table keeps.

/// Whose lock it is. Two requests of the same owner never conflict.
public struct LockOwner: Hashable, BitwiseCopyable, Sendable {
    /// POSIX locks: the process; OFD locks and flocks: the open file description.
    public var id: UInt64
    public var client: UInt32
    /// An OFD lock (F_OFD_SETLK), which takes no part in deadlock detection (fcntl(2)).
    public var isDescription: Bool

    @inlinable public init(id: UInt64, client: UInt32, isDescription: Bool = false) {
        self.id = id
        self.client = client
        self.isDescription = isDescription
    }
}

public enum LockKind: UInt8, BitwiseCopyable, Sendable {
    case read = 0
    case write = 1
    case unlock = 2

    /// Locks of two owners on the same bytes exclude each other unless both are for reading.
    func conflicts(_ other: LockKind) -> Bool { self == .write || other == .write }
}

/// A byte-range lock, asked for or held.
public struct LockRequest: Equatable, BitwiseCopyable, Sendable {
    public var owner: LockOwner
    public var kind: LockKind
    /// First and last byte; UInt64.max >> 1 is the end of every file.
    public var start: UInt64
    public var end: UInt64
    public var pid: UInt32

    @inlinable public init(owner: LockOwner, kind: LockKind, start: UInt64, end: UInt64, pid: UInt32) {
        self.owner = owner
        self.kind = kind
        self.start = start
        self.end = end
        self.pid = pid
    }

    func overlaps(_ first: UInt64, _ last: UInt64) -> Bool { start <= last && first <= end }

    func conflicts(_ other: LockRequest) -> Bool {
        overlaps(other.start, other.end) && kind.conflicts(other.kind) && owner != other.owner
    }
}

public enum LockResult: BitwiseCopyable, Sendable {
    case granted
    /// EAGAIN (EWOULDBLOCK).
    case wouldBlock
    /// Queued: an outcome with the request's token follows.
    case waiting
    /// EDEADLK.
    case deadlock
    /// ENOLCK: a limit is reached, or credits or memory are out. Nothing has changed.
    case noLocks
    /// EINVAL: the range ends before it starts.
    case invalid
    /// EINTR, in outcomes only: the inode's locks were all released.
    case cancelled
}

/// How the wait of one request ended.
public struct LockOutcome: Equatable, Sendable {
    public var token: UInt64
    public var result: LockResult

    @inlinable public init(token: UInt64, result: LockResult) {
        self.token = token
        self.result = result
    }
}

/// A held lock; of a flock the range is all bytes.
struct LockRecord: BitwiseCopyable {
    var next: UnsafeMutablePointer<LockRecord>?
    var lock: LockRequest
}

/// A request that waits.
struct LockWaiter: BitwiseCopyable {
    /// Links of the inode's queue, or of the queue of outcomes (`next` only).
    var next: UnsafeMutablePointer<LockWaiter>?
    var previous: UnsafeMutablePointer<LockWaiter>?
    /// Chain of the owner hash.
    var chain: UnsafeMutablePointer<LockWaiter>?
    /// Work list of one deadlock search, and the number of the search that has met this waiter.
    var work: UnsafeMutablePointer<LockWaiter>?
    var search: UInt64
    var list: UnsafeMutablePointer<LockList>
    var token: UInt64
    var request: LockRequest
    var isFlock: Bool
    var result: LockResult
}

/// The locks of one inode. Exists while there is a lock or a waiter.
public struct LockList: BitwiseCopyable {
    /// Byte ranges: the locks of an owner stand together, disjoint and in order of their starts; owners in the order
    /// of their first locks. F_GETLK reports the first that conflicts, as Linux does.
    var ranges: UnsafeMutablePointer<LockRecord>?
    var flocks: UnsafeMutablePointer<LockRecord>?
    /// Queue, first come first.
    var firstWaiter: UnsafeMutablePointer<LockWaiter>?
    var lastWaiter: UnsafeMutablePointer<LockWaiter>?
    var inode: InodePointer
    /// Links of the table's list of all lists.
    var next: UnsafeMutablePointer<LockList>?
    var previous: UnsafeMutablePointer<LockList>?
    var rangeCount: Int
    var flockCount: Int
    private var waiters: UInt32
    /// The inode is on its way to another server, which has these locks already: nothing changes here any more.
    var isFrozen = false
    var waiterCount: Int {
        get { Int(waiters) }
        set { waiters = UInt32(newValue) }
    }

    init(inode: InodePointer) {
        self.inode = inode
        (ranges, flocks, firstWaiter, lastWaiter, next, previous) = (nil, nil, nil, nil, nil, nil)
        (rangeCount, flockCount, waiters) = (0, 0, 0)
    }
}

/// Locks and waiters of one client, counted against its limit.
struct LockClient: BitwiseCopyable {
    var next: UnsafeMutablePointer<LockClient>?
    var client: UInt32
    var count: Int
}
