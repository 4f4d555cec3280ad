// Operations on the data of a file: opens, reads, writes, and what the kernel leaves to the service.
//
// A WRITE's bytes lie in the bulk area since the request was read; a READ's bytes are put there by the service and
// copied to the kernel from there, those of a large one from the service's own pages. Neither is copied by the front end.

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension Operation {
    func open(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?) {
        // ENOSYS is remembered by the kernel for the life of the mount, and means that opens need no message.
        guard !front.pointee.keepsNoOpens, let info else { return answer(-ENOSYS) }
        fos_fuse_set_keep_cache(info)
        info.pointee.fh = front.pointee.handles.open()
        if IntrospectionTree.owns(inode) {
            fuse_reply_open(request, info)
            return
        }
        let message = message(FOS_OP_OPEN, inode)
        message.append(fos_open_request(open_flags: UInt32(bitPattern: info.pointee.flags), room: 0))
        let status = call()
        guard status == 0 else { return answer(status) }
        if fuse_reply_open(request, info) == -ENOENT { worker.release(inode, owner: 0, flags: 0) }
    }

    func release(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?) {
        if !front.pointee.keepsNoOpens, !IntrospectionTree.owns(inode), let info {
            for owner in front.pointee.handles.release(info.pointee.fh) { dropLocks(inode, owner) }
            let drops: UInt32 = fos_fuse_is_flock_release(info) != 0 ? 1 : 0
            worker.release(inode, owner: info.pointee.lock_owner, flags: drops)
        }
        answer(0)
    }

    func flush(_ inode: UInt64, _ info: UnsafeMutablePointer<fuse_file_info>?) {
        guard !front.pointee.keepsNoOpens, let info else { return answer(-ENOSYS) }
        if IntrospectionTree.owns(inode) { return answer(0) }
        front.pointee.handles.flushed(info.pointee.fh, by: info.pointee.lock_owner)
        answer(dropLocks(inode, info.pointee.lock_owner))
    }

    /// Drops the byte-range locks of an owner on an inode.
    @discardableResult
    private func dropLocks(_ inode: UInt64, _ owner: UInt64) -> Int32 {
        let message = message(FOS_OP_FLUSH, inode)
        message.append(fos_flush_request(owner: owner))
        return call()
    }

    func read(_ inode: UInt64, _ size: Int, _ offset: off_t, _ info: UnsafeMutablePointer<fuse_file_info>?) {
        if IntrospectionTree.owns(inode) { return readIntrospection(inode, size, offset) }
        guard offset >= 0 else { return answer(-EINVAL) }
        let flags = info?.pointee.flags ?? 0
        let room = min(size, Int(FOS_TRANSFER_BYTES_MAX))
        let message = message(FOS_OP_READ, inode)
        var fields = fos_io_request()
        fields.offset = UInt64(offset)
        fields.owner = info?.pointee.lock_owner ?? 0
        fields.flags = flags & Int32(FOS_O_DIRECT) != 0 && readFlags & UInt32(FUSE_READ_LOCKOWNER) != 0 ? FOS_IO_DIRECT.rawValue : 0
        fields.open_flags = UInt32(bitPattern: flags)
        if room >= FrontEndLimits.leastLent { fields.flags |= FOS_IO_PLACES.rawValue }
        message.append(fields)
        message.pointee.bulk_offset = UInt32(BulkLayout.replyOffset)
        message.pointee.bulk_length = UInt32(room)
        let status = call()
        guard status == 0 else { return answer(status) }
        let count = min(Int(reply.pointee.bulk_length), room)
        if UInt32(reply.pointee.flags) & FOS_REPLY_PLACES.rawValue != 0 { return answerPlaces(inode, count) }
        let bytes = UnsafeRawPointer(worker.pointee.bulk + BulkLayout.replyOffset).assumingMemoryBound(to: CChar.self)
        fuse_reply_buf(request, bytes, count)
    }

    /// Hands bytes to the kernel from where the service has them, and gives those places back.
    private func answerPlaces(_ inode: UInt64, _ count: Int) {
        let places = (worker.pointee.bulk + BulkLayout.replyOffset)
        var left = count
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: Int(FOS_TRANSFER_BYTES_MAX) / 4096 * 2 + 2) { parts in
            var used = 0
            var index = 0
            while left > 0, used < parts.count {
                let place = UnsafeRawPointer(places).load(fromByteOffset: index * MemoryLayout<fos_page_place>.stride, as: fos_page_place.self)
                let zeros = place.address == 0
                var length = min(Int(clamping: place.length), left)
                guard length > 0 else { break }
                // A long hole is told in parts of one page of zeros each.
                while length > 0, used < parts.count {
                    let bytes = zeros ? min(length, pageOfZeros.count) : length
                    let base = zeros ? UnsafeMutableRawPointer(mutating: pageOfZeros.baseAddress) : UnsafeMutableRawPointer(bitPattern: UInt(place.address))
                    parts[used] = iovec(iov_base: base, iov_len: bytes)
                    used += 1
                    length -= bytes
                    left -= bytes
                }
                index += 1
            }
            if left == 0 { fuse_reply_iov(request, parts.baseAddress, Int32(used)) } else { answer(-EIO) }
        }
        worker.giveBack(inode)
    }

    func write(
        _ inode: UInt64, _ bytes: UnsafePointer<CChar>?, _ size: Int, _ offset: off_t, _ info: UnsafeMutablePointer<fuse_file_info>?
    ) {
        guard !IntrospectionTree.owns(inode) else { return answer(-EROFS) }
        guard offset >= 0, size <= Int(FOS_TRANSFER_BYTES_MAX), let bytes, let info else { return answer(-EINVAL) }
        let openFlags = info.pointee.flags
        let message = message(FOS_OP_WRITE, inode)
        var fields = fos_io_request()
        fields.offset = UInt64(offset)
        fields.owner = info.pointee.lock_owner
        fields.open_flags = UInt32(bitPattern: openFlags)
        if fos_fuse_is_writepage(info) != 0 {
            fields.flags |= FOS_IO_WRITEBACK.rawValue
        } else if openFlags & O_APPEND != 0 {
            fields.flags |= FOS_IO_APPEND.rawValue
        }
        let writeFlags = writeFlags(before: bytes)
        if writeFlags & UInt32(FUSE_WRITE_KILL_SUIDGID) != 0 { fields.flags |= FOS_IO_KILL_PRIVILEGE.rawValue }
        if openFlags & Int32(FOS_O_DIRECT) != 0, writeFlags & UInt32(FUSE_WRITE_LOCKOWNER) != 0 { fields.flags |= FOS_IO_DIRECT.rawValue }
        message.append(fields)
        message.pointee.bulk_offset = bulkOffset(bytes)
        message.pointee.bulk_length = UInt32(size)
        let status = callTakingMemory()
        guard status == 0 else { return answer(status) }
        let written = min(Int(reply.pointee.bulk_length), size)
        let place = payload(fos_io_reply.self)?.offset ?? UInt64(offset)
        let session = front.pointee.session
        fuse_reply_write(request, written)
        // An append goes to the true end of the file, which another client may have moved since the kernel last
        // looked. The kernel then has the bytes in its cache at the wrong place: drop all it has of the file.
        if place != UInt64(offset) && fields.flags & FOS_IO_APPEND.rawValue != 0 {
            worker.endAnswer()
            worker.giveTurn()
            fuse_lowlevel_notify_inval_inode(session, inode, 0, 0)
        }
    }

    /// `read_flags` of the struct fuse_read_in being served. O_DIRECT of the open file does not say alone that the kernel
    /// keeps no page: pages of a mapping are read, and written when a direct write falls back, through the same open
    /// file. Only read(2) and write(2) around the cache name a lock owner (fs/fuse/file.c, fuse_direct_io).
    private var readFlags: UInt32 {
        UnsafeRawPointer(worker.pointee.bulk).load(fromByteOffset: MemoryLayout<fuse_in_header>.size, as: fuse_read_in.self).read_flags
    }

    /// `write_flags` of the struct fuse_write_in that precedes the data of the request being served.
    private func writeFlags(before data: UnsafePointer<CChar>) -> UInt32 {
        let start = UnsafeRawPointer(worker.pointee.bulk)
        let header = MemoryLayout<fuse_in_header>.size
        guard UnsafeRawPointer(data) - start == header + MemoryLayout<fuse_write_in>.size else { return 0 }
        return start.load(fromByteOffset: header, as: fuse_write_in.self).write_flags
    }

    func fsync(_ inode: UInt64, dataOnly: Bool) {
        if IntrospectionTree.owns(inode) { return answer(0) }
        let message = message(FOS_OP_FSYNC, inode)
        message.pointee.flags = dataOnly ? 1 : 0
        answer(call())
    }

    func fallocate(_ inode: UInt64, _ mode: Int32, _ offset: off_t, _ length: off_t) {
        if IntrospectionTree.owns(inode) { return answer(-EROFS) }
        guard offset >= 0, length > 0 else { return answer(-EINVAL) }
        let message = message(FOS_OP_FALLOCATE, inode)
        message.append(
            fos_fallocate_request(offset: UInt64(offset), length: UInt64(length), mode: UInt32(bitPattern: mode), reserved: 0))
        answer(callTakingMemory())
    }

    func lseek(_ inode: UInt64, _ offset: off_t, _ whence: Int32) {
        if IntrospectionTree.owns(inode) { return seekIntrospection(inode, offset, whence) }
        guard offset >= 0 else { return answer(-ENXIO) }
        var (status, found) = askSeek(inode, offset, whence)
        // Where the service sees a hole, a program may have written through a mapping: its pages are written back, and the
        // service is asked again. Data that the service sees are data.
        if status == -ENXIO || (status == 0 && (whence != Int32(FOS_SEEK_DATA) || found != offset)) {
            if front.pointee.idle.value == 0 { front.startWorker() }
            worker.giveTurn()
            fuse_lowlevel_notify_inval_inode(front.pointee.session, inode, 0, 0)
            (status, found) = askSeek(inode, offset, whence)
        }
        guard status == 0 else { return answer(status) }
        fuse_reply_lseek(request, found)
    }

    private func askSeek(_ inode: UInt64, _ offset: off_t, _ whence: Int32) -> (status: Int32, found: off_t) {
        let message = message(FOS_OP_LSEEK, inode)
        message.append(fos_lseek_request(offset: UInt64(offset), whence: UInt32(bitPattern: whence), reserved: 0))
        let status = call()
        guard status == 0 else { return (status, 0) }
        guard let result = payload(fos_lseek_reply.self) else { return (-EIO, 0) }
        return (0, off_t(truncatingIfNeeded: result.offset))
    }

    func copyRange(_ source: UInt64, _ sourceOffset: off_t, _ inode: UInt64, _ offset: off_t, _ length: Int, _ flags: Int32) {
        // EOPNOTSUPP makes the kernel copy by reading and writing.
        if IntrospectionTree.owns(source) || IntrospectionTree.owns(inode) { return answer(-EOPNOTSUPP) }
        guard sourceOffset >= 0, offset >= 0 else { return answer(-EINVAL) }
        let message = message(FOS_OP_COPY_RANGE, inode)
        var fields = fos_copy_request()
        fields.source = source
        fields.source_offset = UInt64(sourceOffset)
        fields.offset = UInt64(offset)
        fields.length = UInt64(length)
        fields.flags = UInt32(bitPattern: flags)
        message.append(fields)
        let status = callTakingMemory()
        guard status == 0 else { return answer(status) }
        guard let result = payload(fos_copy_reply.self) else { return answer(-EIO) }
        fuse_reply_write(request, min(Int(truncatingIfNeeded: result.bytes), length))
    }
}

/// What holes read as.
nonisolated(unsafe) private let pageOfZeros = UnsafeRawBufferPointer(UnsafeMutableRawBufferPointer.zeros(FOS_PAGE_BYTES))

extension UnsafeMutableRawBufferPointer {
    fileprivate static func zeros(_ count: some BinaryInteger) -> UnsafeMutableRawBufferPointer {
        let page = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(count), alignment: 4096)
        memset(page.baseAddress!, 0, page.count)
        return page
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// Gives back what a READ lent. Nobody waits for the answer: the next message of the channel does.
    func giveBack(_ inode: UInt64) {
        _ = message(FOS_OP_GIVE_BACK, inode)
        pointee.isGivingBack = fos_post_owner(pointee.client, pointee.channel) == 0
    }

    /// Gives one open back. Flag 1 also drops the flocks of `owner`.
    func release(_ inode: UInt64, owner: UInt64, flags: UInt32) {
        let message = message(FOS_OP_RELEASE, inode)
        message.append(fos_release_request(owner: owner, flags: flags, count: 1))
        _ = call()
    }
}
