// Reading payloads: fixed parts and names, each checked against the payload's own length.
//
// Invariant: nothing here trusts a length that came in a message; a part that is not there is nil, never a read
// beyond the letter.

import CFosWire
import Glibc
import Messaging

extension Request {
    /// The fixed part at the start of the payload; nil if the payload is shorter.
    @inline(__always) func fixed<Fixed: BitwiseCopyable>(_: Fixed.Type) -> Fixed? {
        let bytes = payload
        guard bytes.count >= MemoryLayout<Fixed>.size, bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), let base = bytes.baseAddress else { return nil }
        return UnsafeRawPointer(base).loadUnaligned(as: Fixed.self)
    }

    /// `count` bytes of the payload from `offset`; nil if they are not all there.
    @inline(__always) func bytes(at offset: Int, count: UInt32) -> UnsafeRawBufferPointer? {
        let bytes = payload
        guard bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), offset <= bytes.count, Int(count) <= bytes.count - offset else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(count)])
    }

    /// The name that follows a fixed part.
    @inline(__always) func name<Fixed: BitwiseCopyable>(after _: Fixed.Type, _ length: UInt32) -> UnsafeRawBufferPointer? {
        bytes(at: MemoryLayout<Fixed>.size, count: length)
    }

    /// A payload that is a name and nothing else.
    @inline(__always) var wholeName: UnsafeRawBufferPointer? { bytes(at: 0, count: message.pointee.length) }
}

extension Response {
    @inline(__always) func fixed<Fixed: BitwiseCopyable>(_ type: Fixed.Type) -> Fixed? { Request(letter: letter).fixed(type) }
}

extension UnsafeMutablePointer where Pointee == fos_message {
    /// The first payload byte. 64 bytes after a header that the kernel aligns, so every fixed part may be stored here.
    @inline(__always) var body: UnsafeMutableRawPointer { UnsafeMutableRawPointer(self) + MemoryLayout<fos_message>.size }

    /// Makes a fixed part the whole payload.
    @inline(__always) func setBody<Fixed: BitwiseCopyable>(_ fixed: Fixed) {
        body.storeBytes(of: fixed, as: Fixed.self)
        pointee.length = UInt32(MemoryLayout<Fixed>.size)
    }

    /// Adds bytes to the payload. The caller's fixed parts and names are bounded far below the limit.
    @inline(__always) func append(_ bytes: UnsafeRawBufferPointer) {
        let length = Int(pointee.length)
        precondition(length + bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), "a payload does not fit a message")
        if let base = bytes.baseAddress, bytes.count > 0 { (body + length).copyMemory(from: base, byteCount: bytes.count) }
        pointee.length = UInt32(length + bytes.count)
    }
}

/// What a path component is. Only `plain` names can be entries.
enum NameForm {
    case plain, dot, dotDot, empty, tooLong, malformed

    init(_ name: UnsafeRawBufferPointer) {
        guard name.count > 0, let start = name.baseAddress else { self = .empty; return }
        guard name.count <= Int(FOS_NAME_BYTES_MAX) else { self = .tooLong; return }
        if name[0] == UInt8(ascii: ".") {
            if name.count == 1 { self = .dot; return }
            if name.count == 2, name[1] == UInt8(ascii: ".") { self = .dotDot; return }
        }
        let isMalformed = memchr(start, Int32(UInt8(ascii: "/")), name.count) != nil || memchr(start, 0, name.count) != nil
        self = isMalformed ? .malformed : .plain
    }

    /// The front end's own directory at the top of a mount (`.fos/`), which hides an entry of that name.
    static func isReserved(_ name: UnsafeRawBufferPointer, in directory: UInt64) -> Bool {
        directory == UInt64(FOS_ROOT_INODE) && name.count == 4 && ".fos".utf8.elementsEqual(name)
    }

    /// The error for a name that cannot be an entry; `dots` is what the operation says about "." and "..".
    func error(dots: Int32) -> Int32 {
        switch self {
        case .plain: 0
        case .dot, .dotDot: dots
        case .empty: -ENOENT
        case .tooLong: -ENAMETOOLONG
        case .malformed: -EINVAL
        }
    }
}
