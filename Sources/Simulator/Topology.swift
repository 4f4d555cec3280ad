// Where the cores of a simulated machine are, and how far it is from one to another.
//
// Role: a distance is in hops for a mesh on chip (paper, section 3.1: messages between cores of a chip), and in the units
// of <fos/name.h> for a machine that hwloc describes. What a distance costs, `MessageCost` says.

public struct CoreTopology: Sendable {
    private enum Shape: Sendable {
        case mesh(width: Int)
        /// Row by row.
        case matrix([UInt16])
    }
    private let shape: Shape
    public let cores: Int

    /// Cores in rows, as square as their number allows; the distance is that of a walk along rows and columns.
    public init(mesh cores: Int) {
        precondition(cores > 0, "a machine has a core")
        self.cores = cores
        var width = 1
        while width * width < cores { width += 1 }
        shape = .mesh(width: width)
    }

    /// - Parameter distance: from the first core to the second; called once a pair.
    public init(cores: Int, distance: (_ from: Int, _ to: Int) -> Int) {
        precondition(cores > 0, "a machine has a core")
        self.cores = cores
        var cells = [UInt16]()
        cells.reserveCapacity(cores * cores)
        for from in 0..<cores { for to in 0..<cores { cells.append(UInt16(clamping: distance(from, to))) } }
        shape = .matrix(cells)
    }

    public func distance(from: Int, to: Int) -> Int {
        switch shape {
        case .mesh(let width): abs(from % width - to % width) + abs(from / width - to / width)
        case .matrix(let cells): Int(cells[from * cores + to])
        }
    }
}
