// CoreKernel: the live Kernel value that servers are handed; a pointer to their core's state.
//
// Role: what a server asks of its host, done with mailboxes, channels and the board (Messaging/Kernel.swift says what each promises).
// Invariant: trivially copyable, and valid on its core's thread alone.

public import CFosWire
import CPlatform
public import Messaging

public struct CoreKernel: Kernel, @unchecked Sendable {
    @usableFromInline let state: UnsafeMutablePointer<Core>
    @usableFromInline init(state: UnsafeMutablePointer<Core>) { self.state = state }

    public var now: Timestamp {
        var seconds: Int64 = 0
        let nanoseconds = fos_platform_realtime(&seconds)
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    public var monotonic: UInt64 { fos_platform_monotonic_ns() }

    /// A stream of the core's own, seeded from getrandom(2).
    public func random() -> UInt64 { state.pointee.random.next() }

    public var mailbox: MailboxAddress {
        MailboxAddress(core: state.pointee.index, index: Int(state.pointee.running.pointee))
    }

    public var core: Int { state.pointee.index }

    public func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        state.pointee.send(
            message, to: destination, from: Int(state.pointee.running.pointee), kind: UInt8(FOS_SENDER_SERVER.rawValue),
            expecting: continuation.rawValue, awaits: continuation != .none, onBehalfOf: envelope)
    }

    public func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult {
        let sender = Int(state.pointee.running.pointee)
        guard letter.pointee.envelope.hops < Core.hopsMax else { return .full }
        var claim: Core.Claim?
        let result = state.pointee.claim(destination, &claim)
        guard let claim else { return result }
        let source = UnsafeMutablePointer(mutating: letter)
        let target = fos_letter_envelope(claim.letter)!
        let message = fos_letter_message(claim.letter)!
        target.pointee = fos_letter_envelope(source).pointee
        target.pointee.hops &+= 1
        Core.copy(fos_letter_message(source), to: message)
        message.pointee.destination = destination.rawValue
        message.pointee.epoch = claim.port.pointee.epoch
        state.pointee.mailboxes[sender].forwards &+= 1
        state.pointee.trace(
            mailbox: sender, kind: TraceKind.sent, operation: message.pointee.operation, status: 0,
            inode: message.pointee.inode, client: target.pointee.client, detail: destination.rawValue)
        state.pointee.commit(claim)
        return .sent
    }

    public func scratch() -> UnsafeMutablePointer<fos_message> {
        let message = fos_letter_message(state.pointee.scratch)!
        message.pointee = fos_message()
        return message
    }

    public func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let sender = Int(state.pointee.running.pointee)
        state.pointee.reply(to: envelope, message, from: sender)
    }

    public func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        state.pointee.bulk(of: envelope, offset: offset, count: count)
    }

    public func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>? {
        state.pointee.delegation(client: client, generation: generation, channel: channel)
    }

    public func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32> {
        let client = envelope.pointee.client
        let fabric = state.pointee.fabric
        guard UInt32(envelope.pointee.rights) & FOS_RIGHT_ACT_AS.rawValue == 0,
            fabric.isLive(client: client, generation: envelope.pointee.client_generation)
        else { return UnsafeBufferPointer(start: nil, count: 0) }
        let entry = fabric.clients + Int(client)
        return UnsafeBufferPointer(start: entry.pointee.groups, count: Int(entry.pointee.groupCount))
    }

    public func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32? {
        let fabric = state.pointee.fabric
        for index in (client.map { Int($0) + 1 } ?? 0)..<fabric.clientsMax {
            let entry = fabric.clients + index
            if fos_load_acquire_u32(Fabric.liveWord(entry)) != 0, entry.pointee.pid == pid { return UInt32(index) }
        }
        return nil
    }

    public func generation(ofClient client: UInt32) -> UInt32 {
        let fabric = state.pointee.fabric
        return Int(client) < fabric.clientsMax ? fos_load_acquire_u32(Fabric.liveWord(fabric.clients + Int(client))) : 0
    }

    public func noticeRoom(client: UInt32) -> Int { state.pointee.noticeRoom(client: client) }

    public func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool {
        state.pointee.notify(client: client, notice)
    }

    public var kernelCacheClient: UInt32? {
        let word = fos_load_acquire_u32(state.pointee.fabric.kernelCacheClient)
        return word == 0 ? nil : word - 1
    }

    public func publish(slot: Int, owner: MailboxAddress) {
        precondition((0..<Int(FOS_SLOTS)).contains(slot))
        let board = state.pointee.fabric.board
        fos_store_release_u32(fos_board_slot_owner(board, UInt32(slot)), owner.rawValue)
        _ = fos_fetch_add_u32(fos_board_slot_epoch(board), 1)
    }

    public func publish(directory: UInt64, shardBits: Int) -> Bool {
        let table = fos_board_sharded(state.pointee.fabric.board)
        if shardBits > 0 { return fos_shard_publish(table, directory, UInt32(shardBits)) != 0 }
        fos_shard_withdraw(table, directory)
        return true
    }
    public func shardBits(of directory: UInt64) -> Int { Int(fos_shard_bits(fos_board_sharded(state.pointee.fabric.board), directory)) }

    public func mayChange(inode: UInt64) { fos_prefetch_to_write(fos_board_inode_epoch(state.pointee.fabric.board, inode)) }

    public func changed(inode: UInt64) {
        let word = fos_board_inode_epoch(state.pointee.fabric.board, inode)!
        // Two cores may own inodes that share a word. A core that is alone stores it: a locked instruction would wait until a
        // client that has looked at the word has given its line back.
        if state.pointee.fabric.coreCount == 1 {
            fos_store_release_u32(word, fos_load_relaxed_u32(word) &+ 1)
        } else {
            _ = fos_fetch_add_u32(word, 1)
        }
    }

    public func epoch(ofInode inode: UInt64) -> UInt32 {
        fos_load_relaxed_u32(fos_board_inode_epoch(state.pointee.fabric.board, inode))
    }

    public func tickAgain() { state.pointee.workedSinceTick = true }

    public func idleAgain() {
        state.pointee.idleWanted |= 1 << UInt64(state.pointee.running.pointee)
        // Should the core have to step aside for a client, it does not sleep for long.
        state.pointee.workedSinceTick = true
    }

    public func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {
        state.pointee.trace(
            mailbox: Int(state.pointee.running.pointee), kind: kind, operation: operation, status: status, inode: inode,
            client: client, detail: detail)
    }
}

extension Core {
    /// A request that has been forwarded so often is going in circles.
    static var hopsMax: UInt16 { 64 }

    /// Sends a request from a mailbox of this core. `awaits` reserves a response slot in it.
    mutating func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, from sender: Int, kind: UInt8,
        expecting continuation: UInt32, awaits: Bool, onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        var reservation: UInt32 = 0
        if awaits {
            reservation = mailboxes[sender].reserveResponse()
            if reservation == 0 { return .full }
        }
        var claimed: Claim?
        let result = claim(destination, &claimed)
        guard let claimed else {
            if awaits { mailboxes[sender].cancelResponse(reservation) }
            return result
        }
        let target = fos_letter_envelope(claimed.letter)!
        if let envelope {
            target.pointee = envelope.pointee
        } else {
            target.pointee = fos_envelope()
            target.pointee.client = UInt32.max
            if kind == UInt8(FOS_SENDER_KERNEL.rawValue) {
                target.pointee.uid = fabric.ownerUID
                target.pointee.rights = UInt16(FOS_RIGHT_ADMIN.rawValue)
            }
        }
        target.pointee.sender_kind = awaits || kind == UInt8(FOS_SENDER_KERNEL.rawValue) ? kind : UInt8(FOS_SENDER_NONE.rawValue)
        target.pointee.from = MailboxAddress(core: index, index: sender).rawValue
        target.pointee.continuation = continuation
        target.pointee.host_mark = reservation
        target.pointee.hops = 0
        // What was said of the request's inode says nothing of this message's.
        target.pointee.settled = 0
        target.pointee.arrived = clock
        let copy = fos_letter_message(claimed.letter)!
        Self.copy(message, to: copy)
        copy.pointee.destination = destination.rawValue
        copy.pointee.epoch = claimed.port.pointee.epoch
        mailboxes[sender].sent &+= 1
        trace(
            mailbox: sender, kind: TraceKind.sent, operation: copy.pointee.operation, status: 0, inode: copy.pointee.inode,
            client: target.pointee.client, detail: destination.rawValue)
        commit(claimed)
        return .sent
    }

    /// Answers a request on behalf of a mailbox of this core.
    @inline(__always) mutating func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>, from sender: Int)
    {
        let status = message.pointee.status
        mailboxes[sender].replies &+= 1
        if status < 0 { mailboxes[sender].errors &+= 1 } else if status == Status.retry { mailboxes[sender].retries &+= 1 }
        trace(
            mailbox: sender, kind: TraceKind.replied, operation: message.pointee.operation, status: status,
            inode: message.pointee.inode, client: envelope.pointee.client, detail: envelope.pointee.channel)
        switch UInt32(envelope.pointee.sender_kind) {
        case FOS_SENDER_CLIENT.rawValue: replyToClient(envelope, message)
        case FOS_SENDER_SERVER.rawValue, FOS_SENDER_KERNEL.rawValue: respond(to: envelope, message)
        default: break
        }
    }
}
