// The checker catches servers that are broken on purpose, and says nothing of the same seeds when they are not.

import FileService
import Messaging
import Simulation
import Simulator
import Testing

@Suite struct MutationTests {
    static let seeds: ClosedRange<UInt64> = 1...8
    static let ofFiles: [Mutation] = [.writeLost, .pageShared, .linkCountOffByOne, .entryLostInRename]

    static func scenario() -> Scenario {
        var scenario = Scenario()
        scenario.workload.data = 8
        scenario.workload.locks = 5
        scenario.workload.listings = 3
        scenario.memoryServers = 2
        scenario.memoryBytes = 256 << 10
        scenario.workload.memoryClients = 4
        return scenario
    }

    static func run(_ seed: UInt64, _ mutation: Mutation?, _ scenario: Scenario = scenario()) -> (result: RunResult, strikes: Int) {
        var mutators: [Mutator] = []
        let run = ScenarioRun(
            scenario, seed: seed, topology: CoreTopology(mesh: scenario.cores), costs: .onChip,
            wrap: { fleets, member in
                guard let mutation else { return FileMember(fleets.fileServer(member, store: MemoryStore())) }
                let mutator = Mutator(mutation, seed: seed &* 31 &+ UInt64(member))
                mutators.append(mutator)
                // A server that takes itself for another one owns what that one owns, and says so after it.
                let isTwin = mutation == .slotOwnedTwice && member == 3
                if isTwin { mutator.strikes += 1 }
                return MutatedFileServer(fleets.fileServer(isTwin ? 2 : member, store: MemoryStore()), mutator)
            },
            wrapMemory: { fleets, member in
                guard mutation == .memoryReclaimedEarly || mutation == .memoryNotZeroed, let mutation else {
                    return MemoryMember(fleets.memoryServer(member))
                }
                let mutator = Mutator(mutation, seed: seed &* 37 &+ UInt64(member))
                mutators.append(mutator)
                return MutatedMemoryServer(fleets.memoryServer(member), mutator)
            })
        return (run.run(), mutators.reduce(0) { $0 + $1.strikes })
    }

    @Test(arguments: Mutation.allCases) func isCaught(mutation: Mutation) {
        var caught = 0
        var strikes = 0
        for seed in MutationTests.seeds {
            let (result, count) = MutationTests.run(seed, mutation)
            strikes += count
            if !result.isCorrect { caught += 1 }
        }
        #expect(strikes > 0, "\(mutation.rawValue) never struck, so nothing was shown")
        #expect(caught > 0, "\(mutation.rawValue) struck \(strikes) times and was not seen")
    }

    /// Stores that do not keep what they are told, and servers with shards that come back with them. A crash in the middle of a
    /// transaction is rare: of these seeds, so many as it takes.
    @Test(arguments: StoreMutation.allCases) func isCaughtWithAStore(mutation: StoreMutation) throws {
        let scenario = try Scenario(text: ScenarioTests.shardsAndStores)
        var caught = 0
        var strikes = 0
        for seed in UInt64(1)...80 where caught == 0 {
            let mutator = StoreMutator(mutation, seed: seed)
            let run = ScenarioRun(
                scenario, seed: seed, topology: CoreTopology(mesh: scenario.cores), costs: .onChip, storesLose: { mutator.loses($0) })
            if !run.run().isCorrect { caught += 1 }
            strikes += mutator.strikes
        }
        #expect(strikes > 0, "\(mutation.rawValue) never struck, so nothing was shown")
        #expect(caught > 0, "\(mutation.rawValue) struck \(strikes) times and was not seen")
    }

    /// What the answers to dead clients tell the checker excuses nothing.
    @Test(arguments: MutationTests.ofFiles) func isCaughtWhileClientsDie(mutation: Mutation) throws {
        var scenario = try Scenario(text: ScenarioTests.clientsDie)
        scenario.workload.data = 8
        var caught = 0
        for seed in MutationTests.seeds where !MutationTests.run(seed, mutation, scenario).result.isCorrect { caught += 1 }
        #expect(caught > 0, "\(mutation.rawValue) was not seen")
    }

    @Test func theSameSeedsPassUnbroken() {
        for seed in MutationTests.seeds {
            let (result, _) = MutationTests.run(seed, nil)
            #expect(result.isCorrect, "seed \(seed): \(result.violations)")
            #expect(result.operations > 300)
        }
    }
}
