// Measures what each kind of request costs a server of this machine: the servers' own code, run by the simulator, with a
// clock around each turn.
//
// Role: the service times of a calibration file. What a message costs on its way is measured by Benchmarks/messages on the
// live system; what a turn costs is the same code in both worlds.
// Invariant: medians of many turns, less the cost of reading the clock, and only of turns that nothing was forwarded in.

import CFosWire
import FileService
public import FosCommand
import Glibc
import Messaging
import Simulator

/// A file server whose turns are timed.
private final class TimedFileMember: SimServer {
    var server: FileServer<MemoryStore>
    private let times: TurnTimes
    init(_ server: consuming FileServer<MemoryStore>, _ times: TurnTimes) {
        self.server = server
        self.times = times
        super.init()
    }
    override func receive(_ request: Request, _ kernel: SimKernel) {
        let operation = request.operation
        let begin = TurnTimes.clock()
        server.receive(request, kernel)
        times.add(operation, TurnTimes.clock() - begin)
    }
    override func resume(_ response: Response, _ kernel: SimKernel) {
        let begin = TurnTimes.clock()
        server.resume(response, kernel)
        times.add(0, TurnTimes.clock() - begin)
    }
    override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}

private final class TurnTimes {
    private var samples: [UInt16: [UInt64]] = [:]
    static func clock() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }
    /// Operation 0: a turn that goes on with a response.
    func add(_ operation: UInt16, _ nanoseconds: UInt64) { samples[operation, default: []].append(nanoseconds) }
    func median(_ operation: UInt16) -> UInt64? {
        guard let all = samples[operation], all.count >= 100 else { return nil }
        let sorted = all.sorted()
        return sorted[sorted.count / 2] - min(sorted[sorted.count / 2], overhead)
    }
    var operations: [UInt16] { samples.keys.sorted() }
    private lazy var overhead: UInt64 = {
        let all = (0..<2001).map { _ in
            let begin = TurnTimes.clock()
            return TurnTimes.clock() - begin
        }
        return all.sorted()[1000]
    }()
}

public enum Calibrator {
    /// Service times of this machine as the members of a calibration file: medians in ns.
    public static func measure(seed: UInt64) -> JSON {
        let times = TurnTimes()
        var scenario = Scenario()
        scenario.fileServers = 2
        scenario.workload.clients = 2
        scenario.workload.operations = 40_000
        scenario.workload.directories = 16
        scenario.workload.names = 32
        scenario.workload.caching = false
        let run = ScenarioRun(
            scenario, seed: seed, topology: CoreTopology(mesh: 16), costs: .onChip,
            wrap: { TimedFileMember($0.fileServer($1, store: MemoryStore()), times) })
        run.runUnchecked()
        let service = times.operations.compactMap { operation -> (String, JSON)? in
            guard operation != 0, OperationNames.number(of: OperationNames.name(of: operation)) != nil, let median = times.median(operation) else { return nil }
            return (OperationNames.name(of: operation), .number(median))
        }
        return .object([("response", .optional(times.median(0))), ("service", .object(service))])
    }
}
