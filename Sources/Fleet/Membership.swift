// Membership: which servers make up a fleet, and which of them are alive.
//
// Role: each server of a fleet holds one, filled at start and changed by lifecycle news; it names its peers by member
// index (0 ..< count), never by mailbox. A fleet that grows and shrinks appends members and marks them; indices stay.
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
    @usableFromInline let dead: UnsafeMutablePointer<Bool>
    public let capacity: Int
    public private(set) var count: Int
    public private(set) var aliveCount: Int
    /// Counts changes: a member added, lost, or back.
    public private(set) var epoch: UInt32 = 1

    /// - Parameters:
    ///   - members: mailboxes in order of index; 1 to FOS_SLOTS, all different.
    ///   - alive: how many of them serve from the start, the first ones; nil: all. The others are places for servers that
    ///     start when the fleet grows.
    public init(_ members: some Collection<MailboxAddress>, alive serving: Int? = nil) {
        precondition(FleetCapacity.admits(members.count), "a fleet has 1 to 4096 members")
        precondition(Set(members).count == members.count, "a fleet lists a mailbox twice")
        capacity = FleetCapacity.of(members.count)
        mailboxes = .allocate(capacity: capacity)
        alive = .allocate(capacity: capacity)
        mailboxes.initialize(repeating: MailboxAddress(rawValue: 0), count: capacity)
        alive.initialize(repeating: false, count: capacity)
        dead = .allocate(capacity: capacity)
        dead.initialize(repeating: false, count: capacity)
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
        dead.deallocate()
    }

    /// The mailbox of a member. Traps on an index that is none.
    @inlinable public subscript(_ member: Int) -> MailboxAddress {
        precondition(member >= 0 && member < count, "no such fleet member")
        return mailboxes[member]
    }

    /// Whether it takes part: new work goes to it. One that is not may be dead, about to leave, or not yet there.
    @inlinable public func isAlive(_ member: Int) -> Bool { member >= 0 && member < count && alive[member] }
    /// Whether it is gone for good, with what it had: nothing is to be had from it any more.
    @inlinable public func isDead(_ member: Int) -> Bool { member >= 0 && member < count && dead[member] }

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
        guard count < capacity, index(of: mailbox) == nil else { return nil }
        mailboxes[count] = mailbox
        alive[count] = true
        count += 1
        aliveCount += 1
        epoch &+= 1
        return count - 1
    }

    /// A member is gone for good.
    public mutating func setDead(_ member: Int) {
        guard member >= 0, member < count else { return }
        set(member, alive: false)
        dead[member] = true
    }

    /// Marks a member as taking part or not; one that does is not dead. False if there is no such member or nothing changes.
    @discardableResult
    public mutating func set(_ member: Int, alive isAlive: Bool) -> Bool {
        guard member >= 0, member < count, alive[member] != isAlive else { return false }
        alive[member] = isAlive
        if isAlive { dead[member] = false }
        aliveCount += isAlive ? 1 : -1
        epoch &+= 1
        return true
    }
}
