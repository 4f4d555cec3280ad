// What `fos run` is made of: the tables, the value of LD_PRELOAD, finding a command, the figures.

import CFosWire
import CSyscallSites
import Glibc
import Testing

@testable import FosCommand

/// A fresh directory, removed at the end.
private func withDirectory(_ body: (String) throws -> Void) throws {
    var name = Array("/tmp/fos-run-tests.XXXXXX".utf8CString)
    let path = try #require(mkdtemp(&name).map { String(cString: $0) })
    defer { _ = spawnAndWait(["rm", "-rf", path]) }
    try body(path)
}
private func spawnAndWait(_ command: [String]) -> Int32 {
    let pid = spawnHere(command)
    return pid > 0 ? waitForExit(of: pid) : -1
}

#if arch(x86_64)
@Suite struct SiteTableTests {
    @Test func madeWhenMissingOrDamaged() throws {
        try withDirectory { directory in
            let tables = SiteTables(directory: directory + "/a/b")
            let libraries = SiteTables.libraries(for: nil)
            try #require(libraries.contains { $0.hasSuffix("/libc.so.6") })
            #expect(tables.makeMissing(for: libraries) == nil)
            let file = try #require(tableFile(of: libraries[0], in: tables.directory))
            #expect(fos_sites_usable(tables.directory, identity(of: libraries[0])) == 1)
            #expect(permissions(directory + "/a") == 0o700)
            // A usable one is left as it is, a damaged one and one that others may write are replaced.
            let made = inode(file)
            #expect(tables.makeMissing(for: libraries) == nil && inode(file) == made)
            truncate(file, 100)
            #expect(fos_sites_usable(tables.directory, identity(of: libraries[0])) == 0)
            #expect(tables.makeMissing(for: libraries) == nil)
            #expect(fos_sites_usable(tables.directory, identity(of: libraries[0])) == 1)
            chmod(file, 0o666)
            #expect(fos_sites_usable(tables.directory, identity(of: libraries[0])) == 0)
            #expect(tables.makeMissing(for: libraries) == nil && permissions(file) == 0o644)
        }
    }

    @Test func saysWhatIsInTheWay() throws {
        try withDirectory { directory in
            #expect(spawnAndWait(["touch", directory + "/file"]) == 0)
            let tables = SiteTables(directory: directory + "/file/fos")
            let problem = try #require(tables.makeMissing(for: SiteTables.libraries(for: nil)))
            #expect(problem.contains(directory + "/file/fos"))
        }
    }

    /// What is no library of this machine has no table, and that is no failure.
    @Test func othersAreNotMade() throws {
        try withDirectory { directory in
            let tables = SiteTables(directory: directory)
            #expect(tables.makeMissing(for: ["/etc/passwd", "/nonexistent", "/"]) == nil)
            var table: UnsafeMutablePointer<fos_sites_header>?
            var bytes = 0
            #expect(fos_sites_make("/etc/passwd", &table, &bytes) == -ENOEXEC)
            #expect(fos_sites_make("/nonexistent", &table, &bytes) == -ENOENT)
        }
    }

    /// A file cut off anywhere is refused or read, never followed beyond its end.
    @Test func damagedLibrariesAreSurvived() throws {
        try withDirectory { directory in
            let library = try #require(SiteTables.libraries(for: nil).first), copy = directory + "/libc.so.6"
            for keep in [0, 10, 63, 64, 100, 1000, 4096, 100_000, 1_000_000, 1_500_000] {
                #expect(spawnAndWait(["cp", library, copy]) == 0)
                truncate(copy, off_t(keep))
                var table: UnsafeMutablePointer<fos_sites_header>?
                var bytes = 0
                if fos_sites_make(copy, &table, &bytes) == 0 { free(table) }
            }
        }
    }

    private func identity(of library: String) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 2 * FOS_SITES_BUILD_ID_MAX + 1) { text in
            fos_sites_build_id(library, text.baseAddress!) == 0 ? String(cString: text.baseAddress!) : ""
        }
    }
    private func tableFile(of library: String, in directory: String) -> String? {
        let path = "\(directory)/\(identity(of: library)).sites"
        return access(path, R_OK) == 0 ? path : nil
    }
    private func inode(_ path: String) -> UInt64 {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_ino) : 0
    }
    private func permissions(_ path: String) -> mode_t {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
    }
}
#endif

@Suite struct RunTests {
    @Test func preloadKeepsOthers() throws {
        #expect(try ShimLibrary.preload("/x/libfos.so", before: nil) == "/x/libfos.so")
        #expect(try ShimLibrary.preload("/x/libfos.so", before: "") == "/x/libfos.so")
        #expect(try ShimLibrary.preload("/x/libfos.so", before: "/a.so /b.so") == "/x/libfos.so:/a.so:/b.so")
        #expect(try ShimLibrary.preload("/x/libfos.so", before: "/a.so:/x/libfos.so") == "/x/libfos.so:/a.so", "nested fos run")
        #expect(throws: CommandFailure.self) { try ShimLibrary.preload("/with space/libfos.so", before: nil) }
    }

    @Test func commandsAreFoundAsByExec() {
        #expect(executablePath("sh")?.hasSuffix("/sh") == true)
        #expect(executablePath("/bin/sh") == "/bin/sh")
        #expect(executablePath("no-such-command") == nil && executablePath("/etc/passwd") == nil)
        #expect(spawnHere(["/nonexistent"]) == -ENOENT)
        #expect(spawnAndWait(["sh", "-c", "exit 7"]) == 7)
    }

    @Test func figuresAreReported() throws {
        let tally = try Tally()
        // As a process of the tree would: by the path it is given.
        let descriptor = open(tally.path, O_RDWR)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let memory = mmap(nil, MemoryLayout<fos_tally>.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        let shared = try #require(memory).assumingMemoryBound(to: fos_tally.self)
        defer { munmap(shared, MemoryLayout<fos_tally>.size) }
        #expect(shared.pointee.bytes == UInt64(MemoryLayout<fos_tally>.size))
        shared.pointee.processes = 3
        shared.pointee.aside = 1
        shared.pointee.messages = 1234
        shared.pointee.cache_hits = 7
        shared.pointee.time_handled = 2_500_000
        shared.pointee.handled.0 = 10  // read
        shared.pointee.handled.1 = 20  // write
        shared.pointee.bypassed.1 = 5
        shared.pointee.reason.4 = 5  // FOS_BYPASS_EXEC
        let text = tally.report(seconds: 1.5).joined(separator: "\n")
        #expect(text.contains("programs      3, 1 of them without the shim"))
        #expect(text.contains("calls         30 answered by fos, 5 by the kernel through the mount"))
        #expect(text.contains("1,234 over 0 connections"))
        #expect(text.contains("2.5 ms in answered calls"))
        #expect(text.contains("1,500.0 ms in all"))
        #expect(text.contains("exec"))
        #if arch(x86_64)
        let lines = text.split(separator: "\n")
        let write = try #require(lines.firstIndex { $0.hasPrefix("write ") }), read = try #require(lines.firstIndex { $0.hasPrefix("read ") })
        #expect(write < read, "the most frequent first")
        #endif
    }
}
