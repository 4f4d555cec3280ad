// Requests that libfuse 3.14 does not know and would answer with ENOSYS: TMPFILE and STATX, decoded and answered here.
//
// Layouts are the kernel's (linux/fuse.h). The request lies at the start of the worker's bulk area.

import CFosProxy
import CFosWire
import CFuse
import Glibc

private struct TemporaryFileAnswer {
    var header = fuse_out_header()
    var entry = fuse_entry_out()
    var open = fuse_open_out()
}

private struct StatxAnswer {
    var header = fuse_out_header()
    var status = fos_fuse_statx_out()
}

extension UnsafeMutablePointer where Pointee == Worker {
    private func message(_ operation: fos_operation, for header: fuse_in_header) -> UnsafeMutablePointer<fos_message> {
        let message = message(operation, header.nodeid)
        message.pointee.uid = header.uid
        message.pointee.gid = header.gid
        message.pointee.pid = header.pid
        return message
    }

    /// Writes an answer. False if nobody waits for it any more.
    private func answerRaw<Answer: BitwiseCopyable>(_ answer: Answer, _ unique: UInt64, _ status: Int32 = 0) -> Bool {
        var answer = answer
        let size = MemoryLayout<Answer>.size
        return withUnsafeMutableBytes(of: &answer) { bytes in
            bytes.storeBytes(of: fuse_out_header(len: UInt32(size), error: status, unique: unique), as: fuse_out_header.self)
            return write(pointee.front.pointee.device, bytes.baseAddress, size) >= 0 || errno != ENOENT
        }
    }

    private func refuseRaw(_ unique: UInt64, _ status: Int32) { _ = answerRaw(fuse_out_header(), unique, status) }

    /// O_TMPFILE: struct fuse_create_in, then a name that means nothing. The answer is the entry and the open file, as
    /// for CREATE.
    func serveTemporaryFile(_ base: UnsafeMutableRawPointer, _ length: Int) {
        let header = base.load(as: fuse_in_header.self)
        let bodyOffset = MemoryLayout<fuse_in_header>.size
        guard length >= bodyOffset + MemoryLayout<fuse_create_in>.size else { return refuseRaw(header.unique, -EINVAL) }
        if IntrospectionTree.owns(header.nodeid) { return refuseRaw(header.unique, -EROFS) }
        let body = base.load(fromByteOffset: bodyOffset, as: fuse_create_in.self)
        let opens = !pointee.front.pointee.keepsNoOpens
        var fields = fos_make_request()
        fields.mode = body.mode
        fields.open_flags = body.flags
        fields.take_reference = opens ? 1 : 0
        message(FOS_OP_TMPFILE, for: header).append(fields)
        let status = call()
        guard status == 0 else { return refuseRaw(header.unique, -Operation.errorNumber(status)) }
        guard let attributes = payload(fos_attributes.self) else { return refuseRaw(header.unique, -EIO) }
        var answer = TemporaryFileAnswer()
        answer.entry = attributes.kernelEntry
        answer.open.open_flags = UInt32(FOPEN_KEEP_CACHE)
        if opens { answer.open.fh = pointee.front.pointee.handles.open() }
        if !answerRaw(answer, header.unique) {
            if opens { release(attributes.inode, owner: 0, flags: 0) }
            forget(attributes.inode, 1)
        }
    }

    /// statx(2) that asks for the time of birth; the kernel keeps it with the inode then. All else is GETATTR.
    func serveStatx(_ base: UnsafeMutableRawPointer) {
        let header = base.load(as: fuse_in_header.self)
        if IntrospectionTree.owns(header.nodeid) {
            guard let status = pointee.front.pointee.introspection.status(header.nodeid) else { return refuseRaw(header.unique, -ESTALE) }
            _ = answerRaw(StatxAnswer(status: fos_fuse_statx_out(fos_attributes(status))), header.unique)
            return
        }
        _ = message(FOS_OP_GETATTR, for: header)
        let status = call()
        guard status == 0 else { return refuseRaw(header.unique, -Operation.errorNumber(status)) }
        guard let attributes = payload(fos_attributes.self) else { return refuseRaw(header.unique, -EIO) }
        _ = answerRaw(StatxAnswer(status: fos_fuse_statx_out(attributes)), header.unique)
    }
}

extension fos_fuse_sx_time {
    init(_ time: fos_time) { self.init(seconds: time.seconds, nanoseconds: time.nanoseconds, reserved: 0) }
}

extension fos_fuse_statx_out {
    init(_ attributes: fos_attributes) {
        self.init()
        attr_valid = CacheTimeout.leasedSeconds
        mask = UInt32(FOS_STATX_BASIC_STATS | FOS_STATX_BTIME)
        blksize = UInt32(preferredBlockBytes)
        nlink = attributes.links
        uid = attributes.uid
        gid = attributes.gid
        mode = UInt16(truncatingIfNeeded: attributes.mode)
        ino = attributes.inode
        size = attributes.size
        blocks = attributes.blocks
        atime = fos_fuse_sx_time(attributes.accessed)
        btime = fos_fuse_sx_time(attributes.born)
        ctime = fos_fuse_sx_time(attributes.changed)
        mtime = fos_fuse_sx_time(attributes.modified)
        // new_decode_dev: minor bits 0...7 and 20...31, major bits 8...19.
        rdev_major = attributes.device >> 8 & 0xfff
        rdev_minor = attributes.device & 0xff | attributes.device >> 12 & 0xfff00
    }
}

extension fos_attributes {
    /// What `.fos/` knows of a node, as the service would say it.
    init(_ status: stat) {
        self.init()
        inode = UInt64(status.st_ino)
        size = UInt64(status.st_size)
        blocks = UInt64(status.st_blocks)
        mode = status.st_mode
        links = UInt32(truncatingIfNeeded: status.st_nlink)
        uid = status.st_uid
        gid = status.st_gid
        accessed = fos_time(status.st_atim)
        modified = fos_time(status.st_mtim)
        changed = fos_time(status.st_ctim)
        born = changed
    }
}
