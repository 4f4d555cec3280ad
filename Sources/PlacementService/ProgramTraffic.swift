// ProgramTraffic: how much programs on each CPU ask of each server; the fixed points of the problem of places.
//
// Role: the servers' reports say from which CPUs they were asked (`fos_fleet_sender`). Linux moves programs as it likes, so what
// one interval shows is smoothed: an eighth of each new interval, with some eight intervals (0.8 s) to forget. Programs on one
// CPU are one party, since all distances from there are the same.
// Invariants: what a report says of CPUs that do not exist counts as said by nobody; weights are in 1/256 of a measured request.

import CFosWire

struct ProgramTraffic: ~Copyable {
    let servers: Int
    /// Rows of the distance matrix that are CPUs.
    private let rows: Range<Int>
    /// A row a server, a column a CPU and one more, for requests of which nobody said where they came from.
    private let weights: UnsafeMutablePointer<UInt32>
    /// Requests of the interval that goes on.
    private let fresh: UnsafeMutablePointer<UInt32>

    var cpus: Int { rows.count }
    private var columns: Int { rows.count + 1 }
    private var unsaid: Int { rows.count }
    private static var unit: UInt32 { 256 }
    private static var smoothing: UInt32 { 8 }
    /// Most requests of an interval that count, so that weights do not overflow.
    private static var most: UInt32 { UInt32.max / (unit * smoothing) }

    init(servers: Int, cpus: Range<Int>) {
        self.servers = servers
        rows = cpus
        let cells = servers * (cpus.count + 1)
        weights = .allocate(capacity: cells)
        weights.initialize(repeating: 0, count: cells)
        fresh = .allocate(capacity: cells)
        fresh.initialize(repeating: 0, count: cells)
    }
    deinit {
        weights.deallocate()
        fresh.deallocate()
    }

    /// Row of the distance matrix for a CPU.
    func row(of cpu: Int) -> Int { rows.lowerBound + cpu }

    /// Takes in what a server's report says; its member number has been checked.
    mutating func note(_ report: fos_fleet_report) {
        let cells = fresh + Int(report.member) * columns
        withUnsafeBytes(of: report.senders) { bytes in
            for sender in bytes.bindMemory(to: fos_fleet_sender.self) {
                if sender.requests == 0 { break }
                guard Int(sender.cpu) < cpus else { continue }
                cells[Int(sender.cpu)] = min(cells[Int(sender.cpu)] &+ UInt32(sender.requests), ProgramTraffic.most)
            }
        }
    }

    /// So many requests of the interval were measured by a server, wherever they came from.
    mutating func noteMeasured(_ requests: UInt64, by server: Int) {
        let cells = fresh + server * columns
        let said = (0..<cpus).reduce(UInt64(0)) { $0 + UInt64(cells[$1]) }
        cells[unsaid] = UInt32(clamping: min(requests > said ? requests - said : 0, UInt64(ProgramTraffic.most)))
    }

    /// An interval with reports is over.
    mutating func endInterval() {
        for cell in 0..<servers * columns where fresh[cell] > 0 || weights[cell] > 0 {
            let (old, now) = (weights[cell], fresh[cell] * ProgramTraffic.unit)
            // Rounded away from the old weight, so that it gets there.
            let step = ((max(old, now) - min(old, now)) + ProgramTraffic.smoothing - 1) / ProgramTraffic.smoothing
            weights[cell] = now > old ? old + step : old - step
            fresh[cell] = 0
        }
    }

    /// A server serves no more.
    mutating func forget(_ server: Int) {
        (weights + server * columns).update(repeating: 0, count: columns)
        (fresh + server * columns).update(repeating: 0, count: columns)
    }

    /// What programs on a CPU ask of a server.
    func weight(_ server: Int, cpu: Int) -> UInt64 { UInt64(weights[server * columns + cpu]) }
    /// What is asked of a server by nobody knows whom: other servers, and clients that do not say where they run.
    func unsaid(of server: Int) -> UInt64 { UInt64(weights[server * columns + unsaid]) }

    /// The CPU from which programs ask most of a server, and its part of all that programs ask; nil: none does.
    func busiest(of server: Int) -> (cpu: Int, percent: Int)? {
        let all = (0..<cpus).reduce(UInt64(0)) { $0 + weight(server, cpu: $1) }
        guard all > 0, let cpu = (0..<cpus).max(by: { weight(server, cpu: $0) < weight(server, cpu: $1) }) else { return nil }
        return (cpu, Int(weight(server, cpu: cpu) * 100 / all))
    }
}
