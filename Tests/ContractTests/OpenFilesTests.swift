// `.fos/open/INODE`: a process that has a file open by messages gets a descriptor of the kernel's for it, and nobody else does.

import CFosProxy
import CFosWire
import Foundation
import Synchronization
import Testing

/// A client of a mount beside it, in this process.
final class MountClient {
    let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
    let channel: Int32

    init(mountedAt directory: String) throws {
        client.initialize(to: fos_client())
        var uid: uid_t = 0
        var name = [CChar](repeating: 0, count: 256)
        var point = [CChar](repeating: 0, count: 4096)
        let real = try #require(realpath(directory, nil))
        defer { free(real) }
        try #require(fos_find_mount(real, &uid, &name, name.count, &point, point.count) == 0)
        try #require(fos_client_connect(client, uid, name, 4, 0) == 0)
        channel = fos_channel_acquire(client)
        try #require(channel >= 0)
    }
    deinit {
        fos_client_disconnect(client)
        client.deallocate()
    }

    /// Sends a request whose payload is a fixed part and a name; the status, and the attributes that came.
    func call<Fixed: BitwiseCopyable>(
        _ operation: fos_operation, _ inode: UInt64, _ fixed: Fixed, name: String = ""
    ) -> (status: Int32, attributes: fos_attributes) {
        let request = fos_request(client, channel, UInt16(operation.rawValue), inode)!
        let bytes = withUnsafeBytes(of: fixed) { Array($0) } + Array(name.utf8)
        bytes.withUnsafeBytes { fos_payload(request).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        request.pointee.length = UInt32(bytes.count)
        let status = fos_call(client, channel)
        let reply = fos_reply(client, channel)!
        guard status == 0, reply.pointee.length >= MemoryLayout<fos_attributes>.size else { return (status, fos_attributes()) }
        return (status, fos_payload_const(reply).loadUnaligned(as: fos_attributes.self))
    }

    func create(_ name: String, mode: UInt32 = 0o600) -> UInt64 {
        let make = fos_make_request(
            mode: mode, umask: 0, device: 0, open_flags: UInt32(O_RDWR), name_length: UInt32(name.utf8.count), take_reference: 1)
        return call(FOS_OP_CREATE, UInt64(FOS_ROOT_INODE), make, name: name).attributes.inode
    }
    func release(_ inode: UInt64) -> Int32 { call(FOS_OP_RELEASE, inode, fos_release_request(owner: 0, flags: 0, count: 1)).status }
}

@Suite(.enabled(if: FosMount.isPossible, "needs /dev/fuse and root")) struct OpenFilesTests {
    private func opens(_ path: String) -> Bool {
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        if descriptor >= 0 { close(descriptor) }
        return descriptor >= 0
    }
    private func contents(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 100)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        return count < 0 ? "errno \(errno)" : String(decoding: bytes[..<count], as: UTF8.self)
    }
    private func shell(_ command: String) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", command]
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus
    }

    @Test func aReferenceBecomesADescriptor() throws {
        let mount = try FosMount()
        defer { #expect(mount.end() == 0) }
        let client = try MountClient(mountedAt: mount.directory)
        let inode = client.create("file")
        let path = mount.directory + "/.fos/open/\(inode)"
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        try #require(descriptor >= 0)
        #expect(write(descriptor, "by the kernel", 13) == 13)
        var (byName, byNumber) = (stat(), stat())
        #expect(stat(mount.directory + "/file", &byName) == 0 && fstat(descriptor, &byNumber) == 0)
        #expect(byName.st_ino == byNumber.st_ino && UInt64(byName.st_ino) == inode && byName.st_dev == byNumber.st_dev)
        #expect(byNumber.st_size == 13 && byNumber.st_nlink == 1)
        // The kernel names the thread; the process is what counts.
        let fromThread = Mutex(false)
        let isOver = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let descriptor = open(path, O_RDWR | O_CLOEXEC)
            fromThread.withLock { $0 = descriptor >= 0 }
            close(descriptor)
            isOver.signal()
        }
        isOver.wait()
        #expect(fromThread.withLock { $0 })

        // Nobody else, though the kernel has just used the name; and nothing is listed.
        #expect(try shell("test -e '\(path)'") == 1)
        #expect(opens(path), "the stranger's look took nothing away")
        #expect(try FileManager.default.contentsOfDirectory(atPath: mount.directory + "/.fos/open") == [])
        for name in [
            "0", "1", "0\(inode)", "+\(inode)", "\(inode) ", "\(inode + 4096)", "99999999999999999999", "4611686018427387905", "x",
        ] {
            #expect(!opens(mount.directory + "/.fos/open/" + name), "\(name)")
        }
        #expect(mkdir(mount.directory + "/.fos/open/d", 0o755) == -1 && errno == EROFS)

        // Without a name, and after the client's own reference has gone, the descriptor keeps the file.
        #expect(unlink(mount.directory + "/file") == 0)
        let second = open(path, O_RDONLY | O_CLOEXEC)
        #expect(second >= 0 && contents(second) == "by the kernel")
        #expect(client.release(inode) == 0 && !opens(path))
        #expect(contents(descriptor) == "by the kernel" && fstat(second, &byNumber) == 0 && byNumber.st_nlink == 0)
        close(descriptor)
        close(second)
        // The name kept nothing of it: the inode is gone soon, whatever the kernel has cached.
        var status: Int32 = 0
        for _ in 0..<200 where status == 0 {
            status = client.call(FOS_OP_GETATTR, inode, UInt64(0)).status
            if status == 0 { usleep(10_000) }
        }
        #expect(status == -ESTALE)
    }

    /// Files that are never seen by name, directories, and a client that only looked.
    @Test func onlyWhatIsOpen() throws {
        let mount = try FosMount()
        defer { #expect(mount.end() == 0) }
        let client = try MountClient(mountedAt: mount.directory)
        let make = fos_make_request(mode: 0o600, umask: 0, device: 0, open_flags: UInt32(O_RDWR), name_length: 0, take_reference: 1)
        let temporary = client.call(FOS_OP_TMPFILE, UInt64(FOS_ROOT_INODE), make).attributes.inode
        #expect(temporary != 0 && opens(mount.directory + "/.fos/open/\(temporary)"))
        #expect(FileManager.default.createFile(atPath: mount.directory + "/seen", contents: Data()))
        var seen = stat()
        #expect(stat(mount.directory + "/seen", &seen) == 0 && !opens(mount.directory + "/.fos/open/\(seen.st_ino)"))
        #expect(client.call(FOS_OP_OPEN, UInt64(FOS_ROOT_INODE), fos_open_request(open_flags: UInt32(O_RDONLY), room: 0)).status == 0)
        #expect(open(mount.directory + "/.fos/open/1", O_RDONLY | O_DIRECTORY) == -1 && errno == ENOENT)
        // Clients cannot ask for it themselves.
        #expect(client.call(FOS_OP_LOOKUP_OPEN, temporary, fos_lookup_open_request(pid: UInt32(getpid()), reserved: 0)).status == -EPERM)
    }
}
