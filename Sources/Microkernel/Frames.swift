// Page frames for the memory fleet, from Linux (CPlatform's frames.h).
//
// Invariants: a lent region is sealed against any change of size, so that nothing a client does with it makes a server's
// access fail; each descriptor handed out is an open file of its own, by which Linux can tell whether anybody has the region.

import CPlatform
public import Messaging

extension CoreKernel {
    public func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion? {
        precondition(
            bytes > 0 && bytes & (bytes - 1) == 0 && sharing != .readOnly, "regions of frames are powers of two, and not for reading only")
        var descriptor: Int32 = -1
        guard let base = fos_platform_frames(UInt64(bytes), huge ? 1 : 0, sharing == .lent ? 1 : 0, &descriptor) else { return nil }
        return SharedRegion(base: base, bytes: bytes, handle: descriptor, sharing: sharing)
    }

    public var hasHugeFrames: Bool { state.pointee.fabric.hasHugeFrames }

    public func populate(_ region: SharedRegion, offset: Int, bytes: Int) {
        fos_platform_frames_populate(region.base + offset, UInt64(bytes))
    }

    public func discard(_ region: SharedRegion, offset: Int, bytes: Int) {
        fos_platform_frames_discard(region.base + offset, UInt64(bytes), region.sharing == .lent ? 1 : 0)
    }

    public func isAlone(_ region: SharedRegion) -> Bool { fos_platform_frames_alone(region.handle) != 0 }
}
