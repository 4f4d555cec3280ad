// The notice thread: revokes what the kernel has cached, when the file service says so.
//
// Protocol: the service records what the kernel may hold, sends a notice before it acknowledges another client's
// change, and waits for our acknowledgement, which follows the kernel's answer. The thread holds no request, so a
// revocation that must flush dirty pages, or wait for a directory's lock, waits for workers that are free to serve it.
// Before it revokes, the thread waits for the answers that were given before the notice: until they are written
// (AnswersUnderWay.swift), and until the kernel has done with them what it does (LateAnswers.swift).

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension UnsafeMutablePointer where Pointee == Worker {
    /// Serves notices until the instance or the mount ends. The calling thread is the only one that takes notices.
    func serveNotices(whenGone: () -> Void) {
        let front = pointee.front
        var notice = fos_notice()
        var late = LateRevocations()
        while front.pointee.ending.value == 0 {
            // The pause bounds how long the end of the mount goes unnoticed on an idle one.
            let taken = fos_notice_take(pointee.client, &notice, late.isEmpty ? 250_000_000 : 20_000_000)
            if !late.isEmpty { late.again { revokeInode($0, patience: 0) } }
            if taken == 0 {
                front.pointee.placement.confine()
                continue
            }
            if taken < 0 || notice.kind == FOS_NOTICE_SHUTDOWN.rawValue { return whenGone() }
            if !front.pointee.answers.settle() { front.pointee.log("an answer to the kernel takes longer than a notice can wait") }
            revoke(&notice, &late)
            if notice.want_ack != 0 { _ = fos_notice_acknowledge(pointee.client, pointee.channel, &notice) }
        }
    }

    private func revoke(_ notice: inout fos_notice, _ late: inout LateRevocations) {
        // A flush may need a worker while all wait for the transaction that this notice belongs to.
        if pointee.front.pointee.idle.value == 0 { pointee.front.startWorker() }
        switch notice.kind {
        case FOS_NOTICE_INODE_ATTRIBUTES.rawValue:
            // A negative offset voids attributes alone and leaves pages.
            revokeInode(notice.inode, -1, 0, &late)
        case FOS_NOTICE_INODE_PAGES.rawValue:
            revokeInode(notice.inode, off_t(clamping: notice.offset), off_t(clamping: notice.length), &late)
        case FOS_NOTICE_DIRECTORY.rawValue:
            // The pages of a directory are its cached listing.
            awaitHolder(of: notice.inode)
            revokeInode(notice.inode, 0, 0, &late)
        case FOS_NOTICE_ENTRY.rawValue, FOS_NOTICE_REMOVED.rawValue:
            revokeEntry(&notice, &late)
        default: break
        }
    }

    // MARK: Entries

    /// The kernel takes the directory's lock for it, so an answer about the entry has taken effect before.
    private func revokeEntry(_ notice: inout fos_notice, _ late: inout LateRevocations) {
        let session = pointee.front.pointee.session
        let length = min(Int(notice.name_length), Int(FOS_NAME_BYTES_MAX))
        let (inode, child, isRemoved) = (notice.inode, notice.child, notice.kind == FOS_NOTICE_REMOVED.rawValue)
        withUnsafeBytes(of: &notice.name) { name in
            let text = name.baseAddress!.assumingMemoryBound(to: CChar.self)
            if isRemoved {
                _ = fuse_lowlevel_notify_delete(session, inode, child, text, length)
            } else {
                _ = fuse_lowlevel_notify_inval_entry(session, inode, text, length)
            }
        }
        // The kernel counts no link of it from now on; the service knows better, should there be one again.
        if isRemoved { revokeInode(child, -1, 0, &late) }
    }

    /// Waits until whoever holds the inode's lock lets it go. The kernel takes the lock of what it is to find a name in,
    /// also if that is no directory; no file has this name.
    private func awaitHolder(of inode: UInt64) {
        let name: StaticString = "\u{1}fos"
        name.withUTF8Buffer { text in
            text.withMemoryRebound(to: CChar.self) { text in
                _ = fuse_lowlevel_notify_inval_entry(pointee.front.pointee.session, inode, text.baseAddress!, text.count)
            }
        }
    }

    // MARK: Inodes

    /// Microseconds that a notice waits for a program to take an answer which was given before.
    private var patience: UInt32 { 1_000_000 }

    private func revokeInode(_ inode: UInt64, _ offset: off_t, _ length: off_t, _ late: inout LateRevocations) {
        let item = LateRevocations.Item(inode: inode, offset: offset, length: length)
        if pointee.front.pointee.unversioned.isRecent(inode) { awaitHolder(of: inode) }
        if revokeInode(item, patience: patience) == .awaited, !late.append(item) {
            pointee.front.pointee.log("more answers wait for their programs than can be remembered")
        }
    }

    private func revokeInode(_ item: LateRevocations.Item, patience: UInt32) -> Revoked {
        revokeOnceKnown(
            patience: patience, void: { item.offset < 0 ? void(item) : voidPages(item) }, isReferred: { isReferred(item.inode) },
            pause: { usleep($0) })
    }

    private func void(_ item: LateRevocations.Item) -> Int32 {
        fuse_lowlevel_notify_inval_inode(pointee.front.pointee.session, item.inode, item.offset, item.length)
    }

    /// Writes dirty pages back and drops them. The kernel says EBUSY while someone dirties a page again.
    private func voidPages(_ item: LateRevocations.Item) -> Int32 {
        for attempt in 0..<100 {
            let result = void(item)
            if result != -EBUSY { return result }
            usleep(UInt32(min(100 << min(attempt, 6), 5000)))
        }
        pointee.front.pointee.log("the kernel would not give up pages of inode \(item.inode)")
        return 0
    }

    /// Whether the service has given the kernel the inode more often than the kernel said FORGET: it has it, or an answer
    /// that makes it, or a FORGET is on its way. A service that cannot say has nothing that could be untrue.
    private func isReferred(_ inode: UInt64) -> Bool {
        message(FOS_OP_FORGET, inode).append(fos_forget_item(inode: inode, count: 0))
        guard call() == 0, let left = payload(fos_forget_item.self) else { return false }
        return left.count > 0
    }
}
