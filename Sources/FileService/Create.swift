// New inodes: CREATE, MKNOD, SYMLINK, TMPFILE, and MKDIR on this server. `Transaction+Insertion` has MKDIR elsewhere.
//
// Invariants: a file lives in its directory's slot; a directory in a slot of the next member. Memory is taken before
// anything is visible, so running out of space leaves no trace.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    // MARK: Operations

    mutating func create<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let make = request.fixed(fos_make_request.self), let name = request.name(after: fos_make_request.self, make.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        guard directory.isDirectory else { return answer(-ENOTDIR, kernel) }
        if NameForm(name) == .plain, turn.actor.may(Access.execute, directory), let dentry = directory.directory.pointee.find(name) {
            if dentry.pointee.flags.contains(.locked) { return answer(Status.retry, kernel) }
            if make.open_flags & OpenFlag.exclusive != 0 { return answer(-EEXIST, kernel) }
            if dentry.pointee.kind == Mode.directoryKind { return answer(-EISDIR, kernel) }
            if turn.isKernel { dentry.pointee.flags.insert(.kernelLease) }
            let child = dentry.pointee.inode
            guard isHere(child) else {
                request.message.pointee.operation = UInt16(FOS_OP_PEER_LOOKUP.rawValue)
                request.message.pointee.flags = 1
                request.message.pointee.inode = child
                return pass(request, to: ownerIndex(of: child), kernel)
            }
            guard let inode = inodes.find(child) else { return answer(isLost(child) ? -EIO : Status.retry, kernel) }
            return openExisting(inode, make, kernel)
        }
        let refusal = make.take_reference != 0 ? refusalToRefer() : 0
        guard refusal == 0 else { return answer(refusal, kernel) }
        guard let made = makeEntry(directory, name, mode: Mode.regular | make.mode & Mode.permissions, make, kernel) else { return }
        if make.take_reference != 0 { takeReference(made, make.open_flags, kernel) }
        let writes = make.take_reference != 0 && OpenFileTable.granted(make.open_flags) & Access.write != 0
        finish(made, in: directory, name, flags: UInt16(FOS_CREATED.rawValue), delegates: writes, kernel)
    }

    mutating func makeNode<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let make = request.fixed(fos_make_request.self), let name = request.name(after: fos_make_request.self, make.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        var type = make.mode & Mode.typeMask
        switch type {
        case 0: type = Mode.regular
        case Mode.regular, Mode.fifo, Mode.socket: break
        case Mode.characterDevice, Mode.blockDevice:
            // mknod(2) needs CAP_MKNOD, but for the whiteout device 0.
            guard turn.actor.isPrivileged || (type == Mode.characterDevice && make.device == 0) else { return answer(-EPERM, kernel) }
        case Mode.directory: return answer(-EPERM, kernel)
        default: return answer(-EINVAL, kernel)
        }
        guard let made = makeEntry(directory, name, mode: type | make.mode & Mode.permissions, make, kernel) else { return }
        if type == Mode.characterDevice || type == Mode.blockDevice { made.pointee.device = make.device }
        finish(made, in: directory, name, kernel)
    }

    mutating func symlink<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let link = request.fixed(fos_symlink_request.self), let name = request.name(after: fos_symlink_request.self, link.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        guard link.target_length > 0 else { return answer(-ENOENT, kernel) }
        guard link.target_length <= UInt32(FOS_SYMLINK_BYTES_MAX) else { return answer(-ENAMETOOLONG, kernel) }
        guard let target = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: link.target_length) else {
            return answer(-EINVAL, kernel)
        }
        guard let made = makeEntry(directory, name, mode: Mode.symlink | 0o777, nil, kernel) else { return }
        guard made.symlink.pointee.set(UnsafeRawBufferPointer(target), &arena, &pool) else {
            if let dentry = directory.directory.pointee.find(name) { directory.directory.pointee.remove(dentry, &arena, &pool) }
            inodes.remove(made, &arena, &pool)
            return needCredits(Limits.creditsOfMetadata, kernel)
        }
        finish(made, in: directory, name, kernel)
    }

    mutating func makeTemporaryFile<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let make = request.fixed(fos_make_request.self) else { return answer(-EINVAL, kernel) }
        guard directory.isDirectory else { return answer(-ENOTDIR, kernel) }
        guard turn.actor.may(Access.write | Access.execute, directory) else { return answer(-EACCES, kernel) }
        if directory.pointee.flags.contains(.dead) { return answer(-ENOENT, kernel) }
        let refusal = make.take_reference != 0 ? refusalToRefer() : 0
        guard refusal == 0 else { return answer(refusal, kernel) }
        guard let slot = slotForFile(in: directory) else { return answer(Status.retry, kernel) }
        guard let inode = makeInode(slot: slot, kernel) else { return needCredits(Limits.creditsOfMetadata, kernel) }
        let (mode, gid) = turn.actor.inherit(mode: Mode.regular | make.mode & Mode.permissions & ~(make.umask & 0o777), from: directory)
        describe(inode, mode: mode, gid: gid, kernel)
        inode.pointee.links = 0
        if make.open_flags & OpenFlag.exclusive == 0 { inode.pointee.flags.insert(.linkable) }
        if make.take_reference != 0 { takeReference(inode, make.open_flags, kernel) }
        committed(.inode(inode), kernel)
        answerEntry(inode, flags: UInt16(FOS_CREATED.rawValue), kernel)
        // Nobody refers to it: it is gone before it had a name.
        releaseIfUnused(inode, kernel)
    }

    mutating func makeDirectory<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let make = request.fixed(fos_make_request.self), let name = request.name(after: fos_make_request.self, make.name_length)
        else {
            return answer(-EINVAL, kernel)
        }
        guard mayInsert(directory, name, kernel) else { return }
        guard directory.pointee.links < Limits.linksMax else { return answer(-EMLINK, kernel) }
        guard let slot = slotForDirectory() else { return answer(Status.retry, kernel) }
        let permissions = make.mode & 0o1777 & ~(make.umask & 0o777)
        let (mode, gid) = turn.actor.inherit(mode: Mode.directory | permissions, from: directory)
        guard slots.owner(ofSlot: slot) == member else {
            return beginMakeDirectory(directory, name, slot: slot, mode: mode, gid: gid, kernel)
        }
        guard mayRevoke(directory.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        guard let inode = makeInode(slot: slot, kernel) else { return needCredits(Limits.creditsOfMetadata, kernel) }
        guard let dentry = directory.directory.pointee.insert(name, inode: inode.pointee.number, kind: Mode.directoryKind, &arena, &pool)
        else {
            inodes.remove(inode, &arena, &pool)
            return needCredits(Limits.creditsOfMetadata, kernel)
        }
        describe(inode, mode: mode, gid: gid, kernel)
        inode.pointee.parent = directory.pointee.directoryNumber
        if turn.isKernel { dentry.pointee.flags.insert(.kernelLease) }
        addSubdirectory(directory)
        finish(inode, in: directory, name, kernel)
    }

    // MARK: Parts

    /// Whether a name may be added to a directory now; if not, the request is answered.
    mutating func mayInsert<K: Kernel>(_ directory: InodePointer, _ name: UnsafeRawBufferPointer, _ kernel: K) -> Bool {
        let status = refusalToInsert(directory, name)
        if status != 0 { answer(status, kernel) }
        return status == 0
    }
    func refusalToInsert(_ directory: InodePointer, _ name: UnsafeRawBufferPointer) -> Int32 {
        guard directory.isDirectory else { return -ENOTDIR }
        let bad = NameForm(name).error(dots: -EEXIST)
        guard bad == 0 else { return bad }
        guard turn.actor.may(Access.execute, directory) else { return -EACCES }
        if NameForm.isReserved(name, in: directory.pointee.directoryNumber) { return -EEXIST }
        if let dentry = directory.directory.pointee.find(name) { return dentry.pointee.flags.contains(.locked) ? Status.retry : -EEXIST }
        if directory.pointee.flags.contains(.dead) { return -ENOENT }
        guard turn.actor.may(Access.write, directory) else { return -EACCES }
        return 0
    }

    /// A new inode of this server with its name, not yet announced. nil: the request is answered, or waits for credits.
    private mutating func makeEntry<K: Kernel>(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, mode: UInt32, _ make: fos_make_request?, _ kernel: K
    ) -> InodePointer? {
        guard mayInsert(directory, name, kernel) else { return nil }
        guard mayRevoke(directory.pointee.leases, kernel) else {
            answer(Status.retry, kernel)
            return nil
        }
        guard let slot = slotForFile(in: directory) else {
            answer(Status.retry, kernel)
            return nil
        }
        guard let inode = makeInode(slot: slot, kernel) else {
            needCredits(Limits.creditsOfMetadata, kernel)
            return nil
        }
        guard let dentry = directory.directory.pointee.insert(name, inode: inode.pointee.number, kind: Mode.kind(mode), &arena, &pool)
        else {
            inodes.remove(inode, &arena, &pool)
            needCredits(Limits.creditsOfMetadata, kernel)
            return nil
        }
        if turn.isKernel { dentry.pointee.flags.insert(.kernelLease) }
        let (inherited, gid) = turn.actor.inherit(mode: mode & ~((make?.umask ?? 0) & 0o777), from: directory)
        describe(inode, mode: inherited, gid: gid, kernel)
        return inode
    }

    /// An inode of zeros but for its number and times.
    mutating func makeInode<K: Kernel>(slot: Int, _ kernel: K) -> InodePointer? {
        guard let inode = inodes.create(slot: slot, &arena, &pool) else { return nil }
        kernel.mayChange(inode: inode.pointee.number)
        let now = time(kernel)
        inode.pointee.accessed = now
        inode.pointee.modified = now
        inode.pointee.changed = now
        inode.pointee.born = now
        return inode
    }

    /// Gives a new inode its identity and content.
    mutating func describe<K: Kernel>(_ inode: InodePointer, mode: UInt32, gid: UInt32, _ kernel: K) {
        inode.pointee.mode = mode
        inode.pointee.uid = turn.actor.uid
        inode.pointee.gid = gid
        inode.pointee.links = 1
        if mode & Mode.typeMask == Mode.directory {
            inode.pointee.links = 2
            inode.directory.initialize(to: Directory(seed: kernel.random()))
        }
    }

    /// Announces a new entry whose inode is here, and answers.
    private mutating func finish<K: Kernel>(
        _ inode: InodePointer, in directory: InodePointer, _ name: UnsafeRawBufferPointer, flags: UInt16 = 0, delegates: Bool = false,
        _ kernel: K
    ) {
        markEntriesModified(directory, inode.pointee.born)
        committed(.inode(inode), kernel)
        committed(
            .entry(
                record: directory.pointee.number, name: name, inode: inode.pointee.number, kind: Mode.kind(inode.pointee.mode),
                place: directory.directory.pointee.nextCookie - 1), kernel)
        committedEntry(directory, name, kernel)
        revokeEntry(directory, name, child: 0, wasHeld: false, kernel)
        answerEntry(inode, in: directory, flags: flags, delegates: delegates, kernel)
        considerSpreading(directory, kernel)
    }

    @inline(__always) func addSubdirectory(_ directory: InodePointer) {
        directory.pointee.subdirectories &+= 1
        directory.pointee.links &+= 1
    }
    @inline(__always) func removeSubdirectory(_ directory: InodePointer) {
        precondition(directory.pointee.subdirectories > 0, "a directory loses a subdirectory that it has not")
        directory.pointee.subdirectories -= 1
        directory.pointee.links -= 1
    }
}
