// What the study found, as tables and as JSON.

public import FosCommand
import Simulator

public struct StudyReport: Sendable {
    public let study: Study
    /// Points of the scaling curves, with their efficiency.
    public let curves: [Figures]
    public let placements: [Figures]
    /// Operations a second of a machine of two cores, by workload: what perfect scaling multiplies.
    public let bases: [Workload: Double]

    /// The curve of a workload, by cores.
    public func curve(_ workload: Workload, isSingleServer: Bool = false, shards: Bool = true) -> [Figures] {
        curves.filter { $0.point.workload == workload && $0.point.isSingleServer == isSingleServer && $0.point.shards == shards }
    }

    // MARK: Goals

    public struct Goal: Sendable {
        public let name: String
        public let figure: String
        public let isMet: Bool
    }

    /// The goals that the measured points can tell of.
    public var goals: [Goal] {
        var goals: [Goal] = []
        for workload in study.workloads where workload.isPrivate {
            guard let large = curve(workload).first(where: { $0.point.cores == 1024 }) else { continue }
            goals.append(
                Goal(
                    name: "\(workload.rawValue): efficiency at 1,024 cores at least 0.9", figure: digits(large.efficiency, 2),
                    isMet: large.efficiency >= 0.9))
        }
        for workload in study.workloads {
            let curve = curve(workload).filter { $0.point.cores >= 4 }
            guard let least = curve.map(\.messages).min(), let most = curve.map(\.messages).max(), curve.count > 1 else { continue }
            goals.append(
                Goal(
                    name: "\(workload.rawValue): messages of an operation constant", figure: "\(digits(least, 2)) to \(digits(most, 2))",
                    isMet: most - least <= 0.05 * max(least, 1)))
        }
        for workload in [Workload.createShared, .readShared] {
            let curve = curve(workload)
            guard let small = curve.last(where: { $0.point.servers <= 64 && $0.point.cores >= 64 }),
                let large = curve.last(where: { $0.point.servers > small.point.servers && $0.point.servers <= 2048 })
            else { continue }
            let growth = large.throughput / small.throughput
            goals.append(
                Goal(
                    name: "\(workload.rawValue): still growing from \(small.point.servers) to \(large.point.servers) servers",
                    figure: "\(digits(growth, 1)) x", isMet: growth > 1.2))
        }
        return goals
    }

    // MARK: Text

    public var text: String {
        var lines: [String] = []
        for workload in study.workloads {
            lines.append("\(workload.title) (\(workload.rawValue))")
            var table = TextTable(
                heading: [
                    "CORES", "SERVERS", "CLIENTS", "", "M OPS/S", "EFFICIENCY", "MEDIAN", "99TH", "MESSAGES", "HOPS", "CLIENT", "TRANSPORT",
                    "QUEUE",
                    "SERVICE",
                ], right: [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
            for figures in curves where figures.point.workload == workload { table.append(row(figures)) }
            lines += table.lines.map { "  " + $0 } + [""]
        }
        if !placements.isEmpty {
            lines.append("placement, on \(placements[0].point.cores) cores")
            var table = TextTable(
                heading: ["WORKLOAD", "PLACEMENT", "M OPS/S", "OF NEAR", "MEDIAN", "99TH", "HOPS", "TRANSPORT"], right: [2, 3, 4, 5, 6, 7])
            for figures in placements {
                let near = placements.first { $0.point.workload == figures.point.workload && $0.point.placement == .near }
                table.append([
                    figures.point.workload.rawValue, figures.point.placement.rawValue, digits(figures.throughput / 1e6, 2),
                    digits(figures.throughput / (near?.throughput ?? figures.throughput), 2), digits(figures.median, 0),
                    digits(figures.percentile99, 0),
                    digits(figures.hops, 1), digits(figures.transport, 0),
                ])
            }
            lines += table.lines.map { "  " + $0 } + [""]
        }
        if !goals.isEmpty {
            lines.append("goals")
            var table = TextTable(heading: ["GOAL", "FOUND", ""], right: [1])
            for goal in goals { table.append([goal.name, goal.figure, goal.isMet ? "" : "missed"]) }
            lines += table.lines.map { "  " + $0 } + [""]
        }
        lines.append("Times are ns of virtual time; messages, hops and times are of one operation. Seed \(study.options.seed).")
        return lines.joined(separator: "\n") + "\n"
    }

    private func row(_ figures: Figures) -> [String] {
        let point = figures.point
        return [
            "\(point.cores)", "\(point.servers)", "\(point.clients)",
            point.isSingleServer ? "one server" : point.shards ? "" : "not sharded",
            digits(figures.throughput / 1e6, 2), digits(figures.efficiency, 2), digits(figures.median, 0), digits(figures.percentile99, 0),
            digits(figures.messages, 2), digits(figures.hops, 1), digits(figures.client, 0), digits(figures.transport, 0),
            digits(figures.queueing, 0),
            digits(figures.service, 0),
        ]
    }

    // MARK: JSON

    public var json: JSON {
        .object([
            ("seed", .number(study.options.seed)), ("operations", .number(UInt64(study.options.operations))),
            ("points", .array(curves.map(object))), ("placements", .array(placements.map(object))),
            (
                "goals",
                .array(goals.map { .object([("name", .string($0.name)), ("found", .string($0.figure)), ("met", .bool($0.isMet))]) })
            ),
        ])
    }

    private func object(_ figures: Figures) -> JSON {
        let point = figures.point
        return .object([
            ("workload", .string(point.workload.rawValue)), ("cores", .number(UInt64(point.cores))),
            ("servers", .number(UInt64(point.servers))),
            ("clients", .number(UInt64(point.clients))), ("placement", .string(point.placement.rawValue)),
            ("singleServer", .bool(point.isSingleServer)),
            ("sharded", .bool(point.shards)),
            ("operations", .number(UInt64(figures.operations))),
            ("operationsPerSecond", .decimal(digits(figures.throughput, 0))), ("efficiency", .decimal(digits(figures.efficiency, 3))),
            ("medianNanoseconds", .decimal(digits(figures.median, 1))),
            ("percentile99Nanoseconds", .decimal(digits(figures.percentile99, 1))),
            ("meanNanoseconds", .decimal(digits(figures.mean, 1))), ("messages", .decimal(digits(figures.messages, 3))),
            ("hops", .decimal(digits(figures.hops, 2))), ("forwards", .decimal(digits(figures.forwards, 3))),
            ("retries", .decimal(digits(figures.retries, 3))), ("clientNanoseconds", .decimal(digits(figures.client, 1))),
            ("transportNanoseconds", .decimal(digits(figures.transport, 1))), ("queueNanoseconds", .decimal(digits(figures.queueing, 1))),
            ("serviceNanoseconds", .decimal(digits(figures.service, 1))), ("eventHash", .string(String(figures.hash, radix: 16))),
        ])
    }
}

/// A number with so many digits behind the point, as JSON and SVG take it too.
func digits(_ value: Double, _ places: Int) -> String {
    guard value.isFinite else { return "0" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = Int64((value.magnitude * scale).rounded())
    let whole = scaled / Int64(scale)
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(whole)" }
    let rest = String(scaled % Int64(scale))
    return "\(sign)\(whole).\(String(repeating: "0", count: places - rest.count))\(rest)"
}
