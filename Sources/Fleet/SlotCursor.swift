// SlotCursor: the slot in which the next new directory is put.
//
// Role: directories spread over the members of the fleet, so that work in different directories runs on different
// servers; each server picks for the directories made through it, without asking anyone.
// Invariants: successive picks go to different live members in turn; within a member they go round its slots.
// Servers start at different places, so that they do not all choose the same member in step.

public import CFosWire

/// A round-robin choice of slots. Allocates at `init` only.
public struct SlotCursor: ~Copyable {
    private let nextSlot: UnsafeMutablePointer<UInt16>
    private var member: Int

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
    }

    deinit { nextSlot.deallocate() }

    /// The next slot: of the next live member that owns any. nil when no live member owns a slot.
    /// O(members) for the member, and then O(FOS_SLOTS / share) loads for its next slot.
    public mutating func next(_ table: borrowing SlotTable, _ membership: borrowing Membership) -> Int? {
        for _ in 0..<table.members {
            member += 1
            if member >= table.members { member = 0 }
            guard membership.isAlive(member), table.share(of: member) > 0 else { continue }
            var slot = Int(nextSlot[member])
            for _ in 0..<SlotTable.slots {
                slot += 1
                if slot >= SlotTable.slots { slot = 0 }
                if table.owner(ofSlot: slot) == member {
                    nextSlot[member] = UInt16(slot)
                    return slot
                }
            }
        }
        return nil
    }
}
