// What a file server does when another server dies, and when it is back.
//
// Protocol: the microkernel tells each server (FOS_OP_SERVER_GONE, _BACK), after everything that the dead one had sent.
// Questions that the dead one had not answered are answered by the microkernel, RETRY if they were not begun, else -EIO;
// so every transaction that waits goes on, and is undone or finished by its own rules.
// Rules: what a dead coordinator holds here is let go: the tree lock, and names of its renames, which it can no longer
// commit. A member that is gone for good is asked nothing any more; operations on what it owned are answered -EIO.
// Of a slot that was on its way from it, this server keeps what has come, and of one on its way to it, what has not gone:
// the slot is this server's then, and has losses. A member that comes back empty asks all others what is its own
// (SlotNews); a slot's numbering goes with it (`SlotNumbering`), so what is lost is told from what never was, by whoever
// owns the slot.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    mutating func serverGone<K: Kernel>(_ mailbox: MailboxAddress, forGood: Bool, _ kernel: K) {
        guard let peer = members.index(of: mailbox), peer != member else { return }
        if forGood { members.setDead(peer) }
        loseMoves(with: peer, kernel)
        dropRequests(of: mailbox)
        // One that comes back with its store goes on with what it holds here, or lets go of it then.
        if forGood || !Store.outlivesServer {
            letGo(of: mailbox, kernel)
            doubtShards(kernel)
        }
        if owing > 0 { payOwed(kernel) }
    }

    /// A coordinator goes on with nothing any more: the tree lock and the names that it had locked are free.
    private mutating func letGo<K: Kernel>(of mailbox: MailboxAddress, _ kernel: K) {
        if treeHolder == mailbox { treeHolder = nil }
        while let name = preparedNames.takeAny(of: mailbox) {
            guard let directory = inodes.record(name.directory) else { preconditionFailure("a prepared name has lost its directory") }
            settleOrphan(name, directory, kernel)
        }
    }

    /// A name that a dead coordinator had prepared. A placeholder goes. What another name led to may have lost this name's link
    /// before the coordinator died: its owner is asked, and the name goes with it. If it stays, and is a directory's, that one may have
    /// been told of another parent: an exchange had begun.
    private mutating func settleOrphan<K: Kernel>(_ name: PreparedName, _ directory: InodePointer, _ kernel: K) {
        let victim = name.dentry.pointee.inode
        committed(.released(record: name.directory, name: name.dentry.name), kernel)
        if name.dentry.pointee.flags.contains(.placeholder) { return unlock(name.dentry, in: directory) }
        if isHere(victim) {
            let isGone = hasTaken(victim, name.cookie, of: name.coordinator.rawValue)
            if !isGone, let found = inodes.find(victim) { stays(found, in: directory, kernel) }
            return finishOrphan(name.dentry, in: directory, isGone: isGone, kernel)
        }
        var state = Continuation(.orphan)
        state.directory = directory
        state.dentry = name.dentry
        // It is answered to nobody.
        state.isDecided = true
        turn.cookie = 0
        guard let id = keep(state, kernel) else { return unlock(name.dentry, in: directory) }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_TAKEN.rawValue)
        message.pointee.inode = victim
        message.setBody(fos_peer_change(cookie: name.cookie, parent: UInt64(name.coordinator.rawValue), flags: 0, directory_uid: 0))
        guard kernel.send(message, to: owner(of: victim), expecting: id, onBehalfOf: nil) == .sent else {
            continuations.remove(id)
            return unlock(name.dentry, in: directory)
        }
        continuations.state(id)?.pointee.responses += 1
    }

    /// Whether a coordinator's transaction has taken the link of its name here, or nothing is left that it could take.
    private func hasTaken(_ inode: UInt64, _ cookie: UInt64, of coordinator: fos_mailbox) -> Bool {
        guard let found = inodes.find(inode), found.pointee.links > 0 else { return true }
        return takenLinks.contains(inode, cookie, of: coordinator)
    }

    /// TAKEN: asked by who has the name.
    mutating func peerTaken<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let question = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        var reply = fos_peer_reply()
        let isTaken = hasTaken(inode.pointee.number, question.cookie, of: fos_mailbox(truncatingIfNeeded: question.parent))
        reply.flags = isTaken ? FOS_PEER_GONE.rawValue : 0
        answerPeer(0, content: reply, kernel)
    }

    mutating func resumeOrphan<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry else {
            return
        }
        let hasHeard = state.pointee.phase == .moves
        let isGone = response.status == -ENOENT || (response.fixed(fos_peer_reply.self)?.flags ?? 0) & FOS_PEER_GONE.rawValue != 0
        if !hasHeard, !isGone, response.status == 0, dentry.pointee.kind == Mode.directoryKind { return tellThatItStays(id, kernel) }
        continuations.remove(id)
        turn.cookie = 0
        finishOrphan(dentry, in: directory, isGone: isGone && !hasHeard, kernel)
    }

    /// The inode of a name that was to be exchanged is where it was.
    mutating func tellThatItStays<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry else {
            return
        }
        let inode = dentry.pointee.inode
        var sent = SendResult.stale
        if isHere(inode) {
            if let found = inodes.find(inode) { stays(found, in: directory, kernel) }
        } else {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_MOVED.rawValue)
            message.pointee.inode = inode
            message.setBody(fos_peer_change(cookie: 0, parent: directory.pointee.directoryNumber, flags: 0, directory_uid: 0))
            sent = kernel.send(message, to: owner(of: inode), expecting: id, onBehalfOf: nil)
        }
        switch sent {
        case .sent:
            state.pointee.phase = .moves
            state.pointee.responses += 1
        case .full:
            owe(id, .stays)
            kernel.tickAgain()
        case .stale:
            continuations.remove(id)
            turn.cookie = 0
            finishOrphan(dentry, in: directory, isGone: false, kernel)
        }
    }
    private mutating func stays<K: Kernel>(_ inode: InodePointer, in directory: InodePointer, _ kernel: K) {
        guard inode.isDirectory, inode.pointee.parent != directory.pointee.directoryNumber else { return }
        moved(inode, to: directory.pointee.directoryNumber, kernel)
    }

    private mutating func finishOrphan<K: Kernel>(_ dentry: DentryPointer, in directory: InodePointer, isGone: Bool, _ kernel: K) {
        unlock(dentry, in: directory)
        guard isGone, !continuations.isFull else { return }
        withUnsafeTemporaryAllocation(byteCount: dentry.name.count, alignment: 1) { name in
            name.copyMemory(from: dentry.name)
            removeEntry(directory, dentry, UnsafeRawBufferPointer(name), isGone: true, kernel)
        }
        // Nobody is answered when the kernel has let go of the entry.
        guard turn.cookie != 0 else { return }
        let id = ContinuationID(rawValue: UInt32(truncatingIfNeeded: turn.cookie))
        continuations.state(id)?.pointee.kind = .passing
        continuations.state(id)?.pointee.isDecided = true
        settle(id, kernel)
        turn.cookie = 0
    }

    /// `isRestored`: with all that its store kept.
    mutating func serverBack<K: Kernel>(_ mailbox: MailboxAddress, isRestored: Bool, _ kernel: K) {
        guard let peer = members.index(of: mailbox), peer != member else { return }
        if members.isDead(peer) { members.set(peer, alive: true) }
        if Store.outlivesServer {
            if isRestored {
                preparedNames.doubt(allOf: mailbox)
            } else {
                letGo(of: mailbox, kernel)
                doubtShards(kernel)
            }
            askDecisions(kernel)
        }
        askDoubts(kernel)
        if owing > 0 { payOwed(evenLate: true, kernel) }
    }

    /// What a client is answered when a member could not be sent its request: that member is gone, or will have room.
    func refusalToAsk(_ peer: Int) -> Int32 { members.isDead(peer) ? -EIO : Status.retry }

    /// Whether an inode that should be here is lost: its server has been empty since, or died while the slot moved. Only of a
    /// slot that is here.
    func isLost(_ number: UInt64) -> Bool { inodes.mayHaveLost(number) }

    /// Whether what was in a slot that is here, and is not now, is lost in the same way.
    func isLost(slot: Int) -> Bool {
        let numbering = inodes.numbering(slot: slot)
        return numbering.hasLosses || numbering.incarnation > 0
    }
}
