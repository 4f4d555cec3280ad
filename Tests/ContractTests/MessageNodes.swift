// MessageNodes: a NodeService that speaks to a file fleet in its own messages (<fos/file.h>).
//
// Role: encodes each call as a request and decodes its reply; how the request travels is the transport's.
// Invariants: one request at a time; identity is what the transport may say for the acting user.

import CFosWire
import Glibc

struct MessageReply {
    /// Of the reply; only `bulk_length`, `flags` and `inode` are looked at.
    var header: fos_message
    var payload: [UInt8]
    var bulk: [UInt8]
}

protocol MessageTransport: AnyObject {
    var name: String { get }
    var features: Features { get }
    /// Sends a request to the owner of `inode`, resends it as transport statuses ask, and throws a negative status.
    /// - Parameters:
    ///   - bulk: bytes offered. room: bytes wanted, if more.
    func call(
        _ operation: fos_operation, inode: UInt64, flags: UInt16, payload: [UInt8], bulk: [UInt8], room: Int, user: User
    ) throws(Errno) -> MessageReply
    func letTimePass()
}

private func bytes<Fixed: BitwiseCopyable>(of fixed: Fixed) -> [UInt8] { withUnsafeBytes(of: fixed) { Array($0) } }
private func fixed<Fixed: BitwiseCopyable>(_ bytes: [UInt8], _ type: Fixed.Type = Fixed.self, at offset: Int = 0) -> Fixed {
    precondition(bytes.count >= offset + MemoryLayout<Fixed>.size, "a reply is too short")
    return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Fixed.self) }
}
private func time(_ nanoseconds: Int64) -> fos_time {
    let (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
    return rest < 0
        ? fos_time(seconds: seconds - 1, nanoseconds: UInt32(rest + 1_000_000_000), reserved: 0)
        : fos_time(seconds: seconds, nanoseconds: UInt32(rest), reserved: 0)
}

final class MessageNodes<Transport: MessageTransport>: NodeService {
    let transport: Transport
    var user = User.root
    var name: String { transport.name }
    var features: Features { transport.features }
    let root = UInt64(FOS_ROOT_INODE)
    init(_ transport: Transport) { self.transport = transport }
    func letTimePass() { transport.letTimePass() }

    @discardableResult
    private func call(
        _ operation: fos_operation, _ inode: UInt64, _ payload: [UInt8] = [], bulk: [UInt8] = [], room: Int = 0, flags: UInt16 = 0
    ) throws(Errno) -> MessageReply {
        try transport.call(operation, inode: inode, flags: flags, payload: payload, bulk: bulk, room: room, user: user)
    }
    private func attributes(_ reply: MessageReply) -> Status {
        let found: fos_attributes = fixed(reply.payload)
        func nanoseconds(_ time: fos_time) -> Int64 { time.seconds * 1_000_000_000 + Int64(time.nanoseconds) }
        return Status(
            inode: found.inode, mode: found.mode, links: found.links, uid: found.uid, gid: found.gid, size: found.size,
            device: UInt64(found.device), blocks: found.blocks, accessed: nanoseconds(found.accessed),
            modified: nanoseconds(found.modified), changed: nanoseconds(found.changed))
    }

    /// As stat(2) does it: what a LOOKUP cannot say exactly is asked for.
    func lookup(_ directory: UInt64, _ name: String) throws(Errno) -> Status {
        let reply = try call(FOS_OP_LOOKUP, directory, Array(name.utf8))
        let found: fos_attributes = fixed(reply.payload)
        return found.flags & FOS_ATTRIBUTES_INEXACT.rawValue != 0 ? try status(found.inode) : attributes(reply)
    }
    func status(_ node: UInt64) throws(Errno) -> Status { attributes(try call(FOS_OP_GETATTR, node)) }

    func change(_ node: UInt64, _ change: NodeChange) throws(Errno) {
        var request = fos_setattr_request()
        if let mode = change.mode {
            request.valid |= FOS_SET_MODE.rawValue
            request.mode = mode
        }
        if let uid = change.uid {
            request.valid |= FOS_SET_UID.rawValue
            request.uid = uid
        }
        if let gid = change.gid {
            request.valid |= FOS_SET_GID.rawValue
            request.gid = gid
        }
        if let size = change.size {
            request.valid |= FOS_SET_SIZE.rawValue
            request.size = size
        }
        switch change.accessed {
        case .now: request.valid |= FOS_SET_ACCESSED_NOW.rawValue
        case .at(let value):
            request.valid |= FOS_SET_ACCESSED.rawValue
            request.accessed = time(value)
        case .omit: break
        }
        switch change.modified {
        case .now: request.valid |= FOS_SET_MODIFIED_NOW.rawValue
        case .at(let value):
            request.valid |= FOS_SET_MODIFIED.rawValue
            request.modified = time(value)
        case .omit: break
        }
        if change.killsPrivilege { request.valid |= FOS_SET_KILL_PRIVILEGE.rawValue }
        try call(FOS_OP_SETATTR, node, bytes(of: request))
    }

    func readlink(_ node: UInt64) throws(Errno) -> String {
        String(decoding: try call(FOS_OP_READLINK, node, room: Int(FOS_SYMLINK_BYTES_MAX)).bulk, as: UTF8.self)
    }
    func symlink(_ directory: UInt64, _ name: String, _ target: String) throws(Errno) {
        let request = fos_symlink_request(name_length: UInt32(name.utf8.count), target_length: UInt32(target.utf8.count))
        try call(FOS_OP_SYMLINK, directory, bytes(of: request) + Array(name.utf8), bulk: Array(target.utf8))
    }
    private func make(_ name: String, _ mode: UInt32, _ umask: UInt32, device: UInt32 = 0, flags: Int32 = 0, reference: Bool = false)
        -> [UInt8]
    {
        bytes(
            of: fos_make_request(
                mode: mode, umask: umask, device: device, open_flags: UInt32(bitPattern: flags), name_length: UInt32(name.utf8.count),
                take_reference: reference ? 1 : 0)) + Array(name.utf8)
    }
    func mknod(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno)
    {
        let encoded = device.minor & 0xff | device.major << 8 | (device.minor & ~0xff) << 12
        let type = mode & FileType.mask
        try call(FOS_OP_MKNOD, directory, make(name, type == 0 ? mode | FileType.regular : mode, umask, device: encoded))
    }
    func mkdir(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32) throws(Errno) {
        try call(FOS_OP_MKDIR, directory, make(name, mode, umask))
    }
    func unlink(_ directory: UInt64, _ name: String) throws(Errno) { try call(FOS_OP_UNLINK, directory, Array(name.utf8)) }
    func rmdir(_ directory: UInt64, _ name: String) throws(Errno) { try call(FOS_OP_RMDIR, directory, Array(name.utf8)) }
    func rename(_ directory: UInt64, _ name: String, _ newDirectory: UInt64, _ newName: String, _ flags: RenameFlag) throws(Errno) {
        let request = fos_rename_request(
            new_parent: newDirectory, flags: flags.rawValue, old_length: UInt32(name.utf8.count), new_length: UInt32(newName.utf8.count),
            reserved: 0)
        try call(FOS_OP_RENAME, directory, bytes(of: request) + Array(name.utf8) + Array(newName.utf8))
    }
    func link(_ node: UInt64, _ directory: UInt64, _ name: String) throws(Errno) {
        let request = fos_link_request(target: node, name_length: UInt32(name.utf8.count), reserved: 0)
        try call(FOS_OP_LINK, directory, bytes(of: request) + Array(name.utf8))
    }
    func create(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status {
        attributes(try call(FOS_OP_CREATE, directory, make(name, mode, umask, flags: flags, reference: true)))
    }
    func temporary(_ directory: UInt64, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status {
        attributes(try call(FOS_OP_TMPFILE, directory, make("", mode, umask, flags: flags, reference: true)))
    }
    func open(_ node: UInt64, _ flags: Int32) throws(Errno) -> Status {
        attributes(try call(FOS_OP_OPEN, node, bytes(of: fos_open_request(open_flags: UInt32(bitPattern: flags), room: 0))))
    }
    func release(_ node: UInt64, owner: UInt64) throws(Errno) {
        try call(FOS_OP_FLUSH, node, bytes(of: fos_flush_request(owner: owner)))
        try call(FOS_OP_RELEASE, node, bytes(of: fos_release_request(owner: owner, flags: 1, count: 1)))
    }

    func read(_ node: UInt64, _ count: Int, at offset: UInt64, _ flags: Int32) throws(Errno) -> [UInt8] {
        var found: [UInt8] = []
        // A transfer holds 1 MiB at most.
        while found.count < count {
            let part = min(count - found.count, Int(FOS_TRANSFER_BYTES_MAX))
            let request = fos_io_request(offset: offset + UInt64(found.count), owner: 0, flags: 0, open_flags: UInt32(bitPattern: flags))
            let reply = try call(FOS_OP_READ, node, bytes(of: request), room: part)
            found += reply.bulk
            if reply.bulk.count < part { break }
        }
        return found
    }
    func write(_ node: UInt64, _ data: [UInt8], at offset: UInt64, _ flags: Int32) throws(Errno) -> (offset: UInt64, count: Int) {
        var done = 0
        var start = offset
        while done < data.count {
            let part = Array(data[done...].prefix(Int(FOS_TRANSFER_BYTES_MAX)))
            var request = fos_io_request(offset: offset + UInt64(done), owner: 0, flags: 0, open_flags: UInt32(bitPattern: flags))
            if flags & O_APPEND != 0 { request.flags |= FOS_IO_APPEND.rawValue }
            if user.uid != 0 { request.flags |= FOS_IO_KILL_PRIVILEGE.rawValue }
            let reply: MessageReply
            do throws(Errno) { reply = try call(FOS_OP_WRITE, node, bytes(of: request), bulk: part) } catch {
                if done > 0 { break }
                throw error
            }
            if done == 0 { start = fixed(reply.payload, fos_io_reply.self).offset }
            done += Int(reply.header.bulk_length)
            if Int(reply.header.bulk_length) < part.count { break }
        }
        return (start, done)
    }
    func sync(_ node: UInt64) throws(Errno) { try call(FOS_OP_FSYNC, node) }
    func space() throws(Errno) -> Space {
        let reply: fos_statfs_reply = fixed(try call(FOS_OP_STATFS, root).payload)
        return Space(
            blocks: reply.blocks, available: reply.blocks_available, blockBytes: reply.block_bytes, nameMax: reply.name_max,
            files: reply.files, filesFree: reply.files_free)
    }

    private func attributeRequest(_ name: String, _ length: Int, _ flags: Int32 = 0) -> [UInt8] {
        bytes(
            of: fos_xattr_request(
                flags: UInt32(flags), name_length: UInt32(name.utf8.count), value_length: UInt32(length), reserved: 0)) + Array(name.utf8)
    }
    func setAttribute(_ node: UInt64, _ name: String, _ value: [UInt8], _ flags: Int32) throws(Errno) {
        try call(FOS_OP_SETXATTR, node, attributeRequest(name, value.count, flags), bulk: value)
    }
    func attribute(_ node: UInt64, _ name: String) throws(Errno) -> [UInt8] {
        let sized = try call(FOS_OP_GETXATTR, node, attributeRequest(name, 0))
        let size = Int(fixed(sized.payload, fos_xattr_reply.self).bytes)
        let reply = try call(FOS_OP_GETXATTR, node, attributeRequest(name, Int(FOS_XATTR_BYTES_MAX)), room: Int(FOS_XATTR_BYTES_MAX))
        precondition(reply.bulk.count == size, "a value's size is not what asking for the size says")
        return reply.bulk
    }
    func attributeNames(_ node: UInt64) throws(Errno) -> [String] {
        let reply = try call(FOS_OP_LISTXATTR, node, attributeRequest("", Int(FOS_XATTR_BYTES_MAX)), room: Int(FOS_XATTR_BYTES_MAX))
        return reply.bulk.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }
    func removeAttribute(_ node: UInt64, _ name: String) throws(Errno) { try call(FOS_OP_REMOVEXATTR, node, attributeRequest(name, 0)) }

    func entries(_ directory: UInt64, from cookie: UInt64, atMost count: Int) throws(Errno) -> [NodeEntry] {
        var cookie = cookie
        while true {
            let request = fos_readdir_request(cookie: cookie, flags: 0, filled: 0)
            let reply = try call(FOS_OP_READDIR, directory, bytes(of: request), room: 32_768)
            if reply.bulk.isEmpty { return [] }
            var found: [NodeEntry] = []
            var place = 0
            while place < reply.bulk.count, found.count < count {
                let record: fos_directory_entry = fixed(reply.bulk, at: place)
                let start = place + MemoryLayout<fos_directory_entry>.size
                let name = String(decoding: reply.bulk[start..<start + Int(record.name_length)], as: UTF8.self)
                if name != "." && name != ".." {
                    found.append(NodeEntry(entry: ListedEntry(name: name, inode: record.inode, type: record.type), next: record.next))
                }
                cookie = record.next
                place += Int(record.record_length)
            }
            if !found.isEmpty { return found }
        }
    }

    func allocate(_ node: UInt64, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno) {
        let request = fos_fallocate_request(offset: UInt64(offset), length: UInt64(length), mode: UInt32(mode), reserved: 0)
        try call(FOS_OP_FALLOCATE, node, bytes(of: request))
    }
    func seek(_ node: UInt64, _ offset: UInt64, _ whence: Int32) throws(Errno) -> UInt64 {
        let request = fos_lseek_request(offset: offset, whence: UInt32(whence), reserved: 0)
        return fixed(try call(FOS_OP_LSEEK, node, bytes(of: request)).payload, fos_lseek_reply.self).offset
    }
    func copyRange(_ from: UInt64, _ fromOffset: UInt64, _ to: UInt64, _ toOffset: UInt64, _ length: Int) throws(Errno) -> Int {
        let request = fos_copy_request(
            source: from, source_offset: fromOffset, offset: toOffset, length: UInt64(length), flags: 0, reserved: 0)
        return Int(fixed(try call(FOS_OP_COPY_RANGE, to, bytes(of: request)).payload, fos_copy_reply.self).bytes)
    }
    func access(_ node: UInt64, _ mode: Int32) throws(Errno) { try call(FOS_OP_ACCESS, node, flags: UInt16(mode & 7)) }

    private func lockRequest(_ owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) -> [UInt8] {
        var request = fos_lock_request()
        request.owner = owner
        request.start = UInt64(start)
        request.end = length == 0 ? UInt64(Int64.max) : UInt64(start + length - 1)
        request.kind =
            kind == Int32(F_RDLCK) ? FOS_LOCK_READ.rawValue : kind == Int32(F_WRLCK) ? FOS_LOCK_WRITE.rawValue : FOS_LOCK_UNLOCK.rawValue
        request.pid = 1
        return bytes(of: request)
    }
    func lock(_ node: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) {
        try call(FOS_OP_SETLK, node, lockRequest(owner, kind, start, length))
    }
    func getLock(_ node: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound? {
        let found: fos_lock_request = fixed(try call(FOS_OP_GETLK, node, lockRequest(owner, kind, start, length)).payload)
        guard found.kind != FOS_LOCK_UNLOCK.rawValue else { return nil }
        return LockFound(
            kind: Int32(found.kind == FOS_LOCK_READ.rawValue ? F_RDLCK : F_WRLCK), start: Int64(found.start),
            length: found.end == UInt64(Int64.max) ? 0 : Int64(found.end - found.start) + 1)
    }
    func flock(_ node: UInt64, owner: UInt64, _ operation: Int32) throws(Errno) {
        let kind = operation == LOCK_SH ? FOS_LOCK_READ : operation == LOCK_EX ? FOS_LOCK_WRITE : FOS_LOCK_UNLOCK
        try call(FOS_OP_FLOCK, node, bytes(of: fos_flock_request(owner: owner, kind: kind.rawValue, wait: 0)))
    }
}
