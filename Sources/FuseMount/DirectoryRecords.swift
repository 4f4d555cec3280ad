// Directory listings: the file service's records to the kernel's fuse_dirent and fuse_direntplus.
//
// Protocol: the service writes fos_directory_entry records into the bulk area. A READDIRPLUS answer counts one kernel
// reference for each record with attributes, so the room asked for is such that every record that comes back also
// fits the kernel's buffer: none ever has to be forgotten again.
// Invariant: a record is checked before it is used; a bad one ends the listing, it never traps.

import CFosWire
import CFuse
import Glibc

enum DirectoryLayout {
    /// Bytes of the fixed part of struct fos_directory_entry, before the name.
    static let recordHeader = MemoryLayout<fos_directory_entry>.size
    /// Bytes of struct fuse_dirent before the name (FUSE_NAME_OFFSET).
    static let direntHeader = 24
    /// Bytes of struct fuse_direntplus before the name (FUSE_NAME_OFFSET_DIRENTPLUS).
    static let direntPlusHeader = MemoryLayout<fuse_entry_out>.size + direntHeader

    /// Room to ask the service for, so that a READDIRPLUS reply of `room` bytes holds all that comes back. A kernel
    /// record is longer than the service's by a fixed amount, and the shortest record bounds how many there are.
    static func serviceRoom(plus room: Int) -> Int {
        let shortest = recordHeader + 8
        let growth = direntPlusHeader - recordHeader
        return growth <= 0 ? room : room * shortest / (shortest + growth)
    }

    /// The same for a plain READDIR, whose kernel records are much shorter. Records that do not fit are dropped and
    /// asked for again by cookie; nothing was counted for them.
    static func serviceRoom(plain room: Int, most: Int) -> Int { min(room &* 4, most) }
}

/// One record of a listing, in the bulk area.
struct DirectoryRecord {
    let header: fos_directory_entry
    let name: UnsafeRawBufferPointer

    /// True for "." and "..", for which the service counts no reference.
    var isDot: Bool {
        (name.count == 1 && name[0] == 0x2e) || (name.count == 2 && name[0] == 0x2e && name[1] == 0x2e)
    }
}

/// Walks the records that READDIR left in the bulk area.
struct DirectoryRecords: IteratorProtocol {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    mutating func next() -> DirectoryRecord? {
        let left = bytes.count - offset
        guard left >= DirectoryLayout.recordHeader else { return nil }
        let header = bytes.loadUnaligned(fromByteOffset: offset, as: fos_directory_entry.self)
        let length = Int(header.record_length)
        let nameLength = Int(header.name_length)
        guard nameLength > 0, nameLength <= Int(FOS_NAME_BYTES_MAX), length <= left,
            length >= DirectoryLayout.recordHeader + nameLength
        else { return nil }
        let start = offset + DirectoryLayout.recordHeader
        offset += length
        return DirectoryRecord(header: header, name: UnsafeRawBufferPointer(rebasing: bytes[start..<start + nameLength]))
    }
}

/// Packs entries into a reply buffer in the kernel's layout.
struct DirectoryReply {
    private let buffer: UnsafeMutableRawBufferPointer
    private(set) var used = 0

    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[0..<used]) }

    /// Adds a plain entry. False, and nothing changed, when it does not fit.
    mutating func append(inode: UInt64, next: UInt64, type: UInt8, name: UnsafeRawBufferPointer) -> Bool {
        append(entry: nil, inode: inode, next: next, type: type, name: name)
    }

    /// Adds an entry with what a LOOKUP would say; an entry whose `nodeid` is 0 carries none.
    mutating func append(
        plus entry: fuse_entry_out, inode: UInt64, next: UInt64, type: UInt8, name: UnsafeRawBufferPointer
    ) -> Bool {
        append(entry: entry, inode: inode, next: next, type: type, name: name)
    }

    private mutating func append(
        entry: fuse_entry_out?, inode: UInt64, next: UInt64, type: UInt8, name: UnsafeRawBufferPointer
    ) -> Bool {
        let header = entry == nil ? DirectoryLayout.direntHeader : DirectoryLayout.direntPlusHeader
        let padded = (header + name.count + 7) & ~7
        guard padded <= buffer.count - used, let base = buffer.baseAddress else { return false }
        var place = base + used
        let end = place + padded
        if let entry {
            place.storeBytes(of: entry, as: fuse_entry_out.self)
            place += MemoryLayout<fuse_entry_out>.size
        }
        place.storeBytes(of: inode, as: UInt64.self)
        place.storeBytes(of: next, toByteOffset: 8, as: UInt64.self)
        place.storeBytes(of: UInt32(name.count), toByteOffset: 16, as: UInt32.self)
        place.storeBytes(of: UInt32(type), toByteOffset: 20, as: UInt32.self)
        place += DirectoryLayout.direntHeader
        if let source = name.baseAddress { place.copyMemory(from: source, byteCount: name.count) }
        place += name.count
        // The kernel copies the padding to nobody, but a reply never carries old bytes.
        if place < end { memset(place, 0, end - place) }
        used += padded
        return true
    }
}
