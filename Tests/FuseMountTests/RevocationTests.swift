// What the kernel may keep, and what it gives up when the service says so: notices, their order, and what the front end
// itself revokes.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

private final class Said: Sendable {
    private let storage = Mutex<[String]>([])
    var lines: [String] { storage.withLock { $0 } }
    func add(_ line: String) { storage.withLock { $0.append(line) } }
}

extension MountTests {
    @Suite struct Revocation {
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

        /// News of a name below what is no directory, or not any more, is old news: nothing to revoke, nothing to complain of.
        @Test func namesBelowAFileAreNoError() throws {
            let said = Said()
            let scratch = try Scratch { $0.log = { said.add($0) } }
            defer { scratch.finish() }
            #expect(store(scratch.path + "/a", "x") == 0)
            scratch.notify(FOS_NOTICE_ENTRY, inode: 4097, name: "b", cookie: 21)
            scratch.notify(FOS_NOTICE_REMOVED, inode: 4097, name: "b", child: 4098, cookie: 22)
            #expect(said.lines == [])
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
    }
}
