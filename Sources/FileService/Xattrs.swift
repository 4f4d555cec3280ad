// Extended attributes: SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR (xattr(7)).
//
// Rules, as tmpfs has them: "user." on regular files and directories only; "trusted." for root; "security." readable
// by all, written by root; anything else, POSIX ACLs among it, is -EOPNOTSUPP, and one of these prefixes with nothing
// after it -EINVAL. For the front end the kernel has checked who may, so only the namespaces are looked at.

import CFosWire
import FileStorage
import Glibc
import Messaging

private enum XattrSpace {
    case user, trusted, security, unsupported

    init(_ name: UnsafeRawBufferPointer) {
        if XattrSpace.begins(name, "user.") { self = .user }
        else if XattrSpace.begins(name, "trusted.") { self = .trusted }
        else if XattrSpace.begins(name, "security.") { self = .security }
        else { self = .unsupported }
    }

    /// Bytes of the prefix, after which a name must go on.
    var prefixBytes: Int {
        switch self {
        case .user: 5
        case .trusted: 8
        case .security: 9
        case .unsupported: 0
        }
    }

    static func begins(_ name: UnsafeRawBufferPointer, _ prefix: StaticString) -> Bool {
        let count = prefix.utf8CodeUnitCount
        guard name.count >= count else { return false }
        for index in 0..<count where name[index] != prefix.utf8Start[index] { return false }
        return true
    }
}

extension FileServer {
    /// The error of an access to an attribute; 0 if it may go on (xattr_permission in Linux).
    private func refusal(_ inode: InodePointer, _ name: UnsafeRawBufferPointer, writes: Bool) -> Int32 {
        guard name.count > 0, name.count <= Int(FOS_NAME_BYTES_MAX) else { return -ERANGE }
        for byte in name where byte == 0 { return -EINVAL }
        let space = XattrSpace(name)
        switch space {
        case .unsupported: return -EOPNOTSUPP
        case .trusted: if !turn.actor.isPrivileged { return writes ? -EPERM : -ENODATA }
        case .security: if writes, !turn.actor.isPrivileged { return -EPERM }
        case .user:
            guard inode.isRegular || inode.isDirectory else { return writes ? -EPERM : -ENODATA }
            if writes, inode.isDirectory, inode.pointee.mode & Mode.sticky != 0, !turn.actor.owns(inode.pointee.uid) { return -EPERM }
            // The mode decides, also through a descriptor: fsetxattr(2) needs no descriptor that is open for writing.
            if !turn.actor.may(writes ? Access.write : Access.read, inode) { return -EACCES }
        }
        return name.count > space.prefixBytes ? 0 : -EINVAL
    }

    mutating func setXattr<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let set = request.fixed(fos_xattr_request.self), let name = request.name(after: fos_xattr_request.self, set.name_length),
            set.flags <= 3, let mode = XattrMode(rawValue: UInt8(set.flags == 3 ? 1 : set.flags))
        else { return answer(-EINVAL, kernel) }
        guard set.value_length <= UInt32(FOS_XATTR_BYTES_MAX) else { return answer(-E2BIG, kernel) }
        let status = refusal(inode, name, writes: true)
        guard status == 0 else { return answer(status, kernel) }
        guard let value = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: set.value_length) else {
            return answer(-EINVAL, kernel)
        }
        // To be new and to be there already: it is one of the two that fails, as on local file systems.
        if set.flags == 3, inode.pointee.xattrs.get(name) == nil { return answer(-ENODATA, kernel) }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        switch inode.pointee.xattrs.set(name, UnsafeRawBufferPointer(value), mode, &arena, &pool) {
        case .exists: answer(-EEXIST, kernel)
        case .absent: answer(-ENODATA, kernel)
        case .noMemory: needCredits(Limits.creditsOfMetadata, kernel)
        case .done: xattrsChanged(inode, kernel)
        }
    }

    mutating func removeXattr<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let set = request.fixed(fos_xattr_request.self), let name = request.name(after: fos_xattr_request.self, set.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        let status = refusal(inode, name, writes: true)
        guard status == 0 else { return answer(status, kernel) }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        guard inode.pointee.xattrs.remove(name, &arena, &pool) else { return answer(-ENODATA, kernel) }
        xattrsChanged(inode, kernel)
    }

    private mutating func xattrsChanged<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        markChanged(inode, time(kernel))
        committed(.attributes(inode), kernel)
        committed(.inode(inode), kernel)
        revokeAttributes(inode, kernel)
        answer(0, kernel)
    }

    mutating func getXattr<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let get = request.fixed(fos_xattr_request.self), let name = request.name(after: fos_xattr_request.self, get.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        let status = refusal(inode, name, writes: false)
        guard status == 0 else { return answer(status, kernel) }
        guard let value = inode.pointee.xattrs.get(name) else { return answer(-ENODATA, kernel) }
        guard get.value_length > 0 else { return answerXattr(value.count, 0, kernel) }
        guard value.count <= Int(get.value_length) else { return answer(-ERANGE, kernel) }
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: UInt32(value.count)) else {
            return answer(-EINVAL, kernel)
        }
        room.copyMemory(from: value)
        answerXattr(value.count, value.count, kernel)
    }

    private mutating func answerXattr<K: Kernel>(_ bytes: Int, _ bulk: Int, _ kernel: K) {
        let message = kernel.scratch()
        message.setBody(fos_xattr_reply(bytes: UInt64(bytes)))
        message.pointee.bulk_length = UInt32(bulk)
        deliver(message, kernel)
    }

    mutating func listXattrs<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let list = request.fixed(fos_xattr_request.self) else { return answer(-EINVAL, kernel) }
        let showsAll = turn.actor.isPrivileged
        let bytes = inode.pointee.xattrs.listBytes { showsAll || !XattrSpace.begins($0, "trusted.") }
        // XATTR_LIST_MAX of Linux.
        guard bytes <= Int(FOS_XATTR_BYTES_MAX) else { return answer(-E2BIG, kernel) }
        // An empty list fits any room.
        guard list.value_length > 0, bytes > 0 else { return answerXattr(bytes, 0, kernel) }
        guard bytes <= Int(list.value_length) else { return answer(-ERANGE, kernel) }
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: UInt32(bytes)),
            inode.pointee.xattrs.list(into: room, where: { showsAll || !XattrSpace.begins($0, "trusted.") }) == bytes
        else { return answer(-EINVAL, kernel) }
        answerXattr(bytes, bytes, kernel)
    }
}
