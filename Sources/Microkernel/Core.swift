// Core: all state of one core's microkernel portion, owned by its pinned thread.
//
// Role: mailboxes of the core's servers, its view of every client, the caches, and the counters of the run loop.
// Invariant: no other thread reads or writes a Core while it runs; others reach it through ports, the client table, its
// control ring and the board. Allocated at start; nothing here allocates later.

import CFosWire
import CPlatform
import Glibc
import Messaging

/// What one core knows of one client.
@usableFromInline struct ClientView: BitwiseCopyable {
    /// 0: unknown to this core.
    var generation: UInt32
    /// Position in `Core.order`.
    var place: UInt32
    var bells: UnsafeMutablePointer<UInt64>?
    var bellWords: UInt32
    /// Notices written to this client, under `noticeGeneration`.
    var noticeHead: UInt32
    var noticeGeneration: UInt32
    /// The turn in which its bell last rang.
    var rang: UInt32
    /// Mailboxes of this core that it may send to (bit = index), valid for `allowedStamp`.
    var allowedStamp: UInt32
    var allowed: UInt64
}

/// A channel that is in use: its request's sequence word, and what it was when last looked at.
@usableFromInline struct WatchedChannel: BitwiseCopyable {
    var word: UnsafeMutablePointer<UInt32>
    var seen: UInt32
    var client: UInt32
    var generation: UInt32
    var channel: UInt32
}

@usableFromInline struct Core: BitwiseCopyable {
    var index: Int
    var fabric: Fabric
    var mailboxes: UnsafeMutablePointer<Mailbox>
    var mailboxCount: Int
    /// Mailboxes into which this core itself has put letters since it last looked, a bit for each; and how many requests of
    /// its own lie in all of them.
    var localLetters: UInt64
    var localQueued: UInt32
    /// Mailbox index of the server that runs now, 0 = the microkernel itself. Read by the crash handler.
    var running: UnsafeMutablePointer<UInt32>
    /// Time of the present turn, monotonic ns, and whether it has been read in it.
    var clock: UInt64
    var clockIsFresh: Bool
    var fastClock: FastClock
    var turn: UInt32
    var random: SeededRandom
    var scratch: UnsafeMutablePointer<fos_letter>
    /// Where a client's request is copied that has no mailbox slot.
    var staging: UnsafeMutablePointer<fos_letter>
    var news: UnsafeMutablePointer<fos_letter>

    // Clients: indices in `order`, the recently active ones first.
    var views: UnsafeMutablePointer<ClientView>
    var order: UnsafeMutablePointer<UInt32>
    var known: Int
    var hot: Int
    var coldCursor: Int
    var hotCursor: Int
    var controlHead: UInt32
    /// The channels used last.
    var watched: UnsafeMutablePointer<WatchedChannel>
    var watchedCount: Int
    var watchedNext: Int
    /// The last spin saw nothing in the watched channels: time for the bells.
    var watchedAreSilent: Bool
    /// Clients whose requests were taken in this turn and whose bells are still set.
    var ringing: UnsafeMutablePointer<UInt32>
    var ringingCount: Int
    /// Requests taken from one client's bells at a stretch, and letters queued above which bells are left ringing.
    var queueLimit: UInt32

    // Privilege (PrivilegeCache.swift) and names (NameCache.swift).
    var privileges: PrivilegeCache
    var pending: PendingLetters
    var names: NameCache
    var registrations: UnsafeMutablePointer<Registration>
    var registrationCount: Int
    var registered: Int
    var registrationInFlight: Bool
    var announced: Bool

    var parking: ParkingPolicy
    var lastTick: UInt64
    /// A tick is still to come: for work done since the last one, or because a server asked for it.
    var workedSinceTick: Bool
    /// Servers that asked for an FOS_OP_IDLE, a bit for each mailbox.
    var idleWanted: UInt64
}

/// A name to publish at start. The bytes live in the instance's arena.
struct Registration: BitwiseCopyable {
    var name: UnsafeMutablePointer<UInt8>
    var length: Int
    var many: Bool
    var mailbox: MailboxAddress
    var epoch: UInt32
}

extension Core {
    /// Nothing more to register or look up.
    var settled: Bool { announced && (names.entries[0].state != .empty || fabric.privilegeServerCount == 0) }

    /// Reads the clock once a turn.
    @inline(__always) mutating func touchClock() {
        if !clockIsFresh {
            clock = fastClock.now()
            clockIsFresh = true
        }
    }

    /// A request or response that is about to be written into a mailbox.
    struct Claim {
        var letter: UnsafeMutablePointer<fos_letter>
        var port: UnsafeMutablePointer<MailboxPort>
        var position: UInt32
        var remote: Bool
    }

    /// Claims a request slot at a destination, or says why there is none. `commit` publishes it.
    mutating func claim(_ destination: MailboxAddress, _ claim: inout Claim?) -> SendResult {
        guard let port = fabric.port(destination) else { return .stale }
        if destination.core == index {
            guard let letter = mailboxes[destination.index].claimLocal() else { return .full }
            claim = Claim(letter: letter, port: port, position: 0, remote: false)
        } else {
            guard let position = port.pointee.claim() else { return .full }
            claim = Claim(letter: port.pointee.slot(position), port: port, position: position, remote: true)
        }
        return .sent
    }

    mutating func commit(_ claim: Claim) {
        if claim.remote {
            claim.port.pointee.publish(claim.position)
            fos_fence()
            fabric.wake(core: claim.port.pointee.address.core)
        } else {
            commitLocal(claim.port.pointee.address.index)
        }
    }

    /// Makes the request visible that was written into a slot of `claimLocal`.
    @inline(__always) mutating func commitLocal(_ mailbox: Int) {
        mailboxes[mailbox].commitLocal()
        localLetters |= 1 << UInt64(mailbox)
        localQueued &+= 1
    }

    /// Copies header and payload of a message that this process has made.
    static func copy(_ message: UnsafePointer<fos_message>, to target: UnsafeMutablePointer<fos_message>) {
        let length = Int(message.pointee.length)
        precondition(length <= Int(FOS_PAYLOAD_BYTES_MAX), "a server built a message longer than a letter")
        memcpy(target, message, MemoryLayout<fos_message>.size + length)
    }

    /// Answers a server or a microkernel: into the slot it reserved, on whatever core.
    mutating func respond(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let address = MailboxAddress(rawValue: envelope.pointee.from)
        let reservation = envelope.pointee.host_mark
        guard let port = fabric.port(address), port.pointee.redeem(reservation) else { return }
        let slot = Int(reservation & 0xfff)
        let letter = port.pointee.responses + slot
        let target = fos_letter_envelope(letter)!
        target.pointee = envelope.pointee
        target.pointee.arrived = clock
        Self.copy(message, to: fos_letter_message(letter))
        if address.core == index {
            mailboxes[address.index].ready[slot / 64] |= 1 << UInt64(slot % 64)
            localLetters |= 1 << UInt64(address.index)
        } else {
            _ = fos_fetch_or_u64(port.pointee.ready + slot / 64, 1 << UInt64(slot % 64))
            fos_fence_after_update()
            fabric.wake(core: address.core)
        }
    }

    /// Records into a mailbox's trace ring.
    @inline(__always) func trace(
        mailbox: Int, kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32
    ) {
        let ring = mailboxes + mailbox
        let count = ring.pointee.traced.pointee
        ring.pointee.trace[Int(count % UInt64(FOS_TRACE_RECORDS))] = fos_trace_record(
            time: clock, operation: operation, kind: kind, status: status, inode: inode, client: client, detail: detail)
        ring.pointee.traced.pointee = count &+ 1
    }
}

/// The kinds of the automatic trace records, as fos_trace_record numbers them.
enum TraceKind {
    static var request: UInt16 { 0 }
    static var response: UInt16 { 1 }
    static var sent: UInt16 { 2 }
    static var replied: UInt16 { 3 }
    static var notice: UInt16 { 4 }
}
