// What a simulated client says and hears: a request as a value, and the reply that came for it.

public import CFosWire

/// A request of a client. Payload and bulk are copied into its channel.
public struct LoopCall {
    public var operation: UInt16
    public var flags: UInt16 = 0
    public var inode: UInt64
    public var payload: [UInt8]
    /// Bytes placed at `bulkOffset` of the channel's bulk area.
    public var bulk: [UInt8]
    public var bulkOffset: UInt32 = 0
    /// `bulk_length` of the header: bytes offered, or wanted.
    public var bulkLength: UInt32
    /// An inode whose reference is given back with the call, 0: none; and what it was for (enum fos_release_flag).
    public var given: UInt64 = 0
    public var givenFor: UInt16 = 0
    /// Acting user, for clients that may name one; nil: the client's own.
    public var actingAs: (uid: UInt32, gid: UInt32, pid: UInt32)?

    public init(_ operation: fos_operation, inode: UInt64 = 0, payload: [UInt8] = [], bulk: [UInt8] = [], room: Int? = nil) {
        self.operation = UInt16(operation.rawValue)
        self.inode = inode
        self.payload = payload
        self.bulk = bulk
        bulkLength = UInt32(room ?? bulk.count)
    }

    /// A payload of one fixed part, followed by names without NUL.
    public init<Fixed: BitwiseCopyable>(
        _ operation: fos_operation, inode: UInt64 = 0, _ fixed: Fixed, _ names: String..., bulk: [UInt8] = [], room: Int? = nil
    ) {
        self.init(operation, inode: inode, payload: loopBytes(of: fixed) + names.flatMap { Array($0.utf8) }, bulk: bulk, room: room)
    }

    /// A payload that is a name alone.
    public init(_ operation: fos_operation, inode: UInt64, name: String) {
        self.init(operation, inode: inode, payload: Array(name.utf8))
    }

    public func acting(uid: UInt32, gid: UInt32, pid: UInt32 = 1) -> LoopCall {
        var copy = self
        copy.actingAs = (uid, gid, pid)
        return copy
    }
    public func giving(_ inode: UInt64, for flags: fos_release_flag = FOS_RELEASE_READING) -> LoopCall {
        var copy = self
        copy.given = inode
        copy.givenFor = UInt16(flags.rawValue)
        return copy
    }
    public func flags(_ flags: Int) -> LoopCall {
        var copy = self
        copy.flags = UInt16(flags)
        return copy
    }
}

/// The bytes of a fixed part, as they lie in memory.
public func loopBytes<Fixed: BitwiseCopyable>(of fixed: Fixed) -> [UInt8] {
    withUnsafeBytes(of: fixed) { Array($0) }
}

public struct LoopReply {
    public let header: fos_message
    public let payload: [UInt8]
    /// The first `bulk_length` bytes of the bulk area at `bulk_offset` when the reply arrived.
    public let bulk: [UInt8]
    public var status: Int32 { header.status }

    /// The payload from `offset` as a fixed part; zeros where the payload is shorter.
    public func fixed<Fixed: BitwiseCopyable>(_ type: Fixed.Type = Fixed.self, at offset: Int = 0) -> Fixed {
        loopFixed(payload, at: offset)
    }
}

/// Reads a fixed part out of bytes; zeros where there are too few.
public func loopFixed<Fixed: BitwiseCopyable>(_ bytes: [UInt8], _ type: Fixed.Type = Fixed.self, at offset: Int = 0) -> Fixed {
    withUnsafeTemporaryAllocation(byteCount: MemoryLayout<Fixed>.size, alignment: MemoryLayout<Fixed>.alignment) { room in
        room.initializeMemory(as: UInt8.self, repeating: 0)
        if offset < bytes.count { room.copyBytes(from: bytes[offset..<min(bytes.count, offset + room.count)]) }
        return room.load(as: Fixed.self)
    }
}

/// A posted request: its client, channel and sequence.
public struct LoopTicket: Hashable, Sendable {
    public let client: UInt32
    public let channel: UInt32
    public let sequence: UInt32
}

/// Nothing is in flight any more and the reply has not come: a lost reply, or a request that waits (a lock).
public enum LoopStuck: Error, CustomStringConvertible {
    case noReply(operation: UInt16, seed: UInt64)
    case retriesWithoutEnd(operation: UInt16, status: Int32, seed: UInt64)
    case clientGone(operation: UInt16)

    public var description: String {
        switch self {
        case .noReply(let operation, let seed): "no reply to operation \(operation) and nothing in flight (seed \(seed))"
        case .retriesWithoutEnd(let operation, let status, let seed):
            "operation \(operation) is answered transport status \(status) without end (seed \(seed))"
        case .clientGone(let operation): "operation \(operation) of a client that is gone"
        }
    }
}
