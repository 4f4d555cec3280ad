// Name servers whose cores are lost: every name is at two of them, so none goes, and the second copy is made anew. Those that
// crash and are back with nothing take their places again.

import CFosWire
import Glibc
import Messaging
import Simulation
import Simulator
import Testing

/// Four name servers, and a client that asks one question after the other.
private final class NamedMachine {
    let host: SimHost
    let fleets: SimulatedFleets
    private let script = NameScript(.callName)
    private let thread: SimThread

    init(servers: Int = 4) {
        host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip, options: SimOptions(seed: 3))
        fleets = SimulatedFleets(host: host, plan: FleetPlan(fileCores: [0], nameCores: Array(1...servers)))
        let client = host.addClient(core: 15)
        client.nameServers = fleets.names
        thread = client.addThread(script)
    }

    /// The status, and the first mailbox of a lookup's answer.
    @discardableResult
    func ask(
        _ operation: fos_operation, _ name: String, target: String = "", mailbox: UInt32 = 0, many: Bool = false, runs: Bool = true
    ) -> (status: Int32, mailbox: UInt32) {
        var request = fos_name_request()
        request.name_length = UInt32(name.utf8.count)
        request.target_length = UInt32(target.utf8.count)
        request.flags = many ? FOS_NAME_MANY.rawValue : 0
        request.member = fos_name_member(mailbox: mailbox, epoch: 1, core: 0, load: 0, distance: 0, alive: 1)
        script.build = { thread in
            thread.begin(operation, inode: 0)
            thread.add(request)
            thread.add(name)
            thread.add(target)
        }
        script.isDone = false
        thread.start()
        if runs { host.run(until: host.time + 60_000_000_000_000) } else { host.run(until: { [script] in script.isDone }) }
        #expect(script.isDone, "a question is never answered")
        return (script.status, script.mailbox)
    }
    func lose(_ member: Int) {
        host.loseCore(fleets.names[member].core)
        host.run()
    }
    func crash(_ member: Int, runs: Bool = true) {
        host.crash(fleets.names[member])
        if runs { host.run() }
    }
    /// It is there again, with nothing.
    func restart(_ member: Int, runs: Bool = true) {
        host.restart(fleets.names[member], NameMember(fleets.nameServer(member, isJoining: true)), restored: false)
        if runs { host.run() }
    }
    func server(_ member: Int) -> NameMember? { host.server(at: fleets.names[member]) as? NameMember }
    /// Every name is served by one server, and the same at another.
    func checkCopies(_ count: UInt64, _ sourceLocation: SourceLocation = #_sourceLocation) {
        let reports = fleets.names.indices.compactMap { server($0)?.server.report }
        let served = reports.flatMap(\.served).sorted { $0.name < $1.name }
        #expect(UInt64(served.count) == count, sourceLocation: sourceLocation)
        #expect(served == reports.flatMap(\.copies).sorted { $0.name < $1.name }, sourceLocation: sourceLocation)
        #expect(fleets.names.indices.allSatisfy { server($0)?.server.isServing ?? true }, sourceLocation: sourceLocation)
        #expect(host.violations.isEmpty, "\(host.violations)", sourceLocation: sourceLocation)
    }
    /// Names of all servers together.
    var names: UInt64 { fleets.names.filter { host.server(at: $0) != nil }.reduce(0) { $0 + host.statistics(of: $1).names } }
}

private final class NameScript: ScriptProgram {
    private(set) var mailbox: UInt32 = 0
    override func heard(_ thread: SimThread) {
        let head = MemoryLayout<fos_name_reply>.size
        let hasMember = status == 0 && thread.replyPayload.count >= head + MemoryLayout<fos_name_member>.size
        mailbox = hasMember ? thread.replyPayload.loadUnaligned(fromByteOffset: head, as: fos_name_member.self).mailbox : 0
    }
}

@Suite struct NameDeathTests {
    static let count = 40

    private static func machine(servers: Int = 4) -> NamedMachine {
        let machine = NamedMachine(servers: servers)
        for number in 0..<count {
            #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/\(number)", mailbox: UInt32(1000 + number)).status == 0)
        }
        for number in 0..<8 { #expect(machine.ask(FOS_OP_NAME_REDIRECT, "/alias/\(number)", target: "/work/\(number)").status == 0) }
        for number in 0..<20 { #expect(machine.ask(FOS_OP_NAME_REGISTER, "/many", mailbox: UInt32(2000 + number), many: true).status == 0) }
        return machine
    }

    /// Every order of two deaths: what the first one took from the second has been copied again.
    @Test(arguments: 0..<4) func namesOutliveOneServerAfterTheOther(first: Int) {
        for second in 0..<4 where second != first {
            let machine = NameDeathTests.machine()
            let before = machine.names
            for member in [first, second] {
                machine.lose(member)
                for number in 0..<NameDeathTests.count {
                    #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (0, UInt32(1000 + number)))
                }
                for number in 0..<8 { #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/alias/\(number)") == (0, UInt32(1000 + number))) }
                // Members leave one by one, so each has been there.
                #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/sys/file").status == 0)
                #expect(machine.names == before)
            }
            for number in 0..<20 { #expect(machine.ask(FOS_OP_NAME_DEREGISTER, "/many", mailbox: UInt32(2000 + number)).status == 0) }
            #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/many").status == -ENOENT)
            #expect(machine.host.violations.isEmpty, "\(machine.host.violations)")
        }
    }

    /// A server that is back has its names again, and the copies that are its to have: any other may die then.
    @Test(arguments: [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 3)]) func aServerThatIsBackTakesItsPlace(servers: Int, first: Int)
    {
        for second in 0..<servers {
            let machine = NameDeathTests.machine(servers: servers)
            let before = machine.names
            let own = machine.server(first)?.server.report.served
            #expect(own?.isEmpty == false)
            for member in [first, second] {
                machine.crash(member)
                #expect(machine.names == before)
                machine.restart(member)
                machine.checkCopies(before)
                for number in 0..<NameDeathTests.count {
                    #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (0, UInt32(1000 + number)))
                }
                for number in 0..<8 { #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/alias/\(number)") == (0, UInt32(1000 + number))) }
            }
            #expect(machine.server(first)?.server.report.served.map(\.name).sorted() == own?.map(\.name).sorted())
            for number in 0..<20 { #expect(machine.ask(FOS_OP_NAME_DEREGISTER, "/many", mailbox: UInt32(2000 + number)).status == 0) }
            #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/many").status == -ENOENT)
            machine.checkCopies(before - 1)
        }
    }

    /// What is registered, given back and refused while a server takes its place is at two servers in the end, or at none.
    @Test(arguments: 0..<4) func changesGoOnWhileAServerTakesItsPlace(member: Int) {
        let machine = NameDeathTests.machine()
        machine.crash(member)
        machine.restart(member, runs: false)
        for number in 0..<NameDeathTests.count {
            #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/\(number)", mailbox: 1, runs: false).status == -EEXIST)
            #expect(machine.ask(FOS_OP_NAME_REGISTER, "/new/\(number)", mailbox: UInt32(3000 + number), runs: false).status == 0)
            if number < 20 { #expect(machine.ask(FOS_OP_NAME_DEREGISTER, "/work/\(number)", runs: false).status == 0) }
        }
        machine.host.run()
        machine.checkCopies(machine.names)
        for number in 0..<NameDeathTests.count {
            #expect(
                machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (number < 20 ? -ENOENT : 0, number < 20 ? 0 : UInt32(1000 + number)))
            #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/new/\(number)") == (0, UInt32(3000 + number)))
        }
    }

    /// Neighbours that die, and a joiner that dies again, on the way back.
    @Test(arguments: 0..<4) func whoeverDiesOnTheWayBack(victim: Int) {
        for moment in stride(from: VirtualTime(500_000), through: 12_000_000, by: 700_000) {
            let machine = NameDeathTests.machine()
            let before = machine.names
            machine.crash(2)
            machine.restart(2, runs: false)
            machine.host.run(until: machine.host.time + moment)
            machine.crash(victim)
            machine.restart(victim)
            machine.checkCopies(before)
        }
    }

    /// Two that take their places at once take turns, whichever is first.
    @Test(arguments: [(1, 3), (3, 1), (0, 1), (1, 0), (4, 0), (0, 4), (2, 3)]) func twoAreOnTheirWayBackAtOnce(first: Int, second: Int) {
        let machine = NameDeathTests.machine(servers: 5)
        let before = machine.names
        machine.crash(first)
        machine.crash(second)
        machine.restart(first, runs: false)
        machine.restart(second)
        machine.checkCopies(before)
        for number in 0..<NameDeathTests.count { #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (0, UInt32(1000 + number))) }
    }

    /// Two are on their way back, and a third one dies at each moment of it; in the end all are back.
    @Test(arguments: 0..<5) func aThirdDiesWhileTwoAreOnTheirWayBack(victim: Int) {
        for moment in stride(from: VirtualTime(500_000), through: 40_000_000, by: 1_700_000) {
            let machine = NameDeathTests.machine(servers: 5)
            let before = machine.names
            machine.crash(1)
            machine.crash(3)
            machine.restart(3, runs: false)
            machine.restart(1, runs: false)
            machine.host.run(until: machine.host.time + moment)
            machine.crash(victim)
            machine.restart(victim)
            machine.checkCopies(before)
        }
    }

    /// A server that is back is told at once who is dead. The others have not heard it then, and would copy to it too little.
    @Test(arguments: 0..<5) func aServerIsBackBeforeTheNewsOfAnotherDeath(second: Int) {
        for first in 0..<5 where first != second {
            let machine = NameDeathTests.machine(servers: 5)
            let before = machine.names
            machine.crash(first)
            machine.crash(second, runs: false)
            machine.restart(first)
            machine.checkCopies(before)
            machine.restart(second)
            machine.checkCopies(before)
        }
    }

    /// With all who had a name it is lost, and nothing else: the fleet serves again, and the name can be registered anew.
    @Test func whenAllDieTheFleetBeginsAnew() {
        let machine = NameDeathTests.machine()
        for member in 0..<4 { machine.crash(member, runs: false) }
        machine.host.run()
        for member in [2, 0, 3, 1] { machine.restart(member, runs: false) }
        machine.host.run()
        machine.checkCopies(0)
        #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/3").status == -ENOENT)
        for number in 0..<8 { #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/\(number)", mailbox: UInt32(4000 + number)).status == 0) }
        machine.checkCopies(8)
    }

    @Test func whatWasGivenBackDoesNotComeBack() {
        let machine = NameDeathTests.machine()
        for number in 0..<20 { #expect(machine.ask(FOS_OP_NAME_DEREGISTER, "/work/\(number)").status == 0) }
        machine.lose(2)
        for number in 0..<NameDeathTests.count {
            #expect(
                machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (number < 20 ? -ENOENT : 0, number < 20 ? 0 : UInt32(1000 + number)))
        }
        #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/3", mailbox: 77).status == 0)
        #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/3") == (0, 77))
    }
}
