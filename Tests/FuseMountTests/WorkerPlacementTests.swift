// Servers make way for programs: when they are asked to, how often, and that the workers change places with them.

import CFuse
import Glibc
import Synchronization
import Testing

@testable import FuseMount

private func allowedCPUs() -> [Int32] {
    var cpus = [Int32](repeating: 0, count: Int(FOS_FUSE_CPUS))
    // Counted in a statement of its own: `cpus.prefix` in the same one may look at the array before it is filled.
    let count = fos_fuse_allowed_cpus(&cpus, Int32(cpus.count))
    return Array(cpus.prefix(Int(count)))
}

/// Servers on one CPU that always move, to the next number.
private final class Servers: Sendable {
    let moves = Mutex<[Int32]>([])
    func makeWay(_ cpu: Int32) -> [Int32]? {
        moves.withLock { $0.append(cpu) }
        return [cpu + 1]
    }
    var count: Int { moves.withLock { $0.count } }
}

@Suite struct WorkerPlacementTests {
    @Test func cpusOfThreads() {
        let cpu = fos_fuse_cpu_of_thread(UInt32(fos_fuse_thread_id()))
        #expect(allowedCPUs().contains(cpu))
        // The first process has a name with what else ends a field; a number that no thread can have is nobody's.
        #expect(fos_fuse_cpu_of_thread(1) >= 0)
        #expect(fos_fuse_cpu_of_thread(UInt32(Int32.max)) == -1)
    }

    @Test func aThreadWithAStrangeNameIsFound() {
        let cpu = Mutex<Int32>(-1)
        fos_fuse_name_thread("a) R 9 (9 9")
        cpu.withLock { $0 = fos_fuse_cpu_of_thread(UInt32(fos_fuse_thread_id())) }
        fos_fuse_name_thread("tests")
        #expect(allowedCPUs().contains(cpu.withLock { $0 }))
    }

    @Test func pausesGrowWhileMovesDoNotHelp() {
        let servers = Servers()
        let placement = WorkerPlacement(serverCPUs: [5000]) { servers.makeWay($0) }
        var now: UInt64 = 1_000_000_000_000
        var cpu: Int32 = 5000
        func ask() -> Bool {
            let before = servers.count
            placement.makeWay(on: cpu, now: now) { [] }
            guard servers.count > before else { return false }
            cpu += 1
            return true
        }
        #expect(ask())
        // Again and again at once: the pauses double, up to the longest.
        var asked = 0
        let end = now + 60_000_000_000
        while now < end {
            now += 1_000_000
            if ask() { asked += 1 }
        }
        #expect(asked > 20 && asked < 60)
        // After quiet times they are short again.
        for _ in 0..<12 {
            now += 20_000_000_000
            #expect(ask())
        }
        now += 2 * WorkerPlacement.shortestPause
        #expect(ask())
        // A CPU that no server is on is nobody's business.
        now += 20_000_000_000
        let before = servers.count
        placement.makeWay(on: 4000, now: now) { [] }
        #expect(servers.count == before && !placement.isServers(4000) && placement.isServers(cpu))
    }
}

extension MountTests {
    @Suite struct Placement {
        /// A program that is bound to the servers' CPU makes them go; workers are then on its CPU, and only there.
        @Test(.enabled(if: allowedCPUs().count > 1, "needs two CPUs")) func programsMakeServersMove() throws {
            let (first, second) = (allowedCPUs()[0], allowedCPUs()[1])
            let asked = Mutex<[Int32]>([])
            let scratch = try Scratch {
                $0.serverCPUs = [second]
                $0.makeWay = { cpu in
                    asked.withLock { $0.append(cpu) }
                    return [first]
                }
            }
            defer { scratch.finish() }
            #expect(store(scratch.path + "/a", "x") == 0)
            let program = "import os\nfor i in range(2000): os.chmod(\"\(scratch.path)/a\", 0o600 + i % 2)"
            for _ in 0..<50 where asked.withLock({ $0.isEmpty }) { _ = try run("taskset -c \(second) python3 -c '\(program)'") }
            #expect(asked.withLock { $0.first } == second)
            let workers = try run("grep -l '^fos-fuse' /proc/self/../\(getpid())/task/*/comm | while read f; do taskset -cp $(basename $(dirname $f)); done")
            #expect(!workers.isEmpty)
            for line in workers.split(separator: "\n") { #expect(!line.hasSuffix(": \(first)") && !line.contains(": \(first),")) }
        }
    }
}
