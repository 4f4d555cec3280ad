// Topologies from hwloc: any machine that it can describe, made up or written down, as distances between cores.
//
// Distances are the name service's: 0 the same core, 10 a shared cache, 20 the same package, 40 another one.

import CHwloc
public import Simulator

extension TopologyPlan {
    /// The cores of a plan. A mesh has as many as asked for; hwloc's machines have their own number, of which the first
    /// `cores` are taken if they are that many.
    public func topology(cores: Int) throws(ScenarioError) -> CoreTopology {
        switch self {
        case .mesh: return CoreTopology(mesh: cores)
        case .synthetic(let description):
            return try load("topology \"\(description)\"", cores) { hwloc_topology_set_synthetic($0, description) }
        case .xml(let path): return try load("topology file \(path)", cores) { hwloc_topology_set_xml($0, path) }
        }
    }

    private func load(_ what: String, _ cores: Int, _ source: (hwloc_topology_t) -> Int32) throws(ScenarioError) -> CoreTopology {
        var handle: hwloc_topology_t?
        guard hwloc_topology_init(&handle) == 0, let topology = handle else { throw ScenarioError("hwloc cannot start") }
        defer { hwloc_topology_destroy(topology) }
        guard source(topology) == 0, hwloc_topology_load(topology) == 0 else {
            throw ScenarioError("\(what) is nothing that hwloc understands")
        }
        let count = Int(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU))
        guard count >= cores else { throw ScenarioError("\(what) has \(max(count, 0)) cores, and \(cores) are asked for") }
        guard cores <= 4096 else { throw ScenarioError("a machine has at most 4096 cores") }
        let units = (0..<cores).map { hwloc_get_obj_by_type(topology, HWLOC_OBJ_PU, UInt32($0)) }
        return CoreTopology(cores: cores) { a, b in a == b ? 0 : TopologyPlan.distance(topology, units[a], units[b]) }
    }

    static func distance(_ topology: hwloc_topology_t, _ a: hwloc_obj_t?, _ b: hwloc_obj_t?) -> Int {
        guard let a, let b else { return 40 }
        var object: hwloc_obj_t? = hwloc_get_common_ancestor_obj(topology, a, b)
        while let ancestor = object {
            switch ancestor.pointee.type {
            case HWLOC_OBJ_CORE, HWLOC_OBJ_PU: return 0
            case HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L5CACHE: return 10
            case HWLOC_OBJ_PACKAGE: return 20
            default: object = ancestor.pointee.parent
            }
        }
        return 40
    }
}
