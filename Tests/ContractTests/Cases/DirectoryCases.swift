// Listings, large and deep directories, and changes while listing.

import Glibc
import Testing

let directoryCases: [ContractCase] = [
    ContractCase("directory", "a listing tells names, inodes and types") { c in
        try c.mkdir("d")
        for kind in Kind.allCases where kind != .none { try kind.make("d/\(kind)", c) }
        let entries = try c.fs.list(c.path("d"))
        for kind in Kind.allCases where kind != .none {
            guard let entry = entries.first(where: { $0.name == "\(kind)" }) else {
                c.expect(false, "\(kind) is listed")
                continue
            }
            c.equal(entry.type, UInt8(kind.type >> 12), "\(kind)")
            c.equal(entry.inode, try c.lstatus("d/\(kind)").inode, "\(kind)")
        }
    },
    ContractCase("directory", "ten thousand entries are listed once each") { c in
        try c.mkdir("d")
        for number in 0..<10_000 { try c.fs.close(try c.fs.open(c.path("d/file-\(number)"), O_WRONLY | O_CREAT | O_EXCL, 0o644)) }
        let names = try c.names("d")
        c.equal(names.count, 10_000)
        c.equal(Set(names).count, 10_000)
        c.expect(c.exists("d/file-9999") && !c.exists("d/file-10000"))
        for number in stride(from: 0, to: 10_000, by: 2) { try c.fs.unlink(c.path("d/file-\(number)")) }
        c.equal(try c.names("d").count, 5_000)
        c.fails(ENOTEMPTY) { try c.fs.rmdir(c.path("d")) }
        for number in stride(from: 1, to: 10_000, by: 2) { try c.fs.unlink(c.path("d/file-\(number)")) }
        c.equal(try c.names("d"), [])
        try c.fs.rmdir(c.path("d"))
    },
    ContractCase("directory", "names of 255 bytes, a thousand of them") { c in
        try c.mkdir("d")
        let names = (0..<1_000).map { String(repeating: "x", count: 250) + String(format5($0)) }
        for name in names { try c.file("d/" + name) }
        c.equal(try c.names("d"), names.sorted())
    },
    ContractCase("directory", "a listing in small parts is whole when nothing changes") { c in
        try c.mkdir("d")
        for number in 0..<300 { try c.file("d/f\(number)") }
        let handle = try c.open("d", O_RDONLY | O_DIRECTORY)
        var names: [String] = []
        while true {
            let part = try c.fs.nextEntries(handle, 7)
            if part.isEmpty { break }
            names += part.map(\.name)
        }
        c.equal(names.count, 300)
        c.equal(Set(names).count, 300)
    },
    ContractCase("directory", "what stays is listed once while others come and go") { c in
        try c.mkdir("d")
        // Enough that a listing takes many reads of 32 KiB by the kernel interface.
        for number in 0..<3_000 { try c.file("d/stays-\(number)") }
        for number in 0..<3_000 { try c.file("d/goes-\(number)") }
        let handle = try c.open("d", O_RDONLY | O_DIRECTORY)
        var seen: [String: Int] = [:]
        var turn = 0
        while true {
            let part = try c.fs.nextEntries(handle, 200)
            if part.isEmpty { break }
            for entry in part { seen[entry.name, default: 0] += 1 }
            for number in turn * 60..<turn * 60 + 60 where number < 3_000 { _ = c.outcome { try c.fs.unlink(c.path("d/goes-\(number)")) } }
            for number in 0..<20 { try c.file("d/comes-\(turn)-\(number)") }
            turn += 1
            if turn > 200 { break }
        }
        for number in 0..<3_000 {
            c.expect(seen["stays-\(number)"] == 1, "stays-\(number) is listed \(seen["stays-\(number)"] ?? 0) times")
        }
        c.expect(seen.values.allSatisfy { $0 == 1 }, "nothing is listed twice")
    },
    ContractCase("directory", "removing what is listed, as rm -r does, empties it") { c in
        try c.mkdir("d")
        for number in 0..<2_500 { try c.file("d/f\(number)") }
        let handle = try c.open("d", O_RDONLY | O_DIRECTORY)
        while true {
            let part = try c.fs.nextEntries(handle, 100)
            if part.isEmpty { break }
            for entry in part { try c.fs.unlink(c.path("d/" + entry.name)) }
        }
        try c.fs.rmdir(c.path("d"))
    },
    ContractCase("directory", "a hundred levels deep") { c in
        var deep = ""
        for level in 0..<100 {
            deep += level == 0 ? "d" : "/d"
            try c.mkdir(deep)
        }
        try c.file(deep + "/bottom", "deep")
        c.equal(try c.text(deep + "/bottom"), "deep")
        c.equal(try c.status(deep + String(repeating: "/..", count: 100)).inode, try c.fs.status(c.base).inode)
    },
    ContractCase("directory", "a thousand directories, each with a file") { c in
        for number in 0..<1_000 {
            try c.mkdir("d\(number)")
            try c.file("d\(number)/f", "\(number)")
        }
        c.equal(try c.fs.status(c.base).links, 1_002)
        for number in stride(from: 0, to: 1_000, by: 37) { c.equal(try c.text("d\(number)/f"), "\(number)") }
    },
    ContractCase("directory", "nextEntries of a file is ENOTDIR") { c in
        try c.file("f")
        c.fails(ENOTDIR) { _ = try c.open("f", O_RDONLY | O_DIRECTORY) }
    },
    ContractCase("directory", "listing needs read permission only", needs: .users) { c in
        try c.mkdir("d", 0o744)
        try c.file("d/f")
        try c.acting(.alice) {
            c.equal(try c.names("d"), ["f"])
            c.fails(EACCES) { _ = try c.status("d/f") }
        }
    },
    ContractCase("directory", "the same name again and again") { c in
        try c.mkdir("d")
        for number in 0..<500 {
            try c.file("d/f", "\(number)")
            if number % 3 == 0 { try c.fs.rename(c.path("d/f"), c.path("d/g")) }
            if number % 3 == 1 { try c.fs.unlink(c.path("d/f")) }
        }
        c.equal(try c.names("d"), ["g"])
    },
]

private func format5(_ number: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: 5 - digits.count) + digits
}
