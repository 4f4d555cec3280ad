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

/// A rename of which everything is here.
private struct LocalRename {
    let directory: InodePointer
    let dentry: DentryPointer
    let newDirectory: InodePointer
    /// What the new name is now, and the inode that it leads to.
    let target: DentryPointer?
    let inode: InodePointer
    let victim: InodePointer?
    /// To another directory.
    let moves: Bool
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
        let moves = newDirectory.pointee.directoryNumber != directory.pointee.directoryNumber
        let (status, target) = newName(
            newDirectory, names.new, source: source, kind: dentry.pointee.kind, moves: moves, flags: names.flags)
        // Both names of one inode: rename(2) does nothing.
        guard status == 0, target?.pointee.inode != source else {
            answer(status, kernel)
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
        kernel.mayChange(inode: source)
        let parts = LocalRename(
            directory: directory, dentry: dentry, newDirectory: newDirectory, target: target, inode: inode, victim: victim, moves: moves)
        guard var refusal = refusalOfCycle(parts, names) else { return false }
        if refusal == 0 { refusal = refusalByPermission(parts, names) }
        if refusal == 0, !names.isExchange, let victim, victim.isDirectory {
            guard isWhole(victim, kernel) else { return true }
            refusal = refusalToEmpty(victim)
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
        guard let entry = target ?? makePlaceholder(newDirectory, names.new, kind: dentry.pointee.kind) else {
            needCredits(Limits.creditsOfMetadata, kernel)
            return true
        }
        changeNames(parts, newEntry: entry, names, kernel)
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

    /// Whether a directory that changes its parent would come below itself, of both in an exchange: 0 or a negative errno. nil: only a
    /// transaction can tell, as the tree lock, or a directory on the way to the root, is elsewhere.
    private func refusalOfCycle(_ parts: LocalRename, _ names: RenameNames) -> Int32? {
        let isDirectory = parts.dentry.pointee.kind == Mode.directoryKind
        let movesVictim = names.isExchange && (parts.victim?.isDirectory ?? false)
        guard parts.moves, isDirectory || movesVictim else { return 0 }
        // Without the tree lock the walk means nothing. Here it is only known to be free by the member that has it.
        if members.count > 1, member != 0 || treeIsLocked { return nil }
        if isDirectory {
            let refusal = refusalToHang(below: names.newParent, parts.dentry.pointee.inode)
            if refusal != 0 { return refusal }
        }
        guard movesVictim, let target = parts.target else { return 0 }
        return refusalToHang(below: parts.directory.pointee.directoryNumber, target.pointee.inode)
    }

    private func refusalToHang(below parent: UInt64, _ directory: UInt64) -> Int32? {
        switch walkUp(from: parent, seek: directory) {
        case .found: -EINVAL
        case .broken(let status): status
        case .root: 0
        case .elsewhere: nil
        }
    }

    /// The rules on both entries that change: 0 or a negative errno.
    private func refusalByPermission(_ parts: LocalRename, _ names: RenameNames) -> Int32 {
        let refusal = refusalToMove(
            from: parts.directory.pointee.mode, parts.directory.pointee.uid, moves: parts.moves,
            mode: parts.inode.pointee.mode, uid: parts.inode.pointee.uid, gid: parts.inode.pointee.gid)
        guard refusal == 0, let victim = parts.victim else { return refusal }
        return refusalToMove(
            from: parts.newDirectory.pointee.mode, parts.newDirectory.pointee.uid, moves: parts.moves && names.isExchange,
            mode: victim.pointee.mode, uid: victim.pointee.uid, gid: victim.pointee.gid)
    }

    /// A locked entry for a name that is not there yet; nil: no memory for it.
    private mutating func makePlaceholder(_ directory: InodePointer, _ name: UnsafeRawBufferPointer, kind: UInt8) -> DentryPointer? {
        let made = directory.directory.pointee.insert(name, inode: 0, kind: kind, &arena, &pool)
        made?.pointee.flags = .placeholder
        return made
    }

    /// Nothing can fail any more: points both names at what they mean from now on.
    private mutating func changeNames<K: Kernel>(_ parts: LocalRename, newEntry: DentryPointer, _ names: RenameNames, _ kernel: K) {
        let source = parts.dentry.pointee.inode
        let kind = parts.dentry.pointee.kind
        if names.isExchange, let victim = parts.victim, let target = parts.target {
            setEntry(parts.directory, parts.dentry, names.old, inode: target.pointee.inode, kind: Mode.kind(victim.pointee.mode), kernel)
            setEntry(parts.newDirectory, newEntry, names.new, inode: source, kind: kind, kernel)
            return moved(victim, to: parts.directory.pointee.directoryNumber, kernel)
        }
        let isGone = parts.victim.map { isLastName(of: $0) } ?? false
        if let victim = parts.victim { revokeAttributes(victim, kernel) }
        removeEntry(parts.directory, parts.dentry, names.old, kernel)
        setEntry(parts.newDirectory, newEntry, names.new, inode: source, kind: kind, isGone: isGone, kernel)
        guard let victim = parts.victim else { return }
        if victim.isDirectory { killDirectory(victim, kernel) } else { dropLink(victim, kernel) }
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
