// Byte-range locks of open file descriptions, and flock.

import Glibc
import Testing

private func lock(_ name: String, _ body: @escaping @Sendable (Contract) throws -> Void) -> ContractCase {
    ContractCase("lock", name, needs: .locks, body)
}
private let read = Int32(F_RDLCK), write = Int32(F_WRLCK), unlock = Int32(F_UNLCK)

let lockCases: [ContractCase] = [
    lock("writers exclude, readers share") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        try c.fs.lock(one, read, 0, 10)
        try c.fs.lock(two, read, 0, 10)
        c.fails(EAGAIN) { try c.fs.lock(one, write, 0, 10) }
        try c.fs.lock(two, unlock, 0, 10)
        try c.fs.lock(one, write, 0, 10)
        c.fails(EAGAIN) { try c.fs.lock(two, read, 5, 1) }
        c.fails(EAGAIN) { try c.fs.lock(two, write, 9, 100) }
        try c.fs.lock(two, write, 10, 100)
        try c.fs.lock(one, unlock, 0, 0)
        try c.fs.lock(two, write, 0, 0)
    },
    lock("ranges split and join") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        try c.fs.lock(one, write, 0, 100)
        try c.fs.lock(one, unlock, 40, 20)
        try c.fs.lock(two, write, 40, 20)
        c.fails(EAGAIN) { try c.fs.lock(two, write, 39, 1) }
        c.fails(EAGAIN) { try c.fs.lock(two, write, 60, 1) }
        try c.fs.lock(two, unlock, 40, 20)
        try c.fs.lock(one, write, 30, 40)
        c.fails(EAGAIN) { try c.fs.lock(two, read, 50, 1) }
        try c.fs.lock(one, read, 20, 10)
        try c.fs.lock(two, read, 20, 10)
        c.fails(EAGAIN) { try c.fs.lock(two, read, 30, 1) }
    },
    lock("F_GETLK tells who is in the way") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        c.equal(try c.fs.getLock(two, write, 0, 0), nil)
        try c.fs.lock(one, write, 100, 50)
        c.equal(try c.fs.getLock(two, write, 0, 0), LockFound(kind: write, start: 100, length: 50))
        c.equal(try c.fs.getLock(two, read, 149, 1), LockFound(kind: write, start: 100, length: 50))
        c.equal(try c.fs.getLock(two, read, 150, 1), nil)
        c.equal(try c.fs.getLock(one, write, 0, 0), nil)
        try c.fs.lock(one, read, 1_000, 0)
        c.equal(try c.fs.getLock(two, write, 500, 1_000_000), LockFound(kind: read, start: 1_000, length: 0))
        c.equal(try c.fs.getLock(two, read, 500, 1_000_000), nil)
    },
    lock("closing gives them back") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        try c.fs.lock(one, write, 0, 0)
        c.fails(EAGAIN) { try c.fs.lock(two, write, 5, 5) }
        try c.close(one)
        try c.fs.lock(two, write, 5, 5)
    },
    lock("need a descriptor that may read, or write") { c in
        try c.file("f")
        let reader = try c.open("f", O_RDONLY), writer = try c.open("f", O_WRONLY)
        c.fails(EBADF) { try c.fs.lock(reader, write, 0, 1) }
        c.fails(EBADF) { try c.fs.lock(writer, read, 0, 1) }
        try c.fs.lock(reader, read, 0, 1)
        try c.fs.lock(writer, write, 10, 1)
        c.fails(EINVAL) { try c.fs.lock(reader, read, -1, 1) }
    },
    lock("of two files do not meet") { c in
        try c.file("f")
        try c.file("g")
        let one = try c.open("f"), two = try c.open("g")
        try c.fs.lock(one, write, 0, 0)
        try c.fs.lock(two, write, 0, 0)
    },
    lock("are of the file, not of its name") { c in
        try c.mkdir("d")
        try c.file("f")
        try c.fs.link(c.path("f"), c.path("d/g"))
        let one = try c.open("f"), two = try c.open("d/g")
        try c.fs.lock(one, write, 0, 10)
        c.fails(EAGAIN) { try c.fs.lock(two, write, 0, 10) }
        try c.fs.rename(c.path("f"), c.path("h"))
        c.fails(EAGAIN) { try c.fs.lock(two, write, 0, 10) }
    },
    lock("a thousand of single bytes") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        for number in 0..<1_000 { try c.fs.lock(one, write, Int64(number * 2), 1) }
        for number in stride(from: 0, to: 1_000, by: 97) {
            c.fails(EAGAIN) { try c.fs.lock(two, write, Int64(number * 2), 1) }
            try c.fs.lock(two, write, Int64(number * 2 + 1), 1)
        }
        try c.fs.lock(one, unlock, 0, 0)
        try c.fs.lock(two, write, 0, 0)
    },
    lock("flock: exclusive excludes, shared shares, and both convert") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f", O_RDONLY)
        try c.fs.flock(one, LOCK_SH)
        try c.fs.flock(two, LOCK_SH)
        c.fails(EAGAIN) { try c.fs.flock(one, LOCK_EX) }
        try c.fs.flock(two, LOCK_UN)
        try c.fs.flock(one, LOCK_EX)
        c.fails(EAGAIN) { try c.fs.flock(two, LOCK_SH) }
        try c.fs.flock(one, LOCK_SH)
        try c.fs.flock(two, LOCK_SH)
        try c.close(one)
        try c.fs.flock(two, LOCK_EX)
    },
    lock("flock and byte ranges do not meet") { c in
        try c.file("f")
        let one = try c.open("f"), two = try c.open("f")
        try c.fs.flock(one, LOCK_EX)
        try c.fs.lock(two, write, 0, 0)
    },
    lock("flock on a directory") { c in
        try c.mkdir("d")
        let one = try c.open("d", O_RDONLY), two = try c.open("d", O_RDONLY)
        try c.fs.flock(one, LOCK_EX)
        c.fails(EAGAIN) { try c.fs.flock(two, LOCK_EX) }
        try c.fs.flock(one, LOCK_UN)
        try c.fs.flock(two, LOCK_EX)
    },
]
