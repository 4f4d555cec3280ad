// Two copies of every name: what is known of a name survives the death of the server that serves it.
//
// Role: the members of the fleet are a ring. A name is served by the first live member from the place of its hash on, and kept by
// the next live one too (chained declustering: Hsiao and DeWitt, ICDE 1990). When a server dies, its follower serves its names, and
// whoever lost a copy makes another one.
// Protocol: a change is sent on to the follower, as it is and on behalf of who asked (FOS_NAME_COPY in message.flags), in the turn
// that makes it, and answered when the follower has it. Copies of what was there before a death go as SHARD_PIECE, one at a time,
// each with what is known as it is sent; between two servers messages keep their order, so a copy never goes back in time.
// Invariants: both tables of a name take the same changes in the same order; the follower answers nobody but its predecessor; a
// death while no other death is being repaired loses no name. Loads are best effort and are not copied. A name server that died
// does not come back: its place is its follower's.

import CFosWire
import Glibc
import Messaging

extension NameServer {
    // MARK: Who has what

    /// The member that a hash leads to.
    private func place(_ hash: UInt64) -> Int { Int(fos_name_place(hash, UInt32(membership.count))) }
    /// The first live member from a place on.
    private func firstAlive(from start: Int) -> Int {
        var candidate = start
        for _ in 0..<membership.count {
            if membership.isAlive(candidate) { return candidate }
            candidate = candidate + 1 == membership.count ? 0 : candidate + 1
        }
        return start
    }
    /// The member that serves names of a hash.
    func owner(_ hash: UInt64) -> Int { firstAlive(from: place(hash)) }
    /// The member that has the other copy of what a member serves; nil if that one is alone.
    func follower(of member: Int) -> Int? {
        let next = firstAlive(from: (member + 1) % membership.count)
        return next == member ? nil : next
    }

    // MARK: Changes

    /// Makes a change of a name that is here, and has the follower make it; answers when both have.
    mutating func commit<K: Kernel>(_ request: Request, _ parsed: NameRequest, _ kernel: K) {
        guard let follower = follower(of: member) else { return answer(request.envelope, apply(request, parsed), kernel) }
        guard let id = suspend(request, NameContinuation(wait: .copy, position: 0, bytes: 0)) else {
            return answer(request.envelope, Int32(FOS_TRANSPORT_RETRY.rawValue), kernel)
        }
        let length = request.payload.count
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.pointee.flags = UInt16(FOS_NAME_COPY.rawValue)
        message.pointee.length = UInt32(length)
        if let base = request.payload.baseAddress { payload(of: message).copyMemory(from: base, byteCount: length) }
        let sent = kernel.send(message, to: membership[follower], expecting: id, onBehalfOf: request.envelope)
        // Nothing has changed yet.
        if sent == .full {
            continuations.remove(id)
            return answer(request.envelope, Int32(FOS_TRANSPORT_RETRY.rawValue), kernel)
        }
        let status = apply(request, parsed)
        // The follower is dead, and the news of it on its way here.
        guard sent == .sent else {
            continuations.remove(id)
            return answer(request.envelope, status, kernel)
        }
        continuations.state(id)?.pointee.status = status
    }

    /// The follower has it, or is dead: another one will be told.
    mutating func finishCopy<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let status = continuations.state(id)?.pointee.status else { return }
        answer(Request(letter: letter(id)).envelope, status, kernel)
        continuations.remove(id)
    }

    /// As the follower: a change that its server has made.
    mutating func takeCopy<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isPeer(request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        switch NameRequest.parse(request.payload, needsName: true, needsTarget: false) {
        case .valid(let parsed): answer(request.envelope, apply(request, parsed), kernel)
        case .invalid(let status): answer(request.envelope, status, kernel)
        }
    }

    // MARK: Deaths of servers

    mutating func serverGone<K: Kernel>(_ request: Request, _ kernel: K) {
        // News come from a microkernel's own mailbox, which no server can send from.
        let kind = UInt32(request.envelope.pointee.sender_kind)
        guard kind == FOS_SENDER_KERNEL.rawValue || kind == FOS_SENDER_NONE.rawValue,
            MailboxAddress(rawValue: request.envelope.pointee.from).index == 0
        else { return answer(request.envelope, -EPERM, kernel) }
        let mailbox = MailboxAddress(rawValue: UInt32(truncatingIfNeeded: request.message.pointee.inode))
        guard let peer = membership.index(of: mailbox), peer != member, membership.isAlive(peer) else { return }
        let wasFollower = follower(of: member) == peer
        membership.setDead(peer)
        // Its names are this server's, or this one's copies went with it.
        guard wasFollower || firstAlive(from: peer) == member else { return }
        copied = CopyCursor()
        copyNext(kernel)
    }

    /// Sends the next member, or redirect, of what this server serves.
    mutating func copyNext<K: Kernel>(_ kernel: K) {
        guard !isCopying, var cursor = copied, let follower = follower(of: member) else { return }
        while cursor.member < table.membersUsed {
            let each = table.members[Int(cursor.member)]
            if each.entry != NameTable.none, owner(table.entries[Int(each.entry)].hash) == member {
                return send(piece: each.entry, each, cursor, to: follower, kernel)
            }
            cursor.member += 1
        }
        while cursor.entry < table.entriesUsed {
            let entry = table.entries[Int(cursor.entry)]
            if entry.isUsed, entry.targetLength > 0, owner(entry.hash) == member {
                return send(piece: cursor.entry, nil, cursor, to: follower, kernel)
            }
            cursor.entry += 1
        }
        copied = nil
    }

    private mutating func send<K: Kernel>(piece index: UInt32, _ member: NameMemberEntry?, _ cursor: CopyCursor, to follower: Int, _ kernel: K) {
        let entry = table.entries[Int(index)]
        let name = table.name(index), target = table.target(index)
        var piece = fos_name_piece()
        piece.flags = (entry.isMany ? FOS_NAME_PIECE_MANY.rawValue : 0) | (member == nil ? FOS_NAME_PIECE_REDIRECT.rawValue : 0)
        piece.version = entry.version
        piece.name_length = UInt32(name.count)
        piece.target_length = member == nil ? UInt32(target.count) : 0
        piece.owner_uid = entry.ownerUID
        piece.member_uid = member?.ownerUID ?? entry.ownerUID
        piece.client = member?.client ?? entry.client
        piece.client_generation = member?.clientGeneration ?? entry.clientGeneration
        if let member { piece.member = member.member }
        var next = cursor
        if member == nil { next.entry += 1 } else { next.member += 1 }
        copied = cursor
        guard let id = continuations.insert(NameContinuation(wait: .piece, position: 0, bytes: 0)) else { return kernel.tickAgain() }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_NAME_SHARD_PIECE.rawValue)
        let room = payload(of: message)
        let fixed = MemoryLayout<fos_name_piece>.size
        withUnsafeBytes(of: piece) { room.copyMemory(from: $0.baseAddress!, byteCount: fixed) }
        (room + fixed).copyMemory(from: name.bytes, byteCount: name.count)
        if member == nil { (room + fixed + name.count).copyMemory(from: target.bytes, byteCount: target.count) }
        message.pointee.length = UInt32(fixed + name.count) + piece.target_length
        guard kernel.send(message, to: membership[follower], expecting: id, onBehalfOf: nil) == .sent else {
            continuations.remove(id)
            return kernel.tickAgain()
        }
        copied = next
        isCopying = true
    }

    mutating func finishPiece<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        continuations.remove(id)
        isCopying = false
        copyNext(kernel)
    }

    /// As the new follower: something that was there before the death.
    mutating func takePiece<K: Kernel>(_ request: Request, _ kernel: K) {
        let fixed = MemoryLayout<fos_name_piece>.size
        guard isPeer(request.envelope), request.payload.count >= fixed, let base = request.payload.baseAddress else {
            return answer(request.envelope, -EACCES, kernel)
        }
        let piece = base.loadUnaligned(as: fos_name_piece.self)
        guard fixed + Int(piece.name_length) + Int(piece.target_length) <= request.payload.count else { return answer(request.envelope, -EINVAL, kernel) }
        let bytes = UnsafePointer((base + fixed).assumingMemoryBound(to: UInt8.self))
        let name = NameView(bytes: bytes, count: Int(piece.name_length))
        let target = NameView(bytes: bytes + name.count, count: Int(piece.target_length))
        guard NameRequest.isWellFormed(name), target.count == 0 || NameRequest.isWellFormed(target) else { return answer(request.envelope, -EINVAL, kernel) }
        answer(request.envelope, keep(piece, name, target), kernel)
    }

    private mutating func keep(_ piece: fos_name_piece, _ name: NameView, _ target: NameView) -> Int32 {
        // The news of its death was faster.
        if isDead(client: piece.client, piece.client_generation) { return 0 }
        let hash = name.hash
        var entry = table.find(name, hash: hash)
        let isNew = entry == NameTable.none
        if isNew { entry = table.insert(name, hash: hash, ownerUID: piece.owner_uid, isMany: piece.flags & FOS_NAME_PIECE_MANY.rawValue != 0) }
        guard entry != NameTable.none else { return -ENOSPC }
        if piece.flags & FOS_NAME_PIECE_REDIRECT.rawValue != 0 {
            table.setTarget(entry, target, client: piece.client, generation: piece.client_generation)
            return 0
        }
        let old = table.member(entry, mailbox: piece.member.mailbox)
        guard old == NameTable.none else { return 0 }
        if table.addMember(entry, piece.member, ownerUID: piece.member_uid, client: piece.client, generation: piece.client_generation) { return 0 }
        if isNew { table.remove(entry) }
        return -ENOSPC
    }
}

/// How far the copying of what was there before a death has come: members first, then redirects.
struct CopyCursor: BitwiseCopyable {
    var member: UInt32 = 0
    var entry: UInt32 = 0
}
