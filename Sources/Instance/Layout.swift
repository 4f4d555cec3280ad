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

    /// Two name servers, one privilege server, a file server a core but at least two, and a memory server a core, dealt round
    /// the cores.
    /// - Parameter cores: 1 to FOS_CORES_MAX.
    init(cores: Int) {
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
        for member in 0..<max(2, cores) { place(FOS_SERVICE_FILE, member) }
        for member in 0..<cores { place(FOS_SERVICE_MEMORY, member) }
        self.cores = cores
        self.servers = servers
    }

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
