// The memory of one client's segment, before it is laid out (ClientTable.swift).
//
// Making one takes some 30 us, half of them for the first touch of its pages, so the acceptor makes the next clients' while
// nobody waits. Each is used once: a process that was forked, or I/O that is still under way in the kernel, can reach pages
// of a client long after the client is gone.
// Invariant: sealed against any change of size before a client or a core sees it.

import CFosWire
import CPlatform
import Glibc

struct Segment {
    var descriptor: Int32
    var base: UnsafeMutableRawPointer
    var bytes: Int

    /// A new one, all zeros; or nil and -errno.
    static func make(bytes: Int) -> (segment: Segment?, error: Int32) {
        let descriptor = fos_platform_memfd("fos-segment", UInt64(bytes))
        guard descriptor >= 0 else { return (nil, descriptor) }
        guard fos_platform_seal_size(descriptor) == 0, let base = fos_platform_map_shared(descriptor, UInt64(bytes)) else {
            fos_platform_close(descriptor)
            return (nil, -ENOMEM)
        }
        return (Segment(descriptor: descriptor, base: base, bytes: bytes), 0)
    }

    /// Has the pages there that every client uses.
    func touch(_ layout: SegmentLayout) {
        for part in [0, layout.bells, layout.channel] { base.storeBytes(of: 0, toByteOffset: part, as: UInt8.self) }
    }

    /// Gives back one that no client was given.
    func dispose() {
        fos_platform_unmap(base, UInt64(bytes))
        fos_platform_close(descriptor)
    }
}
