// The privilege fleet on the loop host: defaults, rules, and invalidation that reaches every microkernel first.

import CFosWire
import Glibc
import LoopKernel
import Messaging
import PrivilegeService
import Testing

/// Stands in for a microkernel: acknowledges invalidations, and counts them.
private struct Microkernel: Server {
    var epochs: [UInt32] = []
    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        if UInt32(request.operation) == FOS_OP_PRIVILEGE_INVALIDATE.rawValue {
            epochs.append(request.payload.load(as: fos_privilege_invalidate.self).epoch)
        }
        kernel.reply(to: request.envelope, kernel.scratch())
    }
    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {}
    func describe(_ statistics: inout fos_statistics) {}
}

private struct Privileges {
    let host: LoopHost
    let servers: [MailboxAddress]
    let kernels: [MailboxAddress]
    static let file = MailboxAddress(core: 1, index: 4), peer = MailboxAddress(core: 1, index: 5)

    init(seed: UInt64 = 1, servers count: Int = 1, cores: Int = 4, others: Bool = false, fullChance: Int = 0) {
        var options = LoopOptions(seed: seed)
        options.fullChance = fullChance
        host = LoopHost(options)
        servers = (0..<count).map { MailboxAddress(core: $0, index: 2) }
        kernels = (0..<cores).map { MailboxAddress(core: $0, index: 0) }
        for kernel in kernels { host.add(Microkernel(), at: kernel) }
        let policy = PrivilegePolicy(owner: 1000, allowsOthers: others, publicMailboxes: [Privileges.file] + servers)
        for member in 0..<count {
            host.add(PrivilegeServer(member: member, members: servers, policy: policy, kernels: kernels), at: servers[member])
        }
    }

    static func question(
        _ action: fos_privilege_action, uid: UInt32, mailbox: MailboxAddress = file, name: String = "", rights: UInt32 = 0,
        kind: fos_sender_kind = FOS_SENDER_CLIENT
    ) -> LoopCall {
        LoopCall(
            FOS_OP_PRIVILEGE_CHECK,
            fos_privilege_question(
                action: action.rawValue, subject_kind: kind.rawValue, uid: uid, rights: rights, mailbox: mailbox.rawValue,
                name_length: UInt32(name.utf8.count)), name)
    }
    func ask(_ call: LoopCall, at server: Int = 0) throws -> Bool {
        let reply = try host.kernelCall(call, to: servers[server])
        #expect(reply.status == 0)
        return (reply.fixed() as fos_privilege_answer).allowed == 1
    }
    static func rule(
        _ action: fos_privilege_action, uid: UInt32, allow: Bool, mailbox: MailboxAddress? = nil, prefix: String = "",
        kind: fos_sender_kind = FOS_SENDER_CLIENT
    ) -> LoopCall {
        LoopCall(
            FOS_OP_PRIVILEGE_SET,
            fos_privilege_rule(
                action: action.rawValue, subject_kind: kind.rawValue, uid: uid, allow: allow ? 1 : 0, mailbox: mailbox?.rawValue ?? 0,
                prefix_length: UInt32(prefix.utf8.count)), prefix)
    }
    func epochs() -> [[UInt32]] { kernels.map { host.withServer($0, as: Microkernel.self) { $0.epochs } } }
}

@Suite struct PrivilegeServerTests {
    @Test func defaults() throws {
        let fleet = Privileges(), open = Privileges(others: true)
        let ask = { (call: LoopCall) in try fleet.ask(call) }
        #expect(try ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 7)))
        #expect(try !ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 0, mailbox: Privileges.peer)))
        #expect(try !ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 0, mailbox: MailboxAddress(rawValue: 0))))
        #expect(try ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 0, mailbox: Privileges.peer, kind: FOS_SENDER_SERVER)))
        for (name, uid, allowed): (String, UInt32, Bool) in [
            ("/user/7/x", 7, true), ("/user/77/x", 7, false), ("/user/7", 7, false), ("/user/7/", 7, false), ("/user/07/x", 7, false),
            ("/user/0/x", 0, true), ("/user/4294967294/a", 4_294_967_294, true), ("/tmp/x", 7, true), ("/sys/x", 0, false),
            ("/sys", 0, false),
            ("/other", 7, false), ("/other", 0, true), ("other", 0, false), ("", 0, false), ("/tmpx", 7, false),
        ] {
            #expect(try ask(Privileges.question(FOS_PRIVILEGE_REGISTER, uid: uid, name: name)) == allowed, "\(name)")
        }
        #expect(try ask(Privileges.question(FOS_PRIVILEGE_REGISTER, uid: 7, name: "/other", rights: FOS_RIGHT_ADMIN.rawValue)))
        for (uid, mine, anyone): (UInt32, Bool, Bool) in [(0, true, true), (1000, true, true), (1001, false, true)] {
            #expect(try ask(Privileges.question(FOS_PRIVILEGE_CONNECT, uid: uid)) == mine)
            #expect(try open.ask(Privileges.question(FOS_PRIVILEGE_CONNECT, uid: uid)) == anyone)
            #expect(try open.ask(Privileges.question(FOS_PRIVILEGE_ADMIN, uid: uid)) == mine)
        }
    }

    @Test func theLastMatchingRuleWinsAndFixedPointsStay() throws {
        let fleet = Privileges(servers: 2)
        let admin = fleet.host.addClient(uid: 1000, rights: FOS_RIGHT_ADMIN.rawValue)
        let set = { (call: LoopCall) in try admin.call(call, to: fleet.servers[1]).status }
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_SEND, uid: .max, allow: false)) == 0)
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 7, allow: true, mailbox: Privileges.file)) == 0)
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 7, allow: true, mailbox: Privileges.peer)) == 0)
        for server in 0..<2 {
            #expect(try fleet.ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 7), at: server))
            #expect(try !fleet.ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 8), at: server))
            #expect(try !fleet.ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 7, mailbox: Privileges.peer), at: server))
        }
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_SEND, uid: .max, allow: false)) == 0)
        #expect(try !fleet.ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 7)))
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_REGISTER, uid: 7, allow: true, prefix: "/")) == 0)
        #expect(try set(Privileges.rule(FOS_PRIVILEGE_REGISTER, uid: 7, allow: false, prefix: "/tmp/private")) == 0)
        #expect(try fleet.ask(Privileges.question(FOS_PRIVILEGE_REGISTER, uid: 7, name: "/anything")))
        #expect(try !fleet.ask(Privileges.question(FOS_PRIVILEGE_REGISTER, uid: 7, name: "/tmp/private/x")))
        #expect(try !fleet.ask(Privileges.question(FOS_PRIVILEGE_REGISTER, uid: 7, name: "/sys/x")))
    }

    @Test(arguments: [1, 3]) func aChangeIsAnsweredAfterEveryMicrokernelKnows(servers: Int) throws {
        for seed: UInt64 in 1...30 {
            let fleet = Privileges(seed: seed, servers: servers, cores: 8, fullChance: Int(seed) * 4)
            let admin = fleet.host.addClient(uid: 0, rights: FOS_RIGHT_ADMIN.rawValue)
            for turn in 1...5 {
                // When the answer comes, every core has heard of the change.
                let call = Privileges.rule(FOS_PRIVILEGE_SEND, uid: 7, allow: turn % 2 == 0)
                var status: Int32 = 1
                while status > 0 {
                    let ticket = admin.post(call, to: fleet.servers[turn % servers])
                    while !admin.isAnswered(ticket) { if !fleet.host.step() { fleet.host.tick() } }
                    status = admin.reply(ticket)!.status
                }
                #expect(status == 0)
                #expect(fleet.epochs().allSatisfy { $0.last == UInt32(1 + turn) && $0.count == turn }, "seed \(seed)")
                for server in 0..<servers {
                    #expect(try fleet.ask(Privileges.question(FOS_PRIVILEGE_SEND, uid: 7), at: server) == (turn % 2 == 0))
                }
            }
            #expect(fleet.host.violations.isEmpty)
            #expect(fleet.servers.allSatisfy { fleet.host.statistics(of: $0).continuations_now == 0 })
        }
    }

    @Test func twoChangesAtOnceAreDoneOneAfterTheOther() throws {
        let fleet = Privileges(seed: 3)
        let admin = fleet.host.addClient(uid: 0, rights: FOS_RIGHT_ADMIN.rawValue)
        let tickets = (0..<4).map { admin.post(Privileges.rule(FOS_PRIVILEGE_SEND, uid: UInt32($0), allow: false), to: fleet.servers[0]) }
        fleet.host.runUntilQuiet()
        let statuses = tickets.compactMap { admin.reply($0)?.status }
        #expect(statuses.count == 4 && statuses.contains(0) && statuses.allSatisfy { $0 == 0 || $0 == Int32(FOS_TRANSPORT_RETRY.rawValue) })
    }

    @Test func onlyAdministratorsChangeAndList() throws {
        let fleet = Privileges()
        let user = fleet.host.addClient(uid: 7), admin = fleet.host.addClient(uid: 0, rights: FOS_RIGHT_ADMIN.rawValue)
        #expect(try user.call(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 7, allow: true), to: fleet.servers[0]).status == -EPERM)
        #expect(try user.call(LoopCall(FOS_OP_PRIVILEGE_LIST, room: 4096), to: fleet.servers[0]).status == -EPERM)
        #expect(try user.call(LoopCall(FOS_OP_PRIVILEGE_SUBSCRIBE, payload: [1, 0, 0, 0]), to: fleet.servers[0]).status == -EPERM)
        // A client asks for itself alone, and with the rights it really has.
        #expect(try user.call(Privileges.question(FOS_PRIVILEGE_ADMIN, uid: 0), to: fleet.servers[0]).status == -EACCES)
        let forged = try user.call(
            Privileges.question(FOS_PRIVILEGE_REGISTER, uid: 7, name: "/other", rights: .max, kind: FOS_SENDER_KERNEL), to: fleet.servers[0]
        )
        #expect((forged.fixed() as fos_privilege_answer).allowed == 0)
        #expect(
            try admin.call(Privileges.rule(FOS_PRIVILEGE_REGISTER, uid: 7, allow: true, prefix: "/a/b"), to: fleet.servers[0]).status == 0)
        let list = try admin.call(LoopCall(FOS_OP_PRIVILEGE_LIST, room: 4096), to: fleet.servers[0])
        let rule: fos_privilege_rule = loopFixed(list.bulk)
        #expect(list.bulk.count == 32 && rule.uid == 7 && rule.prefix_length == 4)
        #expect(String(decoding: list.bulk[24..<28], as: UTF8.self) == "/a/b")
        #expect(try admin.call(LoopCall(FOS_OP_PRIVILEGE_LIST, room: 31), to: fleet.servers[0]).status == -ERANGE)
    }

    @Test func badInputIsRefused() throws {
        let fleet = Privileges()
        let admin = fleet.host.addClient(uid: 0, rights: FOS_RIGHT_ADMIN.rawValue)
        let status = { (call: LoopCall) in try admin.call(call, to: fleet.servers[0]).status }
        #expect(try status(LoopCall(FOS_OP_PRIVILEGE_CHECK, payload: [1])) == -EINVAL)
        #expect(try status(LoopCall(FOS_OP_PRIVILEGE_SET, payload: [1])) == -EINVAL)
        #expect(try status(Privileges.question(fos_privilege_action(0), uid: 0)) == -EINVAL)
        #expect(try status(Privileges.question(fos_privilege_action(9), uid: 0)) == -EINVAL)
        for length: UInt32 in [1, 128, .max] {
            #expect(
                try status(
                    LoopCall(
                        FOS_OP_PRIVILEGE_CHECK,
                        fos_privilege_question(action: 2, subject_kind: 1, uid: 0, rights: 0, mailbox: 0, name_length: length))) == -EINVAL)
            #expect(
                try status(
                    LoopCall(
                        FOS_OP_PRIVILEGE_SET,
                        fos_privilege_rule(action: 2, subject_kind: 1, uid: 0, allow: 1, mailbox: 0, prefix_length: length))) == -EINVAL)
        }
        #expect(try status(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 1, allow: true, kind: FOS_SENDER_KERNEL)) == -EINVAL)
        #expect(try status(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 1, allow: true, prefix: "/x")) == -EINVAL)
        #expect(try status(LoopCall(fos_operation(999))) == -ENOSYS)
        var policy = PrivilegePolicy(owner: 1, allowsOthers: false, publicMailboxes: [])
        policy.rulesMax = 2
        let small = MailboxAddress(core: 9, index: 1)
        fleet.host.add(PrivilegeServer(member: 0, members: [small], policy: policy, kernels: []), at: small)
        for uid: UInt32 in 0..<4 {
            #expect(
                try admin.call(Privileges.rule(FOS_PRIVILEGE_SEND, uid: uid % 3, allow: true), to: small).status == (uid == 2 ? -ENOSPC : 0)
            )
        }
    }

    @Test func aMicrokernelThatSubscribedIsToldToo() throws {
        let fleet = Privileges(cores: 1)
        let late = MailboxAddress(core: 9, index: 0)
        fleet.host.add(Microkernel(), at: late)
        let call = LoopCall(FOS_OP_PRIVILEGE_SUBSCRIBE, payload: loopBytes(of: late.rawValue))
        for _ in 0..<2 { #expect(try fleet.host.kernelCall(call, to: fleet.servers[0]).status == 0) }
        #expect(try fleet.host.kernelCall(Privileges.rule(FOS_PRIVILEGE_SEND, uid: 1, allow: false), to: fleet.servers[0]).status == 0)
        #expect(fleet.host.withServer(late, as: Microkernel.self) { $0.epochs } == [2])
    }
}
