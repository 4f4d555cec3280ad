// How transactions go on that a crash has cut, when their coordinator, or a server that takes part, is back with its store.
//
// The coordinator's side. `recover` makes a continuation of each decision record before the first message: the names are locked
// again, so nobody sees a step in between. At the first tick each goes on (`Owed.outcome`): who was to decide is asked what
// it did (OUTCOME), behind the request itself, which had gone the same way; or the moves and the commit are sent again, which
// whoever has done them answers as done.
// The participant's side. A name that it has prepared stays locked while its coordinator is away. When that one is back, or this
// server itself is, it asks (DECISION): the coordinator goes on with it, or knows nothing of it, and then it was aborted.
// Invariants: nobody forgets what another may still ask for; a question that meets a server that is away is asked again.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    // MARK: The coordinator

    /// Takes up the transactions that its predecessor had decided or left to others.
    /// - Parameters:
    ///   - effects: what transactions of others have done here, oldest first.
    ///   - life: how many servers were here before with this store; no two have the same.
    /// - Returns: false if there is no room for what they had locked.
    public mutating func recover(_ decisions: [StoredDecision], effects: [StoredEffect], life: UInt32) -> Bool {
        self.life = life
        for effect in effects { takenLinks.add(effect.inode, effect.cookie, of: effect.coordinator.rawValue) }
        var holdsTree = false
        for decision in decisions {
            guard recover(decision) else { return false }
            if decision.record.holdsTree { holdsTree = true }
        }
        preparedNames.doubtAll()
        guard recoverShards() else { return false }
        // What its predecessor held for a rename that it had not decided.
        owesTreeUnlock = !holdsTree
        return true
    }

    private mutating func recover(_ decision: StoredDecision) -> Bool {
        let record = decision.record
        if record.kind == .shards { return recoverEnd(ofShards: record) }
        guard let directory = inodes.record(record.directory) else {
            preconditionFailure("a directory with a locked name is gone from its store")
        }
        var state = Continuation(record.kind == .rename ? .rename : record.kind == .removal ? .removal : .insertion)
        state.recoveredCookie = record.cookie
        state.recoveredStep = record.step.rawValue
        state.isRecorded = true
        state.directory = directory
        state.target = record.asked
        guard let dentry = lockAgain(decision.name, in: directory, kind: record.kind == .directory ? Mode.directoryKind : 0) else {
            return false
        }
        state.dentry = dentry
        guard let id = continuations.insert(state), let kept = continuations.state(id) else { return false }
        fillLetter(id, decision.message)
        if record.kind == .rename, !recoverRename(id, kept, record) { return false }
        owe(id, .outcome)
        return true
    }

    private mutating func recoverRename(_ id: ContinuationID, _ state: UnsafeMutablePointer<Continuation>, _ record: DecisionRecord) -> Bool
    {
        state.pointee.phase = .victim
        state.pointee.newParent = record.newParent
        state.pointee.source = record.source
        state.pointee.victim = record.victim
        state.pointee.renameFlags = record.flags
        state.pointee.sourceKind = record.sourceKind
        state.pointee.victimKind = record.victimKind
        state.pointee.holdsTree = record.holdsTree
        state.pointee.isPrepared = true
        state.pointee.newShardSlot = record.newShardSlot
        guard record.newRecord != 0 else { return true }
        guard let directory = inodes.record(record.newRecord), let names = RenameNames(kept(id)) else {
            preconditionFailure("a directory with a locked name is gone from its store")
        }
        guard let dentry = lockAgain(Array(names.new), in: directory, kind: record.sourceKind) else { return false }
        state.pointee.newDirectory = directory
        state.pointee.newDentry = dentry
        return true
    }

    /// A name is locked as it was; one that led nowhere is reserved again.
    private mutating func lockAgain(_ name: [UInt8], in directory: InodePointer, kind: UInt8) -> DentryPointer? {
        name.withUnsafeBytes { name in
            if let dentry = directory.directory.pointee.find(name) {
                lock(dentry, in: directory)
                return dentry
            }
            guard let dentry = directory.directory.pointee.insert(name, inode: 0, kind: kind, &arena, &pool) else { return nil }
            lock(dentry, in: directory)
            dentry.pointee.flags.insert(.placeholder)
            return dentry
        }
    }

    /// The request as it was, from nobody: its client has been answered EIO.
    func fillLetter(_ id: ContinuationID, _ message: [UInt8]) {
        let letter = kept(id)
        letter.letter.initialize(to: fos_letter())
        letter.envelope.pointee.sender_kind = UInt8(FOS_SENDER_NONE.rawValue)
        UnsafeMutableRawPointer(letter.message).copyMemory(
            from: message, byteCount: min(message.count, MemoryLayout<fos_message>.size + Int(FOS_PAYLOAD_BYTES_MAX)))
    }

    /// Goes on with a transaction of before.
    mutating func resumeRecovered<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        switch DecisionRecord.Step(rawValue: state.pointee.recoveredStep) {
        case .decided?: moveInodes(id, kernel)
        case .committing?: commitAgain(id, kernel)
        default: askOutcome(id, kernel)
        }
    }

    private mutating func askOutcome<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let makes = state.pointee.kind == .insertion && state.pointee.dentry?.pointee.kind == Mode.directoryKind
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_OUTCOME.rawValue)
        message.pointee.inode = makes ? 0 : state.pointee.target
        message.setBody(fos_peer_change(cookie: state.pointee.recoveredCookie, parent: 0, flags: 0, directory_uid: 0))
        let peer = makes ? slots.owner(ofSlot: Int(state.pointee.target % UInt64(FOS_SLOTS))) : ownerIndex(of: state.pointee.target)
        if members.isDead(peer) { return conclude(recovered: id, nil, kernel) }
        guard kernel.send(message, to: members[peer], expecting: id, onBehalfOf: nil) == .sent else {
            kernel.tickAgain()
            return owe(id, .outcome)
        }
        state.pointee.isAskingOutcome = true
        state.pointee.responses += 1
    }

    mutating func resumeOutcome<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        state.pointee.isAskingOutcome = false
        let reply = response.fixed(fos_peer_reply.self)
        // The name that is to go has been one of the inode's all along: if it has none, this transaction took the last.
        let hasNoLinks = response.status == -ENOENT || (response.status == 0 && reply?.attributes.links == 0)
        let isGone = hasNoLinks && state.pointee.kind != .insertion
        guard response.status == 0 || response.status == -ENOENT else {
            // Who was to answer has died: asked again when it is back.
            kernel.tickAgain()
            return owe(id, .outcome)
        }
        let isDone = isGone || (reply?.flags ?? 0) & FOS_PEER_DONE.rawValue != 0
        conclude(recovered: id, isDone ? response : nil, kernel)
    }

    /// What was to happen has happened, and here is what is known of it; or it has not, and never will.
    private mutating func conclude<K: Kernel>(recovered id: ContinuationID, _ response: Response?, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        switch (state.pointee.kind, response) {
        case (.insertion, let response?): resumeInsertion(id, response, kernel)
        case (.removal, let response?): resumeRemoval(id, response, kernel)
        case (.rename, _?): moveInodes(id, kernel)
        case (.rename, nil): abort(id, -EIO, kernel)
        default:
            undoEntry(state)
            decide(id, -EIO, kernel)
        }
    }

    /// What a dead coordinator has asked for and was not done yet, for want of credits or of shards that are not sealed, is not done any
    /// more: who takes its place asks what became of it (OUTCOME, DECISION), or copies a shard anew.
    mutating func dropRequests(of mailbox: MailboxAddress) {
        for index in 0..<Limits.continuations {
            guard let id = continuations.id(at: index), let state = continuations.state(id), !state.pointee.isDecided else { continue }
            let letter = kept(id)
            guard UInt32(letter.envelope.pointee.sender_kind) == FOS_SENDER_SERVER.rawValue,
                letter.envelope.pointee.from == mailbox.rawValue
            else { continue }
            switch state.pointee.kind {
            case .credits, .pages, .flush, .step: letter.message.pointee.operation = UInt16(FOS_OP_PING.rawValue)
            case .shards where state.pointee.phase == .seal: fail(state, Status.retry)
            default: break
            }
        }
    }

    /// OUTCOME: a coordinator that is back asks what its transaction did to an inode here, or to none that it knows.
    mutating func peerOutcome<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let question = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        let number = request.message.pointee.inode
        let coordinator = request.envelope.pointee.from
        let done =
            number == 0
            ? takenLinks.inode(question.cookie, of: coordinator)
            : takenLinks.contains(number, question.cookie, of: coordinator) ? number : nil
        guard let inode = inodes.find(done ?? number) else { return answerPeer(-ENOENT, kernel) }
        var reply = fos_peer_reply()
        if done != nil { reply.flags = FOS_PEER_DONE.rawValue }
        reply.attributes = attributes(of: inode, kernel)
        answerPeer(0, content: reply, kernel)
    }

    /// A transaction of another server's has changed a link of an inode here.
    mutating func noteEffect<K: Kernel>(_ inode: InodePointer, _ cookie: UInt64, _ kernel: K) {
        takenLinks.add(inode.pointee.number, cookie, of: turn.replyTo)
        committed(.effect(inode: inode.pointee.number, cookie: cookie, coordinator: MailboxAddress(rawValue: turn.replyTo)), kernel)
    }

    /// What a server that came back owes to others, until all of it is said.
    mutating func tickRecovery<K: Kernel>(_ kernel: K) {
        if owesTreeUnlock {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_TREE_UNLOCK.rawValue)
            let isSent =
                member == 0 || members.isDead(0) || kernel.send(message, to: members[0], expecting: .none, onBehalfOf: nil) == .sent
            owesTreeUnlock = !isSent
        }
        if owesPublishing { publishSharded(kernel) }
        askDecisions(kernel)
    }

    // MARK: The participant

    /// Asks the coordinators of prepared names that may have been aborted without this server hearing of it.
    mutating func askDecisions<K: Kernel>(_ kernel: K) {
        while let name = preparedNames.nextToAsk() {
            var state = Continuation(.inquiry)
            state.isDecided = true
            state.numbers = (name.cookie, UInt64(name.coordinator.rawValue), 0, 0)
            turn.cookie = 0
            guard let id = keep(state, kernel) else { break }
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_DECISION.rawValue)
            message.setBody(fos_peer_change(cookie: name.cookie, parent: 0, flags: 0, directory_uid: 0))
            guard kernel.send(message, to: name.coordinator, expecting: id, onBehalfOf: nil) == .sent else {
                continuations.remove(id)
                break
            }
            continuations.state(id)?.pointee.responses += 1
            preparedNames.setDoubt(.asked, name.coordinator, name.cookie)
        }
        if preparedNames.hasDoubts { kernel.tickAgain() }
    }

    mutating func resumeInquiry<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let numbers = continuations.state(id)?.pointee.numbers else { return }
        continuations.remove(id)
        turn.cookie = 0
        let coordinator = MailboxAddress(rawValue: UInt32(truncatingIfNeeded: numbers.1))
        guard response.status == 0, let reply = response.fixed(fos_peer_reply.self) else {
            preparedNames.setDoubt(.open, coordinator, numbers.0)
            return kernel.tickAgain()
        }
        if reply.flags & FOS_PEER_DONE.rawValue != 0 { return preparedNames.setDoubt(.none, coordinator, numbers.0) }
        // It may have been committed meanwhile, and is no prepared name any more.
        guard let name = preparedNames.take(coordinator, numbers.0), let directory = inodes.record(name.directory) else { return }
        committed(.released(record: name.directory, name: name.dentry.name), kernel)
        unlock(name.dentry, in: directory)
    }

    /// DECISION: whether a rename of this server is under way, and will be committed or aborted by it.
    mutating func peerDecision<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let question = request.fixed(fos_peer_change.self) else { return answerPeer(-EINVAL, kernel) }
        var reply = fos_peer_reply()
        for index in 0..<Limits.continuations {
            guard let id = continuations.id(at: index), let state = continuations.state(id), state.pointee.kind == .rename else { continue }
            if !state.pointee.isDecided, cookie(id) == question.cookie { reply.flags = FOS_PEER_DONE.rawValue }
        }
        answerPeer(0, content: reply, kernel)
    }
}
