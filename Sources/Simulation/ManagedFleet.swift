// The fleet manager on a simulated machine, and what its changes of the fleet cost.
//
// Role: hosts the very `FleetManager` of the live system, and notes each change from its beginning to its end.

public import CFosWire
public import Messaging
public import PlacementService
public import Simulator

/// How a managed fleet begins, and when it grows and shrinks. Times are shorter than a live mount's, as a simulated load is.
public struct ManagerPlan: Sendable, Equatable {
    /// Servers at the beginning, and at least; the scenario's `fileServers` are the most.
    public var serving = 1
    /// Between two looks at the fleet, and between two ticks of every server.
    public var intervalNanoseconds = 500_000
    public var tickNanoseconds = 100_000
    public var policy = FleetPolicy()
    public init() {
        policy.growDelay = 600
        policy.shrinkDelay = 100
        policy.shrinkIntervals = 6
    }
}

/// One change of a fleet's size: when, what it cost, and whom it delayed.
public struct FleetChangeRecord: Sendable, Equatable {
    public var from: Int
    public var to: Int
    /// Virtual time when it was over, and how long it took, ns.
    public var at: UInt64
    public var nanoseconds: UInt64
    public var slots: UInt64
    public var inodes: UInt64
    /// Requests that were passed on, and that were answered "try again", meanwhile.
    public var forwarded: UInt64
    public var delayed: UInt64
}

/// The first member of the placement fleet.
public final class ManagerMember: SimServer {
    public var server: FleetManager
    public private(set) var changes: [FleetChangeRecord] = []
    private var size: Int
    private var isChanging = false

    public init(_ server: consuming FleetManager, serving: Int) {
        self.server = server
        size = serving
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) {
        server.receive(request, kernel)
        look(kernel)
    }
    public override func resume(_ response: Response, _ kernel: SimKernel) {
        server.resume(response, kernel)
        look(kernel)
    }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }

    private func look(_ kernel: SimKernel) {
        let now = server.summary(kernel.monotonic)
        defer { isChanging = now.is_changing != 0 }
        guard isChanging, now.is_changing == 0 else { return }
        changes.append(
            FleetChangeRecord(
                from: size, to: Int(now.members), at: kernel.monotonic, nanoseconds: now.change_ns, slots: now.change_slots,
                inodes: now.change_inodes,
                forwarded: now.change_forwarded, delayed: now.change_delayed))
        size = Int(now.members)
    }
}
