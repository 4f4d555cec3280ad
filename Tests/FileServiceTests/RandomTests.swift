// Random operations over several owners. In turn, compared errno for errno with the reference model; and many at once,
// delivered in random order with mailboxes that are full now and then, against the invariants of the whole state.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

/// Seeds of a random test: `count`, or as many as FOS_TEST_SEEDS says, from FOS_TEST_FIRST_SEED on.
func seeds(_ count: UInt64) -> ClosedRange<UInt64> {
    func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }
    let first = number("FOS_TEST_FIRST_SEED") ?? 1
    return first...(first + max(number("FOS_TEST_SEEDS") ?? count, 1) - 1)
}

@Suite struct RandomTests {
    static func options(_ seed: UInt64) -> LoopOptions {
        var options = LoopOptions(seed: seed)
        options.fullChance = [0, 16, 64][Int(seed % 3)]
        return options
    }
    /// With a small directory sharded, a run has all of sharding in it.
    static func sharding(_ seed: UInt64) -> Sharding { [Sharding(), Sharding(threshold: 1), Sharding(threshold: 3)][Int(seed / 3 % 3)] }

    @Test(arguments: seeds(20)) func agreesWithTheModel(seed: UInt64) { compareWithTheModel(seed, moving: false) }
    @Test(arguments: seeds(20)) func agreesWithTheModelWhileSlotsMove(seed: UInt64) { compareWithTheModel(seed, moving: true) }

    private func compareWithTheModel(_ seed: UInt64, moving: Bool) {
        print("model seed \(seed), slots move: \(moving)")
        let fleet = FileFleet(
            members: 1 + Int(seed % 5) + (moving ? 1 : 0), sharding: Self.sharding(seed), options: Self.options(seed))
        var random = LoopRandom(seed: seed &* 77)
        let clients = [fleet.files(), fleet.files(), fleet.frontEnd()]
        let model = Model()
        // All nodes ever made, with their inode number. The front end's references keep what it has seen, and removed
        // ones stay in the game for the errors they give.
        var nodes: [(ModelNode, UInt64)] = [(model.root, 1)]
        var kept = Set<Int>([0])
        func pick(directory: Bool) -> (ModelNode, UInt64) {
            for _ in 0..<20 {
                let candidate = nodes[random.below(nodes.count)]
                if candidate.0.isDirectory == directory || random.chance(8) { return candidate }
            }
            return nodes[0]
        }
        /// A number is only meaningful while something keeps the inode.
        func exists(_ node: ModelNode) -> Bool { node.links > 0 || kept.contains(node.identity) }
        for step in 0..<600 {
            if moving { fleet.moveByChance(&random, inodes: nodes.suffix(24).map(\.1)) }
            let files = clients[random.below(3)]
            let isKernel = files.client === clients[2].client
            let (parent, number) = pick(directory: true)
            let name = "n\(random.below(6))"
            guard exists(parent) else { continue }
            let choice = random.below(100)
            var expected: Int32 = 0
            var got: Int32 = 0
            switch choice {
            case 0..<30:
                let kind: UInt8 = [4, 4, 8, 10, 1][random.below(5)]
                let (status, node) = model.make(parent, name, kind: kind)
                expected = status
                let result: Files.Result
                switch kind {
                case 4: result = files.mkdir(number, name)
                case 8: result = files.create(number, name, flags: 0o202)
                case 10: result = files.symlink(number, name, "target")
                default: result = files.mknod(number, name, mode: 0o010644)
                }
                got = result.status
                if let node, got == 0 {
                    nodes.append((node, result.inode))
                    if isKernel { kept.insert(node.identity) }
                    #expect(result.attributes.links == UInt32(node.links))
                }
            case 30..<40:
                let (node, inode) = pick(directory: random.chance(20))
                guard exists(node) else { continue }
                expected = model.link(node, parent, name)
                got = files.link(inode, number, name).status
                if got == 0, isKernel { kept.insert(node.identity) }
            case 40..<50:
                expected = model.unlink(parent, name)
                got = files.unlink(number, name)
            case 50..<60:
                expected = model.rmdir(parent, name)
                got = files.rmdir(number, name)
            case 60..<85:
                let (newParent, newNumber) = pick(directory: true)
                guard exists(newParent) else { continue }
                let new = "n\(random.below(6))"
                let flags = UInt32([0, 0, 0, 1, 2][random.below(5)])
                let refusals = model.refusals(parent, name, newParent, new, flags)
                got = files.rename(number, name, newNumber, new, flags: flags)
                expected = refusals.contains(got) ? got : refusals.first ?? 0
                if refusals.isEmpty { model.rename(parent, name, newParent, new, flags) }
            case 85..<95:
                guard parent.isDirectory else { continue }
                let node = parent.entries[name]
                expected = node == nil ? -ENOENT : 0
                let result = files.lookup(number, name)
                got = result.status
                if let node, got == 0 {
                    if isKernel { kept.insert(node.identity) }
                    #expect(result.inode == nodes.first { $0.0 === node }!.1 && result.attributes.links == UInt32(node.links))
                }
            default:
                guard parent.isDirectory else { continue }
                #expect(files.names(number) == parent.entries.keys.sorted())
            }
            guard got == expected else {
                Issue.record("seed \(seed) step \(step) choice \(choice): \(got), the model says \(expected)")
                return
            }
            if step % 100 == 99 {
                fleet.settleMoves()
                fleet.check("seed \(seed) step \(step)")
            }
        }
        // The trees are the same.
        func compare(_ node: ModelNode, _ number: UInt64) {
            #expect(clients[0].stat(number).attributes.links == UInt32(node.links))
            guard node.isDirectory else { return }
            #expect(clients[0].names(number) == node.entries.keys.sorted())
            for (name, child) in node.entries { compare(child, clients[0].lookup(number, name).inode) }
        }
        compare(model.root, 1)
        clients[2].client.die()
        fleet.settleMoves()
        fleet.check("seed \(seed)")
        if moving { #expect(fleet.movedInodes > 0, "seed \(seed)") }
    }

    /// What one client is doing.
    struct Player {
        let files: Files
        var ticket: LoopTicket?
        var call: LoopCall?
        var done = 0
    }

    @Test(arguments: seeds(30)) func manyAtOnceKeepTheTreeWhole(seed: UInt64) { runManyAtOnce(seed, moving: false) }
    @Test(arguments: seeds(30)) func manyAtOnceKeepTheTreeWholeWhileSlotsMove(seed: UInt64) { runManyAtOnce(seed, moving: true) }

    private func runManyAtOnce(_ seed: UInt64, moving: Bool) {
        print("concurrent seed \(seed), slots move: \(moving)")
        let fleet = FileFleet(members: 2 + Int(seed % 4), sharding: Self.sharding(seed), options: Self.options(seed))
        var random = LoopRandom(seed: seed &* 1001)
        var players = (0..<5).map { Player(files: $0 == 0 ? fleet.frontEnd() : fleet.files(uid: $0 == 4 ? 1000 : 0, gid: 1000)) }
        // The front end acknowledges late, by chance.
        players[0].files.client.noticePolicy = .byHand
        var inodes: [UInt64] = [1]
        for index in 0..<4 { inodes.append(players[1].files.mkdir(1, "d\(index)", mode: 0o777).inode) }
        func next() -> LoopCall {
            let parent = inodes[random.below(min(inodes.count, 24))]
            let name = "n\(random.below(4))"
            switch random.below(12) {
            case 0, 1: return Files.make(FOS_OP_MKDIR, parent, name, mode: 0o777)
            case 2: return Files.make(FOS_OP_CREATE, parent, name, mode: 0o666, flags: 2)
            case 3: return Files.linkCall(inodes[random.below(inodes.count)], parent, name)
            case 4: return LoopCall(FOS_OP_UNLINK, inode: parent, name: name)
            case 5: return LoopCall(FOS_OP_RMDIR, inode: parent, name: name)
            case 6: return LoopCall(FOS_OP_LOOKUP, inode: parent, name: name)
            case 7: return LoopCall(FOS_OP_READDIR, inode: parent, fos_readdir_request(cookie: 0, flags: 1, filled: 0), room: 8192)
            default:
                let flags = UInt32([0, 0, 0, 1, 2][random.below(5)])
                return Files.renameCall(parent, name, inodes[random.below(min(inodes.count, 24))], "n\(random.below(4))", flags: flags)
            }
        }
        var succeeded = 0
        for step in 0..<400_000 where players.contains(where: { $0.done < 150 }) {
            let index = random.below(players.count)
            if moving, random.chance(16) { fleet.moveByChance(&random, inodes: inodes) }
            if let ticket = players[index].ticket {
                if let reply = players[index].files.client.reply(ticket) {
                    players[index].ticket = nil
                    if reply.status > 0 {
                        players[index].ticket = nil  // sent again below
                    } else {
                        if reply.status == 0 {
                            succeeded += 1
                            let operation = players[index].call?.operation ?? 0
                            if [FOS_OP_MKDIR, FOS_OP_CREATE, FOS_OP_LOOKUP].contains(fos_operation(rawValue: UInt32(operation))) {
                                inodes.append(reply.fixed(fos_attributes.self).inode)
                            }
                        } else if reply.status == -EIO {
                            Issue.record("seed \(seed) step \(step): EIO from \(players[index].call?.operation ?? 0)")
                        }
                        players[index].call = nil
                        players[index].done += 1
                    }
                }
            } else if players[index].done < 150 {
                let call = players[index].call ?? next()
                players[index].call = call
                players[index].ticket = players[index].files.client.post(call)
            }
            if random.chance(128), let notice = players[0].files.client.unacknowledged.randomElement(using: &random) {
                players[0].files.client.acknowledge(notice)
            }
            if !fleet.host.step(), random.chance(32) { fleet.host.tick() }
        }
        for _ in 0..<50 {
            players[0].files.client.acknowledgeAll()
            fleet.host.runUntilQuiet()
            fleet.host.tick()
        }
        for player in players {
            #expect(
                player.done >= 150 || player.ticket.map { player.files.client.isAnswered($0) } ?? true, "seed \(seed): somebody is stuck")
        }
        #expect(succeeded > 100, "seed \(seed)")
        players[0].files.client.die()
        fleet.settleMoves()
        fleet.check("seed \(seed)")
    }

    /// Two runs of a seed are one run.
    @Test func aSeedIsARun() {
        func run() -> UInt64 {
            let fleet = FileFleet(members: 3, options: Self.options(5))
            let files = fleet.files()
            for index in 0..<30 {
                let d = files.mkdir(1, "d\(index)").inode
                _ = files.create(d, "f")
                _ = files.rename(d, "f", 1, "f\(index % 4)")
                _ = files.rename(1, "d\(index)", 1, "e")
            }
            return fleet.host.eventHash
        }
        #expect(run() == run())
    }
}
