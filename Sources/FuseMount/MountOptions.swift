// What goes to mount(2) or fusermount3, the checks that give a clear line before they would give an unclear one, and
// unmounting by path.

import CFosProxy
import CFosWire
import CFuse
import Glibc
import Synchronization

enum MountOptions {
    /// The `-o` text for libfuse. A comma or backslash inside the source is escaped, as libfuse reads it.
    static func text(_ configuration: FuseMount.Configuration) -> String {
        let source = configuration.source.replacing("\\", with: "\\\\").replacing(",", with: "\\,")
        var options = ["fsname=\(source)", "subtype=fos", "default_permissions", "max_read=\(FOS_TRANSFER_BYTES_MAX)"]
        if configuration.allowOther { options.append("allow_other") }
        // libfuse adds nosuid and nodev. For root, whose local file systems have neither, they are taken back unless asked for.
        if geteuid() == 0 {
            if !configuration.options.contains("nosuid") { options.append("suid") }
            if !configuration.options.contains("nodev") { options.append("dev") }
        }
        options.append(contentsOf: configuration.options)
        return options.joined(separator: ",")
    }

    /// Unmounts a file system (fos_fuse_file_system) from a path as this user can: 0 or an errno, EINVAL when something else
    /// lies on top there. A mount that was detached is gone from its path while programs still use it, and what has been
    /// mounted there since is another's.
    static func unmount(_ path: String, of fileSystem: UInt64, lazy: Bool) -> Int32 {
        guard fileSystem != 0, fos_fuse_file_system(path) == fileSystem else { return EINVAL }
        return geteuid() == 0 ? fos_fuse_umount(path, lazy ? 1 : 0) : runFusermount(path, lazy: lazy)
    }

    private static func runFusermount(_ path: String, lazy: Bool) -> Int32 {
        let words = ["fusermount3", "-u", "-q"] + (lazy ? ["-z"] : []) + ["--", path]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var child = pid_t()
        let result = posix_spawnp(&child, "fusermount3", nil, nil, &arguments, environ)
        guard result == 0 else { return result }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        return status == 0 ? 0 : EBUSY
    }
}

enum MountCheck {
    /// Throws the one line that says why a mount cannot work. What only mount(2) can find out is left to it.
    static func check(_ configuration: FuseMount.Configuration) throws(FuseMountError) {
        let path = configuration.mountPoint
        var status = stat()
        guard stat(path, &status) == 0 else {
            let hint = errno == ENOTCONN ? " (a dead mount is there: fusermount3 -u \(path))" : ""
            throw FuseMountError("cannot mount on \(path): \(FuseMount.text(errno))\(hint)")
        }
        guard status.st_mode & FileType.mask == FileType.directory else {
            throw FuseMountError("cannot mount on \(path): \(FuseMount.text(ENOTDIR))")
        }
        guard access("/dev/fuse", F_OK) == 0 else {
            throw FuseMountError("cannot mount: no /dev/fuse (load the kernel module: modprobe fuse)")
        }
        guard access("/dev/fuse", R_OK | W_OK) == 0 else {
            throw FuseMountError("cannot mount: /dev/fuse: \(FuseMount.text(errno))")
        }
        if geteuid() != 0 { try checkOrdinaryUser(configuration, status) }
    }

    private static func checkOrdinaryUser(_ configuration: FuseMount.Configuration, _ status: stat) throws(FuseMountError) {
        let path = configuration.mountPoint
        guard access(path, W_OK) == 0 else {
            throw FuseMountError("cannot mount on \(path): it is not yours to write (fusermount3 asks for that)")
        }
        if status.st_mode & 0o1000 != 0 && status.st_uid != getuid() {
            throw FuseMountError("cannot mount on \(path): a sticky directory of another user")
        }
        if configuration.allowOther && !allowsOther() {
            throw FuseMountError("allow_other is for root, unless /etc/fuse.conf has the line user_allow_other")
        }
    }

    private static func allowsOther() -> Bool {
        guard let file = fopen("/etc/fuse.conf", "re") else { return false }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if text.split(whereSeparator: \.isWhitespace).first == "user_allow_other" { return true }
        }
        return false
    }
}

/// What libfuse has to say. It logs through one function for the whole process.
enum FuseMessages {
    final class Collected: Sendable {
        private let storage = Mutex<[String]>([])
        var lines: [String] { storage.withLock { $0 } }
        func add(_ line: String) { storage.withLock { if $0.count < 16 { $0.append(line) } } }
    }

    private static let sink = Mutex<(@Sendable (String) -> Void)?>(nil)

    /// Gathers lines from now on, for the error of a mount that fails.
    static func collect() -> Collected {
        let collected = Collected()
        forward { collected.add($0) }
        return collected
    }

    static func forward(to log: @escaping @Sendable (String) -> Void) {
        sink.withLock { $0 = log }
        fuse_set_log_func { _, format, arguments in
            guard let format, let arguments else { return }
            var line = [CChar](repeating: 0, count: 512)
            vsnprintf(&line, line.count, format, arguments)
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            FuseMessages.sink.withLock { $0 }?(text.hasSuffix("\n") ? String(text.dropLast()) : text)
        }
    }
}

enum OpcodeNames {
    private static let names: [Int: String] = [
        1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR",
        10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS",
        18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH",
        26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK", 33: "SETLKW",
        34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 37: "BMAP", 38: "DESTROY", 39: "IOCTL", 40: "POLL",
        42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE",
        50: "SYNCFS", 51: "TMPFILE", 52: "STATX",
    ]

    /// As linux/fuse.h names an operation, without its prefix.
    static func name(_ opcode: Int) -> String { names[opcode] ?? "OPCODE_\(opcode)" }
}
