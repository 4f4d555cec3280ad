// Mailboxes: a server's bounded request mailbox and its response mailbox with reserved slots (paper, section 3.2).
//
// Role: storage and the lock-free hand-over of letters. Each mailbox has two sides.
//   Private side (struct Mailbox), touched by its own core alone: a ring of requests from the core's clients and
//   neighbour servers, without atomics; the free list of response slots.
//   Shared side (struct MailboxPort), for the other cores: a bounded many-producer ring of requests (each slot has a
//   sequence word that says whose turn it is, after D. Vyukov's bounded queue), and the response slots themselves.
// Protocol: a send that expects a response reserves a slot of the sender's own mailbox and puts its number and ticket
//   into the envelope. Whoever answers writes the letter into that very slot and sets its ready bit, from whatever
//   core. So a response needs no ring, cannot meet a full one, and costs one copy.
// Invariants: the ticket word of a slot is not zero exactly while an answer is awaited; answering takes it to zero
//   once, so a second answer finds nothing. A letter is used in place and its slot freed after the server returns.

import CFosWire
import CPlatform
import Messaging

/// What other cores see of a mailbox. Constant after start, but for the memory behind its pointers.
@usableFromInline struct MailboxPort: BitwiseCopyable {
    var address: MailboxAddress
    /// 0: no such mailbox.
    var epoch: UInt32
    var clientReachable: Bool
    /// Request ring from other cores: letters, and one sequence word a slot, 64 bytes apart.
    var letters: UnsafeMutablePointer<fos_letter>
    var turns: UnsafeMutablePointer<UInt32>
    var capacity: UInt32
    /// Next position to claim; a line of its own.
    var tail: UnsafeMutablePointer<UInt32>
    /// Response slots, their tickets, and the ready bits that other cores set.
    var responses: UnsafeMutablePointer<fos_letter>
    var tickets: UnsafeMutablePointer<UInt32>
    var ready: UnsafeMutablePointer<UInt64>
    var responseCapacity: UInt32

    static var turnStride: Int { 16 }

    /// Claims a request slot for writing; nil when the ring is full.
    func claim() -> UInt32? {
        var position = fos_load_relaxed_u32(tail)
        while true {
            let turn = fos_load_acquire_u32(turns + Int(position & (capacity - 1)) * Self.turnStride)
            let difference = Int32(bitPattern: turn &- position)
            if difference == 0 {
                if fos_compare_exchange_u32(tail, position, position &+ 1) != 0 { return position }
                position = fos_load_relaxed_u32(tail)
            } else if difference < 0 {
                return nil
            } else {
                position = fos_load_relaxed_u32(tail)
            }
        }
    }

    func slot(_ position: UInt32) -> UnsafeMutablePointer<fos_letter> { letters + Int(position & (capacity - 1)) }

    /// Hands a claimed and written slot to the owner.
    func publish(_ position: UInt32) {
        fos_store_release_u32(turns + Int(position & (capacity - 1)) * Self.turnStride, position &+ 1)
    }
}

/// The private side of a mailbox.
@usableFromInline struct Mailbox: BitwiseCopyable {
    var port: MailboxPort
    /// Ring of requests from this core.
    var letters: UnsafeMutablePointer<fos_letter>
    var capacity: UInt32
    var head: UInt32
    var tail: UInt32
    /// Position in the port's ring to read next.
    var remoteHead: UInt32
    /// Whose turn it is when both rings hold requests.
    var remoteNext: Bool
    var free: UnsafeMutablePointer<UInt16>
    var freeCount: Int
    /// Ready bits seen or set on this core: one word for 64 slots.
    var ready: UnsafeMutablePointer<UInt64>
    var readyWords: Int
    var lastTicket: UInt32
    var trace: UnsafeMutablePointer<fos_trace_record>
    var traced: UnsafeMutablePointer<UInt64>
    // Counters, for fos_statistics.
    var service: UInt32
    var member: UInt32
    var requests: UInt64
    var replies: UInt64
    var forwards: UInt64
    var retries: UInt64
    var errors: UInt64
    var sent: UInt64
    var queuePeak: UInt64
    var continuationsPeak: UInt64
}

/// Where a request was taken from, to free its slot afterwards.
@usableFromInline struct TakenRequest {
    @usableFromInline let letter: UnsafeMutablePointer<fos_letter>
    @usableFromInline let remote: Bool
}

extension Mailbox {
    /// Allocates a mailbox. Memory is touched only where it is used, so deep mailboxes cost little while shallow.
    init(
        address: MailboxAddress, epoch: UInt32, clientReachable: Bool, service: UInt32, member: UInt32, capacity: Int,
        remoteCapacity: Int, responseCapacity: Int, arena: inout Arena
    ) {
        let turns = arena.take(UInt32.self, remoteCapacity * MailboxPort.turnStride)
        for position in 0..<remoteCapacity { turns[position * MailboxPort.turnStride] = UInt32(position) }
        port = MailboxPort(
            address: address, epoch: epoch, clientReachable: clientReachable,
            letters: arena.take(fos_letter.self, remoteCapacity), turns: turns, capacity: UInt32(remoteCapacity),
            tail: arena.take(UInt32.self, 16), responses: arena.take(fos_letter.self, responseCapacity),
            tickets: arena.take(UInt32.self, responseCapacity), ready: arena.take(UInt64.self, max(8, responseCapacity / 64)),
            responseCapacity: UInt32(responseCapacity))
        letters = arena.take(fos_letter.self, capacity)
        self.capacity = UInt32(capacity)
        head = 0
        tail = 0
        remoteHead = 0
        remoteNext = false
        free = arena.take(UInt16.self, responseCapacity)
        // The lowest slots are used first and again, so that shallow use stays in the cache.
        for slot in 0..<responseCapacity { free[slot] = UInt16(responseCapacity - 1 - slot) }
        freeCount = responseCapacity
        ready = arena.take(UInt64.self, max(8, responseCapacity / 64))
        readyWords = responseCapacity / 64
        lastTicket = 0
        trace = arena.take(fos_trace_record.self, Int(FOS_TRACE_RECORDS))
        traced = arena.take(UInt64.self, 8)
        self.service = service
        self.member = member
        requests = 0
        replies = 0
        forwards = 0
        retries = 0
        errors = 0
        sent = 0
        queuePeak = 0
        continuationsPeak = 0
    }

    var queued: UInt32 { tail &- head }
    var remoteQueued: Bool {
        fos_load_acquire_u32(port.turns + Int(remoteHead & (port.capacity - 1)) * MailboxPort.turnStride) == remoteHead &+ 1
    }
    var awaited: Int { Int(port.responseCapacity) - freeCount }

    /// A slot for a request from this core; nil when the mailbox is full. `commitLocal` makes it visible.
    @inline(__always) mutating func claimLocal() -> UnsafeMutablePointer<fos_letter>? {
        if head == tail {  // an empty ring starts over, and so stays in the cache
            head = 0
            tail = 0
        }
        guard tail &- head < capacity else { return nil }
        return letters + Int(tail & (capacity - 1))
    }

    @inline(__always) mutating func commitLocal() {
        tail &+= 1
        let depth = UInt64(tail &- head)
        if depth > queuePeak { queuePeak = depth }
    }

    /// The next request, in place. `release` frees it.
    @inline(__always) mutating func takeRequest() -> TakenRequest? {
        let local = head != tail
        if (!local || remoteNext) && remoteQueued {
            remoteNext = false
            return TakenRequest(letter: port.slot(remoteHead), remote: true)
        }
        guard local else { return nil }
        remoteNext = true
        return TakenRequest(letter: letters + Int(head & (capacity - 1)), remote: false)
    }

    @inline(__always) mutating func release(_ taken: TakenRequest) {
        if taken.remote {
            fos_store_release_u32(
                port.turns + Int(remoteHead & (port.capacity - 1)) * MailboxPort.turnStride, remoteHead &+ port.capacity)
            remoteHead &+= 1
        } else {
            head &+= 1
        }
    }

    /// Reserves a response slot: its number in the low 12 bits, its ticket above. 0 when none is free.
    mutating func reserveResponse() -> UInt32 {
        guard freeCount > 0 else { return 0 }
        freeCount -= 1
        let slot = UInt32(free[freeCount])
        lastTicket = (lastTicket &+ 1) & 0xfffff
        if lastTicket == 0 { lastTicket = 1 }
        let reservation = lastTicket << 12 | slot
        fos_store_release_u32(port.tickets + Int(slot), reservation)
        let awaitedNow = UInt64(awaited)
        if awaitedNow > continuationsPeak { continuationsPeak = awaitedNow }
        return reservation
    }

    mutating func cancelResponse(_ reservation: UInt32) {
        let slot = Int(reservation & 0xfff)
        port.tickets[slot] = 0
        free[freeCount] = UInt16(slot)
        freeCount += 1
    }

    /// The number of a slot whose response has come; nil if none has. `releaseResponse` frees it.
    @inline(__always) mutating func takeResponse() -> Int? {
        guard awaited > 0 else { return nil }
        for word in 0..<readyWords {
            if ready[word] == 0 {
                guard fos_load_relaxed_u64(port.ready + word) != 0 else { continue }
                ready[word] = fos_exchange_u64(port.ready + word, 0)
            }
            let bit = ready[word].trailingZeroBitCount
            ready[word] &= ready[word] &- 1
            return word * 64 + bit
        }
        return nil
    }

    @inline(__always) mutating func releaseResponse(_ slot: Int) {
        free[freeCount] = UInt16(slot)
        freeCount += 1
    }

    var hasWork: Bool { head != tail || hasRemoteWork }

    /// Whether there are letters that other cores have put there, or responses.
    var hasRemoteWork: Bool {
        if remoteQueued { return true }
        guard awaited > 0 else { return false }
        for word in 0..<readyWords where ready[word] | fos_load_relaxed_u64(port.ready + word) != 0 { return true }
        return false
    }
}

extension MailboxPort {
    /// Takes the right to answer a reservation; false if it was answered before or never existed.
    func redeem(_ reservation: UInt32) -> Bool {
        let slot = reservation & 0xfff
        guard reservation != 0, slot < responseCapacity else { return false }
        return fos_compare_exchange_u32(tickets + Int(slot), reservation, 0) != 0
    }
}
