// ProxyTransport: messages to a live instance through the message proxy library.
//
// Role: the same contract over the real microkernel: pinned threads, shared memory, parking. The client is an ordinary
// one (root's), without the front end's rights, so it acts as itself alone and the file servers check it.

import CFosProxy
import CFosWire
import Glibc
import FosCommand
import Instance
import Synchronization

final class ProxyTransport: MessageTransport {
    let name: String
    let features: Features = [
        .handlesKeepRights, .temporaryFiles, .zeroRange, .extendedAttributes, .locks, .pageBlocks, .exactAccessTime, .refusesCollapse,
    ]
    private let host: FleetHost
    private let client: UnsafeMutablePointer<fos_client>
    private let channel: Int32
    private let resizer: Resizer?

    /// An instance of its own in this process.
    /// - Parameters:
    ///   - cpus: of its cores; -1: a core that is not pinned.
    ///   - resizes: the file fleet grows and shrinks all the time.
    ///   - shards: entries from which on directories are sharded; nil: never.
    init(cpus: [Int], resizes: Bool = false, shards: Int? = contractShards) throws {
        name = "a live instance of \(cpus.count) cores"
        host = try FleetHost(
            name: "contract-\(getpid())-\(cpus.count)", cpus: cpus, sizeBytes: 2 << 30, servers: resizes ? 2...5 : nil,
            shards: shards, listens: false)
        try host.start()
        if resizes { resizer = Resizer(try InstanceClient(socket: host.connect())) } else { resizer = nil }
        client = .allocate(capacity: 1)
        client.initialize(to: fos_client())
        let status = fos_client_attach(client, try host.connect(), 2, 0)
        guard status == 0 else {
            host.stop()
            throw Errno(-status)
        }
        channel = fos_channel_acquire(client)
        precondition(channel >= 0, "a new client has no channel")
    }
    /// Disconnects and ends the instance.
    func stop() {
        resizer?.stop()
        fos_client_disconnect(client)
        host.stop()
    }

    func letTimePass() { usleep(1_000) }

    func call(
        _ operation: fos_operation, inode: UInt64, flags: UInt16, payload: [UInt8], bulk: [UInt8], room: Int, user: User
    ) throws(Errno) -> MessageReply {
        precondition(user == .root, "this client acts as itself alone")
        guard let request = fos_request(client, channel, UInt16(operation.rawValue), inode), let area = fos_bulk(client, channel) else {
            throw Errno(ENOTCONN)
        }
        request.pointee.flags = flags
        request.pointee.length = UInt32(payload.count)
        request.pointee.bulk_length = UInt32(max(room, bulk.count))
        payload.withUnsafeBytes { if let base = $0.baseAddress { fos_payload(request).copyMemory(from: base, byteCount: $0.count) } }
        bulk.withUnsafeBytes { if let base = $0.baseAddress { UnsafeMutableRawPointer(area).copyMemory(from: base, byteCount: $0.count) } }
        let status = fos_call(client, channel)
        guard status >= 0, let reply = fos_reply(client, channel) else { throw Errno(-status) }
        let length = min(Int(reply.pointee.length), Int(FOS_PAYLOAD_BYTES_MAX))
        let count = room > 0 ? min(Int(reply.pointee.bulk_length), room) : 0
        return MessageReply(
            header: reply.pointee, payload: Array(UnsafeRawBufferPointer(start: fos_payload_const(reply), count: length)),
            bulk: Array(UnsafeBufferPointer(start: area, count: count)))
    }
}

/// A thread that changes the size of an instance's file fleet until it is stopped.
final class Resizer: @unchecked Sendable {
    private let client: InstanceClient
    private let isStopping = Atomic(false)
    private var thread = pthread_t()
    /// Changes that came to their end, and what went wrong.
    private(set) var changes = 0
    private(set) var failure: String?

    init(_ client: InstanceClient) {
        self.client = client
        pthread_create(&thread, nil, { raw in
            Unmanaged<Resizer>.fromOpaque(raw!).takeUnretainedValue().run()
            return nil
        }, Unmanaged.passUnretained(self).toOpaque())
    }

    private func run() {
        while !isStopping.load(ordering: .relaxed) {
            for size in [5, 1, 3, 2, 4] {
                do throws(CommandFailure) {
                    try client.setFleet(members: size)
                    while try client.fleet().isChanging { usleep(500) }
                    changes += 1
                } catch {
                    failure = error.description
                    return
                }
            }
        }
    }

    func stop() {
        isStopping.store(true, ordering: .relaxed)
        pthread_join(thread, nil)
        precondition(failure == nil && changes > 0, "the fleet does not change its size: \(failure ?? "never")")
    }
}
