// Operations on attributes: getattr, setattr, symbolic links' targets, extended attributes, statfs.

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension Operation {
    func getattr(_ inode: UInt64) {
        if IntrospectionTree.owns(inode) { return attributesOfIntrospection(inode) }
        _ = message(FOS_OP_GETATTR, inode)
        answerAttributes(call())
    }

    func setattr(_ inode: UInt64, _ attributes: UnsafePointer<stat>?) {
        if IntrospectionTree.owns(inode) { return answer(-EROFS) }
        guard let attributes else { return answer(-EINVAL) }
        let valid = setAttributeBits(kernel: worker.pointee.setattrValid, handlesPrivilege: front.pointee.handlesPrivilege)
        let message = message(FOS_OP_SETATTR, inode)
        var fields = fos_setattr_request()
        fields.valid = valid
        fields.mode = attributes.pointee.st_mode
        fields.uid = attributes.pointee.st_uid
        fields.gid = attributes.pointee.st_gid
        fields.size = UInt64(bitPattern: Int64(attributes.pointee.st_size))
        fields.accessed = fos_time(attributes.pointee.st_atim)
        fields.modified = fos_time(attributes.pointee.st_mtim)
        fields.changed = fos_time(attributes.pointee.st_ctim)
        message.append(fields)
        let status = valid & FOS_SET_SIZE.rawValue != 0 ? callTakingMemory() : call()
        front.pointee.unversioned.note(inode)
        answerAttributes(status)
    }

    func readlink(_ inode: UInt64) {
        if IntrospectionTree.owns(inode) { return answer(-EINVAL) }
        let message = message(FOS_OP_READLINK, inode)
        message.pointee.bulk_offset = UInt32(BulkLayout.replyOffset)
        message.pointee.bulk_length = UInt32(FOS_SYMLINK_BYTES_MAX)
        let status = call()
        guard status == 0 else { return answer(status) }
        let count = min(Int(reply.pointee.bulk_length), Int(FOS_SYMLINK_BYTES_MAX))
        // Not fuse_reply_readlink: it takes a string that ends in NUL; the wire's does not.
        fuse_reply_buf(request, UnsafeRawPointer(worker.pointee.bulk + BulkLayout.replyOffset).assumingMemoryBound(to: CChar.self), count)
    }

    func statfs(_ inode: UInt64) {
        _ = message(FOS_OP_STATFS, IntrospectionTree.owns(inode) || inode == 0 ? UInt64(FOS_ROOT_INODE) : inode)
        let status = call()
        guard status == 0 else { return answer(status) }
        guard let result = payload(fos_statfs_reply.self) else { return answer(-EIO) }
        var answer = statvfs()
        answer.f_bsize = UInt(result.block_bytes)
        answer.f_frsize = UInt(result.block_bytes)
        answer.f_blocks = UInt(result.blocks)
        answer.f_bfree = UInt(result.blocks_free)
        answer.f_bavail = UInt(result.blocks_available)
        answer.f_files = UInt(result.files)
        answer.f_ffree = UInt(result.files_free)
        answer.f_namemax = UInt(result.name_max)
        fuse_reply_statfs(request, &answer)
    }

    // MARK: Extended attributes

    func setxattr(_ inode: UInt64, _ name: UnsafePointer<CChar>?, _ value: UnsafePointer<CChar>?, _ size: Int, _ flags: Int32) {
        if IntrospectionTree.owns(inode) { return answer(-EROFS) }
        guard let name = EntryName(name), let value else { return answer(-ERANGE) }
        guard size <= Int(FOS_XATTR_BYTES_MAX) else { return answer(-E2BIG) }
        xattrMessage(FOS_OP_SETXATTR, inode, name, flags: UInt32(bitPattern: flags), length: UInt32(size))
            .placeBulk(size == 0 ? 0 : bulkOffset(value), UInt32(size))
        answer(callTakingMemory())
    }

    func getxattr(_ inode: UInt64, _ name: UnsafePointer<CChar>?, _ room: Int) {
        if IntrospectionTree.owns(inode) { return answer(-ENODATA) }
        guard let name = EntryName(name) else { return answer(-ERANGE) }
        let room = min(room, Int(FOS_XATTR_BYTES_MAX))
        xattrMessage(FOS_OP_GETXATTR, inode, name, flags: 0, length: UInt32(room))
            .placeBulk(UInt32(BulkLayout.replyOffset), UInt32(room))
        answerXattr(call(), room)
    }

    func listxattr(_ inode: UInt64, _ room: Int) {
        if IntrospectionTree.owns(inode) {
            _ = room == 0 ? fuse_reply_xattr(request, 0) : fuse_reply_buf(request, nil, 0)
            return
        }
        let room = min(room, Int(FOS_XATTR_BYTES_MAX))
        let message = message(FOS_OP_LISTXATTR, inode)
        message.append(fos_xattr_request(flags: 0, name_length: 0, value_length: UInt32(room), reserved: 0))
        message.placeBulk(UInt32(BulkLayout.replyOffset), UInt32(room))
        answerXattr(call(), room)
    }

    func removexattr(_ inode: UInt64, _ name: UnsafePointer<CChar>?) {
        if IntrospectionTree.owns(inode) { return answer(-EROFS) }
        guard let name = EntryName(name) else { return answer(-ERANGE) }
        _ = xattrMessage(FOS_OP_REMOVEXATTR, inode, name, flags: 0, length: 0)
        answer(call())
    }

    private func xattrMessage(
        _ operation: fos_operation, _ inode: UInt64, _ name: EntryName, flags: UInt32, length: UInt32
    ) -> UnsafeMutablePointer<fos_message> {
        let message = message(operation, inode)
        message.append(fos_xattr_request(flags: flags, name_length: name.length, value_length: length, reserved: 0))
        message.append(name)
        return message
    }

    /// A room of 0 asks for the size; else the value or list lies in the bulk area.
    private func answerXattr(_ status: Int32, _ room: Int) {
        guard status == 0 else { return answer(status) }
        guard let result = payload(fos_xattr_reply.self), result.bytes <= UInt64(FOS_XATTR_BYTES_MAX) else { return answer(-EIO) }
        if room == 0 {
            fuse_reply_xattr(request, Int(result.bytes))
            return
        }
        guard Int(result.bytes) <= room else { return answer(-ERANGE) }
        fuse_reply_buf(
            request, UnsafeRawPointer(worker.pointee.bulk + BulkLayout.replyOffset).assumingMemoryBound(to: CChar.self),
            Int(result.bytes))
    }
}

extension UnsafeMutablePointer where Pointee == fos_message {
    func placeBulk(_ offset: UInt32, _ length: UInt32) {
        pointee.bulk_offset = offset
        pointee.bulk_length = length
    }
}
