// One simulated machine of the study: servers, directories, and a client on every other core.
//
// Role: sets a point up, so that what is measured begins with all files in their places. Servers and clients alternate over
// the mesh, so every client has a server beside it.
// Invariants: everything comes from the seed; the directories of clients are on different servers, as far as there are
// enough, and `placement` says only which client works in which.

import CFosWire
import FileService
import Messaging
import Simulation
import Simulator

/// Runs a list of requests one after the other, as a client that prepares things for others.
private final class Preparation: SimProgram {
    private let requests: Int
    private let request: (Int, SimThread) -> Void
    private let answer: (Int, SimThread) -> Void
    private let mailbox: MailboxAddress?
    private var at = 0
    init(_ requests: Int, to mailbox: MailboxAddress?, _ request: @escaping (Int, SimThread) -> Void, _ answer: @escaping (Int, SimThread) -> Void) {
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
    private let clientCores: [Int]
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
        host = SimHost(topology: CoreTopology(mesh: point.cores), costs: costs, options: options)
        let serverCores = point.isSingleServer ? [0] : (0..<point.servers).map { $0 * 2 }
        clientCores = point.cores == 1 ? [0] : (0..<point.clients).map { $0 * 2 + 1 < point.cores ? $0 * 2 + 1 : point.cores - 1 }
        var plan = FleetPlan(fileCores: serverCores, nameCores: point.workload == .nameLookup ? serverCores : [])
        plan.pagesPerServer = 1 << 20
        plan.sharding = point.shards ? Sharding() : .never
        fleets = SimulatedFleets(host: host, plan: plan)
        try prepare()
        assignPlaces()
    }

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
            // Large enough to be sharded, and a little more, until all shards are in use.
            let threshold = Sharding().threshold
            try run(threshold, { $1.create(shared.directory, "old\($0)") }, { _, _ in })
        case .nameLookup:
            let names = fleets.names
            let files = fleets.files
            try run(count, to: names[0], { NameProgram.register($0, member: files[$0 % files.count], $1) }, { _, _ in })
        case .readPrivate, .compile, .compileShared:
            try run(count * Self.filePages, { $1.write(files[$0 / Self.filePages], offset: Self.offset($0), count: Int(FOS_PAGE_BYTES)) }, { _, _ in })
        default: break
        }
        try run(Self.filePages, { $1.write(shared.file, offset: Self.offset($0), count: Int(FOS_PAGE_BYTES)) }, { _, _ in })
        self.shared = shared
        places = Array(zip(directories, files)).map { (directory: $0.0, file: $0.1) }
    }
    private static func offset(_ index: Int) -> UInt64 { UInt64(index % filePages) * UInt64(FOS_PAGE_BYTES) }

    private func run(
        _ count: Int, to mailbox: MailboxAddress? = nil, _ request: @escaping (Int, SimThread) -> Void, _ answer: @escaping (Int, SimThread) -> Void
    ) throws(StudyFailure) {
        var failed: (Int, Int32)?
        let client = host.addClient(core: clientCores[0])
        let thread = client.addThread(
            Preparation(count, to: mailbox, request) { index, thread in
                if thread.status != 0, failed == nil { failed = (index, thread.status) }
                answer(index, thread)
            })
        client.start()
        host.run { thread.isOver }
        guard thread.isOver, failed == nil else { throw StudyFailure(point: point, reason: "preparation fails: \(failed.map { "\($0)" } ?? "no answer")") }
        // What the servers began meanwhile is over.
        host.run(until: host.time + 50_000_000_000)
    }

    /// Which client works in which directory.
    private mutating func assignPlaces() {
        guard point.placement != .adversarial || point.clients > 1 else { return }
        var free = places
        var assigned: [(directory: UInt64, file: UInt64)] = []
        var random = SeededRandom(seed: host.options.seed &+ 17)
        for core in clientCores {
            let choice: Int
            switch point.placement {
            case .random: choice = random.below(free.count)
            case .near, .adversarial:
                func distance(_ index: Int) -> Int { host.topology.distance(from: core, to: host.board.owner(ofInode: free[index].directory).core) }
                let order = free.indices.min { point.placement == .near ? distance($0) < distance($1) : distance($0) > distance($1) }
                choice = order ?? 0
            }
            assigned.append(free.remove(at: choice))
        }
        places = assigned
    }

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
        case .readPrivate, .readShared: program = ReadProgram(recorder, number: number, pages: Self.filePages, keeps: true)
        case .readFirst: program = ReadProgram(recorder, number: number, pages: Self.filePages, keeps: false)
        case .rename: program = RenameProgram(recorder, number: number)
        case .nameLookup: program = NameProgram(recorder, number: number, server: nameServer(core), core: core)
        case .compile: program = CompileProgram(recorder, number: number, headers: place.directory, header: place.file)
        case .compileShared: program = CompileProgram(recorder, number: number, headers: shared.directory, header: shared.file)
        }
        program.directory = point.workload == .createShared ? shared.directory : place.directory
        program.file = point.workload == .readShared || point.workload == .readFirst ? shared.file : place.file
        return program
    }

    /// The name server that a client at a core asks: by distance, as the placement has it.
    private func nameServer(_ core: Int) -> MailboxAddress {
        func distance(_ address: MailboxAddress) -> Int { host.topology.distance(from: core, to: address.core) }
        let names = fleets.names
        switch point.placement {
        case .near: return names.min { distance($0) < distance($1) } ?? names[0]
        case .random: return names[(core &* 7919) % names.count]
        case .adversarial: return names[(core / 2 + names.count / 2) % names.count]
        }
    }
}

/// A point that cannot be measured.
public struct StudyFailure: Error, CustomStringConvertible {
    public let point: StudyPoint
    public let reason: String
    public var description: String { "\(point.workload.rawValue) on \(point.cores) cores: \(reason)" }
}
