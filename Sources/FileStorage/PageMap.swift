// The data pages of one file: page index to page, sparse, up to files of 2^63 - 1 bytes.
//
// Role: a radix tree of 512-way nodes, each a page of the pool, like the page tables of a processor. Its height
// follows the largest index, so a file of one page is that page alone. Range removal and search are in
// PageMap+Ranges.swift.
// A file that clients map has its first pages in a region of shared memory instead of the pool (PageMap+Region.swift);
// the tree says of each whether it is there, as before.
// Layout: an entry is the address of a page in its high bits; the entry of a node also holds, in the low 12 bits that
// alignment leaves, how many entries of that node are in use (1...512).
// Invariants: a node has at least one entry in use; an empty map has height 0 and root 0; all zeros is an empty map.

public struct PageMap: BitwiseCopyable {
    /// Entry of the root: a data page if the height is 0, else a node.
    @usableFromInline var root: UInt = 0
    /// Data pages, without nodes.
    public internal(set) var pageCount: UInt64 = 0
    /// Levels of nodes, 0...6.
    @usableFromInline var height: UInt64 = 0
    /// Address of the region, and its pages: those with indices below this lie in it. 0: there is none.
    var region: UInt = 0
    public internal(set) var regionPages: UInt64 = 0

    /// Page indices are below this: 512 to the sixth. A file of 2^63 - 1 bytes needs 2^51.
    public static var indexLimit: UInt64 { 1 << 54 }
    @usableFromInline static var addressMask: UInt { ~UInt(0xfff) }

    @inlinable public init() {}

    @inlinable static func node(_ entry: UInt) -> UnsafeMutablePointer<UInt> {
        UnsafeMutablePointer(bitPattern: entry & addressMask).unsafelyUnwrapped
    }

    /// The page at an index; nil in a hole, or beyond the limit.
    @inlinable public func page(_ index: UInt64) -> UnsafeMutableRawPointer? {
        if index >> (9 &* height) != 0 { return nil }
        var entry = root
        var shift = 9 &* height
        while shift > 0 {
            if entry == 0 { return nil }
            shift &-= 9
            entry = PageMap.node(entry)[Int(truncatingIfNeeded: index >> shift) & 511]
        }
        return UnsafeMutableRawPointer(bitPattern: entry)
    }

    /// The page at an index, made if there is none. nil when out of credits or memory, or beyond the limit; the map is
    /// then as before. `zeroed` concerns a new page only.
    public mutating func ensure(_ index: UInt64, zeroed: Bool, _ pool: inout PagePool) -> UnsafeMutableRawPointer? {
        var isNew = false
        return ensure(index, zeroed: zeroed, isNew: &isNew, &pool)
    }

    /// As above; `isNew` tells whether the page was made.
    public mutating func ensure(
        _ index: UInt64, zeroed: Bool, isNew: inout Bool, _ pool: inout PagePool
    ) -> UnsafeMutableRawPointer? {
        isNew = false
        if let page = page(index) { return page }
        guard index < PageMap.indexLimit else { return nil }

        var needed: UInt64 = 0
        while index >> (9 &* needed) != 0 { needed += 1 }
        // Nodes put above the root, and nodes wanting on the way down.
        let growth = root == 0 || needed <= height ? 0 : needed - height
        let nodes: UInt64
        if root == 0 {
            nodes = needed
        } else if growth > 0 {
            nodes = growth + needed - 1
        } else {
            nodes = missingNodes(index)
        }
        // All that is needed is taken before anything changes.
        let isInRegion = index < regionPages
        if pool.lacks(Int(nodes) + (isInRegion ? 0 : 1)) { return nil }
        guard let page = isInRegion ? regionPage(index) : pool.allocate(zeroed: zeroed) else { return nil }
        var chain: UInt = 0
        for _ in 0..<nodes {
            guard let node = pool.allocate(zeroed: true) else {
                while chain != 0 { pool.release(PageMap.take(&chain)) }
                if !isInRegion { pool.release(page) }
                return nil
            }
            node.storeBytes(of: chain, as: UInt.self)
            chain = UInt(bitPattern: node)
        }

        if root == 0 { height = needed }
        for _ in 0..<growth {
            let node = PageMap.take(&chain)
            node.storeBytes(of: root, as: UInt.self)
            root = UInt(bitPattern: node) | 1
            height += 1
        }
        withUnsafeMutablePointer(to: &root) { root in
            var entry = root
            var shift = 9 &* height
            while shift > 0 {
                if entry.pointee == 0 { entry.pointee = UInt(bitPattern: PageMap.take(&chain)) }
                shift -= 9
                let child = PageMap.node(entry.pointee) + Int(index >> shift & 511)
                if child.pointee == 0 { entry.pointee += 1 }
                entry = child
            }
            entry.pointee = UInt(bitPattern: page)
        }
        pageCount += 1
        isNew = true
        return page
    }

    /// Gives back all pages.
    public mutating func destroy(_ pool: inout PagePool) {
        removePages(from: 0, to: PageMap.indexLimit, &pool)
    }

    /// Nodes that the path to an index inside the tree's range lacks.
    private func missingNodes(_ index: UInt64) -> UInt64 {
        var entry = root
        var level = height
        while level > 0 {
            if entry == 0 { return level }
            level -= 1
            entry = PageMap.node(entry)[Int(index >> (9 &* level) & 511)]
        }
        return 0
    }

    /// The first of a chain of zeroed pages that are linked by their first word; that word becomes zero again.
    private static func take(_ chain: inout UInt) -> UnsafeMutableRawPointer {
        let node = UnsafeMutableRawPointer(bitPattern: chain).unsafelyUnwrapped
        chain = node.load(as: UInt.self)
        node.storeBytes(of: 0, as: UInt.self)
        return node
    }
}
