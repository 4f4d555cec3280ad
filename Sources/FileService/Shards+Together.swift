// What concerns all shards of a directory at once: its attributes, a change of them, and its removal.
//
// Protocol: the directory's owner asks every shard, a few at a time, and then runs the request again:
//   attributes  SHARD_SUMMARY; the request is answered with the sum
//   change      SHARD_SEAL; with all sealed the change is made here and answered, and SHARD_UNSEAL brings it to the shards
//   removal     SHARD_SEAL of empty shards only; with all sealed the directory becomes whole, and SHARD_DROP ends the shards.
//               One that is not empty ends it: the others are unsealed as they were
// Invariants: while a directory or a shard is sealed, every name in it is answered RETRY, so a change of permissions and a
// removal happen at one moment for all names; a summary is exact for whatever was answered before the request came.
// Times: a shard starts with its directory's and says whether its entries have changed since; what a shard says then is
// later than what the directory was given (utimensat(2) may set any time), so it counts, and the greatest of several.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

enum ShardGoal: UInt8 { case spread, summary, change, removal }

/// The sum of what the shards of a directory say.
struct ShardSummary: BitwiseCopyable {
    var directory: UInt64 = 0
    var entries: UInt64 = 0
    var version: UInt64 = 0
    var subdirectories: UInt32 = 0
    var events = ShardEvents()
    var accessed = Timestamp(seconds: .min, nanoseconds: 0)
    var modified = Timestamp(seconds: .min, nanoseconds: 0)
    var changed = Timestamp(seconds: .min, nanoseconds: 0)

    mutating func add(_ shard: fos_peer_shard_summary) {
        entries &+= shard.entries
        version &+= shard.version
        subdirectories &+= shard.subdirectories
        if shard.flags & FOS_SHARD_MODIFIED.rawValue != 0 {
            note(modified: Timestamp(shard.modified), changed: Timestamp(shard.changed))
        }
        if shard.flags & FOS_SHARD_ACCESSED.rawValue != 0 { note(accessed: Timestamp(shard.accessed)) }
    }
    mutating func note(modified: Timestamp, changed: Timestamp) {
        events.insert(.modified)
        if modified.isAfter(self.modified) { self.modified = modified }
        if changed.isAfter(self.changed) { self.changed = changed }
    }
    mutating func note(accessed: Timestamp) {
        events.insert(.accessed)
        if accessed.isAfter(self.accessed) { self.accessed = accessed }
    }
}

extension Timestamp {
    /// Of a member's message, which is never malformed.
    init(_ time: fos_time) { self.init(seconds: time.seconds, nanoseconds: time.nanoseconds) }
}

extension FileServer {
    /// Whether the attributes of an inode can be answered now, exactly. False: the request runs again when the shards have
    /// been asked, or was answered RETRY.
    @inline(__always) mutating func knowsAttributes<K: Kernel>(of inode: InodePointer, _ kernel: K) -> Bool {
        if !inode.pointee.isSharded || isGathered(inode) { return true }
        return askForAttributes(of: inode, kernel)
    }
    private mutating func askForAttributes<K: Kernel>(of inode: InodePointer, _ kernel: K) -> Bool {
        // A client that looks a name up wants to go on from there; only who asks for the attributes waits for them. The
        // kernel keeps what it is told, so it is told what is so.
        let operation = turn.letter.map { UInt32(Request(letter: $0).operation) } ?? 0
        guard turn.isKernel || operation == FOS_OP_GETATTR.rawValue || operation == FOS_OP_SETATTR.rawValue else { return true }
        return askShards(of: inode, .summary, kernel)
    }
    func isGathered(_ inode: InodePointer) -> Bool { turn.rerun.contains(.gathered) && gathered.directory == inode.pointee.number }

    /// Whether a directory's shards are sealed for a change of its attributes; else as above.
    mutating func sealsShards<K: Kernel>(of inode: InodePointer, _ kernel: K) -> Bool {
        !inode.pointee.isSharded || isGathered(inode) || askShards(of: inode, .change, kernel)
    }

    /// Whether a directory is one record, as it must be to be removed; else as above, or -ENOTEMPTY was answered.
    mutating func isWhole<K: Kernel>(_ inode: InodePointer, _ kernel: K) -> Bool {
        guard inode.isDirectory, inode.pointee.isSharded else { return true }
        if inode.directory.pointee.count > 0 { return true }  // refused for that
        return askShards(of: inode, .removal, kernel)
    }

    private mutating func askShards<K: Kernel>(of directory: InodePointer, _ goal: ShardGoal, _ kernel: K) -> Bool {
        var state = Continuation(.shards)
        state.target = directory.pointee.number
        state.rerun = turn.rerun
        state.shards.goal = goal
        state.shards.summary.directory = directory.pointee.number
        guard directory.pointee.flags.isDisjoint(with: [.sealed, .spreading]), let id = keep(state, kernel) else {
            answer(Status.retry, kernel)
            return false
        }
        if goal != .summary {
            directory.pointee.flags.insert(.sealed)
            directory.pointee.busy += 1
            store.committed(.inode(directory))
        }
        broadcast(id, goal == .summary ? .summary : .seal, from: 1, to: directory.pointee.activeShards, kernel)
        return false
    }

    // MARK: Asking every shard

    mutating func broadcast<K: Kernel>(_ id: ContinuationID, _ phase: Continuation.Phase, from first: Int, to last: Int, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        state.pointee.phase = phase
        state.pointee.shards.next = first
        state.pointee.shards.first = first
        state.pointee.shards.repeats = false
        state.pointee.shards.end = last
        sendShards(id, kernel)
    }

    /// Sends to the next shards, as many as may be under way; goes on when all have answered.
    mutating func sendShards<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        while state.pointee.shards.next < state.pointee.shards.end, state.pointee.responses < Limits.shardsAtOnce {
            let shard = state.pointee.shards.next
            if members.isDead(owner(ofShard: shard, of: state.pointee.target)) {
                // It is lost: there is nothing to be added, sealed or opened, and nothing can be moved there.
                if state.pointee.phase == .fill { fail(state, -EIO) } else { state.pointee.shards.next += 1 }
                continue
            }
            guard sendShard(shard, state, id, kernel) == .sent else {
                if state.pointee.responses == 0 { owe(id, .shards) }
                return
            }
            state.pointee.responses += 1
            if state.pointee.phase != .fill || isFilled(shard) { state.pointee.shards.next += 1 }
        }
        if state.pointee.responses == 0, state.pointee.owed.isEmpty { shardsAnswered(id, kernel) }
    }

    private mutating func sendShard<K: Kernel>(
        _ shard: Int, _ state: UnsafeMutablePointer<Continuation>, _ id: ContinuationID, _ kernel: K
    ) -> SendResult {
        let number = state.pointee.target
        let directory = inodes.find(number)
        if state.pointee.phase == .fill, let directory { return fill(directory, shard: shard, id, kernel) }
        var fixed = fos_peer_shard()
        fixed.index = UInt32(shard)
        if state.pointee.phase == .unseal, let directory { fixed = shardState(of: directory, shard: shard) }
        var operation = FOS_OP_PEER_SHARD_SUMMARY
        switch state.pointee.phase {
        case .seal:
            operation = FOS_OP_PEER_SHARD_SEAL
            if state.pointee.shards.goal == .removal { fixed.flags = FOS_SHARD_EMPTY.rawValue }
        case .unseal:
            operation = FOS_OP_PEER_SHARD_UNSEAL
            if state.pointee.shards.failure != 0 { fixed.flags = FOS_SHARD_AS_IT_WAS.rawValue }
        case .drop:
            operation = FOS_OP_PEER_SHARD_DROP
            if state.pointee.shards.goal == .removal { fixed.flags = FOS_SHARD_EMPTY.rawValue }
        default: break
        }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(operation.rawValue)
        message.pointee.inode = number
        message.setBody(fixed)
        // The kernel is granted what it is told of the summary; else nobody is acted for.
        let behalf = state.pointee.phase == .summary ? kept(id).envelope : nil
        return kernel.send(message, to: members[owner(ofShard: shard, of: number)], expecting: id, onBehalfOf: behalf)
    }

    mutating func resumeShards<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        switch state.pointee.phase {
        case .start: return resumeSpreading(id, kernel)
        case .summary, .seal:
            if response.status == 0, let summary = response.fixed(fos_peer_shard_summary.self) {
                state.pointee.shards.summary.add(summary)
            } else {
                fail(state, response.status)
            }
        case .fill:
            // One that died with it will be back.
            if response.status != 0 { fail(state, Store.outlivesServer && response.status == -EIO ? Status.retry : response.status) }
        // These are never refused, and a shard that is not there, or has had them, has nothing to open or to end.
        default: if response.status != 0 { state.pointee.shards.repeats = true }
        }
        sendShards(id, kernel)
    }

    /// Remembers why a shard refuses, and asks no more of them. Not empty says more than busy.
    func fail(_ state: UnsafeMutablePointer<Continuation>, _ status: Int32) {
        if state.pointee.shards.failure != -ENOTEMPTY { state.pointee.shards.failure = status == 0 ? -EIO : status }
        state.pointee.shards.end = state.pointee.shards.next
    }

    private mutating func shardsAnswered<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let work = state.pointee.shards
        switch state.pointee.phase {
        case .fill: filled(id, kernel)
        case .summary:
            if work.failure != 0 { return decide(id, Status.retry, kernel) }
            gathered = work.summary
            runAgain(id, adding: .gathered, kernel)
        case .seal: sealed(id, kernel)
        case .unseal, .drop:
            if work.repeats {
                (state.pointee.shards.next, state.pointee.shards.repeats) = (work.first, false)
                return repeatShards(id, kernel)
            }
            if work.goal == .spread { return spreadStepIsOver(id, kernel) }
            if let directory = inodes.find(state.pointee.target), work.goal == .change || work.failure != 0 { endSeal(directory) }
            forgetDecision(id, kernel)
            continuations.remove(id)
        default: preconditionFailure("shards answer nothing")
        }
    }

    /// What was refused is sent again: at once a few times, then late, as whoever refuses may be away for long.
    mutating func repeatShards<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let isLate = state.pointee.shards.tries >= Limits.shardTriesAtOnce
        if !isLate { state.pointee.shards.tries += 1 }
        owe(id, isLate ? [.shards, .late] : .shards)
        kernel.tickAgain()
    }

    private mutating func endSeal(_ directory: InodePointer) {
        directory.pointee.flags.remove(.sealed)
        directory.pointee.isChanged = false
        directory.pointee.busy -= 1
        store.committed(.inode(directory))
    }

    /// All shards are sealed, or one has refused and those before it are.
    private mutating func sealed<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = inodes.find(state.pointee.target) else { return }
        let work = state.pointee.shards
        let last = directory.pointee.activeShards
        guard work.failure == 0 else {
            let message = kernel.scratch()
            message.pointee.status = work.failure == -ENOTEMPTY ? -ENOTEMPTY : Status.retry
            message.pointee.operation = kept(id).operation
            message.pointee.inode = kept(id).message.pointee.inode
            kernel.reply(to: kept(id).envelope, message)
            return broadcast(id, .unseal, from: 1, to: work.next, kernel)
        }
        gathered = work.summary
        takeTimes(directory, work.summary)
        if work.goal == .removal {
            directory.pointee.version &+= work.summary.version
            endSeal(directory)
            becomeWhole(directory, kernel)
            recordEnd(ofShards: last, of: directory.pointee.number, id, kernel)
        } else {
            directory.pointee.isChanged = true
            store.committed(.inode(directory))
        }
        // The request runs as if it had just come; this continuation goes on with the shards.
        copy(letters + index(id), to: again)
        serve(Request(letter: again), state.pointee.rerun.union(work.goal == .removal ? Rerun() : .gathered), kernel)
        begin(continuing: id, kernel)
        broadcast(id, work.goal == .removal ? .drop : .unseal, from: 1, to: last, kernel)
    }

    /// The directory's own record takes the times of all.
    private func takeTimes(_ directory: InodePointer, _ summary: ShardSummary) {
        let times = times(of: directory, summary)
        directory.pointee.accessed = times.accessed
        directory.pointee.modified = times.modified
        directory.pointee.changed = times.changed
        directory.pointee.shardEvents = []
    }

    /// The times of a directory and its shards.
    func times(of directory: InodePointer, _ summary: ShardSummary) -> (accessed: Timestamp, modified: Timestamp, changed: Timestamp) {
        var all = summary
        let own = directory.pointee
        if own.shardEvents.contains(.modified) { all.note(modified: own.modified, changed: own.changed) }
        if own.shardEvents.contains(.accessed) { all.note(accessed: own.accessed) }
        let isModified = all.events.contains(.modified)
        return (
            all.events.contains(.accessed) ? all.accessed : own.accessed, isModified ? all.modified : own.modified,
            isModified && all.changed.isAfter(own.changed) ? all.changed : own.changed
        )
    }
}
