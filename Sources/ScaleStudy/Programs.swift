// What the clients of each workload run: one thread of one process, without pause.
//
// Invariant: an operation is what the workload's name says; what a program does to set itself up is not counted.

import CFosWire
import Messaging
import Simulation
import Simulator

/// Counts what all programs of a machine do.
final class Recorder {
    var isOn = false
    var operations = 0
    var failures: [Int32: Int] = [:]
    var latencies = LatencySample()

    func finished(_ latency: VirtualTime, status: Int32) {
        operations += 1
        if status != 0 { failures[status, default: 0] += 1 }
        if isOn { latencies.add(latency) }
    }
}

/// A program that repeats one operation. The place for its files was made before.
class Repeating: SimProgram {
    let recorder: Recorder
    let number: Int
    var directory: UInt64 = 0
    var file: UInt64 = 0
    var round = 0
    private var began: VirtualTime?
    private var isCall = false
    init(_ recorder: Recorder, number: Int) {
        self.recorder = recorder
        self.number = number
    }

    final override func step(_ thread: SimThread) -> SimStep {
        let now = thread.client.host.time
        if let began { recorder.finished(now - began, status: isCall ? thread.status : 0) }
        began = now
        round += 1
        let step = next(thread)
        switch step {
        case .call, .callTo: isCall = true
        default: isCall = false
        }
        return step
    }
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

/// Reads a file page by page, again and again. Pages are kept under the file's epoch, as the shim keeps them (cache.c): a
/// page that is kept costs a look at the board and a copy, and no message.
final class ReadProgram: Repeating {
    private let pages: Int
    private var kept: [UInt32?]
    private var page = 0
    /// The epoch as it was before the request was sent.
    private var epochBefore: UInt32 = 0
    private var isReading = false
    private let keeps: Bool
    /// - Parameter keeps: false: every read is a first one.
    init(_ recorder: Recorder, number: Int, pages: Int, keeps: Bool) {
        self.pages = pages
        self.keeps = keeps
        kept = Array(repeating: nil, count: pages)
        super.init(recorder, number: number)
    }
    override func next(_ thread: SimThread) -> SimStep {
        let epoch = thread.client.host.board.epoch(ofInode: file)
        if keeps, isReading, thread.status == 0, epoch == epochBefore { kept[page] = epoch }
        page = (page + 1) % pages
        isReading = kept[page] != epoch
        epochBefore = epoch
        guard isReading else { return .pause(thread.client.host.costs.bulkByte * VirtualTime(FOS_PAGE_BYTES)) }
        thread.read(file, offset: UInt64(page) * UInt64(FOS_PAGE_BYTES), count: Int(FOS_PAGE_BYTES))
        return .call
    }
}

/// The messages of a compile job, in the numbers in which a real one sends them: `make -j2` of 21 C files with gcc, each
/// including some 25 headers, on a mount under `fos trace`, which counts what the shim's cache left over.
struct CompileMix {
    enum Message { case lookup, read, open, write, getAttributes, create }
    static let counts: [(Message, Int)] = [(.lookup, 1212), (.read, 778), (.open, 576), (.write, 271), (.getAttributes, 45), (.create, 43)]
    static let total = counts.reduce(0) { $0 + $1.1 }

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
