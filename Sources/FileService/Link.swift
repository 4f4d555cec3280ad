// LINK: one more name for an inode, here or elsewhere.
//
// Protocol: if the inode lives elsewhere, the new name is reserved by a placeholder, the owner adds the link (or
// refuses), and the placeholder becomes the entry (`Transaction+Insertion`).
// Rules: directories have one name (EPERM); an inode whose last name is gone gets no new one (ENOENT), but for an
// O_TMPFILE file that has never had any.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func link<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let link = request.fixed(fos_link_request.self), let name = request.name(after: fos_link_request.self, link.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        guard mayInsert(directory, name, kernel) else { return }
        guard isHere(link.target) else { return beginLink(directory, name, target: link.target, kernel) }
        guard let inode = inodes.find(link.target) else { return answer(isLost(link.target) ? -EIO : -ENOENT, kernel) }
        let status = refusalToLink(inode)
        guard status == 0 else { return answer(status, kernel) }
        guard mayRevoke(directory.pointee.leases.union(inode.pointee.leases), kernel) else { return answer(Status.retry, kernel) }
        guard let dentry = directory.directory.pointee.insert(
            name, inode: link.target, kind: Mode.kind(inode.pointee.mode), &arena, &pool)
        else { return needCredits(Limits.creditsOfMetadata, kernel) }
        if turn.isKernel { dentry.pointee.flags.insert(.kernelLease) }
        markEntriesModified(directory, time(kernel))
        committedName(directory, dentry)
        committedEntry(directory, name, kernel)
        revokeEntry(directory, name, child: 0, wasHeld: false, kernel)
        addLink(inode, kernel)
        answerEntry(inode, in: directory, kernel)
        considerSpreading(directory, kernel)
    }

    private func refusalToLink(_ inode: InodePointer) -> Int32 {
        if inode.isDirectory { return -EPERM }
        if inode.pointee.links == 0, !inode.pointee.flags.contains(.linkable) { return -ENOENT }
        return inode.pointee.links < Limits.linksMax ? 0 : -EMLINK
    }

    private mutating func addLink<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        inode.pointee.links += 1
        inode.pointee.flags.remove(.linkable)
        markChanged(inode, time(kernel))
        committed(.inode(inode), kernel)
        revokeAttributes(inode, kernel)
    }

    /// As the owner of the inode.
    mutating func peerLink<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let change = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        participate(change.cookie)
        let status = refusalToLink(inode)
        guard status == 0 else { return answerPeer(status, kernel) }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answerPeer(Status.retry, kernel) }
        addLink(inode, kernel)
        noteEffect(inode, change.cookie, kernel)
        if turn.isKernel {
            inode.pointee.kernelReferences &+= 1
            inode.pointee.leases.insert(.attributes)
        }
        answerPeer(0, attributes: attributes(of: inode, kernel), kernel)
    }
}
