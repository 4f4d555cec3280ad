// Servers that are broken on purpose: a kernel around the simulator's that lies, loses or repeats.
//
// Role: proves that the checker can fail. A mutation touches what a server says to its kernel, or what it is handed, so the
// production code stays as it is; each strikes by chance, from a stream of its own.

import CFosWire
import FileService
import Glibc
import MemoryService
import Messaging
import Simulation
import Simulator

enum Mutation: String, CaseIterable {
    case epochNotBumped
    case replyLost
    case replyTwice
    case linkCountOffByOne
    case entryLostInRename
    case entryDoubledInListing
    case removalForgotten
    case slotOwnedTwice
    case staleAttributes
    case unlockForgotten
    case pageShared
    case forwardedForEver
    case timeNotMoved
    case writeLost
    case lockGrantedTwice
    case peerMessageLost
    case creationAnsweredAndUndone
    case appendMisplaced
    case memoryReclaimedEarly
    case memoryNotZeroed
}

/// One mutation of one server, and its chance.
final class Mutator {
    let mutation: Mutation
    var random: SeededRandom
    var strikes = 0
    var lastData: [UInt8] = []
    var remembered: [UInt64: fos_attributes] = [:]
    init(_ mutation: Mutation, seed: UInt64) {
        self.mutation = mutation
        random = SeededRandom(seed: seed)
    }
    /// One time in `n`; every time once it has struck too seldom to tell.
    func strikes(oneIn n: Int) -> Bool {
        guard random.below(n) == 0 else { return false }
        strikes += 1
        return true
    }
}

struct MutatingKernel: Kernel {
    let real: SimKernel
    unowned(unsafe) let mutator: Mutator
    /// Replies go nowhere.
    var isSilent = false

    var now: Timestamp {
        // Long ago, so that what is changed now looks unchanged.
        if mutator.mutation == .timeNotMoved, mutator.strikes(oneIn: 4) { return Timestamp(seconds: 1_700_000_000, nanoseconds: 1) }
        return real.now
    }
    var monotonic: UInt64 { real.monotonic }
    func random() -> UInt64 { real.random() }
    var mailbox: MailboxAddress { real.mailbox }
    var core: Int { real.core }
    func scratch() -> UnsafeMutablePointer<fos_message> { real.scratch() }
    func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32> { real.groups(of: envelope) }
    func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32? { real.client(ofProcess: pid, after: client) }
    func generation(ofClient client: UInt32) -> UInt32 { real.generation(ofClient: client) }
    func noticeRoom(client: UInt32) -> Int { real.noticeRoom(client: client) }
    func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool { real.notify(client: client, notice) }
    var kernelCacheClient: UInt32? { real.kernelCacheClient }
    func publish(slot: Int, owner: MailboxAddress) { real.publish(slot: slot, owner: owner) }
    func epoch(ofInode inode: UInt64) -> UInt32 { real.epoch(ofInode: inode) }
    func tickAgain() { real.tickAgain() }
    func idleAgain() { real.idleAgain() }
    func makeRegion(bytes: Int) -> SharedRegion? { real.makeRegion(bytes: bytes) }
    func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion? {
        let region = real.makeFrames(bytes: bytes, huge: huge, sharing: sharing)
        // Memory that its server takes for zeros, and is not.
        if let region, mutator.mutation == .memoryNotZeroed, mutator.strikes(oneIn: 1) { memset(region.base, 0x5a, bytes) }
        return region
    }
    var hasHugeFrames: Bool { real.hasHugeFrames }
    func populate(_ region: SharedRegion, offset: Int, bytes: Int) { real.populate(region, offset: offset, bytes: bytes) }
    func discard(_ region: SharedRegion, offset: Int, bytes: Int) { real.discard(region, offset: offset, bytes: bytes) }
    func isAlone(_ region: SharedRegion) -> Bool {
        if real.isAlone(region) { return true }
        return mutator.mutation == .memoryReclaimedEarly && mutator.strikes(oneIn: 1)
    }
    func dropRegion(_ region: SharedRegion) { real.dropRegion(region) }
    func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool {
        real.handOut(region, token: token, to: envelope)
    }
    func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {
        real.trace(kind: kind, operation: operation, status: status, inode: inode, client: client, detail: detail)
    }

    func changed(inode: UInt64) {
        if mutator.mutation == .epochNotBumped, mutator.strikes(oneIn: 2) { return }
        real.changed(inode: inode)
    }

    func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        let operation = UInt32(message.pointee.operation)
        // A one-way message, or one whose answer is then invented by nobody.
        if mutator.mutation == .peerMessageLost, operation >= FOS_OP_PEER_FIRST.rawValue, mutator.strikes(oneIn: 8) { return .sent }
        return real.send(message, to: destination, expecting: continuation, onBehalfOf: envelope)
    }

    func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult {
        real.forward(letter, to: mutator.mutation == .forwardedForEver && mutator.strikes(oneIn: 1) ? mailbox : destination)
    }

    func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        if isSilent { return }
        let isAnswerToClient = UInt32(envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue
        let copy = UnsafeMutablePointer(mutating: message)
        let operation = UInt32(message.pointee.operation)
        switch mutator.mutation {
        case .replyLost where isAnswerToClient && mutator.strikes(oneIn: 16): return
        case .replyTwice where isAnswerToClient && mutator.strikes(oneIn: 16): 
            let again = UnsafeMutablePointer<fos_letter>.allocate(capacity: 1)
            again.initialize(to: fos_letter())
            let kept = Request(letter: again).message
            UnsafeMutableRawPointer(kept).copyMemory(from: message, byteCount: MemoryLayout<fos_message>.size + Int(message.pointee.length))
            var target = envelope.pointee
            real.reply(to: &target, message)
            real.reply(to: &target, kept)
            again.deallocate()
            return
        case .linkCountOffByOne where carriesAttributes(operation, message) && mutator.strikes(oneIn: 3):
            attributes(copy).pointee.links &+= 1
        case .staleAttributes where carriesAttributes(operation, message) && operation == FOS_OP_GETATTR.rawValue:
            let fresh = attributes(copy).pointee
            if let old = mutator.remembered[fresh.inode], mutator.strikes(oneIn: 2) {
                attributes(copy).pointee.size = old.size
                attributes(copy).pointee.mode = old.mode
                attributes(copy).pointee.links = old.links
            } else {
                mutator.remembered[fresh.inode] = fresh
            }
        case .entryDoubledInListing where operation == FOS_OP_READDIR.rawValue && message.pointee.status == 0:
            guard let room = real.bulk(of: envelope, offset: 0, count: message.pointee.bulk_length + 512), mutator.strikes(oneIn: 1) else {
                break
            }
            var last = 0
            var end = 0
            while end < Int(message.pointee.bulk_length) {
                last = end
                end += Int(room.load(fromByteOffset: end, as: fos_directory_entry.self).record_length)
            }
            let record = Array(room[last..<end])
            room.baseAddress!.advanced(by: end).copyMemory(from: record, byteCount: record.count)
            copy.pointee.bulk_length += UInt32(record.count)
        case .appendMisplaced where operation == FOS_OP_WRITE.rawValue && message.pointee.status == 0 && mutator.strikes(oneIn: 3):
            body(copy).assumingMemoryBound(to: fos_io_reply.self).pointee.offset += 8
        default: break
        }
        real.reply(to: envelope, message)
    }

    func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        real.bulk(of: envelope, offset: offset, count: count)
    }

    private func body(_ message: UnsafeMutablePointer<fos_message>) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(message) + MemoryLayout<fos_message>.size
    }
    private func attributes(_ message: UnsafeMutablePointer<fos_message>) -> UnsafeMutablePointer<fos_attributes> {
        body(message).assumingMemoryBound(to: fos_attributes.self)
    }
    private func carriesAttributes(_ operation: UInt32, _ message: UnsafePointer<fos_message>) -> Bool {
        message.pointee.status == 0 && message.pointee.length == UInt32(MemoryLayout<fos_attributes>.size)
            && [FOS_OP_GETATTR.rawValue, FOS_OP_CREATE.rawValue, FOS_OP_LOOKUP.rawValue].contains(operation)
    }
}

/// A file server with a mutation. What a kernel cannot spoil, it spoils in the requests that the server is handed.
final class MutatedFileServer: SimServer, InspectableFileServer {
    var server: FileServer<MemoryStore>
    let mutator: Mutator
    init(_ server: consuming FileServer<MemoryStore>, _ mutator: Mutator) {
        self.server = server
        self.mutator = mutator
        super.init()
    }
    func forEachInode(_ body: (InodeReport) -> Void) { server.forEachInode(body) }
    var work: WorkReport { server.work }
    var giving: (slot: Int, taker: Int)? { server.slotOnItsWay }
    func owner(ofSlot slot: Int) -> Int { server.owner(ofSlot: slot) }

    override func receive(_ request: Request, _ kernel: SimKernel) {
        let mutating = MutatingKernel(real: kernel, mutator: mutator)
        guard !spoil(request, mutating) else { return }
        server.receive(request, mutating)
    }
    override func resume(_ response: Response, _ kernel: SimKernel) {
        server.resume(response, MutatingKernel(real: kernel, mutator: mutator))
    }
    override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }

    /// True: the request is dealt with.
    private func spoil(_ request: Request, _ kernel: MutatingKernel) -> Bool {
        let operation = UInt32(request.operation)
        switch (mutator.mutation, operation) {
        case (.unlockForgotten, FOS_OP_SETLK.rawValue):
            guard let lock = request.fixed(fos_lock_request.self), lock.kind == FOS_LOCK_UNLOCK.rawValue, mutator.strikes(oneIn: 2) else {
                return false
            }
            return pretend(request, kernel)
        case (.lockGrantedTwice, FOS_OP_SETLK.rawValue):
            guard let lock = request.fixed(fos_lock_request.self), lock.kind != FOS_LOCK_UNLOCK.rawValue, mutator.strikes(oneIn: 2) else {
                return false
            }
            return pretend(request, kernel)
        case (.entryLostInRename, FOS_OP_PEER_RENAME_COMMIT.rawValue):
            // The new parent agrees, and forgets.
            guard mutator.strikes(oneIn: 2) else { return false }
            request.message.pointee.operation = UInt16(FOS_OP_PEER_RENAME_ABORT.rawValue)
            server.receive(request, MutatingKernel(real: kernel.real, mutator: mutator, isSilent: true))
            request.message.pointee.operation = UInt16(FOS_OP_PEER_RENAME_COMMIT.rawValue)
            let message = kernel.scratch()
            message.pointee.operation = request.operation
            message.setBody(fos_peer_reply())
            kernel.real.reply(to: request.envelope, message)
            return true
        case (.removalForgotten, FOS_OP_UNLINK.rawValue), (.removalForgotten, FOS_OP_RMDIR.rawValue):
            // Acknowledged, not done.
            guard mutator.strikes(oneIn: 2) else { return false }
            return pretend(request, kernel)
        case (.writeLost, FOS_OP_WRITE.rawValue):
            guard let io = request.fixed(fos_io_request.self), mutator.strikes(oneIn: 3) else { return false }
            let message = kernel.scratch()
            message.pointee.operation = request.operation
            message.pointee.inode = request.message.pointee.inode
            message.setBody(fos_io_reply(offset: io.offset, size: io.offset + 8))
            message.pointee.bulk_length = request.message.pointee.bulk_length
            kernel.real.reply(to: request.envelope, message)
            return true
        case (.pageShared, FOS_OP_WRITE.rawValue):
            // What is written to one file is in the page of another one: the bytes of the last write instead of these.
            guard let room = kernel.real.bulk(of: request.envelope, offset: 0, count: 8) else { return false }
            let bytes = Array(room)
            if mutator.lastData.count == 8, mutator.strikes(oneIn: 3) { room.copyBytes(from: mutator.lastData) }
            mutator.lastData = bytes
            return false
        case (.creationAnsweredAndUndone, FOS_OP_CREATE.rawValue):
            // A name of one letter more: whoever asks for the right one does not find it.
            guard let make = request.fixed(fos_make_request.self), make.name_length < 200, mutator.strikes(oneIn: 4) else { return false }
            var changed = make
            changed.name_length += 1
            request.payload.storeBytes(of: changed, as: fos_make_request.self)
            let length = request.message.pointee.length
            request.message.pointee.length = length + 1
            request.payload[Int(length)] = UInt8(ascii: "9")
            return false
        default: return false
        }
    }

    private func pretend(_ request: Request, _ kernel: MutatingKernel) -> Bool {
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.pointee.inode = request.message.pointee.inode
        kernel.real.reply(to: request.envelope, message)
        return true
    }
}

/// A memory server with a mutation.
final class MutatedMemoryServer: SimServer {
    var server: MemoryServer
    let mutator: Mutator
    init(_ server: consuming MemoryServer, _ mutator: Mutator) {
        self.server = server
        self.mutator = mutator
        super.init()
    }
    override func receive(_ request: Request, _ kernel: SimKernel) {
        server.receive(request, MutatingKernel(real: kernel, mutator: mutator))
    }
    override func resume(_ response: Response, _ kernel: SimKernel) {
        server.resume(response, MutatingKernel(real: kernel, mutator: mutator))
    }
    override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}
