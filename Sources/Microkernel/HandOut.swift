// Descriptors on their way to clients: a server's core hands them to the acceptor, which has the clients' sockets.
//
// Role: `CoreKernel.handOut` puts an order into its core's ring; the acceptor sends it as one packet (fos/map.h).
// Invariants: one producer, the core, and one consumer, the acceptor; the descriptor in an order is the order's own, and
// closed once it is sent or found to be for nobody. Nobody waits: a full ring is an answer, a client that does not read
// its socket loses its packet.

import CFosWire
import CPlatform
public import Messaging

struct HandOut: BitwiseCopyable {
    var token: UInt64
    var client: UInt32
    var generation: UInt32
    var descriptor: Int32
    var reserved: UInt32
}

@usableFromInline struct HandOutRing: BitwiseCopyable {
    static var capacity: UInt32 { 64 }
    var slots: UnsafeMutablePointer<HandOut>
    /// Orders ever made, by the core, and ever taken, by the acceptor; each on a line of its own.
    var tail: UnsafeMutablePointer<UInt32>
    var head: UnsafeMutablePointer<UInt32>

    static var bytes: Int { Int(capacity) * MemoryLayout<HandOut>.stride + 256 }

    init(arena: inout Arena) {
        slots = arena.take(HandOut.self, Int(Self.capacity))
        tail = arena.take(UInt32.self, 16)
        head = arena.take(UInt32.self, 16)
    }

    func put(_ order: HandOut) -> Bool {
        let position = fos_load_relaxed_u32(tail)
        guard position &- fos_load_acquire_u32(head) < Self.capacity else { return false }
        slots[Int(position % Self.capacity)] = order
        fos_store_release_u32(tail, position &+ 1)
        return true
    }

    func take() -> HandOut? {
        let position = fos_load_relaxed_u32(head)
        guard position != fos_load_acquire_u32(tail) else { return nil }
        let order = slots[Int(position % Self.capacity)]
        fos_store_release_u32(head, position &+ 1)
        return order
    }
}

extension CoreKernel {
    public func makeRegion(bytes: Int) -> SharedRegion? {
        let descriptor = fos_platform_memfd("fos-file", UInt64(bytes))
        guard descriptor >= 0 else { return nil }
        guard let base = fos_platform_map_shared(descriptor, UInt64(bytes)) else {
            fos_platform_close(descriptor)
            return nil
        }
        let region = SharedRegion(base: base, bytes: bytes, handle: descriptor)
        guard fos_platform_seal_size(descriptor) == 0 else {
            dropRegion(region)
            return nil
        }
        return region
    }

    public func dropRegion(_ region: SharedRegion) {
        fos_platform_unmap(region.base, UInt64(region.bytes))
        if region.handle >= 0 { fos_platform_close(region.handle) }
    }

    public func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool {
        let fabric = state.pointee.fabric
        // The server may drop the region before the acceptor comes to it.
        let descriptor =
            region.sharing == .lent
            ? fos_platform_frames_open(region.handle)
            : region.isForWriting ? fos_platform_duplicate(region.handle) : fos_platform_open_read_only(region.handle)
        guard descriptor >= 0 else { return false }
        let order = HandOut(
            token: token, client: envelope.pointee.client, generation: envelope.pointee.client_generation, descriptor: descriptor,
            reserved: 0)
        guard fabric.handOuts[state.pointee.index].put(order) else {
            fos_platform_close(descriptor)
            return false
        }
        fos_platform_event_signal(fabric.acceptorEvent)
        return true
    }
}
