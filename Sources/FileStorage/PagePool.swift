// The page pool of one server: all memory that can grow comes from here, and is paid for in credits.
//
// Role: hands out 4 KiB pages (file data, nodes of page maps, slabs of the arena) and runs of pages (large hash
// tables). A credit is the right to one page; the mount's size limit is shared out among the servers as credits, and
// a server that has none left asks its peers, then answers ENOSPC.
// Protocol: an allocation that fails returns nil and changes nothing; `shortfall` then says how many credits were
// wanting, 0 if it was Linux that had no memory.
// Invariants: credits + used changes only by the owner setting `credits`; a page is in use, or free in its region, or
// in the magazine, a small stack of the pages released last, which are likely to be in the processor's cache.

import Glibc

public struct PagePool: ~Copyable {
    /// Pages that may still be taken. The owner moves credits in and out; below 1 nothing can be allocated.
    public var credits: Int
    /// Pages handed out.
    public private(set) var used = 0
    /// Credits that the last failed allocation lacked; 0 if it failed for want of memory.
    public private(set) var shortfall = 0

    /// Regions with free pages, and those without, as addresses of the first of a list; 0 for none.
    private var available: UInt = 0
    private var full: UInt = 0
    /// Free pages, in the magazine and in regions, that may hold memory from Linux.
    private var idle = 0

    private static var magazineCapacity: Int { 64 }
    private let magazine: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var magazineCount = 0

    public init(credits: Int) {
        self.credits = credits
        magazine = .allocate(capacity: PagePool.magazineCapacity)
    }

    deinit {
        for list in [available, full] {
            var address = list
            while address != 0 {
                let region = Region(address: address)
                address = region.header.pointee.next
                region.unmap()
            }
        }
        magazine.deallocate()
    }

    /// True, with `shortfall` set, if there are not `pages` credits.
    mutating func lacks(_ pages: Int) -> Bool {
        guard credits < pages else { return false }
        shortfall = pages - max(credits, 0)
        return true
    }

    /// Pays for pages that are not the pool's own.
    mutating func charge(_ pages: Int) {
        credits -= pages
        used += pages
    }
    mutating func refund(_ pages: Int) { charge(-pages) }

    /// One page of 4 KiB, aligned; nil when out of credits or memory.
    public mutating func allocate(zeroed: Bool) -> UnsafeMutableRawPointer? {
        if lacks(1) { return nil }
        let page: UnsafeMutableRawPointer
        if magazineCount > 0 {
            magazineCount -= 1
            page = magazine[magazineCount]
            idle -= 1
            if zeroed { memset(page, 0, 4096) }
        } else {
            guard let block = allocateBlock(order: 0, zeroed: zeroed) else { return nil }
            page = block
        }
        credits -= 1
        used += 1
        return page
    }

    /// Gives back a page; its credit returns.
    public mutating func release(_ page: UnsafeMutableRawPointer) {
        if magazineCount == PagePool.magazineCapacity { spill(keeping: PagePool.magazineCapacity / 2) }
        magazine[magazineCount] = page
        magazineCount += 1
        idle += 1
        credits += 1
        used -= 1
    }

    /// Pages that a run of `pages` costs: the next power of two up to 512, the exact number above.
    @inlinable public static func cost(ofRun pages: Int) -> Int {
        if pages > 512 || pages < 2 { return pages }
        return 1 << (Int.bitWidth - (pages - 1).leadingZeroBitCount)
    }

    /// Consecutive pages, aligned to their cost if that is at most 512; larger runs are mappings of their own.
    public mutating func allocateRun(pages: Int, zeroed: Bool) -> UnsafeMutableRawPointer? {
        guard pages > 0 else { return nil }
        if pages == 1 { return allocate(zeroed: zeroed) }
        let cost = PagePool.cost(ofRun: pages)
        if lacks(cost) { return nil }
        let run: UnsafeMutableRawPointer?
        if cost <= 512 {
            run = allocateBlock(order: cost.trailingZeroBitCount, zeroed: zeroed)
        } else {
            run = mapAnonymous(bytes: cost << 12)
            if let run { madvise(run, cost << 12, MADV_HUGEPAGE) } else { shortfall = 0 }
        }
        guard let run else { return nil }
        credits -= cost
        used += cost
        return run
    }

    /// Gives back a run. `pages` is the number it was allocated with.
    public mutating func releaseRun(_ run: UnsafeMutableRawPointer, pages: Int) {
        if pages == 1 { return release(run) }
        let cost = PagePool.cost(ofRun: pages)
        if cost <= 512 {
            idle += cost
            releaseBlock(run, order: cost.trailingZeroBitCount)
        } else {
            munmap(run, cost << 12)
        }
        credits += cost
        used -= cost
    }

    /// Gives free memory back to Linux when more than `reserve` pages of it lie idle. Cheap when there is not; meant
    /// for idle moments, as Linux takes about half a microsecond for each page: one call gives about `limit` pages at
    /// most. Returns the pages given back; 0 means that there is no more to do.
    @discardableResult
    public mutating func trim(reserve: Int = 2048, limit: Int = 8192) -> Int {
        guard idle > reserve else { return 0 }
        spill(keeping: 0)
        var given = 0
        var address = available
        while address != 0, idle > reserve, given < limit {
            let region = Region(address: address)
            address = region.header.pointee.next
            let pages = region.giveBack(limit: limit - given)
            idle -= pages
            given += pages
            if region.header.pointee.freePages == Region.usablePages, given < limit {
                PagePool.unlink(region, from: &available)
                region.unmap()
            }
        }
        return given
    }

    /// Pages that the regions hold, free or in use, as address space: for statistics.
    public var mappedPages: Int {
        var count = 0
        for list in [available, full] {
            var address = list
            while address != 0 {
                count += Region.pages
                address = Region(address: address).header.pointee.next
            }
        }
        return count
    }

    private mutating func spill(keeping count: Int) {
        // The oldest go: what was released last is the warmest.
        let spilled = magazineCount - count
        guard spilled > 0 else { return }
        for index in 0..<spilled { releaseBlock(magazine[index], order: 0) }
        for index in 0..<count { magazine[index] = magazine[spilled + index] }
        magazineCount = count
    }

    private mutating func allocateBlock(order: Int, zeroed: Bool) -> UnsafeMutableRawPointer? {
        var address = available
        while address != 0 {
            let region = Region(address: address)
            if let (block, touched) = region.allocate(order: order) {
                idle -= touched
                if zeroed, touched > 0 { memset(block, 0, 4096 << order) }
                if region.header.pointee.freePages == 0 {
                    PagePool.unlink(region, from: &available)
                    region.header.pointee.isAvailable = false
                    PagePool.link(region, into: &full)
                }
                return block
            }
            address = region.header.pointee.next
        }
        guard let region = Region.map() else {
            shortfall = 0
            return nil
        }
        region.header.pointee.isAvailable = true
        PagePool.link(region, into: &available)
        // A new region has every order, and all of it is zero.
        return region.allocate(order: order)?.block
    }

    private mutating func releaseBlock(_ block: UnsafeMutableRawPointer, order: Int) {
        let region = Region(containing: block)
        region.release(block, order: order)
        if !region.header.pointee.isAvailable {
            PagePool.unlink(region, from: &full)
            region.header.pointee.isAvailable = true
            PagePool.link(region, into: &available)
        }
    }

    private static func link(_ region: Region, into list: inout UInt) {
        region.header.pointee.previous = 0
        region.header.pointee.next = list
        if list != 0 { Region(address: list).header.pointee.previous = region.address }
        list = region.address
    }

    private static func unlink(_ region: Region, from list: inout UInt) {
        let header = region.header.pointee
        if header.next != 0 { Region(address: header.next).header.pointee.previous = header.previous }
        if header.previous != 0 {
            Region(address: header.previous).header.pointee.next = header.next
        } else {
            list = header.next
        }
    }
}
