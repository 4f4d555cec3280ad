import FileStorage
import Glibc
import Testing

@Suite struct LockTableTests {
    /// A lock table with some inodes to lock.
    struct Fixture: ~Copyable {
        var memory = Memory()
        var table = InodeTable()
        var locks: LockTable
        var inodes: [InodePointer] = []
        init(inodes count: Int = 3, limit: Int = 65536) throws {
            locks = LockTable(limitPerClient: limit)
            for _ in 0..<count { inodes.append(try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))) }
        }
        mutating func set(
            _ inode: Int, _ owner: UInt64, _ kind: LockKind, _ start: UInt64, _ end: UInt64, token: UInt64? = nil,
            client: UInt32 = 1, isDescription: Bool = false
        ) -> LockResult {
            let owner = LockOwner(id: owner, client: client, isDescription: isDescription)
            let request = LockRequest(owner: owner, kind: kind, start: start, end: end, pid: UInt32(owner.id) + 100)
            return locks.set(inodes[inode], request, token: token, &memory.arena, &memory.pool)
        }
        mutating func flock(_ inode: Int, _ owner: UInt64, _ kind: LockKind, token: UInt64? = nil) -> LockResult {
            locks.flock(inodes[inode], LockOwner(id: owner, client: 1), kind, token: token, &memory.arena, &memory.pool)
        }
        mutating func outcomes() -> [LockOutcome] {
            var all: [LockOutcome] = []
            while let outcome = locks.takeOutcome(&memory.arena, &memory.pool) { all.append(outcome) }
            return all
        }
        func test(_ inode: Int, _ owner: UInt64, _ kind: LockKind, _ start: UInt64, _ end: UInt64) -> LockRequest? {
            locks.test(
                inodes[inode],
                LockRequest(owner: LockOwner(id: owner, client: 1), kind: kind, start: start, end: end, pid: 0))
        }
        mutating func expectEmpty(sourceLocation: SourceLocation = #_sourceLocation) {
            expect(locks.lockCount == 0 && locks.waiterCount == 0, sourceLocation: sourceLocation)
            for inode in inodes {
                expect(inode.pointee.locks == nil, sourceLocation: sourceLocation)
                table.remove(inode, &memory.arena, &memory.pool)
            }
            memory.expectWhole(sourceLocation)
        }
    }

    @Test func randomUseAgainstModel() throws {
        for round in 0..<4 {
            var random = Generator(seed: Generator.seed("LockTable \(round)"))
            var fixture = try Fixture()
            var model = LockModel(inodes: 3)
            // Processes of two clients, and two open file descriptions; the same id twice, told apart by the rest.
            let owners = [
                LockOwner(id: 1, client: 1), LockOwner(id: 2, client: 1), LockOwner(id: 3, client: 1),
                LockOwner(id: 1, client: 2), LockOwner(id: 4, client: 2),
                LockOwner(id: 1, client: 1, isDescription: true), LockOwner(id: 9, client: 2, isDescription: true),
            ]
            var token: UInt64 = 0
            var ended = [LockResult: Int]()
            for _ in 0..<8_000 {
                let inode = random.below(3)
                let pointer = fixture.inodes[inode]
                let owner = owners[random.below(owners.count)]
                let a = UInt64(random.below(LockModel.bytes))
                let b =
                    random.chance(60)
                    ? min(a + UInt64(random.below(5)), UInt64(LockModel.bytes - 1)) : UInt64(random.below(LockModel.bytes))
                let kind = LockKind(rawValue: UInt8(random.below(3)))!
                let request = LockRequest(
                    owner: owner, kind: kind, start: min(a, b), end: max(a, b), pid: UInt32(owner.id) + 100)
                token += 1
                let wait = random.chance(60) ? token : nil
                switch random.below(40) {
                case 0:
                    model.release(inode, owner: owner)
                    fixture.locks.release(pointer, owner: owner, &fixture.memory.arena, &fixture.memory.pool)
                case 1:
                    model.releaseFlock(inode, owner: owner)
                    fixture.locks.releaseFlock(pointer, owner: owner, &fixture.memory.arena, &fixture.memory.pool)
                case 2, 3, 4:
                    let victim = model.waiters.randomElement(using: &random)?.token ?? 0
                    let cancelled = fixture.locks.cancel(token: victim, &fixture.memory.arena, &fixture.memory.pool)
                    expect(model.cancel(token: victim) == cancelled)
                case 5 where random.chance(10):
                    fixture.locks.releaseAll(client: owner.client, &fixture.memory.arena, &fixture.memory.pool)
                    model.releaseAll(client: owner.client)
                case 6 where random.chance(10):
                    fixture.locks.releaseAll(pointer, &fixture.memory.arena, &fixture.memory.pool)
                    model.releaseAll(inode: inode)
                case 7..<14:
                    let result = fixture.locks.flock(
                        pointer, owner, kind, token: wait, &fixture.memory.arena, &fixture.memory.pool)
                    expect(result == model.flock(inode, owner, kind, token: wait))
                default:
                    let result = fixture.locks.set(
                        pointer, request, token: wait, &fixture.memory.arena, &fixture.memory.pool)
                    let expected = model.set(inode, request, token: wait)
                    expect(result == expected)
                    ended[result, default: 0] += 1
                }
                model.settle()
                let outcomes = fixture.outcomes()
                expect(outcomes == model.outcomes)
                for outcome in outcomes { ended[outcome.result, default: 0] += 1 }
                model.outcomes = []
                expect(fixture.locks.lockCount == model.lockCount)
                expect(fixture.locks.waiterCount == model.waiters.count)
                for inode in 0..<3 where request.kind != .unlock {
                    let found = fixture.locks.test(fixture.inodes[inode], request)
                    let expected = model.test(inode, request)
                    expect(found?.owner == expected?.owner && found?.kind == expected?.kind)
                    expect(found.map { Int($0.start) } == expected?.start && found.map { Int($0.end) } == expected?.end)
                    if let found { expect(found.pid == UInt32(found.owner.id) + 100) }
                }
            }
            // The run must have met every way to end.
            for result in [LockResult.granted, .wouldBlock, .waiting, .deadlock] { expect(ended[result, default: 0] > 10) }
            for inode in fixture.inodes {
                fixture.locks.releaseAll(inode, &fixture.memory.arena, &fixture.memory.pool)
            }
            _ = fixture.outcomes()
            fixture.expectEmpty()
        }
    }

    @Test func splitMergeAndConvert() throws {
        var f = try Fixture()
        expect(f.set(0, 1, .write, 0, 99) == .granted)
        expect(f.set(0, 1, .read, 40, 59) == .granted && f.locks.lockCount == 3)
        expect(f.set(0, 2, .read, 45, 50) == .granted)
        expect(f.set(0, 2, .read, 30, 50) == .wouldBlock)
        expect(f.test(0, 2, .write, 0, 200).map { [$0.start, $0.end] } == [0, 39])
        expect(f.set(0, 1, .unlock, 10, 20) == .granted && f.locks.lockCount == 5)
        expect(f.set(0, 1, .write, 40, 59) == .wouldBlock)
        expect(f.set(0, 2, .unlock, 0, UInt64.max >> 1) == .granted)
        expect(f.set(0, 1, .write, 5, 70) == .granted && f.locks.lockCount == 1)
        expect(f.test(0, 2, .read, 99, 99)?.pid == 101)
        expect(f.test(0, 1, .write, 0, .max) == nil)
        expect(f.set(0, 1, .unlock, 0, .max) == .granted)
        // The largest values, and a range that ends before it starts.
        expect(f.set(0, 1, .write, .max, .max) == .granted)
        expect(f.set(0, 1, .read, .max - 1, .max - 1) == .granted)
        expect(f.set(0, 1, .read, 0, .max) == .granted && f.locks.lockCount == 1)
        expect(f.set(0, 1, .write, 7, 6) == .invalid)
        expect(f.set(0, 1, .unlock, 0, .max) == .granted)
        f.expectEmpty()
    }

    @Test func waitersAreGrantedInOrder() throws {
        var f = try Fixture()
        expect(f.set(0, 1, .write, 0, 9) == .granted)
        expect(f.set(0, 2, .read, 0, 4, token: 11) == .waiting)
        expect(f.set(0, 3, .write, 5, 9, token: 12) == .waiting)
        expect(f.set(0, 4, .read, 0, 9, token: 13) == .waiting)
        expect(f.outcomes() == [])
        // A downgrade lets the readers of its bytes go.
        expect(f.set(0, 1, .read, 0, 9) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 11, result: .granted), LockOutcome(token: 13, result: .granted)])
        expect(f.set(0, 1, .unlock, 0, 9) == .granted)
        expect(f.outcomes() == [])
        expect(f.set(0, 4, .unlock, 5, 9) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 12, result: .granted)])
        // Interrupted, and gone with their client.
        expect(f.set(0, 5, .write, 0, 0, token: 14) == .waiting)
        expect(f.locks.cancel(token: 14, &f.memory.arena, &f.memory.pool))
        expect(!f.locks.cancel(token: 14, &f.memory.arena, &f.memory.pool))
        expect(f.set(0, 6, .write, 0, 0, token: 15, client: 2) == .waiting)
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        expect(f.outcomes() == [LockOutcome(token: 15, result: .granted)])
        f.locks.releaseAll(client: 2, &f.memory.arena, &f.memory.pool)
        f.expectEmpty()
    }

    @Test func deadlocks() throws {
        var f = try Fixture(inodes: 4)
        // Two readers that both upgrade.
        expect(f.set(0, 1, .read, 0, 0) == .granted && f.set(0, 2, .read, 0, 0) == .granted)
        expect(f.set(0, 1, .write, 0, 0, token: 1) == .waiting)
        expect(f.set(0, 2, .write, 0, 0, token: 2) == .deadlock)
        expect(f.set(0, 2, .unlock, 0, 0) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 1, result: .granted)])
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        // A chain over four inodes.
        for owner in 0..<4 as Range<UInt64> { expect(f.set(Int(owner), owner, .write, 0, 9) == .granted) }
        for owner in 0..<3 as Range<UInt64> {
            expect(f.set(Int(owner) + 1, owner, .read, 3, 3, token: 10 + owner) == .waiting)
        }
        expect(f.set(0, 3, .read, 3, 3, token: 20) == .deadlock)
        expect(f.set(0, 3, .read, 3, 3) == .wouldBlock)
        // OFD owners take no part.
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        expect(f.set(0, 1, .write, 0, 0, isDescription: true) == .granted)
        expect(f.set(1, 2, .write, 0, 0, isDescription: true) == .granted)
        expect(f.set(1, 1, .write, 0, 0, token: 30, isDescription: true) == .waiting)
        expect(f.set(0, 2, .write, 0, 0, token: 31, isDescription: true) == .waiting)
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        expect(f.outcomes() == [])
        f.expectEmpty()
    }

    /// The search for a circle ends early where there are very many locks and waits, so that nobody stops a server with them.
    @Test func searchesAreBounded() throws {
        var f = try Fixture(inodes: 2)
        let (locks, waits) = (8000, 600) as (UInt64, UInt64)
        for place in 0..<locks { expect(f.set(1, 9999, .read, 2 * place, 2 * place) == .granted) }
        for owner in 1...waits {
            expect(f.set(0, owner, .write, owner, owner) == .granted)
            expect(f.set(1, owner, .write, 0, 4 * locks, token: owner) == .waiting)
        }
        func processorTime() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        let before = processorTime()
        expect(f.set(0, 7777, .write, 1, waits, token: 7777) == .waiting)
        let search = processorTime() - before
        #expect(search < 0.05, "\(search) s")
        // A circle that is close by is still found.
        expect(f.set(0, 9999, .write, 1, 1, token: 9999) == .deadlock)
        for owner in [9999, 7777] + Array(1...waits) {
            _ = f.locks.cancel(token: owner, &f.memory.arena, &f.memory.pool)
            for inode in 0..<2 { f.locks.release(f.inodes[inode], owner: LockOwner(id: owner, client: 1), &f.memory.arena, &f.memory.pool) }
        }
        _ = f.outcomes()
        f.expectEmpty()
    }

    @Test func flockConversionLosesTheLock() throws {
        var f = try Fixture()
        expect(f.flock(0, 1, .read) == .granted && f.flock(0, 2, .read) == .granted)
        expect(f.flock(0, 1, .read) == .granted && f.locks.lockCount == 2)
        // As flock(2): the shared lock is gone although the exclusive one was refused.
        expect(f.flock(0, 1, .write) == .wouldBlock && f.locks.lockCount == 1)
        expect(f.flock(0, 2, .write) == .granted)
        expect(f.flock(0, 1, .read, token: 1) == .waiting && f.flock(0, 3, .read, token: 2) == .waiting)
        expect(f.flock(0, 2, .read) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 1, result: .granted), LockOutcome(token: 2, result: .granted)])
        // A conversion that waits gives its lock to those that waited before.
        expect(f.flock(1, 1, .write) == .granted && f.flock(1, 2, .read, token: 3) == .waiting)
        expect(f.flock(1, 1, .read) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 3, result: .granted)])
        expect(f.flock(1, 3, .write, token: 4) == .waiting && f.flock(1, 1, .write, token: 5) == .waiting)
        expect(f.flock(1, 2, .unlock) == .granted)
        expect(f.outcomes() == [LockOutcome(token: 4, result: .granted)])
        // Ranges and flocks do not see each other.
        expect(f.set(1, 9, .write, 0, .max) == .granted)
        f.locks.releaseAll(client: 1, &f.memory.arena, &f.memory.pool)
        expect(f.outcomes() == [])
        f.expectEmpty()
    }

    @Test func limits() throws {
        var f = try Fixture(limit: 10)
        for start in 0..<10 as Range<UInt64> { expect(f.set(0, 1, .write, start * 10, start * 10 + 4) == .granted) }
        expect(f.set(0, 1, .write, 500, 500) == .noLocks && f.set(1, 2, .read, 0, 0) == .noLocks)
        expect(f.flock(1, 2, .read) == .noLocks && f.set(0, 3, .read, 0, 0, token: 1) == .noLocks)
        // Not even a split by unlocking goes beyond; what needs no record works.
        expect(f.set(0, 1, .unlock, 2, 2) == .noLocks && f.locks.lockCount == 10)
        expect(f.set(0, 1, .unlock, 0, 2) == .granted)
        expect(f.set(0, 4, .write, 0, 0, client: 2) == .granted)
        expect(f.set(0, 1, .unlock, 0, .max) == .granted && f.locks.lockCount == 1)
        f.locks.releaseAll(client: 2, &f.memory.arena, &f.memory.pool)
        f.expectEmpty()
    }

    @Test func failsCleanlyWithoutCredits() throws {
        var f = try Fixture()
        expect(f.set(0, 1, .write, 0, 99) == .granted)
        let credits = f.memory.pool.credits
        var results: [LockResult] = []
        // Fill the slabs in use, then nothing more goes, and nothing is half done.
        f.memory.pool.credits = 0
        var start: UInt64 = 1000
        while f.set(0, 1, .write, start, start) == .granted { start += 2 }
        let count = f.locks.lockCount
        results = [
            f.set(0, 1, .read, 50, 50), f.set(0, 1, .unlock, 50, 50), f.set(1, 1, .read, 0, 0), f.flock(1, 1, .read),
            f.set(0, 2, .write, 50, 50, token: 1),
        ]
        expect(results.allSatisfy { $0 == .noLocks } && f.locks.lockCount == count && f.locks.waiterCount == 0)
        expect(f.test(0, 2, .read, 50, 50).map { [$0.start, $0.end] } == [0, 99])
        expect(f.memory.pool.credits == 0)
        f.memory.pool.credits = credits - f.memory.pool.used + (f.memory.credits - credits)
        f.locks.release(f.inodes[0], owner: LockOwner(id: 1, client: 1), &f.memory.arena, &f.memory.pool)
        f.expectEmpty()
    }
}
