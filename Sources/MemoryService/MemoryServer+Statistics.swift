// MEMORY_STATISTICS: what this member has, by frame size.

import Buddy
import CFosWire
import Messaging

extension MemoryServer {
    /// Bytes of frames zeroed since the start, of both sizes.
    public var zeroedBytes: UInt64 { counters.0.zeroed + counters.1.zeroed }

    func statistics<K: Kernel>(_ kernel: K) -> fos_memory_statistics {
        var statistics = fos_memory_statistics()
        statistics.member = UInt32(member)
        for index in 0..<clients.count where clients[index].bytes > 0 { statistics.clients += 1 }
        statistics.limit = UInt64(limit)
        statistics.charged = UInt64(charged)
        statistics.reserve = UInt64(max(reserve.0, reserve.1))
        statistics.servers = UInt64(serverBytes)
        statistics.huge = kernel.hasHugeFrames ? 1 : 0
        statistics.returned_after_ms = UInt32(clamping: options.returnAfter / 1_000_000)
        statistics.frames.0 = frames(.small)
        statistics.frames.1 = frames(.huge)
        return statistics
    }

    private func frames(_ size: FrameSize) -> fos_memory_frames {
        var frames = fos_memory_frames()
        forEachRegion { region in
            guard region.pointee.size == size else { return }
            func bytes(_ count: Int) -> UInt64 { UInt64(count << size.shift) }
            frames.regions += 1
            frames.zeroed += bytes(region.pointee.zeroed.freeFrames)
            frames.dirty += bytes(region.pointee.dirty.freeFrames)
            frames.absent += bytes(region.pointee.absent.freeFrames)
            switch region.pointee.state {
            case .unbound: frames.unbound += bytes(region.pointee.zeroed.freeFrames)
            case .retired: frames.retired += UInt64(region.pointee.memory.bytes)
            case .bound, .servers: break
            }
            frames.granted += bytes(region.pointee.granted)
        }
        let counted = size == .small ? counters.0 : counters.1
        frames.granted_ever = counted.granted
        frames.freed_ever = counted.freed
        frames.zeroed_ever = counted.zeroed
        return frames
    }
}
