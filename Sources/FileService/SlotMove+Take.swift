// The taker of a slot: puts inodes together from their pieces, and owns the slot once all are there.
//
// Invariants: what comes in pieces is outside the table until FINISH, and dropped whole if memory or sense is wanting;
// references and locks of clients that are dead here by now are not adopted, as nobody would give them back.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    // MARK: BEGIN and END

    mutating func takeBegin<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let slot = request.fixed(fos_peer_slot.self), slot.slot < UInt32(FOS_SLOTS), let giver = sender(request) else {
            return answer(-EINVAL, kernel)
        }
        guard motion.taking == nil else { return answer(Status.retry, kernel) }
        guard !motion.isLeaving, slots.owner(ofSlot: Int(slot.slot)) != member || slots.version(ofSlot: Int(slot.slot)) < slot.version
        else {
            return answer(-EBUSY, kernel)
        }
        slots.learn(Int(slot.slot), owner: giver, version: slot.version)
        inodes.beginArriving(slot: Int(slot.slot), slot.numbering)
        motion.taking = Taking(slot: Int(slot.slot), giver: giver)
        answer(0, kernel)
    }

    private func sender(_ request: Request) -> Int? { members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) }

    mutating func takeEnd<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let end = request.fixed(fos_peer_slot.self), let taking = motion.taking, taking.slot == Int(end.slot),
            taking.giver == sender(request),
            taking.inode == nil
        else { return answer(-EINVAL, kernel) }
        inodes.skipGenerations(slot: taking.slot, through: end.generation)
        own(taking.slot, version: end.version, after: taking.giver, kernel)
        motion.taking = nil
        answer(0, kernel)
        spreadNews(kernel)
    }

    /// A slot is this server's from now on: tells clients and members, and gives its numbers once what the giver passes on
    /// has come.
    mutating func own<K: Kernel>(_ slot: Int, version: UInt32, after giver: Int, _ kernel: K) {
        slots.learn(slot, owner: member, version: version)
        kernel.publish(slot: slot, owner: kernel.mailbox)
        motion.untold.insert(slot)
        motion.settling.insert(slot)
        noteWay(of: slot, through: giver, to: member, version: version)
    }

    // MARK: Pieces

    mutating func takePiece<K: Kernel>(_ request: Request, _ kernel: K) {
        let number = request.message.pointee.inode
        guard let piece = request.fixed(fos_peer_piece.self), let taking = motion.taking, taking.giver == sender(request),
            taking.slot == SlotTable.slot(ofInode: number)
        else { return answer(-EINVAL, kernel) }
        let content = UnsafeRawBufferPointer(rebasing: request.payload[MemoryLayout<fos_peer_piece>.size...])
        // Nothing more comes until this is answered, and it goes on when the memory fleet has granted more.
        if expectsAnswer(request), !hasPages(UInt64(Limits.piecesOfTurn), kernel) { return }
        // The giver pays for what this takes as soon as its own copy has gone.
        pool.credits += Limits.lentCredits
        let status = take(piece, content, number, kernel)
        pool.credits -= Limits.lentCredits
        if piece.kind == FOS_PIECE_FINISH.rawValue { return }
        answer(status, kernel)
    }

    private func expectsAnswer(_ request: Request) -> Bool {
        UInt32(request.envelope.pointee.sender_kind) != FOS_SENDER_NONE.rawValue
    }

    private mutating func take<K: Kernel>(_ piece: fos_peer_piece, _ content: UnsafeRawBufferPointer, _ number: UInt64, _ kernel: K)
        -> Int32
    {
        switch fos_piece_kind(rawValue: piece.kind) {
        case FOS_PIECE_INODE:
            dropTaken()
            let hasBegun = beginInode(content, number, kernel)
            motion.taking?.hasFailed = !hasBegun
        case FOS_PIECE_CANCEL: dropTaken()
        case FOS_PIECE_FINISH:
            finishTaken(content, kernel)
            return 0
        default:
            guard let taking = motion.taking, !taking.hasFailed, let inode = taking.inode, inode.pointee.number == number else {
                return -ENOMEM
            }
            if !takeContent(piece, content, inode, kernel) { motion.taking?.hasFailed = true }
        }
        return motion.taking?.hasFailed == true ? -ENOMEM : 0
    }

    private mutating func beginInode<K: Kernel>(_ content: UnsafeRawBufferPointer, _ number: UInt64, _ kernel: K) -> Bool {
        guard content.count >= MemoryLayout<fos_peer_inode>.size else { return false }
        let begun = content.loadUnaligned(as: fos_peer_inode.self)
        motion.taking?.usedBefore = pool.used
        guard begun.number == number, inodes.record(number) == nil,
            let inode = inodes.makeRecord(number: number, generation: begun.generation, &arena, &pool)
        else { return false }
        inode.pointee.mode = begun.mode
        if inode.isDirectory { inode.directory.initialize(to: Directory(seed: kernel.random())) }
        motion.taking?.inode = inode
        return true
    }

    private mutating func takeContent<K: Kernel>(
        _ piece: fos_peer_piece, _ content: UnsafeRawBufferPointer, _ inode: InodePointer, _ kernel: K
    ) -> Bool {
        switch fos_piece_kind(rawValue: piece.kind) {
        case FOS_PIECE_DATA: return takeData(piece.offset, content, inode)
        case FOS_PIECE_ENTRIES: return takeEntries(Int(piece.count), content, inode, kernel)
        case FOS_PIECE_TARGET:
            guard inode.isSymlink, let target = gather(piece, content) else { return false }
            guard let whole = target else { return true }
            defer { releaseBuffer() }
            return inode.symlink.pointee.set(whole, &arena, &pool)
        case FOS_PIECE_XATTR:
            guard Int(piece.count) <= content.count else { return false }
            let name = UnsafeRawBufferPointer(rebasing: content[..<Int(piece.count)])
            guard let value = gather(piece, UnsafeRawBufferPointer(rebasing: content[Int(piece.count)...])) else { return false }
            guard let whole = value else { return true }
            defer { releaseBuffer() }
            return inode.pointee.xattrs.set(name, whole, .any, &arena, &pool) == .done
        case FOS_PIECE_OPEN: return takeOpens(Int(piece.count), content, inode, kernel)
        case FOS_PIECE_LOCK: return takeLocks(Int(piece.count), content, inode, kernel)
        case FOS_PIECE_TAKEN: return takeTaken(Int(piece.count), content, inode)
        default: return false
        }
    }

    private mutating func takeData(_ offset: UInt64, _ content: UnsafeRawBufferPointer, _ inode: InodePointer) -> Bool {
        let pageBytes = UInt64(Limits.pageBytes)
        let within = Int(offset % pageBytes)
        guard inode.isRegular, let base = content.baseAddress, content.count <= Limits.pageBytes - within,
            let page = inode.pageMap.pointee.ensure(offset / pageBytes, zeroed: true, &pool)
        else { return false }
        (page + within).copyMemory(from: base, byteCount: content.count)
        return true
    }

    private mutating func takeEntries<K: Kernel>(_ count: Int, _ content: UnsafeRawBufferPointer, _ inode: InodePointer, _ kernel: K)
        -> Bool
    {
        guard inode.isDirectory else { return false }
        let fixed = MemoryLayout<fos_peer_entry>.size
        var offset = 0
        for _ in 0..<count {
            guard offset + fixed <= content.count else { return false }
            let entry = content.loadUnaligned(fromByteOffset: offset, as: fos_peer_entry.self)
            offset += fixed
            guard Int(entry.name_length) <= content.count - offset else { return false }
            let name = UnsafeRawBufferPointer(rebasing: content[offset..<offset + Int(entry.name_length)])
            offset += Int(entry.name_length)
            guard
                let dentry = inode.directory.pointee.adopt(name, inode: entry.inode, kind: entry.kind, cookie: entry.cookie, &arena, &pool)
            else {
                return false
            }
            dentry.pointee.flags = DentryFlags(rawValue: entry.flags)
            // The kernel may have been given an entry after it was sent; a notice too many does no harm.
            if kernel.kernelCacheClient != nil { dentry.pointee.flags.insert(.kernelLease) }
        }
        return true
    }

    /// Puts the parts of a value together. nil: sense or memory is wanting; nil within: there is more to come.
    private mutating func gather(_ piece: fos_peer_piece, _ part: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer?? {
        let total = Int(piece.total)
        guard total <= Int(FOS_XATTR_BYTES_MAX), piece.offset <= UInt64(total), part.count <= total - Int(piece.offset) else { return nil }
        if piece.offset == 0, part.count == total { return .some(part) }
        if piece.offset == 0 {
            releaseBuffer()
            let buffer = arena.allocate(total, &pool)
            motion.taking?.buffer = buffer
            motion.taking?.bufferBytes = total
        }
        guard let buffer = motion.taking?.buffer, motion.taking?.bufferBytes == total, let base = part.baseAddress else { return nil }
        (buffer + Int(piece.offset)).copyMemory(from: base, byteCount: part.count)
        return .some(Int(piece.offset) + part.count == total ? UnsafeRawBufferPointer(start: buffer, count: total) : nil)
    }

    private mutating func releaseBuffer() {
        guard let taking = motion.taking, let buffer = taking.buffer else { return }
        arena.release(buffer, taking.bufferBytes, &pool)
        motion.taking?.buffer = nil
    }

    /// Whether so many records of one kind are all there, and one of them.
    private func holds<Record: BitwiseCopyable>(_ content: UnsafeRawBufferPointer, _ count: Int, _: Record.Type) -> Bool {
        count * MemoryLayout<Record>.size <= content.count
    }
    private func record<Record: BitwiseCopyable>(_ place: Int, of content: UnsafeRawBufferPointer, _: Record.Type) -> Record {
        content.loadUnaligned(fromByteOffset: place * MemoryLayout<Record>.size, as: Record.self)
    }

    private mutating func takeOpens<K: Kernel>(_ count: Int, _ content: UnsafeRawBufferPointer, _ inode: InodePointer, _ kernel: K) -> Bool
    {
        guard holds(content, count, fos_peer_open.self) else { return false }
        for place in 0..<count {
            let open = record(place, of: content, fos_peer_open.self)
            guard open.generation != 0, kernel.generation(ofClient: open.client) == open.generation else { continue }
            openFiles.adopt(open.client, inode, count: open.count, readers: open.readers, writers: open.writers)
        }
        return true
    }

    private mutating func takeLocks<K: Kernel>(_ count: Int, _ content: UnsafeRawBufferPointer, _ inode: InodePointer, _ kernel: K) -> Bool
    {
        guard holds(content, count, fos_peer_lock.self) else { return false }
        for place in 0..<count {
            let held = record(place, of: content, fos_peer_lock.self)
            guard held.generation != 0, kernel.generation(ofClient: held.client) == held.generation else { continue }
            guard let request = held.request, locks.adopt(inode, request, isFlock: held.is_flock != 0, &arena, &pool) else { return false }
        }
        return true
    }

    private mutating func takeTaken(_ count: Int, _ content: UnsafeRawBufferPointer, _ inode: InodePointer) -> Bool {
        guard holds(content, count, fos_peer_link.self) else { return false }
        for place in 0..<count {
            let link = record(place, of: content, fos_peer_link.self)
            takenLinks.add(inode.pointee.number, link.cookie, of: fos_mailbox(truncatingIfNeeded: link.coordinator))
        }
        return true
    }

    /// The inode is whole: from the answer on it is served here.
    private mutating func finishTaken<K: Kernel>(_ content: UnsafeRawBufferPointer, _ kernel: K) {
        guard let taking = motion.taking, !taking.hasFailed, let inode = taking.inode, content.count >= MemoryLayout<fos_peer_inode>.size
        else {
            return answer(-ENOMEM, kernel)
        }
        let last = content.loadUnaligned(as: fos_peer_inode.self)
        guard last.number == inode.pointee.number, inodes.adopt(inode, &arena, &pool) else { return answer(-ENOMEM, kernel) }
        apply(last, to: inode, kernel)
        if inode.isDirectory, inode.pointee.isShard {
            shards.insert(inode)
            doubtArrived(inode, kernel)
        }
        motion.taking?.inode = nil
        tellStore(inode)
        let message = kernel.scratch()
        message.setBody(fos_peer_taken(pages: UInt64(max(pool.used - taking.usedBefore, 0))))
        deliver(message, kernel)
        releaseIfUnused(inode, kernel)
    }

    /// The store of this server hears of an inode that others made.
    private mutating func tellStore(_ inode: InodePointer) {
        store.committed(.inode(inode))
        if !inode.pointee.xattrs.isEmpty { store.committed(.attributes(inode)) }
        if inode.isRegular, inode.pointee.size > 0 { store.committed(.data(inode, offset: 0, length: inode.pointee.size)) }
        guard inode.isDirectory else { return }
        var cookie: UInt64 = 0
        while let dentry = inode.directory.pointee.next(after: cookie) {
            cookie = dentry.pointee.cookie
            committedName(inode, dentry)
        }
    }

    private mutating func apply<K: Kernel>(_ last: fos_peer_inode, to inode: InodePointer, _ kernel: K) {
        inode.pointee.size = last.size
        inode.pointee.version = last.version
        inode.pointee.parent = last.parent
        inode.pointee.accessed = last.accessed.time
        inode.pointee.modified = last.modified.time
        inode.pointee.changed = last.changed.time
        inode.pointee.born = last.born.time
        inode.pointee.mode = last.mode
        inode.pointee.uid = last.uid
        inode.pointee.gid = last.gid
        inode.pointee.links = last.links
        inode.pointee.device = last.device
        inode.pointee.subdirectories = last.subdirectories
        inode.pointee.flags = InodeFlags(rawValue: last.flags)
        if inode.isRegular { inode.pointee.flags.subtract([.lent, .recalled]) }
        if inode.isDirectory { inode.directory.pointee.skipCookies(to: last.next_cookie) }
        // With the front end all that the kernel held has gone.
        guard kernel.kernelCacheClient != nil else { return }
        inode.pointee.kernelReferences = last.kernel_references
        inode.pointee.leases = InodeLeases(rawValue: last.leases)
        if inode.isDirectory { takeAbsences(in: inode, kernel) }
    }

    /// The inode of a number that is coming, and not yet in the table.
    func beingTaken(_ number: UInt64) -> InodePointer? {
        guard let inode = motion.taking?.inode, inode.pointee.number == number else { return nil }
        return inode
    }

    /// Drops what has come of an inode.
    mutating func dropTaken() {
        releaseBuffer()
        motion.taking?.hasFailed = false
        guard let inode = motion.taking?.inode else { return }
        locks.forgetHeld(inode, &arena, &pool)
        openFiles.dropAll(inode)
        inodes.discard(inode, &arena, &pool)
        motion.taking?.inode = nil
    }

    mutating func takeGift<K: Kernel>(_ request: Request, _ kernel: K) {
        if let gift = request.fixed(fos_peer_credits.self) { pool.credits += Int(clamping: gift.pages) }
    }
}

extension fos_time {
    fileprivate var time: Timestamp { Timestamp(seconds: seconds, nanoseconds: nanoseconds) }
}
