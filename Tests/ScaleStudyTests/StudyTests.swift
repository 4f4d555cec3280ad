// The study of scaling, in its smallest form: it is deterministic, and its figures are what they must be.

import FosCommand
import Testing

@testable import ScaleStudy

@Suite struct StudyTests {
    static func study(_ workloads: [Workload], _ cores: [Int], operations: Int = 600) -> Study {
        var study = Study()
        study.workloads = workloads
        study.cores = cores
        study.options.operations = operations
        study.options.operationsOfClient = 16
        return study
    }

    @Test(arguments: Workload.allCases) func aSeedIsOneRun(workload: Workload) throws {
        let study = Self.study([workload], [1, 4, 9])
        let first = try study.run()
        let second = try study.run()
        #expect(first.text == second.text && first.json.text == second.json.text && first.svg == second.svg)
        #expect(first.curves.map(\.hash) == second.curves.map(\.hash))
        #expect(first.curves.count == 3 * (workload == .createShared ? 3 : 2))
        for figures in first.curves + first.placements {
            #expect(figures.throughput > 0 && figures.median > 0 && figures.percentile99 >= figures.median)
            #expect(figures.operations >= 450)
        }
        var other = study
        other.options.seed = 2
        #expect(try other.run().curves.map(\.hash) != first.curves.map(\.hash))
    }

    /// A private operation is one request and one answer however many cores there are, and needs no other client.
    @Test func privateWorkNeedsOneRoundTrip() throws {
        let report = try Self.study([.stat, .createPrivate, .rename, .pages], [4, 16, 64], operations: 4000).run()
        for figures in report.curves where !figures.point.isSingleServer {
            #expect(figures.messages > 1.9 && figures.messages < 2.2, "\(figures.point)")
            #expect(figures.efficiency > 0.8 && figures.efficiency < 1.2, "\(figures.point): \(figures.efficiency)")
        }
    }

    /// Any name server takes any question, and passes on what is another's: one message more, and never two.
    @Test func namesAreOneForwardAway() throws {
        let report = try Self.study([.nameLookup], [4, 64], operations: 4000).run()
        for figures in report.curve(.nameLookup) { #expect(figures.messages <= 3.01 && figures.forwards <= 1.01, "\(figures.point)") }
    }

    /// One server for all is no faster than its service time lets it be, and waiting in its mailbox takes the rest.
    @Test func oneServerIsALock() throws {
        let report = try Self.study([.stat], [4, 64], operations: 4000).run()
        let large = report.curve(.stat, isSingleServer: true)[1]
        let most = 1e12 / Double(report.study.options.costs.turn)
        #expect(large.throughput <= most * 1.01 && large.throughput > most * 0.9)
        #expect(large.queueing > large.service)
        #expect(report.curve(.stat)[1].throughput > 10 * large.throughput)
    }

    /// The directory is sharded before the clocks run: requests are spread over the servers, and none is forwarded.
    @Test func sharedCreationsUseAllServers() throws {
        let report = try Self.study([.createShared], [64], operations: 8000).run()
        let sharded = report.curve(.createShared)[0]
        let whole = report.curve(.createShared, shards: false)[0]
        #expect(sharded.throughput > 5 * whole.throughput)
        #expect(sharded.forwards < 0.02 && sharded.messages < 2.1)
    }

    /// A file that is mapped is read without a message, by as many clients as there are.
    @Test func mappedFilesNeedNoMessage() throws {
        let report = try Self.study([.readPrivate, .readShared, .readFirst], [64], operations: 8000).run()
        #expect(report.curve(.readPrivate)[0].messages < 0.01 && report.curve(.readShared)[0].messages < 0.01)
        #expect(report.curve(.readFirst)[0].messages > 1.9)
    }

    @Test func distanceCosts() throws {
        let report = try Self.study([.stat], [64], operations: 4000).run()
        #expect(report.placements.map(\.point.placement) == [.near, .random, .adversarial])
        let hops = report.placements.map(\.hops)
        #expect(hops[0] < hops[1] && hops[1] < hops[2])
        #expect(report.placements[0].throughput > report.placements[2].throughput)
    }

    /// With the costs of a cache-coherent machine, as a file has them.
    @Test func calibratedMachines() throws {
        var study = Self.study([.stat, .pages], [4, 128], operations: 4000)
        study.options.costs.message = .coherent(sameCore: 10_000, sameCache: 30_000, samePackage: 54_000, otherPackage: 120_000)
        let report = try study.run()
        let medians = report.placements.filter { $0.point.workload == .stat }.map(\.median)
        #expect(medians.count == 3 && medians[0] < medians[2])
    }

    @Test func quantilesAreNearestRanks() {
        var sample = LatencySample()
        #expect(sample.quantile(0.5) == 0)
        for value in 1...200 { sample.add(UInt64(value)) }
        #expect(sample.quantile(0.5) == 100 && sample.quantile(0.99) == 198 && sample.quantile(1) == 200 && sample.quantile(0) == 1)
        sample.add(1000)
        #expect(sample.quantile(1) == 1000 && sample.count == 201)
    }

    @Test func numbersHaveTheirDigits() {
        #expect(digits(1.005, 2) == "1.00" && digits(-0.001, 2) == "0.00" && digits(-1.5, 0) == "-2" && digits(12.3456, 3) == "12.346")
        #expect(digits(.infinity, 1) == "0" && digits(0.999, 2) == "1.00")
    }

    @Test func figuresHaveAPanelForEachWorkload() throws {
        let report = try Self.study([.stat, .createShared], [1, 4, 16]).run()
        let svg = report.svg
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        // Perfect scaling, fos, and one server; and the directory that is not sharded.
        #expect(svg.components(of: "<polyline ") == 3 + 4)
        #expect(svg.components(of: "<circle ") == 3 * 2 + 3 * 3)
        #expect(!svg.contains("nan") && !svg.contains("inf"))
    }

    /// On logarithmic axes equal factors are equal distances.
    @Test func axesAreLogarithmic() {
        let plot = LogPlot(
            title: "a & b", xLabel: "x", yLabel: "y",
            curves: [LogPlot.Curve(name: "c", colour: "#000000", points: [(1, 1), (10, 100), (100, 10000), (0, 5)])])
        #expect(plot.svg.contains("points=\"64.0,334.0 274.0,184.0 484.0,34.0\""))
        #expect(plot.svg.contains("a &amp; b"))
    }
}

extension String {
    fileprivate func components(of part: String) -> Int {
        var count = 0
        var rest = Substring(self)
        while let found = rest.firstRange(of: part) {
            count += 1
            rest = rest[found.upperBound...]
        }
        return count
    }
}
