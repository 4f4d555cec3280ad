// Page frames from Linux: who has them, and what becomes of them.

import CPlatform
import Glibc
import Testing

@Suite struct FramesTests {
    private static let bytes = 4 << 20

    private func lent(_ body: (UnsafeMutableRawPointer, Int32) throws -> Void) throws {
        var descriptor: Int32 = -1
        let base = try #require(fos_platform_frames(UInt64(Self.bytes), 0, 1, &descriptor))
        defer {
            fos_platform_unmap(base, UInt64(Self.bytes))
            close(descriptor)
        }
        #expect(UInt(bitPattern: base) % UInt(Self.bytes) == 0)
        try body(base, descriptor)
    }

    @Test func theOwnerKnowsWhenItIsAlone() throws {
        try lent { base, descriptor in
            #expect(fos_platform_frames_alone(descriptor) == 1)
            let other = fos_platform_frames_open(descriptor)
            try #require(other >= 0)
            #expect(fos_platform_frames_alone(descriptor) == 0, "a descriptor")
            let copy = dup(other)
            close(other)
            #expect(fos_platform_frames_alone(descriptor) == 0, "a duplicate of it")
            for kind in [MAP_SHARED, MAP_PRIVATE] {
                let map = try #require(mmap(nil, 8192, PROT_READ | PROT_WRITE, kind, copy, 4096))
                #expect(map != MAP_FAILED)
                map.storeBytes(of: 1, as: UInt8.self)
                munmap(map, 4096)
                #expect(fos_platform_frames_alone(descriptor) == 0, "half of a mapping")
                munmap(map + 4096, 4096)
            }
            close(copy)
        }
        try lent { base, descriptor in
            let other = fos_platform_frames_open(descriptor)
            let map = try #require(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, other, 0))
            close(other)
            map.storeBytes(of: 1, as: UInt8.self)
            #expect(fos_platform_frames_alone(descriptor) == 0, "a private mapping whose descriptor is closed")
            munmap(map, 4096)
            #expect(fos_platform_frames_alone(descriptor) == 1)
            #expect(base.load(as: UInt8.self) == 0)
        }
    }

    @Test func nobodyChangesItsSizeOrSeals() throws {
        try lent { _, descriptor in
            let other = fos_platform_frames_open(descriptor)
            defer { close(other) }
            #expect(ftruncate(other, 0) != 0 && ftruncate(other, off_t(2 * Self.bytes)) != 0)
                #expect(fos_platform_seal_read_only(other) < 0)
        }
    }

    @Test func framesComeAndGoAsZeros() throws {
        for isLent in [true, false] {
            var descriptor: Int32 = -1
            let base = try #require(fos_platform_frames(UInt64(Self.bytes), 0, isLent ? 1 : 0, &descriptor))
            #expect((descriptor >= 0) == isLent)
            fos_platform_frames_populate(base, UInt64(Self.bytes))
            memset(base, 7, Self.bytes)
            fos_platform_frames_populate(base, UInt64(Self.bytes))
            #expect(base.load(as: UInt8.self) == 7, "populating keeps what is there")
            fos_platform_frames_discard(base, UInt64(Self.bytes / 2), isLent ? 1 : 0)
            #expect(base.load(as: UInt8.self) == 0)
            #expect(base.load(fromByteOffset: Self.bytes / 2, as: UInt8.self) == 7)
            fos_platform_unmap(base, UInt64(Self.bytes))
            if descriptor >= 0 { close(descriptor) }
        }
    }
}
