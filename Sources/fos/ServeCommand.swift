// The daemon: one instance, from its start to the end of its mount.

import ArgumentParser
import CCommand
import FosCommand
import Glibc
import Instance
import Logging

struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run the fleets and the mount (started by 'fos mount').", shouldDisplay: false)

    @OptionGroup var arguments: MountArguments

    func run() throws {
        let request = try arguments.request()
        guard let name = request.name else { throw CommandFailure.usage("serve: --name is missing") }
        try requireAbsolute(request.directory)
        let ready = ReadyPipe(passed: true)
        // Every thread that the instance starts inherits this mask; one thread waits for these signals.
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, signal) }
        sigprocmask(SIG_BLOCK, &signals, nil)
        signal(SIGPIPE, SIG_IGN)
        // A supervisor that is killed takes the daemon with it, cleanly.
        let parent = getppid()
        if fos_command_signal_with_parent(SIGTERM, parent) == 1 { throw ExitCode(ExitStatus.mountFailure) }
        _ = chdir("/")
        raiseDescriptorLimit()

        let level = Logger.Level(rawValue: request.logLevel) ?? .notice
        let logger = makeLogger(level: level)
        let configuration = InstanceConfiguration(
            name: name, mountPoint: request.directory, cpus: request.cpus?.cpus, sizeBytes: request.sizeBytes,
            memory: MemorySize(limitBytes: request.memoryBytes, reserveBytes: request.reserveBytes), allowOther: request.allowOther,
            fuseOptions: request.fuseOptions, locks: LockMode(rawValue: request.locks) ?? .kernel,
            servers: request.servers.map { $0.minimum...$0.maximum }, shards: request.shards, logLevel: level)
        let instance: Instance
        do throws(InstanceError) {
            instance = try Instance(configuration, logger: logger)
            try instance.start()
        } catch {
            if let ready { ready.say(error.description) } else { complain("mount: \(request.directory): \(error.description)") }
            throw ExitCode(ExitStatus.mountFailure)
        }
        logger.notice("'\(name)' is mounted on \(request.directory), pid \(getpid())")
        ready?.say(ReadyPipe.ready)
        stopOnSignal(instance, logger)
        instance.waitUntilUnmounted()
        instance.stop()
        if getppid() != parent { HugeFrames.giveBackForSupervisor(logger) }
        logger.notice("'\(name)' on \(request.directory) has ended")
    }

    /// Each large file may have a descriptor, so take all that the user may have.
    private func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue)), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(__rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue)), &limit)
    }
}

/// What the signal thread is given.
private final class SignalContext: Sendable {
    let instance: Instance
    let logger: Logger
    init(_ instance: Instance, _ logger: Logger) {
        self.instance = instance
        self.logger = logger
    }
}

/// Starts a thread that stops the instance at the first SIGTERM, SIGINT or SIGHUP; `waitUntilUnmounted` then returns.
private func stopOnSignal(_ instance: Instance, _ logger: Logger) {
    let context = Unmanaged.passRetained(SignalContext(instance, logger))
    var thread = pthread_t()
    pthread_create(&thread, nil, { @Sendable raw in
        let context = Unmanaged<SignalContext>.fromOpaque(raw!).takeRetainedValue()
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, signal) }
        var signal: Int32 = 0
        while sigwait(&signals, &signal) != 0 {}
        context.logger.notice("signal \(signal): unmounting")
        context.instance.stop()
        return nil
    }, context.toOpaque())
    pthread_detach(thread)
}
