// Sharded directories: how they come about, what they answer, and how they end.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct ShardTests {
    /// A directory with `count` files f0, f1, ..., sharded from `threshold` on.
    struct Large {
        let fleet: FileFleet
        let files: Files
        let directory: UInt64
        init(
            members: Int = 4, threshold: Int = 16, count: Int = 100, pages: Int = 4096, mode: UInt32 = 0o755, seed: UInt64 = 1,
            fullChance: Int = 0
        ) {
            var options = LoopOptions(seed: seed)
            options.fullChance = fullChance
            fleet = FileFleet(
                members: members, pagesPerMember: pages, rootMode: 0o777, sharding: Sharding(threshold: threshold), options: options)
            files = fleet.files()
            directory = files.mkdir(1, "d", mode: mode).inode
            for index in 0..<count { #expect(files.create(directory, "f\(index)").status == 0) }
            fleet.host.runUntilQuiet()
        }
        func settle(_ note: String = "") {
            for _ in 0..<5 {
                fleet.host.tick()
                fleet.host.runUntilQuiet()
            }
            fleet.check(note)
        }
        var shards: Int { fleet.shardedDirectories()[directory] ?? 0 }
        func names(_ count: Int) -> [String] { (0..<count).map { "f\($0)" }.sorted() }
        /// A name of a shard.
        func name(inShard shard: Int, _ prefix: String = "n") -> String {
            let bits = UInt32(fleet.host.shardBits(of: directory))
            for index in 0... {
                let name = "\(prefix)\(index)"
                if Array(name.utf8).withUnsafeBufferPointer({ fos_shard_of(directory, $0.baseAddress, UInt32($0.count), bits) }) == shard {
                    return name
                }
            }
            return ""
        }
    }

    /// On a small machine nothing is spread by itself.
    @Test func directoriesAreSpreadByDefaultWhereServersHaveCores() {
        #expect(Sharding.usual(servers: 4, cores: 4).threshold == 4096 && Sharding.usual(servers: 64, cores: 64).threshold == 4096)
        for (servers, cores) in [(2, 1), (4, 1), (4, 3), (3, 4), (8, 2)] {
            #expect(Sharding.usual(servers: servers, cores: cores).threshold == 0)
        }
    }

    @Test(arguments: [2, 3, 4, 7]) func growsAndEnds(members: Int) {
        let w = Large(members: members)
        let all = members == 3 ? 4 : members == 7 ? 8 : members
        #expect(w.shards == all)
        w.settle()
        #expect(w.files.names(w.directory) == w.names(100))
        #expect(w.files.stat(w.directory).attributes.size == 3200 && w.files.stat(w.directory).attributes.links == 2)
        #expect(w.files.mkdir(w.directory, "sub").status == 0 && w.files.stat(w.directory).attributes.links == 3)
        #expect(w.files.rmdir(1, "d") == -ENOTEMPTY)
        #expect(w.files.create(w.directory, "f7", flags: 0o202).status == -EEXIST)
        #expect(w.files.lookup(w.directory, "none").status == -ENOENT)
        #expect(w.files.lookup(w.directory, ".").inode == w.directory && w.files.lookup(w.directory, "..").inode == 1)
        #expect(w.files.rmdir(w.directory, "sub") == 0)
        for index in 0..<100 { #expect(w.files.unlink(w.directory, "f\(index)") == 0) }
        w.settle()
        #expect(w.shards == all && w.files.names(w.directory) == [])
        #expect(w.files.rmdir(1, "d") == 0)
        w.settle()
        #expect(w.fleet.shardedDirectories().isEmpty && w.fleet.host.shardBits(of: w.directory) == 0)
    }

    /// Shards that need many messages each, while names are made for shards that have not had their turn.
    @Test func growsFromManyEntries() {
        let w = Large(members: 4, threshold: 2048, count: 2100)
        #expect(w.shards == 4)
        #expect(w.files.names(w.directory).count == 2100)
        w.settle()
    }

    /// Once it is spread, a client that knows sends each request to the server that answers it.
    @Test func oneMessageEach() {
        let w = Large(members: 4)
        let before = w.fleet.servers.map { w.fleet.host.statistics(of: $0).forwards }
        let steps = w.fleet.host.steps
        for index in 0..<50 {
            #expect(w.files.create(w.directory, "g\(index)").status == 0)
            // The first ones live with the directory's owner, and may be named by another.
            #expect(w.files.lookup(w.directory, "f\(50 + index)").status == 0)
            #expect(w.files.unlink(w.directory, "g\(index)") == 0)
        }
        #expect(w.fleet.servers.map { w.fleet.host.statistics(of: $0).forwards } == before)
        #expect(w.fleet.host.steps - steps == 50 * 3 * 2)
    }

    /// One that does not know is forwarded.
    @Test func anyServerCanBeAsked() throws {
        let w = Large(members: 4)
        for server in w.fleet.servers {
            for index in stride(from: 0, to: 100, by: 7) {
                let reply = try w.files.client.call(LoopCall(FOS_OP_LOOKUP, inode: w.directory, name: "f\(index)"), to: server)
                #expect(reply.status == 0)
            }
            #expect(try w.files.client.call(LoopCall(FOS_OP_LOOKUP, inode: w.directory, name: "none"), to: server).status == -ENOENT)
        }
    }

    /// A listing that began in the undivided directory goes on in its shards: what was there throughout, once.
    @Test(arguments: seeds(20)) func listingsGoOn(seed: UInt64) {
        print("listing seed \(seed)")
        let w = Large(members: 2 + Int(seed % 5), threshold: 64, count: 40, seed: seed, fullChance: [0, 16, 64][Int(seed % 3)])
        var random = LoopRandom(seed: seed)
        for index in 0..<10 where random.chance(128) { _ = w.files.unlink(w.directory, "f\(index)") }
        let throughout = Set(w.files.names(w.directory).filter { Int($0.dropFirst())! >= 10 })
        var cookie: UInt64 = 0
        var seen: [String] = []
        var next = 1000
        while true {
            let (status, part) = w.files.entries(w.directory, cookie: cookie, room: 300 + random.below(900))
            guard status == 0, let last = part.last else { break }
            // telldir and seekdir: some of what was read is read again.
            let keep = random.chance(64) ? 1 + random.below(part.count) : part.count
            seen += part.prefix(keep).map(\.name)
            cookie = keep == part.count ? last.next : part[keep - 1].next
            for _ in 0..<random.below(20) {
                #expect(w.files.create(w.directory, "f\(next)").status == 0)
                if random.chance(100) { #expect(w.files.unlink(w.directory, "f\(next)") == 0) }
                next += 1
            }
        }
        #expect(Set(seen).count == seen.count, "seed \(seed): an entry comes twice")
        #expect(throughout.isSubset(of: seen), "seed \(seed): missing \(throughout.subtracting(seen))")
        #expect(w.shards > 1, "seed \(seed)")
        w.settle("seed \(seed)")
    }

    @Test func attributesOfAllShards() {
        let w = Large(members: 4)
        let later = w.fleet.host.now.seconds + 1_000_000
        // Times that are given stay until entries change.
        #expect(w.files.setattr(w.directory, FOS_SET_MODIFIED.rawValue | FOS_SET_ACCESSED.rawValue, time: later).status == 0)
        #expect(w.files.stat(w.directory).attributes.modified.seconds == later)
        for shard in 0..<4 {
            #expect(w.files.setattr(w.directory, FOS_SET_MODIFIED.rawValue, time: later).status == 0)
            #expect(w.files.create(w.directory, w.name(inShard: shard)).status == 0)
            let attributes = w.files.stat(w.directory).attributes
            #expect(attributes.modified.seconds < later && attributes.changed.seconds < later, "shard \(shard)")
        }
        // The access time moves with the first listing after a change, and not with the second.
        let before = w.files.stat(w.directory).attributes
        #expect(w.files.create(w.directory, w.name(inShard: 2, "a")).status == 0)
        w.fleet.host.advance(nanoseconds: 3_000_000_000)
        _ = w.files.names(w.directory)
        let after = w.files.stat(w.directory).attributes
        #expect(after.accessed.seconds != before.accessed.seconds)
        let version = w.files.stat(w.directory).attributes.version
        #expect(w.files.unlink(w.directory, "f1") == 0 && w.files.stat(w.directory).attributes.version > version)
        w.settle()
    }

    @Test func permissionsHoldInEveryShard() {
        let w = Large(members: 4, mode: 0o777)
        let user = w.fleet.files(uid: 1000, gid: 1000)
        for shard in 0..<4 { #expect(user.create(w.directory, w.name(inShard: shard)).status == 0) }
        #expect(w.files.setattr(w.directory, FOS_SET_MODE.rawValue, mode: 0o755).status == 0)
        for shard in 0..<4 { #expect(user.create(w.directory, w.name(inShard: shard, "m")).status == -EACCES) }
        #expect(w.files.setattr(w.directory, FOS_SET_MODE.rawValue, mode: 0o2777).status == 0)
        #expect(w.files.setattr(w.directory, FOS_SET_GID.rawValue, gid: 77).status == 0)
        for shard in 0..<4 {
            #expect(user.create(w.directory, w.name(inShard: shard, "m")).attributes.gid == 77)
            #expect(user.mkdir(w.directory, w.name(inShard: shard, "s")).permissions == 0o2755)
        }
        // Sticky: only owners remove.
        #expect(w.files.setattr(w.directory, FOS_SET_MODE.rawValue, mode: 0o1777).status == 0)
        let other = w.fleet.files(uid: 1001, gid: 1001)
        for shard in 0..<4 {
            #expect(other.unlink(w.directory, w.name(inShard: shard)) == -EPERM)
            #expect(user.unlink(w.directory, w.name(inShard: shard)) == 0)
        }
        #expect(user.setattr(w.directory, FOS_SET_MODE.rawValue, mode: 0o777).status == -EPERM)
        w.settle()
    }

    /// Renames between shards, over entries of shards, and over the directory itself.
    @Test func renames() {
        let w = Large(members: 4)
        for from in 0..<4 {
            for to in 0..<4 {
                let (old, new) = (w.name(inShard: from, "o"), w.name(inShard: to, "r\(from)"))
                let inode = w.files.create(w.directory, old).inode
                #expect(w.files.rename(w.directory, old, w.directory, new) == 0)
                #expect(w.files.lookup(w.directory, old).status == -ENOENT && w.files.lookup(w.directory, new).inode == inode)
                #expect(w.files.rename(w.directory, new, w.directory, "f1", flags: 1) == -EEXIST)
                #expect(w.files.rename(w.directory, new, w.directory, "f1", flags: 2) == 0)
                #expect(w.files.lookup(w.directory, "f1").inode == inode)
                #expect(w.files.rename(w.directory, "f1", 1, "out") == 0)
                #expect(w.files.rename(1, "out", w.directory, "f1") == 0)
                #expect(w.files.link(inode, w.directory, w.name(inShard: to, "l\(from)")).attributes.links == 2)
            }
        }
        let sub = w.files.mkdir(w.directory, "sub").inode
        #expect(w.files.rename(1, "d", sub, "d") == -EINVAL)
        #expect(w.files.mkdir(1, "empty").status == 0)
        #expect(w.files.rename(1, "empty", 1, "d") == -ENOTEMPTY)
        for name in w.files.names(w.directory) {
            #expect((name == "sub" ? w.files.rmdir(w.directory, name) : w.files.unlink(w.directory, name)) == 0)
        }
        #expect(w.shards == 4)
        #expect(w.files.rename(1, "empty", 1, "d") == 0)
        w.settle()
        #expect(w.fleet.shardedDirectories().isEmpty)
    }

    /// What the kernel holds of a sharded directory is revoked by a change in whichever shard.
    @Test func leasesInEveryShard() {
        let w = Large(members: 4)
        let kernel = w.fleet.frontEnd()
        kernel.client.noticePolicy = .byHand
        #expect(kernel.lookup(1, "d").inode == w.directory)
        for shard in 0..<4 {
            let name = w.name(inShard: shard)
            #expect(kernel.lookup(w.directory, name).status == -ENOENT)
            #expect(kernel.stat(w.directory).status == 0)
            _ = kernel.names(w.directory)
            kernel.client.forgetNotices()
            let ticket = w.files.client.post(Files.make(FOS_OP_CREATE, w.directory, name, mode: 0o644))
            w.fleet.host.runUntilQuiet()
            #expect(!w.files.client.isAnswered(ticket))
            let kinds = kernel.client.notices.map { "\($0.kind) \($0.inode)" }
            #expect(Set(kinds) == ["\(FOS_NOTICE_ENTRY.rawValue) \(w.directory)", "\(FOS_NOTICE_DIRECTORY.rawValue) \(w.directory)"])
            kernel.client.acknowledgeAll()
            w.fleet.host.runUntilQuiet()
            #expect(w.files.client.reply(ticket)?.status == 0)
            // The entry itself, and what it leads to.
            #expect(kernel.lookup(w.directory, name).status == 0)
            kernel.client.forgetNotices()
            let removal = w.files.client.post(LoopCall(FOS_OP_UNLINK, inode: w.directory, name: name))
            w.fleet.host.runUntilQuiet()
            #expect(kernel.client.notices.contains { $0.kind == FOS_NOTICE_REMOVED.rawValue && $0.inode == w.directory })
            kernel.client.acknowledgeAll()
            w.fleet.host.runUntilQuiet()
            #expect(w.files.client.reply(removal)?.status == 0)
        }
        kernel.client.die()
        w.settle()
    }

    /// The word under which a client keeps an entry, or its absence, moves with each change of the name, and also when
    /// the directory is spread or becomes whole, which changes the word.
    @Test func epochsOfNames() {
        let w = Large(members: 4, threshold: 64, count: 60)
        func word(_ name: String) -> (UInt64, UInt32) {
            let bits = w.fleet.host.shardBits(of: w.directory)
            let shard =
                bits == 0
                ? 0 : Array(name.utf8).withUnsafeBufferPointer { fos_shard_of(w.directory, $0.baseAddress, UInt32($0.count), UInt32(bits)) }
            let key = fos_shard_key(w.directory, shard)
            return (key, w.fleet.host.epoch(ofInode: key))
        }
        let whole = word("x")
        for index in 60..<80 { #expect(w.files.create(w.directory, "f\(index)").status == 0) }
        w.fleet.host.runUntilQuiet()
        #expect(w.shards == 4 && w.fleet.host.epoch(ofInode: w.directory) != whole.1)
        for shard in 0..<4 {
            let name = w.name(inShard: shard)
            let before = (0..<4).map { w.fleet.host.epoch(ofInode: fos_shard_key(w.directory, UInt32($0))) }
            #expect(w.files.create(w.directory, name).status == 0)
            let after = (0..<4).map { w.fleet.host.epoch(ofInode: fos_shard_key(w.directory, UInt32($0))) }
            #expect((0..<4).filter { before[$0] != after[$0] } == [shard])
            #expect(w.files.unlink(w.directory, name) == 0)
            #expect(w.fleet.host.epoch(ofInode: fos_shard_key(w.directory, UInt32(shard))) != after[shard])
        }
        for index in 0..<80 { #expect(w.files.unlink(w.directory, "f\(index)") == 0) }
        let before = (0..<4).map { w.fleet.host.epoch(ofInode: fos_shard_key(w.directory, UInt32($0))) }
        #expect(w.files.rmdir(1, "d") == 0)
        for shard in 0..<4 { #expect(w.fleet.host.epoch(ofInode: fos_shard_key(w.directory, UInt32(shard))) != before[shard]) }
        w.settle()
    }

    /// A member without room: the names that it should have stay where they were.
    @Test(arguments: seeds(12)) func withoutRoom(seed: UInt64) {
        let w = Large(members: 4, threshold: 512, count: 0, pages: 90 + Int(seed) * 4, seed: seed)
        var made: Set<String> = []
        for index in 0..<4000 {
            let name = "a name that takes some room \(index)"
            let status = w.files.create(w.directory, name).status
            if status == -ENOSPC { break }
            #expect(status == 0)
            made.insert(name)
        }
        w.fleet.host.runUntilQuiet()
        #expect(w.files.names(w.directory) == made.sorted())
        for name in made { #expect(w.files.unlink(w.directory, name) == 0) }
        #expect(w.files.rmdir(1, "d") == 0)
        w.settle("seed \(seed)")
    }
}

extension ShardTests.Large: CustomReflectable { var customMirror: Mirror { Mirror(self, children: []) } }
