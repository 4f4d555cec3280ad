// What things cost in virtual time: messages by distance, requests by kind, and what a client does itself.
//
// Role: the calibration of a simulated machine, as plain numbers. The composition reads them from a data file;
// docs/simulation.md says where each comes from.
// Units: picoseconds of virtual time, if a name does not say otherwise.

/// The cost of a message's way from one core to another.
public enum MessageCost: Sendable {
    /// A network on chip: `base` and `perHop` for every hop, at most `most`. The paper has 15 to 45 cycles.
    case mesh(base: VirtualTime, perHop: VirtualTime, most: VirtualTime)
    /// Cache lines that move between the caches of a coherent machine, by the distance of <fos/name.h>: the same core,
    /// cores with a common cache, of one package, of two.
    case coherent(sameCore: VirtualTime, sameCache: VirtualTime, samePackage: VirtualTime, otherPackage: VirtualTime)

    public func latency(distance: Int) -> VirtualTime {
        switch self {
        case .mesh(let base, let perHop, let most): min(base + perHop * VirtualTime(distance), most)
        case .coherent(let sameCore, let sameCache, let samePackage, let otherPackage):
            distance == 0 ? sameCore : distance <= 10 ? sameCache : distance <= 20 ? samePackage : otherPackage
        }
    }
}

public struct Costs: Sendable {
    public var message: MessageCost
    /// Time a server's turn takes, by operation number; what is not listed takes `turn`.
    public var service: [UInt16: VirtualTime] = [:]
    public var turn: VirtualTime
    /// A turn that only goes on with a response.
    public var response: VirtualTime
    /// Each message that a turn sends, beside its answer.
    public var send: VirtualTime
    /// A byte that a server copies from or to a client's bulk area.
    public var bulkByte: VirtualTime
    /// A byte of a page frame that a server zeroes.
    public var zeroByte: VirtualTime = 19
    /// What a client does to send a request, and to take a reply.
    public var clientSend: VirtualTime
    public var clientReceive: VirtualTime
    /// What a client's thread does before its next request if its program names nothing else.
    public var clientWork: VirtualTime

    public init(
        message: MessageCost, turn: VirtualTime, response: VirtualTime, send: VirtualTime, bulkByte: VirtualTime,
        clientSend: VirtualTime, clientReceive: VirtualTime, clientWork: VirtualTime
    ) {
        self.message = message
        self.turn = turn
        self.response = response
        self.send = send
        self.bulkByte = bulkByte
        self.clientSend = clientSend
        self.clientReceive = clientReceive
        self.clientWork = clientWork
    }

    /// The network on chip of the paper, at one cycle a nanosecond.
    public static var onChip: Costs {
        Costs(
            message: .mesh(base: 15_000, perHop: 1_000, most: 45_000), turn: 100_000, response: 60_000, send: 20_000, bulkByte: 60,
            clientSend: 15_000, clientReceive: 10_000, clientWork: 20_000)
    }
}
