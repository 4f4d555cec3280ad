// What a memory server is told at start, and the numbers it works with.

import CFosWire

public struct MemoryOptions: Sendable {
    /// Bytes of regions for clients, in use or kept for them, that this member may have.
    public var limitBytes: Int
    /// Bytes that this member may grant to servers. What they use is bounded by their own rule (a mount's size limit, in
    /// credits); this is a backstop behind it, so that a server gone wrong is refused and does not take the machine's memory.
    public var serverLimitBytes = Int.max
    /// Bytes of each frame size that are kept zeroed and ready for any client, from the first request for such frames on.
    public var reserveBytes: Int
    /// What is free beyond the reserve goes back to Linux when nothing was asked for so long, ns.
    public var returnAfter: UInt64 = 1_000_000_000
    /// The reserve is filled again when nothing was asked for so long, ns; at once if it ran dry. New memory of Linux costs the
    /// machine as much as ten times its zeroing (a virtual one that gives free memory to its host, a hundred times), and who has
    /// just taken much is about to use it, and often to give it back: what comes back meanwhile need not be had anew.
    public var refillAfter: UInt64 = 2_000_000_000
    /// Bytes of a region, powers of two of at least 2 MiB if there are huge frames. Clients that have little get small ones.
    public var smallRegionBytes = 4 << 20
    public var largeRegionBytes = Int(FOS_MEMORY_REGION_BYTES_MAX)
    /// Bytes zeroed, or given back, in one step of an idle core.
    public var stepBytes = 2 << 20
    /// Bytes of small frames that one step gets from Linux, whose faults cost ten times the zeroing.
    public var populateBytes = 512 << 10
    /// Bytes zeroed within one request, for a client that wants more than there is: some hundreds of microseconds.
    public var requestBytes = 8 << 20
    /// Extents that servers ask for, of which one is kept ready for them.
    public var serverExtentBytes = 4 << 20

    public init(limitBytes: Int, reserveBytes: Int) {
        self.limitBytes = limitBytes
        self.reserveBytes = reserveBytes
    }

    /// Small regions of 64 KiB and large ones of 512 KiB in the small frame size, and steps to match: a short run of a test or of
    /// the simulator has many of all.
    public static func miniature(limitBytes: Int, reserveBytes: Int = 0) -> MemoryOptions {
        var options = MemoryOptions(limitBytes: limitBytes, reserveBytes: reserveBytes)
        options.refillAfter = 0
        options.smallRegionBytes = 64 << 10
        options.largeRegionBytes = 512 << 10
        options.stepBytes = 32 << 10
        options.populateBytes = 16 << 10
        options.requestBytes = 128 << 10
        options.serverExtentBytes = 64 << 10
        return options
    }
}

enum Limits {
    /// Regions of one server: each is a descriptor of the host's.
    static var regions: Int { 16384 }
    /// Requests that wait for peers.
    static var continuations: Int { 64 }
    /// Retired regions that one tick asks about, 5 us each, and ticks in a row that do so without any news.
    static var askedOfTick: Int { 16 }
    static var ticksAsking: Int { 300 }
    static var bytesMax: UInt64 { 1 << 47 }
    /// From so many bytes on a run is zeroed past the caches: half of the usual second-level cache.
    static var streamedBytes: Int { 256 << 10 }
    /// Forwards of one request.
    static var hops: UInt16 { 4 }
}

/// The two sizes of page frames.
enum FrameSize: Int, BitwiseCopyable {
    case small = 0
    case huge = 1

    init?(bytes: UInt32) {
        switch bytes {
        case UInt32(FOS_MEMORY_FRAME_BYTES): self = .small
        case UInt32(FOS_MEMORY_HUGE_FRAME_BYTES): self = .huge
        default: return nil
        }
    }
    var shift: Int { self == .small ? 12 : 21 }
    var bytes: Int { 1 << shift }
    static var all: [FrameSize] { [.small, .huge] }
}
