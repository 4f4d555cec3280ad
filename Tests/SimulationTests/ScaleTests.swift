// Many cores: the servers of fos on a simulated mesh, and that a run's memory is what is in flight.

import CFosWire
import FileService
import Messaging
import Simulation
import Simulator
import Testing

/// Makes a directory of its own, then creates, stats and removes files in it.
private final class PrivateWork: SimProgram {
    let name: String
    let rounds: Int
    var directory: UInt64 = 0
    var file: UInt64 = 0
    var round = 0
    var phase = 0
    var errors = 0
    init(_ name: String, rounds: Int) {
        self.name = name
        self.rounds = rounds
    }
    override func step(_ thread: SimThread) -> SimStep {
        if phase > 0, thread.status != 0 { errors += 1 }
        switch phase {
        case 0:
            thread.makeDirectory(UInt64(FOS_ROOT_INODE), name)
            phase = 1
        case 1:
            if directory == 0 { directory = thread.attributes.inode }
            guard round < rounds else { return .end }
            round += 1
            thread.create(directory, "f", exclusive: true)
            phase = 2
        case 2:
            file = thread.attributes.inode
            thread.getAttributes(file)
            phase = 3
        default:
            thread.unlink(directory, "f")
            phase = 1
        }
        return .call
    }
}

@Suite struct ScaleTests {
    @Test(arguments: [1, 4, 64, 1024]) func privateWorkOnManyCores(servers: Int) {
        let cores = servers * 2
        var options = SimOptions(seed: 3)
        options.bulkBytes = 4096
        let host = SimHost(topology: CoreTopology(mesh: cores), costs: .onChip, options: options)
        let fleets = SimulatedFleets(host: host, plan: FleetPlan(fileCores: Array(stride(from: 0, to: cores, by: 2))))
        let programs = (0..<servers).map { PrivateWork("d\($0)", rounds: 4096 / servers + 1) }
        for (index, program) in programs.enumerated() {
            let client = host.addClient(core: index * 2 + 1)
            client.addThread(program)
            client.start()
        }
        host.run()
        #expect(programs.allSatisfy { $0.errors == 0 })
        #expect(host.violations.isEmpty && host.stuckThreads.isEmpty && host.lettersInUse == 0)
        #expect(host.lettersPeak < 8 * servers + 64)
        #expect(fleets.files.count == servers)
        #expect(host.totals.operations == UInt64(servers * (1 + 3 * (4096 / servers + 1))))
    }
}
