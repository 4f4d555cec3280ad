// What `fos status` tells of one mount: from the mount table, /proc, and the instance's own servers.

import CCommand
import CFosWire
import Glibc

public struct ServerStatus: Sendable {
    public let name: String
    /// As the name fleet lists it.
    public let member: fos_name_member
    public let statistics: fos_statistics
}

public struct InstanceStatus: Sendable {
    public let mount: MountEntry
    public let name: String
    public let userID: UInt32
    public var pid: Int32?
    public var residentBytes: UInt64?
    public var uptimeSeconds: UInt64?
    public var logPath: String?
    /// Why the instance could not be asked; nil if it answered.
    public var unreachable: String?
    /// It is another user's, who alone may ask it; nothing is wrong with it.
    public var isForbidden: Bool { unreachable == InstanceClient.notPermitted.description }
    public var cpus: [Int] = []
    public var servers: [ServerStatus] = []
    /// Connected client processes besides the mount's own front end and this command.
    public var clients: UInt64 = 0
    public var sizeBytes: UInt64 = 0
    public var usedBytes: UInt64 = 0
    /// Of the memory fleet; nil if there is none.
    public var memory: MemoryStatus?

    public init(of mount: MountEntry) {
        self.mount = mount
        name = mount.instanceName ?? ""
        userID = mount.userID ?? 0
        let listener = fos_command_listener(uid_t(userID), name)
        if listener > 0, let process = ProcessInformation(pid: listener) {
            pid = listener
            residentBytes = process.residentBytes
            uptimeSeconds = process.uptimeSeconds
            logPath = process.logPath
        }
        do throws(CommandFailure) {
            try ask()
        } catch {
            unreachable = error.description
        }
    }

    private mutating func ask() throws(CommandFailure) {
        let client = try InstanceClient(uid: userID, name: name)
        cpus = client.coreCPUs
        clients = UInt64(max(0, Self.connections(uid: userID, name: name, table: readText("/proc/net/unix") ?? "") - 1))
        let names = try client.names()
        servers = try client.servers(among: names)
        memory = try client.memory(among: names)
        if let file = names.first(where: { $0.name == "/sys/file" })?.members.first {
            let system = try client.fileSystem(file)
            let block = UInt64(max(1, system.block_bytes))
            sizeBytes = system.blocks &* block
            usedBytes = (system.blocks &- min(system.blocks, system.blocks_free)) &* block
        }
    }

    /// Requests that the servers took in since the mount.
    public var requests: UInt64 { servers.reduce(0) { $0 &+ $1.statistics.requests } }
    public var inodes: UInt64 { servers.reduce(0) { $0 &+ $1.statistics.inodes } }

    /// "2 name, 1 privilege, 2 file".
    public var serverCounts: String {
        let kinds: [(fos_service_kind, String)] = [
            (FOS_SERVICE_NAME, "name"), (FOS_SERVICE_PRIVILEGE, "privilege"), (FOS_SERVICE_FILE, "file"),
            (FOS_SERVICE_MEMORY, "memory"), (FOS_SERVICE_PLACEMENT, "placement"),
        ]
        return kinds.compactMap { kind, name in
            let count = servers.count { $0.statistics.service == kind.rawValue }
            return count == 0 ? nil : "\(count) \(name)"
        }.joined(separator: ", ")
    }

    /// Accepted connections of an endpoint in the text of /proc/net/unix: the accepted sockets carry the listener's
    /// address and are in state 03 (SS_CONNECTED). The address of the usual hello (fos/handshake.h) begins with the instance's.
    static func connections(uid: UInt32, name: String, table: String) -> Int {
        let address = "@fos/\(uid)/\(name)"
        return table.split(separator: "\n").count { line in
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            return fields.count == 8 && fields[5] == "03" && (fields[7] == address || fields[7].hasPrefix(address + "/"))
        }
    }

    public var json: JSON {
        .object([
            ("mount_point", .string(mount.mountPoint)), ("name", .string(name)), ("uid", .number(UInt64(userID))),
            ("reachable", .bool(unreachable == nil)), ("error", .optional(unreachable)),
            ("pid", .optional(pid.map { UInt64($0) })), ("uptime_seconds", .optional(uptimeSeconds)), ("log", .optional(logPath)),
            ("resident_bytes", .optional(residentBytes)),
            ("cores", .array(cpus.enumerated().map { core, cpu in
                .object([("core", .number(UInt64(core))), ("cpu", cpu < 0 ? .null : .number(UInt64(cpu)))])
            })),
            ("clients", .number(clients)), ("requests", .number(requests)), ("inodes", .number(inodes)),
            ("size_bytes", .number(sizeBytes)), ("used_bytes", .number(usedBytes)),
            ("memory", memory?.json ?? .null), ("servers", .array(servers.map(\.json))),
        ])
    }
}

extension ServerStatus {
    var json: JSON {
        let s = statistics
        return .object([
            ("name", .string(name)), ("core", .number(UInt64(s.core))), ("mailbox", .number(UInt64(s.mailbox))),
            ("requests", .number(s.requests)), ("replies", .number(s.replies)), ("forwards", .number(s.forwards)),
            ("retries", .number(s.retries)), ("errors", .number(s.errors)), ("sent", .number(s.sent)),
            ("queue_now", .number(s.queue_now)), ("queue_peak", .number(s.queue_peak)),
            ("continuations_now", .number(s.continuations_now)), ("continuations_peak", .number(s.continuations_peak)),
            ("inodes", .number(s.inodes)), ("pages", .number(s.pages)), ("metadata_bytes", .number(s.bytes_metadata)),
            ("locks", .number(s.locks)), ("leases_revoked", .number(s.leases_revoked)), ("names", .number(s.names)),
        ])
    }
}
