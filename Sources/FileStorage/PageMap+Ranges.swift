// Ranges of a page map: removal of pages, and the search for the next page or the next hole.
//
// All three skip what is absent a subtree at a time, so a hole costs no more than the height of the tree; a stretch
// without holes costs one look for every 512 pages, since the entry of a lowest node says whether it is full.

extension PageMap {
    /// Removes the pages with indices in [from, to), and the nodes that become empty. Returns the number of data
    /// pages removed. Any values are safe.
    @discardableResult
    public mutating func removePages(from: UInt64, to: UInt64, _ pool: inout PagePool) -> Int {
        let limit = min(to, PageMap.indexLimit)
        let reach = UInt64(1) << (9 &* height)  // height is at most 6
        guard from < limit, from < reach, root != 0 else { return 0 }
        let held = region..<region + UInt(regionPages) << 12
        let removed = PageMap.remove(&root, level: height, from, min(limit, reach) - 1, held, &pool)
        pageCount -= UInt64(removed)
        // A file cut short becomes as low a tree as it would have been from the start.
        while height > 0, root != 0, root & 0xfff == 1, PageMap.node(root)[0] != 0 {
            let node = PageMap.node(root)
            root = node[0]
            height -= 1
            pool.release(node)
        }
        if root == 0 { height = 0 }
        return removed
    }

    /// Removes [first, last], relative to the subtree of `entry`.
    private static func remove(
        _ entry: inout UInt, level: UInt64, _ first: UInt64, _ last: UInt64, _ region: Range<UInt>, _ pool: inout PagePool
    ) -> Int {
        if level == 0 {
            PageMap.giveBack(UnsafeMutableRawPointer(bitPattern: entry).unsafelyUnwrapped, region, &pool)
            entry = 0
            return 1
        }
        let node = PageMap.node(entry)
        let shift = 9 &* (level - 1)
        let below: UInt64 = 1 << shift - 1
        var removed = 0
        for index in first >> shift...last >> shift where node[Int(index)] != 0 {
            let from = index == first >> shift ? first & below : 0
            let to = index == last >> shift ? last & below : below
            removed += remove(&node[Int(index)], level: level - 1, from, to, region, &pool)
            if node[Int(index)] == 0 {
                entry -= 1
                if entry & 0xfff == 0 {
                    pool.release(node)
                    entry = 0
                    break
                }
            }
        }
        return removed
    }

    /// The smallest index of a page at or after `from`; nil if there is none.
    public func nextData(from: UInt64) -> UInt64? {
        guard root != 0, from >> (9 &* height) == 0 else { return nil }
        return PageMap.data(root, level: height, from)
    }

    private static func data(_ entry: UInt, level: UInt64, _ from: UInt64) -> UInt64? {
        if level == 0 { return 0 }
        let node = PageMap.node(entry)
        let shift = 9 &* (level - 1)
        let first = from >> shift
        for index in first..<512 where node[Int(index)] != 0 {
            // Every subtree has a page, so at most the first one searched is left without a result.
            let start = index == first ? from & (1 << shift - 1) : 0
            if let found = data(node[Int(index)], level: level - 1, start) { return index << shift + found }
        }
        return nil
    }

    /// The smallest index without a page at or after `from`. There is always one: everything beyond the last page.
    public func nextHole(from: UInt64) -> UInt64 {
        guard root != 0, from >> (9 &* height) == 0 else { return from }
        return PageMap.hole(root, level: height, from) ?? 1 << (9 &* height)
    }

    private static func hole(_ entry: UInt, level: UInt64, _ from: UInt64) -> UInt64? {
        if entry == 0 { return from }
        if level == 0 || level == 1 && entry & 0xfff == 512 { return nil }
        let node = PageMap.node(entry)
        let shift = 9 &* (level - 1)
        let first = from >> shift
        for index in first..<512 {
            let start = index == first ? from & (1 << shift - 1) : 0
            if let found = hole(node[Int(index)], level: level - 1, start) { return index << shift + found }
        }
        return nil
    }
}
