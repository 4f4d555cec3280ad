// The client by which an instance looks at itself for `.fos/`.
//
// Role: `.fos/` files are asked for on any worker of the mount, several at a time; this serialises them over one
// client and one channel. It holds a lock, but no server and no request of a program ever waits for it.

import CFosProxy
import CFosWire
import Synchronization

final class Observer: Sendable {
    private struct Connection: @unchecked Sendable {
        let client: UnsafeMutablePointer<fos_client>
        let directory: ServerDirectory
    }

    private let host: FleetHost
    private let connection = Mutex<Connection?>(nil)

    init(host: FleetHost) { self.host = host }

    func connect() throws(InstanceError) {
        let socket = try host.connect()
        let client = UnsafeMutablePointer<fos_client>.allocate(capacity: 1)
        client.initialize(to: fos_client())
        let result = fos_client_attach(client, socket, 1, 0)
        guard result == 0 else {
            client.deallocate()
            throw InstanceError("the instance cannot connect to itself: error \(-result)")
        }
        guard let directory = ServerDirectory(client: client) else {
            fos_client_disconnect(client)
            client.deallocate()
            throw InstanceError("the instance has no channel to itself")
        }
        connection.withLock { $0 = Connection(client: client, directory: directory) }
    }

    func disconnect() {
        connection.withLock { connection in
            guard let open = connection else { return }
            connection = nil
            fos_client_disconnect(open.client)
            open.client.deallocate()
        }
    }

    /// A `.fos/` file; nil when there is no such file or the instance is ending.
    func contents(of file: String) -> [UInt8]? {
        connection.withLock { connection in
            guard let directory = connection?.directory else { return nil }
            return Introspection(directory: directory, host: host).contents(of: file)
        }
    }
}
