// Hard links and symbolic links.

import Glibc
import Testing

let linkCases: [ContractCase] =
    Kind.allCases.filter { $0 != .none }.map { kind in
        ContractCase("link", "to \(kind)") { c in
            try kind.make("x", c)
            if kind.isDirectory {
                c.fails(EPERM) { try c.fs.link(c.path("x"), c.path("y")) }
                return
            }
            try c.fs.link(c.path("x"), c.path("y"))
            let x = try c.lstatus("x"), y = try c.lstatus("y")
            c.equal(x.inode, y.inode)
            c.equal(x.links, 2)
            c.equal(y.type, kind.type)
            try c.fs.unlink(c.path("x"))
            c.equal(try c.lstatus("y").links, 1)
        }
    } + [
        ContractCase("link", "names share contents, mode and times") { c in
            try c.file("a", "one")
            try c.fs.link(c.path("a"), c.path("b"))
            try c.file("b", "two")
            c.equal(try c.text("a"), "two")
            try c.fs.chmod(c.path("a"), 0o604)
            c.equal(try c.status("b").permissions, 0o604)
            try c.fs.setTimes(c.path("b"), .at(1_000_000_001), .at(2_000_000_002))
            c.equal(try c.status("a").modified, 2_000_000_002)
        },
        ContractCase("link", "across directories, a hundred of them") { c in
            try c.file("f", "x")
            for number in 0..<10 { try c.mkdir("d\(number)") }
            for number in 0..<100 { try c.fs.link(c.path("f"), c.path("d\(number % 10)/l\(number)")) }
            c.equal(try c.status("f").links, 101)
            for number in 0..<50 { try c.fs.unlink(c.path("d\(number % 10)/l\(number)")) }
            c.equal(try c.status("d9/l99").links, 51)
            try c.fs.unlink(c.path("f"))
            c.equal(try c.text("d5/l55"), "x")
        },
        ContractCase("link", "does not follow a symbolic link") { c in
            try c.file("f")
            try c.fs.symlink("f", c.path("l"))
            try c.fs.link(c.path("l"), c.path("m"))
            c.equal(try c.lstatus("m").type, FileType.symlink)
            c.equal(try c.status("f").links, 1)
        },
        ContractCase("link", "of an open file that has no name left is ENOENT") { c in
            try c.file("f")
            let handle = try c.open("f")
            try c.fs.unlink(c.path("f"))
            c.fails(ENOENT) { try c.fs.link(handle, to: c.path("g")) }
        },
        ContractCase("symlink", "keeps any target") { c in
            for (index, target) in ["x", "/", "..", "a//b///", "no such", String(repeating: "y", count: 4_095), "./././"].enumerated() {
                try c.fs.symlink(target, c.path("\(index)"))
                c.equal(try c.fs.readlink(c.path("\(index)")), target)
                let status = try c.lstatus("\(index)")
                if !target.hasPrefix("/") { c.equal(status.size, UInt64(target.utf8.count)) }
                c.equal(status.mode, FileType.symlink | 0o777)
            }
        },
        ContractCase("symlink", "with an empty target is ENOENT, with one too long ENAMETOOLONG") { c in
            c.fails(ENOENT) { try c.fs.symlink("", c.path("l")) }
            c.fails(ENAMETOOLONG) { try c.fs.symlink(String(repeating: "x", count: 4_096), c.path("l")) }
            c.equal(try c.names(), [])
        },
        ContractCase("symlink", "is followed relative to its own directory") { c in
            try c.mkdir("a")
            try c.mkdir("b")
            try c.file("b/f", "found")
            try c.fs.symlink("../b/f", c.path("a/l"))
            c.equal(try c.text("a/l"), "found")
            try c.fs.symlink("../b", c.path("a/d"))
            c.equal(try c.text("a/d/f"), "found")
            c.equal(try c.text("a/d/../a/l"), "found")
        },
        ContractCase("symlink", "with an absolute target is followed from the root") { c in
            try c.mkdir("a")
            try c.file("f", "found")
            try c.fs.symlink(c.path("f"), c.path("a/l"))
            c.equal(try c.text("a/l"), "found")
            c.equal(try c.fs.readlink(c.path("a/l")), c.path("f"))
        },
        ContractCase("symlink", "forty are followed, one more is ELOOP") { c in
            try c.file("l0", "end")
            for number in 1...41 { try c.fs.symlink("l\(number - 1)", c.path("l\(number)")) }
            c.equal(try c.text("l40"), "end")
            c.fails(ELOOP) { _ = try c.text("l41") }
            c.equal(try c.fs.readlink(c.path("l41")), "l40")
        },
        ContractCase("symlink", "that dangles is ENOENT to follow, but is there itself") { c in
            try c.fs.symlink("nowhere", c.path("l"))
            c.fails(ENOENT) { _ = try c.status("l") }
            c.fails(ENOENT) { _ = try c.open("l") }
            c.fails(ENOENT) { try c.fs.chmod(c.path("l"), 0o600) }
            c.equal(try c.lstatus("l").type, FileType.symlink)
            c.fails(ELOOP) { _ = try c.open("l", O_RDONLY | O_NOFOLLOW) }
        },
        ContractCase("symlink", "readlink of anything else is EINVAL") { c in
            for kind in [Kind.file, .emptyDirectory, .fifo] {
                try kind.make("\(kind)", c)
                c.fails(EINVAL) { _ = try c.fs.readlink(c.path("\(kind)")) }
            }
        },
        ContractCase("symlink", "may be owned by others, and changes do not touch its target", needs: .users) { c in
            try c.file("f")
            try c.fs.symlink("f", c.path("l"))
            try c.fs.chown(c.path("l"), 5, 6, follow: false)
            c.equal(try c.lstatus("l").uid, 5)
            c.equal(try c.status("f").uid, 0)
            try c.fs.setTimes(c.path("l"), accessed: .at(1_000_000_000), modified: .at(2_000_000_000), follow: false)
            c.equal(try c.lstatus("l").modified, 2_000_000_000)
            c.expect(try c.status("f").modified != 2_000_000_000)
        },
        ContractCase("symlink", "removing a link to a directory leaves the directory") { c in
            try c.mkdir("d")
            try c.file("d/f")
            try c.fs.symlink("d", c.path("l"))
            c.fails(ENOTDIR) { try c.fs.rmdir(c.path("l")) }
            try c.fs.unlink(c.path("l"))
            c.equal(try c.names("d"), ["f"])
        },
    ]
