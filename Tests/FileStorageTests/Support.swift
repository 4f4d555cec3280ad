// What the tests of this module share: a seeded generator, and the memory that a structure is tested on.

import FileStorage
import Messaging
import Testing

/// A stream of chance, with the draws that these tests need.
struct Generator: RandomNumberGenerator {
    private var stream: SeededRandom
    init(seed: UInt64) { stream = SeededRandom(seed: seed) }
    mutating func next() -> UInt64 { stream.next() }
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    /// A fresh seed, printed so that a failure can be repeated by putting it in its place.
    static func seed(_ test: String) -> UInt64 {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("\(test): seed \(seed)")
        return seed
    }
}

/// Arena and pool of one test.
struct Memory: ~Copyable {
    var arena = Arena()
    var pool: PagePool
    let credits: Int
    init(credits: Int = 1 << 20) {
        self.credits = credits
        pool = PagePool(credits: credits)
    }
    /// Everything has been given back, to the last page and credit.
    func expectWhole(_ location: SourceLocation = #_sourceLocation) {
        expect(arena.bytesInUse == 0, sourceLocation: location)
        expect(arena.bytesHeld == 0, sourceLocation: location)
        expect(pool.used == 0, sourceLocation: location)
        expect(pool.credits == credits, sourceLocation: location)
    }
}

func bytes<R>(_ text: String, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    var text = text
    return try text.withUTF8 { try body(UnsafeRawBufferPointer($0)) }
}

func text(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }

// The macros #expect and #require take calls apart, which types that cannot be copied do not allow, and are slow in
// loops of a million checks. These two evaluate first.

func expect(_ condition: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
    if !condition { Issue.record("expectation failed", sourceLocation: sourceLocation) }
}

struct Missing: Error {}

func unwrap<T>(_ value: T?, sourceLocation: SourceLocation = #_sourceLocation) throws -> T {
    guard let value else {
        Issue.record("a value is missing", sourceLocation: sourceLocation)
        throw Missing()
    }
    return value
}
