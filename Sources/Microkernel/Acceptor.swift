// The acceptor: the one thread that lets clients in, and notices when they die.
//
// Role: listens on the instance's abstract socket, answers hellos, makes and seals segments, owns the client table's
// life cycle, and watches each client's socket and pidfd. It is the only writer of client entries and control rings.
// Role too: sends clients the descriptors that servers have for them (HandOut.swift).
// Protocol: fos/handshake.h. A connection has two seconds to say hello; most have said it by the time they are taken. After
// the welcome a client never writes to its socket; whatever comes then (data or hang-up) ends it, as does the death of its
// process.
// Short programs come and go by the thousand, so what a connection costs is theirs: the thread runs beside them, off the
// cores' CPUs. The segment of the next client is made while nobody waits (Segment.swift). A departure wakes nobody for a
// while: whichever message comes next finds the news, which a core reads before its bells, and what the dead had is taken
// back by the dozen, by the clock. Where one program follows the other, their ends do not wake this thread: it looks for them
// when the next one has been let in, and by the clock.
// Invariants: identity comes from SO_PEERCRED and a pidfd. At most `pendingMax` connections are without a hello; one
// spare descriptor is kept to refuse connections with when descriptors run out. A user has a bound of clients, but the
// owner and root. No path here waits for a client.

import CFosWire
import CPlatform
import Glibc
import Messaging

/// A connected client as status commands show it.
public struct ClientStatus: Sendable {
    public var client: UInt32
    public var uid: UInt32
    public var gid: UInt32
    public var pid: UInt32
    public var channels: UInt32
    /// enum fos_right.
    public var rights: UInt32
}

final class Acceptor: @unchecked Sendable {
    private enum Key: UInt64 {
        case listener = 0
        case event = 1
        case pending = 2
        case socket = 3
        case process = 4
        case departures = 5
    }
    private struct Pending {
        var socket: Int32
        var deadline: UInt64
    }
    private struct Connection {
        var socket: Int32 = -1
        var pidfd: Int32 = -1
    }
    static let pendingMax = 64
    private static let helloTime: UInt64 = 2_000_000_000
    /// How long a sleeping core may sleep on with news of a departure, and its segment stay, in ms.
    private static let farewellTime: Int32 = 20

    private let configuration: MicrokernelConfiguration
    private let fabric: Fabric
    private let boardDescriptor: Int32
    private let boardBytes: UInt64
    private let layoutCores: Int
    private let poll: Int32
    /// Sockets and processes of clients, watched apart from what wants an answer.
    private let departures: Int32
    private var listener: Int32 = -1
    private var spareDescriptor: Int32 = -1
    private var pending: [Int: Pending] = [:]
    private var nextPending = 0
    private var connections: [Connection]
    private var free: [UInt32]
    /// Clients that have gone, in the order of their going, until every core has forgotten them.
    private var retiring: [UInt32] = []
    /// Monotonic ns at which these are looked at again; nil: there are none.
    private var farewellsDue: UInt64?
    /// The next client that ends wakes this thread. If not, it looks by itself, at least until `departuresDue` (monotonic ns).
    private var isCalledForDepartures = false
    private var departuresDue: UInt64 = 0
    private var gone = [fos_platform_ready](repeating: fos_platform_ready(), count: 64)
    /// Made ahead for the next client that asks for as much as the last one did.
    private var spare: Segment?
    private var spareChannels = 0
    /// The servers that owned slots when the board's table of them had this epoch.
    private var owners = fos_file_servers()
    private var ownersEpoch: UInt32 = 0
    /// In this round of the loop a client was let in, which now wants the CPU.
    private var hasWelcomed = false

    // Shared with other threads, under `lock`.
    private var lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var handed: [Int32] = []
    private var stopped = false
    private var listed: [UInt32: ClientStatus] = [:]

    init(configuration: MicrokernelConfiguration, fabric: Fabric, boardDescriptor: Int32, boardBytes: UInt64) throws(MicrokernelError) {
        self.configuration = configuration
        self.fabric = fabric
        self.boardDescriptor = boardDescriptor
        self.boardBytes = boardBytes
        layoutCores = fabric.coreCount
        connections = Array(repeating: Connection(), count: configuration.clientsMax)
        free = (0..<UInt32(configuration.clientsMax)).reversed()
        pthread_mutex_init(lock, nil)
        poll = fos_platform_poll_create()
        departures = fos_platform_poll_create()
        guard poll >= 0, departures >= 0 else { throw .system("epoll_create1", errno: -min(poll, departures)) }
        spareDescriptor = fos_platform_spare_descriptor()
        _ = fos_platform_poll_add(poll, fabric.acceptorEvent, Key.event.rawValue << 32)
        isCalledForDepartures = fos_platform_poll_add_once(poll, departures, Key.departures.rawValue << 32) == 0
        if configuration.listens {
            listener = configuration.name.withCString { fos_platform_listen(configuration.ownerUID, $0, 128) }
            if listener == -EADDRINUSE { throw .alreadyRunning }
            guard listener >= 0 else { throw .system("cannot listen on the instance's socket", errno: -listener) }
            _ = fos_platform_poll_add(poll, listener, Key.listener.rawValue << 32)
        }
    }

    deinit {
        fos_platform_close(poll)
        fos_platform_close(departures)
        fos_platform_close(listener)
        fos_platform_close(spareDescriptor)
        spare?.dispose()
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    private func locked<R>(_ body: () -> R) -> R {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return body()
    }

    // MARK: called from any thread

    /// Takes over a connected socket, as if it had come through the listener.
    func hand(_ socket: Int32) {
        let taken = locked {
            if !stopped { handed.append(socket) }
            return !stopped
        }
        if taken { fos_platform_event_signal(fabric.acceptorEvent) } else { fos_platform_close(socket) }
    }

    func stop() {
        locked { stopped = true }
        fos_platform_event_signal(fabric.acceptorEvent)
    }

    var clients: [ClientStatus] { locked { listed.values.sorted { $0.client < $1.client } } }

    // MARK: the thread

    func run() {
        var ready = [fos_platform_ready](repeating: fos_platform_ready(), count: 64)
        while true {
            hasWelcomed = false
            let count = fos_platform_poll_wait(poll, &ready, Int32(ready.count), patience)
            for item in ready.prefix(max(0, Int(count))) { handle(item) }
            handOut()
            expire()
            noticeDepartures()
            settleFarewells()
            let (sockets, stop) = locked {
                let sockets = handed
                handed = []
                return (sockets, stopped)
            }
            for socket in sockets { expect(socket) }
            if stop { break }
            if !hasWelcomed { prepare() }
        }
        handOut()
        for (_, waiting) in pending { fos_platform_close(waiting.socket) }
        pending = [:]
        fos_platform_close(listener)
        listener = -1
    }

    /// Milliseconds until something is due.
    private var patience: Int32 { farewellsDue != nil || !isCalledForDepartures ? Self.farewellTime : pending.isEmpty ? -1 : 500 }

    private func handle(_ item: fos_platform_ready) {
        let number = Int(item.key & 0xffff_ffff)
        switch Key(rawValue: item.key >> 32) {
        case .listener: accept()
        case .event: fos_platform_event_clear(fabric.acceptorEvent)
        case .pending: hello(number)
        case .departures: isCalledForDepartures = false
        case .socket, .process, nil: break
        }
    }

    /// Lets the clients go that have ended. One that ends while all is quiet wakes this thread. From then on it looks by itself, after
    /// whatever else wakes it and by the clock, until a look finds nobody: where programs come and go, none has to wake it.
    private func noticeDepartures() {
        guard !isCalledForDepartures else { return }
        let foundAny = seeOffTheDead()
        let now = fos_platform_monotonic_ns()
        if foundAny || hasWelcomed {
            departuresDue = now + UInt64(Self.farewellTime) * 1_000_000
        } else if now >= departuresDue {
            isCalledForDepartures = fos_platform_poll_arm(poll, departures, Key.departures.rawValue << 32) == 0
        }
    }

    /// True if any client has ended since the last look.
    private func seeOffTheDead() -> Bool {
        var foundAny = false
        var count: Int
        repeat {
            count = max(0, Int(fos_platform_poll_wait(departures, &gone, Int32(gone.count), 0)))
            for item in gone.prefix(count) { depart(Int(item.key & 0xffff_ffff)) }
            if count > 0 { foundAny = true }
        } while count == gone.count
        return foundAny
    }

    /// Sends what servers have for clients. A client that is gone, or does not read, gets nothing.
    private func handOut() {
        for core in 0..<fabric.coreCount {
            while let order = fabric.handOuts[core].take() {
                let client = Int(order.client)
                if connections.indices.contains(client), fabric.isLive(client: order.client, generation: order.generation) {
                    var packet = fos_map_packet(magic: fos_map_magic(), token: order.token)
                    _ = fos_platform_send(connections[client].socket, &packet, MemoryLayout<fos_map_packet>.size, [order.descriptor], 1)
                }
                fos_platform_close(order.descriptor)
            }
        }
    }

    /// Takes one connection. If more wait, epoll says so again.
    private func accept() {
        let socket = fos_platform_accept(listener)
        if socket >= 0 { return expect(socket) }
        guard socket == -EMFILE || socket == -ENFILE else { return }
        // Out of descriptors: take the connection with the spare one and hang up, rather than spin on the listener.
        fos_platform_close(spareDescriptor)
        fos_platform_close(fos_platform_accept(listener))
        spareDescriptor = fos_platform_spare_descriptor()
        if spareDescriptor < 0 { usleep(10_000) }
    }

    /// Answers a new connection's hello, or waits for it.
    private func expect(_ socket: Int32) {
        if greet(socket) { return }
        if pending.count >= Self.pendingMax, let oldest = pending.min(by: { $0.value.deadline < $1.value.deadline }) {
            drop(pending: oldest.key)
        }
        let number = nextPending
        nextPending = (nextPending + 1) & 0x7fff_ffff
        guard fos_platform_poll_add(poll, socket, Key.pending.rawValue << 32 | UInt64(number)) == 0 else {
            return fos_platform_close(socket)
        }
        pending[number] = Pending(socket: socket, deadline: fos_platform_monotonic_ns() + Self.helloTime)
    }

    private func drop(pending number: Int) {
        guard let waiting = pending.removeValue(forKey: number) else { return }
        fos_platform_close(waiting.socket)
    }

    private func expire() {
        guard !pending.isEmpty else { return }
        let now = fos_platform_monotonic_ns()
        for (number, waiting) in pending where waiting.deadline < now { drop(pending: number) }
    }

    private func hello(_ number: Int) {
        guard let waiting = pending[number], greet(waiting.socket, isWatched: true) else { return }
        pending[number] = nil
    }

    /// Reads a hello and answers it, or hangs up. False if none has come yet.
    private func greet(_ socket: Int32, isWatched: Bool = false) -> Bool {
        var hello = fos_hello()
        let got = fos_platform_receive(socket, &hello, MemoryLayout<fos_hello>.size)
        if got == -Int64(EAGAIN) { return false }
        if isWatched { _ = fos_platform_poll_remove(poll, socket) }
        if got > 0 { answer(hello, got, socket) } else { fos_platform_close(socket) }
        return true
    }

    /// Answers a hello of `got` bytes.
    private func answer(_ hello: fos_hello, _ got: Int64, _ socket: Int32) {
        guard got == Int64(MemoryLayout<fos_hello>.size), hello.magic == fos_wire_hello_magic(), hello.version == UInt32(FOS_WIRE_VERSION),
            hello.layout_hash == fos_layout_hash()
        else { return refuse(socket, -EPROTO) }
        var peer = fos_platform_peer()
        guard fos_platform_peer(socket, &peer) == 0 else { return refuse(socket, -EACCES) }
        let isOwner = peer.uid == configuration.ownerUID || peer.uid == 0
        guard isOwner || configuration.allowOther else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EACCES)
        }
        guard isOwner || hasPlace(for: peer.uid) else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EAGAIN)
        }
        var rights: UInt32 = isOwner ? FOS_RIGHT_ADMIN.rawValue : 0
        if hello.flags & FOS_HELLO_FRONT_END.rawValue != 0, peer.pid == getpid() {
            rights |= FOS_RIGHT_ACT_AS.rawValue
            if fos_load_acquire_u32(fabric.kernelCacheClient) == 0 { rights |= FOS_RIGHT_KERNEL_CACHE.rawValue }
        }
        admit(socket, peer, rights: rights, channels: Int(hello.channels))
    }

    private func clients(of uid: UInt32) -> Int { locked { listed.values.count { $0.uid == uid } } }

    private func hasPlace(for uid: UInt32) -> Bool {
        if clients(of: uid) < configuration.clientsOfUserMax { return true }
        _ = seeOffTheDead()
        return clients(of: uid) < configuration.clientsOfUserMax
    }

    private func refuse(_ socket: Int32, _ status: Int32) {
        var welcome = fos_welcome()
        welcome.magic = fos_wire_hello_magic()
        welcome.status = status
        welcome.version = UInt32(FOS_WIRE_VERSION)
        welcome.layout_hash = fos_layout_hash()
        _ = fos_platform_send(socket, &welcome, MemoryLayout<fos_welcome>.size, nil, 0)
        fos_platform_close(socket)
    }

    /// Makes a segment and an entry, tells the cores, and welcomes the client.
    private func admit(_ socket: Int32, _ peer: fos_platform_peer, rights: UInt32, channels wanted: Int) {
        let channels = min(max(wanted, 1), configuration.channelsMax)
        let layout = SegmentLayout(cores: layoutCores, channels: channels)
        if free.isEmpty {
            _ = seeOffTheDead()
            reclaim()
        }
        guard let index = free.last else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EAGAIN)
        }
        guard let groups = Self.groups(of: socket) else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EACCES)
        }
        let made = segment(channels: channels, bytes: layout.bytes)
        guard let segment = made.segment else {
            fos_platform_close(peer.pidfd)
            groups.deallocate()
            return refuse(socket, made.error)
        }
        free.removeLast()
        let entry = fabric.clients + Int(index)
        let generation = entry.pointee.generation == UInt32.max ? 1 : entry.pointee.generation + 1
        var fresh = ClientEntry.empty
        fresh.generation = generation
        fresh.rights = rights
        fresh.uid = peer.uid
        fresh.gid = peer.gid
        fresh.pid = UInt32(max(peer.pid, 0))
        fresh.lay(segment.base, layout: layout, index: index, cores: layoutCores, channels: channels)
        let record = UnsafeMutablePointer<UInt64>.allocate(capacity: channels)
        record.initialize(repeating: 0, count: channels)
        fresh.state = record
        fresh.groups = groups.baseAddress
        fresh.groupCount = UInt32(groups.count)
        entry.pointee = fresh
        fos_store_release_u32(Fabric.liveWord(entry), generation)
        if rights & FOS_RIGHT_KERNEL_CACHE.rawValue != 0 { fos_store_release_u32(fabric.kernelCacheClient, index + 1) }
        // A core reads this news before it looks at bells, so none has to be woken for it.
        for core in 0..<fabric.coreCount { fabric.controls[core].post(.attached, client: index) }
        wakeAhead()

        connections[Int(index)] = Connection(socket: socket, pidfd: peer.pidfd)
        let status = ClientStatus(
            client: index, uid: peer.uid, gid: peer.gid, pid: entry.pointee.pid, channels: UInt32(channels), rights: rights)
        locked { listed[index] = status }
        configuration.onClient?(status, true)

        var welcome = fos_welcome()
        welcome.magic = fos_wire_hello_magic()
        welcome.version = UInt32(FOS_WIRE_VERSION)
        welcome.layout_hash = fos_layout_hash()
        welcome.segment_bytes = UInt64(layout.bytes)
        welcome.board_bytes = boardBytes
        welcome.client = index
        welcome.rights = rights
        welcome.name_servers = UInt32(min(4, fabric.nameServerCount))
        for server in 0..<welcome.name_servers {
            let address = fabric.nameServers[Int(server)]
            fos_welcome_name_server(&welcome, server).pointee = address.rawValue
            fos_welcome_name_server_epoch(&welcome, server).pointee = fabric.port(address)?.pointee.epoch ?? 0
        }
        welcome.files = fileServers()
        hasWelcomed = true
        let sent = fos_platform_send(socket, &welcome, MemoryLayout<fos_welcome>.size, [segment.descriptor, boardDescriptor], 2)
        fos_platform_close(segment.descriptor)
        let watched =
            fos_platform_poll_add(departures, socket, Key.socket.rawValue << 32 | UInt64(index)) == 0
            && (peer.pidfd < 0 || fos_platform_poll_add(departures, peer.pidfd, Key.process.rawValue << 32 | UInt64(index)) == 0)
        if sent != 0 || !watched { depart(Int(index)) }
    }

    /// Has the core ready to which a new client's first request most likely goes, while the client still maps its segment.
    private func wakeAhead() {
        let owner = MailboxAddress(rawValue: fos_load_relaxed_u32(fos_board_slot_owner(fabric.board, UInt32(FOS_ROOT_INODE))))
        guard let port = fabric.port(owner) else { return }
        fos_fence()
        fabric.wake(core: port.pointee.address.core)
    }

    /// The servers that own slots, found anew when the board has another table of them.
    private func fileServers() -> fos_file_servers {
        let epoch = fos_load_acquire_u32(fos_board_slot_epoch(fabric.board))
        if epoch == ownersEpoch { return owners }
        ownersEpoch = epoch
        owners = fos_file_servers()
        for slot in 0..<UInt32(FOS_SLOTS) {
            let owner = MailboxAddress(rawValue: fos_load_relaxed_u32(fos_board_slot_owner(fabric.board, slot)))
            guard let port = fabric.port(owner) else { continue }
            if fos_file_servers_add(&owners, owner.rawValue, port.pointee.epoch) == 0 { break }
        }
        return owners
    }

    /// The segment of a new client: the one made ahead, if it is as large.
    private func segment(channels: Int, bytes: Int) -> (segment: Segment?, error: Int32) {
        spareChannels = channels
        guard let ahead = spare else { return Segment.make(bytes: bytes) }
        spare = nil
        if ahead.bytes == bytes { return (ahead, 0) }
        ahead.dispose()
        return Segment.make(bytes: bytes)
    }

    /// Makes the next client's segment, once there have been clients: when one has gone, or by the clock.
    private func prepare() {
        guard spare == nil, spareChannels > 0 else { return }
        let layout = SegmentLayout(cores: layoutCores, channels: spareChannels)
        spare = Segment.make(bytes: layout.bytes).segment
        spare?.touch(layout)
    }

    /// The supplementary groups that a client had when it connected, ascending; nil if the kernel does not tell.
    private static func groups(of socket: Int32) -> UnsafeMutableBufferPointer<UInt32>? {
        var count = fos_platform_peer_groups(socket, nil, 0)
        guard count > 0 else { return count == 0 ? UnsafeMutableBufferPointer(start: nil, count: 0) : nil }
        var groups = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: Int(count))
        // They are those of the moment of connecting, so their number does not change.
        count = fos_platform_peer_groups(socket, groups.baseAddress, UInt32(groups.count))
        guard Int(count) == groups.count else {
            groups.deallocate()
            return nil
        }
        groups.sort()
        return groups
    }

    /// A client has gone: from now on its entry is dead to every core, and each is told.
    private func depart(_ index: Int) {
        guard connections.indices.contains(index), connections[index].socket >= 0 else { return }
        let entry = fabric.clients + index
        fos_store_release_u32(Fabric.liveWord(entry), 0)
        if fos_load_acquire_u32(fabric.kernelCacheClient) == UInt32(index + 1) { fos_store_release_u32(fabric.kernelCacheClient, 0) }
        fos_platform_close(connections[index].socket)
        fos_platform_close(connections[index].pidfd)
        connections[index] = Connection(socket: -1, pidfd: -1)
        retiring.append(UInt32(index))
        let gone = locked { listed.removeValue(forKey: UInt32(index)) }
        if let gone { configuration.onClient?(gone, false) }
        for core in 0..<fabric.coreCount { fabric.controls[core].post(.detached, client: UInt32(index)) }
        // A core that is about to sleep looks for news after it has said so: this one, or the late wake, reaches it.
        if farewellsDue == nil { putOffFarewells() }
    }

    private func putOffFarewells() { farewellsDue = fos_platform_monotonic_ns() + UInt64(Self.farewellTime) * 1_000_000 }

    /// Takes back what the dead had, and wakes the cores that have slept through their departure.
    private func settleFarewells() {
        guard let due = farewellsDue, fos_platform_monotonic_ns() >= due else { return }
        reclaim()
        farewellsDue = nil
        guard !retiring.isEmpty else { return }
        putOffFarewells()
        fos_fence()
        for core in 0..<fabric.coreCount { fabric.wake(core: core) }
    }

    /// Takes back the segments of clients that every core has forgotten.
    private func reclaim() {
        retiring.removeAll { index in
            let entry = fabric.clients + Int(index)
            guard fos_load_acquire_u32(Fabric.farewellWord(entry)) == UInt32(fabric.coreCount) else { return false }
            dispose(entry)
            free.insert(index, at: 0)
            return true
        }
    }

    private func dispose(_ entry: UnsafeMutablePointer<ClientEntry>) {
        if let segment = entry.pointee.segment { fos_platform_unmap(segment, entry.pointee.segmentBytes) }
        entry.pointee.state?.deallocate()
        entry.pointee.groups?.deallocate()
        let generation = entry.pointee.generation
        entry.pointee = .empty
        entry.pointee.generation = generation
    }

    /// After all cores and this thread have ended: wakes whoever still sleeps in a segment, and frees them all.
    func dismiss() {
        for index in connections.indices {
            let entry = fabric.clients + index
            guard entry.pointee.segment != nil else { continue }
            for channel in 0..<Int(entry.pointee.channels) {
                let shared = entry.pointee.channel! + channel
                if fos_load_relaxed_u32(fos_channel_client_parked(shared)) != 0 {
                    _ = fos_platform_futex_wake(fos_channel_reply_sequence(shared), Int32.max)
                }
            }
            _ = fos_platform_futex_wake(fos_notice_control_bell(entry.pointee.noticeControl!), Int32.max)
            fos_platform_close(connections[index].socket)
            fos_platform_close(connections[index].pidfd)
            connections[index] = Connection()
            dispose(entry)
        }
        let left = locked {
            let left = handed
            handed = []
            return left
        }
        for socket in left { fos_platform_close(socket) }
    }
}
