// Requests of hostile clients: every length, number and operation made up. Nothing traps, nothing leaks, and peers'
// operations are nobody else's.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct HostileTests {
    @Test func peerOperationsAreForPeers() {
        let fleet = FileFleet(members: 2)
        for files in [fleet.files(), fleet.frontEnd()] {
            let f = files.create(1, "f\(files.client.index)").inode
            for operation in 401...499 {
                var call = LoopCall(fos_operation(rawValue: UInt32(operation)), inode: f, payload: [UInt8](repeating: 0, count: 64))
                call.operation = UInt16(operation)
                #expect(files.call(call).status == -EPERM, "operation \(operation)")
            }
            // The rest of a lookup is no more than GETATTR.
            var call = LoopCall(FOS_OP_GETATTR, inode: f)
            call.operation = UInt16(FOS_OP_PEER_LOOKUP.rawValue)
            #expect(files.call(call).status == 0)
            for operation in [FOS_OP_CLIENT_GONE, FOS_OP_TICK] { #expect(files.call(LoopCall(operation, inode: 1)).status == -EPERM) }
        }
        #expect(fleet.look(0) { $0.treeIsLocked } == false)
    }

    @Test(arguments: seeds(10)) func survivesRubbish(seed: UInt64) {
        print("hostile seed \(seed)")
        let fleet = FileFleet(members: 2, pagesPerMember: 2000, options: LoopOptions(seed: seed))
        var random = LoopRandom(seed: seed &* 31)
        let good = fleet.files()
        let bad = [fleet.files(uid: 0), fleet.files(uid: 1000, gid: 1000), fleet.frontEnd()]
        var inodes: [UInt64] = [1, 0, 5, UInt64.max, 4096, 1 << 63]
        for index in 0..<4 {
            let d = good.mkdir(1, "d\(index)", mode: 0o777).inode
            inodes += [d, good.create(d, "f", mode: 0o666).inode, good.symlink(d, "s", "t").inode]
        }
        let odd: [UInt64] = [
            0, 1, 2, 255, 256, 895, 896, 4095, 4096, 65_535, 65_536, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, UInt64.max,
        ]
        for _ in 0..<4000 {
            let operation = Int(FOS_OP_FILE_FIRST.rawValue) + random.below(40)
            var payload = (0..<random.below(120)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            if random.chance(128) { payload += [UInt8](repeating: 0x41, count: random.below(Int(FOS_PAYLOAD_BYTES_MAX) - payload.count)) }
            // Words of the payload are numbers that hurt.
            for word in 0..<payload.count / 8 where random.chance(160) {
                var value = random.chance(60) ? inodes[random.below(inodes.count)] : odd[random.below(odd.count)]
                if random.chance(80) { value = value & 0xffff_ffff | odd[random.below(odd.count)] << 32 }
                withUnsafeBytes(of: value) { payload.replaceSubrange(word * 8..<word * 8 + 8, with: $0) }
            }
            var call = LoopCall(FOS_OP_GETATTR, inode: inodes[random.below(inodes.count)], payload: payload)
            call.operation = UInt16(operation)
            call.flags = UInt16(truncatingIfNeeded: random.next())
            call.bulkLength = UInt32(truncatingIfNeeded: odd[random.below(odd.count)])
            call.bulkOffset = random.chance(64) ? UInt32(truncatingIfNeeded: odd[random.below(odd.count)]) : 0
            let client = bad[random.below(3)].client
            let ticket = client.post(call)
            fleet.host.runUntilQuiet()
            // A lock may wait for ever; everything else is answered.
            let mayWait = [FOS_OP_SETLK, FOS_OP_FLOCK].contains { $0.rawValue == UInt32(operation) }
            if client.reply(ticket) == nil, !mayWait {
                Issue.record("seed \(seed): operation \(operation) is not answered")
            }
        }
        #expect(good.mkdir(1, "still").status == 0)
        let f = good.create(1, "alive").inode
        #expect(good.write(f, 0, [1, 2, 3]) == 3 || good.statfs().blocks_free == 0)
        for files in bad { files.client.die() }
        fleet.host.runUntilQuiet()
        fleet.check("seed \(seed)")
    }
}
