// The page pool of one server: all memory that can grow comes from here, and is paid for in credits.
//
// Role: hands out 4 KiB pages (file data, nodes of page maps, slabs of the arena) and runs of pages (large hash
// tables). Its memory is extents that the memory fleet granted to its server (`adopt`), and until there are any a region of
// its own. A credit is the right to one page; the mount's size limit is shared out among the servers as credits, and
// a server that has none left asks its peers, then answers ENOSPC.
// Protocol: an allocation that fails returns nil and changes nothing; `shortfall` then says how many credits were
// wanting, 0 if it was memory that was. `lacksMemory`: an extent more, and it works.
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

    /// The last failed allocation lacked memory, which its owner can ask for; false again when some has come (`adopt`).
    public private(set) var lacksMemory = false
    /// Pages that are free in regions and in the magazine.
    public private(set) var freePages = 0 {
        didSet { if freePages < least.free { least.free = freePages } }
    }
    /// Pages that are set aside with their credits (`hold`): others cannot have them.
    public private(set) var held = 0
    /// Free pages for anybody.
    public var available: Int { freePages - held }
    /// It takes its memory from Linux itself. Otherwise the first region only: its owner is made before it can ask anybody.
    private let growsByItself: Bool

    /// Regions by the largest order of a free block, as addresses of the first of a list; 0 for none. List 0 is those without
    /// free pages, list n those with a block of order n - 1.
    private let lists: UnsafeMutablePointer<UInt>
    private static var listCount: Int { Region.maximumOrder + 2 }
    private var regionCount = 0
    /// The region of its own of a pool that has its memory from a fleet; 0: it is given up.
    private var first: UInt = 0
    /// Free pages, in the magazine and in regions, that may hold memory from Linux.
    private var idle = 0 {
        didSet { if idle < least.idle { least.idle = idle } }
    }

    /// Pages that lie idle, and that are free.
    private struct Stock {
        var idle = 0
        var free = 0
        func least(_ other: Stock) -> Stock { Stock(idle: min(idle, other.idle), free: min(free, other.free)) }
        func beyond(_ pages: Int) -> Stock { Stock(idle: max(0, idle - pages), free: max(0, free - pages)) }
    }
    // What nobody has needed for a while (`tick`).
    private var ticks = 0
    /// The least that there was since the last second began, and the last ten.
    private var least = Stock()
    private var leastForLong = Stock()
    private var idleAtTick = 0
    private var isAtRest = true
    /// Idle pages that are to go back to Linux, and free ones that are to go back to the memory fleet.
    private var unneeded = Stock()
    /// Ticks after which what lay idle all the time counts as not needed, if it is much: a second on a core that has work. After ten
    /// times as long it does so if it is not.
    public static var ticksOfNeed: Int { 100 }
    public static var ticksOfLongNeed: Int { 10 * ticksOfNeed }
    /// What is much: 128 MiB.
    public static var pagesForLong: Int { 32768 }

    private static var magazineCapacity: Int { 64 }
    private let magazine: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var magazineCount = 0

    /// Bytes of an extent that the pool can adopt, and what it is aligned to.
    public static var extentBytes: Int { Region.bytes }
    /// Pages of an extent that can be handed out.
    public static var extentPages: Int { Region.usablePages }

    public init(credits: Int, growsByItself: Bool = true) {
        self.credits = credits
        self.growsByItself = growsByItself
        magazine = .allocate(capacity: PagePool.magazineCapacity)
        lists = .allocate(capacity: PagePool.listCount)
        lists.initialize(repeating: 0, count: PagePool.listCount)
    }

    deinit {
        // Extents are their memory server's, which may be gone before.
        if first != 0 { Region(address: first).unmap() }
        for list in 0..<(growsByItself ? PagePool.listCount : 0) {
            var address = lists[list]
            while address != 0 {
                let region = Region(address: address)
                address = region.header.pointee.next
                region.unmap()
            }
        }
        lists.deallocate()
        magazine.deallocate()
    }

    // MARK: Holding

    /// Sets pages aside, with the credits for them. False: there are not so many for anybody.
    public mutating func hold(_ pages: Int) -> Bool {
        guard credits >= pages, available >= pages || growsByItself else { return false }
        credits -= pages
        held += pages
        return true
    }
    /// They are anybody's again.
    public mutating func letGo(_ pages: Int) {
        precondition(held >= pages, "pages are let go that nobody holds")
        credits += pages
        held -= pages
    }

    // MARK: Extents

    /// Takes over an extent of `extentBytes` bytes of zeros.
    public mutating func adopt(_ extent: UnsafeMutableRawPointer, token: UInt64, offset: UInt64) {
        precondition(token != 0, "an extent has a token")
        lacksMemory = false
        add(Region(zeros: UInt(bitPattern: extent), token: token, offset: offset))
    }

    /// An extent of which nothing is in use, and that was not needed for a while, if so many pages are free without it; it is still
    /// the pool's.
    public mutating func unneeded(keeping pages: Int) -> (extent: UnsafeMutableRawPointer, token: UInt64, offset: UInt64)? {
        guard unneeded.free >= Region.usablePages else { return nil }
        return surplus(keeping: pages)
    }

    /// The same, needed or not.
    public mutating func surplus(keeping pages: Int) -> (extent: UnsafeMutableRawPointer, token: UInt64, offset: UInt64)? {
        guard available - Region.usablePages >= pages else { return nil }
        var address = lists[Region.maximumOrder + 1]
        while address != 0 {
            let region = Region(address: address)
            let header = region.header.pointee
            if header.token != 0, region.freePages == Region.usablePages { return (region.base, header.token, header.offset) }
            address = header.next
        }
        return nil
    }

    /// An extent that `surplus` named leaves the pool.
    public mutating func leave(_ extent: UnsafeMutableRawPointer) {
        let region = Region(containing: extent)
        precondition(region.freePages == Region.usablePages, "an extent leaves with pages in use")
        idle -= region.touchedPages
        remove(region)
        unneeded.free = max(0, unneeded.free - Region.usablePages)
    }

    private mutating func add(_ region: Region) {
        link(region, into: PagePool.list(of: region))
        regionCount += 1
        freePages += region.freePages
    }

    private mutating func remove(_ region: Region) {
        unlink(region, from: PagePool.list(of: region))
        regionCount -= 1
        freePages -= region.freePages
    }

    private static func list(of region: Region) -> Int { region.largestOrder.map { $0 + 1 } ?? 0 }

    /// True, with `shortfall` set, if there are not `pages` credits.
    mutating func lacks(_ pages: Int) -> Bool {
        guard credits < pages else { return false }
        lacksMemory = false
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
        if magazineCount > 0, available > 0 || growsByItself {
            magazineCount -= 1
            page = magazine[magazineCount]
            idle -= 1
            freePages -= 1
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
        freePages += 1
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
            if let run { madvise(run, cost << 12, MADV_HUGEPAGE) } else {
                lacksMemory = false
                shortfall = 0
            }
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
            freePages += cost
            releaseBlock(run, order: cost.trailingZeroBitCount)
        } else {
            munmap(run, cost << 12)
        }
        credits += cost
        used -= cost
    }

    /// Housekeeping, about every 10 ms on a core with work. Gives back what has lain idle since the last `ticksOfNeed` began, beyond
    /// `pagesForLong`, or since the last `ticksOfLongNeed` beyond `reserve`, and not what was used meanwhile: a program that makes and
    /// removes the same files again and again would pay more for having its memory anew than for the files. `limit` as in `trim`.
    /// False: nothing is to be given back until something is used again.
    public mutating func tick(reserve: Int = 2048, limit: Int = 8192) -> Bool {
        if idle != idleAtTick { isAtRest = false }
        ticks += 1
        if ticks % PagePool.ticksOfNeed == 0 { endSecond(reserve: reserve) }
        var given = 0
        if unneeded.idle > 0, idle > reserve {
            given = trim(reserve: max(reserve, idle - unneeded.idle), limit: limit)
            unneeded.idle = given == 0 ? 0 : max(0, unneeded.idle - given)
        }
        idleAtTick = idle
        return given > 0 || !isAtRest && max(idle, freePages) > reserve
    }

    private mutating func endSecond(reserve: Int) {
        leastForLong = leastForLong.least(least)
        unneeded = least.beyond(max(PagePool.pagesForLong, reserve))
        least = Stock(idle: idle, free: freePages)
        guard ticks >= PagePool.ticksOfLongNeed else { return }
        ticks = 0
        isAtRest = leastForLong.idle == idle
        unneeded = leastForLong
        leastForLong = least
    }

    /// Gives free memory back to Linux when more than `reserve` pages of it lie idle. Cheap when there is not; meant
    /// for idle moments, as Linux takes about half a microsecond for each page: one call gives about `limit` pages at
    /// most. Returns the pages given back; 0 means that there is no more to do.
    @discardableResult
    public mutating func trim(reserve: Int = 2048, limit: Int = 8192) -> Int {
        guard idle > reserve else { return 0 }
        spill(keeping: 0)
        var given = 0
        for list in 1..<PagePool.listCount {
            var address = lists[list]
            while address != 0, idle > reserve, given < limit {
                let region = Region(address: address)
                address = region.header.pointee.next
                let isUnused = region.freePages == Region.usablePages
                // Whole extents go back to the memory fleet (`surplus`).
                if isUnused, !region.isOwn { continue }
                let pages = region.giveBack(limit: limit - given)
                idle -= pages
                given += pages
                if isUnused, given < limit {
                    remove(region)
                    if first == region.address { first = 0 }
                    region.unmap()
                }
            }
        }
        return given
    }

    /// Pages that the regions hold, free or in use, as address space: for statistics.
    public var mappedPages: Int { regionCount * Region.pages }

    private mutating func spill(keeping count: Int) {
        // The oldest go: what was released last is the warmest.
        let spilled = magazineCount - count
        guard spilled > 0 else { return }
        for index in 0..<spilled { releaseBlock(magazine[index], order: 0) }
        for index in 0..<count { magazine[index] = magazine[spilled + index] }
        magazineCount = count
    }

    private mutating func allocateBlock(order: Int, zeroed: Bool) -> UnsafeMutableRawPointer? {
        var list = order + 1
        while list < PagePool.listCount, lists[list] == 0 { list += 1 }
        let isHeld = !growsByItself && regionCount > 0 && available < 1 << order
        if list == PagePool.listCount || isHeld {
            guard growsByItself || regionCount == 0, let region = Region.map() else {
                lacksMemory = !growsByItself
                shortfall = 0
                return nil
            }
            add(region)
            if !growsByItself { first = region.address }
            list -= 1
        }
        let region = Region(address: lists[list])
        guard let (block, touched) = region.allocate(order: order) else { preconditionFailure("a region is in the list of another order") }
        idle -= touched
        freePages -= 1 << order
        relink(region, from: list)
        if zeroed, touched > 0 { memset(block, 0, 4096 << order) }
        return block
    }

    private mutating func releaseBlock(_ block: UnsafeMutableRawPointer, order: Int) {
        let region = Region(containing: block)
        let list = PagePool.list(of: region)
        region.release(block, order: order)
        relink(region, from: list)
    }

    private mutating func relink(_ region: Region, from list: Int) {
        let now = PagePool.list(of: region)
        guard now != list else { return }
        unlink(region, from: list)
        link(region, into: now)
    }

    private func link(_ region: Region, into list: Int) {
        region.header.pointee.previous = 0
        region.header.pointee.next = lists[list]
        if lists[list] != 0 { Region(address: lists[list]).header.pointee.previous = region.address }
        lists[list] = region.address
    }

    private func unlink(_ region: Region, from list: Int) {
        let header = region.header.pointee
        if header.next != 0 { Region(address: header.next).header.pointee.previous = header.previous }
        if header.previous != 0 {
            Region(address: header.previous).header.pointee.next = header.next
        } else {
            lists[list] = header.next
        }
    }
}
