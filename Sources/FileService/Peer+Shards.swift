// The owner of a shard: what it does for the owner of the directory.
//
// Invariants: a shard is sealed from its first SHARD_FILL to its first SHARD_UNSEAL, and from SHARD_SEAL to the next
// SHARD_UNSEAL or SHARD_DROP; requests of one server keep their order, so none of these overtakes another.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    /// SHARD_* operations; the inode of the header is the directory, which is elsewhere or here.
    mutating func serveShard<K: Kernel>(_ operation: fos_peer_operation, _ request: Request, _ kernel: K) {
        let directory = request.message.pointee.inode
        guard let wanted = request.fixed(fos_peer_shard.self), wanted.index > 0, wanted.index < 1 << UInt32(FOS_SHARD_BITS_MAX),
            wanted.bits <= UInt32(FOS_SHARD_BITS_MAX), directory != 0, directory < ShardTable.directories
        else { return answer(-EINVAL, kernel) }
        let shard = Int(wanted.index)
        let record = shards.find(directory, shard)
        let slot = slot(ofShard: shard, of: directory)
        if record == nil, isUnknown(slot: slot) { return answer(Status.retry, kernel) }
        // A shard that is nowhere is made by the owner of the slot, be it a giver: until it is filled it does not move.
        let owner = operation == FOS_OP_PEER_SHARD_FILL && record == nil
            ? slots.owner(ofSlot: slot) : owner(ofShard: shard, of: directory, isSettled: request.isSettled(Settled.shard))
        guard owner == member else { return pass(request, to: owner, slot: slot, kernel) }
        if operation == FOS_OP_PEER_SHARD_FILL { return fillShard(directory, record, wanted, request, kernel) }
        if let record, isOnItsWay(record), operation != FOS_OP_PEER_SHARD_SUMMARY || motion.giving?.isClosing != false {
            return delayShard(kernel)
        }
        guard let record else {
            guard operation == FOS_OP_PEER_SHARD_SUMMARY || operation == FOS_OP_PEER_SHARD_SEAL else { return answer(0, kernel) }
            // One that is lost counts as empty.
            return isLost(slot: slot) ? answerSummary(nil, kernel) : answer(Status.retry, kernel)
        }
        switch operation {
        case FOS_OP_PEER_SHARD_SUMMARY:
            if turn.isKernel { record.pointee.leases.insert(.attributes) }
            answerSummary(record, events: record.pointee.shardEvents, kernel)
        case FOS_OP_PEER_SHARD_SEAL: seal(record, mustBeEmpty: wanted.flags & FOS_SHARD_EMPTY.rawValue != 0, kernel)
        case FOS_OP_PEER_SHARD_UNSEAL: unseal(record, wanted, kernel)
        case FOS_OP_PEER_SHARD_DROP:
            // The end of a removed directory may come late, when its number has another one that is being spread.
            let isOfRemoval = wanted.flags & FOS_SHARD_EMPTY.rawValue != 0
            if record.pointee.flags.contains(.sealed), record.pointee.flags.contains(.spreading) != isOfRemoval { drop(record) }
            answer(0, kernel)
        default: answer(-ENOSYS, kernel)
        }
    }

    /// The shard is on its way to another server.
    private mutating func delayShard<K: Kernel>(_ kernel: K) {
        motion.delayed += 1
        answer(Status.retry, kernel)
    }

    // MARK: Filling

    private mutating func fillShard<K: Kernel>(
        _ directory: UInt64, _ found: InodePointer?, _ wanted: fos_peer_shard, _ request: Request, _ kernel: K
    ) {
        // One that is about to be dropped is in the way for a moment.
        if let found, !found.pointee.flags.contains(.spreading) { return answer(Status.retry, kernel) }
        let slot = Int(fos_shard_slot(directory, wanted.index))
        // What came before died with the server that was here then.
        if found == nil, wanted.flags & FOS_SHARD_FIRST.rawValue == 0 { return answer(Status.retry, kernel) }
        if found == nil, !givesNumbers(of: slot) { return answer(inodes.numbering(slot: slot).hasLosses ? -EIO : Status.retry, kernel) }
        guard let record = found ?? makeShard(directory, slot, wanted, kernel) else { return needCredits(Limits.creditsOfMetadata, kernel) }
        var at = MemoryLayout<fos_peer_shard>.size
        for _ in 0..<wanted.entries {
            guard let bytes = request.bytes(at: at, count: UInt32(MemoryLayout<fos_peer_shard_entry>.size)) else {
                return answer(-EINVAL, kernel)
            }
            let entry = bytes.loadUnaligned(as: fos_peer_shard_entry.self)
            guard let name = request.bytes(at: at + bytes.count, count: UInt32(entry.name_length)),
                entry.cookie < record.directory.pointee.nextCookie
            else {
                return answer(-EINVAL, kernel)
            }
            at += (bytes.count + name.count + 7) & ~7
            // A request that waited for credits comes a second time.
            if record.directory.pointee.find(name) != nil { continue }
            guard
                let dentry = record.directory.pointee.adopt(
                    name, inode: entry.inode, kind: entry.kind, lowCookie: entry.cookie, &arena, &pool)
            else {
                return needCredits(Limits.creditsOfMetadata, kernel)
            }
            if entry.is_held != 0 { dentry.pointee.flags.insert(.kernelLease) }
            if entry.kind == Mode.directoryKind {
                addSubdirectory(record)
                store.committed(.inode(record))
            }
            committedName(record, dentry)
        }
        answer(0, kernel)
    }

    private mutating func makeShard<K: Kernel>(_ directory: UInt64, _ slot: Int, _ wanted: fos_peer_shard, _ kernel: K) -> InodePointer? {
        guard let record = makeInode(slot: slot, kernel) else { return nil }
        record.pointee.flags = [.shard, .sealed, .spreading]
        record.pointee.parent = directory
        record.pointee.shardIndex = Int(wanted.index)
        record.pointee.shardBits = Int(wanted.bits)
        record.pointee.firstShardCookie = wanted.first_cookie
        record.pointee.leases = InodeLeases(rawValue: UInt8(truncatingIfNeeded: wanted.leases))
        takeAbsences(in: record, kernel)
        record.pointee.links = 2
        // A seal counts as a transaction.
        record.pointee.busy = 1
        record.pointee.sealer = sealer(kernel)
        doubts.seals &+= 1
        take(wanted, record)
        record.directory.initialize(to: Directory(seed: kernel.random()))
        record.directory.pointee.start(at: wanted.next_cookie)
        shards.insert(record)
        // Before its entries, of which it may be filled with none.
        store.committed(.inode(record))
        return record
    }

    /// The directory's state becomes the shard's.
    private func take(_ wanted: fos_peer_shard, _ record: InodePointer) {
        record.pointee.mode = Mode.directory | wanted.mode & Mode.permissions
        record.pointee.uid = wanted.uid
        record.pointee.gid = wanted.gid
        if !record.pointee.shardEvents.contains(.modified) {
            record.pointee.modified = Timestamp(wanted.modified)
            record.pointee.changed = Timestamp(wanted.changed)
        }
        if !record.pointee.shardEvents.contains(.accessed) { record.pointee.accessed = Timestamp(wanted.accessed) }
    }

    // MARK: Sealing

    private mutating func seal<K: Kernel>(_ record: InodePointer, mustBeEmpty: Bool, _ kernel: K) {
        if record.pointee.flags.contains(.sealed) { return answer(Status.retry, kernel) }
        if mustBeEmpty, record.directory.pointee.count > 0 { return answer(record.pointee.busy > 0 ? Status.retry : -ENOTEMPTY, kernel) }
        record.pointee.flags.insert(.sealed)
        record.pointee.busy += 1
        record.pointee.sealer = sealer(kernel)
        doubts.seals &+= 1
        let events = record.pointee.shardEvents
        // From here on only what transactions that were under way still change counts as an event. If the seal comes off
        // as if nothing had been, the times are the shard's own again.
        record.pointee.eventsBeforeSeal = events
        record.pointee.shardEvents = []
        store.committed(.inode(record))
        answerSummary(record, events: events, kernel)
    }

    /// The member that the turn's request is from: a directory stays where it is while its shards are sealed.
    private func sealer<K: Kernel>(_ kernel: K) -> Int {
        turn.letter.flatMap { members.index(of: MailboxAddress(rawValue: Request(letter: $0).envelope.pointee.from)) } ?? member
    }

    private mutating func unseal<K: Kernel>(_ record: InodePointer, _ wanted: fos_peer_shard, _ kernel: K) {
        guard record.pointee.flags.contains(.sealed) else { return answer(0, kernel) }
        if wanted.flags & FOS_SHARD_AS_IT_WAS.rawValue != 0 {
            openAsItWas(record)
            return answer(0, kernel)
        }
        unseal(record)
        take(wanted, record)
        record.pointee.eventsBeforeSeal = []
        store.committed(.inode(record))
        answer(0, kernel)
    }

    mutating func unseal(_ record: InodePointer) {
        record.pointee.busy -= 1
        record.pointee.flags.subtract([.sealed, .spreading])
        doubts.seals &+= 1
    }

    mutating func drop(_ record: InodePointer) {
        precondition(record.pointee.busy == (record.pointee.flags.contains(.sealed) ? 1 : 0), "a shard is dropped that is in use")
        store.committed(.freed(record.pointee.number))
        shards.remove(record)
        inodes.remove(record, &arena, &pool)
    }

    private mutating func answerSummary<K: Kernel>(_ found: InodePointer?, events: ShardEvents = [], _ kernel: K) {
        guard let record = found else {
            let message = kernel.scratch()
            message.setBody(fos_peer_shard_summary())
            return deliver(message, kernel)
        }
        let message = kernel.scratch()
        message.setBody(
            fos_peer_shard_summary(
                entries: UInt64(record.directory.pointee.count), version: record.pointee.version,
                subdirectories: record.pointee.subdirectories,
                flags: (events.contains(.modified) ? FOS_SHARD_MODIFIED.rawValue : 0)
                    | (events.contains(.accessed) ? FOS_SHARD_ACCESSED.rawValue : 0),
                accessed: fos_time(record.pointee.accessed), modified: fos_time(record.pointee.modified),
                changed: fos_time(record.pointee.changed)))
        deliver(message, kernel)
    }
}
