// Limits of a name server, as the sums that they come from.

/// Sizes of one server's tables. Fixed at start.
public struct NameLimits: Sendable {
    /// Names of one server. 65,536: a thousand processes with 64 names each (queues, segments, semaphores, sockets).
    /// A name takes 312 bytes, touched only when used: 20 MiB at the limit.
    public var names: Int
    /// Members of all names of one server: one each, and 64 one-to-many names of 1,024 members; 48 bytes each.
    public var members: Int
    /// Listings, checks and removals that wait for another server at once; each keeps its letter: 256 KiB.
    public var continuations: Int

    public init(names: Int = 65_536, members: Int = 65_536 + 64 * 1_024, continuations: Int = 256) {
        self.names = names
        self.members = members
        self.continuations = continuations
    }

    /// Redirects that a lookup follows; one more is -ELOOP.
    static var redirects: Int { 8 }
    /// Members that one lookup reply holds: (896 - 16) / 24 is 36, rounded down to a power of two.
    static var membersReplied: Int { 32 }
    /// Members of one name.
    static var membersOfName: UInt32 { 1_024 }
}
