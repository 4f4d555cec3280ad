// The client side of a core: taking requests out of segments, and answering into them.
//
// Protocol (fos/channel.h): a client sets a bit of this core's bell in its own segment; the core takes the bits, and for
// each channel compares the client's request_sequence with its own record before it copies the request, once, into a
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
    /// Turns without a ring after which a client counts as silent.
    static var coldAfterTurns: UInt32 { 4096 }

    func bellsRing(_ client: UInt32) -> Bool {
        let view = views[Int(client)]
        guard let bells = view.bells else { return false }
        for word in 0..<Int(view.bellWords) where fos_load_relaxed_u64(bells + word) != 0 { return true }
        return false
    }

    /// Whether any client's bell rings on this core; looks at all of them.
    func anyBellRings() -> Bool {
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

    /// Takes every request that one client's bells announce.
    private mutating func take(_ client: UInt32) -> Int {
        let entry = fabric.clients + Int(client)
        let view = views[Int(client)]
        guard let bells = view.bells, fos_load_acquire_u32(Fabric.liveWord(entry)) == view.generation else { return 0 }
        touchClock()
        var taken = 0
        for word in 0..<Int(view.bellWords) {
            guard fos_load_relaxed_u64(bells + word) != 0 else { continue }
            var bits = fos_exchange_u64(bells + word, 0)
            while bits != 0 {
                let channel = UInt32(word * 64 + bits.trailingZeroBitCount)
                bits &= bits &- 1
                if channel < entry.pointee.channels {
                    takeRequest(entry, client: client, generation: view.generation, channel: channel)
                    taken += 1
                }
            }
        }
        return taken
    }

    /// Copies one request out of its channel, decides who is acting, and delivers or refuses it.
    private mutating func takeRequest(
        _ entry: UnsafeMutablePointer<ClientEntry>, client: UInt32, generation: UInt32, channel: UInt32
    ) {
        let shared = entry.pointee.channel! + Int(channel)
        let record = entry.pointee.state! + Int(channel)
        let sequence = fos_load_acquire_u32(fos_channel_request_sequence(shared))
        let before = fos_load_acquire_u64(record)
        // In flight already, or a bell without a new request: the client's mistake, and its loss.
        guard sequence != 0, before >> 32 == 0, UInt32(truncatingIfNeeded: before) != sequence,
            fos_compare_exchange_u64(record, before, 1 << 32 | UInt64(sequence)) != 0
        else { return }

        let header = staging
        fos_copy_from_shared(header, fos_channel_request(shared), MemoryLayout<fos_message>.size)
        header.pointee.sequence = sequence
        header.pointee.status = 0
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        envelope.rights = UInt16(truncatingIfNeeded: entry.pointee.rights)
        envelope.client = client
        envelope.channel = channel
        envelope.sequence = sequence
        envelope.client_generation = generation
        envelope.arrived = clock
        if entry.pointee.rights & FOS_RIGHT_ACT_AS.rawValue != 0 {
            envelope.uid = header.pointee.uid
            envelope.gid = header.pointee.gid
            envelope.pid = header.pointee.pid
        } else {
            envelope.uid = entry.pointee.uid
            envelope.gid = entry.pointee.gid
            envelope.pid = entry.pointee.pid
        }
        guard header.pointee.length <= UInt32(FOS_PAYLOAD_BYTES_MAX) else { return refuse(&envelope, header, -EINVAL) }
        let destination = MailboxAddress(rawValue: header.pointee.destination)
        guard destination.core == index, destination.index != 0, let port = fabric.port(destination),
            port.pointee.epoch == header.pointee.epoch, port.pointee.clientReachable
        else { return refuse(&envelope, header, Int32(FOS_TRANSPORT_STALE.rawValue)) }
        guard Self.clientsMaySend(header.pointee.operation) else {
            return refuse(&envelope, header, Int32(FOS_TRANSPORT_DENIED.rawValue))
        }
        let payload = UnsafeRawPointer(fos_channel_request(shared)!) + MemoryLayout<fos_message>.size
        switch admission(of: client, to: destination.index, entry) {
        case .allowed:
            guard let letter = mailboxes[destination.index].claimLocal() else {
                return refuse(&envelope, header, Int32(FOS_TRANSPORT_FULL.rawValue))
            }
            Self.fill(letter, envelope, header, payload)
            mailboxes[destination.index].commitLocal()
        case .denied:
            refuse(&envelope, header, Int32(FOS_TRANSPORT_DENIED.rawValue))
        case .unknown:
            guard let letter = pending.claim() else { return refuse(&envelope, header, Int32(FOS_TRANSPORT_FULL.rawValue)) }
            Self.fill(letter, envelope, header, payload)
            askPrivilege()
        }
    }

    /// Operations that only servers and microkernels exchange.
    static func clientsMaySend(_ operation: UInt16) -> Bool {
        switch UInt32(operation) {
        case FOS_OP_PEER_FIRST.rawValue...FOS_OP_PEER_LAST.rawValue: false
        case FOS_OP_CLIENT_GONE.rawValue, FOS_OP_TICK.rawValue, FOS_OP_PRIVILEGE_INVALIDATE.rawValue,
            FOS_OP_PRIVILEGE_SUBSCRIBE.rawValue:
            false
        default: true
        }
    }

    private static func fill(
        _ letter: UnsafeMutablePointer<fos_letter>, _ envelope: fos_envelope, _ header: UnsafePointer<fos_message>,
        _ payload: UnsafeRawPointer
    ) {
        fos_letter_envelope(letter).pointee = envelope
        fos_letter_message(letter).pointee = header.pointee
        fos_copy_from_shared(fos_letter_payload(letter), payload, Int(header.pointee.length))
    }

    /// Answers a request that no server gets to see.
    mutating func refuse(_ envelope: inout fos_envelope, _ header: UnsafePointer<fos_message>, _ status: Int32) {
        var answer = fos_message()
        answer.operation = header.pointee.operation
        answer.inode = header.pointee.inode
        answer.destination = header.pointee.destination
        answer.status = status
        replyToClient(&envelope, &answer)
    }

    /// Puts a reply into its reserved slot and wakes the client if it sleeps. Dropped if the client is gone or the
    /// request was answered before.
    mutating func replyToClient(_ envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let client = envelope.pointee.client
        guard fabric.isLive(client: client, generation: envelope.pointee.client_generation) else { return }
        let entry = fabric.clients + Int(client)
        let channel = envelope.pointee.channel
        let sequence = envelope.pointee.sequence
        guard channel < entry.pointee.channels else { return }
        let record = entry.pointee.state! + Int(channel)
        guard fos_load_acquire_u64(record) == 1 << 32 | UInt64(sequence) else { return }
        let shared = entry.pointee.channel! + Int(channel)
        let reply = fos_channel_reply(shared)!
        Self.copy(message, to: reply)
        reply.pointee.sequence = sequence
        // The record is cleared first: once the client sees the reply it may post again at once.
        fos_store_release_u64(record, UInt64(sequence))
        let word = fos_channel_reply_sequence(shared)!
        fos_store_release_u32(word, sequence)
        fos_fence()
        if fos_load_relaxed_u32(fos_channel_client_parked(shared)) != 0 { _ = fos_platform_futex_wake(word, 1) }
    }

    /// The bulk bytes of a request, inside the bulk area of its channel.
    func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
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
        _ = fos_fetch_add_u32(bell, 1)  // sequentially consistent: a fence before the look at `parked`
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
    }
}
