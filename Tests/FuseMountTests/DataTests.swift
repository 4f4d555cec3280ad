// Data through the mount: big transfers, O_DIRECT, privilege bits at writes, a full service, reading ahead.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

extension MountTests {
    @Suite struct Data {
        @Test func writesDoNotAskForCapabilities() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let descriptor = open(scratch.path + "/a", O_WRONLY | O_CREAT, 0o644)
            for _ in 0..<50 { #expect(write(descriptor, "x", 1) == 1) }
            close(descriptor)
            #expect(scratch.count("WRITE") == 50)
            #expect(scratch.count("GETXATTR") <= 1)
        }

        @Test func bigTransfersArriveWhole() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            var bytes = [UInt8](repeating: 0, count: 3 << 20)
            for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ index >> 12) }
            let descriptor = open(scratch.path + "/big", O_RDWR | O_CREAT, 0o644)
            #expect(write(descriptor, bytes, bytes.count) == bytes.count)
            // At most 1 MiB a request, so a few of them and not hundreds.
            #expect(scratch.count("WRITE") <= 4)
            #expect(scripted.withLock { $0.files[4097]?.data == bytes })
            #expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
            var back = [UInt8](repeating: 0, count: bytes.count)
            #expect(pread(descriptor, &back, back.count, 0) == back.count)
            #expect(back == bytes)
            close(descriptor)
        }

        /// Pages of a mapping come through an open file with O_DIRECT too, and the kernel keeps them.
        @Test func directOpensWithMappingsLeavePages() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, String(repeating: "x", count: 8192)) == 0)
            let descriptor = open(file, O_RDWR | 0o40000)
            #expect(descriptor >= 0)
            defer { close(descriptor) }
            #expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
            let room = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
            defer { room.deallocate() }
            #expect(pread(descriptor, room, 4096, 0) == 4096)
            #expect(scripted.withLock { $0.lastReadFlags } == FOS_IO_DIRECT.rawValue)
            #expect(pwrite(descriptor, room, 4096, 4096) == 4096)
            #expect(scripted.withLock { $0.lastIOFlags } == FOS_IO_DIRECT.rawValue)
            let map = try #require(mmap(nil, 4096, PROT_READ, MAP_SHARED, descriptor, 0))
            #expect(map.load(as: UInt8.self) == UInt8(ascii: "x"))
            munmap(map, 4096)
            #expect(scripted.withLock { $0.lastReadFlags } == 0)
        }

        /// The device number of a mount is known without asking the mount, which may have nobody left to answer.
        @Test func readAheadAsksNobody() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            for _ in 0..<1000 where contents(ReadAhead.file(of: scratch.path) ?? "") != "1024\n" && geteuid() == 0 { usleep(1000) }
            let before = scratch.mount.requestCounts().map(\.count).reduce(0, +)
            #expect(ReadAhead.file(of: scratch.path) != nil && ReadAhead.file(of: scratch.path + "/none") == nil)
            #expect(scratch.mount.requestCounts().map(\.count).reduce(0, +) == before)
        }

        @Test func privilegeIsKilledAsTheKernelSays() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let file = scratch.path + "/s"
            #expect(store(file, "x") == 0)
            #expect(chown(file, 5, gid_t.max) == 0)
            #expect(scripted.withLock { $0.lastSetBits } & FOS_SET_KILL_PRIVILEGE.rawValue != 0)
            #expect(chmod(file, 0o4755) == 0)
            #expect(scripted.withLock { $0.lastSetBits } & FOS_SET_KILL_PRIVILEGE.rawValue == 0)
            // Root has CAP_FSETID: its writes keep the bits.
            #expect(store(file, "y", flags: O_WRONLY) == 0)
            #expect(scripted.withLock { $0.lastIOFlags } & FOS_IO_KILL_PRIVILEGE.rawValue == 0)
        }

        @Test func fullServiceIsAskedAgain() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            scripted.withLock { $0.fullWrites = 2 }
            #expect(store(scratch.path + "/a", "x") == 0)
            scripted.withLock { $0.fullWrites = 1000 }
            #expect(store(scratch.path + "/a", "x") == ENOSPC)
            scripted.withLock { $0.fullWrites = 0 }
        }

        @Test(.enabled(if: geteuid() == 0)) func readAheadIsATransfer() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let file = try #require(ReadAhead.file(of: scratch.path))
            for _ in 0..<1000 where contents(file) != "1024\n" { usleep(1000) }
            #expect(contents(file) == "1024\n")
        }
    }
}
