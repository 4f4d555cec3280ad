// The state that all threads of one mount share, and the record each worker keeps for itself.
//
// Role: what fuse_req_userdata points to. It is allocated once per mount and reached by pointer, so that serving a
// request touches no reference count; the cold parts (introspection, lock waiters) hang off it as classes.

import CFosProxy
import CFosWire
import CFuse
import Glibc

/// How many threads and channels a mount uses.
enum FrontEndLimits {
    /// Workers that start with the mount, and the most there can be (WorkerPool.swift says when there are more).
    static let workersAtStart = 2
    static let workers = 120
    /// Programs that may sleep in F_SETLKW or flock at once when the file fleet keeps locks; more get ENOLCK.
    static let lockWaiters = 64
    /// Workers, waiters, the notice thread, and one channel to spare.
    static let channels = workers + lockWaiters + 2
    /// The largest listing answered at once.
    static let listingBytes = 128 * 1024
    /// A READ that is answered with places, if the service likes (FOS_IO_PLACES).
    static let leastLent = 128 * 1024
}

/// Where things lie in a worker's bulk area. The request is read to its start, so a WRITE's payload is already in
/// shared memory when the message that names it is built; replies use the rest.
enum BulkLayout {
    /// The kernel wants room for its header and max_write; libfuse uses the same sum.
    static let requestRoom = Int(FOS_TRANSFER_BYTES_MAX) + 4096
    /// Where READ and listings put their bytes. The request itself has been consumed by then.
    static let replyOffset = 4096
}

/// What one thread that talks to the service owns. BitwiseCopyable; reached through the thread's specific pointer.
struct Worker {
    let front: UnsafeMutablePointer<FrontEnd>
    let client: UnsafeMutablePointer<fos_client>
    let channel: Int32
    let bulk: UnsafeMutablePointer<UInt8>
    /// For listings on their way from the service's layout to the kernel's; allocated at the first listing.
    var listing: UnsafeMutableRawPointer?
    /// Requests by FUSE opcode, read by others for `.fos/` and status.
    let counts: UnsafeMutablePointer<UInt64>
    /// Odd while an answer may be on its way through this worker (AnswersUnderWay.swift); nil beside the pool.
    var answering: UnsafeMutablePointer<UInt32>?
    /// `valid` of the SETATTR being served, as the kernel wrote it: libfuse 3.14 masks bits it does not know.
    var setattrValid: UInt32 = 0
    /// The kernel's number of the thread, 0 until it runs.
    var thread: Int32 = 0
    /// A GIVE_BACK of this channel is under way.
    var isGivingBack = false
    /// It may read requests (ReadingTurns.swift).
    var hasTurn = false
    /// Of its looks at where callers run (WorkerPlacement.swift): when the next is due, in ns, and in how many in a row the
    /// caller was on a server's CPU.
    var nextLook: UInt64 = 0
    var crowdedLooks: UInt32 = 0
    /// The INIT being served offers FUSE_HANDLE_KILLPRIV_V2; its reply is to accept it.
    var acceptsPrivilege = false

    static let opcodes = 64

    init?(front: UnsafeMutablePointer<FrontEnd>) {
        let client = front.pointee.client
        let channel = fos_channel_acquire(client)
        guard channel >= 0 else { return nil }
        self.front = front
        self.client = client
        self.channel = channel
        bulk = fos_bulk(client, channel)!
        counts = .allocate(capacity: Worker.opcodes)
        counts.initialize(repeating: 0, count: Worker.opcodes)
    }

    func count(_ opcode: UInt32) {
        let slot = counts + Int(min(max(opcode, 1), UInt32(Worker.opcodes - 1)))
        fos_store_relaxed_u64(slot, fos_load_relaxed_u64(slot) &+ 1)
        // No request has opcode 0: its slot counts all, for the watch.
        fos_store_relaxed_u64(counts, fos_load_relaxed_u64(counts) &+ 1)
    }
}

/// All threads' common state.
struct FrontEnd {
    let client: UnsafeMutablePointer<fos_client>
    /// pthread key of each thread's Worker.
    let key: pthread_key_t
    let mountPoint: String
    /// What fos_fuse_file_system says of the mount. Written once, before any thread is started.
    var fileSystem: UInt64 = 0
    /// OPEN, OPENDIR, FLUSH and CREATE are answered ENOSYS, and the kernel keeps locks itself.
    let keepsNoOpens: Bool
    var session: OpaquePointer?
    var device: Int32 = -1
    /// FUSE_HANDLE_KILLPRIV_V2 was agreed on at INIT. Written once, before any other request is served.
    var handlesPrivilege = false
    let introspection: IntrospectionTree
    let handles = OpenHandles()
    let answers = AnswersUnderWay(places: FrontEndLimits.workers)
    let unversioned = UnversionedAnswers()
    let log: @Sendable (String) -> Void
    let trace: (@Sendable (String) -> Void)?

    /// Workers that wait for a request, workers that exist, whether the notice thread runs, 1 once the mount ends.
    let idle = SharedWord()
    let live = SharedWord()
    let notices = SharedWord()
    let ending = SharedWord()
    /// 1 once a worker has told the watch that none is idle.
    let starved = SharedWord()
    /// Workers that no longer count as living and are giving their things back.
    let leaving = SharedWord()
    /// 1 while the watch's thread runs.
    let watching = SharedWord()
    /// FORGETs served; a full service looks whether memory may be on its way back.
    let forgets = SharedWord()
    let pool: WorkerPool
    let lockWaiters = SharedWord()
    let placement: WorkerPlacement
    let turns: ReadingTurns
    /// Called once by the last thread of the session to end.
    let ended: @Sendable () -> Void

    var words: [SharedWord] { [idle, live, notices, ending, starved, leaving, watching, forgets, lockWaiters] }
}

extension UnsafeMutablePointer where Pointee == FrontEnd {
    /// The record of the calling thread; nil on a thread that is not one of the mount's.
    var currentWorker: UnsafeMutablePointer<Worker>? {
        pthread_getspecific(pointee.key)?.assumingMemoryBound(to: Worker.self)
    }
}
