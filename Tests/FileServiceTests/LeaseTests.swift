// Leases: what the kernel may cache is revoked before a change by somebody else is acknowledged, and only then.

import CFosWire
import Glibc
import LoopKernel
import Messaging
import Testing

@testable import FileService

@Suite struct LeaseTests {
    struct Setup {
        let fleet: FileFleet
        let kernel: Files
        let other: Files
        init(members: Int = 2) {
            fleet = FileFleet(members: members, sharding: .never)  // ShardTests has the leases of shards
            kernel = fleet.frontEnd()
            other = fleet.files()
            kernel.client.noticePolicy = .byHand
        }
        /// Posts a call of the other client, and says which notices it waits for.
        func change(_ call: LoopCall) -> (LoopTicket, [String]) {
            kernel.client.forgetNotices()
            let ticket = other.client.post(call)
            fleet.host.runUntilQuiet()
            return (ticket, names)
        }
        var names: [String] {
            kernel.client.notices.map { notice in
                var name = notice.name
                let text = withUnsafeBytes(of: &name) { String(decoding: $0.prefix(Int(notice.name_length)), as: UTF8.self) }
                let kind = ["", "attributes", "pages", "entry", "directory", "shutdown", "removed"][Int(notice.kind)]
                return "\(kind) \(notice.inode)\(text.isEmpty ? "" : "/" + text)"
            }.sorted()
        }
        /// Expects no answer before, and this one after all acknowledgements.
        func settle(_ ticket: LoopTicket, _ status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) {
            while let notice = kernel.client.unacknowledged.first {
                #expect(!other.client.isAnswered(ticket), sourceLocation: sourceLocation)
                kernel.client.acknowledge(notice)
                fleet.host.runUntilQuiet()
            }
            #expect(other.client.reply(ticket)?.status == status, sourceLocation: sourceLocation)
        }
        func run(_ call: LoopCall, _ expected: [String], _ status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) {
            let (ticket, notices) = change(call)
            #expect(notices == expected.sorted(), sourceLocation: sourceLocation)
            settle(ticket, status, sourceLocation: sourceLocation)
        }
    }

    @Test(arguments: [1, 2]) func nothingHeldNothingAwaited(members: Int) {
        let s = Setup(members: members)
        let d = s.other.mkdir(1, "d").inode
        let f = s.other.create(d, "f").inode
        s.run(Files.writeCall(f, 0, [1]), [])
        s.run(Files.renameCall(d, "f", 1, "g"), [])
        s.run(LoopCall(FOS_OP_UNLINK, inode: 1, name: "g"), [])
        s.run(LoopCall(FOS_OP_RMDIR, inode: 1, name: "d"), [])
        s.fleet.check()
    }

    @Test(arguments: [1, 2, 3]) func revokesEntriesAndAttributes(members: Int) {
        let s = Setup(members: members)
        let d = s.other.mkdir(1, "d").inode
        let e = s.other.mkdir(1, "e").inode
        let f = s.other.create(d, "f").inode
        #expect(s.kernel.lookup(1, "d").status == 0 && s.kernel.lookup(d, "f").status == 0)
        s.run(LoopCall(FOS_OP_SETATTR, inode: f, setMode(0o600)), ["attributes \(f)"])
        s.run(LoopCall(FOS_OP_SETATTR, inode: f, setMode(0o640)), [])
        #expect(s.kernel.stat(f).permissions == 0o640)
        // A new name in d: the kernel has d's attributes.
        s.run(Files.make(FOS_OP_CREATE, d, "new", mode: 0o644), ["directory \(d)"])
        s.run(Files.make(FOS_OP_CREATE, d, "new2", mode: 0o644), [])
        #expect(s.kernel.entries(d).0 == 0)
        s.run(Files.make(FOS_OP_MKDIR, d, "sub", mode: 0o755), ["directory \(d)"])
        // The absence of a name.
        #expect(s.kernel.lookup(d, "absent").status == -ENOENT)
        s.run(Files.make(FOS_OP_CREATE, d, "absent", mode: 0o644), ["entry \(d)/absent"])
        #expect(s.kernel.lookup(d, "absent").status == 0 && s.kernel.stat(f).status == 0 && s.kernel.stat(d).status == 0)
        s.run(Files.linkCall(f, e, "hard"), ["attributes \(f)"])
        #expect(s.kernel.stat(f).attributes.links == 2 && s.kernel.stat(e).status == 0)
        s.run(LoopCall(FOS_OP_UNLINK, inode: e, name: "hard"), ["attributes \(f)", "directory \(e)"])
        _ = (s.kernel.stat(f), s.kernel.stat(e))
        s.run(Files.renameCall(d, "f", e, "g"), ["attributes \(f)", "entry \(d)/f", "directory \(d)", "directory \(e)"])
        #expect(s.kernel.lookup(e, "g").inode == f && s.kernel.lookup(d, "f").status == -ENOENT)
        s.run(LoopCall(FOS_OP_UNLINK, inode: e, name: "g"), ["attributes \(f)", "removed \(e)/g"])
        #expect(s.kernel.lookup(d, "sub").status == 0)
        let sub = s.kernel.lookup(d, "sub").inode
        s.run(LoopCall(FOS_OP_RMDIR, inode: d, name: "sub"), ["attributes \(sub)", "removed \(d)/sub"])
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }
    func setMode(_ mode: UInt32) -> fos_setattr_request {
        var request = fos_setattr_request()
        request.valid = FOS_SET_MODE.rawValue
        request.mode = mode
        return request
    }

    @Test(arguments: [1, 2, 3]) func renamesOverOwnersWaitOnceForAll(members: Int) {
        let s = Setup(members: members)
        let d = s.other.mkdir(1, "d").inode
        let e = s.other.mkdir(1, "e").inode
        let x = s.other.mkdir(d, "x").inode
        let y = s.other.mkdir(e, "y").inode
        for (parent, name) in [(UInt64(1), "d"), (1, "e"), (d, "x"), (e, "y")] { #expect(s.kernel.lookup(parent, name).status == 0) }
        for inode in [d, e] { #expect(s.kernel.stat(inode).status == 0) }
        let (ticket, notices) = s.change(Files.renameCall(d, "x", e, "y"))
        #expect(
            notices
                == ["attributes \(x)", "attributes \(y)", "directory \(d)", "directory \(e)", "entry \(d)/x", "removed \(e)/y"].sorted())
        // The change is there for all, and nothing is locked, while the acknowledgements are awaited.
        #expect(s.kernel.lookup(e, "y").inode == x && s.kernel.lookup(d, "x").status == -ENOENT && !s.other.client.isAnswered(ticket))
        #expect(s.kernel.create(e, "during").status == 0)
        s.settle(ticket)
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// Of a file without a name the kernel must let go, or it keeps its pages; of one that has another name it must not.
    @Test(arguments: [1, 2, 3]) func lastNamesAreToldApart(members: Int) {
        let s = Setup(members: members)
        let (d, e) = (s.other.mkdir(1, "d").inode, s.other.mkdir(1, "e").inode)
        let f = s.other.create(d, "f").inode
        #expect(s.other.link(f, e, "g").status == 0)
        #expect(s.kernel.lookup(d, "f").status == 0 && s.kernel.lookup(e, "g").status == 0)
        s.run(LoopCall(FOS_OP_UNLINK, inode: d, name: "f"), ["attributes \(f)", "entry \(d)/f"])
        s.run(LoopCall(FOS_OP_UNLINK, inode: e, name: "g"), ["removed \(e)/g"])
        let notice = s.kernel.client.notices.last
        #expect(notice?.child == f)
        // The victim of a rename.
        let (source, victim) = (s.other.create(d, "source").inode, s.other.create(e, "victim").inode)
        #expect(s.kernel.lookup(e, "victim").inode == victim)
        s.run(Files.renameCall(d, "source", e, "victim"), ["attributes \(victim)", "removed \(e)/victim"])
        // Nobody knows it there any more.
        #expect(s.kernel.forget([(f, 2), (victim, 1)]) == 0)
        s.run(LoopCall(FOS_OP_UNLINK, inode: e, name: "victim"), [])
        #expect(s.kernel.stat(source).status == -ESTALE)
        s.fleet.check()
    }

    /// open_by_handle_at(2): the kernel asks for "." of what it has forgotten, whatever it is.
    @Test func handlesAreLookedUpByDot() {
        let s = Setup()
        let f = s.other.create(1, "f").inode
        let link = s.other.symlink(1, "s", "f").inode
        for inode in [f, link] { #expect(s.kernel.lookup(inode, ".").inode == inode && s.kernel.lookup(inode, "x").status == -ENOTDIR) }
        #expect(s.other.lookup(f, ".").status == -ENOTDIR)
        #expect(s.kernel.forget([(f, 1), (link, 1)]) == 0)
        s.fleet.check()
    }

    @Test func changesOfTheKernelItselfRevokeNothing() {
        let s = Setup()
        let d = s.kernel.mkdir(1, "d").inode
        let f = s.kernel.create(d, "f").inode
        #expect(
            s.kernel.write(f, 0, [1, 2]) == 2 && s.kernel.rename(d, "f", 1, "g") == 0
                && s.kernel.setattr(f, FOS_SET_MODE.rawValue, mode: 0).status == 0)
        #expect(s.kernel.unlink(1, "g") == 0 && s.kernel.rmdir(1, "d") == 0)
        #expect(s.kernel.client.notices.isEmpty)
        #expect(s.kernel.forget([(f, 1), (d, 1)]) == 0)
        s.fleet.check()
    }

    @Test(arguments: [1, 2]) func deathAndLiesOfTheFrontEnd(members: Int) {
        let s = Setup(members: members)
        let f = s.other.create(1, "f").inode
        _ = (s.kernel.lookup(1, "f"), s.kernel.read(f, 0, 1))
        let (ticket, notices) = s.change(Files.writeCall(f, 0, [1]))
        #expect(notices == ["pages \(f)"])
        // An acknowledgement by someone else, and of something else, counts for nothing.
        let notice = s.kernel.client.unacknowledged[0]
        #expect(s.other.call(LoopCall(FOS_OP_LEASE_ACK, inode: f, fos_lease_ack(cookie: notice.cookie))).status == 0)
        for cookie in [0, 1, notice.cookie ^ 0x10000, notice.cookie | 1 << 40, UInt64.max] {
            #expect(s.kernel.call(LoopCall(FOS_OP_LEASE_ACK, inode: f, fos_lease_ack(cookie: cookie))).status == 0)
        }
        #expect(s.kernel.call(LoopCall(FOS_OP_LEASE_ACK, inode: f, payload: [1, 2])).status == -EINVAL)
        s.fleet.host.runUntilQuiet()
        #expect(!s.other.client.isAnswered(ticket))
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        #expect(s.other.client.reply(ticket)?.status == 0)
        #expect(s.other.rename(1, "f", 1, "g") == 0)
        s.fleet.check()
    }

    /// Whoever changes what the kernel decides by (owner, mode, the size of a file that may be mapped) is told, and has it look again.
    @Test func whatTheKernelDecidesByIsSaid() {
        let fleet = FileFleet(members: 1)
        let (kernel, files) = (fleet.frontEnd(), fleet.files())
        let f = files.create(1, "f", reference: 1).inode
        func isSaid(_ reply: LoopReply) -> Bool { reply.status == 0 && UInt32(reply.header.flags) & FOS_REPLY_LOOK_AGAIN.rawValue != 0 }
        #expect(!isSaid(files.call(Files.writeCall(f, 0, [1, 2, 3]))) && kernel.lookup(1, "f").status == 0)
        #expect(!isSaid(files.call(Files.writeCall(f, 3, [4]))), "it has no pages yet")
        _ = kernel.read(f, 0, 4)
        #expect(!isSaid(files.call(Files.writeCall(f, 0, [9]))), "the size is the same")
        #expect(
            isSaid(files.call(Files.writeCall(f, 4, [5]))) && isSaid(files.call(Files.writeCall(f, 5, [6]))),
            "mapped is mapped, however long ago")
        let cut = LoopCall(
            FOS_OP_SETATTR, inode: f,
            fos_setattr_request(
                valid: FOS_SET_SIZE.rawValue, mode: 0, uid: 0, gid: 0, size: 2, accessed: fos_time(), modified: fos_time(),
                changed: fos_time()))
        #expect(isSaid(files.call(cut)) && !isSaid(files.call(cut)))
        func owned(_ valid: UInt32) -> LoopCall {
            LoopCall(
                FOS_OP_SETATTR, inode: f,
                fos_setattr_request(
                    valid: valid, mode: 0o600, uid: 0, gid: 0, size: 0, accessed: fos_time(), modified: fos_time(), changed: fos_time()))
        }
        #expect(isSaid(files.call(owned(FOS_SET_MODE.rawValue))) && isSaid(files.call(owned(FOS_SET_GID.rawValue))), "it decides by them")
        #expect(!isSaid(files.call(owned(FOS_SET_MODIFIED_NOW.rawValue))))
        #expect(kernel.forget([(f, 1)]) == 0 && !isSaid(files.call(Files.writeCall(f, 2, [1]))))
        #expect(!isSaid(files.call(owned(FOS_SET_MODE.rawValue))))
        kernel.client.die()
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func noRoomForNoticesMeansTryAgain() {
        var options = LoopOptions()
        options.noticeCapacity = 9
        let fleet = FileFleet(members: 2, options: options)
        let (kernel, other) = (fleet.frontEnd(), fleet.files())
        kernel.client.noticePolicy = .byHand
        // Notices that lie in the ring, on their way: the host is not run between.
        var files: [UInt64] = []
        for index in 0..<6 { files.append(other.create(1, "f\(index)").inode) }
        for index in 0..<6 { _ = kernel.lookup(1, "f\(index)") }
        let tickets = files.map { other.client.post(LoopCall(FOS_OP_SETATTR, inode: $0, setMode(0o600))) }
        fleet.host.runUntilQuiet()
        kernel.client.noticePolicy = .acknowledge
        kernel.client.acknowledgeAll()
        fleet.host.runUntilQuiet()
        for (file, ticket) in zip(files, tickets) {
            let status = other.client.reply(ticket)?.status ?? -1
            #expect(status == 0 || status == Status.retry)
            #expect((kernel.stat(file).permissions == 0o600) == (status == 0), "nothing has changed when it says try again")
        }
        kernel.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }
}
