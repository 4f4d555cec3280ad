// Membership: which servers make up a fleet, and which of them are alive.
//
// Role: each server of a fleet holds one, filled at start and changed by lifecycle news; it names its peers by member
// index (0 ..< count), never by mailbox. Issue: elastic fleets append members and mark them dead, indices stay.
// Invariants: at most FOS_FLEET_MEMBERS_MAX members; an index, once given, means that member for good; lookups are
// O(1) loads without reference counting, and nothing is allocated after `init`.

import CFosWire
public import Messaging

/// The members of one fleet, by index.
public struct Membership: ~Copyable {
    @usableFromInline let mailboxes: UnsafeMutablePointer<MailboxAddress>
    @usableFromInline let alive: UnsafeMutablePointer<Bool>
    public private(set) var count: Int
    public private(set) var aliveCount: Int
    /// Counts changes: a member added, lost, or back.
    public private(set) var epoch: UInt32 = 1

    /// - Parameters:
    ///   - members: mailboxes in order of index; 1 to FOS_FLEET_MEMBERS_MAX, all different.
    ///   - alive: how many of them serve from the start, the first ones; nil: all. The others are places for servers that
    ///     start when the fleet grows.
    public init(_ members: some Collection<MailboxAddress>, alive serving: Int? = nil) {
        precondition(!members.isEmpty && members.count <= Int(FOS_FLEET_MEMBERS_MAX), "a fleet has 1 to 256 members")
        precondition(Set(members).count == members.count, "a fleet lists a mailbox twice")
        mailboxes = .allocate(capacity: Int(FOS_FLEET_MEMBERS_MAX))
        alive = .allocate(capacity: Int(FOS_FLEET_MEMBERS_MAX))
        mailboxes.initialize(repeating: MailboxAddress(rawValue: 0), count: Int(FOS_FLEET_MEMBERS_MAX))
        alive.initialize(repeating: false, count: Int(FOS_FLEET_MEMBERS_MAX))
        count = 0
        aliveCount = 0
        for member in members {
            mailboxes[count] = member
            alive[count] = count < serving ?? members.count
            count += 1
        }
        aliveCount = min(count, serving ?? count)
    }

    deinit {
        mailboxes.deallocate()
        alive.deallocate()
    }

    /// The mailbox of a member. Traps on an index that is none.
    @inlinable public subscript(_ member: Int) -> MailboxAddress {
        precondition(member >= 0 && member < count, "no such fleet member")
        return mailboxes[member]
    }

    @inlinable public func isAlive(_ member: Int) -> Bool { member >= 0 && member < count && alive[member] }

    /// The member with a mailbox; nil if it is of another fleet. O(members); for checks and lifecycle news.
    @inlinable public func index(of mailbox: MailboxAddress) -> Int? {
        for member in 0..<count where mailboxes[member] == mailbox { return member }
        return nil
    }

    /// The live member with the lowest index: what the whole fleet asks one of its members for, it asks this one.
    @inlinable public var first: Int {
        for member in 0..<count where alive[member] { return member }
        return 0
    }

    /// A member joins. Its index, or nil when the fleet is full or has it already.
    public mutating func append(_ mailbox: MailboxAddress) -> Int? {
        guard count < Int(FOS_FLEET_MEMBERS_MAX), index(of: mailbox) == nil else { return nil }
        mailboxes[count] = mailbox
        alive[count] = true
        count += 1
        aliveCount += 1
        epoch &+= 1
        return count - 1
    }

    /// Marks a member dead or alive again. False if there is no such member or nothing changes.
    @discardableResult
    public mutating func set(_ member: Int, alive isAlive: Bool) -> Bool {
        guard member >= 0, member < count, alive[member] != isAlive else { return false }
        alive[member] = isAlive
        aliveCount += isAlive ? 1 : -1
        epoch &+= 1
        return true
    }
}
