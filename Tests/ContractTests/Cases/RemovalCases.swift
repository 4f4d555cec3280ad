// unlink and rmdir.

import Glibc
import Testing

let removalCases: [ContractCase] =
    Kind.allCases.filter { $0 != .none }.flatMap { kind in
        [
            ContractCase("removal", "unlink of \(kind)") { c in
                try kind.make("x", c)
                if kind.isDirectory {
                    c.fails(EISDIR) { try c.fs.unlink(c.path("x")) }
                    c.expect(c.exists("x"))
                } else {
                    try c.fs.unlink(c.path("x"))
                    c.expect(!c.exists("x"))
                    c.fails(ENOENT) { try c.fs.unlink(c.path("x")) }
                    if kind == .linkToFile { c.equal(try c.text(Kind.target("x")), "linked") }
                }
            },
            ContractCase("removal", "rmdir of \(kind)") { c in
                try kind.make("x", c)
                switch kind {
                case .emptyDirectory:
                    try c.fs.rmdir(c.path("x"))
                    c.expect(!c.exists("x"))
                case .fullDirectory: c.fails(ENOTEMPTY) { try c.fs.rmdir(c.path("x")) }
                default: c.fails(ENOTDIR) { try c.fs.rmdir(c.path("x")) }
                }
            },
        ]
    } + [
        ContractCase("removal", "a directory's link count follows its subdirectories") { c in
            try c.mkdir("d")
            for name in ["a", "b", "c"] { try c.mkdir("d/" + name) }
            c.equal(try c.status("d").links, 5)
            try c.fs.rmdir(c.path("d/b"))
            c.equal(try c.status("d").links, 4)
        },
        ContractCase("removal", "rmdir of \".\" is EINVAL and of \"..\" ENOTEMPTY") { c in
            try c.mkdir("d")
            c.fails(EINVAL) { try c.fs.rmdir(c.path("d/.")) }
            c.fails(ENOTEMPTY) { try c.fs.rmdir(c.path("d/..")) }
        },
        ContractCase("removal", "a directory of hidden entries is not empty") { c in
            try c.mkdir("d")
            try c.file("d/.hidden")
            c.fails(ENOTEMPTY) { try c.fs.rmdir(c.path("d")) }
            try c.fs.unlink(c.path("d/.hidden"))
            try c.fs.rmdir(c.path("d"))
        },
        ContractCase("removal", "removing without write permission on the directory is EACCES", needs: .users) { c in
            try c.mkdir("ro", 0o755)
            try c.file("ro/f", mode: 0o777)
            try c.mkdir("ro/d", 0o777)
            c.acting(.alice) {
                c.fails(EACCES) { try c.fs.unlink(c.path("ro/f")) }
                c.fails(EACCES) { try c.fs.rmdir(c.path("ro/d")) }
            }
        },
        ContractCase("removal", "the permissions of the file do not matter", needs: .users) { c in
            try c.file("f", mode: 0o000)
            try c.mkdir("d", 0o000)
            try c.acting(.alice) {
                try c.fs.unlink(c.path("f"))
                try c.fs.rmdir(c.path("d"))
            }
            c.equal(try c.names(), [])
        },
        ContractCase("removal", "in a sticky directory only owners remove", needs: .users) { c in
            try c.mkdir("t", 0o1777)
            try c.acting(.alice) {
                for name in ["t/f1", "t/f2", "t/f3"] { try c.file(name, mode: 0o666) }
                try c.mkdir("t/d", 0o777)
            }
            c.acting(.bob) {
                c.fails(EPERM) { try c.fs.unlink(c.path("t/f1")) }
                c.fails(EPERM) { try c.fs.rmdir(c.path("t/d")) }
                c.fails(EPERM) { try c.fs.rename(c.path("t/f1"), c.path("t/moved")) }
                c.fails(EPERM) { try c.fs.rename(c.path("t/f1"), c.path("moved")) }
            }
            try c.acting(.alice) {
                try c.fs.unlink(c.path("t/f1"))
                try c.fs.rename(c.path("t/f2"), c.path("t/f4"))
            }
            try c.fs.unlink(c.path("t/f3"))
            // The directory's owner may as well.
            try c.fs.chown(c.path("t"), User.bob.uid, User.bob.gid)
            try c.acting(.bob) {
                try c.fs.unlink(c.path("t/f4"))
                try c.fs.rmdir(c.path("t/d"))
            }
        },
        ContractCase("removal", "in a sticky directory nobody replaces another's file by rename", needs: .users) { c in
            try c.mkdir("t", 0o1777)
            try c.acting(.alice) { try c.file("t/a") }
            try c.acting(.bob) {
                try c.file("t/b")
                c.fails(EPERM) { try c.fs.rename(c.path("t/b"), c.path("t/a")) }
                c.fails(EPERM) { try c.fs.rename(c.path("t/b"), c.path("t/a"), .exchange) }
                try c.file("mine")
                c.fails(EPERM) { try c.fs.rename(c.path("mine"), c.path("t/a")) }
            }
        },
        ContractCase("removal", "an open file lives on without a name") { c in
            try c.file("f", "still here")
            let handle = try c.open("f")
            try c.fs.unlink(c.path("f"))
            c.equal(try c.fs.status(handle).links, 0)
            c.equal(try c.fs.contents(handle), Array("still here".utf8))
            c.equal(try c.fs.pwrite(handle, [33], at: 10), 1)
            c.equal(try c.fs.status(handle).size, 11)
            try c.fs.truncate(handle, 3)
            try c.fs.chmod(handle, 0o600)
            c.equal(try c.fs.contents(handle), Array("sti".utf8))
            // The name is free for another file.
            try c.file("f", "new")
            c.equal(try c.text("f"), "new")
            c.equal(try c.fs.contents(handle), Array("sti".utf8))
            c.expect(try c.fs.status(handle).inode != c.status("f").inode)
        },
        ContractCase("removal", "an open file lives on when it is replaced by rename") { c in
            try c.file("old", "old")
            try c.file("new", "new")
            let handle = try c.open("old")
            try c.fs.rename(c.path("new"), c.path("old"))
            c.equal(try c.fs.status(handle).links, 0)
            c.equal(try c.fs.contents(handle), Array("old".utf8))
            c.equal(try c.text("old"), "new")
        },
        ContractCase("removal", "an open directory that was removed lists nothing") { c in
            try c.mkdir("d")
            let handle = try c.open("d", O_RDONLY | O_DIRECTORY)
            try c.fs.rmdir(c.path("d"))
            // Linux says ENOENT before it asks the file system (iterate_dir).
            let code = c.outcome { c.equal(try c.fs.nextEntries(handle, 10).count, 0) }
            c.expect(code == 0 || code == ENOENT, "the listing gives \(Errno(code))")
            c.equal(try c.fs.status(handle).links, 0)
        },
        ContractCase("removal", "two descriptors keep an unlinked file until both are closed") { c in
            try c.file("f", "x")
            let one = try c.open("f"), two = try c.open("f", O_RDONLY)
            try c.fs.unlink(c.path("f"))
            try c.close(one)
            c.equal(try c.fs.contents(two), Array("x".utf8))
        },
    ]
