import FileStorage
import Messaging
import Testing

@Suite struct InodeTableTests {
    @Test func layout() {
        expect(MemoryLayout<Inode>.size == 192)
        expect(MemoryLayout<Directory>.size <= 48 && MemoryLayout<PageMap>.size <= 48)
        expect(MemoryLayout<SymlinkTarget>.size <= 48)
        expect(MemoryLayout<Dentry>.size == 28)
    }

    @Test func rootIsNumberOneAndZeroIsNever() throws {
        var memory = Memory()
        var table = InodeTable()
        let root = try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))
        expect(root.pointee.number == 1)
        for _ in 0..<20 {
            let inode = try unwrap(table.create(slot: 0, &memory.arena, &memory.pool))
            expect(inode.pointee.number != 0)
            expect(table.find(0) == nil)
        }
        expect(table.create(slot: 4096, &memory.arena, &memory.pool) == nil)
        expect(table.create(slot: -1, &memory.arena, &memory.pool) == nil)
        expect(table.find(.max) == nil && table.find(1 << 63) == nil)
    }

    @Test func randomUseAgainstModel() {
        var random = Generator(seed: Generator.seed("InodeTable"))
        var memory = Memory()
        var table = InodeTable()
        var model: [UInt64: InodePointer] = [:]
        var numbers: [UInt64] = []
        var given: Set<[UInt64]> = []
        let slots = [0, 1, 5, 4095]
        for step in 0..<40_000 {
            // Rise and fall, so that leaves fill, become vacant and are used again.
            if numbers.isEmpty || random.chance(step % 10_000 < 5_000 ? 75 : 25) {
                let slot = slots[min(random.below(8), 3)]
                guard let inode = table.create(slot: slot, &memory.arena, &memory.pool) else {
                    Issue.record("memory is out")
                    return
                }
                let number = inode.pointee.number
                expect(number & 4095 == UInt64(slot) && model[number] == nil)
                expect(given.insert([number, UInt64(inode.pointee.generation)]).inserted)
                expect(inode.pointee.size == 0 && inode.pointee.mode == 0 && inode.pointee.locks == nil)
                inode.pointee.size = number &* 3
                model[number] = inode
                numbers.append(number)
            } else {
                let at = random.below(numbers.count)
                numbers.swapAt(at, numbers.count - 1)
                let number = numbers.removeLast()
                expect(model[number]?.pointee.size == number &* 3)
                table.remove(model.removeValue(forKey: number)!, &memory.arena, &memory.pool)
                expect(table.find(number) == nil)
            }
            expect(table.count == model.count)
            let probe = UInt64(random.below(3000)) << 12 | UInt64(slots[random.below(4)])
            expect(table.find(probe) == model[probe])
            if step % 4000 == 0 {
                for slot in slots {
                    var walked: [UInt64] = []
                    var index: UInt64 = 0
                    while let inode = table.next(slot: slot, from: index) {
                        walked.append(inode.pointee.number)
                        index = inode.pointee.number >> 12 + 1
                    }
                    expect(walked == model.keys.filter { $0 & 4095 == UInt64(slot) }.sorted())
                    expect(table.count(slot: slot) == walked.count)
                }
            }
        }
        for number in numbers { table.remove(model[number]!, &memory.arena, &memory.pool) }
        memory.expectWhole()
    }

    @Test func failsCleanlyAtEveryCredit() throws {
        // Whatever the credits, creation stops with nothing lost, and goes on when there are more.
        for credits in 0..<24 {
            var memory = Memory(credits: credits)
            var table = InodeTable()
            var inodes: [InodePointer] = []
            while let inode = table.create(slot: 7, &memory.arena, &memory.pool) { inodes.append(inode) }
            let used = memory.pool.used
            let inUse = memory.arena.bytesInUse
            expect(table.create(slot: 7, &memory.arena, &memory.pool) == nil)
            expect(memory.pool.used == used && memory.arena.bytesInUse == inUse && table.count == inodes.count)
            expect(memory.pool.shortfall > 0)
            memory.pool.credits += 40
            for _ in 0..<30 { inodes.append(try unwrap(table.create(slot: 7, &memory.arena, &memory.pool))) }
            expect(Set(inodes.map { $0.pointee.number }).count == inodes.count)
            for inode in inodes { expect(table.find(inode.pointee.number) == inode) }
            for inode in inodes { table.remove(inode, &memory.arena, &memory.pool) }
            memory.pool.credits -= 40
            memory.expectWhole()
        }
    }

    @Test func removalGivesBackContent() throws {
        var memory = Memory()
        var table = InodeTable()
        let file = try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))
        file.pointee.mode = 0o100644
        for index in [0, 1, 700, 1 << 40] as [UInt64] {
            _ = try unwrap(file.pageMap.pointee.ensure(index, zeroed: true, &memory.pool))
        }
        let link = try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))
        link.pointee.mode = 0o120777
        expect(bytes("some/where") { link.symlink.pointee.set($0, &memory.arena, &memory.pool) })
        expect(text(link.symlink.pointee.bytes) == "some/where")
        expect(bytes(String(repeating: "x", count: 4095)) { link.symlink.pointee.set($0, &memory.arena, &memory.pool) })
        expect(link.symlink.pointee.length == 4095)
        let directory = try unwrap(table.create(slot: 2, &memory.arena, &memory.pool))
        directory.pointee.mode = 0o040755
        directory.directory.initialize(to: Directory(seed: 1))
        for index in 0..<1000 {
            _ = try unwrap(
                bytes("f\(index)") { directory.directory.pointee.insert($0, inode: 9, kind: 8, &memory.arena, &memory.pool) })
        }
        for inode in [file, link, directory] {
            let set = bytes("user.a") { name in
                bytes("value") { inode.pointee.xattrs.set(name, $0, .any, &memory.arena, &memory.pool) }
            }
            expect(set == .done)
            inode.pointee.born = Timestamp(seconds: -5, nanoseconds: 999_999_999)
            expect(inode.pointee.born == Timestamp(seconds: -5, nanoseconds: 999_999_999))
            table.remove(inode, &memory.arena, &memory.pool)
        }
        memory.expectWhole()
    }
}
