// The client side of a core: taking requests out of segments, and answering into them.
//
// Protocol (fos/channel.h): a client sets a bit of this core's bell in its own segment; the core takes the bits, and for
// each channel compares the number in the request's header with its own record before it copies the request, once, into a
// mailbox. The reply goes into the slot that the request reserved, from whatever core.
// Invariants: nothing in a segment is read twice; every number read from it is bounded before use; a wrong one costs
// the client its own reply and nothing else. A channel has one request in flight, by the core's record.

import CFosWire
import CPlatform
import Glibc
import Messaging

extension Core {
    /// How often silent clients are looked at: so many of them a turn.
    static var coldClientsATurn: Int { 16 }
    /// Channels that are looked at directly.
    static var watchedMax: Int { 8 }
    /// Turns without a ring after which a client counts as silent.
    static var coldAfterTurns: UInt32 { 4096 }

    func bellsRing(_ client: UInt32) -> Bool {
        let view = views[Int(client)]
        guard let bells = view.bells else { return false }
        for word in 0..<Int(view.bellWords) where fos_load_relaxed_u64(bells + word) != 0 { return true }
        return false
    }

    /// Whether any client's bell rings on this core; looks at all of them.
    mutating func anyBellRings() -> Bool {
        for place in 0..<known where bellsRing(order[place]) { return true }
        return false
    }

    private mutating func swapPlaces(_ a: Int, _ b: Int) {
        guard a != b else { return }
        let (x, y) = (order[a], order[b])
        order[a] = y
        order[b] = x
        views[Int(y)].place = UInt32(a)
        views[Int(x)].place = UInt32(b)
    }

    /// Looks at the bells of the active clients and of a few silent ones, and moves their requests into mailboxes.
    /// Returns how many requests were taken. Stops early when much is queued: bells left ringing keep their requests.
    mutating func collect() -> Int {
        var taken = 0
        var looked = 0
        while looked < hot {
            if hotCursor >= hot { hotCursor = 0 }
            let client = order[hotCursor]
            if bellsRing(client) {
                taken += take(client)
                views[Int(client)].rang = turn
                if taken >= Int(queueLimit) {
                    hotCursor += 1
                    return taken
                }
            } else if turn &- views[Int(client)].rang > Self.coldAfterTurns, hot > 8 {
                hot -= 1
                swapPlaces(hotCursor, hot)
                continue
            }
            hotCursor += 1
            looked += 1
        }
        let cold = known - hot
        for _ in 0..<min(cold, Self.coldClientsATurn) {
            if coldCursor < hot || coldCursor >= known { coldCursor = hot }
            let client = order[coldCursor]
            if bellsRing(client) {
                swapPlaces(coldCursor, hot)
                hot += 1
                taken += take(client)
                views[Int(client)].rang = turn
                if taken >= Int(queueLimit) { break }
            }
            coldCursor += 1
        }
        return taken
    }

    /// Takes every request that one client's bells announce. The bells themselves are cleared in the next turn, by
    /// `settleBells`: clearing needs the bell's cache line back from the client, and nobody has to wait for that.
    private mutating func take(_ client: UInt32) -> Int {
        let entry = fabric.clients + Int(client)
        let view = views[Int(client)]
        guard let bells = view.bells, fos_load_acquire_u32(Fabric.liveWord(entry)) == view.generation else { return 0 }
        var taken = 0
        for word in 0..<Int(view.bellWords) {
            let bits = fos_load_acquire_u64(bells + word)
            if bits != 0 { taken += take(bits, word, entry, client: client, generation: view.generation) }
        }
        ringing[ringingCount] = client
        ringingCount += 1
        return taken
    }

    private mutating func take(
        _ bits: UInt64, _ word: Int, _ entry: UnsafeMutablePointer<ClientEntry>, client: UInt32, generation: UInt32
    ) -> Int {
        var bits = bits
        var taken = 0
        let channels = entry.pointee.channels
        let shared = entry.pointee.channel!
        let first = UInt32(word * 64 + bits.trailingZeroBitCount)
        if first < channels {
            // The lines that the next steps read: the header, and the beginning of the payload.
            let channel = UnsafeRawPointer(shared + Int(first))
            fos_platform_prefetch(channel + 128)
            fos_platform_prefetch(channel + 192)
        }
        touchClock()
        while bits != 0 {
            let channel = UInt32(word * 64 + bits.trailingZeroBitCount)
            bits &= bits &- 1
            if channel < channels, takeRequest(entry, client: client, generation: generation, channel: channel) { taken += 1 }
        }
        return taken
    }

    /// Clears the bells of the clients whose requests were taken in the turn before, and takes what they have posted
    /// since: a bit that is cleared here may be that of a newer request, so every channel is looked at after it.
    mutating func settleBells() -> Int {
        guard ringingCount > 0 else { return 0 }
        var taken = 0
        for position in 0..<ringingCount {
            let client = ringing[position]
            let view = views[Int(client)]
            let entry = fabric.clients + Int(client)
            guard let bells = view.bells, fos_load_acquire_u32(Fabric.liveWord(entry)) == view.generation else { continue }
            for word in 0..<Int(view.bellWords) where fos_load_relaxed_u64(bells + word) != 0 {
                let bits = fos_exchange_u64(bells + word, 0)
                if bits != 0 { taken += take(bits, word, entry, client: client, generation: view.generation) }
            }
        }
        ringingCount = 0
        return taken
    }

    /// Takes one channel's request, if there is a new one. The record is read before the client's number. In the other order
    /// a core that is held up between the two could take the request of today under the number of one that another core has
    /// answered meanwhile, and nobody would ever answer it under its own. Only a later number is news.
    @inline(__always) private mutating func takeRequest(
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
        // Asked for now, the reply's line is there when the server is done: a client that has just posted does not look yet.
        fos_prefetch_to_write(fos_channel_reply(shared))
        watch(word, sequence, client: client, generation: generation, channel: channel)
        deliver(
            entry, client: client, generation: generation, channel: channel, sequence: sequence, shared: shared,
            mailbox: destination.index)
        return true
    }

    /// Keeps an eye on a channel that is in use.
    @inline(__always) private mutating func watch(
        _ word: UnsafeMutablePointer<UInt32>, _ sequence: UInt32, client: UInt32, generation: UInt32, channel: UInt32
    ) {
        for position in 0..<watchedCount where watched[position].word == word {
            watched[position].seen = sequence
            return
        }
        let place: Int
        if watchedCount < Self.watchedMax {
            place = watchedCount
            watchedCount += 1
        } else {
            place = watchedNext
            watchedNext = (watchedNext + 1) % Self.watchedMax
        }
        watched[place] = WatchedChannel(word: word, seen: sequence, client: client, generation: generation, channel: channel)
    }

    /// The first watched channel that holds a new request, or -1.
    @inline(__always) mutating func watchedPost() -> Int {
        for position in 0..<watchedCount where fos_load_relaxed_u32(watched[position].word) != watched[position].seen { return position }
        return -1
    }

    /// Takes the new requests of watched channels from a position on, without waiting for their bells: the sequence in a
    /// request's own header is its last word to change, so one cache line brings the news and the request.
    mutating func collectWatched(from first: Int = 0) -> Int {
        var taken = 0
        for position in first..<watchedCount {
            let one = watched[position]
            let sequence = fos_load_acquire_u32(one.word)
            guard sequence != one.seen else { continue }
            let entry = fabric.clients + Int(one.client)
            watched[position].seen = sequence
            guard fos_load_acquire_u32(Fabric.liveWord(entry)) == one.generation else { continue }
            touchClock()
            if takeRequest(entry, client: one.client, generation: one.generation, channel: one.channel) {
                views[Int(one.client)].rang = turn
                taken += 1
            }
        }
        return taken
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
        envelope.pointee.reserved1 = 0
        envelope.pointee.reserved2 = 0
        envelope.pointee.arrived = clock
        header.pointee.sequence = sequence
        header.pointee.status = 0
        if header.pointee.timed != 0 {
            envelope.pointee.reserved2 = 1
            fos_channel_times(shared).pointee = fos_request_times(taken: fos_platform_monotonic_ns(), begun: 0, answered: 0)
        }

        guard header.pointee.length <= UInt32(FOS_PAYLOAD_BYTES_MAX) else { return refuse(envelope, header, -EINVAL) }
        guard exists, header.pointee.destination == MailboxAddress(core: index, index: mailbox).rawValue,
            mailboxes[mailbox].port.epoch == header.pointee.epoch, mailboxes[mailbox].port.clientReachable
        else { return refuse(envelope, header, Int32(FOS_TRANSPORT_STALE.rawValue)) }
        guard Self.clientsMaySend(header.pointee.operation) else {
            return refuse(envelope, header, Int32(FOS_TRANSPORT_DENIED.rawValue))
        }
        let payload = UnsafeRawPointer(fos_channel_request(shared)!) + MemoryLayout<fos_message>.size
        let length = Int(header.pointee.length)
        switch admission(of: client, to: mailbox, entry) {
        case .allowed:
            guard slot != nil else { return refuse(envelope, header, Int32(FOS_TRANSPORT_FULL.rawValue)) }
            if length > 0 { fos_copy_from_shared(fos_letter_payload(letter), payload, length) }
            commitLocal(mailbox)
        case .denied:
            refuse(envelope, header, Int32(FOS_TRANSPORT_DENIED.rawValue))
        case .unknown:
            guard let waiting = pending.claim() else { return refuse(envelope, header, Int32(FOS_TRANSPORT_FULL.rawValue)) }
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
        if envelope.pointee.reserved2 != 0 { fos_channel_times(shared).pointee.answered = fos_platform_monotonic_ns() }
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
            start: bulk + Int(channel) * Int(FOS_BULK_BYTES) + Int(offset), count: Int(count))
    }

    /// Free slots of this core's notice ring to a client. The tail is the client's word: any value only moves its own bound.
    mutating func noticeRoom(client: UInt32) -> Int {
        guard Int(client) < fabric.clientsMax else { return 0 }
        let entry = fabric.clients + Int(client)
        let generation = fos_load_acquire_u32(Fabric.liveWord(entry))
        guard generation != 0, let rings = entry.pointee.noticeRings else { return 0 }
        let view = views + Int(client)
        if view.pointee.noticeGeneration != generation {
            view.pointee.noticeGeneration = generation
            view.pointee.noticeHead = 0
        }
        let behind = view.pointee.noticeHead &- fos_load_acquire_u32(fos_notice_ring_tail(rings + index))
        return behind <= UInt32(FOS_NOTICES) ? Int(UInt32(FOS_NOTICES) - behind) : 0
    }

    mutating func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool {
        guard noticeRoom(client: client) > 0 else { return false }
        let entry = fabric.clients + Int(client)
        let ring = entry.pointee.noticeRings! + index
        let control = entry.pointee.noticeControl!
        let head = views[Int(client)].noticeHead
        fos_notice_ring_slot(ring, head).pointee = notice.pointee
        views[Int(client)].noticeHead = head &+ 1
        fos_store_release_u32(fos_notice_ring_head(ring), head &+ 1)
        let bell = fos_notice_control_bell(control)!
        _ = fos_fetch_add_u32(bell, 1)
        fos_fence_after_update()
        if fos_load_relaxed_u32(fos_notice_control_parked(control)) != 0 { _ = fos_platform_futex_wake(bell, 1) }
        trace(
            mailbox: Int(running.pointee), kind: TraceKind.notice, operation: UInt16(truncatingIfNeeded: notice.pointee.kind),
            status: 0, inode: notice.pointee.inode, client: client,
            detail: UInt32(truncatingIfNeeded: notice.pointee.cookie))
        return true
    }

    /// Learns of a new client.
    mutating func greet(_ client: UInt32) {
        let entry = fabric.clients + Int(client)
        let generation = fos_load_acquire_u32(Fabric.liveWord(entry))
        // Gone again already: the news of its death follows, and finds it unknown here.
        guard generation != 0 else { return }
        precondition(views[Int(client)].generation == 0, "a client index was given out twice")
        views[Int(client)].generation = generation
        views[Int(client)].place = UInt32(known)
        views[Int(client)].bells = fos_bell_bits(entry.pointee.bells! + index)
        views[Int(client)].bellWords = (entry.pointee.channels + 63) / 64
        views[Int(client)].rang = turn
        views[Int(client)].allowed = 0
        views[Int(client)].allowedStamp = 0
        order[known] = client
        known += 1
        swapPlaces(known - 1, hot)
        hot += 1
    }

    /// Forgets a dead client. The servers are told by the run loop.
    mutating func forget(_ client: UInt32) {
        guard views[Int(client)].generation != 0 else { return }
        var place = Int(views[Int(client)].place)
        if place < hot {
            hot -= 1
            swapPlaces(place, hot)
            place = hot
        }
        known -= 1
        swapPlaces(place, known)
        views[Int(client)].generation = 0
        views[Int(client)].bells = nil
        // Its segment will be unmapped: nothing may look into it any more.
        var position = 0
        while position < watchedCount {
            if watched[position].client == client {
                watchedCount -= 1
                watched[position] = watched[watchedCount]
            } else {
                position += 1
            }
        }
        watchedNext = 0
    }
}
