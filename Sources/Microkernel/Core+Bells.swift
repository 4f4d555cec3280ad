// Which of its clients a core looks at, and how it finds their new requests.
//
// Protocol (fos/channel.h): a client that has posted a request rings the bell of the core that the request is for: it sets the
// channel's bit in its own segment. The core looks at the bells of active clients in every turn and at those of a few silent ones,
// takes what they announce (`takeRequest`, Core+Clients), and clears the bits in the next turn. Channels that were in use a moment
// ago are watched directly, without waiting for their bells.
// Invariants: `order[0..<hot]` are the active clients, `order[hot..<known]` the silent ones, and `views[client].place` is a
// client's position there; a bit that is cleared is looked behind once more, so no request is missed; nothing looks into the
// segment of a client that has been forgotten.

import CFosWire
import CPlatform
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

    /// Keeps an eye on a channel that is in use.
    @inline(__always) mutating func watch(
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
