// The mount table, /proc, the checks before a mount, and the texts that are printed.

import CFosWire
import Glibc
import Testing

@testable import FosCommand

private let mountInfo = #"""
    22 1 259:1 / / rw,relatime - ext4 /dev/root rw
    30 22 0:26 / /home/ann/my\040scratch rw,nosuid,nodev,relatime shared:5 - fuse.fos fos:scratch rw,user_id=1000,group_id=1000,default_permissions
    31 30 0:27 / /home/ann/my\040scratch/inner rw - tmpfs tmpfs rw
    32 22 0:28 / /mnt rw,relatime - fuse.fos fos:second rw,user_id=0,group_id=0
    33 22 0:29 / /mnt rw,relatime - fuse.sshfs host:/ rw,user_id=0
    broken line
    """#

@Suite struct MountTableTests {
    private let table = MountTable(parsing: mountInfo)

    @Test func parses() throws {
        #expect(table.entries.count == 5)
        let entry = try #require(table.entries.dropFirst().first)
        #expect(entry.mountPoint == "/home/ann/my scratch")
        #expect(entry.instanceName == "scratch" && entry.userID == 1000)
        #expect(entry.major == 0 && entry.minor == 26 && entry.id == 30 && entry.parent == 22)
        #expect(table.fosMounts.map(\.instanceName) == ["scratch", "second"])
    }

    @Test func finds() {
        #expect(table.mount(at: "/mnt")?.type == "fuse.sshfs", "the topmost of stacked mounts")
        #expect(table.mount(at: "/mnt/x") == nil)
        #expect(table.mount(containing: "/home/ann/my scratch/a/b")?.id == 30)
        #expect(table.mount(containing: "/home/ann/my scratch/inner/b")?.id == 31)
        #expect(table.mount(containing: "/home/ann/my scratchy")?.id == 22)
        #expect(table.mounts(inside: table.entries[1]).map(\.id) == [31])
    }

    @Test func canonicalPathsStopAtMounts() {
        #expect(canonicalMountPath("/home/ann/my scratch/", in: table) == "/home/ann/my scratch")
        #expect(canonicalMountPath("/usr/../mnt", in: table) == "/mnt")
        #expect(canonicalMountPath("/usr/.", in: table) == "/usr")
        #expect(canonicalMountPath("/", in: table) == "/")
        #expect(canonicalMountPath("/no/such/path", in: table) == "/no/such/path")
        #expect(canonicalMountPath("", in: table) == "")
    }

    /// What a String takes for one letter, or for the same letter, and a file system for different bytes.
    @Test func comparesBytes() {
        let (composed, combining) = ("/mnt/caf\u{e9}", "/mnt/cafe\u{301}")
        #expect(composed == combining && !isSamePath(composed, combining))
        let lines = "40 22 0:30 / \(composed) rw - fuse.fos fos:one rw\n41 22 0:31 / /mnt/\u{301}x\u{600} rw - fuse.fos fos:two rw"
        let table = MountTable(parsing: mountInfo + "\n" + lines)
        #expect(table.mount(at: composed)?.id == 40 && table.mount(at: combining)?.id == nil)
        #expect(table.mount(containing: combining + "/f")?.id == 33)
        #expect(table.mount(at: "/mnt/\u{301}x\u{600}")?.instanceName == "two")
        #expect(table.mount(containing: "/mnt/\u{301}x\u{600}/\u{301}")?.id == 41)
        #expect(canonicalMountPath("/mnt/\u{301}x\u{600}/", in: table) == "/mnt/\u{301}x\u{600}")
        #expect(InstanceName.suggested(for: "/mnt/\u{301}x") == "x")
    }

    @Test func readsThisMachine() {
        #expect(MountTable.current().mount(containing: "/") != nil)
    }
}

@Suite struct ProcessTests {
    @Test func parsesStat() throws {
        let stat = "12 (a) b (c) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200 300"
        let process = try #require(ProcessInformation(pid: 12, stat: stat))
        #expect(process.command == "a) b (c" && process.parent == 7 && process.startTicks == 4711 && process.state == "S")
        #expect(ProcessInformation(pid: 1, stat: "garbage") == nil)
    }

    @Test func knowsItself() throws {
        let own = try #require(ProcessInformation(pid: getpid()))
        #expect(own.isRunning && own.parent == getppid())
        #expect((own.residentBytes ?? 0) > 0 && own.uptimeSeconds != nil && !own.arguments.isEmpty)
    }

    @Test func seesChildrenEnd() throws {
        let pid = spawn("/bin/true", ["true"])
        #expect(pid > 0)
        let child = ProcessInformation(pid: pid)
        #expect(child.map { $0.waitForEnd(seconds: 10) } ?? true, "a zombie has ended")
        #expect(waitForExit(of: pid) == 0)
    }
}

@Suite struct HolderTests {
    @Test func parsesProc() {
        #expect(MountHolders.mountID(fdinfo: "pos:\t0\nflags:\t02\nmnt_id:\t35\nino:\t9\n") == 35)
        #expect(MountHolders.mountID(fdinfo: "pos: 0\n") == nil)
        let maps = """
            7f00-7f01 r-xp 00000000 00:1a 12   /mnt/my lib.so
            7f01-7f02 r--p 00000000 00:1a 12   /mnt/my lib.so
            7f03-7f04 rw-p 00000000 00:1b 13   /other
            7f05-7f06 rw-p 00000000 00:00 0
            """
        #expect(MountHolders.mappedPaths(maps, major: 0, minor: 26) == ["/mnt/my lib.so"])
    }

    /// A child with its working directory and an open file somewhere holds the mount that this is on.
    @Test func findsARealHolder() throws {
        let table = MountTable.current()
        let entry = try #require(table.mount(containing: "/proc/self") ?? table.mount(containing: "/proc"))
        let pid = spawn("/bin/sh", ["sh", "-c", "cd /proc && exec sleep 30 < /proc/version"])
        #expect(pid > 0)
        defer {
            kill(pid, SIGKILL)
            waitForExit(of: pid)
        }
        var uses: [String] = []
        for _ in 0..<200 where uses.count < 2 {
            usleep(10_000)
            uses = MountHolders(of: entry).holders.first { $0.pid == pid }?.uses ?? []
        }
        #expect(uses.contains("working directory /proc"))
        #expect(uses.contains("open file /proc/version"))
    }
}

private final class Counter { var count = 0 }

@Suite struct MountCheckTests {
    private func environment(user: UInt32 = 0, listener: @escaping (String) -> Int32 = { _ in -ECONNREFUSED }) -> MountEnvironment {
        MountEnvironment(
            table: MountTable(parsing: mountInfo), userID: user, onlineCPUs: CPUList(0..<2), allowedCPUs: CPUList(0..<2),
            fuseDevice: "/dev/null", fuseConfiguration: "/nonexistent", searchPath: ["/nonexistent"], listener: listener, patience: 2)
    }

    private func request(_ directory: String, name: String? = nil, cpus: String? = nil, allowOther: Bool = false, options text: String = "") throws -> MountRequest {
        var options = MountOptions()
        try options.read(text)
        return try MountRequest(
            directory: directory, name: name, cpus: cpus, size: nil, logLevel: nil, allowOther: allowOther, options: options, physicalMemory: 8 << 30)
    }

    /// Why a directory cannot be mounted on; "none" if it can.
    private func failure(
        _ directory: String, name: String? = nil, cpus: String? = nil, allowOther: Bool = false, in environment: MountEnvironment
    ) -> String {
        do {
            _ = try request(directory, name: name, cpus: cpus, allowOther: allowOther).checked(in: environment)
            return "none"
        } catch {
            return "\(error)"
        }
    }

    private func withDirectory(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/fos-test-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        let path = String(cString: made)
        defer { rmdir(path) }
        try body(path)
    }

    @Test func passes() throws {
        try withDirectory { path in
            let mount = try request(path).checked(in: environment())
            #expect(mount.directory == path && mount.warnings.isEmpty)
            #expect(try request(path, cpus: "0,1").checked(in: environment()).warnings.count == 1)
        }
    }

    @Test func namesEachReason() throws {
        #expect(failure("/no/such", in: environment()).contains("No such file or directory; create it with: mkdir"))
        #expect(failure("/etc/passwd", in: environment()).contains("Not a directory"))
        #expect(failure("/etc", in: environment()).contains("Directory not empty"))
        #expect(failure("/home/ann/my scratch", in: environment()).contains("named 'scratch' is mounted there"))
        try withDirectory { path in
            #expect(failure(path, cpus: "7", in: environment()).contains("not online"))
            #expect(failure(path, name: "second", in: environment()).contains("in use by the mount on /mnt"))
            #expect(failure(path, name: "x", in: environment { _ in 1 }).contains("in use"))
            var without = environment()
            without.fuseDevice = "/nonexistent"
            #expect(failure(path, in: without).contains("modprobe fuse"))
            #expect(failure(path, in: environment(user: geteuid() == 0 ? 1 : geteuid())).contains("fusermount3: not found"))
            var user = environment(user: 1)
            user.searchPath = ["/bin", "/usr/bin"]
            if access("/usr/bin/fusermount3", X_OK) == 0 {
                #expect(failure(path, allowOther: true, in: user).contains("user_allow_other"))
            }
        }
        if geteuid() != 1 {
            #expect(failure("/tmp", in: environment(user: 1)).contains("sticky"))
        }
    }

    @Test func nonEmptyMayBeAllowed() throws {
        #expect(try request("/etc", options: "nonempty").checked(in: environment()).name == "etc")
    }

    @Test func defaultNamesAvoidUsedOnes() throws {
        let mount = try request("/etc", options: "nonempty").checked(in: environment { $0 == "etc" ? 1 : -ECONNREFUSED })
        #expect(mount.name == "etc-2")
        var suggesting = try request("/etc", options: "nonempty")
        suggesting.suggestedName = "second"
        #expect(try suggesting.checked(in: environment()).name == "second-2", "that of mount(8)'s source gives way")
    }

    @Test func waitsForADaemonThatEnds() throws {
        let asked = Counter()
        let ending = environment { _ in
            asked.count += 1
            return asked.count > 1 ? -ECONNREFUSED : 1
        }
        #expect(try request("/etc", name: "x", options: "nonempty").checked(in: ending).name == "x")
    }

    @Test func demandsAnAbsolutePath() {
        #expect(failure("", in: environment()).contains("'': No such file or directory"))
        #expect(throws: CommandFailure.self) { try requireAbsolute(".") }
        #expect(throws: Never.self) { try requireAbsolute("/\u{301}x") }
    }
}

@Suite struct PrintingTests {
    @Test func quotesForAShell() {
        #expect(shellQuoted("/home/ann/a.b-c") == "/home/ann/a.b-c" && shellQuoted("caf\u{e9}") == "caf\u{e9}")
        #expect(shellQuoted("") == "''" && shellQuoted("x", always: true) == "'x'")
        #expect(shellQuoted("a b") == "'a b'" && shellQuoted("it's") == "'it'\\''s'" && shellQuoted("$x*") == "'$x*'")
        #expect(shellQuoted("a\nb\t'\\\u{1}\u{85}") == "$'a\\nb\\t\\'\\\\\\001\\302\\205'")
    }

    @Test func json() {
        let value = JSON.object([
            ("a", .array([.number(1), .null, .bool(true)])), ("b\"\\", .string("line\n\u{1}ü")), ("c", .array([])), ("d", .object([])),
        ])
        #expect(value.text == "{\n  \"a\": [\n    1,\n    null,\n    true\n  ],\n  \"b\\\"\\\\\": \"line\\n\\u0001ü\",\n  \"c\": [],\n  \"d\": {}\n}")
    }

    @Test func tables() {
        var table = TextTable(heading: ["A", "COUNT"], right: [1])
        table.append(["long name", "1"])
        table.append(["b", ""])
        #expect(table.lines == ["A          COUNT", "long name      1", "b"])
    }

    @Test func connections() {
        let table = """
            Num       RefCount Protocol Flags    Type St Inode Path
            0000: 00000002 00000000 00010000 0005 01 100 @fos/0/x
            0000: 00000003 00000000 00000000 0005 03 101 @fos/0/x
            0000: 00000003 00000000 00000000 0005 03 102 @fos/0/x
            0000: 00000003 00000000 00000000 0005 03 103 @fos/0/xy
            0000: 00000003 00000000 00000000 0005 03 104
            """
        #expect(InstanceStatus.connections(uid: 0, name: "x", table: table) == 2)
    }

    /// Records as the name fleet writes them, and every truncation of them.
    @Test func nameRecords() {
        var bytes: [UInt8] = []
        func append(_ name: String, members: Int) {
            let length = (MemoryLayout<fos_name_record>.size + members * MemoryLayout<fos_name_member>.stride + name.utf8.count + 7) / 8 * 8
            let record = fos_name_record(
                record_length: UInt32(length), name_length: UInt16(name.utf8.count), target_length: 0, members: UInt32(members), owner_uid: 7)
            let start = bytes.count
            withUnsafeBytes(of: record) { bytes.append(contentsOf: $0) }
            for index in 0..<members {
                let member = fos_name_member(mailbox: UInt32(index + 1), epoch: 1, core: 0, load: 2, distance: 0, alive: 1)
                withUnsafeBytes(of: member) { bytes.append(contentsOf: $0) }
            }
            bytes.append(contentsOf: name.utf8)
            bytes.append(contentsOf: [UInt8](repeating: 0, count: start + length - bytes.count))
        }
        append("/sys/file", members: 2)
        append("/x", members: 0)
        let records = bytes.withUnsafeBytes { NameRecord.list(parsing: $0) }
        #expect(records.map(\.name) == ["/sys/file", "/x"])
        #expect(records[0].members.map(\.mailbox) == [1, 2] && records[0].ownerID == 7)
        for length in 0..<bytes.count {
            #expect(bytes[..<length].withUnsafeBytes { NameRecord.list(parsing: $0).count } <= 1)
        }
    }
}
