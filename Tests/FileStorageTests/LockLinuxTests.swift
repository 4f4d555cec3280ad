// The lock table against the kernel of this machine: the same requests, the same answers.

import FileStorage
import Glibc
import Testing

@Suite struct LockLinuxTests {
    // fcntl(2); <fcntl.h> hides them from Swift behind _GNU_SOURCE.
    private static var getLock: Int32 { 36 }  // F_OFD_GETLK
    private static var setLock: Int32 { 37 }  // F_OFD_SETLK

    /// flock(2), whose name Swift gives to the structure of fcntl(2).
    private static func flockCall(_ file: Int32, _ operation: Int32) -> Int32 {
        let call: (Int32, Int32) -> Int32 = Glibc.flock(_:_:)
        return call(file, operation)
    }

    /// OFD locks and flocks of several open file descriptions of one temporary file, as one process can hold them.
    @Test func sameAnswersAsLinux() throws {
        var random = Generator(seed: Generator.seed("LockLinux"))
        var template = Array("/tmp/fos-locks-XXXXXX".utf8CString)
        let first = mkstemp(&template)
        try #require(first >= 0)
        defer { unlink(template) }
        var files = [first]
        for _ in 0..<4 { files.append(open(template, O_RDWR)) }
        defer { for file in files { close(file) } }
        try #require(files.allSatisfy { $0 >= 0 })
        // Locks of the kind are asked for once; where the kernel or the file system has none, there is nothing to compare.
        var probe = Glibc.flock()
        probe.l_type = Int16(F_RDLCK)
        guard fcntl(files[0], LockLinuxTests.getLock, &probe) == 0 else { return }

        var f = try LockTableTests.Fixture(inodes: 1)
        for _ in 0..<20_000 {
            let at = random.below(files.count)
            let owner = LockOwner(id: UInt64(at), client: 1, isDescription: true)
            let kind = LockKind(rawValue: UInt8(random.below(3)))!
            if random.chance(20) {
                let operation = [LOCK_SH, LOCK_EX, LOCK_UN][Int(kind.rawValue)]
                let linux = LockLinuxTests.flockCall(files[at], operation | LOCK_NB) == 0
                let result = f.locks.flock(f.inodes[0], owner, kind, token: nil, &f.memory.arena, &f.memory.pool)
                expect(result == (linux ? .granted : .wouldBlock))
                continue
            }
            let start = UInt64(random.below(60))
            let length = UInt64(random.chance(5) ? 0 : 1 + random.below(random.chance(20) ? 60 : 8))
            let end = length == 0 ? UInt64.max >> 1 : start + length - 1
            var lock = Glibc.flock()
            lock.l_type = Int16([F_RDLCK, F_WRLCK, F_UNLCK][Int(kind.rawValue)])
            lock.l_whence = Int16(SEEK_SET)
            lock.l_start = Int(start)
            lock.l_len = Int(length)
            let request = LockRequest(owner: owner, kind: kind, start: start, end: end, pid: 7)
            if kind != .unlock, random.chance(40) {
                expect(fcntl(files[at], LockLinuxTests.getLock, &lock) == 0)
                let found = f.locks.test(f.inodes[0], request)
                expect((found == nil) == (lock.l_type == Int16(F_UNLCK)))
                guard let found else { continue }
                expect(lock.l_type == Int16(found.kind == .read ? F_RDLCK : F_WRLCK))
                expect(lock.l_start == Int(found.start))
                expect(lock.l_len == (found.end == UInt64.max >> 1 ? 0 : Int(found.end - found.start + 1)))
            } else {
                let linux = fcntl(files[at], LockLinuxTests.setLock, &lock) == 0
                let result = f.locks.set(f.inodes[0], request, token: nil, &f.memory.arena, &f.memory.pool)
                expect(result == (linux ? .granted : .wouldBlock))
            }
        }
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        f.expectEmpty()
    }
}
