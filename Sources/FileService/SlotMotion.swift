// Slots in motion: what a server remembers of the slot that it gives away and of the one that it takes.
//
// Protocol (fos/file_peer.h, 460 to 479). The giver begins a slot, sends its inodes one after the other in pieces, and
// ends it. An inode is the giver's until the taker has all of it and has said so, and the taker's from then on; both
// serve the inodes that they have, and pass requests for the others on to each other. While an inode is on its way it is
// read where it is, and what would change it is answered RETRY; so is all during the last few messages. Files go first,
// directories last: a file that is made meanwhile is made where its directory is, and moves with the rest.
// Ownership of the slot changes with END. News goes to all members; each asks along the old way (`SLOT_SYNC`) before it
// sends straight to the new owner, so no request overtakes one that it sent before.
// Invariants: an inode is found at exactly one member whenever no message about it is under way; only the giver gives
// numbers of the slot, until the taker has had its own SYNC back; a server gives one slot and takes one at a time, and
// waits for nobody while it holds something of a transaction: what a transaction holds does not move.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension Limits {
    /// Pieces that one turn of the giver sends; the last one is answered, and the next turn begins with the answer.
    static var piecesOfTurn: Int { 32 }
    /// Bytes of content in a piece.
    static var bytesOfPiece: Int { Int(FOS_PAYLOAD_BYTES_MAX) - MemoryLayout<fos_peer_piece>.size }
    /// Members and slots told about a move in one turn.
    static var newsOfTurn: Int { 64 }
    /// Questions along old ways that wait for their answers.
    static var syncsAtOnce: Int { 32 }
    /// Orders to give slots away that wait their turn.
    static var orders: Int { Int(FOS_FLEET_MEMBERS_MAX) }
    /// Credits that a taker is lent while it adopts an inode, whose giver pays for it afterwards.
    static var lentCredits: Int { 1 << 40 }
}

/// Slots to give to a member.
struct GiveOrder: BitwiseCopyable {
    var member: Int
    var slots: Int
    /// This slot; -1: any.
    var slot: Int
}

/// The slot that is being given away.
struct Giving: BitwiseCopyable {
    enum Stage: UInt8 {
        /// BEGIN is to be sent.
        case begin
        /// The next inode is to be chosen.
        case choose
        // Content of the inode, which is read meanwhile.
        case inode, target, xattrs, data, entries
        // Nothing of the inode is served until it is the taker's.
        case opens, locks, taken, finish
        /// The inode is the taker's; requests that wait for its locks follow.
        case waiters
        /// What came of the inode is void: the taker had no memory, or the inode is to be freed.
        case cancel
        case end
    }
    var slot: Int
    var taker: Int
    var stage = Stage.begin
    /// The continuation that answers of the taker come to.
    var continuation = ContinuationID.none
    var isAwaiting = false
    /// A full mailbox; goes on with the next request or tick.
    var isStalled = false
    /// The next inode to look at, by index.
    var scan: UInt64 = 0
    /// Directories too: the files have gone.
    var takesDirectories = false
    /// Inodes that went in this round over the slot, and whether any has gone at all.
    var wentInRound = 0
    var hasDeparted = false
    var inode: InodePointer? = nil
    /// Where the present stage is: a page, a cookie, a place in a list.
    var position: UInt64 = 0
    /// Within the item at the position.
    var offset: Int = 0

    /// The inode is not served at all: its last parts are on their way.
    var isClosing: Bool { stage == .opens || stage == .locks || stage == .taken || stage == .finish || stage == .waiters }
}

/// The slot that is being taken.
struct Taking: BitwiseCopyable {
    var slot: Int
    var giver: Int
    /// The inode that is coming, not yet in the table.
    var inode: InodePointer? = nil
    /// Memory, or sense, was wanting: the next answer says so.
    var hasFailed = false
    /// A value or target that comes in several pieces.
    var buffer: UnsafeMutableRawPointer? = nil
    var bufferBytes = 0
    /// `pool.used` before the inode began.
    var usedBefore = 0
}

/// A member that learns who owns what, from every other one in turn: each knows for certain what is its own.
struct Joining: BitwiseCopyable {
    /// The member that is asked, and the next slot that is asked for.
    var peer = 0
    var slot = 0
    var isAsking = false
}

/// A set of slots.
struct SlotSet: ~Copyable {
    private let words: UnsafeMutablePointer<UInt64>
    private(set) var count = 0
    init() {
        words = .allocate(capacity: SlotTable.slots / 64)
        words.initialize(repeating: 0, count: SlotTable.slots / 64)
    }
    deinit { words.deallocate() }
    func contains(_ slot: Int) -> Bool { words[slot >> 6] & (1 << UInt64(slot & 63)) != 0 }
    mutating func insert(_ slot: Int) {
        if !contains(slot) { count += 1 }
        words[slot >> 6] |= 1 << UInt64(slot & 63)
    }
    mutating func remove(_ slot: Int) {
        if contains(slot) { count -= 1 }
        words[slot >> 6] &= ~(1 << UInt64(slot & 63))
    }
    /// The next slot of the set at or after one, going round; nil if the set is empty.
    func next(from slot: Int) -> Int? {
        guard count > 0 else { return nil }
        for step in 0..<SlotTable.slots {
            let candidate = (slot + step) % SlotTable.slots
            if step % 64 == 0, candidate % 64 == 0, words[candidate >> 6] == 0 { continue }
            if contains(candidate) { return candidate }
        }
        return nil
    }
}

/// All that a server knows of slots in motion.
struct SlotMotion: ~Copyable {
    var giving: Giving?
    var taking: Taking?
    private let orders: UnsafeMutablePointer<GiveOrder>
    private(set) var orderCount = 0
    /// Where the search for the next slot to give begins.
    var nextSlot = 0
    /// Slots taken whose numbering is still the giver's: messages that it passes on may name inodes that have gone.
    var settling = SlotSet()
    /// Slots taken of which not all members know yet, and the next member to tell of the first.
    var untold = SlotSet()
    var tellSlot = 0
    var tellMember = 0
    /// Slots of whose new owner this server has heard, and asks along the old way; and those it has asked about.
    var unsynced = SlotSet()
    var syncing = SlotSet()
    var syncsUnderWay = 0
    /// Credits owed to takers, for what moved inodes take there; by member.
    private let debts: UnsafeMutablePointer<Int>
    private(set) var debt = 0
    /// This server learns who owns what.
    var joining: Joining?
    /// This server is to give all its slots away and to end.
    var isLeaving = false
    var movedSlots: UInt64 = 0
    var movedInodes: UInt64 = 0
    var movedBytes: UInt64 = 0
    /// Requests answered RETRY because their inode was on its way, and requests passed on.
    var delayed: UInt64 = 0
    var forwarded: UInt64 = 0

    private let members: Int

    init(members: Int) {
        self.members = members
        orders = .allocate(capacity: Limits.orders)
        debts = .allocate(capacity: members)
        debts.initialize(repeating: 0, count: members)
    }
    deinit {
        orders.deallocate()
        debts.deallocate()
    }

    /// Whether an inode can be elsewhere than its slot's owner.
    @inline(__always) var isActive: Bool { giving != nil || taking != nil || joining != nil }

    /// Slots still to be given, with the one under way.
    var ordered: Int {
        var sum = giving == nil ? 0 : 1
        for index in 0..<orderCount { sum += orders[index].slots }
        return sum
    }

    /// False when there are too many orders; whoever gave this one repeats it.
    mutating func order(_ order: GiveOrder) -> Bool {
        guard orderCount < Limits.orders else { return false }
        for index in 0..<orderCount where orders[index].member == order.member && orders[index].slot == order.slot {
            orders[index].slots = order.slot < 0 ? orders[index].slots + order.slots : 1
            return true
        }
        (orders + orderCount).initialize(to: order)
        orderCount += 1
        return true
    }
    /// The order that has waited longest.
    var firstOrder: GiveOrder? { orderCount > 0 ? orders[0] : nil }
    /// One slot of the first order is under way; the order waits behind the others for its next one.
    mutating func takeOne() {
        var first = orders[0]
        dropFirstOrder()
        first.slots -= 1
        if first.slots > 0 {
            orders[orderCount] = first
            orderCount += 1
        }
    }
    mutating func dropFirstOrder() {
        orderCount -= 1
        for index in 0..<orderCount { orders[index] = orders[index + 1] }
    }

    mutating func owe(_ pages: Int, to member: Int) {
        debts[member] += pages
        debt += pages
    }
    /// A member with a claim, and how much.
    var creditor: (member: Int, pages: Int)? {
        guard debt > 0 else { return nil }
        for member in 0..<members where debts[member] > 0 { return (member, debts[member]) }
        return nil
    }
    mutating func paid(_ pages: Int, to member: Int) { owe(-pages, to: member) }
    mutating func forgive(_ member: Int) { owe(-debts[member], to: member) }
}

extension FileServer {
    // MARK: Where an inode is

    /// Whether an inode is this server's to serve: it is here, or would be if it existed.
    @inline(__always) func isHere(_ inode: UInt64) -> Bool {
        motion.isActive ? isHereInMotion(inode) : slots.owner(ofInode: inode) == member
    }
    /// The member that has an inode, or knows who has.
    @inline(__always) func ownerIndex(of inode: UInt64) -> Int {
        motion.isActive ? ownerInMotion(inode) : slots.owner(ofInode: inode)
    }
    @inline(__always) func owner(of inode: UInt64) -> MailboxAddress { members[ownerIndex(of: inode)] }

    private func isHereInMotion(_ inode: UInt64) -> Bool {
        let slot = SlotTable.slot(ofInode: inode)
        if let giving = motion.giving, giving.slot == slot {
            // Before the taker has agreed nothing is there, and what is not here is nowhere.
            guard let found = inodes.find(inode) else { return giving.stage == .begin }
            return found != giving.inode
        }
        if motion.taking?.slot == slot { return inodes.find(inode) != nil }
        return slots.owner(ofSlot: slot) == member && !isUnknown(inode)
    }

    private func ownerInMotion(_ inode: UInt64) -> Int {
        let slot = SlotTable.slot(ofInode: inode)
        if let giving = motion.giving, giving.slot == slot {
            return inodes.find(inode) == nil && giving.stage != .begin ? giving.taker : member
        }
        if let taking = motion.taking, taking.slot == slot { return inodes.find(inode) == nil ? taking.giver : member }
        return slots.owner(ofSlot: slot)
    }

    /// The inode of a number that is on its way to another server.
    func onItsWay(_ inode: UInt64) -> InodePointer? {
        guard let moving = motion.giving?.inode, moving.pointee.number == inode, !moving.pointee.isShard else { return nil }
        return moving
    }

    /// A request for an inode of a slot that is coming here, which its giver has not got: then nobody has.
    func isNowhere(_ number: UInt64, _ request: Request) -> Bool {
        request.isSettled(Settled.inode) && motion.taking?.slot == SlotTable.slot(ofInode: number)
    }

    /// Whether this server joins and has not yet heard who owns the slot of an inode.
    func isUnknown(_ inode: UInt64) -> Bool { isUnknown(slot: SlotTable.slot(ofInode: inode)) }
    func isUnknown(slot: Int) -> Bool { motion.joining != nil && slots.version(ofSlot: slot) == 0 }

    /// Whether the numbers of a slot are this server's to give now.
    func givesNumbers(of slot: Int) -> Bool {
        motion.joining == nil && slots.owner(ofSlot: slot) == member && !motion.settling.contains(slot)
            && !inodes.numbering(slot: slot).hasLosses
    }

    /// The slot for a new file: its directory's, or another one of this server while that is settling. nil: try again.
    mutating func slotForFile(in directory: InodePointer) -> Int? {
        let slot = SlotTable.slot(ofInode: directory.pointee.number)
        if givesNumbers(of: slot) { return slot }
        for step in 1..<SlotTable.slots {
            let other = (slot + step) % SlotTable.slots
            if givesNumbers(of: other) { return other }
        }
        return nil
    }

    /// The slot for a new directory: the next one of the next member. nil: try again.
    mutating func slotForDirectory() -> Int? {
        for _ in 0..<64 {
            guard let slot = cursor.next(slots, members) else { break }
            if slots.owner(ofSlot: slot) != member || givesNumbers(of: slot) { return slot }
        }
        return nil
    }

    /// What may be asked of an inode whose content is on its way: whatever leaves it as it is.
    static func isReading(_ operation: fos_operation) -> Bool {
        switch operation {
        case FOS_OP_LOOKUP, FOS_OP_GETATTR, FOS_OP_READLINK, FOS_OP_READ, FOS_OP_GETXATTR, FOS_OP_LISTXATTR, FOS_OP_READDIR, FOS_OP_LSEEK,
            FOS_OP_ACCESS, FOS_OP_FSYNC:
            true
        default: false
        }
    }

    // MARK: Orders

    /// FLEET_GIVE: from the manager, or a microkernel.
    mutating func takeOrder<K: Kernel>(_ request: Request, _ kernel: K) {
        guard let give = request.fixed(fos_fleet_give.self), members.isAlive(Int(give.member)), Int(give.member) != member else {
            return answer(-EINVAL, kernel)
        }
        let slot = give.slot == UInt32(FOS_FLEET_ANY_SLOT) ? -1 : Int(give.slot)
        guard slot < SlotTable.slots, give.slots > 0, give.slots <= UInt32(SlotTable.slots) else { return answer(-EINVAL, kernel) }
        guard motion.order(GiveOrder(member: Int(give.member), slots: Int(give.slots), slot: slot)) else {
            return answer(Status.retry, kernel)
        }
        answer(0, kernel)
        drive(kernel)
    }

    /// Begins the next order if nothing is under way.
    mutating func beginNext<K: Kernel>(_ kernel: K) {
        while motion.giving == nil, let order = motion.firstOrder {
            guard members.isAlive(order.member), let slot = slotToGive(order) else {
                motion.dropFirstOrder()
                continue
            }
            guard let id = continuations.insert(Continuation(.move)) else { return kernel.tickAgain() }
            (letters + index(id)).initialize(to: fos_letter())
            var giving = Giving(slot: slot, taker: order.member)
            giving.continuation = id
            motion.giving = giving
            motion.takeOne()
        }
    }

    /// A slot can be given away once all that its last owner passed on has come.
    private func mayGive(_ slot: Int) -> Bool {
        motion.joining == nil && slots.owner(ofSlot: slot) == member && !motion.settling.contains(slot)
    }

    private mutating func slotToGive(_ order: GiveOrder) -> Int? {
        if order.slot >= 0 { return mayGive(order.slot) ? order.slot : nil }
        for step in 0..<SlotTable.slots {
            let slot = (motion.nextSlot + step) % SlotTable.slots
            if mayGive(slot) {
                motion.nextSlot = (slot + 1) % SlotTable.slots
                return slot
            }
        }
        return nil
    }
}
