// Pages that the FUSE front end reads where they lie, instead of a copy.
//
// Role: a large READ of the front end, which lives in the same process, is answered with the places of the bytes
// (struct fos_page_place). It hands them to the kernel, and gives them back with FOS_OP_GIVE_BACK.
// Protocol: what takes pages away from a file, or moves them, asks `mayMovePages`, and is answered RETRY while they are
// lent; from then on the file lends no more, so a file that is read all the time can be cut all the same. Overwriting goes
// on: who reads while another writes may see either, as with any read in two parts. What is lent does not move to another
// server, and what is moving is not lent.
// Invariants: a page that is lent stays where it is, and its file's; each channel has at most one loan, as it has one
// request; the front end's death ends all loans, as nobody reads then.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension InodeFlags {
    /// Some pages are lent.
    static var lent: InodeFlags { InodeFlags(rawValue: 32) }
    /// Somebody waits for the loans to end, or the file is about to move to another server.
    static var recalled: InodeFlags { InodeFlags(rawValue: 64) }
}

struct LentPages: ~Copyable {
    private struct Loan: BitwiseCopyable {
        let inode: UInt64
        let client: UInt32
        let channel: UInt32
    }
    private let loans: UnsafeMutablePointer<Loan>
    private(set) var count = 0
    /// More workers than ever read at once; what finds the table full is copied.
    static var capacity: Int { 32 }

    init() { loans = .allocate(capacity: LentPages.capacity) }
    deinit { loans.deallocate() }

    mutating func add(_ inode: UInt64, to envelope: UnsafeMutablePointer<fos_envelope>) -> Bool {
        guard count < LentPages.capacity else { return false }
        (loans + count).initialize(to: Loan(inode: inode, client: envelope.pointee.client, channel: envelope.pointee.channel))
        count += 1
        return true
    }
    /// Ends the loan of a channel: its inode.
    mutating func remove(_ envelope: UnsafeMutablePointer<fos_envelope>) -> UInt64? {
        remove { $0.client == envelope.pointee.client && $0.channel == envelope.pointee.channel }
    }
    /// Ends a loan of a client: its inode; nil if it has none left.
    mutating func removeOne(of client: UInt32) -> UInt64? { remove { $0.client == client } }
    private mutating func remove(where isIt: (Loan) -> Bool) -> UInt64? {
        guard let index = (0..<count).first(where: { isIt(loans[$0]) }) else { return nil }
        let inode = loans[index].inode
        count -= 1
        loans[index] = loans[count]
        return inode
    }
    func contains(_ inode: UInt64) -> Bool { (0..<count).contains { loans[$0].inode == inode } }
}

extension FileServer {
    /// Whether pages of a file may be taken away or moved now. False: the turn was answered RETRY.
    mutating func mayMovePages<K: Kernel>(_ inode: InodePointer, _ kernel: K) -> Bool {
        guard inode.pointee.flags.contains(.lent) else { return true }
        inode.pointee.flags.insert(.recalled)
        answer(Status.retry, kernel)
        return false
    }

    /// Writes the places of bytes before the end of a file into the client's bulk area, instead of the bytes. False: they
    /// are to be copied.
    mutating func lend(_ inode: InodePointer, at offset: UInt64, _ count: Int, into room: UnsafeMutableRawBufferPointer, _ request: Request)
        -> Bool
    {
        guard count >= Limits.leastLent, !inode.pointee.flags.contains(.recalled), !isWritten(inode),
            room.count >= (count / Limits.pageBytes + 2) * MemoryLayout<fos_page_place>.stride,
            lent.add(inode.pointee.number, to: request.envelope)
        else { return false }
        inode.pointee.flags.insert(.lent)
        var position = offset
        var left = count
        var used = 0
        var place = fos_page_place()
        while left > 0 {
            let within = Int(position % UInt64(Limits.pageBytes))
            let bytes = min(left, Limits.pageBytes - within)
            let page = inode.pageMap.pointee.page(position / UInt64(Limits.pageBytes))
            let address = page.map { UInt64(UInt(bitPattern: $0 + within)) } ?? 0
            // Pages that follow each other, and holes, are one place.
            let follows = place.length > 0 && address == (place.address == 0 ? 0 : place.address + place.length)
            if follows {
                place.length += UInt64(bytes)
            } else {
                if place.length > 0 { put(place, &used, room) }
                place = fos_page_place(address: address, length: UInt64(bytes))
            }
            position += UInt64(bytes)
            left -= bytes
        }
        put(place, &used, room)
        return true
    }

    private func put(_ place: fos_page_place, _ used: inout Int, _ room: UnsafeMutableRawBufferPointer) {
        room.storeBytes(of: place, toByteOffset: used, as: fos_page_place.self)
        used += MemoryLayout<fos_page_place>.stride
    }

    /// GIVE_BACK: what was lent to this channel is not read any more.
    mutating func takeBack<K: Kernel>(_ request: Request, _ kernel: K) {
        guard turn.isKernel else { return answer(-EPERM, kernel) }
        if let number = lent.remove(request.envelope) { noteReturn(number) }
        answer(0, kernel)
    }

    /// The front end is gone.
    mutating func endLoans(of client: UInt32) {
        while let number = lent.removeOne(of: client) { noteReturn(number) }
    }

    private func noteReturn(_ number: UInt64) {
        guard !lent.contains(number), let inode = inodes.find(number) else { return }
        inode.pointee.flags.subtract([.lent, .recalled])
    }
}
