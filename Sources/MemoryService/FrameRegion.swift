// A region: page frames of one size in one piece of the host's memory, and what each of them is.
//
// Role: the unit in which frames come from the host, belong to a client, and move between servers. What is known of it
// lies outside of it: clients can write to all of a region that they have.
// Invariants: a frame is granted, or in exactly one of three buddy maps: zeroed (present, all zeros), dirty (present,
// may hold anything), absent (the host has it, and it is zeros when it comes). Only a bound region or one for servers has
// granted frames, and a retired one, whose frames count as granted until nobody has it.

import Buddy
import CFosWire
import CPlatform
import Glibc
import Messaging

typealias RegionPointer = UnsafeMutablePointer<FrameRegion>

struct RegionLinks: BitwiseCopyable {
    var next: RegionPointer? = nil
    var previous: RegionPointer? = nil
}

struct FrameRegion: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        /// No client has ever had its descriptor, or none has it any more.
        case unbound
        case bound
        /// Out of a client's hands, and maybe still mapped.
        case retired
        /// For servers; no client can have it.
        case servers
    }

    var memory: SharedRegion
    var token: UInt64
    var state: State
    let size: FrameSize
    /// Whose it is, if bound.
    var client: UInt32 = UInt32.max
    /// In the list of what it is: a client's, unbound, retired, for servers.
    var home = RegionLinks()
    /// In the list of regions with dirty frames.
    var work = RegionLinks()
    var isInWork = false
    var granted = 0

    let zeroed: BuddyMap
    let dirty: BuddyMap
    let absent: BuddyMap
    /// A bit for each frame that is granted.
    private let grants: UnsafeMutablePointer<UInt64>

    var frames: Int { memory.bytes >> size.shift }
    var isWhollyZeroed: Bool { zeroed.freeFrames == frames }

    /// Knowledge of a region whose frames are all absent, or all zeroed.
    static func make(_ memory: SharedRegion, token: UInt64, size: FrameSize, state: State, isZeroed: Bool) -> RegionPointer {
        let frames = memory.bytes >> size.shift
        let span = frames.trailingZeroBitCount
        let mapBytes = BuddyMap.bytes(span: span, maximumOrder: span)
        let head = (MemoryLayout<FrameRegion>.stride + 15) & ~15
        let words = (frames + 63) / 64
        let bytes = head + 3 * mapBytes + words * 8
        let room = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 16)
        room.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        func map(_ number: Int) -> BuddyMap { BuddyMap(at: room + head + number * mapBytes, span: span, maximumOrder: span) }
        let region = room.bindMemory(to: FrameRegion.self, capacity: 1)
        region.initialize(
            to: FrameRegion(
                memory: memory, token: token, state: state, size: size, zeroed: map(0), dirty: map(1), absent: map(2),
                grants: (room + head + 3 * mapBytes).bindMemory(to: UInt64.self, capacity: words)))
        (isZeroed ? region.pointee.zeroed : region.pointee.absent).release(0..<frames)
        return region
    }

    /// Forgets a region; its memory is the caller's to drop.
    static func forget(_ region: RegionPointer) { UnsafeMutableRawPointer(region).deallocate() }

    // MARK: Grants

    mutating func grant(_ frames: Range<Int>) {
        mark(frames, granted: true)
        granted += frames.count
    }

    /// Whether all of some frames are granted.
    func isGranted(_ frames: Range<Int>) -> Bool {
        var isGranted = true
        FrameRegion.forEachWord(frames) { word, bits in if grants[word] & bits != bits { isGranted = false } }
        return isGranted
    }

    /// Frames that are granted come back.
    mutating func free(_ frames: Range<Int>) {
        mark(frames, granted: false)
        granted -= frames.count
        dirty.release(frames)
    }

    /// All that is granted comes back: whoever had the region is gone.
    mutating func freeAll() {
        var frame = 0
        while frame < frames, granted > 0 {
            let bits = grants[frame >> 6] >> UInt64(frame & 63)
            if bits & 1 == 0 {
                frame += bits == 0 ? 64 - frame & 63 : bits.trailingZeroBitCount
                continue
            }
            let first = frame
            while frame < frames, grants[frame >> 6] & 1 << UInt64(frame & 63) != 0 { frame += 1 }
            free(first..<frame)
        }
    }

    /// Nothing is believed to be zero any more: whoever had the descriptor could write to all of the region, not only to what
    /// it was granted. Frames that were zeroed are zeroed again, absent ones are given back once more.
    func distrust<K: Kernel>(_ kernel: K) {
        while let run = zeroed.take(upTo: frames) { dirty.release(run) }
        absent.forEachBlock { frame, order in
            kernel.discard(memory, offset: frame << size.shift, bytes: (1 << order) << size.shift)
        }
    }

    private func mark(_ frames: Range<Int>, granted: Bool) {
        FrameRegion.forEachWord(frames) { word, bits in
            if granted { grants[word] |= bits } else { grants[word] &= ~bits }
        }
    }

    private static func forEachWord(_ frames: Range<Int>, _ body: (Int, UInt64) -> Void) {
        var frame = frames.lowerBound
        while frame < frames.upperBound {
            let count = min(64 - frame & 63, frames.upperBound - frame)
            let ones = count == 64 ? UInt64.max : 1 << UInt64(count) - 1
            body(frame >> 6, ones << UInt64(frame & 63))
            frame += count
        }
    }

    // MARK: Zeroing, and back to the host

    /// Zeroes at most so many frames, dirty ones before absent ones (which come as zeros). How many it were.
    func makeZeroed<K: Kernel>(upTo count: Int, _ kernel: K) -> Int {
        var done = zeroDirty(upTo: count)
        while done < count, let run = absent.take(upTo: count - done) {
            populate(run, kernel)
            zeroed.release(run)
            done += run.count
        }
        return done
    }

    func zeroDirty(upTo count: Int) -> Int {
        var done = 0
        while done < count, let run = dirty.take(upTo: count - done) {
            clear(run)
            zeroed.release(run)
            done += run.count
        }
        return done
    }

    /// A long run goes past the caches, which it would not fit in; a short one may be written to at once.
    func clear(_ run: Range<Int>) {
        let (start, bytes) = (memory.base + run.lowerBound << size.shift, run.count << size.shift)
        if bytes >= Limits.streamedBytes { fos_platform_zero(start, bytes) } else { memset(start, 0, bytes) }
    }
    func populate<K: Kernel>(_ run: Range<Int>, _ kernel: K) {
        kernel.populate(memory, offset: run.lowerBound << size.shift, bytes: run.count << size.shift)
    }

    /// Gives at most so many free frames back to the host. How many it were.
    func giveBack<K: Kernel>(upTo count: Int, _ kernel: K) -> Int {
        var done = 0
        while done < count, let run = dirty.take(upTo: count - done) ?? zeroed.take(upTo: count - done) {
            kernel.discard(memory, offset: run.lowerBound << size.shift, bytes: run.count << size.shift)
            absent.release(run)
            done += run.count
        }
        return done
    }
}

/// A list of regions, linked through them; first in, first out.
struct RegionList: BitwiseCopyable {
    private(set) var first: RegionPointer? = nil
    private(set) var last: RegionPointer? = nil
    /// Links through `FrameRegion.work` instead of `home`.
    private let isWork: Bool

    init(work: Bool = false) { isWork = work }

    private func links(_ region: RegionPointer) -> UnsafeMutablePointer<RegionLinks> {
        let offset = isWork ? MemoryLayout<FrameRegion>.offset(of: \.work) : MemoryLayout<FrameRegion>.offset(of: \.home)
        return (UnsafeMutableRawPointer(region) + offset.unsafelyUnwrapped).assumingMemoryBound(to: RegionLinks.self)
    }

    func next(_ region: RegionPointer) -> RegionPointer? { links(region).pointee.next }

    mutating func append(_ region: RegionPointer) {
        links(region).pointee = RegionLinks(next: nil, previous: last)
        if let last { links(last).pointee.next = region } else { first = region }
        last = region
    }

    mutating func remove(_ region: RegionPointer) {
        let around = links(region).pointee
        if let next = around.next { links(next).pointee.previous = around.previous } else { last = around.previous }
        if let previous = around.previous { links(previous).pointee.next = around.next } else { first = around.next }
        links(region).pointee = RegionLinks()
    }
}
