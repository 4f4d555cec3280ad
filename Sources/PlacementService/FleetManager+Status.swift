// FLEET_STATUS: how the fleet is, for `fos fleet` and `.fos/placement`.

public import CFosWire
import Glibc
import Messaging

extension FleetManager {
    mutating func answerStatus<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0 else { return answer(request, -EPERM, kernel) }
        let size = MemoryLayout<fos_fleet_member>.size
        guard Int(request.message.pointee.bulk_length) >= count * size else { return answer(request, -ERANGE, kernel) }
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: UInt32(count * size)) else {
            return answer(request, -EINVAL, kernel)
        }
        for index in 0..<count { room.storeBytes(of: status(of: index), toByteOffset: index * size, as: fos_fleet_member.self) }
        let message = kernel.scratch()
        message.setBody(summary(kernel.monotonic))
        message.pointee.bulk_offset = request.message.pointee.bulk_offset
        message.pointee.bulk_length = UInt32(count * size)
        reply(request, message, kernel)
    }

    /// The fleet in one record: its size and bounds, and its last change or the one under way.
    /// - Parameter now: monotonic ns.
    public func summary(_ now: UInt64) -> fos_fleet_summary {
        var summary = fos_fleet_summary()
        summary.service = FOS_SERVICE_FILE.rawValue
        summary.members = UInt32(serving)
        summary.target = UInt32(wanted > 0 ? wanted : serving)
        summary.minimum = UInt32(minimum)
        summary.maximum = UInt32(count)
        summary.is_automatic = wanted == 0 ? 1 : 0
        change.describe(&summary, now, servers: servers, count: count)
        return summary
    }

    private func status(of index: Int) -> fos_fleet_member {
        let server = servers[index]
        var status = fos_fleet_member()
        status.service = FOS_SERVICE_FILE.rawValue
        status.member = UInt32(index)
        status.core = UInt32(server.mailbox.core)
        status.mailbox = server.mailbox.rawValue
        status.state = server.state
        status.slots = server.report.slots
        status.orders = server.report.orders
        status.requests = server.report.requests
        if let most = programs.busiest(of: index) {
            status.cpu = UInt16(clamping: most.cpu + 1)
            status.cpu_percent = UInt16(clamping: most.percent)
        }
        status.delay_mean = server.delayMean
        status.delay_max = server.delayMax
        status.inodes = server.report.inodes
        status.pages = server.report.pages
        return status
    }
}
