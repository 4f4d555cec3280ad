// What a client can reach and break: garbage at the door, its own channel alone, sealed memory, privileges.

import CFosProxy
import CFosWire
import CPlatform
import Glibc
import Messaging
import Testing

@testable import Microkernel

extension MicrokernelTests {
    @Suite(.serialized) struct ProtectionTests {
        @Test func garbageAtTheDoorIsRefused() throws {
            let instance = try TestInstance { $0.channelsMax = 8 }
            var generator = SystemRandomNumberGenerator()
            let seed = generator.next() as UInt64
            print("seed \(seed)")
            var state = seed
            func random() -> UInt64 {
                state = state &* 6364136223846793005 &+ 1442695040888963407
                return state >> 16
            }
            for round in 0..<60 {
                var ends: [Int32] = [0, 0]
                try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
                instance.kernel.attach(socket: ends[1])
                if round % 3 == 0 {
                    close(ends[0])  // half-open, gone at once
                    continue
                }
                var hello = fos_hello(
                    magic: fos_wire_hello_magic(), version: UInt32(FOS_WIRE_VERSION), flags: 0, layout_hash: fos_layout_hash(),
                    channels: 1, reserved: 0)
                if round % 3 == 1 {
                    withUnsafeMutableBytes(of: &hello) { $0[Int(random() % 24)] ^= UInt8(truncatingIfNeeded: random() | 1) }
                    // The flags may be anything; only what identifies the protocol is refused.
                    hello.flags = 0
                    if hello.version == UInt32(FOS_WIRE_VERSION) && hello.layout_hash == fos_layout_hash()
                        && hello.magic == fos_wire_hello_magic()
                    {
                        hello.magic = 0
                    }
                    #expect(send(ends[0], &hello, 32, 0) == 32)
                } else {
                    var junk = [UInt8](repeating: UInt8(truncatingIfNeeded: random()), count: 1 + Int(random() % 4096))
                    #expect(send(ends[0], &junk, junk.count, 0) == junk.count)
                }
                var welcome = fos_welcome()
                let got = recv(ends[0], &welcome, MemoryLayout<fos_welcome>.size, 0)
                #expect(got == MemoryLayout<fos_welcome>.size && welcome.status == -EPROTO)
                close(ends[0])
            }
            // More silent connections than may wait: the oldest are dropped, and a real client still comes in.
            var silent: [Int32] = []
            for _ in 0..<(Acceptor.pendingMax + 20) {
                var ends: [Int32] = [0, 0]
                try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
                instance.kernel.attach(socket: ends[1])
                silent.append(ends[0])
            }
            let client = try TestClient(instance.kernel, channels: 200)
            #expect(client.client.pointee.channels == 8)
            #expect(client.call(client.channel(), Do.echo, to: TestInstance.mailbox(0, 1)) == 0)
            for socket in silent { close(socket) }
        }

        @Test func aClientCanCorruptOnlyItself() throws {
            let instance = try TestInstance(cores: 2, servers: 2)
            let good = try TestClient(instance.kernel)
            let bad = try TestClient(instance.kernel, channels: 8)
            let seed = UInt64.random(in: 0...UInt64.max)
            print("seed \(seed)")
            var state = seed
            func random() -> UInt64 {
                state = state &* 6364136223846793005 &+ 1442695040888963407
                return state >> 16
            }
            let channel = good.channel()
            let segment = bad.client.pointee.segment!
            let control = Int(bad.client.pointee.segment_bytes) - 8 * Int(FOS_CHANNEL_AREA_BYTES)
            for round in 0..<500 {
                // Random bytes anywhere before the bulk areas, then all bells.
                for _ in 0..<16 { segment[Int(random() % UInt64(control))] = UInt8(truncatingIfNeeded: random()) }
                for core in 0..<2 { for channel in 0..<8 as Range<Int32> { bad.ring(channel, core: core) } }
                bad.rawPost(Int32(random() % 8), UInt16(truncatingIfNeeded: 800 + random() % 100),
                    to: MailboxAddress(rawValue: UInt32(truncatingIfNeeded: random() & 0x1_0003)),
                    words: (0..<4).map { _ in UInt32(truncatingIfNeeded: random()) }, length: UInt32(truncatingIfNeeded: random() % 2000),
                    bellOf: round % 2)
                if round % 10 == 0 {
                    #expect(good.call(channel, Do.ask, to: TestInstance.mailbox(round / 10 % 2, 1), inode: 9, words: [0x1_0002]) == 0)
                    #expect(good.reply(channel).inode == 10)
                }
            }
        }

        @Test func theBoardIsReadOnlyAndTheSegmentSealed() throws {
            let instance = try TestInstance()
            let client = try TestClient(instance.kernel)
            let board = client.client.pointee.board_fd
            #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, board, 0) == MAP_FAILED)
            var byte: UInt8 = 0
            #expect(pwrite(board, &byte, 1, 0) == -1)
            #expect(ftruncate(board, 0) == -1)
            let segment = client.client.pointee.segment_fd
            #expect(ftruncate(segment, 0) == -1)
            #expect(ftruncate(segment, 1 << 40) == -1)
        }

        @Test func privilegeIsAskedOnceAndInvalidated() throws {
            let instance = try TestInstance(cores: 2, servers: 1, privilege: true)
            let client = try TestClient(instance.kernel)
            let channel = client.channel()
            let privilege = TestInstance.mailbox(0, 2)
            for _ in 0..<50 { #expect(client.call(channel, Do.echo, to: TestInstance.mailbox(1, 1)) == 0) }
            #expect(instance.probe[.checks] == 1)
            // Another client of the same user profits from the cache of the core.
            let second = try TestClient(instance.kernel)
            #expect(second.call(second.channel(), Do.echo, to: TestInstance.mailbox(1, 1)) == 0)
            #expect(instance.probe[.checks] == 1)
            #expect(client.call(channel, Do.invalidate, to: privilege) == 0)
            let checks = instance.probe[.checks]
            instance.probe[.allowed] = 0
            let raw = client.channel()
            #expect(client.once(raw, Do.echo, to: TestInstance.mailbox(1, 1)) == Int32(FOS_TRANSPORT_DENIED.rawValue))
            #expect(client.once(raw, Do.echo, to: TestInstance.mailbox(1, 1)) == Int32(FOS_TRANSPORT_DENIED.rawValue))
            #expect(instance.probe[.checks] == checks + 1)
            instance.probe[.allowed] = 1
        }

        @Test func manyWaitForOnePrivilegeAnswer() throws {
            let instance = try TestInstance(cores: 2, servers: 1, privilege: true)
            let client = try TestClient(instance.kernel, channels: 128)
            let busy = client.channel()
            #expect(client.call(client.channel(), Do.echo, to: TestInstance.mailbox(0, 2)) == 0)
            client.rawPost(busy, Do.work, to: TestInstance.mailbox(0, 2), words: [30_000])
            #expect(eventually { instance.probe[.requests] == 2 })
            let channels = (0..<100).map { _ in client.channel() }
            for channel in channels { client.rawPost(channel, Do.echo, to: TestInstance.mailbox(1, 1)) }
            let answers = channels.map { client.rawWait($0) }
            let full = answers.filter { $0 == Int32(FOS_TRANSPORT_FULL.rawValue) }.count
            #expect(answers.filter { $0 == 0 }.count + full == 100)
            #expect(full <= 36)
        }
    }
}
