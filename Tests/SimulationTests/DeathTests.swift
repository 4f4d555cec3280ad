// Servers that die at one chosen moment of a transaction: who waited goes on, what they held is let go, and what was
// promised of what is left holds.

import CFosWire
import FileService
import Glibc
import Messaging
import Simulation
import Simulator
import Testing

@Suite struct DeathTests {
    @Test func namesThatADeadCoordinatorHadLockedAreLetGo() {
        let machine = DeathMachine()
        let (old, new) = (machine.directory(of: 2), machine.directory(of: 0))
        machine.call { $0.create(old, "f", exclusive: true) }
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 0)
        #expect(machine.call { $0.rename(old, "f", to: new, "g") }.status == -EIO)
        #expect(machine.call { $0.create(new, "g", exclusive: true) }.status == 0)
        #expect(machine.call { $0.lookup(old, "f") }.status == -EIO)
        machine.check()
    }

    @Test func theTreeLockOfADeadServerIsLetGo() {
        let machine = DeathMachine()
        let (old, new) = (machine.directory(of: 2), machine.directory(of: 1))
        machine.call { $0.makeDirectory(old, "sub") }
        machine.kill(2, when: FOS_OP_PEER_TREE_LOCK, at: 0)
        #expect(machine.call { $0.rename(old, "sub", to: new, "sub") }.status == -EIO)
        machine.call { $0.makeDirectory(1, "moves") }
        #expect(machine.call { $0.rename(1, "moves", to: new, "moved") }.status == 0)
        machine.check()
    }

    @Test func theOldNameStaysIfTheNewOnesServerIsGone() {
        let machine = DeathMachine()
        let (old, new) = (machine.directory(of: 1), machine.directory(of: 2))
        let file = machine.call { $0.create(old, "f", exclusive: true) }.inode
        machine.kill(2, when: FOS_OP_PEER_RENAME_PREPARE, at: 2)
        #expect(machine.call { $0.rename(old, "f", to: new, "g") }.status == -EIO)
        #expect(machine.call { $0.lookup(old, "f") } == (0, file))
        #expect(machine.call { $0.lookup(new, "g") }.status == -EIO)
        machine.check()
    }

    @Test func aRenameIsFinishedWhenTheOtherServerIsBackWithItsStore() {
        let machine = DeathMachine(hasStores: true)
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
    private func sharedFile(_ machine: DeathMachine) -> (own: UInt64, other: UInt64, file: UInt64) {
        let (own, other) = (machine.directory(of: 1), machine.directory(of: 2))
        let file = machine.call { $0.create(own, "f", exclusive: true) }.inode
        #expect(machine.call { $0.link(file, other, "g") }.status == 0)
        return (own, other, file)
    }
    private func links(_ machine: DeathMachine, _ inode: UInt64) -> UInt32 {
        machine.call { $0.getAttributes(inode) }
        return machine.thread.attributes.links
    }

    @Test func aLinkIsFinishedThatItsCoordinatorHadAskedFor() {
        let machine = DeathMachine(hasStores: true)
        let (_, other, file) = sharedFile(machine)
        machine.kill(2, when: FOS_OP_PEER_LINK, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.link(file, other, "h") }.status == -EIO)
        #expect(machine.call { $0.lookup(other, "h") } == (0, file))
        #expect(links(machine, file) == 3)
        machine.check()
    }

    @Test func aNameGoesWhoseLinkItsCoordinatorHadTaken() {
        let machine = DeathMachine(hasStores: true)
        let (_, other, file) = sharedFile(machine)
        machine.kill(2, when: FOS_OP_PEER_UNLINK, at: 1, forGood: false, restoredAfter: 5_000_000)
        #expect(machine.call { $0.unlink(other, "g") }.status == -EIO)
        #expect(machine.call { $0.lookup(other, "g") }.status == -ENOENT)
        #expect(links(machine, file) == 1)
        machine.check()
    }

    /// Both die: who was to take the link never heard of it, so the name stays.
    @Test func aNameStaysWhoseLinkNobodyHasTaken() {
        let machine = DeathMachine(hasStores: true)
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
        let machine = DeathMachine(hasStores: true)
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
        let machine = DeathMachine(hasStores: true)
        let parent = machine.directory(of: 1)
        machine.kill(1, when: FOS_OP_PEER_CREATE_INODE, at: 2, forGood: false, restoredAfter: 5_000_000)
        var lost: String?
        for number in 0..<12 where lost == nil {
            if machine.call({ $0.makeDirectory(parent, "d\(number)") }).status == -EIO { lost = "d\(number)" }
        }
        let found = machine.call { $0.lookup(parent, lost ?? "") }
        #expect(found.status == 0 && machine.member(of: found.inode) == 2)
        #expect(machine.call { $0.create(found.inode, "f", exclusive: true) }.status == 0)
        machine.check()
    }

    @Test func aRenameThatWasNotDecidedIsAborted() {
        let machine = DeathMachine(hasStores: true)
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
        let machine = DeathMachine(hasStores: true)
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
        let machine = DeathMachine(hasStores: true)
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
        let machine = DeathMachine()
        let lost = machine.directory(of: 2)
        #expect(machine.call { $0.create(lost, "f", exclusive: true) }.status == 0)
        machine.host.crash(machine.fleets.files[2])
        machine.host.restart(
            machine.fleets.files[2], FileMember(machine.fleets.fileServer(2, store: MemoryStore(), incarnation: 1)), restored: false)
        machine.host.run()
        #expect(machine.call { $0.lookup(lost, "f") }.status == -EIO)
        #expect(machine.call { $0.getAttributes(lost) }.status == -EIO)
        // Its new inodes have numbers of their own, so nothing that is left of the old ones leads to them.
        let fresh = machine.directory(of: 2)
        #expect(fresh >> 48 == 1 && fresh != lost)
        machine.check()
    }

    @Test func aStoreBringsEverythingBack() {
        let machine = DeathMachine(hasStores: true)
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
