// The name fleet on the loop host: shards, redirects, one-to-many names, protection, deaths, listings, bad input.

import CFosWire
import LoopKernel
import Messaging
import NameService
import Fleet
import Glibc
import Testing

/// Stands in for the privilege fleet: denies names below /denied/.
private struct Gate: Server {
    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        let fixed = MemoryLayout<fos_privilege_question>.size
        let isDenied = request.payload.dropFirst(fixed).starts(with: Array("/denied/".utf8))
        let message = kernel.scratch()
        message.pointee.length = UInt32(MemoryLayout<fos_privilege_answer>.size)
        (UnsafeMutableRawPointer(message) + MemoryLayout<fos_message>.size).storeBytes(
            of: fos_privilege_answer(allowed: isDenied ? 0 : 1, epoch: 1), as: fos_privilege_answer.self)
        kernel.reply(to: request.envelope, message)
    }
    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {}
    func describe(_ statistics: inout fos_statistics) {}
}

/// A machine with a name fleet.
private struct Names {
    let host: LoopHost
    let servers: [MailboxAddress]

    init(
        seed: UInt64 = 1, servers count: Int = 3, gate: Bool = false, fullChance: Int = 0, initial: [InitialName] = [],
        limits: NameLimits = NameLimits(names: 2_000, members: 4_000, continuations: 16)
    ) {
        var options = LoopOptions(seed: seed)
        options.fullChance = fullChance
        host = LoopHost(options)
        servers = (0..<count).map { MailboxAddress(core: $0, index: 1) }
        let gateAddress = MailboxAddress(core: 0, index: 9)
        if gate { host.add(Gate(), at: gateAddress) }
        let distances = DistanceMatrix(cores: 64) { abs($0 - $1) }
        for (member, address) in servers.enumerated() {
            host.add(
                NameServer(
                    member: member, members: servers, distances: distances, privilege: gate ? gateAddress : nil, initial: initial,
                    limits: limits), at: address)
        }
    }

    static func member(_ mailbox: Int, core: Int = 0, load: Int = 0, alive: Int = 1) -> fos_name_member {
        fos_name_member(
            mailbox: fos_mailbox(mailbox), epoch: 1, core: UInt32(core), load: UInt32(load), distance: 0, alive: UInt32(alive))
    }
    static func call(
        _ operation: fos_operation, _ name: String, target: String = "", from: Int = 0, many: Bool = false,
        _ member: fos_name_member = member(0)
    ) -> LoopCall {
        LoopCall(
            operation,
            fos_name_request(
                name_length: UInt32(name.utf8.count), target_length: UInt32(target.utf8.count), from_core: UInt32(from),
                flags: many ? FOS_NAME_MANY.rawValue : 0, member: member), name, target)
    }
    /// Any server will do.
    func any(_ salt: Int) -> MailboxAddress { servers[salt % servers.count] }
    func run(_ client: LoopClient, _ call: LoopCall, at salt: Int = 0) throws -> Int32 { try client.call(call, to: any(salt)).status }

    struct Found: Equatable {
        var status: Int32
        var mailboxes: [UInt32] = []
        var redirects: UInt32 = 0
        var version: UInt64 = 0
    }
    func lookup(_ client: LoopClient, _ name: String, from core: Int = 0, at salt: Int = 0) throws -> Found {
        let reply = try client.call(Names.call(FOS_OP_NAME_LOOKUP, name, from: core), to: any(salt))
        guard reply.status == 0 else { return Found(status: reply.status) }
        let head: fos_name_reply = reply.fixed()
        let mailboxes = (0..<Int(head.members)).map { (reply.fixed(at: 16 + 24 * $0) as fos_name_member).mailbox }
        #expect(reply.payload.count == 16 + 24 * mailboxes.count)
        return Found(status: 0, mailboxes: mailboxes, redirects: head.redirects, version: head.version)
    }
    /// The whole namespace, in parts of `room` bytes.
    func list(_ client: LoopClient, room: Int = 65_536, at salt: Int = 0) throws -> [String: [UInt32]] {
        var names: [String: [UInt32]] = [:]
        var cookie: UInt64 = 0
        repeat {
            let reply = try client.call(LoopCall(FOS_OP_NAME_LIST, inode: cookie, room: room), to: any(salt))
            #expect(reply.status == 0)
            guard reply.status == 0 else { return names }
            var place = 0
            while place < reply.bulk.count {
                let record: fos_name_record = loopFixed(reply.bulk, at: place)
                let members = (0..<Int(record.members)).map { (loopFixed(reply.bulk, at: place + 16 + 24 * $0) as fos_name_member).mailbox }
                let text = place + 16 + 24 * Int(record.members)
                let name = String(decoding: reply.bulk[text..<text + Int(record.name_length)], as: UTF8.self)
                let target = String(
                    decoding: reply.bulk[text + Int(record.name_length)..<text + Int(record.name_length) + Int(record.target_length)],
                    as: UTF8.self)
                #expect(names.updateValue(members, forKey: target.isEmpty ? name : "\(name)>\(target)") == nil)
                place += Int(record.record_length)
            }
            cookie = reply.header.inode
        } while cookie != 0
        return names
    }
}

@Suite struct NameServerTests {
    @Test(arguments: [1, 2, 5]) func anyMemberAnswersForAnyName(count: Int) throws {
        let names = Names(servers: count)
        let client = names.host.addClient(uid: 7)
        for number in 1...60 {
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/user/7/n\(number)", Names.member(number)), at: number) == 0)
        }
        for number in 1...60 {
            for server in 0..<count { #expect(try names.lookup(client, "/user/7/n\(number)", at: server).mailboxes == [UInt32(number)]) }
        }
        #expect(try names.lookup(client, "/user/7/none").status == -ENOENT)
        for number in 1...60 {
            #expect(
                try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, "/user/7/n\(number)", Names.member(number)), at: number + 1) == 0)
            #expect(try names.lookup(client, "/user/7/n\(number)").status == -ENOENT)
        }
        let left = names.servers.map { names.host.statistics(of: $0).names }.reduce(0, +)
        #expect(left == 0)
        if count > 1 { #expect(names.servers.allSatisfy { names.host.statistics(of: $0).forwards > 0 }) }
        #expect(names.host.violations.isEmpty)
    }

    @Test func aNameWithOneMemberIsTakenAndAManyNameIsJoined() throws {
        let names = Names()
        let client = names.host.addClient(uid: 7)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/one", Names.member(1))) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/one", Names.member(2))) == -EEXIST)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/one", many: true, Names.member(2))) == -EEXIST)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/one", Names.member(1))) == 0)
        for mailbox in 1...40 {
            #expect(
                try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/many", many: true, Names.member(mailbox, core: mailbox))) == 0)
        }
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/a/many", Names.member(99))) == -EEXIST)
        #expect(try names.lookup(client, "/a/many", from: 20).mailboxes.count == 32)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, "/a/many", Names.member(77))) == -ENOENT)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, "/a/many")) == 0)
        #expect(try names.lookup(client, "/a/many").status == -ENOENT)
    }

    @Test func membersAreChosenByDistanceThenLoadAndTheDeadComeLast() throws {
        let names = Names()
        let client = names.host.addClient(uid: 7)
        for (mailbox, core) in [(1, 0), (2, 10), (3, 10), (4, 30)] {
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/f", many: true, Names.member(mailbox, core: core))) == 0)
        }
        #expect(try names.lookup(client, "/f", from: 0).mailboxes == [1, 2, 3, 4])
        #expect(try names.lookup(client, "/f", from: 12).mailboxes == [2, 3, 1, 4])
        #expect(try names.lookup(client, "/f", from: 63).mailboxes == [4, 2, 3, 1])
        let before = try names.lookup(client, "/f").version
        #expect(try names.run(client, Names.call(FOS_OP_NAME_LOAD, "/f", Names.member(2, load: 5))) == 0)
        #expect(try names.lookup(client, "/f", from: 12).mailboxes == [3, 2, 1, 4])
        #expect(try names.lookup(client, "/f").version == before)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_LOAD, "/f", Names.member(3, alive: 0))) == 0)
        #expect(try names.lookup(client, "/f", from: 12).mailboxes == [2, 1, 4, 3])
        #expect(try names.lookup(client, "/f").version > before)
        #expect(try names.lookup(client, "/f", from: 100_000).status == 0)
    }

    @Test func redirectsAreFollowedAcrossShardsUpToTheLimit() throws {
        let names = Names(servers: 4)
        let client = names.host.addClient(uid: 7)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/r/0", Names.member(42))) == 0)
        for number in 1...9 {
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/r/\(number)", target: "/r/\(number - 1)")) == 0)
        }
        for number in 0...8 {
            let found = try names.lookup(client, "/r/\(number)", at: number)
            #expect(found.mailboxes == [42] && found.redirects == number)
        }
        #expect(try names.lookup(client, "/r/9").status == -ELOOP)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/l/a", target: "/l/b")) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/l/b", target: "/l/a")) == 0)
        #expect(try names.lookup(client, "/l/a").status == -ELOOP)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/l/b", target: "/r/0")) == 0)
        #expect(try names.lookup(client, "/l/a").mailboxes == [42])
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/r/0", target: "/l/a")) == -EEXIST)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/l/a", Names.member(1))) == -EEXIST)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/l/x", target: "/nowhere")) == 0)
        #expect(try names.lookup(client, "/l/x").status == -ENOENT)
        // A client that says that it followed many redirects only fails sooner.
        var forged = Names.call(FOS_OP_NAME_LOOKUP, "/r/1")
        forged.flags = .max
        #expect(try names.run(client, forged) == -ELOOP)
    }

    @Test func protectedNamesAreTheKernelsAndOthersTheirMakers() throws {
        let names = Names(initial: [InitialName("/sys/file", isMany: true, mailboxes: [MailboxAddress(core: 3, index: 2)])])
        let root = names.host.addClient(uid: 0), user = names.host.addClient(uid: 7), other = names.host.addClient(uid: 8)
        #expect(try names.lookup(user, "/sys/file").mailboxes == [MailboxAddress(core: 3, index: 2).rawValue])
        for client in [root, user] {
            for name in ["/sys/x", "/sys"] {
                #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, name, Names.member(1))) == -EACCES)
            }
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/sys/y", target: "/a")) == -EACCES)
            #expect(try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, "/sys/file")) == -EACCES)
            #expect(try names.run(client, Names.call(FOS_OP_NAME_LOAD, "/sys/file", Names.member(1))) == -EACCES)
            #expect(try names.run(client, Names.call(FOS_OP_NAME_MEMBER_DEAD, "", Names.member(1))) == -EACCES)
        }
        #expect(try names.run(user, Names.call(FOS_OP_NAME_REGISTER, "/system", Names.member(1))) == 0)
        #expect(
            try names.host.kernelCall(Names.call(FOS_OP_NAME_REGISTER, "/sys/file", many: true, Names.member(5, core: 1)), to: names.any(0))
                .status == 0)
        #expect(try names.lookup(user, "/sys/file").mailboxes.count == 2)
        #expect(try names.run(user, Names.call(FOS_OP_NAME_REGISTER, "/u/m", many: true, Names.member(1))) == 0)
        #expect(try names.run(other, Names.call(FOS_OP_NAME_REGISTER, "/u/m", many: true, Names.member(2))) == -EACCES)
        #expect(try names.run(other, Names.call(FOS_OP_NAME_DEREGISTER, "/u/m", Names.member(1))) == -EACCES)
        #expect(try names.run(root, Names.call(FOS_OP_NAME_DEREGISTER, "/u/m", Names.member(1))) == 0)
    }

    @Test func thePrivilegeFleetIsAskedBeforeAClientRegisters() throws {
        let names = Names(gate: true)
        let client = names.host.addClient(uid: 7)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/allowed/x", Names.member(1))) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/denied/x", Names.member(1))) == -EACCES)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/denied/y", target: "/allowed/x")) == -EACCES)
        #expect(try names.lookup(client, "/denied/x").status == -ENOENT)
        // Two that wait for the answer at once: the table is looked at again, and one of them gets the name.
        let tickets = [1, 2].map { client.post(Names.call(FOS_OP_NAME_REGISTER, "/allowed/race", Names.member($0)), to: names.any($0)) }
        names.host.runUntilQuiet()
        #expect(Set(tickets.compactMap { client.reply($0)?.status }) == [0, -EEXIST])
    }

    @Test func aDeadMemberLeavesAllNamesOfTheFleet() throws {
        for seed: UInt64 in 1...20 {
            let names = Names(seed: seed, fullChance: 60)
            let client = names.host.addClient(uid: 7)
            for number in 0..<20 {
                for mailbox in [500, 501] {
                    #expect(
                        try names.run(
                            client, Names.call(FOS_OP_NAME_REGISTER, "/d/\(number)", many: true, Names.member(mailbox)), at: number) == 0)
                }
                #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/e/\(number)", Names.member(500))) == 0)
            }
            #expect(try names.host.kernelCall(Names.call(FOS_OP_NAME_MEMBER_DEAD, "/d/3", Names.member(501)), to: names.any(1)).status == 0)
            #expect(try names.host.kernelCall(Names.call(FOS_OP_NAME_MEMBER_DEAD, "", Names.member(500)), to: names.any(1)).status == 0)
            for number in 0..<20 {
                let found = try names.lookup(client, "/d/\(number)")
                #expect(number == 3 ? found.status == -ENOENT : found.mailboxes == [501], "seed \(seed)")
                #expect(try names.lookup(client, "/e/\(number)").status == -ENOENT)
            }
            #expect(names.host.violations.isEmpty)
        }
    }

    @Test func whatAClientMadeEndsWithItAlsoWhenItsRequestsComeLate() throws {
        for seed: UInt64 in 1...60 {
            let names = Names(seed: seed, gate: seed % 2 == 0)
            let victim = names.host.addClient(uid: 7), other = names.host.addClient(uid: 7)
            #expect(try names.run(other, Names.call(FOS_OP_NAME_REGISTER, "/c/m", many: true, Names.member(1))) == 0)
            #expect(try names.run(victim, Names.call(FOS_OP_NAME_REGISTER, "/c/m", many: true, Names.member(2))) == 0)
            #expect(try names.run(victim, Names.call(FOS_OP_NAME_REDIRECT, "/c/r", target: "/c/m")) == 0)
            for number in 0..<30 {
                victim.post(Names.call(FOS_OP_NAME_REGISTER, "/c/\(number)", Names.member(number + 10)), to: names.any(number))
            }
            for _ in 0..<Int(seed) { names.host.step() }
            victim.die()
            names.host.runUntilQuiet()
            #expect(try names.list(other) == ["/c/m": [1]], "seed \(seed)")
            #expect(names.host.violations.isEmpty)
        }
    }

    @Test(arguments: [300, 1_000, 65_536]) func aListingGathersEveryShardInParts(room: Int) throws {
        let names = Names(servers: 4)
        let client = names.host.addClient(uid: 7)
        var expected: [String: [UInt32]] = [:]
        for number in 1...100 {
            let name = "/list/" + String(repeating: "x", count: number) 
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, name, many: true, Names.member(number))) == 0)
            expected[name] = [UInt32(number)]
        }
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/list/r", target: "/list/x")) == 0)
        expected["/list/r>/list/x"] = []
        for server in 0..<4 { #expect(try names.list(client, room: room, at: server) == expected) }
        #expect(try client.call(LoopCall(FOS_OP_NAME_LIST, room: 24), to: names.any(0)).status == -ERANGE)
        for cookie: UInt64 in [4 << 32, .max, 1 << 63, 7 << 40] {
            #expect(try client.call(LoopCall(FOS_OP_NAME_LIST, inode: cookie, room: 4096), to: names.any(0)).status == -EINVAL)
        }
        // Past the end of a shard is just its end.
        #expect(try client.call(LoopCall(FOS_OP_NAME_LIST, inode: 0xffff_fff0, room: 4096), to: names.any(0)).status == 0)
        var wild = LoopCall(FOS_OP_NAME_LIST, room: Int(UInt32.max))
        #expect(try client.call(wild, to: names.any(0)).status == -EFAULT)
        wild.bulkOffset = .max
        #expect(try client.call(wild, to: names.any(1)).status == -EFAULT)
        #expect(names.servers.allSatisfy { names.host.statistics(of: $0).continuations_now == 0 })
    }

    @Test func badInputIsRefused() throws {
        let names = Names()
        let client = names.host.addClient(uid: 7)
        let operations = [FOS_OP_NAME_LOOKUP, FOS_OP_NAME_REGISTER, FOS_OP_NAME_DEREGISTER, FOS_OP_NAME_REDIRECT]
        for operation in operations {
            for name in ["", "a", "/", "//a", "/a/", "/a//b", "/a\0b", "relative/x"] {
                #expect(
                    try names.run(
                        client, Names.call(operation, name, target: operation == FOS_OP_NAME_REDIRECT ? "/t" : "", Names.member(1)))
                        == -EINVAL, "\(name)")
            }
            #expect(
                try names.run(client, Names.call(operation, "/" + String(repeating: "n", count: 127), target: "/t", Names.member(1)))
                    == -ENAMETOOLONG)
            #expect(try names.run(client, LoopCall(operation, payload: [1, 2, 3])) == -EINVAL)
            for length: UInt32 in [100, .max, 0x8000_0000] {
                let lie = fos_name_request(name_length: length, target_length: 0, from_core: 0, flags: 0, member: Names.member(1))
                #expect(try names.run(client, LoopCall(operation, lie, "/x")) == (length == 100 ? -EINVAL : -ENAMETOOLONG))
                let target = fos_name_request(name_length: 2, target_length: length, from_core: 0, flags: 0, member: Names.member(1))
                #expect(try names.run(client, LoopCall(operation, target, "/x")) == (length == 100 ? -EINVAL : -ENAMETOOLONG))
            }
        }
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/ok", Names.member(0))) == -EINVAL)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REDIRECT, "/ok", target: "bad")) == -EINVAL)
        #expect(try names.run(client, LoopCall(fos_operation(999))) == -ENOSYS)
        // News of the microkernel's, from a client.
        #expect(try names.run(client, LoopCall(FOS_OP_IDLE)) == -ENOSYS)
        // What only name servers ask each other.
        for operation in [FOS_OP_NAME_JOIN, FOS_OP_NAME_YIELD] { #expect(try names.run(client, LoopCall(operation)) == -EACCES) }
        #expect(try names.run(client, LoopCall(FOS_OP_PING)) == 0)
        #expect(try names.list(client).isEmpty)
    }

    @Test func fullTablesSayEnospcAndRecover() throws {
        let names = Names(servers: 1, limits: NameLimits(names: 10, members: 12, continuations: 2))
        let client = names.host.addClient(uid: 7)
        for number in 0..<10 {
            #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/\(number)", many: true, Names.member(1))) == 0)
        }
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/10", Names.member(1))) == -ENOSPC)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/0", many: true, Names.member(2))) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/0", many: true, Names.member(3))) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/0", many: true, Names.member(4))) == -ENOSPC)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, "/n/5")) == 0)
        #expect(try names.run(client, Names.call(FOS_OP_NAME_REGISTER, "/n/10", Names.member(1))) == 0)
        #expect(try names.list(client).count == 10)
    }

    @Test func randomChangesAgreeWithADictionary() throws {
        for seed: UInt64 in 1...20 {
            var random = LoopRandom(seed: seed)
            let names = Names(seed: seed, servers: 1 + random.below(4), gate: random.chance(128), fullChance: 40)
            let clients = [names.host.addClient(uid: 7), names.host.addClient(uid: 8)]
            var model: [String: (uid: UInt32, many: Bool, members: Set<UInt32>)] = [:]
            for _ in 0..<600 {
                let client = clients[random.below(2)]
                let name = "/q/\(random.below(12))", mailbox = 1 + random.below(5), many = random.chance(160)
                let known = model[name]
                let status: Int32, expected: Int32
                switch random.below(4) {
                case 0, 1:
                    status = try names.run(
                        client, Names.call(FOS_OP_NAME_REGISTER, name, many: many, Names.member(mailbox)), at: random.below(9))
                    if let known {
                        if known.uid != client.uid { expected = -EACCES }
                        else if known.members.contains(UInt32(mailbox)) { expected = 0 }
                        else if known.many && many { expected = 0; model[name]?.members.insert(UInt32(mailbox)) }
                        else { expected = -EEXIST }
                    } else {
                        expected = 0
                        model[name] = (client.uid, many, [UInt32(mailbox)])
                    }
                case 2:
                    status = try names.run(client, Names.call(FOS_OP_NAME_DEREGISTER, name, Names.member(mailbox)), at: random.below(9))
                    if let known, known.members.contains(UInt32(mailbox)) {
                        expected = known.uid == client.uid ? 0 : -EACCES
                        if expected == 0 {
                            model[name]?.members.remove(UInt32(mailbox))
                            if model[name]?.members.isEmpty == true { model[name] = nil }
                        }
                    } else { expected = -ENOENT }
                default:
                    let found = try names.lookup(client, name, at: random.below(9))
                    status = found.status
                    expected = known == nil ? -ENOENT : 0
                    #expect(Set(found.mailboxes) == known?.members ?? [], "seed \(seed)")
                }
                #expect(status == expected, "seed \(seed)")
            }
            #expect(try names.list(clients[0]).mapValues { Set($0) } == model.mapValues { $0.members }, "seed \(seed)")
            #expect(names.host.violations.isEmpty)
        }
    }
}
