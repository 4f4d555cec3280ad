// Columns of text: the first row is the heading; numbers are set to the right.

public struct TextTable {
    private var rows: [[String]]
    private let right: Set<Int>

    /// - Parameter right: numbers of the columns that are aligned right.
    public init(heading: [String], right: Set<Int> = []) {
        rows = [heading]
        self.right = right
    }

    public mutating func append(_ row: [String]) {
        precondition(row.count == rows[0].count)
        rows.append(row)
    }

    public var lines: [String] {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                if column > 0 { line += "  " }
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += right.contains(column) ? padding + cell : cell + padding
            }
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }
}
