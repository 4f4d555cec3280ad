// One simulated machine of the study: servers, directories, and a client on every other core.
//
// Role: sets a point up, so that what is measured begins with all files in their places. Servers are on every other core;
// which of the others each client gets, the placement solver says, by who will talk to whom.
// Invariants: everything comes from the seed; the directories of clients are on different servers, as far as there are
// enough.

import CFosWire
import FileService
import Fleet
import MemoryService
import Messaging
import PlacementService
import Simulation
import Simulator

/// Runs a list of requests one after the other, as a client that prepares things for others.
private final class Preparation: SimProgram {
    private let requests: Int
    private let request: (Int, SimThread) -> Void
    private let answer: (Int, SimThread) -> Void
    private let mailbox: MailboxAddress?
    private var at = 0
    init(
        _ requests: Int, to mailbox: MailboxAddress?, _ request: @escaping (Int, SimThread) -> Void,
        _ answer: @escaping (Int, SimThread) -> Void
    ) {
        self.requests = requests
        self.mailbox = mailbox
        self.request = request
        self.answer = answer
    }
    override func step(_ thread: SimThread) -> SimStep {
        if at > 0 { answer(at - 1, thread) }
        guard at < requests else { return .end }
        request(at, thread)
        at += 1
        return mailbox.map { .callTo($0) } ?? .call
    }
}

struct Machine {
    let point: StudyPoint
    let host: SimHost
    let recorder = Recorder()
    private let fleets: SimulatedFleets
    /// Cores that clients may have, ascending; and the core of each client.
    private let applicationCores: [Int]
    private var clientCores: [Int] = []
    /// The directory of each client, and the file in it.
    private var places: [(directory: UInt64, file: UInt64)] = []
    private var shared: (directory: UInt64, file: UInt64) = (0, 0)

    /// Pages of the files that are read.
    static var filePages: Int { 16 }

    init(_ point: StudyPoint, seed: UInt64, costs: Costs) throws(StudyFailure) {
        self.point = point
        var options = SimOptions(seed: seed)
        options.bulkBytes = Int(FOS_PAGE_BYTES) * 2
        options.hashesPayloads = false
        options.hasHugeFrames = false
        host = SimHost(topology: costs.message.topology(cores: point.cores), costs: costs, options: options)
        let serverCores = point.isSingleServer ? [0] : (0..<point.servers).map { $0 * 2 }
        applicationCores = point.cores == 1 ? [0] : (0..<point.clients).map { $0 * 2 + 1 < point.cores ? $0 * 2 + 1 : point.cores - 1 }
        var plan = FleetPlan(fileCores: serverCores, nameCores: point.workload == .nameLookup ? serverCores : [])
        plan.pagesPerServer = 1 << 20
        plan.sharding = point.shards && !point.isSingleServer ? Machine.sharding : .never
        if point.workload == .pages { plan.memoryCores = serverCores }
        plan.memory.smallRegionBytes = Machine.regionBytes
        plan.memory.largeRegionBytes = 16 * Machine.regionBytes
        fleets = SimulatedFleets(host: host, plan: plan)
        try prepare()
        clientCores = try placed(seed: seed)
    }

    /// When a directory is spread over the servers.
    static let sharding = Sharding()
    /// Of page frames: room for what one client has at once, so that thousands of clients fit this machine's memory.
    private static var regionBytes: Int { 16 * Int(FOS_PAGE_BYTES) }

    // MARK: Files

    private mutating func prepare() throws(StudyFailure) {
        let count = point.clients
        var directories = [UInt64](repeating: 0, count: count)
        var files = [UInt64](repeating: 0, count: count)
        var shared: (directory: UInt64, file: UInt64) = (0, 0)
        try run(count, { $1.makeDirectory(UInt64(FOS_ROOT_INODE), "d\($0)") }, { directories[$0] = $1.attributes.inode })
        try run(count, { $1.create(directories[$0], "file") }, { files[$0] = $1.attributes.inode })
        try run(1, { $1.makeDirectory(UInt64(FOS_ROOT_INODE), "shared") }, { shared.directory = $1.attributes.inode })
        try run(1, { $1.create(shared.directory, "file") }, { shared.file = $1.attributes.inode })
        switch point.workload {
        case .createShared:
            // Large enough to be sharded; spreading it goes on until all shards are in use.
            let threshold = Machine.sharding.threshold
            try run(threshold, { $1.create(shared.directory, "old\($0)") }, { _, _ in })
        case .nameLookup:
            let names = fleets.names
            let fleet = fleets.files
            try run(count, to: names[0], { NameProgram.register($0, member: fleet[$0 % fleet.count], $1) }, { _, _ in })
        case .readPrivate, .compile, .compileShared:
            try run(
                count * Self.filePages, { $1.write(files[$0 / Self.filePages], offset: Self.offset($0), count: Int(FOS_PAGE_BYTES)) },
                { _, _ in })
        default: break
        }
        try run(Self.filePages, { $1.write(shared.file, offset: Self.offset($0), count: Int(FOS_PAGE_BYTES)) }, { _, _ in })
        self.shared = shared
        places = Array(zip(directories, files)).map { (directory: $0.0, file: $0.1) }
    }
    private static func offset(_ index: Int) -> UInt64 { UInt64(index % filePages) * UInt64(FOS_PAGE_BYTES) }

    private func run(
        _ count: Int, to mailbox: MailboxAddress? = nil, _ request: @escaping (Int, SimThread) -> Void,
        _ answer: @escaping (Int, SimThread) -> Void
    ) throws(StudyFailure) {
        var failed: (Int, Int32)?
        let client = host.addClient(core: applicationCores[0])
        let thread = client.addThread(
            Preparation(count, to: mailbox, request) { index, thread in
                if thread.status != 0, failed == nil { failed = (index, thread.status) }
                answer(index, thread)
            })
        client.start()
        host.run { thread.isOver }
        guard thread.isOver, failed == nil else {
            throw StudyFailure(point: point, reason: "preparation fails: \(failed.map { "\($0)" } ?? "no answer")")
        }
        // What the servers began meanwhile is over.
        host.run(until: host.time + 50_000_000_000)
    }

    // MARK: Placement

    /// A core for each client.
    private func placed(seed: UInt64) throws(StudyFailure) -> [Int] {
        let servers = fleets.files
        var serverOnCore: [Int: Int] = [:]
        for (number, server) in servers.enumerated() { serverOnCore[server.core] = number }
        var traffic = Traffic(parties: servers.count + point.clients)
        for client in 0..<point.clients {
            for (core, messages) in partners(of: client) {
                if let server = serverOnCore[core] { traffic.add(server, servers.count + client, messages: messages) }
            }
        }
        var room = Array(repeating: 0, count: point.cores)
        for server in servers { room[server.core] += 1 }
        for core in applicationCores { room[core] += 1 }
        let distances = DistanceMatrix(cores: point.cores) { host.topology.distance(from: $0, to: $1) }
        let problem = PlacementProblem(
            traffic: traffic, distances: distances.view, room: room,
            fixed: servers.map { $0.core } + Array(repeating: nil, count: point.clients))
        let placement = withExtendedLifetime(distances) { Placement(problem, policy: point.placement.policy(seed: seed)) }
        guard let placement else { throw StudyFailure(point: point, reason: "there is no room for all clients") }
        return Array(placement.cores[servers.count...])
    }

    /// Cores that a client will send to, and how much of what it sends goes there.
    private func partners(of client: Int) -> [(core: Int, messages: UInt64)] {
        let own = host.board.owner(ofInode: places[client].directory).core
        let common = host.board.owner(ofInode: shared.directory).core
        switch point.workload {
        case .stat, .createPrivate, .readPrivate, .rename, .compile: return [(own, 1)]
        case .createShared, .readShared, .readFirst: return [(common, 1)]
        case .nameLookup: return [(fleets.names[NameProgram.place(client, servers: fleets.names.count)].core, 1)]
        case .pages: return [(member(fleets.memory, of: client).core, 1)]
        case .compileShared:
            return [(core: own, messages: UInt64(CompileMix.own)), (core: common, messages: UInt64(CompileMix.total - CompileMix.own))]
        }
    }

    /// The member of a fleet that a client's name, or its pages, are with.
    private func member(_ fleet: [MailboxAddress], of client: Int) -> MailboxAddress { fleet[client % fleet.count] }

    // MARK: Clients

    /// Adds and starts a client for each core.
    func start() {
        for (number, core) in clientCores.enumerated() {
            let client = host.addClient(core: core)
            client.addThread(program(number, core: core))
            client.start()
        }
    }

    private func program(_ number: Int, core: Int) -> Repeating {
        let place = places[number]
        let program: Repeating
        switch point.workload {
        case .stat: program = StatProgram(recorder, number: number)
        case .createPrivate, .createShared: program = CreateProgram(recorder, number: number)
        case .readPrivate, .readShared: program = ReadProgram(recorder, number: number)
        case .readFirst: program = FirstReadProgram(recorder, number: number)
        case .pages: program = PageProgram(recorder, number: number, server: member(fleets.memory, of: number))
        case .rename: program = RenameProgram(recorder, number: number)
        case .nameLookup:
            let server = fleets.names[NameProgram.place(number, servers: fleets.names.count)]
            program = NameProgram(recorder, number: number, server: server, core: core)
        case .compile: program = CompileProgram(recorder, number: number, headers: place.directory, header: place.file)
        case .compileShared: program = CompileProgram(recorder, number: number, headers: shared.directory, header: shared.file)
        }
        program.directory = point.workload == .createShared ? shared.directory : place.directory
        program.file = point.workload == .readShared || point.workload == .readFirst ? shared.file : place.file
        return program
    }
}

extension MessageCost {
    /// A machine for these costs: a mesh on chip, or packages of 64 cores, of which 8 share a cache.
    func topology(cores: Int) -> CoreTopology {
        switch self {
        case .mesh: CoreTopology(mesh: cores)
        case .coherent: CoreTopology(cores: cores) { a, b in a == b ? 0 : a / 8 == b / 8 ? 10 : a / 64 == b / 64 ? 20 : 40 }
        }
    }
}

/// A point that cannot be measured.
public struct StudyFailure: Error, CustomStringConvertible {
    public let point: StudyPoint
    public let reason: String
    public var description: String { "\(point.workload.rawValue) on \(point.cores) cores: \(reason)" }
}

/// For the release build (WireTypes.swift).
private func specialiseServers() { findConformances(of: WireTypes.self) }
