// The contents of `.fos/`: names, servers, counters, placement, topology and version, as plain text files.
//
// Protocol: the FUSE front end asks for a file by name at each lookup and gets a fresh snapshot. Formats are tab
// separated with a header line, so that cut, sort and awk work on them.

import CFosWire
import FosCommand
import Microkernel

struct Introspection {
    static let files = ["names", "servers", "counters", "memory", "placement", "topology", "version"]

    let client: InstanceClient
    let host: FleetHost
    /// Requests that the mount has served, by kind.
    let mountRequests: [(name: String, count: UInt64)]

    /// The bytes of one file; nil for a name that is not here.
    func contents(of file: String) throws(CommandFailure) -> [UInt8]? {
        switch file {
        case "names": return Array(try names().utf8)
        case "servers": return Array(try servers().utf8)
        case "counters": return Array(try counters().utf8)
        case "memory": return Array(try memory().utf8)
        case "placement": return Array(try placement().utf8)
        case "topology": return Array(topology().utf8)
        case "version": return Array("fos wire \(FOS_WIRE_VERSION)\n".utf8)
        default: return nil
        }
    }

    private func names() throws(CommandFailure) -> String {
        var text = "name\tredirect\towner\tmailboxes\n"
        for entry in try client.names() {
            let boxes = entry.members.map { "\($0.mailbox >> 16):\($0.mailbox & 0xffff)" }.joined(separator: ",")
            text += "\(entry.name)\t\(entry.target.isEmpty ? "-" : entry.target)\t\(entry.ownerID)\t\(boxes)\n"
        }
        return text
    }

    private func servers() throws(CommandFailure) -> String {
        var text = "server\tcore\tmailbox\tepoch\tload\trequests\tinodes\tpages\n"
        for report in try client.servers(among: client.names()) {
            let s = report.statistics
            text += "\(report.name)\t\(s.core)\t\(s.mailbox)\t\(report.member.epoch)\t\(s.queue_now)\t\(s.requests)\t\(s.inodes)\t\(s.pages)\n"
        }
        return text
    }

    /// Page frames, by server and frame size, in bytes.
    private func memory() throws(CommandFailure) -> String {
        var text = "server\tframe\tgranted\tzeroed\tdirty\tabsent\tretired\tzeroed_ever\n"
        for report in try client.servers(among: client.names()) where report.statistics.service == FOS_SERVICE_MEMORY.rawValue {
            for frame in MemoryStatus(try client.memory(of: report.member)).frames {
                let values = [frame.frameBytes, frame.granted, frame.zeroed, frame.dirty, frame.absent, frame.retired, frame.zeroedEver]
                text += report.name + "\t" + values.map(String.init).joined(separator: "\t") + "\n"
            }
        }
        return text
    }

    /// Which core each file server has, and how much it owns; then how many there are and may be.
    private func placement() throws(CommandFailure) -> String {
        let fleet = try client.fleet()
        var text = "server\tcore\tstate\tslots\tto_move\trequests\tinodes\twait_mean_ns\twait_max_ns\n"
        for member in fleet.members {
            text += "/sys/file/\(member.member)\t\(member.core)\t\(FleetStatus.stateName(member.state))\t\(member.slots)\t\(member.orders)\t"
            text += "\(member.requests)\t\(member.inodes)\t\(member.delay_mean)\t\(member.delay_max)\n"
        }
        let summary = fleet.summary
        text += "\nfleet\tserving\tminimum\tmaximum\tautomatic\tchanging\tchanges\n"
        text += "file\t\(summary.members)\t\(summary.minimum)\t\(summary.maximum)\t\(summary.is_automatic)\t\(summary.is_changing)\t\(summary.changes)\n"
        return text
    }

    /// Cores of the instance, then the distances between the CPUs of the machine as hwloc has them.
    private func topology() -> String {
        var text = "core\tcpu\tparked\tbeats\n"
        for core in host.cores { text += "\(core.core)\t\(core.cpu)\t\(core.parked ? 1 : 0)\t\(core.beats)\n" }
        let cpus = host.topology.cpus
        text += "\ndistance\t" + cpus.map { "cpu\($0)" }.joined(separator: "\t") + "\n"
        for row in cpus.indices {
            let distances = cpus.indices.map { String(host.topology.distance(row, $0)) }
            text += "cpu\(cpus[row])\t" + distances.joined(separator: "\t") + "\n"
        }
        return text
    }

    private func counters() throws(CommandFailure) -> String {
        var text = "server\tcounter\tvalue\n"
        for report in try client.servers(among: client.names()) {
            let s = report.statistics
            let values: [(String, UInt64)] = [
                ("requests", s.requests), ("replies", s.replies), ("forwards", s.forwards), ("retries", s.retries),
                ("errors", s.errors), ("sent", s.sent), ("queue_now", s.queue_now), ("queue_peak", s.queue_peak),
                ("continuations_now", s.continuations_now), ("continuations_peak", s.continuations_peak),
                ("inodes", s.inodes), ("pages", s.pages), ("bytes_metadata", s.bytes_metadata), ("locks", s.locks),
                ("leases_revoked", s.leases_revoked), ("names", s.names),
            ]
            for (name, value) in values { text += "\(report.name)\t\(name)\t\(value)\n" }
        }
        for (name, count) in mountRequests { text += "mount\t\(name)\t\(count)\n" }
        return text
    }
}
