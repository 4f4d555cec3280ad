import FileStorage
import Testing

@Suite struct FootprintTests {
    /// A million empty files in one directory: all memory that their inodes, names, hash table, order and numbers take.
    @Test func millionEmptyFiles() throws {
        let files = 1_000_000
        var memory = Memory()
        var table = InodeTable()
        let root = try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))
        root.pointee.mode = 0o040755
        root.directory.initialize(to: Directory(seed: 42))
        var name = [UInt8]("file00000000".utf8)
        for number in 0..<files {
            var rest = number
            for digit in 0..<8 {
                name[11 - digit] = UInt8(48 + rest % 10)
                rest /= 10
            }
            let inode = try unwrap(table.create(slot: 1, &memory.arena, &memory.pool))
            inode.pointee.mode = 0o100644
            let entry = name.withUnsafeBytes {
                root.directory.pointee.insert($0, inode: inode.pointee.number, kind: 8, &memory.arena, &memory.pool)
            }
            if entry == nil { Issue.record("memory is out") }
        }
        let each = Double(memory.pool.used) * 4096 / Double(files)
        print("Footprint: \(each) bytes for each empty file")
        expect(each < 330)
        expect(table.count == files + 1 && root.directory.pointee.count == files)

        // Deleted by listing, as rm -r does; then all memory is back, in Linux too.
        var cookie: UInt64 = 0
        while let entry = root.directory.pointee.next(after: cookie) {
            cookie = entry.pointee.cookie
            let inode = try unwrap(table.find(entry.pointee.inode))
            root.directory.pointee.remove(entry, &memory.arena, &memory.pool)
            table.remove(inode, &memory.arena, &memory.pool)
        }
        table.remove(root, &memory.arena, &memory.pool)
        memory.expectWhole()
        expect(memory.pool.trim(reserve: 0, limit: .max) > 0)
        expect(memory.pool.mappedPages == 0)
    }
}
