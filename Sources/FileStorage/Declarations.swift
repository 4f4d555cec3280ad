// Signatures whose bodies follow file by file.

public struct LockOwner: Hashable, BitwiseCopyable, Sendable {
    public var id: UInt64, client: UInt32, isDescription: Bool
    public init(id: UInt64, client: UInt32, isDescription: Bool = false) { self.id = id; self.client = client; self.isDescription = isDescription }
}
public enum LockKind: UInt8, BitwiseCopyable, Sendable { case read = 0, write = 1, unlock = 2 }
public struct LockRequest: Equatable, BitwiseCopyable, Sendable {
    public var owner: LockOwner, kind: LockKind, start: UInt64, end: UInt64, pid: UInt32
    public init(owner: LockOwner, kind: LockKind, start: UInt64, end: UInt64, pid: UInt32) {
        self.owner = owner; self.kind = kind; self.start = start; self.end = end; self.pid = pid
    }
}
public enum LockResult: Sendable { case granted, wouldBlock, waiting, deadlock, noLocks, invalid, cancelled }
public struct LockOutcome: Equatable, Sendable { public var token: UInt64, result: LockResult }
public struct LockList: BitwiseCopyable { var x = 0 }
public struct LockTable: ~Copyable {
    public private(set) var lockCount = 0
    public private(set) var waiterCount = 0
    public init(limitPerClient: Int = 65536) {}
    public func test(_ inode: InodePointer, _ request: LockRequest) -> LockRequest? { fatalError() }
    public mutating func set(_ inode: InodePointer, _ request: LockRequest, token: UInt64?, _ arena: inout Arena, _ pool: inout PagePool) -> LockResult { fatalError() }
    public mutating func flock(_ inode: InodePointer, _ owner: LockOwner, _ kind: LockKind, token: UInt64?, _ arena: inout Arena, _ pool: inout PagePool) -> LockResult { fatalError() }
    public mutating func release(_ inode: InodePointer, owner: LockOwner, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public mutating func releaseFlock(_ inode: InodePointer, owner: LockOwner, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public mutating func releaseAll(client: UInt32, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public mutating func releaseAll(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public mutating func cancel(token: UInt64, _ arena: inout Arena, _ pool: inout PagePool) -> Bool { fatalError() }
    public mutating func takeOutcome(_ arena: inout Arena, _ pool: inout PagePool) -> LockOutcome? { fatalError() }
}
