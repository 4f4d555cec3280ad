// Messages of the loop host: what clients, servers and the microkernel send, and how each is delivered.
//
// Protocol: a send puts a parcel into the queue of its route; chance picks a queue, and `deliver` hands its first parcel over.
// Messages of one route and one kind keep their order.
// Invariants: a full mailbox, or chance, refuses a request and never a response; what a server answers twice, or to nobody, is a
// violation.

import CFosWire
import Messaging

extension LoopHost {
    func sendFromClient(_ client: LoopClient, channel: UInt32, sequence: UInt32, _ call: LoopCall, to destination: MailboxAddress) {
        let letter = network.takeLetter()
        var message = fos_message()
        message.operation = call.operation
        message.flags = call.flags
        message.destination = destination.rawValue
        message.sequence = sequence
        message.bulk_offset = call.bulkOffset
        message.bulk_length = call.bulkLength
        message.given = call.given
        message.given_for = call.givenFor
        message.inode = call.inode
        var envelope = fos_envelope()
        envelope.sender_kind = UInt8(FOS_SENDER_CLIENT.rawValue)
        envelope.rights = client.rights
        envelope.client = client.index
        envelope.client_generation = client.generation
        envelope.channel = channel
        envelope.sequence = sequence
        (envelope.uid, envelope.gid, envelope.pid) = (client.uid, client.gid, client.pid)
        if let acting = call.actingAs, UInt32(client.rights) & FOS_RIGHT_ACT_AS.rawValue != 0 {
            (envelope.uid, envelope.gid, envelope.pid) = (acting.uid, acting.gid, acting.pid)
        }
        (message.uid, message.gid, message.pid) = (envelope.uid, envelope.gid, envelope.pid)
        fill(letter, message, call.payload)
        letter.pointee.envelope = envelope
        guard servers[destination] != nil else { return refuse(letter, FOS_TRANSPORT_STALE) }
        guard network.requestsTo[destination, default: 0] < options.mailboxCapacity else { return refuse(letter, FOS_TRANSPORT_FULL) }
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .client(client.index), to: .server(destination), type: .request))
    }

    /// The client's own core answers instead of the server.
    private func refuse(_ letter: UnsafeMutablePointer<fos_letter>, _ status: fos_transport_status) {
        refusals += 1
        letter.pointee.message.status = Int32(status.rawValue)
        letter.pointee.message.length = 0
        letter.pointee.message.bulk_length = 0
        network.enqueue(
            LoopParcel(letter: letter), LoopRoute(from: .kernel, to: .client(letter.pointee.envelope.client), type: .response))
    }

    private func admits(_ destination: MailboxAddress) -> SendResult {
        guard servers[destination] != nil else { return .stale }
        if network.requestsTo[destination, default: 0] >= options.mailboxCapacity || random.chance(options.fullChance) {
            refusals += 1
            return .full
        }
        return .sent
    }

    func send(
        _ message: UnsafePointer<fos_message>, from: MailboxAddress, to destination: MailboxAddress,
        expecting continuation: ContinuationID, onBehalfOf behalf: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        let admitted = admits(destination)
        guard admitted == .sent else { return admitted }
        let letter = network.takeLetter()
        var envelope = behalf?.pointee ?? fos_envelope()
        envelope.sender_kind = UInt8((continuation == .none ? FOS_SENDER_NONE : FOS_SENDER_SERVER).rawValue)
        envelope.from = from.rawValue
        envelope.continuation = continuation.rawValue
        envelope.settled = 0
        copy(message, into: letter)
        letter.pointee.envelope = envelope
        letter.pointee.message.destination = destination.rawValue
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: .server(destination), type: .request))
        return .sent
    }

    func forward(_ source: UnsafePointer<fos_letter>, from: MailboxAddress, to destination: MailboxAddress) -> SendResult {
        let admitted = admits(destination)
        guard admitted == .sent else { return admitted }
        let letter = network.takeLetter()
        letter.pointee = source.pointee
        letter.pointee.envelope.hops &+= 1
        letter.pointee.message.destination = destination.rawValue
        servers[from]?.forwards += 1
        if letter.pointee.envelope.hops > 64 { violate("a request was forwarded \(letter.pointee.envelope.hops) times") }
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: .server(destination), type: .request))
        return .sent
    }

    func reply(from: MailboxAddress, to target: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let letter = network.takeLetter()
        copy(message, into: letter)
        letter.pointee.envelope = target.pointee
        letter.pointee.message.sequence = target.pointee.sequence
        let endpoint: LoopEndpoint
        switch UInt32(target.pointee.sender_kind) {
        case FOS_SENDER_CLIENT.rawValue: endpoint = .client(target.pointee.client)
        case FOS_SENDER_SERVER.rawValue: endpoint = .server(MailboxAddress(rawValue: target.pointee.from))
        case FOS_SENDER_KERNEL.rawValue: endpoint = .kernel
        case FOS_SENDER_NONE.rawValue:
            network.giveBack(letter)
            return
        default:
            violate("a reply to an envelope with sender kind \(target.pointee.sender_kind)")
            network.giveBack(letter)
            return
        }
        letter.pointee.envelope.from = from.rawValue
        network.enqueue(LoopParcel(letter: letter), LoopRoute(from: .server(from), to: endpoint, type: .response))
    }

    func sendNotice(_ notice: UnsafePointer<fos_notice>, from: MailboxAddress, client: UInt32) {
        let copy = UnsafeMutablePointer<fos_notice>.allocate(capacity: 1)
        copy.initialize(to: notice.pointee)
        liveClient(client)?.noticeSent(core: from.core)
        network.enqueue(LoopParcel(notice: copy), LoopRoute(from: .server(from), to: .client(client), type: .notice))
    }

    // MARK: Delivering

    func deliver(_ parcel: LoopParcel, _ route: LoopRoute) {
        if let notice = parcel.notice {
            defer { notice.deallocate() }
            hash.mix(UInt64(notice.pointee.kind))
            hash.mix(notice.pointee.inode)
            guard case .client(let number) = route.to, case .server(let address) = route.from else { return }
            liveClient(number)?.noticeArrived(notice.pointee, core: address.core)
            return
        }
        guard let letter = parcel.letter else { return }
        defer { network.giveBack(letter) }
        letter.pointee.envelope.arrived = monotonic
        mix(letter)
        switch route.to {
        case .client(let number):
            onDeliver?(letter, nil)
            guard let client = liveClient(number), client.generation == letter.pointee.envelope.client_generation else { return }
            client.replyArrived(
                channel: letter.pointee.envelope.channel, sequence: letter.pointee.envelope.sequence, Request(letter: letter).message)
        case .kernel:
            onDeliver?(letter, nil)
            let message = Request(letter: letter)
            kernelReplies[letter.pointee.envelope.continuation] = LoopReply(
                header: message.message.pointee, payload: Array(message.payload), bulk: [])
        case .server(let address):
            onDeliver?(letter, address)
            guard let server = servers[address] else { return }
            let kernel = LoopKernel(host: self, mailbox: address)
            if route.type == .response {
                server.resume(Response(letter: letter), kernel)
            } else {
                server.receive(Request(letter: letter), kernel)
            }
            if letter.pointee.message.operation == UInt16(FOS_OP_CLIENT_GONE.rawValue), route.from == .kernel {
                clients[Int(letter.pointee.envelope.client) - 1].forgottenBy.insert(address)
            }
        }
    }

    private func mix(_ letter: UnsafeMutablePointer<fos_letter>) {
        let message = Request(letter: letter)
        hash.mix(UInt64(message.operation) << 32 | UInt64(message.message.pointee.destination))
        hash.mix(UInt64(UInt32(bitPattern: message.message.pointee.status)) << 32 | UInt64(letter.pointee.envelope.client))
        hash.mix(message.message.pointee.inode)
        hash.mix(monotonic)
        hash.mix(UnsafeRawBufferPointer(message.payload))
    }

    func fill(_ letter: UnsafeMutablePointer<fos_letter>, _ message: fos_message, _ payload: [UInt8]) {
        let count = min(payload.count, Int(FOS_PAYLOAD_BYTES_MAX))
        letter.pointee.message = message
        letter.pointee.message.length = UInt32(count)
        payload.withUnsafeBytes { bytes in
            guard count > 0, let base = bytes.baseAddress else { return }
            (UnsafeMutableRawPointer(Request(letter: letter).message) + MemoryLayout<fos_message>.size).copyMemory(
                from: base, byteCount: count)
        }
    }
    func copy(_ message: UnsafePointer<fos_message>, into letter: UnsafeMutablePointer<fos_letter>) {
        let length = Int(message.pointee.length)
        precondition(length <= Int(FOS_PAYLOAD_BYTES_MAX), "a server sends a payload that is too long")
        UnsafeMutableRawPointer(Request(letter: letter).message).copyMemory(
            from: message, byteCount: MemoryLayout<fos_message>.size + length)
    }
}
