// What the clients of each workload run: one thread of one process, without pause.
//
// Invariant: an operation is what the workload's name says; what a program does to set itself up is not counted.

import CFosWire
import Glibc
import Messaging
import Simulation
import Simulator

/// Counts what all programs of a machine do.
final class Recorder {
    var isOn = false
    var operations = 0
    var failures: [Int32: Int] = [:]
    var latencies = LatencySample()
    /// Programs that are still setting themselves up. Nobody begins before all can.
    var unready = 0

    func finished(_ latency: VirtualTime, status: Int32) {
        operations += 1
        if status != 0 { failures[status, default: 0] += 1 }
        if isOn { latencies.add(latency) }
    }
    func failed(_ status: Int32) { failures[status, default: 0] += 1 }
}

/// A program that sets itself up, waits until all others have, and then repeats one operation. The place for its files
/// was made before.
class Repeating: SimProgram {
    private enum Phase { case settingUp, waiting, working }
    let recorder: Recorder
    let number: Int
    var directory: UInt64 = 0
    var file: UInt64 = 0
    var round = 0
    private var phase = Phase.settingUp
    private var began: VirtualTime?
    private var isCall = false
    init(_ recorder: Recorder, number: Int) {
        self.recorder = recorder
        self.number = number
        recorder.unready += 1
    }

    final override func step(_ thread: SimThread) -> SimStep {
        if phase == .settingUp {
            if isCall, thread.status != 0, !goesOn(after: thread.status) { recorder.failed(thread.status) }
            if let step = setUp(thread) {
                isCall = Repeating.isCall(step)
                return step
            }
            phase = .waiting
            recorder.unready -= 1
        }
        if phase == .waiting {
            guard recorder.unready == 0 else { return .pause(10_000_000) }
            phase = .working
            isCall = false
        }
        let now = thread.client.host.time
        if let began { recorder.finished(now - began, status: isCall ? thread.status : 0) }
        began = now
        round += 1
        let step = next(thread)
        isCall = Repeating.isCall(step)
        return step
    }
    private static func isCall(_ step: SimStep) -> Bool {
        switch step {
        case .call, .callTo: true
        case .callName, .pause, .end: false
        }
    }
    /// Whether setting up goes on although its last request was answered so.
    func goesOn(after status: Int32) -> Bool { false }
    /// The next step of setting up; nil: done.
    func setUp(_ thread: SimThread) -> SimStep? { nil }
    /// The next operation, begun.
    func next(_ thread: SimThread) -> SimStep { .end }
}

final class StatProgram: Repeating {
    override func next(_ thread: SimThread) -> SimStep {
        thread.getAttributes(file)
        return .call
    }
}

final class CreateProgram: Repeating {
    override func next(_ thread: SimThread) -> SimStep {
        thread.create(directory, "c\(number).\(round)", exclusive: true)
        return .call
    }
}

final class RenameProgram: Repeating {
    override func next(_ thread: SimThread) -> SimStep {
        thread.rename(directory, round & 1 == 1 ? "file" : "moved", to: directory, round & 1 == 1 ? "moved" : "file")
        return .call
    }
}

final class NameProgram: Repeating {
    private let server: MailboxAddress
    private let core: Int
    static func name(_ number: Int) -> String { "/tmp/client\(number)" }
    /// The name server that has a client's name, as the proxy finds it (shim/proxy/names.c).
    static func place(_ number: Int, servers: Int) -> Int {
        let name = Array(name(number).utf8)
        return Int(fos_name_place(fos_name_hash(name, name.count), UInt32(servers)))
    }
    /// Registers a client's name, for `member`.
    static func register(_ number: Int, member: MailboxAddress, _ thread: SimThread) {
        let name = name(number)
        thread.begin(FOS_OP_NAME_REGISTER, inode: 0)
        var request = fos_name_request()
        request.name_length = UInt32(name.utf8.count)
        request.member = fos_name_member(mailbox: member.rawValue, epoch: 1, core: UInt32(member.core), load: 0, distance: 0, alive: 1)
        thread.add(request)
        thread.add(name)
    }
    init(_ recorder: Recorder, number: Int, server: MailboxAddress, core: Int) {
        self.server = server
        self.core = core
        super.init(recorder, number: number)
    }
    override func next(_ thread: SimThread) -> SimStep {
        let name = Self.name(number)
        thread.begin(FOS_OP_NAME_LOOKUP, inode: 0)
        var question = fos_name_request()
        question.name_length = UInt32(name.utf8.count)
        question.from_core = UInt32(core)
        thread.add(question)
        thread.add(name)
        return .callTo(server)
    }
}

/// Reads a file page by page, again and again, each time by a message: what a first read costs.
final class FirstReadProgram: Repeating {
    override func next(_ thread: SimThread) -> SimStep {
        thread.read(file, offset: UInt64(round % Machine.filePages) * UInt64(FOS_PAGE_BYTES), count: Int(FOS_PAGE_BYTES))
        return .call
    }
}

/// Reads a file page by page, again and again, as the shim does (shim/preload/maps.c): once through by messages, then it is
/// mapped, and a read is a copy from memory shared with the owner, true as long as the grant in its control page stands
/// (fos/map.h). Every client that has mapped a file reads it at its own core.
final class ReadProgram: Repeating {
    private var stage = 0
    private var region: SharedRegion?

    private func offset(_ page: Int) -> Int { page % Machine.filePages * Int(FOS_PAGE_BYTES) }

    /// A server maps so many files and no more; those of all others are read by messages.
    override func goesOn(after status: Int32) -> Bool { stage == Machine.filePages + 2 && status == -EMFILE }
    override func setUp(_ thread: SimThread) -> SimStep? {
        defer { stage += 1 }
        switch stage {
        case 0: thread.open(file, flags: 0)
        case 1...Machine.filePages: thread.read(file, offset: UInt64(offset(stage - 1)), count: Int(FOS_PAGE_BYTES))
        case Machine.filePages + 1:
            thread.begin(FOS_OP_MAP, inode: file)
            thread.add(fos_map_request(access: 4, flags: 0))
        default:
            region = thread.replied(fos_map_reply.self).flatMap { thread.client.regions[$0.token] }
            return nil
        }
        return .call
    }
    override func next(_ thread: SimThread) -> SimStep {
        let place = offset(round)
        guard let region, isGranted(region, place, thread.host.now.seconds) else {
            thread.read(file, offset: UInt64(place), count: Int(FOS_PAGE_BYTES))
            return .call
        }
        thread.bulk.baseAddress?.copyMemory(from: region.base + place, byteCount: Int(FOS_PAGE_BYTES))
        return .pause(thread.host.costs.bulkByte * VirtualTime(FOS_PAGE_BYTES))
    }
    /// As `fos_map_read` asks; there is one thread here, so the grant cannot change under the copy.
    private func isGranted(_ region: SharedRegion, _ place: Int, _ now: Int64) -> Bool {
        let bytes = region.bytes - MemoryLayout<fos_map_control>.size
        let control = (region.base + bytes).assumingMemoryBound(to: fos_map_control.self)
        return control.pointee.grant != 0 && control.pointee.read_until > now
            && place + Int(FOS_PAGE_BYTES) <= min(bytes, Int(control.pointee.size))
    }
}

/// Allocates a page of the memory fleet, and gives one back, in turn; what comes back is zeroed before it is anybody's again.
final class PageProgram: Repeating {
    private let server: MailboxAddress
    private var held: [fos_memory_extent] = []
    private var isAllocating = true
    /// Pages that a client has at once.
    private static var most: Int { 8 }
    init(_ recorder: Recorder, number: Int, server: MailboxAddress) {
        self.server = server
        super.init(recorder, number: number)
    }

    private func allocate(_ thread: SimThread) {
        thread.begin(FOS_OP_MEMORY_ALLOCATE, inode: 0)
        thread.add(fos_memory_request(bytes: UInt64(FOS_PAGE_BYTES), frame_bytes: UInt32(FOS_PAGE_BYTES), reserved: 0))
    }
    private func free(_ extent: fos_memory_extent, _ thread: SimThread) {
        thread.begin(FOS_OP_MEMORY_FREE, inode: extent.token)
        thread.add(fos_memory_free(extents: 1, reserved: 0))
        thread.add(extent)
    }
    private func take(_ thread: SimThread) {
        let payload = thread.replyPayload
        let head = MemoryLayout<fos_memory_grant>.size
        guard thread.status == 0, payload.count >= head + MemoryLayout<fos_memory_extent>.size else { return }
        held.append(payload.loadUnaligned(fromByteOffset: head, as: fos_memory_extent.self))
    }

    override func setUp(_ thread: SimThread) -> SimStep? {
        if !isAllocating { take(thread) }
        isAllocating = false
        guard held.count < Self.most else { return nil }
        allocate(thread)
        return .callTo(server)
    }
    override func next(_ thread: SimThread) -> SimStep {
        if isAllocating { take(thread) }
        isAllocating.toggle()
        if isAllocating { allocate(thread) } else { free(held.removeFirst(), thread) }
        return .callTo(server)
    }
}

/// The messages of a compile job, in the numbers in which a real one sends them: `make -j2` of 21 C files with gcc, each
/// including some 25 headers, on a mount under `fos trace`, which counts what the shim's cache left over.
struct CompileMix {
    enum Message { case lookup, read, open, write, getAttributes, create }
    static let counts: [(Message, Int)] = [(.lookup, 1212), (.read, 778), (.open, 576), (.write, 271), (.getAttributes, 45), (.create, 43)]
    static let total: Int = counts.reduce(0) { $0 + $1.1 }
    /// Of them, those about what a client has for itself wherever headers are.
    static let own: Int = counts.reduce(0) { sum, count in
        switch count.0 {
        case .write, .getAttributes, .create: sum + count.1
        case .lookup, .read, .open: sum
        }
    }

    static func draw(_ thread: SimThread) -> Message {
        var left = thread.random.below(total)
        for (message, count) in counts {
            if left < count { return message }
            left -= count
        }
        return .lookup
    }
}

final class CompileProgram: Repeating {
    /// Where headers are found and read: a directory of the client's own, or one of all.
    private let headers: UInt64
    private let header: UInt64
    private var created = 0
    init(_ recorder: Recorder, number: Int, headers: UInt64, header: UInt64) {
        self.headers = headers
        self.header = header
        super.init(recorder, number: number)
    }
    override func next(_ thread: SimThread) -> SimStep {
        switch CompileMix.draw(thread) {
        case .lookup: thread.lookup(headers, "file")
        case .read: thread.read(header, offset: 0, count: 1024)
        case .open: thread.open(header, flags: 0)
        case .write: thread.write(file, offset: UInt64(thread.random.below(8)) * 4096, count: 4096)
        case .getAttributes: thread.getAttributes(file)
        case .create:
            created += 1
            thread.create(directory, "o\(number).\(created % 64)")
        }
        return .call
    }
}
