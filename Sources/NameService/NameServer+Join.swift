// A name server that takes its place in the ring again, with nothing, while the others serve.
//
// Protocol: two members make copies for it: who serves its names now (the first live one after it), which will be its follower, and
// who will have it for a follower (the last live one before it); in a fleet of two they are one. It sends both JOIN. A helper copies,
// piece by piece, what will be the joiner's, sends it every change of that from then on, and answers when all is there. Then
// the joiner sends YIELD to who serves its names; from that turn on that one passes them on to it and is its follower, and answers
// when all that it told it has arrived. The joiner
// tells all others (NEWS), and the one before it takes it for its follower. Whose copies a member needs no more tells it END, behind
// all that it sent it, and the member drops them.
// What goes wrong (a full mailbox, a death, two that join at once) makes the joiner begin again, with nothing, at its next tick.
// Invariants: until it has yielded, a helper's names are where they were before, at two servers; the joiner has all that its place
// asks of it before anybody counts on it; a change reaches it behind the copy that it changes.

import CFosWire
import Glibc
import Messaging

/// This server's way back.
struct Joining: BitwiseCopyable {
    /// Counts attempts; answers to an earlier one say nothing.
    var attempt: UInt32 = 0
    /// JOINs that are not answered yet, 0 while it waits for a tick.
    var awaited = 0
    /// YIELD is under way.
    var isAskingToYield = false
}

/// Whom this server helps.
struct Joiner: BitwiseCopyable {
    var member: Int
    /// Its JOIN, which is answered when it has all; none: it has been.
    var question: ContinuationID
    /// Of this server's joiners, from 1.
    var serial: UInt32
    /// nil: it has all that was there.
    var run: CopyRun? = CopyRun()
    /// Changes that it was told of and has not answered.
    var told = 0
    var hasAll: Bool { run == nil && question == .none }
}

/// A place that this server has yielded, and has not said so yet: answers overtake requests, and what the joiner was told of
/// changes is still on its way.
struct Yielded: BitwiseCopyable {
    var member: Int
    var question: ContinuationID
    var serial: UInt32
    var told: Int
}

extension NameServer {
    /// Whether it has taken its place.
    public var isServing: Bool { joining == nil && untold == nil && copying == nil && joiner == nil }
    /// Whether it is on its way back.
    public var isRejoining: Bool { joining != nil }
    /// Whether, as far as this server has to do with it, every name is at two servers although some are dead.
    public func hasMadeCopies(without dead: [Int]) -> Bool { joining != nil || copying == nil && dead.allSatisfy { !membership.isAlive($0) } }

    mutating func tick<K: Kernel>(_ kernel: K) {
        if joining != nil, joining?.awaited == 0, joining?.isAskingToYield == false { startJoining(kernel) }
        tellNews(kernel)
        copyNext(.follower, kernel)
        copyNext(.joiner, kernel)
    }

    // MARK: The one that joins

    /// The last live member before a place.
    private func lastAlive(before place: Int) -> Int {
        var candidate = place
        for _ in 0..<membership.count {
            candidate = candidate == 0 ? membership.count - 1 : candidate - 1
            if membership.isAlive(candidate) { return candidate }
        }
        return place
    }

    mutating func startJoining<K: Kernel>(_ kernel: K) {
        guard let attempt = joining?.attempt else { return }
        joining = Joining(attempt: attempt &+ 1)
        removeNames { _, _ in true }
        // If nobody else lives, no name does.
        guard membership.aliveCount > 0 else { return serve(kernel) }
        let after = firstAlive(from: member), before = lastAlive(before: member)
        ask(FOS_OP_NAME_JOIN, .join, after, kernel)
        if before != after, joining?.awaited == 1 { ask(FOS_OP_NAME_JOIN, .join, before, kernel) }
    }

    private mutating func ask<K: Kernel>(_ operation: fos_operation, _ wait: NameWait, _ peer: Int, _ kernel: K) {
        guard let attempt = joining?.attempt, let id = continuations.insert(NameContinuation(wait: wait, position: UInt32(peer), bytes: attempt)) else {
            return beginAgain(kernel)
        }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        guard kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil) == .sent else {
            continuations.remove(id)
            return beginAgain(kernel)
        }
        if wait == .yield { joining?.isAskingToYield = true } else { joining?.awaited += 1 }
    }

    private mutating func beginAgain<K: Kernel>(_ kernel: K) {
        guard let attempt = joining?.attempt else { return }
        joining = Joining(attempt: attempt &+ 1)
        kernel.tickAgain()
    }

    mutating func continueJoining<K: Kernel>(_ response: Response, _ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id)?.pointee else { return }
        continuations.remove(id)
        guard let joining, state.bytes == joining.attempt else { return }
        // It joins too, and says so when it serves.
        if response.status == -EAGAIN { membership.set(Int(state.position), alive: false) }
        guard response.status == 0 else { return beginAgain(kernel) }
        if state.wait == .yield { return serve(kernel) }
        self.joining?.awaited -= 1
        if joining.awaited == 1 { ask(FOS_OP_NAME_YIELD, .yield, firstAlive(from: member), kernel) }
    }

    private mutating func serve<K: Kernel>(_ kernel: K) {
        joining = nil
        membership.set(member, alive: true)
        untold = 0
        tellNews(kernel)
    }

    private mutating func tellNews<K: Kernel>(_ kernel: K) {
        while let peer = untold {
            guard peer < membership.count else {
                untold = nil
                return
            }
            if peer != member {
                let message = kernel.scratch()
                message.pointee.operation = UInt16(FOS_OP_NAME_SHARD_NEWS.rawValue)
                // One that is dead will ask when it is back.
                if kernel.send(message, to: membership[peer], expecting: .none, onBehalfOf: nil) == .full { return kernel.tickAgain() }
            }
            untold = peer + 1
        }
    }

    // MARK: Those that help

    /// JOIN.
    mutating func helpJoining<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isPeer(request.envelope), let peer = membership.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) else {
            return answer(request.envelope, -EACCES, kernel)
        }
        let retry = Int32(FOS_TRANSPORT_RETRY.rawValue)
        // Two that join do not wait for each other: they ask others. RETRY: its death has not been heard of here, or this server makes
        // copies, or helps another one.
        guard joining == nil else { return answer(request.envelope, -EAGAIN, kernel) }
        guard copying == nil, !membership.isAlive(peer), joiner == nil || joiner?.member == peer,
            let id = suspend(request, NameContinuation(wait: .joiner, position: UInt32(peer), bytes: 0))
        else { return answer(request.envelope, retry, kernel) }
        dropJoiner()
        joiners &+= 1
        joiner = Joiner(member: peer, question: id, serial: joiners)
        copyNext(.joiner, kernel)
    }

    /// Whether the joiner is to have names of a hash that this server serves: they will be its own, or it will be this one's follower.
    func concernsJoiner(_ hash: UInt64) -> Bool {
        guard let joiner else { return false }
        return serves(joiner.member, hash) || nextAlive(after: member, with: joiner.member) == joiner.member
    }
    /// Whether a joiner would come before this server on the way from the place of a hash.
    private func serves(_ joiner: Int, _ hash: UInt64) -> Bool {
        var candidate = place(hash)
        for _ in 0..<membership.count {
            if candidate == joiner { return true }
            if membership.isAlive(candidate) { return false }
            candidate = candidate + 1 == membership.count ? 0 : candidate + 1
        }
        return false
    }
    private func nextAlive(after place: Int, with joiner: Int) -> Int {
        var candidate = place
        for _ in 0..<membership.count {
            candidate = candidate + 1 == membership.count ? 0 : candidate + 1
            if candidate == joiner || membership.isAlive(candidate) { return candidate }
        }
        return place
    }

    /// All that was there is on its way, and has been answered.
    mutating func joinerHasAll<K: Kernel>(_ kernel: K) {
        guard let question = joiner?.question, question != .none else { return }
        joiner?.question = .none
        answer(Request(letter: letter(question)).envelope, 0, kernel)
        continuations.remove(question)
    }

    /// A change of a name that has been made here.
    mutating func tellJoiner<K: Kernel>(_ request: Request, _ hash: UInt64, _ kernel: K) {
        guard let joiner, concernsJoiner(hash) else { return }
        guard let id = continuations.insert(NameContinuation(wait: .told, position: 0, bytes: joiner.serial)) else { return refuseJoiner(kernel) }
        if send(copyOf: request, to: joiner.member, expecting: id, kernel) == .sent {
            self.joiner?.told += 1
            return
        }
        continuations.remove(id)
        refuseJoiner(kernel)
    }

    /// The joiner has made a change that it was told of.
    mutating func finishTold<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let serial = continuations.state(id)?.pointee.bytes else { return }
        continuations.remove(id)
        if let joiner, joiner.serial == serial { self.joiner?.told -= 1 }
        guard var yielded, yielded.serial == serial else { return }
        yielded.told -= 1
        self.yielded = yielded
        if yielded.told == 0 { sayYielded(kernel) }
    }
    private mutating func sayYielded<K: Kernel>(_ kernel: K) {
        guard let question = yielded?.question else { return }
        yielded = nil
        answer(Request(letter: letter(question)).envelope, 0, kernel)
        continuations.remove(question)
    }

    /// A member leaves a name, or a redirect goes, because its client or mailbox is dead: what a piece that is on its way would bring back.
    mutating func tellRemoved<K: Kernel>(member index: UInt32, _ kernel: K) {
        let each = table.members[Int(index)]
        tellRemoved(each.entry, FOS_OP_NAME_MEMBER_DEAD, each.member, kernel)
    }
    mutating func tellRemoved<K: Kernel>(redirect index: UInt32, _ kernel: K) {
        tellRemoved(index, FOS_OP_NAME_DEREGISTER, fos_name_member(), kernel)
    }
    private mutating func tellRemoved<K: Kernel>(_ entry: UInt32, _ operation: fos_operation, _ gone: fos_name_member, _ kernel: K) {
        let hash = table.entries[Int(entry)].hash
        guard owner(hash) == member else { return }
        if copying != nil, let follower = follower(of: member) { _ = send(removalFrom: entry, operation, gone, to: follower, serial: 0, kernel) }
        guard let joiner, concernsJoiner(hash) else { return }
        if send(removalFrom: entry, operation, gone, to: joiner.member, serial: joiner.serial, kernel) { self.joiner?.told += 1 } else { refuseJoiner(kernel) }
    }
    private mutating func send<K: Kernel>(
        removalFrom entry: UInt32, _ operation: fos_operation, _ gone: fos_name_member, to peer: Int, serial: UInt32, _ kernel: K
    ) -> Bool {
        guard let id = continuations.insert(NameContinuation(wait: .told, position: 0, bytes: serial)) else { return false }
        let name = table.name(entry)
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.flags = UInt16(FOS_NAME_COPY.rawValue)
        var fixed = fos_name_request()
        fixed.name_length = UInt32(name.count)
        fixed.member = gone
        let room = payload(of: message)
        room.storeBytes(of: fixed, as: fos_name_request.self)
        (room + NameRequest.fixedBytes).copyMemory(from: name.bytes, byteCount: name.count)
        message.pointee.length = UInt32(NameRequest.fixedBytes + name.count)
        if kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil) == .sent { return true }
        continuations.remove(id)
        return false
    }

    /// What the joiner has is not what is here: it is to begin again.
    mutating func refuseJoiner<K: Kernel>(_ kernel: K) {
        guard let question = joiner?.question else { return }
        if question != .none {
            answer(Request(letter: letter(question)).envelope, Int32(FOS_TRANSPORT_RETRY.rawValue), kernel)
            continuations.remove(question)
        }
        joiner = nil
    }
    /// It is dead, or begins again.
    mutating func dropJoiner() {
        if let question = joiner?.question, question != .none { continuations.remove(question) }
        joiner = nil
    }

    /// YIELD: the joiner serves its names from now on, and this server is its follower.
    mutating func yieldPlace<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isPeer(request.envelope), let joiner, joiner.hasAll,
            MailboxAddress(rawValue: request.envelope.pointee.from) == membership[joiner.member], firstAlive(from: joiner.member) == member,
            let id = suspend(request, NameContinuation(wait: .joiner, position: UInt32(joiner.member), bytes: 0))
        else { return answer(request.envelope, Int32(FOS_TRANSPORT_RETRY.rawValue), kernel) }
        admit(joiner.member, hasAll: true, kernel)
        yielded = Yielded(member: joiner.member, question: id, serial: joiner.serial, told: joiner.told)
        if joiner.told == 0 { sayYielded(kernel) }
    }
    mutating func dropYielded() {
        if let question = yielded?.question { continuations.remove(question) }
        yielded = nil
    }

    /// The microkernel's news that a server is there again: whoever joins may ask it for help.
    mutating func serverBack<K: Kernel>(_ request: Request, _ kernel: K) {
        guard joining != nil, isNews(request.envelope),
            let peer = membership.index(of: MailboxAddress(rawValue: UInt32(truncatingIfNeeded: request.message.pointee.inode))), peer != member,
            membership.set(peer, alive: true)
        else { return }
        startJoining(kernel)
    }

    /// NEWS: somebody has taken its place.
    mutating func takeNews<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isOfPeer(request.envelope), let peer = membership.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)), peer != member else { return }
        guard joining == nil else {
            membership.set(peer, alive: true)
            return startJoining(kernel)
        }
        // Who yielded knows already; that its own follower is not the other one's any more, that one learns with this news.
        guard !membership.isAlive(peer) else {
            if let follower = follower(of: member), follower != peer { sendEnd(to: follower, kernel) }
            return
        }
        let old = follower(of: member)
        admit(peer, hasAll: joiner?.member == peer && joiner?.hasAll == true, kernel)
        if let old, old != follower(of: member) { sendEnd(to: old, kernel) }
    }

    private mutating func admit<K: Kernel>(_ peer: Int, hasAll: Bool, _ kernel: K) {
        if joiner?.member == peer { dropJoiner() }
        membership.set(peer, alive: true)
        // Another one that joins has other neighbours now.
        refuseJoiner(kernel)
        guard follower(of: member) == peer, !hasAll || copying != nil else { return }
        copying = CopyRun()
        copyNext(.follower, kernel)
    }

    /// Copies that stay for want of this only take room: whoever makes copies anew has the old ones dropped.
    private func sendEnd<K: Kernel>(to peer: Int, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_NAME_SHARD_END.rawValue)
        _ = kernel.send(message, to: membership[peer], expecting: .none, onBehalfOf: nil)
    }

    /// END: names that are neither served here nor by whom this server follows.
    mutating func dropSurplus() {
        guard joining == nil else { return }
        let member = member
        removeNames { owner, follower in owner != member && follower != member }
    }
}
