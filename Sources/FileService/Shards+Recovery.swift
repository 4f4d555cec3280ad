// Sharded directories and shards that come back with a store: what was under way with them goes on.
//
// Role: the decision record of a step of spreading, and of a seal, is the directory's own record, which its store is told of in
// the turn that changes it. It says how many shards are in use, whether names are on their way, whether the shards are sealed, and
// whether what they were sealed for is done. Only the end of shards outlives their directory, and has a record of its own
// (`DecisionRecord.Kind.shards`).
// Rules, for the owner of the directory (presumed abort, as in `Decision`):
//   spreading        a step that was not decided is undone: copies of names that are still here are dropped; shards that are in
//                    use are opened, which they may be already; then spreading goes on
//   sealed           what was not done is not done, and the shards open as they were; what was done, they open with the new state
//   removal decided  the shards are dropped
// For the owner of a shard: a sealed shard stays sealed until it is told, as with a directory's owner that lives. A message that
// it misses while it is away is repeated until it is back.
// Invariants: each of these messages may come twice, and does nothing the second time; a number whose shards are still to be
// dropped has no other shards (`isEndingShards`).

import CFosWire
import FileStorage
import Fleet
import Messaging

extension FileServer {
    /// Of a record of entries that its store gives back, before its entries: what `DirectoryShards` says of it.
    mutating func restoreSharding(_ inode: InodePointer, _ record: Inode, nextCookie: UInt64) {
        inode.pointee.flags = record.flags.intersection([.shard, .sharded, .sealed, .spreading])
        if inode.pointee.isShard {
            // Cookies of entries that are still to come may be smaller than those of entries that are here.
            inode.directory.pointee.start(at: nextCookie)
            if inode.pointee.flags.contains(.sealed) { inode.pointee.busy += 1 }
            if inode.pointee.isDoubted { doubts.isAny = true }
            shards.insert(inode)
        } else if inode.pointee.isSharded {
            inode.pointee.movingShards = 0
        }
    }

    /// Goes on with the sharded directories that its predecessor was changing. False: there is no room.
    mutating func recoverShards() -> Bool {
        var isDone = true
        forEachSharded { server, directory in
            guard isDone, !directory.pointee.flags.isDisjoint(with: [.sealed, .spreading]) else { return }
            isDone = server.recover(sharded: directory)
        }
        return isDone
    }

    private mutating func recover(sharded directory: InodePointer) -> Bool {
        var work = ShardWork()
        var phase = Continuation.Phase.unseal
        if directory.pointee.flags.contains(.spreading) {
            transfer.isUnderWay = true
            phase = .drop
            work.isRecovered = true
            work.failure = Status.retry
            (work.first, work.end) = (directory.pointee.activeShards, 1 << directory.pointee.shardBits)
        } else {
            work.goal = .change
            work.failure = directory.pointee.isChanged ? 0 : Status.retry
            (work.first, work.end) = (1, directory.pointee.activeShards)
        }
        directory.pointee.busy += 1
        return recover(directory.pointee.number, phase, work, cookie: 0)
    }

    /// The directory is gone, or whole: its shards are dropped.
    mutating func recoverEnd(ofShards record: DecisionRecord) -> Bool {
        var work = ShardWork()
        work.goal = .removal
        (work.first, work.end) = (1, Int(record.asked))
        return recover(record.directory, .drop, work, cookie: record.cookie)
    }

    private mutating func recover(_ number: UInt64, _ phase: Continuation.Phase, _ work: ShardWork, cookie: UInt64) -> Bool {
        var state = Continuation(.shards)
        state.target = number
        state.phase = phase
        state.shards = work
        state.shards.next = work.first
        state.recoveredCookie = cookie
        state.isRecorded = cookie != 0
        guard let id = continuations.insert(state) else { return false }
        fillLetter(id, [])
        owe(id, .shards)
        return true
    }

    /// Clients look for the names of sharded directories where the board says.
    mutating func publishSharded<K: Kernel>(_ kernel: K) {
        owesPublishing = false
        forEachSharded { server, directory in
            let (number, bits) = (directory.pointee.number, directory.pointee.shardBits)
            guard kernel.shardBits(of: number) != bits else { return }
            _ = kernel.publish(directory: number, shardBits: 0)
            guard !kernel.publish(directory: number, shardBits: bits) else { return }
            // Others have taken its place of the table meanwhile.
            server.owesPublishing = true
        }
        if owesPublishing { kernel.tickAgain() }
    }

    private mutating func forEachSharded(_ body: (inout Self, InodePointer) -> Void) {
        guard sharding.threshold > 0 else { return }
        for slot in 0..<SlotTable.slots where inodes.count(slot: slot) > 0 {
            var index: UInt64 = 0
            while let inode = inodes.next(slot: slot, from: index) {
                index = inode.pointee.number / UInt64(FOS_SLOTS) + 1
                if inode.isDirectory, inode.pointee.isSharded { body(&self, inode) }
            }
        }
    }
}
