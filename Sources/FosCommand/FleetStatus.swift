// What `fos fleet` and `.fos/placement` tell of an instance's file fleet: its sizes, its members, and the last change.

import CFosProxy
import CFosWire
import Glibc

public struct FleetStatus: Sendable {
    public let summary: fos_fleet_summary
    public let members: [fos_fleet_member]

    public static func stateName(_ state: UInt32) -> String {
        switch state {
        case FOS_FLEET_ABSENT.rawValue: "idle"
        case FOS_FLEET_STARTING.rawValue: "starting"
        case FOS_FLEET_SERVING.rawValue: "serving"
        case FOS_FLEET_LEAVING.rawValue: "leaving"
        case FOS_FLEET_DEAD.rawValue: "lost"
        default: "unknown"
        }
    }

    public var isChanging: Bool { summary.is_changing != 0 }

    public var table: TextTable {
        var table = TextTable(
            heading: ["SERVER", "CORE", "STATE", "SLOTS", "TO MOVE", "REQUESTS", "INODES", "WAIT", "LONGEST", "ASKED FROM"],
            right: [1, 3, 4, 5, 6, 7, 8])
        for member in members {
            table.append([
                "/sys/file/\(member.member)", String(member.core), Self.stateName(member.state), String(member.slots), String(member.orders),
                String(member.requests), String(member.inodes), Self.time(member.delay_mean), Self.time(member.delay_max),
                member.cpu == 0 ? "-" : "CPU \(member.cpu - 1), \(member.cpu_percent)%",
            ])
        }
        return table
    }

    /// Nanoseconds as people read them.
    public static func time(_ nanoseconds: UInt64) -> String {
        switch nanoseconds {
        case ..<1_000: "\(nanoseconds) ns"
        case ..<10_000_000: "\(nanoseconds / 1_000) us"
        case ..<10_000_000_000: "\(nanoseconds / 1_000_000) ms"
        default: "\(nanoseconds / 1_000_000_000) s"
        }
    }

    /// The sizes in one line.
    public var sizes: String {
        let how = summary.is_automatic != 0 ? "chosen by waiting times, from \(summary.minimum)" : "as set (automatic: at least \(summary.minimum))"
        return "\(summary.members) of \(summary.maximum) file servers serve, \(how)"
    }

    /// The last change in one line; nil if there was none.
    public var change: String? {
        guard summary.changes > 0 else { return nil }
        return "\(isChanging ? "change under way for" : "last change took") \(Self.time(summary.change_ns)): \(summary.change_slots) slots, "
            + "\(summary.change_inodes) inodes, \(ByteSize(bytes: summary.change_bytes).text) moved; "
            + "\(summary.change_forwarded) requests forwarded, \(summary.change_delayed) delayed"
    }

    public var json: JSON {
        .object([
            ("service", .string("file")), ("members", .number(UInt64(summary.members))), ("target", .number(UInt64(summary.target))),
            ("minimum", .number(UInt64(summary.minimum))), ("maximum", .number(UInt64(summary.maximum))),
            ("automatic", .bool(summary.is_automatic != 0)), ("changing", .bool(isChanging)), ("changes", .number(UInt64(summary.changes))),
            (
                "change",
                .object([
                    ("nanoseconds", .number(summary.change_ns)), ("slots", .number(summary.change_slots)), ("inodes", .number(summary.change_inodes)),
                    ("bytes", .number(summary.change_bytes)), ("forwarded", .number(summary.change_forwarded)),
                    ("delayed", .number(summary.change_delayed)),
                ])
            ),
            ("servers", .array(members.map(Self.json))),
        ])
    }

    private static func json(_ member: fos_fleet_member) -> JSON {
        .object([
            ("name", .string("/sys/file/\(member.member)")), ("core", .number(UInt64(member.core))), ("state", .string(stateName(member.state))),
            ("slots", .number(UInt64(member.slots))), ("to_move", .number(UInt64(member.orders))), ("requests", .number(member.requests)),
            ("inodes", .number(member.inodes)), ("pages", .number(member.pages)), ("wait_mean_ns", .number(member.delay_mean)),
            ("wait_max_ns", .number(member.delay_max)), ("asked_from_cpu", .optional(member.cpu == 0 ? nil : UInt64(member.cpu - 1))),
            ("asked_from_percent", .number(UInt64(member.cpu_percent))),
        ])
    }
}

/// A range of fleet sizes: `N` or `MIN-MAX`.
public struct FleetSizes: Equatable, Sendable {
    public let minimum: Int
    public let maximum: Int
    /// A reply of the name fleet holds so many members, and clients keep no more.
    public static let most = 32

    public init(parsing text: String) throws(CommandFailure) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard (1...2).contains(parts.count), let first = parts.first ?? nil, let last = parts.last ?? nil, first >= 1, first <= last, last <= Self.most else {
            throw .usage("bad number of servers '\(text)'; give N or MIN-MAX, from 1 to \(Self.most)")
        }
        minimum = first
        maximum = last
    }
    public var text: String { minimum == maximum ? "\(minimum)" : "\(minimum)-\(maximum)" }
}

extension InstanceClient {
    /// How the file fleet is. Only the owner of the instance and root are told.
    public func fleet() throws(CommandFailure) -> FleetStatus {
        let manager = try fleetManager()
        let reply = try call(FOS_OP_FLEET_STATUS, to: manager.mailbox, epoch: manager.epoch) { $0.pointee.bulk_length = UInt32(FOS_TRANSFER_BYTES_MAX) }
        let summary: fos_fleet_summary = try payload(of: reply)
        let size = MemoryLayout<fos_fleet_member>.size
        let count = min(Int(reply.pointee.bulk_length), Int(FOS_TRANSFER_BYTES_MAX)) / size
        let listing = bulk(count * size)
        return FleetStatus(summary: summary, members: (0..<count).map { listing.loadUnaligned(fromByteOffset: $0 * size, as: fos_fleet_member.self) })
    }

    /// Sets the size of the file fleet; 0: the fleet manager chooses again.
    public func setFleet(members: Int) throws(CommandFailure) {
        let manager = try fleetManager()
        _ = try call(FOS_OP_FLEET_SET, to: manager.mailbox, epoch: manager.epoch) { request in
            UnsafeMutableRawPointer(fos_payload(request)!).storeBytes(
                of: fos_fleet_set(service: FOS_SERVICE_FILE.rawValue, members: UInt32(members)), as: fos_fleet_set.self)
            request.pointee.length = UInt32(MemoryLayout<fos_fleet_set>.size)
        }
    }

    private func fleetManager() throws(CommandFailure) -> fos_name_member {
        guard let member = try names().first(where: { $0.name == "/sys/placement" })?.members.first else {
            throw .usage("it has no fleet manager")
        }
        return member
    }
}
