// The machine's CPUs and how far apart they are, by hwloc.
//
// Distances are the name service's: 0 the same core, 10 a shared last-level cache, 20 the same package, 40 another one.

import CHwloc
import CPlatform

public struct Topology: Sendable {
    /// CPUs this process may use, ascending.
    public let cpus: [Int32]
    /// Distances between them: row and column in the order of `cpus`, row-major.
    public let distances: [UInt32]

    /// Of CPUs that share a cache.
    public static var sharedCache: UInt32 { 10 }
    /// Of CPUs of which nothing is known: another package.
    public static var farthest: UInt32 { 40 }

    public func distance(_ a: Int, _ b: Int) -> UInt32 { distances[a * cpus.count + b] }

    /// Distance between two CPUs by number; 40 if one is not known.
    public func distance(cpu a: Int32, cpu b: Int32) -> UInt32 {
        guard let i = cpus.firstIndex(of: a), let j = cpus.firstIndex(of: b) else { return Topology.farthest }
        return distance(i, j)
    }

    /// Reads the topology of this machine. Without hwloc's help (a failed load) every two CPUs share a package.
    /// - Parameter others: CPUs to know of besides those that this process may use.
    public static func current(with others: [Int32] = []) -> Topology {
        let count = Int(fos_platform_allowed_cpus(nil, 0))
        var cpus = [Int32](repeating: 0, count: max(count, 0))
        _ = cpus.withUnsafeMutableBufferPointer { fos_platform_allowed_cpus($0.baseAddress, Int32($0.count)) }
        if !others.isEmpty { cpus = Set(cpus + others).sorted() }
        var distances = [UInt32](repeating: 20, count: cpus.count * cpus.count)
        for i in cpus.indices { distances[i * cpus.count + i] = 0 }
        var topology: hwloc_topology_t?
        guard hwloc_topology_init(&topology) == 0, let topology else { return Topology(cpus: cpus, distances: distances) }
        defer { hwloc_topology_destroy(topology) }
        guard hwloc_topology_load(topology) == 0 else { return Topology(cpus: cpus, distances: distances) }
        let units = cpus.map { hwloc_get_pu_obj_by_os_index(topology, UInt32($0)) }
        for i in cpus.indices {
            for j in cpus.indices where i != j {
                guard let a = units[i], let b = units[j] else { continue }
                distances[i * cpus.count + j] = distance(topology, a, b)
            }
        }
        return Topology(cpus: cpus, distances: distances)
    }

    private static func distance(_ topology: hwloc_topology_t, _ a: hwloc_obj_t, _ b: hwloc_obj_t) -> UInt32 {
        var object: hwloc_obj_t? = hwloc_get_common_ancestor_obj(topology, a, b)
        var found = farthest
        while let ancestor = object {
            // The smallest thing both are in decides; a cache of any level that they share counts as shared cache.
            switch ancestor.pointee.type {
            case HWLOC_OBJ_CORE, HWLOC_OBJ_PU: return 0
            case HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L5CACHE: return sharedCache
            case HWLOC_OBJ_PACKAGE: found = 20
            default: break
            }
            if found == 20 { return 20 }
            object = ancestor.pointee.parent
        }
        return found
    }

    /// The CPUs fos takes by default: it always leaves at least one to programs, and on a small machine most of them.
    /// 1 CPU: that one (shared). 2 to 3: the last. N: a quarter, from the end, at most 16.
    public func defaultCPUs() -> [Int32] {
        guard cpus.count > 1 else { return cpus }
        return Array(cpus.suffix(max(1, min(16, cpus.count / 4))))
    }
}
