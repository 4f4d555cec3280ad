// Looking at a name server from outside, at rest: for checkers.

import CFosWire

/// What one server has of a name.
public struct NameReport: Sendable, Equatable {
    public var name: String
    /// Mailboxes that it leads to, in rising order.
    public var mailboxes: [UInt32]
    /// What it redirects to; empty if it does not.
    public var target: String
    public var isMany: Bool
    public var ownerUID: UInt32
}

extension NameServer {
    /// - Returns: the names that it serves, and those that it has copies of, as the first one after their server.
    public var report: (served: [NameReport], copies: [NameReport]) {
        var served: [NameReport] = []
        var copies: [NameReport] = []
        for index in 0..<table.entriesUsed where table.entries[Int(index)].isUsed {
            let owner = owner(table.entries[Int(index)].hash)
            if owner == member { served.append(describe(index)) } else if follower(of: owner) == member { copies.append(describe(index)) }
        }
        return (served, copies)
    }

    private func describe(_ index: UInt32) -> NameReport {
        let entry = table.entries[Int(index)]
        var mailboxes: [UInt32] = []
        var member = entry.firstMember
        while member != NameTable.none {
            mailboxes.append(table.members[Int(member)].member.mailbox)
            member = table.members[Int(member)].next
        }
        func text(_ view: NameView) -> String { String(decoding: UnsafeBufferPointer(start: view.bytes, count: view.count), as: UTF8.self) }
        return NameReport(
            name: text(table.name(index)), mailboxes: mailboxes.sorted(), target: text(table.target(index)), isMany: entry.isMany,
            ownerUID: entry.ownerUID)
    }
}
