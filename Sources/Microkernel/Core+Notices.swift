// Notices from this core's servers to a client, through the ring of the core in the client's segment (fos/channel.h).
//
// Invariants: the head of a ring is the core's own record, never read back from shared memory; a full ring refuses a notice, and
// nothing is overwritten. A client that is parked on its notice bell is woken, any other costs no system call.

import CFosWire
import CPlatform
import Messaging

extension Core {
    /// Free slots of this core's notice ring to a client. The tail is the client's word: any value only moves its own bound.
    mutating func noticeRoom(client: UInt32) -> Int {
        guard Int(client) < fabric.clientsMax else { return 0 }
        let entry = fabric.clients + Int(client)
        let generation = fos_load_acquire_u32(Fabric.liveWord(entry))
        guard generation != 0, let rings = entry.pointee.noticeRings else { return 0 }
        let view = views + Int(client)
        if view.pointee.noticeGeneration != generation {
            view.pointee.noticeGeneration = generation
            view.pointee.noticeHead = 0
        }
        let behind = view.pointee.noticeHead &- fos_load_acquire_u32(fos_notice_ring_tail(rings + index))
        return behind <= UInt32(FOS_NOTICES) ? Int(UInt32(FOS_NOTICES) - behind) : 0
    }

    mutating func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool {
        guard noticeRoom(client: client) > 0 else { return false }
        let entry = fabric.clients + Int(client)
        let ring = entry.pointee.noticeRings! + index
        let control = entry.pointee.noticeControl!
        let head = views[Int(client)].noticeHead
        fos_notice_ring_slot(ring, head).pointee = notice.pointee
        views[Int(client)].noticeHead = head &+ 1
        fos_store_release_u32(fos_notice_ring_head(ring), head &+ 1)
        let bell = fos_notice_control_bell(control)!
        _ = fos_fetch_add_u32(bell, 1)
        fos_fence_after_update()
        if fos_load_relaxed_u32(fos_notice_control_parked(control)) != 0 { _ = fos_platform_futex_wake(bell, 1) }
        trace(
            mailbox: Int(running.pointee), kind: TraceKind.notice, operation: UInt16(truncatingIfNeeded: notice.pointee.kind),
            status: 0, inode: notice.pointee.inode, client: client,
            detail: UInt32(truncatingIfNeeded: notice.pointee.cookie))
        return true
    }
}
