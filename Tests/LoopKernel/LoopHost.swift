// LoopHost: a deterministic machine for tests, and the embryo of the simulator.
//
// Role: hosts any number of servers of any types at mailbox addresses, and simulated clients, in one thread and in
// virtual time. Chance (which queue delivers next, refusals) comes from one seeded stream, so a seed is a run:
// two runs of a seed and the same calls have the same `eventHash`.
// Protocol: add servers and clients, then `LoopClient.call`, or `post` and `runUntilQuiet`. `step` delivers one parcel.
// Invariants: no server is entered while another runs; requests to one mailbox are bounded; each request of a
// client is answered at most once, and `violations` says where servers broke the rules.

public import CFosWire
public import Messaging

public struct LoopOptions: Sendable {
    public var seed: UInt64 = 1
    /// Requests under way to one mailbox; one more is refused with `SendResult.full`.
    public var mailboxCapacity = 256
    /// Of 256 sends between servers, how many are refused as if the mailbox were full.
    public var fullChance = 0
    public var noticeCapacity = Int(FOS_NOTICES)
    public var bulkBytes = Int(FOS_BULK_BYTES)
    /// Virtual time that passes with a delivery, ns.
    public var stepNanoseconds: UInt64 = 200
    /// Sends of one `call` until it counts as stuck.
    public var retriesMax = 2_000
    /// Ticks without anything else in flight until a request counts as lost.
    public var ticksMax = 200
    /// What `makeFrames` gives in all, and whether frames of 2 MiB are to be had.
    public var memoryBytes = Int.max
    public var hasHugeFrames = true
    public init() {}
    public init(seed: UInt64) { self.seed = seed }
}

/// A server of any type, behind one dynamic call. Tests pay for it; the live run loop has `ServerGroup`.
class LoopServer {
    let address: MailboxAddress
    let epoch: UInt32
    var traces: [fos_trace_record] = []
    var forwards: UInt64 = 0
    init(address: MailboxAddress, epoch: UInt32) {
        self.address = address
        self.epoch = epoch
    }
    func receive(_ request: Request, _ kernel: LoopKernel) { preconditionFailure("abstract") }
    func resume(_ response: Response, _ kernel: LoopKernel) { preconditionFailure("abstract") }
    func describe(_ statistics: inout fos_statistics) { preconditionFailure("abstract") }
}
final class LoopServerOf<S: Server & ~Copyable>: LoopServer {
    var server: S
    init(_ server: consuming S, address: MailboxAddress, epoch: UInt32) {
        self.server = server
        super.init(address: address, epoch: epoch)
    }
    override func receive(_ request: Request, _ kernel: LoopKernel) { server.receive(request, kernel) }
    override func resume(_ response: Response, _ kernel: LoopKernel) { server.resume(response, kernel) }
    override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}

public final class LoopHost {
    public let options: LoopOptions
    /// Parcels delivered.
    public private(set) var steps: UInt64 = 0
    public private(set) var monotonic: UInt64 = 1
    /// Broken rules: a second reply, an unknown continuation, a letter to nowhere.
    public private(set) var violations: [String] = []
    /// Called with each violation as it happens.
    public var onViolation: ((String) -> Void)?
    /// Sees every delivered letter, before the receiver does.
    public var onDeliver: ((UnsafePointer<fos_letter>, MailboxAddress?) -> Void)?
    public internal(set) var slotOwner = [MailboxAddress](repeating: MailboxAddress(rawValue: 0), count: Int(FOS_SLOTS))
    /// Memory shared with clients, by handle. It stays readable to the end of the run, as a mapping does.
    public internal(set) var regions: [Int32: (region: SharedRegion, isDropped: Bool)] = [:]
    /// Descriptors sent to clients: client, token, region.
    public internal(set) var handedOut: [(client: UInt32, token: UInt64, region: SharedRegion)] = []
    /// Descriptors of lent regions that clients have, by handle. A test that lets a client unmap one counts it down.
    public var grips: [Int32: Int] = [:]
    /// Bytes of frames made present, less those given back.
    public var populated: Int { populatedPages.count * Int(FOS_PAGE_BYTES) }
    /// Addresses of the pages of frames that are there.
    var populatedPages: Set<UInt> = []
    private var regionsEver: Int32 = 0
    /// The inode epochs of the board.
    var epochs = [UInt32](repeating: 0, count: Int(FOS_INODE_EPOCHS))
    /// The table of sharded directories of the board.
    let sharded: UnsafeMutablePointer<fos_shard_table>
    public internal(set) var clients: [LoopClient] = []
    public internal(set) var refusals = 0
    var random: LoopRandom
    var hash = LoopHash()
    var network = LoopNetwork()
    var servers: [MailboxAddress: LoopServer] = [:]
    var order: [LoopServer] = []
    var kernelReplies: [UInt32: LoopReply] = [:]
    private var kernelContinuation: UInt32 = 0
    private let scratchRoom = UnsafeMutableRawPointer.allocate(byteCount: Int(FOS_MESSAGE_BYTES), alignment: 64)

    public init(_ options: LoopOptions = LoopOptions()) {
        self.options = options
        random = LoopRandom(seed: options.seed)
        sharded = .allocate(capacity: 1)
        sharded.initialize(to: fos_shard_table())
        poisonScratch()
    }
    deinit {
        network.destroy()
        sharded.deallocate()
        scratchRoom.deallocate()
        for (region, _) in regions.values { region.base.deallocate() }
    }

    public var eventHash: UInt64 { hash.value }
    /// Servers that have asked for another tick since the last one.
    public internal(set) var ticksWanted: Set<MailboxAddress> = []
    /// Servers that have asked for an FOS_OP_IDLE since the last one.
    public internal(set) var idleWanted: Set<MailboxAddress> = []
    public var isQuiet: Bool { network.isEmpty }
    public var now: Timestamp {
        Timestamp(seconds: 1_700_000_000 + Int64(monotonic / 1_000_000_000), nanoseconds: UInt32(monotonic % 1_000_000_000))
    }

    // MARK: Putting together

    /// Registers a server. Several may share a core (the high half of the address).
    public func add<S: Server & ~Copyable>(_ server: consuming S, at address: MailboxAddress, epoch: UInt32 = 1) {
        precondition(servers[address] == nil, "two servers at one mailbox")
        let box = LoopServerOf(server, address: address, epoch: epoch)
        servers[address] = box
        order.append(box)
    }

    /// Looks into a server, for checks of its state between steps.
    public func withServer<S: Server & ~Copyable, R>(_ address: MailboxAddress, as type: S.Type, _ body: (inout S) throws -> R) rethrows
        -> R
    {
        guard let box = servers[address] as? LoopServerOf<S> else { preconditionFailure("no such server at that mailbox") }
        return try body(&box.server)
    }

    /// A server crashes: what was under way to it is lost, and sends to it are answered `stale`.
    public func removeServer(at address: MailboxAddress) {
        servers[address] = nil
        order.removeAll { $0.address == address }
        for (parcel, _) in network.drop(where: { $0.to == .server(address) }) { if let letter = parcel.letter { network.giveBack(letter) } }
    }

    @discardableResult
    public func addClient(uid: UInt32 = 0, gid: UInt32 = 0, rights: UInt32 = 0) -> LoopClient {
        let number = UInt32(clients.count + 1)
        let client = LoopClient(host: self, index: number, generation: number &+ 100, rights: UInt16(rights), uid: uid, gid: gid)
        clients.append(client)
        return client
    }
    /// The client that plays the FUSE front end.
    @discardableResult
    public func addFrontEnd() -> LoopClient {
        addClient(rights: FOS_RIGHT_ACT_AS.rawValue | FOS_RIGHT_KERNEL_CACHE.rawValue)
    }

    /// Where a request is best sent: to the owner of its inode, or of the shard that its name is in.
    public func destination(of call: LoopCall) -> MailboxAddress {
        let slot = call.payload.withUnsafeBufferPointer {
            fos_request_slot(sharded, UInt32(call.operation), call.inode, $0.baseAddress, UInt32($0.count))
        }
        return slotOwner[Int(slot)]
    }
    public func shardBits(of directory: UInt64) -> Int { Int(fos_shard_bits(sharded, directory)) }
    public func owner(ofInode inode: UInt64) -> MailboxAddress { slotOwner[Int(inode % UInt64(FOS_SLOTS))] }
    func makeRegion(bytes: Int) -> SharedRegion { makeMemory(bytes: bytes, alignment: Int(FOS_PAGE_BYTES), sharing: .readOnly) }
    /// nil beyond the memory that the options allow.
    func makeFrames(bytes: Int, sharing: SharedRegion.Sharing) -> SharedRegion? {
        let live = regions.values.reduce(0) { $1.isDropped ? $0 : $0 + $1.region.bytes }
        return live + bytes > options.memoryBytes ? nil : makeMemory(bytes: bytes, alignment: bytes, sharing: sharing)
    }
    /// What clients map for reading stays for them; what servers had, or lent and had back, is gone.
    func dropRegion(_ region: SharedRegion) {
        guard region.sharing != .readOnly else {
            regions[region.handle]?.isDropped = true
            return
        }
        if grips[region.handle, default: 0] > 0 { violate("a region is dropped that a client still has") }
        if regions.removeValue(forKey: region.handle) == nil { return violate("a region is dropped twice") }
        region.base.deallocate()
    }
    private func makeMemory(bytes: Int, alignment: Int, sharing: SharedRegion.Sharing) -> SharedRegion {
        let base = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: alignment)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        let region = SharedRegion(base: base, bytes: bytes, handle: regionsEver, sharing: sharing)
        regionsEver += 1
        regions[region.handle] = (region, false)
        return region
    }
    public func epoch(ofInode inode: UInt64) -> UInt32 { epochs[Int(fos_inode_epoch_index(inode))] }
    public func statistics(of address: MailboxAddress) -> fos_statistics {
        var statistics = fos_statistics()
        servers[address]?.describe(&statistics)
        statistics.forwards = servers[address]?.forwards ?? 0
        return statistics
    }
    /// The last trace records of a server, oldest first.
    public func traceRecords(of address: MailboxAddress) -> [fos_trace_record] { servers[address]?.traces ?? [] }

    // MARK: Running

    public func advance(nanoseconds: UInt64) { monotonic += nanoseconds }

    /// Delivers one parcel of a queue that chance picks. False when nothing is in flight.
    @discardableResult
    public func step() -> Bool {
        guard let (parcel, route) = network.dequeue(&random) else { return false }
        steps += 1
        monotonic += options.stepNanoseconds
        deliver(parcel, route)
        return true
    }
    /// Runs until the condition holds or nothing is in flight.
    public func run(until condition: () -> Bool) {
        while !condition() { if !step() { return } }
    }
    /// Runs until nothing is in flight. False if it is still busy after `stepsMax`.
    @discardableResult
    public func runUntilQuiet(stepsMax: Int = 10_000_000) -> Bool {
        for _ in 0..<stepsMax { if !step() { return true } }
        return false
    }
    /// Sends FOS_OP_TICK to every server and lets 10 ms pass.
    public func tick() {
        advance(nanoseconds: 10_000_000)
        ticksWanted = []
        for server in order {
            var message = fos_message()
            message.operation = UInt16(FOS_OP_TICK.rawValue)
            kernelSend(message, [], to: server.address, continuation: 0)
        }
    }

    /// Sends FOS_OP_IDLE to the servers that asked for it. False: none did.
    @discardableResult
    public func idle() -> Bool {
        let wanted = order.filter { idleWanted.contains($0.address) }
        idleWanted = []
        for server in wanted {
            var message = fos_message()
            message.operation = UInt16(FOS_OP_IDLE.rawValue)
            kernelSend(message, [], to: server.address, continuation: 0)
        }
        return !wanted.isEmpty
    }

    // MARK: The microkernel's own messages

    /// Sends a request as the microkernel and runs until its reply is there. RETRY is sent again.
    public func kernelCall(_ call: LoopCall, to destination: MailboxAddress) throws(LoopStuck) -> LoopReply {
        var message = fos_message()
        message.operation = call.operation
        message.flags = call.flags
        message.inode = call.inode
        var status: Int32 = 0
        for _ in 0..<options.retriesMax {
            kernelContinuation += 1
            let number = kernelContinuation
            kernelSend(message, call.payload, to: destination, continuation: number)
            run { self.kernelReplies[number] != nil }
            guard let reply = kernelReplies.removeValue(forKey: number) else {
                throw .noReply(operation: call.operation, seed: options.seed)
            }
            guard reply.status > 0 else { return reply }
            status = reply.status
        }
        throw .retriesWithoutEnd(operation: call.operation, status: status, seed: options.seed)
    }
    /// Sends one-way news as the microkernel.
    public func kernelPost(_ call: LoopCall, to destination: MailboxAddress) {
        var message = fos_message()
        message.operation = call.operation
        message.inode = call.inode
        kernelSend(message, call.payload, to: destination, continuation: 0)
    }

    private func kernelSend(
        _ message: fos_message, _ payload: [UInt8], to destination: MailboxAddress, continuation: UInt32, about client: LoopClient? = nil
    ) {
        let letter = network.takeLetter()
        fill(letter, message, payload)
        letter.pointee.envelope.sender_kind = UInt8(FOS_SENDER_KERNEL.rawValue)
        letter.pointee.envelope.continuation = continuation
        if let client {
            letter.pointee.envelope.client = client.index
            letter.pointee.envelope.client_generation = client.generation
        }
        letter.pointee.message.destination = destination.rawValue
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .kernel, to: .server(destination), type: .request))
    }

    func bury(_ client: LoopClient) {
        guard client.isAlive else { return }
        client.isAlive = false
        // What it had written but no core had taken in is lost with it; what servers forward lives on.
        for (parcel, _) in network.drop(where: { $0.from == .client(client.index) || $0.to == .client(client.index) }) {
            if let letter = parcel.letter { network.giveBack(letter) }
            parcel.notice?.deallocate()
        }
        for server in order {
            var message = fos_message()
            message.operation = UInt16(FOS_OP_CLIENT_GONE.rawValue)
            kernelSend(message, [], to: server.address, continuation: 0, about: client)
        }
    }

    // MARK: Small things

    func violate(_ text: String) {
        violations.append("\(text) (seed \(options.seed), step \(steps))")
        onViolation?(text)
    }
    func liveClient(_ number: UInt32) -> LoopClient? {
        guard number > 0, Int(number) <= clients.count, clients[Int(number) - 1].isAlive else { return nil }
        return clients[Int(number) - 1]
    }
    func client(of envelope: fos_envelope) -> LoopClient? {
        guard let client = liveClient(envelope.client), client.generation == envelope.client_generation else { return nil }
        return client
    }
    var kernelCacheClient: UInt32? {
        clients.first { $0.isAlive && UInt32($0.rights) & FOS_RIGHT_KERNEL_CACHE.rawValue != 0 }?.index
    }
    func trace(_ address: MailboxAddress, _ record: fos_trace_record) {
        guard let server = servers[address] else { return }
        if server.traces.count == Int(FOS_TRACE_RECORDS) { server.traces.removeFirst() }
        server.traces.append(record)
    }
    func freshScratch() -> UnsafeMutablePointer<fos_message> {
        poisonScratch()
        let message = scratchRoom.assumingMemoryBound(to: fos_message.self)
        message.initialize(to: fos_message())
        return message
    }
    func poisonScratch() { scratchRoom.initializeMemory(as: UInt8.self, repeating: 0xaa, count: Int(FOS_MESSAGE_BYTES)) }
}
