// The figures of `fos run --stats`: the shared file that the shimmed processes add to (fos/tally.h), and its report.

import CCommand
import CFosWire
import CSyscallSites
import Glibc

public final class Tally {
    private let shared: UnsafeMutablePointer<fos_tally>
    private let descriptor: Int32
    /// How the processes open it: through this process, so that nothing is left behind however it ends.
    public var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

    public init() throws(CommandFailure) {
        descriptor = fos_command_memory("fos-tally", MemoryLayout<fos_tally>.size)
        let bytes = MemoryLayout<fos_tally>.size
        guard descriptor >= 0,
            let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED
        else {
            throw CommandFailure("cannot make room for the figures: \(errorText(descriptor < 0 ? -descriptor : errno))", exitStatus: RunExit.failure)
        }
        shared = memory.assumingMemoryBound(to: fos_tally.self)
        fos_tally_begin(shared)
    }

    /// What to print after the end. `seconds`: how long the command ran.
    public func report(seconds: Double) -> [String] {
        let tally = shared.pointee
        var calls: [(number: UInt32, handled: UInt64, bypassed: UInt64)] = []
        for number in 0..<UInt32(FOS_SYSTEM_CALLS) {
            let handled = fos_tally_handled(shared, number), bypassed = fos_tally_bypassed(shared, number)
            if handled + bypassed > 0 { calls.append((number, handled, bypassed)) }
        }
        calls.sort { $0.handled + $0.bypassed > $1.handled + $1.bypassed }
        let handled = calls.reduce(0) { $0 + $1.handled }, bypassed = calls.reduce(0) { $0 + $1.bypassed }
        var lines: [String] = []
        func line(_ key: String, _ value: String) {
            lines.append(key + String(repeating: " ", count: max(1, 14 - key.count)) + value)
        }
        line("programs", grouped(tally.processes) + (tally.aside > 0 ? ", \(grouped(tally.aside)) of them without the shim" : ""))
        line("calls", "\(grouped(handled)) answered by fos, \(grouped(bypassed)) by the kernel through the mount")
        line("messages", "\(grouped(tally.messages)) over \(grouped(tally.connections)) connections")
        line("cache", "\(grouped(tally.cache_hits)) hits, \(grouped(tally.cache_misses)) misses")
        line("data", "\(ByteSize(bytes: tally.bytes_read).text) read, \(ByteSize(bytes: tally.bytes_written).text) written; "
            + "\(grouped(tally.mapped_reads + tally.mapped_writes)) calls as memory copies")
        line("descriptors", "\(grouped(tally.materialised)) handed to the kernel, \(grouped(tally.adopted)) adopted by the next program")
        line("time", "\(Self.milliseconds(tally.time_handled)) in answered calls, \(Self.milliseconds(tally.time_messages)) of it waiting for messages; "
            + "\(Self.milliseconds(UInt64(max(0, seconds) * 1e9))) in all")
        let memory = Self.memoryReport(shared)
        for (key, value) in memory.lines { line(key, value) }
        if !calls.isEmpty {
            var table = TextTable(heading: ["CALL", "FOS", "KERNEL"], right: [1, 2])
            for call in calls {
                let name = String(cString: fos_system_call_name(call.number))
                table.append([name.isEmpty ? String(call.number) : name, grouped(call.handled), grouped(call.bypassed)])
            }
            lines.append("")
            lines += table.lines
        }
        let reasons = (1..<UInt32(FOS_BYPASS_REASONS)).map { (reason: $0, count: fos_tally_reason(shared, $0)) }
            .filter { $0.count > 0 }.sorted { $0.count > $1.count }
        if !reasons.isEmpty {
            var table = TextTable(heading: ["KERNEL", "WHY"], right: [0])
            for entry in reasons { table.append([grouped(entry.count), String(cString: fos_bypass_text(entry.reason))]) }
            lines.append("")
            lines += table.lines
        }
        if let table = memory.reasons {
            lines.append("")
            lines += table.lines
        }
        return lines
    }

    static func milliseconds(_ nanoseconds: UInt64) -> String {
        let tenths = (nanoseconds + 50_000) / 100_000
        return "\(grouped(tenths / 10)).\(tenths % 10) ms"
    }

    deinit {
        munmap(shared, MemoryLayout<fos_tally>.size)
        close(descriptor)
    }
}
