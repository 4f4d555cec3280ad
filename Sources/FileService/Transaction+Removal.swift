// UNLINK and RMDIR of a name here whose inode lives elsewhere.
//
// Protocol: the entry is locked, the inode's owner takes the link away or marks the directory dead, or refuses; then
// the entry goes, or is unlocked. The owner's consent is the point of no return, and nothing after it can fail.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func beginRemoval<K: Kernel>(
        _ directory: InodePointer, _ dentry: DentryPointer, _ operation: fos_peer_operation, _ kernel: K
    ) {
        let wasHeld = dentry.pointee.flags.contains(.kernelLease)
        guard mayRevoke(directory.pointee.leases, entry: wasHeld, kernel) else { return answer(Status.retry, kernel) }
        var state = Continuation(.removal)
        state.directory = directory
        state.dentry = dentry
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        turn.cookie = UInt64(id.rawValue)
        lock(dentry, in: directory)
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.inode = dentry.pointee.inode
        message.setBody(
            fos_peer_change(
                cookie: cookie(id), parent: 0, flags: stickyFlag(directory.pointee.mode), directory_uid: directory.pointee.uid))
        ask(id, message, ownerIndex(of: dentry.pointee.inode), of: dentry.pointee.inode, kernel)
    }

    func stickyFlag(_ mode: UInt32) -> UInt32 { mode & Mode.sticky != 0 ? FOS_PEER_STICKY.rawValue : 0 }

    mutating func resumeRemoval<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry else {
            return
        }
        // What the name leads to is lost: the name goes.
        let isLost = response.status == -ENOENT
        guard response.status == 0 || isLost, let reply = isLost ? fos_peer_reply() : response.fixed(fos_peer_reply.self) else {
            undoEntry(state)
            return decide(id, response.status == 0 ? -EIO : response.status, kernel)
        }
        count(notices: reply.notices, id, kernel)
        directory.pointee.busy -= 1
        guard let name = kept(id).wholeName else { preconditionFailure("a removal has lost its name") }
        removeEntry(directory, dentry, name, isGone: reply.flags & FOS_PEER_GONE.rawValue != 0, kernel)
        decide(id, 0, attributesOf: directory, kernel)
    }
}
