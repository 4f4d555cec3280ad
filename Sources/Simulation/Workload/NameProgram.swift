// A thread of the random workload that registers names, looks them up and gives them back.
//
// Role: the workload for the death of a name server. A thread begins as a client that has just connected does: it looks up the
// file fleet, and asks a member that it was named for the root directory.
// Protocol: requests go to the nearest name server that has not stopped answering (`SimStep.callName`).
// Invariant: every mailbox that is registered is a number that was never registered before.

import CFosWire
import Glibc
import Messaging
public import Simulator

public final class NameProgram: SimProgram {
    enum Asked { case nothing, fleet, root, register(Int, UInt32), lookup(Int), deregister(Int) }

    private let world: World
    private let identity: Int
    private var left: Int
    private var asked = Asked.nothing
    private var script: [Asked]
    /// What it has registered, or may have: it goes with its client.
    private var registered: [(name: Int, mailbox: UInt32)] = []
    private var diedAt: VirtualTime?
    static func text(_ name: Int) -> String { "/work/n\(name)" }

    init(world: World, identity: Int) {
        self.world = world
        self.identity = identity
        left = world.mix.operations
        script = [.fleet]
    }
    /// Looks at all names once.
    init(survey world: World) {
        self.world = world
        identity = -1
        left = 0
        script = (0..<world.mix.serviceNames).map { .lookup($0) } + [.fleet]
    }

    public override func step(_ thread: SimThread) -> SimStep {
        if case .nothing = asked {} else {
            if let next = record(thread) { return next }
            asked = .nothing
            let pause = thread.random.below(world.mix.thinkNanoseconds * 1000)
            if pause > 0, left > 0 { return .pause(VirtualTime(pause)) }
        }
        if let next = script.popLast() { return ask(next, thread) }
        guard left > 0 else { return .end }
        left -= 1
        let name = thread.random.below(world.mix.serviceNames)
        switch thread.random.below(8) {
        case 0, 1: return ask(.register(name, UInt32(truncatingIfNeeded: world.freshValue())), thread)
        case 2: return ask(.deregister(name), thread)
        case 3: return ask(.fleet, thread)
        default: return ask(.lookup(name), thread)
        }
    }

    /// Its client has died, maybe with a question under way, whose answer nobody hears.
    func abandon(_ thread: SimThread) {
        diedAt = thread.host.time
        guard thread.hasAsked else { return }
        switch asked {
        case .register(let name, let mailbox): recordUncertain(.register(mailbox: mailbox, status: 0), name, thread)
        case .deregister(let name): recordUncertain(.deregister(status: 0), name, thread)
        case .nothing, .fleet, .root, .lookup: break
        }
    }
    /// All has come to rest: the names of a dead client are gone.
    func conclude(_ now: VirtualTime) {
        guard let diedAt else { return }
        for (name, mailbox) in registered {
            world.history.record(.gone(mailbox: mailbox), ofName: name, invoked: diedAt, returned: now, thread: identity)
        }
    }

    private func ask(_ question: Asked, _ thread: SimThread) -> SimStep {
        asked = question
        func begin(_ operation: fos_operation, _ name: String, mailbox: UInt32 = 0) {
            var request = fos_name_request()
            request.name_length = UInt32(name.utf8.count)
            request.from_core = UInt32(thread.client.core)
            request.member = fos_name_member(mailbox: mailbox, epoch: 1, core: UInt32(thread.client.core), load: 0, distance: 0, alive: 1)
            thread.begin(operation, inode: 0)
            thread.add(request)
            thread.add(name)
        }
        switch question {
        case .fleet: begin(FOS_OP_NAME_LOOKUP, "/sys/file")
        case .register(let name, let mailbox):
            registered.append((name, mailbox))
            begin(FOS_OP_NAME_REGISTER, Self.text(name), mailbox: mailbox)
        case .lookup(let name): begin(FOS_OP_NAME_LOOKUP, Self.text(name))
        case .deregister(let name): begin(FOS_OP_NAME_DEREGISTER, Self.text(name))
        case .nothing, .root: break
        }
        return .callName
    }

    // MARK: Answers

    /// The first member of a lookup's answer; 0: none.
    private func member(_ thread: SimThread) -> UInt32 {
        let payload = thread.replyPayload
        let head = MemoryLayout<fos_name_reply>.size
        guard thread.status == 0, payload.count >= head + MemoryLayout<fos_name_member>.size else { return 0 }
        return payload.loadUnaligned(fromByteOffset: head, as: fos_name_member.self).mailbox
    }

    /// What follows at once, if something does.
    private func record(_ thread: SimThread) -> SimStep? {
        let status = thread.status
        if status == -EIO {
            if !world.diedBetween(thread.invoked, thread.returned) { world.history.recordUnexplained(thread.request.pointee.operation, 0) }
        }
        switch asked {
        case .nothing: break
        case .fleet:
            let mailbox = member(thread)
            if status == 0, mailbox != 0 {
                asked = .root
                thread.getAttributes(UInt64(FOS_ROOT_INODE))
                return .callTo(MailboxAddress(rawValue: mailbox))
            }
            if status != -EIO { world.history.recordWrong("names", "the file fleet cannot be found: \(status), mailbox \(mailbox)") }
        case .root: if status != 0, status != -EIO { world.history.recordWrong("names", "the root directory was answered \(status)") }
        case .register(let name, let mailbox):
            record(.register(mailbox: mailbox, status: status), name, thread, uncertain: .register(mailbox: mailbox, status: 0))
        case .deregister(let name): record(.deregister(status: status), name, thread, uncertain: .deregister(status: 0))
        case .lookup(let name): record(.lookup(mailbox: member(thread), status: status), name, thread, uncertain: nil)
        }
        return nil
    }

    private func record(_ operation: NameOperation, _ name: Int, _ thread: SimThread, uncertain: NameOperation?) {
        if thread.status != -EIO {
            return world.history.record(operation, ofName: name, invoked: thread.invoked, returned: thread.returned, thread: identity)
        }
        if let uncertain { recordUncertain(uncertain, name, thread) }
    }
    private func recordUncertain(_ operation: NameOperation, _ name: Int, _ thread: SimThread) {
        world.history.record(.uncertain(operation), ofName: name, invoked: thread.invoked, returned: .max, thread: identity)
    }
}
