// SlotTable: which member of a fleet owns each slot.
//
// Role: the unit of ownership is a slot, not an object: an inode number carries its slot in its low bits
// (inode = index × FOS_SLOTS + slot), so an object never changes its number when its slot moves to another server.
// Each server has a copy. `version` counts the moves of one slot: of two statements about its owner, the one with the
// higher version is the newer, whatever the order in which they come; a copy that lags behind costs a forward.
// Invariants: every slot has exactly one owner, always a member index below `members`; lookups are O(1).

public import CFosWire

/// Owner of each of FOS_SLOTS slots, as a member index.
public struct SlotTable: ~Copyable {
    public static var slots: Int { Int(FOS_SLOTS) }
    @usableFromInline let owners: UnsafeMutablePointer<UInt16>
    /// Slots of each member.
    @usableFromInline let shares: UnsafeMutablePointer<UInt16>
    @usableFromInline let versions: UnsafeMutablePointer<UInt32>
    let capacity: Int
    /// Members that slots may be given to.
    public private(set) var members: Int
    /// Counts changes of this copy.
    public private(set) var epoch: UInt32 = 1

    /// An even spread: slot s belongs to member s mod `members`, so that successive slots are on different servers.
    /// - Parameters:
    ///   - places: members that slots may come to belong to; nil: as many as `members`.
    ///   - version: of every slot; 0 for a copy that knows nothing yet.
    public init(members: Int, places: Int? = nil, version: UInt32 = 1) {
        let places = places ?? members
        precondition(members > 0 && members <= places && FleetCapacity.admits(places), "a fleet has 1 to 4096 members")
        self.members = places
        capacity = FleetCapacity.of(places)
        versions = .allocate(capacity: Self.slots)
        versions.initialize(repeating: version, count: Self.slots)
        owners = .allocate(capacity: Self.slots)
        shares = .allocate(capacity: capacity)
        shares.initialize(repeating: 0, count: capacity)
        for slot in 0..<Self.slots {
            owners[slot] = UInt16(slot % members)
            shares[slot % members] += 1
        }
    }

    deinit {
        owners.deallocate()
        shares.deallocate()
        versions.deallocate()
    }

    @inlinable public func version(ofSlot slot: Int) -> UInt32 {
        precondition(slot >= 0 && slot < Self.slots, "no such slot")
        return versions[slot]
    }

    /// Takes over a statement about a slot's owner if it is newer than what is known. False if it is not, or if it names
    /// no slot or member.
    @discardableResult
    public mutating func learn(_ slot: Int, owner member: Int, version: UInt32) -> Bool {
        guard slot >= 0, slot < Self.slots, member >= 0, member < members, version > versions[slot] else { return false }
        move(slot, to: member)
        versions[slot] = version
        return true
    }

    @inlinable public static func slot(ofInode inode: UInt64) -> Int { Int(truncatingIfNeeded: inode & UInt64(FOS_SLOTS - 1)) }

    @inlinable public func owner(ofSlot slot: Int) -> Int {
        precondition(slot >= 0 && slot < Self.slots, "no such slot")
        return Int(owners[slot])
    }
    /// The member that owns an inode. Any number has an owner; whether the inode exists is the owner's to know.
    @inlinable public func owner(ofInode inode: UInt64) -> Int { Int(owners[Self.slot(ofInode: inode)]) }

    public func share(of member: Int) -> Int { member >= 0 && member < members ? Int(shares[member]) : 0 }

    /// A member joined; it owns no slot until some are moved to it.
    public mutating func addMember() -> Int? {
        guard members < capacity else { return nil }
        members += 1
        epoch &+= 1
        return members - 1
    }

    /// Gives a slot to a member. The caller has moved, or will have moved, what is in it.
    public mutating func move(_ slot: Int, to member: Int) {
        precondition(slot >= 0 && slot < Self.slots, "no such slot")
        precondition(member >= 0 && member < members, "a slot is given to no member")
        let old = Int(owners[slot])
        guard old != member else { return }
        shares[old] -= 1
        shares[member] += 1
        owners[slot] = UInt16(member)
        epoch &+= 1
    }
}
