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

    public func isUsed(name: String) -> Bool {
        table.fosMounts.contains { $0.instanceName == name && $0.userID == userID } || listener(name) != -ECONNREFUSED
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
        let name: String
        if let wanted = self.name {
            if environment.isUsed(name: wanted) {
                let place = environment.table.fosMounts.first { $0.instanceName == wanted && $0.userID == environment.userID }
                throw .mount(
                    "the name '\(wanted)' is in use" + (place.map { " by the mount on \($0.mountPoint)" } ?? "")
                        + "; choose another with --name")
            }
            name = wanted
        } else {
            name = InstanceName.unused(from: InstanceName.suggested(for: directory), isUsed: environment.isUsed)
        }
        return CheckedMount(request: self, name: name, directory: directory, warnings: warnings)
    }

    private func checkedDirectory(in environment: MountEnvironment) throws(CommandFailure) -> String {
        let path = canonicalMountPath(directory, in: environment.table)
        // The table first: a stat of a mount whose daemon hangs would hang too.
        if let present = environment.table.mount(at: path), present.type.hasPrefix("fuse") {
            if let name = present.instanceName {
                throw .mount("\(directory): a fos filesystem named '\(name)' is mounted there; unmount it with: fos umount \(path)")
            }
        }
        var status = stat()
        guard stat(path, &status) == 0 else {
            let error = errno
            switch error {
            case ENOENT: throw .mount("\(directory): No such file or directory; create it with: mkdir \(directory)")
            case ENOTCONN: throw .mount("\(directory): a dead FUSE mount is there; remove it with: fusermount3 -u \(path)")
            default: throw .mount("\(directory): \(errorText(error))")
            }
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .mount("\(directory): Not a directory; give a directory to mount on") }
        // The demands that fusermount3 makes of an ordinary user.
        if environment.userID != 0 {
            if status.st_mode & S_ISVTX != 0, status.st_uid != environment.userID {
                throw .mount("\(directory): Operation not permitted; a sticky directory must be yours to mount on it")
            }
            guard access(path, W_OK) == 0 else {
                throw .mount("\(directory): \(errorText(errno)); you must be able to write to a directory to mount on it")
            }
        }
        if !nonEmpty, let names = directoryNames(path), !names.isEmpty {
            throw .mount("\(directory): Directory not empty; mount on an empty one, or hide its content with: -o nonempty")
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
