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
        var manager = FleetManager(
            places: mailboxes, serving: serving, minimum: 1, automaticMaximum: places.count, distances: matrix, cpus: 0..<16)
        for (index, each) in traffic.enumerated() { manager.programs.noteMeasured(each, by: index) }
        manager.programs.endInterval()
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

    /// A report of so many requests from each of some CPUs.
    private static func report(of member: Int, _ senders: [(cpu: Int, requests: Int)]) -> fos_fleet_report {
        var counts = SenderCounts()
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        for sender in senders {
            envelope.cpu = UInt16(sender.cpu + 1)
            for _ in 0..<sender.requests { counts.count(&envelope) }
        }
        var report = fos_fleet_report()
        report.member = UInt32(member)
        counts.report(into: &report)
        return report
    }

    @Test func aNewServerIsNearTheProgramsAndNotNearTheServerTheyAsk() {
        // All is asked of the server on core 0, by programs on 11 and a few on 1.
        let places = [0, 14, 2, 4, 6, 8, 10, 12]
        var manager = PlacesTests.manager(serving: 2, traffic: [], places: places)
        manager.programs.note(PlacesTests.report(of: 0, [(11, 900), (1, 100)]))
        manager.programs.noteMeasured(1000, by: 0)
        manager.programs.endInterval()
        #expect([[10], [12]].contains(PlacesTests.cores(1, manager)))
        #expect(PlacesTests.cores(2, manager) == [10, 12])
        let most = manager.programs.busiest(of: 0)
        #expect(most?.cpu == 11 && (89...90).contains(most?.percent ?? 0) && manager.programs.busiest(of: 1) == nil)
    }

    @Test func requestsOfWhichNobodySaysWhereTheyComeFromPullToTheirServer() {
        let places = [0, 14, 2, 4, 6, 8, 10, 12]
        var manager = PlacesTests.manager(serving: 2, traffic: [], places: places)
        manager.programs.note(PlacesTests.report(of: 0, [(11, 100)]))
        manager.programs.noteMeasured(1000, by: 0)
        manager.programs.endInterval()
        #expect(PlacesTests.cores(1, manager) == [2])
    }

    @Test func oneIntervalDoesNotMakeItWaver() {
        let places = [0, 14, 2, 4, 6, 8, 10, 12]
        var manager = PlacesTests.manager(serving: 2, traffic: [], places: places)
        func interval(_ cpu: Int) {
            manager.programs.note(PlacesTests.report(of: 0, [(cpu, 1000)]))
            manager.programs.noteMeasured(1000, by: 0)
            manager.programs.endInterval()
        }
        for _ in 0..<20 { interval(11) }
        interval(3)
        interval(3)
        #expect([[10], [12]].contains(PlacesTests.cores(1, manager)), "Linux has put the program elsewhere for a moment")
        for _ in 0..<20 { interval(3) }
        #expect([[2], [4]].contains(PlacesTests.cores(1, manager)), "it has stayed there")
        // Nobody asks any more: it is all forgotten, to the last request.
        for _ in 0..<200 { manager.programs.endInterval() }
        #expect(manager.programs.busiest(of: 0) == nil)
    }

    @Test func whatClientsSayIsBounded() {
        var manager = PlacesTests.manager(serving: 2, traffic: [])
        // CPUs that do not exist, and counts that no interval has: by nobody, and no more than fits.
        var report = PlacesTests.report(of: 0, [(1000, 5), (16, 5), (15, 5)])
        #expect(withUnsafeBytes(of: report.senders) { $0.bindMemory(to: fos_fleet_sender.self).count { $0.requests > 0 } } == 3)
        manager.programs.note(report)
        manager.programs.noteMeasured(15, by: 0)
        manager.programs.endInterval()
        #expect(manager.programs.busiest(of: 0)?.cpu == 15 && manager.programs.unsaid(of: 0) == 10 * 256 / 8)
        report.senders.0 = fos_fleet_sender(cpu: 3, requests: .max)
        for _ in 0..<10_000 {
            for _ in 0..<40 { manager.programs.note(report) }
            manager.programs.noteMeasured(.max, by: 0)
            manager.programs.endInterval()
            guard manager.programs.weight(0, cpu: 3) < 500_000_000 else { break }
        }
        #expect(manager.programs.busiest(of: 0)?.cpu == 3 && PlacesTests.cores(1, manager).count == 1)
    }

    @Test func aReportHasTheCPUsThatAskMost() {
        // 100 CPUs, more than a report has room for; those from 80 on ask most.
        let report = PlacesTests.report(of: 0, (0..<100).map { ($0, $0 < 80 ? 1 : 3) })
        let cpus = withUnsafeBytes(of: report.senders) { $0.bindMemory(to: fos_fleet_sender.self).map { Int($0.cpu) } }
        #expect(cpus.count == 64 && Set(cpus).isSuperset(of: 80..<100))
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
