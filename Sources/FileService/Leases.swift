// Leases of the kernel's FUSE caches, and their revocation.
//
// Role: what an answer to the front end lets the kernel keep is recorded where it is answered: attributes, pages,
// and listings on the inode, entries on the entry, the absence of names in a set (`AbsentNames`), and on the inode that there are some.
// A change by any other client revokes what it makes untrue (the kernel itself knows of the changes it asked for).
// Protocol: a change is applied, its notices are sent, and its answer waits for the acknowledgements. Meanwhile every
// request is served from the new state, so the kernel, which may hold locks of its own while it asks us something,
// never waits for anything that waits for the kernel. Pages of files may be dirty, and are flushed first (Flush.swift).
// Invariants: a lease is cleared when its notice is sent, not before; room for notices is asked for before anything
// is changed; acknowledgements that nobody awaits are ignored.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    // MARK: Before a change

    /// Whether a change that makes these leases untrue may begin. False (the caller answers RETRY) when there is no
    /// room for its notices or for the continuation that awaits them.
    @inline(__always) func mayRevoke<K: Kernel>(_ leases: InodeLeases, entry: Bool = false, _ kernel: K) -> Bool {
        if turn.isKernel || (leases.isEmpty && !entry) { return true }
        return hasNoticeRoom(kernel)
    }

    func hasNoticeRoom<K: Kernel>(_ kernel: K) -> Bool {
        guard let client = kernel.kernelCacheClient else { return true }
        guard owedNotices.count == 0, kernel.noticeRoom(client: client) >= Limits.noticesOfOneChange else { return false }
        return turn.cookie != 0 || !continuations.isFull
    }

    // MARK: What the kernel may keep

    /// An answer gives the kernel pages of a file. It may map them for writing and change them without a word, so what
    /// other clients have kept of the data is not to be trusted from now on.
    @inline(__always) mutating func leasePages<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        if inode.pointee.leases.contains(.pages) { return }
        inode.pointee.leases.insert(.pages)
        inode.pointee.flags.insert(.kernelMaps)
        takeGrant(inode)
        kernel.changed(inode: inode.pointee.number)
    }

    /// An answer tells the kernel that a name is absent.
    mutating func leaseAbsence<K: Kernel>(of name: UnsafeRawBufferPointer, in directory: InodePointer, _ kernel: K) {
        directory.pointee.leases.insert(.negativeEntries)
        absentNames.insert(name, in: directory.pointee.directoryNumber, now: kernel.monotonic)
    }

    /// A directory, or a shard of one, has come from another server, with what the kernel was told there: nobody here knows which names
    /// are absent for it.
    mutating func takeAbsences<K: Kernel>(in directory: InodePointer, _ kernel: K) {
        guard directory.pointee.leases.contains(.negativeEntries) else { return }
        absentNames.insertAll(of: directory.pointee.directoryNumber, now: kernel.monotonic)
    }

    /// Whether data may change without the inode's epoch: no client keeps what it is told of it now.
    @inline(__always) func mayChangeUnseen(_ inode: InodePointer) -> Bool { mayHoldPages(inode) || isWritten(inode) }

    // MARK: After a change

    /// The size has changed. Pages that a program maps end at the size that the kernel has seen last, and it does not ask when
    /// one is touched: whoever changed the size makes it ask.
    @inline(__always) mutating func noteSize(_ inode: InodePointer) {
        if !turn.isKernel, inode.pointee.flags.contains(.kernelMaps) { turn.looksAgain = true }
    }

    /// Attributes of an inode have changed.
    @inline(__always) mutating func revokeAttributes<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        // Of what has just been told to go, others may not be told that it has gone.
        if turn.isKernel { return }
        guard inode.pointee.leases.contains(.attributes) || inode.pointee.leases.contains(.leaving) else { return }
        inode.pointee.leases.remove(.attributes)
        notify(FOS_NOTICE_INODE_ATTRIBUTES, inode.pointee.directoryNumber, kernel)
    }

    /// Data of a file, and with it attributes, have changed.
    @inline(__always) mutating func revokeData<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        if turn.isKernel || inode.pointee.leases.isEmpty { return }
        if inode.pointee.leases.contains(.pages) { revokePages(inode, flushes.begin(), kernel) } else { revokeAttributes(inode, kernel) }
    }

    /// A write of the kernel's own took setuid away, which the answer of a write cannot tell it. Nobody waits for this.
    mutating func tellKernelOfMode<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard turn.isKernel, let client = kernel.kernelCacheClient else { return }
        _ = tell(client, FOS_NOTICE_INODE_ATTRIBUTES, inode.pointee.number, kernel)
    }

    /// Sends the front end a notice about an inode that is not acknowledged. False: there is no room for it.
    func tell<K: Kernel>(_ client: UInt32, _ kind: fos_notice_kind, _ inode: UInt64, _ kernel: K) -> Bool {
        var notice = fos_notice()
        notice.kind = kind.rawValue
        notice.inode = inode
        notice.reply_to = kernel.mailbox.rawValue
        return kernel.notify(client: client, &notice)
    }

    /// Whether an inode is about to lose its last name while the kernel holds it. Only told so does the kernel let go of
    /// it once nobody has it open; it would keep it, and its pages, for as long as it has memory.
    @inline(__always) func isLastName(of inode: InodePointer) -> Bool {
        !turn.isKernel && inode.pointee.kernelReferences > 0 && (inode.isDirectory || inode.pointee.links == 1)
    }

    /// An entry of a directory appeared (`child` is 0), or went or changed, which led to `child`. `wasHeld`: the kernel may hold the
    /// entry as it was. `isGone`: what it led to has no name any more.
    @inline(__always) mutating func revokeEntry<K: Kernel>(
        _ directory: InodePointer, _ name: UnsafeRawBufferPointer, child: UInt64, wasHeld: Bool, isGone: Bool = false, _ kernel: K
    ) {
        if turn.isKernel { return }
        let leases = directory.pointee.leases
        if leases.isEmpty && !wasHeld { return }
        let wasAbsent = child == 0 && leases.contains(.negativeEntries)
            && absentNames.take(name, in: directory.pointee.directoryNumber, now: kernel.monotonic)
        if wasHeld || wasAbsent {
            notify(isGone ? FOS_NOTICE_REMOVED : FOS_NOTICE_ENTRY, directory.pointee.directoryNumber, child: child, name: name, kernel)
        }
        if !leases.isDisjoint(with: [.attributes, .listing]) {
            directory.pointee.leases.subtract([.attributes, .listing])
            notify(FOS_NOTICE_DIRECTORY, directory.pointee.directoryNumber, kernel)
        }
    }

    /// Sends one notice and counts it to the turn's transaction.
    mutating func notify<K: Kernel>(
        _ kind: fos_notice_kind, _ inode: UInt64, child: UInt64 = 0, name: UnsafeRawBufferPointer? = nil, _ kernel: K
    ) {
        guard let client = kernel.kernelCacheClient else { return }
        if turn.cookie == 0 {
            guard let id = keep(Continuation(.answer), kernel) else {
                preconditionFailure("a change began without room for its revocations")
            }
            turn.cookie = UInt64(id.rawValue)
        }
        var notice = fos_notice()
        notice.kind = kind.rawValue
        notice.inode = inode
        notice.child = child
        notice.cookie = turn.cookie
        notice.reply_to = turn.replyTo
        notice.want_ack = 1
        if let name, name.count <= Int(FOS_NAME_BYTES_MAX) {
            notice.name_length = UInt32(name.count)
            withUnsafeMutableBytes(of: &notice.name) { $0.copyMemory(from: name) }
        }
        if owedNotices.count > 0 || !kernel.notify(client: client, &notice) {
            // Only the later steps of transactions come here. A front end that lets thousands of notices lie is dead.
            guard owedNotices.append(&notice) else { return }
        }
        leasesRevoked += 1
        turn.notices += 1
        if turn.isCoordinator {
            continuations.state(ContinuationID(rawValue: UInt32(truncatingIfNeeded: turn.cookie)))?.pointee.acknowledgements += 1
        }
        kernel.trace(
            kind: 4, operation: UInt16(kind.rawValue), status: 0, inode: inode, client: client,
            detail: UInt32(truncatingIfNeeded: turn.cookie))
    }

    mutating func payOwedNotices<K: Kernel>(_ kernel: K) {
        guard let client = kernel.kernelCacheClient else { return owedNotices.removeAll() }
        while owedNotices.count > 0, kernel.notify(client: client, owedNotices.first) { owedNotices.removeFirst() }
    }

    // MARK: Acknowledgements

    /// LEASE_ACK. Only the front end holds leases, so nobody else's acknowledgement counts.
    mutating func acknowledge<K: Kernel>(_ request: Request, _ kernel: K) {
        let isKernel = turn.isKernel
        let ack = request.fixed(fos_lease_ack.self)
        answer(ack == nil ? -EINVAL : 0, kernel)
        guard isKernel, let ack, ack.cookie <= UInt64(UInt32.max) else { return }
        let id = ContinuationID(rawValue: UInt32(ack.cookie))
        guard let state = continuations.state(id) else { return }
        state.pointee.acknowledgements &-= 1
        settle(id, kernel)
    }

    /// Members' notices, as their responses tell them.
    mutating func count<K: Kernel>(notices: UInt32, _ id: ContinuationID, _ kernel: K) {
        guard kernel.kernelCacheClient != nil else { return }
        continuations.state(id)?.pointee.acknowledgements &+= Int32(truncatingIfNeeded: notices & 0xff)
    }

    /// The front end is gone, and what it cached with it: nothing is awaited from it any more.
    mutating func forgetAcknowledgements<K: Kernel>(_ kernel: K) {
        owedNotices.removeAll()
        guard continuations.count > 0 else { return }
        for index in 0..<Limits.continuations {
            guard let id = continuations.id(at: index), let state = continuations.state(id), state.pointee.acknowledgements > 0 else {
                continue
            }
            state.pointee.acknowledgements = 0
            settle(id, kernel)
        }
    }
}
