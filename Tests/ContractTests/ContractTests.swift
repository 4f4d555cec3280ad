// The contract suite: every case on every implementation, and random sequences on pairs of them.
//
// FOS_CONTRACT_SEED repeats random sequences from a seed; FOS_LONG=1 makes them many.

import Foundation
import LoopKernel
import Testing

extension Features {
    /// What a local file system reached by system calls has, whatever it is.
    static let local: Features = [.users, .groups, .handlesKeepRights, .kernelPaths, .extendedAttributes, .locks, .temporaryFiles]
}

private let environment = ProcessInfo.processInfo.environment
private let isLong = environment["FOS_LONG"] == "1"

/// Seeds of this run: the given one alone, or `count` from a new start, which is printed at once and to standard error, so
/// that they are known however the run ends.
private func seeds(_ count: Int, _ what: String) -> [UInt64] {
    if let given = environment["FOS_CONTRACT_SEED"].flatMap(UInt64.init) { return [given] }
    let start = UInt64.random(in: 1...1_000_000_000)
    let number = isLong ? count * 20 : count
    FileHandle.standardError.write(Data("\(what): seeds \(start) to \(start + UInt64(number) - 1)\n".utf8))
    return (0..<UInt64(number)).map { start + $0 }
}

/// Serial: implementations that are system calls act as other users and with other masks in this process.
@Suite(.serialized) struct ContractTests {
    @Suite(.serialized) struct Reference {
        @Test(arguments: ContractSuite.all) func model(_ test: ContractCase) { test.run(on: VirtualFileSystem(ModelNodes())) }

        @Test(.enabled(if: LocalDirectory.tmpfs != nil, "needs root and /dev/shm"), arguments: ContractSuite.all)
        func tmpfs(_ test: ContractCase) throws { test.run(on: try #require(LocalDirectory.tmpfs)) }

        /// The model itself is held to Linux.
        @Test(.enabled(if: LocalDirectory.tmpfs != nil, "needs root and /dev/shm")) func randomSequencesOfTheModel() throws {
            let tmpfs = try #require(LocalDirectory.tmpfs)
            for seed in seeds(20, "model against tmpfs") {
                guard RandomOperations(VirtualFileSystem(ModelNodes()), tmpfs, seed: seed).run(steps: 500) else { return }
            }
        }
    }

    @Suite(.serialized) struct Messages {
        @Test(arguments: ContractSuite.all) func oneOwner(_ test: ContractCase) { run(test, servers: 1) }
        @Test(arguments: ContractSuite.all) func fiveOwners(_ test: ContractCase) { run(test, servers: 5) }

        /// After each case the fleet must be as empty as before it: the root alone.
        private func run(_ test: ContractCase, servers: Int) {
            let transport = LoopTransport(seed: UInt64(servers), servers: servers, fullChance: servers > 1 ? 12 : 0)
            test.run(on: VirtualFileSystem(MessageNodes(transport)))
            Issue.recordIf(transport.leftovers(), "after \(test) on \(transport.name)")
        }

        @Test func randomSequences() {
            for seed in seeds(60, "file fleets against the model") {
                let transport = LoopTransport(seed: seed, servers: 1 + Int(seed % 6), fullChance: Int(seed % 3) * 20)
                let fleet = VirtualFileSystem(MessageNodes(transport)), model = VirtualFileSystem(ModelNodes())
                guard RandomOperations(fleet, model, seed: seed).run(steps: 600) else { return }
                Issue.recordIf(transport.leftovers(), "after seed \(seed)")
            }
        }

        @Test func randomSequencesWhileSlotsMove() {
            for seed in seeds(60, "file fleets whose slots move, against the model") {
                let transport = LoopTransport(seed: seed, servers: 2 + Int(seed % 5), fullChance: Int(seed % 3) * 20, moves: 40)
                let fleet = VirtualFileSystem(MessageNodes(transport)), model = VirtualFileSystem(ModelNodes())
                guard RandomOperations(fleet, model, seed: seed).run(steps: 600) else { return }
                Issue.recordIf(transport.leftovers(), "after seed \(seed)")
            }
        }

        @Test(arguments: ContractSuite.all) func threeOwnersWhileSlotsMove(_ test: ContractCase) {
            let transport = LoopTransport(seed: 3, servers: 3, fullChance: 12, moves: 64)
            test.run(on: VirtualFileSystem(MessageNodes(transport)))
            Issue.recordIf(transport.leftovers(), "after \(test) on \(transport.name)")
        }

        /// Directories are sharded from three entries on, and slots move in every other sequence.
        @Test func randomSequencesOverShards() {
            for seed in seeds(6, "file fleets with sharded directories against the model") {
                let transport = LoopTransport(
                    seed: seed, servers: 2 + Int(seed % 5), fullChance: Int(seed % 3) * 20, moves: Int(seed % 2) * 40, shards: 3)
                let fleet = VirtualFileSystem(MessageNodes(transport)), model = VirtualFileSystem(ModelNodes())
                guard RandomOperations(fleet, model, seed: seed).run(steps: 600) else { return }
                Issue.recordIf(transport.leftovers(), "after seed \(seed)")
            }
        }

        /// What was owed to a full mailbox when the last request was answered is paid, and nothing is left then.
        @Test func nothingIsLeftOfShards() {
            let transport = LoopTransport(seed: 664_134_785, servers: 6, fullChance: 20, shards: 3)
            RandomOperations(VirtualFileSystem(MessageNodes(transport)), VirtualFileSystem(ModelNodes()), seed: 664_134_785).run(steps: 600)
            Issue.recordIf(transport.leftovers(), "after the run")
        }

        @Test(arguments: ContractSuite.ofNames) func fiveOwnersOverShards(_ test: ContractCase) {
            let transport = LoopTransport(seed: 5, servers: 5, fullChance: 12, shards: 3)
            test.run(on: VirtualFileSystem(MessageNodes(transport)))
            Issue.recordIf(transport.leftovers(), "after \(test) on \(transport.name)")
        }

        /// The same seed is the same run, to the last message.
        @Test func aSeedIsARun() {
            func hash(_ seed: UInt64) -> UInt64 {
                let transport = LoopTransport(seed: seed, servers: 4, fullChance: 20)
                RandomOperations(VirtualFileSystem(MessageNodes(transport)), VirtualFileSystem(ModelNodes()), seed: seed).run(steps: 200)
                return transport.host.eventHash
            }
            #expect(hash(7) == hash(7))
        }
    }

    @Suite(.serialized) struct Live {
        @Test(arguments: [1, 2]) func cases(cores: Int) throws {
            let transport = try ProxyTransport(cpus: [Int](repeating: -1, count: cores))
            defer { transport.stop() }
            let fleet = VirtualFileSystem(MessageNodes(transport))
            for test in ContractSuite.all { test.run(on: fleet) }
        }

        @Test func randomSequencesOverShards() throws {
            let transport = try ProxyTransport(cpus: [-1, -1], shards: 3)
            defer { transport.stop() }
            let fleet = VirtualFileSystem(MessageNodes(transport))
            for seed in seeds(3, "a live instance with sharded directories against the model") {
                guard RandomOperations(fleet, VirtualFileSystem(ModelNodes()), seed: seed).run(steps: 500) else { return }
            }
        }

        /// Every case, and random sequences, while the fleet grows and shrinks under them.
        @Test(arguments: [1, 2]) func whileTheFleetChangesItsSize(cores: Int) throws {
            let transport = try ProxyTransport(cpus: [Int](repeating: -1, count: cores), resizes: true)
            defer { transport.stop() }
            let fleet = VirtualFileSystem(MessageNodes(transport))
            for test in ContractSuite.all { test.run(on: fleet) }
            for seed in seeds(5, "a live instance that changes its size, against the model") {
                guard RandomOperations(fleet, VirtualFileSystem(ModelNodes()), seed: seed).run(steps: 500) else { return }
            }
        }

        @Test func randomSequences() throws {
            let transport = try ProxyTransport(cpus: [-1, -1])
            defer { transport.stop() }
            let fleet = VirtualFileSystem(MessageNodes(transport))
            for seed in seeds(10, "a live instance against the model") {
                guard RandomOperations(fleet, VirtualFileSystem(ModelNodes()), seed: seed).run(steps: 500) else { return }
            }
        }
    }

    @Suite(.serialized, .enabled(if: FosMount.isPossible, "needs /dev/fuse and root")) struct Mount {
        @Test func cases() throws {
            let mount = try FosMount()
            defer { mount.expectGoodEnd() }
            for test in ContractSuite.all { test.run(on: mount.fileSystem) }
        }

        /// Directories are sharded from three entries on.
        @Test func casesOverShards() throws {
            let mount = try FosMount(options: ["-o", "shards=3"])
            defer { mount.expectGoodEnd() }
            for test in ContractSuite.all { test.run(on: mount.fileSystem) }
        }

        @Test func randomSequencesOverShards() throws {
            let tmpfs = try #require(LocalDirectory.tmpfs)
            let mount = try FosMount(options: ["-o", "shards=3"])
            defer { mount.expectGoodEnd() }
            for seed in seeds(4, "a mount with sharded directories against tmpfs") {
                guard RandomOperations(mount.fileSystem, tmpfs, seed: seed).run(steps: 500) else { return }
            }
        }

        /// FOS_CONTRACT_SHIM=1: this process was started with the shim preloaded, so that all of this suite goes by message.
        /// A shim that stood aside would leave nothing tested.
        @Test(.enabled(if: environment["FOS_CONTRACT_SHIM"] == "1", "runs under the shim")) func theShimIsInUse() throws {
            let mount = try FosMount()
            defer { mount.expectGoodEnd() }
            // The shim looks for new mounts from time to time.
            var clients = 0
            for _ in 0..<200 where clients == 0 {
                let fd = open(mount.directory + "/f", O_RDWR | O_CREAT, 0o644)
                #expect(fd >= 0)
                close(fd)
                clients = try mount.clients()
                usleep(20_000)
            }
            #expect(clients == 1)
        }

        /// Half of the calls with a path by message, the other half through the mount, on one tree.
        @Test(.enabled(if: environment["FOS_CONTRACT_SHIM"] == "1", "runs under the shim")) func casesByBothWays() throws {
            let mount = try FosMount()
            defer { #expect(mount.end() == 0, "the server did not end well") }
            for seed in seeds(1, "cases by message and through the mount") {
                let both = mount.fileSystem
                both.chance = LoopRandom(seed: seed)
                for test in ContractSuite.all { test.run(on: both) }
            }
        }

        @Test(.enabled(if: environment["FOS_CONTRACT_SHIM"] == "1", "runs under the shim"), arguments: [false, true])
        func randomSequencesByMessage(andThroughTheMount: Bool) throws {
            let tmpfs = try #require(LocalDirectory.tmpfs)
            let mount = try FosMount()
            defer { #expect(mount.end() == 0, "the server did not end well") }
            for seed in seeds(10, andThroughTheMount ? "by message and through the mount against tmpfs" : "by message against tmpfs") {
                let fileSystem = mount.fileSystem
                if andThroughTheMount { fileSystem.chance = LoopRandom(seed: seed) }
                guard RandomOperations(fileSystem, tmpfs, seed: seed).run(steps: 500) else { return }
            }
        }

        @Test func casesWithLocksOfTheFleet() throws {
            let mount = try FosMount(options: ["-o", "locks=fleet"])
            defer { mount.expectGoodEnd() }
            for test in ContractSuite.all where ["lock", "open", "removal", "permission"].contains(test.topic) {
                test.run(on: mount.fileSystem)
            }
        }

        @Test func randomSequencesAgainstTmpfs() throws {
            let tmpfs = try #require(LocalDirectory.tmpfs)
            let mount = try FosMount()
            defer { mount.expectGoodEnd() }
            for seed in seeds(20, "a mount against tmpfs") {
                guard RandomOperations(mount.fileSystem, tmpfs, seed: seed).run(steps: 500) else { return }
            }
        }

        @Test func randomSequencesAgainstTheDisk() throws {
            let disk = try #require(LocalDirectory.disk)
            let mount = try FosMount()
            defer { mount.expectGoodEnd() }
            for seed in seeds(8, "a mount against the disk") {
                guard RandomOperations(mount.fileSystem, disk, seed: seed).run(steps: 500) else { return }
            }
        }
    }
}

extension Issue {
    fileprivate static func recordIf(_ problems: [String], _ context: String) {
        if !problems.isEmpty { record("\(context): \(problems.joined(separator: "; "))") }
    }
}
