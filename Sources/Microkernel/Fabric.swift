// The fabric: what the cores of one instance share. Everything else belongs to exactly one core.
//
// Role: finds the port of any mailbox, the client table, and the board; wakes a parked core.
// Protocol: written at start, before any core runs, and constant after that; the words behind the pointers that do
// change (board, client entries, control rings, flags) are accessed atomically.

import CFosWire
import CPlatform
import Messaging

@usableFromInline struct Fabric: BitwiseCopyable {
    var board: UnsafeMutablePointer<fos_board>
    var coreCount: Int
    /// coreCount × MicrokernelConfiguration.mailboxesPerCore.
    var ports: UnsafeMutablePointer<MailboxPort>
    var clients: UnsafeMutablePointer<ClientEntry>
    var clientsMax: Int
    var controls: UnsafeMutablePointer<ControlRing>
    /// The client with FOS_RIGHT_KERNEL_CACHE: its index + 1, 0 if none. Atomic.
    var kernelCacheClient: UnsafeMutablePointer<UInt32>
    /// 1: cores leave their loops. Atomic.
    var stopping: UnsafeMutablePointer<UInt32>
    /// Cores whose names are registered. Atomic.
    var ready: UnsafeMutablePointer<UInt32>
    /// First refusal of a name: index of the registration + 1 in the high half, the status in the low. Atomic.
    var refusal: UnsafeMutablePointer<UInt64>
    /// An eventfd that wakes the acceptor; -1 if there is none.
    var acceptorEvent: Int32
    /// One a core.
    var handOuts: UnsafeMutablePointer<HandOutRing>
    var ownerUID: UInt32
    /// Fixed points: the first mailboxes of the name and privilege fleets; count 0 if there is no such fleet.
    var nameServers: UnsafeMutablePointer<MailboxAddress>
    var nameServerCount: Int
    var privilegeServers: UnsafeMutablePointer<MailboxAddress>
    var privilegeServerCount: Int
    /// Linux gives memfds frames of 2 MiB; as it was at start.
    var hasHugeFrames: Bool
}

extension Fabric {
    /// The port of a mailbox; nil if there is none of that address.
    func port(_ address: MailboxAddress) -> UnsafeMutablePointer<MailboxPort>? {
        guard address.core < coreCount, address.index < MicrokernelConfiguration.mailboxesPerCore else { return nil }
        let port = ports + (address.core * MicrokernelConfiguration.mailboxesPerCore + address.index)
        return port.pointee.epoch == 0 ? nil : port
    }

    /// Wakes a core if it is parked. The caller has published its news and fenced. In-process senders change the futex
    /// word themselves, so this wake cannot be lost between a core's last look and its sleep.
    func wake(core: Int) {
        let parked = fos_board_parked(board, UInt32(core))!
        if fos_load_relaxed_u32(parked) != 0, fos_exchange_u32(parked, 0) != 0 {
            _ = fos_platform_futex_wake(parked, 1)
        }
    }

    /// Whether a client still lives under a generation.
    func isLive(client: UInt32, generation: UInt32) -> Bool {
        guard generation != 0, Int(client) < clientsMax else { return false }
        return fos_load_acquire_u32(Self.liveWord(clients + Int(client))) == generation
    }

    /// The entry's first field, as an atomic word.
    static func liveWord(_ entry: UnsafeMutablePointer<ClientEntry>) -> UnsafeMutablePointer<UInt32> {
        UnsafeMutableRawPointer(entry).assumingMemoryBound(to: UInt32.self)
    }
    static func farewellWord(_ entry: UnsafeMutablePointer<ClientEntry>) -> UnsafeMutablePointer<UInt32> {
        UnsafeMutableRawPointer(entry).assumingMemoryBound(to: UInt32.self) + 1
    }
}

/// News from the acceptor to one core: a single-producer ring that cannot fill, because a client index has at most one
/// arrival and one departure under way.
@usableFromInline struct ControlRing: BitwiseCopyable {
    enum Kind: UInt32 {
        case attached = 1
        case detached = 2
    }
    var slots: UnsafeMutablePointer<UInt64>
    var capacity: UInt32
    /// Written by the acceptor, on a line of its own.
    var tail: UnsafeMutablePointer<UInt32>

    init(clientsMax: Int, arena: inout Arena) {
        var capacity = 1
        while capacity < 2 * clientsMax { capacity *= 2 }
        slots = arena.take(UInt64.self, capacity)
        self.capacity = UInt32(capacity)
        tail = arena.take(UInt32.self, 16)
    }

    /// Acceptor only.
    func post(_ kind: Kind, client: UInt32) {
        let position = fos_load_relaxed_u32(tail)
        slots[Int(position & (capacity - 1))] = UInt64(kind.rawValue) << 32 | UInt64(client)
        fos_store_release_u32(tail, position &+ 1)
    }
}
