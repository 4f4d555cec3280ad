// Who may: mode bits by class of user, chmod, chown, access; and the bits that are taken away.

import Glibc
import Testing

private struct Class: Sendable {
    let name: String
    let user: User
    let shift: UInt32
    var needs: Features = .users
}
private let classes = [
    Class(name: "owner", user: .alice, shift: 6),
    Class(name: "group", user: User(uid: 2_005, gid: 3_001), shift: 3),
    Class(name: "supplementary group", user: User(uid: 2_005, gid: 9, groups: [7, 3_001]), shift: 3, needs: [.users, .groups]),
    Class(name: "other", user: .bob, shift: 0),
]

let permissionCases: [ContractCase] =
    classes.flatMap { who in
        (UInt32(0)...7).map { bits in
            ContractCase("permission", "\(who.name) with bits \(bits)", needs: who.needs) { c in
                // All classes but this one have everything: only its own bits may count.
                let mode = 0o777 & ~(7 << who.shift) | bits << who.shift
                try c.file("f", "x")
                try c.fs.chown(c.path("f"), User.alice.uid, User.alice.gid)
                try c.fs.chmod(c.path("f"), mode)
                try c.mkdir("d")
                try c.file("d/f", "x")
                try c.fs.chmod(c.path("d/f"), 0o666)
                try c.fs.chown(c.path("d"), User.alice.uid, User.alice.gid)
                try c.fs.chmod(c.path("d"), mode)
                c.acting(who.user) {
                    let reads: Int32 = bits & 4 != 0 ? 0 : EACCES, writes: Int32 = bits & 2 != 0 ? 0 : EACCES
                    let searches: Int32 = bits & 1 != 0 ? 0 : EACCES
                    c.equal(c.outcome { try c.fs.close(try c.fs.open(c.path("f"), O_RDONLY, 0)) }, reads, "reading")
                    c.equal(c.outcome { try c.fs.close(try c.fs.open(c.path("f"), O_WRONLY, 0)) }, writes, "writing")
                    c.equal(c.outcome { try c.fs.close(try c.fs.open(c.path("f"), O_RDWR, 0)) }, max(reads, writes), "both")
                    c.equal(c.outcome { try c.fs.truncate(c.path("f"), 1) }, writes, "truncate")
                    c.equal(c.outcome { try c.fs.access(c.path("f"), R_OK) }, reads, "access R_OK")
                    c.equal(c.outcome { try c.fs.access(c.path("f"), W_OK) }, writes, "access W_OK")
                    c.equal(c.outcome { try c.fs.access(c.path("f"), X_OK) }, searches, "access X_OK")
                    c.equal(c.outcome { _ = try c.fs.list(c.path("d")) }, reads, "listing")
                    c.equal(c.outcome { _ = try c.fs.status(c.path("d/f")) }, searches, "search")
                    c.equal(c.outcome { _ = try c.fs.contents(c.path("d/f")) }, searches, "reading below")
                    let changes: Int32 = bits & 3 == 3 ? 0 : EACCES
                    c.equal(c.outcome { try c.fs.mkdir(c.path("d/new"), 0o755) }, changes, "mkdir below")
                    c.equal(c.outcome { try c.fs.rename(c.path("d/f"), c.path("d/g")) }, changes, "rename below")
                    c.equal(
                        c.outcome { try c.fs.unlink(c.path("d/g")) }, searches != 0 ? EACCES : changes != 0 ? ENOENT : 0, "unlink below")
                }
            }
        }
    } + [
        ContractCase("permission", "root reads and writes everything, and runs what anyone may run") { c in
            try c.file("f", "x", mode: 0o000)
            c.equal(try c.text("f"), "x")
            try c.fs.access(c.path("f"), R_OK | W_OK)
            c.fails(EACCES) { try c.fs.access(c.path("f"), X_OK) }
            try c.fs.chmod(c.path("f"), 0o001)
            try c.fs.access(c.path("f"), X_OK)
            try c.mkdir("d", 0o000)
            try c.file("d/f")
            try c.fs.access(c.path("d"), R_OK | W_OK | X_OK)
        },
        ContractCase("permission", "chmod sets all twelve bits and keeps the type") { c in
            try c.file("f")
            try c.mkdir("d")
            for mode: UInt32 in [0, 0o777, 0o4711, 0o2711, 0o1777, 0o6755, 0o7777, 0o644] {
                try c.fs.chmod(c.path("f"), mode)
                c.equal(try c.status("f").mode, FileType.regular | mode)
                try c.fs.chmod(c.path("d"), mode)
                c.equal(try c.status("d").mode, FileType.directory | mode)
            }
        },
        ContractCase("permission", "chmod is for the owner and root", needs: .users) { c in
            try c.acting(.alice) { try c.file("f", mode: 0o666) }
            c.acting(.bob) { c.fails(EPERM) { try c.fs.chmod(c.path("f"), 0o600) } }
            try c.acting(.alice) { try c.fs.chmod(c.path("f"), 0o600) }
            c.equal(try c.status("f").permissions, 0o600)
        },
        ContractCase("permission", "chmod by a descriptor") { c in
            let handle = try c.open("f", O_RDWR | O_CREAT)
            try c.fs.chmod(handle, 0o751)
            c.equal(try c.status("f").permissions, 0o751)
        },
        ContractCase("permission", "chmod through a symbolic link changes its target") { c in
            try c.file("f")
            try c.fs.symlink("f", c.path("l"))
            try c.fs.chmod(c.path("l"), 0o700)
            c.equal(try c.status("f").permissions, 0o700)
        },
        ContractCase("permission", "chmod loses setgid for who is not in the group", needs: .users) { c in
            try c.file("f")
            try c.fs.chown(c.path("f"), User.alice.uid, 5_000)
            try c.acting(.alice) { try c.fs.chmod(c.path("f"), 0o2755) }
            c.equal(try c.status("f").permissions, 0o755)
            try c.fs.chmod(c.path("f"), 0o2755)
            c.equal(try c.status("f").permissions, 0o2755)
        },
        ContractCase("permission", "chmod keeps setgid for a supplementary group", needs: [.users, .groups]) { c in
            try c.file("f")
            try c.fs.chown(c.path("f"), User.alice.uid, 5_000)
            try c.acting(User(uid: User.alice.uid, gid: 1, groups: [5_000])) { try c.fs.chmod(c.path("f"), 0o2755) }
            c.equal(try c.status("f").permissions, 0o2755)
        },
        ContractCase("permission", "chown by root sets owner, group, or both") { c in
            try c.file("f")
            try c.fs.chown(c.path("f"), 11, 12)
            try c.fs.chown(c.path("f"), .max, 13)
            c.equal([try c.status("f").uid, try c.status("f").gid], [11, 13])
            try c.fs.chown(c.path("f"), 14, .max)
            c.equal([try c.status("f").uid, try c.status("f").gid], [14, 13])
            try c.fs.chown(c.path("f"), .max, .max)
            c.equal([try c.status("f").uid, try c.status("f").gid], [14, 13])
            try c.fs.chown(c.path("f"), 4_294_967_294, 4_294_967_294)
            c.equal([try c.status("f").uid, try c.status("f").gid], [4_294_967_294, 4_294_967_294])
        },
        ContractCase("permission", "chown of the owner by a user is EPERM", needs: .users) { c in
            try c.acting(.alice) {
                try c.file("f")
                c.fails(EPERM) { try c.fs.chown(c.path("f"), User.bob.uid, .max) }
                c.fails(EPERM) { try c.fs.chown(c.path("f"), 0, 0) }
                c.equal(c.outcome { try c.fs.chown(c.path("f"), User.alice.uid, .max) }, 0)
                c.equal(c.outcome { try c.fs.chown(c.path("f"), .max, User.alice.gid) }, 0)
                c.fails(EPERM) { try c.fs.chown(c.path("f"), .max, User.bob.gid) }
            }
            c.acting(.bob) { c.fails(EPERM) { try c.fs.chown(c.path("f"), User.bob.uid, .max) } }
        },
        ContractCase("permission", "the owner may give the group to one of its own", needs: [.users, .groups]) { c in
            try c.acting(User(uid: 2_001, gid: 3_001, groups: [4_000])) {
                try c.file("f")
                try c.fs.chown(c.path("f"), .max, 4_000)
                c.fails(EPERM) { try c.fs.chown(c.path("f"), .max, 4_001) }
            }
            c.equal(try c.status("f").gid, 4_000)
        },
        ContractCase("permission", "a descriptor keeps its rights when the mode changes", needs: [.users, .handlesKeepRights]) { c in
            try c.acting(.alice) {
                try c.file("f", "x")
                let handle = try c.open("f")
                try c.fs.chmod(c.path("f"), 0o000)
                c.equal(try c.fs.pread(handle, 1, at: 0), Array("x".utf8))
                c.equal(try c.fs.pwrite(handle, [65], at: 0), 1)
            }
        },
        ContractCase("permission", "a descriptor does only what it was opened for") { c in
            try c.file("f", "x")
            let reader = try c.open("f", O_RDONLY), writer = try c.open("f", O_WRONLY)
            c.fails(EBADF) { _ = try c.fs.pwrite(reader, [1], at: 0) }
            c.fails(EBADF) { _ = try c.fs.pread(writer, 1, at: 0) }
            c.fails(EINVAL) { try c.fs.truncate(reader, 0) }
            c.fails(EBADF) { try c.fs.allocate(reader, 0, 0, 10) }
        },
    ]

let privilegeCases: [ContractCase] = [
    ContractCase("privilege", "a user's write drops setuid and setgid", needs: .users) { c in
        try c.file("f", "x")
        try c.fs.chmod(c.path("f"), 0o6777)
        try c.acting(.alice) {
            let handle = try c.open("f", O_WRONLY)
            _ = try c.fs.pwrite(handle, [1], at: 0)
        }
        c.equal(try c.status("f").permissions, 0o777)
    },
    ContractCase("privilege", "root's write keeps them") { c in
        try c.file("f", "x")
        try c.fs.chmod(c.path("f"), 0o6777)
        let handle = try c.open("f", O_WRONLY)
        _ = try c.fs.pwrite(handle, [1], at: 0)
        c.equal(try c.status("f").permissions, 0o6777)
    },
    ContractCase("privilege", "a user's truncate drops setuid and setgid", needs: .users) { c in
        for (name, truncate) in [("by path", true), ("by descriptor", false)] {
            try c.file(name, "xyz")
            try c.fs.chmod(c.path(name), 0o6777)
            try c.acting(.alice) {
                if truncate {
                    try c.fs.truncate(c.path(name), 1)
                } else {
                    let handle = try c.open(name)
                    try c.fs.truncate(handle, 1)
                }
            }
            c.equal(try c.status(name).permissions, 0o777, name)
        }
    },
    ContractCase("privilege", "open with O_TRUNC drops setuid and setgid", needs: .users) { c in
        try c.file("f", "xyz")
        try c.fs.chmod(c.path("f"), 0o6777)
        try c.acting(.alice) { _ = try c.open("f", O_WRONLY | O_TRUNC) }
        c.equal(try c.status("f").permissions, 0o777)
        c.equal(try c.status("f").size, 0)
    },
    ContractCase("privilege", "chown drops setuid and setgid of a program, also by root") { c in
        try c.file("f")
        try c.fs.chmod(c.path("f"), 0o6755)
        try c.fs.chown(c.path("f"), 10, 20)
        c.equal(try c.status("f").permissions, 0o755)
    },
    ContractCase("privilege", "chown keeps setgid without group execution, and all bits of directories") { c in
        try c.file("f")
        try c.fs.chmod(c.path("f"), 0o2744)
        try c.fs.chown(c.path("f"), 10, 20)
        c.equal(try c.status("f").permissions, 0o2744)
        try c.mkdir("d")
        try c.fs.chmod(c.path("d"), 0o6755)
        try c.fs.chown(c.path("d"), 10, 20)
        c.equal(try c.status("d").permissions, 0o6755)
    },
    ContractCase("privilege", "O_NOATIME is for owners", needs: .users) { c in
        try c.file("f", mode: 0o666)
        c.acting(.alice) { c.fails(EPERM) { _ = try c.open("f", O_RDONLY | OpenFlags.noAccessTime) } }
        _ = try c.open("f", O_RDONLY | OpenFlags.noAccessTime)
    },
]
