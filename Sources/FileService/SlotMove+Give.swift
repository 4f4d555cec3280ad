// The giver of a slot: one small step after the other, each a message to the taker.
//
// Protocol: a turn sends up to `Limits.piecesOfTurn` pieces and asks for an answer to the last one; the answer begins the
// next turn, so others are served in between and a taker is never flooded. A full mailbox puts the rest off.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    private enum Step { case sent, changed, blocked }

    /// Goes on with what is under way, for a turn.
    mutating func drive<K: Kernel>(_ kernel: K) {
        beginNext(kernel)
        motion.giving?.isStalled = false
        var left = Limits.piecesOfTurn
        while left > 0, let giving = motion.giving, !giving.isAwaiting {
            switch step(giving, wantsAnswer: left == 1, kernel) {
            case .sent: left -= 1
            case .changed: break
            case .blocked:
                motion.giving?.isStalled = true
                return kernel.tickAgain()
            }
            if motion.giving == nil { beginNext(kernel) }
        }
    }

    private mutating func step<K: Kernel>(_ giving: Giving, wantsAnswer: Bool, _ kernel: K) -> Step {
        switch giving.stage {
        case .begin: return sendSlot(giving, FOS_OP_PEER_SLOT_BEGIN, kernel)
        case .choose: return choose(giving, kernel)
        case .end: return sendEnd(giving, kernel)
        case .waiters: return sendWaiter(giving, wantsAnswer, kernel)
        default: return sendPiece(giving, wantsAnswer, kernel)
        }
    }

    /// Sends to the taker. With an answer to come, nothing more goes out until it is there.
    private mutating func tell<K: Kernel>(_ message: UnsafePointer<fos_message>, wantsAnswer: Bool, _ kernel: K) -> Step {
        guard let giving = motion.giving else { return .blocked }
        let result = kernel.send(
            message, to: members[giving.taker], expecting: wantsAnswer ? giving.continuation : .none, onBehalfOf: nil)
        guard result == .sent else { return .blocked }
        motion.giving?.isAwaiting = wantsAnswer
        return .sent
    }

    private mutating func sendSlot<K: Kernel>(_ giving: Giving, _ operation: fos_peer_operation, _ kernel: K) -> Step {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.inode = UInt64(giving.slot)
        message.setBody(
            fos_peer_slot(
                slot: UInt32(giving.slot), owner: UInt32(member), version: slots.version(ofSlot: giving.slot),
                generation: inodes.generation(slot: giving.slot), inodes.numbering(slot: giving.slot)))
        return tell(message, wantsAnswer: true, kernel)
    }

    private mutating func sendEnd<K: Kernel>(_ giving: Giving, _ kernel: K) -> Step {
        // Something was made in the slot while END met a full mailbox.
        guard inodes.count(slot: giving.slot) == 0 else {
            motion.giving?.scan = 0
            enter(.choose)
            return .changed
        }
        let version = slots.version(ofSlot: giving.slot) &+ 1
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_SLOT_END.rawValue)
        message.pointee.inode = UInt64(giving.slot)
        message.setBody(
            fos_peer_slot(
                slot: UInt32(giving.slot), owner: UInt32(giving.taker), version: version, generation: inodes.generation(slot: giving.slot),
                inodes.numbering(slot: giving.slot)))
        let step = tell(message, wantsAnswer: true, kernel)
        guard case .sent = step else { return step }
        // What is passed on from here on comes after END.
        slots.learn(giving.slot, owner: giving.taker, version: version)
        inodes.endLeaving(slot: giving.slot, &arena, &pool)
        return step
    }

    // MARK: Choosing

    private mutating func choose<K: Kernel>(_ giving: Giving, _ kernel: K) -> Step {
        var scan = giving.scan
        while let inode = inodes.next(slot: giving.slot, from: scan) {
            scan = inode.pointee.number / UInt64(FOS_SLOTS) + 1
            if inode.isDirectory && !giving.takesDirectories || isPinned(inode) { continue }
            motion.giving?.scan = scan
            motion.giving?.inode = inode
            // From here on nobody writes to its pages unseen, or reads them where they lie.
            endWriting(inode, kernel)
            endDelegation(of: inode, kernel)
            if inode.isRegular { inode.pointee.flags.insert(.recalled) }
            enter(.inode)
            return .changed
        }
        motion.giving?.scan = 0
        if inodes.count(slot: giving.slot) == 0 {
            enter(.end)
            return .changed
        }
        if !giving.takesDirectories {
            motion.giving?.takesDirectories = true
            return .changed
        }
        motion.giving?.wentInRound = 0
        // What is left is held by transactions, or lent: both end soon, and wait for nobody here.
        return giving.wentInRound > 0 ? .changed : .blocked
    }

    /// Whether a transaction has a pointer to the inode, or counts on finding it here, or its pages are lent.
    private func isPinned(_ inode: InodePointer) -> Bool {
        if inode.pointee.busy > 0 { return true }
        guard inode.isRegular else { return false }
        if inode.pointee.flags.contains(.lent) {
            inode.pointee.flags.insert(.recalled)
            return true
        }
        guard continuations.count > 1 else { return false }
        var isTarget = false
        continuations.forEach { _, state in
            if state.pointee.kind == .copy, state.pointee.target == inode.pointee.number { isTarget = true }
        }
        return isTarget
    }

    mutating func enter(_ stage: Giving.Stage) {
        motion.giving?.stage = stage
        motion.giving?.position = 0
        motion.giving?.offset = 0
    }

    // MARK: Pieces

    private mutating func sendPiece<K: Kernel>(_ giving: Giving, _ wantsAnswer: Bool, _ kernel: K) -> Step {
        guard let inode = giving.inode else { preconditionFailure("a piece of no inode") }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_SLOT_PIECE.rawValue)
        message.pointee.inode = inode.pointee.number
        var writer = PieceWriter(message: message)
        var next = giving
        guard fill(&writer, inode, &next, kernel) else {
            motion.giving?.stage = next.stage
            motion.giving?.position = 0
            motion.giving?.offset = 0
            if next.stage == .opens { close(inode) }
            return .changed
        }
        writer.finish()
        // Nothing is said to a CANCEL: its answer would be taken for that of what follows.
        let isAwaiting = (wantsAnswer || giving.stage == .finish) && giving.stage != .cancel
        let step = tell(message, wantsAnswer: isAwaiting, kernel)
        guard case .sent = step else { return step }
        if giving.stage == .cancel { return cancelled(inode, kernel) }
        if giving.stage == .data { motion.movedBytes += UInt64(writer.used) }
        next.isAwaiting = isAwaiting
        motion.giving = next
        return .sent
    }

    /// Writes the next piece, and moves `next` behind it. False: the stage is over, and `next.stage` is the one to come.
    private mutating func fill<K: Kernel>(_ writer: inout PieceWriter, _ inode: InodePointer, _ next: inout Giving, _ kernel: K) -> Bool {
        switch next.stage {
        case .inode:
            guard next.position == 0 else {
                next.stage = .xattrs
                return false
            }
            writer.begin(FOS_PIECE_INODE)
            writer.append(fos_peer_inode(inode))
            next.position = 1
            return true
        case .xattrs: return writer.xattr(of: inode, &next)
        case .target: return writer.target(of: inode, &next)
        case .data: return writer.data(of: inode, &next)
        case .entries: return writer.entries(of: inode, &next)
        case .opens: return writer.opens(of: inode, &next, openFiles, kernel)
        case .locks: return writer.locks(of: inode, &next, locks, kernel)
        case .taken: return writer.taken(of: inode, &next, takenLinks)
        case .finish:
            writer.begin(FOS_PIECE_FINISH)
            writer.append(fos_peer_inode(inode))
            return true
        case .cancel:
            writer.begin(FOS_PIECE_CANCEL)
            return true
        case .begin, .choose, .waiters, .end: preconditionFailure("no piece belongs to this stage")
        }
    }

    /// From here on the inode is not served until it is the taker's.
    private mutating func close(_ inode: InodePointer) {
        takeGrant(inode)
        locks.setFrozen(inode, true)
    }

    /// One request that waits for a lock, in the order of waiting; then the inode is gone from here. It is passed on like any
    /// request, so one server has it to answer at any time, whoever dies: it asks for the lock again at the taker.
    private mutating func sendWaiter<K: Kernel>(_ giving: Giving, _ isLast: Bool, _ kernel: K) -> Step {
        guard let inode = giving.inode else { preconditionFailure("a waiter for no inode") }
        guard let waiter = locks.firstWaiter(inode) else {
            depart(inode, kernel)
            return .changed
        }
        let id = ContinuationID(rawValue: UInt32(truncatingIfNeeded: waiter.token))
        guard let envelope = waiters.state(id) else {
            // Its client has died.
            locks.forgetFirstWaiter(inode, &arena, &pool)
            return .changed
        }
        let letter = letters + index(giving.continuation)
        writeWaiter(letter, envelope.pointee, waiter.request, isFlock: waiter.isFlock, inode.pointee.number)
        guard kernel.forward(letter, to: members[giving.taker]) == .sent else { return .blocked }
        waiters.remove(id)
        locks.forgetFirstWaiter(inode, &arena, &pool)
        // The rest of the turn's are not answered to this server; what is left goes when others have had their turn.
        return isLast ? .blocked : .sent
    }

    /// The client's request as it came, of which only the envelope was kept.
    private func writeWaiter(
        _ letter: UnsafeMutablePointer<fos_letter>, _ envelope: fos_envelope, _ wanted: LockRequest, isFlock: Bool, _ number: UInt64
    ) {
        let request = Request(letter: letter)
        request.envelope.pointee = envelope
        request.envelope.pointee.hops = 0
        request.envelope.pointee.settled = Settled.inode
        request.message.pointee = fos_message()
        request.message.pointee.operation = UInt16((isFlock ? FOS_OP_FLOCK : FOS_OP_SETLK).rawValue)
        request.message.pointee.inode = number
        request.message.pointee.sequence = envelope.sequence
        if isFlock {
            request.message.setBody(fos_flock_request(owner: wanted.owner.id, kind: UInt32(wanted.kind.rawValue), wait: 1))
        } else {
            request.message.setBody(
                fos_lock_request(
                    owner: wanted.owner.id, start: wanted.start, end: wanted.end, kind: UInt32(wanted.kind.rawValue), pid: wanted.pid,
                    wait: 1,
                    reserved: wanted.owner.isDescription ? 1 : 0))
        }
    }

    /// The inode is the taker's, and what is here of it goes.
    private mutating func depart<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        locks.forgetHeld(inode, &arena, &pool)
        openFiles.dropAll(inode)
        leaveRegion(inode, kernel)
        store.committed(.departed(inode.pointee.number))
        inodes.depart(inode)
        if inode.isDirectory, inode.pointee.isShard { shards.remove(inode) }
        if inode.isRegular { discardPages(inode) }
        inodes.discard(inode, &arena, &pool)
        motion.giving?.inode = nil
        motion.giving?.wentInRound += 1
        motion.giving?.hasDeparted = true
        motion.movedInodes += 1
        enter(.choose)
        payDebts(kernel)
    }

    /// The taker has dropped what came of the inode; it is served here as before.
    private mutating func cancelled<K: Kernel>(_ inode: InodePointer, _ kernel: K) -> Step {
        reopen(inode, kernel)
        motion.giving?.isAwaiting = false
        enter(.choose)
        return .blocked
    }

    private mutating func reopen<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        motion.giving?.inode = nil
        if inode.isRegular { inode.pointee.flags.remove(.recalled) }
        locks.setFrozen(inode, false)
        giveGrant(inode)
        releaseIfUnused(inode, kernel)
    }

    // MARK: Answers

    mutating func resumeGiving<K: Kernel>(_ response: Response, _ kernel: K) {
        guard let giving = motion.giving, giving.continuation == response.continuation else { return }
        motion.giving?.isAwaiting = false
        let status = response.status
        switch giving.stage {
        case .begin:
            guard status == 0 else {
                if status < 0 { endGiving(kernel) } else { motion.giving?.isStalled = true }
                return kernel.tickAgain()
            }
            inodes.beginLeaving(slot: giving.slot)
            enter(.choose)
        case .finish:
            if status == 0 {
                let pages = response.fixed(fos_peer_taken.self)?.pages ?? 0
                motion.owe(Int(clamping: pages), to: giving.taker)
                enter(.waiters)
            } else {
                enter(.cancel)
            }
        case .end:
            motion.movedSlots += 1
            endGiving(kernel)
        case .waiters, .choose: break
        default: if status != 0 { enter(.cancel) }
        }
        drive(kernel)
    }

    /// Nothing of a slot is under way any more.
    private mutating func endGiving<K: Kernel>(_ kernel: K) {
        guard let giving = motion.giving else { return }
        continuations.remove(giving.continuation)
        motion.giving = nil
    }

    /// The taker is lost, and what went there with it; the slot stays here. So is an inode whose waiting requests were following it: it
    /// was the taker's, which may have changed it.
    mutating func abandonGiving<K: Kernel>(_ kernel: K) {
        if let inode = motion.giving?.inode, motion.giving?.stage == .waiters {
            while let waiter = locks.firstWaiter(inode) {
                locks.forgetFirstWaiter(inode, &arena, &pool)
                endWait(ContinuationID(rawValue: UInt32(truncatingIfNeeded: waiter.token)), -EIO, kernel)
            }
            depart(inode, kernel)
        }
        guard let giving = motion.giving else { return }
        let inode = giving.inode
        if giving.stage != .begin, slots.owner(ofSlot: giving.slot) == member {
            inodes.cancelLeaving(slot: giving.slot)
            if giving.hasDeparted { inodes.noteLosses(slot: giving.slot) }
        }
        endGiving(kernel)
        if let inode { reopen(inode, kernel) }
    }

    // MARK: Credits

    /// Pays takers for what moved inodes take there, as far as there are credits.
    mutating func payDebts<K: Kernel>(_ kernel: K) {
        while let creditor = motion.creditor, pool.credits > 0 {
            let pages = min(creditor.pages, pool.credits)
            guard gift(pages, to: creditor.member, kernel) else { return kernel.tickAgain() }
            motion.paid(pages, to: creditor.member)
        }
        if motion.debt > 0, !discarded.isEmpty { kernel.tickAgain() }
    }

    private mutating func gift<K: Kernel>(_ pages: Int, to taker: Int, _ kernel: K) -> Bool {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_GIFT.rawValue)
        message.setBody(fos_peer_credits(pages: UInt64(pages)))
        guard kernel.send(message, to: members[taker], expecting: .none, onBehalfOf: nil) == .sent else { return false }
        pool.credits -= pages
        return true
    }

    /// A server that leaves hands its part of the size limit to another one: what is free at once, and the rest when it has
    /// nothing left.
    mutating func giveCreditsBack<K: Kernel>(_ kernel: K) {
        let isEmpty = motion.giving == nil && motion.taking == nil && slots.share(of: member) == 0 && motion.debt == 0
        let pages = isEmpty ? pool.credits + pool.used : pool.credits
        guard pages > 0, members.isAlive(members.first), members.first != member else { return }
        if !gift(pages, to: members.first, kernel) { kernel.tickAgain() }
    }
}
