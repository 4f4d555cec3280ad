// The entries of one directory: by name in a hash table, by cookie in an order tree.
//
// Role: lookup, insertion and removal in constant time, listings that stay right under change. Names are byte strings
// of 1 to 255 bytes; what they may contain is the service's rule.
// Layout: the table is open addressing with linear probing (Knuth, volume 3, section 6.4, algorithms L and R): slots
// of 16 bytes with the dentry's address and its hash, at most three quarters full, doubled when it would be more,
// halved when an eighth is left. Doubling moves slots by the hash in them and touches no dentry. Removal shifts the
// slots behind it back, so there are no tombstones and nothing degrades.
// Invariants: dentries do not move; a directory without entries holds no memory; a failed insertion leaves the
// directory, the arena's use and the credits as they were.

import Glibc

/// A slot of the table; `address` 0 is empty.
struct DirectorySlot: BitwiseCopyable {
    var address: UInt
    var hash: UInt32
    var reserved: UInt32 = 0
}

public struct Directory: BitwiseCopyable {
    private var table: UInt = 0
    /// The cookie of the next insertion. 0 is the start of a listing, 1 and 2 stand for "." and "..".
    public private(set) var nextCookie: UInt64 = 3
    private let seed: UInt64
    private var order = DirectoryOrder()
    /// Binary logarithm of the table's slots.
    private var tableShift: UInt8 = 0
    private var entries: UInt32 = 0

    private static var smallestShift: UInt8 { 3 }

    /// - Parameter seed: random, so that nobody can choose names that collide.
    public init(seed: UInt64) { self.seed = seed }

    /// Entries, without "." and "..".
    public var count: Int { Int(entries) }

    private var slots: UnsafeMutablePointer<DirectorySlot> {
        UnsafeMutablePointer(bitPattern: table).unsafelyUnwrapped
    }
    private var mask: Int { 1 << Int(tableShift) - 1 }
    private static func tableBytes(_ shift: UInt8) -> Int { MemoryLayout<DirectorySlot>.stride << Int(shift) }

    /// The entry of a name, or nil.
    public func find(_ name: UnsafeRawBufferPointer) -> DentryPointer? {
        guard table != 0, let base = name.baseAddress, name.count > 0, name.count <= 255 else { return nil }
        let hash = NameHash.hash(name, seed: seed)
        let slots = slots
        let mask = mask
        var index = Int(hash) & mask
        while true {
            let slot = slots[index]
            guard let dentry = DentryPointer(bitPattern: slot.address) else { return nil }
            if slot.hash == hash, Int(dentry.pointee.nameLength) == name.count,
                memcmp(dentry.name.baseAddress.unsafelyUnwrapped, base, name.count) == 0
            {
                return dentry
            }
            index = (index + 1) & mask
        }
    }

    /// Enters a name that `find` has not found. nil when out of credits or memory, or if the name has not 1 to 255
    /// bytes. The pointer stays valid until `remove`.
    public mutating func insert(
        _ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, _ arena: inout Arena, _ pool: inout PagePool
    ) -> DentryPointer? {
        insert(name, inode: inode, kind: kind, cookie: nil, &arena, &pool)
    }

    /// Enters a name with the cookie that it had in the directory that this one is a shard of; `start(at:)` came first.
    public mutating func adopt(
        _ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, lowCookie cookie: UInt64, _ arena: inout Arena, _ pool: inout PagePool
    ) -> DentryPointer? {
        precondition(cookie < nextCookie && next(after: cookie - 1)?.pointee.cookie != cookie, "a cookie is given twice")
        return insert(name, inode: inode, kind: kind, cookie: cookie, &arena, &pool)
    }

    /// An empty directory gives cookies from this one on; smaller ones are for `adopt` with a low cookie.
    public mutating func start(at cookie: UInt64) {
        precondition(entries == 0, "a directory with entries starts anew")
        nextCookie = max(nextCookie, cookie)
        order.keepLow()
    }

    private mutating func insert(
        _ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, cookie: UInt64?, _ arena: inout Arena, _ pool: inout PagePool
    ) -> DentryPointer? {
        guard let base = name.baseAddress, name.count > 0, name.count <= 255, entries < UInt32.max / 2 else {
            return nil
        }
        let bytes = Dentry.headerBytes + name.count
        guard let record = arena.allocate(bytes, &pool) else { return nil }
        let address = UInt(bitPattern: record)
        // The larger table is taken before the order tree's nodes and filled after, so that a failure gives all back.
        let grown = table == 0 ? Directory.smallestShift : isFull ? tableShift + 1 : tableShift
        var memory: UnsafeMutableRawPointer? = nil
        if table == 0 || grown != tableShift {
            memory = arena.allocate(Directory.tableBytes(grown), zeroed: true, &pool)
            if memory == nil {
                arena.release(record, bytes, &pool)
                return nil
            }
        }
        let given = cookie ?? nextCookie
        guard order.insert(given, address, isNext: cookie == nil, &arena, &pool) else {
            if let memory { arena.release(memory, Directory.tableBytes(grown), &pool) }
            arena.release(record, bytes, &pool)
            return nil
        }
        if let memory { moveTable(to: memory, grown, &arena, &pool) }
        let hash = NameHash.hash(name, seed: seed)
        let dentry = record.bindMemory(to: Dentry.self, capacity: 1)
        dentry.initialize(
            to: Dentry(inode: inode, cookie: given, hash: hash, nameLength: UInt8(name.count), kind: kind))
        memcpy(record + Dentry.headerBytes, base, name.count)
        Directory.place(DirectorySlot(address: address, hash: hash), slots, mask)
        if cookie == nil { nextCookie += 1 }
        entries += 1
        return dentry
    }

    /// As `insert`, with the cookie that the entry has at another server; cookies come in rising order.
    public mutating func adopt(
        _ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, cookie: UInt64, _ arena: inout Arena, _ pool: inout PagePool
    ) -> DentryPointer? {
        guard cookie >= nextCookie, cookie < UInt64.max, find(name) == nil else { return nil }
        let before = nextCookie
        nextCookie = cookie
        if let dentry = insert(name, inode: inode, kind: kind, &arena, &pool) { return dentry }
        nextCookie = before
        return nil
    }

    /// Cookies given from now on are at least `cookie`: those of entries that another server removed are not given again.
    public mutating func skipCookies(to cookie: UInt64) { nextCookie = max(nextCookie, cookie) }

    /// Removes an entry of this directory and releases it.
    public mutating func remove(_ dentry: DentryPointer, _ arena: inout Arena, _ pool: inout PagePool) {
        precondition(table != 0, "the entry is in this directory")
        let slots = slots
        let mask = mask
        var hole = Int(dentry.pointee.hash) & mask
        while slots[hole].address != UInt(bitPattern: dentry) {
            precondition(slots[hole].address != 0, "the entry is in this directory")
            hole = (hole + 1) & mask
        }
        // Shift back every slot behind that may stand in the hole, which is one whose home is not between.
        var index = hole
        while true {
            index = (index + 1) & mask
            let slot = slots[index]
            if slot.address == 0 { break }
            let home = Int(slot.hash) & mask
            if (index - home) & mask >= (index - hole) & mask {
                slots[hole] = slot
                hole = index
            }
        }
        slots[hole] = DirectorySlot(address: 0, hash: 0)
        entries -= 1
        order.remove(dentry.pointee.cookie, tail: nextCookie, &arena, &pool)
        arena.release(dentry, dentry.pointee.recordBytes, &pool)
        if entries == 0 {
            order.destroy(&arena, &pool)
            releaseTable(&arena, &pool)
        } else if tableShift > Directory.smallestShift, entries < UInt32(1) << UInt32(tableShift - 3) {
            // Without memory for the smaller table the large one stays.
            let bytes = Directory.tableBytes(tableShift - 1)
            if let memory = arena.allocate(bytes, zeroed: true, &pool) {
                moveTable(to: memory, tableShift - 1, &arena, &pool)
            }
        }
    }

    /// The entry with the smallest cookie above `cookie`; nil at the end. Any value is safe.
    public func next(after cookie: UInt64) -> DentryPointer? {
        guard cookie < nextCookie, let address = order.next(from: cookie + 1) else { return nil }
        return DentryPointer(bitPattern: address)
    }

    /// Places of the table, for walks over all entries in no order; and the entry of a place.
    public var placeCount: Int { table == 0 ? 0 : mask + 1 }
    public func entry(at place: Int) -> DentryPointer? {
        guard place >= 0, place < placeCount else { return nil }
        return DentryPointer(bitPattern: slots[place].address)
    }

    /// Removes all entries and gives back all memory. Cookies go on from where they were.
    public mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) {
        if table != 0 {
            for index in 0...mask {
                guard let dentry = DentryPointer(bitPattern: slots[index].address) else { continue }
                arena.release(dentry, dentry.pointee.recordBytes, &pool)
            }
        }
        order.destroy(&arena, &pool)
        releaseTable(&arena, &pool)
        entries = 0
    }

    /// Three quarters of the slots are taken.
    private var isFull: Bool { entries >= UInt32(3) << UInt32(tableShift - 2) }

    /// Moves all slots to a zeroed table and releases the old one.
    private mutating func moveTable(
        to memory: UnsafeMutableRawPointer, _ shift: UInt8, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        let new = memory.bindMemory(to: DirectorySlot.self, capacity: 1 << Int(shift))
        let newMask = 1 << Int(shift) - 1
        if table != 0 {
            for index in 0...mask where slots[index].address != 0 { Directory.place(slots[index], new, newMask) }
        }
        releaseTable(&arena, &pool)
        table = UInt(bitPattern: new)
        tableShift = shift
    }

    private static func place(_ slot: DirectorySlot, _ slots: UnsafeMutablePointer<DirectorySlot>, _ mask: Int) {
        var index = Int(slot.hash) & mask
        while slots[index].address != 0 { index = (index + 1) & mask }
        slots[index] = slot
    }

    private mutating func releaseTable(_ arena: inout Arena, _ pool: inout PagePool) {
        if table != 0 { arena.release(slots, Directory.tableBytes(tableShift), &pool) }
        table = 0
        tableShift = 0
    }
}
