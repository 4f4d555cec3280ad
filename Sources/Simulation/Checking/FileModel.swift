// The reference models of one file: its bytes, size and mode; and its byte-range locks.
//
// Role: each file is one sequential object, each file's locks another (linearizability is compositional: a history is
// linearizable if that of each object is). Files of the workloads are eight words long, and every word that is written is
// a number of its own, so a word that comes from another file, or from before, has no place in any order.

import Glibc
import Messaging

public enum FileOperation: Sendable {
    /// A new file of this number: what an earlier one held is gone.
    case born(mode: UInt32)
    case write(word: Int, value: UInt64, status: Int32)
    /// At the end; `word` is where the answer says that it happened, -1 if there was none.
    case append(word: Int, value: UInt64, status: Int32)
    case read(words: [UInt64], size: UInt64, status: Int32)
    case truncate(size: UInt64, status: Int32)
    case changeMode(UInt32, status: Int32)
    case attributes(size: UInt64, mode: UInt32, status: Int32)
    indirect case uncertain(FileOperation)
}

public struct FileState: Sendable {
    /// Words of the file; as many as its size says.
    public var words: [UInt64] = []
    public var mode: UInt32 = 0
    public var isThere = false
    public init() {}
    static var wordBytes: UInt64 { 8 }
}

/// A file that is gone answers ESTALE; whether it may be gone, the tree's history decides.
public enum FileModel: SequentialModel {
    public static func onlyLooks(_ operation: FileOperation) -> Bool {
        switch operation {
        case .read, .attributes: true
        case .write(_, _, let status), .append(_, _, let status), .truncate(_, let status), .changeMode(_, let status): status != 0
        case .born, .uncertain: false
        }
    }

    public static func fingerprint(_ state: FileState) -> UInt64 {
        var mark = SeededMark(UInt64(state.mode) << 8 | UInt64(state.words.count)).next()
        for word in state.words { mark = SeededMark(mark ^ word).next() }
        return mark
    }

    public static func apply(_ operation: FileOperation, to state: FileState) -> FileState? {
        var next = state
        switch operation {
        case .born(let mode):
            next = FileState()
            next.mode = mode
            next.isThere = true
        case .write(let word, let value, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            while next.words.count <= word { next.words.append(0) }
            next.words[word] = value
        case .append(let word, let value, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            guard word == state.words.count || word < 0 else { return nil }
            next.words.append(value)
        case .read(let words, let size, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            return words == state.words && size == UInt64(words.count) * FileState.wordBytes ? state : nil
        case .truncate(let size, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            let count = Int(size / FileState.wordBytes)
            while next.words.count < count { next.words.append(0) }
            next.words.removeLast(next.words.count - count)
        case .changeMode(let mode, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            next.mode = mode
        case .attributes(let size, let mode, let status):
            guard status == 0 else { return status == -ESTALE ? state : nil }
            return size == UInt64(state.words.count) * FileState.wordBytes && mode == state.mode ? state : nil
        case .uncertain(let operation): return apply(operation, to: state)
        }
        return next
    }
}

public enum LockOperation: Sendable {
    /// Of one unit, for one owner. `status` 0 granted, -EAGAIN refused.
    case lock(unit: Int, owner: UInt64, isExclusive: Bool, status: Int32)
    case unlock(unit: Int, owner: UInt64)
    /// Its process died.
    case allGone(owner: UInt64)
}

public struct LockState: Sendable {
    struct Held: Equatable, Sendable {
        var unit: Int
        var owner: UInt64
        var isExclusive: Bool
    }
    var held: [Held] = []
    public init() {}
}

public enum LockModel: SequentialModel {
    public static func onlyLooks(_ operation: LockOperation) -> Bool {
        if case .lock(_, _, _, let status) = operation { return status != 0 }
        return false
    }

    public static func fingerprint(_ state: LockState) -> UInt64 {
        var mark: UInt64 = 0
        for each in state.held {
            mark ^= SeededMark(SeededMark(each.owner).next() ^ UInt64(each.unit) << 1 ^ (each.isExclusive ? 1 : 0)).next()
        }
        return mark
    }

    public static func apply(_ operation: LockOperation, to state: LockState) -> LockState? {
        var next = state
        switch operation {
        case .lock(let unit, let owner, let isExclusive, let status):
            let conflicts = state.held.contains { $0.unit == unit && $0.owner != owner && (isExclusive || $0.isExclusive) }
            if conflicts { return status == -EAGAIN ? state : nil }
            guard status == 0 else { return nil }
            next.held.removeAll { $0.unit == unit && $0.owner == owner }
            next.held.append(LockState.Held(unit: unit, owner: owner, isExclusive: isExclusive))
        case .unlock(let unit, let owner): next.held.removeAll { $0.unit == unit && $0.owner == owner }
        case .allGone(let owner): next.held.removeAll { $0.owner == owner }
        }
        return next
    }
}
