@testable import FileStorage
import Testing

@Suite struct DirectoryTests {
    private static func name(_ number: Int) -> String {
        // Of all lengths, 1 to 255 bytes, unlike each other.
        let text = String(number, radix: 36)
        return number % 7 == 0 ? text + String(repeating: "-", count: min(255 - text.count, number % 251)) : text
    }

    @Test func randomUseAgainstModel() {
        for round in 0..<3 {
            var random = Generator(seed: Generator.seed("Directory \(round)"))
            var memory = Memory()
            var directory = Directory(seed: random.next())
            var model: [String: (inode: UInt64, cookie: UInt64, pointer: DentryPointer)] = [:]
            var byCookie: [UInt64: String] = [:]
            var lastCookie: UInt64 = 2
            let range = round == 0 ? 40 : 4000
            for step in 0..<20_000 {
                let key = DirectoryTests.name(random.below(range))
                let found = bytes(key) { directory.find($0) }
                expect(found == model[key]?.pointer)
                let insert = random.chance(step % 8_000 < 4_000 ? 70 : 30)
                if let found, !insert {
                    expect(found.pointee.inode == model[key]!.inode && text(found.name) == key)
                    byCookie[found.pointee.cookie] = nil
                    directory.remove(found, &memory.arena, &memory.pool)
                    model[key] = nil
                } else if found == nil, insert {
                    let inode = random.next()
                    let made = bytes(key) { directory.insert($0, inode: inode, kind: 8, &memory.arena, &memory.pool) }
                    guard let made else {
                        Issue.record("memory is out")
                        return
                    }
                    expect(made.pointee.cookie > lastCookie)
                    lastCookie = made.pointee.cookie
                    model[key] = (inode, lastCookie, made)
                    byCookie[lastCookie] = key
                }
                expect(directory.count == model.count)
                if step % 1000 == 0 {
                    let cookies = byCookie.keys.sorted()
                    var cookie: UInt64 = 0
                    var walked: [UInt64] = []
                    while let entry = directory.next(after: cookie) {
                        cookie = entry.pointee.cookie
                        walked.append(cookie)
                        expect(text(entry.name) == byCookie[cookie])
                    }
                    expect(walked == cookies)
                    let probe = UInt64(random.below(Int(lastCookie) + 40))
                    expect(directory.next(after: probe)?.pointee.cookie == cookies.first { $0 > probe })
                }
            }
            directory.destroy(&memory.arena, &memory.pool)
            expect(directory.count == 0 && directory.next(after: 0) == nil)
            memory.expectWhole()
        }
    }

    private func add(_ directory: inout Directory, _ memory: inout Memory, _ name: String) throws -> DentryPointer {
        try unwrap(bytes(name) { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) })
    }

    /// Entries present during a whole listing are met exactly once, whatever comes and goes meanwhile.
    @Test func listingUnderChange() throws {
        var random = Generator(seed: Generator.seed("Directory listing"))
        for _ in 0..<40 {
            var memory = Memory()
            var directory = Directory(seed: random.next())
            var others: [DentryPointer] = []
            var stable: Set<String> = []
            var serial = 0
            for number in 0..<random.below(600) {
                if random.chance(30) {
                    _ = try add(&directory, &memory, "stable\(number)")
                    stable.insert("stable\(number)")
                } else {
                    others.append(try add(&directory, &memory, "other\(number)"))
                }
            }
            var met: [String: Int] = [:]
            var cookie: UInt64 = 0
            var steps = 0
            while let entry = directory.next(after: cookie) {
                cookie = entry.pointee.cookie
                met[text(entry.name), default: 0] += 1
                steps += 1
                for _ in 0..<random.below(5) {
                    if !others.isEmpty, random.chance(steps < 2000 ? 55 : 100) {
                        let victim = others.remove(at: random.below(others.count))
                        directory.remove(victim, &memory.arena, &memory.pool)
                    } else if steps < 2000 {
                        others.append(try add(&directory, &memory, "new\(serial)"))
                        serial += 1
                    }
                }
            }
            for name in stable { expect(met[name] == 1) }
            expect(met.values.allSatisfy { $0 == 1 })
            directory.destroy(&memory.arena, &memory.pool)
            memory.expectWhole()
        }
    }

    @Test func cookiesAreNotReusedAfterEmptying() throws {
        var memory = Memory()
        var directory = Directory(seed: 3)
        var last: UInt64 = 2
        for _ in 0..<1000 {
            let a = try unwrap(bytes("a") { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) })
            expect(a.pointee.cookie == last + 1)
            last += 1
            expect(directory.next(after: last - 1) == a && directory.next(after: last) == nil)
            expect(directory.next(after: 0) == a)
            directory.remove(a, &memory.arena, &memory.pool)
            // An empty directory holds nothing.
            memory.expectWhole()
        }
    }

    /// One file made and deleted over and over beside another keeps the memory of two files.
    @Test func churnDoesNotGrow() throws {
        var memory = Memory()
        var directory = Directory(seed: 4)
        _ = try unwrap(bytes("stays") { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) })
        var most = 0
        for _ in 0..<70_000 {
            let entry = try unwrap(bytes("lock") { directory.insert($0, inode: 2, kind: 8, &memory.arena, &memory.pool) })
            directory.remove(entry, &memory.arena, &memory.pool)
            most = max(most, memory.arena.bytesInUse)
        }
        // Two paths of at most five nodes of 128 bytes, one table, one or two entries.
        expect(most <= 10 * 128 + 128 + 2 * 48)
        directory.destroy(&memory.arena, &memory.pool)
        memory.expectWhole()
    }

    @Test func hostileValues() {
        var memory = Memory()
        var directory = Directory(seed: 5)
        let long = String(repeating: "n", count: 256)
        expect(bytes(long) { directory.find($0) } == nil)
        expect(bytes(long) { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) } == nil)
        expect(bytes("") { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) } == nil)
        expect(bytes("x") { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) } != nil)
        expect(bytes("") { directory.find($0) } == nil)
        expect(bytes(long) { directory.find($0) } == nil)
        expect(directory.next(after: .max) == nil && directory.next(after: .max - 1) == nil)
        expect(directory.next(after: 1 << 40) == nil)
        directory.destroy(&memory.arena, &memory.pool)
        memory.expectWhole()
    }

    @Test func failsCleanlyAtEveryCredit() throws {
        var random = Generator(seed: Generator.seed("Directory credits"))
        for start in [0, 1, 5, 6, 12, 15, 48, 96, 192, 253, 384, 1000] {
            var memory = Memory()
            var directory = Directory(seed: random.next())
            for number in 0..<start {
                _ = try unwrap(
                    bytes("entry\(number)") { directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool) })
            }
            for number in start..<start + 60 {
                let used = memory.pool.used
                let inUse = memory.arena.bytesInUse
                let cookie = directory.nextCookie
                memory.pool.credits = 0
                while true {
                    let credits = memory.pool.credits
                    let entry = bytes("entry\(number)") {
                        directory.insert($0, inode: 1, kind: 8, &memory.arena, &memory.pool)
                    }
                    if entry != nil { break }
                    expect(memory.pool.used == used && memory.arena.bytesInUse == inUse)
                    expect(memory.pool.credits == credits && directory.nextCookie == cookie)
                    expect(directory.count == number && bytes("entry\(number)") { directory.find($0) } == nil)
                    memory.pool.credits += 1
                }
            }
            for number in 0..<start + 60 { expect(bytes("entry\(number)") { directory.find($0) } != nil) }
            memory.pool.credits = memory.credits - memory.pool.used
            directory.destroy(&memory.arena, &memory.pool)
            memory.expectWhole()
        }
    }

    @Test func hashSpreadsSimilarNames() {
        var random = Generator(seed: Generator.seed("NameHash"))
        for pattern in 0..<3 {
            let seed = random.next()
            var buckets = [Int](repeating: 0, count: 4096)
            var hashes: Set<UInt32> = []
            for number in 0..<40_960 {
                let name = pattern == 0 ? "\(number)" : pattern == 1 ? "file-\(number).txt" : "a-long-common-prefix-of-names-\(number)"
                let hash = bytes(name) { NameHash.hash($0, seed: seed) }
                hashes.insert(hash)
                buckets[Int(hash & 4095)] += 1
            }
            // Ten on average; chi-square of 4,095 degrees has mean 4,095 and deviation 90.
            let chi = buckets.reduce(0.0) { $0 + Double(($1 - 10) * ($1 - 10)) / 10 }
            expect(chi > 4095 - 7 * 90 && chi < 4095 + 7 * 90)
            // About 0.2 collisions are expected among 32-bit hashes.
            expect(hashes.count > 40_950)
        }
    }

    /// Every byte matters, at every length, and so does the seed.
    @Test func hashDependsOnEveryByte() {
        var random = Generator(seed: Generator.seed("NameHash bytes"))
        for length in 1...255 {
            let seed = random.next()
            var name = (0..<length).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let hash = name.withUnsafeBytes { NameHash.hash($0, seed: seed) }
            for index in 0..<length {
                let flip = UInt8(1) << UInt8(random.below(8))
                name[index] ^= flip
                expect(name.withUnsafeBytes { NameHash.hash($0, seed: seed) } != hash)
                name[index] ^= flip
            }
            expect(name.withUnsafeBytes { NameHash.hash($0, seed: seed &+ 1) } != hash)
        }
    }
}
