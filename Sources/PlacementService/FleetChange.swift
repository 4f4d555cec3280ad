// FleetChange: one change of a fleet's size, from its beginning to its end, and what it cost.

import CFosWire
import Messaging

struct FleetChange: BitwiseCopyable {
    private(set) var isUnderWay = false
    /// Since the instance started.
    private(set) var number: UInt32 = 0
    private var started: UInt64 = 0
    private var nanoseconds: UInt64 = 0
    /// Sums over all servers at the beginning, and what the change that has ended made of them.
    private var before = Sums()
    private var cost = Sums()
    /// Members that the change brought in.
    private var joined: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    struct Sums: BitwiseCopyable {
        var slots: UInt64 = 0
        var inodes: UInt64 = 0
        var bytes: UInt64 = 0
        var forwarded: UInt64 = 0
        var delayed: UInt64 = 0

        init() {}
        init(_ servers: UnsafeMutablePointer<ManagedServer>, _ count: Int) {
            for index in 0..<count {
                let report = servers[index].report
                slots &+= report.moved_slots
                inodes &+= report.moved_inodes
                bytes &+= report.moved_bytes
                forwarded &+= report.forwards
                delayed &+= report.delayed
            }
        }
        func since(_ earlier: Sums) -> Sums {
            var result = Sums()
            result.slots = slots &- earlier.slots
            result.inodes = inodes &- earlier.inodes
            result.bytes = bytes &- earlier.bytes
            result.forwarded = forwarded &- earlier.forwarded
            result.delayed = delayed &- earlier.delayed
            return result
        }
    }

    mutating func begin(_ now: UInt64, servers: UnsafeMutablePointer<ManagedServer>, count: Int) {
        isUnderWay = true
        number &+= 1
        started = now
        before = Sums(servers, count)
        joined = (0, 0, 0, 0)
    }

    mutating func end(_ now: UInt64, servers: UnsafeMutablePointer<ManagedServer>, count: Int) {
        isUnderWay = false
        nanoseconds = now &- started
        cost = Sums(servers, count).since(before)
        joined = (0, 0, 0, 0)
    }

    mutating func noteJoined(_ member: Int) {
        withUnsafeMutableBytes(of: &joined) { $0[member / 8] |= 1 << UInt8(member % 8) }
    }
    func hasJoined(_ member: Int) -> Bool { withUnsafeBytes(of: joined) { $0[member / 8] & 1 << UInt8(member % 8) != 0 } }

    /// Fills the part of a summary that tells of the change under way, or of the last one.
    func describe(_ summary: inout fos_fleet_summary, _ now: UInt64, servers: UnsafeMutablePointer<ManagedServer>, count: Int) {
        let sums = isUnderWay ? Sums(servers, count).since(before) : cost
        summary.is_changing = isUnderWay ? 1 : 0
        summary.changes = number
        summary.change_ns = isUnderWay ? now &- started : nanoseconds
        summary.change_slots = sums.slots
        summary.change_inodes = sums.inodes
        summary.change_bytes = sums.bytes
        summary.change_forwarded = sums.forwarded
        summary.change_delayed = sums.delayed
    }
}
