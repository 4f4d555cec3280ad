// Where a program goes that is to be near the servers it talks to (paper, section 4: space, not time).
//
// Role: `fos run --near`. Which CPUs a program gets is decided once, when it starts; it keeps several, so that Linux still deals
// them out among its threads and processes.
// Invariants: a program never gets a CPU that a core of the instance has, nor one that it might not use before.

import Microkernel

public enum ProgramPlacement {
    /// The CPUs nearest to an instance's cores, ascending; empty: the instance has all that the program may use.
    /// - Parameters:
    ///   - cores: CPUs of the instance's cores.
    ///   - allowed: CPUs that the program may use.
    public static func near(cores: [Int], allowed: [Int]) -> [Int] {
        let topology = Topology.current(with: (cores + allowed).map { Int32(clamping: $0) })
        return near(cores: cores, allowed: allowed) { topology.distance(cpu: Int32(clamping: $0), cpu: Int32(clamping: $1)) }
    }

    /// All CPUs that share a cache with a core, or else all in a package with one, or else all: the nearest of these that has any. A
    /// core's other hardware threads share its caches, and are no nearer than the rest that does: they have half a processor.
    static func near(cores: [Int], allowed: [Int], distance: (Int, Int) -> UInt32) -> [Int] {
        let free = Set(allowed).subtracting(cores).sorted()
        let away = free.map { cpu in max(cores.map { distance(cpu, $0) }.min() ?? Topology.farthest, Topology.sharedCache) }
        return free.indices.filter { away[$0] == away.min() }.map { free[$0] }
    }
}
