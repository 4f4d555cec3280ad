import FileStorage
import Testing

@Suite struct ArenaTests {
    @Test func randomUseAgainstModel() {
        var random = Generator(seed: Generator.seed("Arena"))
        var memory = Memory()
        var held: [(pointer: UnsafeMutableRawPointer, bytes: Int, stamp: UInt8)] = []
        for step in 0..<60_000 {
            if held.isEmpty || random.chance(step % 20_000 < 10_000 ? 65 : 30) {
                let bytes: Int
                switch random.below(30) {
                case 0: bytes = 1 + random.below(40_000)
                case 1, 2: bytes = 1 + random.below(4096)
                default: bytes = 1 + random.below(300)
                }
                guard let object = memory.arena.allocate(bytes, &memory.pool) else {
                    Issue.record("memory is out")
                    return
                }
                expect(UInt(bitPattern: object) % 16 == 0)
                let stamp = UInt8(truncatingIfNeeded: random.next())
                object.initializeMemory(as: UInt8.self, repeating: stamp, count: bytes)
                held.append((object, bytes, stamp))
            } else {
                let victim = held.remove(at: random.below(held.count))
                let buffer = UnsafeRawBufferPointer(start: victim.pointer, count: victim.bytes)
                if buffer.contains(where: { $0 != victim.stamp }) { Issue.record("an object was overwritten") }
                memory.arena.release(victim.pointer, victim.bytes, &memory.pool)
            }
        }
        expect(memory.arena.bytesHeld == memory.pool.used * 4096)
        for (pointer, bytes, _) in held { memory.arena.release(pointer, bytes, &memory.pool) }
        memory.expectWhole()
    }

    @Test func failsCleanlyWithoutCredits() throws {
        var memory = Memory(credits: 1)
        expect(memory.arena.allocate(600, &memory.pool) == nil)
        expect(memory.pool.shortfall == 3)
        var objects: [UnsafeMutableRawPointer] = []
        while let object = memory.arena.allocate(64, &memory.pool) { objects.append(object) }
        expect(objects.count == 63 && memory.arena.bytesInUse == 63 * 64)
        for object in objects { memory.arena.release(object, 64, &memory.pool) }
        memory.expectWhole()
        expect(memory.arena.allocate(0, &memory.pool) == nil)
        expect(memory.arena.allocate(-1, &memory.pool) == nil)
    }

    @Test func everySizeHoldsItsBytes() throws {
        var memory = Memory()
        for bytes in 1...5000 {
            let a = try unwrap(memory.arena.allocate(bytes, &memory.pool))
            let b = try unwrap(memory.arena.allocate(bytes, &memory.pool))
            let distance = abs(a - b)
            expect(distance >= bytes)
            expect(memory.arena.bytesInUse < 2 * (bytes + bytes / 4 + 16) || bytes > 2048)
            memory.arena.release(a, bytes, &memory.pool)
            memory.arena.release(b, bytes, &memory.pool)
        }
        memory.expectWhole()
    }
}
