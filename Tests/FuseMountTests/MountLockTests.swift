// Locks that the file fleet keeps: messages for opens and closes, waits, their interruption.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

/// Waits for a task from a synchronous test.
private final class DispatchlessResult: @unchecked Sendable {
    private let value = Mutex<Int32?>(nil)
    init(_ task: Task<Int32, Never>) {
        Task.detached { [self] in
            let result = await task.value
            value.withLock { $0 = result }
        }
    }
    func wait(seconds: Int) -> Int32? {
        for _ in 0..<seconds * 1000 {
            if let result = value.withLock({ $0 }) { return result }
            usleep(1000)
        }
        return nil
    }
}

extension MountTests {
    @Suite struct Locks {
        @Test func fleetLocksAreMessages() throws {
            let scratch = try Scratch(locks: .fleet)
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, "x") == 0)
            #expect(contents(file) == "x")
            let opens = scripted.withLock { state in state.log.filter { $0.hasPrefix("open") || $0.hasPrefix("release") || $0.hasPrefix("flush") } }
            // CREATE opened it the first time.
            #expect(opens.filter { $0 == "open 4097" }.count == 1)
            for _ in 0..<500 where scripted.withLock({ $0.log.filter { $0 == "release 4097" }.count }) < 2 { usleep(1000) }
            #expect(scripted.withLock { $0.log.filter { $0 == "release 4097" }.count } == 2)
            #expect(opens.contains("flush 4097"))
        }

        @Test func locksOfADescriptionEndWithIt() throws {
            let scratch = try Scratch(locks: .fleet)
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, "x") == 0)
            let descriptionLock: Int32 = 37  // F_OFD_SETLK
            let first = open(file, O_RDWR)
            let second = open(file, O_RDWR)
            defer { close(second) }
            #expect(lock(first, descriptionLock, F_WRLCK) == 0)
            #expect(lock(second, descriptionLock, F_WRLCK) == EAGAIN)
            close(first)
            for _ in 0..<1000 where scripted.withLock({ $0.lockOwner != nil }) { usleep(1000) }
            #expect(lock(second, descriptionLock, F_WRLCK) == 0)
            #expect(scripted.withLock { $0.lockOwner != nil })
        }

        private func lock(_ descriptor: Int32, _ command: Int32, _ type: Int32) -> Int32 {
            var lock = flock()
            lock.l_type = Int16(type)
            lock.l_whence = Int16(SEEK_SET)
            return fcntl(descriptor, command, &lock) == 0 ? 0 : errno
        }

        /// A wait whose message takes its time is interrupted all the same.
        @Test func interruptsAreNotGivenUp() throws {
            let scratch = try Scratch(locks: .fleet)
            defer { scratch.finish() }
            #expect(store(scratch.path + "/a", "x") == 0)
            scripted.withLock {
                $0.lockOwner = 1
                $0.earlyCancels = 100
            }
            let program = "import fcntl; f = open(\"\(scratch.path)/a\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX)"
            let started = try run("python3 -c '\(program)' >/dev/null 2>&1 & echo $!")
            let child = try #require(pid_t(started.dropLast()))
            for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
            kill(child, SIGKILL)
            for _ in 0..<5000 where scripted.withLock({ $0.lockWaiter != nil }) { usleep(1000) }
            #expect(scripted.withLock { $0.lockWaiter == nil && $0.earlyCancels == 0 })
        }

        @Test func waitingLocksAreGrantedAndInterrupted() throws {
            let scratch = try Scratch(locks: .fleet)
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, "x") == 0)
            // Another client holds the lock.
            scripted.withLock { $0.lockOwner = 1 }
            let descriptor = open(file, O_RDWR)
            defer { close(descriptor) }
            #expect(lock(descriptor, F_SETLK, F_WRLCK) == EAGAIN)
            // A program that waits and is killed: its lock request is cancelled, and workers go on serving meanwhile.
            let program = "import fcntl; f = open(\"\(file)\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX)"
            let started = try run("python3 -c '\(program)' >/dev/null 2>&1 & echo $!")
            let child = try #require(pid_t(started.dropLast()))
            for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
            var meanwhile = stat()
            #expect(stat(file, &meanwhile) == 0 && meanwhile.st_size == 1)
            kill(child, SIGKILL)
            for _ in 0..<10_000 where scripted.withLock({ $0.lockWaiter != nil }) { usleep(2000) }
            #expect(scripted.withLock { $0.log.contains("wait") && $0.log.contains("cancel") && $0.lockWaiter == nil })
            // One that waits until the holder lets go.
            let job = Task.detached { [self] in lock(descriptor, F_SETLKW, F_WRLCK) }
            for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
            let waiting = scripted.withLock { state in
                state.lockOwner = nil
                return state.lockWaiter != nil
            }
            #expect(waiting)
            // Any message lets the script look again.
            var status = statvfs()
            statvfs(scratch.path, &status)
            let done = DispatchlessResult(job)
            #expect(done.wait(seconds: 5) == 0)
        }
    }
}
