// LoopKernel: the `Kernel` value that a loop host hands to a server with each message.
//
// Invariants: a send only enqueues, so no server runs inside another's call. `scratch` is overwritten by every call
// that the interface says ends its life, so a server that uses it too long fails its tests instead of the live system.

public import CFosWire
public import Messaging

/// One server's view of a `LoopHost`. The host outlives every value of it.
public struct LoopKernel: Kernel {
    unowned(unsafe) let host: LoopHost
    public let mailbox: MailboxAddress

    public var now: Timestamp { host.now }
    public var monotonic: UInt64 { host.monotonic }
    public func random() -> UInt64 { host.random.next() }
    public var core: Int { mailbox.core }

    public func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        defer { host.poisonScratch() }
        return host.send(message, from: mailbox, to: destination, expecting: continuation, onBehalfOf: envelope)
    }

    public func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult {
        defer { host.poisonScratch() }
        return host.forward(letter, from: mailbox, to: destination)
    }

    public func scratch() -> UnsafeMutablePointer<fos_message> { host.freshScratch() }

    public func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        host.reply(from: mailbox, to: envelope, message)
        host.poisonScratch()
    }

    public func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        guard let client = host.client(of: envelope.pointee), envelope.pointee.channel < UInt32(client.channels.count) else { return nil }
        return client.channels[Int(envelope.pointee.channel)].bulk(offset: offset, count: count)
    }

    public func delegation(client: UInt32, generation: UInt32, channel: UInt32) -> UnsafeMutablePointer<fos_delegation>? {
        guard client > 0, Int(client) <= host.clients.count else { return nil }
        let holder = host.clients[Int(client) - 1]
        guard holder.generation == generation, Int(channel) < holder.channels.count, !holder.forgottenBy.contains(mailbox) else { return nil }
        return holder.channels[Int(channel)].delegation
    }

    public func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32> {
        guard let client = host.client(of: envelope.pointee), UInt32(client.rights) & FOS_RIGHT_ACT_AS.rawValue == 0 else {
            return UnsafeBufferPointer(start: nil, count: 0)
        }
        return UnsafeBufferPointer(client.groups)
    }

    public func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32? {
        host.clients.first { $0.isAlive && $0.pid == pid && $0.index > client ?? 0 }?.index
    }

    public func generation(ofClient client: UInt32) -> UInt32 { host.liveClient(client)?.generation ?? 0 }

    public func noticeRoom(client: UInt32) -> Int {
        guard let client = host.liveClient(client) else { return 0 }
        return max(0, host.options.noticeCapacity - client.noticesUnderWay(to: mailbox.core))
    }

    public func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool {
        guard noticeRoom(client: client) > 0 else { return false }
        host.sendNotice(notice, from: mailbox, client: client)
        return true
    }

    public var kernelCacheClient: UInt32? { host.kernelCacheClient }

    public func publish(slot: Int, owner: MailboxAddress) {
        precondition(slot >= 0 && slot < Int(FOS_SLOTS), "a server publishes a slot that does not exist")
        host.slotOwner[slot] = owner
    }

    public func makeRegion(bytes: Int) -> SharedRegion? { host.makeRegion(bytes: bytes) }
    public func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion? {
        host.makeFrames(bytes: bytes, sharing: sharing)
    }
    public var hasHugeFrames: Bool { host.options.hasHugeFrames }
    public func populate(_ region: SharedRegion, offset: Int, bytes: Int) {
        for page in pages(region, offset, bytes) { host.populatedPages.insert(page) }
    }
    public func discard(_ region: SharedRegion, offset: Int, bytes: Int) {
        for page in pages(region, offset, bytes) { host.populatedPages.remove(page) }
        (region.base + offset).initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }
    private func pages(_ region: SharedRegion, _ offset: Int, _ bytes: Int) -> StrideTo<UInt> {
        let first = UInt(bitPattern: region.base + offset)
        return stride(from: first, to: first + UInt(bytes), by: Int(FOS_PAGE_BYTES))
    }
    public func isAlone(_ region: SharedRegion) -> Bool { host.grips[region.handle, default: 0] == 0 }
    public func dropRegion(_ region: SharedRegion) { host.dropRegion(region) }
    public func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool {
        host.handedOut.append((envelope.pointee.client, token, region))
        if region.sharing == .lent { host.grips[region.handle, default: 0] += 1 }
        return true
    }

    public func publish(directory: UInt64, shardBits: Int) -> Bool {
        if shardBits > 0 { return fos_shard_publish(host.sharded, directory, UInt32(shardBits)) != 0 }
        fos_shard_withdraw(host.sharded, directory)
        return true
    }
    public func shardBits(of directory: UInt64) -> Int { host.shardBits(of: directory) }

    public func changed(inode: UInt64) { host.epochs[Int(fos_inode_epoch_index(inode))] &+= 1 }
    public func epoch(ofInode inode: UInt64) -> UInt32 { host.epoch(ofInode: inode) }

    public func tickAgain() { host.ticksWanted.insert(mailbox) }
    public func idleAgain() { host.idleWanted.insert(mailbox) }

    public func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {
        host.trace(
            mailbox,
            fos_trace_record(
                time: host.monotonic, operation: operation, kind: kind, status: status, inode: inode, client: client, detail: detail))
    }
}
