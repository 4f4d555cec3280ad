// Placement by distance: room, fixed parties, and that near beats random beats adversarial.

import Fleet
import Testing

@testable import PlacementService

/// A square mesh: distance is the number of hops, 10 each.
private func mesh(_ side: Int) -> DistanceMatrix {
    DistanceMatrix(cores: side * side) { 10 * (abs($0 % side - $1 % side) + abs($0 / side - $1 / side)) }
}

@Suite struct PlacementTests {
    /// Groups of parties that talk among themselves, and a little to everybody's first one.
    private func groups(_ count: Int, of size: Int) -> Traffic {
        var traffic = Traffic(parties: count * size)
        for group in 0..<count {
            for a in 0..<size { for b in 0..<a { traffic.add(group * size + a, group * size + b, messages: 100) } }
            if group > 0 { traffic.add(0, group * size, messages: 1) }
        }
        return traffic
    }

    @Test func nearBeatsRandomBeatsAdversarial() throws {
        let matrix = mesh(16)
        let problem = PlacementProblem(traffic: groups(48, of: 4), distances: matrix.view, room: Array(repeating: 1, count: 256))
        let near = try #require(Placement(problem)).cost(problem)
        let worst = try #require(Placement(problem, policy: .adversarial)).cost(problem)
        for seed: UInt64 in 1...5 {
            let random = try #require(Placement(problem, policy: .random(seed: seed))).cost(problem)
            #expect(near * 3 < random, "near \(near), random \(random), seed \(seed)")
            #expect(random < worst, "random \(random), adversarial \(worst), seed \(seed)")
        }
    }

    @Test(arguments: [PlacementPolicy.near, .random(seed: 3), .adversarial]) func keepsRoomAndFixedParties(policy: PlacementPolicy) throws {
        let matrix = mesh(4)
        var fixed: [Int?] = Array(repeating: nil, count: 12)
        fixed[0] = 5
        fixed[1] = 5
        var room = Array(repeating: 1, count: 16)
        room[5] = 2
        room[6] = 0
        let problem = PlacementProblem(
            traffic: groups(3, of: 4), distances: matrix.view, room: room, fixed: fixed, allows: { party, core in party < 6 || core >= 8 })
        let cores = try #require(Placement(problem, policy: policy)).cores
        #expect(cores[0] == 5 && cores[1] == 5)
        for core in 0..<16 { #expect(cores.filter { $0 == core }.count <= room[core]) }
        for party in 6..<12 { #expect(cores[party] >= 8) }
    }

    @Test func saysWhenThereIsNoRoom() {
        let matrix = mesh(2)
        let problem = PlacementProblem(traffic: Traffic(parties: 5), distances: matrix.view, room: [1, 1, 1, 1])
        #expect(Placement(problem) == nil)
        #expect(Placement(problem, policy: .random(seed: 1)) == nil)
    }

    @Test func sameInputSamePlacement() {
        let matrix = mesh(8)
        let problem = PlacementProblem(traffic: groups(12, of: 4), distances: matrix.view, room: Array(repeating: 1, count: 64))
        #expect(Placement(problem) == Placement(problem))
        #expect(Placement(problem, policy: .random(seed: 9)) == Placement(problem, policy: .random(seed: 9)))
    }

    @Test func aPairIsPutSideBySide() throws {
        let matrix = mesh(8)
        var traffic = Traffic(parties: 2)
        traffic.add(0, 1, messages: 5)
        let problem = PlacementProblem(traffic: traffic, distances: matrix.view, room: Array(repeating: 1, count: 64))
        #expect(try #require(Placement(problem)).cost(problem) == 50)
    }

    @Test func oneMoreGoesNearWhatItTalksTo() {
        let matrix = mesh(4)
        #expect(
            Placement.core(near: [(0, 10), (15, 1)], candidates: [3, 5, 14], load: Array(repeating: 0, count: 16), distances: matrix.view)
                == 5)
        var load = Array(repeating: 0, count: 16)
        load[1] = 3
        #expect(Placement.core(near: [(0, 1)], candidates: [1, 4], load: load, distances: matrix.view) == 4)
        #expect(Placement.core(near: [], candidates: [], load: load, distances: matrix.view) == nil)
    }

    /// A large machine in reasonable time: the simulator lays out 4,096 cores.
    @Test func aLargeMachineIsLaidOut() throws {
        let matrix = mesh(32)
        let problem = PlacementProblem(traffic: groups(256, of: 4), distances: matrix.view, room: Array(repeating: 1, count: 1024))
        let near = try #require(Placement(problem, rounds: 1))
        #expect(Set(near.cores).count == 1024)
    }
}
