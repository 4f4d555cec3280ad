// One mounted fos: its fleets, and the FUSE front end as their client.
//
// Protocol: `start` returns when the mount is usable; `waitUntilUnmounted` when it has ended, whoever ended it (fos
// umount, fusermount3, umount, a signal through `stop`); `stop` then ends the fleets. All of it may be called from
// any thread.

import CFosWire
import FuseMount
import Glibc
public import Logging
import Synchronization

public final class Instance: Sendable {
    public let configuration: InstanceConfiguration
    private let log: InstanceLog
    private let fleets: FleetHost
    private let mount: FuseMount
    private let observer: Observer
    private let ended = EndOfMount()
    private let stopping = Mutex(false)

    public init(_ configuration: InstanceConfiguration, logger: Logger) throws(InstanceError) {
        self.configuration = configuration
        let log = InstanceLog(logger: logger)
        self.log = log
        fleets = try FleetHost(
            name: configuration.name, cpus: configuration.cpus, sizeBytes: configuration.sizeBytes,
            memory: configuration.memory, allowOther: configuration.allowOther, servers: configuration.servers, shards: configuration.shards,
            onClient: log.clients)
        let observer = Observer(host: fleets)
        self.observer = observer
        var options = FuseMount.Configuration(
            mountPoint: configuration.mountPoint, source: "fos:\(configuration.name)",
            introspection: IntrospectionFiles(names: Introspection.files) { observer.contents(of: $0) },
            log: { logger.notice("\($0)") })
        options.allowOther = configuration.allowOther
        options.options = configuration.fuseOptions
        options.locks = configuration.locks == .kernel ? .kernel : .fleet
        options.serverCPUs = fleets.cpus
        options.makeWay = { [fleets] cpu in
            let cpus = fleets.makeWay(on: cpu)
            if let cpus { log.moved(to: cpus) }
            return cpus
        }
        if logger.logLevel <= .trace { options.trace = { logger.trace("\($0)") } }
        let ended = self.ended
        mount = FuseMount(options) { ended.announce() }
        observer.watch { [weak mount] in mount?.requestCounts() ?? [] }
    }

    /// Starts fleets and mount. On an error nothing is left behind.
    public func start() throws(InstanceError) {
        try fleets.start()
        do {
            try observer.connect()
            try mount.start(socket: try fleets.connect())
            log.started(configuration, fleets)
        } catch {
            observer.disconnect()
            fleets.stop()
            throw InstanceError("\(error)")
        }
    }

    /// Returns when the mount has ended.
    public func waitUntilUnmounted() { ended.wait() }

    /// Unmounts if need be, and ends all. Idempotent: whoever calls it second waits until the first is done.
    public func stop() {
        stopping.withLock { isStopped in
            if isStopped { return }
            log.ending(mount.requestCounts())
            mount.stop()
            observer.disconnect()
            fleets.stop()
            isStopped = true
            ended.announce()
        }
    }
}

/// Set once, awaited by any thread.
private final class EndOfMount: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var isOver = false

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func announce() {
        pthread_mutex_lock(mutex)
        isOver = true
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    func wait() {
        pthread_mutex_lock(mutex)
        while !isOver { pthread_cond_wait(condition, mutex) }
        pthread_mutex_unlock(mutex)
    }
}
