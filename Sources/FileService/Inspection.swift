// A look at the whole state of a file server, for checks of a fleet from outside: the simulator's and tests'.
//
// Invariant: looking changes nothing. No request leads here.

import FileStorage
import Fleet

/// One inode as its owner has it.
public struct InodeReport: Sendable {
    public var number: UInt64
    public var mode: UInt32
    public var links: UInt32
    /// Of a directory.
    public var parent: UInt64
    public var subdirectories: UInt32
    public var busy: UInt32
    public var isDead: Bool
    /// Not an inode that names lead to, but some of the entries of its `parent`.
    public var isShard: Bool
    /// Lookups of the kernel's and open files of clients.
    public var references: UInt64
    public var entries: [Entry]

    public struct Entry: Sendable {
        public var name: [UInt8]
        public var inode: UInt64
        /// DT_*
        public var kind: UInt8
        public var isLocked: Bool
    }
    public var isDirectory: Bool { mode & Mode.typeMask == Mode.directory }
}

/// What a server has not finished, and the pages that it may take and has taken.
public struct WorkReport: Sendable, Equatable {
    public var continuations: Int
    /// What each of them is, for who looks for the reason.
    public var transactions: [String]
    public var lockWaiters: Int
    /// Messages and notices that wait for room.
    public var owed: Int
    public var treeIsLocked: Bool
    public var preparedNames: Int
    public var credits: Int
    public var pagesUsed: Int
}

extension FileServer {
    public func forEachInode(_ body: (InodeReport) -> Void) {
        for slot in 0..<SlotTable.slots {
            var index: UInt64 = 0
            while let inode = inodes.next(slot: slot, from: index) {
                index = inode.pointee.number >> 12 + 1
                body(report(inode))
            }
        }
    }

    private func report(_ inode: InodePointer) -> InodeReport {
        var report = InodeReport(
            number: inode.pointee.number, mode: inode.pointee.mode, links: inode.pointee.links, parent: inode.pointee.parent,
            subdirectories: inode.pointee.subdirectories, busy: inode.pointee.busy, isDead: inode.pointee.flags.contains(.dead),
            isShard: inode.isDirectory && inode.pointee.isShard,
            references: inode.pointee.kernelReferences + UInt64(inode.pointee.references), entries: [])
        guard inode.isDirectory else { return report }
        var cookie: UInt64 = 0
        while let dentry = inode.directory.pointee.next(after: cookie) {
            cookie = dentry.pointee.cookie
            report.entries.append(
                InodeReport.Entry(
                    name: Array(dentry.name), inode: dentry.pointee.inode, kind: dentry.pointee.kind,
                    isLocked: dentry.pointee.flags.contains(.locked)))
        }
        return report
    }

    /// The slot that is being given away, and to which member.
    public var slotOnItsWay: (slot: Int, taker: Int)? { motion.giving.map { ($0.slot, $0.taker) } }
    /// By this server's table.
    public func owner(ofSlot slot: Int) -> Int { slots.owner(ofSlot: slot) }

    public var work: WorkReport {
        var transactions: [String] = []
        continuations.forEach { _, state in
            let state = state.pointee
            transactions.append(
                "\(state.kind) \(state.phase) of \(state.target), \(state.responses) answers to come, owes \(state.owed.rawValue)")
        }
        return WorkReport(
            continuations: continuations.count, transactions: transactions, lockWaiters: waiters.count, owed: owing + owedNotices.count,
            treeIsLocked: treeHolder != nil,
            preparedNames: preparedNames.count, credits: pool.credits, pagesUsed: pool.used)
    }
}
