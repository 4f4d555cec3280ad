// FleetPolicy: how many servers a fleet should have, from how long requests wait for them.
//
// Role: pure; the fleet manager asks it once an interval and acts on what it says.
// Rules: a fleet grows by one when the mean wait was above `growDelay` for `growIntervals` in a row, and shrinks by one
// when it was below `shrinkDelay` for `shrinkIntervals` in a row, or nothing was asked. The two bounds lie far apart and
// shrinking takes much longer than growing, so a fleet does not swing; after each change the policy waits until it has
// come to its end and a few intervals more. A mean of few requests says little, and counts as none.

public struct FleetPolicy: Sendable, Equatable {
    /// Nanoseconds that requests wait on average before another server is worth its cost: the time of some tens of requests.
    public var growDelay: UInt64 = 100_000
    public var growIntervals = 3
    /// Nanoseconds below which one server less would do.
    public var shrinkDelay: UInt64 = 5_000
    public var shrinkIntervals = 50
    /// Intervals after a change in which nothing is decided.
    public var restIntervals = 5
    /// Requests in an interval for their mean to count.
    public var fewestSamples: UInt64 = 16

    private var above = 0
    private var below = 0
    private var rest = 0

    public init() {}

    /// The size that the fleet should have now.
    /// - Parameters:
    ///   - samples: requests of the last interval whose wait was measured, over all servers.
    ///   - delaySum: what they waited in all, ns.
    ///   - members: servers now; `minimum` and `maximum` bound the answer.
    ///   - isChanging: the last change is under way.
    public mutating func decide(samples: UInt64, delaySum: UInt64, members: Int, minimum: Int, maximum: Int, isChanging: Bool) -> Int {
        if isChanging {
            (above, below, rest) = (0, 0, restIntervals)
            return members
        }
        if rest > 0 {
            rest -= 1
            return members
        }
        let counts = samples >= fewestSamples
        let mean = counts ? delaySum / samples : 0
        above = counts && mean > growDelay ? above + 1 : 0
        below = mean < shrinkDelay ? below + 1 : 0
        if above >= growIntervals, members < maximum {
            above = 0
            return members + 1
        }
        if below >= shrinkIntervals, members > minimum {
            below = 0
            return members - 1
        }
        return min(max(members, minimum), maximum)
    }
}
