// Names: lookup, create, mknod, mkdir, symlink, link, unlink, rmdir, readdir, with every error; on one server, and on
// a fleet where directories live on another member than their parents.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct EntryTests {
    @Test(arguments: [1, 2, 3]) func makesAndFindsThings(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let a = files.mkdir(1, "a")
        #expect(a.status == 0 && a.attributes.links == 2 && a.attributes.mode == 0o040755)
        #expect(files.stat(1).attributes.links == 3)
        let file = files.create(a.inode, "file", mode: 0o640)
        #expect(file.status == 0 && UInt32(file.flags) == FOS_CREATED.rawValue | FOS_REPLY_CHANGED_FROM.rawValue && file.attributes.links == 1 && file.attributes.size == 0)
        #expect(file.inode % 4096 == a.inode % 4096, "a file lives with its directory")
        #expect(UInt32(files.create(a.inode, "file").flags) & FOS_CREATED.rawValue == 0)
        #expect(files.create(a.inode, "file", flags: 0o202).status == -EEXIST)
        #expect(files.create(1, "a").status == -EISDIR)
        #expect(files.lookup(a.inode, "file").inode == file.inode)
        #expect(files.lookup(a.inode, "..").inode == 1 && files.lookup(1, "..").inode == 1 && files.lookup(a.inode, ".").inode == a.inode)
        #expect(files.mknod(a.inode, "fifo", mode: 0o010644).attributes.mode == 0o010644)
        #expect(files.mknod(a.inode, "null", mode: 0o020666, device: 0x103).attributes.device == 0x103)
        #expect(files.mknod(a.inode, "dir", mode: 0o040755).status == -EPERM)
        #expect(files.mknod(a.inode, "link", mode: 0o120777).status == -EINVAL)
        let link = files.symlink(a.inode, "sym", "some/where")
        #expect(link.attributes.mode == 0o120777 && link.attributes.size == 10)
        #expect(files.readlink(link.inode).bulk == Array("some/where".utf8))
        #expect(files.readlink(file.inode).status == -EINVAL)
        #expect(files.symlink(a.inode, "sym", "x").status == -EEXIST)
        #expect(files.symlink(a.inode, "empty", "").status == -ENOENT)
        #expect(files.symlink(a.inode, "long", String(repeating: "x", count: 4096)).status == -ENAMETOOLONG)
        #expect(files.names(a.inode) == ["fifo", "file", "null", "sym"])
        fleet.check()
    }

    @Test(arguments: [1, 2]) func refusesBadNames(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let long = String(repeating: "n", count: 256)
        let longest = String(repeating: "n", count: 255)
        let file = files.create(1, "file")
        for (name, status) in [("", -ENOENT), (long, -ENAMETOOLONG), ("a/b", -EINVAL), ("a\0b", -EINVAL)] {
            #expect(files.lookup(1, name).status == status)
            #expect(files.create(1, name).status == status)
            #expect(files.mkdir(1, name).status == status)
            #expect(files.unlink(1, name) == status)
            #expect(files.rmdir(1, name) == status)
            #expect(files.rename(1, name, 1, "x") == status)
            #expect(files.rename(1, "file", 1, name) == status)
            #expect(files.link(file.inode, 1, name).status == status)
        }
        #expect(files.mkdir(1, ".").status == -EEXIST && files.mkdir(1, "..").status == -EEXIST && files.create(1, ".").status == -EEXIST)
        #expect(files.unlink(1, ".") == -EISDIR && files.rmdir(1, ".") == -EINVAL && files.rmdir(1, "..") == -ENOTEMPTY)
        #expect(files.rename(1, ".", 1, "x") == -EBUSY && files.rename(1, "file", 1, "..") == -EBUSY)
        #expect(files.create(1, longest).status == 0 && files.unlink(1, longest) == 0)
        #expect(files.lookup(file.inode, "x").status == -ENOTDIR && files.create(file.inode, "x").status == -ENOTDIR)
        #expect(
            files.entries(file.inode).0 == -ENOTDIR && files.unlink(file.inode, "x") == -ENOTDIR && files.rmdir(file.inode, "x") == -ENOTDIR
        )
        #expect(files.stat(4096 * 77 + 5).status == -ESTALE)
        fleet.check()
    }

    /// The mount hides an entry of that name behind its own directory.
    @Test(arguments: [1, 2]) func theMountsOwnNameIsReserved(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let d = files.mkdir(1, "d").inode
        let f = files.create(1, "f").inode
        #expect(files.mkdir(1, ".fos").status == -EEXIST && files.create(1, ".fos").status == -EEXIST)
        #expect(files.mknod(1, ".fos", mode: 0o010644).status == -EEXIST && files.symlink(1, ".fos", "x").status == -EEXIST)
        #expect(files.link(f, 1, ".fos").status == -EEXIST)
        for name in ["f", "d"] { #expect(files.rename(1, name, 1, ".fos") == -EPERM) }
        let inner = files.create(d, ".fos")
        #expect(inner.status == 0 && files.rename(d, ".fos", 1, ".fos") == -EPERM && files.names(1) == ["d", "f"])
        fleet.check()
    }

    @Test(arguments: [1, 2, 4]) func removesThings(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        var directories: [UInt64] = []
        // Of four members two share a core, and the other one gets few of the directories.
        for index in 0..<(members > 2 ? 36 : 6) { directories.append(files.mkdir(1, "d\(index)").inode) }
        if members > 1 { #expect(Set(directories.map(fleet.member)).count == members) }
        for directory in directories {
            _ = files.create(directory, "f")
            #expect(files.rmdir(1, "d\(directories.firstIndex(of: directory)!)") == -ENOTEMPTY)
            #expect(files.unlink(directory, "nothing") == -ENOENT && files.rmdir(directory, "f") == -ENOTDIR)
            #expect(files.unlink(directory, "f") == 0 && files.unlink(directory, "f") == -ENOENT)
        }
        #expect(files.unlink(1, "d0") == -EISDIR && files.rmdir(1, "nothing") == -ENOENT)
        #expect(files.stat(1).attributes.links == UInt32(directories.count) + 2)
        for index in directories.indices { #expect(files.rmdir(1, "d\(index)") == 0) }
        #expect(files.stat(1).attributes.links == 2 && files.names(1) == [])
        #expect(files.stat(directories[0]).status == -ESTALE)
        fleet.check()
    }

    @Test(arguments: [1, 2, 3]) func linksAcrossOwners(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let a = files.mkdir(1, "a").inode
        let b = files.mkdir(1, "b").inode
        let file = files.create(a, "f").inode
        #expect(files.link(file, b, "g").attributes.links == 2)
        #expect(files.link(file, 1, "h").attributes.links == 3)
        #expect(files.lookup(b, "g").inode == file && files.lookup(1, "h").attributes.links == 3)
        #expect(files.link(file, b, "g").status == -EEXIST)
        #expect(files.link(a, b, "dir").status == -EPERM)
        #expect(files.link(4096 * 50 + 2, b, "none").status == -ENOENT)
        #expect(files.create(b, "g", flags: 0o202).status == -EEXIST)
        #expect(files.create(b, "g").inode == file, "CREATE of a name whose inode lives elsewhere")
        #expect(files.unlink(a, "f") == 0 && files.unlink(b, "g") == 0)
        #expect(files.stat(file).attributes.links == 1)
        #expect(files.write(file, 0, [1, 2, 3]) == 3)
        #expect(files.unlink(1, "h") == 0)
        #expect(files.stat(file).status == -ESTALE)
        fleet.check()
    }

    @Test(arguments: [1, 2]) func listsWhileThingsChange(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let d = files.mkdir(1, "d").inode
        for index in 0..<100 { #expect(files.create(d, "n\(index)").status == 0) }
        let (status, first) = files.entries(d, room: 2048)
        #expect(status == 0 && first.first?.name == "." && first[1].name == ".." && first[0].inode == d && first[1].inode == 1)
        // Half of those shown go, and others come; all that stayed must be shown exactly once.
        for entry in first.dropFirst(2) where entry.inode % 2 == 0 { _ = files.unlink(d, entry.name) }
        for index in 0..<20 { _ = files.create(d, "new\(index)") }
        var seen = first.map(\.name)
        var cookie = first.last!.next
        while true {
            let (_, part) = files.entries(d, cookie: cookie, room: 700)
            guard let last = part.last else { break }
            seen += part.map(\.name)
            cookie = last.next
        }
        #expect(Set(seen).count == seen.count)
        for index in 0..<100 { #expect(seen.contains("n\(index)")) }
        #expect(files.entries(d, room: 100).0 == -EINVAL)
        #expect(files.entries(d, cookie: UInt64.max).1.isEmpty)
        let (_, plus) = files.entries(1, plus: true)
        #expect(plus.first { $0.name == "d" }?.attributes == (members == 1 || fleet.member(of: d) == fleet.member(of: 1) ? d : nil))
        #expect(files.entries(1, plus: true, short: true).1.map(\.attributes) == plus.map(\.attributes))
        fleet.check()
    }

    /// A reply says whether anything follows, and a listing in advance is nobody's reading of the directory.
    @Test(arguments: [1, 2]) func listingsSayTheirEndAndLookAhead(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let d = files.mkdir(1, "d").inode
        for index in 0..<30 { #expect(files.create(d, "n\(index)").status == 0) }
        let (ahead, end) = (FOS_READDIR_PLUS.rawValue | FOS_READDIR_AHEAD.rawValue, UInt16(FOS_REPLY_END.rawValue))
        func list(cookie: UInt64, room: Int, flags: UInt32) -> LoopReply {
            files.call(LoopCall(FOS_OP_READDIR, inode: d, fos_readdir_request(cookie: cookie, flags: flags, filled: 0), room: room))
        }
        let before = files.stat(d).attributes
        #expect(list(cookie: 2, room: 1024, flags: ahead).header.flags & end == 0)
        let whole = list(cookie: 2, room: 65536, flags: ahead)
        #expect(whole.header.flags & end == end && !whole.bulk.isEmpty && whole.header.epoch == before.epoch)
        let after = files.stat(d).attributes
        #expect(
            after.epoch == before.epoch && after.accessed.seconds == before.accessed.seconds
                && after.accessed.nanoseconds == before.accessed.nanoseconds)
        let (_, all) = files.entries(d)
        let rest = list(cookie: all.last!.next, room: 65536, flags: 0)
        #expect(rest.header.flags & end == end && rest.bulk.isEmpty)
        #expect(files.stat(d).attributes.epoch != before.epoch, "a real listing marks the access")
        fleet.check()
    }

    /// Who may list a directory but not search it learns names, and nothing of what they lead to.
    @Test func listingsWithAttributesNeedSearchPermission() {
        let fleet = FileFleet(members: 1, rootMode: 0o777)
        let (owner, other) = (fleet.files(uid: 1, gid: 1), fleet.files(uid: 2, gid: 2))
        let d = owner.mkdir(1, "d", mode: 0o704).inode
        let f = owner.create(d, "f").inode
        #expect(other.lookup(d, "f").status == -EACCES)
        let (status, list) = other.entries(d, plus: true)
        #expect(status == 0 && list.map(\.name).contains("f") && list.allSatisfy { $0.attributes == nil })
        #expect(owner.entries(d, plus: true).1.contains { $0.attributes == f })
        fleet.check()
    }

    /// A reference that goes with another request, whichever member that comes to first.
    @Test(arguments: [1, 2]) func aReferenceIsGivenBackBesideAnotherRequest(members: Int) {
        let fleet = FileFleet(members: members)
        let (files, other) = (fleet.files(), fleet.files())
        let f = files.create(1, "f").inode
        #expect(files.open(f, 0).status == 0 && files.open(f, 0).status == 0 && other.open(f, 0).status == 0)
        #expect(fleet.snapshot()[f]?.references == 3)
        let look = LoopCall(FOS_OP_GETATTR, inode: f)
        #expect(files.call(look.giving(f)).status == 0 && fleet.snapshot()[f]?.references == 2)
        #expect(files.unlink(1, "f") == 0 && fleet.snapshot()[f]?.references == 2)
        // The request itself is answered before its inode goes with the last reference.
        #expect(files.call(look.giving(f)).status == 0 && fleet.snapshot()[f]?.references == 1)
        // Nobody gives back what is another's, or what is not there.
        #expect(files.call(look.giving(f)).status == 0 && files.call(look.giving(f + 4096 * 1000)).status == 0)
        #expect(fleet.snapshot()[f]?.references == 1)
        let passed = other.client.post(LoopCall(FOS_OP_GETATTR, inode: f).giving(f), to: fleet.servers[fleet.servers.count - 1])
        fleet.host.runUntilQuiet()
        #expect(other.client.reply(passed)?.status == 0 && fleet.snapshot()[f] == nil)
        fleet.check()
    }

    /// What an OPEN granted ends with the references that were granted it.
    @Test func grantsEndWithTheirReferences() {
        let fleet = FileFleet(members: 1, rootMode: 0o777)
        let (owner, other) = (fleet.files(uid: 1, gid: 1), fleet.files(uid: 2, gid: 2))
        let f = owner.create(1, "f", mode: 0o666).inode
        func release(_ flags: UInt32) -> Int32 {
            other.call(LoopCall(FOS_OP_RELEASE, inode: f, fos_release_request(owner: 0, flags: flags, count: 1))).status
        }
        #expect(other.open(f, 0).status == 0 && other.open(f, 2).status == 0 && other.open(f, 1).status == 0)
        #expect(owner.setattr(f, FOS_SET_MODE.rawValue, mode: 0o600).status == 0)
        #expect(other.write(f, 0, [1]) == 1 && other.read(f, 0, 1).status == 0)
        #expect(
            other.call(LoopCall(FOS_OP_GETATTR, inode: f).giving(f, for: FOS_RELEASE_WRITING)).status == 0 && other.write(f, 0, [1]) == 1)
        #expect(release(2 | 4) == 0)
        #expect(other.write(f, 0, [1]) == Int(-EACCES) && other.read(f, 0, 1).status == 0)
        #expect(release(2) == 0 && other.read(f, 0, 1).status == -EACCES)
        fleet.check()
    }

    /// A client has a bound of open files; what it cannot open it does not make or truncate either.
    @Test func openFilesAreBounded() {
        let fleet = FileFleet(members: 1, pagesPerMember: 20_000)
        let (files, other) = (fleet.files(), fleet.files())
        for index in 0..<Int(Limits.openFilesOfClient) {
            guard files.create(1, "f\(index)", reference: 1).status == 0 else {
                Issue.record("file \(index)")
                return
            }
        }
        let last = files.lookup(1, "f0").inode
        #expect(files.write(last, 0, [1]) == 1)
        #expect(files.create(1, "more", reference: 1).status == -EMFILE && files.lookup(1, "more").status == -ENOENT)
        #expect(files.open(last, 0o1002).status == -EMFILE && files.stat(last).attributes.size == 1)
        #expect(files.call(Files.make(FOS_OP_TMPFILE, 1, "", mode: 0o600, flags: 2, reference: 1)).status == -EMFILE)
        #expect(files.create(1, "unopened").status == 0 && other.open(last, 0).status == 0)
        #expect(files.release(last) == 0 && files.open(last, 0).status == 0)
        files.client.die()
        other.client.die()
        fleet.host.runUntilQuiet()
        fleet.look(0) { #expect($0.openFiles.count == 0) }
        fleet.check()
    }

    @Test func keepsUnlinkedFilesThatAreOpen() {
        let fleet = FileFleet(members: 2)
        let files = fleet.files()
        let other = fleet.files()
        let file = files.create(1, "f", reference: 1).inode
        #expect(other.open(file, 0).status == 0)
        #expect(files.write(file, 0, [7]) == 1 && files.unlink(1, "f") == 0)
        #expect(files.stat(file).attributes.links == 0 && files.read(file, 0, 10).bulk == [7])
        #expect(files.link(file, 1, "again").status == -ENOENT)
        #expect(files.release(file) == 0 && files.stat(file).status == 0)
        other.client.die()
        fleet.host.runUntilQuiet()
        #expect(files.stat(file).status == -ESTALE)
        // O_TMPFILE: a name later, or none.
        let temporary = Files.Result(files.call(Files.make(FOS_OP_TMPFILE, 1, "", mode: 0o600, flags: 2, reference: 1)))
        #expect(temporary.attributes.links == 0)
        #expect(files.link(temporary.inode, 1, "named").attributes.links == 1)
        let exclusive = Files.Result(files.call(Files.make(FOS_OP_TMPFILE, 1, "", mode: 0o600, flags: 0o202, reference: 1)))
        #expect(files.link(exclusive.inode, 1, "other").status == -ENOENT)
        files.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func kernelReferencesKeepInodes() {
        let fleet = FileFleet(members: 2)
        let kernel = fleet.frontEnd()
        let a = kernel.mkdir(1, "a").inode
        let b = kernel.mkdir(1, "b").inode
        let f = kernel.create(a, "f").inode
        let g = kernel.create(b, "g").inode
        #expect(kernel.lookup(a, "f").inode == f)
        #expect(kernel.unlink(a, "f") == 0 && kernel.unlink(b, "g") == 0)
        #expect(kernel.rmdir(1, "a") == 0)
        #expect(kernel.stat(f).attributes.links == 0 && kernel.stat(a).status == 0)
        #expect(kernel.create(a, "new").status == -ENOENT && kernel.lookup(a, "f").status == -ENOENT)
        // How many there are is told, by whoever is asked, and changes nothing.
        #expect(
            kernel.references(f) == 2 && kernel.references(f, asking: b) == 2 && kernel.references(b) == 1 && kernel.references(12345) == 0)
        // A batch with owners mixed.
        #expect(kernel.forget([(f, 1), (g, 1), (a, 1), (b, 1), (f, 1)]) == 0)
        fleet.host.runUntilQuiet()
        #expect(kernel.stat(f).status == -ESTALE && kernel.stat(g).status == -ESTALE && kernel.stat(a).status == -ESTALE)
        #expect(kernel.stat(b).status == 0)
        let (_, list) = kernel.entries(1, plus: true)
        #expect(list.count == 3)
        // More than it has is forgotten once only; hostile counts do no harm.
        #expect(kernel.forget([(b, UInt64.max), (1, 5), (12345, 1)]) == 0)
        #expect(kernel.create(b, "left").status == 0)
        kernel.client.die()
        fleet.host.runUntilQuiet()
        #expect(fleet.files().lookup(b, "left").status == 0)
        fleet.check()
    }

    /// Requests of a dead client that were forwarded arrive after the news of its death: they must take nothing.
    @Test(arguments: 1...20) func theDeadTakeNothing(seed: UInt64) {
        let fleet = FileFleet(members: 2, options: LoopOptions(seed: seed))
        let files = fleet.files()
        let f = files.create(1, "f").inode
        let doomed = fleet.files().client
        let wrong = fleet.servers[1 - fleet.member(of: f)]
        doomed.post(LoopCall(FOS_OP_OPEN, inode: f, fos_open_request(open_flags: 2, room: 0)), to: wrong)
        doomed.post(LockTests.lock(f, 1, FOS_LOCK_WRITE), to: wrong)
        doomed.post(LockTests.flock(f, 1, FOS_LOCK_WRITE), to: wrong)
        for _ in 0..<3 { fleet.host.step() }
        doomed.die()
        fleet.host.runUntilQuiet()
        #expect(fleet.snapshot()[f]?.references == 0)
        #expect(
            files.call(LockTests.lock(f, 2, FOS_LOCK_WRITE)).status == 0 && files.call(LockTests.flock(f, 2, FOS_LOCK_WRITE)).status == 0)
        fleet.check()
    }
}
