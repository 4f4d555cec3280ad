// LOOKUP: from a name to its members, best first; redirects are followed, across shards by forwarding.
//
// A redirect to a name of another shard rewrites the request in its letter and forwards it, so the reply goes straight
// to the asker. message.flags of a lookup counts the redirects followed so far (a client that starts with a higher
// number only makes its own lookup fail sooner).
// Order of members: alive first, then the nearest to `from_core`, then the least loaded, then by mailbox.

import CFosWire
import Glibc
import Messaging

extension NameServer {
    mutating func lookup<K: Kernel>(_ request: Request, _ kernel: K) {
        let parsed: NameRequest
        switch NameRequest.parse(request.payload, needsName: true, needsTarget: false) {
        case .valid(let valid): parsed = valid
        case .invalid(let status): return answer(request.envelope, status, kernel)
        }
        var name = parsed.name
        var redirects = Int(request.message.pointee.flags)
        while redirects <= NameLimits.redirects {
            let hash = name.hash
            let owner = owner(hash)
            guard owner == member else {
                rewrite(request, name, redirects)
                return forward(request, to: owner, kernel)
            }
            guard !hasYielded(hash) else { return answer(request.envelope, Status.retry, kernel) }
            let entry = table.find(name, hash: hash)
            guard entry != NameTable.none else { return answer(request.envelope, -ENOENT, kernel) }
            guard table.entries[Int(entry)].targetLength > 0 else {
                return answerMembers(request.envelope, entry, from: parsed.fixed.from_core, redirects, kernel)
            }
            name = table.target(entry)
            redirects += 1
        }
        answer(request.envelope, -ELOOP, kernel)
    }

    private func rewrite(_ request: Request, _ name: NameView, _ redirects: Int) {
        request.message.pointee.flags = UInt16(redirects)
        let payload = UnsafeMutableRawPointer(request.message) + MemoryLayout<fos_message>.size
        var fixed = payload.loadUnaligned(as: fos_name_request.self)
        fixed.name_length = UInt32(name.count)
        fixed.target_length = 0
        payload.storeBytes(of: fixed, as: fos_name_request.self)
        // The name is either in its place already or in the table.
        (payload + NameRequest.fixedBytes).copyMemory(from: name.bytes, byteCount: name.count)
        request.message.pointee.length = UInt32(NameRequest.fixedBytes + name.count)
    }

    private mutating func answerMembers<K: Kernel>(
        _ envelope: UnsafePointer<fos_envelope>, _ entry: UInt32, from core: UInt32, _ redirects: Int, _ kernel: K
    ) {
        let message = kernel.scratch()
        let head = message.body
        let best = (head + MemoryLayout<fos_name_reply>.size).assumingMemoryBound(to: fos_name_member.self)
        var count = 0
        var index = table.entries[Int(entry)].firstMember
        while index != NameTable.none {
            var member = table.members[Int(index)].member
            member.distance = distances.distance(from: core, to: member.core)
            index = table.members[Int(index)].next
            // Insertion into the best so far: the list is short, and the reply holds at most 32.
            var place = count
            while place > 0, isBetter(member, best[place - 1]) { place -= 1 }
            guard place < NameLimits.membersReplied else { continue }
            if count < NameLimits.membersReplied { count += 1 }
            var last = count - 1
            while last > place {
                best[last] = best[last - 1]
                last -= 1
            }
            best[place] = member
        }
        head.storeBytes(
            of: fos_name_reply(members: UInt32(count), redirects: UInt32(redirects), version: table.entries[Int(entry)].version),
            as: fos_name_reply.self)
        message.pointee.length = UInt32(MemoryLayout<fos_name_reply>.size + count * MemoryLayout<fos_name_member>.size)
        reply(envelope, message, kernel)
    }

    private func isBetter(_ a: fos_name_member, _ b: fos_name_member) -> Bool {
        if (a.alive != 0) != (b.alive != 0) { return a.alive != 0 }
        if a.distance != b.distance { return a.distance < b.distance }
        if a.load != b.load { return a.load < b.load }
        return a.mailbox < b.mailbox
    }
}
