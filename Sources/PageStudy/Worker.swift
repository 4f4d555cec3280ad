// One process of the study: does what it is told on standard input, and answers with the split of its time.
//
// Protocol: a line "METHOD EXERCISE BYTES CYCLES START" (START in ns of CLOCK_MONOTONIC, when all begin at once) is answered
// by "call fault zeroing waiting", in seconds, or "error TEXT". For fos, "free" gives everything back. "warm METHOD BYTES" has
// and touches the memory once and gives it back: what is measured right after it finds memory that is in use. On a virtual machine
// that costs much otherwise: a host takes free pages back (0.5 to 3 ms for 2 MiB had anew), and puts aside those that nobody
// touched for some seconds (70 ms a GiB for touching them again, measured, against 4).
// The parts: fault is the time of the touching loop, and of mappings that fault in; waiting is what was not spent on the
// processor, and for fos the time from a message to its answer; zeroing is what the bytes would take this processor to zero
// (measured at start, piece by piece) and is taken out of the part that it happened in, at most all of it.

import CFosWire
import CPlatform
import Glibc

public struct StudyError: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

public final class Worker {
    private let uid: UInt32
    private let instance: String
    private var frames: FrameClient?
    /// Seconds that zeroing a byte takes, in pages of 4 KiB and in pages of 2 MiB.
    private let zeroingSmall: Double
    private let zeroingHuge: Double

    public init(uid: UInt32, instance: String) {
        self.uid = uid
        self.instance = instance
        zeroingSmall = Self.zeroingRate(piece: 4096)
        zeroingHuge = Self.zeroingRate(piece: 2 << 20)
    }

    /// Answers lines until the end of input.
    public func run() {
        while let line = readLine() {
            var said: String
            do { said = try answer(line.split(separator: " ").map(String.init)) } catch { said = "error \(error)" }
            said += "\n"
            guard write(STDOUT_FILENO, said, said.utf8.count) == said.utf8.count else { return }
        }
    }

    private func answer(_ words: [String]) throws -> String {
        if words == ["free"] {
            try frames?.retireAll()
            return "done"
        }
        if words.count == 3, words[0] == "warm", let method = Method(rawValue: words[1]), let bytes = Int(words[2]), bytes > 0 {
            try warm(method, bytes)
            return "done"
        }
        guard words.count == 5, let method = Method(rawValue: words[0]), let exercise = Exercise(rawValue: words[1]),
            let bytes = Int(words[2]), let cycles = Int(words[3]), let start = UInt64(words[4]), bytes > 0, cycles > 0
        else { throw StudyError("bad order \(words)") }
        try connect(method)
        while fos_platform_monotonic_ns() < start { fos_spin_pause() }
        let frees = exercise == .steady
        func once() throws -> Split { try method.isFos ? runFos(method, bytes, frees: frees) : runLinux(method, bytes, frees: frees) }
        // The first cycle finds what others have left, good or bad; those after it are alike.
        if frees { _ = try once() }
        let before = method.isFos && frees ? try frames?.zeroedEver() ?? 0 : 0
        var sum = Split()
        let n = frees ? cycles : 1
        for _ in 0..<n { sum = try sum + once() }
        if method.isFos, frees, let frames {
            let zeroing = min(sum.waiting, Double(try frames.zeroedEver() - before) * zeroingHuge)
            sum.zeroing += zeroing
            sum.waiting -= zeroing
        }
        return [sum.call, sum.fault, sum.zeroing, sum.waiting].map { String($0 / Double(n)) }.joined(separator: " ")
    }

    private func connect(_ method: Method) throws {
        if method.isFos, frames == nil { frames = try FrameClient(uid: uid, name: instance) }
    }

    private func warm(_ method: Method, _ bytes: Int) throws {
        try connect(method)
        _ = try method.isFos ? runFos(method, bytes, frees: true) : runLinux(method, bytes, frees: true)
        try frames?.retireAll()
    }

    // MARK: Linux

    private func runLinux(_ method: Method, _ bytes: Int, frees: Bool) throws -> Split {
        var clock = Clock()
        let room = try reserveRoom(bytes)
        let base = room.aligned
        guard mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED else {
            throw StudyError("mmap: \(String(cString: strerror(errno)))")
        }
        madvise(base, bytes, method == .linuxHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE)
        clock.lap(\.call)
        touch(base, bytes)
        clock.lap(\.fault)
        var split = clock.split
        if frees {
            munmap(room.start, room.bytes)
            clock.lap(\.call)
            split = clock.split
        }
        let waited = clock.offProcessor
        split.fault = max(0, split.fault - waited)
        split.waiting = waited
        let zeroing = min(split.fault, Double(bytes) * (method == .linuxHuge ? zeroingHuge : zeroingSmall))
        split.fault -= zeroing
        split.zeroing = zeroing
        if !frees { munmap(room.start, room.bytes) }
        return split
    }

    // MARK: fos

    private func runFos(_ method: Method, _ bytes: Int, frees: Bool) throws -> Split {
        guard let frames else { throw StudyError("not connected") }
        var clock = Clock()
        let room = try reserveRoom(bytes)
        clock.lap(\.call)
        var offset = 0
        while offset < bytes {
            let extents = try frames.allocate(bytes - offset, frameBytes: method.frameBytes)
            clock.lap(\.waiting)
            for extent in extents {
                // 4 KiB frames are all mapped at once; of 2 MiB frames each is one fault.
                try frames.map(extent, at: room.aligned + offset, populate: method == .fosSmall)
                offset += Int(extent.bytes)
            }
            if method == .fosSmall { clock.lap(\.fault) } else { clock.lap(\.call) }
        }
        if method == .fosHuge { madvise(room.aligned, bytes, MADV_HUGEPAGE) }
        clock.lap(\.call)
        touch(room.aligned, bytes)
        clock.lap(\.fault)
        if frees {
            munmap(room.start, room.bytes)
            clock.lap(\.call)
            try frames.freeAll()
            clock.lap(\.waiting)
        }
        let split = clock.split
        if !frees {
            munmap(room.start, room.bytes)
            try frames.freeAll()
        }
        return split
    }

    // MARK: Parts

    private struct Room {
        let start: UnsafeMutableRawPointer
        let bytes: Int
        /// A multiple of 2 MiB.
        let aligned: UnsafeMutableRawPointer
    }

    private func reserveRoom(_ bytes: Int) throws -> Room {
        let huge = 2 << 20
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let start = mmap(nil, bytes + huge, PROT_NONE, flags, -1, 0), start != MAP_FAILED else {
            throw StudyError("no address space: \(String(cString: strerror(errno)))")
        }
        let aligned = (UInt(bitPattern: start) + UInt(huge) - 1) & ~UInt(huge - 1)
        return Room(start: start, bytes: bytes + huge, aligned: UnsafeMutableRawPointer(bitPattern: aligned)!)
    }

    private func touch(_ base: UnsafeMutableRawPointer, _ bytes: Int) {
        for offset in stride(from: 0, to: bytes, by: 4096) { base.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self) }
    }

    private static func zeroingRate(piece: Int) -> Double {
        let bytes = 64 << 20
        guard let room = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), room != MAP_FAILED else { return 0 }
        defer { munmap(room, bytes) }
        memset(room, 1, bytes)
        var best = Double.infinity
        for _ in 0..<3 {
            let start = fos_platform_monotonic_ns()
            for offset in stride(from: 0, to: bytes, by: piece) { memset(room + offset, 0, piece) }
            best = min(best, Double(fos_platform_monotonic_ns() - start) * 1e-9)
        }
        return best / Double(bytes)
    }
}

/// Laps of one run: the wall clock by part, and the time that the thread was not on a processor.
private struct Clock {
    private(set) var split = Split()
    private let start = fos_platform_monotonic_ns()
    private let startOnProcessor = fos_platform_thread_cpu_ns()
    private var last = fos_platform_monotonic_ns()

    mutating func lap(_ part: WritableKeyPath<Split, Double>) {
        let now = fos_platform_monotonic_ns()
        split[keyPath: part] += Double(now - last) * 1e-9
        last = now
    }

    var offProcessor: Double {
        let wall = Double(last - start) * 1e-9
        return max(0, wall - Double(fos_platform_thread_cpu_ns() - startOnProcessor) * 1e-9)
    }
}
