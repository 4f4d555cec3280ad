// The parts of a turn that need no knowledge of the servers. The run loop calls them by pointer, so that no exclusive
// access to the core's state is held while a server runs and calls back into it.

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
        if core.pointee.turn % 64 == 0 { beat() }
        return fos_load_acquire_u32(core.pointee.fabric.stopping) == 0
    }

    private func beat() {
        let beats = fos_board_beats(state.pointee.fabric.board, UInt32(state.pointee.index))!
        fos_store_relaxed_u64(beats, fos_load_relaxed_u64(beats) &+ 64)
    }

    private var control: UnsafeMutablePointer<ControlRing> { state.pointee.fabric.controls + state.pointee.index }
    private var hasControl: Bool { fos_load_acquire_u32(control.pointee.tail) != state.pointee.controlHead }

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

    private func leave(mailbox: Int) {
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
            if envelope.pointee.reserved2 != 0 { core.pointee.noteBegun(envelope) }
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

    /// The counters that the microkernel keeps for a server.
    @usableFromInline func statistics(of server: Int) -> fos_statistics {
        let core = state
        let mailbox = core.pointee.mailboxes + (server + 1)
        var statistics = fos_statistics()
        statistics.service = mailbox.pointee.service
        statistics.member = mailbox.pointee.member
        statistics.core = UInt32(core.pointee.index)
        statistics.mailbox = mailbox.pointee.port.address.rawValue
        statistics.requests = mailbox.pointee.requests
        statistics.replies = mailbox.pointee.replies
        statistics.forwards = mailbox.pointee.forwards
        statistics.retries = mailbox.pointee.retries
        statistics.errors = mailbox.pointee.errors
        statistics.sent = mailbox.pointee.sent
        let remote = fos_load_relaxed_u32(mailbox.pointee.port.tail) &- mailbox.pointee.remoteHead
        // Less the question, which lies in its slot until it is answered.
        let queued = UInt64(mailbox.pointee.queued) + UInt64(remote)
        statistics.queue_now = queued > 0 ? queued - 1 : 0
        statistics.queue_peak = mailbox.pointee.queuePeak
        statistics.continuations_now = UInt64(mailbox.pointee.awaited)
        statistics.continuations_peak = mailbox.pointee.continuationsPeak
        return statistics
    }

    @usableFromInline func reply(_ taken: TakenRequest, _ statistics: fos_statistics) {
        let answer = scratch()
        answer.pointee.operation = UInt16(FOS_OP_STATISTICS.rawValue)
        answer.pointee.length = UInt32(MemoryLayout<fos_statistics>.size)
        UnsafeMutableRawPointer(answer + 1).storeBytes(of: statistics, as: fos_statistics.self)
        reply(to: fos_letter_envelope(taken.letter), answer)
    }

    /// Copies a mailbox's trace ring, oldest first, into the asker's bulk area. The owner's and root's to read: it shows
    /// what everybody does.
    private func replyTrace(_ mailbox: Int, _ envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let answer = scratch()
        answer.pointee.operation = UInt16(FOS_OP_TRACE.rawValue)
        if envelope.pointee.rights & UInt16(FOS_RIGHT_ADMIN.rawValue) == 0 {
            answer.pointee.status = -EACCES
        } else {
            let ring = state.pointee.mailboxes[mailbox]
            let size = MemoryLayout<fos_trace_record>.stride
            let count = ring.traced.pointee
            let shown = min(count, UInt64(FOS_TRACE_RECORDS), UInt64(message.pointee.bulk_length) / UInt64(size))
            if let room = bulk(of: envelope, offset: message.pointee.bulk_offset, count: UInt32(shown) * UInt32(size)) {
                for position in 0..<Int(shown) {
                    let record = (count - shown + UInt64(position)) % UInt64(FOS_TRACE_RECORDS)
                    room.storeBytes(of: ring.trace[Int(record)], toByteOffset: position * size, as: fos_trace_record.self)
                }
                answer.pointee.bulk_offset = message.pointee.bulk_offset
                answer.pointee.bulk_length = UInt32(shown) * UInt32(size)
            } else {
                answer.pointee.status = -EINVAL
            }
        }
        reply(to: envelope, answer)
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

    // MARK: time and sleep

    /// About every 10 ms on a core with work.
    private static var tickInterval: UInt64 { 10_000_000 }

    @usableFromInline func tickIsDue() -> Bool {
        let core = state
        core.pointee.parking.worked()
        core.pointee.workedSinceTick = true
        return core.pointee.clockIsFresh && core.pointee.clock &- core.pointee.lastTick >= Self.tickInterval
    }

    @usableFromInline func ticked() {
        state.pointee.clock = state.pointee.fastClock.correct()
        state.pointee.lastTick = state.pointee.clock
        state.pointee.workedSinceTick = false
    }

    /// The servers that have something to do when nothing else is, a bit for each mailbox; 0: none, or a client waits for this
    /// very CPU.
    @usableFromInline func takeIdle() -> UInt64 {
        let core = state
        guard core.pointee.idleWanted != 0, !core.pointee.parking.handOff else { return 0 }
        let wanted = core.pointee.idleWanted
        core.pointee.idleWanted = 0
        core.pointee.workedSinceTick = true
        return wanted
    }

    /// Spins for a moment on what brings most work: the channels in use, and other cores' letters. What a channel has is
    /// taken at once.
    @usableFromInline func spin() -> Spin {
        let core = state
        core.pointee.watchedAreSilent = false
        // In the first moments the next request is likely, and a pause (20 to 40 ns) would only delay it.
        let isEager = core.pointee.parking.idleTurns < ParkingPolicy.eagerTurns
        let othersSend = core.pointee.fabric.coreCount > 1
        // Read now, when nobody waits for it: what comes in this spin has come less than a microsecond later.
        core.pointee.clock = core.pointee.fastClock.now()
        core.pointee.clockIsFresh = true
        for _ in 0..<(core.pointee.parking.handOff ? 1 : isEager ? 256 : 8) {
            let posted = core.pointee.watchedPost()
            if posted >= 0 {
                // None if it was refused, or has to wait for the privilege fleet.
                guard core.pointee.collectWatched(from: posted) > 0, core.pointee.localLetters != 0 else { return .nothing }
                return .letters(for: nextWithLetters(from: 0))
            }
            if othersSend {
                for mailbox in 0..<core.pointee.mailboxCount where core.pointee.mailboxes[mailbox].hasRemoteWork {
                    return .letters(for: mailbox - 1)
                }
            }
            if !isEager { fos_spin_pause() }
        }
        core.pointee.watchedAreSilent = true
        return core.pointee.parking.shouldPark() ? .enough : .nothing
    }

    /// Whether servers still have a tick to come for what they did. One that comes too soon after the last is put off:
    /// the core then sleeps for the rest of the interval only.
    @usableFromInline func tickBeforeParking() -> Bool {
        guard state.pointee.workedSinceTick else { return false }
        state.pointee.touchClock()
        return state.pointee.clock &- state.pointee.lastTick >= Self.tickInterval
    }

    private var anyNews: Bool {
        if hasControl || fos_load_acquire_u32(state.pointee.fabric.stopping) != 0 || state.pointee.pending.unasked > 0 {
            return true
        }
        for mailbox in 0..<state.pointee.mailboxCount where state.pointee.mailboxes[mailbox].hasWork {
            leave(mailbox: mailbox)
            return true
        }
        return state.pointee.anyBellRings()
    }

    /// Sleeps until somebody wakes this core. Announces it first, then looks once more at everything: a sender that
    /// publishes after the look finds the announcement (both sides fence between).
    @usableFromInline func park() {
        let core = state
        let word = fos_board_parked(core.pointee.fabric.board, UInt32(core.pointee.index))!
        fos_store_release_u32(word, 1)
        fos_fence()
        if anyNews {
            fos_store_release_u32(word, 0)
            core.pointee.parking.worked()
            return
        }
        beat()
        let before = fos_platform_monotonic_ns()
        let limit = core.pointee.workedSinceTick ? Self.tickInterval : ParkingPolicy.sleepMost
        _ = fos_platform_futex_wait(word, 1, limit)
        fos_store_release_u32(word, 0)
        core.pointee.parking.woke(after: fos_platform_monotonic_ns() &- before)
    }

    /// The instance ends: tells every client of this core that listens for notices.
    func sayGoodbye() {
        let core = state
        core.pointee.running.pointee = 0
        var notice = fos_notice()
        notice.kind = FOS_NOTICE_SHUTDOWN.rawValue
        for place in 0..<core.pointee.known { _ = core.pointee.notify(client: core.pointee.order[place], &notice) }
    }
}
