// The servers that the tests run: an echo that can be told what to do, a toy name server and a toy privilege server.
//
// One type plays all three roles, by the service it was placed as. What tests want to know of a server they read from
// its Probe, a few atomic words.

import CAllocationCounter
import CFosWire
import CPlatform
import Glibc
import Messaging

@testable import Microkernel

/// Operations of the echo server.
enum Do {
    static let echo: UInt16 = 900  // inode + 1, payload repeated
    static let forward: UInt16 = 901  // payload: mailbox; that one answers
    static let ask: UInt16 = 902  // payload: mailbox; asks it and hands on its answer
    static let allocations: UInt16 = 903  // inode: allocations of the core's thread so far
    static let notices: UInt16 = 904  // payload: how many; inode of the reply: how many were accepted
    static let work: UInt16 = 905  // payload: microseconds to stay busy
    static let bulk: UInt16 = 906  // adds 1 to each byte of the bulk range
    static let invalidate: UInt16 = 907  // privilege server: tells each core, answers when all have acknowledged
    static let never: UInt16 = 908  // no reply at all
    static let twice: UInt16 = 909  // two replies
    static let askMany: UInt16 = 910  // payload: mailbox, count; asks at once, answers how many sends were accepted
    static let crash: UInt16 = 912
    static let groups: UInt16 = 914  // payload: index; inode of the reply: how many groups << 32 | the group at the index
    static let moreTicks: UInt16 = 913  // payload: how many ticks to ask for, one at each
    static let moreIdle: UInt16 = 915  // payload: how many FOS_OP_IDLE to ask for, one at each
    static let cpuTime: UInt16 = 911  // inode: processor time of the core's thread, ns
}

/// Counters that the servers share with a test.
final class Probe: @unchecked Sendable {
    enum Word: Int { case gone, goneClient, ticks, checks, registered, allowed, requests, wanted, idles, idlesWanted }
    let words = UnsafeMutablePointer<UInt64>.allocate(capacity: 16)
    init() {
        words.initialize(repeating: 0, count: 16)
        self[.allowed] = 1
    }
    deinit { words.deallocate() }
    subscript(word: Word) -> UInt64 {
        get { fos_load_acquire_u64(words + word.rawValue) }
        set { fos_store_release_u64(words + word.rawValue, newValue) }
    }
    func add(_ word: Word) { _ = fos_fetch_add_u64(words + word.rawValue, 1) }
}

/// What an `ask` waits with.
struct Waiting: BitwiseCopyable {
    var envelope: fos_envelope
    var left: Int
}

struct TestServer: ~Copyable, Server {
    var service: UInt32
    var probe: Probe
    var cores: Int
    var slab = ContinuationSlab<Waiting>(capacity: 512)

    init(service: UInt32, probe: Probe, cores: Int) {
        self.service = service
        self.probe = probe
        self.cores = cores
    }

    private func answer<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ kernel: K, status: Int32 = 0, inode: UInt64 = 0) {
        let message = kernel.scratch()
        message.pointee.status = status
        message.pointee.inode = inode
        kernel.reply(to: envelope, message)
    }

    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        let envelope = request.envelope
        let payload = request.payload
        func word(_ index: Int) -> UInt32 {
            payload.count >= 4 * (index + 1) ? payload.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self) : 0
        }
        if envelope.pointee.sender_kind == UInt8(FOS_SENDER_CLIENT.rawValue) { probe.add(.requests) }
        switch request.operation {
        case UInt16(FOS_OP_CLIENT_GONE.rawValue):
            probe[.goneClient] = UInt64(envelope.pointee.client)
            probe.add(.gone)
        case UInt16(FOS_OP_TICK.rawValue):
            probe.add(.ticks)
            if probe[.wanted] > 0 {
                probe[.wanted] -= 1
                kernel.tickAgain()
            }
        case UInt16(FOS_OP_IDLE.rawValue):
            probe.add(.idles)
            if probe[.idlesWanted] > 0 {
                probe[.idlesWanted] -= 1
                kernel.idleAgain()
            }
        case Do.moreIdle:
            probe[.idlesWanted] = UInt64(word(0))
            kernel.idleAgain()
            answer(envelope, kernel)
        case Do.moreTicks:
            probe[.wanted] = UInt64(word(0))
            answer(envelope, kernel)
        case UInt16(FOS_OP_PRIVILEGE_CHECK.rawValue):
            probe.add(.checks)
            let message = kernel.scratch()
            message.pointee.length = UInt32(MemoryLayout<fos_privilege_answer>.size)
            UnsafeMutableRawPointer(message + 1).storeBytes(
                of: fos_privilege_answer(allowed: UInt32(probe[.allowed]), epoch: 1), as: fos_privilege_answer.self)
            kernel.reply(to: envelope, message)
        case UInt16(FOS_OP_NAME_REGISTER.rawValue):
            probe.add(.registered)
            answer(envelope, kernel)
        case UInt16(FOS_OP_NAME_LOOKUP.rawValue): answer(envelope, kernel, status: -ENOENT)
        case Do.echo:
            let message = kernel.scratch()
            message.pointee.operation = Do.echo
            message.pointee.inode = request.message.pointee.inode &+ 1
            message.pointee.length = UInt32(payload.count)
            if let base = payload.baseAddress { memcpy(message + 1, base, payload.count) }
            kernel.reply(to: envelope, message)
        case Do.forward:
            let target = MailboxAddress(rawValue: word(0))
            if target == kernel.mailbox {
                answer(envelope, kernel, inode: UInt64(target.rawValue))
            } else if kernel.forward(request.letter, to: target) != .sent {
                answer(envelope, kernel, status: -EHOSTUNREACH)
            }
        case Do.ask, Do.askMany:
            let count = request.operation == Do.ask ? 1 : Int(word(1))
            guard let id = slab.insert(Waiting(envelope: envelope.pointee, left: 0)) else {
                return answer(envelope, kernel, status: Int32(FOS_TRANSPORT_RETRY.rawValue))
            }
            var sent = 0
            for _ in 0..<count {
                let message = kernel.scratch()
                message.pointee.operation = Do.echo
                message.pointee.inode = request.message.pointee.inode
                if kernel.send(message, to: MailboxAddress(rawValue: word(0)), expecting: id, onBehalfOf: envelope) == .sent {
                    sent += 1
                }
            }
            slab.state(id)!.pointee.left = sent
            if sent == 0 {
                slab.remove(id)
                answer(envelope, kernel, status: -EHOSTUNREACH)
            }
        case Do.allocations: answer(envelope, kernel, inode: allocation_count())
        case Do.notices:
            var accepted: UInt64 = 0
            for number in 0..<word(0) {
                var notice = fos_notice()
                notice.kind = FOS_NOTICE_ENTRY.rawValue
                notice.inode = UInt64(number)
                if kernel.notify(client: envelope.pointee.client, &notice) { accepted += 1 }
            }
            answer(envelope, kernel, inode: accepted)
        case Do.groups:
            let groups = kernel.groups(of: envelope)
            let group = Int(word(0)) < groups.count ? groups[Int(word(0))] : 0
            answer(envelope, kernel, inode: UInt64(groups.count) << 32 | UInt64(group))
        case Do.work:
            let end = kernel.monotonic + UInt64(word(0)) * 1000
            while kernel.monotonic < end {}
            answer(envelope, kernel)
        case Do.bulk:
            let message = request.message.pointee
            guard let bytes = kernel.bulk(of: envelope, offset: message.bulk_offset, count: message.bulk_length) else {
                return answer(envelope, kernel, status: -EINVAL)
            }
            for index in bytes.indices { bytes[index] &+= 1 }
            answer(envelope, kernel)
        case Do.invalidate:
            guard let id = slab.insert(Waiting(envelope: envelope.pointee, left: cores)) else {
                return answer(envelope, kernel, status: -EAGAIN)
            }
            for core in 0..<cores {
                let message = kernel.scratch()
                message.pointee.operation = UInt16(FOS_OP_PRIVILEGE_INVALIDATE.rawValue)
                message.pointee.length = UInt32(MemoryLayout<fos_privilege_invalidate>.size)
                UnsafeMutableRawPointer(message + 1).storeBytes(
                    of: fos_privilege_invalidate(epoch: 2, reserved: 0), as: fos_privilege_invalidate.self)
                _ = kernel.send(message, to: MailboxAddress(core: core, index: 0), expecting: id, onBehalfOf: nil)
            }
        case Do.never: break
        case Do.twice:
            answer(envelope, kernel, inode: 1)
            answer(envelope, kernel, inode: 2)
        case Do.crash: preconditionFailure("as asked")
        case Do.cpuTime: answer(envelope, kernel, inode: fos_platform_thread_cpu_ns())
        default: answer(envelope, kernel, status: -ENOSYS)
        }
    }

    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        guard let state = slab.state(response.continuation) else { return }
        state.pointee.left -= 1
        guard state.pointee.left == 0 else { return }
        var envelope = state.pointee.envelope
        slab.remove(response.continuation)
        let message = kernel.scratch()
        message.pointee.status = response.status
        message.pointee.inode = response.message.pointee.inode
        kernel.reply(to: &envelope, message)
    }

    func describe(_ statistics: inout fos_statistics) { statistics.inodes = 42 }
}

/// Up to four servers of one core.
struct TestGroup: ~Copyable, ServerGroup {
    let count: Int
    let servers: UnsafeMutablePointer<TestServer>

    init(placements: [ServerPlacement], core: Int, cores: Int, probe: Probe) {
        let mine = placements.filter { $0.core == core }.sorted { $0.index < $1.index }
        count = mine.count
        servers = .allocate(capacity: max(1, mine.count))
        for (index, placement) in mine.enumerated() {
            (servers + index).initialize(to: TestServer(service: placement.service, probe: probe, cores: cores))
        }
    }

    deinit {
        servers.deinitialize(count: count)
        servers.deallocate()
    }

    mutating func receive<K: Kernel>(server index: Int, _ request: Request, _ kernel: K) {
        servers[index].receive(request, kernel)
    }
    mutating func resume<K: Kernel>(server index: Int, _ response: Response, _ kernel: K) {
        servers[index].resume(response, kernel)
    }
    func describe(server index: Int, _ statistics: inout fos_statistics) { servers[index].describe(&statistics) }
}
