// Answers, and the continuations that hold an answer back.
//
// Protocol: an operation sends its notices first (`Leases`), then answers once. Without notices the answer leaves at
// once. With notices it is stored, and leaves when the last acknowledgement has come.
// Invariants: exactly one answer a request; the answer of a change leaves after all caches that show the old state
// are void.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    // MARK: Answering the turn's request

    /// An answer without payload.
    mutating func answer<K: Kernel>(_ status: Int32, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.status = status
        deliver(message, kernel)
    }

    /// An answer with the attributes of an inode. The kernel may keep them. Those of a sharded directory come when its shards
    /// have been asked: the request runs again from its beginning, and ends here once more.
    /// `delegates`: whose data has just been changed, and will be again.
    mutating func answer<K: Kernel>(attributesOf inode: InodePointer, flags: UInt16 = 0, delegates: Bool = false, _ kernel: K) {
        guard knowsAttributes(of: inode, kernel) else { return }
        if turn.isKernel { inode.pointee.leases.insert(.attributes) }
        let message = kernel.scratch()
        message.setBody(attributes(of: inode, kernel))
        message.pointee.flags = flags
        if delegates { delegate(inode, in: message, kernel) }
        deliver(message, kernel)
    }

    /// Adds to the answer of a reading that moved the access time what the inode is like now: the reader's own request has voided
    /// what it knew. The kernel counts access times itself.
    mutating func add<K: Kernel>(attributesOf inode: InodePointer, to message: UnsafeMutablePointer<fos_message>, _ kernel: K) {
        if turn.isKernel { return }
        let now = attributes(of: inode, kernel)
        withUnsafeBytes(of: now) { message.append($0) }
    }

    /// The answer of a participant: how many notices it sent, and what the coordinator needs to know.
    mutating func answerPeer<K: Kernel>(_ status: Int32, attributes: fos_attributes, _ kernel: K) {
        var reply = fos_peer_reply()
        reply.attributes = attributes
        answerPeer(status, content: reply, kernel)
    }
    mutating func answerPeer<K: Kernel>(_ status: Int32, content: fos_peer_reply = fos_peer_reply(), _ kernel: K) {
        var reply = content
        reply.notices = turn.notices
        let message = kernel.scratch()
        message.setBody(reply)
        message.pointee.status = status
        deliver(message, kernel)
    }

    /// Sends the turn's answer, or keeps it until its notices are acknowledged.
    mutating func deliver<K: Kernel>(_ message: UnsafeMutablePointer<fos_message>, _ kernel: K) {
        guard let letter = turn.letter else { preconditionFailure("an answer outside a turn") }
        let request = Request(letter: letter)
        message.pointee.operation = request.operation
        message.pointee.inode = request.message.pointee.inode
        message.pointee.epoch = kernel.epoch(ofInode: message.pointee.inode)
        if let before = turn.before, !turn.isKernel {
            message.pointee.pid = before
            message.pointee.flags |= UInt16(FOS_REPLY_CHANGED_FROM.rawValue)
        }
        if turn.looksAgain { message.pointee.flags |= UInt16(FOS_REPLY_LOOK_AGAIN.rawValue) }
        guard turn.isCoordinator, turn.cookie != 0 else { return kernel.reply(to: request.envelope, message) }
        let id = ContinuationID(rawValue: UInt32(truncatingIfNeeded: turn.cookie))
        guard let state = continuations.state(id) else { preconditionFailure("notices without a continuation") }
        let kept = Request(letter: letters + index(id))
        if kept.letter != letter { kept.envelope.pointee = request.envelope.pointee }
        UnsafeMutableRawPointer(kept.message).copyMemory(
            from: message, byteCount: MemoryLayout<fos_message>.size + Int(message.pointee.length))
        state.pointee.isDecided = true
        forgetDecision(id, kernel)
        settle(id, kernel)
    }

    // MARK: Continuations

    @inline(__always) func index(_ id: ContinuationID) -> Int { Int(id.rawValue & 0xffff) }
    @inline(__always) func kept(_ id: ContinuationID) -> Request { Request(letter: letters + index(id)) }

    /// Stores a continuation with a copy of the turn's letter; nil when there are too many (the answer is RETRY then).
    mutating func keep<K: Kernel>(_ state: Continuation, _ kernel: K) -> ContinuationID? {
        guard let letter = turn.letter, let id = continuations.insert(state) else { return nil }
        copy(letter, to: letters + index(id))
        return id
    }

    func copy(_ letter: UnsafeMutablePointer<fos_letter>, to other: UnsafeMutablePointer<fos_letter>) {
        guard letter != other else { return }
        let length = min(Int(Request(letter: letter).message.pointee.length), Int(FOS_PAYLOAD_BYTES_MAX))
        UnsafeMutableRawPointer(other).copyMemory(
            from: letter, byteCount: MemoryLayout<fos_envelope>.size + MemoryLayout<fos_message>.size + length)
    }

    /// Makes a continuation's request the turn's, so that notices are counted to it and answers go to its sender.
    mutating func begin<K: Kernel>(continuing id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { preconditionFailure("a continuation that is over goes on") }
        let request = kept(id)
        turn = Turn()
        turn.letter = request.letter
        turn.actor = Actor(request.envelope, kernel)
        turn.isKernel = UInt32(request.envelope.pointee.rights) & FOS_RIGHT_KERNEL_CACHE.rawValue != 0
        turn.rerun = state.pointee.rerun
        turn.replyTo = kernel.mailbox.rawValue
        turn.cookie = UInt64(id.rawValue)
    }

    /// Decides a continuation with an answer without payload, or with the attributes of an inode.
    mutating func decide<K: Kernel>(_ id: ContinuationID, _ status: Int32, attributesOf inode: InodePointer? = nil, _ kernel: K) {
        guard let state = continuations.state(id) else { preconditionFailure("a continuation that is over is decided") }
        let message = kept(id).message
        message.pointee.status = status
        message.pointee.bulk_length = 0
        message.pointee.length = 0
        message.pointee.flags = 0
        if let inode { message.setBody(attributes(of: inode, kernel)) }
        state.pointee.isDecided = true
        forgetDecision(id, kernel)
        settle(id, kernel)
    }

    /// Answers and ends a continuation if nothing is awaited any more; runs its letter again if that is its kind.
    mutating func settle<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), state.pointee.responses == 0, state.pointee.owed.isEmpty else { return }
        if state.pointee.isDecided, state.pointee.holdsTree { releaseTree(id, kernel) }
        guard state.pointee.owed.isEmpty, state.pointee.acknowledgements <= 0 else { return }
        if state.pointee.kind == .flush {
            endFlush(state)
            return runAgain(id, adding: .flushed, kernel)
        }
        guard state.pointee.isDecided else { return }
        if state.pointee.kind != .passing {
            let request = kept(id)
            // The letter of a rename keeps its names to the end; its answer has no payload.
            if state.pointee.kind == .rename { request.message.pointee.length = 0 }
            kernel.reply(to: request.envelope, request.message)
        }
        continuations.remove(id)
    }

    /// Ends a continuation and runs its letter as if it had just come, with what is known now.
    mutating func runAgain<K: Kernel>(_ id: ContinuationID, adding news: Rerun, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let rerun = state.pointee.rerun.union(news)
        copy(letters + index(id), to: again)
        continuations.remove(id)
        serve(Request(letter: again), rerun, kernel)
    }

    /// Lets others have their turn before the turn's request, whose letter says what is left of it, goes on: a message to
    /// this server itself, which queues behind theirs.
    mutating func goOnLater<K: Kernel>(adding news: Rerun, _ kernel: K) {
        var state = Continuation(.step)
        state.rerun = turn.rerun.union(news)
        guard clientLives(kernel), let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PING.rawValue)
        guard kernel.send(message, to: kernel.mailbox, expecting: id, onBehalfOf: nil) == .sent else {
            continuations.remove(id)
            return answer(Status.retry, kernel)
        }
        continuations.state(id)?.pointee.responses = 1
    }

    // MARK: Messages owed

    mutating func owe(_ id: ContinuationID, _ owed: Owed) {
        guard let state = continuations.state(id) else { return }
        if state.pointee.owed.isEmpty { owing += 1 }
        state.pointee.owed.insert(owed)
    }

    /// Sends what full mailboxes made wait. After every response and every tick; what fails again waits on. `evenLate`: also what has
    /// failed several times.
    mutating func payOwed<K: Kernel>(evenLate: Bool = false, _ kernel: K) {
        for index in 0..<Limits.continuations {
            guard owing > 0 else { return }
            guard let id = continuations.id(at: index), let state = continuations.state(id), !state.pointee.owed.isEmpty else { continue }
            let owed = state.pointee.owed
            if owed.contains(.late), !evenLate { continue }
            state.pointee.owed = Owed()
            owing -= 1
            begin(continuing: id, kernel)
            if owed.contains(.letter) {
                sendLetter(id, kernel)
            } else if owed.contains(.shards) {
                if state.pointee.phase == .start { resumeSpreading(id, kernel) } else { sendShards(id, kernel) }
            } else if owed.contains(.outcome) {
                resumeRecovered(id, kernel)
            } else if owed.contains(.stays) {
                tellThatItStays(id, kernel)
            } else {
                sendRenameMessages(id, owed, kernel)
            }
            settle(id, kernel)
        }
    }
}
