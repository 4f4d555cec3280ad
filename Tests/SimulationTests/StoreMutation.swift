// Stores that are broken on purpose: what they are told of a server's changes and do not keep.

import FileService
import FileStorage
import Messaging

enum StoreMutation: String, CaseIterable {
    case shardEntryNotRecorded
    /// A shard stays as it was when it was being filled.
    case openedShardNotRecorded
    case decisionNotRecorded
}

/// One mutation of the stores of a run.
final class StoreMutator {
    private let mutation: StoreMutation
    private var random: SeededRandom
    private(set) var strikes = 0
    private var shards = Set<UInt64>()
    init(_ mutation: StoreMutation, seed: UInt64) {
        self.mutation = mutation
        random = SeededRandom(seed: seed &* 41)
    }

    /// Whether a store forgets a change.
    func loses(_ change: Change) -> Bool {
        switch change {
        case .inode(let inode):
            let isShard = inode.isDirectory && inode.pointee.flags.contains(.shard)
            if isShard { shards.insert(inode.pointee.number) } else { shards.remove(inode.pointee.number) }
            return isShard && mutation == .openedShardNotRecorded && !inode.pointee.flags.contains(.sealed) && strike(oneIn: 1)
        case .entry(let record, _, _, _, _): return mutation == .shardEntryNotRecorded && shards.contains(record) && strike(oneIn: 4)
        case .decision: return mutation == .decisionNotRecorded && strike(oneIn: 1)
        default: return false
        }
    }
    private func strike(oneIn n: Int) -> Bool {
        guard random.below(n) == 0 else { return false }
        strikes += 1
        return true
    }
}
