// Where new servers of a growing fleet go: to empty cores, near the traffic that they take over.

import CFosWire
import Fleet
import Messaging
import Testing

@testable import PlacementService

@Suite struct PlacesTests {
    /// A line of cores, 10 from each to the next, with a place on every second one.
    private static func manager(serving: Int, traffic: [UInt64], places: [Int] = [0, 2, 4, 6, 8, 10, 12, 14]) -> FleetManager {
        let matrix = DistanceMatrix(cores: 16) { 10 * abs($0 - $1) }
        var next: [Int: Int] = [:]
        let mailboxes = places.map { core in
            next[core, default: 0] += 1
            return MailboxAddress(core: core, index: next[core, default: 1])
        }
        let manager = FleetManager(places: mailboxes, serving: serving, minimum: 1, automaticMaximum: places.count, distances: matrix)
        for (index, each) in traffic.enumerated() { manager.servers[index].traffic = each }
        return manager
    }
    private static func cores(_ wanted: Int, _ manager: borrowing FleetManager) -> [Int] {
        manager.newPlaces(wanted).map { manager.servers[$0].mailbox.core }.sorted()
    }

    @Test func aNewServerIsNearWhoeverIsAskedMost() {
        // Servers on 0 and 14; all that is asked is asked of one of them.
        let places = [0, 14, 2, 4, 6, 8, 10, 12]
        #expect(PlacesTests.cores(1, PlacesTests.manager(serving: 2, traffic: [1000, 0], places: places)) == [2])
        #expect(PlacesTests.cores(1, PlacesTests.manager(serving: 2, traffic: [0, 1000], places: places)) == [12])
    }

    @Test func severalAtOnceGoNearTheTrafficAndNotOnOneCore() {
        let places = [0, 14, 2, 4, 6, 8, 10, 12]
        #expect(PlacesTests.cores(3, PlacesTests.manager(serving: 2, traffic: [0, 1000], places: places)) == [8, 10, 12])
    }

    @Test func anEmptyCoreComesBeforeANearOne() {
        // Two places on core 0, whose first serves; the others are far.
        let manager = PlacesTests.manager(serving: 1, traffic: [1000], places: [0, 0, 12, 14])
        #expect(PlacesTests.cores(1, manager) == [12])
        #expect(PlacesTests.cores(3, manager) == [0, 12, 14])
    }

    @Test func noMoreThanThereAre() {
        let manager = PlacesTests.manager(serving: 2, traffic: [])
        #expect(manager.newPlaces(20).count == 6 && Set(manager.newPlaces(20)).count == 6)
        #expect(manager.newPlaces(0).isEmpty)
    }
}
