// What `fos mount` was asked for, parsed and checked for form; and the way it is told to the daemon's processes.

/// Arguments of a mount, from the command line or from mount(8).
public struct MountRequest: Equatable, Sendable {
    public var directory: String
    public var name: String?
    /// The name if it is free, and else one like it; without a `name`, and instead of one from the directory.
    public var suggestedName: String?
    public var cpus: CPUList?
    public var sizeBytes: UInt64
    /// What programs may have from the memory fleet, and what is kept ready for them.
    public var memoryBytes: UInt64
    public var reserveBytes: UInt64
    public var logLevel: String
    public var allowOther: Bool
    public var nonEmpty: Bool
    /// `kernel` or `fleet`.
    public var locks: String
    public var servers: FleetSizes?
    /// Entries from which on a directory is spread over the file servers; 0 or nil: never.
    public var shards: Int?
    public var fuseOptions: [String]

    public static let logLevels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
    /// Below this there is no room for a root directory and a few files.
    public static let sizeMinimum: UInt64 = 1 << 20

    /// - Parameters:
    ///   - options: strings of `-o`; what they say is overridden by the arguments before them.
    ///   - physicalMemory: bytes; half of it is the default size, as for tmpfs, and a quarter what programs may have.
    public init(
        directory: String, name: String?, cpus: String?, size: String?, memory: String? = nil, reserve: String? = nil, logLevel: String?,
        allowOther: Bool, servers: String? = nil, options: MountOptions, physicalMemory: UInt64
    ) throws(CommandFailure) {
        self.directory = directory
        self.name = name ?? options.name
        if let name = self.name { try InstanceName.check(name) }
        if let text = cpus ?? options.cpus { self.cpus = try CPUList(parsing: text) } else { self.cpus = nil }
        sizeBytes = try ByteSize(parsing: size ?? options.size ?? "50%", memory: physicalMemory).bytes
        memoryBytes = try ByteSize(parsing: memory ?? options.memory ?? "25%", memory: physicalMemory).bytes
        guard memoryBytes <= UInt64(Int64.max) else { throw .usage("memory \(ByteSize(bytes: memoryBytes).text) is too large") }
        if let text = reserve ?? options.memoryReserve {
            reserveBytes = try ByteSize(parsing: text, memory: physicalMemory).bytes
            guard reserveBytes <= memoryBytes else {
                throw .usage("a memory reserve of \(ByteSize(bytes: reserveBytes).text) is more than the memory, \(ByteSize(bytes: memoryBytes).text); give less, or more with --memory")
            }
        } else {
            reserveBytes = memoryBytes / 16
        }
        guard sizeBytes >= Self.sizeMinimum else {
            throw .usage("size \(ByteSize(bytes: sizeBytes).text) is too small; give at least \(ByteSize(bytes: Self.sizeMinimum).text)")
        }
        // A size is a signed number of bytes in statfs and in file offsets.
        guard sizeBytes <= UInt64(Int64.max) else { throw .usage("size \(ByteSize(bytes: sizeBytes).text) is too large") }
        self.logLevel = logLevel ?? options.logLevel ?? "notice"
        guard Self.logLevels.contains(self.logLevel) else {
            throw .usage("bad log level '\(self.logLevel)'; levels are \(Self.logLevels.joined(separator: ", "))")
        }
        if let text = servers ?? options.servers { self.servers = try FleetSizes(parsing: text) } else { self.servers = nil }
        self.allowOther = allowOther || options.allowOther
        nonEmpty = options.nonEmpty
        locks = options.locks ?? "kernel"
        shards = options.shards
        fuseOptions = options.fuse
    }

    /// The same request as arguments of `fos serve` and `fos supervise`, with the name and directory settled.
    public func arguments(name: String, directory: String) -> [String] {
        var arguments = [
            "--name", name, "--size", String(sizeBytes), "--memory", String(memoryBytes), "--memory-reserve", String(reserveBytes),
            "--log-level", logLevel,
        ]
        if let cpus { arguments += ["--cpus", cpus.text] }
        if allowOther { arguments.append("--allow-other") }
        if let servers { arguments += ["--servers", servers.text] }
        var options = MountOptions()
        options.fuse = fuseOptions
        options.nonEmpty = nonEmpty
        options.locks = locks
        options.shards = shards
        arguments += ["-o", options.text, "--", directory]
        return arguments
    }
}

/// A call in the form of mount(8)'s helpers: `mount.fos SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.
public struct MountHelperCall: Equatable, Sendable {
    public var source = ""
    public var directory = ""
    public var options = MountOptions()
    /// `-f`: check everything, mount nothing.
    public var isFake = false
    public var isVerbose = false
    /// The options, if `remount` is one of them: a mount's flags are the kernel's to change, so no helper is needed.
    public var remount: String?

    /// - Parameter arguments: without the program's name.
    public init(parsing arguments: [String]) throws(CommandFailure) {
        var positional: [String] = []
        var optionTexts: [String] = []
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            guard argument.hasPrefix("-"), argument.count > 1 else {
                positional.append(argument)
                continue
            }
            var letters = argument.dropFirst()
            while let letter = letters.popFirst() {
                switch letter {
                case "s": options.ignoresUnknown = true
                case "f": isFake = true
                case "v": isVerbose = true
                case "n": break
                case "o", "N", "t":
                    var value = String(letters)
                    letters = ""
                    if value.isEmpty {
                        guard index < arguments.count else { throw .usage("option -\(letter) needs a value") }
                        value = arguments[index]
                        index += 1
                    }
                    if letter == "o" { optionTexts.append(value) }
                default: throw .usage("unknown option -\(letter); usage: mount.fos SOURCE DIR [-sfnv] [-o OPTIONS]")
                }
            }
        }
        guard positional.count == 2 else { throw .usage("usage: mount.fos SOURCE DIR [-sfnv] [-o OPTIONS]") }
        source = positional[0]
        directory = positional[1]
        if optionTexts.contains(where: { $0.split(separator: ",").contains("remount") }) {
            remount = optionTexts.joined(separator: ",")
            return
        }
        for text in optionTexts { try options.read(text) }
    }

    public static let programNames: Set<String> = ["mount.fos", "mount.fuse.fos"]

    /// Whether arguments are those that mount.fuse3(8) gives to the program named in `mount -t fuse.fos`: SOURCE DIR -o OPTIONS.
    public static func isCallOfMountFuse(_ arguments: [String]) -> Bool {
        arguments.count == 4 && arguments[2] == "-o" && !arguments[0].hasPrefix("-")
    }
}
