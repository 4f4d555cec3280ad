// SlotCursor: the slot in which the next new directory is put.
//
// Role: directories spread over the members of the fleet, so that work in different directories runs on different
// servers; each server picks for the directories made through it, without asking anyone.
// Invariants: successive picks go to different live members in turn; within a member they go round its slots.
// Servers start at different places, so that they do not all choose the same member in step.
// Members that share one core run on one thread: a directory at the other one wins nothing, and costs messages between the
// two when it is made, removed or renamed. So most picks of such a member stay with the server itself; some go, and
// keep the shares of both in use.

public import CFosWire

/// A round-robin choice of slots. Allocates at `init` only.
public struct SlotCursor: ~Copyable {
    private let nextSlot: UnsafeMutablePointer<UInt16>
    private var member: Int
    private let own: Int
    /// Picks of members of the own core so far.
    private var neighbours = 0
    /// Of so many picks of members of the own core one goes there.
    private static var stays: Int { 8 }

    /// - Parameters:
    ///   - start: the server's own member index.
    ///   - members: how many the fleet begins with, if that may be more than FOS_FLEET_MEMBERS_MAX.
    public init(start: Int, members: Int = Int(FOS_FLEET_MEMBERS_MAX)) {
        let capacity = FleetCapacity.of(members)
        precondition(start >= 0 && start < capacity, "no such member")
        nextSlot = .allocate(capacity: capacity)
        // Spread the starting points, so that two servers seldom fill one slot: an odd stride visits all residues.
        nextSlot.initialize(repeating: UInt16(start * 1_031 % Int(FOS_SLOTS)), count: capacity)
        member = start
        own = start
    }

    deinit { nextSlot.deallocate() }

    /// The next slot: of the next live member that owns any. nil when no live member owns a slot.
    /// O(members) for the member, and then O(FOS_SLOTS / share) loads for its next slot.
    public mutating func next(_ table: borrowing SlotTable, _ membership: borrowing Membership) -> Int? {
        for _ in 0..<table.members {
            member += 1
            if member >= table.members { member = 0 }
            guard membership.isAlive(member), table.share(of: member) > 0 else { continue }
            if let slot = nextSlot(of: staysHere(table, membership) ? own : member, table) { return slot }
        }
        return nil
    }

    /// Whether the pick of `member` is the server's own.
    private mutating func staysHere(_ table: borrowing SlotTable, _ membership: borrowing Membership) -> Bool {
        guard member != own, membership[member].core == membership[own].core, membership.isAlive(own), table.share(of: own) > 0 else { return false }
        neighbours &+= 1
        return neighbours % SlotCursor.stays != 0
    }

    private func nextSlot(of member: Int, _ table: borrowing SlotTable) -> Int? {
        var slot = Int(nextSlot[member])
        for _ in 0..<SlotTable.slots {
            slot += 1
            if slot >= SlotTable.slots { slot = 0 }
            if table.owner(ofSlot: slot) == member {
                nextSlot[member] = UInt16(slot)
                return slot
            }
        }
        return nil
    }
}
