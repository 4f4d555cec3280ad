// The one source of chance of a loop host: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
//
// Invariant: two hosts made with one seed and driven by the same calls draw the same numbers.

/// A seeded stream of 64-bit numbers. Also a `RandomNumberGenerator`, so that tests can draw from it.
public struct LoopRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64
    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state = state &+ 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Uniform in 0 ..< bound; 0 if the bound is not positive.
    public mutating func below(_ bound: Int) -> Int { bound > 1 ? Int(next() % UInt64(bound)) : 0 }
    /// True `per256` times of 256.
    public mutating func chance(_ per256: Int) -> Bool { per256 > 0 && Int(next() & 255) < per256 }
}

/// FNV-1a over 64-bit words: the hash of all events of a run.
public struct LoopHash: Sendable {
    public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
    public init() {}
    public mutating func mix(_ word: UInt64) { value = (value ^ word) &* 0x0000_0100_0000_01b3 }
    public mutating func mix(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes { mix(UInt64(byte)) }
    }
}
