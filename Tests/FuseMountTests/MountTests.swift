// The front end mounted for real over a scripted instance: what the kernel sends, and what it may keep.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

/// One mount over one scripted instance, in a directory of its own.
private final class Scratch {
    let path: String
    let mock: UnsafeMutablePointer<mock_instance>
    let mount: FuseMount
    let ended = Mutex(0)

    init(locks: FuseMount.Locks = .kernel) throws {
        scripted.withLock { $0 = ScriptedState() }
        var template = Array("/tmp/fos-mount-XXXXXX".utf8CString)
        path = try String(cString: #require(mkdtemp(&template)))
        mock = .allocate(capacity: 1)
        mock_start(mock, UInt32(FrontEndLimits.channels), -1, answerScripted)
        mock_run(mock)
        let files = IntrospectionFiles(names: ["names", "topology"]) { Array("\($0) here\n".utf8) }
        var configuration = FuseMount.Configuration(mountPoint: path, source: "fos:te,st", introspection: files) { print("log:", $0) }
        configuration.locks = locks
        mount = FuseMount(configuration) {}
        do {
            try mount.start(socket: mock.pointee.client_socket)
        } catch {
            mock_stop(mock)
            rmdir(path)
            throw error
        }
    }

    func finish() {
        mount.stop()
        mock_stop(mock)
        mock.deallocate()
        #expect(rmdir(path) == 0)
    }

    func count(_ name: String) -> UInt64 { mount.requestCounts().first { $0.name == name }?.count ?? 0 }

    func notify(_ kind: fos_notice_kind, inode: UInt64, name: String = "", child: UInt64 = 0, cookie: UInt64) {
        var notice = fos_notice()
        notice.kind = kind.rawValue
        notice.inode = inode
        notice.child = child
        notice.cookie = cookie
        notice.want_ack = 1
        notice.reply_to = 5
        notice.name_length = UInt32(name.utf8.count)
        withUnsafeMutableBytes(of: &notice.name) { $0.copyBytes(from: Array(name.utf8)) }
        mock_notify(mock, &notice)
        for _ in 0..<2000 where !scripted.withLock({ $0.acknowledged.contains(cookie) }) { usleep(1000) }
        #expect(scripted.withLock { $0.acknowledged.contains(cookie) })
    }
}

private func contents(_ path: String) -> String? {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = read(descriptor, &bytes, bytes.count)
    return count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
}

private func store(_ path: String, _ text: String, flags: Int32 = O_WRONLY | O_CREAT | O_TRUNC) -> Int32 {
    let descriptor = open(path, flags, 0o644)
    guard descriptor >= 0 else { return errno }
    defer { close(descriptor) }
    let bytes = Array(text.utf8)
    return write(descriptor, bytes, bytes.count) == bytes.count ? 0 : errno
}

private func names(_ path: String) -> [String]? {
    guard let directory = opendir(path) else { return nil }
    defer { closedir(directory) }
    var found: [String] = []
    while let entry = readdir(directory) {
        found.append(withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return found.sorted()
}

private let slowLookupIsOver = Mutex(false)

/// Waits for a task from a synchronous test.
private final class DispatchlessResult: @unchecked Sendable {
    private let value = Mutex<Int32?>(nil)
    init(_ task: Task<Int32, Never>) {
        Task.detached { [self] in
            let result = await task.value
            value.withLock { $0 = result }
        }
    }
    func wait(seconds: Int) -> Int32? {
        for _ in 0..<seconds * 1000 {
            if let result = value.withLock({ $0 }) { return result }
            usleep(1000)
        }
        return nil
    }
}

@Suite(.serialized, .enabled(if: access("/dev/fuse", R_OK | W_OK) == 0))
struct MountTests {
    @Test func filesAreMadeWrittenAndRead() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, "hello") == 0)
        #expect(contents(file) == "hello")
        var status = stat()
        #expect(stat(file, &status) == 0)
        #expect(status.st_size == 5)
        #expect(status.st_uid == getuid())
        #expect(store(file, "!", flags: O_WRONLY | O_TRUNC) == 0)
        #expect(contents(file) == "!")
        #expect(unlink(file) == 0)
        #expect(access(file, F_OK) == -1 && errno == ENOENT)
        #expect(scripted.withLock { !$0.log.contains { $0.hasPrefix("bad") } })
    }

    @Test func opensAreNoMessages() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        for index in 0..<20 { #expect(store(scratch.path + "/f\(index)", "x") == 0) }
        for index in 0..<20 { #expect(contents(scratch.path + "/f\(index)") == "x") }
        // One of each told the kernel never to ask again.
        #expect(scratch.count("OPEN") == 1)
        #expect(scratch.count("CREATE") == 1)
        #expect(scratch.count("FLUSH") == 1)
        #expect(scratch.count("RELEASE") == 0)
        #expect(scratch.count("MKNOD") == 20)
    }

    @Test func writesDoNotAskForCapabilities() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let descriptor = open(scratch.path + "/a", O_WRONLY | O_CREAT, 0o644)
        for _ in 0..<50 { #expect(write(descriptor, "x", 1) == 1) }
        close(descriptor)
        #expect(scratch.count("WRITE") == 50)
        #expect(scratch.count("GETXATTR") <= 1)
    }

    @Test func bigTransfersArriveWhole() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        var bytes = [UInt8](repeating: 0, count: 3 << 20)
        for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ index >> 12) }
        let descriptor = open(scratch.path + "/big", O_RDWR | O_CREAT, 0o644)
        #expect(write(descriptor, bytes, bytes.count) == bytes.count)
        // At most 1 MiB a request, so a few of them and not hundreds.
        #expect(scratch.count("WRITE") <= 4)
        #expect(scripted.withLock { $0.files[4097]?.data == bytes })
        #expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
        var back = [UInt8](repeating: 0, count: bytes.count)
        #expect(pread(descriptor, &back, back.count, 0) == back.count)
        #expect(back == bytes)
        close(descriptor)
    }

    @Test func cachesAreKeptUntilANotice() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, "old") == 0)
        #expect(contents(file) == "old")
        scripted.withLock {
            $0.files[4097]!.data = Array("newer".utf8)
            $0.files[4097]!.attributes.size = 5
        }
        #expect(contents(file) == "old")
        scratch.notify(FOS_NOTICE_INODE_PAGES, inode: 4097, cookie: 11)
        #expect(contents(file) == "newer")
        // A name, positive and negative.
        #expect(access(scratch.path + "/b", F_OK) == -1)
        scripted.withLock { _ = $0.make("b", mode: 0o100644, uid: 0, gid: 0) }
        #expect(access(scratch.path + "/b", F_OK) == -1)
        scratch.notify(FOS_NOTICE_ENTRY, inode: 1, name: "b", cookie: 12)
        #expect(access(scratch.path + "/b", F_OK) == 0)
        // A listing.
        #expect(names(scratch.path) == [".", "..", "a", "b"])
        #expect(names(scratch.path) == [".", "..", "a", "b"])
        scripted.withLock { _ = $0.make("c", mode: 0o100644, uid: 0, gid: 0) }
        scratch.notify(FOS_NOTICE_DIRECTORY, inode: 1, cookie: 13)
        #expect(names(scratch.path) == [".", "..", "a", "b", "c"])
        // Attributes.
        scripted.withLock { $0.files[4097]!.attributes.mode = 0o100600 }
        scratch.notify(FOS_NOTICE_INODE_ATTRIBUTES, inode: 4097, cookie: 14)
        var status = stat()
        #expect(stat(file, &status) == 0 && status.st_mode == 0o100600)
        // What the kernel never knew is no error.
        scratch.notify(FOS_NOTICE_INODE_PAGES, inode: 999_999, cookie: 15)
    }

    /// Of a file that another client removed, the kernel keeps nothing that nobody has open.
    @Test func removedFilesAreForgotten() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        for name in ["a", "b"] { #expect(store(scratch.path + "/" + name, "text") == 0) }
        let held = open(scratch.path + "/b", O_RDONLY)
        defer { close(held) }
        scripted.withLock { state in
            state.entries = []
            for inode in [4097, 8193] as [UInt64] { state.files[inode]!.attributes.links = 0 }
        }
        scratch.notify(FOS_NOTICE_REMOVED, inode: 1, name: "a", child: 4097, cookie: 31)
        scratch.notify(FOS_NOTICE_REMOVED, inode: 1, name: "b", child: 8193, cookie: 32)
        for _ in 0..<1000 where scripted.withLock({ $0.files[4097] != nil }) { usleep(1000) }
        #expect(scripted.withLock { $0.files[4097] == nil && $0.files[8193] != nil })
        #expect(access(scratch.path + "/a", F_OK) == -1 && access(scratch.path + "/b", F_OK) == -1)
        var status = stat()
        #expect(fstat(held, &status) == 0 && status.st_nlink == 0 && contents("/proc/self/fd/\(held)") == "text")
        // A notice of a file that is not what the name means now takes nothing away.
        #expect(store(scratch.path + "/c", "text") == 0)
        scratch.notify(FOS_NOTICE_REMOVED, inode: 1, name: "c", child: 4097, cookie: 33)
        #expect(contents(scratch.path + "/c") == "text" && stat(scratch.path + "/c", &status) == 0 && status.st_nlink == 1)
    }

    /// A listing with attributes is answered in two steps; what its first part says is revoked during the second.
    @Test func noticesDoNotOvertakeAnswers() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        scripted.withLock { state in
            _ = state.make("a file", mode: 0o100644, uid: 0, gid: 0)
            _ = state.make("directory", mode: 0o040755, uid: 0, gid: 0)
            for inode in state.files.keys { state.files[inode]!.references = 0 }
            state.beforeLookup = { state, name in
                guard name == "directory" else { return nil }
                state.files[4097]!.attributes.mode = 0o100600
                var notice = fos_notice()
                notice.kind = FOS_NOTICE_INODE_ATTRIBUTES.rawValue
                notice.inode = 4097
                notice.cookie = 21
                notice.want_ack = 1
                notice.reply_to = 5
                return notice
            }
        }
        #expect(names(scratch.path) == [".", "..", "a file", "directory"])
        for _ in 0..<2000 where !scripted.withLock({ $0.acknowledged.contains(21) }) { usleep(1000) }
        #expect(scripted.withLock { $0.acknowledged.contains(21) && $0.beforeLookup == nil })
        var status = stat()
        #expect(stat(scratch.path + "/a file", &status) == 0 && status.st_mode == 0o100600)
    }

    /// What a program has written into a hole through a mapping is data at once, as in a local file system.
    @Test func seeksSeeWhatMappingsWrote() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let descriptor = open(scratch.path + "/sparse", O_RDWR | O_CREAT, 0o644)
        defer { close(descriptor) }
        #expect(ftruncate(descriptor, 16384) == 0)
        let (data, hole) = (Int32(3), Int32(4))
        #expect(lseek(descriptor, 0, data) == -1 && errno == ENXIO)
        let map = try #require(mmap(nil, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0))
        defer { munmap(map, 16384) }
        map.storeBytes(of: 7, toByteOffset: 8192, as: UInt8.self)
        #expect(lseek(descriptor, 0, data) == 8192)
        map.storeBytes(of: 7, toByteOffset: 0, as: UInt8.self)
        #expect(lseek(descriptor, 0, hole) == 4096 && lseek(descriptor, 0, data) == 0 && lseek(descriptor, 8192, hole) == 12288)
    }

    /// Pages of a mapping come through an open file with O_DIRECT too, and the kernel keeps them.
    @Test func directOpensWithMappingsLeavePages() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, String(repeating: "x", count: 8192)) == 0)
        let descriptor = open(file, O_RDWR | 0o40000)
        #expect(descriptor >= 0)
        defer { close(descriptor) }
        #expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
        let room = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { room.deallocate() }
        #expect(pread(descriptor, room, 4096, 0) == 4096)
        #expect(scripted.withLock { $0.lastReadFlags } == FOS_IO_DIRECT.rawValue)
        #expect(pwrite(descriptor, room, 4096, 4096) == 4096)
        #expect(scripted.withLock { $0.lastIOFlags } == FOS_IO_DIRECT.rawValue)
        let map = try #require(mmap(nil, 4096, PROT_READ, MAP_SHARED, descriptor, 0))
        #expect(map.load(as: UInt8.self) == UInt8(ascii: "x"))
        munmap(map, 4096)
        #expect(scripted.withLock { $0.lastReadFlags } == 0)
    }

    /// The device number of a mount is known without asking the mount, which may have nobody left to answer.
    @Test func readAheadAsksNobody() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        for _ in 0..<1000 where contents(ReadAhead.file(of: scratch.path) ?? "") != "1024\n" && geteuid() == 0 { usleep(1000) }
        let before = scratch.mount.requestCounts().map(\.count).reduce(0, +)
        #expect(ReadAhead.file(of: scratch.path) != nil && ReadAhead.file(of: scratch.path + "/none") == nil)
        #expect(scratch.mount.requestCounts().map(\.count).reduce(0, +) == before)
    }

    @Test func referencesAreCountedInListings() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        scripted.withLock { state in
            for index in 0..<500 { _ = state.make("file number \(index)", mode: 0o100644, uid: 0, gid: 0) }
            for index in 0..<20 { _ = state.make("dir\(index)", mode: 0o040755, uid: 0, gid: 0) }
            for inode in state.files.keys { state.files[inode]!.references = 0 }
        }
        let found = try #require(names(scratch.path))
        #expect(found.count == 522)
        for name in found where name.hasPrefix("dir") {
            var status = stat()
            #expect(stat(scratch.path + "/" + name, &status) == 0 && status.st_mode == 0o040755)
        }
        // Dropping all that the kernel knows gives every reference back, and no more.
        #expect(store("/proc/sys/vm/drop_caches", "2", flags: O_WRONLY) == 0)
        for _ in 0..<500 where !allForgotten() { usleep(2000) }
        #expect(allForgotten())
        #expect(scripted.withLock { !$0.log.contains { $0.hasPrefix("bad") } })
    }

    private func allForgotten() -> Bool {
        scripted.withLock { $0.files.allSatisfy { $0.key == 1 || $0.value.references == 0 } }
    }

    @Test func temporaryFilesHaveNoName() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let temporary: Int32 = 0o20000000 | O_DIRECTORY
        let descriptor = open(scratch.path, temporary | O_RDWR, 0o600)
        #expect(descriptor >= 0)
        #expect(write(descriptor, "abc", 3) == 3)
        var status = stat()
        #expect(fstat(descriptor, &status) == 0)
        #expect(status.st_size == 3 && status.st_nlink == 0)
        close(descriptor)
        #expect(names(scratch.path) == [".", ".."])
    }

    @Test func privilegeIsKilledAsTheKernelSays() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/s"
        #expect(store(file, "x") == 0)
        #expect(chown(file, 5, gid_t.max) == 0)
        #expect(scripted.withLock { $0.lastSetBits } & FOS_SET_KILL_PRIVILEGE.rawValue != 0)
        #expect(chmod(file, 0o4755) == 0)
        #expect(scripted.withLock { $0.lastSetBits } & FOS_SET_KILL_PRIVILEGE.rawValue == 0)
        // Root has CAP_FSETID: its writes keep the bits.
        #expect(store(file, "y", flags: O_WRONLY) == 0)
        #expect(scripted.withLock { $0.lastIOFlags } & FOS_IO_KILL_PRIVILEGE.rawValue == 0)
    }

    @Test func fullServiceIsAskedAgain() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        scripted.withLock { $0.fullWrites = 2 }
        #expect(store(scratch.path + "/a", "x") == 0)
        scripted.withLock { $0.fullWrites = 1000 }
        #expect(store(scratch.path + "/a", "x") == ENOSPC)
        scripted.withLock { $0.fullWrites = 0 }
    }

    @Test func appendsThatLandElsewhereAreNotCached() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/log"
        #expect(store(file, "one\n") == 0)
        #expect(contents(file) == "one\n")
        // Another client has appended meanwhile, and its notice has not come.
        scripted.withLock {
            $0.files[4097]!.data = Array("one\ntwo\n".utf8)
            $0.files[4097]!.attributes.size = 8
            $0.trueEnd = 8
        }
        #expect(store(file, "three\n", flags: O_WRONLY | O_APPEND) == 0)
        // The kernel may take one answer about the size that was on its way when its cache was dropped.
        for _ in 0..<1000 where contents(file) != "one\ntwo\nthree\n" { usleep(1000) }
        #expect(contents(file) == "one\ntwo\nthree\n")
    }

    @Test func introspectionIsReadOnlyAndHidden() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let directory = scratch.path + "/.fos"
        #expect(names(scratch.path) == [".", ".."])
        #expect(names(directory) == [".", "..", "names", "topology"])
        #expect(contents(directory + "/names") == "names here\n")
        var status = stat()
        #expect(stat(directory + "/topology", &status) == 0)
        #expect(status.st_size == 14 && status.st_mode == 0o100444)
        #expect(store(directory + "/new", "x") == EROFS)
        #expect(store(directory + "/names", "x", flags: O_WRONLY) == EROFS || geteuid() != 0)
        #expect(mkdir(directory, 0o755) == -1 && errno == EEXIST)
        #expect(rmdir(directory) == -1 && errno == EPERM)
        #expect(rename(directory, scratch.path + "/x") == -1 && errno == EPERM)
        #expect(unlink(directory + "/names") == -1 && errno == EROFS)
        #expect(contents(directory + "/missing") == nil)
    }

    @Test func statfsAndIoctl() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        var status = statvfs()
        #expect(statvfs(scratch.path, &status) == 0)
        #expect(status.f_blocks == 1000 && status.f_bavail == 900 && status.f_namemax == 255 && status.f_ffree == 40)
        #expect(store(scratch.path + "/a", "x") == 0)
        let descriptor = open(scratch.path + "/a", O_RDONLY)
        var value: Int32 = 0
        #expect(ioctl(descriptor, 0x8004_6601, &value) == -1 && errno == ENOTTY)
        close(descriptor)
        let long = scratch.path + "/" + String(repeating: "n", count: 256)
        #expect(store(long, "x") == ENAMETOOLONG)
    }

    @Test func mountTableNamesTheInstance() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let table = try #require(contents("/proc/self/mounts"))
        let line = try #require(table.split(separator: "\n").first { $0.contains(scratch.path) })
        let words = line.split(separator: " ")
        #expect(words[0] == "fos:te,st")
        #expect(words[2] == "fuse.fos")
        #expect(words[3].contains("default_permissions"))
    }

    @Test(.enabled(if: geteuid() == 0)) func readAheadIsATransfer() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = try #require(ReadAhead.file(of: scratch.path))
        for _ in 0..<1000 where contents(file) != "1024\n" { usleep(1000) }
        #expect(contents(file) == "1024\n")
    }

    @Test func unmountFromOutsideEndsTheMount() throws {
        let scratch = try Scratch()
        #expect(store(scratch.path + "/a", "x") == 0)
        let held = open(scratch.path + "/a", O_RDONLY)
        #expect(scratch.mount.unmount(lazy: false) == EBUSY)
        close(held)
        #expect(scratch.mount.unmount(lazy: false) == 0)
        for _ in 0..<1000 where scratch.mount.workerCount != 0 { usleep(1000) }
        #expect(scratch.mount.workerCount == 0)
        scratch.finish()
    }

    @Test func stopWithAnOpenFileEndsToo() throws {
        let scratch = try Scratch()
        #expect(store(scratch.path + "/a", "x") == 0)
        let held = open(scratch.path + "/a", O_RDONLY)
        scratch.finish()
        var byte: UInt8 = 0
        #expect(pread(held, &byte, 1, 4096) <= 0)
        close(held)
    }

    @Test func badMountPointsGiveOneLine() throws {
        let files = IntrospectionFiles(names: []) { _ in nil }
        for (path, words) in [("/nonexistent/dir", "No such file"), ("/etc/passwd", "Not a directory")] {
            let mount = FuseMount(FuseMount.Configuration(mountPoint: path, source: "fos:x", introspection: files) { _ in }) {}
            let mock = UnsafeMutablePointer<mock_instance>.allocate(capacity: 1)
            mock_start(mock, UInt32(FrontEndLimits.channels), -1, answerScripted)
            mock_run(mock)
            let error = #expect(throws: FuseMountError.self) { try mount.start(socket: mock.pointee.client_socket) }
            #expect(error?.description.contains(words) == true)
            mock_stop(mock)
            mock.deallocate()
        }
    }

    @Test func birthTimesAreShown() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        #expect(store(scratch.path + "/a", "x") == 0)
        let birth = try run("stat -c %W \(scratch.path)/a \(scratch.path)/.fos/names | head -1")
        #expect(birth == "77\n")
    }

    /// What a shell command prints.
    private func run(_ command: String) throws -> String {
        let pipe = try #require(popen(command, "r"))
        defer { pclose(pipe) }
        var text = ""
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, pipe) != nil { text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
        return text
    }

    @Test func fleetLocksAreMessages() throws {
        let scratch = try Scratch(locks: .fleet)
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, "x") == 0)
        #expect(contents(file) == "x")
        let opens = scripted.withLock { state in state.log.filter { $0.hasPrefix("open") || $0.hasPrefix("release") || $0.hasPrefix("flush") } }
        // CREATE opened it the first time.
        #expect(opens.filter { $0 == "open 4097" }.count == 1)
        for _ in 0..<500 where scripted.withLock({ $0.log.filter { $0 == "release 4097" }.count }) < 2 { usleep(1000) }
        #expect(scripted.withLock { $0.log.filter { $0 == "release 4097" }.count } == 2)
        #expect(opens.contains("flush 4097"))
    }

    @Test func locksOfADescriptionEndWithIt() throws {
        let scratch = try Scratch(locks: .fleet)
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, "x") == 0)
        let descriptionLock: Int32 = 37  // F_OFD_SETLK
        let first = open(file, O_RDWR)
        let second = open(file, O_RDWR)
        defer { close(second) }
        #expect(lock(first, descriptionLock, F_WRLCK) == 0)
        #expect(lock(second, descriptionLock, F_WRLCK) == EAGAIN)
        close(first)
        for _ in 0..<1000 where scripted.withLock({ $0.lockOwner != nil }) { usleep(1000) }
        #expect(lock(second, descriptionLock, F_WRLCK) == 0)
        #expect(scripted.withLock { $0.lockOwner != nil })
    }

    private func lock(_ descriptor: Int32, _ command: Int32, _ type: Int32) -> Int32 {
        var lock = flock()
        lock.l_type = Int16(type)
        lock.l_whence = Int16(SEEK_SET)
        return fcntl(descriptor, command, &lock) == 0 ? 0 : errno
    }

    /// A wait whose message takes its time is interrupted all the same.
    @Test func interruptsAreNotGivenUp() throws {
        let scratch = try Scratch(locks: .fleet)
        defer { scratch.finish() }
        #expect(store(scratch.path + "/a", "x") == 0)
        scripted.withLock {
            $0.lockOwner = 1
            $0.earlyCancels = 100
        }
        let program = "import fcntl; f = open(\"\(scratch.path)/a\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX)"
        let started = try run("python3 -c '\(program)' >/dev/null 2>&1 & echo $!")
        let child = try #require(pid_t(started.dropLast()))
        for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
        kill(child, SIGKILL)
        for _ in 0..<5000 where scripted.withLock({ $0.lockWaiter != nil }) { usleep(1000) }
        #expect(scripted.withLock { $0.lockWaiter == nil && $0.earlyCancels == 0 })
    }

    /// A stop returns when all is over, also if another thread has begun it.
    @Test func everyStopWaitsForTheEnd() throws {
        let scratch = try Scratch()
        scripted.withLock {
            $0.beforeLookup = { state, name in
                guard name == "slow" else { return nil }
                usleep(500_000)
                slowLookupIsOver.withLock { $0 = true }
                return fos_notice()
            }
        }
        _ = try run("stat \(scratch.path)/slow >/dev/null 2>&1 & echo")
        usleep(200_000)
        var thread = pthread_t()
        let mount = Unmanaged.passRetained(scratch.mount)
        pthread_create(&thread, nil, { argument in
            Unmanaged<FuseMount>.fromOpaque(argument!).takeRetainedValue().stop()
            return nil
        }, mount.toOpaque())
        usleep(100_000)
        scratch.mount.stop()
        #expect(slowLookupIsOver.withLock { $0 })
        pthread_join(thread, nil)
        scratch.finish()
    }

    @Test func waitingLocksAreGrantedAndInterrupted() throws {
        let scratch = try Scratch(locks: .fleet)
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, "x") == 0)
        // Another client holds the lock.
        scripted.withLock { $0.lockOwner = 1 }
        let descriptor = open(file, O_RDWR)
        defer { close(descriptor) }
        #expect(lock(descriptor, F_SETLK, F_WRLCK) == EAGAIN)
        // A program that waits and is killed: its lock request is cancelled, and workers go on serving meanwhile.
        let program = "import fcntl; f = open(\"\(file)\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX)"
        let started = try run("python3 -c '\(program)' >/dev/null 2>&1 & echo $!")
        let child = try #require(pid_t(started.dropLast()))
        for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
        var meanwhile = stat()
        #expect(stat(file, &meanwhile) == 0 && meanwhile.st_size == 1)
        kill(child, SIGKILL)
        for _ in 0..<10_000 where scripted.withLock({ $0.lockWaiter != nil }) { usleep(2000) }
        #expect(scripted.withLock { $0.log.contains("wait") && $0.log.contains("cancel") && $0.lockWaiter == nil })
        // One that waits until the holder lets go.
        let job = Task.detached { [self] in lock(descriptor, F_SETLKW, F_WRLCK) }
        for _ in 0..<20_000 where scripted.withLock({ $0.lockWaiter == nil }) { usleep(1000) }
        let waiting = scripted.withLock { state in
            state.lockOwner = nil
            return state.lockWaiter != nil
        }
        #expect(waiting)
        // Any message lets the script look again.
        var status = statvfs()
        statvfs(scratch.path, &status)
        let done = DispatchlessResult(job)
        #expect(done.wait(seconds: 5) == 0)
    }

    /// Thirty readers that all meet a transaction, which ends only when a write is served: the write is served.
    @Test func stuckWorkersAreJoinedByOthers() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let file = scratch.path + "/a"
        #expect(store(file, String(repeating: "x", count: 200_000)) == 0)
        #expect(store(scratch.path + "/b", "") == 0)
        #expect(store("/proc/sys/vm/drop_caches", "1", flags: O_WRONLY) == 0)
        scripted.withLock { $0.readsWaitForWrite = true }
        let output = try run("""
            for i in $(seq 30); do dd if=\(file) of=/dev/null bs=4096 count=1 skip=$i iflag=direct status=none || echo failed & done
            sleep 0.3; echo written > \(scratch.path)/b; wait; cat \(scratch.path)/b
            """)
        #expect(output == "written\n")
        // Those that were added have left, or leave with the next requests.
        for _ in 0..<200 { _ = contents(scratch.path + "/.fos/names") }
        #expect(scratch.mount.workerCount <= 35)
    }

    @Test func manyProgramsAtOnce() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        let path = scratch.path
        var threads: [pthread_t] = []
        for index in 0..<8 {
            let job = UnsafeMutablePointer<(String, Int)>.allocate(capacity: 1)
            job.initialize(to: (path, index))
            var thread = pthread_t()
            pthread_create(&thread, nil, { argument in
                let job = argument!.assumingMemoryBound(to: (String, Int).self)
                for round in 0..<50 {
                    let file = "\(job.pointee.0)/t\(job.pointee.1)-\(round)"
                    guard store(file, "text \(round)") == 0, contents(file) == "text \(round)", unlink(file) == 0 else { return nil }
                }
                let done = UnsafeMutableRawPointer(bitPattern: 1)
                job.deinitialize(count: 1)
                job.deallocate()
                return done
            }, job)
            threads.append(thread)
        }
        for thread in threads {
            var result: UnsafeMutableRawPointer?
            pthread_join(thread, &result)
            #expect(result != nil)
        }
        #expect(scripted.withLock { $0.entries.isEmpty })
    }
}
