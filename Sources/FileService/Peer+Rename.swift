// RENAME over several owners: what the owners of the new parent and of the inodes do.
//
// Invariants: a prepared name stays locked until COMMIT or ABORT; requests of one coordinator keep their order, so
// those come after PREPARE. The directory of a prepared name cannot go: it has an entry, if only a placeholder.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    /// Locks the new name in a directory that is here. -ENOSPC: memory for a placeholder is wanting.
    mutating func prepareNewName<K: Kernel>(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, source: UInt64, kind: UInt8, moves: Bool, flags: UInt32,
        _ reply: inout fos_peer_reply, _ kernel: K
    ) -> (Int32, DentryPointer?) {
        let (status, found) = newName(directory, name, source: source, kind: kind, moves: moves, flags: flags)
        guard status == 0 else { return (status, nil) }
        reply.mode = directory.pointee.mode
        reply.uid = directory.pointee.uid
        reply.gid = directory.pointee.gid
        if let dentry = found {
            if dentry.pointee.inode == source {
                reply.flags = FOS_PEER_SAME.rawValue
                return (0, nil)
            }
            guard mayRevoke(directory.pointee.leases, entry: dentry.pointee.flags.contains(.kernelLease), kernel) else {
                return (Status.retry, nil)
            }
            lock(dentry, in: directory)
            reply.flags = FOS_PEER_LOCKED_VICTIM.rawValue
            reply.inode = dentry.pointee.inode
            reply.kind = UInt32(dentry.pointee.kind)
            return (0, dentry)
        }
        guard mayRevoke(directory.pointee.leases, kernel) else { return (Status.retry, nil) }
        guard let dentry = directory.directory.pointee.insert(name, inode: 0, kind: kind, &arena, &pool) else { return (-ENOSPC, nil) }
        lock(dentry, in: directory)
        dentry.pointee.flags.insert(.placeholder)
        return (0, dentry)
    }

    /// RENAME_* for a new name, whose record is this server's or is known to be another's.
    mutating func servePeerRename<K: Kernel>(_ operation: fos_peer_operation, _ request: Request, _ kernel: K) {
        guard let rename = request.fixed(fos_peer_rename.self), let name = request.name(after: fos_peer_rename.self, rename.name_length)
        else {
            return answerPeer(-EINVAL, kernel)
        }
        let number = request.message.pointee.inode
        let isGone = isNowhere(number, request) && inodes.find(number) == nil
        let record: InodePointer
        let isLocked = operation != FOS_OP_PEER_RENAME_PREPARE
        switch preparedHere(operation, request, rename)
            ?? (isGone ? .gone : place(of: name, in: number, isLocked: isLocked, request, kernel))
        {
        case .here(let found):
            if isOnItsWay(found) { return delay(kernel) }
            record = found
        case .elsewhere(let owner, let slot): return pass(request, to: owner, slot: slot, kernel)
        case .moving: return answer(Status.retry, kernel)
        case .gone: return answerPeer(isLost(number) ? -EIO : -ENOENT, kernel)
        case .lost: return answerPeer(-EIO, kernel)
        }
        switch operation {
        case FOS_OP_PEER_RENAME_PREPARE: peerRenamePrepare(record, request, kernel)
        case FOS_OP_PEER_RENAME_COMMIT: peerRenameCommit(record, request, kernel)
        default: peerRenameAbort(record, request, kernel)
        }
    }

    /// Where COMMIT and ABORT find a name that is prepared here: with it, whatever has become of the directory that it is in a shard of.
    private func preparedHere(_ operation: fos_peer_operation, _ request: Request, _ rename: fos_peer_rename) -> EntryPlace? {
        guard operation != FOS_OP_PEER_RENAME_PREPARE else { return nil }
        return preparedNames.find(coordinator(request), rename.cookie).flatMap { inodes.record($0.directory) }.map { .here($0) }
    }

    mutating func peerRenamePrepare<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let rename = request.fixed(fos_peer_rename.self), let name = request.name(after: fos_peer_rename.self, rename.name_length)
        else {
            return answerPeer(-EINVAL, kernel)
        }
        participate(rename.cookie)
        guard !preparedNames.isFull, !preparedNames.contains(coordinator(request), rename.cookie) else {
            return answerPeer(Status.retry, kernel)
        }
        var reply = fos_peer_reply()
        let (status, dentry) = prepareNewName(
            directory, name, source: rename.source, kind: UInt8(truncatingIfNeeded: rename.source_kind),
            moves: rename.old_parent != directory.pointee.directoryNumber, flags: rename.flags, &reply, kernel)
        if status == -ENOSPC { return needCredits(Limits.creditsOfMetadata, kernel) }
        if status == 0, let dentry {
            preparedNames.add(
                PreparedName(coordinator: coordinator(request), cookie: rename.cookie, directory: directory.pointee.number, dentry: dentry))
            committed(
                .prepared(
                    record: directory.pointee.number, name: name, coordinator: coordinator(request), cookie: rename.cookie,
                    place: dentry.pointee.cookie),
                kernel)
        }
        // What follows comes straight here.
        if directory.pointee.isShard {
            reply.flags |=
                FOS_PEER_SHARD.rawValue | UInt32(SlotTable.slot(ofInode: directory.pointee.number)) << FOS_PEER_SLOT_SHIFT.rawValue
        }
        answerPeer(status, content: reply, kernel)
    }

    private func coordinator(_ request: Request) -> MailboxAddress { MailboxAddress(rawValue: request.envelope.pointee.from) }

    mutating func peerRenameCommit<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let (rename, name, dentry) = preparedName(directory, request) else {
            let isDone = Store.outlivesServer && (request.fixed(fos_peer_rename.self)?.flags ?? 0) & FOS_PEER_AGAIN.rawValue != 0
            return answerPeer(isDone ? 0 : -EIO, kernel)
        }
        participate(rename.cookie)
        committed(.released(record: directory.pointee.number, name: name), kernel)
        directory.pointee.busy -= 1
        setEntry(
            directory, dentry, name, inode: rename.source, kind: UInt8(truncatingIfNeeded: rename.source_kind),
            isGone: rename.flags & FOS_PEER_GONE.rawValue != 0, kernel)
        answerPeer(0, kernel)
    }

    mutating func peerRenameAbort<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let (_, name, dentry) = preparedName(directory, request) else { return }
        committed(.released(record: directory.pointee.number, name: name), kernel)
        unlock(dentry, in: directory)
    }

    /// The name that COMMIT or ABORT is about, which is no longer prepared then.
    private mutating func preparedName(
        _ directory: InodePointer, _ request: Request
    ) -> (fos_peer_rename, UnsafeRawBufferPointer, DentryPointer)? {
        guard let rename = request.fixed(fos_peer_rename.self), let name = request.name(after: fos_peer_rename.self, rename.name_length),
            let prepared = preparedNames.take(coordinator(request), rename.cookie), prepared.directory == directory.pointee.number
        else { return nil }
        return (rename, name, prepared.dentry)
    }

    mutating func peerMoved<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let change = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        participate(change.cookie)
        moved(inode, to: change.parent, kernel)
        answerPeer(0, kernel)
    }

    mutating func peerAncestry<K: Kernel>(_ request: Request, _ kernel: K) {
        guard var walk = request.fixed(fos_peer_ancestry.self) else { return answer(-EINVAL, kernel) }
        if !isHere(walk.start), onItsWay(walk.start) == nil, !isNowhere(walk.start, request) {
            return pass(request, to: ownerIndex(of: walk.start), kernel)
        }
        switch walkUp(from: walk.start, seek: walk.seek) {
        case .found: walk.flags = FOS_PEER_FOUND.rawValue
        case .root: walk.flags = FOS_PEER_AT_ROOT.rawValue
        case .broken(let status): return answer(status, kernel)
        case .elsewhere(let next): walk.start = next
        }
        let message = kernel.scratch()
        message.setBody(walk)
        deliver(message, kernel)
    }
}
