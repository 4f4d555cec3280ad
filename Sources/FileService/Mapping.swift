// MAP: files whose pages clients read and overwrite in shared memory (fos/map.h has the protocol).
//
// Role: keeps the regions of this server's mapped files, and the grants in their control pages.
// Protocol: whatever is about to change a file's bytes or size calls `takeGrant`; `committed`, which every change passes,
// gives a new one. While the kernel may hold pages there is none. `Mapping+Writing.swift` has what concerns writing.
// Invariants: a mapped inode has its first `regionPages` pages in its region; a region that is given up never has a grant
// again. Clients can write to the control page: nothing in it is read here but the two times. The table is small and fixed:
// each region is a descriptor of the host's.

import CFosWire
import FileStorage
import Glibc
import Messaging

struct Mapping: BitwiseCopyable {
    var region: SharedRegion
    var inode: UInt64
    /// The last number given out.
    var grant: UInt32 = 0
    /// It stands.
    var isGranted = false
    /// Clients may write without a message while the grant stands.
    var isWritten = false
    /// They may have, since the region was made.
    var wasWritten = false
    /// Uses of the file since somebody last wrote so.
    var idleUses: UInt32 = 0
    var control: UnsafeMutablePointer<fos_map_control> {
        (region.base + region.bytes - Limits.pageBytes).assumingMemoryBound(to: fos_map_control.self)
    }
}

struct MappingTable: ~Copyable {
    private let slots: UnsafeMutablePointer<Mapping?>
    private(set) var count = 0
    private var tokens: UInt64 = 0

    init() {
        slots = .allocate(capacity: Limits.mappedFiles)
        slots.initialize(repeating: nil, count: Limits.mappedFiles)
    }
    deinit { slots.deallocate() }

    /// The mapping of an inode that has one.
    subscript(number: UInt16) -> Mapping {
        get {
            guard let mapping = slots[Int(number) - 1] else { preconditionFailure("an inode names a mapping that is not there") }
            return mapping
        }
        nonmutating set { slots[Int(number) - 1] = newValue }
    }
    mutating func add(_ region: SharedRegion, _ inode: UInt64) -> UInt16? {
        guard let free = (0..<Limits.mappedFiles).first(where: { slots[$0] == nil }) else { return nil }
        slots[free] = Mapping(region: region, inode: inode)
        count += 1
        return UInt16(free + 1)
    }
    mutating func remove(_ number: UInt16) {
        slots[Int(number) - 1] = nil
        count -= 1
    }
    func isUsed(_ number: UInt16) -> Bool { slots[Int(number) - 1] != nil }
    mutating func nextToken() -> UInt64 {
        tokens += 1
        return tokens
    }
}

extension FileServer {
    mutating func map<K: Kernel>(_ inode: InodePointer, _ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_map_request.self) else { return answer(-EINVAL, kernel) }
        let writes = wanted.access == Access.read | Access.write
        guard writes || wanted.access == Access.read, wanted.flags & ~FOS_MAP_RENEW.rawValue == 0 else {
            return answer(-EOPNOTSUPP, kernel)
        }
        guard inode.isRegular, inode.pointee.size > 0 else { return answer(-EINVAL, kernel) }
        let granted = openFiles.granted(request.envelope.pointee.client, inode.pointee.number)
        guard granted & wanted.access == wanted.access else { return answer(-EACCES, kernel) }
        guard inode.pointee.size <= UInt64(FOS_MAP_BYTES_MAX) else { return answer(-EFBIG, kernel) }
        let pageBytes = UInt64(Limits.pageBytes)
        let pages = (inode.pointee.size + pageBytes - 1) / pageBytes
        let renews = wanted.flags & FOS_MAP_RENEW.rawValue != 0
        guard !renews || inode.pageMap.pointee.regionPages >= pages else { return answer(-ESTALE, kernel) }
        if inode.pageMap.pointee.regionPages < pages {
            guard mayMovePages(inode, kernel) else { return }
            let status = moveIntoRegion(inode, pages: pages, kernel)
            guard status == 0 else { return answer(status, kernel) }
        }
        if writes {
            guard mayBeWritten(inode) else { return answer(-EOPNOTSUPP, kernel) }
            guard flushPages(inode, kernel) else { return }
            guard mayRevoke(inode.pointee.leases, kernel) else { return answer(Status.retry, kernel) }
            revokeAttributes(inode, kernel)
            beginWriting(inode, kernel)
        }
        if renews { return answer(0, kernel) }
        let mapping = mappings[inode.pointee.mapping]
        // Servers count for themselves, and a client may ask several.
        let token = UInt64(member) << 48 | mappings.nextToken()
        var region = mapping.region
        region.isForWriting = writes
        guard kernel.handOut(region, token: token, to: request.envelope) else { return answer(Status.retry, kernel) }
        let message = kernel.scratch()
        message.setBody(fos_map_reply(token: token, bytes: UInt64(mapping.region.bytes - Limits.pageBytes)))
        deliver(message, kernel)
    }

    mutating func moveIntoRegion<K: Kernel>(_ inode: InodePointer, pages: UInt64, _ kernel: K) -> Int32 {
        guard let region = kernel.makeRegion(bytes: (Int(pages) + 1) * Limits.pageBytes) else { return -ENOMEM }
        guard let number = mappings.add(region, inode.pointee.number) else {
            kernel.dropRegion(region)
            return -EMFILE
        }
        endWriting(inode, kernel)
        takeGrant(inode)
        guard inode.pageMap.pointee.enterRegion(region.base, pages: pages, &pool) else {
            mappings.remove(number)
            kernel.dropRegion(region)
            if inode.pointee.mapping != 0 { giveGrant(inode) }
            return -ENOSPC
        }
        let before = inode.pointee.mapping
        if before != 0 { endMapping(before, kernel) }
        inode.pointee.mapping = number
        giveGrant(inode)
        return 0
    }

    private mutating func endMapping<K: Kernel>(_ number: UInt16, _ kernel: K) {
        let mapping = mappings[number]
        fos_map_end(mapping.control)
        kernel.dropRegion(mapping.region)
        mappings.remove(number)
    }

    /// The pages in the region go, and the file's map is an ordinary one.
    mutating func emptyRegion(_ inode: InodePointer) {
        guard inode.pointee.mapping != 0 else { return }
        // Ended first: what is read from now on is not taken for the file's.
        fos_map_end(mappings[inode.pointee.mapping].control)
        inode.pageMap.pointee.removePages(from: 0, to: inode.pageMap.pointee.regionPages, &pool)
        inode.pageMap.pointee.leaveRegion(&pool)
    }

    /// A file that is empty, or is about to go, leaves its region.
    mutating func leaveRegion<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard inode.isRegular, inode.pointee.mapping != 0 else { return }
        emptyRegion(inode)
        endMapping(inode.pointee.mapping, kernel)
        inode.pointee.mapping = 0
    }

    // MARK: Grants

    /// Bytes or size of a file are about to change, or may be changed unseen.
    @inline(__always) func takeGrant(_ inode: InodePointer) {
        if inode.pointee.mapping == 0 { return }
        var mapping = mappings[inode.pointee.mapping]
        mapping.isGranted = false
        mappings[inode.pointee.mapping] = mapping
        fos_map_take_grant(mapping.control)
    }

    /// What clients may read in the region is true again, unless the kernel may hold pages.
    @inline(__always) func giveGrant(_ inode: InodePointer) {
        if inode.pointee.mapping == 0 || mayHoldPages(inode) { return }
        var mapping = mappings[inode.pointee.mapping]
        mapping.grant = mapping.grant == UInt32.max ? 1 : mapping.grant + 1
        mapping.isGranted = true
        mappings[inode.pointee.mapping] = mapping
        fos_map_give_grant(mapping.control, inode.pointee.size, readUntil(inode), mapping.isWritten ? 1 : 0, mapping.grant)
    }

    /// After a READ by message: there may be a grant again, and the access time is no longer due.
    @inline(__always) func renewGrant(_ inode: InodePointer) {
        if inode.pointee.mapping == 0 { return }
        let mapping = mappings[inode.pointee.mapping]
        if !mapping.isGranted { giveGrant(inode) } else if mapping.isWritten { fos_map_set_read_until(mapping.control, readUntil(inode)) }
    }

    /// Until when reads leave the access time as it is (`markAccessed`).
    private func readUntil(_ inode: InodePointer) -> Int64 {
        let accessed = inode.pointee.accessed
        let isDue = !accessed.isAfter(inode.pointee.modified) || !accessed.isAfter(inode.pointee.changed)
        return isDue ? 0 : accessed.seconds &+ 86400
    }
}
