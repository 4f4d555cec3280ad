// READ, WRITE and LSEEK: data between a file's pages and the client's bulk area, copied once.
//
// Rules: a hole reads as zeros; a write beyond the end leaves a hole; an append happens at the end, atomically; a write
// that runs out of space says how much it wrote, as write(2). Data that the kernel writes back from a shared mapping
// never makes a file longer.
// Invariant: what a page holds beyond the end of its file is zeros.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func read<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let io = request.fixed(fos_io_request.self) else { return answer(-EINVAL, kernel) }
        guard inode.isRegular else { return answer(inode.isDirectory ? -EISDIR : -EINVAL, kernel) }
        guard mayUse(inode, Access.read) else { return answer(-EACCES, kernel) }
        guard io.offset <= Limits.fileBytes else { return answer(-EINVAL, kernel) }
        guard flushPages(inode, reading: inode, kernel) else { return }
        let size = inode.pointee.size
        let left = io.offset < size ? size - io.offset : 0
        let count = min(UInt64(min(request.message.pointee.bulk_length, UInt32(FOS_TRANSFER_BYTES_MAX))), left)
        var isLent = false
        if count > 0 {
            guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: UInt32(count)) else {
                return answer(-EINVAL, kernel)
            }
            isLent = turn.isKernel && io.flags & FOS_IO_PLACES.rawValue != 0 && lend(inode, at: io.offset, Int(count), into: room, request)
            if !isLent { readBytes(inode, at: io.offset, into: room) }
        }
        if turn.isKernel, io.flags & FOS_IO_DIRECT.rawValue == 0 { leasePages(inode, kernel) }
        let isMarked = io.open_flags & OpenFlag.noAccessTime == 0 && markAccessed(inode, kernel)
        renewGrant(inode)
        let message = kernel.scratch()
        message.setBody(fos_io_reply(offset: io.offset, size: size))
        if isMarked { add(attributesOf: inode, to: message, kernel) }
        if mayChangeUnseen(inode) { message.pointee.flags = UInt16(FOS_REPLY_VOLATILE.rawValue) }
        if isLent { message.pointee.flags |= UInt16(FOS_REPLY_PLACES.rawValue) }
        message.pointee.bulk_length = UInt32(count)
        deliver(message, kernel)
    }

    mutating func write<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let io = request.fixed(fos_io_request.self) else { return answer(-EINVAL, kernel) }
        guard inode.isRegular else { return answer(inode.isDirectory ? -EISDIR : -EINVAL, kernel) }
        guard mayUse(inode, Access.write) else { return answer(-EACCES, kernel) }
        let isWriteback = io.flags & FOS_IO_WRITEBACK.rawValue != 0
        let size = inode.pointee.size
        let offset = io.flags & FOS_IO_APPEND.rawValue != 0 ? size : io.offset
        let offered = min(request.message.pointee.bulk_length, UInt32(FOS_TRANSFER_BYTES_MAX))
        guard offset <= Limits.fileBytes else { return answer(-EINVAL, kernel) }
        var count = UInt64(offered)
        if isWriteback {
            // The page was dirty before the file was cut; what lies beyond the end now is nobody's.
            count = offset < size ? min(count, size - offset) : 0
        } else if count > 0 {
            guard offset < Limits.fileBytes else { return answer(-EFBIG, kernel) }
            count = min(count, Limits.fileBytes - offset)
        }
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: offered) else {
            return answer(-EINVAL, kernel)
        }
        guard count > 0 else { return answerWrite(inode, offset, isWriteback ? offered : 0, kernel) }
        guard flushPages(inode, kernel) else { return }
        let bytes = UnsafeRawBufferPointer(rebasing: room[0..<Int(count)])
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        let wanting = creditsWanting(inode, at: offset, count)
        if wanting > 0, !turn.rerun.contains(.outOfSpace) {
            return needCredits(wanting, atLeast: wanting, kernel)
        }
        guard hasPages(inode, at: offset, count, kernel) else { return }
        // A gap will be a hole.
        if offset > size { endWriting(inode, kernel) }
        let written = writeBytes(inode, at: offset, bytes)
        guard written > 0 else { return answer(-ENOSPC, kernel) }
        if io.flags & FOS_IO_KILL_PRIVILEGE.rawValue != 0 || !turn.actor.isPrivileged, dropPrivilege(inode) { tellKernelOfMode(inode, kernel) }
        markModified(inode, time(kernel))
        committed(.data(inode, offset: offset, length: UInt64(written)), kernel)
        committed(.inode(inode), kernel)
        revokeData(inode, kernel)
        if turn.isKernel, io.flags & FOS_IO_DIRECT.rawValue == 0 { leasePages(inode, kernel) }
        // The kernel takes the pages of a short writeback for clean; an error keeps what was lost from being silent.
        if isWriteback, written < Int(count) { return answer(-ENOSPC, kernel) }
        answerWrite(inode, offset, isWriteback ? offered : UInt32(written), tells: io.flags & FOS_IO_ATTRIBUTES.rawValue != 0, kernel)
    }

    private mutating func answerWrite<K: Kernel>(
        _ inode: InodePointer, _ offset: UInt64, _ count: UInt32, tells: Bool = false, _ kernel: K
    ) {
        let message = kernel.scratch()
        message.setBody(fos_io_reply(offset: offset, size: inode.pointee.size))
        if tells {
            add(attributesOf: inode, to: message, kernel)
            delegate(inode, in: message, kernel)
        }
        message.pointee.bulk_length = count
        deliver(message, kernel)
    }

    // MARK: Pages

    /// Copies bytes that are all before the end of the file.
    func readBytes(_ inode: InodePointer, at offset: UInt64, into room: UnsafeMutableRawBufferPointer) {
        guard var target = room.baseAddress else { return }
        var position = offset
        var left = room.count
        while left > 0 {
            let within = Int(position % UInt64(Limits.pageBytes))
            let count = min(left, Limits.pageBytes - within)
            if let page = inode.pageMap.pointee.page(position / UInt64(Limits.pageBytes)) {
                target.copyMemory(from: page + within, byteCount: count)
            } else {
                target.initializeMemory(as: UInt8.self, repeating: 0, count: count)
            }
            target += count
            position += UInt64(count)
            left -= count
        }
    }

    /// Copies bytes into a file, which grows if they end beyond it. Fewer than given when pages run out.
    mutating func writeBytes(_ inode: InodePointer, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard let source = bytes.baseAddress else { return 0 }
        takeGrant(inode)
        var done = 0
        while done < bytes.count {
            let position = offset + UInt64(done)
            let within = Int(position % UInt64(Limits.pageBytes))
            let count = min(bytes.count - done, Limits.pageBytes - within)
            guard let page = inode.pageMap.pointee.ensure(position / UInt64(Limits.pageBytes), zeroed: count < Limits.pageBytes, &pool) else { break }
            (page + within).copyMemory(from: source + done, byteCount: count)
            done += count
        }
        if done > 0, offset + UInt64(done) > inode.pointee.size {
            inode.pointee.size = offset + UInt64(done)
            noteSize(inode)
        }
        return done
    }

    /// How many credits more a write may need; 0 if there are enough in the worst case.
    func creditsWanting(_ inode: InodePointer, at offset: UInt64, _ count: UInt64) -> UInt64 {
        let first = offset / UInt64(Limits.pageBytes)
        let last = (offset + count - 1) / UInt64(Limits.pageBytes) + 1
        let free = UInt64(max(pool.credits, 0))
        if last - first + Limits.mapNodes + 1 <= free { return 0 }
        let missing = missingPages(inode, from: first, to: last)
        let needed = Limits.creditsOfPages(missing)
        return needed > free ? needed - free : 0
    }

    /// Whether there is memory for the new pages of a range; if not, the request waits for it.
    mutating func hasPages<K: Kernel>(_ inode: InodePointer, at offset: UInt64, _ count: UInt64, _ kernel: K) -> Bool {
        // A server with its stock has more than any one transfer needs.
        if memory == nil || pool.available >= Limits.pagesInStock { return true }
        let pageBytes = UInt64(Limits.pageBytes)
        return hasPages(missingPages(inode, from: offset / pageBytes, to: (offset + count - 1) / pageBytes + 1), kernel)
    }

    // MARK: FSYNC

    /// What is answered is with the store already, which keeps what it is told; and without one there is nothing to wait for, now or
    /// ever.
    mutating func synchronise<K: Kernel>(_ kernel: K) {
        let message = kernel.scratch()
        if !Store.outlivesServer { message.pointee.flags = UInt16(FOS_REPLY_NOTHING_TO_SYNC.rawValue) }
        deliver(message, kernel)
    }

    // MARK: LSEEK

    /// SEEK_DATA and SEEK_HOLE, by pages. -ENXIO: at or beyond the end, or no data follows.
    mutating func seek<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_lseek_request.self), wanted.whence == 3 || wanted.whence == 4 else { return answer(-EINVAL, kernel) }
        guard inode.isRegular else { return answer(inode.isDirectory ? -EISDIR : -EINVAL, kernel) }
        guard flushPages(inode, kernel) else { return }
        let size = inode.pointee.size
        guard wanted.offset < size else { return answer(-ENXIO, kernel) }
        let pageBytes = UInt64(Limits.pageBytes)
        let index = wanted.offset / pageBytes
        var found: UInt64
        if wanted.whence == 3 {
            guard let data = inode.pageMap.pointee.nextData(from: index), data < (size + pageBytes - 1) / pageBytes else { return answer(-ENXIO, kernel) }
            found = data * pageBytes
        } else {
            let hole = inode.pageMap.pointee.nextHole(from: index)
            found = hole < (size + pageBytes - 1) / pageBytes ? hole * pageBytes : size
        }
        found = max(found, wanted.offset)
        let message = kernel.scratch()
        message.setBody(fos_lseek_reply(offset: found))
        deliver(message, kernel)
    }
}
