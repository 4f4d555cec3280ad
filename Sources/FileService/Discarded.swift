// Pages of large files that were removed or emptied, on their way back to the pool.
//
// Why: giving back the pages of a file takes some 50 ns each, so a file of gigabytes would keep its server from all others
// for tenths of a second. Its page map is put aside in one step, and taken apart a portion at a time: a little with each
// request, more at each tick, and as needed before anybody is refused for want of space.
// Invariants: what is put aside is nobody's data any more; its pages count as free for everybody who asks; the queue is
// bounded, and what finds it full is given back at once.

import FileStorage

struct Discarded: ~Copyable {
    private let maps: UnsafeMutablePointer<PageMap>
    private static var capacity: Int { 256 }
    private var count = 0
    /// Data pages in the queue.
    private(set) var pages: UInt64 = 0

    init() { maps = .allocate(capacity: Discarded.capacity) }
    deinit { maps.deallocate() }

    var isEmpty: Bool { count == 0 }

    /// Takes all pages of a map, which is empty afterwards. False: there are few, or the queue is full.
    mutating func take(_ map: UnsafeMutablePointer<PageMap>) -> Bool {
        guard map.pointee.pageCount > Limits.pagesOfStep, count < Discarded.capacity else { return false }
        pages += map.pointee.pageCount
        (maps + count).initialize(to: map.pointee)
        count += 1
        map.pointee = PageMap()
        return true
    }

    /// Gives back about `limit` pages, of the map that came last.
    mutating func giveBack(_ limit: UInt64, _ pool: inout PagePool) {
        var left = limit
        while count > 0, left > 0 {
            let map = maps + (count - 1)
            guard let first = map.pointee.nextData(from: 0) else {
                count -= 1
                continue
            }
            let removed = UInt64(map.pointee.removePages(from: first, to: first + left, &pool))
            pages -= removed
            left -= min(max(removed, 1), left)
        }
    }
}

extension FileServer {
    /// All pages of a file go: at once if they are few.
    mutating func discardPages(_ inode: InodePointer) {
        // Pages that clients have mapped go at once: their memory is not the pool's.
        emptyRegion(inode)
        guard !discarded.take(inode.pageMap) else { return }
        inode.pageMap.pointee.destroy(&pool)
    }

    /// Before anybody is refused for want of space. True: some came back, and it is worth another try.
    mutating func reclaimDiscarded(_ wanted: UInt64) -> Bool {
        guard !discarded.isEmpty else { return false }
        discarded.giveBack(min(max(wanted, 256), Limits.pagesOfStep), &pool)
        return true
    }
}
