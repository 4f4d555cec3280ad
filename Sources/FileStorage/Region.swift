// A region: 4 MiB of memory, handed out in blocks of 1 to 512 pages by the binary buddy system (module Buddy).
//
// Role: the unit in which `PagePool` gets memory: an extent that the memory fleet granted, present and zeroed, or a mapping
// of the pool's own.
// Layout: the first page holds the header, a bitmap of touched pages, and the buddy map, so that the region of any page is
// found by masking its address. That page of 1,024 is the pool's own cost and is not billed.
// Memory of the pool's own is faulted in by groups of 16 pages with one call (MADV_POPULATE_WRITE), which costs a quarter
// less than a fault for each page; so is what was given back to Linux.
// Invariants: `touched` has a bit for each page that may be other than zero; a page without that bit is zero.

import Buddy
import Glibc

struct RegionHeader: BitwiseCopyable {
    /// Links of the pool's list that the region is in.
    var next: UInt
    var previous: UInt
    /// Of the extent that it is; 0: a mapping of the pool's own.
    var token: UInt64
    var offset: UInt64
    /// All of it has memory from Linux.
    var isResident: Bool
}

/// A handle: the region's address.
struct Region: BitwiseCopyable, Equatable {
    static var bytes: Int { 1 << 22 }
    static var pages: Int { 1 << 10 }
    static var headerPages: Int { 1 }
    /// Largest block: 512 pages, 2 MiB, a huge page.
    static var maximumOrder: Int { 9 }
    static var usablePages: Int { pages - headerPages }
    private static var span: Int { 10 }
    private static var touchedOffset: Int { 128 }
    private static var mapOffset: Int { 512 }

    let address: UInt

    init(address: UInt) { self.address = address }
    init(containing pointer: UnsafeMutableRawPointer) { address = UInt(bitPattern: pointer) & ~UInt(Region.bytes - 1) }

    var base: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped }
    var header: UnsafeMutablePointer<RegionHeader> { base.assumingMemoryBound(to: RegionHeader.self) }
    private var touched: UnsafeMutablePointer<UInt64> { (base + Region.touchedOffset).assumingMemoryBound(to: UInt64.self) }
    private var map: BuddyMap { BuddyMap(at: base + Region.mapOffset, span: Region.span, maximumOrder: Region.maximumOrder) }
    var freePages: Int { map.freeFrames }
    /// The largest order of a free block; nil if none is.
    var largestOrder: Int? { map.largestOrder }
    var isOwn: Bool { header.pointee.token == 0 }

    /// A new region from Linux, all its pages free and zero; nil if Linux has none.
    static func map() -> Region? {
        // Twice the size, then the ends are cut off: the kernel aligns no more than a huge page.
        guard let raw = mapAnonymous(bytes: 2 * Region.bytes) else { return nil }
        let start = UInt(bitPattern: raw)
        let aligned = (start + UInt(Region.bytes) - 1) & ~UInt(Region.bytes - 1)
        let head = Int(aligned - start)
        if head > 0 { munmap(raw, head) }
        let tail = Region.bytes - head
        if tail > 0 { munmap(raw + head + Region.bytes, tail) }
        return Region(zeros: aligned, token: 0, offset: 0)
    }

    /// A region of zeros at an address, present if it is an extent.
    init(zeros address: UInt, token: UInt64, offset: UInt64) {
        precondition(address & UInt(Region.bytes - 1) == 0, "a region is aligned to its size")
        precondition(Region.mapOffset + BuddyMap.bytes(span: Region.span, maximumOrder: Region.maximumOrder) <= 4096, "a header is a page")
        self.address = address
        header.initialize(to: RegionHeader(next: 0, previous: 0, token: token, offset: offset, isResident: token != 0))
        map.release(Region.headerPages..<Region.pages)
    }

    func unmap() { munmap(base, Region.bytes) }

    /// Takes a block of 1 << order pages. Gives its first page's address, and how many of its pages may be other than
    /// zero; nil if there is no such block.
    func allocate(order: Int) -> (block: UnsafeMutableRawPointer, touched: Int)? {
        guard let page = map.allocate(order: order) else { return nil }
        return (base + page << 12, touch(page, count: 1 << order))
    }

    /// Gives a block back, and joins it with its free buddies.
    func release(_ pointer: UnsafeMutableRawPointer, order: Int) {
        let page = Int(UInt(bitPattern: pointer) - address) >> 12
        precondition(page >= Region.headerPages, "the header is never handed out")
        map.release(page, order: order)
    }

    /// Pages that may be other than zero.
    var touchedPages: Int { (0..<Region.pages / 64).reduce(0) { $0 + touched[$1].nonzeroBitCount } }

    /// Marks pages as touched; gives how many were so before. If none of their groups was, they are faulted in.
    private func touch(_ page: Int, count: Int) -> Int {
        if count < 64 {
            // A block is aligned to its size, so it lies inside one word, and inside one group or on whole ones.
            let word = touched[page >> 6]
            let mask = Region.ones(count) << UInt64(page & 63)
            touched[page >> 6] = word | mask
            let first = page & ~15
            let pages = max(count, 16)
            if word >> UInt64(first & 63) & Region.ones(pages) == 0 { populate(first, count: pages) }
            return (word & mask).nonzeroBitCount
        }
        var before = 0
        for word in page >> 6..<(page + count) >> 6 {
            before += touched[word].nonzeroBitCount
            touched[word] = ~0
        }
        if before == 0 { populate(page, count: count) }
        return before
    }

    /// An optimisation only: where Linux refuses (it is older than 5.14), pages are faulted in one by one.
    private func populate(_ page: Int, count: Int) {
        guard !header.pointee.isResident else { return }
        let populateWrite: Int32 = 23  // MADV_POPULATE_WRITE of <linux/mman.h>
        madvise(base + page << 12, count << 12, populateWrite)
    }

    /// Gives the memory of all free pages back to Linux, which will hand out zeroed ones in their place when they are
    /// next used. Returns how many pages that were, of those that were ever used; after `limit` of them it leaves the rest for
    /// another time.
    func giveBack(limit: Int) -> Int {
        let words = Region.pages / 64
        return withUnsafeTemporaryAllocation(of: UInt64.self, capacity: words) { idle in
            for word in 0..<words { idle[word] = 0 }
            map.forEachBlock { first, order in
                if order < 6 {
                    idle[first >> 6] |= Region.ones(1 << order) << UInt64(first & 63)
                } else {
                    for full in first >> 6..<(first + 1 << order) >> 6 { idle[full] = ~0 }
                }
            }
            // A group with a touched page may have memory in all of its pages.
            var given = 0
            for word in 0..<words {
                if given >= limit {
                    idle[word] = 0
                    continue
                }
                let free = idle[word]
                given += (free & touched[word]).nonzeroBitCount
                idle[word] = free & Region.wholeGroups(touched[word])
                touched[word] &= ~free
            }
            if given > 0 { header.pointee.isResident = false }
            var page = Region.headerPages
            while page < Region.pages {
                let first = page
                while page < Region.pages, idle[page >> 6] & (1 << UInt64(page & 63)) != 0 { page += 1 }
                if page > first { madvise(base + first << 12, (page - first) << 12, MADV_DONTNEED) }
                page += 1
            }
            return given
        }
    }

    /// All bits of each group of 16 in which any bit is set.
    private static func wholeGroups(_ bits: UInt64) -> UInt64 {
        var groups: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 16) where bits >> shift & 0xffff != 0 {
            groups |= 0xffff << shift
        }
        return groups
    }

    /// `count` low bits, fewer than 64.
    private static func ones(_ count: Int) -> UInt64 { UInt64(1) << UInt64(count) - 1 }
}

/// Anonymous zeroed memory, or nil.
func mapAnonymous(bytes: Int) -> UnsafeMutableRawPointer? {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    guard let raw = mmap(nil, bytes, PROT_READ | PROT_WRITE, flags, -1, 0), UInt(bitPattern: raw) != UInt.max else {
        return nil
    }
    return raw
}
