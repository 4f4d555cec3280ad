// Name servers whose cores are lost: every name is at two of them, so none goes, and the second copy is made anew.

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

    init() {
        host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip, options: SimOptions(seed: 3))
        fleets = SimulatedFleets(host: host, plan: FleetPlan(fileCores: [0], nameCores: [1, 2, 3, 4]))
        let client = host.addClient(core: 15)
        client.nameServers = fleets.names
        thread = client.addThread(script)
    }

    /// The status, and the first mailbox of a lookup's answer.
    @discardableResult
    func ask(_ operation: fos_operation, _ name: String, target: String = "", mailbox: UInt32 = 0, many: Bool = false) -> (status: Int32, mailbox: UInt32) {
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
        host.run(until: host.time + 60_000_000_000_000)
        #expect(script.isDone, "a question is never answered")
        return (script.status, script.mailbox)
    }
    func lose(_ member: Int) {
        host.loseCore(fleets.names[member].core)
        host.run()
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

    private static func machine() -> NamedMachine {
        let machine = NamedMachine()
        for number in 0..<count { #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/\(number)", mailbox: UInt32(1000 + number)).status == 0) }
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
                for number in 0..<NameDeathTests.count { #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (0, UInt32(1000 + number))) }
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

    @Test func whatWasGivenBackDoesNotComeBack() {
        let machine = NameDeathTests.machine()
        for number in 0..<20 { #expect(machine.ask(FOS_OP_NAME_DEREGISTER, "/work/\(number)").status == 0) }
        machine.lose(2)
        for number in 0..<NameDeathTests.count {
            #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/\(number)") == (number < 20 ? -ENOENT : 0, number < 20 ? 0 : UInt32(1000 + number)))
        }
        #expect(machine.ask(FOS_OP_NAME_REGISTER, "/work/3", mailbox: 77).status == 0)
        #expect(machine.ask(FOS_OP_NAME_LOOKUP, "/work/3") == (0, 77))
    }
}
