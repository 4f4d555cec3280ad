// A name server that takes its place in the ring again, with nothing, while the others serve ("the joiner").
//
// Protocol, in steps:
//   1 JOIN   it asks every member for help, in rising order of their numbers. A member helps one joiner at a time (NameServer+Help), so of
//            several joiners at most one gets round: the one that has the member with the lowest number. Two members have names for it:
//            the one that serves its names now, and the one whose follower it will be. Each answers when it has sent all of them.
//   2 YIELD  it asks all to yield. From then on nobody serves or changes what will be the joiner's.
//   3 turn   when the last one has yielded, and no death has been heard of since the beginning, it serves. This turn is the one moment
//            at which the place changes hands.
//   4 NEWS   it tells all that it serves.
// What goes wrong before 3 makes it begin again, with nothing and under another number, which JOIN, YIELD and what it is sent for them
// carry in the header's inode. What goes wrong after 3 finds members that serve nothing of the joiner's until they hear from it, or of
// its death.
// Deaths: JOIN says whom the joiner believes to serve. A member that believes so of more servers has not heard of a death yet. It would not
// copy what was the dead one's, so it waits for the news of that death with its answer.
// Invariants: no member helps two joiners at once. Members are asked in rising order, and a joiner that has had help of a later one lets go
// of all before it asks an earlier one, so no two wait for each other. A joiner that another one believes not to serve tells it so
// (YIELD) before it serves. A name is at two members that serve, or at one and the joiner, before and after the turn.

import CFosWire
import Glibc
import Messaging

/// This server's way back.
struct Joining: BitwiseCopyable {
    /// Counts beginnings, from 1; answers to an earlier one say nothing, and copies for an earlier one are none.
    var attempt: UInt32 = 0
    /// The next member to ask for help, or to yield.
    var position = 0
    /// JOIN is under way.
    var isAsking = false
    /// All live members help; YIELD is sent to all.
    var isYielding = false
    /// YIELDs that are not answered.
    var awaited = 0
    /// It begins again at the next tick.
    var isWaiting = false
    /// The last member that was asked for help and not let go of since; -1: none.
    var reach = -1
    /// The next member to let go of, up to `releasingTo`; nil: none.
    var releasing: Int?
    var releasingTo = -1
}

extension NameServer {
    /// Whether it has taken its place, and has nothing to do with anybody's way back.
    public var isServing: Bool { joining == nil && untold == nil && copying == nil && joiner == nil }
    /// Whether it is on its way back.
    public var isRejoining: Bool { joining != nil }
    /// Whether, as far as this server has to do with it, every name is at two servers although some are dead.
    public func hasMadeCopies(without dead: [Int]) -> Bool {
        joining != nil || copying == nil && dead.allSatisfy { !membership.isAlive($0) }
    }

    /// At each tick, and when the core has nothing else to do while a message could not be sent.
    mutating func tick<K: Kernel>(_ kernel: K) {
        if joining?.isWaiting == true { beginAgain(kernel) } else { goOnJoining(kernel) }
        tellNews(kernel)
        copyNext(.follower, kernel)
        copyNext(.joiner, kernel)
    }
    /// Asks for a tick: soon if a mailbox was full; a dead member's news is on its way here.
    func again<K: Kernel>(after result: SendResult, _ kernel: K) {
        if result == .full { kernel.idleAgain() }
        kernel.tickAgain()
    }

    // MARK: Asking for help

    /// Begins again, with nothing.
    /// - Parameter lettingGo: of all that have been asked for help, so that somebody else may have it.
    private mutating func beginAgain<K: Kernel>(lettingGo: Bool = false, _ kernel: K) {
        guard let old = joining else { return }
        var next = Joining(attempt: old.attempt &+ 1, reach: old.reach, releasing: old.releasing, releasingTo: old.releasingTo)
        if lettingGo, old.reach >= 0 {
            next.releasing = 0
            next.releasingTo = max(old.reach, old.releasingTo)
            next.reach = -1
        }
        joining = next
        removeNames { _, _ in true }
        goOnJoining(kernel)
    }
    private mutating func beginAgainLater<K: Kernel>(_ kernel: K) {
        joining?.isWaiting = true
        kernel.tickAgain()
    }

    private mutating func goOnJoining<K: Kernel>(_ kernel: K) {
        guard joining?.isWaiting == false, letGo(kernel) else { return }
        if joining?.isYielding == true { return askToYield(kernel) }
        guard let joining, !joining.isAsking else { return }
        guard let peer = (joining.position..<membership.count).first(where: { $0 != member && membership.isAlive($0) }) else {
            guard membership.aliveCount > 0 else { return serveAlone(kernel) }
            self.joining?.isYielding = true
            self.joining?.position = 0
            return askToYield(kernel)
        }
        self.joining?.position = peer
        self.joining?.reach = max(joining.reach, peer)
        let result = ask(FOS_OP_NAME_JOIN, .join, peer, kernel)
        if result == .sent { self.joining?.isAsking = true } else { again(after: result, kernel) }
    }

    private mutating func ask<K: Kernel>(_ operation: fos_operation, _ wait: NameWait, _ peer: Int, _ kernel: K) -> SendResult {
        guard let attempt = joining?.attempt,
            let id = continuations.insert(NameContinuation(wait: wait, position: UInt32(peer), bytes: attempt))
        else {
            return .full
        }
        let message = message(operation, attempt, kernel)
        if wait == .join { sayWhoLives(message) }
        let result = kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil)
        if result != .sent { continuations.remove(id) }
        return result
    }
    /// A bit for each member, in rising order from the lowest of the first byte on: set if it is believed to serve.
    private func sayWhoLives(_ message: UnsafeMutablePointer<fos_message>) {
        let room = UnsafeMutableRawBufferPointer(start: message.body, count: (membership.count + 7) / 8)
        room.initializeMemory(as: UInt8.self, repeating: 0)
        for peer in 0..<membership.count where membership.isAlive(peer) { room[peer / 8] |= 1 << (peer % 8) }
        message.pointee.length = UInt32(room.count)
    }
    private func message<K: Kernel>(_ operation: fos_operation, _ attempt: UInt32, _ kernel: K) -> UnsafeMutablePointer<fos_message> {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.inode = UInt64(attempt)
        return message
    }

    /// False: not all have been told yet.
    private mutating func letGo<K: Kernel>(_ kernel: K) -> Bool {
        while let joining, let peer = joining.releasing {
            guard peer <= joining.releasingTo else {
                self.joining?.releasing = nil
                break
            }
            // One that is dead helps nobody.
            if peer != member,
                kernel.send(message(FOS_OP_NAME_JOIN, joining.attempt, kernel), to: membership[peer], expecting: .none, onBehalfOf: nil)
                    == .full
            {
                again(after: .full, kernel)
                return false
            }
            self.joining?.releasing = peer + 1
        }
        return true
    }

    // MARK: Taking the place

    /// Those that join too are asked as well: they are to know, before it serves, that it will.
    private mutating func askToYield<K: Kernel>(_ kernel: K) {
        while let peer = joining?.position, peer < membership.count {
            if peer != member {
                switch ask(FOS_OP_NAME_YIELD, .yield, peer, kernel) {
                case .sent: joining?.awaited += 1
                case .full: return again(after: .full, kernel)
                // Of one that served the news is on its way here, and makes it begin again: nobody answers.
                case .stale: if membership.isAlive(peer) { joining?.awaited += 1 }
                }
            }
            joining?.position = peer + 1
        }
        if joining?.awaited == 0 { serve(kernel) }
    }

    mutating func continueJoining<K: Kernel>(_ response: Response, _ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id)?.pointee else { return }
        continuations.remove(id)
        guard let joining, state.bytes == joining.attempt, !joining.isWaiting else { return }
        if state.wait == .yield {
            guard response.status == 0 else { return beginAgain(kernel) }
            self.joining?.awaited -= 1
        } else {
            // It joins too, and says so before it serves.
            if response.status == -EAGAIN {
                membership.set(Int(state.position), alive: false)
            } else if response.status != 0 {
                return response.status == Status.retry ? beginAgain(kernel) : beginAgainLater(kernel)
            }
            self.joining?.isAsking = false
            self.joining?.position = Int(state.position) + 1
        }
        goOnJoining(kernel)
    }

    private mutating func serve<K: Kernel>(_ kernel: K) {
        joining = nil
        membership.set(member, alive: true)
        untold = 0
        tellNews(kernel)
    }

    /// Nobody serves, so there is no name. The lowest of those that join begins, and the others have its help then.
    private mutating func serveAlone<K: Kernel>(_ kernel: K) {
        guard (0..<member).contains(where: { !membership.isDead($0) }) else { return serve(kernel) }
        for peer in 0..<membership.count where peer != member && !membership.isDead(peer) { membership.set(peer, alive: true) }
        beginAgainLater(kernel)
    }

    /// Until all know, nothing is changed here, and nothing copied: the news comes before both.
    mutating func tellNews<K: Kernel>(_ kernel: K) {
        while let peer = untold {
            guard peer < membership.count else {
                untold = nil
                return copyNext(.follower, kernel)
            }
            if peer != member {
                // One that is dead will ask when it is back.
                if kernel.send(message(FOS_OP_NAME_SHARD_NEWS, 0, kernel), to: membership[peer], expecting: .none, onBehalfOf: nil) == .full
                {
                    return again(after: .full, kernel)
                }
            }
            untold = peer + 1
        }
    }

    // MARK: What others do meanwhile

    /// A member that was believed to serve has died: what it had for this server, somebody else has.
    mutating func helperGone<K: Kernel>(_ kernel: K) { beginAgain(kernel) }

    /// JOIN of another one that joins.
    mutating func joinWhileJoining<K: Kernel>(_ peer: Int, _ request: Request, _ kernel: K) {
        // It may serve in a moment.
        if joining?.isYielding == true { return answer(request.envelope, -EBUSY, kernel) }
        noteUp(peer)
        answer(request.envelope, -EAGAIN, kernel)
    }
    /// YIELD of another one that joins: from now on this server asks it.
    mutating func yieldWhileJoining<K: Kernel>(_ peer: Int, _ request: Request, _ kernel: K) {
        // Both cannot have all: what one believes to be a member is dead, and the news of it on its way.
        if joining?.isYielding == true { return answer(request.envelope, Status.retry, kernel) }
        answer(request.envelope, 0, kernel)
        membership.set(peer, alive: true)
        if peer <= joining?.reach ?? -1 { beginAgain(lettingGo: true, kernel) }
    }
    mutating func newsWhileJoining<K: Kernel>(of peer: Int, _ kernel: K) {
        membership.set(peer, alive: true)
        beginAgain(lettingGo: peer <= joining?.reach ?? -1, kernel)
    }

    /// The microkernel's news that a server is there again: maybe it serves by now.
    mutating func serverBack<K: Kernel>(_ request: Request, _ kernel: K) {
        guard joining != nil, isNews(request.envelope),
            let peer = membership.index(of: MailboxAddress(rawValue: UInt32(truncatingIfNeeded: request.message.pointee.inode))),
            peer != member
        else { return }
        // All that serve help this server, so that one does not.
        if joining?.isYielding == true { return noteUp(peer) }
        guard membership.set(peer, alive: true) else { return }
        if peer <= joining?.reach ?? -1 { beginAgain(lettingGo: true, kernel) }
    }
    /// It lives, and does not serve.
    private mutating func noteUp(_ peer: Int) {
        guard membership.isDead(peer) else { return }
        membership.set(peer, alive: true)
        membership.set(peer, alive: false)
    }
}
