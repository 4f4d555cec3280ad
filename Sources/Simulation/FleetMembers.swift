// The servers of fos as the simulator runs them: each kind bound statically below the one dynamic call of a turn.

public import CFosWire
public import FileService
public import MemoryService
public import Messaging
public import NameService
public import Simulator

/// A member of the file fleet without a store.
public final class FileMember: SimServer {
    public var server: FileServer<MemoryStore>
    public init(_ server: consuming FileServer<MemoryStore>) {
        self.server = server
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) { server.receive(request, kernel) }
    public override func resume(_ response: Response, _ kernel: SimKernel) { server.resume(response, kernel) }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}

/// A member of the name fleet.
public final class NameMember: SimServer {
    public var server: NameServer
    public init(_ server: consuming NameServer) {
        self.server = server
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) { server.receive(request, kernel) }
    public override func resume(_ response: Response, _ kernel: SimKernel) { server.resume(response, kernel) }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}

/// A member of the memory fleet. Its core is busy for as long as the zeroing of a turn takes.
public final class MemoryMember: SimServer {
    public var server: MemoryServer
    public init(_ server: consuming MemoryServer) {
        self.server = server
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) {
        let before = server.zeroedBytes
        server.receive(request, kernel)
        kernel.zeroed(bytes: Int(server.zeroedBytes - before))
    }
    public override func resume(_ response: Response, _ kernel: SimKernel) {
        let before = server.zeroedBytes
        server.resume(response, kernel)
        kernel.zeroed(bytes: Int(server.zeroedBytes - before))
    }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
}
