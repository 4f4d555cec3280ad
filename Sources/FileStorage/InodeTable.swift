// The inode table of one file server: inode number to inode.
//
// Role: number = index × 4096 + slot. A server owns some of the 4,096 slots; each slot is an array of inode pointers
// by index, in leaves of 512, so that finding one is two loads and a slot can be walked when it moves to another
// server. A slot with few inodes has one small leaf that doubles up to 512, as new directories spread over all slots.
// Layout: an entry of a leaf is an inode's address, or, with bit 0 set, the next free entry of the leaf.
// A server that has lost all it had gives numbers of another incarnation, in bits 48 and up: what is left of the old ones
// elsewhere never names a new inode.
// Invariants: freed indices are used again, lowest leaves as they come; a generation is given once in a slot, so
// (number, generation) never names two inodes; leaves without inodes are released; number 0 is never given.

typealias InodeEntries = UnsafeMutablePointer<UInt>

struct InodeLeaf: BitwiseCopyable {
    /// Address of the entries; 0 while the leaf is vacant, which is when no entry is in use.
    var entries: UInt = 0
    var capacity: UInt16 = 0
    var used: UInt16 = 0
    /// First free entry, or `endOfFree`.
    var free: UInt16 = 0
    /// Links of the slot's list that the leaf is in (available or vacant; a full leaf is in none), or `noLeaf`.
    var next: UInt32 = 0
    var previous: UInt32 = 0

    static var endOfFree: UInt16 { .max }
}

/// What a slot's numbers are like; goes with the slot from server to server.
public struct SlotNumbering: BitwiseCopyable {
    /// Bits 48 and up of its numbers.
    public var incarnation: UInt16
    /// Some of its inodes were lost with another server.
    public var hasLosses: Bool
    public init(incarnation: UInt16, hasLosses: Bool) {
        self.incarnation = incarnation
        self.hasLosses = hasLosses
    }
}

struct InodeSlot: BitwiseCopyable {
    /// Address of the array of leaves, of `leafCapacity`; 0 if the slot is empty.
    var leaves: UInt = 0
    var leafCount: UInt32 = 0
    var leafCapacity: UInt32 = 0
    /// First leaf with a free entry, and first vacant leaf.
    var available: UInt32 = InodeSlot.noLeaf
    var vacant: UInt32 = InodeSlot.noLeaf
    var generation: UInt32 = 0
    var count: UInt32 = 0
    /// In bits 48 and up of the slot's numbers.
    var incarnation: UInt64 = 0
    /// On its way to another server (InodeTable+Motion.swift): leaves stay until it has gone.
    var isLeaving = false
    /// Some of its inodes were lost with another server. Nobody knows which, so its numbers are given no more.
    var hasLosses = false

    static var noLeaf: UInt32 { .max }
    var numbering: SlotNumbering {
        get { SlotNumbering(incarnation: UInt16(truncatingIfNeeded: incarnation >> InodeTable.incarnationBits), hasLosses: hasLosses) }
        set { (incarnation, hasLosses) = (UInt64(newValue.incarnation) << InodeTable.incarnationBits, newValue.hasLosses) }
    }
    func leaf(_ index: UInt32) -> UnsafeMutablePointer<InodeLeaf> {
        UnsafeMutablePointer<InodeLeaf>(bitPattern: leaves).unsafelyUnwrapped + Int(index)
    }
}

public struct InodeTable: ~Copyable {
    let slots: UnsafeMutablePointer<InodeSlot>
    /// Inodes in all slots.
    public internal(set) var count = 0

    private static var slotCount: Int { 4096 }
    static var slotBits: UInt64 { 12 }
    static var leafCapacity: Int { 512 }
    static var firstCapacity: Int { 4 }
    static var leafBytes: Int { MemoryLayout<InodeLeaf>.stride }

    static var incarnationBits: UInt64 { 48 }

    /// - Parameter incarnation: how often the server has begun with nothing before.
    public init(incarnation: UInt16 = 0) {
        slots = .allocate(capacity: InodeTable.slotCount)
        var empty = InodeSlot()
        empty.incarnation = UInt64(incarnation) << InodeTable.incarnationBits
        slots.initialize(repeating: empty, count: InodeTable.slotCount)
    }

    deinit { slots.deallocate() }

    /// Inodes of one slot.
    public func count(slot: Int) -> Int {
        guard slot >= 0, slot < InodeTable.slotCount else { return 0 }
        return Int(slots[slot].count)
    }

    /// The inode of a number; nil if there is none here. Any value is safe. A shard is no inode that anybody may name: its
    /// number, which an inode before it may have had, finds nothing.
    public func find(_ number: UInt64) -> InodePointer? {
        guard let inode = record(number), !inode.pointee.isShard else { return nil }
        return inode
    }

    /// The same, shards too.
    public func record(_ number: UInt64) -> InodePointer? {
        let slot = slots[Int(truncatingIfNeeded: number & 4095)]
        let index = (number ^ slot.incarnation) >> InodeTable.slotBits
        guard index >> 9 < UInt64(slot.leafCount) else { return nil }
        let leaf = slot.leaf(UInt32(truncatingIfNeeded: index >> 9)).pointee
        let within = Int(truncatingIfNeeded: index & 511)
        guard within < Int(leaf.capacity) else { return nil }
        let entry = InodeTable.entries(leaf)[within]
        return entry & 1 == 0 ? InodePointer(bitPattern: entry) : nil
    }

    /// A new inode of a slot (0..<4096), all zero but for number and generation. nil when out of credits or memory.
    public mutating func create(slot: Int, _ arena: inout Arena, _ pool: inout PagePool) -> InodePointer? {
        guard slot >= 0, slot < InodeTable.slotCount else { return nil }
        guard let memory = arena.allocate(MemoryLayout<Inode>.stride, zeroed: true, &pool) else { return nil }
        let own = slots + slot
        if own.pointee.available == InodeSlot.noLeaf, !addRoom(slot, &arena, &pool) {
            arena.release(memory, MemoryLayout<Inode>.stride, &pool)
            return nil
        }
        let leafIndex = own.pointee.available
        let leaf = own.pointee.leaf(leafIndex)
        let entry = Int(leaf.pointee.free)
        let entries = InodeTable.entries(leaf.pointee)
        leaf.pointee.free = UInt16(truncatingIfNeeded: entries[entry] >> 1)
        leaf.pointee.used += 1
        if leaf.pointee.free == InodeLeaf.endOfFree { InodeTable.unlink(own, leafIndex, from: &own.pointee.available) }
        own.pointee.generation &+= 1
        if own.pointee.generation == 0 { own.pointee.generation = 1 }
        own.pointee.count += 1
        count += 1
        let index = UInt64(leafIndex) << 9 | UInt64(entry)
        let inode = memory.bindMemory(to: Inode.self, capacity: 1)
        inode.initialize(
            to: Inode(number: own.pointee.incarnation | index << InodeTable.slotBits | UInt64(slot), generation: own.pointee.generation))
        entries[entry] = UInt(bitPattern: inode)
        return inode
    }

    /// Removes an inode and gives back all that it holds. Its locks have been released before.
    public mutating func remove(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) {
        let number = inode.pointee.number
        precondition(record(number) == inode, "the inode is in this table")
        precondition(inode.pointee.locks == nil, "locks go before their inode")
        inode.destroyContent(&arena, &pool)
        let own = slots + Int(number & 4095)
        let index = (number ^ own.pointee.incarnation) >> InodeTable.slotBits
        let leafIndex = UInt32(index >> 9)
        let leaf = own.pointee.leaf(leafIndex)
        let entry = Int(index & 511)
        let wasFull = leaf.pointee.free == InodeLeaf.endOfFree
        InodeTable.entries(leaf.pointee)[entry] = UInt(leaf.pointee.free) << 1 | 1
        leaf.pointee.free = UInt16(entry)
        leaf.pointee.used -= 1
        arena.release(inode, MemoryLayout<Inode>.stride, &pool)
        own.pointee.count -= 1
        count -= 1
        if leaf.pointee.used == 0, !own.pointee.isLeaving {
            if !wasFull { InodeTable.unlink(own, leafIndex, from: &own.pointee.available) }
            arena.release(InodeTable.entries(leaf.pointee), Int(leaf.pointee.capacity) * 8, &pool)
            leaf.pointee.entries = 0
            leaf.pointee.capacity = 0
            InodeTable.link(own, leafIndex, into: &own.pointee.vacant)
        } else if wasFull {
            InodeTable.link(own, leafIndex, into: &own.pointee.available)
        }
        if own.pointee.count == 0, !own.pointee.isLeaving {
            arena.release(
                UnsafeMutableRawPointer(own.pointee.leaf(0)), Int(own.pointee.leafCapacity) * InodeTable.leafBytes,
                &pool)
            let generation = own.pointee.generation
            let numbering = own.pointee.numbering
            own.pointee = InodeSlot()
            own.pointee.generation = generation
            own.pointee.numbering = numbering
        }
    }

    /// Generations of a slot's next inodes are above this one.
    public mutating func skipGenerations(slot: Int, through generation: UInt32) {
        slots[slot].generation = max(slots[slot].generation, generation)
    }

    /// Whether a number, of any value, of a slot that is here can be one that a dead server has taken with it: it is of
    /// another incarnation, or there is no inode of it in a slot that has lost some.
    public func mayHaveLost(_ number: UInt64) -> Bool {
        let slot = slots[Int(truncatingIfNeeded: number & 4095)]
        if (number ^ slot.incarnation) >> InodeTable.incarnationBits != 0 { return true }
        return slot.hasLosses && find(number) == nil
    }

    /// The inode of a slot with the smallest index at or after `index`; nil at the end. Index = number >> 12, with or
    /// without the incarnation.
    public func next(slot: Int, from index: UInt64) -> InodePointer? {
        guard slot >= 0, slot < InodeTable.slotCount else { return nil }
        let index = index & (1 << (InodeTable.incarnationBits - InodeTable.slotBits) - 1)
        let own = slots[slot]
        var leafIndex = index >> 9
        var entry = Int(index & 511)
        while leafIndex < UInt64(own.leafCount) {
            let leaf = own.leaf(UInt32(leafIndex)).pointee
            while entry < Int(leaf.capacity) {
                let value = InodeTable.entries(leaf)[entry]
                if value & 1 == 0, let inode = InodePointer(bitPattern: value) { return inode }
                entry += 1
            }
            leafIndex += 1
            entry = 0
        }
        return nil
    }

    static func entries(_ leaf: InodeLeaf) -> InodeEntries {
        InodeEntries(bitPattern: leaf.entries).unsafelyUnwrapped
    }

    /// Makes a leaf available in a slot where all are full: fills a vacant one, doubles a small first one, or adds one.
    private mutating func addRoom(_ slot: Int, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let own = slots + slot
        if own.pointee.vacant != InodeSlot.noLeaf {
            let leafIndex = own.pointee.vacant
            guard fill(slot, leafIndex, InodeTable.leafCapacity, &arena, &pool) else { return false }
            InodeTable.unlink(own, leafIndex, from: &own.pointee.vacant)
            InodeTable.link(own, leafIndex, into: &own.pointee.available)
            return true
        }
        if own.pointee.leafCount > 0, own.pointee.leaf(0).pointee.capacity < InodeTable.leafCapacity {
            let capacity = Int(own.pointee.leaf(0).pointee.capacity) * 2
            guard fill(slot, 0, capacity, &arena, &pool) else { return false }
            InodeTable.link(own, 0, into: &own.pointee.available)
            return true
        }
        return addLeaf(slot, &arena, &pool)
    }

    private mutating func addLeaf(_ slot: Int, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let own = slots + slot
        let old = own.pointee
        if old.leafCount == old.leafCapacity {
            // Indices are 32 bits of the number at most, far above what memory holds.
            guard old.leafCapacity < 1 << 22 else { return false }
            let capacity = old.leafCapacity == 0 ? 1 : old.leafCapacity * 2
            guard let memory = arena.allocate(Int(capacity) * InodeTable.leafBytes, &pool) else { return false }
            if old.leafCount > 0 {
                memory.copyMemory(
                    from: UnsafeRawPointer(old.leaf(0)), byteCount: Int(old.leafCount) * InodeTable.leafBytes)
            }
            own.pointee.leaves = UInt(bitPattern: memory)
            own.pointee.leafCapacity = capacity
        }
        let leafIndex = old.leafCount
        own.pointee.leaf(leafIndex).initialize(to: InodeLeaf())
        let capacity = leafIndex == 0 ? InodeTable.firstCapacity : InodeTable.leafCapacity
        guard fill(slot, leafIndex, capacity, &arena, &pool) else {
            if old.leaves != own.pointee.leaves {
                arena.release(
                    UnsafeMutableRawPointer(own.pointee.leaf(0)),
                    Int(own.pointee.leafCapacity) * InodeTable.leafBytes, &pool)
            }
            own.pointee = old
            return false
        }
        if old.leaves != 0, old.leaves != own.pointee.leaves {
            arena.release(
                UnsafeMutableRawPointer(old.leaf(0)), Int(old.leafCapacity) * InodeTable.leafBytes, &pool)
        }
        own.pointee.leafCount += 1
        InodeTable.link(own, leafIndex, into: &own.pointee.available)
        return true
    }

    /// Gives a leaf entries, or more entries than it has; the new ones are free, in rising order.
    mutating func fill(
        _ slot: Int, _ leafIndex: UInt32, _ capacity: Int, _ arena: inout Arena, _ pool: inout PagePool
    ) -> Bool {
        let leaf = (slots + slot).pointee.leaf(leafIndex)
        guard let memory = arena.allocate(capacity * 8, &pool) else { return false }
        let entries = memory.bindMemory(to: UInt.self, capacity: capacity)
        let before = Int(leaf.pointee.capacity)
        if before > 0 {
            entries.update(from: InodeTable.entries(leaf.pointee), count: before)
            arena.release(InodeTable.entries(leaf.pointee), before * 8, &pool)
        }
        // A full leaf has no free entries; one that grows for an index of another server's choosing may have.
        var free = before > 0 ? leaf.pointee.free : InodeLeaf.endOfFree
        for entry in stride(from: capacity - 1, through: before, by: -1) {
            entries[entry] = UInt(free) << 1 | 1
            // Number 0 means "no inode" everywhere, so entry 0 of slot 0 is never free.
            if slot != 0 || leafIndex != 0 || entry != 0 { free = UInt16(entry) }
        }
        leaf.pointee.entries = UInt(bitPattern: entries)
        leaf.pointee.capacity = UInt16(capacity)
        leaf.pointee.free = free
        return true
    }

    static func link(
        _ slot: UnsafeMutablePointer<InodeSlot>, _ leafIndex: UInt32, into list: inout UInt32
    ) {
        let leaf = slot.pointee.leaf(leafIndex)
        leaf.pointee.previous = InodeSlot.noLeaf
        leaf.pointee.next = list
        if leaf.pointee.next != InodeSlot.noLeaf { slot.pointee.leaf(leaf.pointee.next).pointee.previous = leafIndex }
        list = leafIndex
    }

    static func unlink(
        _ slot: UnsafeMutablePointer<InodeSlot>, _ leafIndex: UInt32, from list: inout UInt32
    ) {
        let leaf = slot.pointee.leaf(leafIndex).pointee
        if leaf.next != InodeSlot.noLeaf { slot.pointee.leaf(leaf.next).pointee.previous = leaf.previous }
        if leaf.previous != InodeSlot.noLeaf {
            slot.pointee.leaf(leaf.previous).pointee.next = leaf.next
        } else {
            list = leaf.next
        }
    }
}
