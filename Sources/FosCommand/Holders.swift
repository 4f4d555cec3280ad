// Who keeps a mount busy: the processes with a working directory, root, program, descriptor or mapping on it.
//
// Invariant: only /proc is read (link texts, fdinfo, maps), never the mount itself.

import Glibc

public struct MountHolder: Equatable, Sendable {
    public let pid: Int32
    public let command: String
    /// "working directory /mnt/a", "open file /mnt/b", "program /mnt/c", "mapped file /mnt/d", "root directory /mnt".
    public let uses: [String]
}

public struct MountHolders: Sendable {
    public let holders: [MountHolder]
    /// Processes of other users that could not be looked into.
    public let hidden: Int

    /// Looks through all processes but this one.
    public init(of entry: MountEntry, proc: String = "/proc") {
        var holders: [MountHolder] = []
        var hidden = 0
        for name in directoryNames(proc) ?? [] {
            guard let pid = Int32(name), pid != getpid() else { continue }
            let folder = "\(proc)/\(pid)"
            guard let files = directoryNames("\(folder)/fdinfo") else {
                // A kernel thread or a process that ended has nothing to hide.
                if ProcessInformation(pid: pid) != nil { hidden += 1 }
                continue
            }
            var uses: [String] = []
            for (link, use) in [("cwd", "working directory"), ("root", "root directory"), ("exe", "program")] {
                // "/" as a root directory is everyone's.
                if let target = linkTarget("\(folder)/\(link)"), isBelow(target, entry.mountPoint), !(link == "root" && target == "/") {
                    uses.append("\(use) \(shellQuoted(target))")
                }
            }
            for file in files {
                guard let text = readText("\(folder)/fdinfo/\(file)"), Self.mountID(fdinfo: text) == entry.id else { continue }
                uses.append("open file \(linkTarget("\(folder)/fd/\(file)").map { shellQuoted($0) } ?? "(descriptor \(file))")")
            }
            for path in Self.mappedPaths(readText("\(folder)/maps") ?? "", major: entry.major, minor: entry.minor) {
                let shown = shellQuoted(path)
                if !uses.contains("program \(shown)") { uses.append("mapped file \(shown)") }
            }
            if !uses.isEmpty {
                let command = readText("\(folder)/comm")?.trimmed ?? "?"
                holders.append(MountHolder(pid: pid, command: command, uses: uses))
            }
        }
        self.holders = holders.sorted { $0.pid < $1.pid }
        self.hidden = hidden
    }

    /// The mnt_id line of /proc/PID/fdinfo/FD.
    static func mountID(fdinfo: String) -> Int? {
        for line in fdinfo.split(separator: "\n") where line.hasPrefix("mnt_id:") {
            return Int(String(line.dropFirst(7)).trimmed)
        }
        return nil
    }

    /// Paths of mappings of files on a device, each once. Lines are "from-to perms offset major:minor inode   path",
    /// numbers in hexadecimal.
    static func mappedPaths(_ maps: String, major: Int, minor: Int) -> [String] {
        var paths: [String] = []
        for line in maps.split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard fields.count == 6 else { continue }
            let device = fields[3].split(separator: ":").compactMap { Int($0, radix: 16) }
            guard device == [major, minor] else { continue }
            let path = String(fields[5]).trimmed
            if !paths.contains(path) { paths.append(path) }
        }
        return paths
    }
}
