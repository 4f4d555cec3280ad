// A file fleet under its manager: sizes set by an administrator and chosen by waiting, while clients work.

import CFosWire
import Fleet
import Glibc
import LoopKernel
import Messaging
import PlacementService
import Testing

@testable import FileService

@Suite struct ElasticFleetTests {
    private struct Setup {
        let fleet: FileFleet
        let manager = MailboxAddress(core: 0, index: 40)
        let matrix = DistanceMatrix(flat: 2)
        var host: LoopHost { fleet.host }

        init(members: Int, places: Int, automaticMaximum: Int, options: LoopOptions = LoopOptions()) {
            fleet = FileFleet(members: members, places: places, options: options, manager: manager)
            fleet.host.add(
                FleetManager(
                    places: fleet.servers, serving: members, minimum: members, automaticMaximum: automaticMaximum, distances: matrix),
                at: manager)
        }

        func status(_ client: LoopClient) -> (fos_fleet_summary, [fos_fleet_member]) {
            guard let reply = try? client.call(LoopCall(FOS_OP_FLEET_STATUS, room: 65536), to: manager), reply.status == 0 else {
                return (.init(), [])
            }
            let size = MemoryLayout<fos_fleet_member>.size
            return (reply.fixed(), (0..<reply.bulk.count / size).map { loopFixed(reply.bulk, at: $0 * size) })
        }
        func set(_ members: Int, _ client: LoopClient) -> Int32? {
            (try? client.call(
                LoopCall(FOS_OP_FLEET_SET, fos_fleet_set(service: FOS_SERVICE_FILE.rawValue, members: UInt32(members))), to: manager))?
                .status
        }
        /// Lets a change come to its end. False: it does not.
        func settle(_ client: LoopClient) -> Bool {
            for _ in 0..<600 {
                host.tick()
                host.runUntilQuiet()
                if status(client).0.is_changing == 0 { return true }
            }
            return false
        }
    }

    @Test func anAdministratorSetsTheSizeWhileClientsWork() throws {
        let setup = Setup(members: 2, places: 6, automaticMaximum: 2)
        let admin = setup.host.addClient(rights: FOS_RIGHT_ADMIN.rawValue)
        let files = setup.fleet.files()
        var made: [UInt64] = []
        for index in 0..<48 { made.append(files.create(files.mkdir(1, "d\(index)").inode, "f").inode) }
        var random = LoopRandom(seed: 5)
        for size in [5, 2, 6, 1, 3] {
            #expect(setup.set(size, admin) == 0)
            for _ in 0..<40 {
                let inode = made[random.below(made.count)]
                #expect(files.write(inode, UInt64(random.below(10_000)), [1, 2, 3]) == 3)
                if random.chance(64) { setup.host.tick() }
            }
            #expect(setup.settle(admin), "size \(size)")
            let (summary, members) = setup.status(admin)
            #expect(summary.members == UInt32(size) && summary.is_automatic == 0)
            #expect(members.filter { $0.state == FOS_FLEET_SERVING.rawValue }.count == size)
            #expect(members.reduce(0) { $0 + Int($1.slots) } == 4096)
            for member in members {
                #expect((member.state == FOS_FLEET_SERVING.rawValue) == (member.slots > 0), "size \(size), member \(member.member)")
            }
            #expect(summary.change_slots > 0)
            setup.fleet.settleMoves()
            setup.fleet.check("size \(size)")
        }
        for inode in made { #expect(files.stat(inode).status == 0) }
    }

    @Test func onlyAnAdministratorAndOnlyWithinBounds() {
        let setup = Setup(members: 2, places: 4, automaticMaximum: 2)
        #expect(setup.set(3, setup.host.addClient()) == -EPERM)
        let admin = setup.host.addClient(rights: FOS_RIGHT_ADMIN.rawValue)
        #expect(setup.set(5, admin) == -EINVAL)
        // Nobody but the manager and microkernels orders servers about.
        let stranger = setup.host.addClient(rights: FOS_RIGHT_ADMIN.rawValue)
        let give = LoopCall(FOS_OP_FLEET_GIVE, fos_fleet_give(member: 1, slots: 4096, slot: UInt32.max, reserved: 0))
        #expect((try? stranger.call(give, to: setup.fleet.servers[0]))?.status == -EPERM)
    }

    /// A member whose core is lost: its slots are taken over, what led to it leads nowhere, and the rest goes on.
    @Test func theFleetGoesOnWithoutALostServer() {
        let fleet = FileFleet(members: 3)
        let files = fleet.files()
        var kept: [UInt64] = []
        for index in 0..<30 {
            let directory = files.mkdir(1, "d\(index)").inode
            if fleet.member(of: directory) != 2 { kept.append(files.create(directory, "f").inode) }
        }
        fleet.host.removeServer(at: fleet.servers[2])
        var news = fos_fleet_members()
        news.service = FOS_SERVICE_FILE.rawValue
        news.epoch = 1
        news.alive.0 = 0b011
        news.dead.0 = 0b100
        var take = fos_fleet_take()
        take.version_step = 16
        for slot in 0..<4096 where slot % 3 == 2 {
            withUnsafeMutableBytes(of: &take.slots) { $0[slot / 8] |= 1 << UInt8(slot % 8) }
        }
        for server in fleet.servers.prefix(2) { fleet.host.kernelPost(LoopCall(FOS_OP_FLEET_MEMBERS, news), to: server) }
        fleet.host.kernelPost(LoopCall(FOS_OP_FLEET_TAKE, take), to: fleet.servers[0])
        for _ in 0..<5 {
            fleet.host.runUntilQuiet()
            fleet.host.tick()
        }
        fleet.host.runUntilQuiet()
        for inode in kept { #expect(files.stat(inode).status == 0) }
        var lost = 0
        for index in 0..<30 {
            let found = files.lookup(1, "d\(index)")
            if found.status == -EIO {
                lost += 1
                #expect(files.rmdir(1, "d\(index)") == 0)
                #expect(files.lookup(1, "d\(index)").status == -ENOENT)
            } else {
                #expect(found.status == 0)
            }
        }
        #expect(lost == 10)
        for index in 0..<10 { #expect(files.mkdir(1, "new\(index)").status == 0) }
        #expect(fleet.host.violations.isEmpty)
    }
}
