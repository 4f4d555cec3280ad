// The FUSE front end of an instance: mounts, serves the kernel's requests as a client of the message proxy, unmounts.
//
// Role: the composition makes one, starts it on a socket to the instance, and is told when the mount has ended,
// whoever ended it. Threads: workers (WorkerLoop.swift), one notice thread (NoticeThread.swift), and one more for each
// program that waits for a lock (Operation+Locks.swift). All hold a FrontEnd by pointer.

import CFosProxy
import CFosWire
import CFuse
import Glibc
import Synchronization

/// Why a mount did not come about, in one line.
public struct FuseMountError: Error, CustomStringConvertible, Sendable {
    public let description: String
    init(_ description: String) { self.description = description }
}

public final class FuseMount: Sendable {
    /// Who keeps the locks of programs on the mount.
    public enum Locks: Sendable {
        /// The kernel; OPEN, FLUSH and RELEASE are then never messages.
        case kernel
        /// The file fleet, so that clients beside the mount meet them.
        case fleet
    }

    public struct Configuration: Sendable {
        /// Absolute path of an existing directory.
        public var mountPoint: String
        /// Source that the mount table shows: "fos:NAME".
        public var source: String
        public var allowOther = false
        /// Further mount options, as after `-o`.
        public var options: [String] = []
        public var locks = Locks.kernel
        /// CPUs the servers run on. Workers keep off them, unless no other is allowed.
        public var serverCPUs: [Int32] = []
        /// Moves servers from a CPU that programs have come to; the servers' CPUs then, or nil if they stay.
        public var makeWay: @Sendable (Int32) -> [Int32]? = { _ in nil }
        public var introspection: IntrospectionFiles
        /// Gets one line without newline; any thread.
        public var log: @Sendable (String) -> Void
        /// Gets a line for each request of the kernel; nil: nobody is told. Any thread.
        public var trace: (@Sendable (String) -> Void)?

        public init(
            mountPoint: String, source: String, introspection: IntrospectionFiles, log: @escaping @Sendable (String) -> Void
        ) {
            self.mountPoint = mountPoint
            self.source = source
            self.introspection = introspection
            self.log = log
        }
    }

    private struct Running: @unchecked Sendable {
        var front: UnsafeMutablePointer<FrontEnd>
        var fileSystem: UInt64
    }

    private let configuration: Configuration
    private let ended: @Sendable () -> Void
    private let running = Mutex<Running?>(nil)
    private let stopping = Mutex(())

    /// - Parameter ended: called once, on a thread of the mount, when no worker is left: after an unmount from outside
    ///   (`umount`, `fusermount3 -u`), an abort, the end of the instance, or `stop`. It may call `stop`.
    public init(_ configuration: Configuration, ended: @escaping @Sendable () -> Void) {
        self.configuration = configuration
        self.ended = ended
    }

    // MARK: Start

    /// Connects over a socket to the instance (which it then owns), mounts, and serves. Returns when the mount is in place.
    public func start(socket: Int32) throws(FuseMountError) {
        let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
        client.initialize(to: fos_client())
        let flags = UInt32(FOS_HELLO_FRONT_END.rawValue)
        let result = fos_client_attach(client, socket, UInt32(FrontEndLimits.channels), flags)
        guard result == 0 else {
            client.deallocate()
            throw FuseMountError("the FUSE front end cannot connect to its instance: \(Self.text(-result))")
        }
        try begin(client)
    }

    /// The same, finding the instance by user and name.
    public func start(uid: uid_t, name: String) throws(FuseMountError) {
        let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
        client.initialize(to: fos_client())
        let flags = UInt32(FOS_HELLO_FRONT_END.rawValue)
        let result = fos_client_connect(client, uid, name, UInt32(FrontEndLimits.channels), flags)
        guard result == 0 else {
            client.deallocate()
            throw FuseMountError("the FUSE front end cannot connect to its instance: \(Self.text(-result))")
        }
        try begin(client)
    }

    private func begin(_ client: UnsafeMutablePointer<fos_client>) throws(FuseMountError) {
        let front = makeFrontEnd(client)
        do throws(FuseMountError) {
            try mount(front)
        } catch {
            destroy(front)
            throw error
        }
        running.withLock { $0 = Running(front: front, fileSystem: front.pointee.fileSystem) }
        for _ in 0..<FrontEndLimits.workersAtStart { front.startWorker() }
        guard front.pointee.live.value > 0 else {
            _ = MountOptions.unmount(configuration.mountPoint, of: front.pointee.fileSystem, lazy: true)
            destroy(front)
            running.withLock { $0 = nil }
            throw FuseMountError("no thread for the FUSE front end: \(Self.text(errno))")
        }
        startNoticeThread(front)
        startWatch(front)
    }

    private func makeFrontEnd(_ client: UnsafeMutablePointer<fos_client>) -> UnsafeMutablePointer<FrontEnd> {
        var key = pthread_key_t()
        pthread_key_create(&key, nil)
        let placement = WorkerPlacement(serverCPUs: configuration.serverCPUs, makeWay: configuration.makeWay)
        let front = UnsafeMutablePointer<FrontEnd>.allocate(capacity: 1)
        front.initialize(
            to: FrontEnd(
                client: client, key: key, mountPoint: configuration.mountPoint, keepsNoOpens: configuration.locks == .kernel,
                introspection: IntrospectionTree(configuration.introspection), log: configuration.log, trace: configuration.trace,
                pool: WorkerPool(cpus: placement.count), placement: placement,
                turns: ReadingTurns(placement.count), ended: ended))
        client.pointee.before_sleep = { context, _ in giveTurnBeforeSleep(context) }
        client.pointee.before_sleep_context = UnsafeMutableRawPointer(front)
        return front
    }

    private func mount(_ front: UnsafeMutablePointer<FrontEnd>) throws(FuseMountError) {
        try MountCheck.check(configuration)
        let collected = FuseMessages.collect()
        defer { FuseMessages.forward(to: configuration.log) }
        guard let session = makeSession(front) else {
            throw FuseMountError(collected.lines.first ?? "libfuse refused the mount options")
        }
        let (refused, reasons) = ErrorOutput.gathered { fuse_session_mount(session, configuration.mountPoint) }
        guard refused == 0 else {
            fuse_session_destroy(session)
            throw FuseMountError(reasons.last ?? collected.lines.first ?? "the mount was refused without a reason")
        }
        reasons.forEach { configuration.log($0) }
        // Custom I/O on the device that libfuse has just opened: only to see the reply to INIT.
        var io = fuse_custom_io()
        io.writev = { writeReply($0, $1, $2, $3) }
        io.read = { readRequest($0, $1, $2, $3) }
        let device = fuse_session_fd(session)
        if fuse_session_custom_io(session, &io, device) != 0 {
            configuration.log("libfuse takes no custom I/O; writes will cost a request more")
        }
        front.pointee.session = session
        front.pointee.device = device
        front.pointee.fileSystem = fos_fuse_file_system(configuration.mountPoint)
    }

    private func makeSession(_ front: UnsafeMutablePointer<FrontEnd>) -> OpaquePointer? {
        var arguments: [UnsafeMutablePointer<CChar>?] = ["fos", "-o", MountOptions.text(configuration)].map { (word: String) in strdup(word) }
        defer { arguments.forEach { free($0) } }
        var table = makeCallbacks(fleetLocks: configuration.locks == .fleet)
        return arguments.withUnsafeMutableBufferPointer { buffer in
            var vector = fuse_args()
            vector.argc = Int32(buffer.count)
            vector.argv = buffer.baseAddress
            defer { fuse_opt_free_args(&vector) }
            return fuse_session_new(&vector, &table, MemoryLayout<fuse_lowlevel_ops>.size, front)
        }
    }

    private func startNoticeThread(_ front: UnsafeMutablePointer<FrontEnd>) {
        guard let record = Worker(front: front) else { return }
        let worker = UnsafeMutablePointer<Worker>.allocate(capacity: 1)
        worker.initialize(to: record)
        front.pointee.notices.store(1)
        var thread = pthread_t()
        let result = pthread_create(&thread, nil, { runNotices($0); return nil }, worker)
        guard result == 0 else {
            front.pointee.notices.store(0)
            configuration.log("no thread for notices: \(Self.text(result))")
            return
        }
        pthread_detach(thread)
    }

    private func startWatch(_ front: UnsafeMutablePointer<FrontEnd>) {
        front.pointee.watching.store(1)
        var thread = pthread_t()
        let result = pthread_create(&thread, nil, { runWatch($0); return nil }, front)
        guard result == 0 else {
            front.pointee.watching.store(0)
            configuration.log("no thread to watch the workers: \(Self.text(result))")
            return
        }
        pthread_detach(thread)
    }

    // MARK: End

    /// Takes the mount out of the tree: 0 or an errno, EBUSY when programs use it and `lazy` is false, EINVAL when it is
    /// not what lies on top at its path. The workers end when the kernel lets go of it, and then `ended` is called.
    public func unmount(lazy: Bool) -> Int32 {
        guard let fileSystem = running.withLock({ $0?.fileSystem }) else { return EINVAL }
        return MountOptions.unmount(configuration.mountPoint, of: fileSystem, lazy: lazy)
    }

    /// Unmounts lazily if it is still mounted, ends the threads, and gives everything back. Returns when that is done,
    /// whoever does it.
    public func stop() { stopping.withLock { _ in end() } }

    private func end() {
        guard let front = takeRunning()?.front else { return }
        // When the workers have ended by themselves the kernel has let go already.
        if front.pointee.live.value != 0 {
            front.pointee.ending.store(1)
            _ = MountOptions.unmount(configuration.mountPoint, of: front.pointee.fileSystem, lazy: true)
        }
        front.pointee.ending.store(1)
        front.pointee.pool.ringForEnd()
        while [front.pointee.live, front.pointee.leaving, front.pointee.notices, front.pointee.watching].contains(where: { $0.value != 0 }) {
            front.pointee.pool.signalAll()
            usleep(2000)
        }
        // A program that still sleeps on a lock keeps its thread until the instance ends; its memory stays then.
        guard front.pointee.lockWaiters.value == 0 else { return }
        destroy(front)
    }

    private func takeRunning() -> Running? {
        running.withLock { running in
            let taken = running
            running = nil
            return taken
        }
    }

    private func destroy(_ front: UnsafeMutablePointer<FrontEnd>) {
        if let session = front.pointee.session { fuse_session_destroy(session) }
        fos_client_disconnect(front.pointee.client)
        front.pointee.client.deallocate()
        for word in front.pointee.words { word.deallocate() }
        front.pointee.answers.deallocate()
        front.pointee.unversioned.deallocate()
        front.pointee.turns.deallocate()
        pthread_key_delete(front.pointee.key)
        front.deinitialize(count: 1)
        front.deallocate()
    }

    // MARK: Counters

    /// Requests served so far by kind, as the kernel names them ("LOOKUP", "READ"), those that occurred only.
    public func requestCounts() -> [(name: String, count: UInt64)] {
        running.withLock { running in
            guard let front = running?.front else { return [] }
            let sums = front.pointee.pool.totals()
            return sums.indices.filter { $0 > 0 && sums[$0] != 0 }.map { (OpcodeNames.name($0), sums[$0]) }
        }
    }

    /// Worker threads that run now.
    public var workerCount: Int { running.withLock { Int($0?.front.pointee.live.value ?? 0) } }

    static func text(_ error: Int32) -> String { String(cString: strerror(error)) }
}

private func runNotices(_ argument: UnsafeMutableRawPointer?) {
    let worker = argument!.assumingMemoryBound(to: Worker.self)
    let front = worker.pointee.front
    fos_fuse_name_thread("fos-notice")
    front.pointee.placement.confine()
    worker.serveNotices {
        // The instance has gone: its mount goes too, rather than answer every request with an error.
        front.pointee.log("the instance has ended; unmounting")
        _ = MountOptions.unmount(front.pointee.mountPoint, of: front.pointee.fileSystem, lazy: true)
    }
    worker.end()
    front.pointee.notices.store(0)
}

private func runWatch(_ argument: UnsafeMutableRawPointer?) {
    let front = argument!.assumingMemoryBound(to: FrontEnd.self)
    fos_fuse_name_thread("fos-watch")
    front.pointee.pool.watch(front)
    front.pointee.watching.store(0)
}
