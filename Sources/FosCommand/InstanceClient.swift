// Questions to a running instance, over the message proxy as any client asks them.
//
// Invariant: every answer is awaited for a limited time, so an instance that hangs is reported and not waited for.

import CFosProxy
import CFosWire
import Glibc

/// One name of the live namespace.
public struct NameRecord: Sendable {
    public let name: String
    /// The name it is redirected to; empty if it is not.
    public let target: String
    public let ownerID: UInt32
    public let members: [fos_name_member]

    /// Reads the records of a FOS_OP_NAME_LIST reply (struct fos_name_record in fos/name.h). Stops at a malformed one.
    public static func list(parsing bytes: UnsafeRawBufferPointer) -> [NameRecord] {
        var records: [NameRecord] = []
        var offset = 0
        let head = MemoryLayout<fos_name_record>.size
        let memberBytes = MemoryLayout<fos_name_member>.stride
        while bytes.count - offset >= head {
            let record = bytes.loadUnaligned(fromByteOffset: offset, as: fos_name_record.self)
            let length = Int(record.record_length)
            let names = head + Int(record.members) * memberBytes
            guard length >= names + Int(record.name_length) + Int(record.target_length), length <= bytes.count - offset else { break }
            let members = (0..<Int(record.members)).map {
                bytes.loadUnaligned(fromByteOffset: offset + head + $0 * memberBytes, as: fos_name_member.self)
            }
            let start = offset + names
            let middle = start + Int(record.name_length)
            records.append(
                NameRecord(
                    name: String(decoding: bytes[start..<middle], as: UTF8.self),
                    target: String(decoding: bytes[middle..<middle + Int(record.target_length)], as: UTF8.self),
                    ownerID: record.owner_uid, members: members))
            offset += length
        }
        return records
    }
}

public final class InstanceClient {
    private let client: UnsafeMutablePointer<fos_client>
    private let channel: Int32
    private let timeout: UInt64

    /// Connects to an instance. The failure says in a few words why it cannot be asked.
    /// - Parameter seconds: how long to wait for each answer.
    public init(uid: UInt32, name: String, seconds: Double = 3) throws(CommandFailure) {
        timeout = UInt64(seconds * 1e9)
        client = .allocate(capacity: 1)
        memset(client, 0, MemoryLayout<fos_client>.size)
        let connected = fos_client_connect(client, uid_t(uid), name, 1, 0)
        guard connected == 0 else {
            client.deallocate()
            throw Self.failure(-connected)
        }
        channel = fos_channel_acquire(client)
        guard channel >= 0 else {
            fos_client_disconnect(client)
            client.deallocate()
            throw Self.failure(-channel)
        }
    }

    /// The same over one end of a socket pair whose other end the instance has; for the instance's own use.
    public init(socket: Int32, seconds: Double = 3) throws(CommandFailure) {
        timeout = UInt64(seconds * 1e9)
        client = .allocate(capacity: 1)
        memset(client, 0, MemoryLayout<fos_client>.size)
        let connected = fos_client_attach(client, socket, 1, 0)
        channel = connected == 0 ? fos_channel_acquire(client) : -1
        guard channel >= 0 else {
            if connected == 0 { fos_client_disconnect(client) }
            client.deallocate()
            throw Self.failure(connected == 0 ? -channel : -connected)
        }
    }

    deinit {
        fos_client_disconnect(client)
        client.deallocate()
    }

    /// The instance is another user's.
    public static let notPermitted = CommandFailure.usage("not permitted; ask as the user who mounted it, or as root")

    private static func failure(_ error: Int32) -> CommandFailure {
        switch error {
        case ECONNREFUSED, ENOENT, ENOTCONN: .usage("its daemon is gone")
        case EACCES, EPERM: notPermitted
        case EPROTO: .usage("it speaks another version of the protocol; use the fos that mounted it")
        case ETIMEDOUT: .usage("its daemon does not answer")
        default: .usage(errorText(error))
        }
    }

    /// The first bytes of the channel's bulk area, where listings come.
    func bulk(_ count: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: fos_bulk(client, channel), count: count) }

    /// The CPU of each core, -1 for one that is not pinned.
    public var coreCPUs: [Int] {
        let cores = UnsafeRawPointer(client.pointee.board!) + MemoryLayout<fos_board>.offset(of: \.core)!
        return (0..<Int(client.pointee.cores)).map { index in
            Int((cores + index * MemoryLayout<fos_board_core>.stride).load(as: fos_board_core.self).cpu)
        }
    }

    /// Sends what `build` puts into a request, and waits. A transaction in the way, or a full mailbox, is tried again.
    func call(
        _ operation: fos_operation, to mailbox: fos_mailbox, epoch: UInt32, inode: UInt64 = 0,
        build: (UnsafeMutablePointer<fos_message>) -> Void = { _ in }
    ) throws(CommandFailure) -> UnsafePointer<fos_message> {
        for _ in 0..<1_000 {
            guard let request = fos_request(client, channel, UInt16(operation.rawValue), inode) else { throw Self.failure(ENOTCONN) }
            build(request)
            var status = fos_post(client, channel, mailbox, epoch)
            if status >= 0 { status = fos_wait(client, channel, timeout) }
            guard status >= 0, let reply = fos_reply(client, channel) else { throw Self.failure(-status) }
            switch reply.pointee.status {
            case 0: return reply
            case ..<0: throw Self.failure(-reply.pointee.status)
            case Int32(FOS_TRANSPORT_DENIED.rawValue): throw Self.failure(EPERM)
            case Int32(FOS_TRANSPORT_STALE.rawValue): throw Self.failure(ESTALE)
            default: usleep(1_000)
            }
        }
        throw Self.failure(ETIMEDOUT)
    }

    /// The live namespace, in order of names. A listing that does not fit in one reply is asked for in parts.
    public func names() throws(CommandFailure) -> [NameRecord] {
        let (mailbox, epoch) = (client.pointee.name_server.0, client.pointee.name_server_epoch.0)
        var records: [NameRecord] = []
        var cookie: UInt64 = 0
        repeat {
            let reply = try call(FOS_OP_NAME_LIST, to: mailbox, epoch: epoch, inode: cookie) { request in
                request.pointee.bulk_length = UInt32(FOS_TRANSFER_BYTES_MAX)
            }
            let length = min(Int(reply.pointee.bulk_length), Int(FOS_TRANSFER_BYTES_MAX))
            records += NameRecord.list(parsing: UnsafeRawBufferPointer(start: fos_bulk(client, channel), count: length))
            // An instance that lists without end would keep us here.
            guard reply.pointee.inode != cookie, records.count < 1_000_000 else { break }
            cookie = reply.pointee.inode
        } while cookie != 0
        return records.sorted { $0.name < $1.name }
    }

    /// Every server with its counters, by service and member. Each is found by name, as any client would.
    /// - Parameter names: as `names` gave them.
    public func servers(among names: [NameRecord]) throws(CommandFailure) -> [ServerStatus] {
        var servers: [ServerStatus] = []
        for service in ["/sys/name", "/sys/privilege", "/sys/file", "/sys/memory", "/sys/placement"] {
            guard let record = names.first(where: { $0.name == service }) else { continue }
            for member in record.members.sorted(by: { $0.mailbox < $1.mailbox }) {
                let own = names.first { $0.name.hasPrefix(service + "/") && $0.members.contains { $0.mailbox == member.mailbox } }
                servers.append(ServerStatus(name: own?.name ?? service, member: member, statistics: try statistics(of: member)))
            }
        }
        return servers.sorted { ($0.statistics.service, $0.statistics.member) < ($1.statistics.service, $1.statistics.member) }
    }

    /// The counters of one server.
    public func statistics(of member: fos_name_member) throws(CommandFailure) -> fos_statistics {
        let reply = try call(FOS_OP_STATISTICS, to: member.mailbox, epoch: member.epoch)
        return try payload(of: reply)
    }

    /// What the memory fleet has; nil if there is none.
    public func memory(among names: [NameRecord]) throws(CommandFailure) -> MemoryStatus? {
        var all: [MemoryStatus] = []
        for member in names.first(where: { $0.name == "/sys/memory" })?.members ?? [] { all.append(MemoryStatus(try memory(of: member))) }
        return MemoryStatus.sum(all)
    }

    /// What a memory server has.
    public func memory(of member: fos_name_member) throws(CommandFailure) -> fos_memory_statistics {
        try payload(of: call(FOS_OP_MEMORY_STATISTICS, to: member.mailbox, epoch: member.epoch))
    }

    /// The size and fill of the file system.
    public func fileSystem(_ fileServer: fos_name_member) throws(CommandFailure) -> fos_statfs_reply {
        let root = UInt64(FOS_ROOT_INODE)
        var owner = fos_owner(client, root)
        if owner == FOS_MAILBOX_NONE { owner = fileServer.mailbox }
        return try payload(of: call(FOS_OP_STATFS, to: owner, epoch: fileServer.epoch, inode: root))
    }

    func payload<Value: BitwiseCopyable>(of reply: UnsafePointer<fos_message>) throws(CommandFailure) -> Value {
        guard Int(reply.pointee.length) >= MemoryLayout<Value>.size else { throw Self.failure(EPROTO) }
        return UnsafeRawPointer(fos_payload_const(reply)!).loadUnaligned(as: Value.self)
    }
}
