// The whole study: which points are measured, and what follows from them together.

public struct Study: Sendable {
    public var options = StudyOptions()
    /// Sizes of the machine, ascending.
    public var cores = [1, 4, 16, 64, 255, 1024, 4096]
    public var workloads = Workload.allCases
    public init() {}

    /// Points of the scaling curves: fos, the single server, and for creations in one directory the same without shards.
    public var points: [StudyPoint] {
        workloads.flatMap { workload in
            cores.flatMap { cores -> [StudyPoint] in
                var points = [StudyPoint(workload, cores: cores)]
                if workload == .createShared { points.append(StudyPoint(workload, cores: cores, shards: false)) }
                // One server of many clients saturates at once: larger machines add nothing but waiting.
                points.append(StudyPoint(workload, cores: cores, isSingleServer: true))
                return points
            }
        }
    }

    /// Points that compare placements: the private workloads on the largest machine up to 1,024 cores.
    public var placementPoints: [StudyPoint] {
        guard let cores = cores.filter({ $0 <= 1024 }).max(), cores >= 4 else { return [] }
        return workloads.filter { [.stat, .createPrivate, .nameLookup, .compile].contains($0) }.flatMap { workload in
            Placement.allCases.map { StudyPoint(workload, cores: cores, placement: $0) }
        }
    }

    /// Measures all points. `progress` is told of each before it begins.
    public func run(_ progress: (StudyPoint) -> Void = { _ in }) throws(StudyFailure) -> StudyReport {
        var bases: [Workload: Double] = [:]
        var curves: [Figures] = []
        for point in points {
            progress(point)
            var figures = try Measurement.measure(point, options)
            // Perfect scaling is that of the smallest machine where a client and a server have a core each: it pays for a
            // message once, and shares nothing.
            if bases[point.workload] == nil { bases[point.workload] = try base(of: point.workload) }
            if let base = bases[point.workload], base > 0 { figures.efficiency = figures.throughput / Double(point.clients) / base }
            curves.append(figures)
        }
        var placements: [Figures] = []
        for point in placementPoints {
            progress(point)
            placements.append(try Measurement.measure(point, options))
        }
        return StudyReport(study: self, curves: curves, placements: placements, bases: bases)
    }

    /// Operations a second of a machine of two cores.
    private func base(of workload: Workload) throws(StudyFailure) -> Double {
        var options = options
        options.operations = min(options.operations, 20_000)
        return try Measurement.measure(StudyPoint(workload, cores: 2), options).throughput
    }
}
