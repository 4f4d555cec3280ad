// A scenario: the machine, the fleets, the workload and the faults of a run, as data.
//
// Role: what `fos sim --scenario FILE` reads; docs/simulation.md has the format. With a seed it is a run.
// Invariants: an unknown member, or a number out of range, is refused with its name: a misspelt fault is no absent one.

import CFosWire
import FosCommand
import Simulator

/// What strikes, and how often. Times are drawn by the seed from the first `withinNanoseconds` of the workload.
public struct FaultPlan: Sendable, Equatable {
    public enum Kind: String, Sendable, CaseIterable {
        case delay, refuse, staleNames, stall, crash, clientDies, coreLost
        /// No fault: the slot of something that is in use goes to another server.
        case slotsMove
    }
    public enum Restart: String, Sendable { case empty, store, never }
    public var kind: Kind
    public var per65536 = 0
    public var nanoseconds = 0
    public var times = 1
    public var restart = Restart.empty
    public var withinNanoseconds = 200_000
    /// crash, coreLost: which fleet's server, or whose core.
    public enum Fleet: String, Sendable { case files, names }
    public var fleet = Fleet.files
    /// crash of a name server: also while another one is on its way back, as soon as every name is at two servers again.
    public var whileRejoining = false
    public init(kind: Kind) { self.kind = kind }
}

/// How the machine's cores lie.
public enum TopologyPlan: Sendable, Equatable {
    case mesh
    /// An hwloc synthetic description: "pack:2 l3:4 core:8 pu:1".
    case synthetic(String)
    /// The path of an XML file that hwloc wrote.
    case xml(String)
}

public enum PlacementPlan: String, Sendable, CaseIterable {
    /// Servers and clients alternate; a client is near servers.
    case near
    case random
    /// Servers at one end of the machine, clients at the other.
    case far
}

public struct Scenario: Sendable {
    public var name = "default"
    public var cores = 16
    public var topology = TopologyPlan.mesh
    public var placement = PlacementPlan.near
    public var calibration = "chip"
    public var fileServers = 4
    public var nameServers = 0
    public var memoryServers = 0
    /// Bytes that each memory server may grant.
    public var memoryBytes = 1 << 20
    public var pagesPerServer = 4096
    public var mailboxCapacity = 512
    /// Entries from which on a directory is spread over the servers; 0: never.
    public var shards = 0
    /// The fleet manager runs, and says how many of the file servers serve.
    public var manager: ManagerPlan?
    public var workload = WorkloadMix()
    public var load = LoadPlan()
    public var faults: [FaultPlan] = []
    public init() {}

    /// Whether servers may lose what they had.
    public var losesFiles: Bool {
        faults.contains { ($0.kind == .crash && $0.restart != .store || $0.kind == .coreLost) && $0.fleet == .files }
    }
    /// Slots that entries of one directory can be in: a shard a server, and a power of two.
    public var shardsAtMost: Int {
        var count = 1
        while shards > 0, count < fileServers { count *= 2 }
        return count
    }
    /// Whether servers die.
    public var hasDeaths: Bool { faults.contains { $0.kind == .crash || $0.kind == .coreLost } }
    /// Whether slots go from server to server.
    public var movesSlots: Bool { faults.contains { $0.kind == .slotsMove } }
    /// Whether servers have a store that outlives them.
    public var hasStore: Bool { faults.contains { $0.kind == .crash && $0.restart == .store } }
}

/// One line: what is wrong with a data file.
public struct ScenarioError: Error, CustomStringConvertible, Sendable {
    public let description: String
    public init(_ description: String) { self.description = description }
}

extension Scenario {
    public init(text: String) throws(ScenarioError) {
        let json: JSON
        do throws(JSONError) { json = try JSON.parse(text) } catch { throw ScenarioError("\(error)") }
        try self.init(json: json)
    }

    init(json: JSON) throws(ScenarioError) {
        var reader = try MemberReader(json, of: "the scenario")
        name = try reader.string("name") ?? name
        cores = try reader.number("cores", 1...4096) ?? cores
        fileServers = try reader.number("fileServers", 1...4096) ?? min(fileServers, max(cores - 1, 1))
        nameServers = try reader.number("nameServers", 0...64) ?? nameServers
        memoryServers = try reader.number("memoryServers", 0...64) ?? memoryServers
        memoryBytes = try reader.number("memoryBytes", 1 << 16...1 << 34) ?? memoryBytes
        pagesPerServer = try reader.number("pagesPerServer", 64...1 << 24) ?? pagesPerServer
        mailboxCapacity = try reader.number("mailboxCapacity", 1...65536) ?? mailboxCapacity
        shards = try reader.number("shards", 0...1 << 24) ?? shards
        calibration = try reader.string("calibration") ?? calibration
        if let text = try reader.string("placement") {
            guard let plan = PlacementPlan(rawValue: text) else {
                throw ScenarioError("placement \"\(text)\" is none of near, random, far")
            }
            placement = plan
        }
        if let text = try reader.string("topology") { topology = try TopologyPlan(text: text) }
        if let json = reader.take("manager") { manager = try ManagerPlan(json: json) }
        guard manager?.serving ?? 1 <= min(fileServers, Int(FOS_FLEET_MEMBERS_MAX)) else {
            throw ScenarioError("\"serving\" of manager is more than \"fileServers\"")
        }
        if let json = reader.take("load") { load = try LoadPlan(json: json) }
        if let json = reader.take("workload") { workload = try WorkloadMix(json: json) }
        guard workload.memoryClients == 0 || memoryServers > 0 else {
            throw ScenarioError("\"memoryClients\" of workload without \"memoryServers\"")
        }
        guard workload.nameClients == 0 || nameServers > 0 else {
            throw ScenarioError("\"nameClients\" of workload without \"nameServers\"")
        }
        if let json = reader.take("faults") {
            guard case .array(let list) = json else { throw ScenarioError("\"faults\" is no list") }
            for each in list { faults.append(try FaultPlan(json: each)) }
        }
        try reader.finish()
        guard nameServers > 1 || !faults.contains(where: { $0.fleet == .names }) else {
            throw ScenarioError("a name server dies, and \"nameServers\" are not two")
        }
        // A server's store has what the server had; who owns which slot is not in it.
        guard manager == nil || !hasDeaths else { throw ScenarioError("\"manager\" goes with no fault that ends a server") }
        guard !hasStore || !faults.contains(where: { $0.kind == .crash && $0.restart == .empty && $0.fleet == .files }) else {
            throw ScenarioError(
                "a file server's \"restart\" is \"store\" in one crash and \"empty\" in another: a fleet has stores or has none")
        }
        guard !movesSlots || !hasStore else { throw ScenarioError("\"slotsMove\" goes with no crash whose \"restart\" is \"store\"") }
    }
}

extension TopologyPlan {
    /// "mesh", "xml:FILE", or a synthetic description of hwloc's.
    public init(text: String) throws(ScenarioError) {
        if text == "mesh" { self = .mesh } else if text.hasPrefix("xml:") { self = .xml(String(text.dropFirst(4))) } else {
            guard text.contains(":") else {
                throw ScenarioError("topology \"\(text)\" is neither mesh, xml:FILE, nor a description such as pack:2 core:8 pu:1")
            }
            self = .synthetic(text)
        }
    }
}

extension WorkloadMix {
    init(json: JSON) throws(ScenarioError) {
        self.init()
        var reader = try MemberReader(json, of: "workload")
        clients = try reader.number("clients", 1...4096) ?? clients
        threadsPerClient = try reader.number("threadsPerClient", 1...64) ?? threadsPerClient
        memoryClients = try reader.number("memoryClients", 0...4096) ?? memoryClients
        nameClients = try reader.number("nameClients", 0...4096) ?? nameClients
        newcomersNanoseconds = try reader.number("newcomersNanoseconds", 1...10_000_000_000) ?? newcomersNanoseconds
        serviceNames = try reader.number("serviceNames", 1...1024) ?? serviceNames
        operations = try reader.number("operations", 1...1_000_000) ?? operations
        directories = try reader.number("directories", 0...1000) ?? directories
        names = try reader.number("names", 1...64) ?? names
        namespace = try reader.number("namespace", 0...1000) ?? namespace
        renames = try reader.bool("renames") ?? renames
        data = try reader.number("data", 0...1000) ?? data
        locks = try reader.number("locks", 0...1000) ?? locks
        listings = try reader.number("listings", 0...1000) ?? listings
        caching = try reader.bool("caching") ?? caching
        thinkNanoseconds = try reader.number("thinkNanoseconds", 0...1_000_000_000) ?? thinkNanoseconds
        try reader.finish()
        guard namespace + data + locks + listings > 0 else { throw ScenarioError("the workload has no operations: all its weights are 0") }
    }
}

extension ManagerPlan {
    init(json: JSON) throws(ScenarioError) {
        self.init()
        var reader = try MemberReader(json, of: "manager")
        serving = try reader.number("serving", 1...256) ?? serving
        intervalNanoseconds = try reader.number("intervalNanoseconds", 1000...10_000_000_000) ?? intervalNanoseconds
        tickNanoseconds = try reader.number("tickNanoseconds", 1000...10_000_000_000) ?? tickNanoseconds
        policy.growDelay = UInt64(try reader.number("growNanoseconds", 1...10_000_000_000) ?? Int(policy.growDelay))
        policy.shrinkDelay = UInt64(try reader.number("shrinkNanoseconds", 0...10_000_000_000) ?? Int(policy.shrinkDelay))
        policy.growIntervals = try reader.number("growIntervals", 1...1000) ?? policy.growIntervals
        policy.shrinkIntervals = try reader.number("shrinkIntervals", 1...1000) ?? policy.shrinkIntervals
        try reader.finish()
        guard policy.shrinkDelay < policy.growDelay else {
            throw ScenarioError("\"shrinkNanoseconds\" of manager is not below \"growNanoseconds\"")
        }
    }
}

extension LoadPlan {
    init(json: JSON) throws(ScenarioError) {
        self.init()
        var reader = try MemberReader(json, of: "load")
        clients = try reader.number("clients", 0...4096) ?? clients
        nanoseconds = try reader.number("nanoseconds", 3...10_000_000_000) ?? nanoseconds
        calmPause = try reader.number("calmPause", 1...1_000_000_000) ?? calmPause
        busyPause = try reader.number("busyPause", 1...1_000_000_000) ?? busyPause
        try reader.finish()
    }
}

extension FaultPlan {
    init(json: JSON) throws(ScenarioError) {
        var reader = try MemberReader(json, of: "a fault")
        guard let text = try reader.string("kind") else { throw ScenarioError("a fault has no \"kind\"") }
        guard let kind = Kind(rawValue: text) else {
            throw ScenarioError("fault \"\(text)\" is none of \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        self.init(kind: kind)
        per65536 = try reader.number("per65536", 0...65536) ?? per65536
        nanoseconds = try reader.number("nanoseconds", 0...10_000_000_000) ?? nanoseconds
        times = try reader.number("times", 1...1000) ?? times
        withinNanoseconds = try reader.number("withinNanoseconds", 1...10_000_000_000) ?? withinNanoseconds
        if let text = try reader.string("restart") {
            guard let restart = Restart(rawValue: text) else { throw ScenarioError("restart \"\(text)\" is none of empty, store, never") }
            self.restart = restart
        }
        if let text = try reader.string("fleet") {
            guard let fleet = Fleet(rawValue: text) else { throw ScenarioError("fleet \"\(text)\" is neither files nor names") }
            guard kind == .coreLost || kind == .crash else { throw ScenarioError("\"fleet\" belongs to crash and coreLost alone") }
            self.fleet = fleet
        }
        whileRejoining = try reader.bool("whileRejoining") ?? false
        guard !whileRejoining || (kind == .crash && fleet == .names) else {
            throw ScenarioError("\"whileRejoining\" belongs to crashes of name servers alone")
        }
        guard kind != .crash || fleet == .files || restart == .empty else {
            throw ScenarioError("a name server that crashes has no store, and comes back empty")
        }
        try reader.finish()
    }
}

/// The members of an object, each taken once; what is left over is an error.
struct MemberReader {
    private var members: [(String, JSON)]
    private let what: String

    init(_ json: JSON, of what: String) throws(ScenarioError) {
        guard case .object(let members) = json else { throw ScenarioError("\(what) is no object") }
        self.members = members
        self.what = what
    }
    mutating func take(_ name: String) -> JSON? {
        guard let index = members.firstIndex(where: { $0.0 == name }) else { return nil }
        return members.remove(at: index).1
    }
    mutating func string(_ name: String) throws(ScenarioError) -> String? {
        guard let json = take(name) else { return nil }
        guard case .string(let text) = json else { throw ScenarioError("\"\(name)\" of \(what) is no text") }
        return text
    }
    mutating func bool(_ name: String) throws(ScenarioError) -> Bool? {
        guard let json = take(name) else { return nil }
        guard case .bool(let value) = json else { throw ScenarioError("\"\(name)\" of \(what) is neither true nor false") }
        return value
    }
    mutating func number(_ name: String, _ range: ClosedRange<Int>) throws(ScenarioError) -> Int? {
        guard let json = take(name) else { return nil }
        guard case .number(let value) = json, value <= UInt64(Int.max), range.contains(Int(value)) else {
            throw ScenarioError("\"\(name)\" of \(what) is no number from \(range.lowerBound) to \(range.upperBound)")
        }
        return Int(value)
    }
    func finish() throws(ScenarioError) {
        if let (name, _) = members.first { throw ScenarioError("\(what) has no \"\(name)\"") }
    }
}
