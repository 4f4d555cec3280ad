import Testing

@testable import FileStorage

@Suite struct AbsentNamesTests {
    static let second: UInt64 = 1_000_000_000
    static let validity = 30 * second
    static let kept = AbsentNames.kept * validity

    private func set(seed: UInt64 = 5) -> AbsentNames { AbsentNames(seed: seed, validity: Self.validity) }

    @Test func aNameIsToldOnce() {
        var set = set()
        bytes("x") { x in
            expect(!set.take(x, in: 1, now: 0))
            set.insert(x, in: 1, now: 0)
            set.insert(x, in: 1, now: 5)
            bytes("y") { y in expect(!set.take(y, in: 1, now: 9) && !set.take(x, in: 2, now: 9)) }
            expect(set.take(x, in: 1, now: 9) && !set.take(x, in: 1, now: 9))
            set.insert(x, in: 1, now: 10)
            set.removeAll()
            expect(!set.take(x, in: 1, now: 11))
        }
    }

    /// Wherever in a stamp's time it came, and also when stamps come round.
    @Test func aNameIsKeptForThreeValiditiesAndLittleMore() {
        for start in stride(from: 0, to: 4000 * Self.second, by: 7_300_000_001) {
            var set = set()
            bytes("name") { name in
                set.insert(name, in: 7, now: start)
                expect(set.take(name, in: 7, now: start + Self.kept))
                set.insert(name, in: 7, now: start)
                expect(!set.take(name, in: 7, now: start + Self.kept + Self.kept / 4))
            }
        }
    }

    @Test func allNamesOfADirectory() {
        var set = set()
        set.insertAll(of: 3, now: 0)
        bytes("x") { x in
            expect(set.take(x, in: 3, now: 1) && set.take(x, in: 3, now: Self.kept) && !set.take(x, in: 4, now: 1))
            expect(!set.take(x, in: 3, now: Self.kept * 2))
        }
    }

    /// What is in the set is never denied, however full it is; little else is affirmed while it is not.
    @Test(arguments: [500, 5_000, 20_000, 100_000]) func isNeverWrongAboutWhatItHas(count: Int) {
        var random = Generator(seed: Generator.seed("AbsentNames \(count)"))
        var set = set(seed: random.next())
        var since: [Int: UInt64] = [:]
        var now: UInt64 = 17
        var (others, affirmed) = (0, 0)
        for _ in 0..<count * 3 {
            let number = random.below(count)
            let directory = UInt64(number % 50)
            now += UInt64(random.below(Int(2 * Self.kept) / count))
            bytes("n\(number)") { name in
                if random.chance(60) {
                    set.insert(name, in: directory, now: now)
                    since[number] = now
                    return
                }
                let isTaken = set.take(name, in: directory, now: now)
                guard let time = since.removeValue(forKey: number) else {
                    others += 1
                    affirmed += isTaken ? 1 : 0
                    return
                }
                if now - time <= Self.kept { expect(isTaken) }
            }
        }
        if count <= 5_000 { expect(affirmed * 100 <= others) }
    }
}
