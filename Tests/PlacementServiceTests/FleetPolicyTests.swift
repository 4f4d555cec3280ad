// The policy of fleet sizes: grows on waiting, shrinks on quiet, and does not swing.

import Testing

@testable import PlacementService

@Suite struct FleetPolicyTests {
    private struct Fleet {
        var policy = FleetPolicy()
        var members = 2
        var sizes: [Int] = []

        mutating func run(_ intervals: Int, mean: UInt64, samples: UInt64 = 1000, isChanging: Bool = false) {
            for _ in 0..<intervals {
                members = policy.decide(
                    samples: samples, delaySum: mean * samples, members: members, minimum: 1, maximum: 8, isChanging: isChanging)
                sizes.append(members)
            }
        }
    }

    @Test func growsWhenRequestsWaitForSomeIntervals() {
        var fleet = Fleet()
        fleet.run(2, mean: 500_000)
        #expect(fleet.members == 2)
        fleet.run(1, mean: 500_000)
        #expect(fleet.members == 3)
    }

    @Test func oneBusyIntervalIsNoReason() {
        var fleet = Fleet()
        for _ in 0..<20 {
            fleet.run(2, mean: 500_000)
            fleet.run(1, mean: 50_000)
        }
        #expect(fleet.members == 2)
    }

    @Test func fewRequestsSayNothing() {
        var fleet = Fleet()
        fleet.run(10, mean: 500_000, samples: 15)
        #expect(fleet.members == 2)
    }

    @Test func shrinksSlowlyAndNotBelowTheLeast() {
        var fleet = Fleet()
        fleet.members = 3
        fleet.run(49, mean: 1_000)
        #expect(fleet.members == 3)
        fleet.run(1, mean: 1_000)
        #expect(fleet.members == 2)
        fleet.run(500, mean: 0, samples: 0)
        #expect(fleet.members == 1)
    }

    @Test func keepsWhatIsBetweenTheBounds() {
        var fleet = Fleet()
        fleet.run(1_000, mean: 50_000)
        #expect(fleet.members == 2)
    }

    @Test func waitsForAChangeToEndAndAWhileLonger() {
        var fleet = Fleet()
        fleet.run(20, mean: 500_000, isChanging: true)
        fleet.run(5, mean: 500_000)
        #expect(fleet.members == 2)
        fleet.run(3, mean: 500_000)
        #expect(fleet.members == 3)
    }

    @Test func staysWithinItsBounds() {
        var policy = FleetPolicy()
        for _ in 0..<20 {
            #expect(policy.decide(samples: 100, delaySum: 100 * 900_000, members: 4, minimum: 1, maximum: 4, isChanging: false) == 4)
        }
    }
}
