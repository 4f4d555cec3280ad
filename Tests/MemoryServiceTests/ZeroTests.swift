// Zeroing past the caches: all of a range, and nothing beside it.

import CPlatform
import Glibc
import Testing

@Suite struct ZeroTests {
    @Test(arguments: [64, 128, 4096, 262_144, 2 << 20]) func zeroesTheRangeAndNothingElse(bytes: Int) {
        let edge = 4096
        let room = UnsafeMutableRawPointer.allocate(byteCount: bytes + 2 * edge, alignment: 64)
        defer { room.deallocate() }
        memset(room, 0xa5, bytes + 2 * edge)
        fos_platform_zero(room + edge, bytes)
        let all = UnsafeRawBufferPointer(start: room, count: bytes + 2 * edge)
        #expect(all[edge..<edge + bytes].allSatisfy { $0 == 0 })
        #expect(all[..<edge].allSatisfy { $0 == 0xa5 } && all[(edge + bytes)...].allSatisfy { $0 == 0xa5 })
    }
}
