// Directories of local file systems, made for a run of the suite and removed after it.

import CContractSupport
import Glibc

enum LocalDirectory {
    /// A directory of a tmpfs, the file system that fos is closest to; nil where there is none or the user is not root.
    nonisolated(unsafe) static let tmpfs: PosixFileSystem? = make(
        name: "tmpfs", under: "/dev/shm", features: Features.local.union([.pageBlocks, .refusesCollapse]))
    /// A directory of the disk.
    nonisolated(unsafe) static let disk: PosixFileSystem? = make(
        name: "disk", under: "/var/tmp", features: Features.local.union(.zeroRange))

    private static func make(name: String, under parent: String, features: Features) -> PosixFileSystem? {
        guard geteuid() == 0, let root = temporaryDirectory(under: parent) else { return nil }
        return PosixFileSystem(name: name, root: root, features: features)
    }
}

/// A new directory that all may search; it is removed when the process ends.
func temporaryDirectory(under parent: String) -> String? {
    var template = Array("\(parent)/fos-contract-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { return nil }
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    _ = chmod(path, 0o755)
    TemporaryDirectories.remember(path)
    return path
}

/// What `atexit` has to remove.
private enum TemporaryDirectories {
    nonisolated(unsafe) static var paths: [String] = []
    nonisolated(unsafe) static var isRegistered = false
    static func remember(_ path: String) {
        paths.append(path)
        guard !isRegistered else { return }
        isRegistered = true
        atexit {
            for path in TemporaryDirectories.paths { _ = contract_remove_tree(path) }
        }
    }
}
