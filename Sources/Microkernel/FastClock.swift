// FastClock: the time of letters and trace records, from the CPU's own counter.
//
// A letter's arrival and each trace record carry a time. clock_gettime costs 27 ns a reading, a quarter of a message's
// round trip; the time stamp counter costs a third. The counter is converted with a rate measured against
// CLOCK_MONOTONIC, and set right against it at every tick of the core, so that the two never drift apart.
// Invariant: best effort, for showing; the `monotonic` that servers see is always the kernel's clock.

import CPlatform

struct FastClock: BitwiseCopyable {
    /// Nanoseconds a tick, as a 32.32 fixed-point number; 0 until it has been measured, or where there is no counter.
    private var rate: UInt64 = 0
    private var baseTicks: UInt64
    private var baseTime: UInt64
    private var startTicks: UInt64
    private var startTime: UInt64
    private let steady: Bool
    /// A rate measured over less than this, ns, is too rough.
    private static var leastInterval: UInt64 { 5_000_000 }
    /// A reading further than this from the last correction is made with the kernel's clock.
    private static var longestInterval: UInt64 { 1 << 32 }

    init() {
        steady = fos_platform_ticks_are_steady() != 0
        startTicks = fos_platform_ticks()
        startTime = fos_platform_monotonic_ns()
        baseTicks = startTicks
        baseTime = startTime
    }

    /// Monotonic nanoseconds, within a few of CLOCK_MONOTONIC.
    mutating func now() -> UInt64 {
        guard rate != 0 else { return correct() }
        let ticks = fos_platform_ticks() &- baseTicks
        guard ticks < Self.longestInterval else { return correct() }
        return baseTime &+ (ticks &* rate) >> 32
    }

    /// Reads the kernel's clock and sets the counter right by it.
    @discardableResult
    mutating func correct() -> UInt64 {
        let time = fos_platform_monotonic_ns()
        let ticks = fos_platform_ticks()
        let elapsed = time &- startTime
        if steady, elapsed > Self.leastInterval, ticks > startTicks {
            rate = UInt64(Double(elapsed) / Double(ticks &- startTicks) * 4_294_967_296)
        }
        baseTicks = ticks
        baseTime = time
        return time
    }
}
