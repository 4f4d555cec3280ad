// Flushes: nobody reads or changes a file by message before the kernel has given back what it may have dirty of it.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct FlushTests {
    @Test func pagesAreFlushedFirst() {
        let s = LeaseTests.Setup()
        let f = s.other.create(1, "f").inode
        #expect(s.other.write(f, 0, Array("old data".utf8)) == 8)
        #expect(s.kernel.lookup(1, "f").status == 0 && s.kernel.read(f, 0, 8).bulk == Array("old data".utf8))
        // A reader waits for dirty pages; the kernel writes one back before it acknowledges.
        let (ticket, notices) = s.change(Files.readCall(f, 0, 8))
        #expect(notices == ["pages \(f)"] && !s.other.client.isAnswered(ticket))
        #expect(s.kernel.write(f, 0, Array("dirty".utf8), flags: FOS_IO_WRITEBACK.rawValue) == 5)
        s.settle(ticket)
        // What was written back may still be held.
        let reply = s.change(Files.readCall(f, 0, 8))
        #expect(reply.1 == ["pages \(f)"])
        s.settle(reply.0)
        #expect(s.other.read(f, 0, 8).bulk == Array("dirtyata".utf8))
        // A writer: flush, apply, and flush again if the kernel has read meanwhile.
        _ = s.kernel.read(f, 0, 8)
        let (write, first) = s.change(Files.writeCall(f, 0, Array("NEW".utf8)))
        #expect(first == ["pages \(f)"])
        #expect(s.kernel.read(f, 0, 8).bulk == Array("dirtyata".utf8))
        s.kernel.client.acknowledge(s.kernel.client.unacknowledged[0])
        s.fleet.host.runUntilQuiet()
        #expect(s.names == ["pages \(f)", "pages \(f)"] && !s.other.client.isAnswered(write))
        #expect(s.kernel.read(f, 0, 8).bulk == Array("NEWtyata".utf8), "applied, not yet acknowledged")
        s.settle(write)
        for call in [
            LoopCall(FOS_OP_FALLOCATE, inode: f, fos_fallocate_request(offset: 0, length: 9000, mode: 0, reserved: 0)),
            LoopCall(
                FOS_OP_SETATTR, inode: f,
                fos_setattr_request(
                    valid: FOS_SET_SIZE.rawValue, mode: 0, uid: 0, gid: 0, size: 4, accessed: fos_time(), modified: fos_time(),
                    changed: fos_time())),
            LoopCall(FOS_OP_LSEEK, inode: f, fos_lseek_request(offset: 0, whence: 4, reserved: 0)),
        ] {
            _ = s.kernel.read(f, 0, 8)
            s.run(call, ["pages \(f)"])
        }
        // O_DIRECT reads leave nothing behind.
        _ = s.kernel.call(Files.readCall(f, 0, 8, flags: FOS_IO_DIRECT.rawValue))
        s.run(Files.readCall(f, 0, 4), [])
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// What the kernel had dirty when a second reader came is what that one sees too, although the lease is gone already.
    @Test func othersWaitForPagesThatAreBeingFlushed() {
        let s = LeaseTests.Setup(members: 1)
        let third = s.fleet.files()
        let f = s.other.create(1, "f", reference: 1).inode
        #expect(s.other.write(f, 0, Array("old".utf8)) == 3)
        _ = s.kernel.read(f, 0, 3)
        let (first, notices) = s.change(Files.readCall(f, 0, 3))
        #expect(notices == ["pages \(f)"])
        let second = third.client.post(Files.readCall(f, 0, 3))
        let size = third.client.post(LoopCall(FOS_OP_SETATTR, inode: f, Self.setMode(0o600)))
        s.fleet.host.runUntilQuiet()
        #expect(!s.other.client.isAnswered(first) && !third.client.isAnswered(second))
        #expect(!third.client.isAnswered(size), "the kernel may still show the attributes that it was told to give back")
        #expect(s.kernel.write(f, 0, Array("new".utf8), flags: FOS_IO_WRITEBACK.rawValue) == 3)
        s.kernel.client.acknowledgeAll()
        s.fleet.host.runUntilQuiet()
        s.kernel.client.acknowledgeAll()
        s.fleet.host.runUntilQuiet()
        #expect(s.other.client.reply(first)?.bulk == Array("new".utf8))
        #expect(third.client.reply(second)?.bulk == Array("new".utf8) && third.client.reply(size)?.status == 0)
        // And once it is over nobody is asked any more.
        s.kernel.client.noticePolicy = .acknowledge
        _ = s.other.read(f, 0, 3)
        s.run(Files.readCall(f, 0, 3), [])
        s.kernel.client.die()
        s.other.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// A flush that began before the kernel had the pages again says nothing of what became dirty after that.
    @Test func aFlushEndsWhatItBegan() {
        let s = LeaseTests.Setup(members: 1)
        let (second, third) = (s.fleet.files(), s.fleet.files())
        let f = s.other.create(1, "f").inode
        #expect(s.other.write(f, 0, Array("old".utf8)) == 3)
        _ = s.kernel.read(f, 0, 3)
        let (first, _) = s.change(Files.readCall(f, 0, 3))
        _ = s.kernel.read(f, 0, 3)
        let later = second.client.post(Files.readCall(f, 0, 3))
        s.fleet.host.runUntilQuiet()
        s.kernel.client.acknowledge(s.kernel.client.unacknowledged[0])
        s.fleet.host.runUntilQuiet()
        #expect(s.other.client.isAnswered(first) && !second.client.isAnswered(later))
        // A mapped page became dirty before the third reader came, and is on its way.
        let last = third.client.post(Files.readCall(f, 0, 3))
        s.fleet.host.runUntilQuiet()
        #expect(!third.client.isAnswered(last))
        #expect(s.kernel.write(f, 0, Array("new".utf8), flags: FOS_IO_WRITEBACK.rawValue) == 3)
        for _ in 0..<2 {
            s.kernel.client.acknowledgeAll()
            s.fleet.host.runUntilQuiet()
        }
        #expect(second.client.reply(later)?.bulk == Array("new".utf8) && third.client.reply(last)?.bulk == Array("new".utf8))
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    // MARK: Ahead

    /// Files of one directory that the kernel has pages of, or only attributes.
    private func known(_ count: Int, pages: Bool, _ s: LeaseTests.Setup) -> [UInt64] {
        let d = s.other.mkdir(1, "d").inode
        return (0..<count).map { index in
            let f = s.other.create(d, "f\(index)").inode
            #expect(s.other.write(f, 0, [1, 2, 3]) == 3 && s.kernel.lookup(d, "f\(index)").status == 0)
            if pages { _ = s.kernel.read(f, 0, 3) }
            return f
        }
    }

    @Test(arguments: [true, false]) func filesThatAreReadInTurnAreFlushedTogether(pages: Bool) {
        let s = LeaseTests.Setup(members: 1)
        let files = known(65, pages: pages, s)  // the first, and those of the four rounds below
        let kind = pages ? "pages" : "attributes"
        // One file says nothing of the next.
        s.run(Files.readCall(files[0], 0, 3), ["\(kind) \(files[0])"])
        var next = 1
        for ahead in [4, 8, 16, 32] {
            let (ticket, notices) = s.change(Files.readCall(files[next], 0, 3))
            #expect(notices == files[next...(next + ahead)].map { "\(kind) \($0)" }.sorted())
            #expect(s.kernel.client.unacknowledged.map(\.inode) == [files[next]], "the kernel takes them in order, so one answer is enough")
            #expect(s.kernel.client.notices.last?.inode == files[next])
            s.settle(ticket)
            for file in files[next...(next + ahead)] { s.run(Files.readCall(file, 0, 3), []) }
            next += ahead + 1
        }
        // The kernel may have them again, and then is asked again.
        _ = s.kernel.read(files[3], 0, 3)
        s.run(Files.readCall(files[3], 0, 3), ["pages \(files[3])"])
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// What is told to go beside another file is waited for like that one.
    @Test func whatIsFlushedAheadIsNotGoneYet() {
        let s = LeaseTests.Setup(members: 1)
        let third = s.fleet.files()
        let files = known(8, pages: true, s)
        s.run(Files.readCall(files[0], 0, 3), ["pages \(files[0])"])
        let (ticket, notices) = s.change(Files.readCall(files[1], 0, 3))
        #expect(notices.count == 5)
        let read = third.client.post(Files.readCall(files[2], 0, 3))
        let write = third.client.post(Files.writeCall(files[3], 0, [9]))
        let mode = third.client.post(LoopCall(FOS_OP_SETATTR, inode: files[4], Self.setMode(0o600)))
        s.fleet.host.runUntilQuiet()
        #expect(![read, write, mode].contains { third.client.isAnswered($0) })
        #expect(s.kernel.write(files[2], 0, [7], flags: FOS_IO_WRITEBACK.rawValue) == 1)
        for _ in 0..<4 {
            s.kernel.client.acknowledgeAll()
            s.fleet.host.runUntilQuiet()
        }
        #expect(s.other.client.reply(ticket)?.status == 0)
        #expect(third.client.reply(read)?.bulk == [7, 2, 3])
        #expect(third.client.reply(write)?.status == 0 && third.client.reply(mode)?.status == 0)
        // What was written back may still be held.
        for file in files[...5] { s.run(Files.readCall(file, 0, 3), file == files[2] ? ["pages \(file)"] : []) }
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        s.fleet.check()
    }

    /// Notices ahead take no room that a change may need.
    @Test func aheadOnlyWhereThereIsRoom() {
        var options = LoopOptions()
        options.noticeCapacity = 9
        let fleet = FileFleet(members: 1, options: options)
        let (kernel, other) = (fleet.frontEnd(), fleet.files())
        let d = other.mkdir(1, "d").inode
        for index in 0..<4 {
            let f = other.create(d, "f\(index)").inode
            #expect(other.write(f, 0, [1]) == 1 && kernel.lookup(d, "f\(index)").status == 0 && kernel.read(f, 0, 1).bulk == [1])
        }
        for index in 0..<4 {
            kernel.client.forgetNotices()
            #expect(other.read(other.lookup(d, "f\(index)").inode, 0, 1).bulk == [1])
            #expect(kernel.client.notices.count == 1)
        }
        kernel.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    private static func setMode(_ mode: UInt32) -> fos_setattr_request {
        var request = fos_setattr_request()
        request.valid = FOS_SET_MODE.rawValue
        request.mode = mode
        return request
    }
}
