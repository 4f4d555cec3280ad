// Membership: which servers make up a fleet, and which of them are alive.
//
// Role: each server of a fleet holds one, filled at start and changed by lifecycle news; it names its peers by member
// index (0 ..< count), never by mailbox. Issue: elastic fleets append members and mark them dead, indices stay.
// Invariants: at most `capacity` members; an index, once given, means that member for good; lookups are O(1) loads
// without reference counting, and nothing is allocated after `init`.

public import CFosWire
public import Messaging

/// How many members a fleet may have: FOS_FLEET_MEMBERS_MAX, which is what a live instance has, or as many as it begins
/// with in the simulator, up to one for each slot.
public enum FleetCapacity {
    @inlinable public static func of(_ members: Int) -> Int { max(Int(FOS_FLEET_MEMBERS_MAX), members) }
    @inlinable public static func admits(_ members: Int) -> Bool { members > 0 && members <= Int(FOS_SLOTS) }
}

/// The members of one fleet, by index.
public struct Membership: ~Copyable {
    @usableFromInline let mailboxes: UnsafeMutablePointer<MailboxAddress>
    @usableFromInline let alive: UnsafeMutablePointer<Bool>
    public let capacity: Int
    public private(set) var count: Int
    public private(set) var aliveCount: Int
    /// Counts changes: a member added, lost, or back.
    public private(set) var epoch: UInt32 = 1

    /// - Parameter members: mailboxes in order of index; 1 to FOS_SLOTS, all different.
    public init(_ members: some Collection<MailboxAddress>) {
        precondition(FleetCapacity.admits(members.count), "a fleet has 1 to 4096 members")
        precondition(Set(members).count == members.count, "a fleet lists a mailbox twice")
        capacity = FleetCapacity.of(members.count)
        mailboxes = .allocate(capacity: capacity)
        alive = .allocate(capacity: capacity)
        mailboxes.initialize(repeating: MailboxAddress(rawValue: 0), count: capacity)
        alive.initialize(repeating: false, count: capacity)
        count = 0
        aliveCount = 0
        for member in members {
            mailboxes[count] = member
            alive[count] = true
            count += 1
        }
        aliveCount = count
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

    /// A member joins. Its index, or nil when the fleet is full or has it already.
    public mutating func append(_ mailbox: MailboxAddress) -> Int? {
        guard count < capacity, index(of: mailbox) == nil else { return nil }
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
