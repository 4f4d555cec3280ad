// Listings: READDIR and READDIRPLUS.
//
// A READDIRPLUS entry whose inode another server owns comes without attributes (a directory's subdirectories spread
// over the fleet). It is looked up here: a message costs a tenth of the kernel's own LOOKUP later.

import CFosProxy
import CFosWire
import CFuse
import Glibc

extension Operation {
    func readdir(_ inode: UInt64, _ size: Int, _ cookie: off_t, plus: Bool) {
        let room = min(size, FrontEndLimits.listingBytes)
        if IntrospectionTree.owns(inode) { return listIntrospection(inode, room, cookie, plus: plus) }
        let most = Int(FOS_TRANSFER_BYTES_MAX)
        let wanted = plus ? DirectoryLayout.serviceRoom(plus: room) : DirectoryLayout.serviceRoom(plain: room, most: most)
        let message = message(FOS_OP_READDIR, inode)
        message.append(
            fos_readdir_request(
                cookie: UInt64(bitPattern: Int64(cookie)), flags: plus ? FOS_READDIR_PLUS.rawValue : 0, filled: 0))
        message.placeBulk(UInt32(BulkLayout.replyOffset), UInt32(wanted))
        let status = call()
        guard status == 0 else { return answer(status) }
        let length = min(Int(reply.pointee.bulk_length), wanted)
        var records = DirectoryRecords(
            UnsafeRawBufferPointer(start: worker.pointee.bulk + BulkLayout.replyOffset, count: length))
        var listing = DirectoryReply(UnsafeMutableRawBufferPointer(start: worker.listing, count: room))
        var full = false
        while let record = records.next() {
            if !full { full = !(plus ? appendPlus(record, inode, &listing) : append(record, &listing)) }
            guard full else { continue }
            if !plus { break }
            // Cannot happen with the room asked for; but a reference that was counted is never lost.
            if record.header.has_attributes != 0 && !record.isDot { worker.forget(record.header.inode, 1) }
        }
        let bytes = listing.bytes
        fuse_reply_buf(request, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
    }

    private func append(_ record: DirectoryRecord, _ listing: inout DirectoryReply) -> Bool {
        listing.append(inode: record.header.inode, next: record.header.next, type: record.header.type, name: record.name)
    }

    private func appendPlus(_ record: DirectoryRecord, _ directory: UInt64, _ listing: inout DirectoryReply) -> Bool {
        var entry = fuse_entry_out()
        if record.isDot {
            // The kernel takes nothing from these; their record only needs the inode number.
        } else if record.header.has_attributes != 0 {
            entry = record.header.attributes.kernelEntry
        } else if let attributes = lookUp(record, in: directory) {
            entry = attributes.kernelEntry
        }
        return listing.append(
            plus: entry, inode: record.header.inode, next: record.header.next, type: record.header.type, name: record.name)
    }

    /// Attributes of an entry, with the kernel reference that a lookup takes. nil if the entry is gone meanwhile or
    /// leads elsewhere now; the kernel then asks for it by itself.
    private func lookUp(_ record: DirectoryRecord, in directory: UInt64) -> fos_attributes? {
        let message = message(FOS_OP_LOOKUP, directory)
        (UnsafeMutableRawPointer(message + 1)).copyMemory(from: record.name.baseAddress!, byteCount: record.name.count)
        message.pointee.length = UInt32(record.name.count)
        guard call() == 0 else { return nil }
        return payload(fos_attributes.self)
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// The worker's listing buffer, FrontEndLimits.listingBytes long.
    var listing: UnsafeMutableRawPointer {
        if let listing = pointee.listing { return listing }
        let listing = UnsafeMutableRawPointer.allocate(byteCount: FrontEndLimits.listingBytes, alignment: 64)
        pointee.listing = listing
        return listing
    }
}
