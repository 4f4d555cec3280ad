// REGISTER, REDIRECT, DEREGISTER, LOAD and MEMBER_DEAD: changes of the namespace.
//
// A change runs at the owner of its name. A client's registration is first put to the privilege fleet, if there is
// one; the table is looked at again when the answer comes, because other transactions ran meanwhile.

import CFosWire
import Glibc
import Messaging

extension NameServer {
    // MARK: REGISTER and REDIRECT

    mutating func change<K: Kernel>(_ request: Request, _ kernel: K) {
        let isRedirect = UInt32(request.operation) == FOS_OP_NAME_REDIRECT.rawValue
        let parsed: NameRequest
        switch NameRequest.parse(request.payload, needsName: true, needsTarget: isRedirect) {
        case .valid(let valid): parsed = valid
        case .invalid(let status): return answer(request.envelope, status, kernel)
        }
        let hash = parsed.name.hash
        guard owner(hash) == member else { return forward(request, to: owner(hash), kernel) }
        guard !parsed.name.isProtected || isKernel(request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        if let privilege, UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue {
            return ask(privilege, request, parsed, kernel)
        }
        commit(request, parsed, kernel)
    }

    private mutating func ask<K: Kernel>(_ privilege: MailboxAddress, _ request: Request, _ parsed: NameRequest, _ kernel: K) {
        guard let id = suspend(request, NameContinuation(wait: .check, position: 0, bytes: 0)) else {
            return answer(request.envelope, Status.retry, kernel)
        }
        let message = kernel.scratch()
        let envelope = request.envelope
        message.pointee.operation = UInt16(FOS_OP_PRIVILEGE_CHECK.rawValue)
        let room = message.body
        room.storeBytes(
            of: fos_privilege_question(
                action: FOS_PRIVILEGE_REGISTER.rawValue, subject_kind: UInt32(envelope.pointee.sender_kind), uid: envelope.pointee.uid,
                rights: UInt32(envelope.pointee.rights), mailbox: 0, name_length: UInt32(parsed.name.count)),
            as: fos_privilege_question.self)
        (room + MemoryLayout<fos_privilege_question>.size).copyMemory(from: parsed.name.bytes, byteCount: parsed.name.count)
        message.pointee.length = UInt32(MemoryLayout<fos_privilege_question>.size + parsed.name.count)
        let result = kernel.send(message, to: privilege, expecting: id, onBehalfOf: nil)
        guard result == .sent else {
            continuations.remove(id)
            return answer(request.envelope, result == .full ? Status.retry : -EHOSTDOWN, kernel)
        }
    }

    mutating func finishCheck<K: Kernel>(_ response: Response, _ id: ContinuationID, _ kernel: K) {
        let request = Request(letter: letter(id))
        var status = response.status
        if status == 0 {
            let isAnswer = response.payload.count >= MemoryLayout<fos_privilege_answer>.size
            let allowed = isAnswer && response.payload.loadUnaligned(as: fos_privilege_answer.self).allowed != 0
            status = -EACCES
            if allowed, case .valid(let parsed) = NameRequest.parse(
                request.payload, needsName: true, needsTarget: UInt32(request.operation) == FOS_OP_NAME_REDIRECT.rawValue)
            {
                // The server that was asked may have been this one's predecessor when the question was sent.
                let owner = owner(parsed.name.hash)
                if owner == member { commit(request, parsed, kernel) } else { forward(request, to: owner, kernel) }
                continuations.remove(id)
                return
            }
        }
        answer(request.envelope, status, kernel)
        continuations.remove(id)
    }

    /// The change itself, at either copy. A status.
    /// - Parameter isTrial: only says what the status would be. A change that its server refuses is none of the copy's.
    mutating func apply(_ request: Request, _ parsed: NameRequest, isTrial: Bool = false) -> Int32 {
        switch UInt32(request.operation) {
        case FOS_OP_NAME_REDIRECT.rawValue: return redirect(request.envelope, parsed, isTrial)
        case FOS_OP_NAME_DEREGISTER.rawValue: return remove(request.envelope, parsed, isTrial)
        case FOS_OP_NAME_MEMBER_DEAD.rawValue: return removeDead(parsed, isTrial)
        default: return register(request.envelope, parsed, isTrial)
        }
    }

    private mutating func register(_ envelope: UnsafePointer<fos_envelope>, _ parsed: NameRequest, _ isTrial: Bool) -> Int32 {
        let isMany = parsed.fixed.flags & FOS_NAME_MANY.rawValue != 0
        guard parsed.fixed.flags & ~FOS_NAME_MANY.rawValue == 0, parsed.fixed.member.mailbox != 0 else { return -EINVAL }
        var member = parsed.fixed.member
        member.distance = 0
        member.alive = 1
        let (client, generation) = client(envelope)
        let hash = parsed.name.hash
        var entry = table.find(parsed.name, hash: hash)
        if entry != NameTable.none {
            let found = table.entries[Int(entry)]
            guard mayChange(found.ownerUID, envelope) else { return -EACCES }
            let old = table.member(entry, mailbox: member.mailbox)
            if old != NameTable.none {
                // The same mailbox again: a server that restarted says its new epoch.
                guard mayChange(table.members[Int(old)].ownerUID, envelope) else { return -EACCES }
                if isTrial { return 0 }
                table.members[Int(old)].member = member
                table.members[Int(old)].client = client
                table.members[Int(old)].clientGeneration = generation
                table.touch(entry)
                return 0
            }
            guard isMany, found.isMany, found.targetLength == 0 else { return -EEXIST }
            if isTrial { return table.hasRoomForMember(of: entry) ? 0 : -ENOSPC }
            return table.addMember(entry, member, ownerUID: envelope.pointee.uid, client: client, generation: generation) ? 0 : -ENOSPC
        }
        if isTrial { return table.hasRoomForName && table.hasRoomForMember ? 0 : -ENOSPC }
        entry = table.insert(parsed.name, hash: hash, ownerUID: envelope.pointee.uid, isMany: isMany)
        guard entry != NameTable.none else { return -ENOSPC }
        guard table.addMember(entry, member, ownerUID: envelope.pointee.uid, client: client, generation: generation) else {
            table.remove(entry)
            return -ENOSPC
        }
        return 0
    }

    private mutating func redirect(_ envelope: UnsafePointer<fos_envelope>, _ parsed: NameRequest, _ isTrial: Bool) -> Int32 {
        let (client, generation) = client(envelope)
        let hash = parsed.name.hash
        var entry = table.find(parsed.name, hash: hash)
        if entry != NameTable.none {
            guard mayChange(table.entries[Int(entry)].ownerUID, envelope) else { return -EACCES }
            guard table.entries[Int(entry)].targetLength > 0 else { return -EEXIST }
            if isTrial { return 0 }
        } else {
            if isTrial { return table.hasRoomForName ? 0 : -ENOSPC }
            entry = table.insert(parsed.name, hash: hash, ownerUID: envelope.pointee.uid, isMany: false)
            guard entry != NameTable.none else { return -ENOSPC }
        }
        table.setTarget(entry, parsed.target, client: client, generation: generation)
        return 0
    }

    // MARK: DEREGISTER

    /// Removes the member with the given mailbox, or with mailbox 0 the whole name.
    mutating func deregister<K: Kernel>(_ request: Request, _ kernel: K) {
        let parsed: NameRequest
        switch NameRequest.parse(request.payload, needsName: true, needsTarget: false) {
        case .valid(let valid): parsed = valid
        case .invalid(let status): return answer(request.envelope, status, kernel)
        }
        let hash = parsed.name.hash
        guard owner(hash) == member else { return forward(request, to: owner(hash), kernel) }
        guard !parsed.name.isProtected || isKernel(request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        commit(request, parsed, kernel)
    }

    private mutating func remove(_ envelope: UnsafePointer<fos_envelope>, _ parsed: NameRequest, _ isTrial: Bool) -> Int32 {
        let entry = table.find(parsed.name, hash: parsed.name.hash)
        guard entry != NameTable.none else { return -ENOENT }
        guard parsed.fixed.member.mailbox != 0 else {
            guard mayChange(table.entries[Int(entry)].ownerUID, envelope) else { return -EACCES }
            if isTrial { return 0 }
            table.remove(entry)
            return 0
        }
        let index = table.member(entry, mailbox: parsed.fixed.member.mailbox)
        guard index != NameTable.none else { return -ENOENT }
        guard mayChange(table.members[Int(index)].ownerUID, envelope) else { return -EACCES }
        if isTrial { return 0 }
        table.removeMember(index)
        return 0
    }

    // MARK: LOAD

    /// Sets load and liveness of a member: of a name at its owner, or (no name) of all names of the server asked.
    /// A member that is not alive is kept, and named last, until it answers again or MEMBER_DEAD removes it.
    mutating func load<K: Kernel>(_ request: Request, _ kernel: K) {
        let parsed: NameRequest
        switch NameRequest.parse(request.payload, needsName: false, needsTarget: false) {
        case .valid(let valid): parsed = valid
        case .invalid(let status): return answer(request.envelope, status, kernel)
        }
        let isKernel = isKernel(request.envelope)
        guard parsed.name.count > 0 else {
            guard isKernel else { return answer(request.envelope, -EACCES, kernel) }
            for index in 0..<table.membersUsed
            where table.members[Int(index)].entry != NameTable.none
                && table.members[Int(index)].member.mailbox == parsed.fixed.member.mailbox
            {
                setLoad(index, parsed.fixed.member)
            }
            return answer(request.envelope, 0, kernel)
        }
        let hash = parsed.name.hash
        guard owner(hash) == member else { return forward(request, to: owner(hash), kernel) }
        guard isKernel || !parsed.name.isProtected else { return answer(request.envelope, -EACCES, kernel) }
        guard !hasYielded(hash) else { return answer(request.envelope, Status.retry, kernel) }
        let entry = table.find(parsed.name, hash: hash)
        guard entry != NameTable.none else { return answer(request.envelope, -ENOENT, kernel) }
        let index = table.member(entry, mailbox: parsed.fixed.member.mailbox)
        guard index != NameTable.none else { return answer(request.envelope, -ENOENT, kernel) }
        guard mayChange(table.members[Int(index)].ownerUID, request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        setLoad(index, parsed.fixed.member)
        answer(request.envelope, 0, kernel)
    }

    private mutating func setLoad(_ index: UInt32, _ news: fos_name_member) {
        let wasAlive = table.members[Int(index)].member.alive
        table.members[Int(index)].member.load = news.load
        table.members[Int(index)].member.alive = news.alive != 0 ? 1 : 0
        // Loads change all the time and are best effort; only life and death make a cached answer old.
        if wasAlive != table.members[Int(index)].member.alive { table.touch(table.members[Int(index)].entry) }
    }

    // MARK: MEMBER_DEAD

    /// A mailbox is gone for good: it leaves one name (at its owner), or, without a name, every name of the fleet. Kernel only.
    mutating func memberDead<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isKernel(request.envelope) || isPeer(request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        let parsed: NameRequest
        switch NameRequest.parse(request.payload, needsName: false, needsTarget: false) {
        case .valid(let valid): parsed = valid
        case .invalid(let status): return answer(request.envelope, status, kernel)
        }
        let mailbox = parsed.fixed.member.mailbox
        guard parsed.name.count == 0 else {
            let hash = parsed.name.hash
            guard owner(hash) == member else { return forward(request, to: owner(hash), kernel) }
            return commit(request, parsed, kernel)
        }
        for index in 0..<table.membersUsed
        where table.members[Int(index)].entry != NameTable.none && table.members[Int(index)].member.mailbox == mailbox {
            tellRemoved(member: index, kernel)
            table.removeMember(index)
        }
        // A peer's word concerns this shard alone; the kernel's goes round the fleet. It can be repeated, so a full
        // mailbox on the way is answered RETRY.
        guard isKernel(request.envelope), membership.count > 1 else { return answer(request.envelope, 0, kernel) }
        guard let id = suspend(request, NameContinuation(wait: .dead, position: 0, bytes: 0)) else {
            return answer(request.envelope, Status.retry, kernel)
        }
        sendDead(id, from: 0, kernel)
    }

    private mutating func removeDead(_ parsed: NameRequest, _ isTrial: Bool) -> Int32 {
        let entry = table.find(parsed.name, hash: parsed.name.hash)
        let index = entry == NameTable.none ? NameTable.none : table.member(entry, mailbox: parsed.fixed.member.mailbox)
        guard index != NameTable.none else { return -ENOENT }
        if isTrial { return 0 }
        table.removeMember(index)
        return 0
    }

    private mutating func sendDead<K: Kernel>(_ id: ContinuationID, from first: Int, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let request = Request(letter: letter(id))
        var peer = first
        while peer < membership.count {
            defer { peer += 1 }
            guard peer != member else { continue }
            // A copy: the send overwrites what it is given of the scratch message only.
            let message = kernel.scratch()
            message.pointee.operation = request.operation
            message.pointee.length = UInt32(NameRequest.fixedBytes)
            message.body.copyMemory(from: request.message.body, byteCount: NameRequest.fixedBytes)
            let result = kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil)
            if result == .sent {
                state.pointee.position = UInt32(peer)
                return
            }
            if result == .full {
                answer(request.envelope, Status.retry, kernel)
                continuations.remove(id)
                return
            }
            // A name server that is gone itself has no names to keep right.
        }
        answer(request.envelope, 0, kernel)
        continuations.remove(id)
    }

    mutating func continueDead<K: Kernel>(_ response: Response, _ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        sendDead(id, from: Int(state.pointee.position) + 1, kernel)
    }
}
