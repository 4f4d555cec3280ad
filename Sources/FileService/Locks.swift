// Locks: GETLK, SETLK, FLOCK, FLUSH, CANCEL. The table itself is pure (FileStorage.LockTable).
//
// Protocol: a request that waits leaves its envelope with the server and is answered when the table grants it, finds a
// deadlock, or CANCEL ends it with -EINTR. Its id is the token that the table gives back.
// Rules: who could not open a file cannot lock it either; for the front end the kernel has checked.
// Invariants: after every change of the table its outcomes are answered; a client that died is answered nothing and
// holds nothing.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    private func lockRequest(_ request: Request) -> (LockRequest, Bool)? {
        guard let lock = request.fixed(fos_lock_request.self), lock.start <= lock.end, lock.end <= UInt64(Int64.max), lock.kind <= 2,
            let kind = LockKind(rawValue: UInt8(lock.kind))
        else { return nil }
        let owner = LockOwner(id: lock.owner, client: request.envelope.pointee.client, isDescription: lock.reserved & 1 != 0)
        return (LockRequest(owner: owner, kind: kind, start: lock.start, end: lock.end, pid: lock.pid), lock.wait != 0)
    }

    /// Byte ranges need a file that is open for reading, or for writing (fcntl(2), EBADF); here the client needs what
    /// would let it open the file so, or has let it.
    private func mayLock(_ inode: InodePointer, _ kind: LockKind) -> Bool {
        switch kind {
        case .read: mayUse(inode, Access.read)
        case .write: mayUse(inode, Access.write)
        case .unlock: true
        }
    }

    /// A flock, and a question, need the file open in any way.
    private func mayOpen(_ inode: InodePointer) -> Bool { mayUse(inode, Access.read) || mayUse(inode, Access.write) || hasOpen(inode) }

    mutating func testLock<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let (lock, _) = lockRequest(request), lock.kind != .unlock else { return answer(-EINVAL, kernel) }
        guard mayOpen(inode) else { return answer(-EACCES, kernel) }
        var reply = fos_lock_request()
        reply.kind = FOS_LOCK_UNLOCK.rawValue
        reply.owner = lock.owner.id
        reply.start = lock.start
        reply.end = lock.end
        if let other = locks.test(inode, lock) {
            reply.owner = other.owner.id
            reply.start = other.start
            reply.end = other.end
            reply.kind = UInt32(other.kind.rawValue)
            reply.pid = other.pid
        }
        let message = kernel.scratch()
        message.setBody(reply)
        deliver(message, kernel)
    }

    mutating func setLock<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let (lock, waits) = lockRequest(request) else { return answer(-EINVAL, kernel) }
        guard mayLock(inode, lock.kind) else { return answer(-EACCES, kernel) }
        guard clientLives(kernel) else { return answer(-EIO, kernel) }
        var token: ContinuationID?
        if waits, lock.kind != .unlock {
            token = waiters.insert(request.envelope.pointee)
            if token == nil { return answer(-ENOLCK, kernel) }
        }
        let result = locks.set(inode, lock, token: token.map { UInt64($0.rawValue) }, &arena, &pool)
        finishLock(result, token, kernel)
    }

    mutating func setFlock<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let flock = request.fixed(fos_flock_request.self), flock.kind <= 2, let kind = LockKind(rawValue: UInt8(flock.kind)) else {
            return answer(-EINVAL, kernel)
        }
        guard kind == .unlock || mayOpen(inode) else { return answer(-EACCES, kernel) }
        guard clientLives(kernel) else { return answer(-EIO, kernel) }
        var token: ContinuationID?
        if flock.wait != 0, kind != .unlock {
            token = waiters.insert(request.envelope.pointee)
            if token == nil { return answer(-ENOLCK, kernel) }
        }
        let owner = LockOwner(id: flock.owner, client: request.envelope.pointee.client)
        let result = locks.flock(inode, owner, kind, token: token.map { UInt64($0.rawValue) }, &arena, &pool)
        finishLock(result, token, kernel)
    }

    private mutating func finishLock<K: Kernel>(_ result: LockResult, _ token: ContinuationID?, _ kernel: K) {
        if result != .waiting {
            if let token { waiters.remove(token) }
            // It may be this server alone that has no room for a lock: its peers, or the memory fleet, are asked first.
            let lacksRoom = pool.lacksMemory || pool.credits < Int(Limits.creditsOfMetadata)
            if result == .noLocks, lacksRoom, !turn.rerun.contains(.outOfSpace) {
                needCredits(Limits.creditsOfMetadata, kernel)
            } else {
                answer(status(result), kernel)
            }
        }
        answerLocks(kernel)
    }

    func status(_ result: LockResult) -> Int32 {
        switch result {
        case .granted, .waiting: 0
        case .wouldBlock: -EAGAIN
        case .deadlock: -EDEADLK
        case .noLocks: -ENOLCK
        case .invalid: -EINVAL
        case .cancelled: -EINTR
        }
    }

    /// Answers the waiting requests that the last change of the table decided.
    mutating func answerLocks<K: Kernel>(_ kernel: K) {
        while let outcome = locks.takeOutcome(&arena, &pool) {
            let id = ContinuationID(rawValue: UInt32(truncatingIfNeeded: outcome.token))
            endWait(id, status(outcome.result), kernel)
        }
    }

    mutating func endWait<K: Kernel>(_ id: ContinuationID, _ status: Int32, _ kernel: K) {
        guard let envelope = waiters.state(id) else { return }
        let message = kernel.scratch()
        message.pointee.status = status
        kernel.reply(to: envelope, message)
        waiters.remove(id)
    }

    /// Ends a waiting lock request of the same client. -ENOENT: it does not wait here (any more).
    mutating func cancel<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_cancel_request.self) else { return answer(-EINVAL, kernel) }
        let client = request.envelope.pointee.client
        guard waiters.count > 0 else { return answer(-ENOENT, kernel) }
        for index in 0..<Limits.lockWaiters {
            guard let id = waiters.id(at: index), let envelope = waiters.state(id), envelope.pointee.client == client,
                envelope.pointee.channel == wanted.channel, envelope.pointee.sequence == wanted.sequence
            else { continue }
            _ = locks.cancel(token: UInt64(id.rawValue), &arena, &pool)
            answer(0, kernel)
            endWait(id, -EINTR, kernel)
            return answerLocks(kernel)
        }
        answer(-ENOENT, kernel)
    }

    /// FLUSH: a process closes a descriptor, so its POSIX locks on the file go (fcntl(2)).
    mutating func flush<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let flush = request.fixed(fos_flush_request.self) else { return answer(-EINVAL, kernel) }
        answer(0, kernel)
        locks.release(inode, owner: LockOwner(id: flush.owner, client: request.envelope.pointee.client), &arena, &pool)
        answerLocks(kernel)
    }
}
