// The parts of a turn that need no knowledge of the servers: news of clients, gathering, which server has letters, and what is done with a
// request before its server sees it. CoreKernel+Questions has what is answered for every mailbox, CoreKernel+Sleep what a core does
// without work.
//
// The run loop calls these by pointer, so that no exclusive access to the core's state is held while a server runs and calls back into it.

import CFosWire
import CPlatform
import Glibc
import Messaging

/// What becomes of a request.
private enum Handling {
    /// Its server gets it.
    case serve
    /// The microkernel has answered or dropped it.
    case done
    /// It is answered with the server's counters.
    case statistics
}

extension CoreKernel {
    @usableFromInline var serverCount: Int { state.pointee.mailboxCount - 1 }

    /// Begins a turn; false once the instance stops.
    @usableFromInline func beginTurn() -> Bool {
        let core = state
        core.pointee.turn &+= 1
        core.pointee.clockIsFresh = false
        core.pointee.running.pointee = 0
        // A beat is a write to the shared board, so not in every turn.
        if core.pointee.turn % 64 == 0 { beat() }
        return fos_load_acquire_u32(core.pointee.fabric.stopping) == 0
    }

    func beat() {
        let beats = fos_board_beats(state.pointee.fabric.board, UInt32(state.pointee.index))!
        fos_store_relaxed_u64(beats, fos_load_relaxed_u64(beats) &+ 64)
    }

    private var control: UnsafeMutablePointer<ControlRing> { state.pointee.fabric.controls + state.pointee.index }
    var hasControl: Bool { fos_load_acquire_u32(control.pointee.tail) != state.pointee.controlHead }

    /// Reads the acceptor's news; the next client that died, or nil.
    @usableFromInline func nextDeparture() -> UInt32? {
        while hasControl {
            let ring = control.pointee
            let word = ring.slots[Int(state.pointee.controlHead & (ring.capacity - 1))]
            state.pointee.controlHead &+= 1
            let client = UInt32(truncatingIfNeeded: word)
            if word >> 32 == UInt64(ControlRing.Kind.attached.rawValue) {
                state.pointee.greet(client)
            } else {
                state.pointee.touchClock()
                state.pointee.forget(client)
                state.pointee.forgetPending(of: client)
                return client
            }
        }
        return nil
    }

    /// The core holds nothing of the client any more. The acceptor counts who has said so when it next looks.
    @usableFromInline func finishDeparture(_ client: UInt32) {
        let fabric = state.pointee.fabric
        state.pointee.workedSinceTick = true
        _ = fos_fetch_add_u32(Fabric.farewellWord(fabric.clients + Int(client)), 1)
    }

    /// A letter from the microkernel to a server: one-way news.
    @usableFromInline func news(_ operation: fos_operation, to server: Int, client: UInt32) -> Request {
        let core = state
        core.pointee.touchClock()
        core.pointee.running.pointee = UInt32(server + 1)
        let letter = core.pointee.news
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_NONE.rawValue)
        envelope.client = client
        envelope.from = MailboxAddress(core: core.pointee.index, index: 0).rawValue
        envelope.arrived = core.pointee.clock
        if client != UInt32.max {
            let entry = core.pointee.fabric.clients + Int(client)
            envelope.client_generation = entry.pointee.generation
            envelope.uid = entry.pointee.uid
            envelope.gid = entry.pointee.gid
            envelope.pid = entry.pointee.pid
            envelope.rights = UInt16(truncatingIfNeeded: entry.pointee.rights)
            core.pointee.trace(
                mailbox: server + 1, kind: TraceKind.request, operation: UInt16(operation.rawValue), status: 0, inode: 0,
                client: client, detail: 0)
        }
        fos_letter_envelope(letter).pointee = envelope
        let message = fos_letter_message(letter)!
        message.pointee = fos_message()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.destination = MailboxAddress(core: core.pointee.index, index: server + 1).rawValue
        return Request(letter: letter)
    }

    /// Takes clients' requests, and sends what the microkernel itself still has to send. True if there was anything.
    @usableFromInline func gather() -> Bool {
        let core = state
        var worked = false
        if core.pointee.localQueued < core.pointee.queueLimit {
            worked = core.pointee.collectWatched() > 0
            // Bells are looked at when the watched channels rest, and every few turns so that nobody waits for long.
            if !worked && core.pointee.watchedAreSilent || core.pointee.turn % 4 == 0 {
                if core.pointee.settleBells() + core.pointee.collect() > 0 { worked = true }
            }
        }
        if core.pointee.pending.unasked > 0 {
            core.pointee.touchClock()
            core.pointee.askPrivilege()
            worked = true
        }
        if !core.pointee.settled {
            core.pointee.touchClock()
            if !core.pointee.introduce() { worked = true }
        }
        return worked
    }

    /// The first server from `server` on that has letters, or -1.
    @inline(__always) @usableFromInline func nextWithLetters(from server: Int) -> Int {
        let mailbox = nextWithLetters(from: server + 1, below: state.pointee.mailboxCount)
        return mailbox < 0 ? -1 : mailbox - 1
    }

    /// The first of a range of mailboxes that has letters, or -1. Letters of this core are noted as they come, so that no
    /// mailbox is looked at in vain; only other cores' have to be looked for.
    @inline(__always) private func nextWithLetters(from mailbox: Int, below end: Int) -> Int {
        let core = state
        let noted = core.pointee.localLetters >> UInt64(mailbox)
        var next = noted == 0 ? end : min(mailbox + noted.trailingZeroBitCount, end)
        if core.pointee.fabric.coreCount > 1, mailbox < next {
            for other in mailbox..<next where core.pointee.mailboxes[other].hasRemoteWork {
                next = other
                break
            }
        }
        guard next < end else { return -1 }
        core.pointee.localLetters &= ~(1 << UInt64(next))
        core.pointee.touchClock()
        return next
    }

    /// A server's batch is over: what is left in its mailbox is for the next turn.
    @usableFromInline func leave(_ server: Int) { leave(mailbox: server + 1) }

    func leave(mailbox: Int) {
        if state.pointee.mailboxes[mailbox].hasWork { state.pointee.localLetters |= 1 << UInt64(mailbox) }
    }

    /// What a server has to do next: responses before requests (paper, figure 6).
    @usableFromInline func next(of server: Int) -> Next {
        let core = state
        let mailbox = core.pointee.mailboxes + (server + 1)
        core.pointee.running.pointee = UInt32(server + 1)
        if let slot = mailbox.pointee.takeResponse() {
            traceResponse(mailbox: server + 1, mailbox.pointee.port.responses + slot)
            return .resume(slot)
        }
        guard let taken = mailbox.pointee.takeRequest() else { return .rest }
        switch begin(server, taken) {
        case .serve: return .receive(taken)
        case .statistics: return .describe(taken)
        case .done:
            release(server, taken)
            return .done
        }
    }

    private func traceResponse(mailbox: Int, _ letter: UnsafeMutablePointer<fos_letter>) {
        let message = fos_letter_message(letter)!
        let envelope = fos_letter_envelope(letter)!
        state.pointee.trace(
            mailbox: mailbox, kind: TraceKind.response, operation: message.pointee.operation, status: message.pointee.status,
            inode: message.pointee.inode, client: envelope.pointee.client, detail: envelope.pointee.continuation)
    }

    @usableFromInline func response(_ server: Int, _ slot: Int) -> Response {
        Response(letter: state.pointee.mailboxes[server + 1].port.responses + slot)
    }

    @usableFromInline func releaseResponse(_ server: Int, _ slot: Int) {
        state.pointee.mailboxes[server + 1].releaseResponse(slot)
    }

    @usableFromInline func release(_ server: Int, _ taken: TakenRequest) {
        state.pointee.mailboxes[server + 1].release(taken)
        if !taken.remote { state.pointee.localQueued &-= 1 }
    }

    /// Counts and traces a request, drops a dead client's, and answers what every mailbox answers alike.
    @inline(__always) private func begin(_ server: Int, _ taken: TakenRequest) -> Handling {
        let core = state
        let mailbox = server + 1
        let envelope = fos_letter_envelope(taken.letter)!
        let message = fos_letter_message(taken.letter)!
        if envelope.pointee.sender_kind == UInt8(FOS_SENDER_CLIENT.rawValue) {
            guard core.pointee.fabric.isLive(client: envelope.pointee.client, generation: envelope.pointee.client_generation) else {
                return .done
            }
            if envelope.pointee.host_note != 0 { core.pointee.noteBegun(envelope) }
        }
        core.pointee.mailboxes[mailbox].requests &+= 1
        core.pointee.trace(
            mailbox: mailbox, kind: TraceKind.request, operation: message.pointee.operation, status: 0,
            inode: message.pointee.inode, client: envelope.pointee.client, detail: envelope.pointee.channel)
        switch UInt32(message.pointee.operation) {
        case FOS_OP_PING.rawValue:
            let answer = scratch()
            answer.pointee.operation = UInt16(FOS_OP_PING.rawValue)
            reply(to: envelope, answer)
            return .done
        case FOS_OP_STATISTICS.rawValue: return .statistics
        case FOS_OP_TRACE.rawValue:
            replyTrace(mailbox, envelope, message)
            return .done
        default: return .serve
        }
    }

    /// The microkernel's own mailbox: answers to what it asked, and news of the privilege fleet.
    @usableFromInline func serveMicrokernel() -> Bool {
        let core = state
        guard nextWithLetters(from: 0, below: 1) == 0 else { return false }
        core.pointee.running.pointee = 0
        for _ in 0..<Self.batch {
            if let slot = core.pointee.mailboxes[0].takeResponse() {
                core.pointee.resumeKernel(core.pointee.mailboxes[0].port.responses + slot)
                core.pointee.mailboxes[0].releaseResponse(slot)
                continue
            }
            guard let taken = core.pointee.mailboxes[0].takeRequest() else { return true }
            receiveMicrokernel(taken)
            release(-1, taken)
        }
        leave(mailbox: 0)
        return true
    }

    private func receiveMicrokernel(_ taken: TakenRequest) {
        switch begin(-1, taken) {
        case .done: break
        case .statistics: reply(taken, statistics(of: -1))
        case .serve:
            let message = fos_letter_message(taken.letter)!
            let answer = scratch()
            answer.pointee.operation = message.pointee.operation
            if message.pointee.operation == UInt16(FOS_OP_PRIVILEGE_INVALIDATE.rawValue) {
                state.pointee.privileges.invalidate()
                if message.pointee.length >= UInt32(MemoryLayout<fos_privilege_invalidate>.size) {
                    state.pointee.privileges.epoch =
                        UnsafeRawPointer(fos_letter_payload(taken.letter)!).loadUnaligned(as: fos_privilege_invalidate.self).epoch
                }
            } else {
                answer.pointee.status = -ENOSYS
            }
            reply(to: fos_letter_envelope(taken.letter), answer)
        }
    }
}
