// Scenarios as data, their runs over many seeds, and that a seed is a run.

import CFosWire
import FileService
import Glibc
import Messaging
import Simulation
import Simulator
import Testing

@Suite struct ScenarioTests {
    static func run(_ text: String, seed: UInt64) throws -> RunResult {
        let scenario = try Scenario(text: text)
        return ScenarioRun(scenario, seed: seed, topology: CoreTopology(mesh: scenario.cores), costs: .onChip).run()
    }

    static let messages = """
        { "cores": 16, "fileServers": 5, "nameServers": 2, "mailboxCapacity": 8, "pagesPerServer": 96,
          "workload": { "clients": 6, "operations": 40, "data": 6, "locks": 4, "listings": 2 },
          "faults": [ { "kind": "delay", "per65536": 16384, "nanoseconds": 3000 }, { "kind": "refuse", "per65536": 4096 },
                      { "kind": "staleNames", "per65536": 2048 }, { "kind": "stall", "times": 3, "nanoseconds": 20000 } ] }
        """
    static let deaths = """
        { "cores": 16, "fileServers": 5, "nameServers": 2,
          "workload": { "clients": 5, "operations": 50, "directories": 5, "locks": 4 },
          "faults": [ { "kind": "crash", "restart": "empty", "times": 2, "nanoseconds": 20000, "withinNanoseconds": 100000 },
                      { "kind": "clientDies", "withinNanoseconds": 100000 }, { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 } ] }
        """
    static let losses = """
        { "cores": 16, "fileServers": 5, "nameServers": 2, "workload": { "clients": 5, "operations": 50, "directories": 5 },
          "faults": [ { "kind": "coreLost", "withinNanoseconds": 100000 } ] }
        """

    static let moves = """
        { "cores": 16, "fileServers": 5, "nameServers": 2, "mailboxCapacity": 16, "pagesPerServer": 128,
          "workload": { "clients": 6, "operations": 50, "directories": 5, "data": 6, "locks": 4, "listings": 2 },
          "faults": [ { "kind": "slotsMove", "times": 60, "withinNanoseconds": 200000 }, { "kind": "delay", "per65536": 8192, "nanoseconds": 2000 }, { "kind": "refuse", "per65536": 2048 },
                      { "kind": "stall", "times": 2, "nanoseconds": 20000 } ] }
        """
    static let movesAndDeaths = """
        { "cores": 16, "fileServers": 5, "nameServers": 2,
          "workload": { "clients": 5, "operations": 50, "directories": 5, "locks": 4 },
          "faults": [ { "kind": "slotsMove", "times": 60, "withinNanoseconds": 200000 },
                      { "kind": "crash", "restart": "empty", "times": 2, "nanoseconds": 20000, "withinNanoseconds": 100000 },
                      { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 } ] }
        """
    static let movesAndLosses = """
        { "cores": 16, "fileServers": 5, "nameServers": 2, "workload": { "clients": 5, "operations": 50, "directories": 5 },
          "faults": [ { "kind": "slotsMove", "times": 60, "withinNanoseconds": 200000 }, { "kind": "coreLost", "withinNanoseconds": 100000 } ] }
        """

    static let shardsAndDeaths = """
        { "cores": 16, "fileServers": 5, "shards": 2,
          "workload": { "clients": 5, "operations": 50, "directories": 3, "names": 8, "namespace": 12, "data": 2, "locks": 2, "listings": 2 },
          "faults": [ { "kind": "crash", "restart": "empty", "times": 2, "nanoseconds": 20000, "withinNanoseconds": 150000 },
                      { "kind": "coreLost", "withinNanoseconds": 300000 }, { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 } ] }
        """
    /// Scenarios/slots-move-shards-servers-die.json.
    static let shardsMovesAndDeaths = """
        { "cores": 16, "fileServers": 5, "shards": 2,
          "workload": { "clients": 5, "operations": 60, "directories": 3, "names": 8, "namespace": 12, "data": 2, "locks": 1, "listings": 2 },
          "faults": [ { "kind": "slotsMove", "times": 80, "withinNanoseconds": 300000 },
                      { "kind": "crash", "restart": "empty", "times": 2, "nanoseconds": 20000, "withinNanoseconds": 150000 },
                      { "kind": "coreLost", "withinNanoseconds": 300000 }, { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 },
                      { "kind": "refuse", "per65536": 1024 } ] }
        """

    /// Scenarios/shards-store.json.
    static let shardsAndStores = """
        { "cores": 16, "fileServers": 5, "shards": 2,
          "workload": { "clients": 6, "operations": 60, "directories": 4, "names": 8, "namespace": 14, "data": 2, "locks": 1, "listings": 2 },
          "faults": [ { "kind": "crash", "restart": "store", "times": 8, "nanoseconds": 20000, "withinNanoseconds": 200000 },
                      { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 }, { "kind": "refuse", "per65536": 1024 } ] }
        """

    static let nameLosses = """
        { "cores": 24, "fileServers": 3, "nameServers": 4,
          "workload": { "clients": 3, "nameClients": 10, "operations": 50, "serviceNames": 12, "newcomersNanoseconds": 200000 },
          "faults": [ { "kind": "coreLost", "fleet": "names", "withinNanoseconds": 100000 },
                      { "kind": "delay", "per65536": 8192, "nanoseconds": 2000 }, { "kind": "refuse", "per65536": 2048 } ] }
        """
    static let nameCrashes = """
        { "cores": 24, "fileServers": 3, "nameServers": 4,
          "workload": { "clients": 3, "nameClients": 10, "operations": 80, "serviceNames": 12, "newcomersNanoseconds": 200000 },
          "faults": [ { "kind": "crash", "fleet": "names", "times": 4, "nanoseconds": 20000, "withinNanoseconds": 200000 },
                      { "kind": "clientDies", "times": 3, "withinNanoseconds": 200000 },
                      { "kind": "delay", "per65536": 8192, "nanoseconds": 2000 }, { "kind": "refuse", "per65536": 2048 } ] }
        """
    static let elastic = """
        { "cores": 48, "fileServers": 4, "manager": { "serving": 1 },
          "load": { "clients": 24, "nanoseconds": 24000000 },
          "workload": { "clients": 3, "operations": 60, "directories": 8, "thinkNanoseconds": 600000 },
          "faults": [ { "kind": "delay", "per65536": 4096, "nanoseconds": 1000 } ] }
        """
    static let stores = """
        { "cores": 16, "fileServers": 5, "nameServers": 2,
          "workload": { "clients": 6, "operations": 60, "directories": 5, "names": 3, "namespace": 20, "locks": 0, "thinkNanoseconds": 500 },
          "faults": [ { "kind": "crash", "restart": "store", "times": 4, "nanoseconds": 8000, "withinNanoseconds": 100000 },
                      { "kind": "delay", "per65536": 8192, "nanoseconds": 1000 } ] }
        """

    @Test(arguments: [
        messages, deaths, losses, nameLosses, nameCrashes, stores, moves, movesAndDeaths, movesAndLosses, shardsAndDeaths,
        shardsMovesAndDeaths, shardsAndStores,
    ])
    func seedsPass(text: String) throws {
        for seed in UInt64(1)...20 {
            let result = try ScenarioTests.run(text, seed: seed)
            #expect(result.isCorrect, "seed \(seed): \(result.violations)")
        }
    }

    static let clientsDie = """
        { "cores": 16, "fileServers": 4, "workload": { "clients": 6, "operations": 50, "locks": 6 },
          "faults": [ { "kind": "clientDies", "times": 3, "withinNanoseconds": 80000 }, { "kind": "delay", "per65536": 16384, "nanoseconds": 2000 } ] }
        """

    /// In these seeds a client dies before it hears of a file that it made, and others find and use the file, some under a number
    /// that another file had before; in some it has waited for a lock.
    @Test(arguments: [494, 660, 970, 2005, 2019, 2048, 2604, 2966] as [UInt64]) func filesOfDeadClientsAreBorn(seed: UInt64) throws {
        let result = try ScenarioTests.run(ScenarioTests.clientsDie, seed: seed)
        #expect(result.isCorrect, "seed \(seed): \(result.violations)")
    }

    /// File servers that crash so many times within so many ns, and come back after so many; `more`: faults before these.
    private static func crashes(
        _ workload: String, times: Int, _ restart: String, after: Int, within: Int, delays: (per65536: Int, nanoseconds: Int),
        more: String = ""
    ) -> String {
        """
        { "cores": 24, "fileServers": 5, "workload": { \(workload) },
          "faults": [ \(more) { "kind": "crash", "restart": "\(restart)", "times": \(times), "nanoseconds": \(after), "withinNanoseconds": \(within) },
                      { "kind": "delay", "per65536": \(delays.per65536), "nanoseconds": \(delays.nanoseconds) } ] }
        """
    }
    private static func run(_ text: String, cores: Int, names: Int, seed: UInt64) throws -> RunResult {
        var scenario = try Scenario(text: text)
        (scenario.cores, scenario.nameServers) = (cores, names)
        return ScenarioRun(scenario, seed: seed, topology: CoreTopology(mesh: cores), costs: .onChip).run()
    }

    /// A coordinator's RMDIR, or rename over a directory, was done, and another inode has the directory's number when it asks what became
    /// of it.
    @Test func aNumberThatIsAnotherInodesByNowSaysNothingOfTheFirst() throws {
        let text = ScenarioTests.crashes(
            #""clients": 5, "operations": 60, "directories": 5, "locks": 0"#, times: 8, "store", after: 20000, within: 100000,
            delays: (8192, 1000))
        for seed in [91, 290, 359, 1571] as [UInt64] {
            let result = try ScenarioTests.run(text, cores: 16, names: 2, seed: seed)
            #expect(result.isCorrect, "seed \(seed): \(result.violations)")
        }
    }

    /// A creation whose answer never came made an inode with a number that an earlier one had, which others see, or make something in.
    @Test(arguments: [11, 185, 324] as [UInt64]) func creationsWithoutAnAnswerMadeWhatServersSay(seed: UInt64) throws {
        let text = ScenarioTests.crashes(
            #""clients": 8, "operations": 100, "directories": 6, "names": 3, "locks": 0"#, times: 16, "store", after: 10000, within: 300000,
            delays: (16384, 2000))
        let result = try ScenarioTests.run(text, cores: 16, names: 2, seed: seed)
        #expect(result.isCorrect, "seed \(seed): \(result.violations)")
    }

    /// The coordinator of an exchange dies when one of the directories has been told of its new parent.
    @Test func aDirectoryThatWasToBeExchangedKeepsItsParent() throws {
        let text = ScenarioTests.crashes(
            #""clients": 10, "operations": 60, "directories": 5"#, times: 4, "empty", after: 20000, within: 200000, delays: (8192, 1000))
        let result = try ScenarioTests.run(text, cores: 24, names: 0, seed: 300)
        #expect(result.isCorrect, "\(result.violations)")
    }

    /// 353: a server dies that has just taken a slot, is back before all have heard of it, and then the giver dies. 666: a request
    /// for an inode that a death took meets its slot on the way to a server that is still at another one, and waits for that request.
    /// 723: a rename of a dead server, passed on by another one, comes after the news of the death, and would lock a name for ever.
    @Test(arguments: [353, 666, 723] as [UInt64]) func slotsThatMoveWhileServersDieAreFound(seed: UInt64) throws {
        let text = ScenarioTests.crashes(
            #""clients": 10, "operations": 60, "directories": 5"#, times: 4, "empty", after: 20000, within: 200000, delays: (8192, 1000),
            more: #"{ "kind": "slotsMove", "times": 160, "withinNanoseconds": 200000 },"#)
        let result = try ScenarioTests.run(text, cores: 24, names: 0, seed: seed)
        #expect(result.isCorrect, "seed \(seed): \(result.violations)")
    }

    /// Slots of sharded directories move while servers die. 26, 95: a request that waits for a lock is on its way with its slot when the
    /// giver dies, or the taker. 57, 86: a shard is sealed by a server that is lost for good. 69, 289: a server took a slot and was lost
    /// before it had told everybody. 2833: two servers that take each other for the one that knows a directory. 2866: the end of a
    /// seal went to a server that was lost, and the shard had gone on from there.
    @Test(arguments: [26, 57, 69, 86, 95, 289, 2833, 2866] as [UInt64]) func shardsThatMoveWhileServersDieAreServed(seed: UInt64) throws {
        let result = try ScenarioTests.run(ScenarioTests.shardsMovesAndDeaths, seed: seed)
        #expect(result.isCorrect, "seed \(seed): \(result.violations)")
    }

    /// A directory that has lost a shard can be removed with what was in it, as what is lost can: the model knows which may.
    @Test func directoriesWithLostShardsMayBeRemoved() {
        let full = TreeState(root: 1, lostSlots: [7], shards: 4)
        var state = full
        for (name, inode) in [(0, UInt64(5)), (1, 9)] {
            let made = TreeOperation.make(
                directory: 1, name: name, isDirectory: true, opensExisting: false, status: 0, inode: inode, isNew: true)
            state = TreeModel.apply(made, to: state) ?? full
            let file = TreeOperation.make(
                directory: inode, name: 0, isDirectory: false, opensExisting: false, status: 0, inode: inode + 4096, isNew: true)
            state = TreeModel.apply(file, to: state) ?? full
        }
        // Shards of 5 are in slots 5 to 8, those of 9 in 9 to 12.
        #expect(TreeModel.apply(.removeDirectory(directory: 1, name: 0, status: 0), to: state) != nil)
        #expect(TreeModel.apply(.removeDirectory(directory: 1, name: 1, status: 0), to: state) == nil)
    }

    /// What a lost shard had is gone with the directory: another one with its number has none of it.
    @Test func aNumberOfADirectoryWithALostShardBeginsEmpty() throws {
        let lost = ScenarioTests.shardsAndStores.replacing(
            #""faults": ["#, with: #""faults": [ { "kind": "coreLost", "withinNanoseconds": 300000 },"#)
        let result = try ScenarioTests.run(lost, seed: 930)
        #expect(result.isCorrect, "\(result.violations)")
        var state = TreeState(root: 1, lostSlots: [7], shards: 4)
        for operation in [
            TreeOperation.make(directory: 1, name: 0, isDirectory: true, opensExisting: false, status: 0, inode: 5, isNew: true),
            .make(directory: 5, name: 3, isDirectory: false, opensExisting: false, status: 0, inode: 4101, isNew: true),
            .removeDirectory(directory: 1, name: 0, status: 0),
            .make(directory: 1, name: 0, isDirectory: true, opensExisting: false, status: 0, inode: 5, isNew: true),
            .lookup(directory: 5, name: 3, status: -ENOENT, inode: 0),
        ] { state = try #require(TreeModel.apply(operation, to: state)) }
    }

    @Test func aSeedIsARun() throws {
        for seed in UInt64(1)...5 {
            let first = try ScenarioTests.run(ScenarioTests.deaths, seed: seed)
            let second = try ScenarioTests.run(ScenarioTests.deaths, seed: seed)
            #expect(first.hash == second.hash && first.operations == second.operations && first.virtualTime == second.virtualTime)
            #expect(try ScenarioTests.run(ScenarioTests.deaths, seed: seed + 100).hash != first.hash)
        }
    }

    /// Memory servers tell each other where memory is. The first run keeps its memory, so the second one's lies elsewhere.
    @Test func addressesHaveNoSay() throws {
        let scenario = try Scenario(
            text: """
                { "cores": 16, "fileServers": 2, "memoryServers": 3, "memoryBytes": 524288,
                  "workload": { "clients": 2, "memoryClients": 6, "operations": 60 } }
                """)
        var toldAddresses = 0
        for seed in UInt64(1)...5 {
            let runs = (0..<2).map { _ in ScenarioRun(scenario, seed: seed, topology: CoreTopology(mesh: scenario.cores), costs: .onChip) }
            runs[0].host.onDeliver = { letter, _ in
                if UInt32(letter.pointee.message.operation) == FOS_OP_PEER_MEMORY_STEAL.rawValue { toldAddresses += 1 }
            }
            let results = runs.map { $0.run() }
            #expect(results[0].hash == results[1].hash, "seed \(seed)")
        }
        #expect(toldAddresses > 0, "no server asked another one for memory, so this shows nothing")
    }

    @Test func aManagedFleetFollowsItsLoad() throws {
        let result = try ScenarioTests.run(ScenarioTests.elastic, seed: 1)
        #expect(result.isCorrect, "\(result.violations)")
        let changes = result.fleetChanges
        #expect(changes.first?.from == 1 && changes.last?.to == 1 && changes.contains { $0.to >= 2 }, "\(changes)")
        #expect(changes.allSatisfy { $0.nanoseconds > 0 && $0.slots > 0 })
        // It grows while the load is high, and shrinks when it is not: no swinging.
        let turn = changes.firstIndex { $0.to < $0.from } ?? 0
        #expect(changes[..<turn].allSatisfy { $0.to > $0.from } && changes[turn...].allSatisfy { $0.to < $0.from }, "\(changes)")
        let again = try ScenarioTests.run(ScenarioTests.elastic, seed: 1)
        #expect(again.hash == result.hash && again.fleetChanges == changes)
    }

    @Test func badFilesAreRefusedByName() {
        for (text, part) in [
            ("[]", "is no object"), ("{", "line 1"), (#"{ "cores": 5000 }"#, "1 to 4096"), (#"{ "corse": 5 }"#, "corse"),
            (#"{ "workload": { "clients": "five" } }"#, "clients"), (#"{ "faults": [ { "kind": "crash", "restart": "soon" } ] }"#, "soon"),
            (#"{ "faults": [ { "kind": "slotsMove" }, { "kind": "crash", "restart": "store" } ] }"#, "slotsMove"),
            (#"{ "faults": [ { "kind": "crash", "restart": "store" }, { "kind": "crash", "restart": "empty" } ] }"#, "stores"),
            (#"{ "cores": 4, "cores": 5 }"#, "twice"), (#"{ "placement": "left" }"#, "left"),
            (#"{ "manager": { "serving": 9 } }"#, "serving"), (#"{ "faults": [ { "kind": "coreLost", "fleet": "memory" } ] }"#, "memory"),
            (#"{ "nameServers": 1, "faults": [ { "kind": "coreLost", "fleet": "names" } ] }"#, "nameServers"),
            (#"{ "nameServers": 2, "faults": [ { "kind": "crash", "fleet": "names", "restart": "store" } ] }"#, "no store"),
            (#"{ "faults": [ { "kind": "stall", "fleet": "files" } ] }"#, "coreLost alone"),
        ] {
            do {
                _ = try Scenario(text: text)
                Issue.record("\(text) was taken")
            } catch { #expect("\(error)".contains(part), "\(error)") }
        }
    }

    @Test func topologiesComeFromHwloc() throws {
        let machine = try TopologyPlan(text: "pack:2 l3:2 core:4 pu:1").topology(cores: 16)
        #expect(
            [
                machine.distance(from: 0, to: 0), machine.distance(from: 0, to: 1), machine.distance(from: 0, to: 5),
                machine.distance(from: 0, to: 12),
            ] == [0, 10, 20, 40])
        #expect(throws: ScenarioError.self) { try TopologyPlan(text: "pack:x").topology(cores: 2) }
        #expect(throws: ScenarioError.self) { try TopologyPlan(text: "core:4 pu:1").topology(cores: 8) }
    }

    @Test func calibrationsAreFiles() throws {
        let text = """
            { "machine": "test", "message": { "coherent": { "sameCore": 10, "sameCache": 30, "samePackage": 54.5, "otherPackage": 120 } },
              "turn": 100, "response": 50, "send": 20, "bulkByte": 0.02, "clientSend": 15, "clientReceive": 10, "clientWork": 20,
              "service": { "GETATTR": 53 } }
            """
        let costs = try Costs(calibration: text)
        #expect(
            costs.message.latency(distance: 20) == 54_500 && costs.bulkByte == 20
                && costs.service[UInt16(FOS_OP_GETATTR.rawValue)] == 53_000)
        #expect(throws: ScenarioError.self) { try Costs(calibration: text.replacing("GETATTR", with: "GETATTER")) }
    }
}
