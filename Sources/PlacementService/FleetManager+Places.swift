// Which of the free places new servers of a growing fleet get: by distance to the traffic that they will take over.
//
// Role: a problem for the placement solver. A new server gets an equal part of the slots of each server that there is, and with
// them that part of its requests; so it will talk to whom that one talks to, and until all tables agree requests come to it
// through that one. A server therefore pulls as strongly as it is asked. New servers pull each other too, a little: what is renamed,
// linked or made goes between them.
// Invariants: space before distance: a core that has a server already is taken when no empty one is free; servers that there are stay.

import CFosWire
import Fleet

extension FleetManager {
    /// Places for so many new servers, or for as many as there are free ones.
    func newPlaces(_ wanted: Int) -> [Int] {
        guard wanted > 0 else { return [] }
        let serving = (0..<count).filter { servers[$0].state == FOS_FLEET_SERVING.rawValue }
        var load = Array(repeating: 0, count: matrix.cores)
        for index in serving { load[servers[index].mailbox.core] += 1 }
        let free = (0..<count).filter { servers[$0].state == FOS_FLEET_ABSENT.rawValue }
        var chosen: [Int] = []
        // The emptiest cores first, level by level.
        while chosen.count < min(wanted, free.count) {
            let left = free.filter { !chosen.contains($0) }
            guard let least = left.map({ load[servers[$0].mailbox.core] }).min() else { break }
            let level = left.filter { load[servers[$0].mailbox.core] == least }
            let cores = Set(level.map { servers[$0].mailbox.core })
            let number = min(wanted - chosen.count, cores.count)
            for core in place(number, among: cores, near: serving + chosen) {
                guard let place = level.first(where: { servers[$0].mailbox.core == core }) else { continue }
                chosen.append(place)
                load[core] += 1
            }
        }
        return chosen
    }

    /// Cores for so many new servers, one each.
    private func place(_ number: Int, among cores: Set<Int>, near old: [Int]) -> [Int] {
        var traffic = Traffic(parties: old.count + number)
        let total = old.reduce(UInt64(0)) { $0 &+ servers[$1].traffic }
        for new in 0..<number {
            for (party, index) in old.enumerated() {
                // Before anything is known all are alike.
                traffic.add(old.count + new, party, messages: total == 0 ? 16 : servers[index].traffic &* 16 + 1)
            }
            for other in 0..<new { traffic.add(old.count + new, old.count + other, messages: max(total / UInt64(old.count + number), 1)) }
        }
        var room = Array(repeating: 0, count: matrix.cores)
        for index in old { room[servers[index].mailbox.core] += 1 }
        for core in cores { room[core] += 1 }
        let fixed = old.map { Optional(servers[$0].mailbox.core) } + Array(repeating: nil, count: number)
        let problem = PlacementProblem(traffic: traffic, distances: matrix.view, room: room, fixed: fixed) { cores.contains($1) }
        return Placement(problem).map { Array($0.cores[old.count...]) } ?? Array(cores.sorted().prefix(number))
    }
}
