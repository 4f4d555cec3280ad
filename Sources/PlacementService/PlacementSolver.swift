// The search behind `Placement`: construction by attachment, improvement by exchange.
//
// Cost: construction looks, for each party, at every core with room (parties × cores × partners); with thousands of both
// that is some tenths of a second. Improvement tries for each party the cores next to what it talks to, and a bounded
// sample of others.

import Fleet
import Messaging

struct Solver {
    private let problem: PlacementProblem
    private let policy: PlacementPolicy
    private var room: [Int]
    private(set) var places: [Int]
    /// Parties on each core, for exchanges.
    private var residents: [[Int]]
    private var random: SeededRandom
    /// Cores that each party may have: who has fewest chooses first, so that nobody is left without one.
    private let choices: [Int]
    private static var unplaced: Int { -1 }
    /// Cores looked at for each party in a round of improvement, beside those of its partners.
    private static var sample: Int { 16 }

    init(_ problem: PlacementProblem, _ policy: PlacementPolicy) {
        self.problem = problem
        self.policy = policy
        room = problem.room
        places = Array(repeating: Solver.unplaced, count: problem.traffic.parties)
        residents = Array(repeating: [], count: problem.room.count)
        let cores = problem.room.count
        choices = problem.allows.map { allows in
            (0..<problem.traffic.parties).map { party in (0..<cores).count { problem.room[$0] > 0 && allows(party, $0) } }
        } ?? Array(repeating: cores, count: problem.traffic.parties)
        var seed: UInt64 = 0x9e37_79b9_7f4a_7c15
        if case .random(let wanted) = policy { seed ^= wanted &* 0xbf58_476d_1ce4_e5b9 }
        random = SeededRandom(seed: seed)
    }

    private mutating func next(below bound: Int) -> Int { Int(random.next() % UInt64(bound)) }

    private mutating func put(_ party: Int, on core: Int) {
        places[party] = core
        residents[core].append(party)
        room[core] -= 1
    }

    private func mayHave(_ party: Int, _ core: Int) -> Bool { problem.allows.map { $0(party, core) } ?? true }

    /// What a party costs on a core, against the partners that are placed.
    private func cost(_ party: Int, on core: Int, without other: Int = Solver.unplaced) -> UInt64 {
        var sum: UInt64 = 0
        for edge in problem.traffic.partners(of: party) where edge.party != other && places[edge.party] != Solver.unplaced {
            sum &+= edge.messages &* UInt64(problem.distances.distance(from: UInt32(core), to: UInt32(places[edge.party])))
        }
        return sum
    }

    // MARK: Construction

    /// False: there is no room for a party.
    mutating func construct() -> Bool {
        for (party, core) in problem.fixed.enumerated() { if let core { put(party, on: core) } }
        if case .random = policy { return constructAtRandom() }
        var attachment = Array(repeating: UInt64(0), count: places.count)
        for party in places.indices where places[party] != Solver.unplaced { attach(to: party, &attachment) }
        let totals = places.indices.map { problem.traffic.total(of: $0) }
        var waiting = places.indices.filter { places[$0] == Solver.unplaced }
        while let position = waiting.indices.max(by: {
            let (a, b) = (waiting[$0], waiting[$1])
            if choices[a] != choices[b] { return choices[a] > choices[b] }
            if attachment[a] != attachment[b] { return attachment[a] < attachment[b] }
            return totals[a] != totals[b] ? totals[a] < totals[b] : a > b
        }) {
            let party = waiting[position]
            waiting.swapAt(position, waiting.count - 1)
            waiting.removeLast()
            guard let core = choose(for: party) else { return false }
            put(party, on: core)
            attach(to: party, &attachment)
        }
        return true
    }

    private func attach(to party: Int, _ attachment: inout [UInt64]) {
        for edge in problem.traffic.partners(of: party) { attachment[edge.party] &+= edge.messages }
    }

    /// The free core that costs least, or most if that is the policy; the first party goes to the middle of the machine.
    private func choose(for party: Int) -> Int? {
        let farthest = policy == .adversarial
        var best: Int?
        var bestCost: (UInt64, UInt64) = (0, 0)
        let isFirst = !problem.traffic.partners(of: party).contains { places[$0.party] != Solver.unplaced }
        for core in room.indices where room[core] > 0 && mayHave(party, core) {
            // With nobody to be near, a core that has many others near it, so that those who come next find room there.
            let centrality = isFirst ? spread(of: core) : 0
            let cost = (cost(party, on: core), centrality)
            if best == nil || (farthest ? cost > bestCost : cost < bestCost) {
                best = core
                bestCost = cost
            }
        }
        return best
    }

    /// Sum of distances from a core to a sample of all.
    private func spread(of core: Int) -> UInt64 {
        let step = max(1, room.count / 64)
        return stride(from: 0, to: room.count, by: step).reduce(0) {
            $0 &+ UInt64(problem.distances.distance(from: UInt32(core), to: UInt32($1)))
        }
    }

    private mutating func constructAtRandom() -> Bool {
        for party in places.indices.sorted(by: { choices[$0] < choices[$1] }) where places[party] == Solver.unplaced {
            let free = room.indices.filter { room[$0] > 0 && mayHave(party, $0) }
            guard !free.isEmpty else { return false }
            put(party, on: free[next(below: free.count)])
        }
        return true
    }

    // MARK: Improvement

    /// One round over all parties; false when it found nothing better.
    mutating func improve() -> Bool {
        var isBetter = false
        for party in places.indices where problem.fixed[party] == nil {
            for core in candidates(for: party) where core != places[party] && mayHave(party, core) {
                if tryMove(party, to: core) || tryExchange(party, with: core) { isBetter = true }
            }
        }
        return isBetter
    }

    /// Cores of the party's partners and the cores next to them in number, and a sample.
    private mutating func candidates(for party: Int) -> [Int] {
        var cores: Set<Int> = []
        for edge in problem.traffic.partners(of: party).sorted(by: { $0.messages > $1.messages }).prefix(4) {
            let place = places[edge.party]
            for core in (place - 1)...(place + 1) where room.indices.contains(core) { cores.insert(core) }
        }
        for _ in 0..<min(Solver.sample, room.count) { cores.insert(next(below: room.count)) }
        return cores.sorted()
    }

    private mutating func tryMove(_ party: Int, to core: Int) -> Bool {
        guard room[core] > 0, cost(party, on: core) < cost(party, on: places[party]) else { return false }
        leave(party)
        put(party, on: core)
        return true
    }

    private mutating func tryExchange(_ party: Int, with core: Int) -> Bool {
        let here = places[party]
        for other in residents[core] where problem.fixed[other] == nil && mayHave(other, here) {
            // Their own messages go the same distance before and after.
            let before = cost(party, on: here, without: other) &+ cost(other, on: core, without: party)
            let after = cost(party, on: core, without: other) &+ cost(other, on: here, without: party)
            guard after < before else { continue }
            leave(party)
            leave(other)
            put(party, on: core)
            put(other, on: here)
            return true
        }
        return false
    }

    private mutating func leave(_ party: Int) {
        let core = places[party]
        residents[core].removeAll { $0 == party }
        room[core] += 1
        places[party] = Solver.unplaced
    }
}
