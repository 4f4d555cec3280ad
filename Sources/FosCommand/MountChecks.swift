// What is checked before a mount, so that each way it cannot work is one clear line instead of a daemon's log.

import CCommand
import Glibc

/// The parts of the machine that the checks look at; tests make up their own.
public struct MountEnvironment {
    public var table: MountTable
    public var userID: UInt32
    public var onlineCPUs: CPUList
    public var allowedCPUs: CPUList
    public var fuseDevice = "/dev/fuse"
    public var fuseConfiguration = "/etc/fuse.conf"
    /// Where fusermount3 is looked for, as libfuse does: its own folder, then PATH.
    public var searchPath: [String]
    /// The process that listens for an instance name of this user, or a negative errno.
    public var listener: (String) -> Int32

    public static func current() -> MountEnvironment {
        let user = geteuid()
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        return MountEnvironment(
            table: .current(), userID: user, onlineCPUs: .online(), allowedCPUs: .allowed(),
            searchPath: ["/usr/bin", "/bin", "/usr/local/bin"] + path.split(separator: ":").map(String.init),
            listener: { name in fos_command_listener(user, name) })
    }

    /// How often, every 50 ms, a name without a mount is looked at before it counts as used.
    public var patience = 40

    public func isUsed(name: String) -> Bool { place(of: name) != nil || listener(name) != -ECONNREFUSED }

    /// Where this user's instance of a name is mounted.
    func place(of name: String) -> String? {
        table.fosMounts.first { $0.instanceName == name && $0.userID == userID }?.mountPoint
    }
}

/// Throws unless the path is absolute: canonicalMountPath leaves what cannot be told as it is, and the processes of a mount
/// leave the directory that they are started in.
public func requireAbsolute(_ path: String) throws(CommandFailure) {
    if path.isEmpty { throw .mount("'': No such file or directory; give a directory to mount on") }
    guard path.utf8.first == UInt8(ascii: "/") else {
        throw .mount("\(shellQuoted(path)): the working directory has been removed; give an absolute path, or change to another directory")
    }
}

/// A mount that passed the checks.
public struct CheckedMount: Equatable, Sendable {
    public let request: MountRequest
    public let name: String
    /// Canonical.
    public let directory: String
    public let warnings: [String]
}

extension MountRequest {
    public func checked(in environment: MountEnvironment) throws(CommandFailure) -> CheckedMount {
        var warnings: [String] = []
        if let cpus, let warning = try cpus.check(online: environment.onlineCPUs, allowed: environment.allowedCPUs) {
            warnings.append(warning)
        }
        let directory = try checkedDirectory(in: environment)
        try checkFuse(in: environment)
        return CheckedMount(request: self, name: try checkedName(for: directory, in: environment), directory: directory, warnings: warnings)
    }

    private func checkedName(for directory: String, in environment: MountEnvironment) throws(CommandFailure) -> String {
        guard let wanted = name else {
            return InstanceName.unused(from: suggestedName ?? InstanceName.suggested(for: directory), isUsed: environment.isUsed)
        }
        if let place = environment.place(of: wanted) {
            throw .mount("the name '\(wanted)' is in use by the mount on \(shellQuoted(place)); choose another with --name")
        }
        // The daemon of a mount that has just been unmounted has its name until it has ended.
        for _ in 0..<environment.patience where environment.isUsed(name: wanted) { usleep(50_000) }
        guard !environment.isUsed(name: wanted) else { throw .mount("the name '\(wanted)' is in use; choose another with --name") }
        return wanted
    }

    private func checkedDirectory(in environment: MountEnvironment) throws(CommandFailure) -> String {
        let shown = shellQuoted(directory)
        let path = canonicalMountPath(directory, in: environment.table)
        try requireAbsolute(path)
        let place = shellQuoted(path)
        // The table first: a stat of a mount whose daemon hangs would hang too.
        if let name = environment.table.mount(at: path)?.instanceName {
            throw .mount("\(shown): a fos filesystem named '\(name)' is mounted there; unmount it with: fos umount \(place)")
        }
        var status = stat()
        guard stat(path, &status) == 0 else {
            let error = errno
            switch error {
            case ENOENT: throw .mount("\(shown): No such file or directory; create it with: mkdir \(shown)")
            case ENOTCONN: throw .mount("\(shown): a dead FUSE mount is there; remove it with: fusermount3 -u \(place)")
            default: throw .mount("\(shown): \(errorText(error))")
            }
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .mount("\(shown): Not a directory; give a directory to mount on") }
        // The demands that fusermount3 makes of an ordinary user.
        if environment.userID != 0 {
            if status.st_mode & S_ISVTX != 0, status.st_uid != environment.userID {
                throw .mount("\(shown): Operation not permitted; a sticky directory must be yours to mount on it")
            }
            guard access(path, W_OK) == 0 else {
                throw .mount("\(shown): \(errorText(errno)); you must be able to write to a directory to mount on it")
            }
        }
        if !nonEmpty, let names = directoryNames(path), !names.isEmpty {
            throw .mount("\(shown): Directory not empty; mount on an empty one, or hide its content with: -o nonempty")
        }
        return path
    }

    private func checkFuse(in environment: MountEnvironment) throws(CommandFailure) {
        let device = environment.fuseDevice
        guard access(device, F_OK) == 0 else {
            throw .mount("\(device): \(errorText(errno)); load the kernel's FUSE module with: modprobe fuse")
        }
        guard access(device, R_OK | W_OK) == 0 else {
            throw .mount("\(device): \(errorText(errno)); every user must be able to open it: as root, chmod 666 \(device)")
        }
        guard environment.userID != 0 else { return }
        guard environment.searchPath.contains(where: { access($0 + "/fusermount3", X_OK) == 0 }) else {
            throw .mount("fusermount3: not found; ordinary users need it to mount: as root, apt-get install fuse3")
        }
        if allowOther {
            let lines = (readText(environment.fuseConfiguration) ?? "").split(separator: "\n")
            guard lines.contains(where: { String($0).trimmed == "user_allow_other" }) else {
                throw .mount(
                    "--allow-other: Operation not permitted; as root, put the line user_allow_other into \(environment.fuseConfiguration)")
            }
        }
    }
}
