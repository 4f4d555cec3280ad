// SimHost: a deterministic machine of virtual cores, servers and clients, in one thread and one virtual time.
//
// Role: the second host of the `Kernel` interface. The live microkernel has pinned threads, shared memory and real time;
// this one has events in a queue. The servers are the same.
// Protocol: add servers and clients, start the clients' threads, then `run`. A message leaves when the turn that sent it
// has come so far, arrives when its distance costs, and waits in a bounded mailbox until the core's turn; a turn takes
// the time that its request costs (`Costs`). Chance comes from one seeded stream.
// Invariants: two runs of one seed and the same calls have the same `eventHash`; nothing iterates over a hashed
// collection; no server is entered while another runs; each request is answered once, and `violations` says where a
// server broke the rules; memory is bounded by what is in flight at once.
// Files: SimHost+Run (events and turns), +Send (messages), +Life (death, faults, memory), SimClient, SimThread.

public import CFosWire
import Glibc
public import Messaging

public struct SimOptions: Sendable {
    public var seed: UInt64 = 1
    /// Requests of clients, and of servers of the same core, that wait in one mailbox, as in the live microkernel.
    public var mailboxCapacity = 512
    /// Requests of servers of other cores that are under way to one mailbox or wait in it.
    public var remoteMailboxCapacity = 128
    /// Responses that one server can await at once.
    public var responseCapacity = 256
    public var noticeCapacity = Int(FOS_NOTICES)
    /// Bulk area of a client's thread.
    public var bulkBytes = 65536
    /// Records kept of each server's trace; 0: none, which is faster.
    public var traceRecords = 0
    /// Between two ticks of a server that works or asks for them.
    public var tickInterval: VirtualTime = 10_000_000_000
    /// Sends of one request until it counts as stuck.
    public var retriesMax = 5_000
    /// Mailboxes a core may have, with its microkernel's own.
    public var mailboxesPerCore = 16
    /// What servers can get from the host in regions and frames, and whether frames of 2 MiB are to be had.
    public var memoryBytes = 1 << 40
    public var hasHugeFrames = true
    /// The payload of messages counts in the hash too, not only headers and times.
    public var hashesPayloads = true
    public init() {}
    public init(seed: UInt64) { self.seed = seed }
}

public final class SimHost {
    public let topology: CoreTopology
    public let costs: Costs
    public let options: SimOptions
    public var faults = MessageFaults()

    /// Virtual time of the event that is being run.
    public internal(set) var time: VirtualTime = 1_000
    /// When anything but a tick happened last.
    public internal(set) var lastWork: VirtualTime = 1_000
    /// The same within a turn, as far as the turn has come.
    var turnTime: VirtualTime = 1_000
    var isInTurn = false

    public internal(set) var totals = SimTotals()
    /// Broken rules: a second reply, a response that nobody awaits, a request forwarded without end.
    public internal(set) var violations: [String] = []
    /// Sees every letter before its receiver does: letter, mailbox (nil: a client's).
    public var onDeliver: ((UnsafePointer<fos_letter>, MailboxAddress?) -> Void)?

    public var board = Board()
    public internal(set) var clients: [SimClient] = []
    /// Clients that hold FOS_RIGHT_KERNEL_CACHE.
    var frontEnds: [SimClient] = []
    public internal(set) var threads: [SimThread] = []
    /// Servers that a client turns to if the board names no owner that is there.
    public var fallback: [MailboxAddress] = []
    var mailboxes: [SimMailbox] = []
    var cores: [SimCore]
    private var numbers: [UInt32]
    var events = EventQueue()
    var letters = LetterPool()
    var random: SeededRandom
    var hash = EventHash()
    /// Requests between servers that await a response, by serial number.
    var outstanding: [UInt64: Outstanding] = [:]
    var serial: UInt64 = 0
    /// Latest arrival between two endpoints, while messages are delayed by chance.
    var lastArrival: [UInt64: VirtualTime] = [:]
    var actions: [((SimHost) -> Void)?] = []
    var freeActions: [UInt32] = []
    var kernelReplies: [UInt32: (fos_message, [UInt8])] = [:]
    var kernelContinuation: UInt32 = 0
    var regions: [Memory] = []
    /// The lowest address of all regions, and the first one behind them.
    var memoryBounds: (low: UInt, high: UInt) = (.max, 0)
    var memoryInUse = 0
    /// Descriptors of lent regions that clients hold, by handle.
    public var grips: [Int32: Int] = [:]
    private let scratchRoom = UnsafeMutableRawPointer.allocate(byteCount: Int(FOS_MESSAGE_BYTES), alignment: 64)
    let serviceTimes: [VirtualTime]

    /// A request of a server's that has not been answered.
    struct Outstanding {
        let from: UInt32
        let epoch: UInt32
        let continuation: UInt32
        /// The mailbox whose server has taken it in; 0xffff_ffff while it is under way.
        var holder: UInt32
    }
    static var underWay: UInt32 { .max }

    /// A region, and the mapping of this process that it lies in.
    struct Memory {
        let region: SharedRegion
        let mapped: UnsafeMutableRawPointer
        let room: Int
        var isDropped = false
    }

    public init(topology: CoreTopology, costs: Costs, options: SimOptions = SimOptions()) {
        self.topology = topology
        self.costs = costs
        self.options = options
        random = SeededRandom(seed: options.seed)
        cores = Array(repeating: SimCore(), count: topology.cores)
        numbers = Array(repeating: SimHost.underWay, count: topology.cores * options.mailboxesPerCore)
        var times = [VirtualTime](repeating: costs.turn, count: 1024)
        for (operation, time) in costs.service where operation < 1024 { times[Int(operation)] = time }
        serviceTimes = times
        poisonScratch()
    }

    deinit {
        scratchRoom.deallocate()
        for memory in regions { munmap(memory.mapped, memory.room) }
    }

    public var eventHash: UInt64 { hash.value }
    public var nanoseconds: UInt64 { (isInTurn ? turnTime : time) / 1000 }
    /// Wall-clock seconds at the begin of virtual time.
    public static var epochSeconds: Int64 { 1_700_000_000 }
    public var now: Timestamp {
        let nanoseconds = self.nanoseconds
        return Timestamp(seconds: Self.epochSeconds + Int64(nanoseconds / 1_000_000_000), nanoseconds: UInt32(nanoseconds % 1_000_000_000))
    }
    public var isIdle: Bool { events.isEmpty }
    /// Letters in flight or waiting, now and at most at once.
    public var lettersInUse: Int { letters.inUse }
    public var lettersPeak: Int { letters.peak }

    // MARK: Putting together

    /// Registers a server. Several may share a core; index 0 of each core is its microkernel's own.
    public func add(_ server: SimServer, at address: MailboxAddress, epoch: UInt32 = 1) {
        precondition(address.core < topology.cores, "a server is placed on a core that the machine has not")
        precondition(address.index > 0 && address.index < options.mailboxesPerCore, "a core has no such mailbox")
        precondition(mailbox(address) == nil, "two servers at one mailbox")
        let number = UInt32(mailboxes.count)
        mailboxes.append(SimMailbox(number: number, address: address, server: server, epoch: epoch, traces: options.traceRecords))
        numbers[address.core * options.mailboxesPerCore + address.index] = number
        cores[address.core].mailboxes.append(number)
    }
    public func add<S: Server & ~Copyable>(_ server: consuming S, at address: MailboxAddress, epoch: UInt32 = 1) {
        add(SimServerOf(server), at: address, epoch: epoch)
    }

    /// The server at a mailbox; nil if there is none, or it has crashed.
    public func server(at address: MailboxAddress) -> SimServer? { mailbox(address)?.server }
    public var addresses: [MailboxAddress] { mailboxes.map(\.address) }
    /// The epoch of a mailbox; 0 if there is none.
    public func epoch(of address: MailboxAddress) -> UInt32 { mailbox(address)?.epoch ?? 0 }

    @inline(__always) func mailbox(_ address: MailboxAddress) -> SimMailbox? {
        guard address.core < topology.cores, address.index < options.mailboxesPerCore else { return nil }
        let number = numbers[address.core * options.mailboxesPerCore + address.index]
        return number == SimHost.underWay ? nil : mailboxes[Int(number)]
    }

    /// A client process on an application core. Its threads are added with `SimClient.addThread`.
    @discardableResult
    public func addClient(core: Int, uid: UInt32 = 0, gid: UInt32 = 0, rights: UInt32 = 0) -> SimClient {
        precondition(core < topology.cores, "a client is placed on a core that the machine has not")
        let number = UInt32(clients.count + 1)
        let client = SimClient(host: self, index: number, generation: number &+ 100, core: core, rights: UInt16(rights), uid: uid, gid: gid)
        clients.append(client)
        return client
    }

    /// Plans something of the composition's: a fault, a sample.
    public func at(_ time: VirtualTime, _ action: @escaping (SimHost) -> Void) {
        let number: UInt32
        if let free = freeActions.popLast() {
            number = free
            actions[Int(number)] = action
        } else {
            number = UInt32(actions.count)
            actions.append(action)
        }
        events.schedule(.action, at: max(time, self.time), target: number)
    }

    // MARK: Looking

    public func statistics(of address: MailboxAddress) -> fos_statistics {
        guard let mailbox = mailbox(address) else { return fos_statistics() }
        var statistics = mailbox.statistics
        mailbox.server?.describe(&statistics)
        statistics.queue_now = UInt64(mailbox.requests.count)
        statistics.core = UInt32(address.core)
        statistics.mailbox = address.rawValue
        return statistics
    }
    /// The last trace records of a server, oldest first.
    public func traceRecords(of address: MailboxAddress) -> [fos_trace_record] { mailbox(address)?.traces.all ?? [] }
    /// Virtual time that a server, and a core, spent in turns.
    public func busyTime(of address: MailboxAddress) -> VirtualTime { mailbox(address)?.busy ?? 0 }
    public func busyTime(ofCore core: Int) -> VirtualTime { cores[core].busy }
    /// Threads whose request has no answer, or is answered "try again" without end.
    public var stuckThreads: [SimThread] { threads.filter { $0.client.isAlive && $0.isWaiting } }

    // MARK: Small things

    func violate(_ text: String) {
        violations.append("\(text) (seed \(options.seed), at \(time / 1000) ns)")
    }
    func trace(_ mailbox: SimMailbox, kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {
        if mailbox.traces.isOff { return }
        mailbox.traces.add(
            fos_trace_record(
                time: nanoseconds, operation: operation, kind: kind, status: status, inode: inode, client: client, detail: detail))
    }
    @inline(__always) func client(of envelope: UnsafePointer<fos_envelope>) -> SimClient? {
        guard let client = liveClient(envelope.pointee.client), client.generation == envelope.pointee.client_generation else { return nil }
        return client
    }
    @inline(__always) func liveClient(_ number: UInt32) -> SimClient? {
        guard number > 0, Int(number) <= clients.count else { return nil }
        let client = clients[Int(number) - 1]
        return client.isAlive ? client : nil
    }
    var kernelCacheClient: UInt32? {
        for client in frontEnds where client.isAlive { return client.index }
        return nil
    }
    func freshScratch() -> UnsafeMutablePointer<fos_message> {
        poisonScratch()
        let message = scratchRoom.assumingMemoryBound(to: fos_message.self)
        message.initialize(to: fos_message())
        return message
    }
    /// The header and what follows it: a server that uses it too long sends rubbish.
    func poisonScratch() { scratchRoom.initializeMemory(as: UInt8.self, repeating: 0xaa, count: 256) }
}
