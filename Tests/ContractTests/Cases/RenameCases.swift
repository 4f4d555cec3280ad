// rename: the matrix of what is moved onto what, and the rules about trees.

import Glibc
import Testing

/// What must come of moving one kind onto another, in one directory: 0 or an errno.
private func expected(_ from: Kind, _ to: Kind, _ flags: RenameFlag) -> Int32 {
    if from == .none { return ENOENT }
    if to == .none { return flags.contains(.exchange) ? ENOENT : 0 }
    if flags.contains(.noReplace) { return EEXIST }
    if flags.contains(.exchange) { return 0 }
    if from.isDirectory && !to.isDirectory { return ENOTDIR }
    if !from.isDirectory && to.isDirectory { return EISDIR }
    if to == .fullDirectory { return ENOTEMPTY }
    return 0
}

let renameMatrix: [ContractCase] = [RenameFlag(), .noReplace, .exchange].flatMap { flags in
    [true, false].flatMap { sameDirectory in
        Kind.allCases.flatMap { from in
            Kind.allCases.map { to in
                let manner = flags == .noReplace ? " NOREPLACE" : flags == .exchange ? " EXCHANGE" : ""
                let place = sameDirectory ? "" : " in another directory"
                return ContractCase("rename", "\(from) onto \(to)\(place)\(manner)") { c in
                    try c.mkdir("d1")
                    try c.mkdir("d2")
                    let old = "d1/a", new = sameDirectory ? "d1/b" : "d2/b"
                    try from.makeAt(old, c)
                    try to.makeAt(new, c)
                    let oldInode = try? c.lstatus(old).inode, newInode = try? c.lstatus(new).inode
                    let wanted = expected(from, to, flags)
                    c.equal(c.outcome { try c.fs.rename(c.path(old), c.path(new), flags) }, wanted)
                    let moved = wanted == 0
                    c.equal(try? c.lstatus(new).inode, moved ? oldInode : newInode)
                    c.equal(try? c.lstatus(old).inode, !moved ? oldInode : flags == .exchange ? newInode : nil)
                    // Links of both directories are right whatever happened.
                    for directory in ["d1", "d2"] {
                        let subdirectories = try c.fs.list(c.path(directory)).filter { $0.type == 4 }.count
                        c.equal(try c.status(directory).links, UInt32(2 + subdirectories), directory)
                    }
                    if moved, from == .fullDirectory { c.equal(try c.text(new + "/inside"), "x") }
                    if moved, from == .file { c.equal(try c.text(new), "contents of \(old)") }
                }
            }
        }
    }
}

extension Kind {
    /// As `make`, in a directory and without targets beside it.
    fileprivate func makeAt(_ name: String, _ c: Contract) throws {
        switch self {
        case .linkToFile: try c.fs.symlink("../some-file", c.path(name))
        case .linkToDirectory: try c.fs.symlink("..", c.path(name))
        default: try make(name, c)
        }
    }
}

let renameCases: [ContractCase] = [
    ContractCase("rename", "onto itself changes nothing") { c in
        try c.file("f", "x")
        let before = try c.status("f")
        try c.fs.rename(c.path("f"), c.path("f"))
        c.equal(try c.status("f").inode, before.inode)
        c.equal(try c.text("f"), "x")
        try c.mkdir("d")
        try c.fs.rename(c.path("d"), c.path("d"))
        c.expect(c.exists("d"))
    },
    ContractCase("rename", "onto another name of the same file keeps both") { c in
        try c.file("f", "x")
        try c.fs.link(c.path("f"), c.path("g"))
        try c.fs.rename(c.path("f"), c.path("g"))
        c.equal(try c.names(), ["f", "g"])
        c.equal(try c.status("f").links, 2)
    },
    ContractCase("rename", "onto another name of the same file in another directory keeps both") { c in
        try c.mkdir("d")
        try c.file("f", "x")
        try c.fs.link(c.path("f"), c.path("d/g"))
        try c.fs.rename(c.path("f"), c.path("d/g"))
        c.expect(c.exists("f") && c.exists("d/g"))
        c.equal(try c.status("f").links, 2)
    },
    ContractCase("rename", "takes a link from what it replaces") { c in
        try c.file("a", "a")
        try c.file("b", "b")
        try c.fs.link(c.path("b"), c.path("b2"))
        try c.fs.rename(c.path("a"), c.path("b"))
        c.equal(try c.status("b2").links, 1)
        c.equal(try c.text("b2"), "b")
        c.equal(try c.text("b"), "a")
        c.equal(try c.status("b").links, 1)
    },
    ContractCase("rename", "of a directory into itself is EINVAL") { c in
        try c.mkdir("d")
        c.fails(EINVAL) { try c.fs.rename(c.path("d"), c.path("d/x")) }
        c.equal(try c.names(), ["d"])
    },
    ContractCase("rename", "of a directory far below itself is EINVAL") { c in
        var deep = "d"
        try c.mkdir(deep)
        for _ in 0..<12 {
            deep += "/s"
            try c.mkdir(deep)
        }
        c.fails(EINVAL) { try c.fs.rename(c.path("d"), c.path(deep + "/x")) }
        c.fails(EINVAL) { try c.fs.rename(c.path("d/s"), c.path(deep + "/x")) }
        c.fails(EINVAL) { try c.fs.rename(c.path("d"), c.path(deep), .exchange) }
        c.expect(c.exists(deep))
    },
    ContractCase("rename", "onto an ancestor is ENOTEMPTY, and EINVAL as an exchange") { c in
        try c.mkdir("d")
        try c.mkdir("d/e")
        try c.mkdir("d/e/f")
        c.fails(ENOTEMPTY) { try c.fs.rename(c.path("d/e/f"), c.path("d")) }
        c.fails(EINVAL) { try c.fs.rename(c.path("d/e/f"), c.path("d"), .exchange) }
        try c.file("d/e/g")
        // Two rules are broken at once; the kernel looks for ancestors first.
        let code = c.outcome { try c.fs.rename(c.path("d/e/g"), c.path("d")) }
        c.expect(
            code == ENOTEMPTY || (code == EISDIR && !c.fs.features.contains(.kernelPaths)),
            "moving a file onto its ancestor gives \(Errno(code))")
    },
    ContractCase("rename", "of a directory to another one moves its \"..\" and its link") { c in
        try c.mkdir("a")
        try c.mkdir("b")
        try c.mkdir("a/d")
        try c.file("a/d/f", "x")
        try c.fs.rename(c.path("a/d"), c.path("b/d"))
        c.equal(try c.status("b/d/..").inode, try c.status("b").inode)
        c.equal(try c.status("a").links, 2)
        c.equal(try c.status("b").links, 3)
        c.equal(try c.text("b/d/f"), "x")
        c.equal(try c.status("b/d/../d/f").inode, try c.status("b/d/f").inode)
    },
    ContractCase("rename", "exchange of directories swaps their \"..\"") { c in
        try c.mkdir("a")
        try c.mkdir("b")
        try c.mkdir("a/x")
        try c.file("b/y")
        try c.file("a/x/f", "x")
        try c.fs.rename(c.path("a/x"), c.path("b/y"), .exchange)
        c.equal(try c.status("a").links, 2)
        c.equal(try c.status("b").links, 3)
        c.equal(try c.status("b/y/..").inode, try c.status("b").inode)
        c.equal(try c.text("b/y/f"), "x")
        c.equal(try c.status("a/x").type, FileType.regular)
    },
    ContractCase("rename", "with both flags is EINVAL") { c in
        try c.file("a")
        try c.file("b")
        c.fails(EINVAL) { try c.fs.rename(c.path("a"), c.path("b"), [.noReplace, .exchange]) }
    },
    ContractCase("rename", "of \".\" and \"..\" is EBUSY") { c in
        try c.mkdir("d")
        c.fails(EBUSY) { try c.fs.rename(c.path("d/."), c.path("e")) }
        c.fails(EBUSY) { try c.fs.rename(c.path("d/.."), c.path("e")) }
        c.fails(EBUSY) { try c.fs.rename(c.path("d"), c.path("d/.")) }
    },
    ContractCase("rename", "with slashes behind names wants directories") { c in
        try c.mkdir("d")
        try c.fs.rename(c.path("d/"), c.path("e/"))
        c.equal(try c.names(), ["e"])
        try c.file("f")
        c.fails(ENOTDIR) { try c.fs.rename(c.path("f"), c.path("g/")) }
        c.fails(ENOTDIR) { try c.fs.rename(c.path("f/"), c.path("g")) }
    },
    ContractCase("rename", "needs write permission on both directories", needs: .users) { c in
        try c.mkdir("ro", 0o755)
        try c.file("ro/f")
        try c.fs.chown(c.path("ro/f"), User.alice.uid, 0)
        try c.acting(.alice) {
            try c.file("mine")
            c.fails(EACCES) { try c.fs.rename(c.path("ro/f"), c.path("x")) }
            c.fails(EACCES) { try c.fs.rename(c.path("mine"), c.path("ro/x")) }
            c.fails(EACCES) { try c.fs.rename(c.path("mine"), c.path("ro/f")) }
        }
    },
    ContractCase("rename", "of another's directory elsewhere needs write permission on it", needs: .users) { c in
        try c.mkdir("to", 0o777)
        try c.mkdir("d", 0o755)
        c.acting(.alice) {
            c.fails(EACCES) { try c.fs.rename(c.path("d"), c.path("to/d")) }
            c.equal(c.outcome { try c.fs.rename(c.path("d"), c.path("e")) }, 0)
        }
        try c.fs.chmod(c.path("e"), 0o777)
        c.acting(.alice) { c.equal(c.outcome { try c.fs.rename(c.path("e"), c.path("to/e")) }, 0) }
    },
    ContractCase("rename", "back and forth a hundred times between many directories") { c in
        for number in 0..<10 { try c.mkdir("d\(number)") }
        try c.file("d0/f", "travels")
        try c.mkdir("d0/sub")
        for number in 0..<100 {
            let from = number % 10, to = (number + 1) % 10
            try c.fs.rename(c.path("d\(from)/f"), c.path("d\(to)/f"))
            try c.fs.rename(c.path("d\(from)/sub"), c.path("d\(to)/sub"))
        }
        c.equal(try c.text("d0/f"), "travels")
        for number in 0..<10 { c.equal(try c.status("d\(number)").links, number == 0 ? 3 : 2) }
    },
    ContractCase("rename", "keeps what is open open") { c in
        try c.mkdir("a")
        try c.mkdir("b")
        try c.file("a/f", "x")
        let handle = try c.open("a/f")
        try c.fs.rename(c.path("a/f"), c.path("b/g"))
        c.equal(try c.fs.write(handle, Array("yz".utf8)), 2)
        c.equal(try c.text("b/g"), "yz")
    },
    ContractCase("rename", "rotates directories into each other without a cycle") { c in
        try c.mkdir("a")
        try c.mkdir("b")
        try c.mkdir("c")
        try c.fs.rename(c.path("b"), c.path("a/b"))
        try c.fs.rename(c.path("c"), c.path("a/b/c"))
        c.fails(EINVAL) { try c.fs.rename(c.path("a"), c.path("a/b/c/a")) }
        try c.fs.rename(c.path("a/b/c"), c.path("c"))
        try c.fs.rename(c.path("a"), c.path("c/a"))
        c.equal(try c.names(), ["c"])
        c.equal(try c.status("c/a/b/../../..").inode, try c.fs.status(c.base).inode)
    },
]
