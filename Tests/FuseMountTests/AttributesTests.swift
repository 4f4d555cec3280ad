// Attributes between the wire and the kernel.

import CFosWire
import CFuse
import Testing

@testable import FuseMount

private func sample() -> fos_attributes {
    var attributes = fos_attributes()
    attributes.inode = 0x1_2345_6789
    attributes.size = 5000
    attributes.blocks = 16
    attributes.accessed = fos_time(seconds: -5, nanoseconds: 1, reserved: 0)
    attributes.modified = fos_time(seconds: 7, nanoseconds: 999_999_999, reserved: 0)
    attributes.changed = fos_time(seconds: 8, nanoseconds: 3, reserved: 0)
    attributes.mode = 0o104755
    attributes.links = 3
    attributes.uid = 1000
    attributes.gid = 1001
    attributes.device = 0x0010_0305
    attributes.generation = 9
    return attributes
}

@Suite struct AttributesTests {
    @Test func statusHasEveryField() {
        let status = sample().status
        #expect(status.st_ino == 0x1_2345_6789)
        #expect(status.st_size == 5000)
        #expect(status.st_blocks == 16)
        #expect(status.st_mode == 0o104755)
        #expect(status.st_nlink == 3)
        #expect(status.st_uid == 1000)
        #expect(status.st_gid == 1001)
        #expect(status.st_rdev == 0x0010_0305)
        #expect(status.st_atim.tv_sec == -5)
        #expect(status.st_mtim.tv_nsec == 999_999_999)
        #expect(status.st_ctim.tv_sec == 8)
    }

    @Test func kernelEntryAgreesWithStatus() {
        let entry = sample().kernelEntry
        #expect(entry.nodeid == 0x1_2345_6789)
        #expect(entry.generation == 9)
        #expect(entry.entry_valid == CacheTimeout.leasedSeconds)
        #expect(Int64(bitPattern: entry.attr.atime) == -5)
        #expect(entry.attr.mtimensec == 999_999_999)
        #expect(entry.attr.rdev == 0x0010_0305)
        #expect(MemoryLayout<fuse_entry_out>.size == 128)
    }

    @Test func statxAgreesWithStatus() {
        let answer = fos_fuse_statx_out(sample())
        #expect(answer.ino == 0x1_2345_6789)
        #expect(answer.mode == 0o104755)
        #expect(answer.rdev_major == 3 && answer.rdev_minor == 0x105)
        #expect(answer.mtime.nanoseconds == 999_999_999 && answer.ctime.seconds == 8 && answer.atime.seconds == -5)
        #expect(answer.mask == 0xfff)
    }

    @Test func timesAreClamped() {
        #expect(fos_time(timespec(tv_sec: 1, tv_nsec: -4)).nanoseconds == 0)
        #expect(fos_time(timespec(tv_sec: 1, tv_nsec: 4_000_000_000)).nanoseconds == 999_999_999)
    }

    @Test func setAttributeBitsFollowTheKernel() {
        let mtimeNow = setAttributeBits(kernel: UInt32(FATTR_MTIME | FATTR_MTIME_NOW), handlesPrivilege: false)
        #expect(mtimeNow == FOS_SET_MODIFIED_NOW.rawValue)
        let atime = setAttributeBits(kernel: UInt32(FATTR_ATIME), handlesPrivilege: false)
        #expect(atime == FOS_SET_ACCESSED.rawValue)
        // A truncation marks the file modified also when its size stays, as open(O_TRUNC) must.
        let truncation = FOS_SET_SIZE.rawValue | FOS_SET_MODIFIED_NOW.rawValue
        let all = setAttributeBits(kernel: UInt32(FATTR_MODE | FATTR_SIZE | FATTR_FH | FATTR_LOCKOWNER), handlesPrivilege: true)
        #expect(all == FOS_SET_MODE.rawValue | truncation)
    }

    @Test func ownerChangeDropsPrivilege() {
        let kill = FOS_SET_KILL_PRIVILEGE.rawValue
        #expect(setAttributeBits(kernel: UInt32(FATTR_UID), handlesPrivilege: true) == FOS_SET_UID.rawValue | kill)
        #expect(setAttributeBits(kernel: UInt32(FATTR_UID), handlesPrivilege: false) == FOS_SET_UID.rawValue)
        #expect(setAttributeBits(kernel: UInt32(FATTR_SIZE | FATTR_KILL_SUIDGID), handlesPrivilege: true) == FOS_SET_SIZE.rawValue | FOS_SET_MODIFIED_NOW.rawValue | kill)
        #expect(setAttributeBits(kernel: UInt32(FATTR_SIZE), handlesPrivilege: true) == FOS_SET_SIZE.rawValue | FOS_SET_MODIFIED_NOW.rawValue)
        #expect(setAttributeBits(kernel: UInt32(FATTR_FH), handlesPrivilege: true) == kill)
        #expect(setAttributeBits(kernel: 0, handlesPrivilege: false) == 0)
    }
}
