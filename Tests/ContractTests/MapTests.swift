// Direct mapping over a live daemon: the descriptor comes over the socket, and reads need no message.

import CFosProxy
import CFosWire
import Foundation
import Testing

@Suite(.enabled(if: FosMount.isPossible, "needs /dev/fuse and root")) struct LiveMapTests {
    private func write(_ bytes: [UInt8], to path: String, at offset: Int) {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        #expect(pwrite(descriptor, bytes, bytes.count, offset) == bytes.count)
        close(descriptor)
    }
    private func map(_ client: MountClient, _ inode: UInt64) throws -> fos_mapping {
        try #require(client.call(FOS_OP_MAP, inode, fos_map_request(access: 4, flags: 0)).status == 0)
        var reply = fos_payload_const(fos_reply(client.client, client.channel)).loadUnaligned(as: fos_map_reply.self)
        var mapping = fos_mapping()
        try #require(fos_map_receive(client.client, &reply, &mapping) == 0)
        return mapping
    }
    /// READ by message: takes pages back from the kernel, and brings the access time forward.
    private func read(_ client: MountClient, _ inode: UInt64, _ offset: UInt64, _ count: Int) -> [UInt8] {
        let request = fos_request(client.client, client.channel, UInt16(FOS_OP_READ.rawValue), inode)!
        request.pointee.bulk_length = UInt32(count)
        request.pointee.length = UInt32(MemoryLayout<fos_io_request>.size)
        fos_payload(request).storeBytes(of: fos_io_request(offset: offset, owner: 0, flags: 0, open_flags: 0), as: fos_io_request.self)
        guard fos_call(client.client, client.channel) == 0 else { return [] }
        let count = Int(fos_reply(client.client, client.channel)!.pointee.bulk_length)
        return Array(UnsafeBufferPointer(start: fos_bulk(client.client, client.channel), count: count))
    }
    private func direct(_ mapping: fos_mapping, _ offset: UInt64, _ count: Int) -> (Int, [UInt8]) {
        var mapping = mapping
        var bytes = [UInt8](repeating: 0, count: count)
        let got = fos_map_read(&mapping, offset, &bytes, UInt64(count), Int64(time(nil)))
        return (got, got > 0 ? Array(bytes[..<got]) : [])
    }

    @Test func readsInSharedMemory() throws {
        let mount = try FosMount()
        defer { #expect(mount.end() == 0) }
        let client = try MountClient(mountedAt: mount.directory)
        let inode = client.create("file")
        let path = mount.directory + "/file"
        let data = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
        write(data, to: path, at: 0)
        #expect(read(client, inode, 0, 10) == Array(data[..<10]))
        var mapping = try map(client, inode)
        #expect(mapping.bytes == 1_003_520 && direct(mapping, 0, 1_000_000).1 == data && direct(mapping, 999_990, 100).0 == 10)
        // It cannot be written, not even by changing the protection.
        #expect(mprotect(UnsafeMutableRawPointer(mutating: mapping.data), 4096, PROT_READ | PROT_WRITE) == -1)

        // A write through the mount is seen; in between the kernel may hold pages, and then a message is needed.
        write([1, 2, 3], to: path, at: 500_000)
        #expect(direct(mapping, 500_000, 3).0 == -Int(EAGAIN))
        #expect(read(client, inode, 500_000, 3) == [1, 2, 3] && direct(mapping, 499_999, 5).1 == [data[499_999], 1, 2, 3, data[500_003]])

        // A shared mapping in the kernel and the region show the same bytes, one after the other.
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        let shared = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)!
        for round in UInt8(0)..<20 {
            shared.storeBytes(of: round, toByteOffset: 100, as: UInt8.self)
            #expect(direct(mapping, 100, 1).0 == -Int(EAGAIN))
            #expect(read(client, inode, 100, 1) == [round])
            // Dirty pages that were written back count as held until the next look.
            #expect(read(client, inode, 100, 1) == [round] && direct(mapping, 100, 1).1 == [round])
        }
        munmap(shared, 4096)
        close(descriptor)

        // A truncation faults nobody, and shows zeros at most.
        #expect(truncate(path, 10) == 0)
        _ = read(client, inode, 0, 1)
        #expect(direct(mapping, 0, 100).0 == 10 && mapping.data[900_000] == 0)
        #expect(truncate(path, 0) == 0)
        #expect(direct(mapping, 0, 100).0 == -Int(ESTALE) && mapping.data[5] == 0)
        fos_map_release(&mapping)
        #expect(client.call(FOS_OP_MAP, inode, fos_map_request(access: 4, flags: 0)).status == -EINVAL)
    }

    /// A packet that nobody waited for is dropped by the next who does.
    @Test func packetsOfOthersAreDropped() throws {
        let mount = try FosMount()
        defer { #expect(mount.end() == 0) }
        let client = try MountClient(mountedAt: mount.directory)
        let inode = client.create("file")
        write([1, 2, 3], to: mount.directory + "/file", at: 0)
        _ = read(client, inode, 0, 1)
        for _ in 0..<10 { #expect(client.call(FOS_OP_MAP, inode, fos_map_request(access: 4, flags: 0)).status == 0) }
        var mapping = try map(client, inode)
        #expect(direct(mapping, 0, 3).1 == [1, 2, 3])
        fos_map_release(&mapping)
        // More than the socket holds: some are lost, nobody waits for the one who does not read, and then all is as before.
        for _ in 0..<2_000 { #expect(client.call(FOS_OP_MAP, inode, fos_map_request(access: 4, flags: 0)).status == 0) }
        var reply = fos_payload_const(fos_reply(client.client, client.channel)).loadUnaligned(as: fos_map_reply.self)
        let late = fos_map_receive(client.client, &reply, &mapping)
        #expect(late == 0 || late == -ETIMEDOUT)
        fos_map_release(&mapping)
        mapping = try map(client, inode)
        #expect(direct(mapping, 0, 3).1 == [1, 2, 3])
        fos_map_release(&mapping)
        // Who has not opened it may not map it, and there is nothing to receive then.
        let other = try MountClient(mountedAt: mount.directory)
        #expect(other.call(FOS_OP_MAP, inode, fos_map_request(access: 4, flags: 0)).status == -EACCES)
    }
}
