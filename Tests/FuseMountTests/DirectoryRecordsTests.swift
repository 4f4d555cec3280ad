// Listings: records of the service to the kernel's, with rooms that always suffice.

import CFosWire
import CFuse
import Testing

@testable import FuseMount

/// One record as the service writes it.
func record(_ name: [UInt8], inode: UInt64, next: UInt64, type: UInt8 = 8, attributes: fos_attributes? = nil) -> [UInt8] {
    var header = fos_directory_entry()
    header.inode = inode
    header.next = next
    header.name_length = UInt16(name.count)
    header.type = type
    if let attributes {
        header.has_attributes = 1
        header.attributes = attributes
    }
    let length = (DirectoryLayout.recordHeader + name.count + 7) & ~7
    header.record_length = UInt32(length)
    var bytes = withUnsafeBytes(of: header) { Array($0) } + name
    bytes += [UInt8](repeating: 0, count: length - bytes.count)
    return bytes
}

private func parse(_ bytes: [UInt8]) -> [(inode: UInt64, name: String)] {
    bytes.withUnsafeBytes { buffer in
        var records = DirectoryRecords(buffer)
        var found: [(UInt64, String)] = []
        while let record = records.next() { found.append((record.header.inode, String(decoding: record.name, as: UTF8.self))) }
        return found
    }
}

@Suite struct DirectoryRecordsTests {
    @Test func layoutsMatchTheKernel() {
        #expect(DirectoryLayout.direntPlusHeader == 152)
        #expect(DirectoryLayout.recordHeader == 152)
    }

    @Test func recordsAreWalked() {
        let bytes = record(Array("a".utf8), inode: 5, next: 1) + record(Array("twelve bytes".utf8), inode: 6, next: 2)
        #expect(parse(bytes).map(\.name) == ["a", "twelve bytes"])
        #expect(parse(bytes).map(\.inode) == [5, 6])
    }

    @Test func badRecordsEndTheListing() {
        let good = record(Array("a".utf8), inode: 5, next: 1)
        for (offset, value) in [(16, UInt32(0)), (16, 8), (16, 100_000), (16, UInt32.max)] {
            var bad = good
            bad.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: offset, as: UInt32.self) }
            #expect(parse(bad).isEmpty)
            #expect(parse(good + bad).count == 1)
        }
        var noName = good
        noName.withUnsafeMutableBytes { $0.storeBytes(of: UInt16(0), toByteOffset: 20, as: UInt16.self) }
        #expect(parse(noName).isEmpty)
        var longName = good
        longName.withUnsafeMutableBytes { $0.storeBytes(of: UInt16(300), toByteOffset: 20, as: UInt16.self) }
        #expect(parse(longName).isEmpty)
        #expect(parse(Array(good.dropLast())).isEmpty)
    }

    @Test func mutatedRecordsNeverTrap() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var state = seed | 1
        func random() -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33)
        }
        let original = (0..<8).flatMap { record(Array("name\($0)".utf8), inode: UInt64($0), next: UInt64($0 + 1)) }
        for _ in 0..<2000 {
            var bytes = original
            for _ in 0...random() % 8 { bytes[random() % bytes.count] = UInt8(random() & 0xff) }
            _ = parse(Array(bytes.prefix(random() % (bytes.count + 1))))
        }
    }

    @Test func plainEntriesAreAligned() {
        var room = [UInt8](repeating: 0xff, count: 72)
        room.withUnsafeMutableBytes { buffer in
            var reply = DirectoryReply(buffer)
            let name = Array("abc".utf8)
            let added = name.withUnsafeBytes { reply.append(inode: 9, next: 4, type: 4, name: $0) }
            #expect(added)
            #expect(reply.used == 32)
            #expect(buffer.load(as: UInt64.self) == 9)
            #expect(buffer.load(fromByteOffset: 8, as: UInt64.self) == 4)
            #expect(buffer.load(fromByteOffset: 16, as: UInt32.self) == 3)
            #expect(buffer.load(fromByteOffset: 20, as: UInt32.self) == 4)
            #expect(Array(buffer[24..<32]) == Array("abc".utf8) + [0, 0, 0, 0, 0])
            let eight = Array("12345678".utf8)
            #expect(eight.withUnsafeBytes { reply.append(inode: 1, next: 1, type: 8, name: $0) })
            #expect(reply.used == 64)
            #expect(!eight.withUnsafeBytes { reply.append(inode: 1, next: 1, type: 8, name: $0) })
            #expect(reply.used == 64)
        }
    }

    /// Whatever the names, all records that the service fits into the room it was given fit the kernel's buffer.
    @Test func plusRoomAlwaysSuffices() {
        for room in [4096, 8192, 32768, FrontEndLimits.listingBytes] {
            for length in 1...255 {
                let service = DirectoryLayout.serviceRoom(plus: room)
                let one = (DirectoryLayout.recordHeader + length + 7) & ~7
                let kernel = (DirectoryLayout.direntPlusHeader + length + 7) & ~7
                #expect(service / one * kernel <= room)
            }
            #expect(DirectoryLayout.serviceRoom(plus: room) >= DirectoryLayout.recordHeader + 256)
        }
    }
}
