// The host by itself: order, time, mailboxes, and that a seed is a run. The servers are small ones made for it.

import CFosWire
import Messaging
import Simulator
import Testing

/// Answers PING at once, or passes it to another server first and answers when that one has.
private struct EchoServer: Server {
    var peer: MailboxAddress?
    var waiting: [UInt32: fos_envelope] = [:]
    var received = 0
    var next: UInt32 = 1

    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.operation) == FOS_OP_PING.rawValue else { return }
        received += 1
        guard let peer, UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue else {
            return answer(request.envelope, 0, kernel)
        }
        let id = ContinuationID(rawValue: next)
        next += 1
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PING.rawValue)
        message.pointee.inode = request.message.pointee.inode
        waiting[id.rawValue] = request.envelope.pointee
        guard kernel.send(message, to: peer, expecting: id, onBehalfOf: request.envelope) == .sent else {
            waiting[id.rawValue] = nil
            return answer(request.envelope, Int32(FOS_TRANSPORT_RETRY.rawValue), kernel)
        }
    }
    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        guard var envelope = waiting.removeValue(forKey: response.continuation.rawValue) else { return }
        answer(&envelope, response.status, kernel)
    }
    func describe(_ statistics: inout fos_statistics) {}

    private func answer<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ status: Int32, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PING.rawValue)
        message.pointee.status = status
        kernel.reply(to: envelope, message)
    }
}

/// Pings a server a number of times.
private final class Pinger: SimProgram {
    let server: MailboxAddress
    var left: Int
    var latencies: [VirtualTime] = []
    var statuses: [Int32] = []
    init(_ server: MailboxAddress, times: Int) {
        self.server = server
        left = times
    }
    override func step(_ thread: SimThread) -> SimStep {
        if thread.operations > 0 {
            latencies.append(thread.returned - thread.invoked)
            statuses.append(thread.status)
        }
        guard left > 0 else { return .end }
        left -= 1
        thread.begin(FOS_OP_PING, inode: 7)
        return .callTo(server)
    }
}

private func address(_ core: Int, _ index: Int = 1) -> MailboxAddress { MailboxAddress(core: core, index: index) }

@Suite struct SimulatorTests {
    @Test func aRoundTripCostsWhatItsPartsCost() {
        let host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip)
        host.add(EchoServer(), at: address(0))
        let pinger = Pinger(address(0), times: 3)
        // Core 15 is three rows and three columns from core 0.
        let client = host.addClient(core: 15)
        client.addThread(pinger)
        client.start()
        host.run()
        let way: VirtualTime = 15_000 + 6 * 1_000
        #expect(pinger.latencies == Array(repeating: 15_000 + way + 100_000 + way + 10_000, count: 3))
        #expect(host.violations.isEmpty && host.stuckThreads.isEmpty)
        #expect(host.totals.messages == 6 && host.totals.hops == 36)
    }

    @Test func theDistanceHasAnUpperBound() {
        #expect(Costs.onChip.message.latency(distance: 126) == 45_000)
        let coherent = MessageCost.coherent(sameCore: 1, sameCache: 2, samePackage: 3, otherPackage: 4)
        #expect([0, 10, 20, 40].map { coherent.latency(distance: $0) } == [1, 2, 3, 4])
    }

    @Test func aCoreDoesOneThingAtATime() {
        let host = SimHost(topology: CoreTopology(mesh: 64), costs: .onChip)
        host.add(EchoServer(), at: address(0))
        let pingers = (1...8).map { _ in Pinger(address(0), times: 50) }
        for (index, pinger) in pingers.enumerated() {
            let client = host.addClient(core: 8 + index)
            client.addThread(pinger)
            client.start()
        }
        host.run()
        // And one tick after it.
        #expect(host.busyTime(ofCore: 0) == (8 * 50 + 1) * 100_000)
        // Eight clients keep it busy, so its work takes as long as the run.
        #expect(host.time >= 8 * 50 * 100_000)
        #expect(host.totals.queueing > 0)
    }

    @Test func servicesOfOneCoreShareItAndTransactionsCross() {
        let host = SimHost(topology: CoreTopology(mesh: 4), costs: .onChip)
        host.add(EchoServer(peer: address(0, 2)), at: address(0, 1))
        host.add(EchoServer(), at: address(0, 2))
        let pinger = Pinger(address(0, 1), times: 10)
        let client = host.addClient(core: 3)
        client.addThread(pinger)
        client.start()
        host.run()
        #expect(pinger.statuses == Array(repeating: 0, count: 10))
        #expect(host.totals.serverMessages == 20)
        #expect(host.statistics(of: address(0, 2)).requests == 10)
    }

    @Test func aFullMailboxRefusesAndNothingIsLost() {
        var options = SimOptions()
        options.mailboxCapacity = 2
        let host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip, options: options)
        host.add(EchoServer(), at: address(0))
        let pingers = (1...10).map { _ in Pinger(address(0), times: 20) }
        for (index, pinger) in pingers.enumerated() {
            let client = host.addClient(core: 1 + index)
            client.addThread(pinger)
            client.start()
        }
        host.run()
        #expect(host.totals.refused > 0)
        #expect(pingers.allSatisfy { $0.statuses.count == 20 && $0.statuses.allSatisfy { $0 == 0 } })
        #expect(host.lettersInUse == 0)
    }

    private func hashOfARun(_ seed: UInt64, faults: Bool) -> (UInt64, SimTotals) {
        let host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip, options: SimOptions(seed: seed))
        if faults {
            host.faults.delayedPer65536 = 8192
            host.faults.delayAtMost = 500_000
            host.faults.refusedPer65536 = 2048
        }
        host.add(EchoServer(peer: address(1)), at: address(0))
        host.add(EchoServer(), at: address(1))
        for core in 2..<10 {
            let client = host.addClient(core: core)
            client.addThread(Pinger(address(0), times: 30))
            client.start()
        }
        host.run()
        #expect(host.violations.isEmpty && host.stuckThreads.isEmpty && host.lettersInUse == 0)
        return (host.eventHash, host.totals)
    }

    @Test func aSeedIsARun() {
        for seed in UInt64(1)...20 {
            let (hash, totals) = hashOfARun(seed, faults: true)
            #expect(hashOfARun(seed, faults: true).0 == hash)
            #expect(hashOfARun(seed + 1000, faults: true).0 != hash)
            #expect(totals.delayed > 0 && totals.refused > 0)
        }
    }

    @Test func whatAServerHadTakenInIsAnsweredWhenItDies() {
        let host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip)
        host.add(EchoServer(peer: address(1)), at: address(0))
        host.add(EchoServer(), at: address(1))
        host.stall(address(1), until: 100_000_000)
        let pinger = Pinger(address(0), times: 3)
        let client = host.addClient(core: 5)
        client.addThread(pinger)
        client.start()
        host.at(10_000_000) { $0.crash(address(1)) }
        host.at(20_000_000) { $0.restart(address(1), SimServerOf(EchoServer()), restored: false) }
        host.run()
        // What waited in the mailbox of the one that died was not begun, so it is sent again, and answered in the end.
        #expect(pinger.statuses == [0, 0, 0])
        #expect(host.totals.retried > 0)
        host.at(host.time + 1_000_000) { $0.crash(address(0), forGood: true) }
        host.run()
        #expect(host.server(at: address(0)) == nil && host.violations.isEmpty)
    }

    @Test func aStalledServerAnswersLater() {
        let host = SimHost(topology: CoreTopology(mesh: 16), costs: .onChip)
        host.add(EchoServer(), at: address(0))
        host.stall(address(0), until: 50_000_000)
        let pinger = Pinger(address(0), times: 2)
        let client = host.addClient(core: 5)
        client.addThread(pinger)
        client.start()
        host.run()
        #expect(pinger.latencies[0] > 40_000_000 && pinger.latencies[1] < 1_000_000)
    }
}
