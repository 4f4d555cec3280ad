// The study's report: medians, ratios and goals from given figures, and a figure that is a well-formed document.

@testable import PageStudy
import Testing

@Suite struct ReportTests {
    private func report(huge: Bool = true, fosHuge: Double = 0.005) -> StudyReport {
        var results: [StudyResult] = []
        for exercise in Exercise.allCases {
            for processes in [1, 2] {
                let totals: [(Method, Double)] = [(.linuxSmall, 0.4), (.linuxHuge, 0.06), (.fosSmall, 0.1), (.fosHuge, fosHuge)]
                for (method, total) in totals where huge || method != .fosHuge {
                    results.append(
                        StudyResult(
                            method: method, exercise: exercise, processes: processes,
                            split: Split(call: total / 10, fault: total / 2, zeroing: total * 0.3, waiting: total / 10),
                            rounds: [total / 2, total, 2 * total]))
                }
            }
        }
        return StudyReport(results)
    }

    @Test func goalsAreRatiosOfTotals() throws {
        let goals = report().goals
        #expect(goals.count == 7)
        #expect(abs(goals[0].ratio - 80) < 1e-6 && goals[0].wanted == 50 && goals[0].isMet)
        #expect(abs(goals[1].ratio - 12) < 1e-6 && goals[1].isMet)
        #expect(abs(goals[2].ratio - 4) < 1e-6)
        let slow = report(fosHuge: 0.03).goals
        #expect(!slow[0].isMet && !slow[1].isMet && slow[4].isMet)
    }

    @Test func withoutHugeFramesTheRestIsReported() {
        let report = report(huge: false)
        #expect(report.goals.count == 1)
        #expect(!report.lines.contains { $0.contains("2 MiB") })
    }

    @Test func tableNamesEveryMethodAndMissedGoals() {
        let text = report(fosHuge: 0.03).lines.joined(separator: "\n")
        for method in Method.allCases { #expect(text.contains(method.title)) }
        #expect(text.contains("missed") && text.contains("400.00") && text.contains("800.00") && text.contains("2 processes at once"))
    }

    @Test func figureIsWellFormed() throws {
        let svg = report().svg
        let document = XMLReader()
        #expect(document.read(svg), "\(svg)")
        #expect(document.elements["rect", default: 0] >= 1 + 2 * 2 * 4 * 4)
        #expect(svg.contains("2 processes at once") && svg.contains("zeroing"))
    }

    @Test func medianIsOneOfTheRuns() {
        let runs = [3.0, 1, 2].map { Split(call: $0, fault: 1) }
        #expect(Split.median(runs) == runs[2])
        #expect(Split.median([]) == nil)
    }
}

/// Counts elements, and tells whether every one is closed in its place.
private final class XMLReader {
    private(set) var elements: [String: Int] = [:]

    func read(_ text: String) -> Bool {
        var open: [Substring] = []
        var rest = text[...]
        while let start = rest.firstIndex(of: "<") {
            guard let end = rest[start...].firstIndex(of: ">") else { return false }
            let tag = rest[rest.index(after: start)..<end]
            rest = rest[rest.index(after: end)...]
            let name = tag.drop { $0 == "/" }.prefix { $0 != " " && $0 != "/" }
            if tag.hasPrefix("/") {
                guard open.popLast() == name else { return false }
            } else {
                elements[String(name), default: 0] += 1
                guard tag.filter({ $0 == "\"" }).count % 2 == 0 else { return false }
                if !tag.hasSuffix("/") { open.append(name) }
            }
        }
        return open.isEmpty
    }
}
