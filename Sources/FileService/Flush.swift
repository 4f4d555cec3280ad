// Flushes: before others use a file, the kernel gives back the pages that it was given of it.
//
// Why: a program may have a file mapped shared and writable, and change pages without a word. So whoever reads or changes data
// by message first has them written back and dropped, then runs; a change flushes again if the kernel has read them once more.
// Ahead: a flush takes some 0.1 ms, which the front end and the kernel need. Files that came through the mount, and that a
// program reads by message one after the other, would each wait for their own. So who reads several files of one directory has
// the next ones flushed with it; files that were made one after the other have numbers that follow each other in one slot.
// The kernel gives back the attributes of these, too, if a reading would move their access times.
// Protocol: the notice of the file that is wanted comes last, and it alone is acknowledged: the kernel takes notices in order.
// From its notice until the flush is over an inode has `leaving` among its leases: others that come meanwhile wait for a notice
// of their own, or they would miss what is dirty still.
// Invariants: `leaving` is taken away by the flush whose order was the last one for the inode, so never while a later one is under
// way; where two inodes share a place of `FlushOrders` it may stay, which costs a flush more.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

/// Which order to give pages back was the last for an inode, and whether files of one directory are read one after the other.
struct FlushOrders: ~Copyable {
    private static var places: Int { 1024 }
    /// By a hash of the inode number.
    private let last: UnsafeMutablePointer<UInt32>
    private var given: UInt32 = 0
    /// The inode that was read last with a flush.
    private var previous: UInt64 = 0
    private var ahead = 0

    init() {
        last = .allocate(capacity: FlushOrders.places)
        last.initialize(repeating: 0, count: FlushOrders.places)
    }
    deinit { last.deallocate() }

    private func place(_ inode: UInt64) -> UnsafeMutablePointer<UInt32> {
        last + Int(truncatingIfNeeded: (inode &* 0x9e37_79b9_7f4a_7c15) >> 54)
    }

    /// The number of a new order.
    mutating func begin() -> UInt32 {
        given &+= 1
        return given
    }
    func note(_ order: UInt32, of inode: UInt64) { place(inode).pointee = order }
    func isLast(_ order: UInt32, of inode: UInt64) -> Bool { place(inode).pointee == order }

    /// How many files beside this one, which is read, to flush with it.
    mutating func ahead(of inode: UInt64) -> Int {
        if inode == previous { return 0 }
        let isRun = SlotTable.slot(ofInode: inode) == SlotTable.slot(ofInode: previous)
        ahead = isRun ? min(max(ahead * 2, Limits.flushedAheadAtFirst), Limits.flushedAheadMost) : 0
        previous = inode
        return ahead
    }
}

extension FileServer {
    /// Whether the kernel may have pages that nobody else has seen: it was given some, or has not yet been heard to have
    /// given them back.
    @inline(__always) func mayHoldPages(_ inode: InodePointer) -> Bool {
        inode.pointee.leases.contains(.pages) || inode.pointee.leases.contains(.leaving)
    }

    /// The kernel's dirty pages of these inodes are written back and dropped before the request goes on. `reading`: the one of
    /// them whose data is wanted, and nothing else. True: go on now. False: it runs again later, or was answered RETRY.
    @inline(__always) mutating func flushPages<K: Kernel>(
        _ inode: InodePointer, and second: InodePointer? = nil, reading: InodePointer? = nil, _ kernel: K
    ) -> Bool {
        if turn.isKernel || turn.rerun.contains(.flushed) { return true }
        let holdsSecond = if let second { mayHoldPages(second) } else { false }
        let isHeld = mayHoldPages(inode) || holdsSecond
        let knowsAccess =
            if let reading { reading.pointee.leases.contains(.attributes) && isAccessDue(reading, time(kernel)) } else { false }
        guard isHeld || knowsAccess, kernel.kernelCacheClient != nil else { return true }
        flush(inode, holdsSecond ? second : nil, reading: reading, kernel)
        return false
    }

    private mutating func flush<K: Kernel>(_ inode: InodePointer, _ second: InodePointer?, reading: InodePointer?, _ kernel: K) {
        let order = flushes.begin()
        var state = Continuation(.flush)
        state.rerun = turn.rerun
        state.numbers = (inode.pointee.number, second?.pointee.number ?? 0, UInt64(order), 0)
        state.target = reading?.pointee.number ?? 0
        guard hasNoticeRoom(kernel), let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        turn.cookie = UInt64(id.rawValue)
        turn.isCoordinator = true
        turn.replyTo = kernel.mailbox.rawValue
        if let reading {
            let told = flushAhead(of: reading, order, kernel)
            continuations.state(id)?.pointee.numbers.3 = told
            if !mayHoldPages(reading) { revokeAttributes(reading, kernel) }
        }
        if mayHoldPages(inode) { revokePages(inode, order, kernel) }
        if let second { revokePages(second, order, kernel) }
        settle(id, kernel)
    }

    mutating func revokePages<K: Kernel>(_ inode: InodePointer, _ order: UInt32, _ kernel: K) {
        noteLeaving(inode, order)
        notify(FOS_NOTICE_INODE_PAGES, inode.pointee.number, kernel)
    }

    private func noteLeaving(_ inode: InodePointer, _ order: UInt32) {
        inode.pointee.leases.subtract([.pages, .attributes])
        inode.pointee.leases.insert(.leaving)
        flushes.note(order, of: inode.pointee.number)
    }

    /// The acknowledgement of a flush has come: what it named has gone, but for what was told again since.
    mutating func endFlush(_ state: UnsafePointer<Continuation>) {
        let (first, second, order, told) = state.pointee.numbers
        let number = UInt32(truncatingIfNeeded: order)
        endFlush(of: first, number)
        if second != 0 { endFlush(of: second, number) }
        var left = told
        while left != 0 {
            endFlush(of: neighbour(left.trailingZeroBitCount, of: state.pointee.target), number)
            left &= left &- 1
        }
    }

    private func endFlush(of inode: UInt64, _ order: UInt32) {
        guard let inode = inodes.find(inode), flushes.isLast(order, of: inode.pointee.number) else { return }
        inode.pointee.leases.remove(.leaving)
    }

    // MARK: Ahead

    /// The number of the inode that follows in the slot after so many others.
    private func neighbour(_ distance: Int, of inode: UInt64) -> UInt64 { inode &+ UInt64(distance + 1) &* UInt64(FOS_SLOTS) }

    /// Tells the kernel to let go of files that are likely to be read next. A bit for each neighbour that it was told of.
    private mutating func flushAhead<K: Kernel>(of inode: InodePointer, _ order: UInt32, _ kernel: K) -> UInt64 {
        var left = flushes.ahead(of: inode.pointee.number)
        guard left > 0, let client = kernel.kernelCacheClient,
            kernel.noticeRoom(client: client) >= left + Limits.noticesOfOneChange
        else { return 0 }
        var told: UInt64 = 0
        let now = time(kernel)
        for distance in 0..<Limits.flushedAheadNumbers where left > 0 {
            guard let near = inodes.find(neighbour(distance, of: inode.pointee.number)), near.isRegular else { continue }
            let hasPages = near.pointee.leases.contains(.pages)
            guard hasPages || near.pointee.leases.contains(.attributes) && isAccessDue(near, now) else { continue }
            let kind = hasPages ? FOS_NOTICE_INODE_PAGES : FOS_NOTICE_INODE_ATTRIBUTES
            guard tell(client, kind, near.pointee.number, kernel) else { break }
            noteLeaving(near, order)
            leasesRevoked += 1
            told |= 1 << UInt64(distance)
            left -= 1
        }
        return told
    }
}
