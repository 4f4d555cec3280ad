// A running instance for tests, and clients of it through the message proxy.

import CFosProxy
import CFosWire
import CPlatform
import Glibc
import Messaging
import Testing

@testable import Microkernel

/// A client over the message proxy, attached by a socketpair.
final class TestClient: @unchecked Sendable {
    let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
    private var connected = false

    init(_ kernel: Microkernel, channels: UInt32 = 16, flags: UInt32 = 0) throws {
        client.initialize(to: fos_client())
        var ends: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0)
        kernel.attach(socket: ends[1])
        let result = fos_client_attach(client, ends[0], channels, flags)
        try #require(result == 0)
        connected = true
    }

    func disconnect() {
        if connected { fos_client_disconnect(client) }
        connected = false
    }

    deinit {
        disconnect()
        client.deallocate()
    }

    func channel() -> Int32 { fos_channel_acquire(client) }

    /// Builds a request with `words` as payload.
    func build(_ channel: Int32, _ operation: UInt16, inode: UInt64 = 0, words: [UInt32] = []) {
        let message = fos_request(client, channel, operation, inode)!
        message.pointee.length = UInt32(words.count * 4)
        let payload = UnsafeMutableRawPointer(message + 1)
        for (index, word) in words.enumerated() { payload.storeBytes(of: word, toByteOffset: index * 4, as: UInt32.self) }
    }

    /// A whole call, with the proxy's handling of RETRY, STALE and FULL.
    @discardableResult
    func call(
        _ channel: Int32, _ operation: UInt16, to mailbox: MailboxAddress, epoch: UInt32 = 1, inode: UInt64 = 0, words: [UInt32] = []
    ) -> Int32 {
        build(channel, operation, inode: inode, words: words)
        return fos_call_mailbox(client, channel, mailbox.rawValue, epoch)
    }

    // The transport's own answers, which the proxy would handle, are seen by writing to the channel directly. A channel
    // is used either so or through the proxy.
    private var rawSequence: [Int32: UInt32] = [:]

    func rawPost(
        _ channel: Int32, _ operation: UInt16, to mailbox: MailboxAddress, epoch: UInt32 = 1, words: [UInt32] = [],
        length: UInt32? = nil, bellOf core: Int? = nil
    ) {
        let shared = client.pointee.channel + Int(channel)
        let sequence = rawSequence[channel, default: 0] + 1
        rawSequence[channel] = sequence
        let message = fos_channel_request(shared)!
        var header = fos_message()
        header.operation = operation
        header.destination = mailbox.rawValue
        header.epoch = epoch
        header.length = length ?? UInt32(words.count * 4)
        header.sequence = sequence - 1  // a core may watch the channel
        message.pointee = header
        let payload = UnsafeMutableRawPointer(message + 1)
        for (index, word) in words.enumerated() { payload.storeBytes(of: word, toByteOffset: index * 4, as: UInt32.self) }
        fos_store_release_u32(fos_message_sequence(message), sequence)
        ring(channel, core: core ?? mailbox.core)
    }

    /// Sets the channel's bit in a core's bell and wakes the core as channel.h says.
    func ring(_ channel: Int32, core: Int) {
        let bell = fos_bell_bits(client.pointee.bells + core) + Int(channel) / 64
        let bit: UInt64 = 1 << UInt64(channel % 64)
        _ = fos_fetch_or_u64(bell, bit)
        fos_fence()
        let parked = fos_board_parked(UnsafeMutablePointer(mutating: client.pointee.board), UInt32(core))!
        while fos_load_acquire_u32(parked) != 0, fos_load_relaxed_u64(bell) & bit != 0,
            fos_platform_futex_wake(parked, 1) < 1
        { fos_spin_pause() }
    }

    /// The status of the reply to the last raw post, or nil if none comes.
    func rawWait(_ channel: Int32, seconds: Double = 5) -> Int32? {
        let shared = client.pointee.channel + Int(channel)
        let sequence = rawSequence[channel, default: 0]
        let came = eventually(seconds) { fos_load_acquire_u32(fos_channel_reply_sequence(shared)) == sequence }
        return came ? fos_channel_reply(shared).pointee.status : nil
    }

    func once(
        _ channel: Int32, _ operation: UInt16, to mailbox: MailboxAddress, epoch: UInt32 = 1, words: [UInt32] = []
    ) -> Int32? {
        rawPost(channel, operation, to: mailbox, epoch: epoch, words: words)
        return rawWait(channel)
    }

    func reply(_ channel: Int32) -> fos_message { fos_reply(client, channel)!.pointee }
}

/// An instance of echo servers; ends with the test.
final class TestInstance: @unchecked Sendable {
    let probe = Probe()
    let kernel: Microkernel

    static let echo = FOS_SERVICE_FILE.rawValue

    /// - Parameters:
    ///   - cores: how many; unpinned, so that tests run on any machine.
    ///   - servers: echo servers on each core, mailbox indices 1...
    ///   - privilege: also a privilege server, the last mailbox of core 0.
    init(
        cores: Int = 1, servers: Int = 2, privilege: Bool = false, names: Bool = false,
        change: (inout MicrokernelConfiguration) -> Void = { _ in }
    ) throws {
        var placements: [ServerPlacement] = []
        for core in 0..<cores {
            for index in 1...servers {
                let member = core * servers + index - 1
                placements.append(
                    ServerPlacement(
                        service: Self.echo, member: member, core: core, index: index,
                        names: names ? [PublishedName("/sys/file", many: true), PublishedName("/sys/file/\(member)", many: false)] : []))
            }
        }
        if privilege {
            placements.append(
                ServerPlacement(service: FOS_SERVICE_PRIVILEGE.rawValue, member: 0, core: 0, index: servers + 1))
        }
        if names {
            let index = servers + (privilege ? 2 : 1)
            placements.append(ServerPlacement(service: FOS_SERVICE_NAME.rawValue, member: 0, core: 0, index: index))
        }
        var configuration = MicrokernelConfiguration(
            name: "test-\(UInt32.random(in: 0...UInt32.max))", ownerUID: getuid(), cpus: Array(repeating: -1, count: cores),
            placements: placements)
        configuration.listens = false
        configuration.handlesCrashes = false
        configuration.nice = nil
        change(&configuration)
        let (probe, all) = (probe, configuration.placements)
        kernel = try Microkernel(configuration: configuration) { core in
            TestGroup(placements: all, core: core, cores: cores, probe: probe)
        }
        try kernel.start()
    }

    deinit { kernel.stop() }

    static func mailbox(_ core: Int, _ index: Int) -> MailboxAddress { MailboxAddress(core: core, index: index) }
}

/// Waits until a condition holds, at most `seconds`.
func eventually(_ seconds: Double = 5, _ condition: () -> Bool) -> Bool {
    let end = fos_platform_monotonic_ns() + UInt64(seconds * 1e9)
    while fos_platform_monotonic_ns() < end {
        if condition() { return true }
        usleep(200)
    }
    return condition()
}
