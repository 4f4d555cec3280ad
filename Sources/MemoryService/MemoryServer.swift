// One member of the memory fleet: a single-threaded server that owns page frames and grants them in extents.
//
// Role: answers operations 500 to 559 (fos/memory.h), forwards what names another member's region, and takes part in the
// balance of its fleet (560 to 599). Frames are zeroed ahead of need, in bounded steps, when its core has nothing else to do.
// Protocol: `receive` runs a request to its answer, or keeps its letter in a continuation while peers are asked.
// Invariants: a frame has one owner at a time; a region is one client's alone from its first grant until the kernel says
// that nobody else has it (`Kernel.isAlone`); all that is granted is zeros. `charged` is the bytes of all regions that
// clients have, may still have or can get from here, and never more than `limit`; the sum of the limits is the fleet's.

import Buddy
import CFosWire
import Fleet
import Glibc
public import Messaging

/// What one client has here.
struct ClientHold: BitwiseCopyable {
    var regions = (RegionList(), RegionList())
    var bytes = 0

    subscript(_ size: FrameSize) -> RegionList {
        get { size == .small ? regions.0 : regions.1 }
        set { if size == .small { regions.0 = newValue } else { regions.1 = newValue } }
    }
}

/// A request that waits for peers; its letter is kept beside it.
struct MemoryContinuation: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        /// Asks one peer after the other for memory, and runs its letter again.
        case steal
        /// RETIRE 0: peers retire what the client has there.
        case retire
    }
    var kind: Kind
    /// The next peer to ask.
    var peer = 0
    var responses = 0
    /// The client has died meanwhile.
    var isOrphan = false
}

public struct MemoryServer: Server, ~Copyable {
    let member: Int
    var members: Membership
    let options: MemoryOptions
    var limit: Int
    var charged = 0
    /// To be kept zeroed and unbound, by frame size; 0 until such frames are asked for.
    var reserve = (0, 0)
    /// A request found less zeroed than it wanted, and the reserve has not been whole since.
    var ranDry = false
    /// There may be something to be filled, when nobody has asked for a while.
    var refillIsPutOff = false

    /// By the index in a token.
    let table: UnsafeMutablePointer<RegionPointer?>
    private let freeIndices: UnsafeMutablePointer<UInt16>
    private var freeIndexCount: Int
    private var generation: UInt32 = 0

    var unbound = (RegionList(), RegionList())
    var retired = RegionList()
    var servers = RegionList()
    /// Regions with dirty frames.
    var work = RegionList(work: true)
    /// What clients have, by their index; it grows.
    var clients: UnsafeMutableBufferPointer<ClientHold> = .init(start: nil, count: 0)

    var continuations = ContinuationSlab<MemoryContinuation>(capacity: Limits.continuations)
    let letters: UnsafeMutablePointer<fos_letter>
    let again: UnsafeMutablePointer<fos_letter>
    /// Continuations that ask peers for memory.
    var asking = 0
    /// The extents of the answer that is being made.
    let extents: UnsafeMutablePointer<fos_memory_extent>

    /// When memory was last asked for or given back.
    var lastUse: UInt64 = 0
    /// Nothing was, for so long that what is beyond the reserve goes.
    var isReturning = false
    /// Ticks for which retired regions will still be asked about.
    var ticksAsking = 0

    var counters = (MemoryCounters(), MemoryCounters())
    var serverBytes = 0

    /// - Parameters:
    ///   - member: this server's index in `members`.
    ///   - members: mailboxes of all memory servers.
    public init(member: Int, members: some Collection<MailboxAddress>, options: MemoryOptions) {
        precondition(member >= 0 && member < members.count, "a memory server is a member of its fleet")
        self.member = member
        self.members = Membership(members)
        self.options = options
        limit = options.limitBytes
        table = .allocate(capacity: Limits.regions)
        table.initialize(repeating: nil, count: Limits.regions)
        freeIndices = .allocate(capacity: Limits.regions)
        for index in 0..<Limits.regions { freeIndices[index] = UInt16(Limits.regions - 1 - index) }
        freeIndexCount = Limits.regions
        letters = .allocate(capacity: Limits.continuations)
        again = .allocate(capacity: 1)
        extents = .allocate(capacity: Int(FOS_MEMORY_EXTENTS_MAX))
    }

    deinit {
        for index in 0..<Limits.regions { if let region = table[index] { FrameRegion.forget(region) } }
        table.deallocate()
        freeIndices.deallocate()
        letters.deallocate()
        again.deallocate()
        extents.deallocate()
        clients.deallocate()
    }

    // MARK: Server

    public mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) { serve(request, mayAsk: true, kernel) }

    public mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {
        let id = response.continuation
        guard let state = continuations.state(id) else { return }
        state.pointee.responses -= 1
        switch state.pointee.kind {
        case .steal: resumeSteal(id, response, kernel)
        case .retire: if state.pointee.responses == 0 { finish(id, 0, kernel) }
        }
    }

    public func describe(_ statistics: inout fos_statistics) {
        statistics.service = FOS_SERVICE_MEMORY.rawValue
        statistics.member = UInt32(member)
        statistics.continuations_now = UInt64(continuations.count)
        statistics.continuations_peak = UInt64(continuations.peak)
        var granted = 0
        forEachRegion { granted += $0.pointee.granted << $0.pointee.size.shift }
        statistics.pages = UInt64(granted / Int(FOS_MEMORY_FRAME_BYTES))
    }

    mutating func serve<K: Kernel>(_ request: Request, mayAsk: Bool, _ kernel: K) {
        let isClient = UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue
        switch UInt32(request.operation) {
        case FOS_OP_PING.rawValue: answer(request, 0, kernel)
        case FOS_OP_STATISTICS.rawValue: answer(request, body: described(on: kernel), kernel)
        case FOS_OP_CLIENT_GONE.rawValue where !isClient: clientGone(request.envelope.pointee.client, kernel)
        case FOS_OP_TICK.rawValue where !isClient: tick(kernel)
        case FOS_OP_IDLE.rawValue where !isClient: idle(kernel)
        case FOS_OP_CLIENT_GONE.rawValue, FOS_OP_TICK.rawValue, FOS_OP_IDLE.rawValue: answer(request, -EPERM, kernel)
        case FOS_OP_MEMORY_ALLOCATE.rawValue: allocate(request, mayAsk: mayAsk, kernel)
        case FOS_OP_MEMORY_FREE.rawValue: free(request, kernel)
        case FOS_OP_MEMORY_RETIRE.rawValue: retire(request, kernel)
        case FOS_OP_MEMORY_REGION.rawValue: handOutAgain(request, kernel)
        case FOS_OP_MEMORY_STATISTICS.rawValue: answer(request, body: statistics(kernel), kernel)
        case FOS_OP_MEMORY_RESERVE.rawValue: setReserve(request, kernel)
        case FOS_OP_PEER_MEMORY_STEAL.rawValue, FOS_OP_PEER_MEMORY_RETIRE.rawValue: servePeer(request, isClient: isClient, kernel)
        default: answer(request, -ENOSYS, kernel)
        }
    }

    func answer<K: Kernel>(_ request: Request, _ status: Int32, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.pointee.inode = request.message.pointee.inode
        message.pointee.status = status
        kernel.reply(to: request.envelope, message)
    }

    func answer<K: Kernel, Body: BitwiseCopyable>(_ request: Request, body: Body, status: Int32 = 0, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.pointee.inode = request.message.pointee.inode
        message.pointee.status = status
        message.setBody(body)
        kernel.reply(to: request.envelope, message)
    }

    /// Passes a request on to the member that a token names. The caller has found that it is not this one.
    func pass<K: Kernel>(_ request: Request, token: UInt64, _ kernel: K) {
        let owner = Int(fos_memory_token_member(token))
        guard token & fos_memory_token_bit() != 0, owner < members.count, request.envelope.pointee.hops < Limits.hops else {
            return answer(request, -ENOENT, kernel)
        }
        if kernel.forward(request.letter, to: members[owner]) != .sent { answer(request, Status.retry, kernel) }
    }

    func isHere(_ token: UInt64) -> Bool { token & fos_memory_token_bit() != 0 && Int(fos_memory_token_member(token)) == member }

    // MARK: Regions

    /// The region of a token; nil if it is not, or no more, this member's.
    func region(_ token: UInt64) -> RegionPointer? {
        let index = Int(fos_memory_token_index(token))
        guard index < Limits.regions, let region = table[index], region.pointee.token == token else { return nil }
        return region
    }

    private mutating func newToken(index: Int) -> UInt64 {
        generation &+= 1
        return fos_memory_token(UInt32(member), generation, UInt32(index))
    }

    /// Takes a region into the table and the list of unbound ones, or of those for servers. nil: there are too many.
    mutating func enter(_ memory: SharedRegion, size: FrameSize, state: FrameRegion.State, isZeroed: Bool) -> RegionPointer? {
        guard freeIndexCount > 0 else { return nil }
        freeIndexCount -= 1
        let index = Int(freeIndices[freeIndexCount])
        let region = FrameRegion.make(memory, token: newToken(index: index), size: size, state: state, isZeroed: isZeroed)
        table[index] = region
        if state == .servers {
            servers.append(region)
        } else {
            charged += memory.bytes
            addUnbound(region)
        }
        return region
    }

    /// Forgets an unbound region, or one for servers of which nothing is granted; its memory is the caller's now.
    mutating func leave(_ region: RegionPointer) {
        precondition(region.pointee.granted == 0, "a region with granted frames stays")
        if region.pointee.state == .servers {
            servers.remove(region)
        } else {
            removeUnbound(region)
            charged -= region.pointee.memory.bytes
        }
        if region.pointee.isInWork { work.remove(region) }
        let index = Int(fos_memory_token_index(region.pointee.token))
        table[index] = nil
        freeIndices[freeIndexCount] = UInt16(index)
        freeIndexCount += 1
        FrameRegion.forget(region)
    }

    func unboundList(_ size: FrameSize) -> RegionList { size == .small ? unbound.0 : unbound.1 }

    mutating func addUnbound(_ region: RegionPointer) {
        if region.pointee.size == .small { unbound.0.append(region) } else { unbound.1.append(region) }
    }
    mutating func removeUnbound(_ region: RegionPointer) {
        if region.pointee.size == .small { unbound.0.remove(region) } else { unbound.1.remove(region) }
    }

    /// It has dirty frames: they are zeroed when there is time.
    mutating func addWork<K: Kernel>(_ region: RegionPointer, _ kernel: K) {
        if !region.pointee.isInWork {
            region.pointee.isInWork = true
            work.append(region)
        }
        kernel.idleAgain()
    }
    mutating func removeWorkIfClean(_ region: RegionPointer) {
        guard region.pointee.isInWork, region.pointee.dirty.freeFrames == 0 else { return }
        region.pointee.isInWork = false
        work.remove(region)
    }

    /// From bound to unbound: nobody has it. Its token is another one from now on.
    mutating func reclaim<K: Kernel>(_ region: RegionPointer, _ kernel: K) {
        retired.remove(region)
        region.pointee.freeAll()
        region.pointee.distrust(kernel)
        region.pointee.state = .unbound
        region.pointee.token = newToken(index: Int(fos_memory_token_index(region.pointee.token)))
        addUnbound(region)
        addWork(region, kernel)
    }

    func forEachRegion(_ body: (RegionPointer) -> Void) {
        for index in 0..<Limits.regions { if let region = table[index] { body(region) } }
    }

    // MARK: Clients

    func hold(_ client: UInt32) -> ClientHold { Int(client) < clients.count ? clients[Int(client)] : ClientHold() }

    mutating func changeHold(_ client: UInt32, _ body: (inout ClientHold) -> Void) {
        if Int(client) >= clients.count {
            let larger = UnsafeMutableBufferPointer<ClientHold>.allocate(capacity: max(64, Int(client) + 1, 2 * clients.count))
            larger.initialize(repeating: ClientHold())
            for index in 0..<clients.count { larger[index] = clients[index] }
            clients.deallocate()
            clients = larger
        }
        body(&clients[Int(client)])
    }
}

struct MemoryCounters: BitwiseCopyable {
    var granted: UInt64 = 0
    var freed: UInt64 = 0
    var zeroed: UInt64 = 0
}
