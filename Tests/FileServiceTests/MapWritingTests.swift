// Writing without a message: what a client puts into the region is the file's, with its times, for everybody who asks.

import CFosProxy
import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct MapWritingTests {
    private func open(_ files: Files, _ name: String, _ count: Int) -> UInt64 {
        let inode = files.create(1, name, reference: 1).inode
        #expect(files.write(inode, 0, (0..<count).map { UInt8(truncatingIfNeeded: $0) }) == count)
        _ = files.read(inode, 0, 1)
        return inode
    }
    private func modified(_ files: Files, _ inode: UInt64) -> (Int64, UInt32) {
        let attributes = files.stat(inode).attributes
        #expect(
            attributes.modified.seconds == attributes.changed.seconds && attributes.modified.nanoseconds == attributes.changed.nanoseconds)
        return (attributes.modified.seconds, attributes.modified.nanoseconds)
    }

    @Test func whatIsWrittenIsTheFiles() {
        let fleet = FileFleet(members: 1)
        let (files, other) = (fleet.files(), fleet.files())
        let f = open(files, "f", 9_000)
        let map = MappedFile(files, f, writing: true)
        let reader = MappedFile(files, f)
        let before = modified(other, f)
        fleet.host.advance(nanoseconds: 5_000_000_000)
        #expect(map.overwrite(4_000, [1, 2, 3]) == 3)
        let written = fleet.host.now
        fleet.host.advance(nanoseconds: 7_000_000_000)
        // By message, in shared memory, and by attributes, which have the time of the write and are not to be kept.
        #expect(other.read(f, 3_999, 5).bulk == [UInt8(truncatingIfNeeded: 3_999), 1, 2, 3, UInt8(truncatingIfNeeded: 4_003)])
        #expect(reader.direct(4_000, 3).1 == [1, 2, 3])
        #expect(modified(other, f) == (written.seconds, written.nanoseconds) && modified(other, f) > before)
        #expect(other.stat(f).attributes.flags & FOS_ATTRIBUTES_VOLATILE.rawValue != 0)
        // Only what is there can be overwritten.
        #expect(map.overwrite(8_999, [1]) == 1 && map.overwrite(8_999, [1, 2]) == -Int(EAGAIN) && map.overwrite(9_000, [1]) == -Int(EAGAIN))
        #expect(map.overwrite(UInt64.max, [1]) == -Int(EAGAIN) && reader.overwrite(0, [1]) == -Int(EAGAIN))
        // A message between: both are there, and writing goes on.
        #expect(other.write(f, 10, [7]) == 1 && map.overwrite(11, [8]) == 1 && other.read(f, 10, 2).bulk == [7, 8])
        // Reads of who writes leave their time; it is not before the write.
        fleet.host.advance(nanoseconds: 1_000_000_000)
        #expect(map.direct(0, 10).0 == 10)
        let attributes = other.stat(f).attributes
        #expect((attributes.accessed.seconds, attributes.accessed.nanoseconds) >= (attributes.modified.seconds, 0))
        files.client.die()
        other.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    /// A client's word about times holds between the last change and now.
    @Test func timesAreBounded() {
        let fleet = FileFleet(members: 1)
        let files = fleet.files()
        let f = open(files, "f", 100)
        let map = MappedFile(files, f, writing: true)
        let before = modified(files, f)
        fleet.host.advance(nanoseconds: 1_000_000_000)
        #expect(map.overwrite(0, [1], at: 1) == 1 && modified(files, f) == before)
        #expect(map.overwrite(0, [1], at: UInt64.max / 2) == 1)
        // The host's clock goes on with each message.
        let seen = modified(files, f)
        let now = fleet.host.now
        #expect(seen <= (now.seconds, now.nanoseconds) && seen > before)
        // Set to something else, and written again in the same tick.
        let tick = UInt64(fleet.host.now.seconds) * 1_000_000_000
        fleet.host.advance(nanoseconds: 1_000_000_000)
        #expect(map.overwrite(0, [2], at: tick) == 1 && files.setattr(f, FOS_SET_MODIFIED.rawValue, time: 7).status == 0)
        #expect(
            files.stat(f).attributes.modified.seconds == 7 && map.overwrite(0, [3], at: tick) == -Int(EAGAIN), "other changes end writing")
        #expect(files.call(LoopCall(FOS_OP_MAP, inode: f, fos_map_request(access: 6, flags: FOS_MAP_RENEW.rawValue))).status == 0)
        #expect(map.overwrite(0, [3], at: tick) == 1 && files.stat(f).attributes.modified.seconds > 7)
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    /// The kernel hears of no such write: before it is told anything, there are none.
    @Test func theKernelEndsIt() {
        let fleet = FileFleet(members: 1)
        let (kernel, files) = (fleet.frontEnd(), fleet.files())
        let f = open(files, "f", 5_000)
        #expect(kernel.lookup(1, "f").status == 0)
        _ = kernel.read(f, 0, 10)
        let notices = kernel.client.notices.count
        let map = MappedFile(files, f, writing: true)
        #expect(kernel.client.notices.count > notices, "what the kernel had is revoked")
        fleet.host.advance(nanoseconds: 1_000_000_000)
        #expect(map.overwrite(0, [9]) == 1)
        let written = fleet.host.now
        fleet.host.advance(nanoseconds: 1_000_000_000)
        let attributes = kernel.stat(f).attributes
        #expect(attributes.modified.seconds == written.seconds && attributes.modified.nanoseconds == written.nanoseconds)
        #expect(map.overwrite(0, [10]) == -Int(EAGAIN) && map.direct(0, 1).1 == [9], "reading goes on")
        #expect(kernel.read(f, 0, 1).bulk == [9] && map.direct(0, 1).0 == -Int(EAGAIN))
        #expect(files.write(f, 0, [10]) == 1 && kernel.read(f, 0, 1).bulk == [10])
        #expect(files.call(LoopCall(FOS_OP_MAP, inode: f, fos_map_request(access: 6, flags: FOS_MAP_RENEW.rawValue))).status == 0)
        #expect(map.overwrite(0, [11]) == 1 && kernel.read(f, 0, 1).bulk == [11])
        kernel.client.die()
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func holesPrivilegesAndIdlenessEndIt() {
        let fleet = FileFleet(members: 1)
        let (files, other) = (fleet.files(), fleet.files())
        func renew(_ inode: UInt64) -> Int32 {
            files.call(LoopCall(FOS_OP_MAP, inode: inode, fos_map_request(access: 6, flags: FOS_MAP_RENEW.rawValue))).status
        }
        let f = open(files, "f", 20_000)
        var map = MappedFile(files, f, writing: true)
        #expect(
            files.setattr(f, FOS_SET_MODE.rawValue, mode: 0o4755).status == 0 && map.overwrite(0, [1]) == -Int(EAGAIN)
                && renew(f) == -EOPNOTSUPP)
        #expect(files.setattr(f, FOS_SET_MODE.rawValue, mode: 0o755).status == 0 && renew(f) == 0 && map.overwrite(0, [1]) == 1)
        // A hole: and who had the region mapped writes to nobody's memory from then on.
        #expect(
            files.call(LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: 4_096, length: 4_096, mode: 3, reserved: 0)))
                .status == 0)
        UnsafeMutableRawPointer(mutating: UnsafeRawPointer(map.mapping.data!)).storeBytes(of: 77, toByteOffset: 5_000, as: UInt8.self)
        #expect(
            map.overwrite(0, [2]) == -Int(ESTALE) && renew(f) == -EOPNOTSUPP && files.read(f, 5_000, 1).bulk == [0]
                && MappedFile(files, f).direct(5_000, 1).1 == [0])
        #expect(files.write(f, 4_096, [UInt8](repeating: 5, count: 4_096)) == 4_096)
        map = MappedFile(files, f, writing: true)
        // Cut and grown again: zeros, whatever a late store does.
        #expect(map.overwrite(19_000, [6]) == 1 && files.truncate(f, 10_000) == 0)
        UnsafeMutableRawPointer(mutating: UnsafeRawPointer(map.mapping.data!)).storeBytes(of: 78, toByteOffset: 10_001, as: UInt8.self)
        #expect(files.truncate(f, 20_000) == 0 && files.read(f, 10_001, 1).bulk == [0] && files.read(f, 19_000, 1).bulk == [0])
        // Nobody writes any more: what others are told may be kept again.
        let g = open(files, "g", 100)
        let idle = MappedFile(files, g, writing: true)
        #expect(idle.overwrite(0, [1]) == 1)
        for _ in 0...Limits.idleUsesOfWriting + 1 { _ = other.stat(g) }
        #expect(
            other.stat(g).attributes.flags & FOS_ATTRIBUTES_VOLATILE.rawValue == 0 && idle.overwrite(0, [2]) == -Int(EAGAIN)
                && renew(g) == 0)
        #expect(idle.overwrite(0, [3]) == 1)
        // A writer that dies may have been in the middle of it.
        let epoch = fleet.host.epoch(ofInode: g)
        files.client.die()
        fleet.host.runUntilQuiet()
        #expect(fleet.host.epoch(ofInode: g) != epoch && other.stat(g).attributes.flags & FOS_ATTRIBUTES_VOLATILE.rawValue == 0)
        other.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }
}
