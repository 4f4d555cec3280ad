// Every inode that the servers of a run have made, as their stores heard of it.
//
// Role: a creation whose answer never came may have made an inode, and nobody was told its number, which an earlier inode may have
// had. What the servers say narrows down what the checker tries: an inode that no answered creation explains, of that kind, made
// since. It proves nothing by itself: an inode that a server hides has no creation, and then no order explains who sees it.
// Invariant: an inode is a number and a generation, and is noted once, wherever its slot goes.

import FileService
import FileStorage
import Messaging
import Simulator

/// The inodes that servers made.
public final class BirthLog {
    public struct Birth: Sendable {
        public var number: UInt64
        public var isDirectory: Bool
        /// Permission bits.
        public var mode: UInt32
        /// Virtual time in ps, to the nanosecond: it was made within the one that begins here.
        public var at: UInt64
        public init(number: UInt64, isDirectory: Bool, mode: UInt32, at: UInt64) {
            self.number = number
            self.isDirectory = isDirectory
            self.mode = mode
            self.at = at
        }
    }
    private struct Life: Hashable {
        let number: UInt64
        let generation: UInt32
    }
    public private(set) var births: [Birth] = []
    private var known = Set<Life>()

    public init() {}

    public func note(_ birth: Birth) { births.append(birth) }

    func note(_ change: Change) {
        guard case .inode(let inode) = change, !inode.pointee.isShard,
            known.insert(Life(number: inode.pointee.number, generation: inode.pointee.generation)).inserted
        else { return }
        let born = inode.pointee.born
        let nanoseconds = UInt64(max(born.seconds - SimHost.epochSeconds, 0)) * 1_000_000_000 + UInt64(born.nanoseconds)
        births.append(
            Birth(number: inode.pointee.number, isDirectory: inode.isDirectory, mode: inode.pointee.mode & 0o7777, at: nanoseconds * 1000))
    }
}

/// A store that keeps nothing, and only notes what is made.
struct NotingStore: StateStore {
    let births: BirthLog
    static var outlivesServer: Bool { false }
    mutating func committed(_ change: Change) { births.note(change) }
}
