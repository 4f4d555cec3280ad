// The fleets of a simulated machine: which server is on which core, and what each is told at its start.
//
// Role: what `Instance` is for the live system. Servers have cores of their own, or share them; clients are added by
// whoever brings the workload.
// Invariants: members of a fleet are numbered in the order of their cores; the board names the owner of every slot before
// the first client runs.

import CFosWire
public import FileService
import Fleet
public import MemoryService
public import Messaging
public import NameService
import PlacementService
public import Simulator

public struct FleetPlan: Sendable {
    /// Core of each file server; two of one core share it.
    public var fileCores: [Int]
    public var nameCores: [Int]
    public var memoryCores: [Int] = []
    /// What each memory server is told.
    public var memory = MemoryOptions(limitBytes: 1 << 30, reserveBytes: 0)
    /// Where the fleet manager is, and what it goes by; nil: the file fleet keeps its size.
    public var manager: (core: Int, plan: ManagerPlan)?
    /// Pages of 4 KiB that each file server may take.
    public var pagesPerServer = 4096
    public var rootMode: UInt32 = 0o777
    /// When directories are spread over the file servers.
    public var sharding = Sharding.never
    public init(fileCores: [Int], nameCores: [Int] = []) {
        self.fileCores = fileCores
        self.nameCores = nameCores
    }
}

public final class SimulatedFleets {
    public let host: SimHost
    public let plan: FleetPlan
    public let files: [MailboxAddress]
    public let names: [MailboxAddress]
    public let memory: [MailboxAddress]
    /// The fleet manager's.
    public let placement: MailboxAddress?

    /// Puts the fleets on a machine, and runs until they are ready.
    /// - Parameters:
    ///   - wrap: what a file server is hosted as; for servers with a store, and for those broken on purpose.
    ///   - wrapMemory: the same of a memory server.
    public init(
        host: SimHost, plan: FleetPlan, wrap: ((SimulatedFleets, Int) -> SimServer)? = nil,
        wrapMemory: ((SimulatedFleets, Int) -> SimServer)? = nil
    ) {
        self.host = host
        self.plan = plan
        var next: [Int: Int] = [:]
        func place(_ core: Int) -> MailboxAddress {
            next[core, default: 0] += 1
            return MailboxAddress(core: core, index: next[core, default: 1])
        }
        names = plan.nameCores.map(place)
        files = plan.fileCores.map(place)
        memory = plan.memoryCores.map(place)
        placement = plan.manager.map { place($0.core) }
        for member in names.indices { host.add(NameMember(nameServer(member)), at: names[member]) }
        for member in files.indices {
            host.add(wrap?(self, member) ?? FileMember(fileServer(member, store: MemoryStore())), at: files[member])
        }
        for member in memory.indices {
            host.add(wrapMemory?(self, member) ?? MemoryMember(memoryServer(member)), at: memory[member])
        }
        if let placement, let manager = plan.manager { host.add(fleetManager(manager.plan), at: placement) }
        host.fallback = files
        host.tickAll()
        host.run(until: host.time + 1_000_000_000)
    }

    /// - Parameters: as of `FileServer`.
    public func fileServer<Store: StateStore>(
        _ member: Int, store: consuming Store, incarnation: UInt16 = 0, hasRoot: Bool = true, isJoining: Bool = false
    ) -> FileServer<Store> {
        FileServer(
            member: member, members: files, credits: plan.pagesPerServer,
            root: RootAttributes(uid: 0, gid: 0, mode: plan.rootMode, born: host.now), seed: host.options.seed, sharding: plan.sharding,
            store: store,
            incarnation: incarnation, hasRoot: hasRoot, serving: plan.manager?.plan.serving,
            isJoining: isJoining || member >= plan.manager?.plan.serving ?? files.count, manager: placement)
    }

    private func fleetManager(_ plan: ManagerPlan) -> ManagerMember {
        ManagerMember(
            FleetManager(
                places: files, serving: plan.serving, minimum: plan.serving, automaticMaximum: files.count, distances: distances,
                cpus: 0..<host.topology.cores, policy: plan.policy, interval: UInt64(plan.intervalNanoseconds)),
            serving: plan.serving)
    }
    /// Changes of the file fleet's size that are over.
    public var changes: [FleetChangeRecord] { placement.flatMap { host.server(at: $0) as? ManagerMember }?.changes ?? [] }

    public func memoryServer(_ member: Int) -> MemoryServer { MemoryServer(member: member, members: memory, options: plan.memory) }

    /// - Parameter isJoining: as of `NameServer`.
    public func nameServer(_ member: Int, isJoining: Bool = false) -> NameServer {
        let matrix = distances
        // A name has at most so many members (`NameLimits`): of larger fleets it names the first ones, who know the others.
        func many(_ name: String, _ fleet: [MailboxAddress]) -> InitialName {
            InitialName(name, isMany: true, mailboxes: Array(fleet.prefix(1024)))
        }
        var all = [many("/sys/file", files), many("/sys/name", names)]
        if !memory.isEmpty { all.append(many("/sys/memory", memory)) }
        return NameServer(member: member, members: names, distances: matrix, privilege: nil, initial: all, isJoining: isJoining)
    }

    /// One matrix for all name servers. A machine of thousands of cores has millions of pairs: made once.
    private lazy var distances = DistanceMatrix(cores: host.topology.cores) { [topology = host.topology] in
        topology.distance(from: $0, to: $1)
    }
}

/// For the release build (WireTypes.swift).
private func specialiseServers() { findConformances(of: WireTypes.self) }
