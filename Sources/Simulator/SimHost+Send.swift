// Messages: what servers send, forward and reply, and the ways they take.
//
// Marks in a letter on its way, which no server sees: `host_mark` says which part of a mailbox it goes into and the epoch
// that the mailbox had when it was sent, `host_note` is the serial number of a request that a server awaits.

import CFosWire
import Messaging

/// What `host_mark` of an envelope says of a letter on its way.
struct Mark {
    enum Way: UInt32 { case local, remote, response }
    let rawValue: UInt32
    init(rawValue: UInt32) { self.rawValue = rawValue }
    init(_ way: Way, _ epoch: UInt32) { rawValue = way.rawValue << 30 | epoch & 0x3fff_ffff }
    var way: Way { Way(rawValue: rawValue >> 30) ?? .local }
    func isOf(_ epoch: UInt32) -> Bool { (rawValue ^ epoch) & 0x3fff_ffff == 0 }
}

extension SimHost {
    /// When a message that leaves now arrives. Messages of one pair of endpoints and one part of a mailbox keep their order.
    func arrival(from: Int, to: Int, leaving: VirtualTime, pair: @autoclosure () -> UInt64) -> VirtualTime {
        let distance = topology.distance(from: from, to: to)
        let latency = costs.message.latency(distance: distance)
        totals.messages += 1
        totals.hops += UInt64(distance)
        totals.transport += latency
        var arrival = leaving + latency
        guard faults.delayedPer65536 > 0 || !lastArrival.isEmpty else { return arrival }
        if faults.delayedPer65536 > 0, Int(random.next() & 65535) < faults.delayedPer65536 {
            totals.delayed += 1
            arrival += VirtualTime(random.below(Int(faults.delayAtMost)))
        }
        let pair = pair()
        arrival = max(arrival, lastArrival[pair] ?? 0)
        lastArrival[pair] = arrival
        return arrival
    }

    @inline(__always) private func pair(_ from: UInt32, _ to: UInt32, _ part: UInt64) -> UInt64 {
        (UInt64(from) &* 0x9e37_79b9_7f4a_7c15) ^ (UInt64(to) << 2) ^ part
    }

    private func isRefused() -> Bool { faults.refusedPer65536 > 0 && Int(random.next() & 65535) < faults.refusedPer65536 }

    private func admits(_ destination: SimMailbox?, from: SimMailbox) -> SendResult {
        guard let destination, destination.server != nil else {
            totals.stale += 1
            return .stale
        }
        let isFull =
            destination.address.core == from.address.core
            ? destination.requests.count - destination.remote >= options.mailboxCapacity
            : destination.remote >= options.remoteMailboxCapacity
        guard !isFull, !isRefused() else {
            totals.refused += 1
            return .full
        }
        return .sent
    }

    private func post(_ number: UInt32, from: SimMailbox, to destination: SimMailbox) {
        let letter = letters[number]
        let isRemote = destination.address.core != from.address.core
        letter.pointee.message.destination = destination.address.rawValue
        letter.pointee.envelope.host_mark = Mark(isRemote ? .remote : .local, destination.epoch).rawValue
        if isRemote { destination.remote += 1 }
        totals.serverMessages += 1
        turnTime += costs.send
        let arrival = arrival(
            from: from.address.core, to: destination.address.core, leaving: turnTime,
            pair: pair(from.address.rawValue, destination.address.rawValue, 0))
        events.schedule(.letter, at: arrival, letter: number, target: destination.number)
    }

    func send(
        _ message: UnsafePointer<fos_message>, from: SimMailbox, to address: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf behalf: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        if address.index == 0 { return answerByKernel(message, from: from, address, continuation) }
        let destination = mailbox(address)
        let admitted = admits(destination, from: from)
        guard admitted == .sent, let destination else { return admitted }
        let isExpected = continuation != .none
        if isExpected, from.awaited >= options.responseCapacity {
            totals.refused += 1
            return .full
        }
        let number = letters.take()
        let letter = letters[number]
        if let behalf { letter.pointee.envelope = behalf.pointee }
        letter.pointee.envelope.sender_kind = UInt8((isExpected ? FOS_SENDER_SERVER : FOS_SENDER_NONE).rawValue)
        letter.pointee.envelope.from = from.address.rawValue
        letter.pointee.envelope.continuation = continuation.rawValue
        letter.pointee.envelope.hops = 0
        letter.pointee.envelope.settled = 0
        if isExpected {
            serial += 1
            letter.pointee.envelope.host_note = serial
            outstanding[serial] = Outstanding(
                from: from.number, epoch: from.epoch, continuation: continuation.rawValue, holder: SimHost.underWay)
            from.awaited += 1
        }
        copy(message, into: letter)
        from.statistics.sent += 1
        post(number, from: from, to: destination)
        if !from.traces.isOff {
            trace(
                from, kind: 2, operation: letter.pointee.message.operation, status: 0, inode: letter.pointee.message.inode,
                client: letter.pointee.envelope.client, detail: address.rawValue)
        }
        return .sent
    }

    func forward(_ source: UnsafePointer<fos_letter>, from: SimMailbox, to address: MailboxAddress) -> SendResult {
        let destination = mailbox(address)
        let admitted = admits(destination, from: from)
        guard admitted == .sent, let destination else { return admitted }
        let number = letters.take()
        let letter = letters[number]
        letter.pointee.envelope = source.pointee.envelope
        copy(Request(letter: UnsafeMutablePointer(mutating: source)).message, into: letter)
        letter.pointee.envelope.hops &+= 1
        from.statistics.forwards += 1
        totals.forwards += 1
        if letter.pointee.envelope.hops == 65 { violate("a request was forwarded 64 times") }
        hold(letter, SimHost.underWay)
        post(number, from: from, to: destination)
        return .sent
    }

    func reply(from: SimMailbox, to target: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        if !from.traces.isOff {
            trace(
                from, kind: 3, operation: message.pointee.operation, status: message.pointee.status, inode: message.pointee.inode,
                client: target.pointee.client, detail: target.pointee.sequence)
        }
        from.statistics.replies += 1
        if message.pointee.status < 0 { from.statistics.errors += 1 }
        if message.pointee.status == Status.retry { from.statistics.retries += 1 }
        answer(target.pointee, message, core: from.address.core, sender: from.address)
    }

    /// Brings an answer to whoever asked.
    func answer(_ target: fos_envelope, _ message: UnsafePointer<fos_message>, core: Int, sender: MailboxAddress) {
        switch UInt32(target.sender_kind) {
        case FOS_SENDER_CLIENT.rawValue: answerClient(target, message, core: core)
        case FOS_SENDER_SERVER.rawValue: answerServer(target, message, core: core, sender: sender)
        case FOS_SENDER_KERNEL.rawValue:
            if target.continuation != 0 { kernelReplies[target.continuation] = (message.pointee, payload(of: message)) }
        case FOS_SENDER_NONE.rawValue: break
        default: violate("a reply to an envelope with sender kind \(target.sender_kind)")
        }
    }

    private func answerClient(_ target: fos_envelope, _ message: UnsafePointer<fos_message>, core: Int) {
        guard let client = liveClient(target.client), client.generation == target.client_generation else {
            return replyIsUnheard(target, message)
        }
        client.thread(target.channel)?.holder = SimHost.underWay
        let number = letters.take()
        let letter = letters[number]
        letter.pointee.envelope = target
        copy(message, into: letter)
        letter.pointee.message.sequence = target.sequence
        let arrival = arrival(
            from: core, to: client.core, leaving: isInTurn ? turnTime : time,
            pair: pair(UInt32(core), client.index, 1) ^ UInt64(target.channel) << 40)
        events.schedule(.reply, at: arrival + costs.clientReceive, letter: number, target: target.client)
    }

    private func answerServer(_ target: fos_envelope, _ message: UnsafePointer<fos_message>, core: Int, sender: MailboxAddress) {
        // Not there: answered already, or whoever asked has died since.
        guard let request = outstanding.removeValue(forKey: target.host_note) else {
            guard let asker = mailbox(MailboxAddress(rawValue: target.from)), target.host_note > asker.firstSerial else { return }
            return violate("a second response to request \(target.host_note) of \(target.from), operation \(message.pointee.operation)")
        }
        let destination = mailboxes[Int(request.from)]
        guard destination.server != nil, destination.epoch == request.epoch else { return }
        let number = letters.take()
        let letter = letters[number]
        letter.pointee.envelope = target
        copy(message, into: letter)
        letter.pointee.message.sequence = target.sequence
        letter.pointee.envelope.from = sender.rawValue
        letter.pointee.envelope.host_mark = Mark(.response, destination.epoch).rawValue
        totals.serverMessages += 1
        let arrival = arrival(
            from: core, to: destination.address.core, leaving: isInTurn ? turnTime : time,
            pair: pair(sender.rawValue, destination.address.rawValue, 2))
        events.schedule(.letter, at: arrival, letter: number, target: destination.number)
    }

    /// What a core's own mailbox is sent (privilege invalidations) is acknowledged at once.
    private func answerByKernel(
        _ message: UnsafePointer<fos_message>, from: SimMailbox, _ address: MailboxAddress, _ continuation: ContinuationID
    ) -> SendResult {
        guard continuation != .none else { return .sent }
        serial += 1
        outstanding[serial] = Outstanding(
            from: from.number, epoch: from.epoch, continuation: continuation.rawValue, holder: SimHost.underWay)
        from.awaited += 1
        var target = fos_envelope()
        target.sender_kind = UInt8(FOS_SENDER_SERVER.rawValue)
        target.from = from.address.rawValue
        target.continuation = continuation.rawValue
        target.host_note = serial
        var reply = fos_message()
        reply.operation = message.pointee.operation
        answer(target, &reply, core: address.core, sender: address)
        return .sent
    }

    /// The microkernel of a mailbox's core answers a request that its server did not take in.
    func refuse(_ number: UInt32, by mailbox: SimMailbox, _ status: fos_transport_status) {
        if status == FOS_TRANSPORT_FULL { totals.refused += 1 } else if status == FOS_TRANSPORT_STALE { totals.stale += 1 }
        var reply = fos_message()
        reply.operation = letters[number].pointee.message.operation
        reply.inode = letters[number].pointee.message.inode
        reply.status = Int32(status.rawValue)
        answer(letters[number].pointee.envelope, &reply, core: mailbox.address.core, sender: mailbox.address)
        letters.giveBack(number)
    }

    // MARK: The microkernel's own questions

    /// Sends a request as a microkernel that does not wait for the reply.
    public func kernelPost(_ operation: fos_operation, _ payload: [UInt8], to address: MailboxAddress) {
        guard let mailbox = mailbox(address), mailbox.server != nil else { return }
        postAsKernel(operation, payload, to: mailbox, inode: 0, continuation: 0)
    }

    private func postAsKernel(_ operation: fos_operation, _ payload: [UInt8], to mailbox: SimMailbox, inode: UInt64, continuation: UInt32) {
        let number = letters.take()
        let letter = letters[number]
        letter.pointee.envelope.sender_kind = UInt8(FOS_SENDER_KERNEL.rawValue)
        letter.pointee.envelope.continuation = continuation
        letter.pointee.envelope.host_mark = Mark(.local, mailbox.epoch).rawValue
        letter.pointee.message.operation = UInt16(operation.rawValue)
        letter.pointee.message.inode = inode
        letter.pointee.message.destination = mailbox.address.rawValue
        let count = min(payload.count, Int(FOS_PAYLOAD_BYTES_MAX))
        letter.pointee.message.length = UInt32(count)
        Request(letter: letter).payload.copyBytes(from: payload[0..<count])
        events.schedule(.letter, at: time, letter: number, target: mailbox.number)
    }

    /// Sends a request as a microkernel, and runs until its reply is there; nil if it never comes. "Try again" is sent again.
    public func kernelCall(
        _ operation: fos_operation, _ payload: [UInt8], to address: MailboxAddress, inode: UInt64 = 0
    ) -> (header: fos_message, payload: [UInt8])? {
        for _ in 0..<options.retriesMax {
            guard let mailbox = mailbox(address), mailbox.server != nil else { return nil }
            kernelContinuation += 1
            let asked = kernelContinuation
            postAsKernel(operation, payload, to: mailbox, inode: inode, continuation: asked)
            run { kernelReplies[asked] != nil }
            guard let reply = kernelReplies.removeValue(forKey: asked) else { return nil }
            if reply.0.status <= 0 { return reply }
        }
        return nil
    }

    // MARK: Copies

    func copy(_ message: UnsafePointer<fos_message>, into letter: UnsafeMutablePointer<fos_letter>) {
        let length = Int(message.pointee.length)
        precondition(length <= Int(FOS_PAYLOAD_BYTES_MAX), "a server sends a payload that is too long")
        UnsafeMutableRawPointer(Request(letter: letter).message).copyMemory(
            from: message, byteCount: MemoryLayout<fos_message>.size + length)
    }
    private func payload(of message: UnsafePointer<fos_message>) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(message) + MemoryLayout<fos_message>.size, count: Int(message.pointee.length)))
    }
}
