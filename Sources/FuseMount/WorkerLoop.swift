// The session loop of one worker thread.
//
// Protocol: read a request from the device straight into the channel's bulk area, look at what libfuse 3.14 cannot
// pass on, and let libfuse decode it and call the operation. A worker serves one request at a time and holds nothing
// between requests.
// Workers run on the programs' CPUs, not on the servers': a request costs 7 us when its worker runs on the caller's
// CPU and 36 us when it must be woken on another.

import CFosProxy
import CFosWire
import CFuse
import Glibc

/// The signal that interrupts a worker's read when the mount ends with the device still open.
let wakeSignal = Int32(FOS_FUSE_WAKE_SIGNAL)

extension UnsafeMutablePointer where Pointee == FrontEnd {
    /// Starts one more worker thread. False when there are enough or none can be had.
    @discardableResult
    func startWorker() -> Bool {
        guard let worker = pointee.pool.add(self) else { return false }
        pointee.live.add(1)
        var thread = pthread_t()
        let result = pthread_create(&thread, nil, { runWorker($0); return nil }, worker)
        guard result == 0 else {
            pointee.live.subtract(1)
            pointee.pool.remove(worker)
            return false
        }
        pthread_detach(thread)
        return true
    }
}

private func runWorker(_ argument: UnsafeMutableRawPointer?) {
    let worker = argument!.assumingMemoryBound(to: Worker.self)
    let front = worker.pointee.front
    pthread_setspecific(front.pointee.key, worker)
    fos_fuse_make_interrupting(wakeSignal)
    worker.pointee.thread = fos_fuse_thread_id()
    fos_fuse_name_thread("fos-fuse")
    front.pointee.placement.confine()
    let leaves = worker.serve()
    worker.giveTurn()
    front.pointee.pool.remove(worker)
    // The last one out tells the owner, who may then free everything.
    let ended = front.pointee.ended
    if leaves {
        front.pointee.leaving.subtract(1)
    } else if front.pointee.live.subtract(1) == 0 { ended() }
}

extension UnsafeMutablePointer where Pointee == FrontEnd {
    /// The calling worker has taken a request and left no other to take the next.
    func grow() {
        if pointee.live.value < UInt32(pointee.pool.usual) { startWorker() }
        pointee.pool.ring(self)
    }

    /// True for as many callers as there are workers beyond `usual`. Who gets it has left the number of the living.
    func shrinks(to usual: UInt32) -> Bool {
        pointee.leaving.add(1)
        let living = pointee.live.value
        if living > usual && pointee.live.exchange(living, living - 1) { return true }
        pointee.leaving.subtract(1)
        return false
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// Serves requests until the mount ends. True when it leaves before, as one worker too many.
    fileprivate func serve() -> Bool {
        let front = pointee.front
        let device = front.pointee.device
        let base = UnsafeMutableRawPointer(pointee.bulk)
        let usual = UInt32(front.pointee.pool.usual)
        while front.pointee.ending.value == 0 {
            front.pointee.idle.add(1)
            guard takeTurn() else {
                front.pointee.idle.subtract(1)
                continue
            }
            let length = read(device, base, BulkLayout.requestRoom)
            let error = errno
            let idle = front.pointee.idle.subtract(1)
            if length < 0 {
                // ENOENT: the request was interrupted before it was read. ENODEV: unmounted, or aborted.
                if error == EINTR || error == EAGAIN || error == ENOENT { continue }
                if error != ENODEV { front.pointee.log("reading requests from the kernel failed: \(String(cString: strerror(error)))") }
                break
            }
            if front.pointee.ending.value != 0 && length == 0 { break }
            if idle == 0 { front.grow() }
            if length >= MemoryLayout<fuse_in_header>.size {
                beginAnswer()
                let caller = base.load(as: fuse_in_header.self).pid
                dispatch(base, length)
                endAnswer()
                lookWhereCallerRuns(caller)
            }
            // One of those that were added while all were stuck.
            if front.pointee.live.value > usual && front.pointee.idle.value >= 2 && front.shrinks(to: usual) { return true }
        }
        front.pointee.ending.store(1)
        if let session = front.pointee.session { fuse_session_exit(session) }
        return false
    }

    private func dispatch(_ base: UnsafeMutableRawPointer, _ length: Int) {
        let opcode = base.load(fromByteOffset: 4, as: UInt32.self)
        let body = base + MemoryLayout<fuse_in_header>.size
        pointee.count(opcode)
        if let trace = pointee.front.pointee.trace {
            let header = base.load(as: fuse_in_header.self)
            trace("\(OpcodeNames.name(Int(opcode))) of inode \(header.nodeid) by pid \(header.pid) of user \(header.uid), \(length) bytes")
        }
        switch opcode {
        case FUSE_SETATTR.rawValue:
            pointee.setattrValid = body.load(as: UInt32.self)
        case FUSE_INIT.rawValue:
            let offered = length >= 56 ? body.load(fromByteOffset: 12, as: UInt32.self) : 0
            pointee.acceptsPrivilege = offered & UInt32(FUSE_HANDLE_KILLPRIV_V2) != 0
        case FUSE_TMPFILE.rawValue:
            return serveTemporaryFile(base, length)
        case UInt32(FOS_FUSE_STATX):
            return serveStatx(base)
        default: break
        }
        var buffer = fuse_buf()
        buffer.size = length
        buffer.mem = base
        buffer.fd = -1
        fuse_session_process_buf(pointee.front.pointee.session, &buffer)
        // Not before: with the reply to INIT the kernel sets what it starts from.
        if opcode == FUSE_INIT.rawValue { ReadAhead.raise(on: pointee.front.pointee.mountPoint) }
    }
}

/// Writes replies for libfuse. The one it changes is INIT's, which accepts FUSE_HANDLE_KILLPRIV_V2: libfuse 3.14 does
/// not know that flag, and without it every write(2) first asks for the security.capability attribute. With it the
/// kernel marks the mount SB_NOSEC, asks once an inode, and leaves dropping setuid bits to the service (linux/fuse.h).
func writeReply(_ device: Int32, _ parts: UnsafeMutablePointer<iovec>?, _ count: Int32, _ userdata: UnsafeMutableRawPointer?) -> Int {
    if let userdata, let parts, count == 2, !userdata.assumingMemoryBound(to: FrontEnd.self).pointee.handlesPrivilege {
        acceptPrivilegeHandling(userdata.assumingMemoryBound(to: FrontEnd.self), parts)
    }
    // The kernel looks up the pages of each part: most replies are two small parts, which are cheaper as one.
    if let parts, count == 2, parts[0].iov_len == MemoryLayout<fuse_out_header>.size, parts[1].iov_len <= smallReply {
        return withUnsafeTemporaryAllocation(byteCount: MemoryLayout<fuse_out_header>.size + smallReply, alignment: 64) { whole in
            whole.baseAddress!.copyMemory(from: parts[0].iov_base, byteCount: parts[0].iov_len)
            (whole.baseAddress! + parts[0].iov_len).copyMemory(from: parts[1].iov_base, byteCount: parts[1].iov_len)
            return write(device, whole.baseAddress, parts[0].iov_len + parts[1].iov_len)
        }
    }
    let written = writev(device, parts, count)
    // A notice about a name below what is no directory any more has nothing to revoke, like one about what the kernel does
    // not know. libfuse takes ENOENT for that, and complains about everything else.
    if written < 0, errno == ENOTDIR { errno = ENOENT }
    return written
}

/// Bytes after a reply's header that are copied rather than written apart.
private let smallReply = 256

private func acceptPrivilegeHandling(_ front: UnsafeMutablePointer<FrontEnd>, _ parts: UnsafeMutablePointer<iovec>) {
    guard let worker = front.currentWorker, worker.pointee.acceptsPrivilege,
        parts[1].iov_len == MemoryLayout<fuse_init_out>.size, let base = parts[1].iov_base
    else { return }
    worker.pointee.acceptsPrivilege = false
    let reply = base.assumingMemoryBound(to: fuse_init_out.self)
    reply.pointee.flags |= UInt32(FUSE_HANDLE_KILLPRIV_V2)
    // The kernel sends nothing else before it has this reply, so every later request sees the flag.
    front.pointee.handlesPrivilege = true
}

/// Reads for libfuse, which needs it to accept a custom `writev`; the workers read the device themselves.
func readRequest(_ device: Int32, _ buffer: UnsafeMutableRawPointer?, _ room: Int, _ userdata: UnsafeMutableRawPointer?) -> Int {
    read(device, buffer, room)
}
