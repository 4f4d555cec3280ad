// Hostile clients against a running daemon: whatever they do, the daemon lives, answers others, and gets all back.
//
// The daemon is `fos serve`, a process of its own, so that its memory, descriptors and end can be watched from outside.
// The clients are processes of the helper `fos-hostile` (Tests/HostileClient); as root, hostile ones run as another
// user, so that the steady one's files are protected from them by nothing but the file servers.
// FOS_HOSTILE_SECONDS lengthens the run, FOS_HOSTILE_SEED repeats one (up to the scheduling of processes).

import Foundation
import Testing

/// The fuzzer's own choices: SplitMix64.
struct Chance {
    var state: UInt64
    mutating func next(_ bound: UInt64) -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return (z ^ (z >> 31)) % bound
    }
}

@Suite(.serialized, .enabled(if: Daemon.isPossible, "needs /dev/fuse"))
struct HostileTests {
    static let environment = ProcessInfo.processInfo.environment
    static let seconds = Double(environment["FOS_HOSTILE_SECONDS"] ?? "") ?? 9
    static let seed = UInt64(environment["FOS_HOSTILE_SEED"] ?? "") ?? UInt64.random(in: 1...999_999_999)

    /// The default is one fos core on a small machine; the second run has a core on every CPU, so that requests and
    /// replies also cross cores.
    static let cpuLists: [String?] = [nil, sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1 ? "0-\(sysconf(Int32(_SC_NPROCESSORS_ONLN)) - 1)" : "0"]

    @Test(arguments: cpuLists) func hostileClientsHurtOnlyThemselves(cpus: String?) throws {
        print("hostile clients: seed \(Self.seed), \(Self.seconds) s, CPUs \(cpus ?? "default")")
        var chance = Chance(state: Self.seed)
        let daemon = try Daemon(sizeMiB: 64, cpus: cpus, limit: Int(Self.seconds) + 60)
        defer { daemon.end() }
        let before = try #require(daemon.usage())

        let milliseconds = Int(Self.seconds * 1000)
        var steady: [Helper] = []
        for index in 0..<2 {
            steady.append(Helper("steady", daemon, seed: Self.seed &+ UInt64(index), milliseconds: milliseconds))
            // The first one makes the directory "public".
            for _ in 0..<100 where !FileManager.default.fileExists(atPath: daemon.directory + "/public") { usleep(20_000) }
        }
        var hostile: [Helper] = []
        var spawned: UInt64 = 0
        var killed = 0
        var peak = 0
        let end = Date().addingTimeInterval(Self.seconds)
        while Date() < end {
            try #require(daemon.isRunning, "the daemon ended; seed \(Self.seed)\n\(daemon.log())")
            for index in hostile.indices.reversed() {
                if let status = hostile[index].statusIfEnded() {
                    #expect(status != Helper.violation, "a hostile client got what it must not, seed \(hostile[index].seed): \(hostile[index].said())")
                    hostile.remove(at: index)
                } else if chance.next(40) == 0 {
                    hostile[index].kill()
                    killed += 1
                }
            }
            while hostile.count < 4 {
                spawned += 1
                hostile.append(
                    Helper(
                        "hostile", daemon, seed: Self.seed &* 1000 &+ spawned, milliseconds: 100 + Int(chance.next(1500)),
                        user: geteuid() == 0 ? 65534 : nil))
            }
            // The mount sees the same files, under the kernel's caches, which every change of others must void.
            let directory = daemon.directory + "/public"
            for entry in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] where chance.next(8) == 0 {
                _ = try? FileManager.default.attributesOfItem(atPath: directory + "/" + entry)
            }
            peak = max(peak, daemon.usage()?.residentKiB ?? 0)
            usleep(25_000)
        }
        for helper in hostile {
            helper.kill()
            _ = helper.wait()
        }
        for index in steady.indices {
            let status = steady[index].wait()
            print(steady[index].said())
            #expect(status == 0, "a steady client saw a wrong result, seed \(Self.seed): \(steady[index].said())")
        }
        steady = []
        try #require(daemon.isRunning, "the daemon ended; seed \(Self.seed)\n\(daemon.log())")

        // What the dead held is given back within moments.
        var after = try #require(daemon.usage())
        var held: [String] = []
        for _ in 0..<50 {
            usleep(100_000)
            after = try #require(daemon.usage())
            held = daemon.heldByNobody()
            if after.descriptors <= before.descriptors + 4 && held.isEmpty { break }
        }
        print("hostile clients: \(spawned) processes, \(killed) killed; daemon \(before.residentKiB) KiB, peak \(peak), after \(after.residentKiB)")
        #expect(held.isEmpty, "still held after all clients died: \(held)")
        #expect(after.descriptors <= before.descriptors + 4, "descriptors: \(before.descriptors), then \(after.descriptors)")
        #expect(after.threads <= before.threads + 2, "threads: \(before.threads), then \(after.threads)")
        // The size limit bounds what files can take; the rest is slack for tables that have grown to their limits.
        #expect(after.residentKiB <= before.residentKiB + (64 + 64) * 1024, "resident KiB: \(before.residentKiB), then \(after.residentKiB)")
        #expect(daemon.processorShare(over: 2) < 0.2, "the daemon is busy with nobody to serve")

        // And it still serves newcomers, and the mount.
        let newcomer = Helper("steady", daemon, seed: Self.seed &+ 77, milliseconds: 300)
        #expect(newcomer.wait() == 0, "\(newcomer.said())")
        #expect(FileManager.default.fileExists(atPath: daemon.directory + "/public"))
        #expect(daemon.stop() == 0, "the daemon did not end cleanly:\n\(daemon.log())")
    }

    @Test func silentConnectionsBlockNobody() throws {
        let daemon = try Daemon(sizeMiB: 64, limit: 60)
        defer { daemon.end() }
        let before = try #require(daemon.usage())
        let idle = Helper("idle", daemon, seed: 1, milliseconds: 3000)
        usleep(300_000)
        let steady = Helper("steady", daemon, seed: 2, milliseconds: 300)
        #expect(steady.wait() == 0, "\(steady.said())")
        #expect(idle.wait() == 0)
        var after = before
        for _ in 0..<30 {
            usleep(100_000)
            after = try #require(daemon.usage())
            if after.descriptors <= before.descriptors + 2 { break }
        }
        #expect(after.descriptors <= before.descriptors + 2, "descriptors: \(before.descriptors), then \(after.descriptors)")
        #expect(daemon.stop() == 0, "\(daemon.log())")
    }
}
