// Signatures whose bodies follow file by file.

public struct PagePool: ~Copyable {
    public var credits: Int
    public private(set) var used = 0
    public private(set) var shortfall = 0
    public init(credits: Int) { self.credits = credits }
    public mutating func allocate(zeroed: Bool) -> UnsafeMutableRawPointer? { fatalError() }
    public mutating func release(_ page: UnsafeMutableRawPointer) { fatalError() }
    public mutating func allocateRun(pages: Int, zeroed: Bool) -> UnsafeMutableRawPointer? { fatalError() }
    public mutating func releaseRun(_ run: UnsafeMutableRawPointer, pages: Int) { fatalError() }
    @discardableResult public mutating func trim(reserve: Int = 256) -> Int { fatalError() }
}
public struct Arena: ~Copyable {
    public var bytesInUse: Int { 0 }
    public var bytesHeld: Int { 0 }
    public init() {}
    public mutating func allocate(_ bytes: Int, _ pool: inout PagePool) -> UnsafeMutableRawPointer? { fatalError() }
    public mutating func release(_ p: UnsafeMutableRawPointer, _ bytes: Int, _ pool: inout PagePool) { fatalError() }
}
public struct InodeTable: ~Copyable {
    public private(set) var count = 0
    public init() {}
    public func find(_ number: UInt64) -> InodePointer? { fatalError() }
    public mutating func create(slot: Int, _ arena: inout Arena, _ pool: inout PagePool) -> InodePointer? { fatalError() }
    public mutating func remove(_ inode: InodePointer, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public func count(slot: Int) -> Int { fatalError() }
    public func next(slot: Int, from index: UInt64) -> InodePointer? { fatalError() }
}
public struct Directory: BitwiseCopyable {
    public var count: Int { 0 }
    public private(set) var nextCookie: UInt64 = 3
    public init(seed: UInt64) {}
    public func find(_ name: UnsafeRawBufferPointer) -> DentryPointer? { fatalError() }
    public mutating func insert(_ name: UnsafeRawBufferPointer, inode: UInt64, kind: UInt8, _ arena: inout Arena, _ pool: inout PagePool) -> DentryPointer? { fatalError() }
    public mutating func remove(_ dentry: DentryPointer, _ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
    public func next(after cookie: UInt64) -> DentryPointer? { fatalError() }
    public mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
}
public struct PageMap: BitwiseCopyable {
    public private(set) var pageCount: UInt64 = 0
    public static let indexLimit: UInt64 = 1 << 54
    public init() {}
    public func page(_ index: UInt64) -> UnsafeMutableRawPointer? { fatalError() }
    public mutating func ensure(_ index: UInt64, zeroed: Bool, _ pool: inout PagePool) -> UnsafeMutableRawPointer? { fatalError() }
    public mutating func ensure(_ index: UInt64, zeroed: Bool, isNew: inout Bool, _ pool: inout PagePool) -> UnsafeMutableRawPointer? { fatalError() }
    @discardableResult public mutating func removePages(from: UInt64, to: UInt64, _ pool: inout PagePool) -> Int { fatalError() }
    public func nextData(from: UInt64) -> UInt64? { fatalError() }
    public func nextHole(from: UInt64) -> UInt64 { fatalError() }
    public mutating func destroy(_ pool: inout PagePool) { fatalError() }
}
public enum XattrMode: UInt8, Sendable { case any = 0, create = 1, replace = 2 }
public enum XattrOutcome: Sendable { case done, exists, absent, noMemory }
public struct XattrList: BitwiseCopyable {
    public init() {}
    var head: UnsafeMutableRawPointer? = nil
    public var isEmpty: Bool { true }
    public func get(_ name: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? { fatalError() }
    public var listBytes: Int { 0 }
    public func list(into: UnsafeMutableRawBufferPointer) -> Int? { fatalError() }
    public mutating func set(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ mode: XattrMode, _ arena: inout Arena, _ pool: inout PagePool) -> XattrOutcome { fatalError() }
    public mutating func remove(_ name: UnsafeRawBufferPointer, _ arena: inout Arena, _ pool: inout PagePool) -> Bool { fatalError() }
    public mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) { fatalError() }
}
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
