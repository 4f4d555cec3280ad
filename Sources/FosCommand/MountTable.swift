// The mount table, /proc/self/mountinfo (proc_pid_mountinfo(5)), and the fos mounts in it.
//
// Invariant: nothing here touches a fos mount, so nothing here can hang on a mount whose daemon does.

import Glibc

/// One line of mountinfo.
public struct MountEntry: Equatable, Sendable {
    public let id: Int
    public let parent: Int
    /// Of the file system, as st_dev has it.
    public let major: Int, minor: Int
    public let mountPoint: String
    public let type: String
    public let source: String
    /// Options of the mount and of the file system.
    public let options: [String]

    /// Parses "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue". nil if it is not such a line.
    public init?(parsing line: some StringProtocol) {
        let fields: [String] = line.split(separator: Character(" "), omittingEmptySubsequences: false).map { String($0) }
        guard let separator = fields.firstIndex(of: "-"), separator >= 6, fields.count >= separator + 4,
            let id = Int(fields[0]), let parent = Int(fields[1])
        else { return nil }
        let device = fields[2].split(separator: Character(":")).compactMap { Int($0) }
        guard device.count == 2 else { return nil }
        self.id = id
        self.parent = parent
        major = device[0]
        minor = device[1]
        mountPoint = Self.unescaped(fields[4])
        type = Self.unescaped(fields[separator + 1])
        source = Self.unescaped(fields[separator + 2])
        let both = fields[5] + "," + fields[separator + 3]
        options = both.split(separator: ",").map { String($0) }
    }

    /// The name of the instance; nil if this is not a fos mount.
    public var instanceName: String? {
        guard type == "fuse.fos", source.hasPrefix("fos:") else { return nil }
        return String(source.dropFirst(4))
    }

    /// The user whose mount it is (FUSE's user_id).
    public var userID: UInt32? {
        options.first { $0.hasPrefix("user_id=") }.flatMap { UInt32($0.dropFirst(8)) }
    }

    /// Undoes the kernel's escapes of space, tab, newline and backslash: `\040` and so on.
    static func unescaped(_ text: String) -> String {
        guard text.contains("\\") else { return text }
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
                let value = UInt8(String(decoding: bytes[index + 1...index + 3], as: UTF8.self), radix: 8)
            {
                result.append(value)
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

public struct MountTable: Sendable {
    public let entries: [MountEntry]

    public init(parsing text: String) {
        entries = text.split(separator: "\n").compactMap { MountEntry(parsing: $0) }
    }

    /// The table of this process's mount namespace.
    public static func current() -> MountTable {
        MountTable(parsing: readText("/proc/self/mountinfo") ?? "")
    }

    /// All fos mounts, in the order they were made.
    public var fosMounts: [MountEntry] { entries.filter { $0.instanceName != nil } }

    /// What is mounted on exactly this canonical path; the topmost, if several are stacked.
    public func mount(at path: String) -> MountEntry? { entries.last { $0.mountPoint == path } }

    /// The mount that a canonical path lies on.
    public func mount(containing path: String) -> MountEntry? {
        var best: MountEntry?
        for entry in entries where isBelow(path, entry.mountPoint) {
            if best == nil || entry.mountPoint.utf8.count >= best!.mountPoint.utf8.count { best = entry }
        }
        return best
    }

    /// What is mounted inside another mount.
    public func mounts(inside entry: MountEntry) -> [MountEntry] { entries.filter { $0.parent == entry.id } }
}

/// Whether a canonical path is a directory or lies below it.
func isBelow(_ path: String, _ directory: String) -> Bool {
    directory == "/" || path == directory || path.hasPrefix(directory + "/")
}

/// The canonical path of a directory that may be a mount point, dead or hanging: its parent is resolved first, and the
/// last component only if nothing is mounted there. A path that does not exist is returned as its absolute form.
public func canonicalMountPath(_ path: String, in table: MountTable) -> String {
    var absolute = path
    if !path.hasPrefix("/") {
        guard let here = getcwd(nil, 0) else { return path }
        absolute = String(cString: here) + "/" + path
        free(here)
    }
    while absolute.count > 1, absolute.hasSuffix("/") { absolute.removeLast() }
    if table.mount(at: absolute) != nil { return absolute }
    let slash = absolute.lastIndex(of: "/")!
    let last = String(absolute[absolute.index(after: slash)...])
    if last != ".", last != "..", !last.isEmpty, let parent = resolved(slash == absolute.startIndex ? "/" : String(absolute[..<slash])) {
        let candidate = parent == "/" ? "/" + last : parent + "/" + last
        if table.mount(at: candidate) != nil { return candidate }
    }
    return resolved(absolute) ?? absolute
}

private func resolved(_ path: String) -> String? {
    guard let real = realpath(path, nil) else { return nil }
    defer { free(real) }
    return String(cString: real)
}
