// Servers that die at one chosen moment of a transaction: who waited goes on, what they held is let go, and what was
// promised of what is left holds.

import CFosWire
import FileService
import Glibc
import Messaging
import Simulation
import Simulator
import Testing

/// Three file servers on cores of their own, and a client that does one thing after the other.
private final class Machine {
    let host: SimHost
    let fleets: SimulatedFleets
    private var stores: [StoredState] = []
    private let script = FileScript(.call)
    let thread: SimThread

    init(hasStores: Bool = false) {
        host = SimHost(topology: CoreTopology(mesh: 8), costs: .onChip, options: SimOptions(seed: 11))
        let stores = (0..<3).map { _ in StoredState() }
        fleets = SimulatedFleets(host: host, plan: FleetPlan(fileCores: [0, 1, 2])) { fleets, member in
            hasStores
                ? StoredFileMember(fleets.fileServer(member, store: RecordingStore(stores[member])))
                : FileMember(fleets.fileServer(member, store: MemoryStore()))
        }
        thread = host.addClient(core: 7).addThread(script)
        self.stores = stores
    }

    func member(of inode: UInt64) -> Int { Int(inode & 4095) % 3 }

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
            #expect(work.continuations == 0 && work.owed == 0 && !work.treeIsLocked && work.preparedNames == 0, "\(work)", sourceLocation: sourceLocation)
        }
        #expect(stores.allSatisfy { $0.openDecisions == 0 }, "a transaction is over, and its record is kept", sourceLocation: sourceLocation)
    }
}

private final class FileScript: ScriptProgram {
    private(set) var inode: UInt64 = 0
    override func heard(_ thread: SimThread) { inode = thread.attributes.inode }
}

@Suite struct DeathTests {
    @Test func namesThatADeadCoordinatorHadLockedAreLetGo() {
        let machine = Machine()
        let (old, new) = (machine.directory(of: 2), machine.directory(of: 0))
        machine.call { $0.create(old, "f", exclusive: true) }
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 0)
        #expect(machine.call { $0.rename(old, "f", to: new, "g") }.status == -EIO)
        #expect(machine.call { $0.create(new, "g", exclusive: true) }.status == 0)
        #expect(machine.call { $0.lookup(old, "f") }.status == -EIO)
        machine.check()
    }

    @Test func theTreeLockOfADeadServerIsLetGo() {
        let machine = Machine()
        let (old, new) = (machine.directory(of: 2), machine.directory(of: 1))
        machine.call { $0.makeDirectory(old, "sub") }
        machine.kill(2, when: FOS_OP_PEER_TREE_LOCK, at: 0)
        #expect(machine.call { $0.rename(old, "sub", to: new, "sub") }.status == -EIO)
        machine.call { $0.makeDirectory(1, "moves") }
        #expect(machine.call { $0.rename(1, "moves", to: new, "moved") }.status == 0)
        machine.check()
    }

    @Test func theOldNameStaysIfTheNewOnesServerIsGone() {
        let machine = Machine()
        let (old, new) = (machine.directory(of: 1), machine.directory(of: 2))
        let file = machine.call { $0.create(old, "f", exclusive: true) }.inode
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 2)
        #expect(machine.call { $0.rename(old, "f", to: new, "g") }.status == -EIO)
        #expect(machine.call { $0.lookup(old, "f") } == (0, file))
        #expect(machine.call { $0.lookup(new, "g") }.status == -EIO)
        machine.check()
    }

    @Test func aRenameIsFinishedWhenTheOtherServerIsBackWithItsStore() {
        let machine = Machine(hasStores: true)
        let (old, new) = (machine.directory(of: 1), machine.directory(of: 2))
        let file = machine.call { $0.create(old, "f", exclusive: true) }.inode
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 2, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.rename(old, "f", to: new, "g") }.status == 0)
        #expect(machine.call { $0.lookup(new, "g") } == (0, file))
        #expect(machine.call { $0.lookup(old, "f") }.status == -ENOENT)
        machine.check()
    }

    // MARK: Coordinators that come back with their store

    /// A file of member 1 with names in directories of members 1 and 2: the directories and the file.
    private func sharedFile(_ machine: Machine) -> (own: UInt64, other: UInt64, file: UInt64) {
        let (own, other) = (machine.directory(of: 1), machine.directory(of: 2))
        let file = machine.call { $0.create(own, "f", exclusive: true) }.inode
        #expect(machine.call { $0.link(file, other, "g") }.status == 0)
        return (own, other, file)
    }
    private func links(_ machine: Machine, _ inode: UInt64) -> UInt32 {
        machine.call { $0.getAttributes(inode) }
        return machine.thread.attributes.links
    }

    @Test func aLinkIsFinishedThatItsCoordinatorHadAskedFor() {
        let machine = Machine(hasStores: true)
        let (_, other, file) = sharedFile(machine)
        machine.kill(2, when: FOS_OP_PEER_LINK, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.link(file, other, "h") }.status == -EIO)
        #expect(machine.call { $0.lookup(other, "h") } == (0, file))
        #expect(links(machine, file) == 3)
        machine.check()
    }

    @Test func aNameGoesWhoseLinkItsCoordinatorHadTaken() {
        let machine = Machine(hasStores: true)
        let (_, other, file) = sharedFile(machine)
        machine.kill(2, when: FOS_OP_PEER_UNLINK, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.unlink(other, "g") }.status == -EIO)
        #expect(machine.call { $0.lookup(other, "g") }.status == -ENOENT)
        #expect(links(machine, file) == 1)
        machine.check()
    }

    /// Both die: who was to take the link never heard of it, so the name stays.
    @Test func aNameStaysWhoseLinkNobodyHasTaken() {
        let machine = Machine(hasStores: true)
        let (_, other, file) = sharedFile(machine)
        machine.host.stall(machine.fleets.files[1], until: machine.host.time + 2_000_000)
        machine.host.at(machine.host.time + 1_000_000) { host in
            for member in [1, 2] { host.crash(machine.fleets.files[member]) }
            host.at(host.time + 5_000_000) { _ in machine.restore(2) }
            host.at(host.time + 9_000_000) { _ in machine.restore(1) }
        }
        #expect(machine.call { $0.unlink(other, "g") }.status == -EIO)
        #expect(machine.call { $0.lookup(other, "g") } == (0, file))
        #expect(links(machine, file) == 2)
        machine.check()
    }

    /// A number and a generation name one inode for ever, also over a crash.
    @Test func whatIsMadeAfterACrashIsNoneOfThoseThatAreGone() {
        let machine = Machine(hasStores: true)
        let directory = machine.directory(of: 2)
        var lives = Set<[UInt64]>()
        for _ in 0..<3 {
            for _ in 0..<3 {
                machine.call { $0.create(directory, "f", exclusive: true) }
                #expect(lives.insert([machine.thread.attributes.inode, UInt64(machine.thread.attributes.generation)]).inserted)
                #expect(machine.call { $0.unlink(directory, "f") }.status == 0)
            }
            machine.host.crash(machine.fleets.files[2])
            machine.restore(2)
        }
        machine.check()
    }

    @Test func aDirectoryGetsTheNameThatItWasMadeFor() {
        let machine = Machine(hasStores: true)
        let parent = machine.directory(of: 1)
        machine.kill(1, when: FOS_OP_PEER_CREATE_INODE, at: 2, forGood: false, restoredAfter: 5_000_000)
        var lost: String?
        for number in 0..<12 where lost == nil { if machine.call({ $0.makeDirectory(parent, "d\(number)") }).status == -EIO { lost = "d\(number)" } }
        let found = machine.call { $0.lookup(parent, lost ?? "") }
        #expect(found.status == 0 && machine.member(of: found.inode) == 2)
        #expect(machine.call { $0.create(found.inode, "f", exclusive: true) }.status == 0)
        machine.check()
    }

    @Test func aRenameThatWasNotDecidedIsAborted() {
        let machine = Machine(hasStores: true)
        let (old, new) = (machine.directory(of: 2), machine.directory(of: 1))
        let directory = machine.call { $0.makeDirectory(old, "sub") }.inode
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.rename(old, "sub", to: new, "moved") }.status == -EIO)
        #expect(machine.call { $0.lookup(old, "sub") } == (0, directory))
        // Neither the name nor the tree is locked.
        #expect(machine.call { $0.create(new, "moved", exclusive: true) }.status == 0)
        #expect(machine.call { $0.rename(old, "sub", to: new, "sub") }.status == 0)
        machine.check()
    }

    @Test(arguments: [FOS_OP_PEER_UNLINK, FOS_OP_PEER_RENAME_COMMIT]) func aRenameThatWasDecidedIsFinished(step: fos_peer_operation) {
        let machine = Machine(hasStores: true)
        let (own, old, victim) = sharedFile(machine)
        let new = machine.directory(of: 1)
        let file = machine.call { $0.create(old, "n", exclusive: true) }.inode
        machine.call { $0.rename(own, "f", to: new, "f") }
        machine.kill(2, when: step, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.rename(old, "n", to: new, "f") }.status == -EIO)
        #expect(machine.call { $0.lookup(new, "f") } == (0, file))
        #expect(machine.call { $0.lookup(old, "n") }.status == -ENOENT)
        #expect(links(machine, victim) == 1 && links(machine, file) == 1)
        machine.check()
    }

    @Test func anAbortThatADyingServerMissedIsAskedFor() {
        let machine = Machine(hasStores: true)
        let (old, new) = (machine.directory(of: 1), machine.directory(of: 2))
        let directory = machine.call { $0.makeDirectory(old, "sub") }.inode
        machine.call { $0.makeDirectory(new, "full") }
        let full = machine.call { $0.lookup(new, "full") }.inode
        machine.call { $0.create(full, "x", exclusive: true) }
        // The new name is prepared, what it means is not empty, and the ABORT finds nobody.
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 2, forGood: false, restoredAfter: 5_000_000)
        machine.call { $0.rename(old, "sub", to: new, "full") }
        #expect(machine.call { $0.lookup(old, "sub") } == (0, directory))
        #expect(machine.call { $0.unlink(full, "x") }.status == 0)
        #expect(machine.call { $0.removeDirectory(new, "full") }.status == 0)
        machine.check()
    }

    @Test func namesOfWhatIsLostCanBeRemoved() {
        let machine = Machine()
        let lost = machine.directory(of: 2)
        #expect(machine.call { $0.create(lost, "f", exclusive: true) }.status == 0)
        machine.host.crash(machine.fleets.files[2])
        machine.host.restart(machine.fleets.files[2], FileMember(machine.fleets.fileServer(2, store: MemoryStore(), incarnation: 1)), restored: false)
        machine.host.run()
        #expect(machine.call { $0.lookup(lost, "f") }.status == -EIO)
        #expect(machine.call { $0.getAttributes(lost) }.status == -EIO)
        // Its new inodes have numbers of their own, so nothing that is left of the old ones leads to them.
        let fresh = machine.directory(of: 2)
        #expect(fresh >> 48 == 1 && fresh != lost)
        machine.check()
    }

    @Test func aStoreBringsEverythingBack() {
        let machine = Machine(hasStores: true)
        let directory = machine.directory(of: 2)
        let file = machine.call { $0.create(directory, "f", exclusive: true) }.inode
        machine.call {
            $0.bulk.storeBytes(of: 0x1234_5678_9abc_def0, as: UInt64.self)
            $0.write(file, offset: 8, count: 8)
        }
        machine.call { $0.changeMode(file, 0o640) }
        machine.call { $0.link(file, directory, "g") }
        machine.host.crash(machine.fleets.files[2])
        machine.restore(2)
        machine.host.run()
        #expect(machine.call { $0.lookup(directory, "g") } == (0, file))
        machine.call { $0.read(file, offset: 0, count: 64) }
        let word = machine.thread.bulk.load(fromByteOffset: 8, as: UInt64.self)
        machine.call { $0.getAttributes(file) }
        let attributes = machine.thread.attributes
        #expect(word == 0x1234_5678_9abc_def0)
        #expect(attributes.links == 2 && attributes.mode & 0o7777 == 0o640 && attributes.size == 16)
        machine.check()
    }
}
