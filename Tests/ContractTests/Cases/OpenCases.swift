// open flags, temporary files, special files.

import Glibc
import Testing

let openCases: [ContractCase] = [
    ContractCase("open", "O_EXCL does not follow a link, not even a dangling one") { c in
        try c.fs.symlink("nowhere", c.path("l"))
        c.fails(EEXIST) { _ = try c.open("l", O_RDWR | O_CREAT | O_EXCL) }
        c.expect(!c.exists("nowhere"))
    },
    ContractCase("open", "O_DIRECTORY of what is none is ENOTDIR") { c in
        for kind in [Kind.file, .fifo, .linkToFile] {
            try kind.make("\(kind)", c)
            c.fails(ENOTDIR, "\(kind)") { _ = try c.open("\(kind)", O_RDONLY | O_DIRECTORY) }
        }
        try Kind.linkToDirectory.make("l", c)
        _ = try c.open("l", O_RDONLY | O_DIRECTORY)
    },
    ContractCase("open", "O_NOFOLLOW of a link is ELOOP, of a path through one works") { c in
        try c.mkdir("d")
        try c.file("d/f", "x")
        try c.fs.symlink("d", c.path("l"))
        try c.fs.symlink("d/f", c.path("m"))
        c.fails(ELOOP) { _ = try c.open("m", O_RDONLY | O_NOFOLLOW) }
        c.equal(try c.fs.contents(try c.open("l/f", O_RDONLY | O_NOFOLLOW)), Array("x".utf8))
    },
    ContractCase("open", "a socket is ENXIO", needs: .kernelPaths) { c in
        try Kind.socket.make("s", c)
        c.fails(ENXIO) { _ = try c.open("s", O_RDWR) }
    },
    ContractCase("open", "a fifo works as a pipe", needs: .kernelPaths) { c in
        try Kind.fifo.make("p", c)
        c.fails(ENXIO) { _ = try c.open("p", O_WRONLY | O_NONBLOCK) }
        let reader = try c.open("p", O_RDONLY | O_NONBLOCK), writer = try c.open("p", O_WRONLY | O_NONBLOCK)
        c.equal(try c.fs.write(writer, Array("through".utf8)), 7)
        c.equal(try c.fs.read(reader, 100), Array("through".utf8))
        c.equal(try c.status("p").size, 0)
    },
    ContractCase("open", "a hundred descriptors of one file, and it unlinked") { c in
        try c.file("f", "shared")
        let handles = try (0..<100).map { _ in try c.open("f", O_RDONLY) }
        try c.fs.unlink(c.path("f"))
        for handle in handles { c.equal(try c.fs.read(handle, 3), Array("sha".utf8)) }
        for handle in handles.dropLast() { try c.close(handle) }
        c.equal(try c.fs.contents(handles[99]), Array("shared".utf8))
    },
    ContractCase("open", "O_TMPFILE has no name, and can be given one", needs: .temporaryFiles) { c in
        let handle = try c.open("", O_RDWR | OpenFlags.temporary, 0o640)
        c.equal(try c.fs.status(handle).links, 0)
        c.equal(try c.fs.status(handle).mode, FileType.regular | 0o640)
        _ = try c.fs.write(handle, Array("kept".utf8))
        c.equal(try c.names(), [])
        try c.fs.link(handle, to: c.path("named"))
        c.equal(try c.text("named"), "kept")
        c.equal(try c.status("named").links, 1)
        c.fails(EEXIST) { try c.fs.link(handle, to: c.path("named")) }
    },
    ContractCase("open", "O_TMPFILE that nobody names is gone with its descriptor", needs: .temporaryFiles) { c in
        let handle = try c.open("", O_RDWR | OpenFlags.temporary, 0o600)
        _ = try c.fs.write(handle, pattern(10_000))
        try c.close(handle)
        c.equal(try c.names(), [])
    },
    ContractCase("open", "O_TMPFILE errors", needs: .temporaryFiles) { c in
        try c.file("f")
        c.fails(ENOTDIR) { _ = try c.open("f", O_RDWR | OpenFlags.temporary, 0o600) }
        c.fails(ENOENT) { _ = try c.open("missing", O_RDWR | OpenFlags.temporary, 0o600) }
        c.fails(EINVAL) { _ = try c.open("", O_RDONLY | OpenFlags.temporary, 0o600) }
    },
    ContractCase("open", "O_DIRECT writes and reads whole pages", needs: .kernelPaths) { c in
        // A buffer of the right alignment is not to be had here; refusing is right, silently wrong data is not.
        let handle = try c.open("f", O_RDWR | O_CREAT)
        _ = try c.fs.pwrite(handle, pattern(8_192), at: 0)
        let code = c.outcome {
            let direct = try c.open("f", O_RDONLY | OpenFlags.direct)
            let read = try c.fs.pread(direct, 4_096, at: 4_096)
            c.expect(read == Array(pattern(8_192)[4_096...]), "what O_DIRECT reads")
        }
        c.expect(code == 0 || code == EINVAL, "O_DIRECT gives \(Errno(code))")
    },
    ContractCase("open", "deeply shared: write by one name, read by another, truncate by a third") { c in
        for number in 0..<8 { try c.mkdir("d\(number)") }
        try c.file("d0/f")
        for number in 1..<8 { try c.fs.link(c.path("d0/f"), c.path("d\(number)/f")) }
        let handles = try (0..<8).map { try c.open("d\($0)/f") }
        for number in 0..<8 { _ = try c.fs.pwrite(handles[number], [UInt8(65 + number)], at: UInt64(number)) }
        c.equal(try c.fs.contents(handles[3]), Array("ABCDEFGH".utf8))
        try c.fs.truncate(c.path("d5/f"), 4)
        c.equal(try c.text("d7/f"), "ABCD")
    },
]
