// Slots that move between servers: inodes leave one table and enter another under the number that they have.
//
// Protocol: the giver calls `beginLeaving`, `depart` for each inode and `endLeaving`; the taker begins with
// `beginArriving`, `adopt`s each, and at the end skips the giver's generations. In between the giver alone gives numbers of the slot.
// Invariant: an index whose inode has departed is not used again by the giver, so no number ever names two inodes.

extension InodeTable {
    /// From here on no index of the slot becomes free by a departure.
    public mutating func beginLeaving(slot: Int) { slots[slot].isLeaving = true }

    public func numbering(slot: Int) -> SlotNumbering { slots[slot].numbering }

    /// A slot comes here, empty as yet, with numbers of this kind.
    public mutating func beginArriving(slot: Int, _ numbering: SlotNumbering) {
        precondition(slots[slot].count == 0, "a slot arrives where it is already")
        slots[slot].numbering = numbering
    }

    /// Some of a slot's inodes are lost with another server. What is here of it stays; nobody tells any more which of its
    /// numbers mean something elsewhere, so none is given again.
    public mutating func noteLosses(slot: Int) { slots[slot].hasLosses = true }

    /// The last generation that an inode of the slot was given.
    public func generation(slot: Int) -> UInt32 { slots[slot].generation }

    /// Takes an inode out of a slot that is leaving. Its record and content are the caller's to give back.
    public mutating func depart(_ inode: InodePointer) {
        let number = inode.pointee.number
        precondition(record(number) == inode, "the inode is in this table")
        let own = slots + Int(number & 4095)
        precondition(own.pointee.isLeaving, "an inode departs from a slot that stays")
        let index = (number ^ own.pointee.incarnation) >> InodeTable.slotBits
        let leaf = own.pointee.leaf(UInt32(index >> 9))
        // Free for nobody: the leaf's list of free entries does not lead here.
        InodeTable.entries(leaf.pointee)[Int(index & 511)] = UInt(InodeLeaf.endOfFree) << 1 | 1
        leaf.pointee.used -= 1
        own.pointee.count -= 1
        count -= 1
    }

    /// The slot is empty and another server's: gives back its leaves.
    public mutating func endLeaving(slot: Int, _ arena: inout Arena, _ pool: inout PagePool) {
        let own = slots + slot
        precondition(own.pointee.isLeaving && own.pointee.count == 0, "a slot has left that is not empty")
        releaseLeaves(own, &arena, &pool)
    }

    /// The slot stays after all. What has departed remains gone.
    public mutating func cancelLeaving(slot: Int) { slots[slot].isLeaving = false }

    /// Enters a record, which has a number that is free here. False when out of memory or credits.
    public mutating func adopt(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let number = inode.pointee.number
        let slot = Int(number & 4095)
        let index = (number ^ slots[slot].incarnation) >> InodeTable.slotBits
        guard number != 0, index >> 9 < 1 << 22, record(number) == nil else { return false }
        let leafIndex = UInt32(index >> 9)
        let within = Int(index & 511)
        let own = slots + slot
        guard extend(slot, to: leafIndex + 1, &arena, &pool), enlarge(slot, leafIndex, for: within, &arena, &pool) else { return false }
        let leaf = own.pointee.leaf(leafIndex)
        takeFree(leaf, within)
        InodeTable.entries(leaf.pointee)[within] = UInt(bitPattern: inode)
        leaf.pointee.used += 1
        if leaf.pointee.free == InodeLeaf.endOfFree { InodeTable.unlink(own, leafIndex, from: &own.pointee.available) }
        own.pointee.count += 1
        count += 1
        return true
    }

    /// Memory for an inode's record, outside any slot; `adopt` enters it, or `discard` gives it back.
    public func makeRecord(number: UInt64, generation: UInt32, _ arena: inout Arena, _ pool: inout PagePool) -> InodePointer? {
        guard let memory = arena.allocate(MemoryLayout<Inode>.stride, zeroed: true, &pool) else { return nil }
        let inode = memory.bindMemory(to: Inode.self, capacity: 1)
        inode.initialize(to: Inode(number: number, generation: generation))
        return inode
    }
    public func discard(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) {
        precondition(inode.pointee.locks == nil, "locks go before their inode")
        inode.destroyContent(&arena, &pool)
        arena.release(inode, MemoryLayout<Inode>.stride, &pool)
    }

    // MARK: Room for a given index

    /// Gives a slot so many leaves; new ones are vacant.
    private mutating func extend(_ slot: Int, to leaves: UInt32, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let own = slots + slot
        let old = own.pointee
        guard old.leafCount < leaves else { return true }
        if old.leafCapacity < leaves {
            var capacity = max(old.leafCapacity, 1)
            while capacity < leaves { capacity *= 2 }
            guard let memory = arena.allocate(Int(capacity) * InodeTable.leafBytes, &pool) else { return false }
            if old.leafCount > 0 {
                memory.copyMemory(from: UnsafeRawPointer(old.leaf(0)), byteCount: Int(old.leafCount) * InodeTable.leafBytes)
            }
            if old.leaves != 0 {
                arena.release(UnsafeMutableRawPointer(old.leaf(0)), Int(old.leafCapacity) * InodeTable.leafBytes, &pool)
            }
            own.pointee.leaves = UInt(bitPattern: memory)
            own.pointee.leafCapacity = capacity
        }
        while own.pointee.leafCount < leaves {
            let leafIndex = own.pointee.leafCount
            own.pointee.leaf(leafIndex).initialize(to: InodeLeaf())
            own.pointee.leafCount += 1
            InodeTable.link(own, leafIndex, into: &own.pointee.vacant)
        }
        return true
    }

    /// Gives a leaf an entry `within`: the first leaf grows as far as needed, the others are whole.
    private mutating func enlarge(_ slot: Int, _ leafIndex: UInt32, for within: Int, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let own = slots + slot
        let leaf = own.pointee.leaf(leafIndex)
        if within < Int(leaf.pointee.capacity) { return true }
        var capacity = leafIndex == 0 && own.pointee.leafCount == 1 ? InodeTable.firstCapacity : InodeTable.leafCapacity
        while capacity <= within { capacity *= 2 }
        let wasVacant = leaf.pointee.capacity == 0
        let wasFull = !wasVacant && leaf.pointee.free == InodeLeaf.endOfFree
        guard fill(slot, leafIndex, capacity, &arena, &pool) else { return false }
        if wasVacant { InodeTable.unlink(own, leafIndex, from: &own.pointee.vacant) }
        if wasVacant || wasFull { InodeTable.link(own, leafIndex, into: &own.pointee.available) }
        return true
    }

    /// Takes one entry out of a leaf's list of free ones.
    private func takeFree(_ leaf: UnsafeMutablePointer<InodeLeaf>, _ within: Int) {
        let entries = InodeTable.entries(leaf.pointee)
        if Int(leaf.pointee.free) == within {
            leaf.pointee.free = UInt16(truncatingIfNeeded: entries[within] >> 1)
            return
        }
        var before = Int(leaf.pointee.free)
        while before != Int(InodeLeaf.endOfFree) {
            let next = Int(truncatingIfNeeded: entries[before] >> 1)
            if next == within {
                entries[before] = entries[within]
                return
            }
            before = next
        }
        preconditionFailure("an entry is free that its leaf does not know as such")
    }

    private func releaseLeaves(_ own: UnsafeMutablePointer<InodeSlot>, _ arena: inout Arena, _ pool: inout PagePool) {
        for leafIndex in 0..<own.pointee.leafCount {
            let leaf = own.pointee.leaf(leafIndex).pointee
            if leaf.capacity > 0 { arena.release(InodeTable.entries(leaf), Int(leaf.capacity) * 8, &pool) }
        }
        if own.pointee.leaves != 0 {
            arena.release(UnsafeMutableRawPointer(own.pointee.leaf(0)), Int(own.pointee.leafCapacity) * InodeTable.leafBytes, &pool)
        }
        let generation = own.pointee.generation
        let numbering = own.pointee.numbering
        own.pointee = InodeSlot()
        own.pointee.generation = generation
        own.pointee.numbering = numbering
    }
}
