// Slots that move between servers: nothing is lost, and everything that belongs to an inode comes along.

import CFosWire
import Fleet
import Glibc
import LoopKernel
import Testing

@testable import FileService

extension FileFleet {
    /// Orders a server to give slots away, as the fleet manager does.
    func give(_ slots: Int = 1, from giver: Int, to taker: Int, slot: Int? = nil) {
        host.kernelPost(
            LoopCall(
                FOS_OP_FLEET_GIVE,
                fos_fleet_give(member: UInt32(taker), slots: UInt32(slots), slot: slot.map { UInt32($0) } ?? UInt32.max, reserved: 0)),
            to: servers[giver])
    }

    /// Now and then moves the slot of one of these inodes to another server.
    func moveByChance(_ random: inout LoopRandom, inodes: [UInt64]) {
        guard servers.count > 1, random.chance(64), let inode = inodes.randomElement(using: &random) else { return }
        let slot = Int(inode % 4096)
        guard let giver = servers.indices.first(where: { member in look(member) { $0.slots.owner(ofSlot: slot) == member } }) else {
            return
        }
        let taker = (giver + 1 + random.below(servers.count - 1)) % servers.count
        give(from: giver, to: taker, slot: slot)
    }

    /// Lets every move come to its end, and everybody learn of it; and all that is still owed be sent.
    func settleMoves() {
        for _ in 0..<400 {
            host.runUntilQuiet()
            let isBusy = servers.indices.contains { member in
                look(member) {
                    $0.motion.isActive || $0.motion.orderCount > 0 || $0.motion.untold.count > 0 || $0.motion.unsynced.count > 0
                        || $0.motion.syncsUnderWay > 0 || $0.owing > 0 || $0.motion.debt > 0 && $0.pool.credits > 0
                }
            }
            if !isBusy { return }
            host.tick()
        }
        Issue.record("slots are on their way without end, seed \(host.options.seed)")
    }

    var movedInodes: UInt64 { servers.indices.reduce(0) { sum, member in sum + look(member) { $0.motion.movedInodes } } }
    /// The member that owns a slot, by its own table; all agree.
    func owner(ofSlot slot: Int) -> Int? {
        let says = servers.indices.map { member in look(member) { $0.slots.owner(ofSlot: slot) } }
        return Set(says).count == 1 ? says[0] : nil
    }
}

@Suite struct SlotMoveTests {
    /// Moves everything to the other one of two servers, there and back.
    private func moveAll(_ fleet: FileFleet, from giver: Int, to taker: Int) {
        fleet.give(4096, from: giver, to: taker)
        fleet.settleMoves()
        #expect(fleet.look(giver) { $0.slots.share(of: giver) } == 0)
        #expect(fleet.look(giver) { $0.inodes.count } == 0)
    }

    @Test func contentComesAlong() throws {
        let fleet = FileFleet(members: 2)
        let files = fleet.files()
        let directory = files.mkdir(1, "d").inode
        let file = files.create(directory, "f").inode
        let bytes = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
        #expect(files.write(file, 10_000, bytes) == bytes.count)
        let target = String(repeating: "t", count: 4000)
        let link = files.symlink(directory, "l", target).inode
        let value = [UInt8](repeating: 7, count: 20_000)
        for (name, content) in [("user.short", Array("x".utf8)), ("user.long", value), ("user.empty", [])] {
            let set = LoopCall(
                FOS_OP_SETXATTR, inode: file,
                fos_xattr_request(flags: 0, name_length: UInt32(name.utf8.count), value_length: UInt32(content.count), reserved: 0),
                name, bulk: content)
            #expect(files.call(set).status == 0)
        }
        for index in 0..<300 { _ = files.create(directory, "n\(index)") }
        for index in 0..<100 { _ = files.unlink(directory, "n\(index * 3)") }
        let names = files.names(directory)
        let before = files.stat(file).attributes
        for round in 0..<3 {
            moveAll(fleet, from: 0, to: 1)
            fleet.check("round \(round)")
            #expect(files.read(file, 10_000, bytes.count).bulk == bytes)
            #expect(files.read(file, 0, 10_000).bulk == [UInt8](repeating: 0, count: 10_000))
            #expect(files.seek(file, 3, 0) == 8192)
            #expect(files.readlink(link).bulk == Array(target.utf8))
            #expect(files.names(directory) == names)
            let after = files.stat(file).attributes
            #expect(
                after.size == before.size && after.blocks == before.blocks && after.generation == before.generation
                    && after.mode == before.mode)
            #expect(after.modified.nanoseconds == before.modified.nanoseconds && after.version == before.version)
            let get = LoopCall(
                FOS_OP_GETXATTR, inode: file, fos_xattr_request(flags: 0, name_length: 9, value_length: 65536, reserved: 0), "user.long",
                room: 65536)
            #expect(files.call(get).bulk == value)
            // New numbers are new: nothing that moved is named twice.
            #expect(files.create(directory, "r\(round)").status == 0)
            #expect(files.unlink(directory, "r\(round)") == 0)
            moveAll(fleet, from: 1, to: 0)
            fleet.check("round \(round), back")
            #expect(files.read(file, 10_000, bytes.count).bulk == bytes)
        }
        fleet.give(2048, from: 0, to: 1)
        fleet.settleMoves()
        fleet.check()
    }

    @Test func openFilesWithoutANameComeAlongAndGoWithTheirClient() {
        let fleet = FileFleet(members: 2)
        let files = fleet.files()
        let file = files.create(1, "f", reference: 1).inode
        #expect(files.write(file, 0, Array("kept".utf8)) == 4)
        #expect(files.unlink(1, "f") == 0)
        moveAll(fleet, from: 1, to: 0)
        moveAll(fleet, from: 0, to: 1)
        #expect(files.read(file, 0, 10).bulk == Array("kept".utf8))
        files.client.die()
        fleet.host.runUntilQuiet()
        #expect(fleet.files().stat(file).status == -ESTALE)
        fleet.check()
    }

    @Test func locksAndThoseWhoWaitForThemComeAlong() throws {
        let fleet = FileFleet(members: 2)
        let (one, two) = (fleet.files(), fleet.files())
        let file = one.create(1, "f", reference: 1).inode
        #expect(two.open(file, 2).status == 0)
        func lock(_ kind: fos_lock_kind, wait: UInt32 = 0, owner: UInt64 = 1) -> LoopCall {
            LoopCall(
                FOS_OP_SETLK, inode: file,
                fos_lock_request(owner: owner, start: 10, end: 19, kind: kind.rawValue, pid: 1, wait: wait, reserved: 0))
        }
        #expect(one.call(lock(FOS_LOCK_WRITE)).status == 0)
        let waiting = two.client.post(lock(FOS_LOCK_WRITE, wait: 1))
        fleet.host.runUntilQuiet()
        #expect(!two.client.isAnswered(waiting))
        moveAll(fleet, from: 1, to: 0)
        moveAll(fleet, from: 0, to: 1)
        #expect(!two.client.isAnswered(waiting))
        #expect(two.call(lock(FOS_LOCK_READ, owner: 9)).status == -EAGAIN)
        #expect(one.call(lock(FOS_LOCK_UNLOCK)).status == 0)
        fleet.host.runUntilQuiet()
        #expect(two.client.reply(waiting)?.status == 0)
        #expect(one.call(lock(FOS_LOCK_READ)).status == -EAGAIN)
        // Who waits at the new owner is cancelled there, and a dead client holds nothing.
        let again = one.client.post(lock(FOS_LOCK_WRITE, wait: 1))
        fleet.host.runUntilQuiet()
        moveAll(fleet, from: 1, to: 0)
        two.client.die()
        fleet.host.runUntilQuiet()
        #expect(one.client.reply(again)?.status == 0)
        one.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    /// What the kernel holds is revoked by the new owner.
    @Test func kernelLeasesComeAlong() {
        let fleet = FileFleet(members: 2)
        let (front, other) = (fleet.frontEnd(), fleet.files())
        let file = front.create(1, "f").inode
        _ = front.stat(file)
        moveAll(fleet, from: 1, to: 0)
        moveAll(fleet, from: 0, to: 1)
        front.client.forgetNotices()
        #expect(other.setattr(file, FOS_SET_MODE.rawValue, mode: 0o600).status == 0)
        #expect(front.client.notices.contains { $0.inode == file && $0.kind == FOS_NOTICE_INODE_ATTRIBUTES.rawValue })
        #expect(other.unlink(1, "f") == 0)
        #expect(front.client.notices.contains { $0.child == file && $0.kind == FOS_NOTICE_REMOVED.rawValue })
        // The kernel's reference still keeps it, until it is given back at the new owner.
        #expect(other.stat(file).status == 0)
        #expect(front.forget([(file, 1)]) == 0)
        fleet.host.runUntilQuiet()
        #expect(other.stat(file).status == -ESTALE)
        fleet.check()
    }

    /// A client that still reads the old owner's hint is passed on, and all members learn.
    @Test func staleHintsCostAForward() {
        let fleet = FileFleet(members: 3)
        let files = fleet.files()
        let file = files.create(1, "f").inode
        let slot = Int(file % 4096)
        let old = fleet.owner(ofSlot: slot) ?? 0
        fleet.give(from: old, to: (old + 1) % 3, slot: slot)
        fleet.settleMoves()
        #expect(fleet.owner(ofSlot: slot) == (old + 1) % 3)
        #expect(fleet.host.slotOwner[slot] == fleet.servers[(old + 1) % 3])
        let reply = try? files.client.call(LoopCall(FOS_OP_GETATTR, inode: file), to: fleet.servers[old])
        #expect(reply?.status == 0)
        fleet.check()
    }

    /// A server that had no part in the fleet learns the table, takes slots, and gives them back.
    @Test func aFleetGrowsAndShrinks() {
        let fleet = FileFleet(members: 2, places: 4)
        let files = fleet.files()
        var made: [UInt64] = []
        for index in 0..<64 { made.append(files.create(files.mkdir(1, "d\(index)").inode, "f").inode) }
        func tell(_ alive: Set<Int>, _ epoch: UInt32) {
            var news = fos_fleet_members()
            news.service = FOS_SERVICE_FILE.rawValue
            news.epoch = epoch
            for member in alive { news.alive.0 |= 1 << UInt64(member) }
            for server in fleet.servers { fleet.host.kernelPost(LoopCall(FOS_OP_FLEET_MEMBERS, news), to: server) }
            fleet.settleMoves()
        }
        tell([0, 1, 2, 3], 1)
        for giver in 0..<2 { for taker in 2..<4 { fleet.give(512, from: giver, to: taker) } }
        fleet.settleMoves()
        for member in 0..<4 { #expect(fleet.look(member) { $0.slots.share(of: member) } == 1024) }
        fleet.check("grown")
        for index in 0..<64 { #expect(files.create(files.mkdir(1, "e\(index)").inode, "f").status == 0) }
        #expect(fleet.look(3) { $0.inodes.count } > 16)
        tell([0], 2)
        for giver in 1..<4 { fleet.give(4096, from: giver, to: 0) }
        fleet.settleMoves()
        fleet.host.tick()
        fleet.host.runUntilQuiet()
        for member in 1..<4 {
            #expect(fleet.look(member) { $0.slots.share(of: member) == 0 && $0.inodes.count == 0 && $0.pool.credits + $0.pool.used == 0 })
        }
        for inode in made { #expect(files.stat(inode).status == 0) }
        fleet.check("shrunk")
    }

    /// A file system that is full moves too: no credit is made or lost.
    @Test func aFullFileSystemMoves() {
        let fleet = FileFleet(members: 2, pagesPerMember: 256)
        let files = fleet.files()
        let file = files.create(1, "f").inode
        var offset: UInt64 = 0
        while files.write(file, offset, [UInt8](repeating: 1, count: 4096)) == 4096 { offset += 4096 }
        #expect(offset > 400 * 4096)
        moveAll(fleet, from: 1, to: 0)
        fleet.check("there")
        moveAll(fleet, from: 0, to: 1)
        fleet.check("back")
        #expect(files.read(file, offset - 4096, 4096).bulk == [UInt8](repeating: 1, count: 4096))
        #expect(files.unlink(1, "f") == 0)
        fleet.settleMoves()
        fleet.check("removed")
    }

    /// Random reads and writes of files whose slots move all the time, against plain arrays.
    @Test(arguments: seeds(12)) func dataStaysRightWhileSlotsMove(seed: UInt64) {
        print("data seed \(seed)")
        let fleet = FileFleet(members: 2 + Int(seed % 3), options: RandomTests.options(seed))
        var random = LoopRandom(seed: seed &* 313)
        let clients = [fleet.files(), fleet.frontEnd()]
        var contents: [(inode: UInt64, bytes: [UInt8])] = []
        for index in 0..<6 {
            let directory = clients[0].mkdir(1, "d\(index)").inode
            contents.append((clients[0].create(directory, "f").inode, []))
        }
        for step in 0..<400 {
            fleet.moveByChance(&random, inodes: contents.map(\.inode))
            let files = clients[random.below(2)]
            let which = random.below(contents.count)
            let inode = contents[which].inode
            switch random.below(4) {
            case 0:
                let bytes = (0..<(1 + random.below(9000))).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                let offset = random.below(20_000)
                guard files.write(inode, UInt64(offset), bytes) == bytes.count else {
                    Issue.record("seed \(seed) step \(step): a write fails")
                    return
                }
                if contents[which].bytes.count < offset + bytes.count {
                    contents[which].bytes += [UInt8](repeating: 0, count: offset + bytes.count - contents[which].bytes.count)
                }
                contents[which].bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            case 1:
                let size = random.below(25_000)
                #expect(files.truncate(inode, UInt64(size)) == 0)
                let old = contents[which].bytes.count
                if size < old {
                    contents[which].bytes.removeLast(old - size)
                } else {
                    contents[which].bytes += [UInt8](repeating: 0, count: size - old)
                }
            default:
                let got = files.read(inode, 0, 40_000)
                guard got.status == 0, got.bulk == contents[which].bytes else {
                    Issue.record("seed \(seed) step \(step): \(got.status), other bytes")
                    return
                }
            }
        }
        fleet.settleMoves()
        for (inode, bytes) in contents { #expect(clients[0].read(inode, 0, 40_000).bulk == bytes) }
        #expect(fleet.movedInodes > 0)
        fleet.check("seed \(seed)")
    }
}
