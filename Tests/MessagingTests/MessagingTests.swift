// The continuation slab, and the loop host that tests run servers on.

import CFosWire
import LoopKernel
import Messaging
import Testing

@Suite struct ContinuationSlabTests {
    @Test func idsAreNeverZeroAndLateOnesFindNothing() {
        var slab = ContinuationSlab<Int>(capacity: 2)
        guard let first = slab.insert(10), let second = slab.insert(20) else { Issue.record("no room"); return }
        let third = slab.insert(30)
        let full = slab.isFull
        let value = slab.state(first)?.pointee
        #expect(first != .none && second != .none && third == nil && full && value == 10)
        let removed = slab.remove(first), again = slab.remove(first)
        let isLate = slab.state(first) == nil
        #expect(removed && !again && isLate)
        guard let reused = slab.insert(40) else { Issue.record("no room"); return }
        let stillLate = slab.state(first) == nil, found = slab.state(reused)?.pointee, peak = slab.peak
        #expect(reused != first && stillLate && found == 40 && peak == 2)
    }

    @Test func inventedIdsFindNothing() {
        let slab = ContinuationSlab<Int>(capacity: 4)
        for raw: UInt32 in [0, 1, 0x1_0000, 0x1_0001, .max, 0xffff, 4] {
            let found = slab.state(ContinuationID(rawValue: raw)) != nil
            #expect(!found)
        }
    }
}

/// Answers PING with its payload; with flags 1 it asks the next server first; with flags 2 it forwards to it.
private struct Echo: Server {
    let next: MailboxAddress
    var slab = ContinuationSlabBox()
    var gone: [UInt32] = []
    var seen: [UInt32] = []

    final class ContinuationSlabBox { var states: [UInt32: fos_envelope] = [:]; var last: UInt32 = 0 }

    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        switch request.message.pointee.flags {
        case _ where request.operation == UInt16(FOS_OP_CLIENT_GONE.rawValue):
            gone.append(request.envelope.pointee.client)
        case 1:
            slab.last += 1
            slab.states[slab.last] = request.envelope.pointee
            let message = kernel.scratch()
            message.pointee.operation = request.operation
            message.pointee.inode = request.message.pointee.inode
            if kernel.send(message, to: next, expecting: ContinuationID(rawValue: slab.last), onBehalfOf: request.envelope) != .sent {
                answer(request.envelope, status: Int32(FOS_TRANSPORT_RETRY.rawValue), inode: 0, kernel)
            }
        case 2:
            request.message.pointee.flags = 0
            if kernel.forward(request.letter, to: next) != .sent {
                answer(request.envelope, status: Int32(FOS_TRANSPORT_RETRY.rawValue), inode: 0, kernel)
            }
        default:
            seen.append(UInt32(truncatingIfNeeded: request.message.pointee.inode))
            answer(request.envelope, status: 0, inode: request.message.pointee.inode, kernel)
        }
    }
    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        guard var envelope = slab.states.removeValue(forKey: response.continuation.rawValue) else { return }
        answer(&envelope, status: response.status, inode: response.message.pointee.inode, kernel)
    }
    func describe(_ statistics: inout fos_statistics) { statistics.requests = UInt64(seen.count) }
    private func answer<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, status: Int32, inode: UInt64, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.status = status
        message.pointee.inode = inode
        kernel.reply(to: envelope, message)
    }
}

@Suite struct LoopHostTests {
    private let a = MailboxAddress(core: 0, index: 1), b = MailboxAddress(core: 1, index: 1)

    private func host(_ options: LoopOptions) -> LoopHost {
        let host = LoopHost(options)
        host.add(Echo(next: b), at: a)
        host.add(Echo(next: a), at: b)
        return host
    }

    @Test(arguments: [0, 1, 2]) func everyRequestIsAnsweredOnce(flags: Int) throws {
        let host = host(LoopOptions(seed: 7))
        let client = host.addClient(uid: 5)
        for inode: UInt64 in 1...50 {
            let reply = try client.call(LoopCall(FOS_OP_PING, inode: inode).flags(flags), to: a)
            #expect(reply.status == 0 && reply.header.inode == inode)
        }
        #expect(host.violations.isEmpty && host.isQuiet)
    }

    @Test func oneSenderIsInOrderAndTwoAreNot() {
        var reordered = false
        for seed: UInt64 in 1...8 {
            let host = host(LoopOptions(seed: seed))
            let one = host.addClient(), two = host.addClient()
            for number: UInt64 in 0..<20 {
                one.post(LoopCall(FOS_OP_PING, inode: number), to: a)
                two.post(LoopCall(FOS_OP_PING, inode: 100 + number), to: a)
            }
            host.runUntilQuiet()
            let seen = host.withServer(a, as: Echo.self) { $0.seen }
            #expect(seen.filter { $0 < 100 } == Array(0..<20) && seen.filter { $0 >= 100 } == Array(100..<120))
            if seen != (0..<20).flatMap({ [$0, $0 + 100] }) { reordered = true }
        }
        #expect(reordered)
    }

    @Test func aSeedIsARun() {
        func run(_ seed: UInt64) -> UInt64 {
            let host = host(LoopOptions(seed: seed))
            let clients = (0..<4).map { _ in host.addClient() }
            for number: UInt64 in 0..<100 {
                clients[Int(number % 4)].post(LoopCall(FOS_OP_PING, inode: number).flags(Int(number % 3)), to: a)
            }
            host.runUntilQuiet()
            return host.eventHash
        }
        #expect(run(3) == run(3))
        #expect(run(3) != run(4))
    }

    @Test func fullMailboxesAreRefusedAndCallsTryAgain() throws {
        var options = LoopOptions(seed: 2)
        options.fullChance = 128
        options.mailboxCapacity = 2
        let host = host(options)
        let client = host.addClient()
        let tickets = (0..<10).map { client.post(LoopCall(FOS_OP_PING, inode: UInt64($0)), to: a) }
        host.runUntilQuiet()
        let full = tickets.compactMap { client.reply($0) }.filter { $0.status == Int32(FOS_TRANSPORT_FULL.rawValue) }
        #expect(full.count == 8)
        for inode: UInt64 in 1...20 { #expect(try client.call(LoopCall(FOS_OP_PING, inode: inode).flags(1), to: a).status == 0) }
        #expect(host.refusals > 8)
    }

    @Test func deathIsToldToAllAndItsRepliesAreDropped() throws {
        let host = host(LoopOptions(seed: 5))
        let victim = host.addClient(), other = host.addClient()
        for number: UInt64 in 0..<5 { victim.post(LoopCall(FOS_OP_PING, inode: number).flags(1), to: a) }
        host.step()
        victim.die()
        host.runUntilQuiet()
        for address in [a, b] { #expect(host.withServer(address, as: Echo.self) { $0.gone } == [victim.index]) }
        #expect(try other.call(LoopCall(FOS_OP_PING, inode: 1), to: a).status == 0)
        #expect(host.violations.isEmpty)
    }

    @Test func aLostReplyIsAnError() {
        let host = host(LoopOptions(seed: 5))
        let client = host.addClient()
        var cut = false
        host.onDeliver = { _, _ in cut = true }
        host.removeServer(at: b)
        #expect(throws: LoopStuck.self) { try client.call(LoopCall(FOS_OP_PING), to: b) }
        #expect(cut)
    }
}
