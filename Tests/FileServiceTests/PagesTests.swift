// Pages from the memory fleet: asked for ahead of need, given back, and what happens when there are none.

import CFosWire
import FileStorage
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct PagesTests {
    private let megabyte = [UInt8](repeating: 7, count: 1 << 20)

    private func granted(_ fleet: FileFleet) throws -> UInt64 {
        let memory = try #require(fleet.memory)
        let reply = try fleet.host.kernelCall(LoopCall(FOS_OP_MEMORY_STATISTICS), to: memory)
        let statistics: fos_memory_statistics = loopFixed(reply.payload)
        return statistics.servers
    }

    /// Writes until there is no more room, or the file has so many bytes: where that was, and what the last write said.
    private func fill(_ file: UInt64, _ files: Files, to end: UInt64) -> (offset: UInt64, written: Int) {
        var offset: UInt64 = 0
        var written = 0
        repeat {
            written = files.write(file, offset, megabyte)
            if written > 0 { offset += UInt64(written) }
        } while written > 0 && offset < end
        return (offset, written)
    }

    /// Until what nobody needs has gone back.
    private func settle(_ fleet: FileFleet) {
        for _ in 0..<2 * PagePool.ticksOfLongNeed + 200 {
            fleet.host.tick()
            repeat { fleet.host.runUntilQuiet() } while fleet.host.idle()
        }
    }

    @Test(arguments: [1, 2]) func pagesComeFromTheFleetAndGoBack(members: Int) throws {
        let fleet = FileFleet(members: members, pagesPerMember: 60_000 / members, hasMemory: true)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        for offset in 0..<40 { #expect(files.write(f, UInt64(offset) << 20, megabyte) == 1 << 20) }
        #expect(try granted(fleet) >= 40 << 20)
        for offset in 0..<40 { #expect(files.read(f, UInt64(offset) << 20, 1 << 20).bulk == megabyte) }
        fleet.check()
        #expect(files.unlink(1, "f") == 0)
        settle(fleet)
        let kept = try granted(fleet)
        #expect(kept <= 16 << 20, "\(kept >> 20) MiB are kept for nothing")
        fleet.check()
        // And once more, with memory that was used before.
        let g = files.create(1, "g").inode
        #expect(files.fallocate(g, 0, 0, 30 << 20) == 0)
        let page = files.read(g, 29 << 20, 4096).bulk
        #expect(page == [UInt8](repeating: 0, count: 4096))
        fleet.check()
    }

    /// A request that outruns the stock waits for its extents, and is not refused.
    @Test func longRequestsWaitForTheirPages() throws {
        let fleet = FileFleet(members: 1, pagesPerMember: 40_000, hasMemory: true)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        #expect(files.fallocate(f, 0, 0, 100 << 20) == 0)
        #expect(files.stat(f).attributes.blocks >= 100 << 11)
        fleet.check()
    }

    @Test func withoutMemoryThereIsNoSpace() throws {
        var options = LoopOptions()
        options.memoryBytes = 16 << 20
        let fleet = FileFleet(members: 1, pagesPerMember: 40_000, hasMemory: true, options: options)
        let files = fleet.files()
        let f = files.create(1, "f").inode
        let (offset, written) = fill(f, files, to: 64 << 20)
        #expect(written == Int(-ENOSPC))
        #expect(offset >= 12 << 20 && offset < 24 << 20, "\(offset)")
        #expect(files.read(f, 0, 4096).bulk == [UInt8](repeating: 7, count: 4096))
        // What was asked for ahead of need is answered too.
        fleet.host.runUntilQuiet()
        fleet.check()
        #expect(files.unlink(1, "f") == 0)
        settle(fleet)
        let g = files.create(1, "g").inode
        #expect(files.write(g, 0, megabyte) == 1 << 20)
        fleet.check()
    }

    /// What once lacked memory has it now; a request that then lacks credits is refused, and takes no more memory for it.
    @Test(arguments: [1, 2]) func aFullFileSystemTakesNoMoreMemory(members: Int) throws {
        let limit = 64 << 20
        let fleet = FileFleet(members: members, pagesPerMember: limit / 4096 / members, hasMemory: true)
        let files = fleet.files()
        for _ in 0..<3 {
            let f = files.create(1, "f").inode
            let (offset, written) = fill(f, files, to: UInt64(limit) + 1)
            #expect(written == Int(-ENOSPC))
            #expect(offset > UInt64(limit) * 7 / 8)
            #expect(try granted(fleet) <= UInt64(limit) * 3 / 2)
            #expect(files.fallocate(f, 0, 0, UInt64(2 * limit)) == -ENOSPC)
            fleet.check()
            #expect(files.unlink(1, "f") == 0)
            settle(fleet)
        }
    }
}
