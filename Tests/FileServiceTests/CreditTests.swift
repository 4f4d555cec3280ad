// The size limit: exact over the fleet, whoever runs out first.

import CFosWire
import FileStorage
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct CreditTests {
    @Test(arguments: [1, 2, 4]) func everyPageCanBeUsedAndNoneMore(members: Int) {
        let fleet = FileFleet(members: members, pagesPerMember: 600)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        let page = [UInt8](repeating: 3, count: 4096)
        var written = 0
        while true {
            let count = files.write(f, UInt64(written) * 4096, page)
            guard count == 4096 else { #expect(count == Int(-ENOSPC)); break }
            written += 1
        }
        let space = files.statfs()
        #expect(space.blocks == UInt64(600 * members) && space.blocks_free == 0, "\(space.blocks_free) pages left")
        #expect(written > 600 * members - 80)
        // What is there may be overwritten; a partial write says how much.
        #expect(files.write(f, 0, page) == 4096)
        #expect(files.truncate(f, UInt64(written - 3) * 4096) == 0)
        #expect(files.write(f, UInt64(written - 3) * 4096, page + page + page + page) == 3 * 4096)
        #expect(files.truncate(f, 0) == 0 && files.statfs().blocks_free > UInt64(written - 2))
        fleet.check()
    }

    @Test(arguments: [1, 3]) func namesNeedSpaceToo(members: Int) {
        let fleet = FileFleet(members: members, pagesPerMember: 300)
        let files = fleet.files()
        let f = files.create(1, "filler").inode
        while files.write(f, files.stat(f).attributes.size, [UInt8](repeating: 1, count: 4096)) > 0 {}
        var made: [String] = []
        while made.count < 10_000 {
            let name = "name\(made.count)"
            let status =
                made.count % 3 == 0
                ? files.mkdir(1, name).status
                : made.count % 3 == 1 ? files.create(1, name).status : files.symlink(1, name, String(repeating: "t", count: 500)).status
            guard status == 0 else { #expect(status == -ENOSPC); break }
            made.append(name)
        }
        #expect(made.count < 10_000)
        #expect(files.names(1).count == made.count + 1)
        #expect(files.call(DataTests.setCall(f, "user.big", [UInt8](repeating: 1, count: 60_000))).status == -ENOSPC)
        #expect(files.rename(1, "filler", 1, "renamed") == 0 || files.rename(1, "filler", 1, made[0]) != 0)
        #expect(files.fallocate(f, 0, 0, 1 << 30) == -ENOSPC)
        for index in made.indices { #expect((index % 3 == 0 ? files.rmdir(1, made[index]) : files.unlink(1, made[index])) == 0) }
        fleet.check()
    }

    /// Memory that nobody needs any more goes back to Linux in portions, one a tick, also on a core where nothing else happens.
    @Test func givesMemoryBackAtFurtherTicks() {
        let fleet = FileFleet(members: 1, pagesPerMember: 40_000)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(files.fallocate(f, 0, 0, 30_000 * 4096) == 0 && files.truncate(f, 0) == 0)
        var ticks = 0
        let most = 4 * PagePool.ticksOfLongNeed
        repeat {
            fleet.host.tick()
            fleet.host.runUntilQuiet()
            ticks += 1
        } while fleet.host.ticksWanted == [fleet.servers[0]] && ticks < most
        #expect(ticks > PagePool.ticksOfLongNeed + 2 && ticks < most)
        fleet.look(0) { #expect($0.pool.trim() == 0) }
        fleet.check()
    }

    /// Pages of a large file that is gone come back by and by, and whoever needs them has them.
    @Test(arguments: [1, 3]) func largeFilesGoInPortions(members: Int) {
        let fleet = FileFleet(members: members, pagesPerMember: 30_000 / members)
        let (files, other) = (fleet.files(), fleet.files())
        let before = files.statfs().blocks_free
        for round in 0..<3 {
            let f = files.create(1, "f\(round)").inode
            #expect(files.fallocate(f, 0, 0, 25_000 * 4096) == 0)
            if round == 1 { #expect(files.truncate(f, 0) == 0 && files.stat(f).attributes.blocks == 0) }
            #expect(files.unlink(1, "f\(round)") == 0)
            let left = (0..<members).map { fleet.look($0) { $0.discarded.pages } }.reduce(0, +)
            #expect(left > 20_000, "not all at once")
            #expect(files.statfs().blocks_free + 25_000 / 400 + 8 > before, "but free for all to see, less the nodes of their map")
        }
        // A write to another file takes what it needs.
        let g = other.create(1, "g").inode
        #expect(other.write(g, 0, [UInt8](repeating: 1, count: 1 << 20)) == 1 << 20)
        #expect(other.fallocate(g, 0, 0, 25_000 * 4096) == 0 && other.truncate(g, 0) == 0)
        var ticks = 0
        let most = 4 * PagePool.ticksOfLongNeed
        repeat {
            fleet.host.tick()
            fleet.host.runUntilQuiet()
            ticks += 1
        } while !fleet.host.ticksWanted.isEmpty && ticks < most
        for member in 0..<members { fleet.look(member) { #expect($0.discarded.isEmpty && $0.discarded.pages == 0) } }
        #expect(ticks < most)
        fleet.check()
    }

    /// Writers on all members at once, in random order: nobody is refused while pages are free.
    @Test(arguments: seeds(12)) func writersStealFromEachOther(seed: UInt64) {
        print("credit seed \(seed)")
        var options = LoopOptions(seed: seed)
        options.fullChance = seed % 2 == 0 ? 20 : 0
        let fleet = FileFleet(members: 3, pagesPerMember: 200, options: options)
        var random = LoopRandom(seed: seed)
        let writers = (0..<6).map { _ in fleet.files() }
        let inodes = (0..<6).map { index in writers[index].create(writers[0].mkdir(1, "d\(index)").inode, "f").inode }
        var offsets = [UInt64](repeating: 0, count: 6)
        var tickets = [LoopTicket?](repeating: nil, count: 6)
        var refused = Set<Int>()
        let pages = [UInt8](repeating: 1, count: 4096 * 4)
        for _ in 0..<1_000_000 where refused.count < 6 {
            let index = random.below(6)
            if let ticket = tickets[index] {
                if let reply = writers[index].client.reply(ticket) {
                    tickets[index] = nil
                    if reply.status == -ENOSPC {
                        refused.insert(index)
                    } else if reply.status == 0 {
                        offsets[index] += UInt64(reply.header.bulk_length)
                    }
                } else if !fleet.host.step() { fleet.host.tick() }
            } else if !refused.contains(index) {
                tickets[index] = writers[index].client.post(Files.writeCall(inodes[index], offsets[index], pages))
            }
        }
        fleet.host.runUntilQuiet()
        #expect(refused.count == 6)
        #expect(writers[0].statfs().blocks_free == 0)
        fleet.check("seed \(seed)")
    }

    /// A server without room for locks gets it from its peers, before anybody is told that there are no locks.
    @Test func locksNeedSpaceToo() throws {
        let fleet = FileFleet(members: 2, pagesPerMember: 2000)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        let owner = try #require(fleet.owner(ofSlot: Int(f % 4096)))
        let moved = fleet.look(owner) { server in
            let credits = server.pool.credits
            server.pool.credits = 0
            return credits
        }
        fleet.look(1 - owner) { $0.pool.credits += moved }
        for index in 0..<1000 as Range<UInt64> {
            #expect(files.call(LockTests.lock(f, 1, FOS_LOCK_WRITE, 2 * index, 2 * index)).status == 0, "lock \(index)")
        }
        fleet.check()
    }
}
