// Writing to mapped files without a message: when it may be done, and how the owner learns of it (fos/map.h).
//
// Role: clients that have mapped a file for writing overwrite its bytes while the grant says so, and leave the time in the
// control page. `noteWritten`, before every use of the file by a message, turns that into times of the file.
// Invariants: while it goes on nobody keeps attributes or data of the file: the kernel has no lease of it, and other clients
// are told that all is volatile. The file has no holes, so every byte that is written is one of a page in the tree. Nobody
// is waited for: a client that was in the middle of a copy finds the grant changed, and sends its bytes.

import CFosWire
import FileStorage
import Messaging

extension FileServer {
    /// Whether the bytes of a mapped file may change without its owner: they are all there, and no write takes privileges
    /// away. What the kernel holds of it is the caller's to revoke.
    func mayBeWritten(_ inode: InodePointer) -> Bool {
        let pages = (inode.pointee.size + UInt64(Limits.pageBytes) - 1) / UInt64(Limits.pageBytes)
        guard inode.pointee.mode == inode.pointee.modeWithoutPrivilege, inode.pointee.xattrs.isEmpty else { return false }
        return inode.pageMap.pointee.regionPages >= pages && inode.pageMap.pointee.nextHole(from: 0) >= pages
    }

    mutating func beginWriting<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        var mapping = mappings[inode.pointee.mapping]
        guard !mapping.isWritten else { return }
        takeGrant(inode)
        mapping.isWritten = true
        mapping.wasWritten = true
        mapping.idleUses = 0
        mappings[inode.pointee.mapping] = mapping
        giveGrant(inode)
        // What clients keep of it so far.
        kernel.changed(inode: inode.pointee.number)
    }

    /// From now on a write is a message. Before anybody is given what the epoch, or a notice, is to end.
    mutating func endWriting<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard inode.pointee.mapping != 0, mappings[inode.pointee.mapping].isWritten else { return }
        takeGrant(inode)
        takeTimes(inode, kernel)
        var mapping = mappings[inode.pointee.mapping]
        mapping.isWritten = false
        mappings[inode.pointee.mapping] = mapping
        giveGrant(inode)
        kernel.changed(inode: inode.pointee.number)
    }

    /// Whether the file's data and times may change without its epoch because of clients that write.
    @inline(__always) func isWritten(_ inode: InodePointer) -> Bool {
        inode.pointee.mapping != 0 && inode.isRegular && mappings[inode.pointee.mapping].isWritten
    }

    /// Before a message's use of a file, or of its attributes.
    @inline(__always) mutating func noteWritten<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        noteDelegation(inode, kernel)
        if isWritten(inode) { noteWrittenNow(inode, kernel) }
    }

    /// Before an operation other than reading and writing, after which writing may not be allowed any more.
    @inline(__always) mutating func noteOperation<K: Kernel>(_ inode: InodePointer, _ operation: fos_operation, _ kernel: K) {
        noteDelegation(inode, operation, kernel)
        guard isWritten(inode) else { return }
        switch operation {
        case FOS_OP_GETATTR, FOS_OP_READ, FOS_OP_WRITE, FOS_OP_FSYNC, FOS_OP_LSEEK, FOS_OP_ACCESS, FOS_OP_MAP, FOS_OP_RELEASE, FOS_OP_FLUSH,
            FOS_OP_OPEN, FOS_OP_GETLK, FOS_OP_SETLK, FOS_OP_FLOCK:
            noteWrittenNow(inode, kernel)
        default: endWriting(inode, kernel)
        }
    }

    /// A file was cut, or got a hole, after clients could write to its region: one that was in the middle of a copy must not
    /// put bytes where zeros are. The pages move to another region; who has the old one mapped writes to nobody's memory.
    mutating func renewRegion<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        guard inode.isRegular, inode.pointee.mapping != 0, mappings[inode.pointee.mapping].wasWritten else { return }
        _ = moveIntoRegion(inode, pages: inode.pageMap.pointee.regionPages, kernel)
    }

    private mutating func noteWrittenNow<K: Kernel>(_ inode: InodePointer, _ kernel: K) {
        // The kernel keeps what it is told, and hears of no such write.
        if turn.isKernel { return endWriting(inode, kernel) }
        if takeTimes(inode, kernel) {
            mappings[inode.pointee.mapping].idleUses = 0
        } else {
            mappings[inode.pointee.mapping].idleUses += 1
            if mappings[inode.pointee.mapping].idleUses > Limits.idleUsesOfWriting { endWriting(inode, kernel) }
        }
    }

    /// The times that clients have left. True: something was written.
    @discardableResult private mutating func takeTimes<K: Kernel>(_ inode: InodePointer, _ kernel: K) -> Bool {
        let control = mappings[inode.pointee.mapping].control
        let accessed = fos_map_take_accessed(control), written = fos_map_take_written(control)
        if written != 0 {
            // After the last write there was this one; a client that says otherwise is not believed.
            let now = time(kernel)
            let modified = bounded(written, from: inode.pointee.modified, now)
            let changed = inode.pointee.changed
            markModified(inode, modified)
            // A change of another kind may have been noted since.
            if changed.isAfter(modified) { inode.pointee.changed = changed }
            store.committed(.data(inode, offset: 0, length: inode.pointee.size))
            store.committed(.inode(inode))
            kernel.changed(inode: inode.pointee.number)
        }
        if accessed != 0 {
            let now = time(kernel)
            inode.pointee.accessed = bounded(accessed, from: inode.pointee.accessed, now)
        }
        return written != 0
    }

    /// A time that a client has left, which it is believed between these two.
    func bounded(_ nanoseconds: UInt64, from earliest: Timestamp, _ now: Timestamp) -> Timestamp {
        let time = Timestamp(seconds: Int64(nanoseconds / 1_000_000_000), nanoseconds: UInt32(nanoseconds % 1_000_000_000))
        if !time.isAfter(earliest) { return earliest.isAfter(now) ? now : earliest }
        return time.isAfter(now) ? now : time
    }

    /// A client that is gone may have been in the middle of a copy into any file that it had mapped for writing.
    mutating func forgetWriter<K: Kernel>(_ kernel: K) {
        guard mappings.count > 0 else { return }
        for number in 1...UInt16(Limits.mappedFiles) where mappings.isUsed(number) {
            guard let inode = inodes.find(mappings[number].inode) else { continue }
            if isWritten(inode) { endWriting(inode, kernel) } else { kernel.changed(inode: inode.pointee.number) }
        }
    }
}
