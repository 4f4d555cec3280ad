// Which of the free places new servers of a growing fleet get: by distance to the traffic that they will take over.
//
// Role: a problem for the placement solver. A new server gets an equal part of the slots of each server that there is, and with
// them that part of its requests; so it will be asked by the programs that ask that one. The CPUs where they run are fixed points
// of the problem, and pull as strongly as they ask (`ProgramTraffic`). Requests of which nobody says where they come from pull to the
// server that they came to. Until all tables agree requests come through the old servers, and what is renamed, linked or made
// goes between all of them: so servers pull a little too.
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
        let asking = (0..<programs.cpus).filter { cpu in old.contains { programs.weight($0, cpu: cpu) > 0 } }
        let first = old.count + asking.count  // of the new ones
        var room = Array(repeating: 0, count: matrix.cores)
        let places = old.map { servers[$0].mailbox.core } + asking.map { programs.row(of: $0) }
        for row in places { room[row] += 1 }
        for core in cores { room[core] += 1 }
        let fixed = places.map(Optional.some) + Array(repeating: nil, count: number)
        let traffic = traffic(of: number, near: old, asking)
        let problem = PlacementProblem(traffic: traffic, distances: matrix.view, room: room, fixed: fixed) { cores.contains($1) }
        return Placement(problem).map { Array($0.cores[first...]) } ?? Array(cores.sorted().prefix(number))
    }

    /// What so many new servers will exchange with the old ones, with programs on the CPUs that ask, and with each other.
    /// Parties are numbered in that order.
    private func traffic(of number: Int, near old: [Int], _ asking: [Int]) -> Traffic {
        let first = old.count + asking.count
        var traffic = Traffic(parties: first + number)
        let asked = old.map { server in (0..<programs.cpus).reduce(programs.unsaid(of: server)) { $0 + programs.weight(server, cpu: $1) } }
        let total = asked.reduce(0, +)
        for new in first..<first + number {
            for (party, server) in old.enumerated() {
                // Before anything is known all are alike.
                traffic.add(new, party, messages: total == 0 ? 16 : programs.unsaid(of: server) * 16 + asked[party] + 1)
            }
            for (party, cpu) in asking.enumerated() {
                traffic.add(new, old.count + party, messages: old.reduce(0) { $0 + programs.weight($1, cpu: cpu) } * 16)
            }
            for other in first..<new { traffic.add(new, other, messages: max(total / UInt64(old.count + number), 1)) }
        }
        return traffic
    }
}
