// A thread of a simulated client: one channel, and the client's half of the protocol as the message proxy speaks it.
//
// Protocol: a program builds a request with `begin` and `add`, and returns `.call` from its step; the thread finds the
// owner by the board's hint, sends, waits, sends again on RETRY and FULL after a random pause that grows (shim/proxy/
// call.c), looks names up on STALE, and calls the program's step again when the answer is there.
// Invariants: one request at a time; a reply is accepted once, for the request that the thread waits for.

public import CFosWire
public import Messaging

/// What a thread does next.
public enum SimStep {
    /// The request goes to the owner of its inode.
    case call
    case callTo(MailboxAddress)
    /// Work of the program's own.
    /// To the nearest name server that has not stopped answering.
    case callName
    case pause(VirtualTime)
    case end
}

/// What a thread runs. `step` is called at the start, and whenever what it asked for is done.
open class SimProgram {
    public init() {}
    open func step(_ thread: SimThread) -> SimStep { .end }
    /// The thread's client is dead, and here is the answer that nobody waits for any more. It is the thread's reply.
    open func answeredUnheard(_ thread: SimThread) {}
}

public final class SimThread {
    enum State { case new, pausing, waiting, lookingUp, resending, stuck, over }
    public unowned(unsafe) let client: SimClient
    public let channel: UInt32
    let number: UInt32
    public let program: SimProgram
    /// The thread's own stream, so that what one thread draws does not depend on the others.
    public var random: SeededRandom
    /// The bulk area of the channel, shared with servers.
    public let bulk: UnsafeMutableRawBufferPointer
    private let requestLetter = UnsafeMutablePointer<fos_letter>.allocate(capacity: 1)
    private let replyLetter = UnsafeMutablePointer<fos_letter>.allocate(capacity: 1)
    private var state = State.new
    private var sequence: UInt32 = 0
    private var attempts = 0
    /// How often the present request met a mailbox that has changed.
    private var stales = 0
    private var destination = MailboxAddress(rawValue: 0)
    private enum Route { case owner, mailbox, names }
    private var route = Route.owner
    /// Whom the client's own look-up was sent to.
    private var lookedUpAt = MailboxAddress(rawValue: 0)
    /// The mailbox whose server has the request.
    var holder = SimHost.underWay
    var sentEnvelope = fos_envelope()
    /// When the operation was begun, and when its answer came.
    public private(set) var invoked: VirtualTime = 0
    public private(set) var returned: VirtualTime = 0
    public private(set) var operations: UInt64 = 0
    /// Sends of the last operation.
    public private(set) var sends = 0

    static var noChannel: UInt32 { .max }

    init(client: SimClient, channel: UInt32, number: UInt32, program: SimProgram) {
        self.client = client
        self.channel = channel
        self.number = number
        self.program = program
        random = SeededRandom(seed: client.host.random.next())
        bulk = .allocate(byteCount: client.host.options.bulkBytes, alignment: 4096)
        requestLetter.initialize(to: fos_letter())
        replyLetter.initialize(to: fos_letter())
    }
    deinit {
        bulk.deallocate()
        requestLetter.deallocate()
        replyLetter.deallocate()
    }

    public var host: SimHost { client.host }
    public var isWaiting: Bool {
        switch state {
        case .waiting, .lookingUp, .resending, .stuck: true
        default: false
        }
    }
    public var isOver: Bool { state == .over }
    /// A request of its own is out, and no answer to it has come.
    public var hasAsked: Bool { state == .waiting }

    // MARK: The request

    public var request: UnsafeMutablePointer<fos_message> { Request(letter: requestLetter).message }
    /// Begins a request: a header of zeros but for these.
    public func begin(_ operation: fos_operation, inode: UInt64, flags: UInt16 = 0) {
        request.pointee = fos_message()
        request.pointee.operation = UInt16(operation.rawValue)
        request.pointee.inode = inode
        request.pointee.flags = flags
    }
    /// Appends a fixed part, a struct of the wire, to the payload.
    public func add<Fixed>(_ fixed: Fixed) {
        withUnsafeBytes(of: fixed) { add($0) }
    }
    /// Appends a name.
    public func add(_ bytes: UnsafeRawBufferPointer) {
        request.append(bytes)
    }
    public func add(_ name: String) {
        var name = name
        name.withUTF8 { add(UnsafeRawBufferPointer($0)) }
    }

    // MARK: The reply

    public var reply: UnsafePointer<fos_message> { UnsafePointer(Request(letter: replyLetter).message) }
    public var status: Int32 { reply.pointee.status }
    /// The reply's payload as a fixed part, a struct of the wire; nil if it is shorter.
    public func replied<Fixed>(_ type: Fixed.Type = Fixed.self) -> Fixed? {
        let payload = Request(letter: replyLetter).payload
        return payload.count >= MemoryLayout<Fixed>.size ? payload.load(as: Fixed.self) : nil
    }
    public var replyPayload: UnsafeRawBufferPointer { UnsafeRawBufferPointer(Request(letter: replyLetter).payload) }

    // MARK: Going on

    public func start(after delay: VirtualTime = 0) {
        precondition(state == .new || state == .over, "a thread is started that runs")
        state = .pausing
        host.events.schedule(.thread, at: host.time + delay, target: number)
    }

    func goOn() {
        guard client.isAlive else { return }
        switch state {
        case .pausing: advance()
        case .resending:
            switch route {
            case .owner: destination = owner
            case .names: destination = client.nameServer ?? destination
            case .mailbox: break
            }
            send()
        default: break
        }
    }

    private var owner: MailboxAddress {
        let owner = host.board.owner(of: request)
        // A mailbox that stays away: any member takes the request, and knows more.
        if owner.rawValue != 0, stales < 2 || host.server(at: owner) != nil { return owner }
        return host.anyFileServer ?? MailboxAddress(rawValue: 0)
    }

    private func advance() {
        switch program.step(self) {
        case .call:
            route = .owner
            destination = owner
            beginCall()
        case .callTo(let mailbox):
            route = .mailbox
            destination = mailbox
            beginCall()
        case .callName:
            route = .names
            destination = client.nameServer ?? MailboxAddress(rawValue: 0)
            beginCall()
        case .pause(let time):
            state = .pausing
            host.events.schedule(.thread, at: host.time + time, target: number)
        case .end: state = .over
        }
    }

    private func beginCall() {
        invoked = host.time
        attempts = 0
        stales = 0
        sends = 0
        send()
    }

    private func send() {
        sends += 1
        let epoch = client.epoch(of: destination)
        let isStale = host.faults.stalePer65536 > 0 && Int(host.random.next() & 65535) < host.faults.stalePer65536
        request.pointee.destination = destination.rawValue
        request.pointee.epoch = isStale ? epoch &- 1 : epoch
        state = .waiting
        dispatch(requestLetter, to: destination)
    }

    private func dispatch(_ source: UnsafeMutablePointer<fos_letter>, to address: MailboxAddress) {
        sequence = sequence == .max ? 1 : sequence + 1
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        envelope.rights = client.rights
        envelope.client = client.index
        envelope.client_generation = client.generation
        envelope.channel = channel
        envelope.sequence = sequence
        envelope.cpu = UInt16(exactly: client.core + 1) ?? 0
        (envelope.uid, envelope.gid, envelope.pid) = (client.uid, client.gid, client.pid)
        let message = Request(letter: source).message
        if UInt32(client.rights) & FOS_RIGHT_ACT_AS.rawValue != 0 {
            (envelope.uid, envelope.gid, envelope.pid) = (message.pointee.uid, message.pointee.gid, message.pointee.pid)
        } else {
            (message.pointee.uid, message.pointee.gid, message.pointee.pid) = (client.uid, client.gid, client.pid)
        }
        message.pointee.sequence = sequence
        sentEnvelope = envelope
        holder = SimHost.underWay
        guard let mailbox = host.mailbox(address) else { return answerHere(message, FOS_TRANSPORT_STALE) }
        if host.faults.refusedPer65536 > 0, Int(host.random.next() & 65535) < host.faults.refusedPer65536 {
            return answerHere(message, FOS_TRANSPORT_FULL)
        }
        let copy = host.letters.take()
        let letter = host.letters[copy]
        host.copy(message, into: letter)
        letter.pointee.envelope = envelope
        letter.pointee.envelope.host_mark = Mark(.local, mailbox.epoch).rawValue
        let arrival = host.arrival(
            from: client.core, to: address.core, leaving: host.time + host.costs.clientSend,
            pair: UInt64(client.index) << 34 | UInt64(address.rawValue) << 2)
        host.events.schedule(.letter, at: arrival, letter: copy, target: mailbox.number)
    }

    /// A microkernel answers instead of the server.
    private func answerHere(_ message: UnsafeMutablePointer<fos_message>, _ status: fos_transport_status) {
        if status == FOS_TRANSPORT_FULL { host.totals.refused += 1 } else { host.totals.stale += 1 }
        var reply = fos_message()
        reply.operation = message.pointee.operation
        reply.inode = message.pointee.inode
        reply.status = Int32(status.rawValue)
        host.answer(sentEnvelope, &reply, core: client.core, sender: MailboxAddress(core: client.core, index: 0))
    }

    // MARK: Replies

    func replyArrives(_ letter: UnsafeMutablePointer<fos_letter>) {
        guard state == .waiting || state == .lookingUp, letter.pointee.envelope.sequence == sequence else {
            return host.violate(
                "a second reply to request \(letter.pointee.envelope.sequence) on channel \(channel) of client \(client.index), "
                    + "operation \(letter.pointee.message.operation)")
        }
        let message = Request(letter: letter).message
        if state == .lookingUp { return lookedUp(letter) }
        switch message.pointee.status {
        case Status.retry, Status.full:
            host.totals.retried += 1
            backOff()
        case Status.stale: lookUp()
        default:
            host.copy(message, into: replyLetter)
            replyLetter.pointee.envelope = letter.pointee.envelope
            returned = host.time
            operations += 1
            host.totals.operations += 1
            advance()
        }
    }

    /// An answer for a client that is dead. "Try again" says that nothing has happened, and nobody tries again.
    func replyIsUnheard(_ message: UnsafePointer<fos_message>, sequence: UInt32) {
        guard state == .waiting, sequence == self.sequence else { return }
        state = .over
        guard message.pointee.status <= 0 else { return }
        host.copy(message, into: replyLetter)
        returned = host.isInTurn ? host.turnTime : host.time
        program.answeredUnheard(self)
    }

    private func backOff() {
        attempts += 1
        guard attempts < host.options.retriesMax else {
            state = .stuck
            return
        }
        state = .resending
        let pause = VirtualTime(random.below(1_000_000 << min(attempts, 10)))
        host.events.schedule(.thread, at: host.time + pause, target: number)
    }

    /// The file fleet's members are asked for; a reply names the nearest, and the epochs of others come as they are met.
    private func lookUp() {
        stales += 1
        client.learn(destination, epoch: host.epoch(of: destination))
        if route == .names { client.steerAway(from: destination) }
        guard route == .owner, let server = client.nameServer else { return backOff() }
        lookedUpAt = server
        let name = "/sys/file"
        let letter = replyLetter
        letter.pointee.message = fos_message()
        letter.pointee.message.operation = UInt16(FOS_OP_NAME_LOOKUP.rawValue)
        letter.pointee.message.epoch = host.epoch(of: server)
        let payload = UnsafeMutableRawPointer(letter) + MemoryLayout<fos_envelope>.size + MemoryLayout<fos_message>.size
        var question = fos_name_request()
        question.name_length = UInt32(name.utf8.count)
        question.from_core = UInt32(client.core)
        payload.storeBytes(of: question, as: fos_name_request.self)
        (payload + MemoryLayout<fos_name_request>.size).copyMemory(from: Array(name.utf8), byteCount: name.utf8.count)
        letter.pointee.message.length = UInt32(MemoryLayout<fos_name_request>.size + name.utf8.count)
        state = .lookingUp
        dispatch(letter, to: server)
    }

    private func lookedUp(_ letter: UnsafeMutablePointer<fos_letter>) {
        if letter.pointee.message.status == Status.stale { client.steerAway(from: lookedUpAt) }
        let payload = Request(letter: letter).payload
        let head = MemoryLayout<fos_name_reply>.size
        if letter.pointee.message.status == 0, payload.count >= head {
            let count = Int(payload.loadUnaligned(as: fos_name_reply.self).members)
            for position in 0..<min(count, (payload.count - head) / MemoryLayout<fos_name_member>.size) {
                let member = payload.loadUnaligned(
                    fromByteOffset: head + position * MemoryLayout<fos_name_member>.size, as: fos_name_member.self)
                client.learn(MailboxAddress(rawValue: member.mailbox), epoch: member.epoch)
            }
        }
        backOff()
    }
}

extension SimHost {
    /// A live server that a client may send a request to whose owner nobody has named.
    var anyFileServer: MailboxAddress? {
        for address in fallback where server(at: address) != nil { return address }
        return nil
    }
    @inline(__always) func thread(of letter: UnsafeMutablePointer<fos_letter>) -> SimThread? {
        guard let client = liveClient(letter.pointee.envelope.client), client.generation == letter.pointee.envelope.client_generation else {
            return nil
        }
        guard let thread = client.thread(letter.pointee.envelope.channel), thread.sentEnvelope.sequence == letter.pointee.envelope.sequence
        else { return nil }
        return thread
    }

    /// Who asked is dead. A checker wants to know all the same what has happened.
    func replyIsUnheard(_ target: fos_envelope, _ message: UnsafePointer<fos_message>) {
        guard target.client > 0, Int(target.client) <= clients.count else { return }
        let client = clients[Int(target.client) - 1]
        guard client.generation == target.client_generation, target.channel != SimThread.noChannel else { return }
        client.thread(target.channel)?.replyIsUnheard(message, sequence: target.sequence)
    }

    func replyArrives(_ number: UInt32, at index: UInt32) {
        defer { letters.giveBack(number) }
        let letter = letters[number]
        guard let client = liveClient(index), client.generation == letter.pointee.envelope.client_generation else {
            return replyIsUnheard(letter.pointee.envelope, Request(letter: letter).message)
        }
        hash.mix(UInt64(UInt32(bitPattern: letter.pointee.message.status)) << 32 | UInt64(letter.pointee.envelope.sequence))
        mixPayload(of: letter)
        onDeliver?(letter, nil)
        guard letter.pointee.envelope.channel != SimThread.noChannel else { return }
        client.thread(letter.pointee.envelope.channel)?.replyArrives(letter)
    }
}
