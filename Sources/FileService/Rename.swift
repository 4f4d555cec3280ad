// RENAME whose names, parents, moved inode and victim are all here: one step, no message.
//
// Role: the common case. Anything else goes to `Transaction+Rename`, which has the same rules in the same order; both
// share the parts below.
// Rules: rename(2) as Linux has it. A directory that changes its parent must not come below itself (EINVAL); moves of
// directories between parents are serialised over the whole fleet by the tree lock of member 0, so the walk from the
// new parent to the root sees a tree that no other move is changing.

import CFosWire
import FileStorage
import Glibc
import Messaging

/// The names and flags of a RENAME.
struct RenameNames {
    var old: UnsafeRawBufferPointer
    var new: UnsafeRawBufferPointer
    var newParent: UInt64
    /// enum fos_peer_flag
    var flags: UInt32
    var isExchange: Bool { flags & FOS_PEER_EXCHANGE.rawValue != 0 }

    init?(_ request: Request) {
        guard let fixed = request.fixed(fos_rename_request.self),
            let old = request.name(after: fos_rename_request.self, fixed.old_length),
            let new = request.bytes(at: MemoryLayout<fos_rename_request>.size + old.count, count: fixed.new_length)
        else { return nil }
        self.old = old
        self.new = new
        newParent = fixed.new_parent
        switch fixed.flags {
        case 0: flags = 0
        case 1: flags = FOS_PEER_NO_REPLACE.rawValue
        case 2: flags = FOS_PEER_EXCHANGE.rawValue
        default: return nil
        }
    }
}

/// How a walk from a directory towards the root ended.
enum Walk {
    case found, root
    /// A number on the way is not a directory: -ENOTDIR, or is gone: -ENOENT.
    case broken(Int32)
    case elsewhere(UInt64)
}

extension FileServer {
    mutating func rename<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let names = RenameNames(request) else { return answer(-EINVAL, kernel) }
        let (status, found) = oldName(directory, names.old)
        guard let dentry = found else { return answer(status, kernel) }
        let bad = NameForm(names.new).error(dots: -EBUSY)
        guard bad == 0 else { return answer(bad, kernel) }
        if dentry.pointee.kind == Mode.directoryKind, names.newParent == dentry.pointee.inode { return answer(-EINVAL, kernel) }
        switch placeToChange(names.new, in: names.newParent, kernel) {
        case .here(let newDirectory): if renameHere(directory, dentry, newDirectory, names, kernel) { return }
        case .elsewhere: break
        case .moving: return answer(Status.retry, kernel)
        case .gone: return answer(isLost(names.newParent) ? -EIO : -ESTALE, kernel)
        case .lost: return answer(-EIO, kernel)
        }
        beginRename(directory, dentry, names, kernel)
    }

    /// True: done, and answered. False: it takes a transaction.
    private mutating func renameHere<K: Kernel>(
        _ directory: InodePointer, _ dentry: DentryPointer, _ newDirectory: InodePointer, _ names: RenameNames, _ kernel: K
    ) -> Bool {
        let source = dentry.pointee.inode
        let kind = dentry.pointee.kind
        let isDirectory = kind == Mode.directoryKind
        let moves = newDirectory.pointee.directoryNumber != directory.pointee.directoryNumber
        let (status, target) = newName(newDirectory, names.new, source: source, kind: kind, moves: moves, flags: names.flags)
        if status != 0 {
            answer(status, kernel)
            return true
        }
        if let target, target.pointee.inode == source {
            answer(0, kernel)
            return true
        }
        let victimNumber = target?.pointee.inode ?? 0
        guard isHere(source), target == nil || isHere(victimNumber) else { return false }
        let victim = target == nil ? nil : inodes.find(victimNumber)
        precondition(target == nil || victim != nil || isLost(victimNumber), "an entry leads to no inode")
        guard let inode = inodes.find(source), !names.isExchange || victim != nil else {
            precondition(inodes.find(source) != nil || isLost(source), "an entry leads to no inode")
            answer(-EIO, kernel)
            return true
        }
        let victimIsDirectory = victim?.isDirectory ?? false

        var refusal: Int32 = 0
        if moves, isDirectory || (names.isExchange && victimIsDirectory) {
            // Without the tree lock the walk means nothing. Here it is only known to be free by the member that has it.
            if members.count > 1, member != 0 || treeIsLocked { return false }
            if isDirectory {
                switch walkUp(from: names.newParent, seek: source) {
                case .found: refusal = -EINVAL
                case .broken(let status): refusal = status
                case .root: break
                case .elsewhere: return false
                }
            }
            if names.isExchange, victimIsDirectory, refusal == 0 {
                switch walkUp(from: directory.pointee.directoryNumber, seek: victimNumber) {
                case .found: refusal = -EINVAL
                case .broken(let status): refusal = status
                case .root: break
                case .elsewhere: return false
                }
            }
        }
        if refusal == 0 {
            refusal = refusalToMove(
                from: directory.pointee.mode, directory.pointee.uid, moves: moves,
                mode: inode.pointee.mode, uid: inode.pointee.uid, gid: inode.pointee.gid)
        }
        if refusal == 0, let victim {
            refusal = refusalToMove(
                from: newDirectory.pointee.mode, newDirectory.pointee.uid, moves: moves && names.isExchange,
                mode: victim.pointee.mode, uid: victim.pointee.uid, gid: victim.pointee.gid)
            if refusal == 0, !names.isExchange, victimIsDirectory {
                guard isWhole(victim, kernel) else { return true }
                refusal = refusalToEmpty(victim)
            }
        }
        guard refusal == 0 else {
            answer(refusal, kernel)
            return true
        }
        let leases = directory.pointee.leases.union(newDirectory.pointee.leases).union(inode.pointee.leases)
            .union(victim?.pointee.leases ?? [])
        let isHeld = dentry.pointee.flags.contains(.kernelLease) || (target?.pointee.flags.contains(.kernelLease) ?? false)
        guard mayRevoke(leases, entry: isHeld, kernel) else {
            answer(Status.retry, kernel)
            return true
        }
        let entry: DentryPointer
        if let target {
            entry = target
        } else {
            guard let made = newDirectory.directory.pointee.insert(names.new, inode: 0, kind: kind, &arena, &pool) else {
                needCredits(Limits.creditsOfMetadata, kernel)
                return true
            }
            made.pointee.flags = .placeholder
            entry = made
        }

        if names.isExchange, let victim {
            setEntry(directory, dentry, names.old, inode: victimNumber, kind: Mode.kind(victim.pointee.mode), kernel)
            setEntry(newDirectory, entry, names.new, inode: source, kind: kind, kernel)
            moved(victim, to: directory.pointee.directoryNumber, kernel)
        } else {
            let isGone = victim.map { isLastName(of: $0) } ?? false
            if let victim { revokeAttributes(victim, kernel) }
            removeEntry(directory, dentry, names.old, kernel)
            setEntry(newDirectory, entry, names.new, inode: source, kind: kind, isGone: isGone, kernel)
            if let victim { if victimIsDirectory { killDirectory(victim, kernel) } else { dropLink(victim, kernel) } }
        }
        moved(inode, to: names.newParent, kernel)
        if names.isExchange { answer(0, kernel) } else { answerRename(of: inode, from: directory, to: newDirectory, kernel) }
        return true
    }

    /// The answer to a name that was moved: with what its mover need not ask for (`answerEntry(_:in:)`).
    private mutating func answerRename<K: Kernel>(
        of inode: InodePointer, from directory: InodePointer, to newDirectory: InodePointer, _ kernel: K
    ) {
        if turn.isKernel || inode.pointee.isSharded || directory.pointee.isSharded || newDirectory.pointee.isSharded { return answer(0, kernel) }
        let message = kernel.scratch()
        message.setBody(fos_made(made: attributes(of: inode, kernel), directory: attributes(of: newDirectory, kernel)))
        if directory != newDirectory { add(attributesOf: directory, to: message, kernel) }
        deliver(message, kernel)
    }

    // MARK: Parts shared with the transaction

    /// The entry that is to be renamed, or why not.
    func oldName(_ directory: InodePointer, _ name: UnsafeRawBufferPointer) -> (Int32, DentryPointer?) {
        guard directory.isDirectory else { return (-ENOTDIR, nil) }
        let bad = NameForm(name).error(dots: -EBUSY)
        guard bad == 0 else { return (bad, nil) }
        guard turn.actor.may(Access.execute, directory) else { return (-EACCES, nil) }
        guard let dentry = directory.directory.pointee.find(name) else { return (-ENOENT, nil) }
        if dentry.pointee.flags.contains(.locked) { return (Status.retry, nil) }
        guard turn.actor.may(Access.write, directory) else { return (-EACCES, nil) }
        return (0, dentry)
    }

    /// What the new name means now, or why it cannot take the source.
    func newName(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, source: UInt64, kind: UInt8, moves: Bool, flags: UInt32
    ) -> (Int32, DentryPointer?) {
        guard directory.isDirectory else { return (-ENOTDIR, nil) }
        if directory.pointee.flags.contains(.dead) { return (-ENOENT, nil) }
        guard turn.actor.may(Access.execute, directory) else { return (-EACCES, nil) }
        if NameForm.isReserved(name, in: directory.pointee.directoryNumber) { return (-EPERM, nil) }
        let isExchange = flags & FOS_PEER_EXCHANGE.rawValue != 0
        let found = directory.directory.pointee.find(name)
        if let dentry = found {
            if dentry.pointee.flags.contains(.locked) { return (Status.retry, nil) }
            if flags & FOS_PEER_NO_REPLACE.rawValue != 0 { return (-EEXIST, nil) }
            if dentry.pointee.inode == source { return (0, dentry) }
        } else if isExchange {
            return (-ENOENT, nil)
        }
        guard turn.actor.may(Access.write, directory) else { return (-EACCES, nil) }
        let isDirectory = kind == Mode.directoryKind
        if let dentry = found, !isExchange, isDirectory != (dentry.pointee.kind == Mode.directoryKind) {
            return (isDirectory ? -ENOTDIR : -EISDIR, nil)
        }
        if isDirectory, moves, found == nil, directory.pointee.links >= Limits.linksMax { return (-EMLINK, nil) }
        return (0, found)
    }

    /// The rules on an inode whose entry is to go from a directory; `moves`: to another one.
    func refusalToMove(from directoryMode: UInt32, _ directoryOwner: UInt32, moves: Bool, mode: UInt32, uid: UInt32, gid: UInt32) -> Int32 {
        guard turn.actor.mayRemove(from: directoryMode, directoryOwner, entryOwner: uid) else { return -EPERM }
        // A directory that moves has its ".." rewritten.
        if moves, mode & Mode.typeMask == Mode.directory, !turn.actor.may(Access.write, mode: mode, uid: uid, gid: gid) { return -EACCES }
        return 0
    }

    /// Points an entry (or fills a placeholder) at an inode: counts, times, store, leases. `isGone`: what it led to
    /// before has no other name.
    mutating func setEntry<K: Kernel>(
        _ directory: InodePointer, _ dentry: DentryPointer, _ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8,
        isGone: Bool = false, _ kernel: K
    ) {
        let wasPlaceholder = dentry.pointee.flags.contains(.placeholder)
        let wasHeld = dentry.pointee.flags.contains(.kernelLease)
        let before = dentry.pointee.inode
        if !wasPlaceholder, dentry.pointee.kind == Mode.directoryKind { removeSubdirectory(directory) }
        dentry.pointee.inode = inode
        dentry.pointee.kind = kind
        dentry.pointee.flags = turn.isKernel ? .kernelLease : []
        if kind == Mode.directoryKind { addSubdirectory(directory) }
        markEntriesModified(directory, time(kernel))
        committedName(directory, dentry)
        committedEntry(directory, name, kernel)
        revokeEntry(directory, name, child: wasPlaceholder ? 0 : before, wasHeld: wasHeld, isGone: isGone && !wasPlaceholder, kernel)
    }

    /// An inode that is here has got another entry; `parent` 0: in the same directory. Only the holder of the tree lock
    /// gives another one, so a late message never brings back an older parent.
    mutating func moved<K: Kernel>(_ inode: InodePointer, to parent: UInt64, _ kernel: K) {
        if inode.isDirectory, parent != 0 { inode.pointee.parent = parent }
        markChanged(inode, time(kernel))
        committed(.inode(inode), kernel)
        revokeAttributes(inode, kernel)
    }

    /// From a directory towards the root, as far as this server knows. Ends: parents form a tree.
    func walkUp(from start: UInt64, seek: UInt64) -> Walk {
        var current = start
        while true {
            if current == seek { return .found }
            if current == UInt64(FOS_ROOT_INODE) { return .root }
            // The parent of a directory that is on its way does not change.
            guard isHere(current) || onItsWay(current) != nil else { return .elsewhere(current) }
            guard let inode = inodes.find(current) else { return .broken(isLost(current) ? -EIO : -ENOENT) }
            guard inode.isDirectory else { return .broken(-ENOTDIR) }
            current = inode.pointee.parent
        }
    }
}
