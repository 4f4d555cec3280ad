// Times, modes, ownership, and who may do what (tmpfs is the reference for the first, the kernel's VFS for the last).

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct AttributeTests {
    /// Time passes between two calls, so a time that did not change is known.
    func wait(_ fleet: FileFleet) { fleet.host.advance(nanoseconds: 1_000_000) }
    func later(_ a: fos_time, _ b: fos_time) -> Bool { (a.seconds, a.nanoseconds) > (b.seconds, b.nanoseconds) }
    func same(_ a: fos_time, _ b: fos_time) -> Bool { (a.seconds, a.nanoseconds) == (b.seconds, b.nanoseconds) }

    @Test(arguments: [1, 2]) func timesChangeWhenTheyMust(members: Int) {
        let fleet = FileFleet(members: members)
        let files = fleet.files()
        let d = files.mkdir(1, "d").inode
        let e = files.mkdir(1, "e").inode
        var f = files.create(d, "f").attributes
        var directory = files.stat(d).attributes
        func step(_ body: () -> Void) -> (file: fos_attributes, old: fos_attributes, dir: fos_attributes, oldDir: fos_attributes) {
            wait(fleet)
            let (old, oldDir) = (f, directory)
            body()
            f = files.stat(f.inode).attributes
            directory = files.stat(d).attributes
            return (f, old, directory, oldDir)
        }
        var r = step { #expect(files.write(f.inode, 0, [1, 2, 3]) == 3) }
        #expect(later(r.file.modified, r.old.modified) && same(r.file.modified, r.file.changed) && same(r.dir.modified, r.oldDir.modified))
        #expect(r.file.version > r.old.version)
        r = step { _ = files.read(f.inode, 0, 3) }
        #expect(later(r.file.accessed, r.old.accessed) && same(r.file.changed, r.old.changed))
        r = step { _ = files.read(f.inode, 0, 3) }
        #expect(same(r.file.accessed, r.old.accessed), "relatime")
        r = step { #expect(files.setattr(f.inode, FOS_SET_MODE.rawValue, mode: 0o600).status == 0) }
        #expect(later(r.file.changed, r.old.changed) && same(r.file.modified, r.old.modified))
        r = step { #expect(files.link(f.inode, e, "g").status == 0) }
        #expect(later(r.file.changed, r.old.changed) && same(r.dir.modified, r.oldDir.modified) && r.file.links == 2)
        r = step { #expect(files.rename(d, "f", d, "h") == 0) }
        #expect(later(r.file.changed, r.old.changed) && later(r.dir.modified, r.oldDir.modified) && same(r.file.modified, r.old.modified))
        r = step { #expect(files.unlink(e, "g") == 0) }
        #expect(later(r.file.changed, r.old.changed) && same(r.dir.modified, r.oldDir.modified))
        r = step { #expect(files.truncate(f.inode, 3) == 0) }
        #expect(same(r.file.modified, r.old.modified) && same(r.file.changed, r.old.changed), "same size")
        r = step { #expect(files.truncate(f.inode, 1) == 0) }
        #expect(later(r.file.modified, r.old.modified))
        r = step { #expect(files.setattr(f.inode, FOS_SET_MODIFIED.rawValue | FOS_SET_ACCESSED.rawValue, time: 1234).status == 0) }
        #expect(
            r.file.modified.seconds == 1234 && r.file.modified.nanoseconds == 5 && r.file.accessed.seconds == 1234
                && later(r.file.changed, r.old.changed))
        r = step { #expect(files.setattr(f.inode, FOS_SET_MODIFIED_NOW.rawValue).status == 0) }
        #expect(r.file.modified.seconds > 1234 && r.file.accessed.seconds == 1234)
        r = step { _ = files.mkdir(d, "sub") }
        #expect(later(r.dir.modified, r.oldDir.modified) && r.dir.links == 3)
        r = step { _ = files.rmdir(d, "sub") }
        #expect(later(r.dir.modified, r.oldDir.modified) && r.dir.links == 2)
        r = step { #expect(files.rename(d, "h", e, "h") == 0) }
        #expect(later(r.dir.modified, r.oldDir.modified) && later(r.file.changed, r.old.changed))
        var bad = fos_setattr_request()
        bad.valid = FOS_SET_MODIFIED.rawValue
        bad.modified.nanoseconds = 1_000_000_000
        #expect(files.call(LoopCall(FOS_OP_SETATTR, inode: f.inode, bad)).status == -EINVAL)
        fleet.check()
    }

    @Test(arguments: [1, 2]) func inheritsAndDropsBits(members: Int) {
        let fleet = FileFleet(members: members, rootMode: 0o777)
        let root = fleet.files()
        let user = fleet.files(uid: 1000, gid: 1000)
        #expect(user.mkdir(1, "masked", mode: 0o777, umask: 0o027).permissions == 0o750)
        let shared = root.mkdir(1, "shared").inode
        #expect(root.setattr(shared, FOS_SET_GID.rawValue | FOS_SET_MODE.rawValue, mode: 0o2777, gid: 50).permissions == 0o2777)
        let sub = user.mkdir(shared, "sub")
        #expect(sub.permissions == 0o2755 && sub.attributes.gid == 50 && sub.attributes.uid == 1000)
        let file = user.create(shared, "f", mode: 0o2775)
        #expect(file.permissions == 0o775 && file.attributes.gid == 50, "no setgid for a group that one is not in")
        let suid = user.create(1, "suid", mode: 0o6755).inode
        #expect(user.stat(suid).permissions == 0o6755)
        #expect(user.write(suid, 0, [1]) == 1 && user.stat(suid).permissions == 0o755)
        #expect(user.setattr(suid, FOS_SET_MODE.rawValue, mode: 0o6755).permissions == 0o6755)
        #expect(root.write(suid, 0, [1]) == 1 && user.stat(suid).permissions == 0o6755, "root keeps them")
        #expect(root.write(suid, 0, [1], flags: FOS_IO_KILL_PRIVILEGE.rawValue) == 1 && user.stat(suid).permissions == 0o755)
        #expect(root.setattr(suid, FOS_SET_MODE.rawValue, mode: 0o6745).status == 0)
        #expect(root.setattr(suid, FOS_SET_UID.rawValue, uid: 1000).permissions == 0o2745, "setgid without group execution stays")
        #expect(
            root.setattr(suid, FOS_SET_MODE.rawValue, mode: 0o4755).status == 0 && user.truncate(suid, 0) == 0
                && user.stat(suid).permissions == 0o755)
        fleet.check()
    }

    @Test(arguments: [1, 2, 3]) func checksWhoMayDoWhat(members: Int) {
        let fleet = FileFleet(members: members, rootMode: 0o777)
        let root = fleet.files()
        let user = fleet.files(uid: 1000, gid: 1000)
        let mate = fleet.files(uid: 1001, gid: 1000)
        let other = fleet.files(uid: 2000, gid: 2000)
        let home = user.mkdir(1, "home", mode: 0o750).inode
        let f = user.create(home, "f", mode: 0o640).inode
        #expect(mate.lookup(home, "f").status == 0 && mate.read(f, 0, 1).status == 0 && mate.write(f, 0, [1]) == Int(-EACCES))
        #expect(mate.create(home, "x").status == -EACCES && mate.unlink(home, "f") == -EACCES && mate.rename(home, "f", 1, "x") == -EACCES)
        #expect(other.lookup(home, "f").status == -EACCES && other.entries(home).0 == -EACCES && other.read(f, 0, 1).status == -EACCES)
        #expect(
            other.link(f, home, "x").status == -EACCES && other.mkdir(home, "x").status == -EACCES
                && other.symlink(home, "x", "y").status == -EACCES)
        #expect(other.open(f, 0).status == -EACCES && mate.open(f, 2).status == -EACCES && mate.open(f, 0).status == 0)
        // O_PATH needs no right to the file, and gives none.
        #expect(other.open(f, 0o10000000).status == 0 && other.read(f, 0, 1).status == -EACCES && other.release(f) == 0)
        #expect(
            other.access(f, 4) == -EACCES && mate.access(f, 4) == 0 && mate.access(f, 2) == -EACCES && root.access(f, 6) == 0
                && root.access(f, 1) == -EACCES)
        // An open file stays usable; another client is not.
        #expect(user.open(f, 2).status == 0 && user.setattr(f, FOS_SET_MODE.rawValue, mode: 0).status == 0)
        #expect(
            user.write(f, 0, [1]) == 1 && user.read(f, 0, 1).status == 0 && mate.write(f, 0, [1]) == Int(-EACCES)
                && root.write(f, 0, [1]) == 1)
        #expect(
            mate.setattr(f, FOS_SET_MODE.rawValue, mode: 0o777).status == -EPERM
                && user.setattr(f, FOS_SET_UID.rawValue, uid: 1001).status == -EPERM)
        #expect(
            user.setattr(f, FOS_SET_GID.rawValue, gid: 50).status == -EPERM && user.setattr(f, FOS_SET_GID.rawValue, gid: 1000).status == 0)
        #expect(
            other.setattr(f, FOS_SET_MODIFIED.rawValue, time: 1).status == -EPERM
                && other.setattr(f, FOS_SET_ACCESSED_NOW.rawValue | FOS_SET_MODIFIED_NOW.rawValue).status == -EACCES)
        #expect(other.setattr(f, FOS_SET_MODIFIED_NOW.rawValue).status == -EPERM)
        #expect(user.mknod(1, "dev", mode: 0o060600, device: 1).status == -EPERM && user.mknod(1, "fifo", mode: 0o010600).status == 0)
        #expect(root.setattr(f, FOS_SET_UID.rawValue, uid: 2000).attributes.uid == 2000)
        // The sticky bit.
        let tmp = root.mkdir(1, "tmp").inode
        #expect(root.setattr(tmp, FOS_SET_MODE.rawValue, mode: 0o1777).status == 0)
        let elsewhere = user.mkdir(tmp, "elsewhere").inode
        _ = user.create(tmp, "mine")
        let linked = user.create(elsewhere, "far").inode
        #expect(user.link(linked, tmp, "far").status == 0)
        _ = other.create(tmp, "theirs")
        #expect(other.unlink(tmp, "mine") == -EPERM && other.unlink(tmp, "far") == -EPERM && other.rmdir(tmp, "elsewhere") == -EPERM)
        #expect(other.rename(tmp, "mine", tmp, "x") == -EPERM && other.rename(tmp, "theirs", tmp, "far") == -EPERM)
        #expect(other.rename(tmp, "theirs", tmp, "mine", flags: 2) == -EPERM && other.rename(tmp, "elsewhere", 1, "x") == -EPERM)
        #expect(user.rename(tmp, "far", tmp, "near") == 0 && user.unlink(tmp, "near") == 0)
        // A directory that moves must be writable itself.
        let fixed = root.mkdir(1, "fixed").inode
        #expect(root.setattr(fixed, FOS_SET_UID.rawValue, uid: 3000).status == 0)
        #expect(other.rename(1, "fixed", tmp, "fixed") == -EACCES && other.rename(1, "fixed", 1, "renamed") == 0)
        #expect(user.rmdir(tmp, "elsewhere") == -ENOTEMPTY && user.unlink(elsewhere, "far") == 0 && user.rmdir(tmp, "elsewhere") == 0)
        for files in [user, mate] { files.client.die() }
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func frontEndIsNotChecked() {
        let fleet = FileFleet(members: 2, rootMode: 0o700)
        let kernel = fleet.frontEnd()
        let made = Files.Result(kernel.call(Files.make(FOS_OP_CREATE, 1, "f", mode: 0o600).acting(uid: 1000, gid: 1000)))
        #expect(made.attributes.uid == 1000 && made.attributes.gid == 1000)
        #expect(kernel.call(Files.writeCall(made.inode, 0, [1]).acting(uid: 5, gid: 5)).status == 0)
        #expect(kernel.call(LoopCall(FOS_OP_ACCESS, inode: made.inode).flags(2).acting(uid: 5, gid: 5)).status == -EACCES)
        // Another client cannot claim to be somebody else.
        let user = fleet.files(uid: 1000, gid: 1000)
        #expect(user.call(LoopCall(FOS_OP_LOOKUP, inode: 1, name: "f").acting(uid: 0, gid: 0)).status == -EACCES)
        fleet.check()
    }

    /// The group class, and the setgid rules, for whoever is in a group by a supplementary membership (credentials(7)).
    @Test(arguments: [1, 2, 3]) func supplementaryGroups(members: Int) {
        let fleet = FileFleet(members: members)
        let root = fleet.files()
        let d = root.mkdir(1, "d").inode
        #expect(root.setattr(d, FOS_SET_MODE.rawValue | FOS_SET_GID.rawValue, mode: 0o2770, gid: 77).status == 0)
        let f = root.create(d, "f", mode: 0o640).inode
        #expect(root.stat(f).attributes.gid == 77 && root.write(f, 0, [1, 2]) == 2)
        let stranger = fleet.files(uid: 1000, gid: 1000)
        let member = fleet.files(uid: 1001, gid: 1001)
        stranger.client.join([5, 76, 78, 4_000_000_000])
        member.client.join((0..<70).map { $0 * 11 })  // 77 is one of them
        #expect(stranger.lookup(d, "f").status == -EACCES && stranger.create(d, "g").status == -EACCES)
        #expect(member.lookup(d, "f").status == 0 && member.read(f, 0, 2).bulk == [1, 2] && member.write(f, 0, [3]) == -Int(EACCES))
        #expect(member.access(f, 4) == 0 && member.access(f, 2) == -EACCES && stranger.access(f, 4) == -EACCES)
        // The group class decides, also where it allows less than the others would get.
        #expect(root.setattr(f, FOS_SET_MODE.rawValue, mode: 0o606).status == 0)
        #expect(member.read(f, 0, 2).status == -EACCES)

        // Who is in the group keeps setgid, by chmod and by creation in a setgid directory, and may give files to it.
        let program = member.create(d, "program", mode: 0o2755).attributes
        #expect(program.mode & 0o7777 == 0o2755 && program.gid == 77)
        #expect(member.setattr(program.inode, FOS_SET_MODE.rawValue, mode: 0o2711).permissions == 0o2711)
        #expect(member.setattr(program.inode, FOS_SET_GID.rawValue, gid: 66).status == 0)
        #expect(member.setattr(program.inode, FOS_SET_GID.rawValue, gid: 67).status == -EPERM)
        #expect(root.setattr(d, FOS_SET_MODE.rawValue, mode: 0o2777).status == 0)
        let other = stranger.create(d, "other", mode: 0o2755).attributes
        #expect(other.mode & 0o7777 == 0o755 && other.gid == 77)
        #expect(stranger.setattr(other.inode, FOS_SET_MODE.rawValue, mode: 0o2755).permissions == 0o755)

        // Across owners, and no longer than the client lives.
        let e = root.mkdir(1, "e").inode
        #expect(root.setattr(e, FOS_SET_MODE.rawValue | FOS_SET_GID.rawValue, mode: 0o770, gid: 77).status == 0)
        #expect(member.rename(d, "program", e, "program") == 0 && stranger.rename(d, "other", e, "other") == -EACCES)
        #expect(member.mkdir(e, "sub").status == 0 && member.rename(e, "sub", d, "sub") == 0)
        member.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }
}
