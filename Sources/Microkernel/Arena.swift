// An arena: one private mapping that all of a core's mailboxes and tables are cut from at start.
//
// Invariant: nothing is taken from it after start, and nothing is given back but the whole. Every part begins on a
// cache line, so two parts never share one.

import CFosWire
import CPlatform

struct Arena {
    private(set) var base: UnsafeMutableRawPointer
    private(set) var bytes: Int
    private var used = 0

    /// - Parameter bytes: upper bound of all that will be taken; untouched pages cost nothing.
    init?(bytes: Int) {
        guard let base = fos_platform_map_private(UInt64(bytes)) else { return nil }
        self.base = base
        self.bytes = bytes
    }

    /// `count` zeroed values on a cache line of their own.
    mutating func take<T: BitwiseCopyable>(_ type: T.Type, _ count: Int) -> UnsafeMutablePointer<T> {
        let line = Int(FOS_CACHE_LINE)
        let size = (count * MemoryLayout<T>.stride + line - 1) / line * line
        precondition(count > 0 && used + size <= bytes, "the arena was sized too small")
        defer { used += size }
        return (base + used).bindMemory(to: T.self, capacity: count)
    }

    func free() { fos_platform_unmap(base, UInt64(bytes)) }
}
