// mkdir, mknod, open O_CREAT, symlink: what they make, and what is in their way.

import Glibc
import Testing

private let makers: [(name: String, make: @Sendable (Contract, String) throws -> Void)] = [
    ("mkdir", { c, n in try c.mkdir(n) }),
    ("mknod", { c, n in try c.fs.mknod(c.path(n), FileType.fifo | 0o644, (0, 0)) }),
    ("open O_CREAT|O_EXCL", { c, n in _ = try c.open(n, O_RDWR | O_CREAT | O_EXCL) }),
    ("symlink", { c, n in try c.fs.symlink("x", c.path(n)) }),
    ("link", { c, n in
        try c.file("linked")
        try c.fs.link(c.path("linked"), c.path(n))
    }),
]

let creationCases: [ContractCase] =
    makers.flatMap { maker in
        Kind.allCases.filter { $0 != .none }.map { kind in
            ContractCase("creation", "\(maker.name) over \(kind) is EEXIST") { c in
                try kind.make("x", c)
                let before = try c.lstatus("x")
                c.fails(EEXIST) { try maker.make(c, "x") }
                c.equal(try c.lstatus("x").inode, before.inode)
            }
        }
    } + [
        ContractCase("creation", "mkdir makes an empty directory with two links") { c in
            try c.mkdir("d", 0o751)
            let status = try c.status("d")
            c.equal(status.mode, FileType.directory | 0o751)
            c.equal(status.links, 2)
            c.equal(try c.names("d"), [])
            try c.mkdir("d/sub")
            c.equal(try c.status("d").links, 3)
            try c.file("d/file")
            c.equal(try c.status("d").links, 3)
        },
        ContractCase("creation", "the mask takes bits from every mode") { c in
            c.fs.umask = 0o027
            try c.mkdir("d", 0o777)
            try c.fs.store(c.path("f"), "", 0o666)
            try c.fs.mknod(c.path("p"), FileType.fifo | 0o666, (0, 0))
            try c.fs.symlink("x", c.path("l"))
            c.fs.umask = 0
            c.equal(try c.status("d").permissions, 0o750)
            c.equal(try c.status("f").permissions, 0o640)
            c.equal(try c.status("p").permissions, 0o640)
            c.equal(try c.lstatus("l").permissions, 0o777)
        },
        ContractCase("creation", "mkdir keeps the sticky bit") { c in
            try c.mkdir("d", 0o1777)
            c.equal(try c.status("d").permissions, 0o1777)
        },
        ContractCase("creation", "open makes an empty file of the mode and the user", needs: .users) { c in
            try c.acting(.alice) { try c.file("f", mode: 0o604) }
            let status = try c.status("f")
            c.equal(status.mode, FileType.regular | 0o604)
            c.equal(status.size, 0)
            c.equal(status.links, 1)
            c.equal(status.uid, User.alice.uid)
            c.equal(status.gid, User.alice.gid)
        },
        ContractCase("creation", "everything made belongs to its maker", needs: .users) { c in
            try c.acting(.bob) {
                try c.mkdir("d")
                try c.fs.symlink("x", c.path("l"))
                try c.fs.mknod(c.path("p"), FileType.fifo | 0o600, (0, 0))
                try c.fs.mknod(c.path("s"), FileType.socket | 0o600, (0, 0))
            }
            for name in ["d", "l", "p", "s"] {
                let status = try c.lstatus(name)
                c.equal(status.uid, User.bob.uid, name)
                c.equal(status.gid, User.bob.gid, name)
            }
        },
        ContractCase("creation", "mknod makes fifos, sockets, files and devices") { c in
            for (name, mode) in [("p", FileType.fifo), ("s", FileType.socket), ("f", FileType.regular)] {
                try c.fs.mknod(c.path(name), mode | 0o640, (0, 0))
                c.equal(try c.status(name).mode, mode | 0o640, name)
                c.equal(try c.status(name).links, 1, name)
            }
            try c.fs.mknod(c.path("c"), FileType.character | 0o600, (1, 3))
            try c.fs.mknod(c.path("b"), FileType.block | 0o600, (7, 300))
            c.equal(try c.status("c").mode, FileType.character | 0o600)
            c.equal(try c.status("c").device, 1 << 8 | 3)
            // makedev(7, 300): the minor number's high bits lie above the major's low ones.
            c.equal(try c.status("b").device, 7 << 8 | 300 & 0xff | (300 & ~0xff) << 12)
        },
        ContractCase("creation", "mknod of a device by a user is EPERM", needs: .users) { c in
            c.acting(.alice) {
                c.fails(EPERM) { try c.fs.mknod(c.path("c"), FileType.character | 0o600, (1, 3)) }
                c.fails(EPERM) { try c.fs.mknod(c.path("b"), FileType.block | 0o600, (1, 3)) }
                c.equal(c.outcome { try c.fs.mknod(c.path("p"), FileType.fifo | 0o600, (0, 0)) }, 0)
            }
        },
        ContractCase("creation", "an existing name is EEXIST also where nothing may be made", needs: .users) { c in
            try c.mkdir("ro", 0o755)
            try c.file("ro/x")
            c.acting(.alice) { c.fails(EEXIST) { try c.fs.mkdir(c.path("ro/x"), 0o755) } }
        },
        ContractCase("creation", "open O_CREAT of an existing file opens it") { c in
            try c.file("f", "old")
            let handle = try c.open("f", O_RDWR | O_CREAT, 0o777)
            c.equal(try c.fs.contents(handle), Array("old".utf8))
            c.equal(try c.status("f").permissions, 0o644)
        },
        ContractCase("creation", "open O_CREAT of a directory is EISDIR") { c in
            try c.mkdir("d")
            c.fails(EISDIR) { _ = try c.open("d", O_RDONLY | O_CREAT) }
            c.fails(EISDIR) { _ = try c.open("d", O_RDWR | O_CREAT) }
        },
        ContractCase("creation", "open O_CREAT through a dangling link makes what it names") { c in
            try c.fs.symlink("made", c.path("l"))
            try c.file("l", "x")
            c.equal(try c.text("made"), "x")
            c.equal(try c.lstatus("l").type, FileType.symlink)
            try c.fs.symlink("no/where", c.path("m"))
            c.fails(ENOENT) { try c.file("m", "x") }
        },
        ContractCase("creation", "a mode without any permission still gives its maker a descriptor", needs: [.users, .handlesKeepRights]) {
            c in
            try c.acting(.alice) {
                let handle = try c.open("f", O_RDWR | O_CREAT | O_EXCL, 0o000)
                c.equal(try c.fs.pwrite(handle, [1, 2, 3], at: 0), 3)
                c.equal(try c.fs.pread(handle, 10, at: 0), [1, 2, 3])
                c.fails(EACCES) { _ = try c.open("f", O_RDONLY) }
            }
        },
        ContractCase("creation", "names may hold any byte but slash and NUL") { c in
            for name in [
                "-rf", " ", "a b", "tab\there", "new\nline", "\\", "'\"", "*?[]", "...", ".hidden", "ünïcödé", "日本語", "\u{7f}", "#~$",
            ] {
                try c.file(name, name)
                c.equal(try c.text(name), name)
            }
            c.equal(try c.names().count, 14)
        },
        ContractCase("creation", "names differ by case, by accents' composition, and by length") { c in
            let names = ["a", "A", "aa", "\u{e9}", "e\u{301}", "a ", "a."]
            for (index, name) in names.enumerated() { try c.file(name, "\(index)") }
            for (index, name) in names.enumerated() { c.equal(try c.text(name), "\(index)") }
        },
        ContractCase("creation", "a setgid directory hands its group on, and its bit to directories", needs: .users) { c in
            try c.mkdir("d", 0o777)
            try c.fs.chown(c.path("d"), 0, 5_000)
            try c.fs.chmod(c.path("d"), 0o2777)
            try c.acting(.alice) {
                try c.file("d/f")
                try c.mkdir("d/sub", 0o755)
                try c.fs.symlink("x", c.path("d/l"))
                try c.fs.mknod(c.path("d/p"), FileType.fifo | 0o600, (0, 0))
            }
            for name in ["d/f", "d/sub", "d/l", "d/p"] { c.equal(try c.lstatus(name).gid, 5_000, name) }
            c.equal(try c.status("d/sub").permissions, 0o2755)
            c.equal(try c.status("d/f").permissions, 0o644)
            try c.acting(.alice) { try c.mkdir("d/sub/deep", 0o700) }
            c.equal(try c.status("d/sub/deep").permissions, 0o2700)
        },
        ContractCase("creation", "a setgid program for a foreign group loses the bit", needs: .users) { c in
            try c.mkdir("d", 0o777)
            try c.fs.chown(c.path("d"), 0, 5_000)
            try c.fs.chmod(c.path("d"), 0o2777)
            try c.acting(.alice) { try c.fs.close(try c.fs.open(c.path("d/f"), O_WRONLY | O_CREAT, 0o2755)) }
            c.equal(try c.status("d/f").permissions, 0o755)
            try c.fs.close(try c.fs.open(c.path("d/g"), O_WRONLY | O_CREAT, 0o2755))
            c.equal(try c.status("d/g").permissions, 0o2755)
        },
        ContractCase("creation", "inode numbers are not zero, and differ") { c in
            var seen: Set<UInt64> = []
            for number in 0..<50 {
                if number % 2 == 0 { try c.mkdir("\(number)") } else { try c.file("\(number)") }
                let inode = try c.status("\(number)").inode
                c.expect(inode != 0 && seen.insert(inode).inserted)
            }
        },
    ]
