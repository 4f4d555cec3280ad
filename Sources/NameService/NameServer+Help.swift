// Helping a name server that takes its place in the ring again (NameServer+Join), "the joiner".
//
// Role: each member that serves helps one joiner at a time. A member that has names which will be the joiner's, or of which it will have
// copies, sends them piece by piece, and every change of them from then on. The other members have nothing to send, but know of the
// joiner: should a death make one of them serve the joiner's names, it does not do so before the joiner has said how far it is.
// Protocol: JOIN is answered when the joiner has all; a JOIN that expects no answer ends the help. YIELD is answered when the joiner has
// made all changes that it was told of. From the turn in which YIELD comes until NEWS, another JOIN, or the joiner's death, nothing that
// will be the joiner's is looked up here, and nothing of which it is to have a copy is changed. A member whose copies are needed no more is
// told END, behind all that it was sent.
// Invariants: what the joiner was sent is what is here, or YIELD is refused and the joiner begins again; a change reaches the joiner
// behind the copy that it changes; a helper that has yielded makes no copies for anybody else.

import CFosWire
import Glibc
import Messaging

/// Whom this server helps.
struct Joiner: BitwiseCopyable {
    var member: Int
    /// Which of its beginnings this is: goes with all that it is sent.
    var attempt: UInt64
    /// Its JOIN or YIELD that is not answered yet; none: it is.
    var question: ContinuationID
    /// Of this server's joiners, from 1.
    var serial: UInt32
    /// nil: it has all that was there.
    var run: CopyRun? = CopyRun()
    /// Changes that it was told of and has not answered.
    var told = 0
    /// This server has yielded.
    var hasYielded = false
    /// What it has is not what is here.
    var isSpoiled = false
}

extension NameServer {
    // MARK: What concerns the joiner

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
    /// Whether a name that it served is not its own to look up now: the joiner may serve it by now. Nor has one that joins any, though
    /// nobody else may live.
    func hasYielded(_ hash: UInt64) -> Bool { joining != nil || joiner?.hasYielded == true && serves(joiner?.member ?? member, hash) }
    /// Whether a name that it serves is not to be changed now: who has copies of it changes.
    func isFixed(_ hash: UInt64) -> Bool { joining != nil || untold != nil || joiner?.hasYielded == true && concernsJoiner(hash) }

    // MARK: JOIN and YIELD

    mutating func helpJoining<K: Kernel>(_ request: Request, _ kernel: K) {
        let from = MailboxAddress(rawValue: request.envelope.pointee.from)
        if isOfPeer(request.envelope) {
            if let joiner, membership[joiner.member] == from { endHelp(kernel) }
            return
        }
        guard isPeer(request.envelope), let peer = membership.index(of: from) else { return answer(request.envelope, -EACCES, kernel) }
        guard joining == nil else { return joinWhileJoining(peer, request, kernel) }
        // Its death has not been heard of here, or this server helps another one.
        guard !membership.isAlive(peer), joiner == nil || joiner?.member == peer,
            let id = suspend(request, NameContinuation(wait: .joiner, position: UInt32(peer), bytes: 0))
        else { return answer(request.envelope, -EBUSY, kernel) }
        endHelp(kernel)
        joiners &+= 1
        joiner = Joiner(member: peer, attempt: request.message.pointee.inode, question: id, serial: joiners)
        // Otherwise the news of a death is on its way here, and spoils what the joiner has; or the joiner hears of one more that serves,
        // and lets go.
        if hasHeardAll(of: request) { copyNext(.joiner, kernel) } else { joiner?.run = nil }
    }
    /// Whether this server has heard of all deaths that the joiner has heard of.
    private func hasHeardAll(of request: Request) -> Bool {
        let living = request.payload
        return (0..<membership.count).allSatisfy {
            !membership.isAlive($0) || $0 == member || $0 / 8 < living.count && living[$0 / 8] >> ($0 % 8) & 1 != 0
        }
    }

    mutating func yieldPlace<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isPeer(request.envelope), let peer = membership.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)) else {
            return answer(request.envelope, -EACCES, kernel)
        }
        guard joining == nil else { return yieldWhileJoining(peer, request, kernel) }
        guard let joiner, joiner.member == peer, joiner.attempt == request.message.pointee.inode, joiner.run == nil,
            joiner.question == .none,
            !joiner.isSpoiled, let id = suspend(request, NameContinuation(wait: .joiner, position: UInt32(peer), bytes: 0))
        else { return answer(request.envelope, Status.retry, kernel) }
        self.joiner?.hasYielded = true
        self.joiner?.question = id
        if joiner.told == 0 { answerJoiner(0, kernel) }
    }

    private mutating func answerJoiner<K: Kernel>(_ status: Int32, _ kernel: K) {
        guard let question = joiner?.question, question != .none else { return }
        joiner?.question = .none
        answer(Request(letter: letter(question)).envelope, status, kernel)
        continuations.remove(question)
    }
    /// All that was there is on its way, and has been answered.
    mutating func joinerHasAll<K: Kernel>(_ kernel: K) { answerJoiner(0, kernel) }

    /// What the joiner has is not what is here, or it has other neighbours: it is to begin again. Where it does not wait for an answer, it
    /// learns so by the next one, or has taken its place already, and is then sent all as any follower is.
    mutating func spoilJoiner<K: Kernel>(_ kernel: K) {
        guard let joiner else { return }
        self.joiner?.isSpoiled = true
        self.joiner?.run = nil
        guard joiner.question != .none else { return }
        self.joiner?.hasYielded = false
        answerJoiner(Status.retry, kernel)
    }
    /// The joiner is dead, begins again, lets go, or has been let in.
    mutating func endHelp<K: Kernel>(_ kernel: K) {
        answerJoiner(Status.retry, kernel)
        joiner = nil
        hasSurplus = false
        copyNext(.follower, kernel)
    }

    // MARK: What changes meanwhile

    /// A change of a name that has been made here.
    mutating func tellJoiner<K: Kernel>(_ request: Request, _ hash: UInt64, _ kernel: K) {
        guard let joiner, !joiner.isSpoiled, concernsJoiner(hash) else { return }
        guard let id = continuations.insert(NameContinuation(wait: .told, position: 0, bytes: joiner.serial)) else {
            return spoilJoiner(kernel)
        }
        if send(copyOf: request, to: joiner.member, for: joiner.attempt, expecting: id, kernel) == .sent {
            self.joiner?.told += 1
            return
        }
        continuations.remove(id)
        spoilJoiner(kernel)
    }

    /// The joiner has made a change that it was told of.
    mutating func finishTold<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let serial = continuations.state(id)?.pointee.bytes else { return }
        continuations.remove(id)
        guard let joiner, joiner.serial == serial else { return }
        self.joiner?.told -= 1
        if joiner.told == 1, joiner.hasYielded { answerJoiner(0, kernel) }
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
        if copying != nil, let follower = follower(of: member) { _ = send(removalFrom: entry, operation, gone, to: follower, nil, kernel) }
        guard let joiner, !joiner.isSpoiled, concernsJoiner(hash) else { return }
        if send(removalFrom: entry, operation, gone, to: joiner.member, joiner, kernel) {
            self.joiner?.told += 1
        } else {
            spoilJoiner(kernel)
        }
    }
    private mutating func send<K: Kernel>(
        removalFrom entry: UInt32, _ operation: fos_operation, _ gone: fos_name_member, to peer: Int, _ joiner: Joiner?, _ kernel: K
    ) -> Bool {
        guard let id = continuations.insert(NameContinuation(wait: .told, position: 0, bytes: joiner?.serial ?? 0)) else { return false }
        let name = table.name(entry)
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.flags = UInt16(FOS_NAME_COPY.rawValue)
        message.pointee.inode = joiner?.attempt ?? 0
        var fixed = fos_name_request()
        fixed.name_length = UInt32(name.count)
        fixed.member = gone
        let room = message.body
        room.storeBytes(of: fixed, as: fos_name_request.self)
        (room + NameRequest.fixedBytes).copyMemory(from: name.bytes, byteCount: name.count)
        message.pointee.length = UInt32(NameRequest.fixedBytes + name.count)
        if kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil) == .sent { return true }
        continuations.remove(id)
        return false
    }

    // MARK: NEWS and END

    /// NEWS: somebody has taken its place.
    mutating func takeNews<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isOfPeer(request.envelope), let peer = membership.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)),
            peer != member
        else { return }
        guard joining == nil else { return newsWhileJoining(of: peer, kernel) }
        let hasAll = joiner.map { $0.member == peer && $0.hasYielded && !$0.isSpoiled } ?? false
        let old = follower(of: member), servedFor = firstAlive(from: peer) == member, hasSurplus = hasSurplus
        membership.set(peer, alive: true)
        if follower(of: member) == peer, !hasAll || copying != nil { copying = CopyRun() }
        // Copies of what the other one serves now, or makes copies of.
        if let old, old != follower(of: member) || servedFor { sendEnd(to: old, kernel) }
        if hasSurplus { dropSurplus() }
        if joiner?.member != peer { spoilJoiner(kernel) }
        if joiner?.member == peer { endHelp(kernel) } else { copyNext(.follower, kernel) }
    }

    /// Copies that stay for want of this only take room: whoever makes copies anew has the old ones dropped.
    private func sendEnd<K: Kernel>(to peer: Int, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_NAME_SHARD_END.rawValue)
        _ = kernel.send(message, to: membership[peer], expecting: .none, onBehalfOf: nil)
    }

    /// END: names that are neither served here nor by whom this server follows. It may come before the news of who has taken them.
    mutating func takeEnd() {
        hasSurplus = joiner?.hasYielded == true
        dropSurplus()
    }
    private mutating func dropSurplus() {
        guard joining == nil else { return }
        let member = member
        removeNames { owner, follower in owner != member && follower != member }
    }
}
