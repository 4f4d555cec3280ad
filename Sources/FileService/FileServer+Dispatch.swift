// From a letter to the function of its operation.
//
// Invariants: identity and rights are the envelope's; a peer operation is run only if a member's mailbox sent it; an
// operation on an inode of another member is forwarded before anything is read from its payload.

import CFosWire
import Fleet
import FileStorage
import Glibc
import Messaging

/// The request that is being run.
struct Turn {
    var letter: UnsafeMutablePointer<fos_letter>? = nil
    var actor = Actor()
    /// The client is the FUSE front end.
    var isKernel = false
    var rerun = Rerun()
    /// Whom the acknowledgements of this turn's notices go to, and with which cookie. 0: this server, and the
    /// continuation is made with the first notice.
    var replyTo: fos_mailbox = 0
    var cookie: UInt64 = 0
    /// The cookie names a continuation of this server.
    var isCoordinator = true
    var notices: UInt32 = 0
    /// Something changed that the kernel decides by, of an inode that it holds.
    var looksAgain = false
    /// When it is: see `time`.
    var time: Timestamp?
    /// The epoch of the request's inode before this turn changes it; nil if others may change it before the answer tells another one.
    var before: UInt32?
}

extension FileServer {
    mutating func serve<K: Kernel>(_ request: Request, _ rerun: Rerun, _ kernel: K) {
        turn = Turn()
        turn.letter = request.letter
        turn.actor = Actor(request.envelope, kernel)
        turn.isKernel = UInt32(request.envelope.pointee.rights) & FOS_RIGHT_KERNEL_CACHE.rawValue != 0
        turn.rerun = rerun
        turn.replyTo = kernel.mailbox.rawValue

        let operation = UInt32(request.operation)
        if operation >= FOS_OP_FILE_FIRST.rawValue, operation <= FOS_OP_FILE_LAST.rawValue {
            serveClient(fos_operation(rawValue: operation), request, kernel)
        } else if operation >= FOS_OP_PEER_FIRST.rawValue, operation <= FOS_OP_PEER_LAST.rawValue {
            servePeer(fos_peer_operation(rawValue: operation), request, kernel)
        } else {
            serveAny(fos_operation(rawValue: operation), request, kernel)
        }
    }

    private mutating func serveAny<K: Kernel>(_ operation: fos_operation, _ request: Request, _ kernel: K) {
        let isNews = UInt32(request.envelope.pointee.sender_kind) != FOS_SENDER_CLIENT.rawValue
        switch operation {
        case FOS_OP_PING: answer(0, kernel)
        case FOS_OP_STATISTICS:
            let message = kernel.scratch()
            message.setBody(described(on: kernel))
            deliver(message, kernel)
        case FOS_OP_CLIENT_GONE: if isNews { clientGone(request.envelope.pointee.client, kernel) } else { answer(-EPERM, kernel) }
        case FOS_OP_TICK: if isNews { tick(kernel) } else { answer(-EPERM, kernel) }
        case FOS_OP_SERVER_GONE, FOS_OP_SERVER_BACK:
            guard isNews, kernelSentIt(request) else { return answer(-EPERM, kernel) }
            let mailbox = MailboxAddress(rawValue: UInt32(truncatingIfNeeded: request.message.pointee.inode))
            if operation == FOS_OP_SERVER_BACK { return serverBack(mailbox, isRestored: request.message.pointee.flags & 1 != 0, kernel) }
            serverGone(mailbox, forGood: request.message.pointee.flags & 1 != 0, kernel)
        case FOS_OP_FLEET_MEMBERS, FOS_OP_FLEET_GIVE, FOS_OP_FLEET_TAKE: serveManager(operation, request, kernel)
        default: answer(-ENOSYS, kernel)
        }
    }

    /// News come from a microkernel's own mailbox, which no server can send from.
    private func kernelSentIt(_ request: Request) -> Bool {
        MailboxAddress(rawValue: request.envelope.pointee.from).index == 0
    }

    /// What the fleet manager, or a microkernel, says.
    private mutating func serveManager<K: Kernel>(_ operation: fos_operation, _ request: Request, _ kernel: K) {
        let isClient = UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue
        guard !isClient, kernelSentIt(request) || request.envelope.pointee.from == manager?.rawValue else { return answer(-EPERM, kernel) }
        switch operation {
        case FOS_OP_FLEET_MEMBERS: takeMembers(request, kernel)
        case FOS_OP_FLEET_GIVE: takeOrder(request, kernel)
        default: takeOver(request, kernel)
        }
    }

    private mutating func serveClient<K: Kernel>(_ operation: fos_operation, _ request: Request, _ kernel: K) {
        switch operation {
        case FOS_OP_STATFS: return statfs(request, kernel)
        case FOS_OP_FORGET: return forget(request, kernel)
        case FOS_OP_LEASE_ACK: return acknowledge(request, kernel)
        default: break
        }
        let number = request.message.pointee.inode
        guard isHere(number) else {
            if mayHaveShards(number, kernel), serveEntry(operation, number, request, kernel) { return }
            return serveElsewhere(operation, number, request, kernel)
        }
        if operation == FOS_OP_CANCEL { return cancel(request, kernel) }
        if operation == FOS_OP_GIVE_BACK { return takeBack(request, kernel) }
        // The kernel names only inodes that it holds; others may have kept a number for too long.
        guard let inode = inodes.find(number) else { return answer(isLost(number) ? -EIO : -ESTALE, kernel) }
        if inode.pointee.isSharded, serveEntry(operation, number, request, kernel) { return }
        serve(operation, inode, request, kernel)
    }

    /// A request for an inode that is on its way, or another member's.
    private mutating func serveElsewhere<K: Kernel>(_ operation: fos_operation, _ number: UInt64, _ request: Request, _ kernel: K) {
        if let inode = onItsWay(number) {
            if motion.giving?.isClosing == false, Self.isReading(operation) { return serve(operation, inode, request, kernel) }
            motion.delayed += 1
            return answer(Status.retry, kernel)
        }
        if isNowhere(number, request) { return answer(isLost(number) ? -EIO : -ESTALE, kernel) }
        pass(request, to: ownerIndex(of: number), kernel)
    }

    mutating func serve<K: Kernel>(_ operation: fos_operation, _ inode: InodePointer, _ request: Request, _ kernel: K) {
        if Self.changes(operation) {
            kernel.mayChange(inode: inode.pointee.number)
            let flags = inode.pointee.flags
            if !flags.contains(.shard), !flags.contains(.sharded) { turn.before = kernel.epoch(ofInode: inode.pointee.number) }
        }
        noteOperation(inode, operation, kernel)
        switch operation {
        case FOS_OP_LOOKUP: lookup(inode, request, kernel)
        case FOS_OP_GETATTR: answer(attributesOf: inode, kernel)
        case FOS_OP_SETATTR: setAttributes(inode, request, kernel)
        case FOS_OP_READLINK: readLink(inode, request, kernel)
        case FOS_OP_SYMLINK: symlink(inode, request, kernel)
        case FOS_OP_MKNOD: makeNode(inode, request, kernel)
        case FOS_OP_MKDIR: makeDirectory(inode, request, kernel)
        case FOS_OP_UNLINK: unlink(inode, request, kernel)
        case FOS_OP_RMDIR: removeDirectory(inode, request, kernel)
        case FOS_OP_RENAME: rename(inode, request, kernel)
        case FOS_OP_LINK: link(inode, request, kernel)
        case FOS_OP_READ: read(inode, request, kernel)
        case FOS_OP_WRITE: write(inode, request, kernel)
        case FOS_OP_FSYNC: synchronise(kernel)
        case FOS_OP_SETXATTR: setXattr(inode, request, kernel)
        case FOS_OP_GETXATTR: getXattr(inode, request, kernel)
        case FOS_OP_LISTXATTR: listXattrs(inode, request, kernel)
        case FOS_OP_REMOVEXATTR: removeXattr(inode, request, kernel)
        case FOS_OP_READDIR: readDirectory(inode, request, kernel)
        case FOS_OP_CREATE: create(inode, request, kernel)
        case FOS_OP_TMPFILE: makeTemporaryFile(inode, request, kernel)
        case FOS_OP_FALLOCATE: allocateSpace(inode, request, kernel)
        case FOS_OP_LSEEK: seek(inode, request, kernel)
        case FOS_OP_COPY_RANGE: copyRange(inode, request, kernel)
        case FOS_OP_ACCESS: access(inode, request, kernel)
        case FOS_OP_GETLK: testLock(inode, request, kernel)
        case FOS_OP_SETLK: setLock(inode, request, kernel)
        case FOS_OP_FLOCK: setFlock(inode, request, kernel)
        case FOS_OP_OPEN: open(inode, request, kernel)
        case FOS_OP_RELEASE: release(inode, request, kernel)
        case FOS_OP_FLUSH: flush(inode, request, kernel)
        case FOS_OP_MAP: map(inode, request, kernel)
        case FOS_OP_LOOKUP_OPEN: lookupOpen(inode, request, kernel)
        default: answer(-ENOSYS, kernel)
        }
    }

    /// What changes the inode that it names, unless it is refused.
    private static func changes(_ operation: fos_operation) -> Bool {
        switch operation {
        case FOS_OP_SETATTR, FOS_OP_SYMLINK, FOS_OP_MKNOD, FOS_OP_MKDIR, FOS_OP_UNLINK, FOS_OP_RMDIR, FOS_OP_RENAME, FOS_OP_LINK, FOS_OP_WRITE,
            FOS_OP_SETXATTR, FOS_OP_REMOVEXATTR, FOS_OP_CREATE, FOS_OP_FALLOCATE, FOS_OP_COPY_RANGE:
            true
        default: false
        }
    }

    private mutating func servePeer<K: Kernel>(_ operation: fos_peer_operation, _ request: Request, _ kernel: K) {
        let number = request.message.pointee.inode
        if operation == FOS_OP_PEER_LOOKUP {
            if isHere(number) || isNowhere(number, request) { return finishLookup(request, kernel) }
            if onItsWay(number) != nil { return delay(kernel) }
            return pass(request, to: ownerIndex(of: number), kernel)
        }
        // A client's, which another server has passed on.
        if operation == FOS_OP_PEER_SHARD_LIST, request.envelope.pointee.hops > 0 { return continueListing(request, kernel) }
        let kind = UInt32(request.envelope.pointee.sender_kind)
        guard kind == FOS_SENDER_SERVER.rawValue || kind == FOS_SENDER_NONE.rawValue,
            members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) != nil
        else { return answer(-EPERM, kernel) }
        switch operation {
        case FOS_OP_PEER_TREE_LOCK: return peerTreeLock(request, kernel)
        case FOS_OP_PEER_TREE_UNLOCK:
            if treeHolder?.rawValue == request.envelope.pointee.from { treeHolder = nil }
            return
        case FOS_OP_PEER_SLOT_BEGIN: return takeBegin(request, kernel)
        case FOS_OP_PEER_SLOT_PIECE: return takePiece(request, kernel)
        case FOS_OP_PEER_SLOT_END: return takeEnd(request, kernel)
        case FOS_OP_PEER_SLOT_NEWS: return takeNews(request, kernel)
        case FOS_OP_PEER_SLOT_SYNC: return answerSync(request, kernel)
        case FOS_OP_PEER_GIFT: return takeGift(request, kernel)
        case FOS_OP_PEER_TABLE: return answerTable(request, kernel)
        case FOS_OP_PEER_ANCESTRY: return peerAncestry(request, kernel)
        case FOS_OP_PEER_CREDITS: return peerCredits(request, kernel)
        case FOS_OP_PEER_SPACE: return peerSpace(kernel)
        case FOS_OP_PEER_CREATE_INODE: return peerCreateInode(request, kernel)
        case FOS_OP_PEER_SHARD_FILL, FOS_OP_PEER_SHARD_SUMMARY, FOS_OP_PEER_SHARD_SEAL, FOS_OP_PEER_SHARD_UNSEAL, FOS_OP_PEER_SHARD_DROP:
            return serveShard(operation, request, kernel)
        case FOS_OP_PEER_SHARD_USED: return peerShardUsed(request, kernel)
        case FOS_OP_PEER_RENAME_PREPARE, FOS_OP_PEER_RENAME_COMMIT, FOS_OP_PEER_RENAME_ABORT:
            return servePeerRename(operation, request, kernel)
        case FOS_OP_PEER_DECISION: return peerDecision(request, kernel)
        case FOS_OP_PEER_OUTCOME where number == 0: return peerOutcome(request, kernel)
        default: break
        }
        guard isHere(number) || isNowhere(number, request) else {
            if onItsWay(number) != nil { return delay(kernel) }
            return pass(request, to: ownerIndex(of: number), kernel)
        }
        guard let inode = inodes.find(number) else {
            // What takes an inode away has its way if the inode is lost; whatever else needs it fails.
            let takes = operation == FOS_OP_PEER_UNLINK || operation == FOS_OP_PEER_REMOVE_DIRECTORY
            return answerPeer(isLost(number) && !takes ? -EIO : -ENOENT, kernel)
        }
        endWriting(inode, kernel)
        noteDelegation(inode, kernel)
        switch operation {
        case FOS_OP_PEER_LINK: peerLink(inode, request, kernel)
        case FOS_OP_PEER_UNLINK: peerUnlink(inode, request, kernel)
        case FOS_OP_PEER_REMOVE_DIRECTORY: peerRemoveDirectory(inode, request, kernel)
        case FOS_OP_PEER_MOVED: peerMoved(inode, request, kernel)
        case FOS_OP_PEER_ATTRIBUTES: answerPeer(0, attributes: attributes(of: inode, kernel), kernel)
        case FOS_OP_PEER_READ: peerRead(inode, request, kernel)
        case FOS_OP_PEER_TAKEN: peerTaken(inode, request, kernel)
        case FOS_OP_PEER_OUTCOME: peerOutcome(request, kernel)
        default: answerPeer(-ENOSYS, kernel)
        }
    }

    /// The inode is on its way to another server, and is not to change meanwhile.
    mutating func delay<K: Kernel>(_ kernel: K) {
        motion.delayed += 1
        answerPeer(Status.retry, kernel)
    }

    /// Forwards a request; its answer goes to the client directly. `slot`: of what it is about, if that is not its inode.
    mutating func pass<K: Kernel>(_ request: Request, to owner: Int, slot: Int? = nil, _ kernel: K) {
        // So often only while tables disagree: the client asks again when they do not.
        guard request.envelope.pointee.hops < Limits.hops, !isUnknown(request.message.pointee.inode) else {
            return answer(Status.retry, kernel)
        }
        let slot = slot ?? SlotTable.slot(ofInode: request.message.pointee.inode)
        guard !members.isDead(owner) else {
            tellSender(of: request, slot: slot, kernel)
            return answer(-EIO, kernel)
        }
        markPassed(request, to: owner, slot: slot)
        motion.forwarded += 1
        if kernel.forward(request.letter, to: members[owner]) == .sent { return }
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_NONE.rawValue else { return answer(Status.retry, kernel) }
        // Nobody would send it again.
        var state = Continuation(.passing)
        state.target = request.message.pointee.inode
        state.isDecided = true
        if let id = keep(state, kernel) { owe(id, .letter) }
    }

    /// Tells the taker of a slot what its giver has not got: the inode, or the shard that the name is in. Not the same, as a server
    /// may by now take another slot, and that be the inode's. And the owner of a sharded directory tells whoever should have the shard
    /// that it is in use.
    func markPassed(_ request: Request, to owner: Int, slot: Int) {
        let isToTaker = motion.giving.map { $0.taker == owner && $0.slot == slot } ?? false
        let isOfInode = slot == SlotTable.slot(ofInode: request.message.pointee.inode)
        let knows = !isOfInode && directoryHere(request.message.pointee.inode)?.pointee.isSharded == true
        let inUse = knows ? Settled.inUse : request.envelope.pointee.settled & Settled.inUse
        request.envelope.pointee.settled =
            (isToTaker ? isOfInode ? Settled.inode : Settled.shard : 0) | inUse | (isOfInode ? Settled.noShard : 0)
    }

    /// Housekeeping: about every 10 ms on a busy core, before parking on an idle one.
    private mutating func tick<K: Kernel>(_ kernel: K) {
        if owedNotices.count > 0 { payOwedNotices(kernel) }
        if owing > 0 { payOwed(evenLate: true, kernel) }
        tickMotion(kernel)
        if Store.outlivesServer { tickRecovery(kernel) }
        askDoubts(kernel)
        if kernel.kernelCacheClient == nil { forgetAcknowledgements(kernel) }
        discarded.giveBack(Limits.discardedOfTick, &pool)
        let hasUnneeded = pool.tick()
        askAgainForStock()
        returnExtents(kernel)
        // An idle core has no other reason to tick again.
        if owedNotices.count > 0 || owing > 0 || owesTreeUnlock || hasUnneeded || !discarded.isEmpty { kernel.tickAgain() }
    }
}

/// What whoever passed a request on knows of it (`fos_envelope.settled`).
enum Settled {
    // What a giver has not got, and so its taker decides.
    static var inode: UInt8 { 1 }
    static var shard: UInt8 { 2 }
    /// The directory's owner says that the shard of the name is in use: where it should be and is not, it is lost.
    static var inUse: UInt8 { 4 }
    /// It goes to the owner of the directory, as where the shard of the name should be there is none: who has not got the directory
    /// either asks no shard again. Else two servers that disagree about the directory's owner would send it to each other for ever.
    static var noShard: UInt8 { 8 }
}

extension Request {
    func isSettled(_ bit: UInt8) -> Bool { envelope.pointee.settled & bit != 0 }
}
