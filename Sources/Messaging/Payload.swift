// Reading and writing payloads: fixed parts and bytes, each checked against the payload's own length.
//
// Invariant: nothing here trusts a length that came in a message; a part that is not there is nil, never a read
// beyond the letter.

public import CFosWire

extension Request {
    /// The fixed part at the start of the payload; nil if the payload is shorter.
    @inlinable @inline(__always) public func fixed<Fixed: BitwiseCopyable>(_ type: Fixed.Type) -> Fixed? { fixed(type, at: 0) }

    /// A fixed part at an offset of the payload; nil if it is not all there.
    @inlinable @inline(__always) public func fixed<Fixed: BitwiseCopyable>(_: Fixed.Type, at offset: Int) -> Fixed? {
        let bytes = payload
        guard bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), offset >= 0, offset <= bytes.count,
            bytes.count - offset >= MemoryLayout<Fixed>.size, let base = bytes.baseAddress
        else { return nil }
        return UnsafeRawPointer(base).loadUnaligned(fromByteOffset: offset, as: Fixed.self)
    }

    /// `count` bytes of the payload from `offset`; nil if they are not all there.
    @inlinable @inline(__always) public func bytes(at offset: Int, count: UInt32) -> UnsafeRawBufferPointer? {
        let bytes = payload
        guard bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), offset <= bytes.count, Int(count) <= bytes.count - offset else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(count)])
    }
}

extension Response {
    @inlinable @inline(__always) public func fixed<Fixed: BitwiseCopyable>(_ type: Fixed.Type) -> Fixed? {
        Request(letter: letter).fixed(type)
    }
}

extension UnsafeMutablePointer where Pointee == fos_message {
    /// The first payload byte. 64 bytes after a header that the kernel aligns, so every fixed part may be stored here.
    @inlinable @inline(__always) public var body: UnsafeMutableRawPointer { UnsafeMutableRawPointer(self) + MemoryLayout<fos_message>.size }

    /// Makes a fixed part the whole payload.
    @inlinable @inline(__always) public func setBody<Fixed: BitwiseCopyable>(_ fixed: Fixed) {
        body.storeBytes(of: fixed, as: Fixed.self)
        pointee.length = UInt32(MemoryLayout<Fixed>.size)
    }

    /// Adds bytes to the payload. The caller's fixed parts and names are bounded far below the limit.
    @inlinable @inline(__always) public func append(_ bytes: UnsafeRawBufferPointer) {
        let length = Int(pointee.length)
        precondition(length + bytes.count <= Int(FOS_PAYLOAD_BYTES_MAX), "a payload does not fit a message")
        if let base = bytes.baseAddress, bytes.count > 0 { (body + length).copyMemory(from: base, byteCount: bytes.count) }
        pointee.length = UInt32(length + bytes.count)
    }
}
