// Who owns which slot: how all members learn it, and how a member joins, leaves, or is lost.
//
// Protocol: the new owner of a slot tells every member (SLOT_NEWS). A member that hears of it asks for the owner along
// the way that its requests have gone so far (SLOT_SYNC, passed on like any request of the slot), and sends straight to
// the new owner once the answer is there: everything that it sent before has arrived then. The new owner asks along the
// old way too, and gives numbers of the slot only after that: no message on its way can mean an inode that has gone.
// Invariants: a copy of the table that lags behind costs a forward; forwards end, as each goes to a member that had the
// slot later, and after `Limits.hops` of them the client is told to try again.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

/// What was heard of a slot's new owner, and the member through which requests went before.
struct SlotWay: BitwiseCopyable {
    var through: UInt16 = 0
    var owner: UInt16 = 0
    var version: UInt32 = 0
}

extension FileServer {
    mutating func noteWay(of slot: Int, through old: Int, to owner: Int, version: UInt32) {
        ways[slot] = SlotWay(through: UInt16(old), owner: UInt16(owner), version: version)
        motion.unsynced.insert(slot)
    }

    // MARK: News

    mutating func takeNews<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let news = request.fixed(fos_peer_slot.self), news.slot < UInt32(FOS_SLOTS), news.owner < UInt32(members.count) else {
            return
        }
        let slot = Int(news.slot)
        guard news.version > slots.version(ofSlot: slot) else { return }
        // It had the slot before it died, and began again without hearing of it: whoever says so knows better.
        if Int(news.owner) == member { return takeBack(slot, news.version, kernel) }
        guard ways[slot].version < news.version else { return }
        noteWay(of: slot, through: slots.owner(ofSlot: slot), to: Int(news.owner), version: news.version)
        spreadNews(kernel)
    }

    /// Tells members of slots that are this server's, and asks about those that are others'. What meets a full mailbox
    /// waits for the next tick.
    mutating func spreadNews<K: Kernel>(_ kernel: K) {
        if motion.unsynced.count > 0 { askAlongOldWays(kernel) }
        var left = Limits.newsOfTurn
        while left > 0, let slot = motion.untold.next(from: motion.tellSlot) {
            if slot != motion.tellSlot { (motion.tellSlot, motion.tellMember) = (slot, 0) }
            while left > 0, motion.tellMember < members.count {
                let peer = motion.tellMember
                if peer != member, members.isAlive(peer) || peer == ways[slot].through {
                    let news = fos_peer_slot(
                        slot: UInt32(slot), owner: UInt32(slots.owner(ofSlot: slot)), version: slots.version(ofSlot: slot), generation: 0)
                    if send(news: news, to: peer, kernel) == .full { return kernel.tickAgain() }
                    left -= 1
                }
                motion.tellMember += 1
            }
            if motion.tellMember >= members.count {
                motion.untold.remove(slot)
                motion.tellMember = 0
            }
        }
        if motion.untold.count > 0 || motion.unsynced.count > 0 { kernel.tickAgain() }
    }

    @discardableResult
    private func send<K: Kernel>(news: fos_peer_slot, to peer: Int, _ kernel: K) -> SendResult {
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_SLOT_NEWS.rawValue)
        message.setBody(news)
        return kernel.send(message, to: members[peer], expecting: .none, onBehalfOf: nil)
    }

    /// A slot is this server's, and what was in it is lost.
    private mutating func takeBack<K: Kernel>(_ slot: Int, _ version: UInt32, _ kernel: K) {
        guard motion.taking?.slot != slot, motion.giving?.slot != slot else { return }
        own(slot, version: version, after: member, kernel)
        spreadNews(kernel)
    }

    private mutating func askAlongOldWays<K: Kernel>(_ kernel: K) {
        var from = 0
        while motion.syncsUnderWay < Limits.syncsAtOnce, let slot = motion.unsynced.next(from: from) {
            if motion.syncing.contains(slot) { return kernel.tickAgain() }
            from = slot + 1
            guard let id = continuations.insert(Continuation(.sync)) else { return kernel.tickAgain() }
            continuations.state(id)?.pointee.target = UInt64(slot)
            continuations.state(id)?.pointee.numbers.0 = UInt64(ways[slot].version)
            (letters + index(id)).initialize(to: fos_letter())
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_SLOT_SYNC.rawValue)
            message.pointee.inode = UInt64(slot)
            message.setBody(fos_peer_slot(slot: UInt32(slot), owner: 0, version: 0, generation: 0))
            let way = ways[slot]
            // Through itself a server has sent nothing.
            let result =
                Int(way.through) == member ? .stale : kernel.send(message, to: members[Int(way.through)], expecting: id, onBehalfOf: nil)
            if result == .sent {
                motion.unsynced.remove(slot)
                motion.syncing.insert(slot)
                motion.syncsUnderWay += 1
                continue
            }
            continuations.remove(id)
            if result == .full { return kernel.tickAgain() }
            // The old way is gone, and what was on it with it.
            motion.unsynced.remove(slot)
            slots.learn(slot, owner: Int(way.owner), version: way.version)
            motion.settling.remove(slot)
        }
    }

    mutating func answerSync<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let asked = request.fixed(fos_peer_slot.self), asked.slot < UInt32(FOS_SLOTS) else { return answer(-EINVAL, kernel) }
        let slot = Int(asked.slot)
        guard slots.owner(ofSlot: slot) == member else { return pass(request, to: slots.owner(ofSlot: slot), kernel) }
        // Who joins knows nothing yet.
        if isUnknown(slot: slot) { return answer(Status.retry, kernel) }
        let message = kernel.scratch()
        message.setBody(fos_peer_slot(slot: asked.slot, owner: UInt32(member), version: slots.version(ofSlot: slot), generation: 0))
        deliver(message, kernel)
    }

    mutating func resumeSync<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        let slot = Int(state.pointee.target)
        let version = UInt32(truncatingIfNeeded: state.pointee.numbers.0)
        continuations.remove(id)
        motion.syncing.remove(slot)
        motion.syncsUnderWay -= 1
        guard response.status == 0, let found = response.fixed(fos_peer_slot.self) else {
            let way = ways[slot]
            if members.isDead(Int(way.owner)) {
                // Nothing arrives there any more, in whatever order.
                slots.learn(slot, owner: Int(way.owner), version: way.version)
                return
            }
            motion.unsynced.insert(slot)
            return kernel.tickAgain()
        }
        slots.learn(slot, owner: Int(found.owner), version: found.version)
        let way = ways[slot]
        if way.version > found.version, way.version > slots.version(ofSlot: slot) {
            // Who answered has begun again with nothing, and has not heard of the slot's last move.
            motion.unsynced.insert(slot)
            send(
                news: fos_peer_slot(slot: UInt32(slot), owner: UInt32(way.owner), version: way.version, generation: 0),
                to: Int(found.owner), kernel)
            return kernel.tickAgain()
        }
        // A question of an earlier move says nothing about what came over the last way.
        if ways[slot].version == version { motion.settling.remove(slot) }
        spreadNews(kernel)
    }

    // MARK: Members

    /// FLEET_MEMBERS: who serves. One that is not alive and not dead is about to leave: it gets nothing new.
    mutating func takeMembers<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let news = request.fixed(fos_fleet_members.self), news.service == FOS_SERVICE_FILE.rawValue else {
            return answer(-EINVAL, kernel)
        }
        answer(0, kernel)
        guard Int32(bitPattern: news.epoch &- membersEpoch) > 0 else { return }
        membersEpoch = news.epoch
        let served = members.isAlive(member)
        func has(_ bits: UnsafeRawBufferPointer, _ index: Int) -> Bool { index / 8 < bits.count && bits[index / 8] & 1 << (index % 8) != 0 }
        for index in 0..<members.count {
            if withUnsafeBytes(of: news.dead, { has($0, index) }) {
                if !members.isDead(index) { serverGone(members[index], forGood: true, kernel) }
            } else {
                members.set(index, alive: withUnsafeBytes(of: news.alive) { has($0, index) })
            }
        }
        motion.isLeaving = served && !members.isAlive(member) || motion.isLeaving && !members.isAlive(member)
        // Who comes back has missed the news of the meantime.
        if !served, members.isAlive(member), motion.joining == nil { motion.joining = Joining() }
        pullTable(kernel)
    }

    /// A request has come here that belongs to a member which is dead for good. If a member sent it, it has not heard who had the slot:
    /// the dead one may have died before it had told everybody, and nobody else would.
    func tellSender<K: Kernel>(of request: Request, slot: Int, _ kernel: K) {
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_SERVER.rawValue,
            let peer = members.index(of: MailboxAddress(rawValue: request.envelope.pointee.from)), peer != member
        else { return }
        send(
            news: fos_peer_slot(
                slot: UInt32(slot), owner: UInt32(slots.owner(ofSlot: slot)), version: slots.version(ofSlot: slot), generation: 0),
            to: peer, kernel)
    }

    /// What was on its way to or from a member that has died.
    mutating func loseMoves<K: Kernel>(with dead: Int, _ kernel: K) {
        if motion.giving?.taker == dead { abandonGiving(kernel) }
        if let taking = motion.taking, taking.giver == dead {
            dropTaken()
            motion.taking = nil
            inodes.noteLosses(slot: taking.slot)
            own(taking.slot, version: slots.version(ofSlot: taking.slot) &+ 1, after: member, kernel)
        }
        if motion.debt > 0 { motion.forgive(dead) }
        spreadNews(kernel)
        drive(kernel)
    }

    /// FLEET_TAKE: slots whose owner is lost are this server's. What was in them is gone, and their numbers are not given
    /// again; a root that is gone is made anew, empty.
    mutating func takeOver<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let take = request.fixed(fos_fleet_take.self), take.version_step > 0 else { return answer(-EINVAL, kernel) }
        withUnsafeBytes(of: take.slots) { bits in
            for slot in 0..<SlotTable.slots where bits[slot / 8] & 1 << (slot % 8) != 0 && slots.owner(ofSlot: slot) != member {
                if motion.taking?.slot == slot { continue }
                inodes.beginArriving(slot: slot, SlotNumbering(incarnation: 0, hasLosses: true))
                own(slot, version: slots.version(ofSlot: slot) &+ take.version_step, after: member, kernel)
                if slot == SlotTable.slot(ofInode: UInt64(FOS_ROOT_INODE)) { makeRoot(rootAttributes, seed: kernel.random()) }
            }
        }
        answer(0, kernel)
        spreadNews(kernel)
    }

    // MARK: Joining

    /// Asks the next member for the table, part by part. One that does not live has nothing to say: who gave it a slot knows.
    mutating func pullTable<K: Kernel>(_ kernel: K) {
        while let joining = motion.joining, !joining.isAsking {
            guard joining.peer < members.count else { return joined(kernel) }
            guard joining.peer != member, members.isAlive(joining.peer), joining.slot < SlotTable.slots else {
                motion.joining = Joining(peer: joining.peer + 1)
                continue
            }
            guard let id = continuations.insert(Continuation(.table)) else { return kernel.tickAgain() }
            (letters + index(id)).initialize(to: fos_letter())
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_PEER_TABLE.rawValue)
            var question = fos_peer_table()
            question.first = UInt32(joining.slot)
            message.setBody(question)
            let result = kernel.send(message, to: members[joining.peer], expecting: id, onBehalfOf: nil)
            motion.joining?.isAsking = result == .sent
            if result == .sent { return }
            continuations.remove(id)
            if result == .full { return kernel.tickAgain() }
            motion.joining = Joining(peer: joining.peer + 1)
        }
    }

    /// Everybody was asked; what nobody knew better is as it was at the fleet's beginning.
    private mutating func joined<K: Kernel>(_ kernel: K) {
        motion.joining = nil
        for slot in 0..<SlotTable.slots where slots.version(ofSlot: slot) == 0 {
            slots.learn(slot, owner: slots.owner(ofSlot: slot), version: 1)
        }
        publishSlots(kernel)
    }

    mutating func answerTable<K: Kernel>(_ request: Request, _ kernel: K) {
        guard var table = request.fixed(fos_peer_table.self), table.first <= UInt32(FOS_SLOTS) else { return answer(-EINVAL, kernel) }
        let count = min(Int(FOS_PEER_TABLE_SLOTS), SlotTable.slots - Int(table.first))
        table.count = UInt32(count)
        let first = Int(table.first)
        // The newest that this server has heard: nothing of the asker's is on the old way, and the giver may be dead by now.
        withUnsafeMutableBytes(of: &table.owners) { owners in
            for place in 0..<count { owners.storeBytes(of: UInt16(newest(first + place).owner), toByteOffset: place * 2, as: UInt16.self) }
        }
        withUnsafeMutableBytes(of: &table.versions) { versions in
            for place in 0..<count { versions.storeBytes(of: newest(first + place).version, toByteOffset: place * 4, as: UInt32.self) }
        }
        let message = kernel.scratch()
        message.setBody(table)
        deliver(message, kernel)
    }

    private func newest(_ slot: Int) -> (owner: Int, version: UInt32) {
        let way = ways[slot]
        return way.version > slots.version(ofSlot: slot)
            ? (Int(way.owner), way.version) : (slots.owner(ofSlot: slot), slots.version(ofSlot: slot))
    }

    mutating func resumeTable<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        continuations.remove(id)
        guard let joining = motion.joining, joining.isAsking else { return }
        motion.joining?.isAsking = false
        guard response.status == 0, let table = response.fixed(fos_peer_table.self), Int(table.first) == joining.slot, table.count > 0,
            Int(table.count) <= min(Int(FOS_PEER_TABLE_SLOTS), SlotTable.slots - joining.slot)
        else { return kernel.tickAgain() }
        for place in 0..<Int(table.count) {
            let owner = withUnsafeBytes(of: table.owners) { $0.loadUnaligned(fromByteOffset: place * 2, as: UInt16.self) }
            let version = withUnsafeBytes(of: table.versions) { $0.loadUnaligned(fromByteOffset: place * 4, as: UInt32.self) }
            slots.learn(joining.slot + place, owner: Int(owner), version: version)
        }
        motion.joining?.slot += Int(table.count)
        pullTable(kernel)
    }

    // MARK: Housekeeping

    /// What slots in motion need at a tick.
    mutating func tickMotion<K: Kernel>(_ kernel: K) {
        if motion.giving != nil || motion.orderCount > 0 { drive(kernel) }
        if motion.untold.count > 0 || motion.unsynced.count > 0 { spreadNews(kernel) }
        if motion.debt > 0 { payDebts(kernel) }
        pullTable(kernel)
        if motion.isLeaving { giveCreditsBack(kernel) }
        if unfinished > 0 { kernel.tickAgain() }
        report(kernel)
    }

    /// Slots that this server is still to give, and 1 for whatever else of moves is under way.
    private var unfinished: Int {
        let isBusy =
            motion.taking != nil || motion.joining != nil || motion.untold.count > 0 || motion.unsynced.count > 0
            || motion.syncsUnderWay > 0
        return motion.ordered + (isBusy || motion.isLeaving && pool.credits + pool.used > 0 ? 1 : 0)
    }

    /// Tells the manager how this server does, if there is anything new.
    private mutating func report<K: Kernel>(_ kernel: K) {
        guard let manager, meter.hasNews || unfinished > 0 || reportedWork != unfinished || reportedSlots != slots.share(of: member) else {
            return
        }
        var report = fos_fleet_report()
        report.service = FOS_SERVICE_FILE.rawValue
        report.member = UInt32(member)
        var measured = meter
        measured.report(into: &report)
        senders.report(into: &report)
        report.forwards = motion.forwarded
        report.delayed = motion.delayed
        report.slots = UInt32(slots.share(of: member))
        report.orders = UInt32(unfinished)
        report.inodes = UInt64(inodes.count)
        report.pages = UInt64(max(pool.used, 0))
        report.moved_slots = motion.movedSlots
        report.moved_inodes = motion.movedInodes
        report.moved_bytes = motion.movedBytes
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_FLEET_REPORT.rawValue)
        message.setBody(report)
        guard kernel.send(message, to: manager, expecting: .none, onBehalfOf: nil) == .sent else { return }
        meter = measured
        senders.begin()
        reportedSlots = slots.share(of: member)
        reportedWork = unfinished
    }
}
