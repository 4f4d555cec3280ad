// What a server's death does to sharded directories.
//
// Rules: what is lost with a server is what it had. A shard that is lost counts as empty for the attributes of its directory, for
// their change and for the directory's removal, as the names of what is lost can be removed; its names, and a listing that comes to
// it, are answered -EIO. With a directory all its shards are lost, wherever they are.
// Protocol: the owner of a directory marks what it passes on to a shard that is in use (`Settled.inUse`); where the shard should be,
// and is not, and the slot has lost something, it is lost. A server that hears of a death does not know whose directories died, as its
// table of slots may lag behind: all its shards are in doubt, and their names are answered RETRY, until the owner of each directory
// has been asked (SHARD_USED). One that is in use goes on; one that is not is dropped once no transaction holds a name in it. One
// that is sealed stays in doubt until the seal is off, and asks who sealed it: the message that ends the seal may have gone to the dead.
// If the directory is not being changed, the answer says what it is like, and ends the seal.
// Invariants: a server asks about one shard at a time; doubt goes with a shard that moves. While the owner of the directory is dead for
// good, and nobody has taken its slots, names in doubt are answered -EIO as all that it owned is.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

/// Where a server is with the shards that it doubts.
struct ShardDoubts {
    /// A server has died: shards that come from another server now may have missed it on their way.
    var knowsDeaths = false
    /// There may be one in doubt.
    var isAny = false
    var isAsking = false
    /// Seals that were put on shards here, or came off: an answer that was given before the last one says nothing of it.
    var seals: UInt64 = 0
    /// The next place of the table.
    var place = 0
}

extension FileServer {
    /// A server has died with all that it had.
    mutating func doubtShards<K: Kernel>(_ kernel: K) {
        doubts.knowsDeaths = true
        guard shards.count > 0 else { return }
        for place in 0..<shards.placeCount {
            guard let record = shards.record(at: place) else { continue }
            if !isHere(record.pointee.parent) || inodes.find(record.pointee.parent) == nil { setDoubt(record, true) }
        }
        doubts.isAny = true
        doubts.place = 0
        askDoubts(kernel)
    }

    private mutating func setDoubt(_ record: InodePointer, _ isDoubted: Bool) {
        record.pointee.isDoubted = isDoubted
        store.committed(.inode(record))
    }

    /// A shard has come with its slot.
    mutating func doubtArrived<K: Kernel>(_ record: InodePointer, _ kernel: K) {
        guard record.pointee.isDoubted || doubts.knowsDeaths else { return }
        record.pointee.isDoubted = true
        doubts.isAny = true
        kernel.tickAgain()
    }

    /// Asks about the next shard that is in doubt; at the end of the table, again at the next tick, if any is left.
    mutating func askDoubts<K: Kernel>(_ kernel: K) {
        guard doubts.isAny, !doubts.isAsking else { return }
        while doubts.place < shards.placeCount {
            let place = doubts.place
            doubts.place += 1
            guard let record = shards.record(at: place), record.pointee.isDoubted else { continue }
            if clear(record, kernel) { return }
        }
        (doubts.place, doubts.isAny) = (0, false)
        for place in 0..<shards.placeCount {
            guard let record = shards.record(at: place), record.pointee.isDoubted else { continue }
            doubts.isAny = true
            if record.pointee.flags.contains(.sealed) || !members.isDead(ownerIndex(of: record.pointee.parent)) {
                return kernel.tickAgain()
            }
        }
    }

    /// Clears a doubt up, if this server can; else asks, and true.
    private mutating func clear<K: Kernel>(_ record: InodePointer, _ kernel: K) -> Bool {
        let directory = record.pointee.parent
        if record.pointee.flags.contains(.sealed) {
            // Who has sealed it had the directory, and has it still or gave it away when it was done.
            let sealer = record.pointee.sealer
            if members.isDead(sealer) {
                settleDoubt(record, FOS_SHARD_UNUSED.rawValue | FOS_SHARD_LOST.rawValue, kernel)
                return false
            }
            if sealer != member { return ask(sealer, about: record, kernel) }
            if !isHere(directory), onItsWay(directory) == nil { openAsItWas(record) }
        }
        if isHere(directory) {
            settleDoubt(record, use(ofShard: record.pointee.shardIndex, of: directory), kernel)
            return false
        }
        // Who is dead says nothing; whoever takes its slots will.
        let owner = ownerIndex(of: directory)
        return !members.isDead(owner) && ask(owner, about: record, kernel)
    }

    private mutating func ask<K: Kernel>(_ peer: Int, about record: InodePointer, _ kernel: K) -> Bool {
        var state = Continuation(.doubt)
        state.target = record.pointee.parent
        state.numbers.0 = UInt64(record.pointee.shardIndex)
        state.numbers.1 = doubts.seals
        state.responses = 1
        guard let id = continuations.insert(state) else { return false }
        (letters + index(id)).initialize(to: fos_letter())
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_SHARD_USED.rawValue)
        message.pointee.inode = state.target
        var question = fos_peer_shard()
        question.index = UInt32(record.pointee.shardIndex)
        message.setBody(question)
        doubts.isAsking = kernel.send(message, to: members[peer], expecting: id, onBehalfOf: nil) == .sent
        if !doubts.isAsking { continuations.remove(id) }
        return doubts.isAsking
    }

    /// SHARD_USED: for the owner of the directory.
    mutating func peerShardUsed<K: Kernel>(_ request: Request, _ kernel: K) {
        let number = request.message.pointee.inode
        guard var question = request.fixed(fos_peer_shard.self) else { return answer(-EINVAL, kernel) }
        guard isHere(number) || isNowhere(number, request) else {
            if onItsWay(number) != nil { return answer(Status.retry, kernel) }
            return pass(request, to: ownerIndex(of: number), kernel)
        }
        let shard = Int(question.index)
        let use = use(ofShard: shard, of: number)
        if use == 0, let directory = inodes.find(number), directory.pointee.flags.isDisjoint(with: [.sealed, .spreading]) {
            question = shardState(of: directory, shard: shard)
        }
        question.flags = use
        let message = kernel.scratch()
        message.setBody(question)
        deliver(message, kernel)
    }

    /// Of a directory that is here, or should be: 0, or FOS_SHARD_UNUSED with FOS_SHARD_LOST.
    private func use(ofShard shard: Int, of directory: UInt64) -> UInt32 {
        guard let found = inodes.find(directory) else {
            return FOS_SHARD_UNUSED.rawValue | (isLost(directory) ? FOS_SHARD_LOST.rawValue : 0)
        }
        let isUsed = found.isDirectory && found.pointee.isSharded && shard < found.pointee.activeShards + found.pointee.movingShards
        return isUsed ? 0 : FOS_SHARD_UNUSED.rawValue
    }

    mutating func resumeDoubt<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let (directory, shard) = (state.pointee.target, Int(state.pointee.numbers.0))
        let sealsThen = state.pointee.numbers.1
        continuations.remove(id)
        turn = Turn()
        doubts.isAsking = false
        // Another status is a server's that has died meanwhile, or does not know yet who has the directory.
        let answer = response.status == 0 ? response.fixed(fos_peer_shard.self) : nil
        if let record = shards.find(directory, shard), record.pointee.isDoubted {
            if record.pointee.flags.contains(.sealed), answer?.flags ?? 0 == 0 {
                if sealsThen == doubts.seals { settleSeal(record, response.status, answer) }
            } else if let answer {
                settleDoubt(record, answer.flags, kernel)
            }
        }
        askDoubts(kernel)
    }

    /// What the sealer, or whoever has the directory by now, says of a seal. The message that ends it may have gone to a server that had
    /// the shard before, and is dead.
    private mutating func settleSeal(_ record: InodePointer, _ status: Int32, _ answer: fos_peer_shard?) {
        if let answer {
            // Without a mode the directory is being changed, and the end of the seal will come.
            guard answer.mode != 0 else { return }
            openAsItWas(record)
            record.pointee.mode = Mode.directory | answer.mode & Mode.permissions
            record.pointee.uid = answer.uid
            record.pointee.gid = answer.gid
            setDoubt(record, false)
        } else if status == -EIO {
            // The directory is lost by now, with a server that had it after the sealer.
            openAsItWas(record)
        }
    }

    /// Takes a seal off as if it had not been.
    mutating func openAsItWas(_ record: InodePointer) {
        unseal(record)
        record.pointee.shardEvents.formUnion(record.pointee.eventsBeforeSeal)
        record.pointee.eventsBeforeSeal = []
        store.committed(.inode(record))
    }

    private mutating func settleDoubt<K: Kernel>(_ record: InodePointer, _ use: UInt32, _ kernel: K) {
        if use & FOS_SHARD_UNUSED.rawValue == 0 { return setDoubt(record, false) }
        let seals: UInt32 = record.pointee.flags.contains(.sealed) ? 1 : 0
        guard record.pointee.busy == seals, !isOnItsWay(record) else { return }
        let (directory, shard) = (record.pointee.parent, UInt32(record.pointee.shardIndex))
        drop(record)
        // Others may have gone to places that were looked at.
        doubts.place = 0
        kernel.changed(inode: fos_shard_key(directory, shard))
        // Else the number may have another directory by now.
        if use & FOS_SHARD_LOST.rawValue != 0 { _ = kernel.publish(directory: directory, shardBits: 0) }
    }
}
