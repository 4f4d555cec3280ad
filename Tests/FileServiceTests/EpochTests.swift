// Inode epochs: every operation that changes an inode moves its word on the board before it is answered, and one that
// changes nothing leaves it alone.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct EpochTests {
    /// A tree, and which of its inodes' words an operation moved.
    final class Watch {
        let fleet: FileFleet
        let files: Files
        let kernel: Files
        private(set) var inodes: [String: UInt64] = ["root": 1]

        init(members: Int) {
            fleet = FileFleet(members: members, sharding: .never)  // ShardTests has the epochs of shards
            kernel = fleet.frontEnd()
            files = fleet.files()
            add("d", files.mkdir(1, "d"))
            add("e", files.mkdir(1, "e"))
            add("sub", files.mkdir(self["d"], "sub"))
            add("f", files.create(self["d"], "f"))
            add("g", files.create(self["e"], "g"))
            add("h", files.create(self["d"], "h"))
            add("link", files.symlink(self["d"], "link", "target"))
            #expect(files.write(self["f"], 0, [UInt8](repeating: 7, count: 9000)) == 9000)
            #expect(files.write(self["g"], 0, [UInt8](repeating: 8, count: 100)) == 100)
        }
        subscript(name: String) -> UInt64 { inodes[name]! }
        func add(_ name: String, _ result: Files.Result) {
            #expect(result.status == 0, "\(name)")
            inodes[name] = result.inode
            // Two names that share a word would make the test say nothing.
            #expect(Set(inodes.values.map(fos_inode_epoch_index)).count == inodes.count)
        }

        /// Expects that `operation` moves these words and no others, and that they move before its answer is there.
        func moves(_ expected: String..., sourceLocation: SourceLocation = #_sourceLocation, by operation: () -> Void) {
            fleet.host.advance(nanoseconds: 1_000_000)
            let before = inodes.mapValues(fleet.host.epoch(ofInode:))
            operation()
            let moved = inodes.filter { fleet.host.epoch(ofInode: $0.value) != before[$0.key] }.keys.sorted()
            #expect(moved == expected.sorted(), sourceLocation: sourceLocation)
        }
        func call(_ call: LoopCall, _ status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) {
            #expect(files.call(call).status == status, sourceLocation: sourceLocation)
        }
    }

    func set(_ valid: fos_set_attribute, mode: UInt32 = 0o644, id: UInt32 = 0, size: UInt64 = 0) -> fos_setattr_request {
        var request = fos_setattr_request()
        (request.valid, request.mode, request.uid, request.gid, request.size) = (valid.rawValue, mode, id, id, size)
        request.accessed.seconds = 5
        request.modified.seconds = 6
        return request
    }
    func xattr(_ operation: fos_operation, _ inode: UInt64, _ name: String, _ value: [UInt8] = []) -> LoopCall {
        LoopCall(
            operation, inode: inode,
            fos_xattr_request(flags: 0, name_length: UInt32(name.utf8.count), value_length: UInt32(value.count), reserved: 0), name,
            bulk: value)
    }
    func fallocate(_ inode: UInt64, _ offset: UInt64, _ length: UInt64, mode: UInt32) -> LoopCall {
        LoopCall(FOS_OP_FALLOCATE, inode: inode, fos_fallocate_request(offset: offset, length: length, mode: mode, reserved: 0))
    }
    func copy(_ source: UInt64, _ target: UInt64, _ length: UInt64) -> LoopCall {
        LoopCall(
            FOS_OP_COPY_RANGE, inode: target,
            fos_copy_request(source: source, source_offset: 0, offset: 0, length: length, flags: 0, reserved: 0))
    }

    @Test(arguments: [1, 2, 3]) func dataAndAttributes(members: Int) {
        let w = Watch(members: members)
        for (valid, size) in [
            (FOS_SET_MODE, 0), (FOS_SET_UID, 0), (FOS_SET_GID, 0), (FOS_SET_ACCESSED, 0), (FOS_SET_MODIFIED, 0), (FOS_SET_ACCESSED_NOW, 0),
            (FOS_SET_MODIFIED_NOW, 0), (FOS_SET_SIZE, 5000), (FOS_SET_SIZE, 9000),
        ] {
            w.moves("f") { w.call(LoopCall(FOS_OP_SETATTR, inode: w["f"], set(valid, size: UInt64(size)))) }
        }
        w.moves("f") { #expect(w.files.write(w["f"], 4000, [1, 2, 3]) == 3) }
        w.moves("f") { #expect(w.files.write(w["f"], 0, [1], flags: FOS_IO_APPEND.rawValue) == 1) }
        w.moves("f") { w.call(fallocate(w["f"], 0, 20000, mode: 0)) }
        w.moves("f") { w.call(fallocate(w["f"], 0, 30000, mode: 1)) }
        w.moves("f") { w.call(fallocate(w["f"], 0, 4096, mode: 3)) }
        w.moves("f") { w.call(fallocate(w["f"], 4096, 4096, mode: 16)) }
        w.moves("f") { w.call(xattr(FOS_OP_SETXATTR, w["f"], "user.a", [1])) }
        w.moves("f") { w.call(xattr(FOS_OP_REMOVEXATTR, w["f"], "user.a")) }
        w.moves("f", "g") { w.call(copy(w["g"], w["f"], 50)) }  // g's access time moves too
        w.moves("f") { w.call(copy(w["g"], w["f"], 50)) }
        w.moves("f") { #expect(w.files.open(w["f"], 0o1001).status == 0) }  // O_TRUNC
        // Access times, relative: the first look after a change.
        w.moves("g") { w.call(LoopCall(FOS_OP_SETATTR, inode: w["g"], set(FOS_SET_MODE))) }
        w.moves("g") { #expect(w.files.read(w["g"], 0, 10).status == 0) }
        w.moves("d") { #expect(w.files.entries(w["d"]).0 == 0) }
        w.moves("link") { #expect(w.files.call(LoopCall(FOS_OP_READLINK, inode: w["link"], room: 100)).status == 0) }
        w.kernel.client.die()
        w.fleet.host.runUntilQuiet()
        w.fleet.check()
    }

    @Test(arguments: [1, 2, 3]) func names(members: Int) {
        let w = Watch(members: members)
        w.moves("d") { #expect(w.files.create(w["d"], "new").status == 0) }
        w.moves("d") { #expect(w.files.mkdir(w["d"], "newdir").status == 0) }
        w.moves("d") { #expect(w.files.symlink(w["d"], "newlink", "x").status == 0) }
        w.moves("d") { #expect(w.files.mknod(w["d"], "fifo", mode: 0o010644).status == 0) }
        w.moves("e", "f") { w.call(Files.linkCall(w["f"], w["e"], "hard")) }
        w.moves("e", "f") { #expect(w.files.unlink(w["e"], "hard") == 0) }
        w.moves("d") { #expect(w.files.rmdir(w["d"], "newdir") == 0) }
        w.moves("d", "f") { #expect(w.files.rename(w["d"], "f", w["d"], "f2") == 0) }
        w.moves("d", "e", "f") { #expect(w.files.rename(w["d"], "f2", w["e"], "f") == 0) }
        w.moves("e", "f", "g") { #expect(w.files.rename(w["e"], "f", w["e"], "g", flags: 2) == 0) }
        // g is called f now: over it, h is its end.
        w.moves("d", "e", "g", "h") { #expect(w.files.rename(w["d"], "h", w["e"], "f") == 0) }
        w.moves("d", "e", "sub") { #expect(w.files.rename(w["d"], "sub", w["e"], "sub") == 0) }
        w.moves("e", "sub") { #expect(w.files.rmdir(w["e"], "sub") == 0) }
        // An open file's last name goes: its link count changes.
        #expect(w.files.open(w["f"], 0).status == 0)
        w.moves("e", "f") { #expect(w.files.unlink(w["e"], "g") == 0) }
        w.moves("f") { #expect(w.files.release(w["f"]) == 0) }
        w.kernel.client.die()
        w.fleet.host.runUntilQuiet()
        w.fleet.check()
    }

    @Test(arguments: [1, 2, 3]) func whatChangesNothing(members: Int) {
        let w = Watch(members: members)
        _ = (w.files.read(w["f"], 0, 10), w.files.entries(w["d"]), w.files.call(LoopCall(FOS_OP_READLINK, inode: w["link"], room: 100)))
        w.moves {
            _ = (w.files.read(w["f"], 0, 10), w.files.entries(w["d"]), w.files.call(LoopCall(FOS_OP_READLINK, inode: w["link"], room: 100)))
        }
        w.moves { _ = (w.files.stat(w["f"]), w.files.lookup(w["d"], "f"), w.files.lookup(w["d"], "absent"), w.files.lookup(w["d"], "..")) }
        w.moves { _ = (w.files.access(w["f"], 4), w.files.statfs()) }
        w.moves { _ = (w.files.open(w["f"], 2), w.files.release(w["f"])) }
        w.moves { w.call(LoopCall(FOS_OP_LSEEK, inode: w["f"], fos_lseek_request(offset: 0, whence: 3, reserved: 0))) }
        w.moves { w.call(LoopCall(FOS_OP_FSYNC, inode: w["f"])) }
        w.moves { w.call(LoopCall(FOS_OP_SETATTR, inode: w["f"], set(FOS_SET_SIZE, size: 9000))) }
        w.moves { w.call(LoopCall(FOS_OP_SETATTR, inode: w["f"], set(fos_set_attribute(0)))) }
        w.moves { #expect(w.files.write(w["f"], 0, []) == 0) }
        w.moves { w.call(xattr(FOS_OP_GETXATTR, w["f"], "user.none"), -ENODATA) }
        w.moves { w.call(xattr(FOS_OP_REMOVEXATTR, w["f"], "user.none"), -ENODATA) }
        w.moves { w.call(LoopCall(FOS_OP_UNLINK, inode: w["d"], name: "absent"), -ENOENT) }
        w.moves { w.call(LoopCall(FOS_OP_RMDIR, inode: 1, name: "d"), -ENOTEMPTY) }
        w.moves { w.call(Files.renameCall(1, "d", w["sub"], "x"), -EINVAL) }
        w.moves { w.call(Files.renameCall(w["d"], "f", w["d"], "f")) }
        w.moves { w.call(Files.linkCall(w["d"], w["e"], "dirlink"), -EPERM) }
        w.moves { #expect(w.files.mkdir(1, "d").status == -EEXIST && w.files.create(w["d"], "f", flags: 0o202).status == -EEXIST) }
        w.moves { #expect(w.files.create(w["d"], "f").status == 0) }
        w.moves { w.call(LoopCall(FOS_OP_FLUSH, inode: w["f"], fos_flush_request(owner: 1))) }
        w.moves { w.call(LoopCall(FOS_OP_FLOCK, inode: w["f"], fos_flock_request(owner: 1, kind: 0, wait: 0))) }
        w.moves { #expect(w.kernel.lookup(w["d"], "f").status == 0 && w.kernel.stat(w["f"]).status == 0) }
        w.kernel.client.die()
        w.fleet.host.runUntilQuiet()
        w.fleet.check()
    }

    /// Who makes or removes a name is told what the directory is like from then on.
    @Test(arguments: [1, 2, 3]) func changesTellOfTheirDirectory(members: Int) {
        let w = Watch(members: members)
        let (host, files) = (w.fleet.host, w.files)
        let made = MemoryLayout<fos_attributes>.size
        func expect(_ call: LoopCall, at offset: Int, _ name: String) {
            host.advance(nanoseconds: 1_000_000)
            let (before, told) = (files.stat(w["d"]).attributes, files.call(call))
            let (directory, after): (fos_attributes, fos_attributes) = (told.fixed(at: offset), files.stat(w["d"]).attributes)
            #expect(told.status == 0 && directory.inode == w["d"] && directory.epoch == host.epoch(ofInode: w["d"]), "\(name)")
            #expect(directory.version == after.version && directory.modified.nanoseconds == after.modified.nanoseconds, "\(name)")
            #expect(directory.version != before.version && directory.links == after.links, "\(name)")
        }
        expect(Files.make(FOS_OP_CREATE, w["d"], "file", mode: 0o644, flags: 2), at: made, "create")
        expect(Files.make(FOS_OP_MKNOD, w["d"], "fifo", mode: 0o010644), at: made, "mknod")
        for name in ["one", "two", "three"] { expect(Files.make(FOS_OP_MKDIR, w["d"], name, mode: 0o755), at: made, "mkdir") }
        expect(Files.linkCall(w["g"], w["d"], "hard"), at: made, "link")
        let link = fos_symlink_request(name_length: 4, target_length: 1)
        expect(LoopCall(FOS_OP_SYMLINK, inode: w["d"], link, "soft", bulk: [120]), at: made, "symlink")
        expect(Files.renameCall(w["d"], "file", w["d"], "moved"), at: made, "rename")
        expect(Files.renameCall(w["d"], "moved", w["d"], "file"), at: made, "rename back")
        if members == 1 {
            expect(Files.renameCall(w["d"], "file", w["e"], "file"), at: 2 * made, "rename away")
            expect(Files.renameCall(w["e"], "file", w["d"], "file"), at: made, "rename from elsewhere")
            let moved = files.call(Files.renameCall(w["d"], "file", w["d"], "moved"))
            let (told, found) = (moved.fixed(fos_attributes.self), files.lookup(w["d"], "moved").attributes)
            #expect(told.inode == found.inode && told.epoch == found.epoch && told.version == found.version)
            expect(Files.renameCall(w["d"], "moved", w["d"], "file"), at: made, "rename back")
        }
        for name in ["file", "fifo", "hard", "soft"] { expect(LoopCall(FOS_OP_UNLINK, inode: w["d"], name: name), at: 0, "unlink") }
        for name in ["one", "two", "three"] { expect(LoopCall(FOS_OP_RMDIR, inode: w["d"], name: name), at: 0, "rmdir") }
        w.kernel.client.die()
        host.runUntilQuiet()
        w.fleet.check()
    }

    /// The epoch in an answer is the word at the time of the answer, so what came with it holds while it stands.
    @Test(arguments: [1, 2]) func answersCarryTheirEpoch(members: Int) {
        let w = Watch(members: members)
        let (host, files) = (w.fleet.host, w.files)
        let found = files.lookup(w["d"], "f").attributes
        #expect(found.epoch == host.epoch(ofInode: w["f"]) && found.flags == 0)
        let change = files.call(LoopCall(FOS_OP_SETATTR, inode: w["f"], set(FOS_SET_MODE)))
        let changed: fos_attributes = change.fixed()
        #expect(changed.epoch == host.epoch(ofInode: w["f"]) && changed.epoch != found.epoch && change.header.epoch == changed.epoch)
        let read = files.call(Files.readCall(w["f"], 0, 10))
        #expect(
            read.header.epoch == host.epoch(ofInode: w["f"]) && read.header.epoch != changed.epoch,
            "the access time moved it before the answer")
        let told: fos_attributes = read.fixed(at: MemoryLayout<fos_io_reply>.size)
        #expect(
            told.inode == w["f"] && told.epoch == read.header.epoch
                && told.accessed.nanoseconds == files.stat(w["f"]).attributes.accessed.nanoseconds)
        #expect(files.call(Files.readCall(w["f"], 0, 10)).header.length == UInt32(MemoryLayout<fos_io_reply>.size), "nothing moved")
        let wanted = fos_io_request(offset: 0, owner: 0, flags: FOS_IO_ATTRIBUTES.rawValue, open_flags: 1)
        let written = files.call(LoopCall(FOS_OP_WRITE, inode: w["f"], wanted, bulk: [1, 2, 3]))
        let writer: fos_attributes = written.fixed(at: MemoryLayout<fos_io_reply>.size)
        #expect(written.status == 0 && writer.epoch == host.epoch(ofInode: w["f"]) && writer.version == files.stat(w["f"]).attributes.version)
        let absent = files.call(LoopCall(FOS_OP_LOOKUP, inode: w["d"], name: "absent"))
        #expect(absent.status == -ENOENT && absent.header.epoch == host.epoch(ofInode: w["d"]))
        let reply = files.call(LoopCall(FOS_OP_READDIR, inode: w["e"], fos_readdir_request(cookie: 2, flags: 1, filled: 0), room: 4096))
        let record: fos_directory_entry = loopFixed(reply.bulk)
        #expect(record.has_attributes == 1 && record.attributes.epoch == host.epoch(ofInode: w["g"]))
        let listed: fos_attributes = reply.fixed()
        #expect(listed.inode == w["e"] && listed.epoch == host.epoch(ofInode: w["e"]) && listed.epoch == reply.header.epoch)
        let made = files.mkdir(w["d"], "made").attributes
        #expect(made.epoch == host.epoch(ofInode: made.inode))
        let linked = files.call(Files.linkCall(w["f"], w["e"], "hard"))
        #expect(linked.fixed(fos_attributes.self).epoch == host.epoch(ofInode: w["f"]))
    }

    /// The kernel may change what it has mapped without a word: what others have kept of the data is void from then on.
    @Test func pagesOfTheKernelMakeDataVolatile() {
        let w = Watch(members: 1)
        let f = w["f"]
        _ = w.files.read(f, 0, 10)
        #expect(w.files.call(Files.readCall(f, 0, 10)).header.flags == 0)
        w.moves("f") { _ = w.kernel.read(f, 0, 10) }
        w.moves { _ = w.kernel.read(f, 0, 10) }
        // A reader has the kernel's pages taken back, and may keep what it reads then; unless the kernel was there again.
        #expect(w.files.call(Files.readCall(f, 0, 10)).header.flags == 0)
        w.kernel.client.noticePolicy = .byHand
        _ = w.kernel.read(f, 0, 10)
        let ticket = w.files.client.post(Files.readCall(f, 0, 10))
        w.fleet.host.runUntilQuiet()
        _ = w.kernel.read(f, 0, 10)
        w.kernel.client.acknowledgeAll()
        w.fleet.host.runUntilQuiet()
        #expect(w.files.client.reply(ticket)?.header.flags == UInt16(FOS_REPLY_VOLATILE.rawValue))
    }
}
