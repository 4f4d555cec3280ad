// A simulated client process on an application core: its identity, its name cache, and what it does with notices.
//
// Invariants: what it knows of mailboxes' epochs is what it was told last, so it can be stale; it dies once.

public import CFosWire
public import Messaging

public final class SimClient {
    public unowned(unsafe) let host: SimHost
    /// Client index, from 1.
    public let index: UInt32
    public let generation: UInt32
    public let core: Int
    public let rights: UInt16
    public let uid: UInt32
    public let gid: UInt32
    public var pid: UInt32
    /// Ascending.
    public internal(set) var groups = UnsafeMutableBufferPointer<UInt32>(start: nil, count: 0)
    public internal(set) var isAlive = true
    public private(set) var threads: [SimThread] = []
    /// Mailboxes of name servers, which a client is given when it connects. Empty: it learns epochs from its microkernel.
    public var nameServers: [MailboxAddress] = [] {
        didSet { nameServers.sort { distance($0) != distance($1) ? distance($0) < distance($1) : $0.rawValue < $1.rawValue } }
    }
    /// Name servers that have stopped answering.
    private var avoided: [MailboxAddress] = []
    /// Called with each notice; afterwards it is acknowledged.
    public var onNotice: ((fos_notice) -> Void)?
    /// Regions it was sent, by token.
    public private(set) var regions: [UInt64: SharedRegion] = [:]
    var noticesUnderWay: [Int: Int] = [:]
    private var epochs: [UInt32: UInt32] = [:]
    private var acknowledgements: UInt32 = 0

    init(host: SimHost, index: UInt32, generation: UInt32, core: Int, rights: UInt16, uid: UInt32, gid: UInt32) {
        self.host = host
        self.index = index
        self.generation = generation
        self.core = core
        self.rights = rights
        self.uid = uid
        self.gid = gid
        pid = 1000 &+ index
        if UInt32(rights) & FOS_RIGHT_KERNEL_CACHE.rawValue != 0 { host.frontEnds.append(self) }
    }
    deinit { groups.deallocate() }

    /// Its supplementary groups from now on.
    public func join(_ list: [UInt32]) {
        groups.deallocate()
        groups = .allocate(capacity: list.count)
        _ = groups.initialize(from: list.sorted())
    }

    /// A thread with a channel of its own, which runs a program from `start` on.
    @discardableResult
    public func addThread(_ program: SimProgram) -> SimThread {
        let thread = SimThread(client: self, channel: UInt32(threads.count), number: UInt32(host.threads.count), program: program)
        threads.append(thread)
        host.threads.append(thread)
        return thread
    }
    /// All threads begin, at a random moment within `nanoseconds`.
    public func start(within nanoseconds: Int = 1000) {
        for thread in threads { thread.start(after: VirtualTime(host.random.below(nanoseconds * 1000))) }
    }

    @inline(__always) func thread(_ channel: UInt32) -> SimThread? { channel < UInt32(threads.count) ? threads[Int(channel)] : nil }

    func bulk(channel: UInt32, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        guard let thread = thread(channel), UInt64(offset) + UInt64(count) <= UInt64(thread.bulk.count) else { return nil }
        return UnsafeMutableRawBufferPointer(rebasing: thread.bulk[Int(offset)..<Int(offset) + Int(count)])
    }
    func take(_ region: SharedRegion, token: UInt64) -> Bool {
        regions[token] = region
        if region.sharing == .lent { host.grips[region.handle, default: 0] += 1 }
        return true
    }
    /// Unmaps a region, and closes its descriptor.
    public func letGo(_ token: UInt64) {
        guard let region = regions.removeValue(forKey: token), region.sharing == .lent else { return }
        host.grips[region.handle, default: 0] -= 1
    }

    // MARK: Names

    private func distance(_ mailbox: MailboxAddress) -> Int { host.topology.distance(from: core, to: mailbox.core) }
    /// The nearest name server that answers, as far as this client knows; nil if it was given none.
    var nameServer: MailboxAddress? { nameServers.first { !avoided.contains($0) } ?? nameServers.first }
    /// One is asked no more until none is left.
    func steerAway(from mailbox: MailboxAddress) {
        avoided.append(mailbox)
        if avoided.count >= nameServers.count { avoided = [] }
    }

    /// The epoch of a mailbox as this client has it.
    func epoch(of mailbox: MailboxAddress) -> UInt32 {
        if let known = epochs[mailbox.rawValue] { return known }
        let epoch = host.epoch(of: mailbox)
        epochs[mailbox.rawValue] = epoch
        return epoch
    }
    func learn(_ mailbox: MailboxAddress, epoch: UInt32) { epochs[mailbox.rawValue] = epoch }

    // MARK: Notices

    func noticed(_ notice: fos_notice) {
        onNotice?(notice)
        if notice.want_ack != 0 { acknowledge(notice) }
    }

    /// LEASE_ACK to the server that awaits it; its empty reply is thrown away.
    private func acknowledge(_ notice: fos_notice) {
        let address = MailboxAddress(rawValue: notice.reply_to)
        guard let mailbox = host.mailbox(address) else { return }
        acknowledgements &+= 1
        let number = host.letters.take()
        let letter = host.letters[number]
        letter.pointee.envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        letter.pointee.envelope.rights = rights
        letter.pointee.envelope.client = index
        letter.pointee.envelope.client_generation = generation
        letter.pointee.envelope.channel = SimThread.noChannel
        letter.pointee.envelope.sequence = acknowledgements
        letter.pointee.message.operation = UInt16(FOS_OP_LEASE_ACK.rawValue)
        letter.pointee.message.destination = address.rawValue
        letter.pointee.message.inode = notice.inode
        letter.pointee.message.length = UInt32(MemoryLayout<fos_lease_ack>.size)
        Request(letter: letter).payload.storeBytes(of: fos_lease_ack(cookie: notice.cookie), as: fos_lease_ack.self)
        let arrival = host.arrival(
            from: core, to: address.core, leaving: host.time + host.costs.clientSend,
            pair: UInt64(index) << 34 | UInt64(address.rawValue) << 2 | 1)
        host.events.schedule(.letter, at: arrival, letter: number, target: mailbox.number)
    }
}
