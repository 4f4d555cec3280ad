// DistanceMatrix: how far each core is from each other.
//
// Role: choice by distance, of one-to-many names and later of placement. The live system fills it from hwloc, the
// simulator from a made-up topology. One matrix is shared by all servers of a process; it never changes after start.
// Invariants: square; the diagonal is the distance to oneself. Reading it is one load, without reference counting,
// through `view`, which is valid as long as the matrix is.

/// Distances between cores, in the units of <fos/name.h> (0 same core, 10 same cache, 20 same package, 40 another).
public final class DistanceMatrix: @unchecked Sendable {
    public let cores: Int
    private let cells: UnsafeMutablePointer<UInt16>

    /// - Parameters:
    ///   - cores: rows and columns.
    ///   - distance: from the first core to the second; called once a pair.
    public init(cores: Int, distance: (_ from: Int, _ to: Int) -> Int) {
        precondition(cores > 0, "a machine has a core")
        self.cores = cores
        cells = .allocate(capacity: cores * cores)
        for from in 0..<cores {
            for to in 0..<cores { cells[from * cores + to] = UInt16(clamping: distance(from, to)) }
        }
    }
    deinit { cells.deallocate() }

    /// A flat machine: 0 to oneself, 20 to any other.
    public convenience init(flat cores: Int) { self.init(cores: cores) { $0 == $1 ? 0 : 20 } }

    public var view: DistanceView { DistanceView(cells: UnsafePointer(cells), cores: cores) }
}

/// A trivially copyable reader of a `DistanceMatrix`.
public struct DistanceView: BitwiseCopyable {
    let cells: UnsafePointer<UInt16>
    let cores: Int
    /// Distance between two cores; that to a core which does not exist is the greatest.
    public func distance(from: UInt32, to: UInt32) -> UInt32 {
        guard from < UInt32(cores), to < UInt32(cores) else { return UInt32(UInt16.max) }
        return UInt32(cells[Int(from) * cores + Int(to)])
    }
}
