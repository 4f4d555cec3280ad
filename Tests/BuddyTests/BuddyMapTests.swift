// The buddy system against a plain model: a set of frames.

import Buddy
import Testing

@Suite struct BuddyMapTests {
    /// Free blocks as the map lists them: no overlap, aligned, and no two free buddies apart.
    private func check(_ map: BuddyMap, _ model: Set<Int>, span: Int) {
        var seen = Set<Int>()
        var blocks = Set<[Int]>()
        map.forEachBlock { frame, order in
            #expect(frame % (1 << order) == 0)
            for each in frame..<frame + 1 << order { #expect(seen.insert(each).inserted, "frame \(each) is in two blocks") }
            blocks.insert([order, frame >> order])
        }
        #expect(seen == model)
        #expect(map.freeFrames == model.count)
        for block in blocks where block[0] < Int(map.maximumOrder) { #expect(!blocks.contains([block[0], block[1] ^ 1]), "buddies apart") }
        #expect(map.largestOrder == blocks.map { $0[0] }.max())
    }

    @Test(arguments: [(0, 0), (3, 3), (5, 5), (6, 6), (7, 3), (10, 9), (14, 14)])
    func randomUseAgreesWithTheModel(_ shape: (span: Int, maximumOrder: Int)) {
        let seed = UInt64.random(in: 0...UInt64.max)
        var state = seed
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let bytes = BuddyMap.bytes(span: shape.span, maximumOrder: shape.maximumOrder)
        let room = UnsafeMutableRawPointer.allocate(byteCount: bytes + 64, alignment: 8)
        room.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        (room + bytes).initializeMemory(as: UInt8.self, repeating: 0x5a, count: 64)
        defer { room.deallocate() }
        let map = BuddyMap(at: room, span: shape.span, maximumOrder: shape.maximumOrder)
        let frames = 1 << shape.span
        map.release(0..<frames)
        var free = Set(0..<frames)
        var taken: [Range<Int>] = []
        for step in 0..<2000 {
            if random(2) == 0 {
                let order = random(shape.maximumOrder + 1)
                if let frame = map.allocate(order: order) {
                    for each in frame..<frame + 1 << order { #expect(free.remove(each) != nil, "seed \(seed): frame \(each) taken twice") }
                    taken.append(frame..<frame + 1 << order)
                } else {
                    #expect(map.largestOrder.map { $0 < order } ?? true, "seed \(seed): a block was there")
                }
            } else if !taken.isEmpty {
                // A part of what was taken, to its end or from its start.
                let index = random(taken.count)
                let whole = taken.remove(at: index)
                let cut = whole.lowerBound + random(whole.count + 1)
                let (given, kept) =
                    random(2) == 0 ? (whole.lowerBound..<cut, cut..<whole.upperBound) : (cut..<whole.upperBound, whole.lowerBound..<cut)
                map.release(given)
                free.formUnion(given)
                if !kept.isEmpty { taken.append(kept) }
            }
            if step % 100 == 0 { check(map, free, span: shape.span) }
        }
        for range in taken { map.release(range) }
        check(map, Set(0..<frames), span: shape.span)
        var blocks = 0
        map.forEachBlock { _, _ in blocks += 1 }
        #expect(blocks == frames >> min(shape.maximumOrder, shape.span), "seed \(seed): all of it joins")
        for offset in 0..<64 { #expect(room.load(fromByteOffset: bytes + offset, as: UInt8.self) == 0x5a) }
    }
}
