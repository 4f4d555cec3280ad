// The comma-separated options of `-o`, as mount(8) hands them to a mount helper.

/// What `-o` says. Later options override earlier ones.
public struct MountOptions: Equatable, Sendable {
    public var size: String?
    public var memory: String?
    public var memoryReserve: String?
    public var cpus: String?
    public var name: String?
    public var logLevel: String?
    /// `kernel` or `fleet`.
    public var locks: String?
    public var servers: String?
    /// Entries from which on a directory is spread over the file servers; 0: never.
    public var shards: Int?
    public var allowOther = false
    public var nonEmpty = false
    /// Options that libfuse and the kernel understand, in their order.
    public var fuse: [String] = []
    /// Set by a helper's `-s`: unknown options are left out instead of refused.
    public var ignoresUnknown = false

    public init() {}

    /// Options that go to libfuse and the kernel as they are (mount flags of fuse(8) in libfuse 3).
    private static let passed: Set<String> = [
        "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async", "dirsync", "atime", "noatime",
        "nodiratime", "norelatime", "nostrictatime",
    ]
    /// Options of fstab(5) and mount(8) that ask nothing of a helper, and what fos always does.
    private static let ignored: Set<String> = [
        "", "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "relatime",
        "diratime", "silent", "loud", "default_permissions",
    ]

    /// Reads one string of options into this value. A value cannot hold a comma, so the CPUs of `cpus=` are told apart
    /// by `+`, as in cpus=1+4-7.
    public mutating func read(_ text: String) throws(CommandFailure) {
        for option in text.split(separator: ",") {
            let parts = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let key = String(parts[0])
            let value: String? = parts.count == 2 ? String(parts[1]) : nil
            func required(_ example: String) throws(CommandFailure) -> String {
                guard let value, !value.isEmpty else { throw .usage("option '\(key)' needs a value, as in -o \(key)=\(example)") }
                return value
            }
            switch key {
            case "size": size = try required("4G")
            case "memory": memory = try required("4G")
            case "memory_reserve": memoryReserve = try required("256M")
            case "cpus": cpus = String(try required("1+4-7").map { $0 == "+" ? "," : $0 })
            case "name": name = try required("scratch")
            case "servers": servers = try required("2-8")
            case "log_level", "log-level": logLevel = try required("info")
            case "locks":
                let mode = try required("fleet")
                guard ["kernel", "fleet"].contains(mode) else { throw .usage("option 'locks' is 'kernel' or 'fleet', not '\(mode)'") }
                locks = mode
            case "shards":
                let text = try required("4096")
                guard let entries = Int(text), entries >= 0 else { throw .usage("option 'shards' is a number of entries, or 0 for never, not '\(text)'") }
                shards = entries
            case _ where value == nil && key == "allow_other": allowOther = true
            case _ where value == nil && key == "nonempty": nonEmpty = true
            case _ where value == nil && Self.passed.contains(key): fuse.append(key)
            case _ where value == nil && Self.ignored.contains(key): break
            case _ where key.hasPrefix("x-") || key == "comment": break
            case _ where ignoresUnknown: break
            default:
                throw .usage(
                    "unknown option '\(option)'; known are size=, memory=, memory_reserve=, cpus=, name=, log_level=, servers=, "
                        + "locks=kernel|fleet, shards=, allow_other, "
                        + "nonempty, and ro, nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync and their opposites")
            }
        }
    }

    /// The options that a daemon needs to be told again, as one string; empty if none.
    public var text: String {
        var parts = fuse
        if let locks { parts.append("locks=\(locks)") }
        if let shards { parts.append("shards=\(shards)") }
        if nonEmpty { parts.append("nonempty") }
        return parts.joined(separator: ",")
    }
}
