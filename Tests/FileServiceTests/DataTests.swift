// READ, WRITE, truncation, FALLOCATE, LSEEK, COPY_RANGE, extended attributes, STATFS.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct DataTests {
    @Test func readsWhatWasWritten() {
        let fleet = FileFleet(members: 2)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(files.read(f, 0, 100).bulk == [])
        #expect(files.write(f, 0, Array("hello".utf8)) == 5)
        #expect(files.read(f, 1, 100).bulk == Array("ello".utf8) && files.read(f, 5, 100).bulk == [] && files.read(f, 99, 1).bulk == [])
        // A hole, across pages.
        #expect(files.write(f, 10_000, [9]) == 1)
        let all = files.read(f, 0, 20_000).bulk
        #expect(
            all.count == 10_001 && Array(all[0..<5]) == Array("hello".utf8) && all[5..<10_000].allSatisfy { $0 == 0 } && all[10_000] == 9)
        let attributes = files.stat(f).attributes
        #expect(attributes.size == 10_001 && attributes.blocks == 16)
        // Append says where.
        let reply = files.call(Files.writeCall(f, 0, [1, 2], flags: FOS_IO_APPEND.rawValue))
        #expect(reply.fixed(fos_io_reply.self).offset == 10_001 && reply.fixed(fos_io_reply.self).size == 10_003)
        // Data written back by the kernel never extends.
        #expect(files.write(f, 10_002, [7, 7, 7], flags: FOS_IO_WRITEBACK.rawValue) == 3)
        #expect(files.stat(f).attributes.size == 10_003 && files.read(f, 10_001, 10).bulk == [1, 7])
        #expect(files.write(f, 20_000, [7], flags: FOS_IO_WRITEBACK.rawValue) == 1 && files.stat(f).attributes.size == 10_003)
        // Truncation zeroes what it cuts off.
        #expect(files.truncate(f, 3) == 0 && files.truncate(f, 6) == 0 && files.read(f, 0, 10).bulk == Array("hel".utf8) + [0, 0, 0])
        #expect(files.stat(f).attributes.blocks == 8 && files.truncate(f, 0) == 0 && files.stat(f).attributes.blocks == 0)
        // 1 MiB at once, and the limits.
        let big = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(files.write(f, 4095, big) == 1 << 20 && files.read(f, 4095, 1 << 20).bulk == big)
        #expect(files.write(f, UInt64(Int64.max), [1]) == Int(-EFBIG) && files.write(f, UInt64(Int64.max) - 1, [1, 2]) == 1)
        #expect(files.write(f, UInt64.max - 3, [1, 2, 3, 4, 5]) == Int(-EINVAL))
        #expect(files.stat(f).attributes.size == UInt64(Int64.max))
        #expect(files.setattr(f, FOS_SET_SIZE.rawValue, size: UInt64(Int64.max) + 1).status == -EINVAL)
        #expect(files.read(f, UInt64(Int64.max) - 1, 100).bulk == [1])
        #expect(files.truncate(1, 0) == -EISDIR && files.write(1, 0, [1]) == Int(-EISDIR) && files.read(1, 0, 1).status == -EISDIR)
        #expect(files.write(files.mknod(1, "p", mode: 0o010600).inode, 0, [1]) == Int(-EINVAL))
        #expect(files.unlink(1, "f") == 0)
        fleet.check()
    }

    @Test func allocatesAndSeeks() {
        let fleet = FileFleet(members: 1)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(files.fallocate(f, 0, 4096, 8192) == 0 && files.stat(f).attributes.size == 12_288 && files.stat(f).attributes.blocks == 16)
        #expect(
            files.seek(f, 3, 0) == 4096 && files.seek(f, 4, 0) == 0 && files.seek(f, 4, 5000) == 12_288 && files.seek(f, 3, 5000) == 5000)
        #expect(
            files.seek(f, 3, 12_288) == Int64(-ENXIO) && files.seek(f, 4, 12_288) == Int64(-ENXIO) && files.seek(f, 0, 0) == Int64(-EINVAL))
        #expect(files.fallocate(f, 1, 20_000, 100) == 0 && files.stat(f).attributes.size == 12_288)
        #expect(files.write(f, 4096, [UInt8](repeating: 5, count: 8192)) == 8192)
        #expect(
            files.fallocate(f, 3, 4100, 100) == 0 && files.read(f, 4099, 3).bulk == [5, 0, 0] && files.read(f, 4199, 3).bulk == [0, 5, 5])
        #expect(files.fallocate(f, 3, 4000, 8000) == 0)
        let rest = files.read(f, 4096, 8192).bulk
        #expect(rest[0..<7904].allSatisfy { $0 == 0 } && rest[7904...].allSatisfy { $0 == 5 })
        #expect(files.seek(f, 3, 0) == 8192)
        #expect(
            files.fallocate(f, 16, 8192, 10_000) == 0 && files.stat(f).attributes.size == 18_192
                && files.read(f, 12_000, 288).bulk.allSatisfy { $0 == 0 })
        #expect(
            files.fallocate(f, 2, 0, 10) == -EOPNOTSUPP && files.fallocate(f, 8, 0, 4096) == -EOPNOTSUPP
                && files.fallocate(f, 0x20, 0, 4096) == -EOPNOTSUPP)
        #expect(
            files.fallocate(f, 0, 0, 0) == -EINVAL && files.fallocate(f, 0, UInt64.max, 5) == -EINVAL
                && files.fallocate(f, 0, UInt64(Int64.max), 5) == -EFBIG)
        #expect(files.fallocate(f, 0, 0, 1 << 40) == -ENOSPC)
        #expect(files.truncate(f, 100) == 0 && files.stat(f).attributes.blocks == 0)
        fleet.check()
    }

    /// Long requests are done in steps, between which others are served; what they do is the same.
    @Test(arguments: [1, 2]) func longAllocationsLetOthersThrough(members: Int) {
        let fleet = FileFleet(members: members, pagesPerMember: 60_000)
        let (files, other) = (fleet.files(), fleet.files())
        let f = files.create(1, "f").inode
        let megabyte: UInt64 = 1 << 20
        func runs(_ mode: UInt32, _ offset: UInt64, _ length: UInt64) -> Int {
            let ticket = files.client.post(
                LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: offset, length: length, mode: mode, reserved: 0)))
            var served = 0
            while !files.client.isAnswered(ticket), served < 1000 {
                #expect(other.stat(1).status == 0)
                served += 1
            }
            #expect(files.client.reply(ticket)?.status == 0)
            return served
        }
        #expect(files.write(f, 5000, [7, 7, 7]) == 3 && files.write(f, 150 * megabyte + 10, [8]) == 1)
        #expect(runs(0, 100, 200 * megabyte) > 4)
        #expect(files.stat(f).attributes.size == 200 * megabyte + 100 && files.stat(f).attributes.blocks == (200 * megabyte + 4096) / 512)
        #expect(files.read(f, 5000, 3).bulk == [7, 7, 7] && files.read(f, 150 * megabyte + 9, 3).bulk == [0, 8, 0])
        #expect(runs(16, 150 * megabyte, 49 * megabyte) > 1 && files.read(f, 150 * megabyte + 9, 3).bulk == [0, 0, 0])
        #expect(runs(3, 5001, 180 * megabyte) > 4)
        #expect(files.read(f, 5000, 3).bulk == [7, 0, 0] && files.stat(f).attributes.blocks < 21 * megabyte / 512)
        #expect(runs(3, 0, 1 << 62) < 10 && files.stat(f).attributes.blocks == 0 && files.stat(f).attributes.size == 200 * megabyte + 100)
        // Who removes the file meanwhile, or dies, ends it.
        let ticket = files.client.post(
            LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: 0, length: 100 * megabyte, mode: 0, reserved: 0)))
        for _ in 0..<2 { fleet.host.step() }
        #expect(other.unlink(1, "f") == 0)
        fleet.host.runUntilQuiet()
        #expect(files.client.reply(ticket)?.status == -ESTALE)
        let g = files.create(1, "g").inode
        files.client.post(
            LoopCall(FOS_OP_FALLOCATE, inode: g, fos_fallocate_request(offset: 0, length: 100 * megabyte, mode: 0, reserved: 0)))
        for _ in 0..<2 { fleet.host.step() }
        files.client.die()
        fleet.host.runUntilQuiet()
        #expect(other.stat(g).attributes.blocks < 60 * megabyte / 512)
        fleet.check()
    }

    @Test(arguments: [1, 2]) func copiesRanges(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let a = files.create(files.mkdir(1, "a").inode, "f").inode
        let b = files.create(files.mkdir(1, "b").inode, "f").inode
        let bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        #expect(files.write(a, 0, bytes) == 9000 && files.write(a, 40_000, bytes) == 9000)
        var done: Int64 = 0
        while true {
            let part = files.copy(a, 100 + UInt64(done), b, 50 + UInt64(done), 1 << 30)
            guard part > 0 else { #expect(part == 0); break }
            done += part
        }
        #expect(done == 48_900 && files.stat(b).attributes.size == 48_950)
        #expect(files.read(b, 50, 48_900).bulk == files.read(a, 100, 48_900).bulk && files.read(b, 0, 50).bulk.allSatisfy { $0 == 0 })
        #expect(files.copy(a, 0, a, 10, 100) == Int64(-EINVAL) && files.copy(a, 0, a, 60_000, 100) == 100)
        #expect(files.copy(1, 0, b, 0, 10) == Int64(-EISDIR) && files.copy(a, 0, 1, 0, 10) == Int64(-EISDIR))
        #expect(files.copy(a, UInt64.max, b, 0, 10) == Int64(-EINVAL) && files.copy(a, 0, b, UInt64(Int64.max), 10) == Int64(-EFBIG))
        #expect(files.copy(77 * 4096 + 2, 0, b, 0, 10) < 0)
        fleet.check()
    }

    /// The destination of a copy between owners goes while it runs, and its number comes to name another file.
    @Test func aCopyFillsNoOtherFile() {
        for seed in 1...30 {
            let fleet = FileFleet(members: 2, sharding: .never, options: LoopOptions(seed: UInt64(seed)))
            let (files, other) = (fleet.files(), fleet.files())
            let (from, to) = (files.mkdir(1, "a").inode, files.mkdir(1, "b").inode)
            let (source, target) = (files.create(from, "source").inode, files.create(to, "target").inode)
            #expect(fleet.member(of: source) != fleet.member(of: target))
            #expect(files.write(source, 0, [UInt8](repeating: 7, count: 100_000)) == 100_000)
            let ticket = files.client.post(
                LoopCall(
                    FOS_OP_COPY_RANGE, inode: target,
                    fos_copy_request(source: source, source_offset: 0, offset: 0, length: 100_000, flags: 0, reserved: 0)))
            for _ in 0..<40 { fleet.host.step() }
            #expect(!files.client.isAnswered(ticket))
            other.client.post(LoopCall(FOS_OP_UNLINK, inode: to, name: "target"))
            other.client.post(Files.make(FOS_OP_CREATE, to, "stranger", mode: 0o644))
            fleet.host.runUntilQuiet()
            let stranger = other.lookup(to, "stranger")
            #expect(stranger.inode == target, "the number is used again at once")
            #expect(stranger.attributes.size == 0 && stranger.attributes.blocks == 0, "seed \(seed)")
            #expect(files.client.reply(ticket)?.status == 0, "what was copied before counts")
            fleet.check()
        }
    }

    /// A file without any data is copied between owners as the hole that it is, from wherever in it the copy begins.
    @Test(arguments: [UInt64(0), 1, 4096, 5000]) func aHoleWithoutDataIsCopiedToAnotherOwner(from start: UInt64) {
        let fleet = FileFleet(members: 2, sharding: .never)
        let files = fleet.files()
        let (from, to) = (files.mkdir(1, "a").inode, files.mkdir(1, "b").inode)
        let (source, target) = (files.create(from, "source").inode, files.create(to, "target").inode)
        #expect(fleet.member(of: source) != fleet.member(of: target))
        #expect(files.truncate(source, 100_000) == 0)
        #expect(files.copy(source, start, target, 7, 50_000) == 50_000)
        #expect(files.stat(target).attributes.size == 50_007 && files.stat(target).attributes.blocks == 0)
        fleet.check()
    }

    @Test func anEmptyListNeedsNoSpace() {
        let fleet = FileFleet(members: 1, pagesPerMember: 200)
        let files = fleet.files()
        let (f, g) = (files.create(1, "f").inode, files.create(1, "g").inode)
        #expect(files.call(Self.setCall(g, "user.a", [1])).status == 0)
        while files.write(f, files.stat(f).attributes.size, [UInt8](repeating: 1, count: 4096)) > 0 {}
        for room in [0, 1, 300] {
            let reply = files.call(Self.getCall(FOS_OP_LISTXATTR, f, "", room: room))
            #expect(reply.status == 0 && reply.fixed(fos_xattr_reply.self).bytes == 0 && reply.bulk.isEmpty)
        }
        #expect(files.call(Self.getCall(FOS_OP_LISTXATTR, g, "", room: 300)).bulk == Array("user.a\0".utf8))
        fleet.check()
    }

    static func setCall(_ inode: UInt64, _ name: String, _ value: [UInt8], flags: UInt32 = 0) -> LoopCall {
        LoopCall(
            FOS_OP_SETXATTR, inode: inode,
            fos_xattr_request(flags: flags, name_length: UInt32(name.utf8.count), value_length: UInt32(value.count), reserved: 0), name,
            bulk: value)
    }
    static func getCall(_ operation: fos_operation, _ inode: UInt64, _ name: String, room: Int) -> LoopCall {
        LoopCall(
            operation, inode: inode,
            fos_xattr_request(flags: 0, name_length: UInt32(name.utf8.count), value_length: UInt32(room), reserved: 0), name,
            room: room)
    }

    @Test func keepsExtendedAttributes() {
        let fleet = FileFleet(members: 2, rootMode: 0o777)
        let files = fleet.files()
        let user = fleet.files(uid: 1000, gid: 1000)
        let f = user.create(1, "f").inode
        #expect(files.call(Self.setCall(f, "user.a", [1, 2, 3])).status == 0)
        #expect(
            files.call(Self.setCall(f, "user.a", [1], flags: 1)).status == -EEXIST
                && files.call(Self.setCall(f, "user.b", [1], flags: 2)).status == -ENODATA)
        #expect(
            files.call(Self.setCall(f, "user.a", [4, 5], flags: 2)).status == 0 && files.call(Self.setCall(f, "user.empty", [])).status == 0
        )
        let asked = files.call(Self.getCall(FOS_OP_GETXATTR, f, "user.a", room: 0))
        #expect(asked.fixed(fos_xattr_reply.self).bytes == 2 && asked.bulk == [])
        #expect(files.call(Self.getCall(FOS_OP_GETXATTR, f, "user.a", room: 10)).bulk == [4, 5])
        #expect(files.call(Self.getCall(FOS_OP_GETXATTR, f, "user.a", room: 1)).status == -ERANGE)
        #expect(files.call(Self.getCall(FOS_OP_GETXATTR, f, "user.none", room: 1)).status == -ENODATA)
        #expect(files.call(Self.setCall(f, "trusted.t", [1])).status == 0 && user.call(Self.setCall(f, "trusted.u", [1])).status == -EPERM)
        #expect(
            files.call(Self.setCall(f, "system.posix_acl_access", [1])).status == -EOPNOTSUPP
                && files.call(Self.setCall(f, "nothing", [1])).status == -EOPNOTSUPP)
        #expect(files.call(Self.setCall(f, "", [1])).status == -ERANGE && files.call(Self.setCall(f, "user.", [1])).status == -EINVAL)
        // To be new and to be there: one of the two is not so, and nothing is changed.
        #expect(
            files.call(Self.setCall(f, "user.a", [9], flags: 3)).status == -EEXIST
                && files.call(Self.setCall(f, "user.z", [9], flags: 3)).status == -ENODATA)
        #expect(files.call(Self.setCall(f, "user.z", [9], flags: 4)).status == -EINVAL)
        let list = files.call(Self.getCall(FOS_OP_LISTXATTR, f, "", room: 1000)).bulk
        #expect(Set(String(decoding: list, as: UTF8.self).split(separator: "\0")) == ["user.a", "user.empty", "trusted.t"])
        let visible = user.call(Self.getCall(FOS_OP_LISTXATTR, f, "", room: 1000)).bulk
        #expect(Set(String(decoding: visible, as: UTF8.self).split(separator: "\0")) == ["user.a", "user.empty"])
        #expect(user.call(Self.getCall(FOS_OP_LISTXATTR, f, "", room: 0)).fixed(fos_xattr_reply.self).bytes == UInt64(visible.count))
        #expect(files.call(Self.getCall(FOS_OP_LISTXATTR, f, "", room: 3)).status == -ERANGE)
        #expect(files.call(Self.setCall(f, "user.big", [UInt8](repeating: 1, count: 65_536))).status == 0)
        #expect(files.call(Self.setCall(f, "user.big", [UInt8](repeating: 1, count: 65_537))).status == -E2BIG)
        #expect(files.call(Self.getCall(FOS_OP_REMOVEXATTR, f, "user.big", room: 0)).status == 0)
        #expect(files.call(Self.getCall(FOS_OP_REMOVEXATTR, f, "user.big", room: 0)).status == -ENODATA)
        let link = files.symlink(1, "l", "x").inode
        #expect(
            files.call(Self.setCall(link, "user.a", [1])).status == -EPERM
                && files.call(Self.getCall(FOS_OP_GETXATTR, link, "user.a", room: 5)).status == -ENODATA)
        #expect(files.call(Self.setCall(link, "trusted.a", [1])).status == 0)
        // File capabilities do not survive a write.
        #expect(files.call(Self.setCall(f, "security.capability", [1])).status == 0)
        #expect(
            user.write(f, 0, [1]) == 1 && files.call(Self.getCall(FOS_OP_GETXATTR, f, "security.capability", room: 5)).status == -ENODATA)
        #expect(files.unlink(1, "f") == 0)
        fleet.check()
    }

    @Test func statfsAddsUp() {
        let fleet = FileFleet(members: 3, pagesPerMember: 1000)
        let files = fleet.files()
        let before = files.statfs()
        #expect(before.blocks == 3000 && before.block_bytes == 4096 && before.name_max == 255)
        let f = files.create(1, "f").inode
        #expect(files.write(f, 0, [UInt8](repeating: 1, count: 409_600)) == 409_600)
        let after = files.statfs()
        #expect(after.blocks == 3000 && before.blocks_free - after.blocks_free >= 100 && before.blocks_free - after.blocks_free < 140)
        fleet.check()
    }
}
