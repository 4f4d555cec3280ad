// Traffic: who exchanges how many messages with whom; what placement goes by.
//
// Role: a graph whose nodes are servers and programs ("parties", numbered from 0) and whose edges are message counts in
// some interval. Servers report what they exchange, the simulator counts all of it, and before anything has run the
// pattern that a service's protocol implies is as good a start.
// Invariants: edges are undirected and summed; an edge to oneself counts for nothing, as it goes no distance.

/// Message counts between parties.
public struct Traffic: Sendable {
    public struct Edge: Sendable, Equatable {
        public var party: Int
        /// Messages, in either direction.
        public var messages: UInt64
    }

    public let parties: Int
    private var edges: [[Edge]]

    /// - Parameter parties: how many servers and programs there are.
    public init(parties: Int) {
        precondition(parties >= 0, "a number of parties is not negative")
        self.parties = parties
        edges = Array(repeating: [], count: parties)
    }

    /// Adds messages between two parties. O(edges of the two).
    public mutating func add(_ a: Int, _ b: Int, messages: UInt64) {
        guard a != b, messages > 0 else { return }
        add(from: a, to: b, messages)
        add(from: b, to: a, messages)
    }

    private mutating func add(from: Int, to: Int, _ messages: UInt64) {
        if let known = edges[from].firstIndex(where: { $0.party == to }) {
            edges[from][known].messages &+= messages
        } else {
            edges[from].append(Edge(party: to, messages: messages))
        }
    }

    /// Whom a party talks to.
    public func partners(of party: Int) -> [Edge] { edges[party] }
    /// Messages of one party in all.
    public func total(of party: Int) -> UInt64 { edges[party].reduce(0) { $0 &+ $1.messages } }
}
