// The Kernel interface: all that a server can ask of the core it runs on.
//
// Role: the one seam between servers and their host. The live microkernel (pinned threads, shared memory) and the
// simulator (virtual cores, virtual time) both conform; servers are generic over it, bound statically, so the same
// server code runs in both worlds. After the paper's section 3.1: the microkernel portion of each core.
// Protocol: a kernel value is trivially copyable (a pointer to its core's state), handed to a server with every
// message. A server has no other source of time, chance, memory of others, or I/O.
// Invariants: no call here blocks; none allocates after start but makeRegion and makeFrames; replies never fail.

public import CFosWire

/// Outcome of a send. A full mailbox is the sender's to handle; nothing is queued elsewhere.
public enum SendResult: UInt8, Sendable {
    case sent
    /// The destination's request mailbox is full (paper 3.2: a send to a full mailbox returns an error).
    case full
    /// No such mailbox, or its epoch has changed.
    case stale
}

/// A mailbox address: core in the high 16 bits, mailbox index on that core in the low 16 bits.
public struct MailboxAddress: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: fos_mailbox
    @inlinable public init(rawValue: fos_mailbox) { self.rawValue = rawValue }
    @inlinable public init(core: Int, index: Int) { rawValue = fos_mailbox(core) << 16 | fos_mailbox(index) }
    @inlinable public var core: Int { Int(rawValue >> 16) }
    @inlinable public var index: Int { Int(rawValue & 0xffff) }
}

/// A pending transaction of one server, named by slab index and generation so a late reply cannot meet a reused one.
public struct ContinuationID: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Marks a send that expects no reply.
    public static var none: ContinuationID { ContinuationID(rawValue: 0) }
}

/// Wall-clock time as file times need it.
public struct Timestamp: Equatable, Sendable, BitwiseCopyable {
    public var seconds: Int64
    public var nanoseconds: UInt32
    @inlinable public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

/// Memory from the host, zeros at first.
public struct SharedRegion: BitwiseCopyable {
    public enum Sharing: UInt8, Sendable, BitwiseCopyable {
        /// The server writes; clients map it for reading, or for writing too where it is handed out so (`isForWriting`).
        case readOnly
        /// Clients read and write it; the host can tell when none has it any more (`isAlone`).
        case lent
        /// Servers only.
        case none
    }
    public var base: UnsafeMutableRawPointer
    public var bytes: Int
    /// The host's name for it.
    public var handle: Int32
    public var sharing: Sharing
    /// When it is handed out: this client may write.
    public var isForWriting = false
    @inlinable public init(base: UnsafeMutableRawPointer, bytes: Int, handle: Int32, sharing: Sharing = .readOnly) {
        self.base = base
        self.bytes = bytes
        self.handle = handle
        self.sharing = sharing
    }
}

public protocol Kernel {
    /// Wall-clock time (virtual in the simulator).
    var now: Timestamp { get }
    /// Nanoseconds since some start; never goes back.
    var monotonic: UInt64 { get }
    /// A seeded stream in the simulator.
    func random() -> UInt64
    /// The mailbox of the server being run.
    var mailbox: MailboxAddress { get }
    /// The core it runs on.
    var core: Int { get }

    /// Sends a request to another server. With a continuation, a slot for the response is reserved in the sender's
    /// response mailbox, and `Server.resume` is called with it later. `envelope` hands on the client identity and
    /// credentials on whose behalf this is sent (nil: the server itself).
    func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult

    /// Passes a request on unchanged to the server that owns it; that one replies to the original sender.
    func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult

    /// A core-private scratch message (header zeroed, length 0) to build a reply or request in, valid until the
    /// next call of `scratch`, `send`, `forward` or `reply` on this kernel value's core.
    func scratch() -> UnsafeMutablePointer<fos_message>

    /// Answers a request. The slot was reserved with it, so this cannot fail; a dead client's reply is dropped.
    /// Copies header and `message.length` payload bytes; sets the reply's sequence from the envelope.
    func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>)

    /// The bulk bytes a request names, as the client's shared memory: `count` bytes at `offset` of the bulk area of
    /// the channel in `envelope`, also when the request was forwarded. nil if the range is not inside the area, or
    /// the client is gone. The client may change them at any time: copy once, and validate only the copy.
    func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer?

    /// The area of what a channel may change without a word (fos/delegation.h): shared memory, as bulk is. nil: the host has none, or
    /// the client is gone and forgotten; until a server has been told so (FOS_OP_CLIENT_GONE), it is there.
    func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>?

    /// The supplementary groups, ascending, of the client on whose behalf a request is; valid until the server returns.
    /// Empty for a client that is gone or that names whom it acts for.
    func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32>

    /// The next connected client of a process after a client index, or from the first on; nil if there is none. A process
    /// may have several connections.
    func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32?

    /// The generation of the client with an index; 0 if none is connected. What a server has recorded of a client, and
    /// hands to another server, is that client's while this number is the same there.
    func generation(ofClient client: UInt32) -> UInt32

    /// Free slots in this core's notice ring to a client; 0 if it is gone.
    func noticeRoom(client: UInt32) -> Int
    /// Puts a notice into the ring of a client. False when it is full or the client gone.
    func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool
    /// The client that holds FOS_RIGHT_KERNEL_CACHE (the FUSE front end), if one is connected.
    var kernelCacheClient: UInt32? { get }

    /// Publishes the owner of an inode slot on the board, as a hint for clients.
    func publish(slot: Int, owner: MailboxAddress)

    /// Enters a directory in the board's table of sharded ones (fos/shard.h), or with 0 bits takes it out. False: there is
    /// no place for it.
    func publish(directory: UInt64, shardBits: Int) -> Bool
    /// What that table says of a directory: the binary logarithm of its shards, 0 if it is whole.
    func shardBits(of directory: UInt64) -> Int

    /// A request is likely to change the inode: what `changed` needs may be fetched meanwhile. A hint.
    func mayChange(inode: UInt64)
    /// Tells every client that the inode has changed: moves its epoch on the board. After the change, before the answer.
    func changed(inode: UInt64)
    /// The inode's epoch on the board.
    func epoch(ofInode inode: UInt64) -> UInt32

    /// Asks for another FOS_OP_TICK in about 10 ms, also if nothing else happens until then. For a server that has
    /// something to do later: messages that met full mailboxes, memory to give back. Called again at each tick as needed.
    func tickAgain()

    /// Asks for an FOS_OP_IDLE once nothing else is to be done on this core: for work in bounded steps ahead of need. Called
    /// again at each one as needed.
    func idleAgain()

    /// New memory to share, `bytes` a multiple of a page; nil if the host has none.
    func makeRegion(bytes: Int) -> SharedRegion?
    /// New page frames, absent at first: `bytes` is a power of two, and the base a multiple of it. `huge`: frames of 2 MiB.
    /// nil if the host has none.
    func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion?
    /// Whether the host has frames of 2 MiB to give.
    var hasHugeFrames: Bool { get }
    /// Makes frames of a region present, absent ones as zeros; the others keep what they hold.
    func populate(_ region: SharedRegion, offset: Int, bytes: Int)
    /// Gives frames back to the host: absent again.
    func discard(_ region: SharedRegion, offset: Int, bytes: Int)
    /// Whether nobody but this server has a lent region: no descriptor that was handed out and no mapping made with one
    /// exists any more, in any process.
    func isAlone(_ region: SharedRegion) -> Bool
    /// Gives a region up. Clients that have mapped it keep what they see.
    func dropRegion(_ region: SharedRegion)
    /// Sends a client a region's descriptor, with a token that a reply tells it too. False: not now.
    func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool

    /// Records into the running server's trace ring (static, a few nanoseconds).
    func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32)
}

extension Kernel {
    public func mayChange(inode: UInt64) {}
    /// A host without shared memory has no such areas, so nothing is delegated there.
    public func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>? { nil }
    /// A host without a board has no table, so no directory is sharded there.
    public func publish(directory: UInt64, shardBits: Int) -> Bool { false }
    public func shardBits(of directory: UInt64) -> Int { 0 }
}
