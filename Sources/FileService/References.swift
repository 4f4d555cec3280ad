// What keeps an inode: links, the kernel's lookups, and the open files of other clients.
//
// Protocol: the kernel counts a reference with every answer that gives it an inode and returns them by FORGET; other
// clients take references by OPEN, CREATE and TMPFILE, return them by RELEASE, and lose them all when they die.
// Invariants: an inode without links and references is freed at once with its pages; once the kernel holds no
// reference it holds no lease either.

import CFosWire
import Fleet
import FileStorage
import Glibc
import Messaging

extension InodeFlags {
    /// An O_TMPFILE file that may still get a name.
    static var linkable: InodeFlags { InodeFlags(rawValue: 4) }
    /// The kernel has had pages since it came to know the file: a program may have it mapped.
    static var kernelMaps: InodeFlags { InodeFlags(rawValue: 16) }
}

extension FileServer {
    /// Frees an inode that nothing keeps. The pointer is void afterwards if it did.
    mutating func releaseIfUnused<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard inode.pointee.links == 0, inode.pointee.kernelReferences == 0, inode.pointee.references == 0 else { return }
        // One that is on its way is freed where it arrives.
        if motion.giving?.inode == inode { return }
        precondition(inode.pointee.busy == 0, "an inode is freed under a transaction")
        locks.releaseAll(inode, &arena, &pool)
        leaveRegion(inode, kernel)
        dropDelegation(of: inode, kernel)
        committed(.freed(inode.pointee.number), kernel)
        if inode.isRegular { discardPages(inode) }
        inodes.remove(inode, &arena, &pool)
    }

    // MARK: The kernel's references

    /// FORGET: an array of items, whose inodes may have different owners. Takes its own items out and passes the rest
    /// on to the next owner; the last one answers. One item that gives nothing back asks how many references there are.
    mutating func forget<K: Kernel>(_ request: Request, _ kernel: K) {
        let itemBytes = MemoryLayout<fos_forget_item>.size
        let payload = request.payload
        guard turn.isKernel else { return answer(-EPERM, kernel) }
        guard payload.count <= Int(FOS_PAYLOAD_BYTES_MAX), payload.count % itemBytes == 0 else { return answer(-EINVAL, kernel) }
        if payload.count == itemBytes {
            let item = payload.loadUnaligned(as: fos_forget_item.self)
            if item.count == 0, isHere(item.inode) { return answer(referencesOf: item.inode, kernel) }
        }
        // If the rest may have to wait for a full mailbox, there must be room to keep it before anything is forgotten.
        if continuations.isFull, members.count > 1 { return answer(Status.retry, kernel) }
        if let moving = motion.giving?.inode {
            for offset in stride(from: 0, to: payload.count, by: itemBytes)
            where payload.loadUnaligned(fromByteOffset: offset, as: fos_forget_item.self).inode == moving.pointee.number {
                motion.delayed += 1
                return answer(Status.retry, kernel)
            }
        }
        var rest = 0
        for offset in stride(from: 0, to: payload.count, by: itemBytes) {
            let item = payload.loadUnaligned(fromByteOffset: offset, as: fos_forget_item.self)
            if isHere(item.inode) || isNowhere(item.inode, request) {
                forget(item, kernel)
            } else {
                payload.storeBytes(of: item, toByteOffset: rest, as: fos_forget_item.self)
                rest += itemBytes
            }
        }
        request.message.pointee.length = UInt32(rest)
        guard rest > 0 else { return answer(0, kernel) }
        let next = payload.loadUnaligned(as: fos_forget_item.self).inode
        // What is left of a slot that this server gives away its taker has, or nobody.
        request.envelope.pointee.settled = motion.giving?.taker == ownerIndex(of: next) ? Settled.inode : 0
        if kernel.forward(request.letter, to: owner(of: next)) == .sent { return }
        var state = Continuation(.passing)
        state.target = next
        state.isDecided = true
        guard let id = keep(state, kernel) else { preconditionFailure("the room for a rest was checked") }
        owe(id, .letter)
    }

    private mutating func answer<K: Kernel>(referencesOf inode: UInt64, _ kernel: K) {
        let message = kernel.scratch()
        message.setBody(fos_forget_item(inode: inode, count: inodes.find(inode)?.pointee.kernelReferences ?? 0))
        deliver(message, kernel)
    }

    private mutating func forget<K: Kernel>(_ item: fos_forget_item, _ kernel: K) {
        guard let inode = inodes.find(item.inode) else { return }
        let held = inode.pointee.kernelReferences
        inode.pointee.kernelReferences = held > item.count ? held - item.count : 0
        guard inode.pointee.kernelReferences == 0 else { return }
        // Leases on names of a directory stay with its entries; what the kernel knew of the inode it has dropped.
        inode.pointee.leases = []
        inode.pointee.flags.remove(.kernelMaps)
        releaseIfUnused(inode, kernel)
    }

    /// Sends on a letter that met a full mailbox.
    mutating func sendLetter<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        // What a member that is gone for good should have been told is nobody's to know.
        guard !members.isDead(ownerIndex(of: state.pointee.target)) else { return }
        if kernel.forward(letters + index(id), to: owner(of: state.pointee.target)) != .sent { owe(id, .letter) }
    }

    // MARK: References of other clients

    /// Whether the client of the turn's request still lives. One that was forwarded, or waited, can come after the news
    /// of its client's death; what it took then would never be given back. The bulk area goes with the client.
    func clientLives<K: Kernel>(_ kernel: K) -> Bool {
        guard let letter = turn.letter else { return false }
        return kernel.bulk(of: Request(letter: letter).envelope, offset: 0, count: 0) != nil
    }

    /// The error of taking a reference for the turn's client; 0 if it may.
    func refusalToRefer() -> Int32 {
        guard !turn.isKernel, let letter = turn.letter else { return 0 }
        return openFiles.refusal(Request(letter: letter).envelope.pointee.client)
    }

    /// Counts a reference of the turn's client. Nothing refuses it.
    mutating func takeReference<K: Kernel>(_ inode: InodePointer, _ openFlags: UInt32, _ kernel: K) {
        guard !turn.isKernel, clientLives(kernel), let letter = turn.letter else { return }
        openFiles.add(Request(letter: letter).envelope.pointee.client, inode, granted: OpenFileTable.granted(openFlags))
    }

    mutating func open<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_open_request.self) else { return answer(-EINVAL, kernel) }
        openInode(inode, wanted.open_flags, takeReference: true, countLookup: false, bringing: wanted.room, kernel)
    }

    /// CREATE of a name that exists.
    mutating func openExisting<K: Kernel>(_ inode: InodePointer, _ make: fos_make_request, _ kernel: K) {
        openInode(inode, make.open_flags, takeReference: make.take_reference != 0, countLookup: true, kernel)
    }

    private mutating func openInode<K: Kernel>(
        _ inode: InodePointer, _ flags: UInt32, takeReference: Bool, countLookup: Bool, bringing room: UInt32 = 0, _ kernel: K
    ) {
        let granted = OpenFileTable.granted(flags)
        let writes = granted & Access.write != 0
        let truncates = flags & OpenFlag.truncate != 0
        if inode.isDirectory, writes || truncates || countLookup { return answer(-EISDIR, kernel) }
        if inode.isSymlink { return answer(-ELOOP, kernel) }
        if flags & OpenFlag.directory != 0, !inode.isDirectory { return answer(-ENOTDIR, kernel) }
        guard turn.actor.may(granted | (truncates ? Access.write : 0), inode) else { return answer(-EACCES, kernel) }
        if flags & OpenFlag.noAccessTime != 0, !turn.actor.owns(inode.pointee.uid) { return answer(-EPERM, kernel) }
        let refusal = takeReference ? refusalToRefer() : 0
        guard refusal == 0 else { return answer(refusal, kernel) }
        if truncates, inode.isRegular {
            guard flushPages(inode, kernel) else { return }
            guard mayMovePages(inode, kernel) else { return }
            guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
            endWriting(inode, kernel)
            endDelegation(of: inode, kernel)
            if inode.pointee.size > 0 { resize(inode, to: 0) }
            if !turn.actor.isPrivileged { dropPrivilege(inode) }
            markModified(inode, time(kernel))
            committed(.inode(inode), kernel)
            revokeData(inode, kernel)
        }
        if takeReference { self.takeReference(inode, flags, kernel) }
        let rewrites = truncates && writes && takeReference
        if countLookup { return answerEntry(inode, delegates: rewrites, kernel) }
        if room > 0, mayBring(inode, flags, room) { return answerBringing(inode, kernel) }
        answer(attributesOf: inode, delegates: rewrites, kernel)
    }

    /// Whether the content may come along with an OPEN: it cannot change unseen, and the reading can be left to the client.
    private mutating func mayBring(_ inode: InodePointer, _ flags: UInt32, _ room: UInt32) -> Bool {
        guard inode.isRegular, !turn.isKernel, flags & (OpenFlag.accessMode | OpenFlag.truncate | OpenFlag.noAccessTime | OpenFlag.path) == 0
        else { return false }
        return inode.pointee.size > 0 && inode.pointee.size <= UInt64(min(room, UInt32(FOS_TRANSFER_BYTES_MAX))) && !mayChangeUnseen(inode)
    }

    private mutating func answerBringing<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard let letter = turn.letter else { return }
        let request = Request(letter: letter), count = UInt32(inode.pointee.size)
        let isDue = isAccessDue(inode, time(kernel))
        guard !isDue || mayDelegate(inode),
            let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: count)
        else { return answer(attributesOf: inode, kernel) }
        // What others keep of the access time is not to be trusted from now on.
        if isDue { kernel.changed(inode: inode.pointee.number) }
        let message = kernel.scratch()
        message.setBody(attributes(of: inode, kernel))
        guard !isDue || delegate(inode, writes: false, in: message, kernel) else { return deliver(message, kernel) }
        readBytes(inode, at: 0, into: room)
        message.pointee.bulk_length = count
        deliver(message, kernel)
    }

    /// LOOKUP_OPEN: gives the kernel an inode that one of a process's own connections has open, with or without a name.
    mutating func lookupOpen<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard turn.isKernel else { return answer(-EPERM, kernel) }
        guard let wanted = request.fixed(fos_lookup_open_request.self) else { return answer(-EINVAL, kernel) }
        // A directory has one place in the kernel's tree, and would be moved from it; one that was removed has none.
        guard wanted.pid != 0, !inode.isDirectory || inode.pointee.links == 0, inode.pointee.references > 0 else { return answer(-ENOENT, kernel) }
        var client = kernel.client(ofProcess: wanted.pid, after: nil)
        while let one = client {
            if openFiles.contains(one, inode.pointee.number) { return answerEntry(inode, kernel) }
            client = kernel.client(ofProcess: wanted.pid, after: one)
        }
        answer(-ENOENT, kernel)
    }

    mutating func release<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let release = request.fixed(fos_release_request.self) else { return answer(-EINVAL, kernel) }
        let client = request.envelope.pointee.client
        answer(0, kernel)
        if release.flags & FOS_RELEASE_LOCKS.rawValue != 0 {
            locks.releaseFlock(inode, owner: LockOwner(id: release.owner, client: client), &arena, &pool)
            // Locks of open file descriptions go with their description.
            locks.release(inode, owner: LockOwner(id: release.owner, client: client, isDescription: true), &arena, &pool)
            answerLocks(kernel)
        }
        if !turn.isKernel {
            openFiles.remove(client, inode, release.count, granted: OpenFileTable.granted(release: release.flags))
        }
        releaseIfUnused(inode, kernel)
    }

    /// The reference that a client's request brings along (fos/message.h). A server that passed the request on, and
    /// does not own this inode either, leaves it to the next.
    mutating func releaseGiven<K: Kernel>(_ request: Request, _ kernel: K) {
        let number = request.message.pointee.given
        guard request.envelope.pointee.sender_kind == UInt8(FOS_SENDER_CLIENT.rawValue),
            request.envelope.pointee.rights & UInt16(FOS_RIGHT_KERNEL_CACHE.rawValue) == 0, isHere(number), let inode = inodes.find(number)
        else { return }
        let granted = OpenFileTable.granted(release: UInt32(request.message.pointee.given_for))
        openFiles.remove(request.envelope.pointee.client, inode, 1, granted: granted)
        releaseIfUnused(inode, kernel)
    }

    /// Whether data may be read or written: by the mode, or because the client opened it when the mode still let it.
    @inline(__always) func mayUse(_ inode: InodePointer, _ wanted: UInt32) -> Bool {
        if turn.actor.may(wanted, inode) { return true }
        guard let letter = turn.letter else { return false }
        return openFiles.granted(Request(letter: letter).envelope.pointee.client, inode.pointee.number) & wanted == wanted
    }

    /// Whether the turn's client has the inode open, for whatever.
    func hasOpen(_ inode: InodePointer) -> Bool {
        guard let letter = turn.letter else { return false }
        return openFiles.contains(Request(letter: letter).envelope.pointee.client, inode.pointee.number)
    }

    // MARK: Death

    /// A client has died: its locks, references and waiting requests go. The kernel's references go with the front end.
    mutating func clientGone<K: Kernel>(_ client: UInt32, _ kernel: K) {
        for index in 0..<Limits.lockWaiters {
            guard waiters.count > 0 else { break }
            guard let id = waiters.id(at: index), let envelope = waiters.state(id), envelope.pointee.client == client else { continue }
            waiters.remove(id)
        }
        locks.releaseAll(client: client, &arena, &pool)
        endLoans(of: client)
        forgetWriter(kernel)
        endDelegations(of: client, kernel)
        answerLocks(kernel)
        var position = 0
        while let held = openFiles.removeNext(of: client, from: &position) {
            guard let inode = inodes.find(held.inode) ?? beingTaken(held.inode) else { preconditionFailure("a reference to no inode") }
            inode.pointee.references -= held.count
            if inode != motion.taking?.inode { releaseIfUnused(inode, kernel) }
        }
        if kernel.kernelCacheClient == nil {
            dropKernelReferences(kernel)
            forgetAcknowledgements(kernel)
        }
    }

    private mutating func dropKernelReferences<K: Kernel>(_ kernel: K) {
        absentNames.removeAll()
        for slot in 0..<SlotTable.slots where inodes.count(slot: slot) > 0 {
            var index: UInt64 = 0
            while let inode = inodes.next(slot: slot, from: index) {
                index = inode.pointee.number / UInt64(FOS_SLOTS) + 1
                inode.pointee.kernelReferences = 0
                inode.pointee.leases = []
                inode.pointee.flags.remove(.kernelMaps)
                releaseIfUnused(inode, kernel)
            }
        }
    }
}
