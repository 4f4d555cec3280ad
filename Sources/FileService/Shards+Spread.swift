// How a directory that has grown large is spread over shards, while it is being used.
//
// Protocol: the directory is published as sharded. Then a few shards at a time: their names are locked here, and copied to
// the owners of the shards with SHARD_FILL, where they stay sealed; when all have arrived they are removed here, the
// shards are in use, and SHARD_UNSEAL opens them. Names of shards that have not had their turn are served here as before.
// A member that has no room ends it: what was copied is dropped, and the names stay here for good. One whose slot is just
// changing hands is asked again.
// Invariants: one directory of a server is spread at a time; a step walks the directory once and sends a bounded number of
// messages; whoever meets a name on its way is answered RETRY, so nobody sees it twice or not at all. Entries keep
// their cookies, and so their places in listings (`ShardCookie`).

import CFosWire
import FileStorage
import Fleet
import Messaging

/// What a continuation that works on the shards of a directory remembers.
struct ShardWork: BitwiseCopyable {
    /// SHARD_* messages: the shard that is next, the first, and the one after the last.
    var next = 0
    var first = 0
    var end = 0
    /// A message that must arrive met a full mailbox on its way, or a server that was away.
    var repeats = false
    /// How often something was refused since it last went on.
    var tries: UInt8 = 0
    /// The directory was being spread when its server crashed: copies of names that are still here are dropped, then all shards opened.
    var isRecovered = false
    /// 0, or why a shard refuses.
    var failure: Int32 = 0
    var goal = ShardGoal.spread
    var summary = ShardSummary()
}

/// The entries on their way; one directory at a time.
struct ShardTransfer {
    var isUnderWay = false
    /// Locked entries, by shard.
    var entries: [(shard: Int, dentry: DentryPointer)] = []
    var sent = 0
}

extension FileServer {
    mutating func beginSpreading<K: Kernel>(_ directory: InodePointer, _ kernel: K) {
        let servers = min(members.aliveCount, 1 << sharding.bitsMax)
        let number = directory.pointee.number
        guard servers > 1, !transfer.isUnderWay, !continuations.isFull, directory.directory.pointee.nextCookie < ShardCookie.oldCookies,
            !isEndingShards(of: number)
        else { return }
        var bits = 1
        while 1 << bits < servers { bits += 1 }
        guard number < ShardTable.directories, kernel.publish(directory: number, shardBits: bits) else { return }
        var state = Continuation(.shards)
        state.target = number
        state.phase = .fill
        guard let id = keep(state, kernel) else { preconditionFailure("the room for a continuation was checked") }
        transfer.isUnderWay = true
        directory.pointee.flags.insert([.sharded, .spreading])
        directory.pointee.busy += 1
        directory.pointee.activeShards = 1
        directory.pointee.shardBits = bits
        directory.pointee.firstShardCookie = directory.directory.pointee.nextCookie
        store.committed(.inode(directory))
        // What clients keep under the directory's own epoch, they now look for under that of a shard.
        kernel.changed(inode: number)
        spreadMore(id, kernel)
    }

    /// Whether shards of another directory with this number may be there yet, which a message still to come will drop.
    private func isEndingShards(of number: UInt64) -> Bool {
        var isEnding = false
        continuations.forEach { _, state in
            if state.pointee.kind == .shards, state.pointee.phase == .drop, state.pointee.target == number { isEnding = true }
        }
        return isEnding
    }

    /// Locks the names of the next few shards and begins to send them.
    private mutating func spreadMore<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = inodes.find(state.pointee.target) else { return }
        let first = directory.pointee.activeShards
        let all = 1 << directory.pointee.shardBits
        guard first < all else { return endSpreading(id, kernel) }
        let number = directory.pointee.number
        let each = max(directory.directory.pointee.count / all, 1)
        let last = min(all, first + max(1, min(Limits.shardsOfStep, Limits.entriesOfStep / each)))
        transfer.entries.removeAll(keepingCapacity: true)
        transfer.sent = 0
        for place in 0..<directory.directory.pointee.placeCount {
            guard let dentry = directory.directory.pointee.entry(at: place) else { continue }
            let shard = shard(of: dentry.name, in: number, bits: directory.pointee.shardBits)
            guard shard >= first, shard < last else { continue }
            if dentry.pointee.flags.contains(.locked) {
                // Another transaction has it, which is over soon.
                transfer.entries.removeAll(keepingCapacity: true)
                return lookAgain(id, kernel)
            }
            transfer.entries.append((shard, dentry))
        }
        transfer.entries.sort { $0.shard != $1.shard ? $0.shard < $1.shard : $0.dentry.pointee.cookie < $1.dentry.pointee.cookie }
        for (_, dentry) in transfer.entries { lock(dentry, in: directory) }
        directory.pointee.movingShards = last - first
        state.pointee.phase = .fill
        state.pointee.shards.next = first
        state.pointee.shards.end = last
        state.pointee.shards.failure = 0
        sendShards(id, kernel)
    }

    /// Tries again when the others have had their turn.
    private mutating func lookAgain<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        state.pointee.phase = .start
        guard state.pointee.shards.tries < Limits.shardTriesAtOnce else { return repeatShards(id, kernel) }
        state.pointee.shards.tries += 1
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PING.rawValue)
        guard kernel.send(message, to: kernel.mailbox, expecting: id, onBehalfOf: nil) == .sent else { return owe(id, .shards) }
        state.pointee.responses += 1
    }

    /// The next SHARD_FILL: of the shard `next`, as many entries as a message has room for.
    mutating func fill<K: Kernel>(_ directory: InodePointer, shard: Int, _ id: ContinuationID, _ kernel: K) -> SendResult {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_SHARD_FILL.rawValue)
        var fixed = shardState(of: directory, shard: shard)
        fixed.leases = UInt32(directory.pointee.leases.rawValue)
        fixed.first_cookie = directory.pointee.firstShardCookie
        // Entries of this shard that were made since are among those that move.
        fixed.next_cookie = directory.directory.pointee.nextCookie
        var at = MemoryLayout<fos_peer_shard>.size
        var taken = transfer.sent
        while taken < transfer.entries.count, transfer.entries[taken].shard == shard {
            let dentry = transfer.entries[taken].dentry
            let name = dentry.name
            let bytes = (MemoryLayout<fos_peer_shard_entry>.size + name.count + 7) & ~7
            guard at + bytes <= Int(FOS_PAYLOAD_BYTES_MAX) else { break }
            (message.body + at).initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
            (message.body + at).storeBytes(
                of: fos_peer_shard_entry(
                    inode: dentry.pointee.inode, cookie: dentry.pointee.cookie, kind: dentry.pointee.kind, name_length: UInt8(name.count),
                    is_held: dentry.pointee.flags.contains(.kernelLease) ? 1 : 0, reserved: (0, 0, 0, 0, 0)), as: fos_peer_shard_entry.self)
            (message.body + at + MemoryLayout<fos_peer_shard_entry>.size).copyMemory(
                from: name.baseAddress.unsafelyUnwrapped, byteCount: name.count)
            at += bytes
            fixed.entries += 1
            taken += 1
        }
        if transfer.sent == 0 || transfer.entries[transfer.sent - 1].shard != shard { fixed.flags = FOS_SHARD_FIRST.rawValue }
        message.setBody(fixed)
        message.pointee.length = UInt32(at)
        message.pointee.inode = directory.pointee.number
        let owner = owner(ofShard: shard, of: directory.pointee.number)
        let result = kernel.send(message, to: members[owner], expecting: id, onBehalfOf: nil)
        if result == .sent { transfer.sent = taken }
        return result
    }

    /// Whether all entries of a shard have been sent.
    func isFilled(_ shard: Int) -> Bool { transfer.sent >= transfer.entries.count || transfer.entries[transfer.sent].shard != shard }

    /// Every SHARD_FILL of the step is answered.
    mutating func filled<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = inodes.find(state.pointee.target) else { return }
        let first = directory.pointee.activeShards
        let last = first + directory.pointee.movingShards
        directory.pointee.movingShards = 0
        if state.pointee.shards.failure != 0 {
            for (_, dentry) in transfer.entries { unlock(dentry, in: directory) }
            transfer.entries.removeAll(keepingCapacity: true)
            return broadcast(id, .drop, from: first, to: last, kernel)
        }
        for (_, dentry) in transfer.entries {
            directory.pointee.busy -= 1
            if dentry.pointee.kind == Mode.directoryKind { removeSubdirectory(directory) }
            store.committed(.entryRemoved(record: directory.pointee.number, name: dentry.name))
            directory.directory.pointee.remove(dentry, &arena, &pool)
        }
        transfer.entries.removeAll(keepingCapacity: true)
        directory.pointee.activeShards = last
        // The step is decided: who takes this server's place opens the shards.
        store.committed(.inode(directory))
        state.pointee.shards.goal = .spread
        broadcast(id, .unseal, from: first, to: last, kernel)
    }

    /// The shards of a step are in use (`unseal`), or are gone again (`drop`): for good, or because one could not be made now.
    mutating func spreadStepIsOver<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if state.pointee.phase == .unseal {
            state.pointee.shards.tries = 0
            return spreadMore(id, kernel)
        }
        if state.pointee.shards.isRecovered, let directory = inodes.find(state.pointee.target) {
            (state.pointee.shards.isRecovered, state.pointee.shards.failure) = (false, 0)
            return broadcast(id, .unseal, from: 1, to: directory.pointee.activeShards, kernel)
        }
        guard state.pointee.shards.failure == Status.retry else { return endSpreading(id, kernel) }
        // The slot of a shard is changing hands, or its server is away, which takes messages too. Nothing is locked meanwhile.
        state.pointee.phase = .start
        repeatShards(id, kernel)
    }

    private mutating func endSpreading<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id), let directory = inodes.find(state.pointee.target) else { return }
        transfer = ShardTransfer()
        directory.pointee.busy -= 1
        directory.pointee.flags.remove(.spreading)
        store.committed(.inode(directory))
        if directory.pointee.activeShards == 1 { becomeWhole(directory, kernel) }
        continuations.remove(id)
    }

    mutating func resumeSpreading<K: Kernel>(_ id: ContinuationID, _ kernel: K) { spreadMore(id, kernel) }

    /// All entries are in the directory's own record, or there are none: clients look at its own epoch again.
    mutating func becomeWhole<K: Kernel>(_ directory: InodePointer, _ kernel: K) {
        let number = directory.pointee.number
        let bits = directory.pointee.shardBits
        directory.pointee.forgetShards()
        store.committed(.inode(directory))
        _ = kernel.publish(directory: number, shardBits: 0)
        for shard in 0..<(1 << bits) { kernel.changed(inode: fos_shard_key(number, UInt32(shard))) }
    }

    /// What every message to a shard says of its directory.
    func shardState(of directory: InodePointer, shard: Int) -> fos_peer_shard {
        fos_peer_shard(
            index: UInt32(shard), bits: UInt32(directory.pointee.shardBits), flags: 0, mode: directory.pointee.mode,
            uid: directory.pointee.uid,
            gid: directory.pointee.gid, leases: 0, entries: 0, first_cookie: 0, next_cookie: 0,
            accessed: fos_time(directory.pointee.accessed),
            modified: fos_time(directory.pointee.modified), changed: fos_time(directory.pointee.changed))
    }
}
