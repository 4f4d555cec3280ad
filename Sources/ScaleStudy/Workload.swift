// What the study measures: each workload, what one operation of it is, and the figure that it belongs to.

import PlacementService

/// One kind of work that all clients of a simulated machine do at once, each without pause.
public enum Workload: String, CaseIterable, Sendable {
    case stat
    case createPrivate = "create-private"
    case createShared = "create-shared"
    case readPrivate = "read-private"
    case readShared = "read-shared"
    case readFirst = "read-first"
    case rename
    case nameLookup = "name-lookup"
    case pages
    case compile
    case compileShared = "compile-shared"

    public var title: String {
        switch self {
        case .stat: "stat of a file of one's own"
        case .createPrivate: "create in a directory of one's own"
        case .createShared: "create in one directory of all"
        case .readPrivate: "read 4 KiB of a file of one's own"
        case .readShared: "read 4 KiB of one file of all"
        case .readFirst: "first read of 4 KiB of one file of all"
        case .rename: "rename in a directory of one's own"
        case .nameLookup: "name lookup"
        case .pages: "page allocated or given back"
        case .compile: "compile job with files of one's own"
        case .compileShared: "compile job with headers of all"
        }
    }

    /// Whether clients share nothing, so that perfect scaling is what is asked for.
    public var isPrivate: Bool {
        switch self {
        case .createShared, .readShared, .readFirst, .compileShared: false
        default: true
        }
    }
}

/// How it is decided on which core each client runs.
public enum ClientPlacement: String, CaseIterable, Sendable {
    /// As fos does it: near the servers that it talks to.
    case near
    /// On any core.
    case random
    /// Far from the servers that it talks to.
    case adversarial

    func policy(seed: UInt64) -> PlacementPolicy {
        switch self {
        case .near: .near
        case .random: .random(seed: seed)
        case .adversarial: .adversarial
        }
    }
}

/// One point of the study.
public struct StudyPoint: Sendable, Hashable {
    public var workload: Workload
    public var cores: Int
    public var placement = ClientPlacement.near
    /// One server does all: the machine with a single lock.
    public var isSingleServer = false
    /// Whether large directories are spread over the servers.
    public var shards = true

    public init(_ workload: Workload, cores: Int, placement: ClientPlacement = .near, isSingleServer: Bool = false, shards: Bool = true) {
        self.workload = workload
        self.cores = cores
        self.placement = placement
        self.isSingleServer = isSingleServer
        self.shards = shards
    }

    /// Half of the cores have servers, half have clients; a single core has one of each.
    public var servers: Int { isSingleServer ? 1 : max(1, cores / 2) }
    public var clients: Int { max(1, cores - cores / 2) }
}
