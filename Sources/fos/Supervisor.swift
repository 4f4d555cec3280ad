// The supervisor: the parent of a daemon, which sees to it that the mount goes away however the daemon ends.
//
// A FUSE mount whose daemon has died answers ENOTCONN until somebody unmounts it. The supervisor does, at once, and
// logs why the daemon ended. SIGTERM, SIGINT and SIGHUP are handed on to the daemon, which unmounts and ends. If the
// supervisor itself is killed, the daemon gets SIGTERM (PR_SET_PDEATHSIG in ServeCommand).

import ArgumentParser
import CCommand
import FosCommand
import Glibc
import Logging

struct SuperviseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "supervise", abstract: "Supervise a daemon (started by 'fos mount').", shouldDisplay: false)

    @OptionGroup var arguments: MountArguments

    func run() throws {
        let request = try arguments.request()
        guard let name = request.name else { throw CommandFailure.usage("supervise: --name is missing") }
        try requireAbsolute(request.directory)
        let ready = ReadyPipe(passed: true)
        _ = chdir("/")
        let supervisor = Supervisor(
            name: name, directory: request.directory, arguments: request.arguments(name: name, directory: request.directory),
            logLevel: request.logLevel, ready: ready?.descriptor ?? -1)
        throw ExitCode(supervisor.run())
    }
}

struct Supervisor {
    let name: String
    let directory: String
    /// Of `fos serve`.
    let arguments: [String]
    let logLevel: String
    /// The ready pipe to hand to the daemon, or -1.
    let ready: Int32

    /// Runs the daemon to its end. Returns the exit code: the daemon's own, or 128 plus the signal that ended it.
    func run() -> Int32 {
        let logger = makeLogger(level: Logger.Level(rawValue: logLevel) ?? .notice)
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] { sigaddset(&signals, signal) }
        // Blocked before the daemon starts, so its end cannot be missed.
        sigprocmask(SIG_BLOCK, &signals, nil)
        let huge = HugeFrames.claim(logger)
        defer { huge.giveBack(logger) }
        let daemon = spawn(ownExecutable(), ["fos", "serve"] + arguments, passing: ready)
        if ready >= 0 { close(ready) }
        guard daemon > 0 else {
            logger.critical("the daemon of '\(name)' cannot be started: \(errorText(-daemon))")
            return ExitStatus.mountFailure
        }
        var status: Int32 = 0
        while true {
            var signal: Int32 = 0
            guard sigwait(&signals, &signal) == 0 else { continue }
            if signal != SIGCHLD { kill(daemon, SIGTERM) }
            if waitpid(daemon, &status, WNOHANG) == daemon { break }
        }
        let code = exitCode(ofStatus: status)
        if code > 128 {
            logger.critical("the daemon of '\(name)' (pid \(daemon)) was ended by signal \(code - 128) (\(signalText(code - 128)))")
        }
        removeDeadMount(logger)
        return code
    }

    /// Detaches what a dead daemon left in the mount table. Only that: something else may have been mounted on the
    /// directory since, over the dead mount or, after a lazy unmount, instead of it, even under the same name.
    private func removeDeadMount(_ logger: Logger) {
        // Repeated entries are few; the bound keeps a refused unmount from looping.
        for _ in 0..<8 {
            let table = MountTable.current()
            let left = table.fosMounts.last {
                $0.instanceName == name && $0.userID == geteuid() && isSamePath($0.mountPoint, directory)
            }
            guard let left, fos_command_listener(geteuid(), name) == -ECONNREFUSED else { return }
            let path = shellQuoted(left.mountPoint)
            guard let top = table.mount(at: left.mountPoint), top.id == left.id else {
                logger.error("\(path): another mount lies over the dead one; unmount both with: umount \(path); umount \(path)")
                return
            }
            switch unmount(left.mountPoint, lazy: true) {
            case .unmounted: logger.notice("\(path): unmounted")
            case .busy: logger.error("\(path): still busy; unmount it with: fos umount --lazy \(path)")
            case .failed(let reason): logger.error("\(path): cannot be unmounted: \(reason)")
            }
        }
    }

    private func signalText(_ signal: Int32) -> String { strsignal(signal).map { String(cString: $0) } ?? "?" }
}
