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
        #expect(!tally.report(seconds: 1).contains { $0.hasPrefix("memory ") }, "nobody asked for memory")
        shared.pointee.memory_served = 12
        shared.pointee.memory_served_bytes = 3 << 20
        shared.pointee.memory_frozen = 2
        shared.pointee.memory_time_freezing = 1_500_000
        shared.pointee.memory_linux.3 = 4  // FOS_LEFT_SPARSE
        let text = tally.report(seconds: 1.5).joined(separator: "\n")
        #expect(text.contains("memory        12 requests served with 3.00 MiB; 0 B left to Linux"))
        #expect(text.contains("forks         2 with served memory, 0 B became copy-on-write in 1.5 ms"))
        #expect(text.contains("    4  a reservation that stays sparse"))
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

@Suite struct CallTraceTests {
    /// Writes entries as the processes of a tree do.
    private func withEntries(_ trace: CallTrace, _ entries: [fos_call_trace_entry], claimed: UInt64? = nil) throws {
        let descriptor = open(trace.path, O_RDWR)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let head = MemoryLayout<fos_call_trace_header>.size
        let bytes = head + 16 * MemoryLayout<fos_call_trace_entry>.stride
        let memory = try #require(mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0))
        defer { munmap(memory, bytes) }
        let header = memory.assumingMemoryBound(to: fos_call_trace_header.self)
        #expect(header.pointee.room == UInt64(CallTrace.room) && header.pointee.next == 0)
        for (index, entry) in entries.enumerated() {
            (memory + head).assumingMemoryBound(to: fos_call_trace_entry.self)[index] = entry
        }
        header.pointee.next = claimed ?? UInt64(entries.count)
    }

    private func call(start: UInt64, end: UInt64, thread: UInt32, number: UInt16, result: Int64, complete: UInt32 = 1) -> fos_call_trace_entry {
        var entry = fos_call_trace_entry()
        (entry.start, entry.end, entry.process, entry.thread) = (start, end, 7, thread)
        (entry.kind, entry.number, entry.result, entry.complete) = (UInt16(FOS_TRACED_CALL.rawValue), number, result, complete)
        return entry
    }
    /// `times`: when each step from the second on ends, and the message with the last.
    private func message(of start: UInt64, thread: UInt32, operation: fos_operation, times: [UInt64]) -> fos_call_trace_entry {
        var entry = call(start: start, end: times[8], thread: thread, number: UInt16(operation.rawValue), result: 0)
        entry.kind = UInt16(FOS_TRACED_MESSAGE.rawValue)
        (entry.built, entry.sent, entry.resolved, entry.posted) = (times[0], times[1], times[2], times[3])
        (entry.taken, entry.begun, entry.answered, entry.replied) = (times[4], times[5], times[6], times[7])
        return entry
    }

    @Test func messagesBelongToTheirCalls() throws {
        let trace = try CallTrace()
        // Two threads at once; the messages come before their calls, which are recorded at their end.
        try withEntries(trace, [
            message(of: 1_000, thread: 8, operation: FOS_OP_OPEN, times: [5_000, 5_100, 5_150, 5_200, 5_500, 5_600, 6_800, 7_000, 7_010]),
            message(of: 1_000, thread: 8, operation: FOS_OP_LOOKUP, times: [1_100, 1_300, 1_500, 1_600, 2_000, 2_050, 3_900, 4_000, 4_010]),
            message(of: 1_000, thread: 9, operation: FOS_OP_READ, times: [1_500, 1_500, 1_500, 1_500, 0, 0, 0, 1_600, 1_700]),
            call(start: 1_000, end: 9_000, thread: 8, number: 2, result: -2),
            call(start: 1_000, end: 2_000, thread: 9, number: 0, result: 4096),
            call(start: 500, end: 600, thread: 8, number: 3, result: Int64.min),
            call(start: 600, end: 700, thread: 8, number: 3, result: 0, complete: 0),
        ])
        let calls = trace.calls()
        #expect(calls.map(\.entry.start) == [500, 1_000, 1_000])
        let opened = try #require(calls.first { $0.entry.number == 2 })
        #expect(opened.messages.map(\.number) == [UInt16(FOS_OP_LOOKUP.rawValue), UInt16(FOS_OP_OPEN.rawValue)])
        // The columns' widths are TextTable's business.
        let lines = trace.textLines().map { $0.split(separator: " ").joined(separator: " ") }
        #expect(lines.count == 5, "the heading, three calls, and a second message")
        #if arch(x86_64)
        #expect(lines.contains { $0.hasSuffix("8 open -ENOENT 8.00 LOOKUP 0.10 0.20 0.20 0.10 0.40 0.05 1.85 0.10") })
        #expect(lines.contains { $0 == "OPEN 0.99 0.10 0.05 0.05 0.30 0.10 1.20 0.20 2.00" })
        // Refused before a server had it: its way there and back is one step.
        #expect(lines.contains { $0.hasSuffix("READ 0.50 0.00 0.00 0.00 0.00 0.00 0.00 0.10 0.40") })
        #expect(lines.contains { $0 == "0.00 8 close kernel 0.10" })
        #endif
        let json = trace.chromeJSON().text
        #expect(json.contains("\"ts\": 1.000") && json.contains("\"dur\": 8.000") && json.contains("\"message\": \"LOOKUP\""))
        #expect(json.parts(separatedBy: "\"cat\": \"call\"") == 4 && json.parts(separatedBy: "\"cat\": \"step\"") == 27)
    }

    @Test func whatFoundNoRoomIsCounted() throws {
        let trace = try CallTrace()
        #expect(trace.lost == 0 && trace.textLines().count == 1)
        try withEntries(trace, [call(start: 1, end: 2, thread: 1, number: 0, result: 0)], claimed: UInt64(CallTrace.room) + 1_234)
        #expect(trace.lost == 1_234 && trace.textLines().last == "1,234 more calls and messages found no room")
    }
}

extension String {
    /// How many parts a separator makes of it, without Foundation.
    fileprivate func parts(separatedBy separator: String) -> Int {
        var count = 1
        var rest = self[...]
        while let found = rest.firstRange(of: separator) {
            count += 1
            rest = rest[found.upperBound...]
        }
        return count
    }
}
