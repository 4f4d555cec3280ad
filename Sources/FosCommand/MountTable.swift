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
        // By bytes, here and below: to a Character a space may belong to the letter before it.
        let fields = line.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
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
        entries = text.utf8.split(separator: UInt8(ascii: "\n")).compactMap { MountEntry(parsing: Substring($0)) }
    }

    /// The table of this process's mount namespace.
    public static func current() -> MountTable {
        MountTable(parsing: readText("/proc/self/mountinfo") ?? "")
    }

    /// All fos mounts, in the order they were made.
    public var fosMounts: [MountEntry] { entries.filter { $0.instanceName != nil } }

    /// What is mounted on exactly this canonical path; the topmost, if several are stacked.
    public func mount(at path: String) -> MountEntry? { entries.last { isSamePath($0.mountPoint, path) } }

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

/// Whether two paths are the same bytes. To `==` on strings, an accented letter and a letter with an accent are equal; to a
/// file system they are two names.
public func isSamePath(_ one: String, _ other: String) -> Bool { one.utf8.elementsEqual(other.utf8) }

/// Whether a canonical path is a directory or lies below it.
func isBelow(_ path: String, _ directory: String) -> Bool {
    let root: [UInt8] = [UInt8(ascii: "/")]
    if directory.utf8.elementsEqual(root) { return path.utf8.starts(with: root) }
    return path.utf8.starts(with: directory.utf8) && path.utf8.dropFirst(directory.utf8.count).prefix(1).allSatisfy { $0 == root[0] }
}

/// The canonical path of a directory that may be a mount point, dead or hanging: its parent is resolved first, and the
/// last component only if nothing is mounted there. A path that does not exist is returned as its absolute form. A path
/// that cannot be told (an empty one, or a relative one where the working directory has been removed) is returned as it is.
public func canonicalMountPath(_ path: String, in table: MountTable) -> String {
    let slash = UInt8(ascii: "/")
    var bytes = Array(path.utf8)
    guard !bytes.isEmpty else { return path }
    if bytes[0] != slash {
        guard let here = getcwd(nil, 0) else { return path }
        defer { free(here) }
        bytes = Array(String(cString: here).utf8) + [slash] + bytes
    }
    while bytes.count > 1, bytes.last == slash { bytes.removeLast() }
    let absolute = String(decoding: bytes, as: UTF8.self)
    if table.mount(at: absolute) != nil { return absolute }
    let start = bytes.lastIndex(of: slash)!
    let last = String(decoding: bytes[(start + 1)...], as: UTF8.self)
    if last != ".", last != "..", !last.isEmpty, let parent = resolved(start == 0 ? "/" : String(decoding: bytes[..<start], as: UTF8.self)) {
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
