// A slab allocator for metadata: inodes, entries, small hash tables, nodes, lock records.
//
// Role: turns pages of the pool into objects of 16 to 2,048 bytes; larger requests are runs of whole pages. After
// Bonwick, "The Slab Allocator" (USENIX 1994), without constructors: a slab is one block of pages cut into objects of
// one size class, with a header that counts those in use, so that an empty slab goes back to the pool at once.
// Protocol: the size given to `release` is the one given to `allocate`; objects are aligned to 16 bytes.
// Invariants: a slab with a free object is in its class's list; a full one is in none and is found by masking the
// address of the object that is released; the arena holds no slab without objects, so what is deleted is given back
// to the last page and credit.

/// Head of a slab, 32 bytes; objects follow.
struct SlabHeader: BitwiseCopyable {
    var next: UInt
    var previous: UInt
    /// Offset in the slab of the first free object, whose first two bytes hold the next one's; 0 for none.
    var free: UInt16
    /// Offset of the first object never used so far: a slab is not threaded in advance.
    var fresh: UInt16
    var used: UInt16
    var reserved: UInt16
}

public struct Arena: ~Copyable {
    /// Bytes of the objects in use, rounded up to their size classes.
    public private(set) var bytesInUse = 0
    /// Bytes of the pages that the arena holds.
    public private(set) var bytesHeld = 0

    /// First slab with a free object, of each class.
    private let partial: UnsafeMutablePointer<UInt>

    /// Up to 512 bytes in steps of 16 (32 classes), up to 2,048 in four steps for each doubling (8 classes).
    private static var classes: Int { 40 }
    private static var largest: Int { 2048 }
    private static var headerBytes: Int { 32 }

    public init() {
        partial = .allocate(capacity: Arena.classes)
        partial.initialize(repeating: 0, count: Arena.classes)
    }

    deinit { partial.deallocate() }

    /// Class of a request of 1 to 2,048 bytes, and its size.
    private static func sizeClass(_ bytes: Int) -> (index: Int, bytes: Int) {
        if bytes <= 512 {
            let index = (bytes - 1) >> 4
            return (index, (index + 1) << 4)
        }
        if bytes <= 1024 {
            let step = (bytes - 513) >> 7
            return (32 + step, 640 + step << 7)
        }
        let step = (bytes - 1025) >> 8
        return (36 + step, 1280 + step << 8)
    }

    /// Slabs of small objects are a page; of larger ones 16 KiB, or too much of a page would be left over.
    private static func slabOrder(_ size: Int) -> Int { size <= 256 ? 0 : 2 }

    /// Memory for an object, not zeroed; nil when out of credits or memory, or if `bytes` is not positive.
    public mutating func allocate(_ bytes: Int, _ pool: inout PagePool) -> UnsafeMutableRawPointer? {
        allocate(bytes, zeroed: false, &pool)
    }

    mutating func allocate(_ bytes: Int, zeroed: Bool, _ pool: inout PagePool) -> UnsafeMutableRawPointer? {
        guard bytes > 0 else { return nil }
        if bytes > Arena.largest {
            let pages = (bytes - 1) >> 12 + 1
            guard let run = pool.allocateRun(pages: pages, zeroed: zeroed) else { return nil }
            let held = PagePool.cost(ofRun: pages) << 12
            bytesInUse += held
            bytesHeld += held
            return run
        }
        let (index, size) = Arena.sizeClass(bytes)
        let slabBytes = 4096 << Arena.slabOrder(size)
        if partial[index] == 0 {
            guard let slab = pool.allocateRun(pages: slabBytes >> 12, zeroed: false) else { return nil }
            slab.initializeMemory(
                as: SlabHeader.self,
                to: SlabHeader(next: 0, previous: 0, free: 0, fresh: UInt16(Arena.headerBytes), used: 0, reserved: 0))
            partial[index] = UInt(bitPattern: slab)
            bytesHeld += slabBytes
        }
        let address = partial[index]
        let slab = Arena.header(address)
        let offset: Int
        if slab.pointee.free != 0 {
            offset = Int(slab.pointee.free)
            slab.pointee.free = (UnsafeMutableRawPointer(slab) + offset).load(as: UInt16.self)
        } else {
            offset = Int(slab.pointee.fresh)
            slab.pointee.fresh = UInt16(offset + size)
        }
        slab.pointee.used += 1
        if slab.pointee.free == 0, Int(slab.pointee.fresh) + size > slabBytes { unlink(address, index) }
        bytesInUse += size
        let object = UnsafeMutableRawPointer(slab) + offset
        if zeroed { object.initializeMemory(as: UInt8.self, repeating: 0, count: size) }
        return object
    }

    /// Gives an object back.
    public mutating func release(_ object: UnsafeMutableRawPointer, _ bytes: Int, _ pool: inout PagePool) {
        precondition(bytes > 0, "an object has a size")
        if bytes > Arena.largest {
            let pages = (bytes - 1) >> 12 + 1
            let held = PagePool.cost(ofRun: pages) << 12
            bytesInUse -= held
            bytesHeld -= held
            return pool.releaseRun(object, pages: pages)
        }
        let (index, size) = Arena.sizeClass(bytes)
        let slabBytes = 4096 << Arena.slabOrder(size)
        let address = UInt(bitPattern: object) & ~UInt(slabBytes - 1)
        let slab = Arena.header(address)
        precondition(slab.pointee.used > 0, "an object is released once")
        let wasFull = slab.pointee.free == 0 && Int(slab.pointee.fresh) + size > slabBytes
        bytesInUse -= size
        slab.pointee.used -= 1
        if slab.pointee.used == 0 {
            if !wasFull { unlink(address, index) }
            bytesHeld -= slabBytes
            return pool.releaseRun(UnsafeMutableRawPointer(slab), pages: slabBytes >> 12)
        }
        object.storeBytes(of: slab.pointee.free, as: UInt16.self)
        slab.pointee.free = UInt16(UInt(bitPattern: object) - address)
        if wasFull {
            slab.pointee.previous = 0
            slab.pointee.next = partial[index]
            if partial[index] != 0 { Arena.header(partial[index]).pointee.previous = address }
            partial[index] = address
        }
    }

    private static func header(_ address: UInt) -> UnsafeMutablePointer<SlabHeader> {
        UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped
    }

    private mutating func unlink(_ address: UInt, _ index: Int) {
        let slab = Arena.header(address).pointee
        if slab.next != 0 { Arena.header(slab.next).pointee.previous = slab.previous }
        if slab.previous != 0 {
            Arena.header(slab.previous).pointee.next = slab.next
        } else {
            partial[index] = slab.next
        }
    }
}
