// The acceptor: the one thread that lets clients in, and notices when they die.
//
// Role: listens on the instance's abstract socket, answers hellos, owns the client table's life cycle (Acceptor+Admission.swift,
// Acceptor+Departures.swift), and sends clients the descriptors that servers have for them (HandOut.swift). It is the only
// writer of client entries and control rings.
// Protocol: fos/handshake.h. A connection has two seconds to say hello; most have said it by the time they are taken. After
// the welcome a client never writes to its socket; whatever comes then (data or hang-up) ends it, as does the death of its
// process.
// Short programs come and go by the thousand, so what a connection costs is theirs: the thread runs beside them, off the
// cores' CPUs.
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
    enum Key: UInt64 {
        case listener = 0
        case event = 1
        case pending = 2
        case socket = 3
        case process = 4
        case departures = 5
        case usualListener = 6
    }
    private struct Pending {
        var socket: Int32
        var deadline: UInt64
    }
    struct Connection {
        var socket: Int32 = -1
        var pidfd: Int32 = -1
    }
    static let pendingMax = 64
    private static let helloTime: UInt64 = 2_000_000_000
    /// How long a sleeping core may sleep on with news of a departure, and its segment stay, in ms.
    static let farewellTime: Int32 = 20

    let configuration: MicrokernelConfiguration
    let fabric: Fabric
    let boardDescriptor: Int32
    let boardBytes: UInt64
    let layoutCores: Int
    let poll: Int32
    /// Sockets and processes of clients, watched apart from what wants an answer.
    let departures: Int32
    private var listener: Int32 = -1
    /// Whoever connects here has said the usual hello; -1: nobody can, and all say theirs.
    private var usualListener: Int32 = -1
    private var spareDescriptor: Int32 = -1
    private var pending: [Int: Pending] = [:]
    private var nextPending = 0
    var connections: [Connection]
    var free: [UInt32]
    /// Clients that have gone, in the order of their going, until every core has forgotten them.
    var retiring: [UInt32] = []
    /// Monotonic ns at which these are looked at again; nil: there are none.
    var farewellsDue: UInt64?
    /// The next client that ends wakes this thread. If not, it looks by itself, at least until `departuresDue` (monotonic ns).
    var isCalledForDepartures = false
    var departuresDue: UInt64 = 0
    var gone = [fos_platform_ready](repeating: fos_platform_ready(), count: 64)
    /// Made ahead for the next clients with the usual hello.
    var spares: [Segment] = []
    /// How many there should be: twice as many each time that such a client finds none.
    var sparesWanted = 0
    /// The servers that owned slots when the board's table of them had this epoch.
    var owners = fos_file_servers()
    var ownersEpoch: UInt32 = 0
    /// In this round of the loop a client was let in, which now wants the CPU.
    var hasWelcomed = false

    // Shared with other threads, under `lock`.
    var lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    var handed: [Int32] = []
    private var stopped = false
    var listed: [UInt32: ClientStatus] = [:]

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
            var name = configuration.name.utf8.map { CChar(bitPattern: $0) }
            let length = UInt32(name.count)
            listener = fos_platform_listen(configuration.ownerUID, name, length, 128)
            if listener == -EADDRINUSE { throw .alreadyRunning }
            guard listener >= 0 else { throw .system("cannot listen on the instance's socket", errno: -listener) }
            _ = fos_platform_poll_add(poll, listener, Key.listener.rawValue << 32)
            name += [CChar](repeating: 0, count: Int(FOS_USUAL_NAME_MORE))
            let usualLength = fos_usual_name(&name, length)
            usualListener = fos_platform_listen(configuration.ownerUID, name, usualLength, 128)
            if usualListener >= 0 { _ = fos_platform_poll_add(poll, usualListener, Key.usualListener.rawValue << 32) }
        }
    }

    deinit {
        fos_platform_close(poll)
        fos_platform_close(departures)
        fos_platform_close(listener)
        fos_platform_close(usualListener)
        fos_platform_close(spareDescriptor)
        dropSpares()
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    func locked<R>(_ body: () -> R) -> R {
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
            if !hasWelcomed && pending.isEmpty { prepare() }
        }
        handOut()
        for (_, waiting) in pending { fos_platform_close(waiting.socket) }
        pending = [:]
        fos_platform_close(listener)
        fos_platform_close(usualListener)
        listener = -1
        usualListener = -1
    }

    /// Milliseconds until something is due.
    private var patience: Int32 {
        farewellsDue != nil || !isCalledForDepartures || lacksSpares ? Self.farewellTime : pending.isEmpty ? -1 : 500
    }

    private func handle(_ item: fos_platform_ready) {
        let number = Int(item.key & 0xffff_ffff)
        switch Key(rawValue: item.key >> 32) {
        case .listener: if let socket = accept(listener) { expect(socket) }
        case .usualListener: if let socket = accept(usualListener) { answer(fos_usual_hello(), socket) }
        case .event: fos_platform_event_clear(fabric.acceptorEvent)
        case .pending: hello(number)
        case .departures: isCalledForDepartures = false
        case .socket, .process, nil: break
        }
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
    private func accept(_ listener: Int32) -> Int32? {
        let socket = fos_platform_accept(listener)
        if socket >= 0 { return socket }
        guard socket == -EMFILE || socket == -ENFILE else { return nil }
        if !spares.isEmpty {
            dropSpares()
            return nil
        }
        // Out of descriptors: take the connection with the spare one and hang up, rather than spin on the listener.
        fos_platform_close(spareDescriptor)
        fos_platform_close(fos_platform_accept(listener))
        spareDescriptor = fos_platform_spare_descriptor()
        if spareDescriptor < 0 { usleep(10_000) }
        return nil
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
        if got == Int64(MemoryLayout<fos_hello>.size) {
            answer(hello, socket)
        } else if got > 0 {
            refuse(socket, -EPROTO)
        } else {
            fos_platform_close(socket)
        }
        return true
    }

    private func answer(_ hello: fos_hello, _ socket: Int32) {
        guard hello.magic == fos_wire_hello_magic(), hello.version == UInt32(FOS_WIRE_VERSION), hello.layout_hash == fos_layout_hash()
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

    func refuse(_ socket: Int32, _ status: Int32) {
        var welcome = fos_welcome()
        welcome.magic = fos_wire_hello_magic()
        welcome.status = status
        welcome.version = UInt32(FOS_WIRE_VERSION)
        welcome.layout_hash = fos_layout_hash()
        _ = fos_platform_send(socket, &welcome, MemoryLayout<fos_welcome>.size, nil, 0)
        fos_platform_close(socket)
    }
}
