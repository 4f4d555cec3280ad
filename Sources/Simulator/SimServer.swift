// A server in the simulator: any type that conforms to `Server`, behind one dynamic call a turn.
//
// Role: `SimServerOf` holds a server of any type. A composition that needs speed subclasses `SimServer` for a type of its
// own, and has every call below the first bound statically; a test that breaks a server on purpose subclasses it to hand
// over a kernel of its own.

public import CFosWire
public import Messaging

open class SimServer {
    public init() {}
    open func receive(_ request: Request, _ kernel: SimKernel) { preconditionFailure("abstract") }
    open func resume(_ response: Response, _ kernel: SimKernel) { preconditionFailure("abstract") }
    open func describe(_ statistics: inout fos_statistics) { preconditionFailure("abstract") }
}

public final class SimServerOf<S: Server & ~Copyable>: SimServer {
    public var server: S
    public init(_ server: consuming S) {
        self.server = server
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) { server.receive(request, kernel) }
    public override func resume(_ response: Response, _ kernel: SimKernel) { server.resume(response, kernel) }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}

/// A mailbox of a core, and the server that owns it.
final class SimMailbox {
    let number: UInt32
    let address: MailboxAddress
    /// nil while it is crashed.
    var server: SimServer?
    /// Of the mailbox; counts restarts. A message with another one is refused as stale.
    var epoch: UInt32
    var requests = LetterList()
    var responses = LetterList()
    /// Requests from servers of other cores that are under way or wait: the part of the mailbox that others claim slots in.
    var remote: Int32 = 0
    /// Requests up to this serial number were its predecessor's, which crashed.
    var firstSerial: UInt64 = 0
    /// Responses that it awaits.
    var awaited: Int32 = 0
    var stalledUntil: VirtualTime = 0
    /// When it died last; 0 if it never did.
    var diedAt: VirtualTime = 0
    var isGoneForGood = false
    /// Its server took the place of one that had died, with what that one's store had kept.
    var isRestored = false
    var wantsTick = false
    /// To be told when the core has nothing else to do.
    var wantsIdle = false
    var tickIsPlanned = false
    var workedSinceTick = false
    var traces: TraceRing
    /// forwards, sent, requests, replies, retries, errors, queue_peak as the live microkernel counts them.
    var statistics = fos_statistics()
    var busy: VirtualTime = 0

    init(number: UInt32, address: MailboxAddress, server: SimServer, epoch: UInt32, traces: Int) {
        self.number = number
        self.address = address
        self.server = server
        self.epoch = epoch
        self.traces = TraceRing(capacity: traces)
    }
    var hasWork: Bool { responses.count > 0 || requests.count > 0 }
}

/// The last records of a server's trace, as the live microkernel keeps them.
struct TraceRing {
    private var records: [fos_trace_record] = []
    private var next = 0
    private let capacity: Int
    init(capacity: Int) { self.capacity = capacity }

    var isOff: Bool { capacity == 0 }
    mutating func add(_ record: fos_trace_record) {
        guard capacity > 0 else { return }
        if records.count < capacity { return records.append(record) }
        records[next] = record
        next = (next + 1) % capacity
    }
    /// Oldest first.
    var all: [fos_trace_record] { Array(records[next...] + records[..<next]) }
}

/// A core: one turn of one of its servers at a time.
struct SimCore {
    /// Numbers of its mailboxes.
    var mailboxes: [UInt32] = []
    var busyUntil: VirtualTime = 0
    var turnIsPlanned = false
    /// Whose turn is next, for fairness among its servers.
    var next = 0
    var isLost = false
    var busy: VirtualTime = 0
}
