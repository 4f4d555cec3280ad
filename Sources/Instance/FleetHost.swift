// The fleets of one instance, running on the live microkernel: everything but the mount.
//
// Role: chooses CPUs, lays servers out on cores, and starts them. `Instance` adds the FUSE front end; tests and
// benchmarks use the fleets alone and attach clients to them.

import CFosWire
import CPlatform
import FileService
import Fleet
import Glibc
import MemoryService
import Messaging
import Microkernel
import NameService
import PlacementService
import PrivilegeService

public final class FleetHost: Sendable {
    /// CPUs of the cores at the start, core 0 first.
    public let cpus: [Int32]
    /// The user has not said which CPUs fos may use, so that cores may go to others.
    private let mayMove: Bool
    private let layout: Layout
    let topology: Topology
    private let microkernel: Microkernel

    /// - Parameters:
    ///   - cpus: nil: the machine's default, which leaves at least one CPU to programs. -1 in it: a core that is not pinned.
    ///   - sizeBytes: of files and metadata, shared out among the file servers; at least 1 MiB.
    ///   - memory: bytes that clients may have from the memory fleet, and how many of each frame size are kept ready for them.
    ///   - servers: file servers at the start, and at most; nil: by the number of cores.
    ///   - shards: entries from which on a directory is spread over the file servers; 0: never; nil: by the number of cores.
    ///   - onClient: hears of each client that connects or is gone.
    ///   - listens: whether clients find the instance by user and name; otherwise only by `connect`.
    public init(
        name: String, cpus wanted: [Int]? = nil, sizeBytes: UInt64, memory: MemorySize = MemorySize(), allowOther: Bool = false,
        servers: ClosedRange<Int>? = nil, shards: Int? = nil, listens: Bool = true,
        onClient: (@Sendable (ClientStatus, Bool) -> Void)? = nil
    ) throws(InstanceError) {
        topology = Topology.current()
        cpus = wanted.map { $0.map(Int32.init) } ?? topology.defaultCPUs()
        mayMove = wanted == nil
        layout = Layout(cores: cpus.count, files: servers)
        var configuration = MicrokernelConfiguration(
            name: name, ownerUID: geteuid(), cpus: cpus, placements: layout.servers.map { $0.placement })
        configuration.allowOther = allowOther
        configuration.listens = listens
        configuration.onClient = onClient
        let plan = FleetPlan(
            layout: layout, distances: Self.distances(cpus, topology), placement: Self.placement(cpus, topology), pages: Int(clamping: sizeBytes / UInt64(FOS_PAGE_BYTES)),
            memory: memory, allowOther: allowOther, automaticMaximum: servers?.upperBound ?? layout.serving,
            sharding: shards.map { Sharding(threshold: $0) } ?? Sharding.usual(servers: layout.serving, cores: layout.cores))
        do throws(MicrokernelError) {
            microkernel = try Microkernel(configuration: configuration) { core in plan.servers(onCore: core) }
        } catch {
            throw InstanceError("cannot start instance '\(name)': \(error.description)")
        }
    }

    /// Starts the cores; returns when every server is found by name.
    public func start() throws(InstanceError) {
        do throws(MicrokernelError) { try microkernel.start() } catch {
            throw InstanceError("cannot start the fleets: \(error.description)")
        }
    }

    /// Ends every client and server. Idempotent.
    public func stop() { microkernel.stop() }

    /// A new connection to the instance, as the client's end of a socket pair; the caller owns it.
    public func connect() throws(InstanceError) -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw InstanceError("no socket pair for a client: \(String(cString: strerror(errno)))")
        }
        microkernel.attach(socket: ends[0])
        return ends[1]
    }

    /// Moves the core that is on `cpu` to the nearest CPU without one.
    /// - Returns: the CPUs of all cores then; nil if no core has moved.
    func makeWay(on cpu: Int32) -> [Int32]? {
        let taken = microkernel.status().map(\.cpu)
        guard mayMove, let core = taken.firstIndex(of: cpu) else { return nil }
        let free = topology.cpus.filter { !taken.contains($0) }
        guard let nearest = free.min(by: { topology.distance(cpu: cpu, cpu: $0) < topology.distance(cpu: cpu, cpu: $1) }),
            microkernel.move(core: core, to: nearest)
        else { return nil }
        return microkernel.status().map(\.cpu)
    }

    /// Names of the servers of each core.
    var serverNames: [[String]] {
        (0..<layout.cores).map { core in layout.servers.filter { $0.mailbox.core == core }.map(\.name) }
    }
    /// Clients that are connected now.
    public var clients: [ClientStatus] { microkernel.clients }
    /// The cores as `fos status` and `.fos/topology` show them.
    public var cores: [CoreStatus] { microkernel.status() }

    private static func distances(_ cpus: [Int32], _ topology: Topology) -> DistanceMatrix {
        DistanceMatrix(cores: cpus.count) { from, to in
            cpus[from] == cpus[to] ? 0 : Int(topology.distance(cpu: cpus[from], cpu: cpus[to]))
        }
    }

    /// For the fleet manager: the cores, and after them the machine's CPUs by number, where programs are.
    private static func placement(_ cores: [Int32], _ topology: Topology) -> (distances: DistanceMatrix, cpus: Range<Int>) {
        let count = min(Int(topology.cpus.last ?? 0) + 1, Int(FOS_CPUS_MAX))
        let rows = cores + (0..<Int32(count))
        let known = rows.map { topology.cpus.firstIndex(of: $0) }
        let matrix = DistanceMatrix(cores: rows.count) { from, to in
            if rows[from] == rows[to] { return 0 }
            guard let a = known[from], let b = known[to] else { return Int(Topology.farthest) }
            return Int(topology.distance(a, b))
        }
        return (matrix, cores.count..<rows.count)
    }
}

/// What each core needs to make its servers, on its own thread.
private struct FleetPlan: Sendable {
    let layout: Layout
    let distances: DistanceMatrix
    /// What the fleet manager places by: distances, and which rows of them are CPUs.
    let placement: (distances: DistanceMatrix, cpus: Range<Int>)
    /// Of the whole instance.
    let pages: Int
    let memory: MemorySize
    let allowOther: Bool
    /// Most file servers that the fleet manager chooses by itself.
    let automaticMaximum: Int
    let sharding: Sharding

    func servers(onCore core: Int) -> CoreServers {
        let placed = layout.servers.filter { $0.mailbox.core == core }.sorted { $0.mailbox.index < $1.mailbox.index }
        var group = CoreServers(capacity: placed.count)
        for place in placed {
            switch place.service {
            case FOS_SERVICE_NAME: group.add(nameServer(place))
            case FOS_SERVICE_PRIVILEGE: group.add(privilegeServer(place))
            case FOS_SERVICE_MEMORY: group.add(memoryServer(place))
            case FOS_SERVICE_PLACEMENT: group.add(fleetManager())
            default: group.add(fileServer(place))
            }
        }
        return group
    }

    private func nameServer(_ place: Placed) -> NameServer {
        NameServer(
            member: place.member, members: layout.members(of: FOS_SERVICE_NAME), distances: distances,
            privilege: layout.members(of: FOS_SERVICE_PRIVILEGE).first)
    }

    private func privilegeServer(_ place: Placed) -> PrivilegeServer {
        PrivilegeServer(
            member: place.member, members: layout.members(of: FOS_SERVICE_PRIVILEGE),
            policy: PrivilegePolicy(
                owner: geteuid(), allowsOthers: allowOther, publicMailboxes: layout.servers.map(\.mailbox)),
            kernels: (0..<layout.cores).map { MailboxAddress(core: $0, index: 0) })
    }

    /// The limit is dealt evenly, as the credits below are.
    private func memoryServer(_ place: Placed) -> MemoryServer {
        let members = layout.members(of: FOS_SERVICE_MEMORY)
        var options = MemoryOptions(
            limitBytes: Int(clamping: memory.limitBytes) / members.count, reserveBytes: Int(clamping: memory.reserveBytes) / members.count)
        // All of the size limit may come to lie with one member, and extents are never quite full.
        options.serverLimitBytes = min(pages, 1 << 40) << 13 + 256 << 20
        return MemoryServer(member: place.member, members: members, options: options)
    }

    private func fleetManager() -> FleetManager {
        FleetManager(
            places: layout.members(of: FOS_SERVICE_FILE), serving: layout.serving, minimum: layout.serving, automaticMaximum: automaticMaximum,
            distances: placement.distances, cpus: placement.cpus)
    }

    /// Credits are dealt evenly to those that serve; a server that runs out asks its peers, so the limit is the instance's, not a server's.
    private func fileServer(_ place: Placed) -> FileServer<MemoryStore> {
        let members = layout.members(of: FOS_SERVICE_FILE)
        let serving = layout.serving
        let share = place.member < serving ? pages / serving + (place.member < pages % serving ? 1 : 0) : 0
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        // Whoever can guess how names are hashed can make names that all fall into one place.
        var seed: UInt64 = 0
        _ = fos_platform_random(&seed, UInt32(MemoryLayout<UInt64>.size))
        return FileServer(
            member: place.member, members: members, credits: share, size: pages, memory: layout.nearest(FOS_SERVICE_MEMORY, to: place.mailbox),
            root: RootAttributes(
                uid: geteuid(), gid: getegid(), mode: 0o755,
                born: Timestamp(seconds: Int64(now.tv_sec), nanoseconds: UInt32(now.tv_nsec))),
            seed: seed, sharding: sharding, store: MemoryStore(), serving: serving, isJoining: place.member >= serving, manager: layout.members(of: FOS_SERVICE_PLACEMENT).first)
    }
}

extension Placed {
    fileprivate var placement: ServerPlacement {
        ServerPlacement(
            service: service.rawValue, member: member, core: mailbox.core, index: mailbox.index,
            names: [PublishedName(Layout.fleetName(service), many: true), PublishedName(name, many: false)])
    }
}
