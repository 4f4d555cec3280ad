// What an instance's microkernel is told at start: its cores, which server sits where under which names, who may connect.
//
// Role: the placement is data, made by the composition (module Instance); the microkernel knows no service by name but
// the two fixed points: the name fleet (whose mailboxes every client is given) and the privilege fleet (which it asks).

import CFosWire
import Glibc
public import Messaging

/// A symbolic name that a server is registered under when the instance starts.
public struct PublishedName: Sendable, Equatable {
    public var name: String
    /// Joins a one-to-many name ("/sys/file") instead of being its only member ("/sys/file/0").
    public var many: Bool
    public init(_ name: String, many: Bool) {
        self.name = name
        self.many = many
    }
}

/// One server: which service, which member of its fleet, and the mailbox it owns.
public struct ServerPlacement: Sendable {
    /// enum fos_service_kind.
    public var service: UInt32
    public var member: Int
    /// Core and index make the mailbox address. The indices of a core are 1, 2, 3 ... in the order of its group.
    public var core: Int
    public var index: Int
    public var names: [PublishedName]
    /// Clients may send here (what they may send, the privilege fleet says). False: servers only.
    public var clientReachable: Bool
    /// Of the mailbox; a message with another one is refused as stale. Not 0.
    public var epoch: UInt32

    public init(
        service: UInt32, member: Int, core: Int, index: Int, names: [PublishedName] = [], clientReachable: Bool = true,
        epoch: UInt32 = 1
    ) {
        self.service = service
        self.member = member
        self.core = core
        self.index = index
        self.names = names
        self.clientReachable = clientReachable
        self.epoch = epoch
    }

    public var mailbox: MailboxAddress { MailboxAddress(core: core, index: index) }
}

public struct MicrokernelConfiguration: Sendable {
    /// Of the instance: the last part of its socket address, 1 to 64 bytes without "/".
    public var name: String
    /// Owner of the instance: part of the socket address; its connections get FOS_RIGHT_ADMIN, as root's do.
    public var ownerUID: UInt32
    /// One CPU a core; core 0 is pinned to cpus[0]. The same CPU twice, or -1 (not pinned), is for tests.
    public var cpus: [Int32]
    public var placements: [ServerPlacement]
    /// Anybody may connect, not only the owner and root.
    public var allowOther = false
    /// Listens on the abstract socket; false: only `Microkernel.attach` brings clients.
    public var listens = true
    /// Clients at once; beyond it a hello is answered -EAGAIN.
    public var clientsMax = 1024
    /// Clients at once of one user other than the owner and root, so that nobody keeps the others out.
    public var clientsOfUserMax = 256
    /// Channels a client may have, at most FOS_CHANNELS_MAX; a larger wish is cut to this.
    public var channelsMax = Int(FOS_CHANNELS_MAX)
    /// Letters in a server's request mailbox from its own core (clients and neighbours), a power of two.
    public var mailboxCapacity = 512
    /// Letters in a server's request mailbox from other cores, a power of two.
    public var remoteMailboxCapacity = 128
    /// Responses one server can await at once, a multiple of 64, at most 4096.
    public var responseCapacity = 256
    /// Nice value asked for core threads; a refusal is ignored. nil: as the process has it.
    public var nice: Int32? = -10
    /// Hears of each client that connects (true) and that is gone (false), on the acceptor's thread.
    public var onClient: (@Sendable (ClientStatus, Bool) -> Void)?
    /// Installs the crash handlers for the whole process.
    public var handlesCrashes = true

    public init(name: String, ownerUID: UInt32, cpus: [Int32], placements: [ServerPlacement]) {
        self.name = name
        self.ownerUID = ownerUID
        self.cpus = cpus
        self.placements = placements
    }
}

/// Why an instance did not start.
public enum MicrokernelError: Error, CustomStringConvertible, Sendable {
    /// A contradiction in the configuration.
    case configuration(String)
    /// An instance of that user and name already listens.
    case alreadyRunning
    /// A system call failed: what was tried, and the errno.
    case system(String, errno: Int32)
    /// The name fleet refused a name: its status.
    case nameRefused(String, status: Int32)
    /// The name fleet did not answer in time.
    case nameTimeout

    public var description: String {
        switch self {
        case .configuration(let text): text
        case .alreadyRunning: "an instance of this name is already running"
        case .system(let what, let errno): "\(what): \(String(cString: strerror(errno)))"
        case .nameRefused(let name, let status): "the name fleet refused \(name): status \(status)"
        case .nameTimeout: "the name fleet did not answer"
        }
    }
}

extension MicrokernelConfiguration {
    /// Limits on one core's mailboxes: index 0 is the microkernel's own.
    static var mailboxesPerCore: Int { 64 }

    /// Checks every number that the run loop later relies on.
    func validate() throws(MicrokernelError) {
        guard !cpus.isEmpty, cpus.count <= Int(FOS_CORES_MAX) else {
            throw .configuration("an instance has 1 to \(FOS_CORES_MAX) cores, not \(cpus.count)")
        }
        guard !name.isEmpty, name.utf8.count <= 64, !name.utf8.contains(UInt8(ascii: "/")) else {
            throw .configuration("an instance name has 1 to 64 bytes and no slash")
        }
        guard (1...Int(FOS_CHANNELS_MAX)).contains(channelsMax), (1...65_535).contains(clientsMax) else {
            throw .configuration("bad limit of clients or channels")
        }
        func powerOfTwo(_ n: Int) -> Bool { n > 0 && n <= 65_536 && n & (n - 1) == 0 }
        guard powerOfTwo(mailboxCapacity), powerOfTwo(remoteMailboxCapacity), responseCapacity > 0,
            responseCapacity % 64 == 0, responseCapacity <= 4096
        else { throw .configuration("bad mailbox capacity") }
        for core in cpus.indices {
            let indices = placements.filter { $0.core == core }.map(\.index).sorted()
            guard indices.count < Self.mailboxesPerCore, indices == Array(1..<(indices.count + 1)) else {
                throw .configuration("the servers of core \(core) need mailbox indices 1, 2, 3 ...")
            }
        }
        for placement in placements {
            guard cpus.indices.contains(placement.core), placement.epoch != 0 else {
                throw .configuration("a server is placed on core \(placement.core), which does not exist, or has epoch 0")
            }
            guard placement.names.allSatisfy({ (1...Int(FOS_SERVICE_NAME_BYTES_MAX)).contains($0.name.utf8.count) }) else {
                throw .configuration("a server name has 1 to \(FOS_SERVICE_NAME_BYTES_MAX) bytes")
            }
        }
        let published = placements.contains { !$0.names.isEmpty }
        let hasNameFleet = placements.contains { $0.service == FOS_SERVICE_NAME.rawValue }
        guard !published || hasNameFleet else { throw .configuration("names to publish, but no name server") }
    }
}
