// A model of the lock table without any cleverness: a byte of state for each byte of each inode and each owner.

import FileStorage

struct LockModel {
    static let bytes = 24

    struct Waiter {
        var token: UInt64
        var inode: Int
        var request: LockRequest
        var isFlock: Bool
    }

    /// What each owner holds of each byte: 0 nothing, 1 read, 2 write.
    var held: [[LockOwner: [UInt8]]]
    /// Owners in the order of their first range on the inode.
    var order: [[LockOwner]]
    var flocks: [[LockOwner: LockKind]]
    /// First come first, over all inodes.
    var waiters: [Waiter] = []
    var outcomes: [LockOutcome] = []
    /// Inodes with locks or waiters, the youngest first: when a client goes, its locks go in this order, and which of
    /// two waits that close a circle together ends with EDEADLK depends on it.
    var active: [Int] = []

    init(inodes: Int) {
        held = Array(repeating: [:], count: inodes)
        order = Array(repeating: [], count: inodes)
        flocks = Array(repeating: [:], count: inodes)
    }

    private func isConflict(_ state: UInt8, _ kind: LockKind) -> Bool { state == 2 || state == 1 && kind == .write }

    /// Owners whose ranges conflict with a request, in the order of the inode.
    func blockers(_ inode: Int, _ request: LockRequest) -> [LockOwner] {
        order[inode].filter { owner in
            owner != request.owner
                && held[inode][owner]![Int(request.start)...Int(request.end)].contains { isConflict($0, request.kind) }
        }
    }

    func flockIsBlocked(_ inode: Int, _ owner: LockOwner, _ kind: LockKind) -> Bool {
        flocks[inode].contains { $0.key != owner && ($0.value == .write || kind == .write) }
    }

    /// The first conflicting lock: of the first such owner, the first of its runs of one kind.
    func test(_ inode: Int, _ request: LockRequest) -> (owner: LockOwner, kind: LockKind, start: Int, end: Int)? {
        guard let owner = blockers(inode, request).first else { return nil }
        for run in runs(held[inode][owner]!) where run.start <= Int(request.end) && run.end >= Int(request.start) {
            if isConflict(run.state, request.kind) {
                return (owner, run.state == 2 ? .write : .read, run.start, run.end)
            }
        }
        return nil
    }

    private func runs(_ states: [UInt8]) -> [(state: UInt8, start: Int, end: Int)] {
        var result: [(state: UInt8, start: Int, end: Int)] = []
        for (index, state) in states.enumerated() where state != 0 {
            if let last = result.last, last.state == state, last.end == index - 1 {
                result[result.count - 1].end = index
            } else {
                result.append((state, index, index))
            }
        }
        return result
    }

    var lockCount: Int {
        var count = 0
        for inode in held.indices {
            count += flocks[inode].count
            for states in held[inode].values { count += runs(states).count }
        }
        return count
    }

    func closesCircle(_ inode: Int, _ request: LockRequest) -> Bool {
        if request.owner.isDescription { return false }
        var visited: Set<LockOwner> = []
        var work = blockers(inode, request).filter { !$0.isDescription }
        while let owner = work.popLast() {
            if owner == request.owner { return true }
            guard visited.insert(owner).inserted else { continue }
            for waiter in waiters where !waiter.isFlock && waiter.request.owner == owner {
                work += blockers(waiter.inode, waiter.request).filter { !$0.isDescription }
            }
        }
        return false
    }

    /// Gives whether anything became less locked.
    @discardableResult
    private mutating func apply(_ inode: Int, _ request: LockRequest) -> Bool {
        let new: UInt8 = request.kind == .unlock ? 0 : request.kind == .read ? 1 : 2
        var states = held[inode][request.owner] ?? Array(repeating: 0, count: LockModel.bytes)
        var reduced = false
        for index in Int(request.start)...Int(request.end) {
            if states[index] != 0, states[index] != new { reduced = true }
            states[index] = new
        }
        if states.allSatisfy({ $0 == 0 }) {
            held[inode][request.owner] = nil
            order[inode].removeAll { $0 == request.owner }
        } else {
            if held[inode][request.owner] == nil { order[inode].append(request.owner) }
            held[inode][request.owner] = states
        }
        return reduced
    }

    mutating func set(_ inode: Int, _ request: LockRequest, token: UInt64?) -> LockResult {
        if request.kind != .unlock, !blockers(inode, request).isEmpty {
            guard let token else { return .wouldBlock }
            if closesCircle(inode, request) { return .deadlock }
            waiters.append(Waiter(token: token, inode: inode, request: request, isFlock: false))
            return .waiting
        }
        apply(inode, request)
        wake(inode, flocks: false, request.start, request.end)
        return .granted
    }

    mutating func flock(_ inode: Int, _ owner: LockOwner, _ kind: LockKind, token: UInt64?) -> LockResult {
        if kind == .unlock {
            flocks[inode][owner] = nil
            wake(inode, flocks: true, 0, .max)
            return .granted
        }
        if flockIsBlocked(inode, owner, kind) {
            if let token {
                let request = LockRequest(owner: owner, kind: kind, start: 0, end: .max, pid: 0)
                waiters.append(Waiter(token: token, inode: inode, request: request, isFlock: true))
            }
            flocks[inode][owner] = nil
            wake(inode, flocks: true, 0, .max)
            return token == nil ? .wouldBlock : .waiting
        }
        flocks[inode][owner] = kind
        wake(inode, flocks: true, 0, .max)
        return .granted
    }

    mutating func release(_ inode: Int, owner: LockOwner) {
        held[inode][owner] = nil
        order[inode].removeAll { $0 == owner }
        wake(inode, flocks: false, 0, .max)
    }

    mutating func releaseFlock(_ inode: Int, owner: LockOwner) {
        flocks[inode][owner] = nil
        wake(inode, flocks: true, 0, .max)
    }

    /// To be called after each operation.
    mutating func settle() {
        for inode in held.indices {
            let isEmpty = held[inode].isEmpty && flocks[inode].isEmpty && !waiters.contains { $0.inode == inode }
            if isEmpty {
                active.removeAll { $0 == inode }
            } else if !active.contains(inode) {
                active.insert(inode, at: 0)
            }
        }
    }

    mutating func releaseAll(client: UInt32) {
        waiters.removeAll { $0.request.owner.client == client }
        for inode in held.indices {
            held[inode] = held[inode].filter { $0.key.client != client }
            order[inode].removeAll { $0.client == client }
            flocks[inode] = flocks[inode].filter { $0.key.client != client }
        }
        for inode in active {
            wake(inode, flocks: false, 0, .max)
            wake(inode, flocks: true, 0, .max)
        }
    }

    mutating func releaseAll(inode: Int) {
        for waiter in waiters where waiter.inode == inode {
            outcomes.append(LockOutcome(token: waiter.token, result: .cancelled))
        }
        waiters.removeAll { $0.inode == inode }
        held[inode] = [:]
        order[inode] = []
        flocks[inode] = [:]
    }

    mutating func cancel(token: UInt64) -> Bool {
        let before = waiters.count
        waiters.removeAll { $0.token == token }
        return waiters.count < before
    }

    mutating func wake(_ inode: Int, flocks isFlock: Bool, _ start: UInt64, _ end: UInt64) {
        var (start, end) = (start, end)
        var isChanged = true
        while isChanged {
            isChanged = false
            for token in waiters.filter({ $0.inode == inode && $0.isFlock == isFlock }).map(\.token) {
                guard let at = waiters.firstIndex(where: { $0.token == token }) else { continue }
                let request = waiters[at].request
                guard request.start <= end, start <= request.end else { continue }
                if isFlock {
                    if flockIsBlocked(inode, request.owner, request.kind) { continue }
                    flocks[inode][request.owner] = request.kind
                    finish(at, .granted)
                    continue
                }
                if !blockers(inode, request).isEmpty {
                    if closesCircle(inode, request) { finish(at, .deadlock) }
                    continue
                }
                let reduced = apply(inode, request)
                finish(at, .granted)
                start = min(start, request.start)
                end = max(end, request.end)
                isChanged = true
                if reduced { break }
            }
        }
    }

    private mutating func finish(_ at: Int, _ result: LockResult) {
        outcomes.append(LockOutcome(token: waiters[at].token, result: result))
        waiters.remove(at: at)
    }
}
