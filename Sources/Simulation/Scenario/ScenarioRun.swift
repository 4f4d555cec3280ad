// One run of a scenario: a seed, a machine, a workload, faults, and what the checker says of it.
//
// Protocol: `init` puts everything in place, `run` runs it to its end and checks. What a run found is in `result`.
// Invariant: everything random is drawn from the seed, in an order that does not depend on anything but the run.

import CFosWire
public import FileService
import Fleet
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
    private var random: SeededRandom
    private var programs: [(program: RandomProgram, thread: SimThread)] = []
    private var memoryPrograms: [(program: MemoryProgram, client: SimClient)] = []
    private var namePrograms: [(program: NameProgram, thread: SimThread)] = []
    private let ledger = FrameLedger()
    private var clients: [SimClient] = []
    /// Clients that come while the others work.
    private var newcomers: [SimClient] = []
    /// Members whose inodes are lost.
    private var lost = Set<Int>()
    /// Slots whose inodes a crash may have taken.
    private var lostSlots = Set<Int>()
    /// How often servers have come back empty.
    private var incarnation: UInt16 = 0
    /// Of each member, if the scenario has stores.
    private let stores: [StoredState]
    private let births: BirthLog
    private let storesLose: ((Change) -> Bool)?

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
        let places = Layout(scenario, cores: topology.cores, &random)
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
            let client = host.addClient(core: places.clients[(scenario.workload.clients + scenario.workload.memoryClients + index) % places.clients.count])
            client.nameServers = fleets.names
            let program = NameProgram(world: world, identity: programs.count + index)
            namePrograms.append((program, client.addThread(program)))
            if index % 2 == 0 { clients.append(client) } else { newcomers.append(client) }
        }
    }

    /// Which cores do what.
    private struct Layout {
        var files: [Int] = []
        var names: [Int] = []
        var memory: [Int] = []
        /// The fleet manager's.
        var manager = 0
        var clients: [Int] = []

        init(_ scenario: Scenario, cores: Int, _ random: inout SeededRandom) {
            let servers = scenario.fileServers + scenario.nameServers + scenario.memoryServers
            var order = Array(0..<cores)
            switch scenario.placement {
            case .far: break
            case .random: order.shuffle(using: &random)
            case .near:
                // Servers evenly between the clients.
                let step = max(cores / max(servers, 1), 1)
                let chosen = (0..<servers).map { $0 * step % cores }
                order = chosen + order.filter { !chosen.contains($0) }
            }
            for member in 0..<scenario.fileServers { files.append(order[member % cores]) }
            for member in 0..<scenario.nameServers { names.append(order[(scenario.fileServers + member) % cores]) }
            for member in 0..<scenario.memoryServers { memory.append(order[(scenario.fileServers + scenario.nameServers + member) % cores]) }
            clients = servers < cores ? Array(order[servers...]) : order
            if scenario.placement == .far { clients.reverse() }
            if scenario.manager != nil, clients.count > 1 { manager = clients.removeLast() }
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
        violations += world.history.check(root: 1, lostSlots: lostSlots, shards: scenario.shardsAtMost).filter { !$0.subject.hasPrefix("locks of") || !scenario.hasDeaths }
        return RunResult(
            seed: seed, hash: host.eventHash, operations: world.history.operations + ledger.grants, virtualTime: end - begin, totals: host.totals,
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
                Violation("stuck", "client \(thread.client.index) waits for an answer to operation \(request.operation) on inode \(request.inode) for ever"))
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
    public func traces() -> [(name: String, records: [(time: UInt64, kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32)])] {
        var all: [(String, [(UInt64, UInt16, UInt16, Int32, UInt64, UInt32)])] = []
        for (fleet, addresses) in [("/sys/name", fleets.names), ("/sys/file", fleets.files), ("/sys/memory", fleets.memory)] {
            for (member, address) in addresses.enumerated() {
                all.append(("\(fleet)/\(member)", host.traceRecords(of: address).map { ($0.time, $0.kind, $0.operation, $0.status, $0.inode, $0.client) }))
            }
        }
        return all
    }

    // MARK: Faults

    private func planFaults() {
        for fault in scenario.faults {
            switch fault.kind {
            case .delay:
                host.faults.delayedPer65536 = fault.per65536
                host.faults.delayAtMost = VirtualTime(fault.nanoseconds) * 1000
            case .refuse: host.faults.refusedPer65536 = fault.per65536
            case .staleNames: host.faults.stalePer65536 = fault.per65536
            case .stall, .crash, .clientDies, .coreLost, .slotsMove: for _ in 0..<fault.times { plan(fault) }
            }
        }
    }

    private func plan(_ fault: FaultPlan) {
        let moment = host.time + VirtualTime(random.below(fault.withinNanoseconds)) * 1000
        let length = VirtualTime(fault.nanoseconds) * 1000
        switch fault.kind {
        case .stall:
            let address = fleets.files[random.below(fleets.files.count)]
            host.at(moment) { $0.stall(address, until: $0.time + length) }
        case .crash where fault.fleet == .names:
            let member = random.below(fleets.names.count)
            host.at(moment) { [unowned self] host in crashName(member, fault, triesLeft: 50, host) }
        case .crash:
            guard let member = victim() else { return }
            host.at(moment) { [unowned self] host in crash(member, fault.restart, after: length, host) }
        case .coreLost:
            guard let core = fault.fleet == .names ? nameVictim() : victim().map({ fleets.files[$0].core }) else { return }
            host.at(moment) { [unowned self] host in
                world.deaths.append(host.time)
                for other in fleets.files.indices where fleets.files[other].core == core { lose(other) }
                host.loseCore(core)
                forgetNames(ofCore: core)
            }
        case .clientDies:
            let client = clients[random.below(clients.count)]
            host.at(moment) { [unowned self] host in
                guard client.isAlive else { return }
                host.kill(client)
                for (program, thread) in programs where thread.client === client { program.abandon(thread) }
                for (program, other) in memoryPrograms where other === client { program.abandon() }
                for (program, thread) in namePrograms where thread.client === client { program.abandon(thread) }
            }
        case .slotsMove: host.at(moment) { [unowned self] host in moveSlot(host) }
        default: break
        }
    }

    /// Orders the owner of something that is in use to give its slot to another server, as the fleet manager does.
    private func moveSlot(_ host: SimHost) {
        let used = world.directories + world.files
        guard !used.isEmpty else { return }
        let slot = SlotTable.slot(ofInode: used[random.below(used.count)])
        let takers = fleets.files.indices.filter { host.server(at: fleets.files[$0]) != nil && fleets.files[$0] != host.board.owner(ofSlot: slot) }
        // With the root all is lost: where servers die it stays with one that does not.
        guard !takers.isEmpty, !scenario.hasDeaths || slot != SlotTable.slot(ofInode: 1) else { return }
        let give = fos_fleet_give(member: UInt32(takers[random.below(takers.count)]), slots: 1, slot: UInt32(slot), reserved: 0)
        host.kernelPost(FOS_OP_FLEET_GIVE, withUnsafeBytes(of: give) { Array($0) }, to: host.board.owner(ofSlot: slot))
    }

    /// What a file server has is lost with it: its slots, those on their way from it and to it, and, for who has not heard yet
    /// that it gave one away, that one.
    private func lose(_ member: Int) {
        lost.insert(member)
        let servers = fleets.files.map { host.server(at: $0) as? any InspectableFileServer }
        for slot in 0..<SlotTable.slots {
            let isBelieved = servers.contains { $0?.owner(ofSlot: slot) == member }
            if isBelieved || fleets.files[member] == host.board.owner(ofSlot: slot) { lostSlots.insert(slot) }
        }
        for (other, server) in servers.enumerated() {
            guard let giving = server?.giving, other == member || giving.taker == member else { continue }
            lostSlots.insert(giving.slot)
        }
    }

    /// A file server that may die: not the root's, with which everything is lost.
    private func victim() -> Int? {
        let root = host.board.owner(ofInode: 1)
        let candidates = fleets.files.indices.filter { fleets.files[$0] != root && fleets.files[$0].core != root.core }
        return candidates.isEmpty ? nil : candidates[random.below(candidates.count)]
    }

    /// The core of a name server that has it for itself, and is not the only one left.
    private func nameVictim() -> Int? {
        let cores = fleets.names.map(\.core).filter { core in !fleets.files.contains { $0.core == core } }
        return fleets.names.count < 2 || cores.isEmpty ? nil : cores[random.below(cores.count)]
    }

    /// A name server dies, and comes back with nothing. While copies are being made for want of another one it would take names
    /// along: then it dies later; and, unless the fault says so, while another one is away or on its way back.
    private func crashName(_ member: Int, _ fault: FaultPlan, triesLeft: Int, _ host: SimHost) {
        let address = fleets.names[member]
        let length = VirtualTime(fault.nanoseconds) * 1000
        guard fault.whileRejoining ? mayLoseName(member) : fleets.names.allSatisfy({ nameServer($0)?.server.isServing == true }) else {
            guard triesLeft > 0 else { return }
            let wait: VirtualTime = fault.whileRejoining ? 300_000 : 5_000_000
            return host.at(host.time + wait) { [unowned self] host in crashName(member, fault, triesLeft: triesLeft - 1, host) }
        }
        world.deaths.append(host.time)
        host.crash(address)
        host.at(host.time + length) { [unowned self] host in
            host.restart(address, NameMember(fleets.nameServer(member, isJoining: true)), restored: false)
            registerAgain(address, as: "/sys/name")
        }
    }

    private func nameServer(_ address: MailboxAddress) -> NameMember? { host.server(at: address) as? NameMember }
    /// Whether every name is at two servers, so that a server may die, and still two are left that serve.
    private func mayLoseName(_ victim: Int) -> Bool {
        let servers = fleets.names.map(nameServer)
        guard servers[victim] != nil else { return false }
        let dead = servers.indices.filter { servers[$0] == nil }
        let left = servers.indices.count { $0 != victim && servers[$0]?.server.isRejoining == false }
        return left >= 2 && servers.allSatisfy { $0?.server.hasMadeCopies(without: dead) ?? true }
    }

    /// A microkernel registers a mailbox under its new epoch.
    private func registerAgain(_ address: MailboxAddress, as fleet: String) {
        guard let server = fleets.names.first(where: { host.server(at: $0) != nil }) else { return }
        let name = Array(fleet.utf8)
        var entry = fos_name_request()
        entry.name_length = UInt32(name.count)
        entry.flags = FOS_NAME_MANY.rawValue
        entry.member = fos_name_member(
            mailbox: address.rawValue, epoch: host.epoch(of: address), core: UInt32(address.core), load: 0, distance: 0, alive: 1)
        host.kernelPost(FOS_OP_NAME_REGISTER, withUnsafeBytes(of: entry) { Array($0) } + name, to: server)
    }

    /// Microkernels tell the name fleet of mailboxes that are gone for good.
    private func forgetNames(ofCore core: Int) {
        for address in fleets.files + fleets.names where address.core == core {
            var news = fos_name_request()
            news.member.mailbox = address.rawValue
            for name in fleets.names { host.kernelPost(FOS_OP_NAME_MEMBER_DEAD, withUnsafeBytes(of: news) { Array($0) }, to: name) }
        }
    }

    private func crash(_ member: Int, _ restart: FaultPlan.Restart, after length: VirtualTime, _ host: SimHost) {
        let address = fleets.files[member]
        guard host.server(at: address) != nil else { return }
        world.deaths.append(host.time)
        if restart != .store { lose(member) }
        host.crash(address, forGood: restart == .never)
        if restart == .store {
            return host.at(host.time + length) { [unowned self] host in
                var server = fleets.fileServer(member, store: RecordingStore(stores[member], births: births, loses: storesLose), hasRoot: false)
                precondition(stores[member].restore(&server), "what a server had fits into it")
                host.restart(address, StoredFileMember(server), restored: true)
                registerAgain(address, as: "/sys/file")
            }
        }
        guard restart == .empty else { return }
        incarnation += 1
        let incarnation = incarnation
        host.at(host.time + length) { [unowned self] host in
            let server = fleets.fileServer(member, store: NotingStore(births: births), incarnation: incarnation, isJoining: true)
            host.restart(address, StoredFileMember(server), restored: false)
            registerAgain(address, as: "/sys/file")
        }
    }
}
