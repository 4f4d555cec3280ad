// READDIR: records of entries, from a cookie on, straight into the client's bulk area.
//
// Protocol: cookie 1 is "." and 2 is ".."; every entry has one from 3 on that grows with each insertion, so a listing
// that goes on after entries came or went shows each entry that stayed exactly once. A sharded directory is listed shard
// after shard (`ShardCookie`): its owner checks that the client may, and each shard passes the request on to the next one
// with what is left of the room.
// Invariants: with PLUS, the front end gets one kernel reference for each entry with attributes but the dots, so what has
// been written into the room is answered, whatever comes; entries that a transaction has locked are shown without
// attributes, placeholders not at all.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func readDirectory<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_readdir_request.self) else { return answer(-EINVAL, kernel) }
        guard directory.isDirectory else { return answer(-ENOTDIR, kernel) }
        guard mayUse(directory, Access.read) else { return answer(-EACCES, kernel) }
        guard var writer = recordWriter(request, filled: 0, flags: wanted.flags, kernel) else { return answer(-EINVAL, kernel) }
        var cookie = wanted.cookie
        let isWhole = !directory.pointee.isSharded
        if !isWhole, !directory.pointee.flags.isDisjoint(with: [.sealed, .spreading]) { return answer(Status.retry, kernel) }
        // Attributes are what lookups would give, so they need what a lookup needs.
        let plus = wanted.flags & FOS_READDIR_PLUS.rawValue != 0 && turn.actor.may(Access.execute, directory)
        var isFull = false
        if cookie == 0 {
            isFull = !put(&writer, directory.pointee.number, next: 1, ".", plus && isWhole ? directory : nil, kernel)
            if !isFull { cookie = 1 }
        }
        if cookie == 1, !isFull {
            let parent = directory.pointee.parent
            isFull = !put(&writer, parent, next: 2, "..", plus && isHere(parent) ? inodes.find(parent) : nil, kernel)
            if !isFull { cookie = 2 }
        }
        if isFull { return endListing(writer, isFull: true, kernel) }
        guard isWhole else {
            return listShards(
                ShardCookie(cookie), of: directory.pointee.number, shards: directory.pointee.activeShards, plus: plus, writer, request,
                kernel)
        }
        // A removed directory shows nothing but itself; it has no entries.
        isFull = !putEntries(of: directory, after: &cookie, below: .max, plus: plus, &writer, kernel) { $0 }
        var isMarked = false
        if !isFull || writer.used > 0 {
            if turn.isKernel { directory.pointee.leases.insert(.listing) }
            isMarked = wanted.flags & FOS_READDIR_AHEAD.rawValue == 0 && markAccessed(directory, kernel)
        }
        endListing(writer, isFull: isFull, isEnd: !isFull, marking: isMarked ? directory : nil, kernel)
    }

    /// SHARD_LIST: a READDIR that the owner of a sharded directory has passed on.
    mutating func continueListing<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_readdir_request.self),
            let writer = recordWriter(request, filled: Int(wanted.filled), flags: wanted.flags, kernel)
        else {
            return answer(-EINVAL, kernel)
        }
        listShards(
            ShardCookie(wanted.cookie), of: request.message.pointee.inode, shards: Int(wanted.flags >> FOS_READDIR_SHARDS_SHIFT.rawValue),
            plus: wanted.flags & FOS_READDIR_PLUS.rawValue != 0, writer, request, kernel)
    }

    /// Lists the shards that are here one after the other, and passes on to the next one.
    private mutating func listShards<K: Kernel>(
        _ start: ShardCookie, of directory: UInt64, shards count: Int, plus: Bool, _ before: RecordWriter, _ request: Request, _ kernel: K
    ) {
        var writer = before
        var position = start
        while true {
            guard position.shard < count else { return endListing(writer, isFull: false, kernel) }
            let slot = slot(ofShard: position.shard, of: directory)
            let found = position.shard == 0 ? directoryHere(directory) : shards.find(directory, position.shard)
            let owner = found != nil ? member
                : position.shard == 0 ? ownerIndex(of: directory)
                : owner(ofShard: position.shard, of: directory, isSettled: request.isSettled(Settled.shard))
            if owner != member {
                // Notices of this turn are awaited here, so the client gets its answer here too.
                if turn.cookie != 0 { return writer.used > 0 ? endListing(writer, isFull: false, kernel) : answer(Status.retry, kernel) }
                // Every step leads to a later shard, so there is an end to them without the bound on forwards.
                if position.value != start.value { request.envelope.pointee.hops = 0 }
                return passListing(position, shards: count, plus: plus, writer, to: owner, slot: slot, request, kernel)
            }
            if found == nil, position.shard > 0, request.isSettled(Settled.inUse) || directoryHere(directory) != nil,
                !isUnknown(slot: slot), isLost(slot: slot) {
                return endBeforeLoss(writer, kernel)
            }
            guard let record = found, record.isDirectory, !record.pointee.flags.contains(.sealed), !record.pointee.isDoubted,
                !isOnItsWay(record) || motion.giving?.isClosing == false
            else {
                // It is being changed, or was dropped: the client comes again with what it has.
                return writer.used > 0 ? endListing(writer, isFull: false, kernel) : answer(Status.retry, kernel)
            }
            let first = record.pointee.firstShardCookie
            var cookie = position.cookie
            let place = position
            let isDone = putEntries(of: record, after: &cookie, below: position.listed == nil ? .max : first, plus: plus, &writer, kernel) {
                var here = place
                here.cookie = $0
                return here.value
            }
            if turn.isKernel { record.pointee.leases.insert(.listing) }
            markListed(record, kernel)
            if !isDone { return endListing(writer, isFull: true, kernel) }
            guard let next = position.next(shards: count, first: first) else { return endListing(writer, isFull: false, kernel) }
            position = next
        }
    }

    private mutating func passListing<K: Kernel>(
        _ position: ShardCookie, shards count: Int, plus: Bool, _ writer: RecordWriter, to owner: Int, slot: Int, _ request: Request,
        _ kernel: K
    ) {
        var wanted = fos_readdir_request()
        wanted.cookie = position.value
        wanted.filled = UInt32(writer.used)
        let kind = (plus ? FOS_READDIR_PLUS.rawValue : 0) | (writer.isShort ? FOS_READDIR_SHORT.rawValue : 0)
        wanted.flags = kind | UInt32(count) << FOS_READDIR_SHARDS_SHIFT.rawValue
        request.payload.storeBytes(of: wanted, as: fos_readdir_request.self)
        request.message.pointee.operation = UInt16(FOS_OP_PEER_SHARD_LIST.rawValue)
        if members.isDead(owner) { return endBeforeLoss(writer, kernel) }
        markPassed(request, to: owner, slot: slot)
        if request.envelope.pointee.hops < Limits.hops, kernel.forward(request.letter, to: members[owner]) == .sent { return }
        if writer.used > 0 { return endListing(writer, isFull: false, kernel) }
        answer(Status.retry, kernel)
    }

    /// What is lost of a directory is missing in its listing, and not in silence: the client gets what is before it, and then -EIO.
    private mutating func endBeforeLoss<K: Kernel>(_ writer: RecordWriter, _ kernel: K) {
        if writer.used > 0 { endListing(writer, isFull: false, kernel) } else { answer(-EIO, kernel) }
    }

    /// A shard was listed: the access time of the directory, by the rule of `markAccessed`.
    private mutating func markListed<K: Kernel>(_ record: InodePointer, _ kernel: K) {
        let before = record.pointee.accessed
        markAccessed(record, kernel)
        guard record.pointee.accessed != before else { return }
        record.pointee.shardEvents.insert(.accessed)
        store.committed(.inode(record))
    }

    /// - isEnd: no entry follows, as far as the epoch of the whole directory tells.
    /// - marked: the directory, if its access time has changed by it; the answer then tells its attributes.
    private mutating func endListing<K: Kernel>(
        _ writer: RecordWriter, isFull: Bool, isEnd: Bool = false, marking marked: InodePointer? = nil, _ kernel: K
    ) {
        if isFull, writer.used == 0 { return answer(-EINVAL, kernel) }
        let message = kernel.scratch()
        if let marked { add(attributesOf: marked, to: message, kernel) }
        if isEnd { message.pointee.flags = UInt16(FOS_REPLY_END.rawValue) }
        message.pointee.bulk_length = UInt32(writer.used)
        deliver(message, kernel)
    }

    private func recordWriter<K: Kernel>(_ request: Request, filled: Int, flags: UInt32, _ kernel: K) -> RecordWriter? {
        let length = min(request.message.pointee.bulk_length, UInt32(FOS_BULK_BYTES))
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: length), filled <= room.count
        else { return nil }
        var writer = RecordWriter(room: room, isShort: flags & FOS_READDIR_SHORT.rawValue != 0)
        writer.used = filled
        return writer
    }

    /// Writes the entries with cookies above `cookie` and below `end`. False: the room is full; `cookie` is the last written.
    private mutating func putEntries<K: Kernel>(
        of directory: InodePointer, after cookie: inout UInt64, below end: UInt64, plus: Bool, _ writer: inout RecordWriter, _ kernel: K,
        _ position: (UInt64) -> UInt64
    ) -> Bool {
        while let dentry = directory.directory.pointee.next(after: cookie), dentry.pointee.cookie < end {
            let own = dentry.pointee.cookie
            if !dentry.pointee.flags.contains(.placeholder) {
                let child = dentry.pointee.inode
                var inode = plus && !dentry.pointee.flags.contains(.locked) && isHere(child) ? inodes.find(child) : nil
                if let found = inode, found.pointee.isSharded { inode = nil }
                guard
                    writer.put(child, next: position(own), kind: dentry.pointee.kind, dentry.name, inode.map { attributes(of: $0, kernel) })
                else {
                    return false
                }
                if turn.isKernel, let inode {
                    inode.pointee.kernelReferences &+= 1
                    inode.pointee.leases.insert(.attributes)
                    dentry.pointee.flags.insert(.kernelLease)
                }
            }
            cookie = own
        }
        return true
    }

    private mutating func put<K: Kernel>(
        _ writer: inout RecordWriter, _ inode: UInt64, next: UInt64, _ name: StaticString, _ found: InodePointer?, _ kernel: K
    ) -> Bool {
        writer.put(
            inode, next: next, kind: Mode.directoryKind, UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount),
            found.map { attributes(of: $0, kernel) })
    }
}

/// Writes fos_directory_entry records one after the other. The offsets are asserted in fos/file.h.
private struct RecordWriter {
    /// Where the attributes of a record begin.
    static var head: Int { 24 }
    let room: UnsafeMutableRawBufferPointer
    let isShort: Bool
    var used = 0

    init(room: UnsafeMutableRawBufferPointer, isShort: Bool) {
        self.room = room
        self.isShort = isShort
    }

    /// False if there is no room for the record.
    mutating func put(_ inode: UInt64, next: UInt64, kind: UInt8, _ name: UnsafeRawBufferPointer, _ attributes: fos_attributes?) -> Bool {
        let leavesOut = isShort && attributes == nil
        let fixed = leavesOut ? Self.head : MemoryLayout<fos_directory_entry>.size
        let length = (fixed + name.count + 7) & ~7
        guard let base = room.baseAddress, room.count - used >= length else { return false }
        let at = base + used
        at.storeBytes(of: inode, as: UInt64.self)
        at.storeBytes(of: next, toByteOffset: 8, as: UInt64.self)
        at.storeBytes(of: UInt32(length), toByteOffset: 16, as: UInt32.self)
        at.storeBytes(of: UInt16(name.count), toByteOffset: 20, as: UInt16.self)
        at.storeBytes(of: kind, toByteOffset: 22, as: UInt8.self)
        at.storeBytes(of: attributes != nil ? 1 : leavesOut ? 2 : 0, toByteOffset: 23, as: UInt8.self)
        if !leavesOut { at.storeBytes(of: attributes ?? fos_attributes(), toByteOffset: Self.head, as: fos_attributes.self) }
        if let source = name.baseAddress { (at + fixed).copyMemory(from: source, byteCount: name.count) }
        (at + fixed + name.count).initializeMemory(as: UInt8.self, repeating: 0, count: length - fixed - name.count)
        used += length
        return true
    }
}
