// Direct mapping: what a client reads in the region is what READ would have answered, or it is told to send READ.

import CFosProxy
import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

/// A file that a client has mapped on a loop host, where a descriptor is plain memory.
struct MappedFile {
    let files: Files
    let inode: UInt64
    var mapping = fos_mapping()

    init(_ files: Files, _ inode: UInt64, writing: Bool = false, sourceLocation: SourceLocation = #_sourceLocation) {
        self.files = files
        self.inode = inode
        let reply = MappedFile.map(files, inode, access: writing ? 6 : 4)
        #expect(reply.status == 0, sourceLocation: sourceLocation)
        let map: fos_map_reply = reply.fixed()
        let packet = files.fleet.host.handedOut.last { $0.token == map.token }
        #expect(
            packet?.client == files.client.index && packet.map { UInt64($0.region.bytes) } == map.bytes + 4096,
            sourceLocation: sourceLocation)
        guard let packet else { return }
        mapping.data = UnsafePointer(packet.region.base.assumingMemoryBound(to: UInt8.self))
        mapping.bytes = map.bytes
        mapping.writable = writing ? 1 : 0
        #expect(packet.region.isForWriting == writing, sourceLocation: sourceLocation)
        mapping.control = UnsafeRawPointer(packet.region.base + Int(map.bytes)).assumingMemoryBound(to: fos_map_control.self)
    }

    static func map(_ files: Files, _ inode: UInt64, access: UInt32 = 4) -> LoopReply {
        files.call(LoopCall(FOS_OP_MAP, inode: inode, fos_map_request(access: access, flags: 0)))
    }

    /// A read without a message: the bytes, or why not.
    func direct(_ offset: UInt64, _ count: Int, later: Int64 = 0) -> (Int, [UInt8]) {
        var mapping = mapping
        var bytes = [UInt8](repeating: 0xee, count: count)
        let got = fos_map_read(&mapping, offset, &bytes, UInt64(count), files.fleet.host.now.seconds + later)
        return (got, got > 0 ? Array(bytes[..<got]) : [])
    }
    /// A write without a message, at the host's time or another: the count, or why not.
    func overwrite(_ offset: UInt64, _ bytes: [UInt8], at time: UInt64? = nil) -> Int {
        var mapping = mapping
        let now = files.fleet.host.now
        return fos_map_write(
            &mapping, offset, bytes, UInt64(bytes.count), time ?? UInt64(now.seconds) * 1_000_000_000 + UInt64(now.nanoseconds))
    }
    var isGranted: Bool { direct(0, 1).0 >= 0 }
}

@Suite struct MapTests {
    func open(_ files: Files, _ name: String, _ bytes: [UInt8]) -> UInt64 {
        let inode = files.create(1, name, reference: 1).inode
        #expect(files.write(inode, 0, bytes) == bytes.count)
        _ = files.read(inode, 0, 1)  // the access time is up to date
        return inode
    }
    func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) } }

    @Test(arguments: [1, 2]) func readsAreWhatMessagesSay(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let data = pattern(10_000)
        let f = open(files, "f", data)
        let blocks = files.stat(f).attributes.blocks
        let map = MappedFile(files, f)
        #expect(files.stat(f).attributes.blocks == blocks && files.read(f, 0, 10_000).bulk == data)
        #expect(map.direct(0, 10_000) == (10_000, data) && map.direct(4000, 5000).1 == Array(data[4000..<9000]))
        #expect(
            map.direct(9_990, 100) == (10, Array(data[9_990...])) && map.direct(10_000, 5) == (0, []) && map.direct(1 << 60, 5) == (0, []))
        // A change is seen, after the message that its access time needs.
        #expect(files.write(f, 5, [1, 2, 3]) == 3)
        #expect(map.direct(5, 3) == (-Int(EAGAIN), []), "the access time is due")
        let before = files.stat(f).attributes.accessed
        fleet.host.advance(nanoseconds: 1_000_000)
        #expect(files.read(f, 5, 3).bulk == [1, 2, 3] && map.direct(5, 3).1 == [1, 2, 3])
        let after = files.stat(f).attributes.accessed
        #expect((after.seconds, after.nanoseconds) > (before.seconds, before.nanoseconds))
        #expect(map.direct(5, 3, later: 86_000).0 == 3 && map.direct(5, 3, later: 86_401).0 == -Int(EAGAIN), "once a day")

        // Cut and grown again: zeros, and never a byte of before.
        #expect(files.truncate(f, 4_100) == 0)
        _ = files.read(f, 0, 1)
        #expect(map.direct(4_090, 100).1 == Array(data[4_090..<4_100]))
        #expect(files.truncate(f, 9_000) == 0)
        _ = files.read(f, 0, 1)
        #expect(map.direct(4_100, 4_900).1 == [UInt8](repeating: 0, count: 4_900))
        #expect(files.stat(f).attributes.blocks == 16, "the hole is one")
        #expect(files.write(f, 8_500, [9]) == 1)
        _ = files.read(f, 0, 1)
        #expect(map.direct(8_499, 3).1 == [0, 9, 0])
        for mode in [UInt32(3), 16] {
            #expect(
                files.call(LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: 100, length: 4_000, mode: mode, reserved: 0)))
                    .status == 0)
            _ = files.read(f, 0, 1)
            let expected = Array(data[95..<100]) + [0, 0]
            #expect(map.direct(95, 7).1 == expected && files.read(f, 95, 7).bulk == expected)
        }
        // Beyond the region a message is needed; mapped again, it is not.
        #expect(files.write(f, 20_000, [7]) == 1)
        _ = files.read(f, 0, 1)
        #expect(map.direct(8_500, 1).1 == [9] && map.direct(20_000, 1).0 == -Int(EAGAIN) && map.direct(20_001, 1).0 == 0)
        let again = MappedFile(files, f)
        #expect(again.direct(20_000, 1).1 == [7] && again.direct(8_500, 1).1 == [9] && map.direct(0, 1).0 == -Int(ESTALE))
        #expect(files.unlink(1, "f") == 0)
        _ = files.read(f, 0, 1)
        #expect(again.direct(20_000, 1).1 == [7] && files.release(f) == 0)
        #expect(again.direct(0, 1).0 == -Int(ESTALE))
        #expect(fleet.host.regions.values.allSatisfy { $0.isDropped })
        fleet.check()
    }

    @Test func emptiedFilesLeaveTheirRegion() {
        let fleet = FileFleet(members: 1)
        let files = fleet.files()
        let free = files.statfs().blocks_free
        let f = open(files, "f", pattern(50_000))
        let map = MappedFile(files, f)
        #expect(files.open(f, 0o1002).status == 0 && map.direct(0, 1).0 == -Int(ESTALE))
        #expect(files.write(f, 0, [1]) == 1 && files.read(f, 0, 1).bulk == [1] && MappedFile(files, f).direct(0, 1).0 >= -Int(EAGAIN))
        #expect(files.truncate(f, 0) == 0 && files.statfs().blocks_free >= free - 2)
        #expect(files.unlink(1, "f") == 0 && files.release(f, count: 2) == 0)
        fleet.check()
    }

    @Test func onlyWhoHasItOpenAndWithinLimits() {
        let fleet = FileFleet(members: 1, pagesPerMember: 600)
        let files = fleet.files()
        let other = fleet.files(uid: 1000, gid: 1000)
        let f = open(files, "f", pattern(5000))
        #expect(MappedFile.map(other, f).status == -EACCES)
        #expect(other.open(f, 0).status == 0 && MappedFile.map(other, f).status == 0)
        #expect(MappedFile.map(files, f, access: 2).status == -EOPNOTSUPP && MappedFile.map(other, f, access: 6).status == -EACCES)
        #expect(files.call(LoopCall(FOS_OP_MAP, inode: f, payload: [4])).status == -EINVAL)
        let writeOnly = files.create(1, "w", flags: 1, reference: 1).inode
        #expect(files.write(writeOnly, 0, [1]) == 1 && MappedFile.map(files, writeOnly).status == -EACCES)
        let empty = files.create(1, "empty", reference: 1).inode
        #expect(MappedFile.map(files, empty).status == -EINVAL && MappedFile.map(files, 1).status == -EINVAL)
        // A region is paid for whole, so that the size limit holds; what cannot be paid stays as it was.
        let sparse = files.create(1, "sparse", reference: 1).inode
        #expect(files.write(sparse, 2_000_000, [1]) == 1)
        let free = files.statfs().blocks_free
        #expect(MappedFile.map(files, sparse).status == 0 && files.statfs().blocks_free == free - 488)
        #expect(files.stat(sparse).attributes.blocks == 8)
        let second = files.create(1, "second", reference: 1).inode
        #expect(files.write(second, 2_000_000, [2]) == 1)
        #expect(MappedFile.map(files, second).status == -ENOSPC && files.read(second, 2_000_000, 1).bulk == [2])
        #expect(files.truncate(second, 1 << 30) == 0 && MappedFile.map(files, second).status == -EFBIG)
        #expect(files.truncate(sparse, 0) == 0 && files.statfs().blocks_free > free - 4)
        files.client.die()
        other.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func mappedFilesAreBounded() {
        let fleet = FileFleet(members: 1)
        let files = fleet.files()
        var statuses: [Int32] = []
        for index in 0..<Limits.mappedFiles + 3 { statuses.append(MappedFile.map(files, open(files, "f\(index)", [1])).status) }
        #expect(statuses == [Int32](repeating: 0, count: Limits.mappedFiles) + [-EMFILE, -EMFILE, -EMFILE])
        #expect(files.truncate(files.lookup(1, "f7").inode, 0) == 0)
        #expect(MappedFile.map(files, files.lookup(1, "f\(Limits.mappedFiles)").inode).status == 0)
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    /// The kernel's pages and grants exclude one another.
    @Test func theKernelTakesTheGrant() {
        let fleet = FileFleet(members: 1)
        let (kernel, files) = (fleet.frontEnd(), fleet.files())
        let f = open(files, "f", pattern(5000))
        let map = MappedFile(files, f)
        #expect(map.isGranted && kernel.lookup(1, "f").status == 0 && map.isGranted)
        _ = kernel.read(f, 0, 10)
        #expect(!map.isGranted, "the kernel may have it mapped")
        #expect(kernel.write(f, 0, [1, 2, 3], flags: FOS_IO_WRITEBACK.rawValue) == 3)
        #expect(!map.isGranted)
        // A message has the pages taken back, and then reads need none again.
        #expect(files.read(f, 0, 3).bulk == [1, 2, 3] && map.direct(0, 3).1 == [1, 2, 3])
        #expect(kernel.write(f, 0, [4], flags: 0) == 1)
        #expect(!map.isGranted && files.read(f, 0, 3).bulk == [4, 2, 3] && map.direct(0, 3).1 == [4, 2, 3])
        // While the kernel is there again before the answer, there is none.
        kernel.client.noticePolicy = .byHand
        _ = kernel.read(f, 0, 10)
        let ticket = files.client.post(Files.readCall(f, 0, 3))
        fleet.host.runUntilQuiet()
        _ = kernel.read(f, 0, 10)
        kernel.client.acknowledgeAll()
        fleet.host.runUntilQuiet()
        #expect(files.client.reply(ticket)?.status == 0 && !map.isGranted)
        #expect(MappedFile(files, f).direct(0, 1).0 == -Int(EAGAIN))
        // Nor while what it had is on its way back, whatever else changes meanwhile.
        kernel.client.acknowledgeAll()
        fleet.host.runUntilQuiet()
        _ = kernel.read(f, 0, 10)
        let late = files.client.post(Files.readCall(f, 0, 3))
        fleet.host.runUntilQuiet()
        let other = fleet.files()
        let mode = other.client.post(
            LoopCall(
                FOS_OP_SETATTR, inode: f,
                fos_setattr_request(
                    valid: FOS_SET_MODE.rawValue, mode: 0o640, uid: 0, gid: 0, size: 0, accessed: fos_time(), modified: fos_time(),
                    changed: fos_time())))
        fleet.host.runUntilQuiet()
        #expect(map.mapping.control.pointee.grant == 0)
        kernel.client.noticePolicy = .acknowledge
        kernel.client.acknowledgeAll()
        fleet.host.runUntilQuiet()
        #expect(files.client.reply(late)?.status == 0 && other.client.reply(mode)?.status == 0 && map.isGranted)
        kernel.client.die()
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    /// Random changes of a file, partly mapped: direct reads and messages agree after each.
    @Test(arguments: 1...6) func randomChanges(seed: UInt64) {
        let fleet = FileFleet(members: 2, options: LoopOptions(seed: seed))
        let files = fleet.files()
        var random = LoopRandom(seed: seed)
        let f = open(files, "f", pattern(30_000))
        let source = open(files, "source", pattern(20_000))
        var map = MappedFile(files, f)
        for step in 0..<300 {
            fleet.host.advance(nanoseconds: 1_000_000)
            let offset = UInt64(random.below(60_000))
            let count = 1 + random.below(9_000)
            switch random.below(7) {
            case 0, 1: #expect(files.write(f, offset, (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }) == count)
            case 2: #expect(files.truncate(f, offset + 1) == 0)
            case 3:
                _ = files.call(
                    LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: offset, length: UInt64(count), mode: 3, reserved: 0))
                )
            case 4:
                _ = files.call(
                    LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: offset, length: UInt64(count), mode: 1, reserved: 0))
                )
            case 5:
                let copy = fos_copy_request(source: source, source_offset: 0, offset: offset, length: UInt64(count), flags: 0, reserved: 0)
                _ = files.call(LoopCall(FOS_OP_COPY_RANGE, inode: f, copy))
            default: if random.chance(64) { map = MappedFile(files, f) }
            }
            let size = Int(files.stat(f).attributes.size)
            let whole = files.read(f, 0, 100_000).bulk
            #expect(whole.count == size)
            let (got, bytes) = map.direct(0, 100_000)
            if UInt64(size) <= map.mapping.bytes {
                #expect(got == size && bytes == whole, "seed \(seed), step \(step)")
            } else {
                let (_, start) = map.direct(0, Int(map.mapping.bytes))
                #expect(start == Array(whole[..<Int(map.mapping.bytes)]), "seed \(seed), step \(step)")
            }
        }
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }
}
