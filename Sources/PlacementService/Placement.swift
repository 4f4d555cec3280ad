// Placement: which core each server and each program gets, by distance to what it talks to (paper, section 4: space,
// not time).
//
// Role: a pure function from traffic and distances to cores, used by the live system when it lays out its servers and
// when a fleet grows, and by the simulator to compare layouts. `near` is what fos does; `random` and `adversarial` are
// there to compare it with.
// Method: this is the quadratic assignment problem (Koopmans and Beckmann 1957), which is NP-hard, so: greedy
// construction in the order of attachment (the party with most traffic to those already placed comes next, and takes the
// free core that costs least), then rounds of exchanges that lower the cost, as 2-opt does.
// Invariants: no core gets more parties than it has room for; fixed parties stay where they are; the same input gives the
// same placement.

public import Fleet

/// How cores are chosen.
public enum PlacementPolicy: Sendable, Equatable {
    /// What talks much stands near.
    case near
    /// Any free core; a seed is a placement.
    case random(seed: UInt64)
    /// What talks much stands far apart: the worst that a scheduler without regard for space can do.
    case adversarial
}

/// What is to be placed, and where it may go.
public struct PlacementProblem {
    public let traffic: Traffic
    public let distances: DistanceView
    /// Parties that each core has room for: 1 where space is plenty, 0 for a core that is not to be used.
    public let room: [Int]
    /// Cores of parties that are placed already, such as running servers; nil: to be placed.
    public let fixed: [Int?]
    /// Cores that a party may get; nil: any. OS cores and application cores are kept apart with it.
    public let allows: (@Sendable (_ party: Int, _ core: Int) -> Bool)?

    /// - Parameters:
    ///   - distances: from a matrix that outlives this value.
    ///   - room: one number a core; `fixed` parties use it up too.
    public init(
        traffic: Traffic, distances: DistanceView, room: [Int], fixed: [Int?]? = nil,
        allows: (@Sendable (_ party: Int, _ core: Int) -> Bool)? = nil
    ) {
        self.traffic = traffic
        self.distances = distances
        self.room = room
        self.fixed = fixed ?? Array(repeating: nil, count: traffic.parties)
        self.allows = allows
        precondition(self.fixed.count == traffic.parties, "every party is fixed or not")
        precondition(self.fixed.allSatisfy { $0 == nil || room.indices.contains($0!) }, "a party is fixed to a core that does not exist")
    }
}

/// A core for every party.
public struct Placement: Sendable, Equatable {
    /// By party.
    public let cores: [Int]

    /// Places all parties; nil: there is no room for some of them.
    /// - Parameter rounds: of improvement, for `near`; each looks at every party once.
    public init?(_ problem: PlacementProblem, policy: PlacementPolicy = .near, rounds: Int = 4) {
        var solver = Solver(problem, policy)
        guard solver.construct() else { return nil }
        if policy == .near { for _ in 0..<rounds where !solver.improve() { break } }
        cores = solver.places
    }

    /// Messages times distance, over all pairs: what the placement costs, in messages × units of distance.
    public func cost(_ problem: PlacementProblem) -> UInt64 {
        var sum: UInt64 = 0
        for party in cores.indices {
            for edge in problem.traffic.partners(of: party) where edge.party > party {
                sum &+= edge.messages &* UInt64(problem.distances.distance(from: UInt32(cores[party]), to: UInt32(cores[edge.party])))
            }
        }
        return sum
    }

    /// The core for one more party: of those that it may have, the one nearest to what it will talk to; among equals the
    /// least used, then the first. nil: none.
    /// - Parameters:
    ///   - partners: cores of whom it talks to, with weights.
    ///   - load: of each core, in any unit; only compared.
    public static func core(
        near partners: [(core: Int, messages: UInt64)], candidates: [Int], load: [Int], distances: DistanceView
    ) -> Int? {
        candidates.min { a, b in
            let (x, y) = (pull(a, partners, distances), pull(b, partners, distances))
            if x != y { return x < y }
            return load[a] != load[b] ? load[a] < load[b] : a < b
        }
    }

    private static func pull(_ core: Int, _ partners: [(core: Int, messages: UInt64)], _ distances: DistanceView) -> UInt64 {
        partners.reduce(0) { $0 &+ $1.messages &* UInt64(distances.distance(from: UInt32(core), to: UInt32($1.core))) }
    }
}
