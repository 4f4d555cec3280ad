// Reading, writing, appending, truncating, seeking, copying.

import Glibc
import Testing

/// A byte pattern in which every place differs from its neighbours, of any period but a power of two.
func pattern(_ count: Int, _ seed: Int = 0) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) % 251) } }

private let sizes = [1, 2, 511, 4_095, 4_096, 4_097, 8_192, 65_535, 65_536, 131_073, 1 << 20, 1 << 20 + 1, 3 << 20 + 777]

let dataCases: [ContractCase] =
    sizes.map { size in
        ContractCase("data", "a file of \(size) bytes is read back whole and in parts") { c in
            let bytes = pattern(size)
            try c.fs.store(c.path("f"), bytes)
            c.equal(try c.status("f").size, UInt64(size))
            c.expect(try c.fs.contents(c.path("f")) == bytes, "contents are right")
            let handle = try c.open("f", O_RDONLY)
            for (offset, count) in [(0, 1), (size - 1, 10), (size / 2, 5_000), (size / 3, 4_096), (size, 1), (size + 100_000, 1)] {
                let wanted = offset < size ? Array(bytes[offset..<min(size, offset + count)]) : []
                c.expect(try c.fs.pread(handle, count, at: UInt64(offset)) == wanted, "part at \(offset)")
            }
        }
    } + sizes.map { size in
        ContractCase("data", "truncation of \(size) bytes to less and back shows zeros") { c in
            let bytes = pattern(size, 3)
            try c.fs.store(c.path("f"), bytes)
            for cut in Set([size - 1, size / 2, size / 3, 1, 0]).sorted(by: >) where cut < size {
                try c.fs.truncate(c.path("f"), Int64(cut))
                c.equal(try c.status("f").size, UInt64(cut))
                try c.fs.truncate(c.path("f"), Int64(size))
                let wanted = Array(bytes[..<cut]) + [UInt8](repeating: 0, count: size - cut)
                c.expect(try c.fs.contents(c.path("f")) == wanted, "after a cut at \(cut)")
            }
        }
    } + [
        ContractCase("data", "the offset moves with reads and writes") { c in
            let handle = try c.open("f", O_RDWR | O_CREAT)
            c.equal(try c.fs.write(handle, Array("hello ".utf8)), 6)
            c.equal(try c.fs.write(handle, Array("world".utf8)), 5)
            c.equal(try c.fs.seek(handle, 0, SEEK_CUR), 11)
            c.equal(try c.fs.seek(handle, -5, SEEK_END), 6)
            c.equal(try c.fs.read(handle, 3), Array("wor".utf8))
            c.equal(try c.fs.read(handle, 30), Array("ld".utf8))
            c.equal(try c.fs.read(handle, 30), [])
            c.equal(try c.fs.pread(handle, 5, at: 0), Array("hello".utf8))
            c.equal(try c.fs.seek(handle, 0, SEEK_CUR), 11)
            c.fails(EINVAL) { _ = try c.fs.seek(handle, -1, SEEK_SET) }
            c.fails(EINVAL) { _ = try c.fs.seek(handle, -100, SEEK_CUR) }
            c.fails(EINVAL) { _ = try c.fs.seek(handle, 0, 99) }
            c.equal(try c.fs.seek(handle, 1_000, SEEK_SET), 1_000)
            c.equal(try c.fs.read(handle, 1), [])
        },
        ContractCase("data", "a write past the end leaves zeros between") { c in
            for gap in [1, 4_095, 4_096, 4_097, 70_000, 1 << 20] {
                let handle = try c.open("f\(gap)", O_RDWR | O_CREAT)
                _ = try c.fs.write(handle, [1, 2, 3])
                _ = try c.fs.pwrite(handle, [9], at: UInt64(3 + gap))
                c.expect(try c.fs.contents(handle) == [1, 2, 3] + [UInt8](repeating: 0, count: gap) + [9], "gap of \(gap)")
            }
        },
        ContractCase("data", "writes that overlap pages leave their neighbours alone") { c in
            var bytes = pattern(20_000)
            try c.fs.store(c.path("f"), bytes)
            let handle = try c.open("f")
            for (offset, count) in [(0, 1), (4_090, 12), (4_096, 4_096), (8_191, 2), (12_000, 5_000), (19_999, 1)] {
                let new = [UInt8](repeating: 0xff, count: count)
                c.equal(try c.fs.pwrite(handle, new, at: UInt64(offset)), count)
                bytes.replaceSubrange(offset..<offset + count, with: new)
                c.expect(try c.fs.contents(handle) == bytes, "after a write at \(offset)")
            }
        },
        ContractCase("data", "O_APPEND writes at the end wherever the offset is") { c in
            try c.file("f", "start ")
            let one = try c.open("f", O_RDWR | O_APPEND), two = try c.open("f", O_WRONLY | O_APPEND)
            _ = try c.fs.seek(one, 0, SEEK_SET)
            c.equal(try c.fs.write(one, Array("one ".utf8)), 4)
            c.equal(try c.fs.write(two, Array("two ".utf8)), 4)
            c.equal(try c.fs.write(one, Array("one".utf8)), 3)
            c.equal(try c.fs.seek(one, 0, SEEK_CUR), 17)
            c.equal(try c.text("f"), "start one two one")
            // Linux appends with pwrite as well (pwrite(2), BUGS).
            c.equal(try c.fs.pwrite(one, Array("!".utf8), at: 0), 1)
            c.equal(try c.text("f"), "start one two one!")
        },
        ContractCase("data", "O_TRUNC empties, and keeps the inode") { c in
            try c.fs.store(c.path("f"), pattern(10_000))
            let before = try c.status("f")
            let handle = try c.open("f", O_RDWR | O_TRUNC)
            c.equal(try c.fs.status(handle).size, 0)
            c.equal(try c.fs.status(handle).inode, before.inode)
            c.equal(try c.fs.contents(handle), [])
        },
        ContractCase("data", "two descriptors see each other's writes") { c in
            let one = try c.open("f", O_RDWR | O_CREAT), two = try c.open("f")
            _ = try c.fs.pwrite(one, Array("abc".utf8), at: 0)
            c.equal(try c.fs.pread(two, 10, at: 0), Array("abc".utf8))
            try c.fs.truncate(two, 1)
            c.equal(try c.fs.pread(one, 10, at: 0), Array("a".utf8))
            _ = try c.fs.pwrite(two, Array("z".utf8), at: 5)
            c.equal(try c.fs.pread(one, 10, at: 0), [97, 0, 0, 0, 0, 122])
        },
        ContractCase("data", "truncate errors") { c in
            try c.mkdir("d")
            try c.fs.mknod(c.path("p"), FileType.fifo | 0o600, (0, 0))
            try c.file("f")
            c.fails(EISDIR) { try c.fs.truncate(c.path("d"), 0) }
            c.fails(EINVAL) { try c.fs.truncate(c.path("f"), -1) }
            c.fails(EINVAL) { try c.fs.truncate(c.path("p"), 0) }
            let handle = try c.open("f")
            c.fails(EINVAL) { try c.fs.truncate(handle, -1) }
        },
        ContractCase("data", "reading a directory is EISDIR") { c in
            try c.mkdir("d")
            let handle = try c.open("d", O_RDONLY)
            c.fails(EISDIR) { _ = try c.fs.pread(handle, 10, at: 0) }
            c.fails(EISDIR) { _ = try c.open("d", O_WRONLY) }
            c.fails(EISDIR) { _ = try c.open("d", O_RDWR) }
        },
        ContractCase("data", "reading and writing nothing is 0") { c in
            let handle = try c.open("f", O_RDWR | O_CREAT)
            c.equal(try c.fs.pwrite(handle, [], at: 100), 0)
            c.equal(try c.status("f").size, 0)
            c.equal(try c.fs.pread(handle, 0, at: 0), [])
        },
        ContractCase("data", "fsync of files and directories") { c in
            let handle = try c.open("f", O_RDWR | O_CREAT)
            _ = try c.fs.write(handle, [1])
            try c.fs.sync(handle)
            try c.mkdir("d")
            try c.fs.sync(try c.open("d", O_RDONLY))
        },
        ContractCase("data", "copy_file_range copies what is there") { c in
            let bytes = pattern(300_000)
            try c.fs.store(c.path("from"), bytes)
            let from = try c.open("from", O_RDONLY), to = try c.open("to", O_RDWR | O_CREAT)
            var done = 0
            while done < 200_000 {
                let part = try c.fs.copyRange(from, Int64(50 + done), to, Int64(done), 200_000 - done)
                guard part > 0 else { break }
                done += part
            }
            c.equal(done, 200_000)
            c.expect(try c.fs.contents(to) == Array(bytes[50..<200_050]), "the copy is right")
            c.equal(try c.fs.copyRange(from, 300_000, to, 0, 10), 0)
            c.equal(try c.fs.copyRange(from, 299_990, to, 0, 100), 10)
            c.expect(try c.fs.contents(to).prefix(10) == bytes.suffix(10), "the last part is right")
        },
        ContractCase("data", "copy_file_range between directories of other servers") { c in
            for number in 0..<6 { try c.mkdir("d\(number)") }
            let bytes = pattern(70_000, 5)
            try c.fs.store(c.path("d0/f"), bytes)
            for number in 1..<6 {
                let from = try c.open("d\(number - 1)/f", O_RDONLY), to = try c.open("d\(number)/f", O_RDWR | O_CREAT)
                var done = 0
                while true {
                    let part = try c.fs.copyRange(from, Int64(done), to, Int64(done), 1 << 20)
                    if part == 0 { break }
                    done += part
                }
                c.equal(done, 70_000)
            }
            c.expect(try c.fs.contents(c.path("d5/f")) == bytes, "the copy is right")
        },
        ContractCase("data", "copy_file_range of files that are all hole") { c in
            for number in 0..<6 { try c.mkdir("d\(number)") }
            let source = try c.open("d0/f", O_RDWR | O_CREAT)
            try c.fs.truncate(source, 50_000)
            for number in 0..<6 {
                let to = try c.open("d\(number)/g", O_RDWR | O_CREAT)
                c.equal(try c.fs.copyRange(source, 0, to, 0, 30_000), 30_000)
                c.equal(try c.fs.copyRange(source, 30_000, to, 30_000, 30_000), 20_000)
                c.expect(try c.fs.contents(to) == [UInt8](repeating: 0, count: 50_000), "the copy is right")
            }
        },
        ContractCase("data", "copy_file_range within a file, apart and overlapping") { c in
            try c.fs.store(c.path("f"), pattern(10_000))
            let handle = try c.open("f")
            c.equal(try c.fs.copyRange(handle, 0, handle, 10_000, 1_000), 1_000)
            c.equal(try c.fs.contents(handle), pattern(10_000) + pattern(1_000))
            c.fails(EINVAL) { _ = try c.fs.copyRange(handle, 0, handle, 500, 1_000) }
            // What would overlap lies beyond the end of the source: there is nothing to copy there.
            c.equal(try c.fs.copyRange(handle, 11_000, handle, 15_000, 10_000), 0)
        },
        ContractCase("data", "copy_file_range errors") { c in
            try c.file("f", "abc")
            try c.mkdir("d")
            let reader = try c.open("f", O_RDONLY), writer = try c.open("g", O_WRONLY | O_CREAT),
                appender = try c.open("h", O_WRONLY | O_APPEND | O_CREAT)
            let directory = try c.open("d", O_RDONLY)
            c.fails(EBADF) { _ = try c.fs.copyRange(writer, 0, writer, 100, 10) }
            c.fails(EBADF) { _ = try c.fs.copyRange(reader, 0, reader, 100, 10) }
            c.fails(EBADF) { _ = try c.fs.copyRange(reader, 0, appender, 0, 10) }
            c.fails(EISDIR) { _ = try c.fs.copyRange(directory, 0, writer, 0, 10) }
        },
        ContractCase("data", "ten thousand small writes make one file") { c in
            let handle = try c.open("f", O_RDWR | O_CREAT)
            for number in 0..<10_000 { _ = try c.fs.write(handle, [UInt8(number & 0xff), UInt8(number >> 8)]) }
            let bytes = try c.fs.contents(handle)
            c.equal(bytes.count, 20_000)
            var wanted: [UInt8] = []
            for number in 0..<10_000 { wanted += [UInt8(number & 0xff), UInt8(number >> 8)] }
            c.expect(bytes == wanted, "contents are right")
        },
    ]

let holeCases: [ContractCase] = [
    ContractCase("holes", "a file far larger than memory holds only what was written", needs: .pageBlocks) { c in
        let handle = try c.open("f", O_RDWR | O_CREAT)
        _ = try c.fs.pwrite(handle, [1], at: 1 << 40)
        let status = try c.fs.status(handle)
        c.equal(status.size, 1 << 40 + 1)
        c.equal(status.blocks, 8)
        c.equal(try c.fs.pread(handle, 10, at: 1 << 40 - 5), [0, 0, 0, 0, 0, 1])
        c.equal(try c.fs.pread(handle, 10, at: 1 << 39), [UInt8](repeating: 0, count: 10))
        try c.fs.truncate(handle, 0)
        c.equal(try c.fs.status(handle).blocks, 0)
    },
    ContractCase("holes", "SEEK_DATA and SEEK_HOLE find them") { c in
        let handle = try c.open("f", O_RDWR | O_CREAT)
        try c.fs.truncate(handle, 1 << 20)
        _ = try c.fs.pwrite(handle, pattern(4_096), at: 65_536)
        _ = try c.fs.pwrite(handle, pattern(4_096), at: 262_144)
        c.equal(try c.fs.seek(handle, 0, Seek.hole), 0)
        c.equal(try c.fs.seek(handle, 0, Seek.data), 65_536)
        c.equal(try c.fs.seek(handle, 65_536, Seek.data), 65_536)
        c.equal(try c.fs.seek(handle, 65_600, Seek.data), 65_600)
        c.equal(try c.fs.seek(handle, 65_536, Seek.hole), 69_632)
        c.equal(try c.fs.seek(handle, 69_632, Seek.data), 262_144)
        c.fails(ENXIO) { _ = try c.fs.seek(handle, 266_240, Seek.data) }
        c.equal(try c.fs.seek(handle, 266_240, Seek.hole), 266_240)
        c.fails(ENXIO) { _ = try c.fs.seek(handle, 1 << 20, Seek.data) }
        c.fails(ENXIO) { _ = try c.fs.seek(handle, 1 << 20, Seek.hole) }
        c.fails(ENXIO) { _ = try c.fs.seek(handle, -1, Seek.data) }
        c.fails(ENXIO) { _ = try c.fs.seek(handle, -1, Seek.hole) }
    },
    ContractCase("holes", "the end of a full file is a hole") { c in
        try c.fs.store(c.path("f"), pattern(5_000))
        let handle = try c.open("f")
        c.equal(try c.fs.seek(handle, 0, Seek.hole), 5_000)
        c.equal(try c.fs.seek(handle, 4_999, Seek.hole), 5_000)
        c.equal(try c.fs.seek(handle, 4_999, Seek.data), 4_999)
        c.fails(ENXIO) { _ = try c.fs.seek(handle, 5_000, Seek.hole) }
        try c.file("empty")
        let empty = try c.open("empty")
        c.fails(ENXIO) { _ = try c.fs.seek(empty, 0, Seek.data) }
        c.fails(ENXIO) { _ = try c.fs.seek(empty, 0, Seek.hole) }
    },
    ContractCase("holes", "fallocate grows a file with zeros") { c in
        try c.fs.store(c.path("f"), pattern(100))
        let handle = try c.open("f")
        try c.fs.allocate(handle, 0, 50, 10_000)
        c.equal(try c.fs.status(handle).size, 10_050)
        c.expect(try c.fs.contents(handle) == pattern(100) + [UInt8](repeating: 0, count: 9_950))
        try c.fs.allocate(handle, 0, 0, 100)
        c.equal(try c.fs.status(handle).size, 10_050)
    },
    ContractCase("holes", "fallocate with KEEP_SIZE does not") { c in
        let handle = try c.open("f", O_RDWR | O_CREAT)
        try c.fs.allocate(handle, FallocateMode.keepSize, 0, 100_000)
        c.equal(try c.fs.status(handle).size, 0)
        c.equal(try c.fs.contents(handle), [])
        _ = try c.fs.pwrite(handle, [1], at: 10)
        c.equal(try c.fs.contents(handle), [UInt8](repeating: 0, count: 10) + [1])
    },
    ContractCase("holes", "punching makes zeros and frees pages", needs: .pageBlocks) { c in
        var bytes = pattern(40_960)
        try c.fs.store(c.path("f"), bytes)
        let handle = try c.open("f")
        c.equal(try c.fs.status(handle).blocks, 80)
        try c.fs.allocate(handle, FallocateMode.punchHole | FallocateMode.keepSize, 8_192, 8_192)
        bytes.replaceSubrange(8_192..<16_384, with: [UInt8](repeating: 0, count: 8_192))
        c.expect(try c.fs.contents(handle) == bytes)
        c.equal(try c.fs.status(handle).blocks, 64)
        c.equal(try c.fs.seek(handle, 0, Seek.hole), 8_192)
        c.equal(try c.fs.seek(handle, 8_192, Seek.data), 16_384)
        try c.fs.allocate(handle, FallocateMode.punchHole | FallocateMode.keepSize, 100, 5_000)
        bytes.replaceSubrange(100..<5_100, with: [UInt8](repeating: 0, count: 5_000))
        c.expect(try c.fs.contents(handle) == bytes)
        try c.fs.allocate(handle, FallocateMode.punchHole | FallocateMode.keepSize, 40_000, 1_000_000)
        bytes.replaceSubrange(40_000..<40_960, with: [UInt8](repeating: 0, count: 960))
        c.expect(try c.fs.contents(handle) == bytes)
        c.equal(try c.fs.status(handle).size, 40_960)
    },
    ContractCase("holes", "ZERO_RANGE makes zeros, and grows unless told not to", needs: .zeroRange) { c in
        try c.fs.store(c.path("f"), pattern(10_000))
        let handle = try c.open("f")
        try c.fs.allocate(handle, FallocateMode.zero, 5_000, 10_000)
        c.expect(try c.fs.contents(handle) == pattern(5_000) + [UInt8](repeating: 0, count: 10_000))
        try c.fs.allocate(handle, FallocateMode.zero | FallocateMode.keepSize, 4_000, 100_000)
        c.expect(try c.fs.contents(handle) == pattern(4_000) + [UInt8](repeating: 0, count: 11_000))
    },
    ContractCase("holes", "COLLAPSE_RANGE and INSERT_RANGE are refused", needs: .refusesCollapse) { c in
        try c.fs.store(c.path("f"), pattern(16_384))
        let handle = try c.open("f")
        c.fails(EOPNOTSUPP) { try c.fs.allocate(handle, FallocateMode.collapse, 0, 4_096) }
        c.fails(EOPNOTSUPP) { try c.fs.allocate(handle, FallocateMode.insert, 0, 4_096) }
        c.expect(try c.fs.contents(handle) == pattern(16_384))
    },
    ContractCase("holes", "fallocate errors") { c in
        let handle = try c.open("f", O_RDWR | O_CREAT)
        c.fails(EINVAL) { try c.fs.allocate(handle, 0, 0, 0) }
        c.fails(EINVAL) { try c.fs.allocate(handle, 0, -1, 10) }
        c.fails(EINVAL) { try c.fs.allocate(handle, 0, 0, -10) }
        c.fails(EOPNOTSUPP) { try c.fs.allocate(handle, FallocateMode.punchHole, 0, 10) }
        c.fails(EOPNOTSUPP) { try c.fs.allocate(handle, 0x1000, 0, 10) }
        c.fails(EFBIG) { try c.fs.allocate(handle, 0, .max - 5, 10) }
        c.equal(try c.fs.status(handle).size, 0)
    },
    ContractCase("holes", "truncation inside a page clears the rest of it") { c in
        try c.fs.store(c.path("f"), [UInt8](repeating: 7, count: 4_096))
        try c.fs.truncate(c.path("f"), 100)
        let handle = try c.open("f")
        _ = try c.fs.pwrite(handle, [1], at: 4_000)
        let bytes = try c.fs.contents(handle)
        c.expect(bytes[0..<100].allSatisfy { $0 == 7 } && bytes[100..<4_000].allSatisfy { $0 == 0 } && bytes[4_000] == 1)
    },
    ContractCase("holes", "reading a hole does not fill it", needs: .pageBlocks) { c in
        let handle = try c.open("f", O_RDWR | O_CREAT)
        try c.fs.truncate(handle, 1 << 20)
        c.expect(try c.fs.contents(handle).allSatisfy { $0 == 0 })
        c.equal(try c.fs.status(handle).blocks, 0)
    },
]
