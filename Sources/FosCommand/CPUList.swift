// Lists of CPUs as cpuset(7) and taskset(1) write them: "1,4-7".

import Glibc

/// A sorted list of different CPU numbers.
public struct CPUList: Equatable, Sendable {
    public let cpus: [Int]
    /// CPU numbers are below this; more than Linux supports on any machine it runs on today.
    public static let limit = 8192

    public init(_ cpus: some Sequence<Int>) { self.cpus = Array(Set(cpus)).sorted() }

    /// Parses "1,4-7" and "0-8:2" (every second).
    public init(parsing text: String) throws(CommandFailure) {
        let wrong = CommandFailure.usage("bad CPU list '\(text)'; give numbers and ranges, as in --cpus 1,4-7")
        func number(_ text: Substring) throws(CommandFailure) -> Int {
            guard !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isNumber }), let value = Int(text), value < Self.limit
            else { throw wrong }
            return value
        }
        var cpus: [Int] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let stepped = part.split(separator: ":", omittingEmptySubsequences: false)
            let ends = stepped[0].split(separator: "-", omittingEmptySubsequences: false)
            guard stepped.count <= 2, ends.count <= 2, stepped.count == 1 || ends.count == 2 else { throw wrong }
            let first = try number(ends[0])
            let last = ends.count == 2 ? try number(ends[1]) : first
            let step = stepped.count == 2 ? try number(stepped[1]) : 1
            guard first <= last, step > 0 else { throw wrong }
            cpus.append(contentsOf: stride(from: first, through: last, by: step))
        }
        self.init(cpus)
    }

    /// "1,4-7".
    public var text: String {
        var parts: [String] = []
        var index = 0
        while index < cpus.count {
            var last = index
            while last + 1 < cpus.count, cpus[last + 1] == cpus[last] + 1 { last += 1 }
            parts.append(last == index ? "\(cpus[index])" : last == index + 1 ? "\(cpus[index]),\(cpus[last])" : "\(cpus[index])-\(cpus[last])")
            index = last + 1
        }
        return parts.joined(separator: ",")
    }

    /// The CPUs that are switched on.
    public static func online() -> CPUList {
        if let text = readText("/sys/devices/system/cpu/online"), let list = try? CPUList(parsing: text.trimmed) { return list }
        return CPUList(0..<max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }

    /// The CPUs that this process may run on (Cpus_allowed_list of proc_pid_status(5)).
    public static func allowed() -> CPUList {
        for line in (readText("/proc/self/status") ?? "").split(separator: "\n") where line.hasPrefix("Cpus_allowed_list:") {
            if let list = try? CPUList(parsing: String(line.dropFirst(18)).trimmed) { return list }
        }
        return online()
    }

    /// Checks a list that somebody asked for against the machine.
    /// - Returns: a warning, if the list is allowed but unwise.
    public func check(online: CPUList, allowed: CPUList) throws(CommandFailure) -> String? {
        if let cpu = cpus.first(where: { !online.cpus.contains($0) }) {
            throw .usage("CPU \(cpu) is not online; this machine has \(online.text)")
        }
        if let cpu = cpus.first(where: { !allowed.cpus.contains($0) }) {
            throw .usage("CPU \(cpu) may not be used by this process; it may use \(allowed.text) (taskset, cpuset)")
        }
        guard cpus.count < online.cpus.count else {
            return "--cpus \(text) leaves no CPU to programs; they will share CPUs with fos, and both will be slower"
        }
        return nil
    }
}
