// The hash of a name: 32 or 64 bits that one who does not know the seed cannot steer.
//
// Role: places names in a directory's hash table, and in the set of absent ones. A multiply-and-fold hash in the manner of wyhash (Wang Yi, "wyhash
// and wyrand", public domain), written for names of 1 to 255 bytes: two overlapping reads each of the ends for up to
// 16 bytes, 16 bytes a round for more. Seeded for each directory, so that names chosen to collide (Crosby and
// Wallach, "Denial of Service via Algorithmic Complexity Attacks", USENIX Security 2003) cannot be prepared.

enum NameHash {
    private static var first: UInt64 { 0x9e37_79b9_7f4a_7c15 }
    private static var second: UInt64 { 0xd6e8_feb8_6659_fd93 }
    private static var third: UInt64 { 0xa076_1d64_78bd_642f }

    static func hash(_ name: UnsafeRawBufferPointer, seed: UInt64) -> UInt32 {
        let wide = wideHash(name, seed: seed)
        return UInt32(truncatingIfNeeded: wide ^ wide >> 32)
    }

    @inline(__always) static func wideHash(_ name: UnsafeRawBufferPointer, seed: UInt64) -> UInt64 {
        guard let base = name.baseAddress, name.count > 0 else { return 0 }
        let count = name.count
        var state = mix(seed ^ first, UInt64(truncatingIfNeeded: count) ^ third)
        let a: UInt64
        let b: UInt64
        if count <= 16 {
            if count >= 8 {
                a = word(base)
                b = word(base + (count - 8))
            } else if count >= 4 {
                a = half(base)
                b = half(base + (count - 4))
            } else {
                // One to three bytes: first, middle and last.
                a = UInt64(base.load(as: UInt8.self)) << 16
                    | UInt64(base.load(fromByteOffset: count >> 1, as: UInt8.self)) << 8
                    | UInt64(base.load(fromByteOffset: count - 1, as: UInt8.self))
                b = 0
            }
        } else {
            var offset = 0
            while offset + 16 < count {
                state = mix(word(base + offset) ^ second, word(base + (offset + 8)) ^ state)
                offset += 16
            }
            a = word(base + (count - 16))
            b = word(base + (count - 8))
        }
        return mix(mix(a ^ second, b ^ state), state ^ first)
    }

    /// The 128-bit product of two words, folded to 64.
    @inline(__always) private static func mix(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }

    @inline(__always) private static func word(_ pointer: UnsafeRawPointer) -> UInt64 {
        pointer.loadUnaligned(as: UInt64.self)
    }

    @inline(__always) private static func half(_ pointer: UnsafeRawPointer) -> UInt64 {
        UInt64(pointer.loadUnaligned(as: UInt32.self))
    }
}
