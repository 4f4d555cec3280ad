// Clients that are left files and leave records at random, beside others that read and change the same files, while slots move and
// clients die: whatever is said of a file agrees with a model of it.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct DelegationRandomTests {
    /// What a file must be like.
    private struct Expected {
        var name: String
        var bytes: [UInt8] = []
        var mode: UInt32 = 0o644
        var modified: Int64?
        mutating func write(_ new: [UInt8], at offset: Int) {
            if offset + new.count > bytes.count { bytes += [UInt8](repeating: 0, count: offset + new.count - bytes.count) }
            bytes.replaceSubrange(offset..<offset + new.count, with: new)
            modified = nil
        }
    }
    /// A client, and the file that it is left, under which epoch: that of the answer, as the file may have been taken from it since.
    private struct Player {
        let delegate: Delegate
        var left: (inode: UInt64, epoch: UInt32)?
    }

    @Test(arguments: seeds(30)) func everybodySeesWhatWasLeft(seed: UInt64) {
        print("delegation seed \(seed)")
        let members = 1 + Int(seed % 4)
        let fleet = FileFleet(
            members: members, pagesPerMember: 16384, rootMode: 0o777, hasMemory: seed % 3 == 0, sharding: .never,
            options: RandomTests.options(seed))
        var random = LoopRandom(seed: seed &* 313)
        var players = (0..<3).map { _ in Player(delegate: Delegate(fleet)) }
        let kernel = fleet.frontEnd()
        let directories: [UInt64] = [1] + (0..<3).map { players[0].delegate.files.mkdir(1, "d\($0)").inode }
        var files: [UInt64: Expected] = [:]
        var parents: [UInt64: UInt64] = [:]
        var made = 0, leavings = 0
        func bytes() -> [UInt8] {
            let count = [1, 10, 500, 5000, 65_408][random.below(5)]
            let start = UInt8(truncatingIfNeeded: random.next())
            return (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 3) &+ start }
        }
        func look(_ inode: UInt64, by files: Files, _ expected: Expected, _ note: String) {
            let seen = files.stat(inode).attributes
            #expect(seen.size == UInt64(expected.bytes.count) && seen.mode == 0o100_000 | expected.mode, "\(note)")
            if let modified = expected.modified { #expect(seen.modified.seconds == modified, "\(note)") }
            let read = files.read(inode, 0, expected.bytes.count + 10)
            let isSame = read.bulk == expected.bytes
            #expect(isSame, "\(note)")
        }
        for step in 0..<250 {
            fleet.moveByChance(&random, inodes: Array(files.keys.sorted().suffix(6)))
            let who = random.below(players.count)
            let delegate = players[who].delegate
            let note = "seed \(seed) step \(step)"
            let some = files.isEmpty ? nil : files.keys.sorted()[random.below(files.count)]
            let choice = random.below(100)
            if choice < 20 || some == nil {
                let parent = directories[random.below(directories.count)]
                made += 1
                let call = Files.make(FOS_OP_CREATE, parent, "f\(made)", mode: 0o644, flags: 2, reference: 1)
                let result = Files.Result(delegate.call(call))
                guard result.status == 0 else { Issue.record("\(note): \(result.status)"); return }
                files[result.inode] = Expected(name: "f\(made)")
                parents[result.inode] = parent
                if delegate.isDelegated(result.flags) { players[who].left = (result.inode, result.attributes.epoch) }
                continue
            }
            guard let inode = some, var expected = files[inode], let parent = parents[inode] else { continue }
            switch choice {
            case 20..<60:
                // Leaves a record, as long as the epoch says so.
                guard let left = players[who].left, left.epoch == delegate.epoch(left.inode), var mine = files[left.inode] else { continue }
                if let other = delegate.inTheWay { _ = delegate.stat(other) }
                guard delegate.inTheWay == nil, left.epoch == delegate.epoch(left.inode) else { continue }
                var change = Leaving()
                if random.chance(200) {
                    let offset = random.below(mine.bytes.count + 1)
                    change = .write(bytes(), at: UInt64(offset))
                    mine.write(change.data, at: offset)
                }
                if change.changes == 0 || random.chance(64) {
                    mine.mode = UInt32([0o600, 0o644, 0o777, 0o400][random.below(4)])
                    change = change.mode(mine.mode)
                }
                if random.chance(64) {
                    let seconds = Int64(random.below(1_000_000))
                    mine.modified = seconds
                    change = change.modified(seconds * 1_000_000_000 + 17)
                }
                delegate.leave(change, of: left.inode)
                files[left.inode] = mine
                leavings += 1
            case 60..<66:
                // The holder itself, with or without a word of its record.
                look(inode, by: delegate.files, expected, "\(note), another or the holder")
            case 66..<72: #expect(delegate.call(LoopCall(FOS_OP_GETATTR, inode: 1)).status == 0)
            case 72..<78: look(inode, by: kernel, expected, "\(note), the kernel")
            case 78..<84:
                let new = bytes(), offset = random.below(expected.bytes.count + 1)
                _ = delegate.files.open(inode, 1)
                let reply = delegate.call(Files.writeCall(inode, UInt64(offset), new, flags: FOS_IO_ATTRIBUTES.rawValue))
                #expect(reply.status == 0)
                expected.write(new, at: offset)
                files[inode] = expected
                if delegate.isDelegated(reply.header.flags) { players[who].left = (inode, reply.header.epoch) }
            case 84..<88:
                let size = random.below(expected.bytes.count + 100)
                var set = fos_setattr_request()
                (set.valid, set.size) = (FOS_SET_SIZE.rawValue, UInt64(size))
                let reply = delegate.call(LoopCall(FOS_OP_SETATTR, inode: inode, set))
                #expect(reply.status == 0)
                // A truncation leaves the file to whoever did it, in place of the one before.
                if delegate.isDelegated(reply.header.flags) { players[who].left = (inode, reply.header.epoch) }
                expected.bytes = Array((expected.bytes + [UInt8](repeating: 0, count: 100)).prefix(size))
                expected.modified = nil
                files[inode] = expected
            case 88..<93:
                #expect(delegate.files.unlink(parent, expected.name) == 0)
                files[inode] = nil
            case 93..<96:
                let target = directories[random.below(directories.count)]
                guard delegate.files.rename(parent, expected.name, target, expected.name + "r") == 0 else { continue }
                expected.name += "r"
                (files[inode], parents[inode]) = (expected, target)
            default:
                delegate.files.client.die()
                players[who] = Player(delegate: Delegate(fleet))
            }
        }
        for (inode, expected) in files.sorted(by: { $0.key < $1.key }) { look(inode, by: players[0].delegate.files, expected, "seed \(seed), at the end") }
        #expect(leavings > 10, "seed \(seed)")
        for player in players { player.delegate.files.client.die() }
        kernel.client.die()
        fleet.settleMoves()
        fleet.check("seed \(seed)")
    }
}
