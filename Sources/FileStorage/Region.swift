// A region: 64 MiB of address space, handed out in blocks of 1 to 512 pages by the binary buddy system.
//
// Role: the unit in which `PagePool` takes memory from Linux. Knuth, The Art of Computer Programming, volume 1,
// section 2.5 (buddy system); the free blocks of each order are a bitmap rather than lists threaded through the
// blocks, so a free page is never touched and can be given back to Linux.
// Layout: the first two pages hold the header and the bitmaps, so that the region of any page is found by masking
// its address. Those two pages of 16,384 are the pool's own cost and are not billed.
// Fresh memory is faulted in by groups of 16 pages with one call (MADV_POPULATE_WRITE), which costs a quarter less than
// a fault for each page. Huge pages are not asked for here: on a machine that is virtual or short of free 2 MiB blocks,
// the first touch of one was measured to stall for up to 8 ms, on the path of a request.
// Invariants: a block is free at exactly one order; `touched` has a bit for each page that may be other than zero; a
// page without that bit is zero, and has memory from Linux only if another of its group has the bit.

import Glibc

struct RegionHeader: BitwiseCopyable {
    /// Links of the pool's list that the region is in.
    var next: UInt
    var previous: UInt
    var freePages: Int
    /// In the list of regions that have free pages, else in the list of full ones.
    var isAvailable: Bool
}

/// A handle: the region's address.
struct Region: BitwiseCopyable, Equatable {
    static var bytes: Int { 1 << 26 }
    static var pages: Int { 1 << 14 }
    static var headerPages: Int { 2 }
    /// Largest block: 512 pages, 2 MiB, a huge page.
    static var maximumOrder: Int { 9 }
    static var usablePages: Int { pages - headerPages }

    let address: UInt

    init(address: UInt) { self.address = address }
    init(containing pointer: UnsafeMutableRawPointer) { address = UInt(bitPattern: pointer) & ~UInt(Region.bytes - 1) }

    var base: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped }
    var header: UnsafeMutablePointer<RegionHeader> { base.assumingMemoryBound(to: RegionHeader.self) }
    /// Free blocks of each order.
    private var counts: UnsafeMutablePointer<UInt32> { (base + 128).assumingMemoryBound(to: UInt32.self) }
    /// No word of an order's bitmap below its hint has a bit.
    private var hints: UnsafeMutablePointer<UInt32> { (base + 192).assumingMemoryBound(to: UInt32.self) }
    private var touched: UnsafeMutablePointer<UInt64> { (base + 2048).assumingMemoryBound(to: UInt64.self) }
    /// Bitmap of the free blocks of an order: 16,384 >> order bits, one order after the other in the second page.
    private func blocks(_ order: Int) -> UnsafeMutablePointer<UInt64> {
        (base + 4096).assumingMemoryBound(to: UInt64.self) + (512 - (512 >> order))
    }
    private func wordCount(_ order: Int) -> Int { max(1, 256 >> order) }

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
        let region = Region(address: aligned)
        region.header.initialize(to: RegionHeader(next: 0, previous: 0, freePages: 0, isAvailable: false))
        // The largest aligned blocks that follow the header: orders 1, 2, ... 8, and then of order 9 only.
        var page = Region.headerPages
        while page < Region.pages {
            let order = min(page.trailingZeroBitCount, Region.maximumOrder)
            region.setFree(order, page >> order)
            page += 1 << order
        }
        region.header.pointee.freePages = Region.usablePages
        return region
    }

    func unmap() { munmap(base, Region.bytes) }

    private func setFree(_ order: Int, _ block: Int) {
        let word = block >> 6
        blocks(order)[word] |= 1 << UInt64(block & 63)
        counts[order] += 1
        if word < Int(hints[order]) { hints[order] = UInt32(word) }
    }

    private func clearFree(_ order: Int, _ block: Int) {
        blocks(order)[block >> 6] &= ~(1 << UInt64(block & 63))
        counts[order] -= 1
    }

    private func isFree(_ order: Int, _ block: Int) -> Bool {
        blocks(order)[block >> 6] & (1 << UInt64(block & 63)) != 0
    }

    /// Takes a block of 1 << order pages. Gives its first page's address, and how many of its pages may be other than
    /// zero; nil if there is no such block.
    func allocate(order: Int) -> (block: UnsafeMutableRawPointer, touched: Int)? {
        var from = order
        while counts[from] == 0 {
            from += 1
            if from > Region.maximumOrder { return nil }
        }
        let bitmap = blocks(from)
        var word = Int(hints[from])
        while bitmap[word] == 0 { word += 1 }
        hints[from] = UInt32(word)
        var block = word << 6 + bitmap[word].trailingZeroBitCount
        clearFree(from, block)
        while from > order {
            from -= 1
            block <<= 1
            setFree(from, block + 1)
        }
        header.pointee.freePages -= 1 << order
        let page = block << order
        return (base + page << 12, touch(page, count: 1 << order))
    }

    /// Gives a block back, and joins it with its free buddies.
    func release(_ pointer: UnsafeMutableRawPointer, order: Int) {
        let page = Int(UInt(bitPattern: pointer) - address) >> 12
        var block = page >> order
        var order = order
        precondition(page >= Region.headerPages && !isFree(order, block), "a block is released once")
        header.pointee.freePages += 1 << order
        while order < Region.maximumOrder, isFree(order, block ^ 1) {
            clearFree(order, block ^ 1)
            block >>= 1
            order += 1
        }
        setFree(order, block)
    }

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
        let populateWrite: Int32 = 23  // MADV_POPULATE_WRITE of <linux/mman.h>
        madvise(base + page << 12, count << 12, populateWrite)
    }

    /// Gives the memory of all free pages back to Linux, which will hand out zeroed ones in their place when they are
    /// next used. Returns how many pages that were, of those that were ever used; after `limit` of them it leaves the rest for
    /// another time.
    func giveBack(limit: Int) -> Int {
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 256) { idle in
            for word in 0..<256 { idle[word] = 0 }
            for order in 0...Region.maximumOrder where counts[order] > 0 {
                for word in 0..<wordCount(order) {
                    var bits = blocks(order)[word]
                    while bits != 0 {
                        let first = (word << 6 + bits.trailingZeroBitCount) << order
                        bits &= bits - 1
                        if order < 6 {
                            idle[first >> 6] |= Region.ones(1 << order) << UInt64(first & 63)
                        } else {
                            for full in first >> 6..<(first + 1 << order) >> 6 { idle[full] = ~0 }
                        }
                    }
                }
            }
            // A group with a touched page may have memory in all of its pages.
            var given = 0
            for word in 0..<256 {
                if given >= limit {
                    idle[word] = 0
                    continue
                }
                let free = idle[word]
                given += (free & touched[word]).nonzeroBitCount
                idle[word] = free & Region.wholeGroups(touched[word])
                touched[word] &= ~free
            }
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
