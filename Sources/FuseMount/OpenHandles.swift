// Which lock owners used which open file, when the file fleet keeps locks.
//
// Why: the lock of an open file description (F_OFD_SETLK) ends with the description, but the kernel tells a FUSE file
// system nothing then: locks_remove_posix() finds no local lock and sends no unlock, and RELEASE names only flocks'
// owners. A process' own locks are different: each close sends FLUSH with the process as the owner. So an owner that
// took a lock through an open file, and has not been flushed on it when RELEASE comes, is a description, and its locks
// are dropped.

import Synchronization

final class OpenHandles: Sendable {
    private struct State {
        var next: UInt64 = 1
        /// Only files on which a lock was taken are here.
        var owners: [UInt64: Set<UInt64>] = [:]
    }
    private let state = Mutex(State())

    /// A number for a new open file.
    func open() -> UInt64 {
        state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
    }

    func locked(_ handle: UInt64, by owner: UInt64) {
        state.withLock { _ = $0.owners[handle, default: []].insert(owner) }
    }

    func flushed(_ handle: UInt64, by owner: UInt64) {
        state.withLock { state in
            guard state.owners[handle] != nil else { return }
            state.owners[handle]?.remove(owner)
            if state.owners[handle]?.isEmpty == true { state.owners[handle] = nil }
        }
    }

    /// Forgets a file, and says whose locks go with it.
    func release(_ handle: UInt64) -> Set<UInt64> {
        state.withLock { $0.owners.removeValue(forKey: handle) ?? [] }
    }
}
