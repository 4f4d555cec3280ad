// Two copies of every name: what is known of a name survives the death of the server that serves it.
//
// Role: the members of the fleet are a ring. A name is served by the first live member from the place of its hash on, and kept by
// the next live one too (chained declustering: Hsiao and DeWitt, ICDE 1990). When a server dies, its follower serves its names, and
// whoever lost a copy makes another one.
// Protocol: a change is sent on to the follower, as it is and on behalf of who asked (FOS_NAME_COPY in message.flags), in the turn
// that makes it, and answered when the follower has it. Copies of what was there before a death go as SHARD_PIECE, one at a time,
// each with what is known as it is sent; between two servers messages keep their order, so a copy never goes back in time.
// Invariants: both tables of a name take the same changes in the same order, and only changes that its server has made; the follower
// answers nobody but its predecessor; a death while no other death is being repaired loses no name. Loads are best effort and are
// not copied. A server that has died, and begins again with nothing, takes its place again by NameServer+Join.

import CFosWire
import Glibc
import Messaging

extension NameServer {
    // MARK: Who has what

    /// The member that a hash leads to.
    func place(_ hash: UInt64) -> Int { Int(fos_name_place(hash, UInt32(membership.count))) }
    /// The first live member from a place on.
    func firstAlive(from start: Int) -> Int {
        var candidate = start
        for _ in 0..<membership.count {
            if membership.isAlive(candidate) { return candidate }
            candidate = candidate + 1 == membership.count ? 0 : candidate + 1
        }
        return start
    }
    /// The member that serves names of a hash.
    func owner(_ hash: UInt64) -> Int { firstAlive(from: place(hash)) }
    /// The member that has the other copy of what a member serves; nil if that one is alone.
    func follower(of member: Int) -> Int? {
        let next = firstAlive(from: (member + 1) % membership.count)
        return next == member ? nil : next
    }

    /// Removes names by who serves them, and by who has the copies.
    mutating func removeNames(where isOld: (_ owner: Int, _ follower: Int?) -> Bool) {
        for index in 0..<table.entriesUsed where table.entries[Int(index)].isUsed {
            let owner = owner(table.entries[Int(index)].hash)
            if isOld(owner, follower(of: owner)) { table.remove(index) }
        }
    }

    // MARK: Changes

    /// Makes a change of a name that is here, and has the follower make it; answers when both have.
    mutating func commit<K: Kernel>(_ request: Request, _ parsed: NameRequest, _ kernel: K) {
        let (client, generation) = client(request.envelope)
        guard isAlive(client: client, generation, kernel) else { return answer(request.envelope, -ESTALE, kernel) }
        guard !isFixed(parsed.name.hash) else { return answer(request.envelope, Status.retry, kernel) }
        let refusal = apply(request, parsed, isTrial: true)
        guard refusal == 0 else { return answer(request.envelope, refusal, kernel) }
        guard let follower = follower(of: member) else {
            let status = apply(request, parsed)
            tellJoiner(request, parsed.name.hash, kernel)
            return answer(request.envelope, status, kernel)
        }
        guard let id = suspend(request, NameContinuation(wait: .copy, position: 0, bytes: 0)) else {
            return answer(request.envelope, Status.retry, kernel)
        }
        let sent = send(copyOf: request, to: follower, expecting: id, kernel)
        // Nothing has changed yet.
        if sent == .full {
            continuations.remove(id)
            return answer(request.envelope, Status.retry, kernel)
        }
        let status = apply(request, parsed)
        continuations.state(id)?.pointee.status = status
        tellJoiner(request, parsed.name.hash, kernel)
        // The follower is dead, and the news of it on its way here.
        guard sent == .sent else {
            continuations.remove(id)
            return answer(request.envelope, status, kernel)
        }
    }

    /// - Parameter attempt: the receiver's, if it joins.
    func send<K: Kernel>(copyOf request: Request, to peer: Int, for attempt: UInt64 = 0, expecting id: ContinuationID, _ kernel: K)
        -> SendResult
    {
        let length = request.payload.count
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.pointee.inode = attempt
        message.pointee.flags = UInt16(FOS_NAME_COPY.rawValue)
        message.pointee.length = UInt32(length)
        if let base = request.payload.baseAddress { message.body.copyMemory(from: base, byteCount: length) }
        return kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: request.envelope)
    }

    /// The follower has it, or is dead: another one will be told.
    mutating func finishCopy<K: Kernel>(_ id: ContinuationID, _ kernel: K) {
        guard let status = continuations.state(id)?.pointee.status else { return }
        answer(Request(letter: letter(id)).envelope, status, kernel)
        continuations.remove(id)
    }

    /// As the follower: a change that its server has made.
    mutating func takeCopy<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isPeer(request.envelope) else { return answer(request.envelope, -EACCES, kernel) }
        guard isWanted(request) else { return answer(request.envelope, 0, kernel) }
        switch NameRequest.parse(request.payload, needsName: true, needsTarget: false) {
        case .valid(let parsed):
            let status = apply(request, parsed)
            dropIfDead(request, parsed)
            answer(request.envelope, status, kernel)
        case .invalid(let status): answer(request.envelope, status, kernel)
        }
    }

    /// What was sent to this server for an earlier beginning of its way back, or for one that has died, is none of its any more.
    private func isWanted(_ request: Request) -> Bool { joining.map { UInt64($0.attempt) == request.message.pointee.inode } ?? true }

    /// A change that a client's death has overtaken on its way here is made all the same, as its server has made it: it may take a name
    /// from somebody else. What it gave the client goes.
    private mutating func dropIfDead(_ request: Request, _ parsed: NameRequest) {
        let (client, generation) = client(request.envelope)
        guard isDead(client: client, generation) else { return }
        let entry = table.find(parsed.name, hash: parsed.name.hash)
        guard entry != NameTable.none else { return }
        let found = table.entries[Int(entry)]
        if found.targetLength > 0 {
            if found.client == client, found.clientGeneration == generation { table.remove(entry) }
            return
        }
        let member = table.member(entry, mailbox: parsed.fixed.member.mailbox)
        guard member != NameTable.none, table.members[Int(member)].client == client,
            table.members[Int(member)].clientGeneration == generation
        else { return }
        table.removeMember(member)
    }

    // MARK: Deaths of servers

    mutating func serverGone<K: Kernel>(_ request: Request, _ kernel: K) {
        guard isNews(request.envelope) else { return answer(request.envelope, -EPERM, kernel) }
        let mailbox = MailboxAddress(rawValue: UInt32(truncatingIfNeeded: request.message.pointee.inode))
        guard let peer = membership.index(of: mailbox), peer != member else { return }
        if joiner?.member == peer { endHelp(kernel) }
        let served = membership.isAlive(peer), wasFollower = follower(of: member) == peer
        membership.setDead(peer)
        guard served else { return }
        if joining != nil { return helperGone(kernel) }
        spoilJoiner(kernel)
        // Its names are this server's, or this one's copies went with it.
        guard wasFollower || firstAlive(from: peer) == member else { return }
        copying = CopyRun()
        copyNext(.follower, kernel)
    }

    // MARK: Copies of what is there

    /// Sends the next member, or redirect, of what the receiver is to have.
    mutating func copyNext<K: Kernel>(_ receiver: CopyRun.Receiver, _ kernel: K) {
        guard var run = run(receiver), !run.isUnderWay, mayCopy(receiver) else { return }
        guard let peer = receiver == .joiner ? joiner?.member : follower(of: member) else {
            set(receiver, nil)
            return copyNext(.joiner, kernel)
        }
        // What the receiver was told before the first piece, that one has it drop.
        if run.isFirst { run = CopyRun() }
        while run.member < table.membersUsed {
            let each = table.members[Int(run.member)]
            if each.entry != NameTable.none, isFor(receiver, table.entries[Int(each.entry)].hash) {
                return send(piece: each.entry, each, run, receiver, to: peer, kernel)
            }
            run.member += 1
        }
        while run.entry < table.entriesUsed {
            let entry = table.entries[Int(run.entry)]
            if entry.isUsed, entry.targetLength > 0, isFor(receiver, entry.hash) {
                return send(piece: run.entry, nil, run, receiver, to: peer, kernel)
            }
            run.entry += 1
        }
        // There is nothing; but the receiver may have something old.
        if run.isFirst, receiver == .follower { return send(piece: NameTable.none, nil, run, receiver, to: peer, kernel) }
        set(receiver, nil)
        if receiver == .joiner { joinerHasAll(kernel) } else { copyNext(.joiner, kernel) }
    }
    /// A joiner waits until there are two copies without it. And until it is known whether the joiner has taken its place, or until all
    /// know that this server has, it is not known who is to have copies.
    private func mayCopy(_ receiver: CopyRun.Receiver) -> Bool {
        receiver == .joiner ? copying == nil : untold == nil && joiner?.hasYielded != true
    }

    private func isFor(_ receiver: CopyRun.Receiver, _ hash: UInt64) -> Bool {
        owner(hash) == member && (receiver == .follower || concernsJoiner(hash))
    }
    private func run(_ receiver: CopyRun.Receiver) -> CopyRun? { receiver == .joiner ? joiner?.run : copying }
    private mutating func set(_ receiver: CopyRun.Receiver, _ run: CopyRun?) {
        if receiver == .joiner { joiner?.run = run } else { copying = run }
    }

    private mutating func send<K: Kernel>(
        piece index: UInt32, _ member: NameMemberEntry?, _ run: CopyRun, _ receiver: CopyRun.Receiver, to peer: Int, _ kernel: K
    ) {
        guard
            let id = continuations.insert(
                NameContinuation(wait: receiver == .joiner ? .joinerPiece : .piece, position: UInt32(peer), bytes: 0))
        else {
            set(receiver, run)
            return again(after: .full, kernel)
        }
        var next = run
        if index != NameTable.none { if member == nil { next.entry += 1 } else { next.member += 1 } }
        let message = message(piece: index, member, isFirst: run.isFirst, kernel)
        message.pointee.inode = receiver == .joiner ? joiner?.attempt ?? 0 : 0
        let result = kernel.send(message, to: membership[peer], expecting: id, onBehalfOf: nil)
        guard result == .sent else {
            continuations.remove(id)
            set(receiver, run)
            return again(after: result, kernel)
        }
        next.isFirst = false
        next.isUnderWay = true
        next.piece = id
        set(receiver, next)
    }

    /// `index` none: a first piece with nothing in it.
    private func message<K: Kernel>(piece index: UInt32, _ member: NameMemberEntry?, isFirst: Bool, _ kernel: K) -> UnsafeMutablePointer<
        fos_message
    > {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_NAME_SHARD_PIECE.rawValue)
        let room = message.body
        let fixed = MemoryLayout<fos_name_piece>.size
        var piece = fos_name_piece()
        piece.flags = isFirst ? FOS_NAME_PIECE_FIRST.rawValue : 0
        message.pointee.length = UInt32(fixed)
        guard index != NameTable.none else {
            room.storeBytes(of: piece, as: fos_name_piece.self)
            return message
        }
        let entry = table.entries[Int(index)]
        let name = table.name(index), target = table.target(index)
        piece.flags |= (entry.isMany ? FOS_NAME_PIECE_MANY.rawValue : 0) | (member == nil ? FOS_NAME_PIECE_REDIRECT.rawValue : 0)
        piece.version = entry.version
        piece.name_length = UInt32(name.count)
        piece.target_length = member == nil ? UInt32(target.count) : 0
        piece.owner_uid = entry.ownerUID
        piece.member_uid = member?.ownerUID ?? entry.ownerUID
        piece.client = member?.client ?? entry.client
        piece.client_generation = member?.clientGeneration ?? entry.clientGeneration
        if let member { piece.member = member.member }
        room.storeBytes(of: piece, as: fos_name_piece.self)
        (room + fixed).copyMemory(from: name.bytes, byteCount: name.count)
        if member == nil { (room + fixed + name.count).copyMemory(from: target.bytes, byteCount: target.count) }
        message.pointee.length += UInt32(name.count) + piece.target_length
        return message
    }

    /// `receiver`: whose piece it was that has been answered.
    mutating func finishPiece<K: Kernel>(_ response: Response, _ id: ContinuationID, _ receiver: CopyRun.Receiver, _ kernel: K) {
        continuations.remove(id)
        // That of an earlier run says nothing of this one.
        guard var run = run(receiver), run.isUnderWay, run.piece == id else { return }
        if receiver == .joiner, response.status != 0 { return spoilJoiner(kernel) }
        run.isUnderWay = false
        set(receiver, run)
        copyNext(receiver, kernel)
    }

    /// As the new follower: something that was there before the death.
    mutating func takePiece<K: Kernel>(_ request: Request, _ kernel: K) {
        let fixed = MemoryLayout<fos_name_piece>.size
        guard isPeer(request.envelope), request.payload.count >= fixed, let base = request.payload.baseAddress else {
            return answer(request.envelope, -EACCES, kernel)
        }
        guard isWanted(request) else { return answer(request.envelope, 0, kernel) }
        let piece = base.loadUnaligned(as: fos_name_piece.self)
        guard fixed + Int(piece.name_length) + Int(piece.target_length) <= request.payload.count else {
            return answer(request.envelope, -EINVAL, kernel)
        }
        let bytes = UnsafePointer((base + fixed).assumingMemoryBound(to: UInt8.self))
        let name = NameView(bytes: bytes, count: Int(piece.name_length))
        let target = NameView(bytes: bytes + name.count, count: Int(piece.target_length))
        if piece.flags & FOS_NAME_PIECE_FIRST.rawValue != 0,
            let sender = membership.index(of: MailboxAddress(rawValue: request.envelope.pointee.from))
        {
            dropOld(before: sender)
            if name.count == 0 { return answer(request.envelope, 0, kernel) }
        }
        guard NameRequest.isWellFormed(name), target.count == 0 || NameRequest.isWellFormed(target) else {
            return answer(request.envelope, -EINVAL, kernel)
        }
        // The news of its client's death was faster.
        guard isAlive(client: piece.client, piece.client_generation, kernel) else { return answer(request.envelope, 0, kernel) }
        answer(request.envelope, keep(piece, name, target), kernel)
    }

    /// Copies that are here and will come again: of all names but this server's own, and those of servers between the sender and this one,
    /// of whose death this one may not have heard yet.
    private mutating func dropOld(before sender: Int) {
        guard joining == nil else { return }
        let count = membership.count, own = (member + count - sender) % count
        removeNames { owner, _ in
            let place = (owner + count - sender) % count
            return place == 0 || place > own
        }
    }

    private mutating func keep(_ piece: fos_name_piece, _ name: NameView, _ target: NameView) -> Int32 {
        let hash = name.hash
        var entry = table.find(name, hash: hash)
        let isNew = entry == NameTable.none
        if isNew {
            entry = table.insert(name, hash: hash, ownerUID: piece.owner_uid, isMany: piece.flags & FOS_NAME_PIECE_MANY.rawValue != 0)
        }
        guard entry != NameTable.none else { return -ENOSPC }
        // A change may have come before, from who has made the name not.
        table.entries[Int(entry)].ownerUID = piece.owner_uid
        table.entries[Int(entry)].isMany = piece.flags & FOS_NAME_PIECE_MANY.rawValue != 0
        if piece.flags & FOS_NAME_PIECE_REDIRECT.rawValue != 0 {
            table.setTarget(entry, target, client: piece.client, generation: piece.client_generation)
            return 0
        }
        let old = table.member(entry, mailbox: piece.member.mailbox)
        guard old == NameTable.none else { return 0 }
        if table.addMember(entry, piece.member, ownerUID: piece.member_uid, client: piece.client, generation: piece.client_generation) {
            return 0
        }
        if isNew { table.remove(entry) }
        return -ENOSPC
    }
}

/// How far the copying of what is there has come: members first, then redirects.
struct CopyRun: BitwiseCopyable {
    /// Who is to have it: the follower that has lost its copies, or a server that takes its place again.
    enum Receiver: UInt8 { case follower, joiner }
    var member: UInt32 = 0
    var entry: UInt32 = 0
    /// Nothing has been sent yet.
    var isFirst = true
    /// A piece is under way, and which.
    var isUnderWay = false
    var piece = ContinuationID.none
}
