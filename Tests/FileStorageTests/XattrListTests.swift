import FileStorage
import Testing

@Suite struct XattrListTests {
    @Test func randomUseAgainstModel() {
        var random = Generator(seed: Generator.seed("XattrList"))
        var memory = Memory()
        var list = XattrList()
        var model: [String: [UInt8]] = [:]
        for _ in 0..<20_000 {
            let name = "user." + String(repeating: "n", count: random.below(12))
            switch random.below(5) {
            case 0:
                let removed = bytes(name) { list.remove($0, &memory.arena, &memory.pool) }
                expect(removed == (model.removeValue(forKey: name) != nil))
            case 1, 2:
                let value = bytes(name) { list.get($0).map { [UInt8]($0) } }
                expect(value == model[name])
            default:
                let sizes = [0, 1, 20, 1000, 1024, 1025, 5000, 65536]
                let value = [UInt8](repeating: UInt8(truncatingIfNeeded: random.next()), count: sizes[random.below(8)])
                let mode = XattrMode(rawValue: UInt8(random.below(3)))!
                let outcome = bytes(name) { name in
                    value.withUnsafeBytes { list.set(name, $0, mode, &memory.arena, &memory.pool) }
                }
                if mode == .create, model[name] != nil {
                    expect(outcome == .exists)
                } else if mode == .replace, model[name] == nil {
                    expect(outcome == .absent)
                } else {
                    expect(outcome == .done)
                    model[name] = value
                }
            }
            expect(list.isEmpty == model.isEmpty)
            expect(list.listBytes() == model.keys.reduce(0) { $0 + $1.utf8.count + 1 })
        }
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: list.listBytes(), alignment: 1)
        defer { room.deallocate() }
        expect(list.list(into: room) == room.count)
        expect(Set(UnsafeRawBufferPointer(room).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }) == Set(model.keys))
        if room.count > 0 {
            expect(list.list(into: UnsafeMutableRawBufferPointer(rebasing: room.dropLast())) == nil)
        }
        list.destroy(&memory.arena, &memory.pool)
        expect(list.isEmpty)
        memory.expectWhole()
    }

    @Test func failsCleanlyAtEveryCredit() {
        var memory = Memory()
        var list = XattrList()
        let first = [UInt8](repeating: 1, count: 100)
        let second = [UInt8](repeating: 2, count: 60_000)
        func set(_ value: [UInt8], _ list: inout XattrList, _ memory: inout Memory) -> XattrOutcome {
            bytes("user.x") { name in value.withUnsafeBytes { list.set(name, $0, .any, &memory.arena, &memory.pool) } }
        }
        expect(set(first, &list, &memory) == .done)
        let used = memory.pool.used
        memory.pool.credits = 0
        while set(second, &list, &memory) == .noMemory {
            expect(memory.pool.used == used)
            expect(bytes("user.x") { list.get($0).map { [UInt8]($0) } } == first)
            memory.pool.credits += 1
        }
        expect(bytes("user.x") { list.get($0).map { [UInt8]($0) } } == second)
        memory.pool.credits = memory.credits - memory.pool.used
        expect(bytes(String(repeating: "n", count: 256)) { list.set($0, $0, .any, &memory.arena, &memory.pool) } == .noMemory)
        list.destroy(&memory.arena, &memory.pool)
        memory.expectWhole()
    }
}
