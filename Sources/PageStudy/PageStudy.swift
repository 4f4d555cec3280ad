// The paper's figure 1, Linux and fos side by side: processes allocate memory and touch the first byte of every page.
//
// Protocol: rounds in which every method has its turn, so that what disturbs the machine disturbs all; the first rounds are
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

    /// What the fleet keeps for so many processes, of one frame size. A region is one client's: the last of each is not used up.
    func reserve(_ processes: Int) -> Int { processes * (bytes + Int(FOS_MEMORY_REGION_BYTES_MAX)) }

    /// What the fleet must be able to give: the reserve of both frame sizes, and a little for what does not divide.
    public var memoryNeeded: Int { 2 * reserve(processes) + (512 << 20) }
}

public struct StudyResult: Sendable {
    public let method: Method
    public let exercise: Exercise
    public let processes: Int
    /// Seconds per GiB: the round with the median total.
    public let split: Split
    /// Seconds per GiB in all, of every round that counts, in their order.
    public let rounds: [Double]

    public init(method: Method, exercise: Exercise, processes: Int, split: Split, rounds: [Double]) {
        self.method = method
        self.exercise = exercise
        self.processes = processes
        self.split = split
        self.rounds = rounds
    }
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
                "the mount has \(limit >> 20) MiB for programs, and the study needs \(options.memoryNeeded >> 20); mount with a larger --memory, or use a smaller --gib"
            )
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
                try keep(exercise == .reserve ? options.reserve(count) : 0)
                var runs: [Method: [Split]] = [:]
                let title = "\(exercise.rawValue), \(count) process\(count == 1 ? "" : "es")"
                try warmUp(title, exercise, processes: count)
                for round in 1...options.rounds {
                    for method in methods {
                        progress("\(title), round \(round) of \(options.rounds): \(method.title)")
                        runs[method, default: []].append(try once(method, exercise, processes: count))
                    }
                }
                for method in methods {
                    let splits = (runs[method] ?? []).map { $0 * (Double(1 << 30) / Double(options.bytes)) }
                    guard let median = Split.median(splits) else { continue }
                    results.append(
                        StudyResult(method: method, exercise: exercise, processes: count, split: median, rounds: splits.map(\.total)))
                }
            }
        }
        return results
    }

    /// Rounds that do not count: from the reserve until no method gets faster by a fifth any more. A virtual machine's host backs
    /// memory that the guest has anew bit by bit, and in larger pieces after a while; the steady state has its own first cycle.
    private func warmUp(_ title: String, _ exercise: Exercise, processes: Int) throws {
        var best: [Method: Double] = [:]
        for round in 1...(exercise == .reserve ? 8 : 1) {
            var isFaster = false
            for method in methods {
                progress("\(title), warming up, round \(round): \(method.title)")
                let total = try once(method, exercise, processes: processes).total
                let before = best[method] ?? .infinity
                if total < 0.8 * before { isFaster = true }
                best[method] = min(total, before)
            }
            if !isFaster { return }
        }
    }

    private func once(_ method: Method, _ exercise: Exercise, processes: Int) throws -> Split {
        let taking = workers.prefix(processes)
        try settle()
        // The steady state has a first cycle of its own.
        if exercise == .reserve {
            for worker in taking { try worker.tell("warm \(method.rawValue) \(options.bytes)") }
            for worker in taking { _ = try worker.answer() }
            try settle()
        }
        let start = fos_platform_monotonic_ns() + 3_000_000
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

    // MARK: What the fleet keeps

    private var kept = 0

    /// Sets what the fleet keeps zeroed of each frame size: for the reserve all that one run asks for, for the steady state nothing.
    private func keep(_ bytes: Int) throws {
        kept = bytes
        for method in methods where method.isFos { try fleet.setReserve(bytes, frameBytes: method.frameBytes) }
    }

    /// Without progress, ns. Linux may have to move much memory about before it has 2 MiB in a piece.
    private static let patience: UInt64 = 30_000_000_000

    /// Waits until the fleet has nothing to do: what it keeps is zeroed, what came back beyond that is Linux's again. Whatever is
    /// measured next, of Linux too, would share the machine with that work.
    private func settle() throws {
        var least = Int.max
        var deadline = fos_platform_monotonic_ns() + Self.patience
        while true {
            let left = try unsettledBytes()
            if left == 0 { return }
            if left < least {
                least = left
                deadline = fos_platform_monotonic_ns() + Self.patience
            }
            guard fos_platform_monotonic_ns() < deadline else {
                throw StudyError(
                    "the reserve of \(kept >> 20) MiB lacks or exceeds \(left >> 20) MiB for 30 s; is the machine short of memory?")
            }
            // A core that a client shares its CPU with steps aside for it, and puts off what it does while idle: zeroing.
            usleep(50_000)
        }
    }

    /// What is still to be zeroed, had from Linux or given back to it.
    private func unsettledBytes() throws -> Int {
        let members = try fleet.statistics()
        // Servers give back whole regions only.
        let spare = kept == 0 ? 0 : members.count * Int(FOS_MEMORY_REGION_BYTES_MAX)
        var left = 0
        for method in methods where method.isFos {
            var unbound = 0
            for statistics in members {
                let frames = method == .fosHuge ? statistics.frames.1 : statistics.frames.0
                unbound += Int(clamping: frames.unbound)
                left += Int(clamping: frames.retired &+ frames.dirty)
            }
            left += max(0, kept - unbound, unbound - kept - spare)
        }
        return left
    }
}
