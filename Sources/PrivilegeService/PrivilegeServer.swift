// PrivilegeServer: a member of the privilege fleet, which says who may send where and register what (paper, section 3.2).
//
// Role: microkernels ask (CHECK) and cache the answer with its epoch; a change (SET) bumps the epoch, tells every
// microkernel, and is answered only when all have acknowledged, so that after it nobody acts on an old answer.
// Static privileges, the fixed point: messages of kernels and of servers are not checked anywhere; every client may
// send to the privilege and name fleets' public mailboxes as configured; and /sys/ names are the kernel's alone.
// No rule can change these.
//
// Without a matching rule the defaults hold:
//   SEND      a client may send to a mailbox of the public list. A mailbox that is not in it (a microkernel's own, a
//             mailbox for peers only) is never reachable by a client, whatever the rules say.
//   REGISTER  a client may register names below "/user/UID/" with its own UID, and below "/tmp/"; root and
//             FOS_RIGHT_ADMIN any name. "/sys" and "/sys/..." never.
//   CONNECT   the instance's owner and root; everybody if the instance allows others.
//   ADMIN     the instance's owner and root.
//
// The fleet has one writer, member 0: other members forward SET to it, and it hands each change to them (PRIVILEGE_SET
// from a peer) before it tells the microkernels. One change is under way at a time; another is answered RETRY.
// Invariants: answers carry the epoch they were made in; epochs only grow; no clock, no allocation after start.

public import CFosWire
import Fleet
public import Messaging
import Glibc

/// What the instance decides once, at start.
public struct PrivilegePolicy: Sendable {
    /// The user who started the instance.
    public var owner: UInt32
    /// Users other than the owner and root may connect.
    public var allowsOthers: Bool
    /// Mailboxes that clients may send to.
    public var publicMailboxes: [MailboxAddress]
    /// Rules at most. 1,024: a few for each of a hundred users.
    public var rulesMax = 1_024

    public init(owner: UInt32, allowsOthers: Bool, publicMailboxes: [MailboxAddress]) {
        self.owner = owner
        self.allowsOthers = allowsOthers
        self.publicMailboxes = publicMailboxes
    }
}

/// The change under way.
struct PrivilegeContinuation: BitwiseCopyable {
    /// Next peer, then next microkernel, to tell.
    var nextPeer: UInt32
    var nextCore: UInt32
    /// Told, and not yet acknowledged.
    var waiting: UInt32
    var status: Int32
}

public struct PrivilegeServer: Server, ~Copyable {
    let member: Int
    let membership: Membership
    let owner: UInt32
    let allowsOthers: Bool
    private let publicMailboxes: UnsafeMutablePointer<fos_mailbox>
    private let publicCount: Int
    private let kernels: UnsafeMutablePointer<fos_mailbox>
    private let kernelsRoom: Int
    private var kernelCount: Int
    var rules: PrivilegeRules
    /// Of the answers given; bumped by each change.
    public private(set) var epoch: UInt32 = 1
    private var continuations: ContinuationSlab<PrivilegeContinuation>
    private var change: ContinuationID = .none
    private let letter: UnsafeMutablePointer<fos_letter>

    /// - Parameters:
    ///   - member: this server's index in the fleet; 0 is the writer.
    ///   - members: mailboxes of all privilege servers, in order of index.
    ///   - kernels: mailboxes of all microkernels (index 0 of each core), which are told of every change.
    public init(member: Int, members: [MailboxAddress], policy: PrivilegePolicy, kernels: [MailboxAddress]) {
        precondition(member >= 0 && member < members.count, "a privilege server is not in its own fleet")
        precondition(kernels.count <= Int(FOS_CORES_MAX), "more microkernels than cores")
        self.member = member
        membership = Membership(members)
        owner = policy.owner
        allowsOthers = policy.allowsOthers
        publicCount = policy.publicMailboxes.count
        publicMailboxes = .allocate(capacity: max(1, publicCount))
        // Sorted for binary search: a fleet of thousands of servers has as many public mailboxes.
        for (index, mailbox) in policy.publicMailboxes.map(\.rawValue).sorted().enumerated() { publicMailboxes[index] = mailbox }
        kernelsRoom = Int(FOS_CORES_MAX)
        self.kernels = .allocate(capacity: kernelsRoom)
        for (index, kernel) in kernels.enumerated() { self.kernels[index] = kernel.rawValue }
        kernelCount = kernels.count
        rules = PrivilegeRules(capacity: policy.rulesMax)
        continuations = ContinuationSlab(capacity: 2)
        letter = .allocate(capacity: 1)
    }

    deinit {
        publicMailboxes.deallocate()
        kernels.deallocate()
        letter.deallocate()
    }

    // MARK: Requests

    public mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        switch UInt32(request.operation) {
        case FOS_OP_PRIVILEGE_CHECK.rawValue: check(request, kernel)
        case FOS_OP_PRIVILEGE_SET.rawValue: set(request, kernel)
        case FOS_OP_PRIVILEGE_LIST.rawValue: list(request, kernel)
        case FOS_OP_PRIVILEGE_SUBSCRIBE.rawValue: subscribe(request, kernel)
        case FOS_OP_PING.rawValue: answer(request.envelope, 0, kernel)
        case FOS_OP_STATISTICS.rawValue: answerStatistics(request.envelope, kernel)
        case FOS_OP_CLIENT_GONE.rawValue: break  // nothing here belongs to a client
        case FOS_OP_TICK.rawValue:
            if change != .none { tellMore(kernel) }
        default: answer(request.envelope, -ENOSYS, kernel)
        }
    }

    public mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        guard response.continuation == change, let state = continuations.state(change) else { return }
        precondition(state.pointee.waiting > 0, "an acknowledgement that nobody waits for")
        state.pointee.waiting -= 1
        // A microkernel or peer that refuses has no cached answers left to be wrong; others still decide.
        tellMore(kernel)
    }

    public func describe(_ statistics: inout fos_statistics) {
        statistics.service = FOS_SERVICE_PRIVILEGE.rawValue
        statistics.member = UInt32(member)
        statistics.continuations_now = UInt64(continuations.count)
        statistics.continuations_peak = UInt64(continuations.peak)
    }

    // MARK: CHECK

    private mutating func check<K: Kernel>(_ request: Request, _ kernel: K) {
        // A client may ask about itself alone: it must not read the policy for others out of us.
        guard let (question, name) = question(request) else { return answer(request.envelope, -EINVAL, kernel) }
        let isTrusted = isTrusted(request.envelope)
        guard isTrusted || question.uid == request.envelope.pointee.uid else { return answer(request.envelope, -EACCES, kernel) }
        let rights = isTrusted ? question.rights : UInt32(request.envelope.pointee.rights)
        let kind = isTrusted ? question.subject_kind : FOS_SENDER_CLIENT.rawValue
        let allowed = decide(
            action: question.action, kind: kind, uid: question.uid, rights: rights, mailbox: question.mailbox, name: name)
        let message = kernel.scratch()
        message.pointee.length = UInt32(MemoryLayout<fos_privilege_answer>.size)
        message.body.storeBytes(of: fos_privilege_answer(allowed: allowed ? 1 : 0, epoch: epoch), as: fos_privilege_answer.self)
        reply(request.envelope, message, kernel)
    }

    private func question(_ request: Request) -> (fos_privilege_question, UnsafeBufferPointer<UInt8>)? {
        let fixed = MemoryLayout<fos_privilege_question>.size
        guard let base = request.payload.baseAddress, request.payload.count >= fixed else { return nil }
        let question = base.loadUnaligned(as: fos_privilege_question.self)
        let length = Int(question.name_length)
        guard question.action >= FOS_PRIVILEGE_SEND.rawValue, question.action <= FOS_PRIVILEGE_ADMIN.rawValue,
            length <= Int(FOS_SERVICE_NAME_BYTES_MAX), fixed + length <= request.payload.count
        else { return nil }
        return (question, UnsafeBufferPointer(start: UnsafePointer((base + fixed).assumingMemoryBound(to: UInt8.self)), count: length))
    }

    /// The verdict on a question: fixed points, then rules, then defaults.
    func decide(
        action: UInt32, kind: UInt32, uid: UInt32, rights: UInt32, mailbox: fos_mailbox, name: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        if kind == FOS_SENDER_KERNEL.rawValue || kind == FOS_SENDER_SERVER.rawValue { return true }
        guard kind == FOS_SENDER_CLIENT.rawValue else { return false }
        if action == FOS_PRIVILEGE_SEND.rawValue, !isPublic(mailbox) { return false }
        if action == FOS_PRIVILEGE_REGISTER.rawValue, isKernelName(name) { return false }
        if let verdict = rules.verdict(action: action, kind: kind, uid: uid, mailbox: mailbox, name: name) { return verdict }
        let isAdmin = uid == 0 || uid == owner
        switch action {
        case FOS_PRIVILEGE_SEND.rawValue: return true
        case FOS_PRIVILEGE_REGISTER.rawValue:
            return uid == 0 || rights & FOS_RIGHT_ADMIN.rawValue != 0 || begins(name, "/tmp/") || isBelowUser(name, uid)
        case FOS_PRIVILEGE_CONNECT.rawValue: return isAdmin || allowsOthers
        case FOS_PRIVILEGE_ADMIN.rawValue: return isAdmin
        default: return false
        }
    }

    private func isPublic(_ mailbox: fos_mailbox) -> Bool {
        var low = 0, high = publicCount
        while low < high {
            let middle = (low + high) / 2
            if publicMailboxes[middle] == mailbox { return true }
            if publicMailboxes[middle] < mailbox { low = middle + 1 } else { high = middle }
        }
        return false
    }
    private func begins(_ name: UnsafeBufferPointer<UInt8>, _ prefix: StaticString) -> Bool {
        guard name.count >= prefix.utf8CodeUnitCount else { return false }
        for index in 0..<prefix.utf8CodeUnitCount where name[index] != prefix.utf8Start[index] { return false }
        return true
    }
    private func isKernelName(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
        begins(name, "/sys/") || (name.count == 4 && begins(name, "/sys")) || name.count == 0 || name[0] != UInt8(ascii: "/")
    }
    /// "/user/UID/..." with UID as decimal digits without leading zeros.
    private func isBelowUser(_ name: UnsafeBufferPointer<UInt8>, _ uid: UInt32) -> Bool {
        guard begins(name, "/user/") else { return false }
        var divisor: UInt32 = 1
        while uid / divisor >= 10 { divisor *= 10 }
        var index = 6
        while divisor > 0 {
            guard index < name.count, name[index] == UInt8(ascii: "0") + UInt8(uid / divisor % 10) else { return false }
            divisor /= 10
            index += 1
        }
        return index + 1 < name.count && name[index] == UInt8(ascii: "/")
    }

    // MARK: SET

    private mutating func set<K: Kernel>(_ request: Request, _ kernel: K) {
        let isPeer = isPeer(request.envelope)
        let isKernel = UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_KERNEL.rawValue
        guard isPeer || isKernel || UInt32(request.envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0 else {
            return answer(request.envelope, -EPERM, kernel)
        }
        guard let (rule, prefix) = rule(request) else { return answer(request.envelope, -EINVAL, kernel) }
        if isPeer {
            // The writer's word: the epoch travels in message.inode so that all members give one.
            let isKept = rules.set(rule, prefix: prefix)
            epoch = UInt32(truncatingIfNeeded: request.message.pointee.inode)
            return answer(request.envelope, isKept ? 0 : -ENOSPC, kernel)
        }
        guard member == 0 else {
            switch kernel.forward(request.letter, to: membership[0]) {
            case .sent: break
            case .full: answer(request.envelope, Status.retry, kernel)
            case .stale: answer(request.envelope, -EHOSTDOWN, kernel)
            }
            return
        }
        guard change == .none else { return answer(request.envelope, Status.retry, kernel) }
        guard rules.set(rule, prefix: prefix) else { return answer(request.envelope, -ENOSPC, kernel) }
        epoch &+= 1
        let state = PrivilegeContinuation(nextPeer: 0, nextCore: 0, waiting: 0, status: 0)
        guard let id = continuations.insert(state) else { preconditionFailure("the one change has no room") }
        change = id
        UnsafeMutableRawPointer(letter).copyMemory(from: request.letter, byteCount: MemoryLayout<fos_letter>.size)
        tellMore(kernel)
    }

    private func rule(_ request: Request) -> (PrivilegeRule, UnsafeBufferPointer<UInt8>)? {
        let fixed = MemoryLayout<fos_privilege_rule>.size
        guard let base = request.payload.baseAddress, request.payload.count >= fixed else { return nil }
        let raw = base.loadUnaligned(as: fos_privilege_rule.self)
        let length = Int(raw.prefix_length)
        guard raw.action >= FOS_PRIVILEGE_SEND.rawValue, raw.action <= FOS_PRIVILEGE_ADMIN.rawValue, raw.allow <= 1,
            raw.subject_kind == FOS_SENDER_CLIENT.rawValue, length <= Int(FOS_SERVICE_NAME_BYTES_MAX),
            fixed + length <= request.payload.count,
            raw.action == FOS_PRIVILEGE_REGISTER.rawValue || length == 0,
            raw.action == FOS_PRIVILEGE_SEND.rawValue || raw.mailbox == UInt32(FOS_MAILBOX_NONE)
        else { return nil }
        let rule = PrivilegeRule(
            action: raw.action, subjectKind: raw.subject_kind, uid: raw.uid, allow: raw.allow == 1, mailbox: raw.mailbox,
            prefixLength: UInt8(length))
        return (rule, UnsafeBufferPointer(start: UnsafePointer((base + fixed).assumingMemoryBound(to: UInt8.self)), count: length))
    }

    /// Tells the peers, and when they have it the microkernels; answers the change when all have acknowledged. A full
    /// mailbox is tried again at the next acknowledgement or tick.
    private mutating func tellMore<K: Kernel>(_ kernel: K) {
        guard let state = continuations.state(change) else { return }
        while state.pointee.nextPeer < UInt32(membership.count) {
            let peer = Int(state.pointee.nextPeer)
            if peer != member {
                let source = Request(letter: letter)
                let message = kernel.scratch()
                message.pointee.operation = UInt16(FOS_OP_PRIVILEGE_SET.rawValue)
                message.pointee.inode = UInt64(epoch)
                message.pointee.length = source.message.pointee.length
                message.body.copyMemory(from: source.message.body, byteCount: Int(source.message.pointee.length))
                let result = kernel.send(message, to: membership[peer], expecting: change, onBehalfOf: nil)
                if result == .full { return }
                if result == .sent {
                    state.pointee.waiting += 1
                }
            }
            state.pointee.nextPeer += 1
        }
        // A microkernel that is told first could ask a member that does not know yet, and cache the old answer.
        if state.pointee.nextCore == 0, state.pointee.waiting > 0 { return }
        while state.pointee.nextCore < UInt32(kernelCount) {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PRIVILEGE_INVALIDATE.rawValue)
            message.pointee.length = UInt32(MemoryLayout<fos_privilege_invalidate>.size)
            message.body.storeBytes(of: fos_privilege_invalidate(epoch: epoch, reserved: 0), as: fos_privilege_invalidate.self)
            let destination = MailboxAddress(rawValue: kernels[Int(state.pointee.nextCore)])
            let result = kernel.send(message, to: destination, expecting: change, onBehalfOf: nil)
            if result == .full { return }
            if result == .sent {
                state.pointee.waiting += 1
            }
            state.pointee.nextCore += 1
        }
        guard state.pointee.waiting == 0 else { return }
        continuations.remove(change)
        change = .none
        answer(Request(letter: letter).envelope, 0, kernel)
    }

    // MARK: SUBSCRIBE and LIST

    /// A microkernel that came up later: payload is its fos_mailbox. Kernel only; it starts with an empty cache.
    private mutating func subscribe<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_KERNEL.rawValue else {
            return answer(request.envelope, -EPERM, kernel)
        }
        guard let base = request.payload.baseAddress, request.payload.count >= MemoryLayout<fos_mailbox>.size else {
            return answer(request.envelope, -EINVAL, kernel)
        }
        let mailbox = base.loadUnaligned(as: fos_mailbox.self)
        for index in 0..<kernelCount where kernels[index] == mailbox { return answer(request.envelope, 0, kernel) }
        guard kernelCount < kernelsRoom else { return answer(request.envelope, -ENOSPC, kernel) }
        kernels[kernelCount] = mailbox
        kernelCount += 1
        answer(request.envelope, 0, kernel)
    }

    /// The rules, oldest first, as fos_privilege_rule each followed by its prefix and zeros to a multiple of 8, in bulk.
    /// ADMIN only. -ERANGE when the room is too small.
    private mutating func list<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0 else {
            return answer(request.envelope, -EPERM, kernel)
        }
        let asked = request.message.pointee
        guard let bulk = kernel.bulk(of: request.envelope, offset: asked.bulk_offset, count: asked.bulk_length), let base = bulk.baseAddress
        else {
            return answer(request.envelope, -EFAULT, kernel)
        }
        var used = 0
        for index in 0..<rules.count {
            let rule = rules[index], prefix = rules.prefix(index)
            let fixed = MemoryLayout<fos_privilege_rule>.size
            let length = (fixed + prefix.count + 7) & ~7
            guard used + length <= bulk.count else { return answer(request.envelope, -ERANGE, kernel) }
            let record = fos_privilege_rule(
                action: rule.action, subject_kind: rule.subjectKind, uid: rule.uid, allow: rule.allow ? 1 : 0, mailbox: rule.mailbox,
                prefix_length: UInt32(prefix.count))
            withUnsafeBytes(of: record) { (base + used).copyMemory(from: $0.baseAddress!, byteCount: fixed) }
            if let start = prefix.baseAddress { (base + used + fixed).copyMemory(from: start, byteCount: prefix.count) }
            (base + used + fixed + prefix.count).initializeMemory(as: UInt8.self, repeating: 0, count: length - fixed - prefix.count)
            used += length
        }
        let message = kernel.scratch()
        message.pointee.bulk_length = UInt32(used)
        reply(request.envelope, message, kernel)
    }

    // MARK: Small things

    private func isPeer(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        UInt32(envelope.pointee.sender_kind) == FOS_SENDER_SERVER.rawValue
            && membership.index(of: MailboxAddress(rawValue: envelope.pointee.from)) != nil
    }
    private func isTrusted(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        let kind = UInt32(envelope.pointee.sender_kind)
        return kind == FOS_SENDER_KERNEL.rawValue || kind == FOS_SENDER_SERVER.rawValue
    }
    private func answerStatistics<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ kernel: K) {
        let message = kernel.scratch()
        message.setBody(described(on: kernel))
        reply(envelope, message, kernel)
    }
}
