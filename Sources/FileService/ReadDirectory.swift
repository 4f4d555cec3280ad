// READDIR: records of entries, from a cookie on, straight into the client's bulk area.
//
// Protocol: cookie 1 is "." and 2 is ".."; every entry has one from 3 on that grows with each insertion, so a listing
// that goes on after entries came or went shows each entry that stayed exactly once.
// Invariants: with PLUS, the front end gets one kernel reference for each entry with attributes but the dots; entries
// that a transaction has locked are shown without attributes, placeholders not at all.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func readDirectory<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard let wanted = request.fixed(fos_readdir_request.self) else { return answer(-EINVAL, kernel) }
        guard directory.isDirectory else { return answer(-ENOTDIR, kernel) }
        guard mayUse(directory, Access.read) else { return answer(-EACCES, kernel) }
        let length = min(request.message.pointee.bulk_length, UInt32(FOS_BULK_BYTES))
        guard let room = kernel.bulk(of: request.envelope, offset: request.message.pointee.bulk_offset, count: length) else {
            return answer(-EINVAL, kernel)
        }
        var writer = RecordWriter(room: room, isShort: wanted.flags & FOS_READDIR_SHORT.rawValue != 0)
        var cookie = wanted.cookie
        var isFull = false
        // Attributes are what lookups would give, so they need what a lookup needs.
        let plus = wanted.flags & FOS_READDIR_PLUS.rawValue != 0 && turn.actor.may(Access.execute, directory)
        if cookie == 0 {
            isFull = !put(&writer, directory.pointee.number, next: 1, ".", plus ? directory : nil, kernel)
            if !isFull { cookie = 1 }
        }
        if cookie == 1, !isFull {
            let parent = directory.pointee.parent
            isFull = !put(&writer, parent, next: 2, "..", plus && isHere(parent) ? inodes.find(parent) : nil, kernel)
            if !isFull { cookie = 2 }
        }
        // A removed directory shows nothing but itself; it has no entries.
        while !isFull, let dentry = directory.directory.pointee.next(after: cookie) {
            cookie = dentry.pointee.cookie
            if dentry.pointee.flags.contains(.placeholder) { continue }
            let child = dentry.pointee.inode
            let inode = plus && !dentry.pointee.flags.contains(.locked) && isHere(child) ? inodes.find(child) : nil
            guard writer.put(child, next: cookie, kind: dentry.pointee.kind, dentry.name, inode.map { attributes(of: $0, kernel) }) else {
                isFull = true
                break
            }
            if turn.isKernel, let inode {
                inode.pointee.kernelReferences &+= 1
                inode.pointee.leases.insert(.attributes)
                dentry.pointee.flags.insert(.kernelLease)
            }
        }
        if isFull, writer.used == 0 { return answer(-EINVAL, kernel) }
        if turn.isKernel { directory.pointee.leases.insert(.listing) }
        let isMarked = wanted.flags & FOS_READDIR_AHEAD.rawValue == 0 && markAccessed(directory, kernel)
        let message = kernel.scratch()
        if isMarked { add(attributesOf: directory, to: message, kernel) }
        if !isFull { message.pointee.flags = UInt16(FOS_REPLY_END.rawValue) }
        message.pointee.bulk_length = UInt32(writer.used)
        deliver(message, kernel)
    }

    private mutating func put<K: Kernel>(
        _ writer: inout RecordWriter, _ inode: UInt64, next: UInt64, _ name: StaticString, _ found: InodePointer?, _ kernel: K
    ) -> Bool {
        writer.put(
            inode, next: next, kind: Mode.directoryKind, UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount),
            found.map { attributes(of: $0, kernel) })
    }
}

/// Writes fos_directory_entry records one after the other. The offsets are asserted in fos/file.h.
private struct RecordWriter {
    /// Where the attributes of a record begin.
    static var head: Int { 24 }
    let room: UnsafeMutableRawBufferPointer
    let isShort: Bool
    var used = 0

    init(room: UnsafeMutableRawBufferPointer, isShort: Bool) {
        self.room = room
        self.isShort = isShort
    }

    /// False if there is no room for the record.
    mutating func put(_ inode: UInt64, next: UInt64, kind: UInt8, _ name: UnsafeRawBufferPointer, _ attributes: fos_attributes?) -> Bool {
        let leavesOut = isShort && attributes == nil
        let fixed = leavesOut ? Self.head : MemoryLayout<fos_directory_entry>.size
        let length = (fixed + name.count + 7) & ~7
        guard let base = room.baseAddress, room.count - used >= length else { return false }
        let at = base + used
        at.storeBytes(of: inode, as: UInt64.self)
        at.storeBytes(of: next, toByteOffset: 8, as: UInt64.self)
        at.storeBytes(of: UInt32(length), toByteOffset: 16, as: UInt32.self)
        at.storeBytes(of: UInt16(name.count), toByteOffset: 20, as: UInt16.self)
        at.storeBytes(of: kind, toByteOffset: 22, as: UInt8.self)
        at.storeBytes(of: attributes != nil ? 1 : leavesOut ? 2 : 0, toByteOffset: 23, as: UInt8.self)
        if !leavesOut { at.storeBytes(of: attributes ?? fos_attributes(), toByteOffset: Self.head, as: fos_attributes.self) }
        if let source = name.baseAddress { (at + fixed).copyMemory(from: source, byteCount: name.count) }
        (at + fixed + name.count).initializeMemory(as: UInt8.self, repeating: 0, count: length - fixed - name.count)
        used += length
        return true
    }
}
