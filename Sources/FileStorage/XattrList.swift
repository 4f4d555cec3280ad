// The extended attributes of one inode: names and values, in the order of their making.
//
// Role: storage only; which names a caller may use, and the limits of xattr(7), are the service's. An inode has few
// attributes, so they are a list, searched from its head.
// Layout: a record of 24 bytes, then the name, then the value; a value of more than 1,024 bytes is an object of its
// own, so that one of 64 KiB takes 64 KiB and not the double.
// Invariants: a failed `set` changes nothing; an empty list holds no memory; all zeros is an empty list.

import Glibc

/// What `XattrList.set` may do; the values are the flags of setxattr(2).
public enum XattrMode: UInt8, Sendable {
    case any = 0
    /// XATTR_CREATE: the attribute must not exist.
    case create = 1
    /// XATTR_REPLACE: the attribute must exist.
    case replace = 2
}

public enum XattrOutcome: Sendable {
    case done
    /// EEXIST.
    case exists
    /// ENODATA.
    case absent
    /// Out of credits or memory.
    case noMemory
}

/// Head of a record; name and short value follow.
struct XattrRecord: BitwiseCopyable {
    var next: UInt
    /// Address of a long value; 0 if the value follows the name.
    var value: UInt
    var valueLength: UInt32
    var nameLength: UInt32
}

public struct XattrList: BitwiseCopyable {
    private var head: UInt = 0

    private static var headerBytes: Int { MemoryLayout<XattrRecord>.size }
    private static var longestInline: Int { 1024 }
    private static var longestValue: Int { 65536 }

    public init() {}

    public var isEmpty: Bool { head == 0 }

    private static func record(_ address: UInt) -> UnsafeMutablePointer<XattrRecord>? {
        UnsafeMutablePointer(bitPattern: address)
    }
    private static func name(_ record: UnsafeMutablePointer<XattrRecord>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: UnsafeRawPointer(record) + headerBytes, count: Int(record.pointee.nameLength))
    }
    private static func value(_ record: UnsafeMutablePointer<XattrRecord>) -> UnsafeRawBufferPointer {
        let start =
            UnsafeRawPointer(bitPattern: record.pointee.value)
            ?? UnsafeRawPointer(record) + headerBytes + Int(record.pointee.nameLength)
        return UnsafeRawBufferPointer(start: start, count: Int(record.pointee.valueLength))
    }
    private static func recordBytes(_ nameLength: Int, _ valueLength: Int) -> Int {
        headerBytes + nameLength + (valueLength <= longestInline ? valueLength : 0)
    }

    private func find(_ name: UnsafeRawBufferPointer) -> UnsafeMutablePointer<XattrRecord>? {
        guard let base = name.baseAddress else { return nil }
        var address = head
        while let record = XattrList.record(address) {
            let own = XattrList.name(record)
            if own.count == name.count, memcmp(own.baseAddress.unsafelyUnwrapped, base, own.count) == 0 { return record }
            address = record.pointee.next
        }
        return nil
    }

    /// The attribute at a place in the order of their making, valid until the list is changed; nil beyond the last.
    public func at(_ place: Int) -> (name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)? {
        var address = head
        var left = place
        while let record = XattrList.record(address) {
            if left == 0 { return (XattrList.name(record), XattrList.value(record)) }
            left -= 1
            address = record.pointee.next
        }
        return nil
    }

    /// The value of an attribute, valid until the list is changed; nil if there is no such attribute.
    public func get(_ name: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        find(name).map(XattrList.value)
    }

    /// Bytes of the list of the names that are shown, each with its NUL, as listxattr(2) gives it.
    public func listBytes(where isShown: (UnsafeRawBufferPointer) -> Bool = { _ in true }) -> Int {
        var bytes = 0
        var address = head
        while let record = XattrList.record(address) {
            if isShown(XattrList.name(record)) { bytes += Int(record.pointee.nameLength) + 1 }
            address = record.pointee.next
        }
        return bytes
    }

    /// Writes the list of the names that are shown, and reads nothing of the room; gives its bytes, or nil if the room is
    /// too small.
    public func list(into room: UnsafeMutableRawBufferPointer, where isShown: (UnsafeRawBufferPointer) -> Bool = { _ in true }) -> Int? {
        var offset = 0
        var address = head
        while let record = XattrList.record(address) {
            let name = XattrList.name(record)
            guard isShown(name) else {
                address = record.pointee.next
                continue
            }
            guard let base = room.baseAddress, name.count + 1 <= room.count - offset else { return nil }
            memcpy(base + offset, name.baseAddress.unsafelyUnwrapped, name.count)
            base.storeBytes(of: 0, toByteOffset: offset + name.count, as: UInt8.self)
            offset += name.count + 1
            address = record.pointee.next
        }
        return offset
    }

    /// Sets an attribute. A name that has not 1 to 255 bytes, or a value above 65,536 bytes, is refused as
    /// `.noMemory`; the service has answered those before.
    public mutating func set(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ mode: XattrMode,
        _ arena: inout Arena, _ pool: inout PagePool
    ) -> XattrOutcome {
        guard let nameBase = name.baseAddress, name.count > 0, name.count <= 255,
            value.count <= XattrList.longestValue
        else { return .noMemory }
        let old = find(name)
        if old != nil, mode == .create { return .exists }
        if old == nil, mode == .replace { return .absent }

        let isLong = value.count > XattrList.longestInline
        let bytes = XattrList.recordBytes(name.count, value.count)
        guard let memory = arena.allocate(bytes, &pool) else { return .noMemory }
        var long: UnsafeMutableRawPointer? = nil
        if isLong {
            long = arena.allocate(value.count, &pool)
            if long == nil {
                arena.release(memory, bytes, &pool)
                return .noMemory
            }
        }
        let record = memory.bindMemory(to: XattrRecord.self, capacity: 1)
        record.initialize(
            to: XattrRecord(
                next: 0, value: UInt(bitPattern: long), valueLength: UInt32(value.count),
                nameLength: UInt32(name.count)))
        memcpy(memory + XattrList.headerBytes, nameBase, name.count)
        if let valueBase = value.baseAddress, value.count > 0 {
            memcpy(long ?? memory + XattrList.headerBytes + name.count, valueBase, value.count)
        }
        link(record, replacing: old)
        if let old { XattrList.release(old, &arena, &pool) }
        return .done
    }

    /// Removes an attribute. False if there is none of this name.
    public mutating func remove(_ name: UnsafeRawBufferPointer, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        guard let record = find(name) else { return false }
        link(nil, replacing: record)
        XattrList.release(record, &arena, &pool)
        return true
    }

    /// Removes all attributes.
    public mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) {
        while let record = XattrList.record(head) {
            head = record.pointee.next
            XattrList.release(record, &arena, &pool)
        }
    }

    /// Puts a record in the place of `old`, or at the end if that is nil; without a record, takes `old` out.
    private mutating func link(
        _ record: UnsafeMutablePointer<XattrRecord>?, replacing old: UnsafeMutablePointer<XattrRecord>?
    ) {
        if let old {
            if let record { record.pointee.next = old.pointee.next }
        }
        let replacement = record.map { UInt(bitPattern: $0) } ?? old?.pointee.next ?? 0
        if head == UInt(bitPattern: old) {
            head = replacement
            return
        }
        var address = head
        while let before = XattrList.record(address) {
            if before.pointee.next == UInt(bitPattern: old) {
                before.pointee.next = replacement
                return
            }
            address = before.pointee.next
        }
    }

    private static func release(
        _ record: UnsafeMutablePointer<XattrRecord>, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        let length = Int(record.pointee.valueLength)
        if let long = UnsafeMutableRawPointer(bitPattern: record.pointee.value) { arena.release(long, length, &pool) }
        arena.release(record, recordBytes(Int(record.pointee.nameLength), length), &pool)
    }
}
