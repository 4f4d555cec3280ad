// Measures what each kind of request costs a server of this machine: the servers' own code, run by the simulator, with a
// clock around each turn.
//
// Role: a calibration file of this machine. What a turn costs is the same code in both worlds; what a message costs on its
// way, `MessageCalibrator` measures.
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
    /// A calibration of this machine, as `Costs.init(calibration:)` takes it; nil where it cannot be measured, which takes two
    /// CPUs. Its first member says which numbers are not measured.
    public static func measure(seed: UInt64) -> JSON? {
        guard let messages = MessageCalibrator.measure() else { return nil }
        let service = measureService(seed: seed)
        let (way, guesses) = ways(messages)
        let machine = (["measured on \(processor)", "clientWork is a guess"] + guesses).joined(separator: "; ")
        return .object([
            ("machine", .string(machine)), ("message", .object([("coherent", .object(way))])), ("turn", .number(service.turn)),
            ("response", .number(service.response)), ("send", tenths(messages.ends / 2)),
            ("bulkByte", .decimal(thousandths(nanosecondsPerByte(copying: true)))),
            ("zeroByte", .decimal(thousandths(nanosecondsPerByte(copying: false)))), ("clientSend", tenths(messages.ends / 2)),
            ("clientReceive", tenths(messages.ends / 2)), ("clientWork", .number(70)), ("service", .object(service.operations)),
        ])
    }

    /// All distances of a machine: what two CPUs here cannot tell is taken from the next that they can.
    private static func ways(_ times: MessageTimes) -> ([(String, JSON)], [String]) {
        var guesses: [String] = []
        func way(_ name: String, _ distance: Int, else others: [(Int, Double)]) -> (String, JSON) {
            if let time = times.ways[distance] { return (name, tenths(time)) }
            guesses.append("\(name) is a guess")
            let time = others.lazy.compactMap { other, factor in times.ways[other].map { $0 * factor } }.first ?? 0
            return (name, tenths(time))
        }
        let all = [
            way("sameCore", 0, else: [(10, 0.5), (20, 0.2), (40, 0.1)]), way("sameCache", 10, else: [(20, 0.5), (40, 0.25), (0, 2)]),
            way("samePackage", 20, else: [(10, 2), (40, 0.5), (0, 5)]), way("otherPackage", 40, else: [(20, 2), (10, 4), (0, 10)]),
        ]
        return (all, guesses)
    }

    private static var processor: String {
        let line = readText("/proc/cpuinfo")?.split(separator: "\n").first { $0.hasPrefix("model name") }
        return line?.split(separator: ":").last.map { String($0.drop(while: { $0 == " " })) } ?? "a machine without a name"
    }

    // MARK: Turns

    /// Medians in ns.
    private static func measureService(seed: UInt64) -> (turn: UInt64, response: UInt64, operations: [(String, JSON)]) {
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
        let known = times.operations.filter { $0 != 0 && OperationNames.number(of: OperationNames.name(of: $0)) != nil }
        let medians = known.compactMap { operation in times.median(operation).map { (OperationNames.name(of: operation), $0) } }
        let sorted = medians.map(\.1).sorted()
        return (sorted.isEmpty ? 0 : sorted[sorted.count / 2], times.median(0) ?? 0, medians.map { ($0.0, .number($0.1)) })
    }

    // MARK: Bytes

    /// Of copying or zeroing pieces of 64 KiB, which a server's caches hold in part, as they do those of files.
    private static func nanosecondsPerByte(copying: Bool) -> Double {
        let piece = 65536
        let pieces = 256
        let room = UnsafeMutableRawPointer.allocate(byteCount: piece * (pieces + 1), alignment: 4096)
        defer { room.deallocate() }
        memset(room, 1, piece * (pieces + 1))
        var rounds: [Double] = []
        for _ in 0..<9 {
            let begin = TurnTimes.clock()
            for number in 1...pieces {
                if copying { memcpy(room + number * piece, room, piece) } else { memset(room + number * piece, 0, piece) }
            }
            rounds.append(Double(TurnTimes.clock() - begin) / Double(piece * pieces))
        }
        return rounds.sorted()[rounds.count / 2]
    }

    private static func tenths(_ value: Double) -> JSON {
        let all = UInt64((max(0, value) * 10).rounded())
        return .decimal("\(all / 10).\(all % 10)")
    }
    private static func thousandths(_ value: Double) -> String {
        let all = UInt64((max(0, value) * 1000).rounded())
        let rest = String(all % 1000)
        return "\(all / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
    }
}
