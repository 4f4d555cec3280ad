// One run of a scenario: a seed, a machine, a workload, faults, and what the checker says of it.
//
// Protocol: `init` puts everything in place, `run` runs it to its end, checks, and returns what was found. Who is where is decided by
// `ScenarioPlaces`, what goes wrong by ScenarioRun+Faults.
// Invariant: everything random is drawn from the seed, in an order that does not depend on anything but the run.

public import CFosWire
public import FileService
import MemoryService
import Messaging
public import Simulator

public struct RunResult: Sendable {
    public var seed: UInt64
    public var hash: UInt64
    public var operations: Int
    public var virtualTime: VirtualTime
    public var totals: SimTotals
    public var violations: [Violation]
    /// Of a managed fleet, its changes of size.
    public var fleetChanges: [FleetChangeRecord] = []
    public var isCorrect: Bool { violations.isEmpty }
}

public final class ScenarioRun {
    public let scenario: Scenario
    public let seed: UInt64
    public let host: SimHost
    public let world: World
    public private(set) var fleets: SimulatedFleets
    var random: SeededRandom
    var programs: [(program: RandomProgram, thread: SimThread)] = []
    var memoryPrograms: [(program: MemoryProgram, client: SimClient)] = []
    var namePrograms: [(program: NameProgram, thread: SimThread)] = []
    private let ledger = FrameLedger()
    var clients: [SimClient] = []
    /// Clients that come while the others work.
    private var newcomers: [SimClient] = []
    /// Members whose inodes are lost.
    var lost = Set<Int>()
    /// Slots whose inodes a crash may have taken.
    var lostSlots = Set<Int>()
    /// How often servers have come back empty.
    var incarnation: UInt16 = 0
    /// Of each member, if the scenario has stores.
    let stores: [StoredState]
    let births: BirthLog
    let storesLose: ((Change) -> Bool)?

    /// - Parameters:
    ///   - traceRecords: kept of each server.
    ///   - wrap: hosts a file server otherwise than as `FileMember`.
    ///   - wrapMemory: hosts a memory server otherwise than as `MemoryMember`.
    ///   - storesLose: of stores that are broken on purpose: changes that they do not keep.
    public init(
        _ scenario: Scenario, seed: UInt64, topology: CoreTopology, costs: Costs, traceRecords: Int = 0,
        wrap: ((SimulatedFleets, Int) -> SimServer)? = nil, wrapMemory: ((SimulatedFleets, Int) -> SimServer)? = nil,
        storesLose: ((Change) -> Bool)? = nil
    ) {
        self.scenario = scenario
        self.storesLose = storesLose
        self.seed = seed
        var options = SimOptions(seed: seed)
        options.mailboxCapacity = scenario.mailboxCapacity
        options.remoteMailboxCapacity = max(scenario.mailboxCapacity / 4, 1)
        options.traceRecords = traceRecords
        options.bulkBytes = 16384
        if let manager = scenario.manager { options.tickInterval = VirtualTime(manager.tickNanoseconds) * 1000 }
        host = SimHost(topology: topology, costs: costs, options: options)
        world = World(mix: scenario.workload)
        world.losesFiles = scenario.losesFiles
        random = SeededRandom(seed: seed &* 0x9e37_79b9 &+ 1)
        let places = ScenarioPlaces(scenario, cores: topology.cores, &random)
        var plan = FleetPlan(fileCores: places.files, nameCores: places.names)
        plan.memoryCores = places.memory
        plan.memory = .miniature(limitBytes: scenario.memoryBytes, reserveBytes: scenario.memoryBytes / 8)
        plan.pagesPerServer = scenario.pagesPerServer
        plan.sharding = Sharding(threshold: scenario.shards)
        if let manager = scenario.manager { plan.manager = (places.manager, manager) }
        let stores = scenario.hasStore ? (0..<scenario.fileServers).map { _ in StoredState() } : []
        self.stores = stores
        // Servers that are hosted otherwise tell nobody what they make.
        births = BirthLog()
        if wrap == nil { world.history.births = births }
        let wrap = wrap ?? { [births] fleets, member in
            stores.isEmpty
                ? StoredFileMember(fleets.fileServer(member, store: NotingStore(births: births)))
                : StoredFileMember(fleets.fileServer(member, store: RecordingStore(stores[member], births: births, loses: storesLose)))
        }
        fleets = SimulatedFleets(host: host, plan: plan, wrap: wrap, wrapMemory: wrapMemory)
        prepare(on: places.clients[0])
        for index in 0..<scenario.workload.clients {
            let client = host.addClient(core: places.clients[index % places.clients.count])
            client.nameServers = fleets.names
            let cache = scenario.workload.caching ? EpochCache() : nil
            for _ in 0..<scenario.workload.threadsPerClient {
                let program = RandomProgram(world: world, identity: programs.count, cache: cache)
                programs.append((program, client.addThread(program)))
            }
            clients.append(client)
        }
        for index in 0..<scenario.workload.memoryClients {
            let client = host.addClient(core: places.clients[(scenario.workload.clients + index) % places.clients.count])
            let program = MemoryProgram(ledger: ledger, identity: index, servers: fleets.memory, operations: scenario.workload.operations)
            client.addThread(program)
            memoryPrograms.append((program, client))
            clients.append(client)
        }
        for index in 0..<scenario.load.clients {
            let client = host.addClient(core: places.clients[(scenario.workload.clients + index) % places.clients.count])
            client.addThread(LoadProgram(world: world, plan: scenario.load, identity: index, begin: host.time))
            clients.append(client)
        }
        for index in 0..<scenario.workload.nameClients {
            let client = host.addClient(
                core: places.clients[(scenario.workload.clients + scenario.workload.memoryClients + index) % places.clients.count])
            client.nameServers = fleets.names
            let program = NameProgram(world: world, identity: programs.count + index)
            namePrograms.append((program, client.addThread(program)))
            if index % 2 == 0 { clients.append(client) } else { newcomers.append(client) }
        }
    }

    /// Directories and files that are there before the workload. Their names are none of the workload's.
    private func prepare(on core: Int) {
        var script: [RandomProgram.Asked] = []
        for index in 0..<scenario.workload.directories {
            script.append(.make(directory: 1, name: 100 + index, isDirectory: true, opensExisting: false))
        }
        for index in 0..<2 { script.append(.make(directory: 1, name: 2000 + index, isDirectory: false, opensExisting: false)) }
        follow(script, on: core)
        world.lockFiles = world.files
    }

    private func follow(_ script: [RandomProgram.Asked], on core: Int) {
        let client = host.addClient(core: core)
        client.addThread(RandomProgram(world: world, identity: -1, script: script))
        client.start()
        runToRest()
    }

    // MARK: Running

    /// Runs until nothing is left to do; or until some client waited for a second of virtual time in which none had an operation
    /// done, when somebody asks again for ever. Answers that say "not now" are no operations.
    private func runToRest() {
        var end = host.time
        var done = -1
        while !host.isIdle, done < operationsDone || host.stuckThreads.isEmpty {
            done = operationsDone
            end += 1_000_000_000_000
            host.run(until: end)
            if end > 200_000_000_000_000 { return }
        }
    }
    private var operationsDone: Int { world.history.operations + ledger.grants }

    @discardableResult
    public func run() -> RunResult {
        let begin = host.time
        planFaults()
        for client in clients { client.start(within: 2000) }
        for client in newcomers { client.start(within: scenario.workload.newcomersNanoseconds) }
        runToRest()
        var violations = endingViolations()
        let end = host.lastWork
        for (program, thread) in programs { program.concludeAbandoned(thread) }
        for (program, _) in namePrograms { program.conclude(host.time) }
        if violations.isEmpty {
            host.faults = MessageFaults()
            survey()
            violations += endingViolations()
        }
        if host.lettersInUse > 0, host.isIdle { violations.append(Violation("protocol", "\(host.lettersInUse) letters are nowhere")) }
        violations += census()
        if violations.isEmpty { violations += NameCensus(of: fleets.names.compactMap { host.server(at: $0) as? NameMember }).violations }
        violations += ledger.violations
        if !fleets.memory.isEmpty, violations.isEmpty { violations += auditMemory() }
        violations += world.history.check(root: 1, lostSlots: lostSlots, shards: scenario.shardsAtMost).filter {
            !$0.subject.hasPrefix("locks of") || !scenario.hasDeaths
        }
        return RunResult(
            seed: seed, hash: host.eventHash, operations: world.history.operations + ledger.grants, virtualTime: end - begin,
            totals: host.totals,
            violations: violations, fleetChanges: fleets.changes)
    }

    /// The workload without faults and without the checker: for measurements.
    func runUnchecked() {
        for client in clients { client.start(within: 2000) }
        host.run()
    }

    private func endingViolations() -> [Violation] {
        var violations = host.violations.map { Violation("protocol", $0) }
        for thread in host.stuckThreads {
            let request = thread.request.pointee
            violations.append(
                Violation(
                    "stuck",
                    "client \(thread.client.index) waits for an answer to operation \(request.operation) on inode \(request.inode) for ever"
                ))
        }
        if !host.isIdle, violations.isEmpty { violations.append(Violation("stuck", "the machine does not come to rest")) }
        return violations
    }

    /// Looks at everything, as the last operations of the history.
    private func survey() {
        var script: [RandomProgram.Asked] = []
        for directory in world.directories {
            script.append(.list(directory, after: 0))
            for name in 0..<scenario.workload.names { script.append(.lookup(directory: directory, name: name, epoch: 0)) }
        }
        for file in world.files { script += [.attributes(file), .read(file)] }
        follow(script, on: programs[0].thread.client.core)
        guard scenario.workload.nameClients > 0 else { return }
        let client = host.addClient(core: programs[0].thread.client.core)
        client.nameServers = fleets.names
        client.addThread(NameProgram(survey: world))
        client.start()
        runToRest()
    }

    /// All memory is the fleet's again: whoever had some has given it back, or is dead.
    private func auditMemory() -> [Violation] {
        let audit = MemoryAudit(servers: fleets.memory)
        let client = host.addClient(core: clients[0].core)
        client.addThread(audit)
        client.start()
        host.run(until: host.time + 200_000_000_000_000)
        return audit.violations(limit: scenario.memoryServers * scenario.memoryBytes)
    }

    private func census() -> [Violation] {
        let servers = fleets.files.compactMap { host.server(at: $0) as? any InspectableFileServer }
        return Census(
            of: servers, pages: scenario.hasDeaths ? nil : scenario.fileServers * scenario.pagesPerServer, isWhole: lost.isEmpty,
            mayHaveOrphans: scenario.losesFiles
        ).violations
    }

    /// The last trace records of every server, for a failure that is replayed.
    public func traces() -> [(name: String, records: [fos_trace_record])] {
        var all: [(name: String, records: [fos_trace_record])] = []
        for (fleet, addresses) in [("/sys/name", fleets.names), ("/sys/file", fleets.files), ("/sys/memory", fleets.memory)] {
            for (member, address) in addresses.enumerated() { all.append(("\(fleet)/\(member)", host.traceRecords(of: address))) }
        }
        return all
    }
}
