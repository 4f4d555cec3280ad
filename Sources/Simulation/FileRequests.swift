// Requests of the file service, built in a thread's channel (fos/file.h has the layouts).
//
// Protocol: one of these, then `.call`; the answer is in the thread when its program's step is called again.

public import CFosWire
public import Simulator

extension SimThread {
    public func lookup(_ directory: UInt64, _ name: String) {
        begin(FOS_OP_LOOKUP, inode: directory)
        add(name)
    }
    public func getAttributes(_ inode: UInt64) { begin(FOS_OP_GETATTR, inode: inode) }

    /// CREATE, MKDIR, MKNOD or TMPFILE.
    public func make(
        _ operation: fos_operation, _ directory: UInt64, _ name: String, mode: UInt32, openFlags: UInt32 = 0, takesReference: Bool = false
    ) {
        begin(operation, inode: directory)
        add(
            fos_make_request(
                mode: mode, umask: 0, device: 0, open_flags: openFlags, name_length: UInt32(name.utf8.count),
                take_reference: takesReference ? 1 : 0))
        add(name)
    }
    public func create(_ directory: UInt64, _ name: String, exclusive: Bool = false) {
        make(FOS_OP_CREATE, directory, name, mode: 0o666, openFlags: exclusive ? 0o202 : 0o2)
    }
    public func makeDirectory(_ directory: UInt64, _ name: String) { make(FOS_OP_MKDIR, directory, name, mode: 0o777) }
    public func unlink(_ directory: UInt64, _ name: String) {
        begin(FOS_OP_UNLINK, inode: directory)
        add(name)
    }
    public func removeDirectory(_ directory: UInt64, _ name: String) {
        begin(FOS_OP_RMDIR, inode: directory)
        add(name)
    }
    /// `flags` as renameat2(2): 1 NOREPLACE, 2 EXCHANGE.
    public func rename(_ directory: UInt64, _ old: String, to newDirectory: UInt64, _ new: String, flags: UInt32 = 0) {
        begin(FOS_OP_RENAME, inode: directory)
        add(
            fos_rename_request(
                new_parent: newDirectory, flags: flags, old_length: UInt32(old.utf8.count), new_length: UInt32(new.utf8.count), reserved: 0)
        )
        add(old)
        add(new)
    }
    public func link(_ target: UInt64, _ directory: UInt64, _ name: String) {
        begin(FOS_OP_LINK, inode: directory)
        add(fos_link_request(target: target, name_length: UInt32(name.utf8.count), reserved: 0))
        add(name)
    }
    /// The bytes come in `bulk`.
    public func read(_ inode: UInt64, offset: UInt64, count: Int) {
        begin(FOS_OP_READ, inode: inode)
        add(fos_io_request(offset: offset, owner: 0, flags: 0, open_flags: 0))
        request.pointee.bulk_length = UInt32(count)
    }
    /// The bytes are the first `count` of `bulk`.
    public func write(_ inode: UInt64, offset: UInt64, count: Int, append: Bool = false) {
        begin(FOS_OP_WRITE, inode: inode)
        add(fos_io_request(offset: offset, owner: 0, flags: append ? FOS_IO_APPEND.rawValue : 0, open_flags: 2))
        request.pointee.bulk_length = UInt32(count)
    }
    public func truncate(_ inode: UInt64, size: UInt64) {
        begin(FOS_OP_SETATTR, inode: inode)
        var change = fos_setattr_request()
        change.valid = FOS_SET_SIZE.rawValue
        change.size = size
        add(change)
    }
    public func changeMode(_ inode: UInt64, _ mode: UInt32) {
        begin(FOS_OP_SETATTR, inode: inode)
        var change = fos_setattr_request()
        change.valid = FOS_SET_MODE.rawValue
        change.mode = mode
        add(change)
    }
    /// Records come in `bulk`.
    public func readDirectory(_ inode: UInt64, cookie: UInt64 = 0) {
        begin(FOS_OP_READDIR, inode: inode)
        add(fos_readdir_request(cookie: cookie, flags: 0, filled: 0))
        request.pointee.bulk_length = UInt32(bulk.count)
    }
    public func open(_ inode: UInt64, flags: UInt32) {
        begin(FOS_OP_OPEN, inode: inode)
        add(fos_open_request(open_flags: flags, room: 0))
    }
    public func release(_ inode: UInt64, owner: UInt64 = 0, flocks: Bool = false) {
        begin(FOS_OP_RELEASE, inode: inode)
        add(fos_release_request(owner: owner, flags: flocks ? 1 : 0, count: 1))
    }
    public func lock(_ inode: UInt64, owner: UInt64, start: UInt64, end: UInt64, kind: fos_lock_kind, wait: Bool) {
        begin(FOS_OP_SETLK, inode: inode)
        add(fos_lock_request(owner: owner, start: start, end: end, kind: kind.rawValue, pid: client.pid, wait: wait ? 1 : 0, reserved: 0))
    }
    public func statfs() { begin(FOS_OP_STATFS, inode: UInt64(FOS_ROOT_INODE)) }

    /// The attributes that an answer carries.
    public var attributes: fos_attributes { replied(fos_attributes.self) ?? fos_attributes() }
}
