// SimKernel: the `Kernel` value that the simulator hands to a server with each message.
//
// Invariants: a send only schedules, so no server runs inside another's call; time stands still within a turn for the
// server, while the times at which its messages leave grow with what it did. `scratch` is overwritten by every call that
// the interface says ends its life.

public import CFosWire
public import Messaging

/// One server's view of a `SimHost`. The host outlives every value of it.
public struct SimKernel: Kernel {
    public unowned(unsafe) let host: SimHost
    unowned(unsafe) let own: SimMailbox

    public var mailbox: MailboxAddress { own.address }
    public var core: Int { own.address.core }
    public var now: Timestamp { host.now }
    public var monotonic: UInt64 { host.nanoseconds }
    public func random() -> UInt64 { host.random.next() }

    public func send(
        _ message: UnsafePointer<fos_message>, to destination: MailboxAddress, expecting continuation: ContinuationID,
        onBehalfOf envelope: UnsafePointer<fos_envelope>?
    ) -> SendResult {
        defer { host.poisonScratch() }
        return host.send(message, from: own, to: destination, expecting: continuation, onBehalfOf: envelope)
    }

    public func forward(_ letter: UnsafePointer<fos_letter>, to destination: MailboxAddress) -> SendResult {
        defer { host.poisonScratch() }
        return host.forward(letter, from: own, to: destination)
    }

    public func scratch() -> UnsafeMutablePointer<fos_message> { host.freshScratch() }

    public func reply(to envelope: UnsafePointer<fos_envelope>, _ message: UnsafePointer<fos_message>) {
        host.reply(from: own, to: envelope, message)
        host.poisonScratch()
    }

    public func bulk(of envelope: UnsafePointer<fos_envelope>, offset: UInt32, count: UInt32) -> UnsafeMutableRawBufferPointer? {
        host.turnTime += host.costs.bulkByte * VirtualTime(count)
        return host.client(of: envelope)?.bulk(channel: envelope.pointee.channel, offset: offset, count: count)
    }

    public func groups(of envelope: UnsafePointer<fos_envelope>) -> UnsafeBufferPointer<UInt32> {
        guard let client = host.client(of: envelope), UInt32(client.rights) & FOS_RIGHT_ACT_AS.rawValue == 0 else {
            return UnsafeBufferPointer(start: nil, count: 0)
        }
        return UnsafeBufferPointer(client.groups)
    }

    public func client(ofProcess pid: UInt32, after client: UInt32?) -> UInt32? {
        host.clients.first { $0.isAlive && $0.pid == pid && $0.index > client ?? 0 }?.index
    }

    public func generation(ofClient client: UInt32) -> UInt32 { host.liveClient(client)?.generation ?? 0 }

    public func noticeRoom(client: UInt32) -> Int { host.noticeRoom(client: client, core: core) }
    public func notify(client: UInt32, _ notice: UnsafePointer<fos_notice>) -> Bool { host.notify(client: client, notice, from: own) }
    public var kernelCacheClient: UInt32? { host.kernelCacheClient }

    public func publish(slot: Int, owner: MailboxAddress) {
        precondition(slot >= 0 && slot < Int(FOS_SLOTS), "a server publishes a slot that does not exist")
        host.board.publish(slot: slot, owner: owner)
    }
    public func publish(directory: UInt64, shardBits: Int) -> Bool { host.board.publish(directory: directory, shardBits: shardBits) }
    public func shardBits(of directory: UInt64) -> Int { host.board.shardBits(of: directory) }
    public func changed(inode: UInt64) { host.board.changed(inode: inode) }
    public func epoch(ofInode inode: UInt64) -> UInt32 { host.board.epoch(ofInode: inode) }

    public func tickAgain() { own.wantsTick = true }
    public func idleAgain() { own.wantsIdle = true }

    public func makeRegion(bytes: Int) -> SharedRegion? {
        host.makeMemory(bytes: bytes, alignment: Int(FOS_PAGE_BYTES), sharing: .readOnly)
    }
    public func makeFrames(bytes: Int, huge: Bool, sharing: SharedRegion.Sharing) -> SharedRegion? {
        host.makeMemory(bytes: bytes, alignment: bytes, sharing: sharing)
    }
    public var hasHugeFrames: Bool { host.options.hasHugeFrames }
    /// Nothing is to be done: absent frames are zeros here. What zeroing costs, whoever hosts a memory server tells with `zeroed`.
    public func populate(_ region: SharedRegion, offset: Int, bytes: Int) {}
    /// The running turn has zeroed so much.
    public func zeroed(bytes: Int) { host.turnTime += host.costs.zeroByte * VirtualTime(bytes) }
    public func discard(_ region: SharedRegion, offset: Int, bytes: Int) { host.discard(region, offset: offset, bytes: bytes) }
    public func isAlone(_ region: SharedRegion) -> Bool { host.grips[region.handle, default: 0] == 0 }
    public func dropRegion(_ region: SharedRegion) { host.dropRegion(region) }
    public func handOut(_ region: SharedRegion, token: UInt64, to envelope: UnsafePointer<fos_envelope>) -> Bool {
        host.client(of: envelope)?.take(region, token: token) ?? false
    }

    public func trace(kind: UInt16, operation: UInt16, status: Int32, inode: UInt64, client: UInt32, detail: UInt32) {
        host.trace(own, kind: kind, operation: operation, status: status, inode: inode, client: client, detail: detail)
    }
}
