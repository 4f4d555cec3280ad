// The client side of a core: taking requests out of segments, and answering into them.
//
// Protocol (fos/channel.h): for a channel that has been posted on (Core+Bells), the core compares the number in the request's
// header with its own record before it copies the request, once, into a mailbox. The reply goes into the slot that the request
// reserved, from whatever core.
// Invariants: nothing in a segment is read twice; every number read from it is bounded before use; a wrong one costs
// the client its own reply and nothing else. A channel has one request in flight, by the core's record.

import CFosWire
import CPlatform
import Glibc
import Messaging

extension Core {
    /// Takes one channel's request, if there is a new one. The record is read before the client's number. In the other order
    /// a core that is held up between the two could take the request of today under the number of one that another core has
    /// answered meanwhile, and nobody would ever answer it under its own. Only a later number is news.
    @inline(__always) mutating func takeRequest(
        _ entry: UnsafeMutablePointer<ClientEntry>, client: UInt32, generation: UInt32, channel: UInt32
    ) -> Bool {
        let shared = entry.pointee.channel! + Int(channel)
        let record = entry.pointee.state! + Int(channel)
        let before = fos_load_acquire_u64(record)
        let word = fos_message_sequence(fos_channel_request(shared))!
        let sequence = fos_load_acquire_u32(word)
        // In flight already, or a bell without a new request: the client's mistake, and its loss.
        guard before >> 32 == 0, sequence != 0, Int32(bitPattern: sequence &- UInt32(truncatingIfNeeded: before)) > 0 else { return false }
        // A bit may be left over from the request before, and this one be for another core, which has its own bell rung.
        let destination = MailboxAddress(rawValue: fos_load_relaxed_u32(fos_channel_destination(shared)))
        guard destination.core == index,
            begin(record, before, sequence)
        else { return false }
        // Asked for now, these lines are there when they are needed. The reply's, and those of the attributes in it, are to be had from
        // a client that does not look yet, having just posted.
        fos_platform_prefetch(UnsafeRawPointer(fos_channel_request(shared)!) + MemoryLayout<fos_message>.size)
        let reply = UnsafeRawPointer(fos_channel_reply(shared)!)
        for line in 0..<3 { fos_prefetch_to_write(reply + line * Int(FOS_CACHE_LINE)) }
        watch(word, sequence, client: client, generation: generation, channel: channel)
        deliver(
            entry, client: client, generation: generation, channel: channel, sequence: sequence, shared: shared,
            mailbox: destination.index)
        return true
    }

    /// Notes a request as in flight. False if another core was rung for the same channel and was first.
    @inline(__always) private func begin(_ record: UnsafeMutablePointer<UInt64>, _ before: UInt64, _ sequence: UInt32) -> Bool {
        let flying = 1 << 32 | UInt64(sequence)
        if fabric.coreCount == 1 {
            fos_store_relaxed_u64(record, flying)
            return true
        }
        return fos_compare_exchange_u64(record, before, flying) != 0
    }

    /// Copies a request out of its channel, decides who is acting, and delivers or refuses it. The copy is made right
    /// into the mailbox slot of the destination that the client named a moment ago; what is then checked is the copy.
    @inline(__always) private mutating func deliver(
        _ entry: UnsafeMutablePointer<ClientEntry>, client: UInt32, generation: UInt32, channel: UInt32, sequence: UInt32,
        shared: UnsafeMutablePointer<fos_channel>, mailbox: Int
    ) {
        let exists = mailbox > 0 && mailbox < mailboxCount
        let slot = exists ? mailboxes[mailbox].claimLocal() : nil
        let letter = slot ?? staging
        let header = fos_letter_message(letter)!
        fos_copy_from_shared(header, fos_channel_request(shared), MemoryLayout<fos_message>.size)
        let rights = entry.pointee.rights
        let actsAs = rights & FOS_RIGHT_ACT_AS.rawValue != 0
        // Field by field: a letter is read back in parts of many sizes right after, and what was written in smaller parts
        // than it is read makes the processor wait.
        let envelope = fos_letter_envelope(letter)!
        envelope.pointee.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        envelope.pointee.settled = 0
        envelope.pointee.rights = UInt16(truncatingIfNeeded: rights)
        envelope.pointee.client = client
        envelope.pointee.channel = channel
        envelope.pointee.sequence = sequence
        envelope.pointee.from = 0
        envelope.pointee.continuation = 0
        envelope.pointee.uid = actsAs ? header.pointee.uid : entry.pointee.uid
        envelope.pointee.gid = actsAs ? header.pointee.gid : entry.pointee.gid
        envelope.pointee.pid = actsAs ? header.pointee.pid : entry.pointee.pid
        envelope.pointee.client_generation = generation
        envelope.pointee.hops = 0
        envelope.pointee.cpu = UInt16(exactly: header.pointee.status) ?? 0
        envelope.pointee.host_mark = 0
        envelope.pointee.host_note = 0
        envelope.pointee.arrived = clock
        header.pointee.sequence = sequence
        header.pointee.status = 0
        if header.pointee.timed != 0 {
            envelope.pointee.host_note = 1
            fos_channel_times(shared).pointee = fos_request_times(taken: fos_platform_monotonic_ns(), begun: 0, answered: 0)
        }

        guard header.pointee.length <= UInt32(FOS_PAYLOAD_BYTES_MAX) else { return refuse(envelope, header, -EINVAL) }
        guard exists, header.pointee.destination == MailboxAddress(core: index, index: mailbox).rawValue,
            mailboxes[mailbox].port.epoch == header.pointee.epoch, mailboxes[mailbox].port.clientReachable
        else { return refuse(envelope, header, Status.stale) }
        guard Self.clientsMaySend(header.pointee.operation) else {
            return refuse(envelope, header, Status.denied)
        }
        let payload = UnsafeRawPointer(fos_channel_request(shared)!) + MemoryLayout<fos_message>.size
        let length = Int(header.pointee.length)
        switch admission(of: client, to: mailbox, entry) {
        case .allowed:
            guard slot != nil else { return refuse(envelope, header, Status.full) }
            if length > 0 { fos_copy_from_shared(fos_letter_payload(letter), payload, length) }
            commitLocal(mailbox)
        case .denied:
            refuse(envelope, header, Status.denied)
        case .unknown:
            guard let waiting = pending.claim() else { return refuse(envelope, header, Status.full) }
            fos_letter_envelope(waiting).pointee = envelope.pointee
            fos_letter_message(waiting).pointee = header.pointee
            fos_copy_from_shared(fos_letter_payload(waiting), payload, length)
            askPrivilege()
        }
    }

    /// Operations that only servers and microkernels exchange.
    @inline(__always) static func clientsMaySend(_ operation: UInt16) -> Bool {
        switch UInt32(operation) {
        case FOS_OP_PEER_FIRST.rawValue...FOS_OP_PEER_LAST.rawValue,
            FOS_OP_NAME_SHARD_PIECE.rawValue...FOS_OP_NAME_SHARD_LAST.rawValue,
            FOS_OP_FLEET_INTERNAL_FIRST.rawValue...FOS_OP_FLEET_INTERNAL_LAST.rawValue:
            false
        case FOS_OP_CLIENT_GONE.rawValue, FOS_OP_TICK.rawValue, FOS_OP_PRIVILEGE_INVALIDATE.rawValue,
            FOS_OP_PRIVILEGE_SUBSCRIBE.rawValue:
            false
        default: true
        }
    }

    /// For a client that times its requests (fos/channel.h): a server has begun with this one.
    mutating func noteBegun(_ envelope: UnsafePointer<fos_envelope>) {
        let entry = fabric.clients + Int(envelope.pointee.client)
        guard envelope.pointee.channel < entry.pointee.channels, let channels = entry.pointee.channel else { return }
        let times = fos_channel_times(channels + Int(envelope.pointee.channel))!
        if times.pointee.begun == 0 { times.pointee.begun = fos_platform_monotonic_ns() }
    }

    /// Answers a request that no server gets to see.
    mutating func refuse(_ envelope: UnsafePointer<fos_envelope>, _ header: UnsafePointer<fos_message>, _ status: Int32) {
        var answer = fos_message()
        answer.operation = header.pointee.operation
        answer.inode = header.pointee.inode
        answer.destination = header.pointee.destination
        answer.status = status
        replyToClient(envelope, &answer)
    }

    /// Puts a reply into its reserved slot and wakes the client if it sleeps. Dropped if the client is gone or the
    /// request was answered before.
    @inline(__always) mutating func replyToClient(_ envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let client = envelope.pointee.client
        guard fabric.isLive(client: client, generation: envelope.pointee.client_generation) else { return }
        let entry = fabric.clients + Int(client)
        let channel = envelope.pointee.channel
        let sequence = envelope.pointee.sequence
        guard channel < entry.pointee.channels else { return }
        let record = entry.pointee.state! + Int(channel)
        guard fos_load_acquire_u64(record) == 1 << 32 | UInt64(sequence) else { return }
        let shared = entry.pointee.channel! + Int(channel)
        if envelope.pointee.host_note != 0 { fos_channel_times(shared).pointee.answered = fos_platform_monotonic_ns() }
        precondition(message.pointee.length <= UInt32(FOS_PAYLOAD_BYTES_MAX), "a server built a reply longer than a channel holds")
        // The record is cleared first: once the client sees the reply it may post again at once.
        fos_store_release_u64(record, UInt64(sequence))
        fos_write_message(fos_channel_reply(shared), message, message.pointee.length, sequence)
        let word = fos_channel_reply_sequence(shared)!
        fos_store_release_u32(word, sequence)
        fos_fence()
        let parked = fos_load_relaxed_u32(fos_channel_client_parked(shared))
        if parked != 0 {
            _ = fos_platform_futex_wake(word, 1)
            if parked == 2 { parking.handOff = true }
        }
    }

    /// The bulk bytes of a request, inside the bulk area of its channel.
    /// Mutating, though it changes nothing: a method that only reads is given a copy of the whole core.
    mutating func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        let client = envelope.pointee.client
        guard fabric.isLive(client: client, generation: envelope.pointee.client_generation) else { return nil }
        let entry = fabric.clients + Int(client)
        let channel = envelope.pointee.channel
        guard channel < entry.pointee.channels, UInt64(offset) + UInt64(count) <= UInt64(FOS_BULK_BYTES),
            let bulk = entry.pointee.bulk
        else { return nil }
        return UnsafeMutableRawBufferPointer(
            start: bulk + Int(channel) * Int(FOS_CHANNEL_AREA_BYTES) + Int(offset), count: Int(count))
    }

    /// What was delegated to a channel. Of a client that has gone too, until this core has said that it has forgotten it: what it
    /// had changed before it died is taken from there.
    func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>? {
        guard Int(client) < fabric.clientsMax else { return nil }
        let entry = fabric.clients + Int(client)
        guard entry.pointee.generation == generation, channel < entry.pointee.channels, let bulk = entry.pointee.bulk else { return nil }
        return (bulk + Int(channel) * Int(FOS_CHANNEL_AREA_BYTES) + Int(FOS_BULK_BYTES)).assumingMemoryBound(to: fos_delegation.self)
    }
}
