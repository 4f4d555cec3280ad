// Which of the three times each call changes, of the file and of its directory.

import Glibc
import Testing

private struct TimeRule: Sendable {
    let name: String
    /// Of the file "f" (made before, one page of data): access is checked only where reading must not, or must, set it.
    let modified: Bool
    let changed: Bool
    /// Of the directory: modified and changed together.
    let directory: Bool
    var needs: Features = []
    let run: @Sendable (Contract) throws -> Void
}

private let timeRules: [TimeRule] = [
    TimeRule(name: "stat", modified: false, changed: false, directory: false) { c in _ = try c.status("f") },
    TimeRule(name: "read", modified: false, changed: false, directory: false) { c in _ = try c.text("f") },
    TimeRule(name: "write", modified: true, changed: true, directory: false) { c in
        let handle = try c.open("f")
        _ = try c.fs.pwrite(handle, [1], at: 0)
        try c.close(handle)
    },
    TimeRule(name: "write of nothing", modified: false, changed: false, directory: false) { c in
        let handle = try c.open("f")
        _ = try c.fs.pwrite(handle, [], at: 0)
        try c.close(handle)
    },
    TimeRule(name: "append", modified: true, changed: true, directory: false) { c in
        let handle = try c.open("f", O_WRONLY | O_APPEND)
        _ = try c.fs.write(handle, [1])
        try c.close(handle)
    },
    TimeRule(name: "open and close", modified: false, changed: false, directory: false) { c in try c.close(try c.open("f")) },
    TimeRule(name: "truncate to less", modified: true, changed: true, directory: false) { c in try c.fs.truncate(c.path("f"), 1) },
    TimeRule(name: "truncate to more", modified: true, changed: true, directory: false) { c in try c.fs.truncate(c.path("f"), 10_000) },
    TimeRule(name: "ftruncate to the same size", modified: true, changed: true, directory: false) { c in
        let handle = try c.open("f")
        try c.fs.truncate(handle, 3)
        try c.close(handle)
    },
    TimeRule(name: "open O_TRUNC", modified: true, changed: true, directory: false) { c in try c.close(try c.open("f", O_WRONLY | O_TRUNC))
    },
    TimeRule(name: "chmod", modified: false, changed: true, directory: false) { c in try c.fs.chmod(c.path("f"), 0o600) },
    TimeRule(name: "chmod to the same mode", modified: false, changed: true, directory: false) { c in try c.fs.chmod(c.path("f"), 0o644) },
    TimeRule(name: "chown", modified: false, changed: true, directory: false) { c in try c.fs.chown(c.path("f"), 5, 5) },
    TimeRule(name: "utimensat of modification", modified: true, changed: true, directory: false) { c in
        try c.fs.setTimes(c.path("f"), .omit, .now)
    },
    TimeRule(name: "utimensat of access", modified: false, changed: true, directory: false) { c in
        try c.fs.setTimes(c.path("f"), .at(1), .omit)
    },
    TimeRule(name: "utimensat of neither", modified: false, changed: false, directory: false) { c in
        try c.fs.setTimes(c.path("f"), .omit, .omit)
    },
    TimeRule(name: "link", modified: false, changed: true, directory: true) { c in try c.fs.link(c.path("f"), c.path("g")) },
    TimeRule(name: "unlink of another name", modified: false, changed: true, directory: true) { c in try c.fs.unlink(c.path("f2")) },
    TimeRule(name: "rename", modified: false, changed: true, directory: true) { c in
        try c.fs.rename(c.path("f"), c.path("g"))
        try c.fs.rename(c.path("g"), c.path("f"))
    },
    TimeRule(name: "failed calls", modified: false, changed: false, directory: false) { c in
        _ = c.outcome { try c.fs.mkdir(c.path("f"), 0o755) }
        _ = c.outcome { try c.fs.rmdir(c.path("f")) }
        _ = c.outcome { try c.fs.rename(c.path("f"), c.path("missing/f")) }
        _ = c.outcome { try c.fs.unlink(c.path("missing")) }
    },
    TimeRule(name: "setxattr", modified: false, changed: true, directory: false, needs: .extendedAttributes) { c in
        try c.fs.setAttribute(c.path("f"), "user.a", [1])
    },
    TimeRule(name: "getxattr", modified: false, changed: false, directory: false, needs: .extendedAttributes) { c in
        _ = c.outcome { _ = try c.fs.attribute(c.path("f"), "user.a") }
    },
    TimeRule(name: "fallocate", modified: true, changed: true, directory: false) { c in
        let handle = try c.open("f")
        try c.fs.allocate(handle, 0, 0, 10_000)
        try c.close(handle)
    },
    TimeRule(name: "punching a hole", modified: true, changed: true, directory: false) { c in
        let handle = try c.open("f")
        try c.fs.allocate(handle, FallocateMode.punchHole | FallocateMode.keepSize, 0, 4_096)
        try c.close(handle)
    },
    TimeRule(name: "mkdir", modified: false, changed: false, directory: true) { c in try c.mkdir("d") },
    TimeRule(name: "rmdir", modified: false, changed: false, directory: true) { c in try c.fs.rmdir(c.path("empty")) },
    TimeRule(name: "symlink", modified: false, changed: false, directory: true) { c in try c.fs.symlink("x", c.path("l")) },
    TimeRule(name: "mknod", modified: false, changed: false, directory: true) { c in
        try c.fs.mknod(c.path("p"), FileType.fifo | 0o600, (0, 0))
    },
    TimeRule(name: "creating", modified: false, changed: false, directory: true) { c in try c.file("new") },
    TimeRule(name: "opening with O_CREAT what is there", modified: false, changed: false, directory: false) { c in
        try c.close(try c.open("f", O_RDWR | O_CREAT))
    },
    TimeRule(name: "work below a subdirectory", modified: false, changed: false, directory: false) { c in
        try c.file("sub/x")
        try c.fs.unlink(c.path("sub/x"))
    },
]

let timeCases: [ContractCase] = timeRules.map { rule in
    ContractCase("times", rule.name, needs: rule.needs) { c in
        try c.file("f", "abc")
        try c.fs.link(c.path("f"), c.path("f2"))
        try c.mkdir("sub")
        try c.mkdir("empty")
        c.fs.letTimePass()
        let file = try c.status("f"), directory = try c.fs.status(c.base)
        try rule.run(c)
        let fileAfter = try c.status("f"), directoryAfter = try c.fs.status(c.base)
        c.equal(fileAfter.modified != file.modified, rule.modified, "st_mtime of the file changes")
        c.equal(fileAfter.changed != file.changed, rule.changed, "st_ctime of the file changes")
        c.expect(fileAfter.changed >= file.changed, "st_ctime goes back")
        c.equal(directoryAfter.modified != directory.modified, rule.directory, "st_mtime of the directory changes")
        c.equal(directoryAfter.changed != directory.changed, rule.directory, "st_ctime of the directory changes")
    }
} + [
    ContractCase("times", "a new file's are the present, and equal") { c in
        try c.file("f")
        let status = try c.status("f")
        c.equal(status.modified, status.changed)
        c.expect(abs(status.accessed - status.modified) < 1_000_000_000)
        c.fs.letTimePass()
        try c.file("g")
        c.expect(try c.status("g").modified > status.modified)
    },
    ContractCase("times", "are set to the nanosecond, before 1970 and after 2038 too") { c in
        try c.file("f")
        for time: Int64 in [0, 1, 1_234_567_890_123_456_789, 4_000_000_000_999_999_999, -1_000_000_000, -1_500_000_000] {
            try c.fs.setTimes(c.path("f"), .at(time), .at(time + 7))
            let status = try c.status("f")
            c.equal(status.accessed, time)
            c.equal(status.modified, time + 7)
        }
    },
    ContractCase("times", "can be set on directories, fifos and links") { c in
        try c.mkdir("d")
        try c.fs.mknod(c.path("p"), FileType.fifo | 0o600, (0, 0))
        try c.fs.symlink("x", c.path("l"))
        for name in ["d", "p", "l"] {
            try c.fs.setTimes(c.path(name), accessed: .at(1_000_000_000), modified: .at(2_000_000_000), follow: false)
            c.equal(try c.lstatus(name).modified, 2_000_000_000, name)
            c.equal(try c.lstatus(name).accessed, 1_000_000_000, name)
        }
    },
    ContractCase("times", "given ones are for the owner, the present for who may write", needs: .users) { c in
        try c.file("writable")
        try c.fs.chmod(c.path("writable"), 0o666)
        try c.file("readable")
        c.acting(.alice) {
            c.fails(EPERM) { try c.fs.setTimes(c.path("writable"), .at(1), .at(1)) }
            c.fails(EPERM) { try c.fs.setTimes(c.path("writable"), .now, .omit) }
            c.equal(c.outcome { try c.fs.setTimes(c.path("writable"), .now, .now) }, 0)
            c.fails(EACCES) { try c.fs.setTimes(c.path("readable"), .now, .now) }
            c.fails(EPERM) { try c.fs.setTimes(c.path("readable"), .at(1), .now) }
            c.equal(c.outcome { try c.fs.setTimes(c.path("readable"), .omit, .omit) }, 0)
        }
    },
    ContractCase("times", "reading sets the time of access", needs: .exactAccessTime) { c in
        try c.file("f", "abc")
        c.fs.letTimePass()
        let before = try c.status("f")
        _ = try c.text("f")
        c.expect(try c.status("f").accessed > before.accessed)
        c.fs.letTimePass()
        let between = try c.status("f")
        let handle = try c.open("f", O_RDONLY | OpenFlags.noAccessTime)
        _ = try c.fs.contents(handle)
        c.equal(try c.status("f").accessed, between.accessed)
    },
    ContractCase("times", "a write seen through one name is seen through all") { c in
        try c.file("f", "abc")
        try c.fs.link(c.path("f"), c.path("g"))
        c.fs.letTimePass()
        let before = try c.status("g")
        let handle = try c.open("f")
        _ = try c.fs.pwrite(handle, [1], at: 0)
        c.expect(try c.status("g").modified > before.modified)
        c.equal(try c.fs.status(handle), try c.status("g"))
    },
]
