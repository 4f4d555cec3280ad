// The state of a whole fleet at rest: what must hold between servers whatever they were asked.
//
// Role: the half of the checker that looks inside. Links agree with names, every name leads to an inode and every inode has
// a name or a reference, nothing is locked, nothing waits, no page is lost.

public import FileService
public import Simulator

/// A simulated file server that can be looked into.
public protocol InspectableFileServer: SimServer {
    func forEachInode(_ body: (InodeReport) -> Void)
    var work: WorkReport { get }
    /// The slot that it gives away now, and to which member.
    var giving: (slot: Int, taker: Int)? { get }
    /// The member that it takes for the owner of a slot.
    func owner(ofSlot slot: Int) -> Int
}

extension FileMember: InspectableFileServer {
    public func forEachInode(_ body: (InodeReport) -> Void) { server.forEachInode(body) }
    public var work: WorkReport { server.work }
    public var giving: (slot: Int, taker: Int)? { server.slotOnItsWay }
    public func owner(ofSlot slot: Int) -> Int { server.owner(ofSlot: slot) }
}

public struct Census {
    private var inodes: [UInt64: InodeReport] = [:]
    private var shards: [InodeReport] = []
    private var names: [UInt64: Int] = [:]
    public private(set) var violations: [Violation] = []

    /// - Parameters:
    ///   - pages: that all servers together may take; nil if a crash has lost some.
    ///   - isWhole: no server has lost inodes, so every name leads somewhere.
    ///   - mayHaveOrphans: servers died in mid-transaction, and may have left inodes without a name, or a link too many.
    public init(of servers: [any InspectableFileServer], pages: Int?, isWhole: Bool, mayHaveOrphans: Bool = false) {
        var total = 0
        for (member, server) in servers.enumerated() {
            server.forEachInode { add($0, isWhole) }
            let work = server.work
            total += work.credits + work.pagesUsed
            if work.continuations > 0 {
                complain(
                    "\(work.continuations) transactions of file server \(member) never end: \(work.transactions.joined(separator: "; "))")
            }
            if work.lockWaiters > 0 { complain("\(work.lockWaiters) requests wait for locks at file server \(member)") }
            if work.owed > 0 { complain("file server \(member) still owes \(work.owed) messages") }
            if work.treeIsLocked { complain("the tree lock is held for ever") }
            if work.preparedNames > 0 {
                complain("\(work.preparedNames) names are locked at file server \(member) for renames that are over")
            }
        }
        if let pages, pages != total {
            complain("\(pages) pages were given out, and \(total) are there: some leaked, or are counted twice")
        }
        for shard in shards { join(shard, isWhole) }
        for number in inodes.keys.sorted() { checkDirectory(number, isWhole) }
        checkLinks(isWhole && !mayHaveOrphans)
    }

    private mutating func complain(_ text: String) { violations.append(Violation("state", text)) }

    private mutating func add(_ inode: InodeReport, _ isWhole: Bool) {
        if inode.isShard { return shards.append(inode) }
        if inodes[inode.number] != nil { complain("inode \(inode.number) has two owners") }
        inodes[inode.number] = inode
    }

    /// The entries of a shard are its directory's.
    private mutating func join(_ shard: InodeReport, _ isWhole: Bool) {
        if shard.busy != 0 {
            complain("shard \(shard.number) of directory \(shard.parent) is busy with \(shard.busy) transactions that are over")
        }
        guard inodes[shard.parent]?.isDirectory == true else {
            if isWhole { complain("shard \(shard.number) is of no directory: \(shard.parent)") }
            return
        }
        inodes[shard.parent]?.entries += shard.entries
        inodes[shard.parent]?.subdirectories += shard.subdirectories
        inodes[shard.parent]?.links += shard.subdirectories
    }

    private mutating func checkDirectory(_ number: UInt64, _ isWhole: Bool) {
        guard let directory = inodes[number], directory.isDirectory else { return }
        var subdirectories: UInt32 = 0
        if Set(directory.entries.map(\.name)).count != directory.entries.count { complain("directory \(number) has a name twice") }
        if directory.busy != 0 { complain("directory \(number) is busy with \(directory.busy) transactions that are over") }
        for entry in directory.entries {
            let name = String(decoding: entry.name, as: UTF8.self)
            if entry.isLocked { complain("name \(name) of directory \(number) is locked for ever") }
            names[entry.inode, default: 0] += 1
            if entry.kind == 4 { subdirectories += 1 }
            guard let child = inodes[entry.inode] else {
                if isWhole { complain("name \(name) of directory \(number) leads to no inode: \(entry.inode)") }
                continue
            }
            if UInt8(truncatingIfNeeded: child.mode >> 12) != entry.kind {
                complain("name \(name) of directory \(number) is of another kind than its inode")
            }
            guard child.isDirectory else { continue }
            if child.parent != number { complain("directory \(entry.inode) is in \(number), and its parent is \(child.parent)") }
            if child.isDead { complain("directory \(entry.inode) was removed, and has a name") }
        }
        if subdirectories != directory.subdirectories {
            complain("directory \(number) counts \(directory.subdirectories) subdirectories and has \(subdirectories)")
        }
        if !directory.isDead, directory.links != 2 + subdirectories {
            complain("directory \(number) has \(directory.links) links and \(subdirectories) subdirectories")
        }
    }

    private mutating func checkLinks(_ isWhole: Bool) {
        var reachable: Set<UInt64> = [1]
        var queue: [UInt64] = [1]
        while let next = queue.popLast() {
            for entry in inodes[next]?.entries ?? [] where reachable.insert(entry.inode).inserted { queue.append(entry.inode) }
        }
        for number in inodes.keys.sorted() where number != 1 {
            guard let inode = inodes[number] else { continue }
            let count = names[number, default: 0]
            if isWhole || count > Int(inode.links), !inode.isDirectory, Int(inode.links) != count {
                complain("inode \(number) has \(inode.links) links and \(count) names")
            }
            if inode.isDirectory, count > 1 || (isWhole && count != (inode.isDead ? 0 : 1)) {
                complain("directory \(number) has \(count) names")
            }
            if isWhole, !reachable.contains(number), inode.references == 0 {
                complain("inode \(number) cannot be reached, and nothing keeps it")
            }
        }
    }
}
