import FileStorage
import Testing

@Suite struct PageMapTests {
    /// Indices that meet each other and every height: small, around powers of 512, at the end of the largest file.
    private func index(_ random: inout Generator) -> UInt64 {
        switch random.below(6) {
        case 0: return UInt64(random.below(40))
        case 1: return UInt64(random.below(2000))
        case 2: return (1 << (9 * UInt64(1 + random.below(5)))) &- 3 &+ UInt64(random.below(6))
        case 3: return 1 << 51 - 1 - UInt64(random.below(3))
        case 4: return UInt64(random.below(600)) << (9 * UInt64(random.below(5)))
        default: return 512 + UInt64(random.below(8))
        }
    }

    @Test func randomUseAgainstModel() {
        for round in 0..<4 {
            var random = Generator(seed: Generator.seed("PageMap \(round)"))
            var memory = Memory()
            var map = PageMap()
            var model: [UInt64: UInt64] = [:]
            for _ in 0..<6_000 {
                let at = index(&random)
                switch random.below(12) {
                case 0:
                    let end = random.chance(30) ? UInt64.max : at &+ UInt64(random.below(1500))
                    let doomed = model.keys.filter { $0 >= at && $0 < end }
                    expect(map.removePages(from: at, to: end, &memory.pool) == doomed.count)
                    for index in doomed { model[index] = nil }
                case 1:
                    expect(map.removePages(from: at, to: at + 1, &memory.pool) == (model[at] == nil ? 0 : 1))
                    model[at] = nil
                case 2, 3:
                    expect(map.page(at)?.load(as: UInt64.self) == model[at])
                case 4, 5:
                    expect(map.nextData(from: at) == model.keys.filter { $0 >= at }.min())
                    var hole = at
                    while model[hole] != nil { hole += 1 }
                    expect(map.nextHole(from: at) == hole)
                default:
                    var isNew = false
                    guard let page = map.ensure(at, zeroed: true, isNew: &isNew, &memory.pool) else {
                        Issue.record("memory is out")
                        return
                    }
                    expect(isNew == (model[at] == nil))
                    expect(page.load(as: UInt64.self) == model[at] ?? 0)
                    let stamp = random.next()
                    page.storeBytes(of: stamp, as: UInt64.self)
                    model[at] = stamp
                }
                expect(map.pageCount == UInt64(model.count))
            }
            for (index, stamp) in model { expect(map.page(index)?.load(as: UInt64.self) == stamp) }
            map.destroy(&memory.pool)
            expect(map.pageCount == 0)
            memory.expectWhole()
        }
    }

    @Test func denseFile() throws {
        var memory = Memory()
        var map = PageMap()
        for index in 0..<3000 as Range<UInt64> { _ = try unwrap(map.ensure(index, zeroed: false, &memory.pool)) }
        expect(memory.pool.used == 3000 + 6 + 1)
        expect(map.nextHole(from: 0) == 3000 && map.nextData(from: 2999) == 2999 && map.nextData(from: 3000) == nil)
        map.removePages(from: 1024, to: 1025, &memory.pool)
        expect(map.nextHole(from: 5) == 1024)
        // Cut to one page, it is that page and no node.
        map.removePages(from: 1, to: .max, &memory.pool)
        expect(memory.pool.used == 1 && map.page(0) != nil)
        map.destroy(&memory.pool)
        memory.expectWhole()
    }

    @Test func hostileIndices() {
        var memory = Memory()
        var map = PageMap()
        expect(map.ensure(3, zeroed: true, &memory.pool) != nil)
        for index in [PageMap.indexLimit, 1 << 55, 1 << 63, .max] as [UInt64] {
            expect(map.page(index) == nil)
            expect(map.ensure(index, zeroed: true, &memory.pool) == nil)
            expect(map.nextData(from: index) == nil)
            expect(map.nextHole(from: index) == index)
            expect(map.removePages(from: index, to: .max, &memory.pool) == 0)
        }
        expect(map.ensure(PageMap.indexLimit - 1, zeroed: true, &memory.pool) != nil)
        expect(map.nextHole(from: PageMap.indexLimit - 1) == PageMap.indexLimit)
        expect(map.nextData(from: 4) == PageMap.indexLimit - 1)
        expect(map.removePages(from: 9, to: 2, &memory.pool) == 0)
        map.destroy(&memory.pool)
        memory.expectWhole()
    }

    @Test func failsCleanlyAtEveryCredit() throws {
        var random = Generator(seed: Generator.seed("PageMap credits"))
        for _ in 0..<300 {
            var memory = Memory()
            var map = PageMap()
            for _ in 0..<random.below(4) { _ = try unwrap(map.ensure(index(&random), zeroed: true, &memory.pool)) }
            let at = index(&random)
            if map.page(at) != nil { continue }
            let used = memory.pool.used
            let count = map.pageCount
            var credits = 0
            while true {
                memory.pool.credits = credits
                if map.ensure(at, zeroed: true, &memory.pool) != nil { break }
                expect(memory.pool.used == used && memory.pool.credits == credits && map.pageCount == count)
                expect(map.page(at) == nil)
                // The shortfall is exact: with that many more it works.
                credits += memory.pool.shortfall
                expect(memory.pool.shortfall > 0)
            }
            expect(memory.pool.credits == 0)
            memory.pool.credits = memory.credits - memory.pool.used
            map.destroy(&memory.pool)
            memory.expectWhole()
        }
    }

    /// A map whose first pages move into a region, and into a larger one: the same pages, paid for as said.
    @Test func regions() {
        var random = Generator(seed: Generator.seed("PageMap regions"))
        var memory = Memory()
        var map = PageMap()
        var model: [UInt64: UInt64] = [:]
        var regions: [(base: UnsafeMutableRawPointer, pages: UInt64)] = []
        defer { for (base, _) in regions { base.deallocate() } }
        for step in 0..<4_000 {
            if step == 500 || step == 2_000 {
                let pages = UInt64(step / 10)
                let base = UnsafeMutableRawPointer.allocate(byteCount: Int(pages) << 12, alignment: 4096)
                base.initializeMemory(as: UInt8.self, repeating: 0, count: Int(pages) << 12)
                let (used, held) = (
                    memory.pool.used, model.keys.filter { $0 < pages && $0 >= map.regionPages }.count + Int(map.regionPages)
                )
                let credits = memory.pool.credits
                memory.pool.credits = Int(pages) - held - 1
                if memory.pool.credits >= 0 { expect(!map.enterRegion(base, pages: pages, &memory.pool)) }
                memory.pool.credits = credits
                expect(map.enterRegion(base, pages: pages, &memory.pool) && map.regionPages == pages)
                expect(memory.pool.used == used + Int(pages) - held)
                regions.append((base, pages))
            }
            let at = UInt64(random.below(400))
            switch random.below(8) {
            case 0:
                let end = at + UInt64(random.below(60))
                let doomed = model.keys.filter { $0 >= at && $0 < end }
                expect(map.removePages(from: at, to: end, &memory.pool) == doomed.count)
                for index in doomed { model[index] = nil }
            case 1, 2: expect(map.page(at)?.load(as: UInt64.self) == model[at])
            default:
                guard let page = map.ensure(at, zeroed: true, &memory.pool) else {
                    Issue.record("memory is out")
                    return
                }
                expect(page.load(as: UInt64.self) == model[at] ?? 0)
                model[at] = random.next()
                page.storeBytes(of: model[at]!, as: UInt64.self)
                if let last = regions.last, at < last.pages { expect(page == last.base + Int(at) << 12) }
            }
            if let last = regions.last, at < last.pages { expect((last.base + Int(at) << 12).load(as: UInt64.self) == model[at] ?? 0) }
            expect(map.pageCount == UInt64(model.count))
        }
        map.removePages(from: 0, to: map.regionPages, &memory.pool)
        map.leaveRegion(&memory.pool)
        map.destroy(&memory.pool)
        memory.expectWhole()
    }
}
