// Names in payloads, and what can be one.

import CFosWire
import Glibc
import Messaging

extension Request {
    /// The name that follows a fixed part.
    @inline(__always) func name<Fixed: BitwiseCopyable>(after _: Fixed.Type, _ length: UInt32) -> UnsafeRawBufferPointer? {
        bytes(at: MemoryLayout<Fixed>.size, count: length)
    }

    /// A payload that is a name and nothing else.
    @inline(__always) var wholeName: UnsafeRawBufferPointer? { bytes(at: 0, count: message.pointee.length) }
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
