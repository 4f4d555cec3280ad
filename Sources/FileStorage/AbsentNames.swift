// The names that the kernel may take for absent: a set that forgets by itself.
//
// Role: who makes a name must tell a kernel that was told that there is none, and wait for it; nobody else need wait. The kernel does
// not say when it drops such an entry, so it is told to believe it for `validity` only, and the set keeps a name for `kept` of these:
// one is the kernel's, the others are for an answer on its way to it.
// Layout: keys are 64-bit hashes of directory and name, in buckets of one cache line. In place of its lowest eight bits a key has its
// time, a stamp. The first word of a bucket has the time at which a key last found no room: until that is as old as a key may become,
// every name of this bucket counts as one of the set. So the set says yes too often, never no.
// Invariants: of fixed size; memory is touched where keys come; a stamp that has come round makes an old key young, which is a yes too
// many. The seed is secret, so nobody can fill a bucket of his choice.

import Glibc

public struct AbsentNames: ~Copyable {
    private let memory: UnsafeMutableRawPointer
    private let words: UnsafeMutablePointer<UInt64>
    private let seed: UInt64
    /// Nanoseconds from one stamp to the next.
    private let unit: UInt64
    private var isEmpty = true
    /// `insertAll` has been called: every name is looked up as the directory's too.
    private var hasDirectories = false

    private static var buckets: Int { 4096 }
    private static var wordsOfBucket: Int { 8 }
    /// Validities that a key is kept for, at least; and in units, one more at most.
    public static var kept: UInt64 { 3 }
    private static var unitsKept: UInt8 { 8 }

    /// - Parameters:
    ///   - seed: random, so that nobody can choose names that collide.
    ///   - validity: nanoseconds for which the kernel believes what it is told.
    public init(seed: UInt64, validity: UInt64) {
        let line = AbsentNames.wordsOfBucket * MemoryLayout<UInt64>.stride
        guard let memory = calloc(AbsentNames.buckets + 1, line) else { preconditionFailure("no memory for the set of absent names") }
        self.memory = memory
        words = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: memory) + UInt(line - 1)) & ~UInt(line - 1)).unsafelyUnwrapped
            .bindMemory(to: UInt64.self, capacity: AbsentNames.buckets * AbsentNames.wordsOfBucket)
        self.seed = seed
        unit = validity * AbsentNames.kept / UInt64(AbsentNames.unitsKept)
    }

    deinit { free(memory) }

    /// The kernel is told that a directory has no such name. `now`: monotonic nanoseconds.
    public mutating func insert(_ name: UnsafeRawBufferPointer, in directory: UInt64, now: UInt64) { insert(key(name, directory), now) }

    /// The kernel may have been told so of any name of a directory.
    public mutating func insertAll(of directory: UInt64, now: UInt64) {
        hasDirectories = true
        insert(key(ofAll: directory), now)
    }

    /// A name is there now: whether the kernel may take it for absent. If so it must be told, and the set has the name no more.
    public mutating func take(_ name: UnsafeRawBufferPointer, in directory: UInt64, now: @autoclosure () -> UInt64) -> Bool {
        if isEmpty { return false }
        let key = key(name, directory)
        let bucket = bucket(key)
        var found = bucket[0]
        for place in 1..<AbsentNames.wordsOfBucket where (bucket[place] ^ key) >> 8 == 0 {
            if found == 0 || isLive(bucket[place], now()) { found = bucket[place] }
            bucket[place] = 0
        }
        if found != 0, isLive(found, now()) { return true }
        return hasDirectories && has(self.key(ofAll: directory), now())
    }

    /// The kernel believes nothing any more.
    public mutating func removeAll() {
        if isEmpty { return }
        words.update(repeating: 0, count: AbsentNames.buckets * AbsentNames.wordsOfBucket)
        isEmpty = true
        hasDirectories = false
    }

    // MARK: Buckets

    @inline(__always) private func bucket(_ key: UInt64) -> UnsafeMutablePointer<UInt64> {
        words + Int(truncatingIfNeeded: key >> 8) & (AbsentNames.buckets - 1) * AbsentNames.wordsOfBucket
    }

    private mutating func insert(_ key: UInt64, _ now: UInt64) {
        isEmpty = false
        let bucket = bucket(key)
        var room = 0  // the word of what found none
        for place in 1..<AbsentNames.wordsOfBucket {
            if (bucket[place] ^ key) >> 8 == 0 {
                room = place
                break
            }
            if room == 0, bucket[place] == 0 || !isLive(bucket[place], now) { room = place }
        }
        bucket[room] = key & ~0xff | UInt64(stamp(now))
    }

    private func has(_ key: UInt64, _ now: UInt64) -> Bool {
        let bucket = bucket(key)
        if bucket[0] != 0, isLive(bucket[0], now) { return true }
        return (1..<AbsentNames.wordsOfBucket).contains { (bucket[$0] ^ key) >> 8 == 0 && isLive(bucket[$0], now) }
    }

    // MARK: Words

    private func stamp(_ now: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: now / unit) }
    /// Times that differ by `unitsKept` units at most have stamps that differ by no more.
    private func isLive(_ word: UInt64, _ now: UInt64) -> Bool {
        stamp(now) &- UInt8(truncatingIfNeeded: word) <= AbsentNames.unitsKept
    }

    /// Never 0 above the stamp, as a word of zeros is free.
    private func key(_ name: UnsafeRawBufferPointer, _ directory: UInt64) -> UInt64 {
        NameHash.wideHash(name, seed: seed ^ directory &* 0x9e37_79b9_7f4a_7c15) | 0x100
    }
    /// By a name that no entry can have.
    private func key(ofAll directory: UInt64) -> UInt64 {
        withUnsafeBytes(of: UInt8(ascii: "/")) { key($0, directory) }
    }
}
