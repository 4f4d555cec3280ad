// Pages of a file in a region of shared memory, which clients map for reading.
//
// Role: the region holds the file's first pages, each at its own place; which of them are there, the tree says. The whole
// region is paid for in credits when it is taken and until it is left, so its pages cost nothing when they come and go.
// Invariant: a page of the region that is not in the tree is zeros, so a hole reads as zeros in the region too.

extension PageMap {
    func regionPage(_ index: UInt64) -> UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: region + UInt(index) << 12) }

    /// Moves the first `pages` pages into a region of zeros, out of the pool or the region they are in, and pays for it.
    /// False, and nothing has changed: there are not credits enough.
    public mutating func enterRegion(_ base: UnsafeMutableRawPointer, pages: UInt64, _ pool: inout PagePool) -> Bool {
        var moving = 0
        var index = nextData(from: 0)
        while let here = index, here < pages {
            if here >= regionPages { moving += 1 }
            index = nextData(from: here + 1)
        }
        let refund = moving + Int(regionPages)
        if Int(pages) > refund, pool.lacks(Int(pages) - refund) { return false }
        precondition(pages >= regionPages, "a file moves into a smaller region")
        let held = region..<region + UInt(regionPages) << 12
        pool.charge(Int(pages))
        index = nextData(from: 0)
        while let here = index, here < pages {
            let target = base + Int(here) << 12
            replace(here, by: target, held, &pool)
            index = nextData(from: here + 1)
        }
        pool.refund(Int(regionPages))
        region = UInt(bitPattern: base)
        regionPages = pages
        return true
    }

    /// The region is given up. No page of it is in the tree any more.
    public mutating func leaveRegion(_ pool: inout PagePool) {
        precondition(nextData(from: 0).map { $0 >= regionPages } ?? true, "a region is left with pages in it")
        pool.refund(Int(regionPages))
        region = 0
        regionPages = 0
    }

    /// Copies a page to another place and points its entry there.
    private mutating func replace(_ index: UInt64, by target: UnsafeMutableRawPointer, _ held: Range<UInt>, _ pool: inout PagePool) {
        withUnsafeMutablePointer(to: &root) { root in
            var entry = root
            var shift = 9 &* height
            while shift > 0 {
                shift -= 9
                entry = PageMap.node(entry.pointee) + Int(index >> shift & 511)
            }
            guard let page = UnsafeMutableRawPointer(bitPattern: entry.pointee) else { preconditionFailure("a hole has no page to move") }
            target.copyMemory(from: page, byteCount: 4096)
            entry.pointee = UInt(bitPattern: target)
            // A region that is left keeps its bytes: who has mapped it may still be reading.
            if !held.contains(UInt(bitPattern: page)) { pool.release(page) }
        }
    }

    /// A page leaves the tree.
    static func giveBack(_ page: UnsafeMutableRawPointer, _ region: Range<UInt>, _ pool: inout PagePool) {
        if region.contains(UInt(bitPattern: page)) {
            page.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
        } else {
            pool.release(page)
        }
    }
}
