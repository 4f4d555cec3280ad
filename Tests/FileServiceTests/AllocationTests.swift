// No heap allocation on the paths of single requests: one file server, called as a core calls it, on a kernel that allocates nothing.
//
// Requests that change names are not among them: a build without optimisation makes an array for each empty option set (`[]`), which
// those write, and the tests are such a build.

import CAllocationCounter
import CFosWire
import Glibc
import LoopKernel
import Messaging
import Testing

@testable import FileService

/// What a `QuietKernel` has: room for an answer, a client's bulk area, and the board's epochs.
private final class QuietState {
    let scratch = UnsafeMutableRawPointer.allocate(byteCount: Int(FOS_MESSAGE_BYTES), alignment: 64)
    let bulk = UnsafeMutableRawPointer.allocate(byteCount: Int(FOS_BULK_BYTES), alignment: 64)
    let letter = UnsafeMutablePointer<fos_letter>.allocate(capacity: 1)
    let delegation = UnsafeMutablePointer<fos_delegation>.allocate(capacity: 1)
    var epochs: [UInt32] = Array(repeating: 0, count: Int(FOS_INODE_EPOCHS))
    var random = SeededRandom(seed: 5)
    var clock: UInt64 = 1
    /// Of the last answer.
    var status: Int32 = 0
    var answers = 0
    var inode: UInt64 = 0
    var flags: UInt16 = 0
    init() {
        letter.initialize(to: fos_letter())
        UnsafeMutableRawPointer(delegation).initializeMemory(as: UInt8.self, repeating: 0, count: Int(FOS_DELEGATION_BYTES))
    }
    deinit {
        delegation.deallocate()
        scratch.deallocate()
        bulk.deallocate()
        letter.deallocate()
    }
}

/// A kernel with one server and one client.
private struct QuietKernel: Kernel {
    unowned(unsafe) let state: QuietState
    var now: Timestamp { Timestamp(seconds: 1_700_000_000, nanoseconds: UInt32(state.clock % 1_000_000_000)) }
    var monotonic: UInt64 { state.clock }
    func random() -> UInt64 { state.random.next() }
    var mailbox: MailboxAddress { MailboxAddress(core: 0, index: 1) }
    var core: Int { 0 }
    func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult { .stale }
    func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult { .stale }
    func scratch() -> UnsafeMutablePointer<fos_message> {
        let message = state.scratch.assumingMemoryBound(to: fos_message.self)
        message.initialize(to: fos_message())
        return message
    }
    func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        state.status = message.pointee.status
        state.flags = message.pointee.flags
        state.answers += 1
        if message.pointee.length >= 8 { state.inode = UnsafeRawPointer(message + 1).loadUnaligned(as: UInt64.self) }
    }
    func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        UnsafeMutableRawBufferPointer(start: state.bulk + Int(offset), count: Int(count))
    }
    func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>? { state.delegation }
    func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32> { UnsafeBufferPointer(start: nil, count: 0) }
    func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32? { nil }
    func generation(ofClient client: UInt32) -> UInt32 { 1 }
    func noticeRoom(client: UInt32) -> Int { 0 }
    func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool { false }
    var kernelCacheClient: UInt32? { nil }
    func publish(slot: Int, owner: MailboxAddress) {}
    func changed(inode: UInt64) { state.epochs[Int(fos_inode_epoch_index(inode))] &+= 1 }
    func epoch(ofInode inode: UInt64) -> UInt32 { state.epochs[Int(fos_inode_epoch_index(inode))] }
    func tickAgain() {}
    func idleAgain() {}
    func makeRegion(bytes: Int) -> SharedRegion? { nil }
    func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion? { nil }
    var hasHugeFrames: Bool { false }
    func populate(_ region: SharedRegion, offset: Int, bytes: Int) {}
    func discard(_ region: SharedRegion, offset: Int, bytes: Int) {}
    func isAlone(_ region: SharedRegion) -> Bool { true }
    func dropRegion(_ region: SharedRegion) {}
    func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool { false }
    func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {}
}

/// A server, and the letter that it is handed.
private final class CountedServer {
    let state = QuietState()
    let kernel: QuietKernel
    var server: MemoryFileServer

    init() {
        kernel = QuietKernel(state: state)
        server = MemoryFileServer(
            member: 0, members: [kernel.mailbox], credits: 16384, root: RootAttributes(uid: 0, gid: 0, mode: 0o755, born: kernel.now),
            seed: 7, store: MemoryStore())
    }

    /// How often the server allocates for a call.
    func run(_ call: LoopCall) -> UInt64 {
        post(call)
        let before = allocation_count()
        server.receive(Request(letter: state.letter), kernel)
        return allocation_count() - before
    }

    private func post(_ call: LoopCall) {
        let request = Request(letter: state.letter)
        request.envelope.pointee = fos_envelope()
        request.envelope.pointee.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        request.envelope.pointee.client = 1
        request.envelope.pointee.client_generation = 1
        request.message.pointee = fos_message()
        request.message.pointee.operation = call.operation
        request.message.pointee.inode = call.inode
        request.message.pointee.length = UInt32(call.payload.count)
        request.message.pointee.bulk_length = call.bulkLength
        request.message.pointee.given_for = call.givenFor
        call.payload.withUnsafeBytes { if let base = $0.baseAddress { request.message.body.copyMemory(from: base, byteCount: $0.count) } }
        call.bulk.withUnsafeBytes { if let base = $0.baseAddress { state.bulk.copyMemory(from: base, byteCount: $0.count) } }
        state.clock += 1_000
    }
}

@Suite struct AllocationTests {
    @Test func requestsAllocateNothing() {
        let host = CountedServer(), state = host.state
        _ = host.run(Files.make(FOS_OP_CREATE, 1, "f", mode: 0o644))
        #expect(state.status == 0)
        let f = state.inode
        let rounds: [(name: String, calls: [LoopCall])] = [
            ("GETATTR", [LoopCall(FOS_OP_GETATTR, inode: f)]), ("LOOKUP", [LoopCall(FOS_OP_LOOKUP, inode: 1, name: "f")]),
            ("LOOKUP of a missing name", [LoopCall(FOS_OP_LOOKUP, inode: 1, name: "none")]),
            ("WRITE", [Files.writeCall(f, 0, [UInt8](repeating: 1, count: 4096))]), ("READ", [Files.readCall(f, 0, 4096)]),
            (
                "OPEN and RELEASE",
                [
                    LoopCall(FOS_OP_OPEN, inode: f, fos_open_request(open_flags: 2, room: 0)),
                    LoopCall(FOS_OP_RELEASE, inode: f, fos_release_request(owner: 0, flags: 0, count: 1)),
                ]
            ), ("READDIR", [LoopCall(FOS_OP_READDIR, inode: 1, fos_readdir_request(cookie: 0, flags: 0, filled: 0), room: 4096)]),
        ]
        // The counter counts, on this thread as on any.
        let here = allocation_count()
        free(malloc(64))
        #expect(allocation_count() > here)
        for (name, calls) in rounds {
            // Pages and tables are taken by the first ones.
            for _ in 0..<8 { for call in calls { _ = host.run(call) } }
            var made: UInt64 = 0
            for _ in 0..<100 {
                for call in calls {
                    made += host.run(call)
                    #expect(state.status == 0 || state.status == -ENOENT && name.contains("missing"), "\(name): \(state.status)")
                }
            }
            #expect(made == 0, "\(name) makes \(made) allocations in 100 rounds")
        }
        #expect(state.answers > 0)
    }

    /// Granting a delegation, and taking what was left: a write grants, and the request after it brings a record along.
    @Test func delegationsAllocateNothing() {
        let host = CountedServer(), state = host.state
        func run(_ call: LoopCall) -> UInt64 {
            let made = host.run(call)
            #expect(state.status == 0)
            return made
        }
        var files: [UInt64] = []
        for name in ["f", "g"] {
            _ = run(Files.make(FOS_OP_CREATE, 1, name, mode: 0o644))
            files.append(state.inode)
        }
        let cell = UnsafeMutableRawPointer(state.delegation)
        func leave(_ inode: UInt64) {
            let before = fos_delegation_state(cell.assumingMemoryBound(to: fos_delegation_cell.self))
            let record = fos_delegation_record(
                inode: inode, offset: 0, when: 0, accessed: 1, modified: 2, mode: 0o600, uid: 3, gid: 4, order: 1)
            cell.storeBytes(of: record, toByteOffset: 8, as: fos_delegation_record.self)
            cell.storeBytes(of: fos_delegation_next(before, 0x3f, 0, 60_000), as: UInt64.self)
        }
        let writes = files.map { Files.writeCall($0, 0, [UInt8](repeating: 1, count: 60_000), flags: FOS_IO_ATTRIBUTES.rawValue) }
        var bringing = LoopCall(FOS_OP_GETATTR, inode: 1)
        bringing.givenFor = UInt16(FOS_GIVEN_RECORD.rawValue)
        var made: UInt64 = 0
        for round in 0..<108 {
            var here: UInt64 = 0
            for (file, write) in zip(files, writes) {
                // Each replaces the other's, which has a record.
                here += run(write)
                #expect(UInt32(state.flags) & FOS_REPLY_DELEGATED.rawValue != 0)
                leave(file)
                here += run(bringing)
                #expect(fos_delegation_changes(fos_delegation_state(cell.assumingMemoryBound(to: fos_delegation_cell.self))) == 0)
                leave(file)
            }
            if round >= 8 { made += here }
        }
        #expect(made == 0, "\(made) allocations in 100 rounds")
    }
}
