// What servers answer alike: an empty reply, a reply that nobody may be waiting for, what FOS_OP_STATISTICS says, and the statuses
// that are no errors.
//
// Protocol: one-way letters (FOS_SENDER_NONE) get no reply; all others get exactly one.
// The live microkernel answers FOS_OP_PING and FOS_OP_STATISTICS before a server sees them, from `Server.describe`; on hosts that do
// not (the simulator, the loop host of the tests) the server's own answer is built with `described`.

public import CFosWire

/// The outcomes of sending that are no errors of the operation (`fos_transport_status`), as statuses of a reply. The client's proxy
/// deals with all of them.
public enum Status {
    /// The request met a transaction in progress; nothing was changed, and it is to be sent again after a pause.
    @inlinable public static var retry: Int32 { Int32(FOS_TRANSPORT_RETRY.rawValue) }
    /// No such mailbox, or its epoch has changed.
    @inlinable public static var stale: Int32 { Int32(FOS_TRANSPORT_STALE.rawValue) }
    /// The mailbox was full.
    @inlinable public static var full: Int32 { Int32(FOS_TRANSPORT_FULL.rawValue) }
    /// The privilege fleet does not let this client send there.
    @inlinable public static var denied: Int32 { Int32(FOS_TRANSPORT_DENIED.rawValue) }
}

extension Server where Self: ~Copyable {
    /// Answers with a status and no payload, unless the letter was one-way.
    /// - Parameter status: 0, a negative errno, or a positive `fos_transport_status`.
    @inlinable public func answer<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ status: Int32, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.status = status
        reply(envelope, message, kernel)
    }

    /// Sends a reply, unless the letter was one-way.
    @inlinable public func reply<K: Kernel>(
        _ envelope: UnsafePointer<fos_envelope>, _ message: UnsafeMutablePointer<fos_message>, _ kernel: K
    ) {
        guard UInt32(envelope.pointee.sender_kind) != FOS_SENDER_NONE.rawValue else { return }
        kernel.reply(to: envelope, message)
    }

    /// The counters that only the server knows (`describe`), and where it runs.
    @inlinable public func described<K: Kernel>(on kernel: K) -> fos_statistics {
        var statistics = fos_statistics()
        statistics.core = UInt32(kernel.core)
        statistics.mailbox = kernel.mailbox.rawValue
        describe(&statistics)
        return statistics
    }
}
