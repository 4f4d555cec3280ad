// One member of the file fleet: a single-threaded server that owns the inodes of its slots.
//
// Role: answers operations 300 to 399 on inodes that it owns, forwards the others to their owner, and takes part in
// transactions of its peers (400 to 499, file_peer.h).
// Protocol: `receive` runs a request to its answer, or stores a continuation; `resume` goes on with one.
// Invariants: every inode is owned by one member; an entry may lead to an inode of another one. Nothing waits while it
// holds something that a waiting party needs: who meets a locked entry is answered RETRY at once. No allocation from
// the system and no reference counting on the paths of single requests.

import CFosWire
import FileStorage
import Fleet
import Glibc
public import Messaging

/// Attributes of the root directory, made by the owner of its slot at start.
public struct RootAttributes: Sendable {
    public var uid: UInt32
    public var gid: UInt32
    /// Permission bits.
    public var mode: UInt32
    public var born: Timestamp
    public init(uid: UInt32, gid: UInt32, mode: UInt32, born: Timestamp) {
        self.uid = uid
        self.gid = gid
        self.mode = mode
        self.born = born
    }
}

public struct FileServer<Store: StateStore>: Server, ~Copyable {
    let member: Int
    var members: Membership
    var slots: SlotTable
    var cursor: SlotCursor
    var pool: PagePool
    /// The memory server that grants this one its pages; nil: the pool takes them from Linux.
    let memory: MailboxAddress?
    /// An extent has been asked for ahead of need.
    var stocking = Stocking.idle
    var arena = Arena()
    var inodes: InodeTable
    var locks = LockTable()
    var store: Store

    var continuations = ContinuationSlab<Continuation>(capacity: Limits.continuations)
    /// The letter of each continuation, by its index.
    let letters: UnsafeMutablePointer<fos_letter>
    /// A letter that is being run again.
    let again: UnsafeMutablePointer<fos_letter>
    /// Envelopes of lock requests that wait; their ids are the tokens of the lock table.
    var waiters = ContinuationSlab<fos_envelope>(capacity: Limits.lockWaiters)
    var openFiles = OpenFileTable()
    var discarded = Discarded()
    var lent = LentPages()
    var mappings = MappingTable()
    var delegations = DelegationTable()
    let sharding: Sharding
    var shards = ShardTable()
    var transfer = ShardTransfer()
    var doubts = ShardDoubts()
    /// What the shards of a directory have said, for the request that runs again with it.
    var gathered = ShardSummary()
    var absentNames: AbsentNames
    var owedNotices = NoticeQueue(capacity: Limits.owedNotices)
    var flushes = FlushOrders()
    var motion: SlotMotion
    /// By slot.
    let ways: UnsafeMutablePointer<SlotWay>
    var meter = LoadMeter()
    var senders = SenderCounts()
    /// Whom reports go to, and whose orders count; nil: nobody but microkernels.
    let manager: MailboxAddress?
    /// Of the last news of the fleet's members.
    var membersEpoch: UInt32 = 0
    var reportedSlots = 0
    var reportedWork = 0
    let rootAttributes: RootAttributes
    /// Continuations with something in `owed`.
    var owing = 0
    /// The size limit of the mount, pages.
    let size: Int?
    /// Continuations that ask peers for credits.
    var asking = 0
    /// Member 0 only: whose rename is moving a directory.
    var treeHolder: MailboxAddress?
    var treeIsLocked: Bool { treeHolder != nil }
    var preparedNames = PreparedNames(capacity: Limits.continuations)
    var takenLinks = TakenLinks()
    /// How many servers were here before with the same store.
    var life: UInt32 = 0
    /// Its predecessor may have held the tree lock.
    var owesTreeUnlock = false
    /// The board has not got all sharded directories that a store has brought back.
    var owesPublishing = false
    var isPublished = false
    var leasesRevoked: UInt64 = 0

    /// The request being run.
    var turn = Turn()

    /// - Parameters:
    ///   - member: this server's index in `members`.
    ///   - members: mailboxes of all file servers; slots are spread evenly over them.
    ///   - credits: pages of 4 KiB that this server may take; the shares of all members are the mount's size.
    ///   - size: all members' pages, for STATFS; without it, what they say together, less what is on its way between them.
    ///   - memory: the memory server that pages come from; nil: from Linux, for tests of the file service alone.
    ///   - sharding: when a directory is spread over members.
    ///   - seed: for the hashing of names, which clients must not be able to guess.
    ///   - incarnation: how often members of this fleet have lost all they had, this one the last time; its inodes' numbers
    ///     differ from all that any of them gave before.
    ///   - hasRoot: false if a store brings the root directory back.
    ///   - serving: how many members serve from the start, the first ones; the others are places for servers to come. nil: all.
    ///   - isJoining: the fleet runs already; this member asks the others who owns what, and answers for nothing before.
    ///   - manager: the mailbox that may say who the members are and order slots to be given.
    public init(
        member: Int, members: some Collection<MailboxAddress>, credits: Int, size: Int? = nil, memory: MailboxAddress? = nil,
        root: RootAttributes,
        seed: UInt64, sharding: Sharding = .never, store: consuming Store, incarnation: UInt16 = 0, hasRoot: Bool = true,
        serving: Int? = nil, isJoining: Bool = false, manager: MailboxAddress? = nil
    ) {
        precondition(member >= 0 && member < members.count, "a file server is a member of its fleet")
        self.member = member
        self.manager = manager
        self.members = Membership(members, alive: serving)
        self.sharding = sharding
        self.size = size
        motion = SlotMotion(members: members.count)
        ways = .allocate(capacity: SlotTable.slots)
        ways.initialize(repeating: SlotWay(), count: SlotTable.slots)
        rootAttributes = root
        slots = SlotTable(members: serving ?? members.count, places: members.count, version: isJoining ? 0 : 1)
        cursor = SlotCursor(start: member, members: members.count)
        pool = PagePool(credits: credits, growsByItself: memory == nil)
        self.memory = memory
        self.store = store
        absentNames = AbsentNames(seed: seed, validity: Limits.absentNanoseconds)
        letters = .allocate(capacity: Limits.continuations)
        again = .allocate(capacity: 1)
        inodes = InodeTable(incarnation: incarnation)
        if isJoining { motion.joining = Joining() }
        let makesRoot = hasRoot && !isJoining && incarnation == 0
        if makesRoot, slots.owner(ofInode: UInt64(FOS_ROOT_INODE)) == member { makeRoot(root, seed: seed) }
    }

    deinit {
        letters.deallocate()
        again.deallocate()
        ways.deallocate()
    }

    mutating func makeRoot(_ attributes: RootAttributes, seed: UInt64) {
        let slot = SlotTable.slot(ofInode: UInt64(FOS_ROOT_INODE))
        guard let root = inodes.create(slot: slot, &arena, &pool) else {
            preconditionFailure("the size limit has no room for a root directory")
        }
        precondition(root.pointee.number == UInt64(FOS_ROOT_INODE), "the root is the first inode of its slot")
        root.pointee.mode = Mode.directory | attributes.mode & Mode.permissions
        root.pointee.uid = attributes.uid
        root.pointee.gid = attributes.gid
        root.pointee.links = 2
        root.pointee.parent = UInt64(FOS_ROOT_INODE)
        root.pointee.accessed = attributes.born
        root.pointee.modified = attributes.born
        root.pointee.changed = attributes.born
        root.pointee.born = attributes.born
        root.directory.initialize(to: Directory(seed: seed))
        store.committed(.inode(root))
    }

    // MARK: Server

    public mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        if !isPublished { publishSlots(kernel) }
        // Ticks and the fleet's own messages are no load: an idle server has nothing to report.
        if request.operation >= FOS_OP_LOOKUP.rawValue, request.operation < FOS_OP_PEER_SLOT_BEGIN.rawValue, meter.count() {
            meter.measure(arrived: request.envelope.pointee.arrived, now: kernel.monotonic)
            senders.count(request.envelope)
        }
        serve(request, Rerun(), kernel)
        takeRecords(request, kernel)
        if request.message.pointee.given != 0 { releaseGiven(request, kernel) }
        if !discarded.isEmpty { discarded.giveBack(Limits.discardedOfRequest, &pool) }
        // A file that was freed ended the waits for its locks.
        if waiters.count > 0 { answerLocks(kernel) }
        stockUp(kernel)
        if motion.giving?.isStalled == true { drive(kernel) }
    }

    public mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        let id = response.continuation
        // A continuation lives until all its responses came, so an unknown one is a peer's mistake; it changes nothing.
        guard let state = continuations.state(id) else { return }
        switch state.pointee.kind {
        case .move: return resumeGiving(response, kernel)
        case .sync: return resumeSync(id, response, kernel)
        case .table: return resumeTable(id, response, kernel)
        default: break
        }
        state.pointee.responses -= 1
        begin(continuing: id, kernel)
        switch state.pointee.kind {
        case _ where state.pointee.isAskingOutcome: resumeOutcome(id, response, kernel)
        case .inquiry: resumeInquiry(id, response, kernel)
        case .insertion: resumeInsertion(id, response, kernel)
        case .removal: resumeRemoval(id, response, kernel)
        case .rename: resumeRename(id, response, kernel)
        case .credits: resumeCredits(id, response, kernel)
        case .space: resumeSpace(id, response, kernel)
        case .copy: resumeCopy(id, response, kernel)
        case .pages: resumePages(id, response, kernel)
        case .stock: resumeStock(id, response, kernel)
        case .orphan: resumeOrphan(id, response, kernel)
        case .shards: resumeShards(id, response, kernel)
        case .doubt: resumeDoubt(id, response, kernel)
        case .step: runAgain(id, adding: Rerun(), kernel)
        case .answer, .flush, .passing, .move, .sync, .table: break
        }
        if delegations.replaced.inode != 0 { endReplaced(kernel) }
        if owing > 0 { payOwed(kernel) }
        if waiters.count > 0 { answerLocks(kernel) }
        stockUp(kernel)
    }

    public func describe(_ statistics: inout fos_statistics) {
        statistics.service = FOS_SERVICE_FILE.rawValue
        statistics.member = UInt32(member)
        statistics.continuations_now = UInt64(continuations.count)
        statistics.continuations_peak = UInt64(continuations.peak)
        statistics.inodes = UInt64(inodes.count)
        statistics.pages = UInt64(max(pool.used, 0)) - min(discarded.pages, UInt64(max(pool.used, 0)))
        statistics.bytes_metadata = UInt64(arena.bytesInUse)
        statistics.locks = UInt64(locks.lockCount)
        statistics.leases_revoked = leasesRevoked
    }

    /// Tells clients, by the board, which slots are here. At the first message of any kind.
    mutating func publishSlots<K: Kernel>(_ kernel: K) {
        isPublished = true
        for slot in 0..<SlotTable.slots where slots.owner(ofSlot: slot) == member && slots.version(ofSlot: slot) > 0 {
            kernel.publish(slot: slot, owner: kernel.mailbox)
        }
        if Store.outlivesServer { publishSharded(kernel) }
    }

    /// A change is made: the store follows it, and clients that keep something of the inode see its epoch move. Every
    /// change of an inode, whatever else is said of it, ends with `.inode` or `.freed`.
    @inline(__always) mutating func committed<K: Kernel>(_ change: Change, _ kernel: K) {
        store.committed(change)
        switch change {
        case .inode(let inode):
            if inode.pointee.size == 0 { leaveRegion(inode, kernel) } else { giveGrant(inode) }
            kernel.changed(inode: inode.pointee.number)
        case .freed(let number): kernel.changed(inode: number)
        case .departed, .entry, .entryRemoved, .prepared, .released, .decision, .forgotten, .effect, .data, .attributes: break
        }
    }
}
