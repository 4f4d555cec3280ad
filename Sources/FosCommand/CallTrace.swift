// The record of `fos trace`: the file that shimmed processes write to (fos/calltrace.h), as text and as a Chrome trace.
//
// The steps are the nine of the paper's figure 5 (docs/architecture.md). The client's proxy times its own; those of the
// microkernel and the server are in the channel, where the microkernel leaves them for requests that ask for it.

import CCommand
import CFosWire
import CSyscallSites
import Glibc

public final class CallTrace {
    public static let room = 1 << 18
    private static let bytes = MemoryLayout<fos_call_trace_header>.size + room * MemoryLayout<fos_call_trace_entry>.stride

    private let header: UnsafeMutablePointer<fos_call_trace_header>
    private let descriptor: Int32
    /// How the processes open it.
    public var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

    public init() throws(CommandFailure) {
        descriptor = fos_command_memory("fos-trace", Self.bytes)
        guard descriptor >= 0, let memory = mmap(nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED
        else {
            throw CommandFailure(
                "cannot make room for the trace: \(errorText(descriptor < 0 ? -descriptor : errno))", exitStatus: RunExit.failure)
        }
        header = memory.assumingMemoryBound(to: fos_call_trace_header.self)
        fos_call_trace_begin(header, UInt64(Self.room))
    }

    deinit {
        munmap(header, Self.bytes)
        close(descriptor)
    }

    /// How many calls and messages found no room.
    public var lost: UInt64 { header.pointee.next > UInt64(Self.room) ? header.pointee.next - UInt64(Self.room) : 0 }

    /// A call with its messages.
    struct Call {
        let entry: fos_call_trace_entry
        var messages: [fos_call_trace_entry] = []
    }

    /// All calls that were recorded whole, in the order in which they began.
    func calls() -> [Call] {
        let entries = UnsafeMutableRawPointer(header + 1).assumingMemoryBound(to: fos_call_trace_entry.self)
        let count = min(Int(clamping: header.pointee.next), Self.room)
        var calls: [Call] = []
        var messages: [Key: [fos_call_trace_entry]] = [:]
        for index in 0..<count where entries[index].complete == 1 {
            let entry = entries[index]
            if entry.kind == UInt16(FOS_TRACED_CALL.rawValue) { calls.append(Call(entry: entry)) }
            else { messages[Key(entry), default: []].append(entry) }
        }
        calls.sort { $0.entry.start < $1.entry.start }
        for index in calls.indices {
            calls[index].messages = (messages[Key(calls[index].entry)] ?? []).sorted { $0.built < $1.built }
        }
        return calls
    }

    private struct Key: Hashable {
        let thread: UInt32, start: UInt64
        init(_ entry: fos_call_trace_entry) { (thread, start) = (entry.thread, entry.start) }
    }

    /// The spans of a message within its call, with the numbers of the paper's steps. `before` is when the program's call, or the
    /// message before, let go of the proxy; `after` when the program has its result, for the last message.
    static func steps(of message: fos_call_trace_entry, before: UInt64, after: UInt64?) -> [(name: String, from: UInt64, to: UInt64)] {
        // When each step ends. One that left no time, as a mailbox that refused the request, took none.
        var ends = [
            message.built, message.sent, message.resolved, message.posted, message.taken, message.begun, message.answered, message.replied,
        ]
        if let after { ends.append(after) }
        var from = before
        return zip(stepNames, ends).map { name, end in
            defer { from = max(from, end) }
            return (name: name, from: from, to: max(from, end))
        }
    }

    private static let stepNames = [
        "1 call", "2 build", "3 name cache", "4 hand over", "5 transport", "6 mailbox", "7 server", "8 reply", "9 return",
    ]

    static func callName(_ number: UInt16) -> String {
        let name = String(cString: fos_system_call_name(UInt32(number)))
        return name.isEmpty ? "call \(number)" : name
    }

    static func resultText(_ result: Int64) -> String {
        if result == Int64.min { return "kernel" }
        return result < 0 && result >= -4095 ? "-" + (errorName(Int32(-result))) : String(result)
    }

    static func operationName(_ number: UInt16) -> String {
        let name = String(cString: fos_operation_name(UInt32(number)))
        return name.isEmpty ? "message \(number)" : name
    }
    private static func errorName(_ error: Int32) -> String {
        let name = String(cString: fos_command_error_name(error))
        return name.isEmpty ? String(error) : name
    }

    // ---- text

    private static let ofCall = ["AT", "THREAD", "CALL", "RESULT", "TOTAL"]
    private static let heading = ofCall + ["MESSAGE"] + stepNames.map { $0.uppercased() }

    /// A line for each call, and one for each message of it after the first. Times in microseconds.
    public func textLines() -> [String] {
        let calls = calls()
        var table = TextTable(heading: Self.heading, right: Set([0, 1, 3, 4]).union(Self.ofCall.count + 1..<Self.heading.count))
        let first = calls.first?.entry.start ?? 0
        for call in calls {
            let entry = call.entry
            let own = [
                Self.microseconds(entry.start - first), String(entry.thread), Self.callName(entry.number), Self.resultText(entry.result),
                Self.microseconds(entry.end - entry.start),
            ]
            if call.messages.isEmpty { table.append(own + Array(repeating: "", count: Self.heading.count - own.count)) }
            var before = entry.start
            for (index, message) in call.messages.enumerated() {
                let after = index == call.messages.count - 1 ? entry.end : nil
                let spans = Self.steps(of: message, before: before, after: after).map { Self.microseconds($0.to - $0.from) }
                let what = Self.operationName(message.number) + (message.retries > 0 ? ", \(message.retries) retries" : "")
                table.append((index == 0 ? own : Array(repeating: "", count: own.count)) + [what] + spans + (after == nil ? [""] : []))
                before = message.end
            }
        }
        return table.lines + (lost > 0 ? ["\(grouped(lost)) more calls and messages found no room"] : [])
    }

    private static func microseconds(_ nanoseconds: UInt64) -> String {
        let hundredths = (nanoseconds + 5) / 10
        return "\(hundredths / 100)." + (hundredths % 100 < 10 ? "0" : "") + String(hundredths % 100)
    }

    // ---- Chrome's trace event format, which Perfetto reads too

    public func chromeJSON() -> JSON {
        var events: [JSON] = []
        func span(_ name: String, _ category: String, _ from: UInt64, _ to: UInt64, _ entry: fos_call_trace_entry, _ details: [(String, JSON)]) {
            events.append(.object([
                ("name", .string(name)), ("cat", .string(category)), ("ph", .string("X")), ("ts", .decimal(Self.exact(from))),
                ("dur", .decimal(Self.exact(to - from))), ("pid", .number(UInt64(entry.process))), ("tid", .number(UInt64(entry.thread))),
                ("args", .object(details)),
            ]))
        }
        for call in calls() {
            let entry = call.entry
            span(Self.callName(entry.number), "call", entry.start, max(entry.start, entry.end), entry, [("result", .string(Self.resultText(entry.result)))])
            var before = entry.start
            for (index, message) in call.messages.enumerated() {
                let details: [(String, JSON)] = [
                    ("message", .string(Self.operationName(message.number))), ("inode", .number(message.inode)), ("retries", .number(UInt64(message.retries))),
                ]
                let after = index == call.messages.count - 1 ? entry.end : nil
                for step in Self.steps(of: message, before: before, after: after) { span(step.name, "step", step.from, step.to, entry, details) }
                before = message.end
            }
        }
        return .object([("displayTimeUnit", .string("ns")), ("traceEvents", .array(events))])
    }

    /// Microseconds with three digits behind the point.
    private static func exact(_ nanoseconds: UInt64) -> String {
        let rest = String(nanoseconds % 1000)
        return "\(nanoseconds / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
    }
}
