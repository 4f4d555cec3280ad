// The client by which an instance looks at itself for `.fos/`.
//
// Role: `.fos/` files are asked for on any worker of the mount, several at a time; this serialises them over one
// client and one channel. It holds a lock, but no server and no request of a program ever waits for it.

import FosCommand
import Synchronization

final class Observer: Sendable {
    private struct Connection: @unchecked Sendable {
        let client: InstanceClient
    }

    private let host: FleetHost
    private let connection = Mutex<Connection?>(nil)
    private let mountRequests = Mutex<(@Sendable () -> [(name: String, count: UInt64)])?>(nil)

    init(host: FleetHost) { self.host = host }

    func connect() throws(InstanceError) {
        let socket = try host.connect()
        let opened: Connection
        do throws(CommandFailure) { opened = Connection(client: try InstanceClient(socket: socket)) } catch {
            throw InstanceError("the instance cannot connect to itself: \(error.description)")
        }
        connection.withLock { $0 = opened }
    }

    /// Where the counts of the mount's requests come from.
    func watch(_ requests: @escaping @Sendable () -> [(name: String, count: UInt64)]) { mountRequests.withLock { $0 = requests } }

    func disconnect() { connection.withLock { $0 = nil } }

    /// A `.fos/` file; nil when there is no such file or the instance is ending.
    func contents(of file: String) -> [UInt8]? {
        let requests = mountRequests.withLock { $0 }?() ?? []
        return connection.withLock { connection in
            guard let client = connection?.client else { return nil }
            return (try? Introspection(client: client, host: host, mountRequests: requests).contents(of: file)) ?? nil
        }
    }
}
