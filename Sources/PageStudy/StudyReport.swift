// The study's results as a table, as JSON, and the ratios that are its goals.

import FosCommand

public struct StudyReport {
    public let results: [StudyResult]
    public init(_ results: [StudyResult]) { self.results = results }

    func result(_ method: Method, _ exercise: Exercise, _ processes: Int) -> StudyResult? {
        results.first { $0.method == method && $0.exercise == exercise && $0.processes == processes }
    }
    var processCounts: [Int] { Set(results.map(\.processes)).sorted() }

    static func title(_ exercise: Exercise, _ processes: Int) -> String {
        let what = exercise == .reserve ? "from the reserve: allocate and touch" : "steady state: allocate, touch, free, again and again"
        return "\(what), \(processes == 1 ? "one process" : "\(processes) processes at once")"
    }

    /// One of the issue's goals: how many times faster one method is than another.
    public struct Goal {
        public let text: String
        public let ratio: Double
        public let wanted: Double
        public var isMet: Bool { ratio >= wanted }
    }

    public var goals: [Goal] {
        var goals: [Goal] = []
        func add(_ method: Method, than other: Method, _ exercise: Exercise, _ processes: Int, _ wanted: Double) {
            guard let fast = result(method, exercise, processes), let slow = result(other, exercise, processes), fast.split.total > 0 else {
                return
            }
            goals.append(
                Goal(
                    text:
                        "\(method.title) than \(other.title), \(exercise == .reserve ? "from the reserve" : "steady state"), \(processes == 1 ? "one process" : "\(processes) at once")",
                    ratio: slow.split.total / fast.split.total, wanted: wanted))
        }
        add(.fosHuge, than: .linuxSmall, .reserve, 1, 50)
        add(.fosHuge, than: .linuxHuge, .reserve, 1, 8)
        add(.fosSmall, than: .linuxSmall, .reserve, 1, 3)
        add(.fosHuge, than: .linuxSmall, .steady, 1, 8)
        add(.fosHuge, than: .linuxHuge, .steady, 1, 1)
        if let most = processCounts.last, most > 1 {
            add(.fosHuge, than: .linuxSmall, .reserve, most, 10)
            add(.fosHuge, than: .linuxSmall, .steady, most, 10)
        }
        return goals
    }

    public var lines: [String] {
        var lines: [String] = []
        for exercise in [Exercise.reserve, .steady] {
            for processes in processCounts {
                lines.append(Self.title(exercise, processes))
                var table = TextTable(
                    heading: ["ms per GiB and process", "call", "fault", "zeroing", "waiting", "total", "least", "most", "of Linux 4 KiB"],
                    right: Set(1...8))
                let base = result(.linuxSmall, exercise, processes)?.split.total ?? 0
                for method in Method.allCases {
                    guard let result = result(method, exercise, processes) else { continue }
                    let split = result.split
                    let times = [
                        split.call, split.fault, split.zeroing, split.waiting, split.total, result.rounds.min() ?? 0,
                        result.rounds.max() ?? 0,
                    ]
                    let cells = times.map { number($0 * 1000, 2) }
                    table.append([method.title] + cells + [base > 0 ? number(split.total / base, 3) : "-"])
                }
                lines += table.lines + [""]
            }
        }
        var table = TextTable(heading: ["times faster", "measured", "goal", ""], right: [1, 2])
        for goal in goals { table.append([goal.text, number(goal.ratio, 1), number(goal.wanted, 0), goal.isMet ? "" : "missed"]) }
        return lines + table.lines
    }

    public var json: JSON {
        .object([
            ("results", .array(results.map { result in
                .object([
                    ("method", .string(result.method.rawValue)), ("exercise", .string(result.exercise.rawValue)),
                    ("processes", .number(UInt64(result.processes))), ("call_s", .decimal(number(result.split.call, 6))),
                    ("fault_s", .decimal(number(result.split.fault, 6))), ("zeroing_s", .decimal(number(result.split.zeroing, 6))),
                    ("waiting_s", .decimal(number(result.split.waiting, 6))), ("total_s", .decimal(number(result.split.total, 6))),
                    ("rounds_s", .array(result.rounds.map { .decimal(number($0, 6)) })),
                ])
            })),
            ("goals", .array(goals.map { goal in
                .object([
                            ("goal", .string(goal.text)), ("times_faster", .decimal(number(goal.ratio, 3))),
                            ("wanted", .decimal(number(goal.wanted, 0))),
                    ("met", .bool(goal.isMet)),
                ])
            })),
        ])
    }
}

/// A number with a fixed count of decimals, not negative.
func number(_ value: Double, _ places: Int) -> String {
    var scale = 1
    for _ in 0..<places { scale *= 10 }
    let scaled = Int((max(0, value) * Double(scale)).rounded())
    guard places > 0 else { return String(scaled) }
    let fraction = String(scaled % scale)
    return "\(scaled / scale)." + String(repeating: "0", count: places - fraction.count) + fraction
}
