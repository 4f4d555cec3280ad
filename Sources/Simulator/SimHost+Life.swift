// What dies, stalls and comes back; memory that servers share with clients.
//
// What is promised of a crash: a server stops between two turns. What it has sent is on its way and arrives (the
// transport is reliable); what it had not taken in is answered "try again" by its microkernel, what it had taken in and
// not answered is answered EIO, since nobody knows how far it came. Every other server is told, after all that the dead one
// had sent it (FOS_OP_SERVER_GONE), and again when it is back (FOS_OP_SERVER_BACK).

import CFosWire
import Glibc
public import Messaging

extension SimHost {
    /// A server dies. Until `restart`, sends to it are stale.
    public func crash(_ address: MailboxAddress, forGood: Bool = false) {
        guard let mailbox = mailbox(address) else { return }
        guard mailbox.server != nil else {
            // It was to come back, and its core is lost meanwhile.
            if forGood, mailbox.diedAt > 0, !mailbox.isGoneForGood {
                mailbox.isGoneForGood = true
                tellAll(FOS_OP_SERVER_GONE, of: mailbox, flags: 1)
            }
            return
        }
        mailbox.server = nil
        mailbox.diedAt = time
        mailbox.isGoneForGood = forGood
        mailbox.epoch &+= 1
        mailbox.firstSerial = serial
        board.allChanged()
        mailbox.awaited = 0
        mailbox.remote = 0
        mailbox.stalledUntil = 0
        // Its own questions are nobody's any more. Sorted: the order of a hash table is not decided by the seed.
        for number in outstanding.keys.sorted() where outstanding[number]?.from == mailbox.number { outstanding[number] = nil }
        while mailbox.responses.count > 0 { letters.giveBack(letters.removeFirst(of: &mailbox.responses)) }
        while mailbox.requests.count > 0 {
            let number = letters.removeFirst(of: &mailbox.requests)
            hold(letters[number], SimHost.underWay)
            refuse(number, by: mailbox, FOS_TRANSPORT_RETRY)
        }
        answerForTheDead(mailbox)
        tellAll(FOS_OP_SERVER_GONE, of: mailbox, flags: forGood ? 1 : 0)
    }

    /// A server is there again, under a new epoch: with what its store kept, or empty.
    public func restart(_ address: MailboxAddress, _ server: SimServer, restored: Bool) {
        guard let mailbox = mailbox(address), mailbox.server == nil, !cores[address.core].isLost else { return }
        mailbox.server = server
        mailbox.isRestored = restored
        news(FOS_OP_TICK, to: mailbox)
        // It has missed who died while it was away, and does not know who has been away all along.
        for other in mailboxes where other !== mailbox && other.diedAt > 0 && (other.server == nil || other.diedAt >= mailbox.diedAt) {
            news(FOS_OP_SERVER_GONE, to: mailbox, inode: UInt64(other.address.rawValue), flags: other.isGoneForGood ? 1 : 0)
            if other.server != nil {
                news(FOS_OP_SERVER_BACK, to: mailbox, inode: UInt64(other.address.rawValue), flags: other.isRestored ? 1 : 0)
            }
        }
        tellAll(FOS_OP_SERVER_BACK, of: mailbox, flags: restored ? 1 : 0)
    }

    /// A core is lost with all its servers, for good.
    public func loseCore(_ core: Int) {
        guard !cores[core].isLost else { return }
        cores[core].isLost = true
        for number in cores[core].mailboxes { crash(mailboxes[Int(number)].address, forGood: true) }
    }

    /// A server takes no letter until the time is reached. Its mailboxes fill meanwhile.
    public func stall(_ address: MailboxAddress, until end: VirtualTime) {
        guard let mailbox = mailbox(address), mailbox.server != nil else { return }
        mailbox.stalledUntil = max(mailbox.stalledUntil, end)
    }

    /// A client dies: nothing more comes from it, and every server is told.
    public func kill(_ client: SimClient) {
        guard client.isAlive else { return }
        client.isAlive = false
        // Its mappings end with it.
        for token in Array(client.regions.keys) { client.letGo(token) }
        for mailbox in mailboxes where mailbox.server != nil {
            let latency = costs.message.latency(distance: topology.distance(from: client.core, to: mailbox.address.core))
            news(FOS_OP_CLIENT_GONE, to: mailbox, about: client, after: latency)
        }
    }

    /// The microkernel answers what a dead server had taken in and not answered.
    private func answerForTheDead(_ mailbox: SimMailbox) {
        var reply = fos_message()
        reply.status = -EIO
        for number in outstanding.keys.sorted() {
            guard let request = outstanding[number], request.holder == mailbox.number else { continue }
            totals.answeredForTheDead += 1
            var target = fos_envelope()
            target.sender_kind = UInt8(FOS_SENDER_SERVER.rawValue)
            target.from = mailboxes[Int(request.from)].address.rawValue
            target.continuation = request.continuation
            target.host_note = number
            answer(target, &reply, core: mailbox.address.core, sender: mailbox.address)
        }
        for thread in threads where thread.holder == mailbox.number && thread.isWaiting && thread.client.isAlive {
            totals.answeredForTheDead += 1
            reply.operation = thread.request.pointee.operation
            reply.inode = thread.request.pointee.inode
            answer(thread.sentEnvelope, &reply, core: mailbox.address.core, sender: mailbox.address)
        }
    }

    private func tellAll(_ operation: fos_operation, of mailbox: SimMailbox, flags: UInt16) {
        for other in mailboxes where other.server != nil && other !== mailbox {
            // After all that the dead one has sent: its messages take the same way.
            let latency = costs.message.latency(distance: topology.distance(from: mailbox.address.core, to: other.address.core))
            let delay =
                latency + faults.delayAtMost
                + (cores[mailbox.address.core].busyUntil > time ? cores[mailbox.address.core].busyUntil - time : 0)
            news(operation, to: other, inode: UInt64(mailbox.address.rawValue), flags: flags, after: delay)
        }
    }

    // MARK: Memory shared with clients

    /// Zeros, which take no memory of this machine's before they are touched; nil beyond the limit.
    func makeMemory(bytes: Int, alignment: Int, sharing: SharedRegion.Sharing) -> SharedRegion? {
        guard memoryInUse + bytes <= options.memoryBytes else { return nil }
        let room = bytes + max(alignment - Int(FOS_PAGE_BYTES), 0)
        guard let mapped = mmap(nil, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), mapped != MAP_FAILED
        else { return nil }
        let base = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: mapped) + UInt(alignment) - 1) & ~(UInt(alignment) - 1))!
        let region = SharedRegion(base: base, bytes: bytes, handle: Int32(regions.count), sharing: sharing)
        regions.append(Memory(region: region, mapped: mapped, room: room))
        memoryBounds = (min(memoryBounds.low, UInt(bitPattern: base)), max(memoryBounds.high, UInt(bitPattern: base) + UInt(bytes)))
        memoryInUse += bytes
        return region
    }
    /// What an address is, the same in every run: its region's number and its offset there. nil: no address of simulated memory.
    func placeInMemory(_ address: UInt) -> UInt64? {
        guard address >= memoryBounds.low, address < memoryBounds.high else { return nil }
        for memory in regions {
            let base = UInt(bitPattern: memory.region.base)
            if address >= base, address < base + UInt(memory.region.bytes) {
                return UInt64(memory.region.handle) << 40 | UInt64(address - base)
            }
        }
        return nil
    }
    func discard(_ region: SharedRegion, offset: Int, bytes: Int) { madvise(region.base + offset, bytes, MADV_DONTNEED) }
    /// It stays readable to the end of the run, as a mapping does.
    func dropRegion(_ region: SharedRegion) {
        guard !regions[Int(region.handle)].isDropped else { return }
        regions[Int(region.handle)].isDropped = true
        memoryInUse -= region.bytes
    }

    // MARK: Notices

    func noticeRoom(client: UInt32, core: Int) -> Int {
        guard let client = liveClient(client) else { return 0 }
        return max(0, options.noticeCapacity - client.noticesUnderWay[core, default: 0])
    }

    func notify(client number: UInt32, _ notice: UnsafePointer<fos_notice>, from: SimMailbox) -> Bool {
        guard let client = liveClient(number), noticeRoom(client: number, core: from.address.core) > 0 else { return false }
        client.noticesUnderWay[from.address.core, default: 0] += 1
        totals.notices += 1
        let letter = letters.take()
        letters[letter].pointee.envelope.from = from.address.rawValue
        (UnsafeMutableRawPointer(letters[letter]) + 256).copyMemory(from: notice, byteCount: MemoryLayout<fos_notice>.size)
        turnTime += costs.send
        let arrival = arrival(
            from: from.address.core, to: client.core, leaving: turnTime,
            pair: UInt64(from.address.core) << 34 | UInt64(number) << 2 | 3)
        events.schedule(.notice, at: arrival, letter: letter, target: number)
        return true
    }

    func noticeArrives(_ number: UInt32, at index: UInt32) {
        defer { letters.giveBack(number) }
        let from = MailboxAddress(rawValue: letters[number].pointee.envelope.from)
        let client = clients[Int(index) - 1]
        client.noticesUnderWay[from.core, default: 0] -= 1
        guard client.isAlive else { return }
        let notice = (UnsafeMutableRawPointer(letters[number]) + 256).assumingMemoryBound(to: fos_notice.self)
        hash.mix(UInt64(notice.pointee.kind))
        hash.mix(notice.pointee.inode)
        client.noticed(notice.pointee)
    }
}
