// The live microkernel of one instance: its cores, and the acceptor that brings clients.
//
// Role: lays out everything that exists for the life of the instance (board, mailboxes, tables), starts the threads,
// and ends them. After `start` returns, each server's names are registered and clients may come.
// Use:
//   let kernel = try Microkernel(configuration: configuration) { core in MyGroup(core: core) }
//   try kernel.start()
//   ... kernel.attach(socket:), kernel.status() ...
//   kernel.stop()

import CFosWire
import CPlatform
import Glibc
public import Messaging

/// One core as status commands show it.
public struct CoreStatus: Sendable {
    public var core: Int
    /// -1: not pinned.
    public var cpu: Int32
    public var parked: Bool
    /// Turns of the run loop, in steps of 64; best effort.
    public var beats: UInt64
}

public final class Microkernel: @unchecked Sendable {
    public let configuration: MicrokernelConfiguration
    private let body: @Sendable (CoreKernel, Int) -> Void
    private var fabric: Fabric
    private var cores: [UnsafeMutablePointer<Core>] = []
    private var arenas: [Arena] = []
    private let boardDescriptor: Int32
    private let boardBytes: UInt64
    private let acceptor: Acceptor
    private var threads: [pthread_t] = []
    private var crash: [UnsafeMutablePointer<fos_crash_core>] = []
    private var started = false
    private var stopped = false

    /// Lays out an instance; no thread runs yet, but the socket is bound.
    /// - Parameter makeGroup: makes the servers of a core, on that core's own thread; its count must be the number of
    ///   placements on the core, in the order of their mailbox indices.
    @inlinable public convenience init<Group: ServerGroup & SendableMetatype & ~Copyable>(
        configuration: MicrokernelConfiguration, makeGroup: @escaping @Sendable (Int) -> Group
    ) throws(MicrokernelError) {
        try self.init(configuration: configuration) { kernel, core in
            // The group lives as long as its thread, at one address.
            let group = UnsafeMutablePointer<Group>.allocate(capacity: 1)
            group.initialize(to: makeGroup(core))
            kernel.run(group)
            group.deinitialize(count: 1)
            group.deallocate()
        }
    }

    @usableFromInline init(
        configuration: MicrokernelConfiguration, body: @escaping @Sendable (CoreKernel, Int) -> Void
    ) throws(MicrokernelError) {
        try configuration.validate()
        self.configuration = configuration
        self.body = body
        let page = UInt64(FOS_PAGE_BYTES)
        boardBytes = (UInt64(MemoryLayout<fos_board>.size) + page - 1) / page * page
        boardDescriptor = fos_platform_memfd("fos-board", boardBytes)
        guard boardDescriptor >= 0 else { throw .system("memfd_create", errno: -boardDescriptor) }
        guard let board = fos_platform_map_shared(boardDescriptor, boardBytes) else {
            throw .system("mmap of the board", errno: errno)
        }
        let sealed = fos_platform_seal_read_only(boardDescriptor)
        guard sealed == 0 else { throw .system("sealing the board", errno: -sealed) }
        let event = fos_platform_event_create()
        guard event >= 0 else { throw .system("eventfd", errno: -event) }
        guard var shared = Arena(bytes: Layout.sharedBytes(configuration)) else { throw .system("mmap", errno: ENOMEM) }
        fabric = Layout.fabric(configuration, board: board, event: event, arena: &shared)
        arenas.append(shared)
        for core in configuration.cpus.indices {
            guard var arena = Arena(bytes: Layout.coreBytes(configuration, core: core)) else {
                throw .system("mmap", errno: ENOMEM)
            }
            let state = Layout.core(configuration, core: core, fabric: fabric, arena: &arena)
            cores.append(state)
            crash.append(Layout.crash(configuration, core: state, arena: &arena))
            arenas.append(arena)
        }
        acceptor = try Acceptor(
            configuration: configuration, fabric: fabric, boardDescriptor: boardDescriptor, boardBytes: boardBytes)
    }

    deinit {
        stop()
        for arena in arenas { arena.free() }
        fos_platform_unmap(fabric.board, boardBytes)
        fos_platform_close(fabric.acceptorEvent)
        fos_platform_close(boardDescriptor)
    }

    /// Starts the threads, and returns once every server's names are registered. Call once.
    public func start() throws(MicrokernelError) {
        precondition(!started, "a microkernel starts once")
        started = true
        try checkCPUs()
        if configuration.handlesCrashes { fos_crash_install() }
        for core in cores.indices { spawn { [self] in runCore(core) } }
        spawn { [self] in
            fos_platform_block_signals()
            fos_platform_name_thread("fos-accept")
            acceptor.run()
        }
        do {
            try awaitNames()
        } catch {
            stop()
            throw error
        }
    }

    /// Takes over one end of a SOCK_SEQPACKET socketpair, as if its other end had connected.
    public func attach(socket: Int32) { acceptor.hand(socket) }

    /// Tells every client that the instance ends, and ends all threads. Idempotent; not to be called from a core.
    public func stop() {
        guard started, !stopped else { return }
        stopped = true
        fos_store_release_u32(fos_board_down(fabric.board), 1)
        fos_store_release_u32(fabric.stopping, 1)
        fos_fence()
        for core in cores.indices { fabric.wake(core: core) }
        acceptor.stop()
        for thread in threads { pthread_join(thread, nil) }
        acceptor.dismiss()
    }

    public var clients: [ClientStatus] { acceptor.clients }

    public func status() -> [CoreStatus] {
        cores.indices.map { core in
            CoreStatus(
                core: core, cpu: configuration.cpus[core],
                parked: fos_load_acquire_u32(fos_board_parked(fabric.board, UInt32(core))) != 0,
                beats: fos_load_relaxed_u64(fos_board_beats(fabric.board, UInt32(core))))
        }
    }

    // MARK: threads

    private func checkCPUs() throws(MicrokernelError) {
        var allowed = [Int32](repeating: 0, count: 4096)
        let count = Int(fos_platform_allowed_cpus(&allowed, Int32(allowed.count)))
        let usable = allowed.prefix(max(0, count))
        for cpu in configuration.cpus where cpu >= 0 && !usable.contains(cpu) {
            throw .configuration("CPU \(cpu) does not exist or may not be used")
        }
    }

    private final class Job {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    private func spawn(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let job = Unmanaged.passRetained(Job(body)).toOpaque()
        let result = pthread_create(&thread, nil, Self.enter, job)
        precondition(result == 0, "no thread could be made")
        threads.append(thread)
    }

    private static let enter: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { job in
        Unmanaged<Job>.fromOpaque(job!).takeRetainedValue().body()
        return nil
    }

    private func runCore(_ core: Int) {
        fos_platform_block_signals()
        fos_platform_name_thread("fos-core-\(core)")
        let cpu = configuration.cpus[core]
        // The CPU was checked at start; if it has been taken away since, the core runs unpinned rather than not at all.
        if cpu >= 0 { withUnsafePointer(to: cpu) { _ = fos_platform_pin_thread($0, 1) } }
        if let nice = configuration.nice { _ = fos_platform_nice_thread(nice) }
        let stackBytes: UInt64 = 64 * 1024
        let stack = fos_platform_map_private(stackBytes)
        fos_crash_enter_core(crash[core], stack, stackBytes)
        let kernel = CoreKernel(state: cores[core])
        body(kernel, core)
        kernel.sayGoodbye()
        fos_crash_leave_core()
        if let stack { fos_platform_unmap(stack, stackBytes) }
    }

    /// Waits until each core has registered its names, at most ten seconds.
    private func awaitNames() throws(MicrokernelError) {
        let deadline = fos_platform_monotonic_ns() + 10_000_000_000
        while true {
            let refusal = fos_load_acquire_u64(fabric.refusal)
            if refusal != 0 {
                let core = Int(refusal >> 48)
                let number = Int(refusal >> 32 & 0xffff) - 1
                let names = configuration.registrations(core: core)
                throw .nameRefused(names[number].name, status: Int32(truncatingIfNeeded: refusal))
            }
            if Int(fos_load_acquire_u32(fabric.ready)) == cores.count { return }
            if fos_platform_monotonic_ns() > deadline { throw .nameTimeout }
            usleep(100)
        }
    }
}
