// The instance seen through its own messages: every server found by name, and its counters asked for.
//
// Role: what `.fos/` and the tests show is what any client could learn; nothing here looks into a server's memory.

import CFosProxy
import CFosWire

/// One server as the name fleet and the server itself describe it.
struct ServerReport {
    var name: String
    var member: fos_name_member
    var statistics: fos_statistics
}

/// A client of the instance for questions about it. One thread at a time.
final class ServerDirectory {
    private let client: UnsafeMutablePointer<fos_client>
    private let channel: Int32

    /// - Parameter client: a connected client that outlives this object.
    init?(client: UnsafeMutablePointer<fos_client>) {
        self.client = client
        channel = fos_channel_acquire(client)
        if channel < 0 { return nil }
    }

    static let fleets = ["/sys/name", "/sys/privilege", "/sys/file"]

    /// The members of a fleet by name, ordered by mailbox; empty if the instance is gone.
    func members(of fleet: String) -> [fos_name_member] {
        var room = [fos_name_member](repeating: fos_name_member(), count: Int(FOS_PROXY_MEMBERS))
        let count = fos_lookup(client, channel, fleet, &room, Int32(room.count), 1)
        return count > 0 ? Array(room.prefix(Int(count))).sorted { $0.mailbox < $1.mailbox } : []
    }

    /// Every server's counters. A server that does not answer is left out.
    func reports() -> [ServerReport] {
        var reports: [ServerReport] = []
        for fleet in Self.fleets {
            for member in members(of: fleet) {
                guard let statistics = statistics(of: member) else { continue }
                reports.append(
                    ServerReport(name: "\(fleet)/\(statistics.member)", member: member, statistics: statistics))
            }
        }
        return reports
    }

    /// The counters of one server; nil if it does not answer.
    func statistics(of member: fos_name_member) -> fos_statistics? {
        _ = fos_request(client, channel, UInt16(FOS_OP_STATISTICS.rawValue), 0)
        guard fos_call_mailbox(client, channel, member.mailbox, member.epoch) == 0,
            let reply = fos_reply(client, channel), reply.pointee.length >= MemoryLayout<fos_statistics>.size
        else { return nil }
        return fos_payload_const(reply).loadUnaligned(as: fos_statistics.self)
    }

    /// The live namespace as (name, redirect target, owner, members), sorted by name.
    func names() -> [(name: String, target: String, owner: UInt32, members: [fos_name_member])] {
        let request = fos_request(client, channel, UInt16(FOS_OP_NAME_LIST.rawValue), 0)!
        request.pointee.bulk_length = UInt32(FOS_TRANSFER_BYTES_MAX)
        guard fos_call_name(client, channel, "/sys/name") == 0, let reply = fos_reply(client, channel) else { return [] }
        let length = min(Int(reply.pointee.bulk_length), Int(FOS_BULK_BYTES))
        let bytes = UnsafeRawBufferPointer(start: fos_bulk(client, channel), count: length)
        return NameRecords.parse(bytes)
    }
}

/// The records of FOS_OP_NAME_LIST.
enum NameRecords {
    static func parse(_ bytes: UnsafeRawBufferPointer) -> [(name: String, target: String, owner: UInt32, members: [fos_name_member])] {
        var found: [(name: String, target: String, owner: UInt32, members: [fos_name_member])] = []
        var at = 0
        let header = MemoryLayout<fos_name_record>.size
        let stride = MemoryLayout<fos_name_member>.size
        while at + header <= bytes.count {
            let record = bytes.loadUnaligned(fromByteOffset: at, as: fos_name_record.self)
            let end = at + Int(record.record_length)
            let names = at + header + Int(record.members) * stride
            guard end <= bytes.count, names + Int(record.name_length) + Int(record.target_length) <= end, end > at else { break }
            let members = (0..<Int(record.members)).map {
                bytes.loadUnaligned(fromByteOffset: at + header + $0 * stride, as: fos_name_member.self)
            }
            let name = String(decoding: bytes[names..<names + Int(record.name_length)], as: UTF8.self)
            let targetStart = names + Int(record.name_length)
            let target = String(decoding: bytes[targetStart..<targetStart + Int(record.target_length)], as: UTF8.self)
            found.append((name, target, record.owner_uid, members))
            at = end
        }
        return found.sorted { $0.name < $1.name }
    }
}
