// Measures what a message costs on its way: cache lines passed to and fro by two pinned threads, for each distance between
// two CPUs that this machine has.
//
// Role: the message part of a calibration. `Calibrator` has the service times.
// Method: one thread writes a word and waits for the other's word, each spinning; half of a round trip is a message's way.
// The same with the lines of a small request copied in and out tells what both ends do beside it. Rounds of both alternate,
// and medians are taken, so that both meet the same frequency and neighbours.

import CFosWire
import CHwloc
import CPlatform
import Glibc

/// Nanoseconds.
struct MessageTimes {
    /// One way, by distance as <fos/name.h> has it: 0, 10, 20, 40. Only those that two CPUs of this machine have.
    var ways: [Int: Double] = [:]
    /// What the two ends of a message do, together.
    var ends = 0.0
}

/// What the two threads share: a word each, and the lines of a message behind each.
private struct Wire: @unchecked Sendable {
    static var bodyBytes: Int { MemoryLayout<fos_message>.size + 64 }
    private static var side: Int { 4096 }
    private let base = UnsafeMutableRawPointer.allocate(byteCount: 2 * side, alignment: 4096)

    init() { clear() }
    func clear() { base.initializeMemory(as: UInt8.self, repeating: 0, count: 2 * Wire.side) }
    func free() { base.deallocate() }

    private func word(_ side: Int) -> UnsafeMutablePointer<UInt32> { (base + side * Wire.side).assumingMemoryBound(to: UInt32.self) }
    private func body(_ side: Int) -> UnsafeMutableRawPointer { base + side * Wire.side + 128 }

    @inline(__always) func send(_ number: UInt32, side: Int, _ message: UnsafeMutableRawPointer, bytes: Int) {
        if bytes > 0 { body(side).copyMemory(from: message, byteCount: bytes) }
        fos_store_release_u32(word(side), number)
    }
    @inline(__always) func await(_ number: UInt32, side: Int, _ message: UnsafeMutableRawPointer, bytes: Int) {
        while fos_load_acquire_u32(word(side)) != number {}
        if bytes > 0 { message.copyMemory(from: body(side), byteCount: bytes) }
    }
}

enum MessageCalibrator {
    private static var rounds: Int { 15 }
    private static var trips: UInt32 { 4000 }

    /// nil: there are no two CPUs, or the machine cannot be looked at.
    static func measure() -> MessageTimes? {
        let allowed = allowedCPUs()
        defer { _ = allowed.withUnsafeBufferPointer { fos_platform_pin_thread($0.baseAddress, Int32($0.count)) } }
        let pairs = pairs(of: allowed)
        guard !pairs.isEmpty else { return nil }
        var times = MessageTimes()
        var ends: [Double] = []
        for (distance, pair) in pairs.sorted(by: { $0.key < $1.key }) {
            var floors: [Double] = []
            for _ in 0..<rounds {
                let floor = roundTrip(pair, bytes: 0)
                floors.append(floor)
                ends.append((roundTrip(pair, bytes: Wire.bodyBytes) - floor) / 2)
            }
            times.ways[distance] = median(floors) / 2
        }
        times.ends = max(0, median(ends))
        return times
    }

    private static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

    private static func allowedCPUs() -> [Int32] {
        var cpus = [Int32](repeating: 0, count: 4096)
        let count = fos_platform_allowed_cpus(&cpus, Int32(cpus.count))
        return Array(cpus.prefix(Int(max(0, count))))
    }

    /// Two CPUs for each distance that there is.
    private static func pairs(of cpus: [Int32]) -> [Int: (Int32, Int32)] {
        var handle: hwloc_topology_t?
        guard hwloc_topology_init(&handle) == 0, let topology = handle else { return [:] }
        defer { hwloc_topology_destroy(topology) }
        guard hwloc_topology_load(topology) == 0 else { return [:] }
        let units = cpus.map { hwloc_get_pu_obj_by_os_index(topology, UInt32($0)) }
        var pairs: [Int: (Int32, Int32)] = [:]
        for first in cpus.indices {
            for second in cpus.indices where second > first {
                let distance = TopologyPlan.distance(topology, units[first], units[second])
                if pairs[distance] == nil { pairs[distance] = (cpus[first], cpus[second]) }
            }
        }
        return pairs
    }

    /// Mean of many, in ns.
    private static func roundTrip(_ pair: (Int32, Int32), bytes: Int) -> Double {
        let wire = Wire()
        defer { wire.free() }
        let (here, there) = pair
        guard pin(here), let other = Thread.start({ echo(wire, on: there, bytes: bytes) }) else { return 0 }
        let message = UnsafeMutableRawPointer.allocate(byteCount: Wire.bodyBytes, alignment: 64)
        message.initializeMemory(as: UInt8.self, repeating: 1, count: Wire.bodyBytes)
        defer { message.deallocate() }
        var begin: UInt64 = 0
        for number in 1...trips + 1 {
            // The first waits for the other thread to start.
            if number == 2 { begin = fos_platform_monotonic_ns() }
            wire.send(number, side: 0, message, bytes: bytes)
            wire.await(number, side: 1, message, bytes: bytes)
        }
        let time = fos_platform_monotonic_ns() - begin
        pthread_join(other, nil)
        return Double(time) / Double(trips)
    }

    private static func echo(_ wire: Wire, on cpu: Int32, bytes: Int) {
        _ = pin(cpu)
        let message = UnsafeMutableRawPointer.allocate(byteCount: Wire.bodyBytes, alignment: 64)
        defer { message.deallocate() }
        for number in 1...trips + 1 {
            wire.await(number, side: 0, message, bytes: bytes)
            wire.send(number, side: 1, message, bytes: bytes)
        }
    }

    private static func pin(_ cpu: Int32) -> Bool {
        var cpu = cpu
        return fos_platform_pin_thread(&cpu, 1) == 0
    }
}

private enum Thread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
    static func start(_ run: @escaping @Sendable () -> Void) -> pthread_t? {
        var thread = pthread_t()
        let body = Unmanaged.passRetained(Body(run)).toOpaque()
        let status = pthread_create(&thread, nil, { context in
            Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
            return nil
        }, body)
        guard status == 0 else {
            Unmanaged<Body>.fromOpaque(body).release()
            return nil
        }
        return thread
    }
}
