// What `fos run --memory --stats` says of memory.

import CFosWire

extension Tally {
    /// Lines and a table of reasons; nothing if no program asked for memory under `--memory`.
    static func memoryReport(_ tally: UnsafePointer<fos_tally>) -> (lines: [(String, String)], reasons: TextTable?) {
        let figures = tally.pointee
        let reasons = (1..<UInt32(FOS_LEFT_REASONS)).map { (reason: $0, count: fos_tally_left(tally, $0)) }
            .filter { $0.count > 0 }.sorted { $0.count > $1.count }
        guard figures.memory_served > 0 || !reasons.isEmpty else { return ([], nil) }
        let size = { (bytes: UInt64) in ByteSize(bytes: bytes).text }
        var lines = [
            ("memory", "\(grouped(figures.memory_served)) requests served with \(size(figures.memory_served_bytes)); "
                + "\(size(figures.memory_linux_bytes)) left to Linux; \(size(figures.memory_given_back)) given back before the end")
        ]
        if figures.memory_frozen > 0 || figures.memory_copied > 0 {
            lines.append(("forks", "\(grouped(figures.memory_frozen)) with served memory, \(size(figures.memory_frozen_bytes)) became copy-on-write in "
                + "\(milliseconds(figures.memory_time_freezing)); \(size(figures.memory_copied)) copied"))
        }
        guard !reasons.isEmpty else { return (lines, nil) }
        var table = TextTable(heading: ["LINUX", "WHY"], right: [0])
        for entry in reasons { table.append([grouped(entry.count), String(cString: fos_left_text(entry.reason))]) }
        return (lines, table)
    }
}
