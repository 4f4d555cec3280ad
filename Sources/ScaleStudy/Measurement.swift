// Measuring one point: the machine runs until so many operations are done; the first quarter only warms it up.

public import Simulator

public struct StudyOptions: Sendable {
    public var seed: UInt64 = 1
    /// Operations of one point, of all its clients together; and at least so many of each client.
    public var operations = 200_000
    public var operationsOfClient = 64
    public var costs = Costs.onChip
    /// Points measured at once.
    public var workers = 1
    public init() {}
}

enum Measurement {
    static func measure(_ point: StudyPoint, _ options: StudyOptions) throws(StudyFailure) -> Figures {
        let machine = try Machine(point, seed: options.seed, costs: options.costs)
        let host = machine.host
        let recorder = machine.recorder
        var wanted = max(options.operations, options.operationsOfClient * point.clients)
        // A directory of one's own stays below the size from which on it would be shared with other servers.
        if point.workload == .createPrivate { wanted = min(wanted, point.clients * (Machine.sharding.threshold - 1000)) }
        let warm = wanted / 4
        machine.start()
        guard host.run(until: { recorder.unready == 0 && recorder.operations >= warm }) else { throw stuck(machine) }
        let before = host.totals
        let began = host.time
        let first = recorder.operations
        recorder.latencies.reserve(wanted - warm)
        recorder.isOn = true
        guard host.run(until: { recorder.operations >= wanted }) else { throw stuck(machine) }
        if let (status, count) = recorder.failures.min(by: { $0.key < $1.key }) {
            throw StudyFailure(point: point, reason: "\(count) operations end with status \(status)")
        }
        if let violation = host.violations.first { throw StudyFailure(point: point, reason: violation) }

        var figures = Figures(point: point)
        let after = host.totals
        let operations = Double(recorder.operations - first)
        func each(_ count: UInt64) -> Double { Double(count) / operations }
        figures.operations = recorder.operations - first
        figures.throughput = operations / (Double(max(1, host.time - began)) / 1e12)
        figures.median = Double(recorder.latencies.quantile(0.5)) / 1000
        figures.percentile99 = Double(recorder.latencies.quantile(0.99)) / 1000
        figures.mean = Double(recorder.latencies.sum) / Double(max(1, recorder.latencies.count)) / 1000
        figures.messages = each(after.messages - before.messages)
        figures.hops = each(after.hops - before.hops)
        figures.forwards = each(after.forwards - before.forwards)
        figures.retries = each(after.retried - before.retried)
        figures.transport = each(after.transport - before.transport) / 1000
        figures.queueing = each(after.queueing - before.queueing) / 1000
        figures.service = each(after.service - before.service) / 1000
        figures.hash = host.eventHash
        return figures
    }

    private static func stuck(_ machine: Machine) -> StudyFailure {
        StudyFailure(point: machine.point, reason: "clients get no answers: \(machine.host.stuckThreads.count) wait")
    }
}
