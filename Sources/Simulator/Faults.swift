// Faults of messages that strike by chance. Faults of servers, clients and cores are calls of `SimHost` at planned times.
//
// Invariant: messages between the same two endpoints that go into the same mailbox keep their order whatever their
// delays are (paper, section 3.1: the transport is reliable and ordered); those of different senders overtake each other.

public struct MessageFaults: Sendable {
    /// Of 65,536 messages, how many are delayed, and by at most how much.
    public var delayedPer65536 = 0
    public var delayAtMost: VirtualTime = 0
    /// Of 65,536 requests, how many find the mailbox full that has room.
    public var refusedPer65536 = 0
    /// Of 65,536 requests of clients, how many carry the epoch that the mailbox had once: a name cache gone stale.
    public var stalePer65536 = 0
    public init() {}
}

/// What a run counted. Times are sums over all messages.
public struct SimTotals: Sendable {
    public var events: UInt64 = 0
    /// Letters sent by anybody to anybody, and those between servers only.
    public var messages: UInt64 = 0
    public var serverMessages: UInt64 = 0
    public var notices: UInt64 = 0
    /// Sums of distances.
    public var hops: UInt64 = 0
    public var forwards: UInt64 = 0
    /// Requests that a full mailbox refused, that found a stale epoch, and that met a transaction.
    public var refused: UInt64 = 0
    public var stale: UInt64 = 0
    public var retried: UInt64 = 0
    public var delayed: UInt64 = 0
    /// Requests that the microkernel answered for a server that had died.
    public var answeredForTheDead: UInt64 = 0
    public var transport: VirtualTime = 0
    /// From arrival in a mailbox to the turn.
    public var queueing: VirtualTime = 0
    public var service: VirtualTime = 0
    /// Operations that clients' programs completed (their sends again not counted).
    public var operations: UInt64 = 0
}
