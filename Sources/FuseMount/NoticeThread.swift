// The notice thread: revokes what the kernel has cached, when the file service says so.
//
// Protocol: the service records what the kernel may hold, sends a notice before it acknowledges another client's
// change, and waits for our acknowledgement, which follows the kernel's answer. The thread holds no request, so a
// revocation that must flush dirty pages, or wait for a directory's lock, waits for workers that are free to serve it.
// Before it revokes, the thread waits for the answers that were given before the notice (AnswersUnderWay.swift).

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension UnsafeMutablePointer where Pointee == Worker {
    /// Serves notices until the instance or the mount ends. The calling thread is the only one that takes notices.
    func serveNotices(whenGone: () -> Void) {
        let front = pointee.front
        var notice = fos_notice()
        while front.pointee.ending.value == 0 {
            // The pause bounds how long the end of the mount goes unnoticed on an idle one.
            let taken = fos_notice_take(pointee.client, &notice, 250_000_000)
            if taken == 0 {
                front.pointee.placement.confine()
                continue
            }
            if taken < 0 || notice.kind == FOS_NOTICE_SHUTDOWN.rawValue { return whenGone() }
            if !front.pointee.answers.settle() { front.pointee.log("an answer to the kernel takes longer than a notice can wait") }
            revoke(&notice)
            if notice.want_ack != 0 { _ = fos_notice_acknowledge(pointee.client, pointee.channel, &notice) }
        }
    }

    private func revoke(_ notice: inout fos_notice) {
        let session = pointee.front.pointee.session
        // A flush may need a worker while all wait for the transaction that this notice belongs to.
        if pointee.front.pointee.idle.value == 0 { pointee.front.startWorker() }
        switch notice.kind {
        case FOS_NOTICE_INODE_ATTRIBUTES.rawValue:
            // A negative offset voids attributes alone and leaves pages.
            _ = whenKnown { fuse_lowlevel_notify_inval_inode(session, notice.inode, -1, 0) }
        case FOS_NOTICE_INODE_PAGES.rawValue:
            revokePages(notice)
        case FOS_NOTICE_DIRECTORY.rawValue:
            // The pages of a directory are its cached listing.
            _ = whenKnown { fuse_lowlevel_notify_inval_inode(session, notice.inode, 0, 0) }
        case FOS_NOTICE_ENTRY.rawValue:
            let length = min(Int(notice.name_length), Int(FOS_NAME_BYTES_MAX))
            let inode = notice.inode
            withUnsafeBytes(of: &notice.name) { name in
                let text = name.baseAddress!.assumingMemoryBound(to: CChar.self)
                _ = fuse_lowlevel_notify_inval_entry(session, inode, text, length)
            }
        case FOS_NOTICE_REMOVED.rawValue:
            let length = min(Int(notice.name_length), Int(FOS_NAME_BYTES_MAX))
            let (inode, child) = (notice.inode, notice.child)
            withUnsafeBytes(of: &notice.name) { name in
                let text = name.baseAddress!.assumingMemoryBound(to: CChar.self)
                _ = fuse_lowlevel_notify_delete(session, inode, child, text, length)
            }
            // The kernel counts no link of it from now on; the service knows better, should there be one again.
            fuse_lowlevel_notify_inval_inode(session, child, -1, 0)
        default: break
        }
    }

    /// Voids something of an inode. The kernel says ENOENT when it does not know the inode, which may be because the
    /// program that an answer was written for has not run since; the kernel then makes the inode a moment later.
    private func whenKnown(_ void: () -> Int32) -> Int32 {
        var pause: UInt32 = 100
        while true {
            let result = void()
            guard result == -ENOENT, pause <= 1600 else { return result }
            usleep(pause)
            pause *= 4
        }
    }

    /// Writes dirty pages back and drops them. The kernel says EBUSY while someone dirties a page again.
    private func revokePages(_ notice: fos_notice) {
        let session = pointee.front.pointee.session
        let offset = off_t(clamping: notice.offset)
        let length = off_t(clamping: notice.length)
        for attempt in 0..<100 {
            let result = whenKnown { fuse_lowlevel_notify_inval_inode(session, notice.inode, offset, length) }
            if result != -EBUSY { return }
            usleep(UInt32(min(100 << min(attempt, 6), 5000)))
        }
        pointee.front.pointee.log("the kernel would not give up pages of inode \(notice.inode)")
    }
}
