// A simulated client process: identity, channels with bulk areas, and what it does with notices.
//
// Protocol: a channel carries one request at a time. `call` posts, runs the host until the reply is there, and sends
// again on RETRY, FULL and STALE as the message proxy does. `post` returns at once; `LoopHost.runUntilQuiet` and
// `reply` finish it.
// Invariants: a reply is accepted once, for the sequence the channel waits for; any other is a violation that the
// host records.

public import CFosWire
public import Messaging

/// How a client treats notices (revocations of what it cached).
public enum LoopNoticePolicy {
    /// `onNotice` is called, then the notice is acknowledged.
    case acknowledge
    /// `onNotice` is called; the test calls `LoopClient.acknowledge` itself.
    case byHand
}

/// One channel: the request in progress, if any, and the bulk area.
final class LoopChannel {
    let storage: UnsafeMutableRawBufferPointer
    var sequence: UInt32 = 0
    var busy = false
    /// Replies to it are thrown away when they come (acknowledgements).
    var discardsReply = false
    var reply: LoopReply?
    var request: LoopCall?
    /// What the client may leave here of a file that is delegated to the channel; made when it is first asked for.
    private(set) lazy var delegation: UnsafeMutablePointer<fos_delegation> = {
        let area = UnsafeMutableRawPointer.allocate(byteCount: Int(FOS_DELEGATION_BYTES), alignment: 4096)
        area.initializeMemory(as: UInt8.self, repeating: 0, count: Int(FOS_DELEGATION_BYTES))
        hasDelegation = true
        return area.assumingMemoryBound(to: fos_delegation.self)
    }()
    private var hasDelegation = false

    init(bulkBytes: Int) {
        storage = .allocate(byteCount: bulkBytes, alignment: 4096)
        storage.initializeMemory(as: UInt8.self, repeating: 0)
    }
    deinit {
        storage.deallocate()
        if hasDelegation { UnsafeMutableRawPointer(delegation).deallocate() }
    }

    func bulk(offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        guard UInt64(offset) + UInt64(count) <= UInt64(storage.count) else { return nil }
        return UnsafeMutableRawBufferPointer(rebasing: storage[Int(offset)..<Int(offset) + Int(count)])
    }
}

public final class LoopClient {
    public unowned let host: LoopHost
    /// Client index, from 1.
    public let index: UInt32
    public let generation: UInt32
    public let rights: UInt16
    public var uid: UInt32
    public var gid: UInt32
    public var pid: UInt32
    private(set) var groups = UnsafeMutableBufferPointer<UInt32>(start: nil, count: 0)
    public internal(set) var isAlive = true
    /// Every notice delivered, oldest first.
    public private(set) var notices: [fos_notice] = []
    /// Delivered and wanting an acknowledgement that has not been sent.
    public private(set) var unacknowledged: [fos_notice] = []
    public var noticePolicy = LoopNoticePolicy.acknowledge
    public var onNotice: ((fos_notice) -> Void)?
    var channels: [LoopChannel] = []
    /// Servers that have been told of its death; to the others its memory is still there.
    var forgottenBy: Set<MailboxAddress> = []
    private var onTheWay: [Int: Int] = [:]

    init(host: LoopHost, index: UInt32, generation: UInt32, rights: UInt16, uid: UInt32, gid: UInt32) {
        self.host = host
        self.index = index
        self.generation = generation
        self.rights = rights
        self.uid = uid
        self.gid = gid
        pid = 1000 &+ index
    }

    deinit { groups.deallocate() }

    /// Its supplementary groups from now on; a live client has those of the moment it connected.
    public func join(_ list: [UInt32]) {
        groups.deallocate()
        groups = .allocate(capacity: list.count)
        _ = groups.initialize(from: list.sorted())
    }

    // MARK: Requests

    /// Sends a request, to `destination` or to the owner of its inode, and leaves. nil destination needs `host.slotOwner`.
    @discardableResult
    public func post(_ call: LoopCall, to destination: MailboxAddress? = nil) -> LoopTicket {
        precondition(isAlive, "a dead client posts")
        let number = acquireChannel()
        let channel = channels[number]
        channel.sequence &+= 1
        if channel.sequence == 0 { channel.sequence = 1 }
        channel.busy = true
        channel.reply = nil
        channel.request = call
        channel.discardsReply = false
        let bulkStart = min(Int(call.bulkOffset), channel.storage.count)
        let bulkCount = min(call.bulk.count, channel.storage.count - bulkStart)
        channel.storage[bulkStart..<bulkStart + bulkCount].copyBytes(from: call.bulk[0..<bulkCount])
        host.sendFromClient(
            self, channel: UInt32(number), sequence: channel.sequence, call,
            to: destination ?? host.destination(of: call))
        return LoopTicket(client: index, channel: UInt32(number), sequence: channel.sequence)
    }

    /// The reply of a posted request, once; nil while it has not come. The channel is free again after that.
    public func reply(_ ticket: LoopTicket) -> LoopReply? {
        let channel = channels[Int(ticket.channel)]
        guard channel.sequence == ticket.sequence, let reply = channel.reply else { return nil }
        channel.reply = nil
        channel.busy = false
        return reply
    }
    public func isAnswered(_ ticket: LoopTicket) -> Bool {
        channels[Int(ticket.channel)].sequence == ticket.sequence && channels[Int(ticket.channel)].reply != nil
    }

    /// Sends a request and runs the host until its reply is there. RETRY, FULL and STALE are sent again.
    public func call(_ call: LoopCall, to destination: MailboxAddress? = nil) throws(LoopStuck) -> LoopReply {
        var status: Int32 = 0
        for _ in 0..<host.options.retriesMax {
            guard isAlive else { throw .clientGone(operation: call.operation) }
            let ticket = post(call, to: destination)
            settle(ticket)
            guard isAlive else { throw .clientGone(operation: call.operation) }
            guard let reply = reply(ticket) else { throw .noReply(operation: call.operation, seed: host.options.seed) }
            guard reply.status > 0 else { return reply }
            status = reply.status
            host.advance(nanoseconds: 1_000)
            if !host.step() { host.tick() }
        }
        throw .retriesWithoutEnd(operation: call.operation, status: status, seed: host.options.seed)
    }

    /// The same without sending again: also transport statuses are returned.
    public func callOnce(_ call: LoopCall, to destination: MailboxAddress? = nil) throws(LoopStuck) -> LoopReply {
        let ticket = post(call, to: destination)
        settle(ticket)
        guard let reply = reply(ticket) else { throw .noReply(operation: call.operation, seed: host.options.seed) }
        return reply
    }

    /// Runs until the reply is there. When nothing is in flight, ticks go by: a server that met a full mailbox tries
    /// again at one.
    private func settle(_ ticket: LoopTicket) {
        for _ in 0..<host.options.ticksMax {
            host.run { self.isAnswered(ticket) || !self.isAlive }
            if isAnswered(ticket) || !isAlive { return }
            host.tick()
        }
    }

    /// The bulk area of a posted request's channel, shared with the servers: a hostile client writes it any time.
    public func bulk(_ ticket: LoopTicket) -> UnsafeMutableRawBufferPointer { channels[Int(ticket.channel)].storage }

    /// The area of a channel's delegation, shared with the servers.
    public func delegation(channel: UInt32) -> UnsafeMutablePointer<fos_delegation> { channels[Int(channel)].delegation }

    // MARK: Notices

    /// Acknowledges a delivered notice with FOS_OP_LEASE_ACK to the server that awaits it.
    public func acknowledge(_ notice: fos_notice) {
        guard let position = unacknowledged.firstIndex(where: { $0.cookie == notice.cookie && $0.reply_to == notice.reply_to }) else {
            return
        }
        unacknowledged.remove(at: position)
        guard isAlive else { return }
        let ticket = post(
            LoopCall(FOS_OP_LEASE_ACK, inode: notice.inode, fos_lease_ack(cookie: notice.cookie)),
            to: MailboxAddress(rawValue: notice.reply_to))
        channels[Int(ticket.channel)].discardsReply = true
    }
    public func acknowledgeAll() {
        for notice in unacknowledged { acknowledge(notice) }
    }
    public func forgetNotices() { notices.removeAll() }

    func noticesUnderWay(to core: Int) -> Int { onTheWay[core, default: 0] }
    func noticeSent(core: Int) { onTheWay[core, default: 0] += 1 }
    func noticeArrived(_ notice: fos_notice, core: Int) {
        onTheWay[core, default: 0] -= 1
        notices.append(notice)
        if notice.want_ack != 0 { unacknowledged.append(notice) }
        onNotice?(notice)
        if noticePolicy == .acknowledge, notice.want_ack != 0 { acknowledge(notice) }
    }

    // MARK: Life

    /// The process dies: nothing more comes from it, and every server is told FOS_OP_CLIENT_GONE.
    public func die() { host.bury(self) }

    func replyArrived(channel number: UInt32, sequence: UInt32, _ message: UnsafePointer<fos_message>) {
        guard Int(number) < channels.count else { return host.violate("reply to channel \(number), which client \(index) has not") }
        let channel = channels[Int(number)]
        guard channel.busy, channel.sequence == sequence, channel.reply == nil else {
            return host.violate(
                "second reply to request \(sequence) on channel \(number) of client \(index), operation \(message.pointee.operation)")
        }
        let length = min(Int(message.pointee.length), Int(FOS_PAYLOAD_BYTES_MAX))
        let payload = Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(message) + MemoryLayout<fos_message>.size, count: length))
        var bulk: [UInt8] = []
        if message.pointee.status >= 0, message.pointee.bulk_length > 0 {
            if let bytes = channel.bulk(offset: channel.request?.bulkOffset ?? 0, count: message.pointee.bulk_length) {
                bulk = Array(bytes)
            } else {
                host.violate("a reply says more bulk bytes than the channel has")
            }
        }
        if channel.discardsReply {
            channel.busy = false
            return
        }
        channel.reply = LoopReply(header: message.pointee, payload: payload, bulk: bulk)
    }

    private func acquireChannel() -> Int {
        if let free = channels.firstIndex(where: { !$0.busy }) { return free }
        channels.append(LoopChannel(bulkBytes: host.options.bulkBytes))
        return channels.count - 1
    }
}
