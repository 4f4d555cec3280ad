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
    public private(set) var refusals = 0
    var random: LoopRandom
    private var hash = LoopHash()
    private var network = LoopNetwork()
    private var servers: [MailboxAddress: LoopServer] = [:]
    private var order: [LoopServer] = []
    private var kernelReplies: [UInt32: LoopReply] = [:]
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

    // MARK: Sending

    func sendFromClient(_ client: LoopClient, channel: UInt32, sequence: UInt32, _ call: LoopCall, to destination: MailboxAddress) {
        let letter = network.takeLetter()
        var message = fos_message()
        message.operation = call.operation
        message.flags = call.flags
        message.destination = destination.rawValue
        message.sequence = sequence
        message.bulk_offset = call.bulkOffset
        message.bulk_length = call.bulkLength
        message.given = call.given
        message.given_for = call.givenFor
        message.inode = call.inode
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        envelope.rights = client.rights
        envelope.client = client.index
        envelope.client_generation = client.generation
        envelope.channel = channel
        envelope.sequence = sequence
        (envelope.uid, envelope.gid, envelope.pid) = (client.uid, client.gid, client.pid)
        if let acting = call.actingAs, UInt32(client.rights) & FOS_RIGHT_ACT_AS.rawValue != 0 {
            (envelope.uid, envelope.gid, envelope.pid) = (acting.uid, acting.gid, acting.pid)
        }
        (message.uid, message.gid, message.pid) = (envelope.uid, envelope.gid, envelope.pid)
        fill(letter, message, call.payload)
        letter.pointee.envelope = envelope
        guard servers[destination] != nil else { return refuse(letter, FOS_TRANSPORT_STALE) }
        guard network.requestsTo[destination, default: 0] < options.mailboxCapacity else { return refuse(letter, FOS_TRANSPORT_FULL) }
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .client(client.index), to: .server(destination), type: .request))
    }

    /// The client's own core answers instead of the server.
    private func refuse(_ letter: UnsafeMutablePointer<fos_letter>, _ status: fos_transport_status) {
        refusals += 1
        letter.pointee.message.status = Int32(status.rawValue)
        letter.pointee.message.length = 0
        letter.pointee.message.bulk_length = 0
        network.enqueue(
            LoopParcel(letter: letter), LoopRoute(from: .kernel, to: .client(letter.pointee.envelope.client), type: .response))
    }

    private func admits(_ destination: MailboxAddress) -> SendResult {
        guard servers[destination] != nil else { return .stale }
        if network.requestsTo[destination, default: 0] >= options.mailboxCapacity || random.chance(options.fullChance) {
            refusals += 1
            return .full
        }
        return .sent
    }

    func send(
        _ message: UnsafePointer<fos_message>, from: MailboxAddress, to destination: MailboxAddress,
        expecting continuation: ContinuationID, onBehalfOf behalf: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        let admitted = admits(destination)
        guard admitted == .sent else { return admitted }
        let letter = network.takeLetter()
        var envelope = behalf?.pointee ?? fos_envelope()
        envelope.sender_kind = UInt8((continuation == .none ? FOS_SENDER_NONE : FOS_SENDER_SERVER).rawValue)
        envelope.from = from.rawValue
        envelope.continuation = continuation.rawValue
        envelope.settled = 0
        copy(message, into: letter)
        letter.pointee.envelope = envelope
        letter.pointee.message.destination = destination.rawValue
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: .server(destination), type: .request))
        return .sent
    }

    func forward(_ source: UnsafePointer<fos_letter>, from: MailboxAddress, to destination: MailboxAddress) -> SendResult {
        let admitted = admits(destination)
        guard admitted == .sent else { return admitted }
        let letter = network.takeLetter()
        letter.pointee = source.pointee
        letter.pointee.envelope.hops &+= 1
        letter.pointee.message.destination = destination.rawValue
        servers[from]?.forwards += 1
        if letter.pointee.envelope.hops > 64 { violate("a request was forwarded \(letter.pointee.envelope.hops) times") }
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: .server(destination), type: .request))
        return .sent
    }

    func reply(from: MailboxAddress, to target: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let letter = network.takeLetter()
        copy(message, into: letter)
        letter.pointee.envelope = target.pointee
        letter.pointee.message.sequence = target.pointee.sequence
        let endpoint: LoopEndpoint
        switch UInt32(target.pointee.sender_kind) {
        case FOS_SENDER_CLIENT.rawValue: endpoint = .client(target.pointee.client)
        case FOS_SENDER_SERVER.rawValue: endpoint = .server(MailboxAddress(rawValue: target.pointee.from))
        case FOS_SENDER_KERNEL.rawValue: endpoint = .kernel
        case FOS_SENDER_NONE.rawValue:
            network.giveBack(letter)
            return
        default:
            violate("a reply to an envelope with sender kind \(target.pointee.sender_kind)")
            network.giveBack(letter)
            return
        }
        letter.pointee.envelope.from = from.rawValue
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: endpoint, type: .response))
    }

    func sendNotice(_ notice: UnsafePointer<fos_notice>, from: MailboxAddress, client: UInt32) {
        let copy = UnsafeMutablePointer<fos_notice>.allocate(capacity: 1)
        copy.initialize(to: notice.pointee)
        liveClient(client)?.noticeSent(core: from.core)
        network.enqueue(LoopParcel(notice: copy), LoopRoute(from: .server(from), to: .client(client), type: .notice))
    }

    // MARK: Delivering

    private func deliver(_ parcel: LoopParcel, _ route: LoopRoute) {
        if let notice = parcel.notice {
            defer { notice.deallocate() }
            hash.mix(UInt64(notice.pointee.kind))
            hash.mix(notice.pointee.inode)
            guard case .client(let number) = route.to, case .server(let address) = route.from else { return }
            liveClient(number)?.noticeArrived(notice.pointee, core: address.core)
            return
        }
        guard let letter = parcel.letter else { return }
        defer { network.giveBack(letter) }
        letter.pointee.envelope.arrived = monotonic
        mix(letter)
        switch route.to {
        case .client(let number):
            onDeliver?(letter, nil)
            guard let client = liveClient(number), client.generation == letter.pointee.envelope.client_generation else { return }
            client.replyArrived(
                channel: letter.pointee.envelope.channel, sequence: letter.pointee.envelope.sequence, Request(letter: letter).message)
        case .kernel:
            onDeliver?(letter, nil)
            let message = Request(letter: letter)
            kernelReplies[letter.pointee.envelope.continuation] = LoopReply(
                header: message.message.pointee, payload: Array(message.payload), bulk: [])
        case .server(let address):
            onDeliver?(letter, address)
            guard let server = servers[address] else { return }
            let kernel = LoopKernel(host: self, mailbox: address)
            if route.type == .response {
                server.resume(Response(letter: letter), kernel)
            } else {
                server.receive(Request(letter: letter), kernel)
            }
        }
    }

    private func mix(_ letter: UnsafeMutablePointer<fos_letter>) {
        let message = Request(letter: letter)
        hash.mix(UInt64(message.operation) << 32 | UInt64(message.message.pointee.destination))
        hash.mix(UInt64(UInt32(bitPattern: message.message.pointee.status)) << 32 | UInt64(letter.pointee.envelope.client))
        hash.mix(message.message.pointee.inode)
        hash.mix(monotonic)
        hash.mix(UnsafeRawBufferPointer(message.payload))
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

    private func fill(_ letter: UnsafeMutablePointer<fos_letter>, _ message: fos_message, _ payload: [UInt8]) {
        let count = min(payload.count, Int(FOS_PAYLOAD_BYTES_MAX))
        letter.pointee.message = message
        letter.pointee.message.length = UInt32(count)
        payload.withUnsafeBytes { bytes in
            guard count > 0, let base = bytes.baseAddress else { return }
            (UnsafeMutableRawPointer(Request(letter: letter).message) + MemoryLayout<fos_message>.size).copyMemory(
                from: base, byteCount: count)
        }
    }
    private func copy(_ message: UnsafePointer<fos_message>, into letter: UnsafeMutablePointer<fos_letter>) {
        let length = Int(message.pointee.length)
        precondition(length <= Int(FOS_PAYLOAD_BYTES_MAX), "a server sends a payload that is too long")
        UnsafeMutableRawPointer(Request(letter: letter).message).copyMemory(
            from: message, byteCount: MemoryLayout<fos_message>.size + length)
    }
}
