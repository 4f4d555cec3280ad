// Whether a history of overlapping operations could have been one of operations that each happened at one moment.
//
// Role: the heart of the checker. A history is linearizable if its operations can be ordered so that each lies between
// its invocation and its return, and the model, run in that order, gives every answer that was seen (Herlihy and Wing,
// TOPLAS 1990). The search is Wing and Gong's with Lowe's memory of states that led nowhere ("Testing for
// linearizability", 2017): depth first, undoing what does not lead on. An operation that only looks is ordered as soon as its
// answer fits, for good: whatever order there is for the rest, there is one with this in front of it.
// Invariants: an operation that never returned, or whose outcome nobody knows, may have happened at any time after its
// invocation, or never. Two partial orders are taken for one if they have the same operations and the model's fingerprint:
// 128 bits of both decide it.

import Messaging

/// A sequential object: what its operations do, and what they must have answered.
public protocol SequentialModel {
    associatedtype State
    associatedtype Operation
    /// The state after an operation with the answer that was seen; nil if it cannot have answered so in this state.
    static func apply(_ operation: Operation, to state: State) -> State?
    /// Whether the operation, with the answer that was seen, leaves every state as it is.
    static func onlyLooks(_ operation: Operation) -> Bool
    /// Differs, but for chance, for states that differ.
    static func fingerprint(_ state: State) -> UInt64
}

public struct Timed<Operation> {
    public var operation: Operation
    public var invoked: UInt64
    /// .max: it never returned.
    public var returned: UInt64
    /// For messages: who did it.
    public var thread: Int
    public init(_ operation: Operation, invoked: UInt64, returned: UInt64, thread: Int) {
        self.operation = operation
        self.invoked = invoked
        self.returned = returned
        self.thread = thread
    }
}

public enum Verdict<Operation> {
    case linearizable
    /// No order fits. `after` operations could be ordered; `stuck` are those of which one would have had to come next.
    case impossible(after: Int, stuck: [Timed<Operation>])
    /// The search was given up.
    case undecided(steps: Int)
}

public struct LinearizabilityChecker<Model: SequentialModel> {
    public typealias Operation = Model.Operation
    public var stepsMax = 2_000_000
    public init() {}

    private struct Frame {
        let operation: Int
        let before: Model.State
        /// It only looks, so there is no need to try the others instead.
        let onlyLooks: Bool
    }
    private struct Visited: Hashable {
        let operations: UInt64
        let state: UInt64
    }

    public func check(_ history: [Timed<Operation>], from initial: Model.State) -> Verdict<Operation> {
        let operations = history.sorted { $0.invoked != $1.invoked ? $0.invoked < $1.invoked : $0.returned < $1.returned }
        let total = operations.count { $0.returned != .max }
        var isDone = [Bool](repeating: false, count: operations.count)
        var first = 0
        var finished = 0
        var state = initial
        var fingerprint: UInt64 = 0
        var stack: [Frame] = []
        var visited = Set<Visited>()
        var candidate = 0
        var steps = 0
        var deepest = -1
        var stuck: [Timed<Operation>] = []
        while finished < total {
            while first < operations.count, isDone[first] { first += 1 }
            let limit = earliestReturn(operations, isDone, from: first)
            if candidate == 0, let look = fittingLook(operations, isDone, from: first, until: limit, state, &steps) {
                stack.append(Frame(operation: look, before: state, onlyLooks: true))
                fingerprint ^= mark(look)
                isDone[look] = true
                finished += 1
                continue
            }
            var advanced = false
            var index = max(candidate, first)
            while index < operations.count, operations[index].invoked <= limit {
                defer { index += 1 }
                if isDone[index] { continue }
                steps += 1
                guard let next = Model.apply(operations[index].operation, to: state) else { continue }
                let marked = fingerprint ^ mark(index)
                guard visited.insert(Visited(operations: marked, state: Model.fingerprint(next))).inserted else { continue }
                stack.append(Frame(operation: index, before: state, onlyLooks: false))
                state = next
                fingerprint = marked
                isDone[index] = true
                if operations[index].returned != .max { finished += 1 }
                advanced = true
                break
            }
            if advanced {
                candidate = 0
                continue
            }
            if stack.count > deepest {
                deepest = stack.count
                stuck = operations.indices.filter { !isDone[$0] && operations[$0].invoked <= limit }.map { operations[$0] }
            }
            guard steps < stepsMax else { return .undecided(steps: steps) }
            var onlyLooks = true
            while onlyLooks {
                guard let frame = stack.popLast() else { return .impossible(after: deepest, stuck: stuck) }
                isDone[frame.operation] = false
                first = min(first, frame.operation)
                if operations[frame.operation].returned != .max { finished -= 1 }
                fingerprint ^= mark(frame.operation)
                state = frame.before
                candidate = frame.operation + 1
                onlyLooks = frame.onlyLooks
            }
        }
        return .linearizable
    }

    /// One of the operations that may come next that only looks and whose answer fits.
    private func fittingLook(
        _ operations: [Timed<Operation>], _ isDone: [Bool], from first: Int, until limit: UInt64, _ state: Model.State, _ steps: inout Int
    ) -> Int? {
        var index = first
        while index < operations.count, operations[index].invoked <= limit {
            defer { index += 1 }
            if isDone[index] || operations[index].returned == .max || !Model.onlyLooks(operations[index].operation) { continue }
            steps += 1
            if Model.apply(operations[index].operation, to: state) != nil { return index }
        }
        return nil
    }

    /// The first return among operations that are not ordered yet: whatever was invoked after it comes later.
    private func earliestReturn(_ operations: [Timed<Operation>], _ isDone: [Bool], from first: Int) -> UInt64 {
        var limit = UInt64.max
        var index = first
        while index < operations.count, operations[index].invoked <= limit {
            if !isDone[index] { limit = min(limit, operations[index].returned) }
            index += 1
        }
        return limit
    }

    /// A random number of each operation; sets of operations are the sums of their members'.
    private func mark(_ index: Int) -> UInt64 {
        SeededMark(UInt64(index)).next()
    }
}

/// The first number of a stream whose seed is the value: one mark for each value, and different ones for all.
struct SeededMark {
    private let value: UInt64
    init(_ value: UInt64) { self.value = value }
    func next() -> UInt64 {
        var stream = SeededRandom(seed: value &* 0x9e37_79b9_7f4a_7c15)
        return stream.next()
    }
}
