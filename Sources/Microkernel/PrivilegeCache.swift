// The privilege cache: what the privilege fleet has answered, kept read-only until it says that rules have changed.
//
// Role: decides, before a letter enters a mailbox, whether this client may send there. Key: the connection's uid and
// rights, and the mailbox index. A miss holds the letter in a bounded list while one question is under way.
// Invariants: `stamp` changes with every invalidation, so that whatever was cached or asked under an older one is void;
// an answer is used only if its question was asked under the present stamp. The privilege fleet itself needs no
// privilege to be asked (the fixed point).

import CFosWire
import CPlatform
import Messaging

@usableFromInline struct PrivilegeCache: BitwiseCopyable {
    struct Entry: BitwiseCopyable {
        var uid: UInt32
        var rights: UInt16
        var mailbox: UInt16
        var stamp: UInt32
        var allowed: UInt32
    }
    static var capacity: Int { 1024 }

    var entries: UnsafeMutablePointer<Entry>
    /// Never 0, so that a zeroed entry matches nothing.
    var stamp: UInt32
    /// The epoch the privilege fleet last announced.
    var epoch: UInt32
    var hits: UInt64
    var misses: UInt64

    init(arena: inout Arena) {
        entries = arena.take(Entry.self, Self.capacity)
        stamp = 1
        epoch = 0
        hits = 0
        misses = 0
    }

    private func place(_ uid: UInt32, _ rights: UInt16, _ mailbox: UInt16) -> UnsafeMutablePointer<Entry> {
        let mixed = (uid ^ UInt32(rights) << 16 ^ UInt32(mailbox) &* 0x85eb_ca6b) &* 0x9e37_79b1
        return entries + Int(mixed >> 22)
    }

    /// Allowed or not; nil if nobody has asked under the present stamp.
    func find(uid: UInt32, rights: UInt16, mailbox: UInt16) -> Bool? {
        let entry = place(uid, rights, mailbox)
        guard entry.pointee.stamp == stamp, entry.pointee.uid == uid, entry.pointee.rights == rights,
            entry.pointee.mailbox == mailbox
        else { return nil }
        return entry.pointee.allowed != 0
    }

    mutating func store(uid: UInt32, rights: UInt16, mailbox: UInt16, allowed: Bool) {
        place(uid, rights, mailbox).pointee = Entry(
            uid: uid, rights: rights, mailbox: mailbox, stamp: stamp, allowed: allowed ? 1 : 0)
    }

    mutating func invalidate() {
        stamp &+= 1
        if stamp == 0 { stamp = 1 }
    }
}

/// Letters that wait for an answer of the privilege fleet.
@usableFromInline struct PendingLetters: BitwiseCopyable {
    struct Question: BitwiseCopyable {
        var used: Bool
        var asked: Bool
        /// The stamp it was asked under.
        var stamp: UInt32
        /// Counts uses of the slot, so that a late answer meets nothing.
        var ticket: UInt16
    }
    static var capacity: Int { 64 }

    var letters: UnsafeMutablePointer<fos_letter>
    var questions: UnsafeMutablePointer<Question>
    var count: Int
    /// Questions that still have to be sent.
    var unasked: Int

    init(arena: inout Arena) {
        letters = arena.take(fos_letter.self, Self.capacity)
        questions = arena.take(Question.self, Self.capacity)
        count = 0
        unasked = 0
    }

    mutating func claim() -> UnsafeMutablePointer<fos_letter>? {
        guard count < Self.capacity else { return nil }
        for slot in 0..<Self.capacity where !questions[slot].used {
            questions[slot].used = true
            questions[slot].asked = false
            questions[slot].ticket &+= 1
            count += 1
            unasked += 1
            return letters + slot
        }
        return nil
    }

    mutating func free(_ slot: Int) {
        if !questions[slot].asked { unasked -= 1 }
        questions[slot].used = false
        count -= 1
    }
}

enum Admission {
    case allowed, denied, unknown
}

extension Core {
    /// Whether a client may send to a mailbox of this core, as far as is known.
    @inline(__always) mutating func admission(of client: UInt32, to mailbox: Int, _ entry: UnsafeMutablePointer<ClientEntry>) -> Admission {
        guard fabric.privilegeServerCount > 0 else { return .allowed }
        let view = views + Int(client)
        let bit: UInt64 = 1 << UInt64(mailbox)
        if view.pointee.allowedStamp == privileges.stamp, view.pointee.allowed & bit != 0 {
            privileges.hits &+= 1
            return .allowed
        }
        switch privileges.find(
            uid: entry.pointee.uid, rights: UInt16(truncatingIfNeeded: entry.pointee.rights), mailbox: UInt16(mailbox))
        {
        case .some(true):
            if view.pointee.allowedStamp != privileges.stamp {
                view.pointee.allowedStamp = privileges.stamp
                view.pointee.allowed = 0
            }
            view.pointee.allowed |= bit
            privileges.hits &+= 1
            return .allowed
        case .some(false):
            privileges.hits &+= 1
            return .denied
        case .none:
            privileges.misses &+= 1
            return .unknown
        }
    }

    /// Sends the questions that have not been sent. A full mailbox leaves them for the next turn.
    mutating func askPrivilege() {
        guard pending.unasked > 0 else { return }
        for slot in 0..<PendingLetters.capacity where pending.questions[slot].used && !pending.questions[slot].asked {
            let letter = pending.letters + slot
            let envelope = fos_letter_envelope(letter)!
            let entry = fabric.clients + Int(envelope.pointee.client)
            guard fabric.isLive(client: envelope.pointee.client, generation: envelope.pointee.client_generation) else {
                pending.free(slot)
                continue
            }
            let message = fos_letter_message(scratch)!
            message.pointee = fos_message()
            message.pointee.operation = UInt16(FOS_OP_PRIVILEGE_CHECK.rawValue)
            message.pointee.length = UInt32(MemoryLayout<fos_privilege_question>.size)
            UnsafeMutableRawPointer(fos_letter_payload(scratch)).storeBytes(
                of: fos_privilege_question(
                    action: FOS_PRIVILEGE_SEND.rawValue, subject_kind: FOS_SENDER_CLIENT.rawValue, uid: entry.pointee.uid,
                    rights: entry.pointee.rights, mailbox: fos_letter_message(letter).pointee.destination, name_length: 0),
                as: fos_privilege_question.self)
            let ticket = pending.questions[slot].ticket
            let result = send(
                message, to: privilegeServer(), from: 0, kind: UInt8(FOS_SENDER_KERNEL.rawValue),
                expecting: KernelContinuation.privilege(slot: slot, ticket: ticket), awaits: true, onBehalfOf: nil)
            switch result {
            case .sent:
                pending.questions[slot].asked = true
                pending.questions[slot].stamp = privileges.stamp
                pending.unasked -= 1
            case .full: return
            case .stale:
                names.drop(.privilege)
                return
            }
        }
    }

    /// The answer to a question: kept if the rules have not changed since it was asked, then its letter goes on.
    mutating func privilegeAnswered(slot: Int, ticket: UInt16, _ response: UnsafePointer<fos_message>, payload: UnsafeRawPointer) {
        guard slot < PendingLetters.capacity, pending.questions[slot].used, pending.questions[slot].asked,
            pending.questions[slot].ticket & 0xfff == ticket
        else { return }
        let letter = pending.letters + slot
        let envelope = fos_letter_envelope(letter)!
        let status = response.pointee.status
        guard fabric.isLive(client: envelope.pointee.client, generation: envelope.pointee.client_generation) else {
            return pending.free(slot)
        }
        let entry = fabric.clients + Int(envelope.pointee.client)
        let mailbox = MailboxAddress(rawValue: fos_letter_message(letter).pointee.destination).index
        if status == Status.retry || (status == 0 && pending.questions[slot].stamp != privileges.stamp) {
            pending.questions[slot].asked = false
            pending.unasked += 1
            return
        }
        var allowed = false
        if status == 0, response.pointee.length >= UInt32(MemoryLayout<fos_privilege_answer>.size) {
            allowed = payload.loadUnaligned(as: fos_privilege_answer.self).allowed != 0
            privileges.store(
                uid: entry.pointee.uid, rights: UInt16(truncatingIfNeeded: entry.pointee.rights), mailbox: UInt16(mailbox),
                allowed: allowed)
        }
        if !allowed {
            refuse(envelope, fos_letter_message(letter), Status.denied)
        } else if let target = mailboxes[mailbox].claimLocal() {
            fos_letter_envelope(target).pointee = envelope.pointee
            Self.copy(fos_letter_message(letter), to: fos_letter_message(target))
            commitLocal(mailbox)
        } else {
            refuse(envelope, fos_letter_message(letter), Status.full)
        }
        pending.free(slot)
    }

    /// Drops every pending letter of a dead client that has no question under way.
    mutating func forgetPending(of client: UInt32) {
        for slot in 0..<PendingLetters.capacity where pending.questions[slot].used && !pending.questions[slot].asked {
            if fos_letter_envelope(pending.letters + slot).pointee.client == client { pending.free(slot) }
        }
    }
}
