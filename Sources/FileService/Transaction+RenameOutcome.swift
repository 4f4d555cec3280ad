// What follows once a rename over several owners is decided, either way: steps 7 and 8 of Transaction+Rename, or the undoing of
// steps 4, 3 and 1; and the tree lock, which both give back.
//
// Protocol: each message that must still go is in the set `Owed`, sent (or done here) by `sendRenameMessages`; a full mailbox leaves
// it in the set for the next tick. A step is over when all its responses have come and nothing of it is owed (`conclude`).
// Invariants: after step 6 nothing is refused, only repeated; the new name is committed before the old one goes, so at every moment
// some name leads to the inode; the tree lock is given back after everything else.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    // MARK: Steps 7 and 8

    mutating func moveInodes<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        state.pointee.phase = .moves
        recordDecision(id, .decided, asked: 0, kernel)
        sendRenameMessages(id, isExchange(state) ? [.moveSource, .moveVictim] : [.moveSource], kernel)
    }

    /// The new name's owner is told once more; it answers as done what it had done.
    mutating func commitAgain<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        continuations.state(id)?.pointee.phase = .commit
        sendRenameMessages(id, .commit, kernel)
    }

    private mutating func commit<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry,
            let names = RenameNames(kept(id))
        else { return }
        directory.pointee.busy -= 1
        if isExchange(state) {
            setEntry(directory, dentry, names.old, inode: state.pointee.victim, kind: state.pointee.victimKind, kernel)
        } else {
            removeEntry(directory, dentry, names.old, kernel)
        }
        state.pointee.dentry = nil
        if let newDirectory = state.pointee.newDirectory, let newDentry = state.pointee.newDentry {
            newDirectory.pointee.busy -= 1
            setEntry(
                newDirectory, newDentry, names.new, inode: state.pointee.source, kind: state.pointee.sourceKind,
                isGone: state.pointee.renameFlags & FOS_PEER_GONE.rawValue != 0, kernel)
            state.pointee.newDentry = nil
        }
        decide(id, 0, kernel)
    }

    /// The new parent's server has lost the new name, and the source keeps its old one: EIO.
    private mutating func giveUpMoving<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        undoEntry(state)
        state.pointee.phase = .undone
        state.pointee.isPrepared = false
        guard moves(id), state.pointee.sourceKind == Mode.directoryKind else { return decide(id, -EIO, kernel) }
        sendRenameMessages(id, .moveBack, kernel)
    }

    /// Sends (or does here) what follows a decision; what meets a full mailbox is owed.
    mutating func sendRenameMessages<K: Kernel>(_ id: ContinuationID, _ messages: Owed, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if messages.contains(.commit) || messages.contains(.abort), let names = RenameNames(kept(id)) {
            let isCommit = messages.contains(.commit)
            let message = kernel.scratch()
            message.pointee.operation = UInt16((isCommit ? FOS_OP_PEER_RENAME_COMMIT : FOS_OP_PEER_RENAME_ABORT).rawValue)
            fillRename(message, id, names)
            let peer = ownerOfNewName(state)
            let sent = kernel.send(message, to: members[peer], expecting: isCommit ? id : .none, onBehalfOf: kept(id).envelope)
            if sent == .sent {
                if isCommit { state.pointee.responses += 1 }
            } else if !members.isDead(peer) {
                owe(id, isCommit ? .commit : .abort)
            } else if isCommit {
                return giveUpMoving(id, kernel)
            }
        }
        let moves = moves(id)
        if messages.contains(.moveSource) {
            sendMoved(id, .moveSource, state.pointee.source, to: moves ? state.pointee.newParent : 0, kernel)
        }
        if messages.contains(.moveVictim) {
            sendMoved(id, .moveVictim, state.pointee.victim, to: moves ? kept(id).message.pointee.inode : 0, kernel)
        }
        if messages.contains(.moveBack) { sendMoved(id, .moveBack, state.pointee.source, to: kept(id).message.pointee.inode, kernel) }
        if messages.contains(.treeUnlock) { releaseTree(id, kernel) }
        if !messages.isDisjoint(with: [.commit, .moveSource, .moveVictim, .moveBack]) { conclude(id, kernel) }
    }

    /// Who has prepared the new name, or knows who has.
    private func ownerOfNewName(_ state: UnsafeMutablePointer<Continuation>) -> Int {
        let slot = state.pointee.newShardSlot
        return slot == .max ? ownerIndex(of: state.pointee.newParent) : slots.owner(ofSlot: Int(slot))
    }

    private mutating func sendMoved<K: Kernel>(_ id: ContinuationID, _ which: Owed, _ inode: UInt64, to parent: UInt64, _ kernel: K) {
        if isHere(inode) {
            guard let found = inodes.find(inode) else { return precondition(isLost(inode), "an entry leads to no inode") }
            return moved(found, to: parent, kernel)
        }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_MOVED.rawValue)
        message.pointee.inode = inode
        message.setBody(fos_peer_change(cookie: cookie(id), parent: parent, flags: 0, directory_uid: 0))
        let peer = ownerIndex(of: inode)
        guard kernel.send(message, to: members[peer], expecting: id, onBehalfOf: kept(id).envelope) == .sent else {
            // An inode that is lost need not know where its name is.
            if !members.isDead(peer) { owe(id, which) }
            return
        }
        continuations.state(id)?.pointee.responses += 1
    }

    /// All who take part in one of the last two steps have done their part.
    mutating func conclude<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), !state.pointee.isDecided, state.pointee.responses == 0, state.pointee.owed.isEmpty
        else { return }
        switch state.pointee.phase {
        case .moves:
            state.pointee.phase = .commit
            // The new name first: should its server have died, the old one is still there.
            if state.pointee.newDentry != nil { return commit(id, kernel) }
            recordDecision(id, .committing, asked: 0, kernel)
            sendRenameMessages(id, .commit, kernel)
        case .commit: commit(id, kernel)
        case .undone: decide(id, -EIO, kernel)
        default: break
        }
    }

    /// A step that nobody may refuse was refused by a microkernel: its server died before it began. It is told again when it
    /// is back; if it has lost what it knew, or is gone for good, the step is void.
    mutating func repeatStep<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let isCommit = UInt32(response.message.pointee.operation) == FOS_OP_PEER_RENAME_COMMIT.rawValue
        let inode = response.message.pointee.inode
        let isDead = members.isDead(isCommit ? ownerOfNewName(state) : ownerIndex(of: inode))
        if response.status == Status.retry, !isDead {
            if isCommit { owe(id, .commit) } else if state.pointee.phase == .undone { owe(id, .moveBack) } else {
                owe(id, inode == state.pointee.source ? .moveSource : .moveVictim)
            }
            return kernel.tickAgain()
        }
        if isCommit { return giveUpMoving(id, kernel) }
        conclude(id, kernel)
    }

    // MARK: Undoing

    mutating func abort<K: Kernel>(_ id: ContinuationID, _ status: Int32, _ kernel: K) {
        undoRename(id, kernel)
        decideKeepingNames(id, status, kernel)
    }

    private mutating func undoRename<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        precondition(
            state.pointee.phase != .moves && state.pointee.phase != .commit && state.pointee.phase != .undone,
            "a rename is undone after its point of no return")
        if state.pointee.isPrepared {
            if let newDirectory = state.pointee.newDirectory, let newDentry = state.pointee.newDentry {
                unlock(newDentry, in: newDirectory)
            } else {
                sendRenameMessages(id, .abort, kernel)
            }
            state.pointee.isPrepared = false
        }
        undoEntry(state)
    }

    /// An ABORT that is owed needs the names of the request, so the letter keeps its payload until the answer leaves.
    private mutating func decideKeepingNames<K: Kernel>(_ id: ContinuationID, _ status: Int32, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if state.pointee.owed.isEmpty { return decide(id, status, kernel) }
        state.pointee.isDecided = true
        forgetDecision(id, kernel)
        kept(id).message.pointee.status = status
    }

    /// Memory for the new name is wanting: undoes all, and runs the request again when there are credits.
    mutating func abortForCredits<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        undoRename(id, kernel)
        guard let state = continuations.state(id) else { return }
        // What follows answers, or keeps a copy of the letter, by itself; this continuation only lets go of the tree.
        turn.cookie = 0
        needCredits(Limits.creditsOfMetadata, kernel)
        state.pointee.kind = .passing
        state.pointee.isDecided = true
        settle(id, kernel)
    }

    // MARK: The tree lock

    mutating func releaseTree<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), state.pointee.holdsTree else { return }
        if member == 0 {
            treeHolder = nil
        } else if !members.isDead(0) {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_TREE_UNLOCK.rawValue)
            guard kernel.send(message, to: members[0], expecting: .none, onBehalfOf: nil) == .sent else { return owe(id, .treeUnlock) }
        }
        state.pointee.holdsTree = false
    }

    mutating func peerTreeLock<K: Kernel>(_ request: Request, _ kernel: K) {
        if member != 0 { return answer(-EIO, kernel) }
        if treeIsLocked { return answer(Status.retry, kernel) }
        treeHolder = MailboxAddress(rawValue: request.envelope.pointee.from)
        answer(0, kernel)
    }
}
