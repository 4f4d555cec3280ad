// The name fleet at rest: each name is served by one server, and another one has the same of it.

import NameService

struct NameCensus {
    private(set) var violations: [Violation] = []

    /// - Parameter servers: those that live.
    init(of servers: [NameMember]) {
        var served: [String: NameReport] = [:]
        var copies: [String: NameReport] = [:]
        for member in servers {
            if !member.server.isServing { complain("a name server has not taken its place, or copies for ever") }
            let report = member.server.report
            for name in report.served {
                if served[name.name] != nil { complain("name \(name.name) is served by two") }
                served[name.name] = name
            }
            for name in report.copies { copies[name.name] = name }
        }
        guard servers.count > 1 else { return }
        for (name, report) in served.sorted(by: { $0.key < $1.key }) where copies[name] != report {
            complain("name \(name) is \(report) where it is served, and its copy is \(copies[name].map { "\($0)" } ?? "nowhere")")
        }
        for name in copies.keys.sorted() where served[name] == nil { complain("name \(name) is a copy of nothing") }
    }

    private mutating func complain(_ text: String) { violations.append(Violation("service names", text)) }
}
