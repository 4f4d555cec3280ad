// Sizes, CPU lists, names and -o strings: what people and mount(8) write.

import Testing

@testable import FosCommand

@Suite struct ByteSizeTests {
    private let memory: UInt64 = 8 << 30

    private static let sizes: [(String, UInt64)] = [
        ("4096", 4096), ("1k", 1024), ("4G", 4_294_967_296), ("4g", 4_294_967_296), ("512M", 536_870_912), ("1GiB", 1_073_741_824),
        ("2MB", 2_097_152), ("1T", 1_099_511_627_776), ("100B", 100), ("50%", 4_294_967_250), ("0", 0),
    ]
    @Test(arguments: sizes)
    func parses(text: String, bytes: UInt64) throws {
        #expect(try ByteSize(parsing: text, memory: memory).bytes == bytes)
    }

    @Test(arguments: ["", "G", "-1", "4X", "4GG", "1.5G", "0x10", "4 G", "99999999999G", "18446744073709551616", "4i", "²", "50%%"])
    func refuses(text: String) {
        #expect(throws: CommandFailure.self) { try ByteSize(parsing: text, memory: memory) }
    }

    private static let texts: [(UInt64, String)] = [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (10_485_760, "10.0 MiB"), (107_374_182_400, "100 GiB"),
        (1_048_575, "1.00 MiB"), (UInt64.max, "16.0 EiB"),
    ]
    @Test(arguments: texts)
    func prints(bytes: UInt64, text: String) {
        #expect(ByteSize(bytes: bytes).text == text)
    }

    @Test func groupsAndDurations() {
        #expect(grouped(0) == "0")
        #expect(grouped(999) == "999")
        #expect(grouped(1_234_567) == "1,234,567")
        #expect(duration(seconds: 0) == "0 s")
        #expect(duration(seconds: 61) == "1 min 1 s")
        #expect(duration(seconds: 3_600) == "1 h")
        #expect(duration(seconds: 90_000) == "1 d 1 h")
    }
}

@Suite struct CPUListTests {
    @Test(arguments: [
        ("0", [0]), ("1,4-7", [1, 4, 5, 6, 7]), ("3,1,1", [1, 3]), ("0-8:4", [0, 4, 8]), ("0-0", [0]),
    ])
    func parses(text: String, cpus: [Int]) throws {
        #expect(try CPUList(parsing: text).cpus == cpus)
    }

    @Test(arguments: ["", ",", "1,", "a", "-1", "1-", "3-1", "1-2-3", "0-4:0", "1:2", "99999999", "1 2", "١"])
    func refuses(text: String) {
        #expect(throws: CommandFailure.self) { try CPUList(parsing: text) }
    }

    @Test func printsRanges() {
        #expect(CPUList([7, 1, 5, 4, 6]).text == "1,4-7")
        #expect(CPUList([0, 1]).text == "0,1")
        #expect(CPUList([]).text == "")
    }

    @Test func checksAgainstTheMachine() throws {
        let online = CPUList(0..<4)
        #expect(try CPUList([1]).check(online: online, allowed: online) == nil)
        #expect(throws: CommandFailure.self) { try CPUList([4]).check(online: online, allowed: online) }
        #expect(throws: CommandFailure.self) { try CPUList([3]).check(online: online, allowed: CPUList([0, 1])) }
        #expect(try CPUList(0..<4).check(online: online, allowed: online) != nil, "taking every CPU is allowed, with a warning")
    }

    @Test func readsThisMachine() {
        #expect(!CPUList.online().cpus.isEmpty)
        #expect(!CPUList.allowed().cpus.isEmpty)
    }
}

@Suite struct InstanceNameTests {
    @Test(arguments: ["scratch", "a", "A-1_b.c", "0"])
    func accepts(name: String) throws { try InstanceName.check(name) }

    @Test(arguments: ["", ".hidden", "-x", "a/b", "a b", "ü", String(repeating: "a", count: 65)])
    func refuses(name: String) {
        #expect(throws: CommandFailure.self) { try InstanceName.check(name) }
    }

    @Test func suggestsFromDirectories() {
        #expect(InstanceName.suggested(for: "/home/ann/scratch") == "scratch")
        #expect(InstanceName.suggested(for: "/") == "root")
        #expect(InstanceName.suggested(for: "/mnt/my files") == "my_files")
        #expect(InstanceName.suggested(for: "/mnt/...") == "fos")
        #expect(InstanceName.suggested(for: "/" + String(repeating: "x", count: 255)).utf8.count <= InstanceName.bytesMax)
    }

    @Test func findsUnusedNames() {
        let used: Set = ["a", "a-2"]
        #expect(InstanceName.unused(from: "b") { used.contains($0) } == "b")
        #expect(InstanceName.unused(from: "a") { used.contains($0) } == "a-3")
    }

    @Test func readsSources() {
        #expect(InstanceName.suggested(bySource: "fos:x") == "x")
        #expect(InstanceName.suggested(bySource: "x") == "x")
        #expect(InstanceName.suggested(bySource: "/srv/my scratch") == "my_scratch")
        #expect(InstanceName.suggested(bySource: "none") == nil)
    }
}

@Suite struct MountOptionsTests {
    private func options(_ texts: String...) throws -> MountOptions {
        var options = MountOptions()
        for text in texts { try options.read(text) }
        return options
    }

    @Test func readsAll() throws {
        let options = try options("rw,size=4G,cpus=1+4-7,name=x,locks=fleet,shards=12", "allow_other,nonempty,nosuid,noatime,defaults,x-systemd.automount,_netdev")
        #expect(options.size == "4G")
        #expect(options.cpus == "1,4-7")
        #expect(options.name == "x")
        #expect(options.locks == "fleet" && options.shards == 12)
        #expect(options.allowOther && options.nonEmpty)
        #expect(options.fuse == ["rw", "nosuid", "noatime"])
        #expect(options.text == "rw,nosuid,noatime,locks=fleet,shards=12,nonempty")
    }

    @Test func laterOverridesEarlier() throws {
        #expect(try options("size=1G,size=2G", "size=3G").size == "3G")
    }

    @Test(arguments: ["bogus", "size", "size=", "cpus", "locks=maybe", "shards=-1", "shards=x", "shards", "allow_other=1", "fsname=x", "ro=1"])
    func refuses(text: String) {
        #expect(throws: CommandFailure.self) { try options(text) }
    }

    @Test func sloppyIgnoresUnknown() throws {
        var options = MountOptions()
        options.ignoresUnknown = true
        try options.read("bogus,ro,other=1")
        #expect(options.fuse == ["ro"])
    }
}

@Suite struct MountRequestTests {
    private func request(_ directory: String = "/mnt", size: String? = nil, memory: String? = nil, reserve: String? = nil, level: String? = nil, options text: String = "") throws -> MountRequest {
        var options = MountOptions()
        try options.read(text)
        return try MountRequest(
            directory: directory, name: nil, cpus: nil, size: size, memory: memory, reserve: reserve, logLevel: level, allowOther: false, options: options,
            physicalMemory: 8 << 30)
    }

    @Test func defaults() throws {
        let request = try request()
        #expect(request.sizeBytes == 4_294_967_250)
        #expect(request.memoryBytes == 2_147_483_625 && request.reserveBytes == 134_217_726)
        #expect(request.cpus == nil && request.name == nil)
        #expect(request.locks == "kernel" && request.logLevel == "notice")
    }

    @Test func argumentsOverrideOptions() throws {
        #expect(try request(size: "2G", options: "size=1G").sizeBytes == 2 << 30)
    }

    @Test func memoryAndItsReserve() throws {
        let given = try request(memory: "1G", reserve: "64M")
        #expect(given.memoryBytes == 1 << 30 && given.reserveBytes == 64 << 20)
        let options = try request(options: "memory=512M,memory_reserve=0")
        #expect(options.memoryBytes == 512 << 20 && options.reserveBytes == 0)
        #expect(throws: CommandFailure.self) { try request(memory: "1G", reserve: "2G") }
        #expect(throws: CommandFailure.self) { try request(memory: "much") }
    }

    @Test(arguments: ["1", "100K", "16E"])
    func refusesSizes(size: String) {
        #expect(throws: CommandFailure.self) { try request(size: size) }
    }

    @Test func refusesLevels() {
        #expect(throws: CommandFailure.self) { try request(level: "loud") }
    }

    /// What a request tells the daemon is the same request again.
    @Test func argumentsRoundTrip() throws {
        let request = try request(options: "size=1G,memory=256M,memory_reserve=16M,cpus=1+3,allow_other,nosuid,locks=fleet,nonempty,log_level=debug")
        let arguments = request.arguments(name: "n", directory: "/mnt")
        #expect(arguments == [
            "--name", "n", "--size", "1073741824", "--memory", "268435456", "--memory-reserve", "16777216", "--log-level", "debug", "--cpus", "1,3", "--allow-other", "-o",
            "nosuid,locks=fleet,nonempty", "--", "/mnt",
        ])
    }

    @Test func helperCalls() throws {
        let call = try MountHelperCall(parsing: ["fos:x", "/mnt", "-sv", "-o", "size=1G,weird", "-t", "fos"])
        #expect(call.source == "fos:x" && call.directory == "/mnt" && call.isVerbose && !call.isFake)
        #expect(call.options.size == "1G")
        #expect(try MountHelperCall(parsing: ["-fo", "ro", "x", "/mnt"]).options.fuse == ["ro"])
        #expect(try MountHelperCall(parsing: ["x", "/mnt", "-f"]).isFake)
        let remount = try MountHelperCall(parsing: ["x", "/mnt", "-o", "rw", "-o", "remount,ro,weird"])
        #expect(remount.remount == "rw,remount,ro,weird" && remount.directory == "/mnt" && call.remount == nil)
        #expect(MountHelperCall.isCallOfMountFuse(["x", "/mnt", "-o", "rw"]))
        #expect(!MountHelperCall.isCallOfMountFuse(["-x", "/mnt", "-o", "rw"]) && !MountHelperCall.isCallOfMountFuse(["x", "/mnt"]))
        let wrongs: [[String]] = [[], ["x"], ["x", "y", "z"], ["x", "/mnt", "-o"], ["x", "/mnt", "-q"], ["x", "/mnt", "-o", "weird"]]
        for wrong in wrongs {
            #expect(throws: CommandFailure.self) { try MountHelperCall(parsing: wrong) }
        }
    }
}
