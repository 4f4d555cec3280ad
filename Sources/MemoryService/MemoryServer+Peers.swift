// The balance of the fleet: a member that has no memory left asks its peers, and RETIRE 0 reaches them all.
//
// Protocol: STEAL moves a whole zeroed region, which clients have had no part of, and a share of the limit in one message,
// so the sum of the limits over members and messages stays the same. Two members that ask each other at once: the lower
// index gets, the other's client is told to try again. A request waits having changed nothing, and is run from the start.

import CFosWire
import Fleet
import Glibc
import Messaging

extension MemoryServer {
    private mutating func keep<K: Kernel>(_ request: Request, _ state: MemoryContinuation, _ kernel: K) -> ContinuationID? {
        guard let id = continuations.insert(state) else { return nil }
        letters[Int(id.rawValue & 0xffff)] = request.letter.pointee
        return id
    }

    private func letter(_ id: ContinuationID) -> Request { Request(letter: letters + Int(id.rawValue & 0xffff)) }

    /// Ends a continuation with a status for its client.
    mutating func finish<K: Kernel>(_ id: ContinuationID, _ status: Int32, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if !state.pointee.isOrphan { answer(letter(id), status, kernel) }
        continuations.remove(id)
    }

    // MARK: Memory of peers

    mutating func steal<K: Kernel>(for request: Request, bytes: Int, _ size: FrameSize, _ kernel: K) {
        guard let id = keep(request, MemoryContinuation(kind: .steal), kernel) else { return answer(request, Status.retry, kernel) }
        asking += 1
        askPeer(id, bytes: bytes, size, kernel)
    }

    private mutating func askPeer<K: Kernel>(_ id: ContinuationID, bytes: Int, _ size: FrameSize, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        while state.pointee.peer < members.count {
            let peer = state.pointee.peer
            state.pointee.peer += 1
            if peer == member || !members.isAlive(peer) { continue }
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_MEMORY_STEAL.rawValue)
            message.setBody(fos_memory_steal(bytes: UInt64(bytes), frame_bytes: UInt32(size.bytes), reserved: 0))
            guard kernel.send(message, to: members[peer], expecting: id, onBehalfOf: nil) == .sent else {
                asking -= 1
                return finish(id, Status.retry, kernel)
            }
            state.pointee.responses += 1
            return
        }
        // Nobody has any: what came from peers that gave a little must do.
        asking -= 1
        runAgain(id, kernel)
    }

    mutating func resumeSteal<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if let donation = response.fixed(fos_memory_donation.self), response.status == 0 { accept(donation, kernel) }
        let request = letter(id)
        guard response.status == 0, let wanted = request.fixed(fos_memory_request.self), let size = FrameSize(bytes: wanted.frame_bytes)
        else {
            asking -= 1
            return finish(id, Status.retry, kernel)
        }
        if state.pointee.isOrphan || unboundList(size).first != nil || limit - charged >= options.smallRegionBytes {
            asking -= 1
            return runAgain(id, kernel)
        }
        askPeer(id, bytes: max(Int(min(wanted.bytes, Limits.bytesMax)), options.smallRegionBytes), size, kernel)
    }

    /// Runs a kept request once more, without asking again.
    private mutating func runAgain<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let isOrphan = state.pointee.isOrphan
        again.pointee = letters[Int(id.rawValue & 0xffff)]
        continuations.remove(id)
        if !isOrphan { serve(Request(letter: again), mayAsk: false, kernel) }
    }

    private mutating func accept<K: Kernel>(_ donation: fos_memory_donation, _ kernel: K) {
        limit += Int(donation.limit)
        guard donation.address != 0, let base = UnsafeMutableRawPointer(bitPattern: UInt(donation.address)),
            let size = FrameSize(bytes: donation.frame_bytes)
        else { return }
        let memory = SharedRegion(base: base, bytes: Int(donation.bytes), handle: donation.handle, sharing: .lent)
        if enter(memory, size: size, state: .unbound, isZeroed: true) == nil { kernel.dropRegion(memory) }
    }

    mutating func servePeer<K: Kernel>(_ request: Request, isClient: Bool, _ kernel: K) {
        guard !isClient, let peer = members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) else {
            return answer(request, -EPERM, kernel)
        }
        if UInt32(request.operation) == FOS_OP_PEER_MEMORY_RETIRE.rawValue {
            retireAll(of: request.envelope.pointee.client, kernel)
            return answer(request, 0, kernel)
        }
        guard let wanted = request.fixed(fos_memory_steal.self), let size = FrameSize(bytes: wanted.frame_bytes) else {
            return answer(request, -EINVAL, kernel)
        }
        if asking > 0, peer > member { return answer(request, Status.retry, kernel) }
        answer(request, body: donate(Int(min(wanted.bytes, Limits.bytesMax)), size, kernel), kernel)
    }

    /// A zeroed region if there is one, or a share of the limit; what nobody uses here is dropped for it.
    private mutating func donate<K: Kernel>(_ wanted: Int, _ size: FrameSize, _ kernel: K) -> fos_memory_donation {
        var donation = fos_memory_donation()
        askRetired(kernel, most: Limits.askedOfTick)
        let list = unboundList(size)
        var next = list.first
        while let region = next {
            next = list.next(region)
            guard region.pointee.isWhollyZeroed else { continue }
            let memory = region.pointee.memory
            leave(region)
            limit -= memory.bytes
            donation.limit = UInt64(memory.bytes)
            donation.address = UInt64(UInt(bitPattern: memory.base))
            donation.bytes = UInt64(memory.bytes)
            donation.handle = memory.handle
            donation.frame_bytes = UInt32(size.bytes)
            return donation
        }
        while limit - charged < wanted, let region = unboundList(.small).first ?? unboundList(.huge).first { drop(region, kernel) }
        let free = limit - charged
        let given = min(free, max(min(wanted, free), free / 2))
        limit -= given
        donation.limit = UInt64(given)
        return donation
    }

    // MARK: RETIRE 0

    mutating func retireEverywhere<K: Kernel>(_ request: Request, _ kernel: K) {
        used(kernel)
        retireAll(of: request.envelope.pointee.client, kernel)
        guard members.aliveCount > 1 else { return answer(request, 0, kernel) }
        guard let id = keep(request, MemoryContinuation(kind: .retire), kernel), let state = continuations.state(id) else {
            return answer(request, Status.retry, kernel)
        }
        var isComplete = true
        for peer in 0..<members.count where peer != member && members.isAlive(peer) {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_MEMORY_RETIRE.rawValue)
            if kernel.send(message, to: members[peer], expecting: id, onBehalfOf: request.envelope) == .sent {
                state.pointee.responses += 1
            } else {
                isComplete = false
            }
        }
        // Sent again, it finds less to do.
        if !isComplete {
            answer(request, Status.retry, kernel)
            state.pointee.isOrphan = true
        }
        if state.pointee.responses == 0 { finish(id, 0, kernel) }
    }
}
