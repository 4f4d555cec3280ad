// Operations on names: lookup and forget, making, removing, renaming and linking.
//
// The kernel has done the permission checks (default_permissions) and applied the umask.

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension Operation {
    func lookup(_ parent: UInt64, _ name: UnsafePointer<CChar>?) {
        if IntrospectionTree.owns(parent) || IntrospectionTree.reserves(parent, name) { return lookupIntrospection(parent, name) }
        guard let name = EntryName(name) else { return answer(-ENAMETOOLONG) }
        let message = message(FOS_OP_LOOKUP, parent)
        message.append(name)
        let asked = AnswerClock.seconds
        let status = call()
        if status == -ENOENT { return answerAbsent(asked: asked) }
        answerEntry(status)
    }

    func forget(_ inode: UInt64, _ count: UInt64) {
        if IntrospectionTree.owns(inode) {
            front.pointee.introspection.forget(inode, count)
        } else {
            worker.forget(inode, count)
        }
        front.pointee.forgets.add(1)
        fuse_reply_none(request)
    }

    /// Up to 56 items a message; items of several owners may share one.
    func forget(_ items: UnsafeBufferPointer<fuse_forget_data>) {
        let most = Int(FOS_PAYLOAD_BYTES_MAX) / MemoryLayout<fos_forget_item>.size
        var next = 0
        while next < items.count {
            var message: UnsafeMutablePointer<fos_message>?
            var filled = 0
            while next < items.count && filled < most {
                let item = items[next]
                next += 1
                if IntrospectionTree.owns(item.ino) {
                    front.pointee.introspection.forget(item.ino, item.nlookup)
                    continue
                }
                let target = message ?? worker.message(FOS_OP_FORGET, item.ino)
                message = target
                target.append(fos_forget_item(inode: item.ino, count: item.nlookup))
                filled += 1
            }
            if message != nil { _ = call() }
        }
        front.pointee.forgets.add(1)
        fuse_reply_none(request)
    }

    /// The payload of MKNOD, MKDIR, CREATE and TMPFILE. The mode already has the umask applied by the kernel.
    private func makeMessage(
        _ operation: fos_operation, _ parent: UInt64, _ name: EntryName, mode: UInt32, device: UInt32 = 0,
        openFlags: Int32 = 0, takesReference: Bool = false
    ) {
        let message = message(operation, parent)
        var fields = fos_make_request()
        fields.mode = mode
        fields.device = device
        fields.open_flags = UInt32(bitPattern: openFlags)
        fields.name_length = name.length
        fields.take_reference = takesReference ? 1 : 0
        message.append(fields)
        message.append(name)
    }

    /// Whether a change of `name` in `parent` must be refused because `.fos/` is read-only, and with what.
    private func refusal(_ parent: UInt64, _ name: UnsafePointer<CChar>?) -> Int32? {
        if IntrospectionTree.owns(parent) { return -EROFS }
        return IntrospectionTree.reserves(parent, name) ? -EPERM : nil
    }

    func mknod(_ parent: UInt64, _ name: UnsafePointer<CChar>?, _ mode: mode_t, _ device: dev_t) {
        if let refusal = refusal(parent, name) { return answer(refusal == -EPERM ? -EEXIST : refusal) }
        guard let checked = EntryName(name) else { return answer(-ENAMETOOLONG) }
        makeMessage(FOS_OP_MKNOD, parent, checked, mode: mode, device: UInt32(truncatingIfNeeded: device))
        let status = callTakingMemory()
        // An open(O_CREAT) comes as LOOKUP and MKNOD when CREATE is not taken. Another client may have made the file
        // in between; ESTALE lets the kernel look again and open it, or say EEXIST itself to those who asked for that.
        let regular = mode & FileType.mask == FileType.regular
        answerEntry(status == -EEXIST && regular && front.pointee.keepsNoOpens ? -ESTALE : status)
    }

    func mkdir(_ parent: UInt64, _ name: UnsafePointer<CChar>?, _ mode: mode_t) {
        if let refusal = refusal(parent, name) { return answer(refusal == -EPERM ? -EEXIST : refusal) }
        guard let checked = EntryName(name) else { return answer(-ENAMETOOLONG) }
        makeMessage(FOS_OP_MKDIR, parent, checked, mode: mode & ~FileType.mask)
        answerEntry(callTakingMemory())
    }

    func create(_ parent: UInt64, _ name: UnsafePointer<CChar>?, _ mode: mode_t, _ info: UnsafeMutablePointer<fuse_file_info>?) {
        // Without CREATE an open that makes a file is one MKNOD, and its close costs no RELEASE.
        guard !front.pointee.keepsNoOpens, let info else { return answer(-ENOSYS) }
        if let refusal = refusal(parent, name) { return answer(refusal == -EPERM ? -EEXIST : refusal) }
        guard let checked = EntryName(name) else { return answer(-ENAMETOOLONG) }
        makeMessage(FOS_OP_CREATE, parent, checked, mode: mode, openFlags: info.pointee.flags, takesReference: true)
        let status = callTakingMemory()
        guard status == 0 else { return answer(status) }
        guard let attributes = payload(fos_attributes.self) else { return answer(-EIO) }
        fos_fuse_set_keep_cache(info)
        info.pointee.fh = front.pointee.handles.open()
        var entry = attributes.entry
        if fuse_reply_create(request, &entry, info) == -ENOENT {
            worker.release(attributes.inode, owner: 0, flags: 0)
            worker.forget(attributes.inode, 1)
        }
    }

    func symlink(_ target: UnsafePointer<CChar>?, _ parent: UInt64, _ name: UnsafePointer<CChar>?) {
        if let refusal = refusal(parent, name) { return answer(refusal == -EPERM ? -EEXIST : refusal) }
        guard let checked = EntryName(name), let target else { return answer(-ENAMETOOLONG) }
        let length = strnlen(target, Int(FOS_SYMLINK_BYTES_MAX) + 1)
        guard length <= Int(FOS_SYMLINK_BYTES_MAX) else { return answer(-ENAMETOOLONG) }
        let message = message(FOS_OP_SYMLINK, parent)
        message.append(fos_symlink_request(name_length: checked.length, target_length: UInt32(length)))
        message.append(checked)
        // The target lies in the request, and so in the bulk area already.
        message.pointee.bulk_offset = bulkOffset(target)
        message.pointee.bulk_length = UInt32(length)
        answerEntry(callTakingMemory())
    }

    /// Where bytes of the request lie in the bulk area.
    func bulkOffset(_ bytes: UnsafePointer<CChar>) -> UInt32 {
        UInt32(UnsafeRawPointer(bytes) - UnsafeRawPointer(worker.pointee.bulk))
    }

    func remove(_ operation: fos_operation, _ parent: UInt64, _ name: UnsafePointer<CChar>?) {
        if let refusal = refusal(parent, name) { return answer(refusal) }
        guard let checked = EntryName(name) else { return answer(-ENAMETOOLONG) }
        let message = message(operation, parent)
        message.append(checked)
        answer(call())
    }

    func rename(
        _ parent: UInt64, _ name: UnsafePointer<CChar>?, _ newParent: UInt64, _ newName: UnsafePointer<CChar>?, _ flags: UInt32
    ) {
        if let refusal = refusal(parent, name) ?? refusal(newParent, newName) { return answer(refusal) }
        guard let old = EntryName(name), let new = EntryName(newName) else { return answer(-ENAMETOOLONG) }
        let message = message(FOS_OP_RENAME, parent)
        message.append(
            fos_rename_request(new_parent: newParent, flags: flags, old_length: old.length, new_length: new.length, reserved: 0))
        message.append(old)
        message.append(new)
        answer(callTakingMemory())
    }

    func link(_ inode: UInt64, _ newParent: UInt64, _ newName: UnsafePointer<CChar>?) {
        if IntrospectionTree.owns(inode) { return answer(-EPERM) }
        if let refusal = refusal(newParent, newName) { return answer(refusal == -EPERM ? -EEXIST : refusal) }
        guard let checked = EntryName(newName) else { return answer(-ENAMETOOLONG) }
        let message = message(FOS_OP_LINK, newParent)
        message.append(fos_link_request(target: inode, name_length: checked.length, reserved: 0))
        message.append(checked)
        let status = callTakingMemory()
        front.pointee.unversioned.note(inode)
        answerEntry(status)
    }
}
