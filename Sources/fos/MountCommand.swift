// `fos mount`: checks, starts the supervised daemon, and waits until the mount is usable.
//
// Processes: the command starts a supervisor in a session of its own, which starts the daemon (`fos serve`). The daemon
// says over a pipe that the mount is usable, or why it is not. With --foreground the command is the supervisor itself.

import ArgumentParser
import FosCommand
import Glibc

struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount",
        abstract: "Start a fos filesystem and mount it.",
        discussion: """
            Starts the fleets of servers and mounts them on DIRECTORY, in the background, and returns when the mount \
            is usable. The content is kept in memory and ends with the mount. 'fos umount', umount and \
            'fusermount3 -u' end the mount and its processes; so do SIGTERM and SIGINT. 'fos status DIRECTORY' \
            shows where its log is.

            Exit status: 0 mounted; 1 wrong arguments; 32 the mount failed.

            As mount.fos in /sbin it serves mount(8) and fstab(5): mount -t fos NAME DIRECTORY -o size=4G
            (NAME names the instance, or one like it if that is in use; name=NAME insists)
            """)

    @Flag(name: .long, help: "Stay in the foreground, log to standard error, and end with the mount.")
    var foreground = false

    @OptionGroup var arguments: MountArguments

    func run() throws {
        try performMount(arguments.request(), foreground: foreground)
    }
}

/// The call of mount(8).
func mountAsHelper(_ arguments: [String]) throws(CommandFailure) {
    let call = try MountHelperCall(parsing: arguments)
    if let options = call.remount {
        throw .mount("mount: \(errorText(replaceProcess(with: ["mount", "-i", "-o", options, call.directory])))")
    }
    var request = try MountRequest(
        directory: call.directory, name: nil, cpus: nil, size: nil, logLevel: nil, allowOther: false, options: call.options,
        physicalMemory: physicalMemory())
    request.suggestedName = InstanceName.suggested(bySource: call.source)
    if call.isFake {
        _ = try request.checked(in: .current())
        return
    }
    try performMount(request, foreground: false)
}

func performMount(_ request: MountRequest, foreground: Bool) throws(CommandFailure) {
    let mount = try request.checked(in: .current())
    for warning in mount.warnings { complain("mount: warning: \(warning)") }
    let arguments = request.arguments(name: mount.name, directory: mount.directory)
    if foreground {
        let code = Supervisor(name: mount.name, directory: mount.directory, arguments: arguments, logLevel: request.logLevel, ready: -1).run()
        guard code == 0 else { exit(code) }
        return
    }
    let log = try LogFile.open(for: mount.name)
    defer { close(log.descriptor) }
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw .mount("pipe: \(errorText(errno))") }
    defer { close(ends[0]) }
    let pid = spawn(
        ownExecutable(), ["fos", "supervise"] + arguments, output: log.descriptor, passing: ends[1], newSession: true)
    close(ends[1])
    guard pid > 0 else { throw .mount("\(shellQuoted(mount.directory)): the daemon cannot be started: \(errorText(-pid))") }
    try awaitReady(ends[0], mount: mount, log: log.path)
}

/// Reads what the daemon says: "ready", or one line of error.
private func awaitReady(_ descriptor: Int32, mount: CheckedMount, log: String) throws(CommandFailure) {
    var said: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while said.last != UInt8(ascii: "\n") {
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { break }
        said.append(contentsOf: buffer[..<count])
    }
    let line = String(decoding: said.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    if line == ReadyPipe.ready { return }
    guard line.isEmpty else { throw .mount("\(shellQuoted(mount.directory)): \(line)") }
    throw .mount("\(shellQuoted(mount.directory)): the daemon ended before the mount was usable; its log says why: \(log)")
}
