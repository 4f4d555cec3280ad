// Clients that come and die, cores that move, sleep and end; allocation; crash reports.

import CAllocationCounter
import CFosProxy
import CFosWire
import CPlatform
import Glibc
import Messaging
import Testing

@testable import Microkernel

extension MicrokernelTests {
    @Suite(.serialized) struct LifecycleTests {
        @Test func deathIsToldToEveryServerAndTheIndexIsReused() throws {
            let instance = try TestInstance(cores: 2, servers: 2)
            let stays = try TestClient(instance.kernel)
            for round in 1...5 {
                let client = try TestClient(instance.kernel)
                let channel = client.channel()
                #expect(client.call(channel, Do.echo, to: TestInstance.mailbox(1, 1)) == 0)
                client.build(channel, Do.never)
                #expect(fos_post(client.client, channel, TestInstance.mailbox(0, 1).rawValue, 1) == 0)
                let index = client.client.pointee.client
                client.disconnect()
                #expect(eventually { instance.probe[.gone] == UInt64(4 * round) })
                #expect(instance.probe[.goneClient] == UInt64(index))
                #expect(eventually { instance.kernel.clients.count == 1 })
            }
            let channel = stays.channel()
            #expect(stays.call(channel, Do.echo, to: TestInstance.mailbox(0, 2), inode: 1) == 0)
        }

        /// A core goes to another CPU and serves there; what cannot be is refused and changes nothing.
        @Test func coresMove() throws {
            var allowed = [Int32](repeating: 0, count: 4096)
            allowed.removeLast(allowed.count - Int(fos_platform_allowed_cpus(&allowed, 4096)))
            let home = try #require(allowed.last)
            let instance = try TestInstance(cores: 2) { $0.cpus = [home, -1] }
            let client = try TestClient(instance.kernel)
            let channel = client.channel()
            for cpu in allowed.dropLast() + [home] where allowed.count > 1 {
                #expect(instance.kernel.move(core: 0, to: cpu))
                #expect(instance.kernel.status()[0].cpu == cpu)
                for _ in 0..<20 { #expect(client.call(channel, Do.echo, to: TestInstance.mailbox(0, 1)) == 0) }
            }
            for (core, cpu) in [(0, home), (0, -1), (0, 4095), (1, allowed[0]), (2, allowed[0]), (-1, allowed[0])] as [(Int, Int32)] {
                #expect(!instance.kernel.move(core: core, to: cpu))
            }
            #expect(instance.kernel.status()[0].cpu == home && instance.kernel.status()[1].cpu == -1)
            instance.kernel.stop()
            #expect(!instance.kernel.move(core: 0, to: allowed[0]))
        }

        @Test func indicesAreReusedWhenAllAreTaken() throws {
            let instance = try TestInstance { $0.clientsMax = 2 }
            for _ in 0..<6 {
                let (a, b) = (try TestClient(instance.kernel, channels: 1), try TestClient(instance.kernel, channels: 1))
                for client in [a, b] {
                    #expect(client.call(client.channel(), Do.echo, to: TestInstance.mailbox(0, 1), inode: 3) == 0)
                }
                var ends: [Int32] = [0, 0]
                #expect(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
                instance.kernel.attach(socket: ends[1])
                let third = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
                third.initialize(to: fos_client())
                #expect(fos_client_attach(third, ends[0], 1, 0) == -EAGAIN)
                third.deallocate()
                let before = instance.probe[.gone]
                a.disconnect()
                b.disconnect()
                #expect(eventually { instance.probe[.gone] == before + 4 })
                usleep(5000)
            }
        }

        /// The first that goes wakes the acceptor, which then looks for the others by itself, and is woken again after a pause.
        @Test func whoGoesSoonAfterAnotherIsNoticedToo() throws {
            let instance = try TestInstance()
            for round in 1...3 {
                let clients = try (0..<5).map { _ in try TestClient(instance.kernel, channels: 1) }
                for client in clients { #expect(client.call(client.channel(), Do.echo, to: TestInstance.mailbox(0, 1)) == 0) }
                #expect(instance.kernel.clients.count == 5)
                for client in clients {
                    client.disconnect()
                    usleep(3000)
                }
                #expect(eventually { instance.kernel.clients.isEmpty })
                #expect(eventually { instance.probe[.gone] == UInt64(2 * 5 * round) })
                if round == 2 { usleep(100_000) }
            }
        }

        /// A client is told who owns slots, and need not ask for it.
        @Test func theWelcomeNamesTheOwnersOfSlots() throws {
            let instance = try TestInstance(cores: 2)
            let board = instance.kernel.fabric.board
            func known() throws -> [fos_mailbox] {
                let client = try TestClient(instance.kernel)
                var members = [fos_name_member](repeating: fos_name_member(), count: 16)
                let count = fos_lookup(client.client, client.channel(), "/sys/file", &members, 16, 0)
                for member in members.prefix(max(0, Int(count))) { #expect(member.epoch == 1 && member.alive == 1) }
                return count < 0 ? [] : members.prefix(Int(count)).map(\.mailbox)
            }
            #expect(try known().isEmpty)
            let owners = [TestInstance.mailbox(0, 1), TestInstance.mailbox(1, 2)].map(\.rawValue)
            for slot in 0..<UInt32(FOS_SLOTS) { fos_store_release_u32(fos_board_slot_owner(board, slot), owners[slot < 100 ? 0 : 1]) }
            _ = fos_fetch_add_u32(fos_board_slot_epoch(board), 1)
            #expect(try known() == owners)
            // A mailbox that does not exist is not told.
            fos_store_release_u32(fos_board_slot_owner(board, 5), TestInstance.mailbox(1, 60).rawValue)
            _ = fos_fetch_add_u32(fos_board_slot_epoch(board), 1)
            #expect(try known() == owners)
        }

        /// A user cannot take all places; the owner and root can.
        @Test(.enabled(if: geteuid() == 0, "needs a second user")) func aUserHasABoundOfClients() throws {
            let instance = try TestInstance {
                $0.allowOther = true
                $0.clientsOfUserMax = 2
            }
            func connect(as user: uid_t) throws -> Int32 {
                var ends: [Int32] = [0, 0]
                // A socket pair is of the user who makes it.
                try #require(seteuid(user) == 0)
                let result = socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends)
                try #require(seteuid(0) == 0 && result == 0)
                instance.kernel.attach(socket: ends[1])
                let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
                client.initialize(to: fos_client())
                let status = fos_client_attach(client, ends[0], 1, 0)
                if status == 0 { clients.append(client) } else { client.deallocate() }
                return status
            }
            var clients: [UnsafeMutablePointer<fos_client>] = []
            defer {
                for client in clients {
                    fos_client_disconnect(client)
                    client.deallocate()
                }
            }
            for user in [4001, 4002] as [uid_t] {
                #expect(try connect(as: user) == 0 && connect(as: user) == 0)
                #expect(try connect(as: user) == -EAGAIN)
            }
            for _ in 0..<4 { #expect(try connect(as: 0) == 0) }
            // One that goes makes room.
            fos_client_disconnect(clients[0])
            clients.removeFirst().deallocate()
            #expect(eventually { instance.kernel.clients.count { $0.uid == 4001 } == 1 })
            #expect(try connect(as: 4001) == 0 && connect(as: 4001) == -EAGAIN)
        }

        @Test func aReplyToADeadClientIsDropped() throws {
            let instance = try TestInstance(cores: 2, servers: 1)
            let client = try TestClient(instance.kernel)
            let channels = (0..<8).map { _ in client.channel() }
            // Core 1 is busy; core 0 has asked it on behalf of a client that dies before the answer.
            client.rawPost(channels[0], Do.work, to: TestInstance.mailbox(1, 1), words: [30_000])
            #expect(eventually { instance.probe[.requests] == 1 })
            for channel in channels.dropFirst() {
                client.rawPost(channel, Do.ask, to: TestInstance.mailbox(0, 1), words: [TestInstance.mailbox(1, 1).rawValue])
            }
            #expect(eventually { instance.probe[.requests] == 8 })
            client.disconnect()
            #expect(eventually { instance.probe[.gone] == 2 })
            let other = try TestClient(instance.kernel)
            #expect(
                other.call(other.channel(), Do.ask, to: TestInstance.mailbox(0, 1), inode: 1, words: [TestInstance.mailbox(1, 1).rawValue])
                    == 0)
        }

        /// What cores go by when they wait, and how they come first on a busy CPU.
        @Test func theMachinesLoadIsCounted() {
            let load = fos_platform_open_load()
            defer { fos_platform_close(load) }
            #expect(load >= 0 && fos_platform_runnable(load) >= 1 && fos_platform_online_cpus() >= 1)
            #expect(fos_platform_runnable(-1) == -1)
            #expect(fos_platform_short_turns(100_000) == 0)
        }

        @Test func anIdleCoreSleepsAndWakes() throws {
            let instance = try TestInstance(cores: 2, servers: 1)
            let client = try TestClient(instance.kernel)
            let channel = client.channel()
            for round in 0..<40 {
                #expect(eventually { instance.kernel.status().allSatisfy(\.parked) })
                #expect(
                    client.call(
                        channel, Do.ask, to: TestInstance.mailbox(round % 2, 1), words: [TestInstance.mailbox(1 - round % 2, 1).rawValue])
                        == 0)
            }
            // Processor time of an idle core, less the one spin that each question costs.
            func cpuTime(_ core: Int) -> UInt64 {
                #expect(client.call(channel, Do.cpuTime, to: TestInstance.mailbox(core, 1)) == 0)
                return client.reply(channel).inode
            }
            let before = (cpuTime(0), cpuTime(1))
            usleep(1_500_000)
            let used = (cpuTime(0) - before.0, cpuTime(1) - before.1)
            #expect(used.0 < 10_000_000 && used.1 < 10_000_000, "idle cores used \(used) ns in 1.5 s")
        }

        @Test func theMessagePathDoesNotAllocate() throws {
            let instance = try TestInstance(cores: 2, servers: 2)
            let client = try TestClient(instance.kernel)
            let channel = client.channel()
            let other = TestInstance.mailbox(1, 2)
            func allocations(_ core: Int) -> UInt64 {
                #expect(client.call(channel, Do.allocations, to: TestInstance.mailbox(core, 1)) == 0)
                return client.reply(channel).inode
            }
            func work() {
                for _ in 0..<200 {
                    client.call(channel, Do.echo, to: TestInstance.mailbox(0, 1), words: [1, 2, 3])
                    client.call(channel, Do.ask, to: TestInstance.mailbox(0, 2), words: [other.rawValue])
                    client.call(channel, Do.forward, to: TestInstance.mailbox(0, 1), words: [other.rawValue])
                    client.call(channel, UInt16(FOS_OP_PING.rawValue), to: other)
                }
            }
            // The counter counts, on this thread as on any.
            let here = allocation_count()
            free(malloc(64))
            #expect(allocation_count() > here)
            work()
            let before = (allocations(0), allocations(1))
            work()
            let after = (allocations(0), allocations(1))
            #expect(after.0 - before.0 == 0)
            #expect(after.1 - before.1 == 0)
        }

        @Test func stopTellsClients() throws {
            let instance = try TestInstance(cores: 2, servers: 1)
            let client = try TestClient(instance.kernel)
            let channel = client.channel()
            let waiter = TestThreads()
            let outcome = Probe()
            waiter.spawn {
                client.build(channel, Do.never)
                outcome[.goneClient] = UInt64(bitPattern: Int64(fos_call_mailbox(client.client, channel, 1, 1)))
            }
            #expect(eventually { instance.probe[.requests] == 1 })
            usleep(20_000)
            let begun = fos_platform_monotonic_ns()
            instance.kernel.stop()
            waiter.join()
            #expect(fos_platform_monotonic_ns() - begun < 1_000_000_000)
            #expect(Int64(bitPattern: outcome[.goneClient]) == -Int64(ENOTCONN))
            var notice = fos_notice()
            let taken = fos_notice_take(client.client, &notice, 1_000_000)
            #expect(taken == -ENOTCONN || (taken == 1 && notice.kind == FOS_NOTICE_SHUTDOWN.rawValue))
        }

        @Test func aSecondInstanceOfTheNameIsRefused() throws {
            let first = try TestInstance { $0.listens = true }
            #expect(throws: MicrokernelError.self) {
                _ = try TestInstance {
                    $0.listens = true
                    $0.name = first.kernel.configuration.name
                }
            }
            Self.connect(to: first, channels: 4)
        }

        /// Connects by name, and is served.
        static func connect(to instance: TestInstance, channels: UInt32) {
            let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
            client.initialize(to: fos_client())
            #expect(fos_client_connect(client, getuid(), instance.kernel.configuration.name, channels, 0) == 0)
            let channel = fos_channel_acquire(client)
            _ = fos_request(client, channel, Do.echo, 4)
            #expect(fos_call_mailbox(client, channel, 1, 1) == 0)
            fos_client_disconnect(client)
            client.deallocate()
        }

        /// More clients than segments are made ahead, one after the other.
        @Test func theUsualHelloIsSaidByTheAddress() throws {
            let instance = try TestInstance { $0.listens = true }
            for _ in 0..<40 { Self.connect(to: instance, channels: UInt32(FOS_HELLO_USUAL_CHANNELS)) }
            #expect(eventually { instance.kernel.clients.isEmpty })
        }

        @Test func withoutItsAddressTheUsualHelloIsSent() throws {
            let name = "taken-\(getpid())"
            var address = name.utf8.map { CChar(bitPattern: $0) } + [CChar](repeating: 0, count: Int(FOS_USUAL_NAME_MORE))
            let length = fos_usual_name(&address, UInt32(name.utf8.count))
            let other = fos_platform_listen(getuid(), address, length, 1)
            #expect(other >= 0)
            let instance = try TestInstance {
                $0.listens = true
                $0.name = name
            }
            fos_platform_close(other)
            Self.connect(to: instance, channels: UInt32(FOS_HELLO_USUAL_CHANNELS))
        }

        @Test func badConfigurationsAreRefused() {
            #expect(throws: MicrokernelError.self) { _ = try TestInstance { $0.cpus = [4000] } }
            #expect(throws: MicrokernelError.self) { _ = try TestInstance { $0.name = "a/b" } }
            #expect(throws: MicrokernelError.self) { _ = try TestInstance { $0.placements[0].index = 5 } }
            #expect(throws: MicrokernelError.self) { _ = try TestInstance { $0.mailboxCapacity = 3 } }
        }

        @Test func aCrashSaysWhoAndWhat() throws {
            var pipes: [Int32] = [0, 0]
            try #require(pipe(&pipes) == 0)
            var running: UInt32 = 1
            var counts: [UInt64] = [0, 3]
            let records = UnsafeMutablePointer<fos_trace_record>.allocate(capacity: Int(FOS_TRACE_RECORDS))
            records.initialize(repeating: fos_trace_record(), count: Int(FOS_TRACE_RECORDS))
            for index in 0..<3 {
                records[index] = fos_trace_record(
                    time: UInt64(1000 + index), operation: 300, kind: UInt16(index), status: -2, inode: 77, client: 5, detail: 9)
            }
            let servers = UnsafeMutablePointer<fos_crash_server>.allocate(capacity: 2)
            servers.initialize(repeating: fos_crash_server(), count: 2)
            let text = UnsafeMutableRawPointer(servers + 1)
            text.copyMemory(from: "file/1", byteCount: 6)
            servers[1].records = records
            let core = UnsafeMutablePointer<fos_crash_core>.allocate(capacity: 1)
            counts.withUnsafeMutableBufferPointer { counts in
                withUnsafePointer(to: &running) { running in
                    servers[1].count = counts.baseAddress! + 1
                    core.initialize(to: fos_crash_core(core: 3, servers: 2, running: running, server: servers))
                    fos_crash_enter_core(core, nil, 0)
                    fos_crash_report(pipes[1], SIGILL, nil)
                    fos_crash_leave_core()
                }
            }
            close(pipes[1])
            var bytes = [UInt8](repeating: 0, count: 8192)
            var report = ""
            while true {
                let got = read(pipes[0], &bytes, bytes.count)
                if got <= 0 { break }
                report += String(decoding: bytes.prefix(got), as: UTF8.self)
            }
            #expect(report.contains("server file/1 on core 3 died of SIGILL"))
            #expect(report.contains("fos:   1002 sent 300 -2 77 5 9"))
            servers.deallocate()
            core.deallocate()
            records.deallocate()
            close(pipes[0])
        }

        @Test func aTrapInAServerEndsTheProcessAndNamesTheServer() async throws {
            let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                let instance = try TestInstance(cores: 2, servers: 2) { $0.handlesCrashes = true }
                let client = try TestClient(instance.kernel)
                let channel = client.channel()
                client.call(channel, Do.echo, to: TestInstance.mailbox(1, 2), inode: 4711)
                client.call(channel, Do.crash, to: TestInstance.mailbox(1, 2))
            }
            let said = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
            #expect(said.contains("fos: server file/3 on core 1 died of SIG"))
            #expect(said.contains("request 900 0 4711"))
            #expect(said.contains("request 912"))
        }

        @Test func topologyHasDistances() {
            let topology = Topology.current()
            #expect(!topology.cpus.isEmpty && topology.distances.count == topology.cpus.count * topology.cpus.count)
            for i in topology.cpus.indices {
                #expect(topology.distance(i, i) == 0)
                for j in topology.cpus.indices {
                    #expect(topology.distance(i, j) == topology.distance(j, i))
                    #expect([0, 10, 20, 40].contains(topology.distance(i, j)))
                }
            }
            #expect(topology.defaultCPUs().count >= 1)
            #expect(topology.cpus.count == 1 || topology.defaultCPUs().count < topology.cpus.count)
        }
    }
}
