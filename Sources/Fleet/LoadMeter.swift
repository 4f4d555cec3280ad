// LoadMeter: how long requests wait for a server, from arrival to service.
//
// Role: what growth and shrinking go by. The microkernel stamps each request as it takes it in (`envelope.arrived`); a
// server looks at the clock at one request in sixteen, so that measuring costs next to nothing.
// Invariants: counts only grow, so a report that is lost loses nothing; the longest wait is since the last report.

public import CFosWire

public struct LoadMeter: BitwiseCopyable {
    public private(set) var requests: UInt64 = 0
    public private(set) var samples: UInt64 = 0
    /// Nanoseconds.
    public private(set) var delaySum: UInt64 = 0
    public private(set) var delayMax: UInt64 = 0
    /// `requests` as of the last report.
    private var reported: UInt64 = 0

    public init() {}

    /// One of how many requests is measured.
    public static var stride: UInt64 { 16 }

    /// Counts a request. True: `measure` this one.
    public mutating func count() -> Bool {
        requests &+= 1
        return requests & (LoadMeter.stride - 1) == 1
    }

    /// - Parameters:
    ///   - arrived: when the microkernel took the request in; 0 if nobody knows.
    ///   - now: monotonic ns.
    public mutating func measure(arrived: UInt64, now: UInt64) {
        guard arrived > 0 else { return }
        let delay = now > arrived ? now - arrived : 0
        samples &+= 1
        delaySum &+= delay
        delayMax = max(delayMax, delay)
    }

    /// Whether anything has happened since the last report.
    public var hasNews: Bool { requests != reported }

    /// Fills the meter's part of a report, and begins the next interval.
    public mutating func report(into report: inout fos_fleet_report) {
        report.requests = requests
        report.samples = samples
        report.delay_sum = delaySum
        report.delay_max = delayMax
        delayMax = 0
        reported = requests
    }
}
