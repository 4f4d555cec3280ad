// Which server runs on which core: the layout of an instance (paper section 4: space, not time).
//
// Invariants: at least two name servers and two file servers also on one core; every core of a larger machine has a
// file server; the fixed points (name and privilege mailboxes) are known before the first message.

import CFosWire
import Messaging

/// One server's place.
struct Placed {
    let service: fos_service_kind
    /// Its number within its fleet.
    let member: Int
    let mailbox: MailboxAddress

    /// The symbolic name of this member.
    var name: String { "\(Layout.fleetName(service))/\(member)" }
}

struct Layout {
    let cores: Int
    let servers: [Placed]
    /// File servers that serve from the start, the first ones; the others are places for the fleet to grow into.
    let serving: Int

    /// Two name servers, one privilege server, the fleet manager, the file servers, and a memory server a core, dealt round the
    /// cores.
    /// - Parameters:
    ///   - cores: 1 to FOS_CORES_MAX.
    ///   - files: file servers at the start and at most; nil: one a core but at least two, and room for twice as many.
    init(cores: Int, files: ClosedRange<Int>? = nil) {
        let least = max(2, cores)
        let files = files ?? least...min(max(4, 2 * least), max(least, Layout.mostFiles))
        serving = files.lowerBound
        precondition(cores >= 1 && cores <= Int(FOS_CORES_MAX), "an instance has 1 to FOS_CORES_MAX cores")
        var next = [Int](repeating: 1, count: cores)  // index 0 of a core is its microkernel's own mailbox
        var servers: [Placed] = []
        func place(_ service: fos_service_kind, _ member: Int) {
            let core = member % cores
            servers.append(Placed(service: service, member: member, mailbox: MailboxAddress(core: core, index: next[core])))
            next[core] += 1
        }
        for member in 0..<2 { place(FOS_SERVICE_NAME, member) }
        place(FOS_SERVICE_PRIVILEGE, 0)
        for member in 0..<files.upperBound { place(FOS_SERVICE_FILE, member) }
        for member in 0..<cores { place(FOS_SERVICE_MEMORY, member) }
        place(FOS_SERVICE_PLACEMENT, 0)
        self.cores = cores
        self.servers = servers
    }

    /// A lookup's reply holds so many members, and clients keep no more.
    static let mostFiles = 32

    /// Mailboxes of a fleet in the order of its members.
    func members(of service: fos_service_kind) -> [MailboxAddress] {
        servers.filter { $0.service == service }.sorted { $0.member < $1.member }.map(\.mailbox)
    }

    /// The member of a fleet that shares a server's core, or else its first.
    func nearest(_ service: fos_service_kind, to mailbox: MailboxAddress) -> MailboxAddress? {
        let fleet = members(of: service)
        return fleet.first { $0.core == mailbox.core } ?? fleet.first
    }

    /// The one-to-many name of a fleet.
    static func fleetName(_ service: fos_service_kind) -> String {
        switch service {
        case FOS_SERVICE_NAME: "/sys/name"
        case FOS_SERVICE_PRIVILEGE: "/sys/privilege"
        case FOS_SERVICE_MEMORY: "/sys/memory"
        case FOS_SERVICE_PLACEMENT: "/sys/placement"
        default: "/sys/file"
        }
    }
}
