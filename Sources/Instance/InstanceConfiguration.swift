// What an instance is asked to be: the answers of the command line, checked, in one value.

import Logging

/// Who keeps byte-range locks and flocks of programs on the mount.
public enum LockMode: String, Sendable, CaseIterable {
    /// The kernel of this machine keeps them; opens are then never messages.
    case kernel
    /// The file fleet keeps them, so that clients on other paths than the mount meet them; every open is a message.
    case fleet
}

/// What the memory fleet may give to programs.
public struct MemorySize: Sendable, Equatable {
    /// Bytes that programs may have; ENOMEM beyond.
    public var limitBytes: UInt64
    /// Bytes of each frame size in use that are kept zeroed and ready.
    public var reserveBytes: UInt64
    public init(limitBytes: UInt64 = 1 << 30, reserveBytes: UInt64 = 1 << 26) {
        self.limitBytes = limitBytes
        self.reserveBytes = min(reserveBytes, limitBytes)
    }
}

public struct InstanceConfiguration: Sendable {
    /// Instance name: letters, digits, `.`, `_`, `-`; 1 to 64 bytes. With the user id it is the endpoint.
    public var name: String
    /// Absolute path of the directory to mount on.
    public var mountPoint: String
    /// CPUs fos may use; nil leaves at least one to programs.
    public var cpus: [Int]?
    /// Bytes of files and metadata; ENOSPC beyond.
    public var sizeBytes: UInt64
    public var memory: MemorySize
    public var allowOther: Bool
    /// Further mount options, passed to libfuse as they are.
    public var fuseOptions: [String]
    public var locks: LockMode
    /// File servers at the start and at most; nil: by the number of cores.
    public var servers: ClosedRange<Int>?
    /// Entries from which on a directory is spread over the file servers; 0: never; nil: by the number of cores.
    public var shards: Int?
    public var logLevel: Logger.Level

    public init(
        name: String, mountPoint: String, cpus: [Int]? = nil, sizeBytes: UInt64, memory: MemorySize = MemorySize(), allowOther: Bool = false,
        fuseOptions: [String] = [], locks: LockMode = .kernel, servers: ClosedRange<Int>? = nil, shards: Int? = nil,
        logLevel: Logger.Level = .notice
    ) {
        self.name = name
        self.mountPoint = mountPoint
        self.cpus = cpus
        self.sizeBytes = sizeBytes
        self.memory = memory
        self.allowOther = allowOther
        self.fuseOptions = fuseOptions
        self.locks = locks
        self.servers = servers
        self.shards = shards
        self.logLevel = logLevel
    }
}

/// One clear line: what happened, to what, and what to do.
public struct InstanceError: Error, CustomStringConvertible, Sendable {
    public let description: String
    public init(_ description: String) { self.description = description }
}
