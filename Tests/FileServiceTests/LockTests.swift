// Locks: conflicts, waits, deadlocks, cancelling, closing, death.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct LockTests {
    static func lock(
        _ inode: UInt64, _ owner: UInt64, _ kind: fos_lock_kind, _ start: UInt64 = 0, _ end: UInt64 = UInt64(Int64.max), wait: Bool = false,
        operation: fos_operation = FOS_OP_SETLK
    ) -> LoopCall {
        LoopCall(
            operation, inode: inode,
            fos_lock_request(owner: owner, start: start, end: end, kind: kind.rawValue, pid: UInt32(owner), wait: wait ? 1 : 0, reserved: 0)
        )
    }
    static func flock(_ inode: UInt64, _ owner: UInt64, _ kind: fos_lock_kind, wait: Bool = false) -> LoopCall {
        LoopCall(FOS_OP_FLOCK, inode: inode, fos_flock_request(owner: owner, kind: kind.rawValue, wait: wait ? 1 : 0))
    }

    @Test func locksRanges() {
        let fleet = FileFleet(members: 2)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(files.call(Self.lock(f, 1, FOS_LOCK_WRITE, 10, 19)).status == 0)
        #expect(
            files.call(Self.lock(f, 2, FOS_LOCK_READ, 0, 9)).status == 0
                && files.call(Self.lock(f, 2, FOS_LOCK_READ, 5, 10)).status == -EAGAIN)
        let found = files.call(Self.lock(f, 2, FOS_LOCK_WRITE, 0, 100, operation: FOS_OP_GETLK)).fixed(fos_lock_request.self)
        #expect(found.kind == FOS_LOCK_WRITE.rawValue && found.start == 10 && found.end == 19 && found.pid == 1)
        #expect(
            files.call(Self.lock(f, 1, FOS_LOCK_WRITE, 20, 30, operation: FOS_OP_GETLK)).fixed(fos_lock_request.self).kind
                == FOS_LOCK_UNLOCK.rawValue)
        #expect(
            files.call(Self.lock(f, 1, FOS_LOCK_READ, 20, 10)).status == -EINVAL
                && files.call(Self.lock(f, 1, FOS_LOCK_READ, 0, UInt64.max)).status == -EINVAL)
        #expect(files.call(LoopCall(FOS_OP_FLUSH, inode: f, fos_flush_request(owner: 1))).status == 0)
        #expect(files.call(Self.lock(f, 2, FOS_LOCK_WRITE)).status == 0)
        #expect(files.unlink(1, "f") == 0)
        fleet.check()
        fleet.look(0) { #expect($0.locks.lockCount == 0) }
        fleet.look(1) { #expect($0.locks.lockCount == 0) }
    }

    @Test func waitsAndIsGrantedOrEnds() {
        let fleet = FileFleet(members: 2)
        let (a, b, c) = (fleet.files(), fleet.files(), fleet.files())
        let f = a.create(1, "f").inode
        #expect(a.call(Self.lock(f, 1, FOS_LOCK_WRITE)).status == 0)
        let waiting = b.client.post(Self.lock(f, 2, FOS_LOCK_WRITE, wait: true))
        let second = c.client.post(Self.lock(f, 3, FOS_LOCK_READ, wait: true))
        fleet.host.runUntilQuiet()
        #expect(!b.client.isAnswered(waiting) && !c.client.isAnswered(second))
        // Somebody else cannot cancel it; its owner can.
        func cancel(_ files: Files, _ ticket: LoopTicket) -> Int32 {
            files.call(LoopCall(FOS_OP_CANCEL, inode: f, fos_cancel_request(channel: ticket.channel, sequence: ticket.sequence))).status
        }
        #expect(cancel(a, waiting) == -ENOENT && !b.client.isAnswered(waiting))
        #expect(cancel(b, waiting) == 0)
        fleet.host.runUntilQuiet()
        #expect(b.client.reply(waiting)?.status == -EINTR && cancel(b, waiting) == -ENOENT)
        #expect(a.call(Self.lock(f, 1, FOS_LOCK_UNLOCK)).status == 0)
        fleet.host.runUntilQuiet()
        #expect(c.client.reply(second)?.status == 0)
        // A dead holder's locks go, and a dead waiter is not answered.
        let third = a.client.post(Self.lock(f, 1, FOS_LOCK_WRITE, wait: true))
        let doomed = b.client.post(Self.lock(f, 2, FOS_LOCK_WRITE, wait: true))
        fleet.host.runUntilQuiet()
        b.client.die()
        fleet.host.runUntilQuiet()
        #expect(!a.client.isAnswered(third))
        _ = doomed
        c.client.die()
        fleet.host.runUntilQuiet()
        #expect(a.client.reply(third)?.status == 0)
        fleet.check()
    }

    @Test func locksNeedTheAccessThatAnOpenNeeds() {
        let fleet = FileFleet(members: 2, rootMode: 0o777)
        let (owner, other) = (fleet.files(uid: 1000, gid: 1000), fleet.files(uid: 2000, gid: 2000))
        let f = owner.create(1, "f", mode: 0o600).inode
        for kind in [FOS_LOCK_READ, FOS_LOCK_WRITE] {
            #expect(other.call(Self.lock(f, 1, kind)).status == -EACCES && other.call(Self.flock(f, 1, kind)).status == -EACCES)
            #expect(other.call(Self.lock(f, 1, kind, operation: FOS_OP_GETLK)).status == -EACCES)
        }
        #expect(other.call(Self.lock(f, 1, FOS_LOCK_UNLOCK)).status == 0 && other.call(Self.flock(f, 1, FOS_LOCK_UNLOCK)).status == 0)
        #expect(owner.setattr(f, FOS_SET_MODE.rawValue, mode: 0o604).status == 0)
        #expect(other.call(Self.lock(f, 1, FOS_LOCK_READ)).status == 0 && other.call(Self.lock(f, 1, FOS_LOCK_WRITE)).status == -EACCES)
        #expect(other.call(Self.flock(f, 1, FOS_LOCK_WRITE)).status == 0)
        // What is open stays lockable, whatever the mode becomes.
        #expect(other.open(f, 0).status == 0 && owner.setattr(f, FOS_SET_MODE.rawValue, mode: 0o600).status == 0)
        #expect(other.call(Self.lock(f, 1, FOS_LOCK_READ)).status == 0 && other.call(Self.flock(f, 1, FOS_LOCK_READ)).status == 0)
        #expect(other.release(f) == 0 && other.call(Self.lock(f, 1, FOS_LOCK_READ)).status == -EACCES)
        other.client.die()
        fleet.host.runUntilQuiet()
        fleet.check()
    }

    @Test func findsDeadlocks() {
        let fleet = FileFleet(members: 1)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(
            files.call(Self.lock(f, 1, FOS_LOCK_WRITE, 0, 0)).status == 0 && files.call(Self.lock(f, 2, FOS_LOCK_WRITE, 1, 1)).status == 0)
        let waiting = files.client.post(Self.lock(f, 1, FOS_LOCK_WRITE, 1, 1, wait: true))
        fleet.host.runUntilQuiet()
        #expect(files.call(Self.lock(f, 2, FOS_LOCK_WRITE, 0, 0, wait: true)).status == -EDEADLK)
        #expect(files.call(Self.lock(f, 2, FOS_LOCK_UNLOCK)).status == 0)
        fleet.host.runUntilQuiet()
        #expect(files.client.reply(waiting)?.status == 0)
        fleet.check()
    }

    @Test func flocks() {
        let fleet = FileFleet(members: 2)
        let (a, b) = (fleet.files(), fleet.files())
        let f = a.create(1, "f").inode
        #expect(
            a.call(Self.flock(f, 1, FOS_LOCK_READ)).status == 0 && b.call(Self.flock(f, 1, FOS_LOCK_READ)).status == 0,
            "owners of two clients differ")
        #expect(b.call(Self.flock(f, 1, FOS_LOCK_WRITE)).status == -EAGAIN)
        let waiting = b.client.post(Self.flock(f, 2, FOS_LOCK_WRITE, wait: true))
        fleet.host.runUntilQuiet()
        #expect(b.call(Self.flock(f, 1, FOS_LOCK_UNLOCK)).status == 0)
        fleet.host.runUntilQuiet()
        #expect(!b.client.isAnswered(waiting))
        #expect(a.call(LoopCall(FOS_OP_RELEASE, inode: f, fos_release_request(owner: 1, flags: 1, count: 0))).status == 0)
        fleet.host.runUntilQuiet()
        #expect(b.client.reply(waiting)?.status == 0)
        // A file that is freed has no locks, and no waiters either.
        let last = a.client.post(Self.flock(f, 1, FOS_LOCK_WRITE, wait: true))
        fleet.host.runUntilQuiet()
        #expect(a.unlink(1, "f") == 0)
        fleet.host.runUntilQuiet()
        #expect(a.client.reply(last)?.status == -EINTR)
        fleet.check()
    }
}
