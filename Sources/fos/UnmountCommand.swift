// `fos umount`: unmounts, says who holds a busy mount, and waits until the daemon is gone.

import ArgumentParser
import CCommand
import FosCommand
import Glibc

struct UnmountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount",
        abstract: "Unmount a fos filesystem and end its processes.",
        discussion: """
            Unmounts DIRECTORY and waits until the daemon has ended; the content is gone then. If programs still use \
            the mount, it says which and changes nothing.

            Exit status: 0 unmounted; 1 wrong arguments; 32 the unmount failed, or DIRECTORY is not a fos mount.
            """)

    @Flag(name: .shortAndLong, help: "Detach the mount now, and let the daemon end when the last program lets go of it.")
    var lazy = false

    @Flag(name: .shortAndLong, help: "Detach the mount now and end the daemon, whatever still uses it (programs get errors).")
    var force = false

    @Argument(help: "Directory that a fos filesystem is mounted on.", completion: .directory)
    var directory: String

    func run() throws {
        let table = MountTable.current()
        let path = canonicalMountPath(directory, in: table)
        let shown = shellQuoted(directory)
        guard let entry = table.mount(at: path) else {
            throw CommandFailure.mount(access(path, F_OK) == 0 || errno != ENOENT
                ? "\(shown): not mounted; 'fos status' lists the fos mounts" : "\(shown): No such file or directory")
        }
        guard let name = entry.instanceName else {
            throw CommandFailure.mount("\(shown): not a fos mount but \(entry.type); unmount it with: umount \(shown)")
        }
        let user = entry.userID ?? 0
        let daemon = ProcessInformation(pid: fos_command_listener(uid_t(user), name))
        // Daemon and supervisor both end with the mount.
        let supervisor = daemon.flatMap { ProcessInformation(pid: $0.parent) }.flatMap {
            $0.arguments.dropFirst().first == "supervise" ? $0 : nil
        }
        // This process must not be one that holds the mount.
        _ = chdir("/")
        switch unmount(path, lazy: lazy || force) {
        case .unmounted: break
        case .busy: throw CommandFailure.mount(busyMessage(entry))
        case .failed(let reason): throw CommandFailure.mount("\(shown): \(reason)")
        }
        guard let daemon else { return }
        if force {
            kill(daemon.pid, SIGTERM)
            if !daemon.waitForEnd(seconds: 3) { kill(daemon.pid, SIGKILL) }
        }
        // It may be mounted on another directory too (mount --bind), and goes on there.
        if !force, MountTable.current().entries.contains(where: { $0.major == entry.major && $0.minor == entry.minor }) { return }
        if daemon.waitForEnd(seconds: lazy && !force ? 0.5 : 10) {
            _ = supervisor?.waitForEnd(seconds: 2)
            return
        }
        if lazy {
            complain("umount: \(shown): detached; the daemon (pid \(daemon.pid)) ends when the last program lets go of it")
        } else {
            throw CommandFailure.mount("\(shown): unmounted, but the daemon (pid \(daemon.pid)) still runs, as it does while another mount namespace (a container's) has a copy of the mount; end it with: kill \(daemon.pid)")
        }
    }

    private func busyMessage(_ entry: MountEntry) -> String {
        let shown = shellQuoted(directory)
        var lines = ["\(shown): Device or resource busy"]
        for inner in MountTable.current().mounts(inside: entry) {
            lines.append("  mounted inside: \(shellQuoted(inner.mountPoint)) (\(inner.type))")
        }
        let found = MountHolders(of: entry)
        for holder in found.holders {
            let shown = holder.uses.prefix(4).joined(separator: "; ")
            let more = holder.uses.count > 4 ? "; and \(holder.uses.count - 4) more" : ""
            lines.append("  pid \(holder.pid) (\(holder.command)): \(shown)\(more)")
        }
        if found.holders.isEmpty, lines.count == 1, found.hidden > 0 {
            lines.append("  no process of yours holds it; as root, fos umount names the others")
        }
        lines.append("end these uses, or detach the mount with: fos umount --lazy \(shown)")
        return lines.joined(separator: "\n")
    }
}
