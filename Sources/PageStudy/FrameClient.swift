// A client of the memory fleet: extents by message, regions by descriptor (fos/memory.h).

import CFosProxy
import CFosWire
import CPlatform
import Glibc

public final class FrameClient {
    private let client: UnsafeMutablePointer<fos_client>
    private let channel: Int32
    /// Descriptors of regions, by token.
    private var regions: [UInt64: Int32] = [:]
    private var extents: [fos_memory_extent] = []
    private static let fleet = "/sys/memory"

    public init(uid: UInt32, name: String) throws {
        client = .allocate(capacity: 1)
        memset(client, 0, MemoryLayout<fos_client>.size)
        let connected = fos_client_connect(client, uid_t(uid), name, 1, 0)
        guard connected == 0 else {
            client.deallocate()
            throw StudyError("cannot connect to '\(name)': \(String(cString: strerror(-connected)))")
        }
        channel = fos_channel_acquire(client)
    }

    deinit {
        for descriptor in regions.values { close(descriptor) }
        fos_client_disconnect(client)
        client.deallocate()
    }

    private func call<Fixed: BitwiseCopyable>(
        _ operation: fos_operation, token: UInt64 = 0, _ fixed: Fixed, _ list: [fos_memory_extent] = [], to member: fos_name_member? = nil
    ) throws -> UnsafePointer<fos_message> {
        var status = -ENOTCONN
        if let request = fos_request(client, channel, UInt16(operation.rawValue), token) {
            let body = UnsafeMutableRawPointer(request) + MemoryLayout<fos_message>.size
            body.storeBytes(of: fixed, as: Fixed.self)
            var length = MemoryLayout<Fixed>.size
            for extent in list {
                (body + length).storeBytes(of: extent, as: fos_memory_extent.self)
                length += MemoryLayout<fos_memory_extent>.size
            }
            request.pointee.length = UInt32(length)
            status = member.map { fos_call_mailbox(client, channel, $0.mailbox, $0.epoch) } ?? fos_call_name(client, channel, Self.fleet)
        }
        guard status >= 0, let reply = fos_reply(client, channel) else {
            throw StudyError("operation \(operation.rawValue) of the memory fleet: \(String(cString: strerror(-status)))")
        }
        return reply
    }

    private func body<Value: BitwiseCopyable>(_ reply: UnsafePointer<fos_message>, at offset: Int = 0) -> Value {
        (UnsafeRawPointer(reply) + MemoryLayout<fos_message>.size + offset).loadUnaligned(as: Value.self)
    }

    /// At least a frame, at most what is asked.
    public func allocate(_ bytes: Int, frameBytes: Int) throws -> [fos_memory_extent] {
        let reply = try call(FOS_OP_MEMORY_ALLOCATE, fos_memory_request(bytes: UInt64(bytes), frame_bytes: UInt32(frameBytes), reserved: 0))
        let grant: fos_memory_grant = body(reply)
        var granted: [fos_memory_extent] = []
        for index in 0..<min(Int(grant.extents), Int(FOS_MEMORY_EXTENTS_MAX)) {
            granted.append(body(reply, at: MemoryLayout<fos_memory_grant>.size + index * MemoryLayout<fos_memory_extent>.size))
        }
        for _ in 0..<grant.regions {
            var packet = fos_map_packet()
            var descriptor: Int32 = -1
            guard fos_packet_receive(client, &packet, &descriptor) == 0 else { throw StudyError("a region's descriptor did not come") }
            regions[packet.token] = descriptor
        }
        extents += granted
        return granted
    }

    public func map(_ extent: fos_memory_extent, at address: UnsafeMutableRawPointer, populate: Bool) throws {
        guard let descriptor = regions[extent.token] else { throw StudyError("an extent of a region whose descriptor did not come") }
        let flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0)
        guard mmap(address, Int(extent.bytes), PROT_READ | PROT_WRITE, flags, descriptor, off_t(extent.offset)) != MAP_FAILED else {
            throw StudyError("mmap of an extent: \(String(cString: strerror(errno)))")
        }
    }

    /// Gives back all that was allocated and is not mapped any more.
    public func freeAll() throws {
        let members = Dictionary(grouping: extents) { fos_memory_token_member($0.token) }
        for list in members.values {
            for start in stride(from: 0, to: list.count, by: Int(FOS_MEMORY_EXTENTS_MAX)) {
                let part = Array(list[start..<min(list.count, start + Int(FOS_MEMORY_EXTENTS_MAX))])
                _ = try call(FOS_OP_MEMORY_FREE, token: part[0].token, fos_memory_free(extents: UInt32(part.count), reserved: 0), part)
            }
        }
        extents = []
    }

    /// Lets go of every region.
    public func retireAll() throws {
        for descriptor in regions.values { close(descriptor) }
        regions = [:]
        extents = []
        _ = try call(FOS_OP_MEMORY_RETIRE, UInt64(0))
    }

    // MARK: For the study itself

    public func members() throws -> [fos_name_member] {
        var members = [fos_name_member](repeating: fos_name_member(), count: Int(FOS_PROXY_MEMBERS))
        let count = fos_lookup(client, channel, Self.fleet, &members, Int32(members.count), 0)
        guard count > 0 else { throw StudyError("the instance has no memory fleet") }
        return Array(members.prefix(Int(count)))
    }

    public func statistics() throws -> [fos_memory_statistics] {
        try members().map { body(try call(FOS_OP_MEMORY_STATISTICS, UInt64(0), to: $0)) }
    }

    /// Has every member keep its share of so many bytes ready.
    public func setReserve(_ bytes: Int, frameBytes: Int) throws {
        let all = try members()
        for member in all {
            _ = try call(
                FOS_OP_MEMORY_RESERVE, fos_memory_reserve(bytes: UInt64(bytes / all.count), frame_bytes: UInt32(frameBytes), reserved: 0),
                to: member)
        }
    }

    public func zeroedEver() throws -> UInt64 {
        try statistics().reduce(0) { $0 &+ $1.frames.0.zeroed_ever &+ $1.frames.1.zeroed_ever }
    }
}
