// Which cores of a simulated machine have which servers, and which are left to clients.
//
// Rule: servers first, in an order that the scenario's placement gives (near: evenly between the clients; far: at one end of the
// machine, clients from the other; random); two servers share a core only when there are more of them than cores. Clients get the
// cores that are left, or share all of them; the fleet manager gets one of theirs.

import Messaging

/// The cores of a run, by what is on them.
struct ScenarioPlaces {
    var files: [Int] = []
    var names: [Int] = []
    var memory: [Int] = []
    /// The fleet manager's.
    var manager = 0
    var clients: [Int] = []

    init(_ scenario: Scenario, cores: Int, _ random: inout SeededRandom) {
        let servers = scenario.fileServers + scenario.nameServers + scenario.memoryServers
        var order = Array(0..<cores)
        switch scenario.placement {
        case .far: break
        case .random: order.shuffle(using: &random)
        case .near:
            // Servers evenly between the clients.
            let step = max(cores / max(servers, 1), 1)
            let chosen = (0..<servers).map { $0 * step % cores }
            order = chosen + order.filter { !chosen.contains($0) }
        }
        for member in 0..<scenario.fileServers { files.append(order[member % cores]) }
        for member in 0..<scenario.nameServers { names.append(order[(scenario.fileServers + member) % cores]) }
        for member in 0..<scenario.memoryServers { memory.append(order[(scenario.fileServers + scenario.nameServers + member) % cores]) }
        clients = servers < cores ? Array(order[servers...]) : order
        if scenario.placement == .far { clients.reverse() }
        if scenario.manager != nil, clients.count > 1 { manager = clients.removeLast() }
    }
}
