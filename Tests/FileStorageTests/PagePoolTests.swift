import FileStorage
import Testing

@Suite struct PagePoolTests {
    @Test func randomUseAgainstModel() {
        var random = Generator(seed: Generator.seed("PagePool"))
        let credits = 40_000
        var pool = PagePool(credits: credits)
        // What is handed out is stamped in all its pages: two owners of one page would see each other's stamps.
        var held: [(pointer: UnsafeMutableRawPointer, pages: Int, stamp: UInt64)] = []
        var cost = 0
        for step in 0..<60_000 {
            if held.isEmpty || random.chance(step % 20_000 < 10_000 ? 60 : 35) {
                let pages: Int
                switch random.below(20) {
                case 0: pages = 1 + random.below(700)
                case 1, 2, 3: pages = 1 + random.below(40)
                default: pages = 1
                }
                let zeroed = random.chance(50)
                let price = PagePool.cost(ofRun: pages)
                let run = pages == 1 ? pool.allocate(zeroed: zeroed) : pool.allocateRun(pages: pages, zeroed: zeroed)
                expect((run != nil) == (cost + price <= credits))
                guard let run else {
                    expect(pool.shortfall == price - (credits - cost))
                    continue
                }
                if pages <= 512 { expect(UInt(bitPattern: run) % UInt(4096 * price) == 0) }
                let stamp = random.next()
                for page in 0..<pages {
                    let words = (run + page * 4096).assumingMemoryBound(to: UInt64.self)
                    if zeroed { for word in 0..<512 where words[word] != 0 { Issue.record("page not zero") } }
                    words[0] = stamp
                    words[511] = stamp
                }
                cost += price
                held.append((run, pages, stamp))
            } else {
                let victim = held.remove(at: random.below(held.count))
                for page in 0..<victim.pages {
                    let words = (victim.pointer + page * 4096).assumingMemoryBound(to: UInt64.self)
                    if words[0] != victim.stamp || words[511] != victim.stamp { Issue.record("page of two owners") }
                }
                if victim.pages == 1, random.chance(90) {
                    pool.release(victim.pointer)
                } else {
                    pool.releaseRun(victim.pointer, pages: victim.pages)
                }
                cost -= PagePool.cost(ofRun: victim.pages)
            }
            expect(pool.used == cost && pool.credits == credits - cost)
            if random.below(1000) == 0 { pool.trim(reserve: random.below(500), limit: random.below(3000)) }
        }
        for (pointer, pages, _) in held { pool.releaseRun(pointer, pages: pages) }
        expect(pool.used == 0 && pool.credits == credits)
        pool.trim(reserve: 0, limit: .max)
        expect(pool.mappedPages == 0)
    }

    /// Whatever is held cannot be had by others, and is there when it is let go.
    @Test func whatIsHeldIsNobodyElses() {
        var pool = PagePool(credits: 100)
        expect(!pool.hold(101) && pool.held == 0 && pool.credits == 100)
        expect(pool.hold(60) && pool.hold(20) && pool.held == 80 && pool.credits == 20 && pool.used == 0)
        var pages: [UnsafeMutableRawPointer] = []
        while let page = pool.allocate(zeroed: true) { pages.append(page) }
        expect(pages.count == 20 && pool.shortfall == 1 && !pool.hold(1))
        pool.letGo(30)
        expect(pool.held == 50 && pool.credits == 30)
        while let page = pool.allocate(zeroed: true) { pages.append(page) }
        expect(pages.count == 50 && pool.credits == 0)
        pool.letGo(50)
        for page in pages { pool.release(page) }
        expect(pool.held == 0 && pool.credits == 100 && pool.used == 0)
    }

    /// Where memory is granted by another server, held pages are there, however they are asked for; credits alone are not enough.
    @Test func heldPagesAreThereWhereMemoryIsGranted() throws {
        var pool = PagePool(credits: 1 << 20, growsByItself: false)
        // Its first region, which it makes itself.
        let first = try unwrap(pool.allocate(zeroed: true))
        let free = pool.freePages
        expect(pool.hold(20) && pool.available == free - 20 && !pool.hold(free - 19) && pool.hold(10) && pool.held == 30)
        var pages: [UnsafeMutableRawPointer] = []
        while let page = pool.allocate(zeroed: pages.count % 2 == 0) { pages.append(page) }
        expect(pool.lacksMemory && pool.freePages == 30 && pool.available == 0 && pages.count == free - 30)
        expect(pool.allocateRun(pages: 4, zeroed: false) == nil && pool.surplus(keeping: 0) == nil && !pool.hold(1))
        pool.letGo(20)
        var some: [UnsafeMutableRawPointer] = []
        for _ in 0..<20 { some.append(try unwrap(pool.allocate(zeroed: true))) }
        expect(pool.allocate(zeroed: true) == nil && pool.freePages == 10 && pool.available == 0)
        pool.letGo(10)
        for page in pages + some + [first] { pool.release(page) }
        expect(pool.held == 0 && pool.credits == 1 << 20 && pool.used == 0)
    }

    @Test func trimGivesBackAndKeepsWhatIsUsed() throws {
        var pool = PagePool(credits: 100_000)
        var pages: [UnsafeMutableRawPointer] = []
        for index in 0..<20_000 {
            let page = try unwrap(pool.allocate(zeroed: false))
            page.storeBytes(of: index, as: Int.self)
            pages.append(page)
        }
        for index in 0..<20_000 where index % 3 != 0 { pool.release(pages[index]) }
        expect(pool.trim(reserve: 100, limit: .max) == 20_000 - 6_667)
        expect(pool.trim(reserve: 100, limit: .max) == 0)
        for index in stride(from: 0, to: 20_000, by: 3) {
            expect(pages[index].load(as: Int.self) == index)
            pool.release(pages[index])
        }
        pool.trim(reserve: 0, limit: .max)
        expect(pool.mappedPages == 0)
    }

    /// What is used again within a second stays; what is not goes, down to the reserve.
    @Test func whatIsNeededStays() throws {
        var pool = PagePool(credits: 100_000)
        func use(_ count: Int, _ pool: inout PagePool) throws {
            var pages: [UnsafeMutableRawPointer] = []
            for _ in 0..<count { pages.append(try unwrap(pool.allocate(zeroed: false))) }
            for page in pages { pool.release(page) }
        }
        for round in 0..<3 * PagePool.ticksOfLongNeed {
            if round % 20 == 0 { try use(10_000, &pool) }
            expect(pool.tick(reserve: 1000))
        }
        expect(pool.mappedPages >= 10_000)
        // From now on half of them.
        for round in 0..<3 * PagePool.ticksOfLongNeed {
            if round % 20 == 0 { try use(5_000, &pool) }
            _ = pool.tick(reserve: 1000)
        }
        expect(pool.trim(reserve: 5_000, limit: .max) == 0)
        expect(pool.trim(reserve: 4_000, limit: .max) > 0)
        try use(5_000, &pool)
        var ticks = 0
        while pool.tick(reserve: 1000), ticks < 4 * PagePool.ticksOfLongNeed { ticks += 1 }
        expect(ticks < 4 * PagePool.ticksOfLongNeed)
        expect(pool.trim(reserve: 1000, limit: .max) == 0)
        expect(!pool.tick(reserve: 1000))
    }

    /// Of much that is not needed most goes after a second.
    @Test func muchGoesSoon() throws {
        var pool = PagePool(credits: 200_000)
        var pages: [UnsafeMutableRawPointer] = []
        for _ in 0..<3 * PagePool.pagesForLong { pages.append(try unwrap(pool.allocate(zeroed: false))) }
        for page in pages { pool.release(page) }
        for _ in 0..<2 * PagePool.ticksOfNeed + 10 { expect(pool.tick(reserve: 1000)) }
        expect(pool.trim(reserve: PagePool.pagesForLong, limit: .max) == 0)
        expect(pool.trim(reserve: PagePool.pagesForLong - 1000, limit: .max) > 0)
    }

    /// In small steps it comes to the same, and ends.
    @Test func trimByAndBy() throws {
        var pool = PagePool(credits: 100_000)
        var pages: [UnsafeMutableRawPointer] = []
        for _ in 0..<40_000 { pages.append(try unwrap(pool.allocate(zeroed: false))) }
        for page in pages { pool.release(page) }
        var given = 0
        var calls = 0
        while true {
            let pages = pool.trim(reserve: 0, limit: 1000)
            if pages == 0 { break }
            expect(pages < 1000 + 64)
            given += pages
            calls += 1
        }
        expect(given == 40_000 && calls >= 37)
        expect(pool.trim(reserve: 0) == 0)
        let page = try unwrap(pool.allocate(zeroed: true))
        expect(page.load(as: UInt64.self) == 0)
    }

    /// Extents from elsewhere: nothing is mapped beside them but the first region, and they come out as they went in.
    @Test func extentsComeAndGo() throws {
        var random = Generator(seed: Generator.seed("PagePool extents"))
        var pool = PagePool(credits: 1_000_000, growsByItself: false)
        let bytes = PagePool.extentBytes
        var waiting: [UnsafeMutableRawPointer] = []
        var token: UInt64 = 1 << 63
        var tokens: [UnsafeMutableRawPointer: UInt64] = [:]
        for _ in 0..<6 {
            let extent = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: bytes)
            extent.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
            waiting.append(extent)
        }
        let all = waiting
        var held: [(UnsafeMutableRawPointer, Int)] = []
        for _ in 0..<20_000 {
            if random.chance(55) {
                let pages = random.chance(90) ? 1 : 1 + random.below(512)
                let run = pages == 1 ? pool.allocate(zeroed: true) : pool.allocateRun(pages: pages, zeroed: true)
                if let run {
                    for page in 0..<pages {
                        let words = (run + page * 4096).assumingMemoryBound(to: UInt64.self)
                        if words[0] != 0 || words[511] != 0 { Issue.record("page not zero") }
                        words[0] = 1
                        words[511] = 1
                    }
                    held.append((run, pages))
                } else {
                    expect(pool.lacksMemory && pool.shortfall == 0)
                    if let extent = waiting.popLast() {
                        token += 1
                        tokens[extent] = token
                        pool.adopt(extent, token: token, offset: token & 0xffff)
                    }
                }
            } else if !held.isEmpty {
                let (run, pages) = held.remove(at: random.below(held.count))
                if pages == 1 { pool.release(run) } else { pool.releaseRun(run, pages: pages) }
            }
            if random.below(500) == 0 { pool.trim(reserve: 0, limit: .max) }
            if random.below(200) == 0, let unused = pool.surplus(keeping: random.below(4000)) {
                expect(tokens[unused.extent] == unused.token && unused.offset == unused.token & 0xffff)
                pool.leave(unused.extent)
                unused.extent.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
                waiting.append(unused.extent)
            }
            expect(pool.mappedPages <= 7 * bytes / 4096)
        }
        for (run, pages) in held { if pages == 1 { pool.release(run) } else { pool.releaseRun(run, pages: pages) } }
        pool.trim(reserve: 0, limit: .max)
        while let unused = pool.surplus(keeping: 0) {
            pool.leave(unused.extent)
            waiting.append(unused.extent)
        }
        expect(Set(waiting) == Set(all) && pool.mappedPages == 0 && pool.freePages == 0 && pool.used == 0)
        for extent in all { extent.deallocate() }
    }

    @Test func creditsMoveInAndOut() throws {
        var pool = PagePool(credits: 0)
        expect(pool.allocate(zeroed: true) == nil)
        expect(pool.shortfall == 1)
        pool.credits = -5
        expect(pool.allocateRun(pages: 3, zeroed: true) == nil)
        expect(pool.shortfall == 4)
        pool.credits = 2
        let a = try unwrap(pool.allocate(zeroed: true))
        let b = try unwrap(pool.allocate(zeroed: true))
        expect(pool.allocate(zeroed: true) == nil && pool.used == 2)
        pool.release(a)
        pool.release(b)
        expect(pool.credits == 2)
        expect(pool.allocateRun(pages: 0, zeroed: true) == nil)
        expect(pool.allocateRun(pages: -1, zeroed: true) == nil)
    }
}
