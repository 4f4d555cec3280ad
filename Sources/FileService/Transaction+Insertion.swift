// A name here for an inode elsewhere: MKDIR whose directory is to live on another member, and LINK.
//
// Protocol: the name is reserved with a placeholder (locked, invisible); the inode's owner is asked; on its consent
// the placeholder becomes the entry, on a refusal it goes. Nothing after the consent can fail.
// Invariant: `directory.busy` counts locked entries, so a directory with a placeholder is neither empty nor full of it.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func beginMakeDirectory<K: Kernel>(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, slot: Int, mode: UInt32, gid: UInt32, _ kernel: K
    ) {
        guard let id = reserve(name, in: directory, kind: Mode.directoryKind, kernel) else { return }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_CREATE_INODE.rawValue)
        message.setBody(
            fos_peer_create(
                cookie: cookie(id), parent: directory.pointee.directoryNumber, slot: UInt32(slot), mode: mode, uid: turn.actor.uid, gid: gid
            ))
        ask(id, message, slots.owner(ofSlot: slot), of: UInt64(slot), kernel)
    }

    mutating func beginLink<K: Kernel>(_ directory: InodePointer, _ name: UnsafeRawBufferPointer, target: UInt64, _ kernel: K) {
        guard let id = reserve(name, in: directory, kind: 0, kernel) else { return }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_LINK.rawValue)
        message.pointee.inode = target
        message.setBody(fos_peer_change(cookie: cookie(id), parent: 0, flags: FOS_PEER_ONLY_FILE.rawValue, directory_uid: 0))
        ask(id, message, ownerIndex(of: target), of: target, kernel)
    }

    /// Makes the placeholder and the continuation; nil: the request is answered or waits for credits.
    private mutating func reserve<K: Kernel>(
        _ name: UnsafeRawBufferPointer, in directory: InodePointer, kind: UInt8, _ kernel: K
    ) -> ContinuationID? {
        guard mayRevoke(directory.pointee.leases, kernel), !continuations.isFull else {
            answer(Status.retry, kernel)
            return nil
        }
        guard let dentry = directory.directory.pointee.insert(name, inode: 0, kind: kind, &arena, &pool) else {
            needCredits(Limits.creditsOfMetadata, kernel)
            return nil
        }
        dentry.pointee.flags = [.locked, .placeholder]
        directory.pointee.busy += 1
        var state = Continuation(.insertion)
        state.directory = directory
        state.dentry = dentry
        guard let id = keep(state, kernel) else { preconditionFailure("the room for a continuation was checked") }
        turn.cookie = UInt64(id.rawValue)
        return id
    }

    /// Sends the one question of an insertion or removal; takes everything back if the mailbox is full.
    /// `asked`: the inode that it is about, or a slot of its own.
    mutating func ask<K: Kernel>(
        _ id: ContinuationID, _ message: UnsafePointer<fos_message>, _ owner: Int, of asked: UInt64, _ kernel: K
    ) {
        guard let state = continuations.state(id) else { return }
        recordDecision(id, .asked, asked: asked, kernel)
        guard kernel.send(message, to: members[owner], expecting: id, onBehalfOf: kept(id).envelope) == .sent else {
            undoEntry(state)
            return decide(id, refusalToAsk(owner), kernel)
        }
        state.pointee.responses += 1
    }

    /// Unlocks the entry of an insertion or removal; a placeholder goes.
    func undoEntryFlags(_ dentry: DentryPointer) -> Bool {
        let isPlaceholder = dentry.pointee.flags.contains(.placeholder)
        dentry.pointee.flags.subtract([.locked, .placeholder])
        return isPlaceholder
    }
    mutating func undoEntry(_ state: UnsafeMutablePointer<Continuation>) {
        guard let directory = state.pointee.directory, let dentry = state.pointee.dentry else { return }
        unlock(dentry, in: directory)
        state.pointee.dentry = nil
    }

    /// Takes a transaction's lock from an entry.
    mutating func unlock(_ dentry: DentryPointer, in directory: InodePointer) {
        precondition(dentry.pointee.flags.contains(.locked) && directory.pointee.busy > 0, "an entry is unlocked that was not locked")
        directory.pointee.busy -= 1
        if undoEntryFlags(dentry) { directory.directory.pointee.remove(dentry, &arena, &pool) }
    }
    func lock(_ dentry: DentryPointer, in directory: InodePointer) {
        precondition(!dentry.pointee.flags.contains(.locked), "an entry is locked twice")
        dentry.pointee.flags.insert(.locked)
        directory.pointee.busy += 1
    }

    mutating func resumeInsertion<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry else {
            return
        }
        guard response.status == 0, let reply = response.fixed(fos_peer_reply.self) else {
            undoEntry(state)
            return decide(id, response.status == 0 ? -EIO : response.status, kernel)
        }
        count(notices: reply.notices, id, kernel)
        let attributes = reply.attributes
        dentry.pointee.inode = attributes.inode
        dentry.pointee.kind = Mode.kind(attributes.mode)
        dentry.pointee.flags = turn.isKernel ? .kernelLease : []
        directory.pointee.busy -= 1
        if dentry.pointee.kind == Mode.directoryKind { addSubdirectory(directory) }
        markEntriesModified(directory, time(kernel))
        let name = dentry.name
        committedName(directory, dentry)
        committedEntry(directory, name, kernel)
        revokeEntry(directory, name, child: 0, wasHeld: false, kernel)
        let message = kernel.scratch()
        message.setBody(fos_made(made: attributes, directory: self.attributes(of: directory, kernel)))
        deliver(message, kernel)
        considerSpreading(directory, kernel)
    }

    /// CREATE_INODE: a directory for a name elsewhere.
    mutating func peerCreateInode<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let make = request.fixed(fos_peer_create.self), make.slot < UInt32(FOS_SLOTS), make.mode & Mode.typeMask == Mode.directory
        else { return answerPeer(-EINVAL, kernel) }
        let owner = slots.owner(ofSlot: Int(make.slot))
        guard owner == member else { return pass(request, to: owner, kernel) }
        guard givesNumbers(of: Int(make.slot)) else { return answerPeer(Status.retry, kernel) }
        guard let inode = makeInode(slot: Int(make.slot), kernel) else { return needCredits(Limits.creditsOfMetadata, kernel) }
        turn.actor.uid = make.uid
        describe(inode, mode: make.mode, gid: make.gid, kernel)
        inode.pointee.parent = make.parent
        if turn.isKernel {
            inode.pointee.kernelReferences = 1
            inode.pointee.leases.insert(.attributes)
        }
        committed(.inode(inode), kernel)
        turn.replyTo = request.envelope.pointee.from
        noteEffect(inode, make.cookie, kernel)
        answerPeer(0, attributes: attributes(of: inode, kernel), kernel)
    }
}
