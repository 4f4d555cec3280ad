// Events, and the turns of cores.
//
// Protocol: `step` takes the earliest event and runs it. A letter that arrives waits in its mailbox and wakes the core; a woken core
// takes one letter a turn, responses before requests, servers of a core in turn, and is busy for as long as the request costs.
// Invariant: every event, and every letter as it arrives, is mixed into the hash of the run.

import CFosWire
import Messaging

extension SimHost {
    /// Runs one event. False when there is none.
    @discardableResult
    public func step() -> Bool {
        guard let event = events.next() else { return false }
        time = event.time
        turnTime = event.time
        totals.events += 1
        hash.mix(event.time)
        hash.mix(UInt64(event.kind.rawValue) << 32 | UInt64(event.target))
        switch event.kind {
        case .letter: arrive(event.letter, at: mailboxes[Int(event.target)])
        case .turn:
            cores[Int(event.target)].turnIsPlanned = false
            takeTurn(core: Int(event.target))
        case .reply:
            lastWork = time
            replyArrives(event.letter, at: event.target)
        case .notice: noticeArrives(event.letter, at: event.target)
        case .thread: threads[Int(event.target)].goOn()
        case .tick: tick(mailboxes[Int(event.target)])
        case .action:
            let action = actions[Int(event.target)]
            actions[Int(event.target)] = nil
            freeActions.append(event.target)
            action?(self)
        }
        return true
    }

    /// Runs until nothing is to come, or what comes next is later than `end`.
    public func run(until end: VirtualTime = .max) {
        while let next = events.nextTime, next <= end { step() }
    }
    /// Runs until the condition holds; false if nothing was to come before it did.
    @discardableResult
    public func run(until condition: () -> Bool) -> Bool {
        while !condition() { if !step() { return false } }
        return true
    }

    // MARK: Arrivals

    private func mix(_ letter: UnsafeMutablePointer<fos_letter>) {
        let message = Request(letter: letter).message
        hash.mix(UInt64(message.pointee.operation) << 32 | UInt64(UInt32(bitPattern: message.pointee.status)))
        hash.mix(message.pointee.inode)
        hash.mix(UInt64(letter.pointee.envelope.client) << 32 | UInt64(letter.pointee.envelope.sequence))
        mixPayload(of: letter)
    }

    /// The payload counts in the hash, but for addresses of simulated memory: servers tell each other where memory is, and Linux puts it
    /// elsewhere in each process. Such a word counts as its region and its offset in it.
    func mixPayload(of letter: UnsafeMutablePointer<fos_letter>) {
        guard options.hashesPayloads else { return }
        let payload = UnsafeRawBufferPointer(Request(letter: letter).payload)
        guard !regions.isEmpty else { return hash.mix(payload) }
        withUnsafeTemporaryAllocation(byteCount: payload.count, alignment: MemoryLayout<UInt64>.alignment) { copy in
            copy.copyMemory(from: payload)
            for offset in stride(from: 0, to: copy.count - 7, by: 8) {
                let word = copy.load(fromByteOffset: offset, as: UInt64.self)
                if let place = placeInMemory(UInt(word)) { copy.storeBytes(of: place, toByteOffset: offset, as: UInt64.self) }
            }
            hash.mix(UnsafeRawBufferPointer(copy))
        }
    }

    private func arrive(_ number: UInt32, at mailbox: SimMailbox) {
        let letter = letters[number]
        mix(letter)
        letter.pointee.envelope.arrived = time
        let mark = Mark(rawValue: letter.pointee.envelope.host_mark)
        let isOfBefore = !mark.isOf(mailbox.epoch)
        if mark.way == .response {
            // A response to a server that has died is nobody's.
            guard mailbox.server != nil, !isOfBefore else { return letters.giveBack(number) }
            letters.append(number, to: &mailbox.responses)
            return wake(mailbox)
        }
        let isRemote = mark.way == .remote
        let isOfTheDead = isOfTheDead(letter)
        guard !isOfTheDead, mailbox.server != nil, !isOfBefore || isFromClient(letter) else {
            if isRemote, !isOfBefore { mailbox.remote -= 1 }
            if isOfTheDead { return letters.giveBack(number) }
            return refuse(
                number, by: mailbox, isFromClient(letter) && letter.pointee.envelope.hops == 0 ? FOS_TRANSPORT_STALE : FOS_TRANSPORT_RETRY)
        }
        if isFromClient(letter), letter.pointee.envelope.hops == 0 {
            let epoch = letter.pointee.message.epoch
            if epoch != 0, epoch != mailbox.epoch { return refuse(number, by: mailbox, FOS_TRANSPORT_STALE) }
            if mailbox.requests.count - mailbox.remote >= options.mailboxCapacity { return refuse(number, by: mailbox, FOS_TRANSPORT_FULL) }
        }
        hold(letter, mailbox.number)
        letters.append(number, to: &mailbox.requests)
        mailbox.statistics.queue_peak = max(mailbox.statistics.queue_peak, UInt64(mailbox.requests.count))
        wake(mailbox)
    }

    @inline(__always) private func isFromClient(_ letter: UnsafeMutablePointer<fos_letter>) -> Bool {
        UInt32(letter.pointee.envelope.sender_kind) == FOS_SENDER_CLIENT.rawValue
    }

    /// A question that was passed on, and whose sender has died since. News of the death takes the direct way and may have been here
    /// already: what the dead one holds is let go then, and it is not to get hold of anything any more.
    private func isOfTheDead(_ letter: UnsafeMutablePointer<fos_letter>) -> Bool {
        guard UInt32(letter.pointee.envelope.sender_kind) == FOS_SENDER_SERVER.rawValue, letter.pointee.envelope.hops > 0 else {
            return false
        }
        return outstanding[letter.pointee.envelope.host_note] == nil
    }

    /// Remembers who has a request, so that it is answered when that server dies.
    func hold(_ letter: UnsafeMutablePointer<fos_letter>, _ holder: UInt32) {
        switch UInt32(letter.pointee.envelope.sender_kind) {
        case FOS_SENDER_CLIENT.rawValue:
            thread(of: letter)?.holder = holder
        case FOS_SENDER_SERVER.rawValue:
            outstanding[letter.pointee.envelope.host_note]?.holder = holder
        default: break
        }
    }

    // MARK: Turns

    /// A letter waits: the core has a turn as soon as it is free.
    func wake(_ mailbox: SimMailbox) {
        let core = mailbox.address.core
        if cores[core].turnIsPlanned { return }
        if cores[core].busyUntil <= time, mailbox.stalledUntil <= time { return takeTurn(core: core) }
        cores[core].turnIsPlanned = true
        events.schedule(.turn, at: max(cores[core].busyUntil, mailbox.stalledUntil), target: UInt32(core))
    }

    /// One letter of one server: responses of all servers of the core before requests, servers in turn (paper, figure 6).
    private func takeTurn(core: Int) {
        let count = cores[core].mailboxes.count
        var stalled = VirtualTime.max
        for wantsResponses in [true, false] {
            for offset in 0..<count {
                let position = (cores[core].next + offset) % count
                let mailbox = mailboxes[Int(cores[core].mailboxes[position])]
                guard wantsResponses ? mailbox.responses.count > 0 : mailbox.requests.count > 0 else { continue }
                if mailbox.stalledUntil > time {
                    stalled = min(stalled, mailbox.stalledUntil)
                    continue
                }
                if !wantsResponses { cores[core].next = (position + 1) % count }
                run(mailbox, response: wantsResponses)
                let isNeeded = cores[core].mailboxes.contains { mailboxes[Int($0)].hasWork || mailboxes[Int($0)].wantsIdle }
                if isNeeded, !cores[core].turnIsPlanned {
                    cores[core].turnIsPlanned = true
                    events.schedule(.turn, at: cores[core].busyUntil, target: UInt32(core))
                }
                return
            }
        }
        // Nothing else to do: the servers that asked for it are told.
        for number in cores[core].mailboxes where mailboxes[Int(number)].wantsIdle {
            mailboxes[Int(number)].wantsIdle = false
            if mailboxes[Int(number)].server != nil { news(FOS_OP_IDLE, to: mailboxes[Int(number)]) }
        }
        guard stalled != .max, !cores[core].turnIsPlanned else { return }
        cores[core].turnIsPlanned = true
        events.schedule(.turn, at: max(stalled, cores[core].busyUntil), target: UInt32(core))
    }

    private func run(_ mailbox: SimMailbox, response: Bool) {
        let number = response ? letters.removeFirst(of: &mailbox.responses) : letters.removeFirst(of: &mailbox.requests)
        let letter = letters[number]
        guard let server = mailbox.server else { preconditionFailure("a letter waits for a server that has crashed") }
        totals.queueing += time - letter.pointee.envelope.arrived
        letter.pointee.envelope.arrived /= 1000
        if Mark(rawValue: letter.pointee.envelope.host_mark).way == .remote { mailbox.remote -= 1 }
        letter.pointee.envelope.host_mark = 0
        onDeliver?(letter, mailbox.address)
        let message = Request(letter: letter).message.pointee
        // Ticks come by themselves, and would leave nothing else in a trace of a machine that does not come to rest.
        if !mailbox.traces.isOff, UInt32(message.operation) != FOS_OP_TICK.rawValue {
            trace(
                mailbox, kind: response ? 1 : 0, operation: message.operation, status: message.status, inode: message.inode,
                client: letter.pointee.envelope.client, detail: letter.pointee.envelope.sequence)
        }
        let kernel = SimKernel(host: self, own: mailbox)
        isInTurn = true
        turnTime = time + (response ? costs.response : serviceTime(message.operation))
        if response {
            mailbox.awaited -= 1
            server.resume(Response(letter: letter), kernel)
        } else {
            // News of the microkernel's are no requests, as in the live system.
            if UInt32(letter.pointee.envelope.sender_kind) != FOS_SENDER_NONE.rawValue { mailbox.statistics.requests += 1 }
            server.receive(Request(letter: letter), kernel)
        }
        isInTurn = false
        letters.giveBack(number)
        let spent = turnTime - time
        totals.service += spent
        mailbox.busy += spent
        cores[mailbox.address.core].busy += spent
        cores[mailbox.address.core].busyUntil = turnTime
        let operation = UInt32(message.operation)
        if operation != FOS_OP_TICK.rawValue, operation != FOS_OP_IDLE.rawValue { mailbox.workedSinceTick = true }
        planTick(mailbox)
    }

    @inline(__always) private func serviceTime(_ operation: UInt16) -> VirtualTime {
        operation < 1024 ? serviceTimes[Int(operation)] : costs.turn
    }

    // MARK: Ticks

    private func planTick(_ mailbox: SimMailbox) {
        guard mailbox.workedSinceTick || mailbox.wantsTick, !mailbox.tickIsPlanned else { return }
        mailbox.tickIsPlanned = true
        events.schedule(.tick, at: time + options.tickInterval, target: mailbox.number)
    }

    private func tick(_ mailbox: SimMailbox) {
        mailbox.tickIsPlanned = false
        guard mailbox.server != nil else { return }
        mailbox.workedSinceTick = false
        mailbox.wantsTick = false
        news(FOS_OP_TICK, to: mailbox)
    }

    /// A tick for every server, as at the start of a live core: servers publish their slots at their first message.
    public func tickAll() {
        for mailbox in mailboxes where mailbox.server != nil { news(FOS_OP_TICK, to: mailbox) }
    }

    /// One-way news of a server's own microkernel.
    func news(
        _ operation: fos_operation, to mailbox: SimMailbox, inode: UInt64 = 0, flags: UInt16 = 0, about client: SimClient? = nil,
        after delay: VirtualTime = 0
    ) {
        let number = letters.take()
        let letter = letters[number]
        letter.pointee.envelope.sender_kind = UInt8(FOS_SENDER_NONE.rawValue)
        letter.pointee.envelope.from = MailboxAddress(core: mailbox.address.core, index: 0).rawValue
        letter.pointee.envelope.host_mark = Mark(.local, mailbox.epoch).rawValue
        if let client {
            letter.pointee.envelope.client = client.index
            letter.pointee.envelope.client_generation = client.generation
            letter.pointee.envelope.rights = client.rights
        }
        letter.pointee.message.operation = UInt16(operation.rawValue)
        letter.pointee.message.flags = flags
        letter.pointee.message.inode = inode
        letter.pointee.message.destination = mailbox.address.rawValue
        events.schedule(.letter, at: time + delay, letter: number, target: mailbox.number)
    }
}
