// SenderCounts: from which CPUs programs have sent requests to a server since its last report.
//
// Role: what the placement of servers knows of programs. A client says with each request where it runs (its proxy knows
// that anyway), and the microkernel puts it into the envelope. A server counts only the requests that its meter measures,
// one in sixteen, so it costs next to nothing.
// Invariants: where a client says that it is decides nothing but where servers are put; a CPU that cannot be is not counted.

public import CFosWire

public struct SenderCounts: ~Copyable {
    /// By CPU.
    private let counts: UnsafeMutablePointer<UInt16>
    private static var cpus: Int { Int(FOS_CPUS_MAX) }

    public init() {
        counts = .allocate(capacity: SenderCounts.cpus)
        counts.initialize(repeating: 0, count: SenderCounts.cpus)
    }
    deinit { counts.deallocate() }

    /// Counts a request, if a client sent it that says where it runs.
    public mutating func count(_ envelope: UnsafePointer<fos_envelope>) {
        let cpu = Int(envelope.pointee.cpu) - 1
        guard UInt32(envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue, (0..<SenderCounts.cpus).contains(cpu), counts[cpu] < .max
        else { return }
        counts[cpu] += 1
    }

    /// Fills the senders of a report: the CPUs with most requests, as many as there is room for.
    public func report(into report: inout fos_fleet_report) {
        withUnsafeMutableBytes(of: &report.senders) { bytes in
            let senders = bytes.bindMemory(to: fos_fleet_sender.self)
            var filled = 0
            for cpu in 0..<SenderCounts.cpus where counts[cpu] > 0 {
                let sender = fos_fleet_sender(cpu: UInt16(cpu), requests: counts[cpu])
                if filled < senders.count {
                    senders[filled] = sender
                    filled += 1
                } else if let least = senders.indices.min(by: { senders[$0].requests < senders[$1].requests }),
                    senders[least].requests < sender.requests
                {
                    senders[least] = sender
                }
            }
        }
    }

    /// A report is out: the next one counts from here.
    public mutating func begin() { counts.update(repeating: 0, count: SenderCounts.cpus) }
}
