// The binary buddy system over frames that are named by number: which blocks of 1, 2, 4, ... frames are free.
//
// Role: the bookkeeping of every region that is handed out in blocks (pages of the file servers, extents of the memory
// servers). Knuth, The Art of Computer Programming, volume 1, section 2.5. The free blocks of each order are a bitmap
// rather than lists threaded through the blocks, so a free frame is never touched.
// Protocol: the memory of the map is its owner's; a fresh map has nothing free. A block of an order is aligned to its size.
// Invariants: a frame is in at most one free block; two free buddies below the largest order are one block.

public struct BuddyMap: BitwiseCopyable {
    private let storage: UnsafeMutableRawPointer
    /// Frames are numbered from 0 to `1 << span` - 1.
    private let span: UInt8
    public let maximumOrder: UInt8

    /// A map over memory of `bytes(span:maximumOrder:)` bytes, aligned to 8, that holds zeros or an earlier map's content.
    @inlinable public init(at storage: UnsafeMutableRawPointer, span: Int, maximumOrder: Int) {
        self.init(storage: storage, span: UInt8(span), maximumOrder: UInt8(min(maximumOrder, span)))
    }
    @usableFromInline init(storage: UnsafeMutableRawPointer, span: UInt8, maximumOrder: UInt8) {
        self.storage = storage
        self.span = span
        self.maximumOrder = maximumOrder
    }

    /// Head: free frames, a bit for each order that has blocks, and the first word of each order that may have a bit.
    private struct Head: BitwiseCopyable {
        var free: UInt32
        var orders: UInt32
    }
    private static var headBytes: Int { 8 + 32 * 4 }

    /// Bytes of memory that a map takes.
    public static func bytes(span: Int, maximumOrder: Int) -> Int {
        (0...min(maximumOrder, span)).reduce(headBytes) { $0 + max(8, (1 << (span - $1)) / 8) }
    }

    private var head: UnsafeMutablePointer<Head> { storage.assumingMemoryBound(to: Head.self) }
    /// No word of an order's bitmap below its hint has a bit.
    private var hints: UnsafeMutablePointer<UInt32> { (storage + 8).assumingMemoryBound(to: UInt32.self) }
    private func words(_ order: Int) -> Int { Swift.max(1, (1 << (Int(span) - order)) / 64) }
    private func bitmap(_ order: Int) -> UnsafeMutablePointer<UInt64> {
        // Orders with at least 64 blocks halve from one to the next; the others have a word each.
        let full = (1 << Int(span)) >> 6
        var offset = 0
        if full > 0 {
            let halving = Swift.min(order, Int(span) - 6)
            offset = 2 * full - (2 * full >> halving)
            offset += Swift.max(0, order - (Int(span) - 6 + 1)) + (order > Int(span) - 6 ? 1 : 0)
        } else {
            offset = order
        }
        return (storage + BuddyMap.headBytes).assumingMemoryBound(to: UInt64.self) + offset
    }

    /// Frames that are free.
    public var freeFrames: Int { Int(head.pointee.free) }
    /// The largest order of a free block; nil if none is.
    public var largestOrder: Int? { head.pointee.orders == 0 ? nil : 31 - head.pointee.orders.leadingZeroBitCount }

    private func set(_ order: Int, _ block: Int) {
        let word = block >> 6
        bitmap(order)[word] |= 1 << UInt64(block & 63)
        if head.pointee.orders & 1 << UInt32(order) == 0 || word < Int(hints[order]) { hints[order] = UInt32(word) }
        head.pointee.orders |= 1 << UInt32(order)
    }

    private func clear(_ order: Int, _ block: Int) {
        let map = bitmap(order)
        map[block >> 6] &= ~(1 << UInt64(block & 63))
        // The hint moves on to the next word with a block; without one the order has none.
        let count = words(order)
        var word = Int(hints[order])
        while word < count, map[word] == 0 { word += 1 }
        hints[order] = UInt32(word)
        if word == count { head.pointee.orders &= ~(1 << UInt32(order)) }
    }

    private func has(_ order: Int, _ block: Int) -> Bool { bitmap(order)[block >> 6] & 1 << UInt64(block & 63) != 0 }

    /// Takes a block of `1 << order` frames: the lowest of the smallest order that has one. The number of its first frame.
    public func allocate(order: Int) -> Int? {
        let candidates = head.pointee.orders >> UInt32(order)
        guard candidates != 0 else { return nil }
        var from = order + candidates.trailingZeroBitCount
        let word = Int(hints[from])
        var block = word << 6 + bitmap(from)[word].trailingZeroBitCount
        clear(from, block)
        while from > order {
            from -= 1
            block <<= 1
            set(from, block + 1)
        }
        head.pointee.free -= 1 << UInt32(order)
        return block << order
    }

    /// Takes a run of at most `wanted` frames: all of them if a block is that large, else the largest block. nil: none is free.
    public func take(upTo wanted: Int) -> Range<Int>? {
        guard wanted > 0, let largest = largestOrder else { return nil }
        let order = wanted == 1 ? 0 : Int.bitWidth - (wanted - 1).leadingZeroBitCount
        guard order <= largest, let frame = allocate(order: order) else {
            return allocate(order: largest).map { $0..<$0 + 1 << largest }
        }
        if wanted < 1 << order { release(frame + wanted..<frame + 1 << order) }
        return frame..<frame + wanted
    }

    /// Makes a block free, and joins it with its free buddies. It is a mistake if it is free already.
    public func release(_ frame: Int, order: Int) {
        precondition(frame >= 0 && frame & (1 << order - 1) == 0 && frame >> Int(span) == 0, "a block is a block of the map")
        var order = order
        var block = frame >> order
        precondition(!has(order, block), "a block is released once")
        head.pointee.free += 1 << UInt32(order)
        while order < Int(maximumOrder), has(order, block ^ 1) {
            clear(order, block ^ 1)
            block >>= 1
            order += 1
        }
        set(order, block)
    }

    /// Makes a run of frames free, in the fewest blocks.
    public func release(_ frames: Range<Int>) {
        var frame = frames.lowerBound
        while frame < frames.upperBound {
            let aligned = frame == 0 ? Int(maximumOrder) : Swift.min(frame.trailingZeroBitCount, Int(maximumOrder))
            let fits = Int.bitWidth - 1 - (frames.upperBound - frame).leadingZeroBitCount
            let order = Swift.min(aligned, fits)
            release(frame, order: order)
            frame += 1 << order
        }
    }

    /// Calls `body` with the first frame and order of each free block.
    public func forEachBlock(_ body: (_ frame: Int, _ order: Int) -> Void) {
        for order in 0...Int(maximumOrder) where head.pointee.orders & 1 << UInt32(order) != 0 {
            let map = bitmap(order)
            for word in 0..<words(order) {
                var bits = map[word]
                while bits != 0 {
                    body((word << 6 + bits.trailingZeroBitCount) << order, order)
                    bits &= bits - 1
                }
            }
        }
    }
}
