// What the log of an instance tells beyond errors, by level: at `info` what it consists of, where its cores go, and what it
// was asked at the end; at `debug` its clients; at `trace` each request of the kernel (from the front end).

import Logging
import Microkernel

struct InstanceLog: Sendable {
    let logger: Logger

    /// The parts of an instance that has just started.
    func started(_ configuration: InstanceConfiguration, _ fleets: FleetHost) {
        guard logger.logLevel <= .info else { return }
        for (core, servers) in fleets.serverNames.enumerated() {
            logger.info("core \(core) on \(place(fleets.cpus[core])): \(servers.joined(separator: " "))")
        }
        let options = configuration.fuseOptions.isEmpty ? "none" : configuration.fuseOptions.joined(separator: ",")
        logger.info(
            """
            size \(configuration.sizeBytes) bytes, memory for programs \(configuration.memory.limitBytes) bytes, \
            \(configuration.memory.reserveBytes) kept ready, locks by the \(configuration.locks.rawValue), \
            \(configuration.allowOther ? "for all users" : "for its user alone"), mount options: \(options)
            """)
    }

    func moved(to cpus: [Int32]) {
        logger.info("programs came to a CPU of a core; cores are on \(cpus.map(place).joined(separator: ", ")) now")
    }

    /// What is to hear of clients; nil if nobody is.
    var clients: (@Sendable (ClientStatus, Bool) -> Void)? {
        guard logger.logLevel <= .debug else { return nil }
        return { [logger] client, isConnected in
            let what = isConnected ? "connected, \(client.channels) channels" : "gone"
            logger.debug("client \(client.client), pid \(client.pid) of user \(client.uid), \(what)")
        }
    }

    /// The requests of the kernel by kind, most first.
    func ending(_ requests: [(name: String, count: UInt64)]) {
        let sorted = requests.sorted { $0.count > $1.count }
        let total = sorted.reduce(0) { $0 + $1.count }
        logger.info("the kernel asked \(total) times: \(sorted.map { "\($0.name) \($0.count)" }.joined(separator: ", "))")
    }

    private func place(_ cpu: Int32) -> String { cpu < 0 ? "any CPU" : "CPU \(cpu)" }
}
