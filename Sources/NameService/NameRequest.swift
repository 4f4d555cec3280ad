// A name request, copied out of its letter and checked.
//
// A name is 2 to FOS_SERVICE_NAME_BYTES_MAX bytes, starts with "/", has no NUL, no empty component and no "/" at its
// end. Bytes from a client reach the rest of the service only through here.

import CFosWire
import Glibc
import Messaging

struct NameRequest {
    let fixed: fos_name_request
    /// Point into the letter; valid as long as it is.
    let name: NameView
    let target: NameView

    static var fixedBytes: Int { MemoryLayout<fos_name_request>.size }

    enum Outcome {
        case valid(NameRequest)
        /// A negative errno.
        case invalid(Int32)
    }

    /// - Parameters:
    ///   - needsName: a name of no bytes is refused.
    ///   - needsTarget: the same for the target.
    static func parse(_ payload: UnsafeMutableRawBufferPointer, needsName: Bool, needsTarget: Bool) -> Outcome {
        guard let base = payload.baseAddress, payload.count >= fixedBytes else { return .invalid(-EINVAL) }
        let fixed = base.loadUnaligned(as: fos_name_request.self)
        let nameLength = Int(fixed.name_length), targetLength = Int(fixed.target_length)
        guard nameLength <= Int(FOS_SERVICE_NAME_BYTES_MAX), targetLength <= Int(FOS_SERVICE_NAME_BYTES_MAX) else {
            return .invalid(-ENAMETOOLONG)
        }
        guard fixedBytes + nameLength + targetLength <= payload.count else { return .invalid(-EINVAL) }
        let bytes = UnsafePointer((base + fixedBytes).assumingMemoryBound(to: UInt8.self))
        let name = NameView(bytes: bytes, count: nameLength)
        let target = NameView(bytes: bytes + nameLength, count: targetLength)
        guard nameLength == 0 ? !needsName : isWellFormed(name) else { return .invalid(-EINVAL) }
        guard targetLength == 0 ? !needsTarget : isWellFormed(target) else { return .invalid(-EINVAL) }
        return .valid(NameRequest(fixed: fixed, name: name, target: target))
    }

    static func isWellFormed(_ name: NameView) -> Bool {
        guard name.count >= 2, name.count <= Int(FOS_SERVICE_NAME_BYTES_MAX), name.bytes[0] == UInt8(ascii: "/") else { return false }
        var previous: UInt8 = 0
        for index in 0..<name.count {
            let byte = name.bytes[index]
            if byte == 0 || (byte == UInt8(ascii: "/") && previous == UInt8(ascii: "/")) { return false }
            previous = byte
        }
        return previous != UInt8(ascii: "/")
    }
}

extension NameView {
    /// "/sys" and all below it: the kernel's alone.
    var isProtected: Bool { hasPrefix("/sys/") || (count == 4 && hasPrefix("/sys")) }
}
