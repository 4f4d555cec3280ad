// A small fleet whose servers die when a test says so, and the one client that asks it.

import CFosWire
import FileService
import Messaging
import Simulation
import Simulator
import Testing

/// File servers on cores of their own, and a client that does one thing after the other.
final class DeathMachine {
    let host: SimHost
    let fleets: SimulatedFleets
    private var stores: [StoredState] = []
    private let script = FileScript(.call)
    let thread: SimThread

    /// - Parameter shards: entries from which on directories are sharded; 0: never.
    init(hasStores: Bool = false, servers: Int = 3, shards: Int = 0) {
        host = SimHost(topology: CoreTopology(mesh: 8), costs: .onChip, options: SimOptions(seed: 11))
        let stores = (0..<servers).map { _ in StoredState() }
        var plan = FleetPlan(fileCores: Array(0..<servers))
        plan.sharding = Sharding(threshold: shards)
        fleets = SimulatedFleets(host: host, plan: plan) { fleets, member in
            hasStores
                ? StoredFileMember(fleets.fileServer(member, store: RecordingStore(stores[member])))
                : FileMember(fleets.fileServer(member, store: MemoryStore()))
        }
        thread = host.addClient(core: 7).addThread(script)
        self.stores = stores
    }

    func member(of inode: UInt64) -> Int { Int(inode & 4095) % fleets.files.count }

    /// Builds and sends one request, and runs until all is quiet. The status, and the inode of the answer.
    @discardableResult
    func call(_ build: @escaping (SimThread) -> Void) -> (status: Int32, inode: UInt64) {
        script.build = build
        script.isDone = false
        thread.start()
        host.run(until: host.time + 60_000_000_000_000)
        #expect(script.isDone, "a request is never answered")
        return (script.status, script.inode)
    }
    /// A directory that a member owns.
    func directory(of wanted: Int) -> UInt64 {
        for number in 0..<12 {
            let (status, inode) = call { $0.makeDirectory(1, "d\(wanted)-\(number)") }
            if status == 0, member(of: inode) == wanted { return inode }
        }
        Issue.record("no directory of member \(wanted)")
        return 0
    }
    /// `member` dies when a server takes in the operation.
    func kill(_ member: Int, when operation: fos_peer_operation, at other: Int, forGood: Bool = true, restoredAfter: VirtualTime? = nil) {
        var isArmed = true
        host.onDeliver = { [unowned self] letter, mailbox in
            let message = Request(letter: UnsafeMutablePointer(mutating: letter)).message
            guard isArmed, UInt32(message.pointee.operation) == operation.rawValue, mailbox == fleets.files[other] else { return }
            isArmed = false
            // When the turn is over, and its answer on its way.
            host.at(host.time + 1) { [unowned self] host in
                host.crash(fleets.files[member], forGood: forGood)
                guard let restoredAfter else { return }
                host.at(host.time + restoredAfter) { [unowned self] _ in restore(member) }
            }
        }
    }
    /// `member` dies so much later (ps), and is back with its store after another 5 us.
    func crash(_ member: Int, after moment: VirtualTime) {
        host.at(host.time + moment) { [unowned self] host in
            host.crash(fleets.files[member])
            host.at(host.time + 5_000_000) { [unowned self] _ in restore(member) }
        }
    }
    /// A server takes the place of one that has died, with what its store kept.
    func restore(_ member: Int) {
        var server = fleets.fileServer(member, store: RecordingStore(stores[member]), hasRoot: false)
        let isBack = stores[member].restore(&server)
        #expect(isBack)
        host.restart(fleets.files[member], StoredFileMember(server), restored: true)
    }
    func check(_ sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(host.violations.isEmpty && host.stuckThreads.isEmpty, "\(host.violations)", sourceLocation: sourceLocation)
        for address in fleets.files {
            guard let server = host.server(at: address) as? any InspectableFileServer else { continue }
            let work = server.work
            #expect(
                work.continuations == 0 && work.owed == 0 && !work.treeIsLocked && work.preparedNames == 0, "\(work)",
                sourceLocation: sourceLocation)
        }
        #expect(
            stores.allSatisfy { $0.openDecisions == 0 }, "a transaction is over, and its record is kept", sourceLocation: sourceLocation)
    }
}

final class FileScript: ScriptProgram {
    private(set) var inode: UInt64 = 0
    override func heard(_ thread: SimThread) { inode = thread.attributes.inode }
}
