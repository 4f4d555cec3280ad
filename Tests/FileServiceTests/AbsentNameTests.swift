// Names that the kernel takes for absent: who makes one of them waits for it, and nobody else.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct AbsentNameTests {
    private static let second: UInt64 = 1_000_000_000
    /// Nanoseconds for which a server knows of an absent name, at least, and at most.
    private static let (kept, gone) = (90 * second, 102 * second)

    private func setup(_ members: Int) -> LeaseTests.Setup { LeaseTests.Setup(members: members) }

    @Test(arguments: [1, 2, 3]) func onlyWhoMakesTheNameWaits(members: Int) {
        let s = setup(members)
        let d = s.other.mkdir(1, "d").inode
        let e = s.other.mkdir(1, "e").inode
        #expect(s.kernel.lookup(1, "d").inode == d && s.kernel.lookup(1, "e").inode == e)
        s.run(Files.make(FOS_OP_CREATE, d, "first", mode: 0o644), ["directory \(d)"])
        s.run(Files.make(FOS_OP_CREATE, e, "first", mode: 0o644), ["directory \(e)"])
        func absent(_ names: [String]) { for name in names { #expect(s.kernel.lookup(d, name).status == -ENOENT) } }
        let names = ["created", "made", "linked", "moved", "here"]
        absent(names + ["never"])
        // Others come and go unseen.
        s.run(Files.make(FOS_OP_CREATE, d, "f", mode: 0o644), [])
        s.run(Files.make(FOS_OP_MKDIR, d, "g", mode: 0o755), [])
        s.run(Files.linkCall(s.other.lookup(d, "f").inode, d, "h"), [])
        s.run(Files.renameCall(d, "h", d, "i"), [])
        s.run(Files.renameCall(d, "i", e, "i"), [])
        s.run(Files.renameCall(d, "g", e, "g"), [])
        s.run(LoopCall(FOS_OP_UNLINK, inode: e, name: "i"), [])
        s.run(LoopCall(FOS_OP_RMDIR, inode: e, name: "g"), [])
        // Each of these is waited for, once.
        func make(_ expected: Bool) {
            let notices = Dictionary(uniqueKeysWithValues: names.map { ($0, expected ? ["entry \(d)/\($0)"] : []) })
            s.run(Files.make(FOS_OP_CREATE, d, "created", mode: 0o644), notices["created"]!)
            s.run(Files.make(FOS_OP_MKDIR, d, "made", mode: 0o755), notices["made"]!)
            s.run(Files.linkCall(s.other.lookup(d, "f").inode, d, "linked"), notices["linked"]!)
            s.run(Files.renameCall(e, "first", d, "moved"), notices["moved"]!)
            s.run(Files.renameCall(d, "created", d, "here"), notices["here"]!)
        }
        func unmake() {
            s.run(Files.renameCall(d, "moved", e, "first"), [])
            for name in ["linked", "here"] { s.run(LoopCall(FOS_OP_UNLINK, inode: d, name: name), []) }
            s.run(LoopCall(FOS_OP_RMDIR, inode: d, name: "made"), [])
        }
        make(true)
        unmake()
        make(false)
        unmake()
        absent(names)
        s.fleet.host.advance(nanoseconds: Self.kept)
        make(true)
        unmake()
        absent(names)
        s.fleet.host.advance(nanoseconds: Self.gone)
        make(false)
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        #expect(s.other.create(d, "never").status == 0)
        s.fleet.check()
    }

    /// The names do not go with a directory to another server: there all of them count for as long.
    @Test func anotherServerTakesAllNamesForAbsent() {
        let s = setup(2)
        let d = s.other.mkdir(1, "d").inode
        let e = s.other.mkdir(1, "e").inode
        for name in ["a", "b", "c"] { #expect(s.kernel.lookup(d, name).status == -ENOENT) }
        for (giver, taker) in [(0, 1), (1, 0)] {
            s.fleet.give(4096, from: giver, to: taker)
            s.fleet.settleMoves()
        }
        s.run(Files.make(FOS_OP_CREATE, d, "a", mode: 0o644), ["entry \(d)/a"])
        s.run(Files.make(FOS_OP_CREATE, d, "other", mode: 0o644), ["entry \(d)/other"])
        s.run(Files.make(FOS_OP_CREATE, e, "b", mode: 0o644), [])
        s.fleet.host.advance(nanoseconds: Self.kept - Self.second)
        s.run(Files.make(FOS_OP_CREATE, d, "b", mode: 0o644), ["entry \(d)/b"])
        s.fleet.host.advance(nanoseconds: Self.gone - Self.kept + Self.second)
        s.run(Files.make(FOS_OP_CREATE, d, "c", mode: 0o644), [])
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// Whatever a kernel was told within that time, and its own and others' changes meanwhile; slots move, directories are sharded,
    /// mailboxes are full. What it believes when a change has been answered is so.
    @Test(arguments: seeds(24)) func noAnsweredChangeIsUnknownToTheKernel(seed: UInt64) {
        print("absent names, seed \(seed)")
        let fleet = FileFleet(members: 1 + Int(seed % 4), sharding: RandomTests.sharding(seed), options: RandomTests.options(seed))
        var random = LoopRandom(seed: seed &* 313)
        let (kernel, other) = (fleet.frontEnd(), fleet.files())
        var directories: [UInt64] = [1]
        for index in 0..<4 { directories.append(other.mkdir(directories[index / 2], "d\(index)").inode) }
        for (index, directory) in directories.dropFirst().enumerated() {
            #expect(kernel.lookup(directories[index / 2], "d\(index)").inode == directory)
        }
        struct Name: Hashable {
            let directory: UInt64
            let text: String
        }
        /// What the kernel takes for absent, and since when.
        var absent: [Name: UInt64] = [:]
        var (told, silent) = (0, 0)
        for step in 0..<500 {
            fleet.moveByChance(&random, inodes: directories)
            if random.chance(32) { fleet.host.advance(nanoseconds: UInt64(random.below(60)) * Self.second) }
            if random.chance(32) { fleet.host.tick() }
            func anyName() -> Name { Name(directory: directories[random.below(directories.count)], text: "n\(random.below(6))") }
            let (name, from) = (anyName(), anyName())
            let target = random.chance(128) ? from : name
            let calls = [
                (Files.make(FOS_OP_CREATE, name.directory, name.text, mode: 0o644), [name]),
                (Files.make(FOS_OP_MKDIR, name.directory, name.text, mode: 0o755), [name]),
                (Files.renameCall(from.directory, from.text, name.directory, name.text), [name]),
                (Files.renameCall(from.directory, from.text, name.directory, name.text, flags: 2), [name, from]),
                (LoopCall(FOS_OP_UNLINK, inode: name.directory, name: name.text), []),
                (LoopCall(FOS_OP_RMDIR, inode: name.directory, name: name.text), []),
            ]
            let (call, made) = calls[random.below(calls.count)]
            if random.chance(40) {
                // A change of the kernel's own, which it learns of by the answer.
                if kernel.call(call).status == 0 { for name in made { absent[name] = nil } }
                continue
            }
            kernel.client.forgetNotices()
            let change = other.client.post(call)
            let looks = random.chance(200) ? [target, anyName()] : []
            let lookups = looks.map { (name: $0, ticket: kernel.client.post(LoopCall(FOS_OP_LOOKUP, inode: $0.directory, name: $0.text))) }
            func isOver() -> Bool {
                other.client.isAnswered(change) && lookups.allSatisfy { kernel.client.isAnswered($0.ticket) }
            }
            for _ in 0..<1000 where !isOver() {
                fleet.host.run(until: isOver)
                if !isOver() { fleet.host.tick() }
            }
            for (name, ticket) in lookups where kernel.client.reply(ticket)?.status == -ENOENT { absent[name] = fleet.host.monotonic }
            for notice in kernel.client.notices where [FOS_NOTICE_ENTRY.rawValue, FOS_NOTICE_REMOVED.rawValue].contains(notice.kind) {
                var bytes = notice.name
                let text = withUnsafeBytes(of: &bytes) { String(decoding: $0.prefix(Int(notice.name_length)), as: UTF8.self) }
                absent[Name(directory: notice.inode, text: text)] = nil
            }
            guard other.client.reply(change)?.status == 0 else { continue }
            if !made.isEmpty { if kernel.client.notices.isEmpty { silent += 1 } else { told += 1 } }
            for name in made {
                guard let since = absent[name], fleet.host.monotonic - since < Self.kept - Self.second else { continue }
                Issue.record("seed \(seed) step \(step): the kernel takes \(name) for absent")
            }
        }
        #expect(told > 0 && silent > 0)
        kernel.client.die()
        fleet.settleMoves()
        fleet.check("seed \(seed)")
    }
}
