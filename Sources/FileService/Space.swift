// Space: the credits of the size limit, FALLOCATE, and STATFS.
//
// Role: each server may take a share of the mount's pages (credits). One that runs out asks its peers, one after the
// other, and runs the request again; only when nobody could give does the request meet ENOSPC.
// Protocol: CREDITS moves pages' worth of permission from one member to another in one message, so the sum over all
// members and messages is the size limit at every moment. Two members that ask each other at once: the one with the
// lower index gets, the other's client is told to try again, so none is refused space that exists.
// Invariants: a request waits for credits before it has changed anything; its letter is kept and run from the start. An
// FALLOCATE of more than a few megabytes is done in steps, between which others have their turn.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    // MARK: Credits

    /// The turn's request lacks memory: runs it again when peers have given some, or answers ENOSPC.
    /// `wanted`: how many to ask each peer for; `atLeast`: how many more make another try worth it.
    mutating func needCredits<K: Kernel>(_ wanted: UInt64, atLeast: UInt64? = nil, _ kernel: K) {
        guard !turn.rerun.contains(.outOfSpace), let letter = turn.letter else { return answer(-ENOSPC, kernel) }
        if !turn.rerun.contains(.undelegated), endAllDelegations(kernel) { return goOnLater(adding: .undelegated, kernel) }
        if reclaimDiscarded(wanted) { return goOnLater(adding: Rerun(), kernel) }
        // Who says how many credits are wanting has counted them; else an allocation failed, for want of either.
        if atLeast == nil, pool.lacksMemory, memory != nil { return waitForPages(1, kernel) }
        // Nobody to ask: what there is must do.
        if members.aliveCount - (members.isAlive(member) ? 1 : 0) < 1 {
            return serve(Request(letter: letter), turn.rerun.union(.outOfSpace), kernel)
        }
        var state = Continuation(.credits)
        state.rerun = turn.rerun
        state.numbers.0 = 0
        // What is there already was not enough, so more than that is needed before it is worth another try.
        state.numbers.1 = UInt64(max(pool.credits, 0)) + (atLeast ?? UInt64(max(pool.shortfall, 1)))
        // What moved inodes take here and their giver has not yet paid for is wanting too.
        state.numbers.2 = wanted + UInt64(max(-pool.credits, 0))
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        asking += 1
        askForCredits(id, kernel)
    }

    private mutating func askForCredits<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        while true {
            let peer = Int(state.pointee.numbers.0)
            guard peer < members.count else {
                asking -= 1
                return runAgain(id, adding: .outOfSpace, kernel)
            }
            state.pointee.numbers.0 += 1
            if peer == member || !members.isAlive(peer) { continue }
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_CREDITS.rawValue)
            message.setBody(fos_peer_credits(pages: state.pointee.numbers.2))
            guard kernel.send(message, to: members[peer], expecting: id, onBehalfOf: nil) == .sent else { return giveUpAsking(id, kernel) }
            state.pointee.responses += 1
            return
        }
    }

    private mutating func giveUpAsking<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        asking -= 1
        decide(id, Status.retry, kernel)
    }

    mutating func resumeCredits<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        guard response.status == 0, let given = response.fixed(fos_peer_credits.self) else { return giveUpAsking(id, kernel) }
        pool.credits += Int(given.pages)
        if UInt64(max(pool.credits, 0)) >= state.pointee.numbers.1 {
            asking -= 1
            return runAgain(id, adding: Rerun(), kernel)
        }
        askForCredits(id, kernel)
    }

    /// Gives what is asked for, or a bulk if there is plenty, or all there is.
    mutating func peerCredits<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_peer_credits.self),
            let peer = members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from))
        else { return answer(-EINVAL, kernel) }
        if asking > 0, peer > member { return answer(Status.retry, kernel) }
        if wanted.pages > UInt64(max(pool.credits, 0)) { _ = endAllDelegations(kernel) }
        if wanted.pages > UInt64(max(pool.credits, 0)), reclaimDiscarded(wanted.pages), wanted.pages > UInt64(max(pool.credits, 0)),
            !discarded.isEmpty
        {
            return answer(Status.retry, kernel)
        }
        let free = UInt64(max(pool.credits, 0))
        let given = min(free, max(min(wanted.pages, free), min(Limits.creditsBulk, free / 2)))
        pool.credits -= Int(given)
        let message = kernel.scratch()
        message.setBody(fos_peer_credits(pages: given))
        deliver(message, kernel)
    }

    // MARK: STATFS

    mutating func statfs<K: Kernel>(_ request: Request, _ kernel: K) {
        var state = Continuation(.space)
        let here = space
        state.numbers = (here.credits, here.used, here.inodes, 0)
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        turn.cookie = UInt64(id.rawValue)
        for peer in 0..<members.count where peer != member && members.isAlive(peer) {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_SPACE.rawValue)
            if kernel.send(message, to: members[peer], expecting: id, onBehalfOf: nil) == .sent {
                continuations.state(id)?.pointee.responses += 1
            } else {
                continuations.state(id)?.pointee.numbers.3 = 1
            }
        }
        concludeSpace(id, kernel)
    }

    private var space: fos_peer_space {
        let discarded = min(self.discarded.pages, UInt64(max(pool.used, 0)))
        return fos_peer_space(
            credits: UInt64(max(pool.credits, 0)) + UInt64(pool.held) + discarded, used: UInt64(max(pool.used, 0)) - discarded, inodes: UInt64(inodes.count))
    }

    mutating func peerSpace<K: Kernel>(_ kernel: K) {
        let message = kernel.scratch()
        message.setBody(space)
        deliver(message, kernel)
    }

    mutating func resumeSpace<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if response.status == 0, let part = response.fixed(fos_peer_space.self) {
            state.pointee.numbers.0 &+= part.credits
            state.pointee.numbers.1 &+= part.used
            state.pointee.numbers.2 &+= part.inodes
        } else {
            state.pointee.numbers.3 = 1
        }
        concludeSpace(id, kernel)
    }

    private mutating func concludeSpace<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), state.pointee.responses == 0 else { return }
        let (credits, used, files, isIncomplete) = state.pointee.numbers
        if isIncomplete != 0 { return decide(id, Status.retry, kernel) }
        // Credits that follow moved inodes are for a moment nobody's, so the limit itself is asked where it is known.
        let total = size.map { max(UInt64($0), used) } ?? credits &+ used
        let free = total &- used
        let filesFree = free &* Limits.inodesOfPage
        let message = kernel.scratch()
        message.setBody(
            fos_statfs_reply(
                blocks: total, blocks_free: free, blocks_available: free, files: files &+ filesFree, files_free: filesFree,
                name_max: UInt32(FOS_NAME_BYTES_MAX), block_bytes: UInt32(Limits.pageBytes)))
        deliver(message, kernel)
    }

    // MARK: FALLOCATE

    /// Modes of fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE with KEEP_SIZE, ZERO_RANGE; others -EOPNOTSUPP.
    mutating func allocateSpace<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        let keepSize: UInt32 = 1
        let punchHole: UInt32 = 2
        let zeroRange: UInt32 = 16
        guard let wanted = request.fixed(fos_fallocate_request.self) else { return answer(-EINVAL, kernel) }
        guard wanted.offset <= Limits.fileBytes, wanted.length > 0, wanted.length <= Limits.fileBytes else {
            return answer(-EINVAL, kernel)
        }
        let end = wanted.offset + wanted.length  // below 2^64: both are below 2^63
        switch wanted.mode {
        case 0, keepSize, punchHole | keepSize, zeroRange, zeroRange | keepSize: break
        default: return answer(-EOPNOTSUPP, kernel)
        }
        if inode.isDirectory { return answer(-EISDIR, kernel) }
        guard inode.isRegular else { return answer(-ENODEV, kernel) }
        guard mayUse(inode, Access.write) else { return answer(-EACCES, kernel) }
        guard end <= Limits.fileBytes else { return answer(-EFBIG, kernel) }
        guard flushPages(inode, kernel) else { return }
        guard mayMovePages(inode, kernel) else { return }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        let punches = wanted.mode & punchHole != 0
        let step = nextStep(inode, from: wanted.offset, to: end, skipsHoles: punches)
        if !punches {
            // All of it is asked for before the first step, so that what cannot be is refused before anything has changed.
            let isFirst = !turn.rerun.contains(.begun)
            let wanting = creditsWanting(inode, from: wanted.offset, to: isFirst ? end : step.end)
            guard wanting == 0 else { return needCredits(wanting, atLeast: wanting, kernel) }
            let pageBytes = UInt64(Limits.pageBytes)
            let missing = missingPages(inode, from: step.start / pageBytes, to: (step.end + pageBytes - 1) / pageBytes)
            guard hasPages(missing, kernel) else { return }
            let before = inode.pageMap.pointee.pageCount
            let refused = takePages(inode, from: step.start, to: step.end)
            guard refused == 0 else {
                if inode.pageMap.pointee.pageCount != before { kernel.changed(inode: inode.pointee.number) }
                return needCredits(refused, kernel)
            }
        }
        if punches || wanted.mode & zeroRange != 0 { clear(inode, from: step.start, to: step.end, removingPages: punches) }
        if punches { renewRegion(inode, kernel) }
        committed(.data(inode, offset: step.start, length: step.end - step.start), kernel)
        if step.end < end {
            committed(.inode(inode), kernel)
            var rest = wanted
            rest.offset = step.end
            rest.length = end - step.end
            request.message.setBody(rest)
            return goOnLater(adding: .begun, kernel)
        }
        if wanted.mode & keepSize == 0, end > inode.pointee.size {
            inode.pointee.size = end
            noteSize(inode)
        }
        if !turn.actor.isPrivileged { dropPrivilege(inode) }
        markModified(inode, time(kernel))
        committed(.inode(inode), kernel)
        revokeData(inode, kernel)
        answer(0, kernel)
    }

    /// The part of a range that is done at once. What has no pages to take away costs nothing, and is skipped.
    private func nextStep(_ inode: InodePointer, from start: UInt64, to end: UInt64, skipsHoles: Bool) -> (start: UInt64, end: UInt64) {
        let pageBytes = UInt64(Limits.pageBytes)
        var start = start
        if skipsHoles {
            let data = inode.pageMap.pointee.nextData(from: start / pageBytes).map { min($0, end / pageBytes) } ?? end / pageBytes
            start = min(max(start, data * pageBytes), end)
        }
        let limit = (start / pageBytes + Limits.pagesOfStep) * pageBytes
        return (start, min(end, limit))
    }

    /// How many credits more are wanting to give a range pages of its own. The nodes of the page map are counted at their
    /// upper bound.
    private func creditsWanting(_ inode: InodePointer, from start: UInt64, to end: UInt64) -> UInt64 {
        let pageBytes = UInt64(Limits.pageBytes)
        let missing = missingPages(inode, from: start / pageBytes, to: (end + pageBytes - 1) / pageBytes)
        let needed = Limits.creditsOfPages(missing)
        let free = UInt64(max(pool.credits, 0))
        return needed > free ? needed - free : 0
    }

    /// Gives a range, for which there are credits, pages of its own. 0: done; else so many are wanting all the same. Should
    /// Linux refuse memory half-way, the pages taken so far stay as zeros of the file, as after an fallocate that a signal
    /// ended, and asking again goes on from there.
    private mutating func takePages(_ inode: InodePointer, from start: UInt64, to end: UInt64) -> UInt64 {
        let pageBytes = UInt64(Limits.pageBytes)
        let last = (end + pageBytes - 1) / pageBytes
        var index = inode.pageMap.pointee.nextHole(from: start / pageBytes)
        while index < last {
            guard inode.pageMap.pointee.ensure(index, zeroed: true, &pool) != nil else { return UInt64(max(pool.shortfall, 1)) }
            index = inode.pageMap.pointee.nextHole(from: index + 1)
        }
        return 0
    }

    /// Pages of [first, last) that a file has not.
    func missingPages(_ inode: InodePointer, from first: UInt64, to last: UInt64) -> UInt64 {
        var missing: UInt64 = 0
        var index = first
        while index < last {
            let hole = inode.pageMap.pointee.nextHole(from: index)
            guard hole < last else { break }
            let data = inode.pageMap.pointee.nextData(from: hole) ?? last
            let end = min(data, last)
            missing += end - hole
            index = end
        }
        return missing
    }

    /// Makes a range read as zeros, within the file's pages.
    mutating func clear(_ inode: InodePointer, from start: UInt64, to end: UInt64, removingPages: Bool) {
        takeGrant(inode)
        let pageBytes = UInt64(Limits.pageBytes)
        let firstWhole = (start + pageBytes - 1) / pageBytes
        let lastWhole = end / pageBytes
        if firstWhole > lastWhole {
            clearPart(inode, firstWhole - 1, from: start % pageBytes, to: end % pageBytes)
            return
        }
        if start % pageBytes != 0 { clearPart(inode, firstWhole - 1, from: start % pageBytes, to: pageBytes) }
        if end % pageBytes != 0 { clearPart(inode, lastWhole, from: 0, to: end % pageBytes) }
        if removingPages {
            inode.pageMap.pointee.removePages(from: firstWhole, to: lastWhole, &pool)
        } else {
            var index = firstWhole
            while index < lastWhole, let data = inode.pageMap.pointee.nextData(from: index), data < lastWhole {
                clearPart(inode, data, from: 0, to: pageBytes)
                index = data + 1
            }
        }
    }

    private func clearPart(_ inode: InodePointer, _ index: UInt64, from start: UInt64, to end: UInt64) {
        guard end > start, let page = inode.pageMap.pointee.page(index) else { return }
        (page + Int(start)).initializeMemory(as: UInt8.self, repeating: 0, count: Int(end - start))
    }

    /// Sets a file's size. What is beyond it is gone; the rest of the last page is zeroed, so growing again shows zeros.
    mutating func resize(_ inode: InodePointer, to size: UInt64) {
        let old = inode.pointee.size
        takeGrant(inode)
        inode.pointee.size = size
        if size != old { noteSize(inode) }
        guard inode.pageMap.pointee.pageCount > 0 else { return }
        let pageBytes = UInt64(Limits.pageBytes)
        guard size < old else { return }
        if size == 0 { return discardPages(inode) }
        if size % pageBytes != 0 { clearPart(inode, size / pageBytes, from: size % pageBytes, to: pageBytes) }
        // Pages that fallocate took beyond the end go too, as in tmpfs.
        inode.pageMap.pointee.removePages(from: (size + pageBytes - 1) / pageBytes, to: PageMap.indexLimit, &pool)
    }
}
