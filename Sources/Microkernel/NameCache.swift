// The name cache: symbolic names that this core's microkernel itself sends to, with the member chosen for each.
//
// Role: the microkernel is started with the fixed points (the first mailboxes of the name and privilege fleets). Once
// the name fleet runs it is asked for the best member by distance, and the answer is kept with the mailbox's epoch.
// Protocol: an entry is filled by a LOOKUP to the name fleet, dropped when its member refuses a message as stale, and
// looked up again; until then the fixed point serves. (Clients have name caches of their own, in the message proxy:
// they send to mailboxes, and the receiving core compares epochs.)

import CFosWire
import CPlatform
import Messaging

@usableFromInline struct NameCache: BitwiseCopyable {
    /// The names a microkernel sends to.
    enum Name: Int {
        case privilege = 0
    }
    struct Entry: BitwiseCopyable {
        var state: State
        var mailbox: MailboxAddress
        var epoch: UInt32
        var version: UInt64
    }
    enum State: UInt8 {
        case empty, asked, known, absent
    }
    static var capacity: Int { 1 }
    static func text(_ name: Name) -> StaticString {
        switch name {
        case .privilege: "/sys/privilege"
        }
    }

    var entries: UnsafeMutablePointer<Entry>

    init(arena: inout Arena) { entries = arena.take(Entry.self, Self.capacity) }

    /// The member to send to, if known.
    func find(_ name: Name) -> MailboxAddress? {
        let entry = entries[name.rawValue]
        return entry.state == .known ? entry.mailbox : nil
    }

    mutating func drop(_ name: Name) { entries[name.rawValue].state = .empty }
}

/// What a response to the microkernel itself continues: a kind, a number, and a ticket against late ones.
enum KernelContinuation {
    static func privilege(slot: Int, ticket: UInt16) -> UInt32 { 1 << 28 | UInt32(ticket & 0xfff) << 16 | UInt32(slot) }
    static func registration(_ number: Int) -> UInt32 { 2 << 28 | UInt32(number) }
    static func lookup(_ name: NameCache.Name) -> UInt32 { 3 << 28 | UInt32(name.rawValue) }
}

extension Core {
    /// The privilege server to ask: the nearest by the name fleet, else the fixed point.
    mutating func privilegeServer() -> MailboxAddress {
        if let known = names.find(.privilege), fabric.port(known)?.pointee.epoch == names.entries[0].epoch { return known }
        if names.entries[0].state == .known { names.drop(.privilege) }
        return fabric.privilegeServers[index % fabric.privilegeServerCount]
    }

    /// Start of a core: publishes its servers' names one after another, and looks up what it sends to itself.
    /// False while something could not be sent yet and the core must not sleep.
    mutating func introduce() -> Bool {
        if registered < registrationCount {
            return registrationInFlight || sendRegistration()
        }
        if !announced {
            announced = true
            _ = fos_fetch_add_u32(fabric.ready, 1)
        }
        if names.entries[0].state == .empty, fabric.nameServerCount > 0, fabric.privilegeServerCount > 0 { lookUp(.privilege) }
        return true
    }

    private func nameServer() -> MailboxAddress { fabric.nameServers[index % fabric.nameServerCount] }

    private mutating func sendRegistration() -> Bool {
        let registration = registrations[registered]
        let message = fos_letter_message(scratch)!
        message.pointee = fos_message()
        message.pointee.operation = UInt16(FOS_OP_NAME_REGISTER.rawValue)
        var request = fos_name_request()
        request.name_length = UInt32(registration.length)
        request.from_core = UInt32(index)
        request.flags = registration.many ? FOS_NAME_MANY.rawValue : 0
        request.member = fos_name_member(
            mailbox: registration.mailbox.rawValue, epoch: registration.epoch, core: UInt32(index), load: 0, distance: 0, alive: 1)
        let size = MemoryLayout<fos_name_request>.size
        let payload = UnsafeMutableRawPointer(fos_letter_payload(scratch)!)
        payload.storeBytes(of: request, as: fos_name_request.self)
        (payload + size).copyMemory(from: registration.name, byteCount: registration.length)
        message.pointee.length = UInt32(size + registration.length)
        registrationInFlight =
            send(
                message, to: nameServer(), from: 0, kind: UInt8(FOS_SENDER_KERNEL.rawValue),
                expecting: KernelContinuation.registration(registered), awaits: true, onBehalfOf: nil) == .sent
        return registrationInFlight
    }

    private mutating func lookUp(_ name: NameCache.Name) {
        let text = NameCache.text(name)
        let message = fos_letter_message(scratch)!
        message.pointee = fos_message()
        message.pointee.operation = UInt16(FOS_OP_NAME_LOOKUP.rawValue)
        var request = fos_name_request()
        request.name_length = UInt32(text.utf8CodeUnitCount)
        request.from_core = UInt32(index)
        let size = MemoryLayout<fos_name_request>.size
        let payload = UnsafeMutableRawPointer(fos_letter_payload(scratch)!)
        payload.storeBytes(of: request, as: fos_name_request.self)
        (payload + size).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        message.pointee.length = UInt32(size + text.utf8CodeUnitCount)
        let result = send(
            message, to: nameServer(), from: 0, kind: UInt8(FOS_SENDER_KERNEL.rawValue),
            expecting: KernelContinuation.lookup(name), awaits: true, onBehalfOf: nil)
        if result == .sent { names.entries[name.rawValue].state = .asked }
    }

    /// A response to the microkernel itself.
    mutating func resumeKernel(_ letter: UnsafeMutablePointer<fos_letter>) {
        let continuation = fos_letter_envelope(letter).pointee.continuation
        let message = fos_letter_message(letter)!
        let payload = UnsafeRawPointer(fos_letter_payload(letter)!)
        let number = Int(continuation & 0xffff)
        switch continuation >> 28 {
        case 1: privilegeAnswered(slot: number, ticket: UInt16(continuation >> 16 & 0xfff), message, payload: payload)
        case 2: registrationAnswered(number, message.pointee.status)
        case 3: lookupAnswered(.privilege, message, payload: payload)
        default: break
        }
    }

    private mutating func registrationAnswered(_ number: Int, _ status: Int32) {
        guard number == registered, registrationInFlight else { return }
        registrationInFlight = false
        if status > 0 { return }  // a transaction in progress: sent again in the next turn
        if status < 0 {
            let word = UInt64(UInt32(index) << 16 | UInt32(number + 1)) << 32 | UInt64(UInt32(bitPattern: status))
            _ = fos_compare_exchange_u64(fabric.refusal, 0, word)
        }
        registered += 1
    }

    private mutating func lookupAnswered(_ name: NameCache.Name, _ message: UnsafePointer<fos_message>, payload: UnsafeRawPointer) {
        let entry = names.entries + name.rawValue
        let header = MemoryLayout<fos_name_reply>.size
        guard message.pointee.status == 0, Int(message.pointee.length) >= header + MemoryLayout<fos_name_member>.size,
            payload.loadUnaligned(as: fos_name_reply.self).members > 0
        else {
            entry.pointee.state = .absent
            return
        }
        let member = (payload + header).loadUnaligned(as: fos_name_member.self)
        entry.pointee.mailbox = MailboxAddress(rawValue: member.mailbox)
        entry.pointee.epoch = member.epoch
        entry.pointee.version = payload.loadUnaligned(as: fos_name_reply.self).version
        entry.pointee.state = member.alive != 0 ? .known : .absent
    }
}
