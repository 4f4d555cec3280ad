// RENAME, with one owner and with all parts on different ones.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct RenameTests {
    /// Three members: the old name, the new name, and the inode. Who removes the new name as soon as it is there must not
    /// make the rest of the rename meet another file under the same number.
    @Test func aMoveReachesNoOtherInode() {
        var reused = 0
        for seed in 1...100 {
            let fleet = FileFleet(members: 3, options: LoopOptions(seed: UInt64(seed)))
            let (files, other) = (fleet.files(), fleet.files())
            let directories = (0..<3).map { files.mkdir(1, "d\($0)").inode }
            #expect(Set(directories.map(fleet.member)).count == 3)
            let (home, from, to) = (directories[0], directories[1], directories[2])
            let f = files.create(home, "f").inode
            #expect(files.link(f, from, "x").status == 0 && files.unlink(home, "f") == 0)
            let rename = files.client.post(Files.renameCall(from, "x", to, "y"))
            var removal: LoopTicket?
            for step in 0..<200 {
                other.client.post(Files.make(FOS_OP_CREATE, home, "s\(step)", mode: 0o644))
                if removal == nil { removal = other.client.post(LoopCall(FOS_OP_UNLINK, inode: to, name: "y")) }
                if let ticket = removal, let reply = other.client.reply(ticket) {
                    removal = nil
                    if reply.status == 0 { break }
                }
                fleet.host.step()
            }
            fleet.host.runUntilQuiet()
            #expect(files.client.reply(rename)?.status == 0)
            let stranger = other.stat(f)
            if stranger.status == 0 {
                reused += 1
                let (born, changed) = (stranger.attributes.born, stranger.attributes.changed)
                #expect(born.seconds == changed.seconds && born.nanoseconds == changed.nanoseconds, "seed \(seed)")
            }
            fleet.check("seed \(seed)")
        }
        #expect(reused > 0)
    }

    /// What is owed because mailboxes were full is paid at ticks, which the server asks for until it has.
    @Test func ticksGoOnWhileMessagesAreOwed() {
        var owed = 0
        for seed in 1...20 {
            var options = LoopOptions(seed: UInt64(seed))
            options.fullChance = 120
            let fleet = FileFleet(members: 3, options: options)
            let files = fleet.files()
            let directories = (0..<4).map { files.mkdir(1, "d\($0)").inode }
            #expect(files.mkdir(directories[0], "moves").status == 0)
            var place = 0
            for _ in 0..<60 {
                let next = (place + 1) % 4
                let ticket = files.client.post(Files.renameCall(directories[place], "moves", directories[next], "moves"))
                fleet.host.runUntilQuiet()
                while fleet.servers.indices.contains(where: { fleet.look($0) { $0.owing > 0 } }) {
                    let before = fleet.host.steps
                    fleet.host.tick()
                    fleet.host.runUntilQuiet()
                    // Whoever did more than to tick has a tick coming for that.
                    guard fleet.host.steps == before + UInt64(fleet.servers.count) else { continue }
                    for member in fleet.servers.indices where fleet.look(member, { $0.owing > 0 }) {
                        owed += 1
                        #expect(fleet.host.ticksWanted.contains(fleet.servers[member]))
                    }
                }
                if files.client.reply(ticket)?.status == 0 { place = next }
            }
            fleet.check("seed \(seed)")
        }
        #expect(owed > 0, "no mailbox was full for long enough")
    }

    @Test(arguments: [1, 2, 3, 4, 5]) func renames(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let a = files.mkdir(1, "a").inode
        let b = files.mkdir(1, "b").inode
        let f = files.create(a, "f").inode
        #expect(files.rename(a, "none", b, "x") == -ENOENT)
        #expect(files.rename(a, "f", a, "f") == 0)
        #expect(files.rename(a, "f", a, "g") == 0 && files.lookup(a, "g").inode == f && files.lookup(a, "f").status == -ENOENT)
        #expect(files.rename(a, "g", b, "h") == 0 && files.lookup(b, "h").inode == f && files.names(a) == [])
        let victim = files.create(a, "v").inode
        #expect(files.rename(a, "v", b, "h", flags: 1) == -EEXIST)
        #expect(files.rename(b, "h", a, "v") == 0 && files.stat(victim).status == -ESTALE && files.lookup(a, "v").inode == f)
        // Directories: the parent's links follow; kinds must fit; only empty ones are replaced.
        let c = files.mkdir(a, "c").inode
        #expect(files.stat(a).attributes.links == 3)
        #expect(files.rename(a, "c", b, "c") == 0 && files.stat(a).attributes.links == 2 && files.stat(b).attributes.links == 3)
        #expect(files.lookup(c, "..").inode == b)
        #expect(files.rename(a, "v", b, "c") == -EISDIR && files.rename(b, "c", a, "v") == -ENOTDIR)
        let d = files.mkdir(a, "d").inode
        _ = files.create(c, "inside")
        #expect(files.rename(a, "d", b, "c") == -ENOTEMPTY)
        #expect(files.rename(b, "c", a, "d") == 0 && files.stat(d).status == -ESTALE && files.lookup(a, "d").inode == c)
        #expect(files.stat(b).attributes.links == 2 && files.stat(a).attributes.links == 3)
        // Cycles.
        #expect(files.rename(1, "a", a, "x") == -EINVAL && files.rename(1, "a", c, "x") == -EINVAL)
        #expect(files.rename(a, "d", 1, "a") == -ENOTEMPTY)
        // Two names of one file.
        #expect(files.link(f, b, "two").status == 0 && files.rename(b, "two", a, "v") == 0 && files.lookup(b, "two").inode == f)
        #expect(files.stat(f).attributes.links == 2)
        #expect(files.rename(a, "v", b, "x", flags: 4) == -EINVAL && files.rename(a, "v", b, "x", flags: 3) == -EINVAL)
        fleet.check()
    }

    @Test(arguments: [1, 2, 3, 4, 5]) func exchanges(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let a = files.mkdir(1, "a").inode
        let b = files.mkdir(1, "b").inode
        let f = files.create(a, "f").inode
        let d = files.mkdir(b, "d").inode
        #expect(files.rename(a, "f", b, "none", flags: 2) == -ENOENT)
        #expect(files.rename(a, "f", b, "d", flags: 2) == 0)
        #expect(files.lookup(a, "f").inode == d && files.lookup(b, "d").inode == f && files.lookup(d, "..").inode == a)
        #expect(files.stat(a).attributes.links == 3 && files.stat(b).attributes.links == 2)
        #expect(files.rename(1, "a", 1, "b", flags: 2) == 0 && files.lookup(1, "a").inode == b)
        // "b" is a now, and has f = d in it: a directory is not exchanged with what is above it.
        #expect(files.rename(1, "b", a, "f", flags: 2) == -EINVAL && files.rename(a, "f", 1, "b", flags: 2) == -EINVAL)
        #expect(files.rename(a, "f", 1, "a", flags: 2) == 0)
        #expect(files.lookup(1, "a").inode == d && files.lookup(a, "f").inode == b && files.lookup(b, "..").inode == a)
        fleet.check()
    }

    /// The fast path must not be taken when the tree lock is needed: many moves at once, no cycle ever.
    @Test func deepMoves() {
        let fleet = FileFleet(members: 3)
        let files = fleet.files()
        var chain: [UInt64] = [1]
        for index in 0..<12 { chain.append(files.mkdir(chain[index], "c").inode) }
        #expect(files.rename(1, "c", chain[12], "c") == -EINVAL)
        #expect(files.rename(chain[5], "c", 1, "moved") == 0)
        #expect(files.rename(1, "c", chain[12], "c") == 0)
        #expect(files.names(1) == ["moved"])
        #expect(files.rename(1, "moved", chain[3], "x") == -EINVAL)
        fleet.check()
    }
}
