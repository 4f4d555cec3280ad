// UNLINK and RMDIR, on this server and as the owner of an inode whose name is elsewhere.
//
// Protocol: if the inode lives elsewhere, the entry is locked, the inode's owner takes the link away (or refuses),
// and then the entry goes (`Transaction+Removal`).
// Invariants: an inode without links and references is freed at once, with its pages; a directory that was removed is
// dead, and nothing can be made in it however it is still reached.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func unlink<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let name = request.wholeName else { return answer(-EINVAL, kernel) }
        guard let dentry = entryToRemove(directory, name, dots: -EISDIR, kernel) else { return }
        if dentry.pointee.kind == Mode.directoryKind { return answer(-EISDIR, kernel) }
        guard isHere(dentry.pointee.inode) else { return beginRemoval(directory, dentry, FOS_OP_PEER_UNLINK, kernel) }
        guard let inode = inodes.find(dentry.pointee.inode) else { return removeLost(directory, dentry, name, kernel) }
        kernel.mayChange(inode: inode.pointee.number)
        guard turn.actor.mayRemove(from: directory.pointee.mode, directory.pointee.uid, entryOwner: inode.pointee.uid) else {
            return answer(-EPERM, kernel)
        }
        let wasHeld = dentry.pointee.flags.contains(.kernelLease)
        guard mayRevoke(directory.pointee.leases.union(inode.pointee.leases), entry: wasHeld, kernel) else {
            return answer(Status.retry, kernel)
        }
        let isGone = isLastName(of: inode)
        revokeAttributes(inode, kernel)
        removeEntry(directory, dentry, name, isGone: isGone, kernel)
        dropLink(inode, kernel)
        answerRemoval(from: directory, kernel)
    }

    mutating func removeDirectory<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let name = request.wholeName else { return answer(-EINVAL, kernel) }
        switch NameForm(name) {
        case .dot: return answer(-EINVAL, kernel)
        case .dotDot: return answer(-ENOTEMPTY, kernel)
        default: break
        }
        guard let dentry = entryToRemove(directory, name, dots: -EINVAL, kernel) else { return }
        guard dentry.pointee.kind == Mode.directoryKind else { return answer(-ENOTDIR, kernel) }
        guard isHere(dentry.pointee.inode) else { return beginRemoval(directory, dentry, FOS_OP_PEER_REMOVE_DIRECTORY, kernel) }
        guard let inode = inodes.find(dentry.pointee.inode) else { return removeLost(directory, dentry, name, kernel) }
        kernel.mayChange(inode: inode.pointee.number)
        guard turn.actor.mayRemove(from: directory.pointee.mode, directory.pointee.uid, entryOwner: inode.pointee.uid) else {
            return answer(-EPERM, kernel)
        }
        guard isWhole(inode, kernel) else { return }
        let status = refusalToEmpty(inode)
        guard status == 0 else { return answer(status, kernel) }
        let wasHeld = dentry.pointee.flags.contains(.kernelLease)
        guard mayRevoke(directory.pointee.leases.union(inode.pointee.leases), entry: wasHeld, kernel) else {
            return answer(Status.retry, kernel)
        }
        let isGone = isLastName(of: inode)
        revokeAttributes(inode, kernel)
        removeEntry(directory, dentry, name, isGone: isGone, kernel)
        killDirectory(inode, kernel)
        answerRemoval(from: directory, kernel)
    }

    /// The name of an inode that a crash of this server has taken.
    private mutating func removeLost<K: Kernel>(
        _ directory: InodePointer, _ dentry: DentryPointer, _ name: UnsafeRawBufferPointer, _ kernel: K
    ) {
        precondition(isLost(dentry.pointee.inode), "an entry leads to no inode")
        guard mayRevoke(directory.pointee.leases, entry: dentry.pointee.flags.contains(.kernelLease), kernel) else {
            return answer(Status.retry, kernel)
        }
        removeEntry(directory, dentry, name, isGone: true, kernel)
        answer(0, kernel)
    }

    // MARK: Parts, of transactions too

    /// The entry that a name leads to, if it may be removed from its directory; nil: answered.
    private mutating func entryToRemove<K: Kernel>(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, dots: Int32, _ kernel: K
    ) -> DentryPointer? {
        var status: Int32 = 0
        if !directory.isDirectory { status = -ENOTDIR }
        if status == 0 { status = NameForm(name).error(dots: dots) }
        if status == 0, !turn.actor.may(Access.execute, directory) { status = -EACCES }
        guard status == 0 else {
            answer(status, kernel)
            return nil
        }
        guard let dentry = directory.directory.pointee.find(name) else {
            answer(-ENOENT, kernel)
            return nil
        }
        if dentry.pointee.flags.contains(.locked) { status = Status.retry }
        else if !turn.actor.may(Access.write, directory) { status = -EACCES }
        guard status == 0 else {
            answer(status, kernel)
            return nil
        }
        return dentry
    }

    /// Takes an entry out of its directory: counts, times, store, leases. `isGone`: what it led to has no other name; the
    /// notice of its attributes goes first, as the kernel may not know it after this one.
    mutating func removeEntry<K: Kernel>(
        _ directory: InodePointer, _ dentry: DentryPointer, _ name: UnsafeRawBufferPointer, isGone: Bool = false, _ kernel: K
    ) {
        let child = dentry.pointee.inode
        let wasHeld = dentry.pointee.flags.contains(.kernelLease)
        if dentry.pointee.kind == Mode.directoryKind { removeSubdirectory(directory) }
        directory.directory.pointee.remove(dentry, &arena, &pool)
        markEntriesModified(directory, time(kernel))
        committed(.entryRemoved(record: directory.pointee.number, name: name), kernel)
        committedEntry(directory, name, kernel)
        revokeEntry(directory, name, child: child, wasHeld: wasHeld, isGone: isGone, kernel)
    }

    /// Takes one link from a file that is here, and frees it if that was the last thing that held it.
    mutating func dropLink<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        precondition(inode.pointee.links > 0, "an inode loses a link that it has not")
        inode.pointee.links -= 1
        markChanged(inode, time(kernel))
        committed(.inode(inode), kernel)
        revokeAttributes(inode, kernel)
        releaseIfUnused(inode, kernel)
    }

    /// Why a directory cannot be removed now; 0 if it can.
    func refusalToEmpty(_ inode: InodePointer) -> Int32 {
        guard inode.isDirectory else { return -ENOTDIR }
        if inode.pointee.number == UInt64(FOS_ROOT_INODE) { return -EBUSY }
        guard inode.directory.pointee.count > 0 else { return 0 }
        // A name that a transaction is about to fill, or has not yet emptied, decides it.
        return inode.pointee.busy > 0 ? Status.retry : -ENOTEMPTY
    }

    /// Marks an empty directory that is here dead.
    mutating func killDirectory<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        precondition(inode.directory.pointee.count == 0, "a directory with entries is removed")
        inode.pointee.flags.insert(.dead)
        inode.pointee.links = 0
        markChanged(inode, time(kernel))
        committed(.inode(inode), kernel)
        revokeAttributes(inode, kernel)
        releaseIfUnused(inode, kernel)
    }

    // MARK: As the owner of the inode

    mutating func peerUnlink<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let change = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        guard !inode.isDirectory, inode.pointee.links > 0 else { return answerPeer(-EIO, kernel) }
        guard mayTake(inode, change, kernel) else { return }
        let isGone = isLastName(of: inode)
        noteEffect(inode, change.cookie, kernel)
        dropLink(inode, kernel)
        answerTaken(isGone, kernel)
    }

    mutating func peerRemoveDirectory<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let change = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        guard mayTake(inode, change, kernel), isWhole(inode, kernel) else { return }
        let status = refusalToEmpty(inode)
        guard status == 0 else { return answerPeer(status, kernel) }
        let isGone = isLastName(of: inode)
        // Its number may be another inode's before the coordinator, or who has the name, asks what became of it.
        noteEffect(inode, change.cookie, kernel)
        killDirectory(inode, kernel)
        answerTaken(isGone, kernel)
    }

    private mutating func answerTaken<K: Kernel>(_ isGone: Bool, _ kernel: K) {
        var reply = fos_peer_reply()
        reply.flags = isGone ? FOS_PEER_GONE.rawValue : 0
        answerPeer(0, content: reply, kernel)
    }

    /// The sticky rule and room for notices; otherwise answers.
    private mutating func mayTake<K: Kernel>(_ inode: InodePointer, _ change: fos_peer_change, _ kernel: K) -> Bool {
        participate(change.cookie)
        if change.flags & FOS_PEER_STICKY.rawValue != 0, !turn.actor.owns(inode.pointee.uid), turn.actor.uid != change.directory_uid {
            answerPeer(-EPERM, kernel)
            return false
        }
        guard mayRevoke(inode.pointee.leases, kernel) else {
            answerPeer(Status.retry, kernel)
            return false
        }
        return true
    }

    /// From here on the turn's notices are the coordinator's to await.
    mutating func participate(_ cookie: UInt64) {
        guard let letter = turn.letter else { return }
        // The upper half counts the coordinator's lives (`cookie`); acknowledgements name its continuation alone.
        turn.cookie = cookie & UInt64(UInt32.max)
        turn.replyTo = Request(letter: letter).envelope.pointee.from
        turn.isCoordinator = false
    }
}
