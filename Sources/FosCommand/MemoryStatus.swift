// What `fos status` and `.fos/memory` tell of the memory fleet.

import CFosWire

/// The frames of one size, of one server or all.
public struct FrameStatus: Sendable {
    public let frameBytes: UInt64
    public internal(set) var granted: UInt64 = 0
    public internal(set) var zeroed: UInt64 = 0
    public internal(set) var dirty: UInt64 = 0
    public internal(set) var absent: UInt64 = 0
    public internal(set) var retired: UInt64 = 0
    public internal(set) var zeroedEver: UInt64 = 0

    static func + (a: FrameStatus, b: FrameStatus) -> FrameStatus {
        var sum = a
        sum.granted &+= b.granted
        sum.zeroed &+= b.zeroed
        sum.dirty &+= b.dirty
        sum.absent &+= b.absent
        sum.retired &+= b.retired
        sum.zeroedEver &+= b.zeroedEver
        return sum
    }
}

public struct MemoryStatus: Sendable {
    public let member: UInt32
    public let limit: UInt64
    public let charged: UInt64
    /// Granted to other servers of the instance.
    public let servers: UInt64
    public let clients: UInt64
    public let hasHugeFrames: Bool
    /// 4 KiB, 2 MiB.
    public let frames: [FrameStatus]

    public init(_ s: fos_memory_statistics) {
        member = s.member
        limit = s.limit
        charged = s.charged
        servers = s.servers
        clients = UInt64(s.clients)
        hasHugeFrames = s.huge != 0
        frames = [(FOS_MEMORY_FRAME_BYTES, s.frames.0), (FOS_MEMORY_HUGE_FRAME_BYTES, s.frames.1)].map { bytes, frames in
            FrameStatus(
                frameBytes: UInt64(bytes), granted: frames.granted, zeroed: frames.zeroed, dirty: frames.dirty, absent: frames.absent,
                retired: frames.retired, zeroedEver: frames.zeroed_ever)
        }
    }

    private init(_ a: MemoryStatus, _ b: MemoryStatus) {
        member = a.member
        limit = a.limit &+ b.limit
        charged = a.charged &+ b.charged
        servers = a.servers &+ b.servers
        clients = max(a.clients, b.clients)
        hasHugeFrames = a.hasHugeFrames
        frames = zip(a.frames, b.frames).map { $0 + $1 }
    }

    /// Of a whole fleet; nil if it has no members.
    public static func sum(_ all: [MemoryStatus]) -> MemoryStatus? { all.dropFirst().reduce(all.first) { sum, next in sum.map { MemoryStatus($0, next) } } }

    /// "4 KiB and 2 MiB frames, 1.00 GiB granted, 64.0 MiB ready, of 6.00 GiB".
    public var text: String {
        let all = frames.reduce(0) { $0 &+ $1.granted }
        let granted = all - min(all, servers)
        let ready = frames.reduce(0) { $0 &+ $1.zeroed }
        return "\(hasHugeFrames ? "4 KiB and 2 MiB" : "4 KiB") frames, \(ByteSize(bytes: granted).text) granted to programs of "
            + "\(ByteSize(bytes: limit).text), \(ByteSize(bytes: servers).text) to servers, \(ByteSize(bytes: ready).text) ready"
    }

    var json: JSON {
        .object([
            ("limit_bytes", .number(limit)), ("charged_bytes", .number(charged)), ("servers_bytes", .number(servers)),
            ("huge_frames", .bool(hasHugeFrames)),
            ("frames", .array(frames.map { frame in
                .object([
                    ("frame_bytes", .number(frame.frameBytes)), ("granted_bytes", .number(frame.granted)), ("zeroed_bytes", .number(frame.zeroed)),
                    ("dirty_bytes", .number(frame.dirty)), ("absent_bytes", .number(frame.absent)), ("retired_bytes", .number(frame.retired)),
                ])
            })),
        ])
    }
}
