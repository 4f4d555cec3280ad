// RENAME over several owners: the coordinator, which is the owner of the old parent.
//
// Protocol, in steps that each send at most one request and wait for its response:
//   1 tree      only if a directory changes parents: the tree lock of member 0, or RETRY
//   2 ancestry  walk from the new parent to the root; meeting the source is EINVAL
//   3 old name  is locked here
//   4 prepare   the new parent's owner locks the new name, or reserves it with a placeholder
//   5 rules     attributes of the source (and of what it is exchanged with), if someone must be checked
//   6 victim    its owner takes its link, or marks an empty directory dead: the point of no return
//   7 moves     the inodes learn of it; their names are still locked, so none can go and its number name another one
//   8 commit    the new name, then the old one; then the locks are gone
// Until 6 any refusal undoes 4, 3 and 1. After it nothing can fail; a full mailbox, or a server that has died and will be
// back, only makes a message wait (`Owed`). If the new parent's server has lost the name, the old one stays: EIO.
// Invariants: who meets a locked name is answered RETRY, so nobody sees a step in between; only the holder of the tree
// lock changes a directory's parent; no step waits for a client or for the kernel.
// Here are the steps up to 6, and where responses lead; Transaction+RenameOutcome has what follows.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    // MARK: Steps 1 and 2

    mutating func beginRename<K: Kernel>(_ directory: InodePointer, _ dentry: DentryPointer, _ names: RenameNames, _ kernel: K) {
        guard hasNoticeRoom(kernel) || turn.isKernel else { return answer(Status.retry, kernel) }
        var state = Continuation(.rename)
        state.source = dentry.pointee.inode
        state.sourceKind = dentry.pointee.kind
        state.newParent = names.newParent
        state.renameFlags = names.flags
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        begin(continuing: id, kernel)
        let moves = names.newParent != directory.pointee.directoryNumber
        guard moves, dentry.pointee.kind == Mode.directoryKind || names.isExchange else { return lockOldName(id, kernel) }
        if member == 0 {
            guard !treeIsLocked else { return decide(id, Status.retry, kernel) }
            treeHolder = kernel.mailbox
            continuations.state(id)?.pointee.holdsTree = true
            return walkAncestors(id, .ancestry, from: names.newParent, kernel)
        }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_TREE_LOCK.rawValue)
        askNext(id, .treeLock, message, 0, kernel)
    }

    /// Sends the request of a step; a full mailbox undoes the transaction.
    private mutating func askNext<K: Kernel>(
        _ id: ContinuationID, _ phase: Continuation.Phase, _ message: UnsafePointer<fos_message>, _ peer: Int, _ kernel: K
    ) {
        guard let state = continuations.state(id) else { return }
        guard kernel.send(message, to: members[peer], expecting: id, onBehalfOf: kept(id).envelope) == .sent else {
            return abort(id, refusalToAsk(peer), kernel)
        }
        state.pointee.phase = phase
        state.pointee.responses += 1
    }

    private mutating func walkAncestors<K: Kernel>(_ id: ContinuationID, _ phase: Continuation.Phase, from start: UInt64, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let seek = phase == .ancestry ? state.pointee.source : state.pointee.victim
        // A file in an exchange has nothing below it.
        if phase == .ancestry, state.pointee.sourceKind != Mode.directoryKind { return lockOldName(id, kernel) }
        switch walkUp(from: start, seek: seek) {
        case .found: abort(id, -EINVAL, kernel)
        case .broken(let status): abort(id, status, kernel)
        case .root: ancestorsAreFine(id, phase, kernel)
        case .elsewhere(let next):
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_ANCESTRY.rawValue)
            message.pointee.inode = next
            message.setBody(fos_peer_ancestry(start: next, seek: seek, flags: 0, reserved: 0))
            askNext(id, phase, message, ownerIndex(of: next), kernel)
        }
    }

    private mutating func ancestorsAreFine<K: Kernel>(_ id: ContinuationID, _ phase: Continuation.Phase, _ kernel: K) {
        if phase == .ancestry { lockOldName(id, kernel) } else { checkSource(id, kernel) }
    }

    // MARK: Steps 3 and 4

    private mutating func lockOldName<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let names = RenameNames(kept(id)) else { return }
        // Nothing was held so far: the directory may be gone, and the name may mean something else.
        let directory: InodePointer
        switch placeToChange(names.old, in: kept(id).message.pointee.inode, kernel) {
        case .here(let record): directory = record
        case .moving, .elsewhere: return abort(id, Status.retry, kernel)
        case .gone: return abort(id, -ENOENT, kernel)
        case .lost: return abort(id, -EIO, kernel)
        }
        let (status, found) = oldName(directory, names.old)
        guard let dentry = found else { return abort(id, status, kernel) }
        guard dentry.pointee.inode == state.pointee.source else { return abort(id, Status.retry, kernel) }
        lock(dentry, in: directory)
        state.pointee.directory = directory
        state.pointee.dentry = dentry
        switch placeToChange(names.new, in: names.newParent, kernel) {
        case .here(let record): prepareHere(id, record, names, kernel)
        case .moving: abort(id, Status.retry, kernel)
        case .gone: abort(id, isLost(names.newParent) ? -EIO : -ENOENT, kernel)
        case .lost: abort(id, -EIO, kernel)
        case .elsewhere(let owner, _):
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_RENAME_PREPARE.rawValue)
            fillRename(message, id, names)
            askNext(id, .prepare, message, owner, kernel)
        }
    }

    func fillRename(_ message: UnsafeMutablePointer<fos_message>, _ id: ContinuationID, _ names: RenameNames) {
        guard let state = continuations.state(id) else { return }
        message.pointee.inode = names.newParent
        message.setBody(
            fos_peer_rename(
                cookie: cookie(id), source: state.pointee.source, old_parent: kept(id).message.pointee.inode,
                source_kind: UInt32(state.pointee.sourceKind),
                flags: state.pointee.renameFlags | (state.pointee.recoveredCookie != 0 ? FOS_PEER_AGAIN.rawValue : 0),
                name_length: UInt32(names.new.count),
                reserved: 0))
        message.append(names.new)
    }

    private mutating func prepareHere<K: Kernel>(_ id: ContinuationID, _ directory: InodePointer, _ names: RenameNames, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        var reply = fos_peer_reply()
        let (status, dentry) = prepareNewName(
            directory, names.new, source: state.pointee.source, kind: state.pointee.sourceKind,
            moves: moves(id), flags: names.flags, &reply, kernel)
        if status == -ENOSPC { return abortForCredits(id, kernel) }
        guard status == 0 else { return abort(id, status, kernel) }
        state.pointee.newDirectory = directory
        state.pointee.newDentry = dentry
        prepared(id, reply, kernel)
    }

    private mutating func prepared<K: Kernel>(_ id: ContinuationID, _ reply: fos_peer_reply, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if reply.flags & FOS_PEER_SAME.rawValue != 0 { return abort(id, 0, kernel) }
        state.pointee.isPrepared = true
        let isShard = reply.flags & FOS_PEER_SHARD.rawValue != 0
        state.pointee.newShardSlot = isShard ? UInt16(truncatingIfNeeded: reply.flags >> FOS_PEER_SLOT_SHIFT.rawValue) : .max
        state.pointee.newMode = reply.mode
        state.pointee.newUID = reply.uid
        if reply.flags & FOS_PEER_LOCKED_VICTIM.rawValue != 0 {
            state.pointee.victim = reply.inode
            state.pointee.victimKind = UInt8(truncatingIfNeeded: reply.kind)
        }
        if isExchange(state), moves(id), state.pointee.victimKind == Mode.directoryKind {
            return walkAncestors(id, .victimAncestry, from: kept(id).message.pointee.inode, kernel)
        }
        checkSource(id, kernel)
    }

    func isExchange(_ state: UnsafeMutablePointer<Continuation>) -> Bool { state.pointee.renameFlags & FOS_PEER_EXCHANGE.rawValue != 0 }
    func moves(_ id: ContinuationID) -> Bool { continuations.state(id)?.pointee.newParent != kept(id).message.pointee.inode }

    // MARK: Step 5

    private mutating func checkSource<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if turn.actor.isPrivileged { return takeVictim(id, kernel) }
        askAttributes(id, .source, state.pointee.source, kernel)
    }

    private mutating func askAttributes<K: Kernel>(_ id: ContinuationID, _ phase: Continuation.Phase, _ inode: UInt64, _ kernel: K) {
        if isHere(inode) {
            guard let found = inodes.find(inode) else { return abort(id, Status.retry, kernel) }
            return judge(id, phase, attributes(of: found, kernel), kernel)
        }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_ATTRIBUTES.rawValue)
        message.pointee.inode = inode
        askNext(id, phase, message, ownerIndex(of: inode), kernel)
    }

    private mutating func judge<K: Kernel>(_ id: ContinuationID, _ phase: Continuation.Phase, _ inode: fos_attributes, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory else { return }
        let isSource = phase == .source
        let status = refusalToMove(
            from: isSource ? directory.pointee.mode : state.pointee.newMode, isSource ? directory.pointee.uid : state.pointee.newUID,
            moves: moves(id), mode: inode.mode, uid: inode.uid, gid: inode.gid)
        guard status == 0 else { return abort(id, status, kernel) }
        if isSource, isExchange(state) { return askAttributes(id, .victimAttributes, state.pointee.victim, kernel) }
        takeVictim(id, kernel)
    }

    // MARK: Step 6

    private mutating func takeVictim<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let victim = state.pointee.victim
        guard victim != 0, !isExchange(state) else { return moveInodes(id, kernel) }
        // The directory that the source is in would be the victim; it only looks busy because this rename is in it.
        if victim == kept(id).message.pointee.inode { return abort(id, -ENOTEMPTY, kernel) }
        let isDirectory = state.pointee.victimKind == Mode.directoryKind
        // A sharded directory has to become whole first, which the owner's side of this step sees to: this server then asks
        // itself.
        let found = isHere(victim) ? inodes.find(victim) : nil
        if isHere(victim), !(found?.pointee.isSharded ?? false) {
            guard let inode = found else {
                precondition(isLost(victim), "an entry leads to no inode")
                return moveInodes(id, kernel)
            }
            var status = turn.actor.mayRemove(from: state.pointee.newMode, state.pointee.newUID, entryOwner: inode.pointee.uid) ? 0 : -EPERM
            if status == 0, isDirectory { status = refusalToEmpty(inode) }
            guard status == 0 else { return abort(id, status, kernel) }
            if isLastName(of: inode) { state.pointee.renameFlags |= FOS_PEER_GONE.rawValue }
            if isDirectory { killDirectory(inode, kernel) } else { dropLink(inode, kernel) }
            return moveInodes(id, kernel)
        }
        recordDecision(id, .asked, asked: victim, kernel)
        let message = kernel.scratch()
        message.pointee.operation = UInt16((isDirectory ? FOS_OP_PEER_REMOVE_DIRECTORY : FOS_OP_PEER_UNLINK).rawValue)
        message.pointee.inode = victim
        message.setBody(
            fos_peer_change(
                cookie: cookie(id), parent: 0, flags: stickyFlag(state.pointee.newMode), directory_uid: state.pointee.newUID))
        askNext(id, .victim, message, ownerIndex(of: victim), kernel)
    }

    // MARK: Responses

    mutating func resumeRename<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let phase = state.pointee.phase
        let status = response.status
        switch phase {
        case .treeLock:
            guard status == 0 else { return abort(id, status, kernel) }
            state.pointee.holdsTree = true
            walkAncestors(id, .ancestry, from: state.pointee.newParent, kernel)
        case .ancestry, .victimAncestry:
            guard status == 0, let walk = response.fixed(fos_peer_ancestry.self) else {
                return abort(id, status == 0 ? -EIO : status, kernel)
            }
            if walk.flags & FOS_PEER_FOUND.rawValue != 0 { return abort(id, -EINVAL, kernel) }
            if walk.flags & FOS_PEER_AT_ROOT.rawValue != 0 { return ancestorsAreFine(id, phase, kernel) }
            walkAncestors(id, phase, from: walk.start, kernel)
        case .victim where status == -ENOENT: moveInodes(id, kernel)  // What the new name meant is lost.
        case .prepare, .source, .victimAttributes, .victim:
            guard status == 0, let reply = response.fixed(fos_peer_reply.self) else {
                return abort(id, status == 0 ? -EIO : status, kernel)
            }
            count(notices: reply.notices, id, kernel)
            switch phase {
            case .prepare: prepared(id, reply, kernel)
            case .victim:
                state.pointee.renameFlags |= reply.flags & FOS_PEER_GONE.rawValue
                moveInodes(id, kernel)
            default: judge(id, phase, reply.attributes, kernel)
            }
        case .moves, .commit, .undone:
            if let reply = response.fixed(fos_peer_reply.self) { count(notices: reply.notices, id, kernel) }
            // A directory that could go after the commit was committed to.
            let isDone = status == -ENOENT && phase == .commit && state.pointee.recoveredCookie != 0
            if status != 0, !isDone { return repeatStep(id, response, kernel) }
            conclude(id, kernel)
        case .start, .fill, .summary, .seal, .unseal, .drop: preconditionFailure("a response to nothing")
        }
    }
}
