// The front end mounted for real over a scripted instance: what the kernel sends, and what programs see.
//
// The suites that extend this one are in files of their own. They share one script, so all run one after another.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

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

    @Test func birthTimesAreShown() throws {
        let scratch = try Scratch()
        defer { scratch.finish() }
        #expect(store(scratch.path + "/a", "x") == 0)
        let birth = try run("stat -c %W \(scratch.path)/a \(scratch.path)/.fos/names | head -1")
        #expect(birth == "77\n")
    }
}
