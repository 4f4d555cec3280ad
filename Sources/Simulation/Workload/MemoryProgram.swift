// A thread of the random workload that takes page frames from the memory fleet, fills them, and gives them back.
//
// Role: the workload that shows whether a page is ever shared, lost, or handed out with what another has written. It looks at
// every byte that it is granted, writes a pattern of its own, and looks again before it lets go.
// Protocol: ALLOCATE, FREE of parts, RETIRE of one region, which it keeps mapped for a while as a forked child would, and in
// the end RETIRE of all (fos/memory.h). Any member is sent any of them.
// Invariant: a frame is the thread's from the answer that grants it until it sends FREE, or unmaps what it has retired.

import CFosWire
import Glibc
import Messaging
public import Simulator

/// Whose each frame of memory is, as the threads were told. Frames are told apart by where they are in the host.
public final class FrameLedger {
    private var owners: [UInt: Int] = [:]
    public private(set) var violations: [Violation] = []
    public private(set) var grants = 0

    func report(_ thread: Int, _ text: String) {
        // The first are the ones that tell why.
        if violations.count < 16 { violations.append(Violation("memory of thread \(thread)", text)) }
    }
    func granted(_ frame: UnsafeMutableRawPointer, to thread: Int) {
        grants += 1
        if let other = owners.updateValue(thread, forKey: UInt(bitPattern: frame)) {
            report(thread, "was granted a frame that is thread \(other)'s")
        }
    }
    func released(_ frame: UnsafeMutableRawPointer) { owners[UInt(bitPattern: frame)] = nil }
    /// A thread is dead: what it had may be anybody's.
    func forget(_ thread: Int) { owners = owners.filter { $0.value != thread } }
}

public final class MemoryProgram: SimProgram {
    private enum Asked { case nothing, allocate, free, retire(UInt64), retireAll }

    private let ledger: FrameLedger
    private let identity: Int
    private let servers: [MailboxAddress]
    private var left: Int
    private var asked = Asked.nothing
    /// Granted to this thread, a frame each.
    private var frames: [(token: UInt64, offset: Int)] = []
    /// Retired and still mapped, with the frames that it had in them.
    private var kept: [(token: UInt64, frames: [(token: UInt64, offset: Int)])] = []
    private var pattern: UInt8 { UInt8(1 + identity % 255) }
    private static var frameBytes: Int { Int(FOS_MEMORY_FRAME_BYTES) }

    init(ledger: FrameLedger, identity: Int, servers: [MailboxAddress], operations: Int) {
        self.ledger = ledger
        self.identity = identity
        self.servers = servers
        left = operations
    }

    /// Its client is dead. What it had retired and kept is unmapped with it.
    func abandon() { ledger.forget(identity) }

    public override func step(_ thread: SimThread) -> SimStep {
        record(thread)
        asked = .nothing
        if !kept.isEmpty, left == 0 || thread.random.below(3) == 0 { unmap(kept.removeLast(), thread) }
        guard left > 0 else {
            if !kept.isEmpty { return .pause(1_000_000) }
            return thread.client.regions.isEmpty ? .end : ask(.retireAll, thread)
        }
        left -= 1
        switch thread.random.below(8) {
        case 0 where !frames.isEmpty: return ask(.retire(frames[thread.random.below(frames.count)].token), thread)
        case 1...3 where !frames.isEmpty: return ask(.free, thread)
        case 4: return .pause(VirtualTime(1 + thread.random.below(20_000_000)))
        default: return ask(.allocate, thread)
        }
    }

    // MARK: Asking

    private func ask(_ what: Asked, _ thread: SimThread) -> SimStep {
        asked = what
        switch what {
        case .nothing: break
        case .allocate:
            let most = thread.random.below(8) == 0 ? 64 : 8
            thread.begin(FOS_OP_MEMORY_ALLOCATE, inode: 0)
            thread.add(
                fos_memory_request(
                    bytes: UInt64(1 + thread.random.below(most * Self.frameBytes)), frame_bytes: UInt32(Self.frameBytes), reserved: 0))
        case .free: free(thread)
        case .retire(let token):
            thread.begin(FOS_OP_MEMORY_RETIRE, inode: token)
            kept.append((token, frames.filter { $0.token == token }))
            frames.removeAll { $0.token == token }
        case .retireAll:
            thread.begin(FOS_OP_MEMORY_RETIRE, inode: 0)
            for token in thread.client.regions.keys.sorted() { kept.append((token, frames.filter { $0.token == token })) }
            frames = []
        }
        return .callTo(servers[thread.random.below(servers.count)])
    }

    /// Some frames of one region, in extents of one frame.
    private func free(_ thread: SimThread) {
        let token = frames[thread.random.below(frames.count)].token
        let most = 1 + thread.random.below(Int(FOS_MEMORY_EXTENTS_MAX))
        var chosen: [Int] = []
        for index in frames.indices where frames[index].token == token && chosen.count < most { chosen.append(index) }
        thread.begin(FOS_OP_MEMORY_FREE, inode: token)
        thread.add(fos_memory_free(extents: UInt32(chosen.count), reserved: 0))
        for index in chosen.reversed() {
            let frame = frames.remove(at: index)
            letGo(frame, thread)
            thread.add(fos_memory_extent(token: token, offset: UInt64(frame.offset), bytes: UInt64(Self.frameBytes)))
        }
    }

    // MARK: Looking

    private func record(_ thread: SimThread) {
        switch asked {
        case .nothing: break
        case .allocate:
            if thread.status == 0 { return take(thread) }
            if thread.status != -ENOMEM { ledger.report(identity, "ALLOCATE was answered \(thread.status)") }
        case .free, .retire, .retireAll:
            if thread.status != 0 { ledger.report(identity, "\(asked) was answered \(thread.status)") }
        }
    }

    private func take(_ thread: SimThread) {
        let payload = thread.replyPayload
        guard let grant: fos_memory_grant = thread.replied(), grant.extents > 0 else {
            return ledger.report(identity, "was granted nothing")
        }
        for index in 0..<Int(grant.extents) {
            let place = MemoryLayout<fos_memory_grant>.size + index * MemoryLayout<fos_memory_extent>.size
            guard place + MemoryLayout<fos_memory_extent>.size <= payload.count else {
                return ledger.report(identity, "was answered with a short list")
            }
            let extent = payload.loadUnaligned(fromByteOffset: place, as: fos_memory_extent.self)
            guard let region = thread.client.regions[extent.token], extent.offset + extent.bytes <= UInt64(region.bytes) else {
                return ledger.report(identity, "was granted frames of a region that it does not have")
            }
            for offset in stride(from: Int(extent.offset), to: Int(extent.offset + extent.bytes), by: Self.frameBytes) {
                let frame = region.base + offset
                ledger.granted(frame, to: identity)
                if !holds(frame, 0) { ledger.report(identity, "was granted a frame that is not zeros") }
                memset(frame, Int32(pattern), Self.frameBytes)
                frames.append((extent.token, offset))
            }
        }
    }

    private func letGo(_ frame: (token: UInt64, offset: Int), _ thread: SimThread) {
        guard let region = thread.client.regions[frame.token] else {
            return ledger.report(identity, "a region is gone that it has frames of")
        }
        if !holds(region.base + frame.offset, pattern) { ledger.report(identity, "somebody wrote to a frame of its own") }
        ledger.released(region.base + frame.offset)
    }

    private func unmap(_ region: (token: UInt64, frames: [(token: UInt64, offset: Int)]), _ thread: SimThread) {
        for frame in region.frames { letGo(frame, thread) }
        thread.client.letGo(region.token)
    }

    private func holds(_ frame: UnsafeMutableRawPointer, _ value: UInt8) -> Bool {
        UnsafeRawBufferPointer(start: frame, count: Self.frameBytes).allSatisfy { $0 == value }
    }
}

/// Asks every memory server how it stands, when nobody uses memory any more.
final class MemoryAudit: SimProgram {
    private let servers: [MailboxAddress]
    private(set) var answers: [fos_memory_statistics] = []
    private var asked = 0
    init(servers: [MailboxAddress]) { self.servers = servers }

    override func step(_ thread: SimThread) -> SimStep {
        if asked > 0, thread.status == 0, let answer: fos_memory_statistics = thread.replied() { answers.append(answer) }
        guard asked < servers.count else { return .end }
        asked += 1
        thread.begin(FOS_OP_MEMORY_STATISTICS, inode: 0)
        return .callTo(servers[asked - 1])
    }

    /// - Parameter limit: of the whole fleet, bytes.
    func violations(limit: Int) -> [Violation] {
        func found(_ text: String) -> Violation { Violation("memory", text) }
        guard answers.count == servers.count else { return [found("\(servers.count - answers.count) members do not say how they stand")] }
        var violations: [Violation] = []
        let limits = answers.reduce(0) { $0 + Int($1.limit) }
        if limits != limit { violations.append(found("the members' limits are \(limits) bytes together, and were \(limit)")) }
        for answer in answers {
            let frames = answer.frames.0
            if frames.granted != 0 || frames.retired != 0 || answer.clients != 0 {
                violations.append(
                    found(
                        "member \(answer.member) has \(frames.granted) bytes granted and \(frames.retired) retired, of \(answer.clients) clients, and there are none"
                    ))
            }
        }
        return violations
    }
}
