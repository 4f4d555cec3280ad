// Late answers: what the kernel does with an answer some time after it was written to the device, when the program that
// waits for it runs again. A notice that comes in between finds nothing to void, or is undone by the answer.
//
// Why: the kernel counts versions of an inode's attributes (fs/fuse/inode.c, attr_version), and drops an answer of GETATTR,
// LOOKUP or READDIRPLUS that is older than the last notice. It has no version to compare in three cases:
// 1. The inode is not there yet: the notice is answered ENOENT, and the answer then makes the inode, with what it says.
// 2. SETATTR and LINK: their attributes are taken as they are. But the program holds the inode's lock until it has taken them.
// 3. A listing has no version; the program holds the directory's lock until it is in the cache.
// Protocol: of an unknown inode the service is asked whether the kernel was given it; as long as it was, the kernel makes
// it, or says FORGET, before long. In the other cases the notice thread takes the inode's lock once, which is granted
// when the program is done. Both need a program that gets to run; what waits for longer than `patience` is voided later,
// beside other notices.
// Invariant: a notice is acknowledged when nothing that was answered before it can take effect any more, or has been
// waited for that long and is on the list.

import CFosProxy
import CFosWire
import CFuse
import Glibc

/// Which inodes have lately had an answer whose attributes the kernel takes without asking how old they are. By a hash of
/// their number: one inode may be taken for another, but none is missed.
struct UnversionedAnswers {
    private let times: UnsafeMutablePointer<UInt32>
    private static var slots: Int { 1024 }
    /// Milliseconds after which a program has certainly had its answer.
    private static var recent: UInt32 { 10_000 }

    init() {
        times = .allocate(capacity: UnversionedAnswers.slots)
        times.initialize(repeating: 0, count: UnversionedAnswers.slots)
    }

    func deallocate() { times.deallocate() }

    private func slot(_ inode: UInt64) -> UnsafeMutablePointer<UInt32> {
        times + Int(truncatingIfNeeded: (inode &* 0x9e37_79b9_7f4a_7c15) >> 54)
    }

    /// Milliseconds, never 0.
    private var now: UInt32 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        return UInt32(truncatingIfNeeded: time.tv_sec &* 1000 &+ time.tv_nsec / 1_000_000) | 1
    }

    /// Called by a worker before it writes such an answer, while its word of AnswersUnderWay is odd.
    func note(_ inode: UInt64) { fos_store_release_u32(slot(inode), now) }

    func isRecent(_ inode: UInt64) -> Bool {
        let time = fos_load_acquire_u32(slot(inode))
        return time != 0 && now &- time < UnversionedAnswers.recent
    }
}

/// How an inode's revocation ended.
enum Revoked: Equatable {
    /// The kernel's result; ENOENT: it has neither the inode, nor an answer that could make it.
    case done(Int32)
    /// The kernel has yet to make the inode from an answer that it has.
    case awaited
}

/// Voids something of an inode, which the kernel may be about to make.
/// - Parameters:
///   - patience: microseconds to wait for that.
///   - void: tells the kernel; 0 or a negative errno.
///   - isReferred: asks the service whether the kernel was given the inode, more often than it said FORGET.
///   - pause: sleeps for so many microseconds.
func revokeOnceKnown(patience: UInt32, void: () -> Int32, isReferred: () -> Bool, pause: (UInt32) -> Void) -> Revoked {
    var waited: UInt32 = 0
    var length: UInt32 = 20
    while true {
        let result = void()
        // In this order: an inode that was made after the kernel's answer is referred to until after the service's.
        guard result == -ENOENT, isReferred() else { return .done(result) }
        guard waited < patience else { return .awaited }
        pause(length)
        waited += length
        length = min(length * 2, 2000)
    }
}

/// What is still to be voided, because a program has not taken its answer for longer than a notice waits.
struct LateRevocations {
    struct Item {
        let inode: UInt64
        let offset: off_t
        let length: off_t
    }
    private(set) var items: [Item] = []
    private static let most = 1024

    var isEmpty: Bool { items.isEmpty }

    /// False if there are too many, and the oldest was given up for it.
    mutating func append(_ item: Item) -> Bool {
        let fits = items.count < LateRevocations.most
        if !fits { items.removeFirst() }
        items.append(item)
        return fits
    }

    /// Tries each once more; `revoke` says how that ended.
    mutating func again(_ revoke: (Item) -> Revoked) { items.removeAll { revoke($0) != .awaited } }
}
