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
    /// When it is: see `time`.
    var time: Timestamp?
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
        if operation >= 300, operation < 400 {
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
            var statistics = fos_statistics()
            statistics.core = UInt32(kernel.core)
            statistics.mailbox = kernel.mailbox.rawValue
            describe(&statistics)
            let message = kernel.scratch()
            message.setBody(statistics)
            deliver(message, kernel)
        case FOS_OP_CLIENT_GONE: if isNews { clientGone(request.envelope.pointee.client, kernel) } else { answer(-EPERM, kernel) }
        case FOS_OP_TICK: if isNews { tick(kernel) } else { answer(-EPERM, kernel) }
        default: answer(-ENOSYS, kernel)
        }
    }

    private mutating func serveClient<K: Kernel>(_ operation: fos_operation, _ request: Request, _ kernel: K) {
        switch operation {
        case FOS_OP_STATFS: return statfs(request, kernel)
        case FOS_OP_FORGET: return forget(request, kernel)
        case FOS_OP_LEASE_ACK: return acknowledge(request, kernel)
        default: break
        }
        if operation == FOS_OP_CANCEL, isHere(request.message.pointee.inode) { return cancel(request, kernel) }
        guard let inode = record(for: request, kernel) else { return }
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
        case FOS_OP_FSYNC: answer(0, kernel)
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

    private mutating func servePeer<K: Kernel>(_ operation: fos_peer_operation, _ request: Request, _ kernel: K) {
        let number = request.message.pointee.inode
        if operation == FOS_OP_PEER_LOOKUP {
            guard isHere(number) else { return pass(request, to: slots.owner(ofInode: number), kernel) }
            return finishLookup(request, kernel)
        }
        // A client's too; the microkernel lets no client send a peer's operation by itself.
        if operation == FOS_OP_PEER_SHARD_LIST { return continueListing(request, kernel) }
        let kind = UInt32(request.envelope.pointee.sender_kind)
        guard kind == FOS_SENDER_SERVER.rawValue || kind == FOS_SENDER_NONE.rawValue,
            members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) != nil
        else { return answer(-EPERM, kernel) }
        switch operation {
        case FOS_OP_PEER_TREE_LOCK: return peerTreeLock(kernel)
        case FOS_OP_PEER_TREE_UNLOCK: return treeIsLocked = false
        case FOS_OP_PEER_ANCESTRY: return peerAncestry(request, kernel)
        case FOS_OP_PEER_CREDITS: return peerCredits(request, kernel)
        case FOS_OP_PEER_SPACE: return peerSpace(kernel)
        case FOS_OP_PEER_CREATE_INODE: return peerCreateInode(request, kernel)
        case FOS_OP_PEER_SHARD_FILL, FOS_OP_PEER_SHARD_SUMMARY, FOS_OP_PEER_SHARD_SEAL, FOS_OP_PEER_SHARD_UNSEAL, FOS_OP_PEER_SHARD_DROP:
            return serveShard(operation, request, kernel)
        case FOS_OP_PEER_RENAME_PREPARE, FOS_OP_PEER_RENAME_COMMIT, FOS_OP_PEER_RENAME_ABORT:
            return servePeerRename(operation, request, kernel)
        default: break
        }
        guard isHere(number) else { return pass(request, to: slots.owner(ofInode: number), kernel) }
        guard let inode = inodes.find(number) else { return answerPeer(-ENOENT, kernel) }
        switch operation {
        case FOS_OP_PEER_LINK: peerLink(inode, request, kernel)
        case FOS_OP_PEER_UNLINK: peerUnlink(inode, request, kernel)
        case FOS_OP_PEER_REMOVE_DIRECTORY: peerRemoveDirectory(inode, request, kernel)
        case FOS_OP_PEER_MOVED: peerMoved(inode, request, kernel)
        case FOS_OP_PEER_ATTRIBUTES: answerPeer(0, attributes: attributes(of: inode, kernel), kernel)
        case FOS_OP_PEER_READ: peerRead(inode, request, kernel)
        default: answerPeer(-ENOSYS, kernel)
        }
    }

    /// Forwards a request; its answer goes to the client directly.
    mutating func pass<K: Kernel>(_ request: Request, to owner: Int, _ kernel: K) {
        guard request.envelope.pointee.hops < Limits.hops else { return answer(-EIO, kernel) }
        if kernel.forward(request.letter, to: members[owner]) != .sent { answer(Status.retry, kernel) }
    }

    /// Housekeeping: about every 10 ms on a busy core, before parking on an idle one.
    private mutating func tick<K: Kernel>(_ kernel: K) {
        if owedNotices.count > 0 { payOwedNotices(kernel) }
        if owing > 0 { payOwed(kernel) }
        if kernel.kernelCacheClient == nil { forgetAcknowledgements(kernel) }
        discarded.giveBack(Limits.discardedOfTick, &pool)
        let isTrimmed = pool.trim() == 0
        // An idle core has no other reason to tick again.
        if owedNotices.count > 0 || owing > 0 || !isTrimmed || !discarded.isEmpty { kernel.tickAgain() }
    }
}

enum Status {
    /// The request met a transaction; the proxy sends it again.
    static var retry: Int32 { Int32(FOS_TRANSPORT_RETRY.rawValue) }
}
