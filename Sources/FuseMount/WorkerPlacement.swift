// Where the threads of a mount run: on the CPUs that the servers leave to programs. And what is done when a program comes
// to a server's CPU.
//
// Why: a worker that runs on the caller's CPU costs two switches a request. A caller on a server's CPU waits for a worker
// to be woken on another, and takes the CPU from the server that the worker waits for: four times as long here, and 20
// times where a wake across CPUs is slow. Linux leaves the program there until the load of the server's CPU, an average over 32
// ms, has outgrown what the program itself weighs. So the server goes, not the program.
// Protocol: a worker looks now and then where the caller of the request it has answered runs. When it was on a server's CPU
// several times in a row, the instance is asked to move that server, and the workers change places with it.
// Invariant: between two moves lies a pause, which grows while moves do not help (programs on all CPUs), so that moving
// never takes more than a small part of the time.

import CFuse
import Glibc
import Synchronization

final class WorkerPlacement: Sendable {
    private struct State {
        var serverCPUs: [Int32]
        var lastMove: UInt64 = 0
        var pause = WorkerPlacement.shortestPause
    }

    /// Nanoseconds between looks when all is well, and when the last caller was on a server's CPU.
    static let seldom: UInt64 = 2_000_000
    static let soon: UInt64 = 200_000
    /// Looks in a row that must find the caller on a server's CPU.
    static let looksNeeded: UInt32 = 3
    /// Nanoseconds between moves: at least, and at most.
    static let shortestPause: UInt64 = 10_000_000
    static let longestPause: UInt64 = 2_000_000_000

    /// The CPUs of this process.
    private let allowed: [Int32]
    private let state: Mutex<State>
    private let move: @Sendable (Int32) -> [Int32]?

    /// - Parameter makeWay: moves the servers of a CPU; the servers' CPUs then, or nil if they stay.
    init(serverCPUs: [Int32], makeWay: @escaping @Sendable (Int32) -> [Int32]?) {
        var allowed = [Int32](repeating: 0, count: Int(FOS_FUSE_CPUS))
        allowed.removeLast(allowed.count - Int(fos_fuse_allowed_cpus(&allowed, Int32(allowed.count))))
        self.allowed = allowed
        state = Mutex(State(serverCPUs: serverCPUs))
        move = makeWay
    }

    /// The CPUs this process may use less the servers'; all of them if nothing is left.
    private func cpus(_ state: borrowing State) -> [Int32] {
        let servers = state.serverCPUs
        let free = allowed.filter { !servers.contains($0) }
        return free.isEmpty ? allowed : free
    }

    /// How many CPUs the workers have.
    var count: Int { state.withLock { cpus($0).count } }

    /// Moves the calling thread to them.
    func confine() { state.withLock { confine([0], $0) } }

    private func confine(_ threads: [Int32], _ state: borrowing State) {
        let cpus = cpus(state)
        if cpus.isEmpty { return }
        for thread in threads {
            _ = fos_fuse_confine(thread, cpus, Int32(cpus.count))
            // With one CPU the caller is on it, and about to sleep; a FORGET, for which nobody waits, would interrupt it.
            fos_fuse_wait_for_sleepers(thread, cpus.count == 1 ? 1 : 0)
        }
    }

    func isServers(_ cpu: Int32) -> Bool { state.withLock { $0.serverCPUs.contains(cpu) } }

    /// Programs are on a server's CPU: changes places with it, if the pause since the last time is over.
    /// - Parameter threads: of the workers.
    func makeWay(on cpu: Int32, now: UInt64, threads: () -> [Int32]) {
        state.withLock { state in
            let since = now &- state.lastMove
            guard since >= state.pause, state.serverCPUs.contains(cpu) else { return }
            // As soon after the last move as could be: it has not helped.
            state.pause = since < 2 * state.pause ? min(2 * state.pause, Self.longestPause) : max(state.pause / 2, Self.shortestPause)
            state.lastMove = now
            guard let serverCPUs = move(cpu) else { return }
            state.serverCPUs = serverCPUs
            confine(threads(), state)
        }
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// After an answer: looks, now and then, on which CPU the thread runs that made the request. 0: nobody in particular.
    func lookWhereCallerRuns(_ caller: UInt32) {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let now = UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
        guard caller != 0, now >= pointee.nextLook else { return }
        let front = pointee.front
        let cpu = fos_fuse_cpu_of_thread(caller)
        // Gone already: that says nothing.
        guard cpu >= 0 else { return }
        let isCrowded = front.pointee.placement.isServers(cpu)
        pointee.crowdedLooks = isCrowded ? pointee.crowdedLooks + 1 : 0
        pointee.nextLook = now &+ (isCrowded ? WorkerPlacement.soon : WorkerPlacement.seldom)
        if pointee.crowdedLooks >= WorkerPlacement.looksNeeded {
            pointee.crowdedLooks = 0
            front.pointee.placement.makeWay(on: cpu, now: now) { front.pointee.pool.threads }
        }
    }
}
