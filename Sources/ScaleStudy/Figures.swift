// The figures of one point: throughput, latency, messages, and where the time goes.

import Simulator

/// Latencies of operations, and their quantiles.
struct LatencySample {
    private var values: [VirtualTime] = []
    private var isSorted = true

    var count: Int { values.count }
    mutating func add(_ value: VirtualTime) {
        values.append(value)
        isSorted = false
    }
    mutating func reserve(_ count: Int) { values.reserveCapacity(count) }

    /// The smallest value that a part of all, 0...1, does not exceed (nearest rank); 0 of none.
    mutating func quantile(_ part: Double) -> VirtualTime {
        guard !values.isEmpty else { return 0 }
        if !isSorted {
            values.sort()
            isSorted = true
        }
        let rank = Int((part * Double(values.count)).rounded(.up))
        return values[min(max(rank, 1), values.count) - 1]
    }
    var sum: VirtualTime { values.reduce(0, +) }
}

/// What was measured at one point. Times are nanoseconds of virtual time, and of one operation where not said otherwise.
public struct Figures: Sendable, Equatable {
    public var point: StudyPoint
    public var operations = 0
    /// Operations a second.
    public var throughput = 0.0
    public var median = 0.0
    public var percentile99 = 0.0
    public var mean = 0.0
    /// Of one operation.
    public var messages = 0.0
    public var hops = 0.0
    public var forwards = 0.0
    /// Sends again on RETRY and FULL, of one operation.
    public var retries = 0.0
    // Where the time of one operation goes. Services of several servers may overlap, so these may sum up to more than the mean.
    public var transport = 0.0
    public var queueing = 0.0
    public var service = 0.0
    /// What is left: the client's own, and pauses between sends.
    public var client: Double { max(0, mean - transport - queueing - service) }
    /// Throughput of each core, relative to that of the smallest machine with a server core and a client core; 0: not known.
    public var efficiency = 0.0
    /// Of all events of the run: equal for equal seeds.
    public var hash: UInt64 = 0

    public init(point: StudyPoint) { self.point = point }
}
