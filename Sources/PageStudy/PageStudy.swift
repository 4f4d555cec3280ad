// The paper's figure 1, Linux and fos side by side: processes allocate memory and touch the first byte of every page.
//
// Protocol: rounds in which every method has its turn, so that what disturbs the machine disturbs all; the first round is
// not counted, and of the others the medians are. Two exercises: `reserve`, with all frames zeroed before, and `steady`,
// allocate-touch-free over and over, in which every byte must be zeroed again in the time that is measured.
// Invariants: a result is per process and GiB. Where several processes run, they begin at the same moment, and a result is
// the mean of theirs.

import CFosWire
import CPlatform
import Glibc

public struct StudyOptions: Sendable {
    /// Runs with one process, and with so many at once.
    public var processes = 2
    public var bytes = 1 << 30
    public var rounds = 5
    /// Allocate-free cycles of one steady run.
    public var cycles = 3
    public init() {}

    /// What the fleet must be able to give: the reserve of both frame sizes, and a little for what does not divide.
    public var memoryNeeded: Int { 2 * processes * bytes + (512 << 20) }
}

public struct StudyResult: Sendable {
    public let method: Method
    public let exercise: Exercise
    public let processes: Int
    /// Seconds per GiB.
    public let split: Split
}

public final class PageStudy {
    private let options: StudyOptions
    private let workers: [WorkerProcess]
    private let fleet: FrameClient
    private let methods: [Method]
    private let progress: (String) -> Void

    /// - Parameters:
    ///   - uid, instance: the mount whose memory fleet is measured. This process must be its owner's or root's.
    ///   - worker: the command of one worker (`Worker.run`).
    public init(_ options: StudyOptions, uid: UInt32, instance: String, worker: [String], progress: @escaping (String) -> Void) throws {
        self.options = options
        self.progress = progress
        fleet = try FrameClient(uid: uid, name: instance)
        let statistics = try fleet.statistics()
        let limit = statistics.reduce(0) { $0 &+ Int(clamping: $1.limit) }
        guard limit >= options.memoryNeeded else {
            throw StudyError(
                "the mount has \(limit >> 20) MiB for programs, and the study needs \(options.memoryNeeded >> 20); mount with a larger --memory, or use a smaller --gib")
        }
        methods = Method.allCases.filter { $0 != .fosHuge || statistics.allSatisfy { $0.huge != 0 } }
        workers = try (0..<options.processes).map { _ in try WorkerProcess(worker) }
    }

    /// Whether frames of 2 MiB are among what is measured.
    public var hasHugeFrames: Bool { methods.contains(.fosHuge) }

    public func run() throws -> [StudyResult] {
        var results: [StudyResult] = []
        for exercise in [Exercise.steady, .reserve] {
            for count in Set([1, options.processes]).sorted() {
                var runs: [Method: [Split]] = [:]
                for round in 0...options.rounds {
                    for method in methods {
                        progress("\(exercise.rawValue), \(count) process\(count == 1 ? "" : "es"), round \(round) of \(options.rounds): \(method.title)")
                        let split = try once(method, exercise, processes: count)
                        if round > 0 { runs[method, default: []].append(split) }
                    }
                }
                for method in methods {
                    guard let median = Split.median(runs[method] ?? []) else { continue }
                    results.append(
                        StudyResult(method: method, exercise: exercise, processes: count, split: median * (Double(1 << 30) / Double(options.bytes))))
                }
            }
        }
        return results
    }

    /// Without any frame more in the reserve, ns. Linux may have to move much memory about before it has 2 MiB in a piece.
    private static let patience: UInt64 = 30_000_000_000

    private func once(_ method: Method, _ exercise: Exercise, processes: Int) throws -> Split {
        if method.isFos { try prepare(method, exercise, processes: processes) }
        let start = fos_platform_monotonic_ns() + 3_000_000
        let taking = workers.prefix(processes)
        for worker in taking { try worker.tell("\(method.rawValue) \(exercise.rawValue) \(options.bytes) \(options.cycles) \(start)") }
        var sum = Split()
        for worker in taking { sum = try sum + worker.split() }
        if method.isFos {
            for worker in taking {
                try worker.tell("free")
                _ = try worker.answer()
            }
        }
        return sum * (1 / Double(processes))
    }

    /// For the reserve: all that will be asked for, zeroed and unbound. For the steady state: nothing kept.
    private func prepare(_ method: Method, _ exercise: Exercise, processes: Int) throws {
        let wanted = exercise == .reserve ? processes * options.bytes : 0
        try fleet.setReserve(wanted, frameBytes: method.frameBytes)
        var most = 0
        var deadline = fos_platform_monotonic_ns() + Self.patience
        while true {
            var unbound = 0
            var unsettled = 0
            for statistics in try fleet.statistics() {
                let frames = method == .fosHuge ? statistics.frames.1 : statistics.frames.0
                unbound += Int(clamping: frames.unbound)
                unsettled += Int(clamping: frames.retired &+ frames.dirty)
            }
            if unbound >= wanted, unsettled == 0 { return }
            if unbound > most {
                most = unbound
                deadline = fos_platform_monotonic_ns() + Self.patience
            }
            guard fos_platform_monotonic_ns() < deadline else {
                throw StudyError("the reserve stays at \(unbound >> 20) of \(wanted >> 20) MiB for 30 s; is the machine short of memory?")
            }
            // A core that a client shares its CPU with steps aside for it, and puts off what it does while idle: zeroing.
            usleep(50_000)
        }
    }
}
