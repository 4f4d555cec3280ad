// NameServer: a member of the name fleet, which leads from symbolic names to mailboxes (paper, section 3.2).
//
// Role: names are sharded over the fleet by hash, each at two members (NameServer+Copies); any member can be sent any request and
// forwards what it does not serve.
// Protocol: <fos/name.h>. LOOKUP, REGISTER, DEREGISTER, REDIRECT and LOAD of a name run at its owner in one
// transaction. LIST and a MEMBER_DEAD without a name visit the whole fleet, one member after the other, with a
// continuation. A client's REGISTER and REDIRECT wait for the privilege fleet's word if there is one.
// Invariants: a name is served by its owner only; names under /sys/ change by kernel messages only; what a client made
// ends with it, also when its last request arrives after the news of its death; lookups allocate nothing.
// Authority: a kernel may do all. Others register for themselves, and change what their own uid made, or, as root
// or with FOS_RIGHT_ADMIN, anything outside /sys/.

public import CFosWire
public import Fleet
public import Messaging
import Glibc

/// A name that exists from the start, such as the services' own.
public struct InitialName {
    public var name: String
    /// Joinable by further members.
    public var isMany: Bool
    public var members: [fos_name_member]
    public init(_ name: String, isMany: Bool = false, members: [fos_name_member]) {
        self.name = name
        self.isMany = isMany
        self.members = members
    }
    /// A name for mailboxes, each of epoch `epoch` and alive; their cores are those of the addresses.
    public init(_ name: String, isMany: Bool = false, mailboxes: [MailboxAddress], epoch: UInt32 = 1) {
        self.init(
            name, isMany: isMany,
            members: mailboxes.map {
                fos_name_member(mailbox: $0.rawValue, epoch: epoch, core: UInt32($0.core), load: 0, distance: 0, alive: 1)
            })
    }
}

/// What a continuation waits for.
enum NameWait: UInt8 {
    /// A listing: the next part from member `position`.
    case list
    /// The privilege fleet's answer to a registration or redirect.
    case check
    /// A removal from all shards: member `position` is at it.
    case dead
    /// A change that the other copy is to take: `status` is the answer.
    case copy
    /// A copy of what was there before a server died; nobody is answered by it. Or one for who joins.
    case piece, joinerPiece
    /// A change that who joins is told of; nobody is answered by it. `bytes` is the joiner's serial.
    case told
    /// Who joins waits for what it has asked for.
    case joiner
    /// This server joins: the member `position` helps it, or yields. `bytes` is the number of the attempt.
    case join, yield
}

struct NameContinuation: BitwiseCopyable {
    var wait: NameWait
    var position: UInt32
    /// LIST: bytes written to the client's bulk so far.
    var bytes: UInt32
    var status: Int32 = 0
}

public struct NameServer: Server, ~Copyable {
    let member: Int
    var membership: Membership
    let matrix: DistanceMatrix
    let distances: DistanceView
    let privilege: MailboxAddress?
    var table: NameTable
    var continuations: ContinuationSlab<NameContinuation>
    /// The letter each continuation will answer, by the index part of its id.
    let letters: UnsafeMutablePointer<fos_letter>
    /// Clients known to be dead, by index modulo the size: (client, generation).
    let graves: UnsafeMutablePointer<(client: UInt32, generation: UInt32)>
    static var graveCount: UInt32 { 1_024 }
    /// What is being copied to the follower; nil: it has all.
    var copying: CopyRun?
    /// A server that takes its place again, and whom this one helps; nobody else meanwhile.
    var joiner: Joiner?
    var joiners: UInt32 = 0
    /// It was told to drop copies, and has not heard yet who has them now.
    var hasSurplus = false
    /// This server takes its place again; nil: it serves.
    var joining: Joining?
    /// Members that are still to be told that this server serves, from this one on; nil: all know.
    var untold: Int?

    /// - Parameters:
    ///   - member: this server's index in the fleet.
    ///   - members: mailboxes of all name servers, in order of index.
    ///   - distances: between the cores, for the order of members in lookup replies.
    ///   - privilege: a member of the privilege fleet to ask before a client's registration; nil: only the rules above.
    ///   - initial: names that exist from the start; each server takes those it owns, so all get the same list.
    ///   - isJoining: it begins with nothing in a fleet that has names, and asks for its part of them.
    public init(
        member: Int, members: [MailboxAddress], distances: DistanceMatrix, privilege: MailboxAddress? = nil,
        initial: [InitialName] = [], limits: NameLimits = NameLimits(), isJoining: Bool = false
    ) {
        precondition(member >= 0 && member < members.count, "a name server is not in its own fleet")
        self.member = member
        membership = Membership(members)
        matrix = distances
        self.distances = distances.view
        self.privilege = privilege
        table = NameTable(limits)
        continuations = ContinuationSlab(capacity: limits.continuations)
        letters = .allocate(capacity: limits.continuations)
        graves = .allocate(capacity: Int(Self.graveCount))
        graves.initialize(repeating: (0, 0), count: Int(Self.graveCount))
        if isJoining {
            joining = Joining(isWaiting: true)
            membership.set(member, alive: false)
        } else {
            for name in initial { insert(name) }
        }
    }

    deinit {
        letters.deallocate()
        graves.deallocate()
    }

    private mutating func insert(_ initial: InitialName) {
        precondition(initial.isMany || initial.members.count == 1, "a name that is not one-to-many has one member")
        let bytes = Array(initial.name.utf8)
        bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { preconditionFailure("an initial name is empty") }
            let name = NameView(bytes: base, count: buffer.count)
            precondition(NameRequest.isWellFormed(name), "an initial name is malformed")
            let owner = owner(name.hash)
            guard owner == member || follower(of: owner) == member else { return }
            precondition(table.find(name, hash: name.hash) == NameTable.none, "an initial name is given twice")
            let entry = table.insert(name, hash: name.hash, ownerUID: 0, isMany: initial.isMany)
            precondition(entry != NameTable.none && !initial.members.isEmpty, "an initial name has no room or no member")
            for member in initial.members {
                precondition(table.addMember(entry, member, ownerUID: 0, client: 0, generation: 0), "too many initial members")
            }
        }
    }

    // MARK: Requests

    public mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        switch UInt32(request.operation) {
        case FOS_OP_NAME_REGISTER.rawValue, FOS_OP_NAME_REDIRECT.rawValue, FOS_OP_NAME_DEREGISTER.rawValue,
            FOS_OP_NAME_MEMBER_DEAD.rawValue:
            if UInt32(request.message.pointee.flags) & FOS_NAME_COPY.rawValue != 0 {
                takeCopy(request, kernel)
            } else {
                serveChange(request, kernel)
            }
        case FOS_OP_NAME_LOOKUP.rawValue: lookup(request, kernel)
        case FOS_OP_NAME_LIST.rawValue: list(request, kernel)
        case FOS_OP_NAME_SHARD_PIECE.rawValue: takePiece(request, kernel)
        case FOS_OP_NAME_JOIN.rawValue: helpJoining(request, kernel)
        case FOS_OP_NAME_YIELD.rawValue: yieldPlace(request, kernel)
        case FOS_OP_NAME_SHARD_NEWS.rawValue: takeNews(request, kernel)
        case FOS_OP_NAME_SHARD_END.rawValue: if isOfPeer(request.envelope) { takeEnd() }
        case FOS_OP_SERVER_GONE.rawValue: serverGone(request, kernel)
        case FOS_OP_SERVER_BACK.rawValue: serverBack(request, kernel)
        case FOS_OP_NAME_LOAD.rawValue: load(request, kernel)
        case FOS_OP_CLIENT_GONE.rawValue: clientGone(request.envelope, kernel)
        case FOS_OP_TICK.rawValue: tick(kernel)
        case FOS_OP_IDLE.rawValue where isNews(request.envelope): tick(kernel)
        case FOS_OP_PING.rawValue: answer(request.envelope, 0, kernel)
        case FOS_OP_STATISTICS.rawValue: answerStatistics(request.envelope, kernel)
        default: answer(request.envelope, -ENOSYS, kernel)
        }
    }

    private mutating func serveChange<K: Kernel>(_ request: Request, _ kernel: K) {
        switch UInt32(request.operation) {
        case FOS_OP_NAME_DEREGISTER.rawValue: deregister(request, kernel)
        case FOS_OP_NAME_MEMBER_DEAD.rawValue: memberDead(request, kernel)
        default: change(request, kernel)
        }
    }

    public mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        let id = response.continuation
        guard let state = continuations.state(id) else { return }
        switch state.pointee.wait {
        case .check: finishCheck(response, id, kernel)
        case .list: continueList(response, id, kernel)
        case .dead: continueDead(response, id, kernel)
        case .copy: finishCopy(id, kernel)
        case .piece: finishPiece(response, id, .follower, kernel)
        case .joinerPiece: finishPiece(response, id, .joiner, kernel)
        case .told: finishTold(id, kernel)
        case .join, .yield: continueJoining(response, id, kernel)
        case .joiner: break
        }
    }

    public func describe(_ statistics: inout fos_statistics) {
        statistics.service = FOS_SERVICE_NAME.rawValue
        statistics.member = UInt32(member)
        statistics.continuations_now = UInt64(continuations.count)
        statistics.continuations_peak = UInt64(continuations.peak)
        statistics.names = 0
        for index in 0..<Int(table.entriesUsed) where table.entries[index].isUsed && owner(table.entries[index].hash) == member {
            statistics.names += 1
        }
    }

    // MARK: Answers

    private func answerStatistics<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ kernel: K) {
        let message = kernel.scratch()
        message.setBody(described(on: kernel))
        reply(envelope, message, kernel)
    }

    /// Passes a request on to the member that owns its name.
    mutating func forward<K: Kernel>(_ request: Request, to owner: Int, _ kernel: K) {
        // A server that joins does not know for certain who serves, and others that join do not either: passed on once, a request is not
        // passed on by it. And those who served in its place may have yielded.
        if let joining, joining.isYielding || request.envelope.pointee.hops > 0 {
            return answer(request.envelope, Status.retry, kernel)
        }
        // A fleet of fixed size forwards once a redirect; more is a disagreement about the fleet, not a reason to loop.
        guard request.envelope.pointee.hops < 32 else { return answer(request.envelope, -ELOOP, kernel) }
        switch kernel.forward(request.letter, to: membership[owner]) {
        case .sent: break
        case .full: answer(request.envelope, Status.retry, kernel)
        // It is dead, and the news of it on its way here; its follower serves the name then.
        case .stale: answer(request.envelope, Status.retry, kernel)
        }
    }

    /// Keeps a request until a response comes. nil when the slab is full.
    mutating func suspend(_ request: Request, _ state: NameContinuation) -> ContinuationID? {
        guard let id = continuations.insert(state) else { return nil }
        UnsafeMutableRawPointer(letter(id)).copyMemory(from: request.letter, byteCount: MemoryLayout<fos_letter>.size)
        return id
    }
    func letter(_ id: ContinuationID) -> UnsafeMutablePointer<fos_letter> { letters + Int(id.rawValue & 0xffff) }

    // MARK: Authority

    func isKernel(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        UInt32(envelope.pointee.sender_kind) == FOS_SENDER_KERNEL.rawValue
    }
    /// News come from a microkernel's own mailbox, which no server can send from.
    func isNews(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        let kind = UInt32(envelope.pointee.sender_kind)
        return (kind == FOS_SENDER_KERNEL.rawValue || kind == FOS_SENDER_NONE.rawValue)
            && MailboxAddress(rawValue: envelope.pointee.from).index == 0
    }
    /// Another name server, asking in the fleet's own business.
    func isPeer(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        let kind = UInt32(envelope.pointee.sender_kind)
        return kind == FOS_SENDER_SERVER.rawValue && membership.index(of: MailboxAddress(rawValue: envelope.pointee.from)) != nil
    }
    /// The same, of one-way messages.
    func isOfPeer(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        UInt32(envelope.pointee.sender_kind) == FOS_SENDER_NONE.rawValue
            && membership.index(of: MailboxAddress(rawValue: envelope.pointee.from)) != nil
    }
    /// May change a name or member that `uid` made.
    func mayChange(_ uid: UInt32, _ envelope: UnsafePointer<fos_envelope>) -> Bool {
        isKernel(envelope) || envelope.pointee.uid == uid || envelope.pointee.uid == 0
            || UInt32(envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0
    }

    // MARK: Deaths of clients

    private mutating func clientGone<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ kernel: K) {
        // Only microkernels say so; one-way sends come from servers and microkernels only.
        let kind = UInt32(envelope.pointee.sender_kind)
        guard kind == FOS_SENDER_KERNEL.rawValue || kind == FOS_SENDER_NONE.rawValue else { return }
        let client = envelope.pointee.client, generation = envelope.pointee.client_generation
        graves[Int(client % Self.graveCount)] = (client, generation)
        for index in 0..<table.membersUsed
        where table.members[Int(index)].entry != NameTable.none && table.members[Int(index)].client == client
            && table.members[Int(index)].clientGeneration == generation
        {
            tellRemoved(member: index, kernel)
            table.removeMember(index)
        }
        for index in 0..<table.entriesUsed
        where table.entries[Int(index)].isUsed && table.entries[Int(index)].targetLength > 0
            && table.entries[Int(index)].client == client && table.entries[Int(index)].clientGeneration == generation
        {
            tellRemoved(redirect: index, kernel)
            table.remove(index)
        }
    }
    /// Whether a client's death is not known, here or to the microkernel: a request that was forwarded may come after the news of it,
    /// and this server may not have been there when the news came.
    func isAlive<K: Kernel>(client: UInt32, _ generation: UInt32, _ kernel: K) -> Bool {
        client == 0 || (!isDead(client: client, generation) && kernel.generation(ofClient: client) == generation)
    }
    func isDead(client: UInt32, _ generation: UInt32) -> Bool {
        let grave = graves[Int(client % Self.graveCount)]
        return client != 0 && grave.client == client && grave.generation == generation
    }
    /// The client that a change belongs to, its own request or the copy of one; none for the kernel's.
    func client(_ envelope: UnsafePointer<fos_envelope>) -> (UInt32, UInt32) {
        UInt32(envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue || isPeer(envelope)
            ? (envelope.pointee.client, envelope.pointee.client_generation) : (0, 0)
    }
}
