// What the microkernel answers for every mailbox: its counters (FOS_OP_STATISTICS) and its trace ring (FOS_OP_TRACE).
//
// Invariant: answered between the turns of servers, so a server's own figures (`Server.describe`) are those of a moment in which
// it ran nothing.

import CFosWire
import CPlatform
import Glibc
import Messaging

extension CoreKernel {
    /// The counters that the microkernel keeps for a server.
    @usableFromInline func statistics(of server: Int) -> fos_statistics {
        let core = state
        let mailbox = core.pointee.mailboxes + (server + 1)
        var statistics = fos_statistics()
        statistics.service = mailbox.pointee.service
        statistics.member = mailbox.pointee.member
        statistics.core = UInt32(core.pointee.index)
        statistics.mailbox = mailbox.pointee.port.address.rawValue
        statistics.requests = mailbox.pointee.requests
        statistics.replies = mailbox.pointee.replies
        statistics.forwards = mailbox.pointee.forwards
        statistics.retries = mailbox.pointee.retries
        statistics.errors = mailbox.pointee.errors
        statistics.sent = mailbox.pointee.sent
        let remote = fos_load_relaxed_u32(mailbox.pointee.port.tail) &- mailbox.pointee.remoteHead
        // Less the question, which lies in its slot until it is answered.
        let queued = UInt64(mailbox.pointee.queued) + UInt64(remote)
        statistics.queue_now = queued > 0 ? queued - 1 : 0
        statistics.queue_peak = mailbox.pointee.queuePeak
        statistics.continuations_now = UInt64(mailbox.pointee.awaited)
        statistics.continuations_peak = mailbox.pointee.continuationsPeak
        return statistics
    }

    @usableFromInline func reply(_ taken: TakenRequest, _ statistics: fos_statistics) {
        let answer = scratch()
        answer.pointee.operation = UInt16(FOS_OP_STATISTICS.rawValue)
        answer.pointee.length = UInt32(MemoryLayout<fos_statistics>.size)
        UnsafeMutableRawPointer(answer + 1).storeBytes(of: statistics, as: fos_statistics.self)
        reply(to: fos_letter_envelope(taken.letter), answer)
    }

    /// Copies a mailbox's trace ring, oldest first, into the asker's bulk area. The owner's and root's to read: it shows
    /// what everybody does.
    func replyTrace(_ mailbox: Int, _ envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        let answer = scratch()
        answer.pointee.operation = UInt16(FOS_OP_TRACE.rawValue)
        if envelope.pointee.rights & UInt16(FOS_RIGHT_ADMIN.rawValue) == 0 {
            answer.pointee.status = -EACCES
        } else {
            let ring = state.pointee.mailboxes[mailbox]
            let size = MemoryLayout<fos_trace_record>.stride
            let count = ring.traced.pointee
            let shown = min(count, UInt64(FOS_TRACE_RECORDS), UInt64(message.pointee.bulk_length) / UInt64(size))
            if let room = bulk(of: envelope, offset: message.pointee.bulk_offset, count: UInt32(shown) * UInt32(size)) {
                for position in 0..<Int(shown) {
                    let record = (count - shown + UInt64(position)) % UInt64(FOS_TRACE_RECORDS)
                    room.storeBytes(of: ring.trace[Int(record)], toByteOffset: position * size, as: fos_trace_record.self)
                }
                answer.pointee.bulk_offset = message.pointee.bulk_offset
                answer.pointee.bulk_length = UInt32(shown) * UInt32(size)
            } else {
                answer.pointee.status = -EINVAL
            }
        }
        reply(to: envelope, answer)
    }
}
