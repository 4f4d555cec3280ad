// The microkernel end to end: clients, servers and cores, through the message proxy.

import CFosProxy
import CFosWire
import CPlatform
import Glibc
import Messaging
import Testing

@testable import Microkernel

@Suite(.serialized) struct MicrokernelTests {
    @Test func echoesOnOneCore() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        for number in 0..<1000 as Range<UInt64> {
            let status = client.call(
                channel, Do.echo, to: TestInstance.mailbox(0, 1 + Int(number % 2)), inode: number, words: [7, UInt32(number)])
            #expect(status == 0)
            let reply = client.reply(channel)
            #expect(reply.inode == number + 1 && reply.length == 8)
        }
        #expect(instance.probe[.requests] == 1000)
    }

    /// A server with something left to do gets its ticks on a core where nothing else happens, and no more than it asked for.
    @Test func ticksAsLongAsAServerAsks() throws {
        let instance = try TestInstance(servers: 1)
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        #expect(client.call(channel, Do.moreTicks, to: TestInstance.mailbox(0, 1), words: [8]) == 0)
        #expect(eventually(2) { instance.probe[.wanted] == 0 })
        usleep(100_000)
        let ticks = instance.probe[.ticks]
        #expect(ticks >= 8)
        usleep(200_000)
        #expect(instance.probe[.ticks] <= ticks + 1)
    }

    /// A server that put something off gets its turns when the core has nothing else to do, and no more than it asked for.
    @Test func idleTurnsAsLongAsAServerAsks() throws {
        let instance = try TestInstance(servers: 2)
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        #expect(client.call(channel, Do.moreIdle, to: TestInstance.mailbox(0, 2), words: [5000]) == 0)
        // Requests go on meanwhile.
        for number in 0..<200 as Range<UInt64> {
            #expect(client.call(channel, Do.echo, to: TestInstance.mailbox(0, 1), inode: number, words: [1]) == 0)
        }
        #expect(eventually(5) { instance.probe[.idles] == 5001 })
        usleep(50_000)
        #expect(instance.probe[.idles] == 5001)
    }

    /// What a server has in its queue is what waits besides the question.
    @Test func statisticsDoNotCountTheirOwnQuestion() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        #expect(client.call(channel, UInt16(FOS_OP_STATISTICS.rawValue), to: TestInstance.mailbox(0, 1)) == 0)
        let statistics = UnsafeRawPointer(fos_reply(client.client, channel)! + 1).loadUnaligned(as: fos_statistics.self)
        #expect(statistics.queue_now == 0 && statistics.requests == 1)
    }

    @Test func forwardsAndAsksAcrossCores() throws {
        let instance = try TestInstance(cores: 3, servers: 2)
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        let all = (0..<3).flatMap { core in (1...2).map { TestInstance.mailbox(core, $0) } }
        for from in all {
            for to in all {
                #expect(client.call(channel, Do.forward, to: from, words: [to.rawValue]) == 0)
                #expect(client.reply(channel).inode == UInt64(to.rawValue))
                #expect(client.call(channel, Do.ask, to: from, inode: 5, words: [to.rawValue]) == 0)
                #expect(client.reply(channel).inode == 6)
            }
        }
        #expect(client.call(channel, Do.ask, to: all[0], words: [0x0005_0001]) == -EHOSTUNREACH)
        #expect(client.call(channel, Do.forward, to: all[0], words: [0x0000_0009]) == -EHOSTUNREACH)
    }

    @Test func manyClientsAndCoresAtOnce() throws {
        let instance = try TestInstance(cores: 2, servers: 2)
        let threads = 4
        let rounds = 500
        let wrong = Probe()
        let group = TestThreads()
        for thread in 0..<threads {
            let client = try TestClient(instance.kernel)
            group.spawn {
                let channel = client.channel()
                for round in 0..<rounds {
                    let mailbox = TestInstance.mailbox((thread + round) % 2, 1 + round / 2 % 2)
                    let other = TestInstance.mailbox((thread + round + 1) % 2, 1)
                    let operation = round % 3 == 0 ? Do.echo : round % 3 == 1 ? Do.ask : Do.forward
                    let status = client.call(channel, operation, to: mailbox, inode: 1, words: [other.rawValue])
                    let reply = client.reply(channel)
                    let expected: UInt64 = operation == Do.forward ? UInt64(other.rawValue) : 2
                    if status != 0 || reply.inode != expected { wrong.add(.gone) }
                }
            }
        }
        group.join()
        #expect(wrong[.gone] == 0)
    }

    /// Supplementary groups are those of the moment of connecting, as many as Linux allows. To root, which may set
    /// them, groups mean nothing else.
    @Test(.enabled(if: geteuid() == 0, "only root may set groups"), arguments: [0, 3, 65536]) func supplementaryGroupsOfClients(count: Int) throws {
        let instance = try TestInstance(cores: 2)
        var before = [gid_t](repeating: 0, count: 65536)
        let held = getgroups(Int32(before.count), &before)
        try #require(held >= 0)
        let groups = (0..<count).map { gid_t(90_000 - $0) }
        try #require(setgroups(count, groups) == 0)
        defer { setgroups(Int(held), before) }
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        for core in 0..<2 {
            for index in [0, count / 2, count - 1] where index >= 0 {
                #expect(client.call(channel, Do.groups, to: TestInstance.mailbox(core, 1), words: [UInt32(index)]) == 0)
                let expected = index < count ? UInt64(90_000 - count + 1 + index) : 0
                #expect(client.reply(channel).inode == UInt64(count) << 32 | expected)
            }
        }
    }

    @Test func refusesWhatIsNotForClients() throws {
        let instance = try TestInstance(cores: 2) { configuration in
            configuration.placements[1].clientReachable = false
            configuration.placements[2].epoch = 7
        }
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        let stale = Int32(FOS_TRANSPORT_STALE.rawValue)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(0, 1)) == 0)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(0, 1), epoch: 2) == stale)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(0, 2)) == stale)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(0, 9)) == stale)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(1, 0)) == stale)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(1, 1), epoch: 1) == stale)
        #expect(client.once(channel, Do.echo, to: TestInstance.mailbox(1, 1), epoch: 7) == 0)
        let denied = Int32(FOS_TRANSPORT_DENIED.rawValue)
        for operation in [FOS_OP_PEER_FIRST, FOS_OP_PEER_LAST, FOS_OP_CLIENT_GONE, FOS_OP_TICK, FOS_OP_PRIVILEGE_INVALIDATE] {
            #expect(client.once(channel, UInt16(operation.rawValue), to: TestInstance.mailbox(0, 1)) == denied)
        }
    }

    @Test func boundsLengthsAndBulk() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        let mailbox = TestInstance.mailbox(0, 1)
        let raw = client.channel()
        for length in [897, 0x8000_0000, UInt32.max] {
            client.rawPost(raw, Do.echo, to: mailbox, length: length)
            #expect(client.rawWait(raw) == -EINVAL)
        }

        func bulk(_ offset: UInt32, _ length: UInt32) -> Int32 {
            let message = fos_request(client.client, channel, Do.bulk, 0)!
            message.pointee.bulk_offset = offset
            message.pointee.bulk_length = length
            return fos_call_mailbox(client.client, channel, mailbox.rawValue, 1)
        }
        let area = fos_bulk(client.client, channel)!
        area[100] = 41
        #expect(bulk(100, 1) == 0)
        #expect(area[100] == 42)
        let size = UInt32(FOS_BULK_BYTES)
        #expect(bulk(size - 1, 1) == 0)
        #expect(bulk(size, 0) == 0)
        #expect(bulk(size, 1) == -EINVAL)
        #expect(bulk(UInt32.max, 1) == -EINVAL)
        #expect(bulk(1, UInt32.max) == -EINVAL)
    }

    @Test func fullMailboxIsAnError() throws {
        let instance = try TestInstance(servers: 1) { $0.mailboxCapacity = 4 }
        let client = try TestClient(instance.kernel)
        let mailbox = TestInstance.mailbox(0, 1)
        let busy = client.channel()
        client.rawPost(busy, Do.work, to: mailbox, words: [50_000])
        #expect(eventually { instance.probe[.requests] == 1 })
        let channels = (0..<8).map { _ in client.channel() }
        for channel in channels { client.rawPost(channel, Do.echo, to: mailbox) }
        // The busy letter occupies one of the four places until its server returns, which it has when these are taken.
        let full = channels.filter { client.rawWait($0) == Int32(FOS_TRANSPORT_FULL.rawValue) }.count
        #expect(full == 4)
        #expect(client.rawWait(busy) == 0)
    }

    @Test func fullMailboxOfAnotherCoreIsAnError() throws {
        let instance = try TestInstance(cores: 2, servers: 1) {
            $0.remoteMailboxCapacity = 8
            $0.responseCapacity = 64
        }
        let client = try TestClient(instance.kernel)
        let (one, two) = (client.channel(), client.channel())
        client.rawPost(one, Do.work, to: TestInstance.mailbox(1, 1), words: [50_000])
        #expect(eventually { instance.probe[.requests] == 1 })
        // 100 sends while the other core is busy: 8 find room, the rest are told so, and all 8 are answered.
        #expect(client.call(two, Do.askMany, to: TestInstance.mailbox(0, 1), words: [TestInstance.mailbox(1, 1).rawValue, 100]) == 0)
        #expect(client.rawWait(one) == 0)
        let reply = client.call(two, UInt16(FOS_OP_STATISTICS.rawValue), to: TestInstance.mailbox(0, 1))
        #expect(reply == 0)
        let statistics = UnsafeRawPointer(fos_reply(client.client, two)! + 1).loadUnaligned(as: fos_statistics.self)
        #expect(statistics.sent == 8)
        #expect(statistics.continuations_now == 0 && statistics.continuations_peak == 9)
        #expect(statistics.inodes == 42 && statistics.mailbox == 1)
    }

    @Test func repliesOnlyOnce() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        #expect(client.call(channel, Do.twice, to: TestInstance.mailbox(0, 1)) == 0)
        #expect(client.reply(channel).inode == 1)
        #expect(client.call(channel, Do.ask, to: TestInstance.mailbox(0, 1), inode: 1, words: [2]) == 0)
        #expect(client.reply(channel).inode == 2)
    }

    @Test func registersNamesBeforeStartReturns() throws {
        let instance = try TestInstance(cores: 2, servers: 2, names: true)
        #expect(instance.probe[.registered] == 8)
    }

    @Test func pingAndTrace() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        let mailbox = TestInstance.mailbox(0, 2)
        #expect(client.call(channel, UInt16(FOS_OP_PING.rawValue), to: mailbox) == 0)
        #expect(client.call(channel, Do.echo, to: mailbox, inode: 77) == 0)
        let message = fos_request(client.client, channel, UInt16(FOS_OP_TRACE.rawValue), 0)!
        message.pointee.bulk_length = 65536
        #expect(fos_call_mailbox(client.client, channel, mailbox.rawValue, 1) == 0)
        let bytes = Int(client.reply(channel).bulk_length)
        let records = (0..<(bytes / 32)).map {
            UnsafeRawPointer(fos_bulk(client.client, channel)!).loadUnaligned(fromByteOffset: $0 * 32, as: fos_trace_record.self)
        }
        #expect(records.filter { $0.operation != UInt16(FOS_OP_TICK.rawValue) }.map(\.kind) == [0, 3, 0, 3, 0])
        #expect(records.contains { $0.inode == 77 && $0.operation == Do.echo && $0.kind == 0 })
    }

    @Test func noticesReachTheClientAndAreBounded() throws {
        let instance = try TestInstance()
        let client = try TestClient(instance.kernel)
        let channel = client.channel()
        #expect(client.call(channel, Do.notices, to: TestInstance.mailbox(0, 1), words: [300]) == 0)
        #expect(client.reply(channel).inode == 256)
        for number in 0..<256 as Range<UInt64> {
            var notice = fos_notice()
            #expect(fos_notice_take(client.client, &notice, 1_000_000_000) == 1)
            #expect(notice.inode == number)
        }
        // A client that lies about its tail harms its own notices only.
        client.client.pointee.notice_rings[0].tail = 0xdead_beef
        #expect(client.call(channel, Do.notices, to: TestInstance.mailbox(0, 1), words: [10]) == 0)
        #expect(client.reply(channel).inode == 0)
    }

    @Test func frontEndRightsAreThisProcessAlone() throws {
        let instance = try TestInstance()
        let front = try TestClient(instance.kernel, flags: FOS_HELLO_FRONT_END.rawValue)
        #expect(front.client.pointee.rights & FOS_RIGHT_KERNEL_CACHE.rawValue != 0)
        let plain = try TestClient(instance.kernel)
        #expect(plain.client.pointee.rights & (FOS_RIGHT_KERNEL_CACHE.rawValue | FOS_RIGHT_ACT_AS.rawValue) == 0)
        #expect(plain.client.pointee.rights & FOS_RIGHT_ADMIN.rawValue != 0)
        #expect(instance.kernel.clients.count == 2)
    }
}

/// Plain threads, joined together.
final class TestThreads {
    private final class Job {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    private var threads: [pthread_t] = []
    func spawn(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { job in
                Unmanaged<Job>.fromOpaque(job!).takeRetainedValue().body()
                return nil
            }, Unmanaged.passRetained(Job(body)).toOpaque())
        threads.append(thread)
    }
    func join() {
        for thread in threads { pthread_join(thread, nil) }
        threads = []
    }
}
