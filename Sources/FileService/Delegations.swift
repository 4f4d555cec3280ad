// Delegations: files whose changes this server has left to one channel (fos/delegation.h has the protocol).
//
// Role: keeps which file is delegated to which channel, takes records of changes out of the channels' areas, and makes the changes.
// Protocol: the answer to a CREATE or WRITE grants (`delegate`). Every use of an inode by a message comes by `noteDelegation` first:
// the holder's own has its record taken, anybody else's ends the delegation. What the holder's request brings along for another file
// is taken after its answer (`takeRecords`), so nobody waits for it.
// Invariants: a delegated inode is a regular file with neither privileges nor extended attributes, in no region, and unknown to the
// kernel. The pages of two records are held for each: one that is being made, and one that the client may have begun meanwhile; so
// a record never fails for want of space. Nothing in an area is believed but what the table says may be there.

import CFosWire
import FileStorage
import Fleet
import Messaging

extension InodeFlags {
    /// The inode is in the table of delegations.
    static var delegated: InodeFlags { InodeFlags(rawValue: 8) }
}

struct Delegation: BitwiseCopyable {
    /// 0: the place is free.
    var inode: UInt64 = 0
    var client: UInt32 = 0
    var generation: UInt32 = 0
    var channel: UInt32 = 0
    /// Of the client's user.
    var uid: UInt32 = 0
    /// It may leave data.
    var writes = false
    /// Pages.
    var held = 0

    func isOf(_ envelope: UnsafePointer<fos_envelope>) -> Bool {
        client == envelope.pointee.client && generation == envelope.pointee.client_generation && channel == envelope.pointee.channel
    }
}

/// A place for each channel that has one, found by hashing; two that meet there take it from each other.
struct DelegationTable: ~Copyable {
    private let places: UnsafeMutablePointer<Delegation>
    private(set) var count = 0
    /// What the answer that is about to leave has replaced: the holder's own earlier one.
    private(set) var replaced = Delegation()

    init() {
        places = .allocate(capacity: Limits.delegations)
        places.initialize(repeating: Delegation(), count: Limits.delegations)
    }
    deinit { places.deallocate() }

    static func place(of envelope: UnsafePointer<fos_envelope>) -> Int {
        Int(truncatingIfNeeded: envelope.pointee.client &* 37 &+ envelope.pointee.channel) & (Limits.delegations - 1)
    }
    subscript(place: Int) -> Delegation { places[place] }
    func place(ofInode number: UInt64) -> Int? { (0..<Limits.delegations).first { places[$0].inode == number } }

    mutating func set(_ place: Int, _ delegation: Delegation) {
        precondition(delegation.inode != 0 && places[place].inode == 0, "a place of a delegation is taken twice")
        places[place] = delegation
        count += 1
    }
    /// Takes it out of the table.
    mutating func remove(_ place: Int) -> Delegation {
        let delegation = places[place]
        precondition(delegation.inode != 0, "a delegation ends twice")
        places[place] = Delegation()
        count -= 1
        return delegation
    }
    /// The answer that is about to leave replaces the one in this place.
    mutating func replace(_ place: Int) { replaced = remove(place) }
    /// Takes it out for good.
    mutating func takeReplaced() -> Delegation {
        let delegation = replaced
        replaced = Delegation()
        return delegation
    }
    mutating func setHeld(_ place: Int, _ pages: Int) { places[place].held = pages }
    mutating func letWrite(_ place: Int) { places[place].writes = true }
}

extension FileServer {
    // MARK: Granting

    /// Leaves the next changes of a file to the channel whose request has just made, written or opened it; what it is told of the file
    /// must be in the answer already, which is marked. `writes`: of the data too. False: it sends messages as before.
    @discardableResult
    mutating func delegate<K: Kernel>(_ inode: InodePointer, writes: Bool = true, in message: UnsafeMutablePointer<fos_message>, _ kernel: K) -> Bool {
        guard delegate(inode, writes: writes, kernel) else { return false }
        message.pointee.flags |= UInt16(FOS_REPLY_DELEGATED.rawValue)
        return true
    }

    private mutating func delegate<K: Kernel>(_ inode: InodePointer, writes: Bool, _ kernel: K) -> Bool {
        guard let letter = turn.letter, mayDelegate(inode) else { return false }
        let envelope = Request(letter: letter).envelope
        let rights = FOS_RIGHT_KERNEL_CACHE.rawValue | FOS_RIGHT_ACT_AS.rawValue
        guard UInt32(envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue, UInt32(envelope.pointee.rights) & rights == 0 else { return false }
        let place = DelegationTable.place(of: envelope)
        let before = delegations[place]
        if before.inode == inode.pointee.number {
            guard before.isOf(envelope) else { return false }
            if writes { delegations.letWrite(place) }
            return true
        }
        precondition(!inode.pointee.flags.contains(.delegated), "a file is delegated again before its delegation has ended")
        let client = envelope.pointee.client, generation = envelope.pointee.client_generation
        guard kernel.generation(ofClient: client) == generation,
            kernel.delegation(client: client, generation: generation, channel: envelope.pointee.channel) != nil,
            pool.credits >= Limits.creditsToDelegate, pool.available >= Limits.pagesInStock || memory == nil,
            delegations.replaced.inode == 0, pool.hold(2 * Limits.pagesOfRecord)
        else { return false }
        if before.inode != 0 {
            // The holder replaces its own when it reads the answer; until then it waits, and adds nothing to its record.
            if before.isOf(envelope) { delegations.replace(place) } else { endDelegation(at: place, kernel) }
        }
        delegations.set(
            place,
            Delegation(
                inode: inode.pointee.number, client: client, generation: generation, channel: envelope.pointee.channel,
                uid: envelope.pointee.uid, writes: writes, held: 2 * Limits.pagesOfRecord))
        inode.pointee.flags.insert(.delegated)
        return true
    }

    func mayDelegate(_ inode: InodePointer) -> Bool {
        // Whoever comes back after a death would not know what was left to whom.
        guard !Store.outlivesServer, inode.isRegular, inode.pointee.mapping == 0 else { return false }
        guard inode.pointee.kernelReferences == 0, inode.pointee.leases.isEmpty else { return false }
        let flags = inode.pointee.flags
        guard !flags.contains(.kernelMaps), !flags.contains(.lent), !flags.contains(.recalled), inode.pointee.busy == 0 else { return false }
        guard inode.pointee.mode == inode.pointee.modeWithoutPrivilege, inode.pointee.xattrs.isEmpty else { return false }
        return motion.giving?.slot != SlotTable.slot(ofInode: inode.pointee.number)
    }

    // MARK: Using

    /// Before anything is done with an inode, or told of it, for a message.
    @inline(__always) mutating func noteDelegation<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        if inode.pointee.flags.contains(.delegated) { noteDelegationNow(inode, kernel) }
    }

    private mutating func noteDelegationNow<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        // One that has just been replaced is its holder's no more, and its record may be there still.
        if delegations.replaced.inode == inode.pointee.number { return endReplaced(kernel) }
        let place = place(of: inode)
        guard let letter = turn.letter else { return endDelegation(at: place, kernel) }
        let request = Request(letter: letter)
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue, delegations[place].isOf(request.envelope) else {
            return endDelegation(at: place, kernel)
        }
        // Whether it says that it brings one or not: a program that took over its predecessor's connection does not know.
        takeRecords(at: place, kernel)
    }

    /// Before an operation that a delegation does not outlast, whoever asks.
    @inline(__always) mutating func noteDelegation<K: Kernel>(_ inode: InodePointer, _ operation: fos_operation, _ kernel: K) {
        guard inode.pointee.flags.contains(.delegated) else { return }
        switch operation {
        case FOS_OP_GETATTR, FOS_OP_READ, FOS_OP_WRITE, FOS_OP_FSYNC, FOS_OP_LSEEK, FOS_OP_ACCESS, FOS_OP_RELEASE, FOS_OP_FLUSH, FOS_OP_OPEN,
            FOS_OP_GETLK, FOS_OP_SETLK, FOS_OP_FLOCK, FOS_OP_COPY_RANGE:
            noteDelegationNow(inode, kernel)
        default: endDelegation(of: inode, kernel)
        }
    }

    private func bringsRecord(_ request: Request) -> Bool { UInt32(request.message.pointee.given_for) & FOS_GIVEN_RECORD.rawValue != 0 }

    /// After an answer: what its request has brought along, and what was left of a delegation that it has replaced.
    @inline(__always) mutating func takeRecords<K: Kernel>(_ request: Request, _ kernel: K) {
        if delegations.replaced.inode != 0 { return endReplaced(kernel) }
        if bringsRecord(request) { takeRecordsOfHolder(request, kernel) }
    }

    private mutating func takeRecordsOfHolder<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue else { return }
        let place = DelegationTable.place(of: request.envelope)
        if delegations[place].inode != 0, delegations[place].isOf(request.envelope) { takeRecords(at: place, kernel) }
    }

    // MARK: Ending

    /// From now on every change of the file is a message.
    mutating func endDelegation<K: Kernel>(of inode: InodePointer, _ kernel: K) {
        guard inode.pointee.flags.contains(.delegated) else { return }
        if delegations.replaced.inode == inode.pointee.number { endReplaced(kernel) } else { endDelegation(at: place(of: inode), kernel) }
    }

    private mutating func endDelegation<K: Kernel>(at place: Int, _ kernel: K) {
        var delegation = delegations.remove(place)
        // First the epoch: a client that does not see it has left its record by now.
        kernel.changed(inode: delegation.inode)
        fos_fence()
        finish(&delegation, kernel)
    }

    mutating func endReplaced<K: Kernel>(_ kernel: K) {
        var delegation = delegations.takeReplaced()
        finish(&delegation, kernel)
    }

    private mutating func finish<K: Kernel>(_ delegation: inout Delegation, _ kernel: K) {
        if let inode = inodes.find(delegation.inode) {
            inode.pointee.flags.remove(.delegated)
            takeRecords(of: &delegation, inode, kernel)
        }
        pool.letGo(delegation.held)
    }

    /// An inode is about to go; what a record says of it is nobody's.
    mutating func dropDelegation<K: Kernel>(of inode: InodePointer, _ kernel: K) {
        guard inode.pointee.flags.contains(.delegated) else { return }
        inode.pointee.flags.remove(.delegated)
        let number = inode.pointee.number
        let delegation = delegations.replaced.inode == number ? delegations.takeReplaced() : delegations.remove(place(of: number))
        pool.letGo(delegation.held)
        guard let area = area(of: delegation, kernel) else { return }
        var taken = fos_delegated()
        for _ in 0..<Self.cells where fos_delegation_take(area, number, &taken) != 0 { fos_delegation_done(area, taken.cell, taken.empty) }
    }

    /// A client is gone: its last changes are taken while its area is there.
    mutating func endDelegations<K: Kernel>(of client: UInt32, _ kernel: K) {
        guard delegations.count > 0 else { return }
        for place in 0..<Limits.delegations where delegations[place].inode != 0 && delegations[place].client == client {
            endDelegation(at: place, kernel)
        }
    }

    /// Space is short: what is held for delegations is anybody's. False: nothing was.
    mutating func endAllDelegations<K: Kernel>(_ kernel: K) -> Bool {
        guard delegations.count > 0 else { return false }
        for place in 0..<Limits.delegations where delegations[place].inode != 0 { endDelegation(at: place, kernel) }
        return true
    }

    private func place(of inode: InodePointer) -> Int { place(of: inode.pointee.number) }
    private func place(of number: UInt64) -> Int {
        guard let place = delegations.place(ofInode: number) else { preconditionFailure("a delegated inode is not in the table") }
        return place
    }

    // MARK: Records

    private func area<K: Kernel>(of delegation: Delegation, _ kernel: K) -> UnsafeMutablePointer<fos_delegation>? {
        kernel.delegation(client: delegation.client, generation: delegation.generation, channel: delegation.channel)
    }

    private mutating func takeRecords<K: Kernel>(at place: Int, _ kernel: K) {
        var delegation = delegations[place]
        guard let inode = inodes.find(delegation.inode) else { preconditionFailure("a delegated inode is gone") }
        takeRecords(of: &delegation, inode, kernel)
        delegations.setHeld(place, delegation.held)
        // There is no room for the record after the next one: the holder sends messages again.
        if delegation.held < 2 * Limits.pagesOfRecord { endDelegation(at: place, kernel) }
    }

    private static var cells: Int { 2 }

    /// Takes what the holder has left, and makes its changes.
    private mutating func takeRecords<K: Kernel>(of delegation: inout Delegation, _ inode: InodePointer, _ kernel: K) {
        guard let area = area(of: delegation, kernel) else { return }
        var taken = fos_delegated()
        for _ in 0..<Self.cells where fos_delegation_take(area, delegation.inode, &taken) != 0 {
            apply(taken, from: area, to: inode, &delegation, kernel)
            fos_delegation_done(area, taken.cell, taken.empty)
        }
    }

    private mutating func apply<K: Kernel>(
        _ taken: fos_delegated, from area: UnsafeMutablePointer<fos_delegation>, to inode: InodePointer, _ delegation: inout Delegation,
        _ kernel: K
    ) {
        let record = taken.record
        let now = kernel.now
        let changed = bounded(record.when, from: inode.pointee.changed, now)
        if taken.changes & FOS_DELEGATED_DATA.rawValue != 0, delegation.writes, taken.bytes > 0, record.offset <= Limits.fileBytes - UInt64(taken.bytes) {
            let modified = bounded(record.when, from: inode.pointee.modified, now)
            pool.letGo(Limits.pagesOfRecord)
            delegation.held -= Limits.pagesOfRecord
            // What is held is there, whatever this server owes for inodes that have moved here.
            let debt = min(pool.credits - Limits.pagesOfRecord, 0)
            pool.credits -= debt
            let data = UnsafeRawBufferPointer(start: fos_delegation_data(area, taken.cell), count: Int(taken.bytes))
            let written = writeBytes(inode, at: record.offset, data)
            pool.credits += debt
            precondition(written == data.count, "a record found no room, though it is held")
            if pool.hold(Limits.pagesOfRecord) { delegation.held += Limits.pagesOfRecord }
            inode.pointee.modified = modified
            store.committed(.data(inode, offset: record.offset, length: UInt64(written)))
        }
        if delegation.uid == 0 || delegation.uid == inode.pointee.uid { setAttributes(record, taken.changes, of: inode, by: delegation.uid) }
        if taken.changes & FOS_DELEGATED_READ.rawValue != 0, record.accessed > 0 {
            inode.pointee.accessed = bounded(UInt64(record.accessed), from: inode.pointee.accessed, now)
        }
        if taken.changes & ~FOS_DELEGATED_READ.rawValue != 0 {
            inode.pointee.changed = changed
            inode.pointee.version &+= 1
        }
        store.committed(.inode(inode))
    }

    private func setAttributes(_ record: fos_delegation_record, _ changes: UInt32, of inode: InodePointer, by uid: UInt32) {
        func has(_ change: fos_delegated_change) -> Bool { changes & change.rawValue != 0 }
        if has(FOS_DELEGATED_MODE) { inode.pointee.mode = inode.pointee.mode & Mode.typeMask | record.mode & Mode.plain }
        if has(FOS_DELEGATED_ACCESSED) { inode.pointee.accessed = Timestamp(nanoseconds: record.accessed) }
        if has(FOS_DELEGATED_MODIFIED) { inode.pointee.modified = Timestamp(nanoseconds: record.modified) }
        guard uid == 0 else { return }
        if has(FOS_DELEGATED_UID) { inode.pointee.uid = record.uid }
        if has(FOS_DELEGATED_GID) { inode.pointee.gid = record.gid }
    }
}

extension Timestamp {
    /// Since 1970, or before.
    init(nanoseconds all: Int64) {
        let (seconds, rest) = all.quotientAndRemainder(dividingBy: 1_000_000_000)
        self = rest < 0 ? Timestamp(seconds: seconds - 1, nanoseconds: UInt32(rest + 1_000_000_000)) : Timestamp(seconds: seconds, nanoseconds: UInt32(rest))
    }
}
