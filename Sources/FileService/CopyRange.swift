// COPY_RANGE: within this server page by page; from another owner in chunks that PEER_READ brings.
//
// Protocol: the destination's owner does it. From elsewhere, each response carries up to 768 bytes, or says how long a
// hole is; a copy ends early when it has moved its share, and says how much it did, as copy_file_range(2).
// Invariants: holes are not filled: a hole is copied as nothing where nothing is, and as zeros over data.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func copyRange<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let copy = request.fixed(fos_copy_request.self), copy.flags == 0 else { return answer(-EINVAL, kernel) }
        if inode.isDirectory { return answer(-EISDIR, kernel) }
        guard inode.isRegular, copy.offset <= Limits.fileBytes, copy.source_offset <= Limits.fileBytes else {
            return answer(-EINVAL, kernel)
        }
        guard mayUse(inode, Access.write) else { return answer(-EACCES, kernel) }
        guard copy.length > 0 else { return answerCopy(0, kernel) }
        guard copy.offset < Limits.fileBytes else { return answer(-EFBIG, kernel) }
        let length = min(copy.length, Limits.fileBytes - copy.offset, Limits.fileBytes - copy.source_offset)
        guard isHere(copy.source) else { return copyFromElsewhere(inode, copy, min(length, Limits.copyBytesBetweenServers), kernel) }
        guard let source = inodes.find(copy.source) else { return answer(-ESTALE, kernel) }
        endWriting(source, kernel)
        noteDelegation(source, kernel)
        if source.isDirectory { return answer(-EISDIR, kernel) }
        guard source.isRegular else { return answer(-EINVAL, kernel) }
        guard mayUse(source, Access.read) else { return answer(-EACCES, kernel) }
        // What lies beyond the end of the source is not copied, so it cannot overlap either.
        let overlap = min(length, bytesLeft(of: source, from: copy.source_offset))
        if source == inode, copy.offset < copy.source_offset &+ overlap, copy.source_offset < copy.offset &+ overlap {
            return answer(-EINVAL, kernel)
        }
        guard flushPages(inode, and: source, reading: source, kernel) else { return }
        guard mayRevoke(inode.pointee.leases.union(source.pointee.leases), kernel) else { return answer(Status.retry, kernel) }
        let count = min(length, bytesLeft(of: source, from: copy.source_offset), Limits.copyBytes)
        guard count > 0 else { return answerCopy(0, kernel) }
        let wanting = creditsWanting(inode, at: copy.offset, count)
        if wanting > 0, !turn.rerun.contains(.outOfSpace) { return needCredits(wanting, atLeast: wanting, kernel) }
        guard hasPages(inode, at: copy.offset, count, kernel) else { return }
        let done = copyPages(source, copy.source_offset, inode, copy.offset, count)
        guard done > 0 else { return answer(-ENOSPC, kernel) }
        let isMarked = markAccessed(source, kernel)
        copied(inode, copy.offset, done, kernel)
        answerCopy(done, telling: isMarked ? source : nil, kernel)
    }

    private func bytesLeft(of source: InodePointer, from offset: UInt64) -> UInt64 {
        offset < source.pointee.size ? source.pointee.size - offset : 0
    }

    private mutating func answerCopy<K: Kernel>(_ bytes: UInt64, telling source: InodePointer? = nil, _ kernel: K) {
        let message = kernel.scratch()
        message.setBody(fos_copy_reply(bytes: bytes))
        if let source { add(attributesOf: source, to: message, kernel) }
        deliver(message, kernel)
    }

    /// Copies between two files that are here, in pieces that lie within one page of the source.
    private mutating func copyPages(_ source: InodePointer, _ from: UInt64, _ target: InodePointer, _ to: UInt64, _ count: UInt64) -> UInt64
    {
        let pageBytes = UInt64(Limits.pageBytes)
        var done: UInt64 = 0
        while done < count {
            let position = from + done
            let within = position % pageBytes
            let piece = min(count - done, pageBytes - within)
            if let page = source.pageMap.pointee.page(position / pageBytes) {
                let bytes = UnsafeRawBufferPointer(start: page + Int(within), count: Int(piece))
                let written = writeBytes(target, at: to + done, bytes)
                done += UInt64(written)
                if UInt64(written) < piece { break }
            } else {
                putHole(target, to + done, piece)
                done += piece
            }
        }
        return done
    }

    private mutating func putHole(_ target: InodePointer, _ offset: UInt64, _ length: UInt64) {
        clear(target, from: offset, to: offset + length, removingPages: false)
        target.pointee.size = max(target.pointee.size, offset + length)
    }

    /// What follows any copy into a file.
    private mutating func copied<K: Kernel>(_ inode: InodePointer, _ offset: UInt64, _ count: UInt64, _ kernel: K) {
        if !turn.actor.isPrivileged { dropPrivilege(inode) }
        markModified(inode, time(kernel))
        committed(.data(inode, offset: offset, length: count), kernel)
        committed(.inode(inode), kernel)
        revokeData(inode, kernel)
    }

    // MARK: From elsewhere. numbers: source, source offset, bytes wanted, bytes done; `target` is the destination, whose
    // generation is kept in `source`: nothing holds it between two chunks, and its number may come to name another file.

    private mutating func copyFromElsewhere<K: Kernel>(_ inode: InodePointer, _ copy: fos_copy_request, _ length: UInt64, _ kernel: K) {
        guard flushPages(inode, kernel) else { return }
        guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
        var state = Continuation(.copy)
        state.target = inode.pointee.number
        state.source = UInt64(inode.pointee.generation)
        state.numbers = (copy.source, copy.source_offset, length, 0)
        state.copyOffset = copy.offset
        state.rerun = turn.rerun
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        begin(continuing: id, kernel)
        askForBytes(id, kernel)
    }

    private mutating func askForBytes<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let (source, offset, length, done) = state.pointee.numbers
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_READ.rawValue)
        message.pointee.inode = source
        message.setBody(fos_peer_read(offset: offset + done, length: length - done, hole: 0, reserved: 0))
        guard kernel.send(message, to: owner(of: source), expecting: id, onBehalfOf: kept(id).envelope) == .sent else {
            return concludeCopy(id, Status.retry, kernel)
        }
        state.pointee.responses += 1
    }

    mutating func resumeCopy<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        guard response.status == 0, let part = response.fixed(fos_peer_read.self) else { return concludeCopy(id, response.status, kernel) }
        let (_, _, length, done) = state.pointee.numbers
        let count = min(part.length, length - done)
        guard count > 0 else { return concludeCopy(id, 0, kernel) }
        guard let inode = copyTarget(state) else { return concludeCopy(id, -ESTALE, kernel) }
        let position = state.pointee.copyOffset + done
        if part.hole != 0 {
            putHole(inode, position, count)
            state.pointee.numbers.3 += count
        } else {
            guard count <= UInt64(FOS_PEER_READ_BYTES_MAX),
                let bytes = Request(letter: response.letter).name(after: fos_peer_read.self, UInt32(count))
            else { return concludeCopy(id, -EIO, kernel) }
            let written = writeBytes(inode, at: position, bytes)
            state.pointee.numbers.3 += UInt64(written)
            if UInt64(written) < count { return concludeCopy(id, -ENOSPC, kernel) }
        }
        guard state.pointee.numbers.3 < length else { return concludeCopy(id, 0, kernel) }
        // The end of the copy commits it; who reads meanwhile must not keep what the next part changes.
        kernel.changed(inode: inode.pointee.number)
        askForBytes(id, kernel)
    }

    /// The destination, if it is still the file that the copy began with.
    private func copyTarget(_ state: UnsafeMutablePointer<Continuation>) -> InodePointer? {
        guard let inode = inodes.find(state.pointee.target), UInt64(inode.pointee.generation) == state.pointee.source else { return nil }
        return inode
    }

    /// Answers with what was copied; with the status only if that is nothing.
    private mutating func concludeCopy<K: Kernel>(_ id: ContinuationID, _ status: Int32, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let done = state.pointee.numbers.3
        if done > 0 {
            if let inode = copyTarget(state) { copied(inode, state.pointee.copyOffset, done, kernel) }
            return answerCopy(done, kernel)
        }
        if status == -ENOSPC, !turn.rerun.contains(.outOfSpace) {
            turn.cookie = 0
            needCredits(Limits.creditsOfMetadata, kernel)
            state.pointee.kind = .passing
            state.pointee.isDecided = true
            return settle(id, kernel)
        }
        if status == 0 { return answerCopy(0, kernel) }
        decide(id, status, kernel)
    }

    /// PEER_READ: bytes of a file, or the length of a hole.
    mutating func peerRead<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard var part = request.fixed(fos_peer_read.self), part.offset <= Limits.fileBytes else { return answer(-EINVAL, kernel) }
        if inode.isDirectory { return answer(-EISDIR, kernel) }
        guard inode.isRegular else { return answer(-EINVAL, kernel) }
        guard mayUse(inode, Access.read) else { return answer(-EACCES, kernel) }
        guard flushPages(inode, reading: inode, kernel) else { return }
        let size = inode.pointee.size
        let left = min(part.length, part.offset < size ? size - part.offset : 0)
        let pageBytes = UInt64(Limits.pageBytes)
        let index = part.offset / pageBytes
        if left > 0 { markAccessed(inode, kernel) }
        let message = kernel.scratch()
        if left > 0, inode.pageMap.pointee.page(index) == nil {
            part.hole = 1
            part.length = left
            if let data = inode.pageMap.pointee.nextData(from: index) { part.length = min(left, data * pageBytes - part.offset) }
            message.setBody(part)
        } else {
            part.hole = 0
            part.length = min(left, UInt64(FOS_PEER_READ_BYTES_MAX), pageBytes - part.offset % pageBytes)
            message.setBody(part)
            let room = UnsafeMutableRawBufferPointer(start: message.body + MemoryLayout<fos_peer_read>.size, count: Int(part.length))
            readBytes(inode, at: part.offset, into: room)
            message.pointee.length += UInt32(part.length)
        }
        deliver(message, kernel)
    }
}
