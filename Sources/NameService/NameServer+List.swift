// LIST: the whole namespace, gathered from all shards into the asker's bulk area.
//
// Protocol: message.inode is a cookie, 0 at first; the reply's message.inode is the cookie to go on with, 0 at the end.
// A cookie is shard << 32 | entry index + 1 (0: the first entry), so a listing keeps no state in any server between calls. The server asked
// writes its part, then has the next shard write behind it, one after the other, on behalf of the client.
// Invariants: only whole records are written; a server never reads what it wrote back from the client's memory.

import CFosWire
import Glibc
import Messaging

extension NameServer {
    mutating func list<K: Kernel>(_ request: Request, _ kernel: K) {
        let cookie = request.message.pointee.inode
        let shard = Int(truncatingIfNeeded: cookie >> 32)
        guard shard >= 0, shard < membership.count, request.message.pointee.bulk_length >= 8 else {
            return answer(request.envelope, -EINVAL, kernel)
        }
        // A peer's question concerns this shard alone.
        if isPeer(request.envelope) {
            let asked = request.message.pointee
            let part = write(request.envelope, asked.bulk_offset, asked.bulk_length, from: Self.entry(cookie), kernel)
            let message = kernel.scratch()
            message.pointee.status = part.status
            message.pointee.bulk_length = part.bytes
            message.pointee.inode = part.next == NameTable.none ? 0 : Self.cookie(member, part.next)
            return reply(request.envelope, message, kernel)
        }
        guard let id = suspend(request, NameContinuation(wait: .list, position: UInt32(shard), bytes: 0)) else {
            return answer(request.envelope, Status.retry, kernel)
        }
        gather(id, entry: Self.entry(cookie), kernel)
    }

    private static func cookie(_ shard: Int, _ entry: UInt32) -> UInt64 { UInt64(shard) << 32 | UInt64(entry &+ 1) }
    private static func entry(_ cookie: UInt64) -> UInt32 {
        let low = UInt32(truncatingIfNeeded: cookie)
        return low == 0 ? 0 : low - 1
    }

    /// Goes on with the listing at the shard `position`, from an entry of it.
    private mutating func gather<K: Kernel>(_ id: ContinuationID, entry first: UInt32, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let request = Request(letter: letter(id))
        var entry = first
        while state.pointee.position < UInt32(membership.count) {
            let offset = request.message.pointee.bulk_offset, room = request.message.pointee.bulk_length
            let left = room &- state.pointee.bytes
            guard Int(state.pointee.position) == member else {
                let message = kernel.scratch()
                message.pointee.operation = request.operation
                message.pointee.bulk_offset = offset &+ state.pointee.bytes
                message.pointee.bulk_length = left
                message.pointee.inode = Self.cookie(Int(state.pointee.position), entry)
                guard left >= 8 else { return finishList(id, 0, next: message.pointee.inode, kernel) }
                let result = kernel.send(message, to: membership[Int(state.pointee.position)], expecting: id, onBehalfOf: request.envelope)
                if result == .sent {
                    return
                }
                if result == .full { return finishList(id, Status.retry, next: 0, kernel) }
                // A shard that is gone has no names to list.
                state.pointee.position += 1
                entry = 0
                continue
            }
            let part = write(request.envelope, offset &+ state.pointee.bytes, left, from: entry, kernel)
            guard part.status == 0 else { return finishList(id, part.status, next: 0, kernel) }
            state.pointee.bytes += part.bytes
            guard part.next == NameTable.none else { return finishList(id, 0, next: Self.cookie(member, part.next), kernel) }
            state.pointee.position += 1
            entry = 0
        }
        finishList(id, 0, next: 0, kernel)
    }

    mutating func continueList<K: Kernel>(_ response: Response, _ id: ContinuationID, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let room = Request(letter: letter(id)).message.pointee.bulk_length
        guard response.status == 0 else { return finishList(id, response.status, next: 0, kernel) }
        precondition(
            response.message.pointee.bulk_length <= room &- state.pointee.bytes, "a name server wrote more than it was given room for")
        state.pointee.bytes += response.message.pointee.bulk_length
        guard response.message.pointee.inode == 0 else { return finishList(id, 0, next: response.message.pointee.inode, kernel) }
        state.pointee.position += 1
        gather(id, entry: 0, kernel)
    }

    private mutating func finishList<K: Kernel>(_ id: ContinuationID, _ status: Int32, next: UInt64, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let bytes = state.pointee.bytes
        let request = Request(letter: letter(id))
        let message = kernel.scratch()
        // Room for not even one record would be a listing without end.
        message.pointee.status = status == 0 && bytes == 0 && next != 0 ? -ERANGE : status
        if message.pointee.status == 0 {
            message.pointee.bulk_length = bytes
            message.pointee.inode = next
        }
        reply(request.envelope, message, kernel)
        continuations.remove(id)
    }

    /// Writes records of this shard. `next`: the first entry that found no room, `none` at the end.
    private func write<K: Kernel>(
        _ envelope: UnsafePointer<fos_envelope>, _ offset: UInt32, _ room: UInt32, from first: UInt32, _ kernel: K
    ) -> (status: Int32, bytes: UInt32, next: UInt32) {
        guard let bulk = kernel.bulk(of: envelope, offset: offset, count: room), let base = bulk.baseAddress else {
            return (-EFAULT, 0, NameTable.none)
        }
        var used = 0
        var index = first
        while index < table.entriesUsed {
            let entry = table.entries[Int(index)]
            if entry.isUsed, owner(entry.hash) == self.member {
                let fixed = MemoryLayout<fos_name_record>.size
                let members = Int(entry.memberCount) * MemoryLayout<fos_name_member>.size
                let length = (fixed + members + Int(entry.nameLength) + Int(entry.targetLength) + 7) & ~7
                guard used + length <= bulk.count else { return (0, UInt32(used), index) }
                store(index, entry, length, at: base + used)
                used += length
            }
            index += 1
        }
        return (0, UInt32(used), NameTable.none)
    }

    private func store(_ index: UInt32, _ entry: NameEntry, _ length: Int, at start: UnsafeMutableRawPointer) {
        var record = fos_name_record()
        record.record_length = UInt32(length)
        record.name_length = UInt16(entry.nameLength)
        record.target_length = UInt16(entry.targetLength)
        record.members = entry.memberCount
        record.owner_uid = entry.ownerUID
        withUnsafeBytes(of: record) { start.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        var place = start + MemoryLayout<fos_name_record>.size
        var member = entry.firstMember
        while member != NameTable.none {
            withUnsafeBytes(of: table.members[Int(member)].member) { place.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            place += MemoryLayout<fos_name_member>.size
            member = table.members[Int(member)].next
        }
        let name = table.name(index), target = table.target(index)
        place.copyMemory(from: name.bytes, byteCount: name.count)
        place += name.count
        place.copyMemory(from: target.bytes, byteCount: target.count)
        place += target.count
        place.initializeMemory(as: UInt8.self, repeating: 0, count: start + length - place)
    }
}
