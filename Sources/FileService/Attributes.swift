// Attributes: GETATTR, SETATTR, READLINK, ACCESS, and when which time changes.
//
// Rules: POSIX's, as Linux keeps them on tmpfs. Access times are relative (mount(8) relatime): brought forward when
// they are not later than the others or a day old.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension fos_time {
    @inline(__always) init(_ time: Timestamp) { self.init(seconds: time.seconds, nanoseconds: time.nanoseconds, reserved: 0) }
    /// nil if the nanoseconds are none.
    @inline(__always) var timestamp: Timestamp? {
        nanoseconds < 1_000_000_000 ? Timestamp(seconds: seconds, nanoseconds: nanoseconds) : nil
    }
}

extension Timestamp {
    @inline(__always) func isAfter(_ other: Timestamp) -> Bool {
        seconds != other.seconds ? seconds > other.seconds : nanoseconds > other.nanoseconds
    }
}

extension FileServer {
    mutating func attributes<K: Kernel>(of inode: InodePointer, _ kernel: K) -> fos_attributes {
        noteWritten(inode, kernel)
        var result = fos_attributes()
        if isWritten(inode) { result.flags = FOS_ATTRIBUTES_VOLATILE.rawValue }
        result.inode = inode.pointee.number
        result.mode = inode.pointee.mode
        result.links = inode.pointee.links
        result.uid = inode.pointee.uid
        result.gid = inode.pointee.gid
        result.device = inode.isDirectory ? 0 : inode.pointee.device
        result.generation = inode.pointee.generation
        result.version = inode.pointee.version
        result.epoch = kernel.epoch(ofInode: inode.pointee.number)
        result.accessed = fos_time(inode.pointee.accessed)
        result.modified = fos_time(inode.pointee.modified)
        result.changed = fos_time(inode.pointee.changed)
        result.born = fos_time(inode.pointee.born)
        if inode.isRegular {
            result.size = inode.pointee.size
            result.blocks = inode.pageMap.pointee.pageCount &* UInt64(Limits.pageBytes / 512)
        } else if inode.isDirectory {
            result.size = UInt64(inode.directory.pointee.count) &* Limits.bytesOfEntry
            if inode.pointee.isSharded { describeShards(of: inode, &result) }
        } else if inode.isSymlink {
            result.size = UInt64(inode.symlink.pointee.length)
        }
        return result
    }

    /// The attributes of a sharded directory, with what its shards have said if they were asked.
    private func describeShards(of directory: InodePointer, _ result: inout fos_attributes) {
        result.flags = FOS_ATTRIBUTES_SHARDED.rawValue
        guard isGathered(directory) else { return result.flags |= FOS_ATTRIBUTES_INEXACT.rawValue }
        result.size &+= gathered.entries &* Limits.bytesOfEntry
        result.links &+= gathered.subdirectories
        result.version &+= gathered.version
        let times = times(of: directory, gathered)
        result.accessed = fos_time(times.accessed)
        result.modified = fos_time(times.modified)
        result.changed = fos_time(times.changed)
    }

    // MARK: Times

    /// The time of the turn: all that one request changes has one time, and the clock is read once.
    @inline(__always) mutating func time<K: Kernel>(_ kernel: K) -> Timestamp {
        if let time = turn.time { return time }
        let time = kernel.now
        turn.time = time
        return time
    }
    /// Data of a file or entries of a directory have changed.
    @inline(__always) mutating func markModified(_ inode: InodePointer, _ now: Timestamp) {
        inode.pointee.modified = now
        inode.pointee.changed = now
        inode.pointee.version &+= 1
    }
    /// Attributes or links have changed.
    @inline(__always) mutating func markChanged(_ inode: InodePointer, _ now: Timestamp) {
        inode.pointee.changed = now
        inode.pointee.version &+= 1
    }
    /// Whether a reading at `now` moves the access time (relatime, mount(8)).
    @inline(__always) func isAccessDue(_ inode: InodePointer, _ now: Timestamp) -> Bool {
        let accessed = inode.pointee.accessed
        return !accessed.isAfter(inode.pointee.modified) || !accessed.isAfter(inode.pointee.changed)
            || now.seconds &- accessed.seconds >= 86400
    }
    /// Something was read. By another client than the kernel this costs a notice at most once after each change.
    /// - Returns: the access time moved.
    @discardableResult
    @inline(__always) mutating func markAccessed<K: Kernel>(_ inode: InodePointer, _ kernel: K) -> Bool {
        let now = time(kernel)
        guard isAccessDue(inode, now) else { return false }
        inode.pointee.accessed = now
        committed(.inode(inode), kernel)
        if mayRevoke(inode.pointee.leases, kernel) { revokeAttributes(inode, kernel) }
        return true
    }

    // MARK: Operations

    mutating func setAttributes<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let set = request.fixed(fos_setattr_request.self) else { return answer(-EINVAL, kernel) }
        let valid = set.valid
        let status = refusal(inode, set)
        guard status == 0 else { return answer(status, kernel) }
        guard sealsShards(of: inode, kernel) else { return }
        guard let accessed = set.accessed.timestamp ?? (valid & FOS_SET_ACCESSED.rawValue == 0 ? inode.pointee.accessed : nil),
            let modified = set.modified.timestamp ?? (valid & FOS_SET_MODIFIED.rawValue == 0 ? inode.pointee.modified : nil),
            let changed = set.changed.timestamp ?? (valid & FOS_SET_CHANGED.rawValue == 0 ? inode.pointee.changed : nil)
        else { return answer(-EINVAL, kernel) }

        let now = time(kernel)
        var sizeChanges = false
        if valid & FOS_SET_SIZE.rawValue != 0 {
            guard flushPages(inode, kernel) else { return }
            sizeChanges = set.size != inode.pointee.size
            if set.size < inode.pointee.size, !mayMovePages(inode, kernel) { return }
        }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        if sizeChanges {
            let isCut = set.size < inode.pointee.size
            resize(inode, to: set.size)
            if isCut { renewRegion(inode, kernel) }
            inode.pointee.modified = now
        }
        let chowns = valid & (FOS_SET_UID.rawValue | FOS_SET_GID.rawValue) != 0
        var loses = false
        if (chowns && !inode.isDirectory) || valid & FOS_SET_KILL_PRIVILEGE.rawValue != 0
            || (valid & FOS_SET_SIZE.rawValue != 0 && !turn.actor.isPrivileged)
        {
            loses = dropPrivilege(inode)
        }
        // A truncation to the size that a file already has changes nothing, so not its times either (as tmpfs).
        guard sizeChanges || loses || valid & ~(FOS_SET_SIZE.rawValue) != 0 else { return answer(attributesOf: inode, kernel) }
        if valid & FOS_SET_UID.rawValue != 0 { inode.pointee.uid = set.uid }
        if valid & FOS_SET_GID.rawValue != 0 { inode.pointee.gid = set.gid }
        if valid & FOS_SET_MODE.rawValue != 0 {
            var mode = set.mode & Mode.permissions
            if !turn.actor.isPrivileged, !turn.actor.isIn(inode.pointee.gid) { mode &= ~Mode.setGroup }
            inode.pointee.mode = inode.pointee.mode & Mode.typeMask | mode
        }
        if valid & FOS_SET_ACCESSED_NOW.rawValue != 0 { inode.pointee.accessed = now }
        else if valid & FOS_SET_ACCESSED.rawValue != 0 { inode.pointee.accessed = accessed }
        if valid & FOS_SET_MODIFIED_NOW.rawValue != 0 { inode.pointee.modified = now }
        else if valid & FOS_SET_MODIFIED.rawValue != 0 { inode.pointee.modified = modified }
        if valid & ~(FOS_SET_SIZE.rawValue) != 0 || sizeChanges { markChanged(inode, now) }
        if valid & FOS_SET_CHANGED.rawValue != 0 { inode.pointee.changed = changed }
        committed(.inode(inode), kernel)
        if sizeChanges { revokeData(inode, kernel) } else { revokeAttributes(inode, kernel) }
        let decides = FOS_SET_UID.rawValue | FOS_SET_GID.rawValue | FOS_SET_MODE.rawValue
        if !turn.isKernel, inode.pointee.kernelReferences > 0, valid & decides != 0 { turn.looksAgain = true }
        answer(attributesOf: inode, delegates: sizeChanges, kernel)
    }

    /// The error of a SETATTR that the rules refuse; 0 if they do not (setattr_prepare in Linux).
    private func refusal(_ inode: InodePointer, _ set: fos_setattr_request) -> Int32 {
        let valid = set.valid
        if valid & FOS_SET_SIZE.rawValue != 0 {
            if inode.isDirectory { return -EISDIR }
            guard inode.isRegular else { return -EINVAL }
            guard set.size <= Limits.fileBytes else { return set.size > UInt64(Int64.max) ? -EINVAL : -EFBIG }
            guard mayUse(inode, Access.write) else { return -EACCES }
        }
        guard turn.actor.isChecked, turn.actor.uid != 0 else { return 0 }
        let owns = turn.actor.owns(inode.pointee.uid)
        if valid & FOS_SET_UID.rawValue != 0, !(owns && set.uid == inode.pointee.uid) { return -EPERM }
        if valid & FOS_SET_GID.rawValue != 0, !(owns && (turn.actor.isIn(set.gid) || set.gid == inode.pointee.gid)) { return -EPERM }
        if valid & FOS_SET_MODE.rawValue != 0, !owns { return -EPERM }
        // Without owning it, whoever may write may set both times to the present, and nothing else (utimensat(2)); a
        // truncation, which has its own rule above, marks the file modified.
        let presents = FOS_SET_ACCESSED_NOW.rawValue | FOS_SET_MODIFIED_NOW.rawValue
        if valid & (FOS_SET_ACCESSED.rawValue | FOS_SET_MODIFIED.rawValue | FOS_SET_CHANGED.rawValue) != 0, !owns { return -EPERM }
        if valid & presents != 0, valid & FOS_SET_SIZE.rawValue == 0, !owns {
            if valid & presents != presents { return -EPERM }
            if !turn.actor.may(Access.write, inode) { return -EACCES }
        }
        // A chown that changes no owner still takes privilege away, which only the owner may if there is some.
        if valid & FOS_SET_KILL_PRIVILEGE.rawValue != 0, valid & FOS_SET_SIZE.rawValue == 0, !owns,
            inode.pointee.mode != inode.pointee.modeWithoutPrivilege
        {
            return -EPERM
        }
        return 0
    }

    /// Setuid, setgid and file capabilities go, as after a write by someone without CAP_FSETID. True: one of them did.
    @discardableResult mutating func dropPrivilege(_ inode: InodePointer) -> Bool {
        if inode.isDirectory { return false }
        let before = inode.pointee.mode
        inode.pointee.mode = inode.pointee.modeWithoutPrivilege
        if !inode.pointee.xattrs.isEmpty {
            let name: StaticString = "security.capability"
            let capability = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
            if inode.pointee.xattrs.remove(capability, &arena, &pool) { return true }
        }
        return inode.pointee.mode != before
    }

    mutating func readLink<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard inode.isSymlink else { return answer(-EINVAL, kernel) }
        let target = inode.symlink.pointee.bytes
        let count = min(UInt32(target.count), request.message.pointee.bulk_length)
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: count) else {
            return answer(-EINVAL, kernel)
        }
        room.copyMemory(from: UnsafeRawBufferPointer(rebasing: target[0..<Int(count)]))
        markAccessed(inode, kernel)
        let message = kernel.scratch()
        message.pointee.bulk_length = count
        deliver(message, kernel)
    }

    mutating func access<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        let wanted = UInt32(request.message.pointee.flags)
        guard wanted & ~7 == 0 else { return answer(-EINVAL, kernel) }
        // The question is the operation here, so it is answered for the front end too.
        var actor = turn.actor
        actor.isChecked = true
        answer(actor.may(wanted, inode) ? 0 : -EACCES, kernel)
    }
}
