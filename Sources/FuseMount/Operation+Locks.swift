// Locks of programs on the mount, when the file fleet keeps them: POSIX byte ranges, open file descriptions, flock.
//
// A lock that must wait gets a thread and a channel of its own, so that no worker ever waits for a program; their
// number is bounded, and one more program gets ENOLCK. FUSE_INTERRUPT of a waiting lock becomes a CANCEL message.

import CFosProxy
import CFosWire
import CFuse
import Glibc

/// What a waiting program asked for.
private enum LockKind {
    case range(fos_lock_request)
    case whole(fos_flock_request)
}

/// One waiting lock; owned by its thread, lent to the interrupt callback while that may run.
private struct LockWait {
    let request: fuse_req_t
    let inode: UInt64
    let kind: LockKind
    let worker: UnsafeMutablePointer<Worker>
    /// Set by the interrupt, by the thread once the message is on its way, and by the thread when the reply is there.
    let interrupted = SharedWord()
    let posted = SharedWord()
    let done = SharedWord()
}

extension Operation {
    func getlk(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?, _ lock: UnsafeMutablePointer<flock>?) {
        if IntrospectionTree.owns(inode) { return answer(-ENOLCK) }
        guard let info, let lock, let fields = lockFields(info, lock) else { return answer(-EINVAL) }
        let message = message(FOS_OP_GETLK, inode)
        message.append(fields)
        let status = call()
        guard status == 0 else { return answer(status) }
        guard let found = payload(fos_lock_request.self) else { return answer(-EIO) }
        var result = flock()
        result.l_type = Int16(truncatingIfNeeded: found.kind)
        result.l_whence = Int16(SEEK_SET)
        result.l_start = off_t(clamping: found.start)
        let last = off_t(clamping: found.end)
        result.l_len = last == off_t.max || last < result.l_start ? 0 : last - result.l_start + 1
        result.l_pid = pid_t(truncatingIfNeeded: found.pid)
        fuse_reply_lock(request, &result)
    }

    func setlk(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?, _ lock: UnsafeMutablePointer<flock>?, waits: Bool) {
        if IntrospectionTree.owns(inode) { return answer(-ENOLCK) }
        guard let info, let lock, let fields = lockFields(info, lock) else { return answer(-EINVAL) }
        // Before it is granted: a close by another thread meanwhile must find it.
        if fields.kind != FOS_LOCK_UNLOCK.rawValue { front.pointee.handles.locked(info.pointee.fh, by: fields.owner) }
        take(inode, .range(fields), waits: waits)
    }

    func lockWhole(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?, _ operation: Int32) {
        if IntrospectionTree.owns(inode) { return answer(-ENOLCK) }
        guard let info else { return answer(-EINVAL) }
        var fields = fos_flock_request()
        fields.owner = info.pointee.lock_owner
        switch operation & ~LOCK_NB {
        case LOCK_SH: fields.kind = FOS_LOCK_READ.rawValue
        case LOCK_EX: fields.kind = FOS_LOCK_WRITE.rawValue
        case LOCK_UN: fields.kind = FOS_LOCK_UNLOCK.rawValue
        default: return answer(-EINVAL)
        }
        take(inode, .whole(fields), waits: operation & LOCK_NB == 0)
    }

    private func lockFields(_ info: UnsafeMutablePointer<fuse_file_info>, _ lock: UnsafeMutablePointer<flock>) -> fos_lock_request? {
        let start = lock.pointee.l_start
        let length = lock.pointee.l_len
        guard start >= 0, length >= 0, (0...2).contains(lock.pointee.l_type) else { return nil }
        var fields = fos_lock_request()
        fields.owner = info.pointee.lock_owner
        fields.start = UInt64(start)
        let (end, overflow) = start.addingReportingOverflow(length - 1)
        fields.end = length == 0 || overflow ? UInt64(Int64.max) : UInt64(max(end, 0))
        fields.kind = UInt32(lock.pointee.l_type)
        fields.pid = UInt32(bitPattern: lock.pointee.l_pid)
        return fields
    }

    /// Tries without waiting on this worker; only a lock that is held goes to a thread of its own.
    private func take(_ inode: UInt64, _ kind: LockKind, waits: Bool) {
        lockMessage(inode, kind, waits: false)
        var status = call()
        // The kernel sends RELEASE after close(2) has returned, so the holder may be a file that is closed already.
        for _ in 0..<4 where status == -EAGAIN {
            usleep(250)
            status = call()
        }
        guard status == -EAGAIN && waits else { return answer(status) }
        guard startWaiting(inode, kind) else { return answer(-ENOLCK) }
    }

    fileprivate func lockMessage(_ inode: UInt64, _ kind: LockKind, waits: Bool) {
        switch kind {
        case .range(var fields):
            fields.wait = waits ? 1 : 0
            message(FOS_OP_SETLK, inode).append(fields)
        case .whole(var fields):
            fields.wait = waits ? 1 : 0
            message(FOS_OP_FLOCK, inode).append(fields)
        }
    }

    private func startWaiting(_ inode: UInt64, _ kind: LockKind) -> Bool {
        let front = front
        guard front.pointee.lockWaiters.add(1) <= UInt32(FrontEndLimits.lockWaiters), let record = Worker(front: front) else {
            front.pointee.lockWaiters.subtract(1)
            return false
        }
        let worker = UnsafeMutablePointer<Worker>.allocate(capacity: 1)
        worker.initialize(to: record)
        let wait = UnsafeMutablePointer<LockWait>.allocate(capacity: 1)
        wait.initialize(to: LockWait(request: request, inode: inode, kind: kind, worker: worker))
        var thread = pthread_t()
        guard pthread_create(&thread, nil, { runLockWait($0); return nil }, wait) == 0 else {
            wait.end()
            return false
        }
        pthread_detach(thread)
        return true
    }
}

extension UnsafeMutablePointer where Pointee == LockWait {
    /// Gives the channel and the memory back.
    fileprivate func end() {
        let worker = pointee.worker
        let front = worker.pointee.front
        worker.end()
        pointee.interrupted.deallocate()
        pointee.posted.deallocate()
        pointee.done.deallocate()
        deallocate()
        front.pointee.lockWaiters.subtract(1)
    }
}

private func runLockWait(_ argument: UnsafeMutableRawPointer?) {
    let wait = argument!.assumingMemoryBound(to: LockWait.self)
    let worker = wait.pointee.worker
    let front = worker.pointee.front
    pthread_setspecific(front.pointee.key, worker)
    fos_fuse_name_thread("fos-lock")
    front.pointee.placement.confine()
    let operation = Operation(wait.pointee.request, worker: worker)
    fuse_req_interrupt_func(wait.pointee.request, { interruptLockWait($1) }, wait)
    var status: Int32 = -EINTR
    if wait.pointee.interrupted.value == 0 {
        operation.lockMessage(wait.pointee.inode, wait.pointee.kind, waits: true)
        status = fos_post_owner(worker.pointee.client, worker.pointee.channel)
        if status == 0 {
            wait.pointee.posted.store(1)
            status = fos_wait(worker.pointee.client, worker.pointee.channel, UInt64.max)
            if status == 1 { status = operation.reply.pointee.status }
        }
    }
    wait.pointee.done.store(1)
    // Taking the callback away waits for one that runs; it sees `done` and returns.
    fuse_req_interrupt_func(wait.pointee.request, nil, nil)
    operation.answer(status)
    wait.end()
}

/// Runs on the worker that serves FUSE_INTERRUPT (its channel is free), or at once on the waiting thread.
private func interruptLockWait(_ argument: UnsafeMutableRawPointer?) {
    let wait = argument!.assumingMemoryBound(to: LockWait.self)
    wait.pointee.interrupted.store(1)
    let waiting = wait.pointee.worker
    guard let worker = waiting.pointee.front.currentWorker, worker != waiting else { return }
    // FUSE_INTERRUPT has no answer: no notice need wait for this worker.
    worker.endAnswer()
    // The lock's own message may still be on its way, or about to be sent: ask until it is found or over. Giving up would
    // leave a program that cannot be killed. The waiting thread ends with the instance, if with nothing else.
    var pause: UInt32 = 100
    while wait.pointee.done.value == 0 {
        if wait.pointee.posted.value != 0 {
            let message = worker.message(FOS_OP_CANCEL, wait.pointee.inode)
            let channel = waiting.pointee.client.pointee.channel + Int(waiting.pointee.channel)
            let sequence = withUnsafePointer(to: &channel.pointee.request.sequence) { fos_load_acquire_u32($0) }
            message.append(fos_cancel_request(channel: UInt32(waiting.pointee.channel), sequence: sequence))
            if worker.call() == 0 { return }
        }
        usleep(pause)
        pause = min(pause * 2, 10_000)
    }
}
