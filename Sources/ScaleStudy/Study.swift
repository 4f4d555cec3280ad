// The whole study: which points are measured, and what follows from them together.

import Dispatch
import Synchronization

public struct Study: Sendable {
    public var options = StudyOptions()
    /// Sizes of the machine, ascending.
    public var cores = [1, 4, 16, 64, 255, 1024, 4096]
    public var workloads = Workload.allCases
    public init() {}

    /// Points of the scaling curves: fos, the single server, and for creations in one directory the same without shards.
    public var points: [StudyPoint] {
        workloads.flatMap { workload in
            cores.flatMap { cores in
                [StudyPoint(workload, cores: cores)]
                    + (workload == .createShared ? [StudyPoint(workload, cores: cores, shards: false)] : [])
                    + [StudyPoint(workload, cores: cores, isSingleServer: true)]
            }
        }
    }

    /// Points that compare placements: the private workloads on the largest machine up to 1,024 cores.
    public var placementPoints: [StudyPoint] {
        guard let cores = cores.filter({ $0 <= 1024 }).max(), cores >= 4 else { return [] }
        return workloads.filter { [.stat, .createPrivate, .nameLookup, .pages, .compile].contains($0) }.flatMap { workload in
            ClientPlacement.allCases.map { StudyPoint(workload, cores: cores, placement: $0) }
        }
    }

    /// Measures all points, several at once; each is a machine of its own, so the order is nobody's business. `progress` is told
    /// of each as it begins, by one thread at a time.
    public func run(_ progress: @escaping @Sendable (StudyPoint) -> Void = { _ in }) throws(StudyFailure) -> StudyReport {
        // Perfect scaling is that of the smallest machine where a client and a server have a core each: it pays for a
        // message once, and shares nothing.
        let bases = workloads.map { StudyPoint($0, cores: 2) }
        let found = try measure(bases + points + placementPoints, progress)
        var throughputs: [Workload: Double] = [:]
        for figures in found.prefix(bases.count) { throughputs[figures.point.workload] = figures.throughput }
        let curves = found[bases.count..<bases.count + points.count].map { figures in
            var figures = figures
            if let base = throughputs[figures.point.workload], base > 0 {
                figures.efficiency = figures.throughput / Double(figures.point.clients) / base
            }
            return figures
        }
        return StudyReport(study: self, curves: curves, placements: Array(found.suffix(placementPoints.count)), bases: throughputs)
    }

    private func measure(_ points: [StudyPoint], _ progress: @escaping @Sendable (StudyPoint) -> Void) throws(StudyFailure) -> [Figures] {
        let work = StudyWork(points)
        DispatchQueue.concurrentPerform(iterations: max(1, options.workers)) { [options] _ in
            while let (index, point) = work.next(progress) {
                work.done(index, Result { () throws(StudyFailure) in try Measurement.measure(point, options) })
            }
        }
        return try work.results.map { (result) throws(StudyFailure) in try result.get() }
    }
}

/// Points that are still to be measured, the largest first, and what was found.
private final class StudyWork: @unchecked Sendable {
    private let lock = Mutex(())
    private let points: [StudyPoint]
    private var waiting: [Int]
    private var found: [Int: Result<Figures, StudyFailure>] = [:]

    init(_ points: [StudyPoint]) {
        self.points = points
        waiting = points.indices.sorted { (points[$0].cores, $1) < (points[$1].cores, $0) }
    }
    /// nil: nothing is left, or a point could not be measured.
    func next(_ progress: (StudyPoint) -> Void) -> (Int, StudyPoint)? {
        lock.withLock { _ in
            guard let index = waiting.popLast() else { return nil }
            progress(points[index])
            return (index, points[index])
        }
    }
    func done(_ index: Int, _ result: Result<Figures, StudyFailure>) {
        lock.withLock { _ in
            found[index] = result
            if case .failure = result { waiting = [] }
        }
    }
    /// By point; only the first failure if there is one.
    var results: [Result<Figures, StudyFailure>] {
        let all = points.indices.compactMap { found[$0] }
        return all.first { if case .failure = $0 { true } else { false } }.map { [$0] } ?? all
    }
}
