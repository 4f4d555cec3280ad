// The one source of chance of a deterministic host, and the hash of what happened in it.
//
// Role: the simulator, the loop host of the tests and their workloads draw from `SeededRandom` alone, and mix every
// event into an `EventHash`.
// Invariant: two runs that draw in the same order from one seed see the same numbers, and have the same hash.

/// A seeded stream of 64-bit numbers: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
public struct SeededRandom: RandomNumberGenerator, Sendable, BitwiseCopyable {
    @usableFromInline var state: UInt64
    @inlinable public init(seed: UInt64) { state = seed }

    @inlinable public mutating func next() -> UInt64 {
        state = state &+ 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Uniform in 0 ..< bound; 0 if the bound is not positive.
    @inlinable public mutating func below(_ bound: Int) -> Int { bound > 1 ? Int(next() % UInt64(bound)) : 0 }
    /// True `per256` times of 256.
    @inlinable public mutating func chance(_ per256: Int) -> Bool { per256 > 0 && Int(next() & 255) < per256 }
}

/// FNV-1a over 64-bit words: the hash of all events of a run.
public struct EventHash: Sendable, BitwiseCopyable {
    public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
    public init() {}
    @inline(__always) public mutating func mix(_ word: UInt64) { value = (value ^ word) &* 0x0000_0100_0000_01b3 }
    /// Eight bytes at a time, and the rest as one word.
    public mutating func mix(_ bytes: UnsafeRawBufferPointer) {
        var offset = 0
        while offset + 8 <= bytes.count {
            mix(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
        var rest: UInt64 = 0
        while offset < bytes.count {
            rest = rest << 8 | UInt64(bytes[offset])
            offset += 1
        }
        mix(rest)
    }
}
