// Pages lent to the front end: what the places say, and what waits while they are lent.

import CFosWire
import Glibc
import LoopKernel
import Testing

@testable import FileService

@Suite struct LentPagesTests {
    private static let size = 512 * 1024
    private static let retry = Int32(FOS_TRANSPORT_RETRY.rawValue)

    private struct Setup {
        let fleet = FileFleet(members: 2)
        let kernel: Files
        let other: Files
        let file: UInt64
        init() {
            kernel = fleet.frontEnd()
            other = fleet.files()
            file = other.create(1, "file").inode
            let bytes = (0..<LentPagesTests.size).map { UInt8(truncatingIfNeeded: $0 / 4096 &* 7 &+ $0) }
            // A hole of four pages in the middle.
            #expect(other.write(file, 0, Array(bytes[..<(64 * 4096)])) == 64 * 4096)
            #expect(other.write(file, 68 * 4096, Array(bytes[(68 * 4096)...])) == LentPagesTests.size - 68 * 4096)
        }
        func read(_ client: Files, _ offset: UInt64, _ count: Int) -> LoopReply {
            client.call(Files.readCall(file, offset, count, flags: FOS_IO_PLACES.rawValue))
        }
        func once(_ call: LoopCall) -> Int32 { (try? other.client.callOnce(call).status) ?? Int32.min }
        func giveBack() { #expect(kernel.call(LoopCall(FOS_OP_GIVE_BACK, inode: file)).status == 0) }
        static func setSize(_ inode: UInt64, _ size: UInt64) -> LoopCall {
            var fields = fos_setattr_request()
            fields.valid = FOS_SET_SIZE.rawValue
            fields.size = size
            return LoopCall(FOS_OP_SETATTR, inode: inode, fields)
        }
    }

    /// The bytes that the places of a reply lead to.
    private func bytes(_ reply: LoopReply) -> [UInt8] {
        var found: [UInt8] = []
        var offset = 0
        while found.count < Int(reply.header.bulk_length) {
            let place: fos_page_place = loopFixed(reply.bulk, at: offset)
            offset += MemoryLayout<fos_page_place>.stride
            guard place.length > 0 else { break }
            if let address = UnsafeRawPointer(bitPattern: UInt(place.address)) {
                found += UnsafeRawBufferPointer(start: address, count: Int(place.length))
            } else {
                found += [UInt8](repeating: 0, count: Int(place.length))
            }
        }
        return found
    }
    private func isLent(_ reply: LoopReply) -> Bool { UInt32(reply.header.flags) & FOS_REPLY_PLACES.rawValue != 0 }

    @Test func placesSayWhatAReadSays() {
        let s = Setup()
        for (offset, count) in [(0, Self.size), (4096 * 3 + 77, 200_000), (Self.size - 131_072, 400_000), (4096 * 62 + 1, 140_000)] {
            let lent = s.read(s.kernel, UInt64(offset), count)
            #expect(isLent(lent) && lent.status == 0)
            let found = bytes(lent)
            s.giveBack()
            let copied = s.kernel.read(s.file, UInt64(offset), count)
            #expect(!isLent(copied) && found == Array(copied.bulk.prefix(Int(copied.header.bulk_length))))
        }
        // Small reads are copied; nobody else is lent anything, or can end a loan.
        #expect(!isLent(s.read(s.kernel, 0, 4096)))
        #expect(!isLent(s.read(s.other, 0, Self.size)))
        #expect(s.other.call(LoopCall(FOS_OP_GIVE_BACK, inode: s.file)).status == -EPERM)
        s.fleet.check()
    }

    @Test func pagesStayWhileTheyAreLent() {
        let s = Setup()
        let lent = s.read(s.kernel, 0, Self.size)
        #expect(isLent(lent))
        // Whatever would take pages away is asked to come again, and has changed nothing.
        #expect(s.once(Setup.setSize(s.file, 10)) == Self.retry)
        let punch = fos_fallocate_request(offset: 0, length: 8192, mode: 3, reserved: 0)
        #expect(s.once(LoopCall(FOS_OP_FALLOCATE, inode: s.file, punch)) == Self.retry)
        #expect(s.once(LoopCall(FOS_OP_OPEN, inode: s.file, fos_open_request(open_flags: 0o1001, room: 0))) == Self.retry)
        #expect(s.other.stat(s.file).attributes.size == UInt64(Self.size))
        // Overwriting and growing go on.
        #expect(s.other.write(s.file, 0, [1, 2, 3]) == 3 && bytes(lent).starts(with: [1, 2, 3]))
        #expect(s.other.truncate(s.file, UInt64(Self.size) + 1) == 0)
        // Somebody waits: no other loan.
        #expect(!isLent(s.read(s.other, 0, Self.size)))
        s.giveBack()
        #expect(s.other.truncate(s.file, 10) == 0)
        s.fleet.check()
    }

    @Test func loansEndWithTheFrontEnd() {
        let s = Setup()
        #expect(isLent(s.read(s.kernel, 0, Self.size)))
        #expect(s.once(Setup.setSize(s.file, 10)) == Self.retry)
        s.kernel.client.die()
        s.fleet.host.runUntilQuiet()
        #expect(s.other.truncate(s.file, 10) == 0)
        s.fleet.check()
    }

    @Test func aFileMovesToAnotherServerWhenItsPagesAreBack() throws {
        let s = Setup()
        let lent = s.read(s.kernel, 0, Self.size)
        #expect(isLent(lent))
        let before = bytes(lent)
        let slot = Int(s.file % 4096)
        let giver = try #require(s.fleet.owner(ofSlot: slot))
        s.fleet.give(from: giver, to: 1 - giver, slot: slot)
        for _ in 0..<20 {
            s.fleet.host.tick()
            s.fleet.host.runUntilQuiet()
        }
        #expect(s.fleet.look(giver) { $0.inodes.find(s.file) != nil } && bytes(lent) == before)
        s.giveBack()
        s.fleet.settleMoves()
        #expect(s.fleet.owner(ofSlot: slot) == 1 - giver)
        // It is lent there as it was here.
        let again = s.read(s.kernel, 0, Self.size)
        #expect(isLent(again) && bytes(again) == before)
        s.giveBack()
        #expect(s.other.truncate(s.file, 10) == 0)
        s.fleet.check()
    }
}
