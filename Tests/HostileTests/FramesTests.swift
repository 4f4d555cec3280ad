// The memory fleet of a running daemon: zeros for everybody, and nothing lost when clients are killed.

import Foundation
import Testing

@Suite(.serialized, .enabled(if: Daemon.isPossible, "needs /dev/fuse"))
struct FramesTests {
    /// Rows of `.fos/memory`, by column, summed over servers.
    private func memory(_ daemon: Daemon) -> [String: Int] {
        let text = (try? String(contentsOfFile: daemon.directory + "/.fos/memory", encoding: .utf8)) ?? ""
        let rows = text.split(separator: "\n").map { $0.split(separator: "\t").map(String.init) }
        guard let heading = rows.first else { return [:] }
        var sums: [String: Int] = [:]
        for row in rows.dropFirst() { for (name, value) in zip(heading, row).dropFirst(2) { sums[name, default: 0] += Int(value) ?? 0 } }
        return sums
    }

    /// Waits until nothing is retired or dirty; what is left then.
    private func settled(_ daemon: Daemon) -> [String: Int] {
        var last: [String: Int] = [:]
        for _ in 0..<100 {
            last = memory(daemon)
            if last["retired"] == 0, last["dirty"] == 0 { break }
            usleep(50_000)
        }
        return last
    }

    @Test(arguments: HostileTests.cpuLists) func everyPageIsZerosAndNobodyElses(cpus: String?) throws {
        let daemon = try Daemon(sizeMiB: 64, cpus: cpus, limit: 60)
        defer { daemon.end() }
        let seed = HostileTests.seed
        var helpers = (0..<4).map { Helper("frames", daemon, seed: seed &+ UInt64($0), milliseconds: 3000) }
        for index in helpers.indices {
            let status = helpers[index].wait()
            #expect(status == 0, "seed \(seed &+ UInt64(index)): \(helpers[index].said())")
            print(helpers[index].said())
        }
        helpers = []
        let left = settled(daemon)
        // What file servers hold stays granted.
        #expect(left["retired"] == 0 && left["dirty"] == 0, "\(left)")
        #expect(daemon.stop() == 0, "\(daemon.log())")
    }

    @Test func killedClientsLoseNothing() throws {
        let daemon = try Daemon(sizeMiB: 64, limit: 120)
        defer { daemon.end() }
        let before = try #require(daemon.usage())
        let granted = memory(daemon)["granted"] ?? -1
        for round in 0..<12 {
            var helpers = (0..<3).map { Helper("hold", daemon, seed: HostileTests.seed &+ UInt64(round * 3 + $0), milliseconds: 20_000) }
            usleep(UInt32(40_000 + round * 10_000))
            for index in helpers.indices {
                helpers[index].kill()
                _ = helpers[index].wait()
            }
            helpers = []
        }
        var left: [String: Int] = [:]
        for _ in 0..<100 {
            left = memory(daemon)
            if left["granted"] == granted, left["retired"] == 0, left["dirty"] == 0 { break }
            usleep(50_000)
        }
        #expect(left["granted"] == granted && left["retired"] == 0 && left["dirty"] == 0, "after all clients were killed: \(left), granted before \(granted)")
        let newcomer = Helper("frames", daemon, seed: 1, milliseconds: 300)
        #expect(newcomer.wait() == 0, "\(newcomer.said())")
        usleep(3_000_000)
        let after = try #require(daemon.usage())
        print("killed clients: daemon \(before.residentKiB) KiB, then \(after.residentKiB); \(memory(daemon))")
        #expect(daemon.processorShare(over: 2) < 0.05, "the daemon is busy with nobody to serve")
        #expect(daemon.stop() == 0, "\(daemon.log())")
    }
}
