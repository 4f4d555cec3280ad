// What /proc says about one process: its parent, age and memory.

import Glibc

public struct ProcessInformation: Equatable, Sendable {
    public let pid: Int32
    public let command: String
    public let state: Character
    public let parent: Int32
    /// Clock ticks after boot; with the pid it names a process for good.
    public let startTicks: UInt64

    /// Parses /proc/PID/stat; the command stands in parentheses and may hold any byte.
    init?(pid: Int32, stat: String) {
        guard let open = stat.firstIndex(of: "("), let close = stat.lastIndex(of: ")"), open < close else { return nil }
        let fields = stat[stat.index(after: close)...].split(separator: " ")
        guard fields.count > 19, let state = fields[0].first, let parent = Int32(fields[1]), let start = UInt64(fields[19])
        else { return nil }
        self.pid = pid
        command = String(stat[stat.index(after: open)..<close])
        self.state = state
        self.parent = parent
        startTicks = start
    }

    /// nil if there is no such process.
    public init?(pid: Int32) {
        guard let stat = readText("/proc/\(pid)/stat") else { return nil }
        self.init(pid: pid, stat: stat)
    }

    /// Whether this very process still runs (a zombie does not).
    public var isRunning: Bool {
        guard let now = ProcessInformation(pid: pid) else { return false }
        return now.startTicks == startTicks && now.state != "Z" && now.state != "X"
    }

    /// Waits until it is gone. False if it still runs after `seconds`.
    public func waitForEnd(seconds: Double) -> Bool {
        var waited = 0.0
        while isRunning {
            guard waited < seconds else { return false }
            usleep(5_000)
            waited += 0.005
        }
        return true
    }

    /// Resident bytes; nil if not to be seen.
    public var residentBytes: UInt64? {
        guard let fields = readText("/proc/\(pid)/statm")?.split(separator: " "), fields.count > 1, let pages = UInt64(fields[1])
        else { return nil }
        return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// Seconds since it started.
    public var uptimeSeconds: UInt64? {
        guard let text = readText("/proc/uptime"), let field = text.split(separator: " ").first, let uptime = Double(field)
        else { return nil }
        let age = uptime - Double(startTicks) / Double(sysconf(Int32(_SC_CLK_TCK)))
        return UInt64(max(0, age))
    }

    /// Arguments it was started with; empty if not to be seen.
    public var arguments: [String] {
        (readBytes("/proc/\(pid)/cmdline") ?? []).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The file its standard error goes to, if it is one.
    public var logPath: String? {
        guard let target = linkTarget("/proc/\(pid)/fd/2"), target.hasPrefix("/"), !target.hasPrefix("/dev/") else { return nil }
        return target
    }
}
