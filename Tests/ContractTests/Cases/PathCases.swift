// Errors of path resolution, for every call that takes a path.

import Glibc
import Testing

/// Calls by path, each on one name. `makes`: it makes the name; the others want it to be there.
private struct PathCall: Sendable {
    let name: String
    let makes: Bool
    let needs: Features
    let run: @Sendable (Contract, String) throws -> Void
    init(_ name: String, makes: Bool = false, needs: Features = [], _ run: @escaping @Sendable (Contract, String) throws -> Void) {
        self.name = name
        self.makes = makes
        self.needs = needs
        self.run = run
    }
}

private let pathCalls: [PathCall] = [
    PathCall("stat") { c, p in _ = try c.fs.status(p) },
    PathCall("lstat") { c, p in _ = try c.fs.status(p, follow: false) },
    PathCall("open") { c, p in try c.fs.close(try c.fs.open(p, O_RDONLY, 0)) },
    PathCall("open O_CREAT", makes: true) { c, p in try c.fs.close(try c.fs.open(p, O_RDWR | O_CREAT | O_EXCL, 0o644)) },
    PathCall("mkdir", makes: true) { c, p in try c.fs.mkdir(p, 0o755) },
    PathCall("mknod", makes: true) { c, p in try c.fs.mknod(p, FileType.fifo | 0o644, (0, 0)) },
    PathCall("symlink", makes: true) { c, p in try c.fs.symlink("x", p) },
    PathCall("link to", makes: true) { c, p in try c.fs.link(c.path("other"), p) },
    PathCall("rename to", makes: true) { c, p in try c.fs.rename(c.path("other"), p) },
    PathCall("link from") { c, p in try c.fs.link(p, c.path("made")) },
    PathCall("rename from") { c, p in try c.fs.rename(p, c.path("made")) },
    PathCall("unlink") { c, p in try c.fs.unlink(p) },
    PathCall("rmdir") { c, p in try c.fs.rmdir(p) },
    PathCall("readlink") { c, p in _ = try c.fs.readlink(p) },
    PathCall("chmod") { c, p in try c.fs.chmod(p, 0o600) },
    PathCall("chown") { c, p in try c.fs.chown(p, 0, 0) },
    PathCall("truncate") { c, p in try c.fs.truncate(p, 0) },
    PathCall("utimensat") { c, p in try c.fs.setTimes(p, .now, .now) },
    PathCall("access") { c, p in try c.fs.access(p, F_OK) },
    PathCall("setxattr", needs: .extendedAttributes) { c, p in try c.fs.setAttribute(p, "user.a", [1]) },
    PathCall("getxattr", needs: .extendedAttributes) { c, p in _ = try c.fs.attribute(p, "user.a") },
    PathCall("listxattr", needs: .extendedAttributes) { c, p in _ = try c.fs.attributeNames(p) },
    PathCall("removexattr", needs: .extendedAttributes) { c, p in try c.fs.removeAttribute(p, "user.a") },
    PathCall("statfs") { c, p in _ = try c.fs.space(p) },
]

let pathCases: [ContractCase] = pathCalls.flatMap { call in
    let test = { (name: String, needs: Features, body: @escaping @Sendable (Contract) throws -> Void) in
        ContractCase("path", "\(call.name) \(name)", needs: call.needs.union(needs), body)
    }
    var cases = [
        test("below a name that is missing is ENOENT", []) { c in
            try c.file("other")
            c.fails(ENOENT) { try call.run(c, c.path("missing/x")) }
        },
        test("below a file is ENOTDIR", []) { c in
            try c.file("other")
            try c.file("file")
            c.fails(ENOTDIR) { try call.run(c, c.path("file/x")) }
        },
        test("below a fifo is ENOTDIR", []) { c in
            try c.file("other")
            try c.fs.mknod(c.path("fifo"), FileType.fifo | 0o644, (0, 0))
            c.fails(ENOTDIR) { try call.run(c, c.path("fifo/x")) }
        },
        test("with a component of 256 bytes is ENAMETOOLONG", []) { c in
            try c.file("other")
            c.fails(ENAMETOOLONG) { try call.run(c, c.path(String(repeating: "n", count: 256))) }
            c.fails(ENAMETOOLONG) { try call.run(c, c.path(String(repeating: "n", count: 256) + "/x")) }
        },
        test("with a path that is too long is ENAMETOOLONG", []) { c in
            try c.file("other")
            c.fails(ENAMETOOLONG) { try call.run(c, c.path(String(repeating: "./", count: 2_048))) }
        },
        test("through a loop of symbolic links is ELOOP", []) { c in
            try c.file("other")
            try c.fs.symlink("b", c.path("a"))
            try c.fs.symlink("a", c.path("b"))
            c.fails(ELOOP) { try call.run(c, c.path("a/x")) }
        },
        test("through a link to itself is ELOOP", []) { c in
            try c.file("other")
            try c.fs.symlink("self", c.path("self"))
            c.fails(ELOOP) { try call.run(c, c.path("self/x")) }
        },
        test("without search permission is EACCES", .users) { c in
            try c.file("other")
            try c.fs.chown(c.path("other"), User.alice.uid, User.alice.gid)
            try c.mkdir("closed", 0o700)
            try c.file("closed/x")
            c.acting(.alice) { c.fails(EACCES) { try call.run(c, c.path(call.makes ? "closed/y" : "closed/x")) } }
        },
        test("with an empty path is ENOENT", []) { c in
            try c.file("other")
            c.fails(ENOENT) { try call.run(c, "") }
        },
    ]
    if call.makes {
        cases.append(
            test("without write permission on the directory is EACCES", .users) { c in
                try c.file("other")
                try c.fs.chown(c.path("other"), User.alice.uid, User.alice.gid)
                try c.mkdir("readonly", 0o755)
                c.acting(.alice) { c.fails(EACCES) { try call.run(c, c.path("readonly/x")) } }
                c.equal(try c.names("readonly"), [])
            })
        cases.append(
            test("of 255 bytes works", []) { c in
                try c.file("other")
                let name = String(repeating: "n", count: 255)
                try call.run(c, c.path(name))
                c.equal(try c.names().filter { $0 != "other" }, [name])
                let wide = String(repeating: "ä", count: 127)
                try c.file("other")
                try call.run(c, c.path(wide))
                c.expect(c.exists(wide))
            })
        cases.append(
            test("in a directory that was removed is ENOENT", []) { c in
                try c.file("other")
                try c.mkdir("gone")
                try c.fs.rmdir(c.path("gone"))
                c.fails(ENOENT) { try call.run(c, c.path("gone/x")) }
            })
    } else {
        cases.append(
            test("of a name that is missing is ENOENT", []) { c in
                try c.file("other")
                c.fails(ENOENT) { try call.run(c, c.path("missing")) }
            })
        cases.append(
            test("of a file with a slash behind it is ENOTDIR", .kernelPaths) { c in
                try c.file("file")
                c.fails(ENOTDIR) { try call.run(c, c.path("file/")) }
            })
    }
    return cases
}
