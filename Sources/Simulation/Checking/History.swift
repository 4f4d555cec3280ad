// What the clients of a run saw, as the checker's models read it.
//
// Role: programs record each operation when its answer is there; `check` asks the models for an order. An operation whose
// client died, or that was answered EIO because a server did, may have happened or not.
// Invariants: times are virtual, and an operation lies between its first sending and its answer; a value that a client took
// from its cache is an operation of one moment.

import Simulator

public struct Violation: Sendable, CustomStringConvertible {
    /// What is broken: "names", "file 4097", "locks", "time", "state", "stuck", "protocol".
    public var subject: String
    public var text: String
    public init(_ subject: String, _ text: String) {
        self.subject = subject
        self.text = text
    }
    public var description: String { "\(subject): \(text)" }
}

public final class History {
    public private(set) var tree: [Timed<TreeOperation>] = []
    public private(set) var files: [UInt64: [Timed<FileOperation>]] = [:]
    /// Of each name of the name service.
    private var services: [Int: [Timed<NameOperation>]] = [:]
    public private(set) var locks: [UInt64: [Timed<LockOperation>]] = [:]
    /// Names that something may have changed, and when: what a cache or a listing says of them meanwhile is not one moment's.
    private var changes: [TreeState.Key: [(from: UInt64, to: UInt64)]] = [:]
    private var meanings: [Timed<TreeOperation>] = []
    /// Changes of files that were acknowledged: when the change was begun, and when its answer came.
    private var touched: [UInt64: [(begun: UInt64, known: UInt64)]] = [:]
    private var doubled: [(key: TreeState.Key, invoked: UInt64, returned: UInt64)] = []
    private var times: [(inode: UInt64, at: UInt64, changed: UInt64)] = []
    private var creations: [(operation: TreeOperation, invoked: UInt64, thread: Int)] = []
    /// What is wrong whatever the order.
    private var plain: [Violation] = []
    public private(set) var operations = 0
    /// What servers made; nil: they tell nobody.
    public var births: BirthLog?

    public init() {}

    // MARK: Recording

    public func record(_ operation: TreeOperation, invoked: UInt64, returned: UInt64, thread: Int) {
        operations += 1
        tree.append(Timed(operation, invoked: invoked, returned: returned, thread: thread))
        note(operation, invoked, returned)
    }
    public func record(_ operation: FileOperation, of inode: UInt64, invoked: UInt64, returned: UInt64, thread: Int) {
        operations += 1
        files[inode, default: []].append(Timed(operation, invoked: invoked, returned: returned, thread: thread))
    }
    public func record(_ operation: LockOperation, of inode: UInt64, invoked: UInt64, returned: UInt64, thread: Int) {
        operations += 1
        locks[inode, default: []].append(Timed(operation, invoked: invoked, returned: returned, thread: thread))
    }
    public func record(_ operation: NameOperation, ofName name: Int, invoked: UInt64, returned: UInt64, thread: Int) {
        operations += 1
        services[name, default: []].append(Timed(operation, invoked: invoked, returned: returned, thread: thread))
    }
    /// What no order excuses.
    public func recordWrong(_ subject: String, _ text: String) { plain.append(Violation(subject, text)) }
    /// A name's meaning from a cache or a listing, which counts if nothing was changing the name.
    public func recordMeaning(directory: UInt64, name: Int, inode: UInt64, invoked: UInt64, returned: UInt64, thread: Int) {
        meanings.append(Timed(.meant(directory: directory, name: name, inode: inode), invoked: invoked, returned: returned, thread: thread))
    }
    /// MKDIR or CREATE without an answer.
    public func recordUncertainCreation(directory: UInt64, name: Int, isDirectory: Bool, invoked: UInt64, thread: Int) {
        operations += 1
        creations.append(
            (
                .make(directory: directory, name: name, isDirectory: isDirectory, opensExisting: false, status: 0, inode: 0, isNew: true),
                invoked, thread
            ))
        changes[TreeState.Key(directory: directory, name: name), default: []].append((invoked, .max))
    }
    /// A listing has a name twice, which counts if nothing was changing the name: it may go while the directory is listed, and
    /// come again.
    public func recordDoubledName(_ directory: UInt64, _ name: Int, invoked: UInt64, returned: UInt64) {
        doubled.append((TreeState.Key(directory: directory, name: name), invoked, returned))
    }
    /// EIO says that a server died, and none did.
    public func recordUnexplained(_ operation: UInt16, _ inode: UInt64) {
        plain.append(Violation("protocol", "operation \(operation) on inode \(inode) was answered EIO, and no server had died"))
    }
    /// An acknowledged change of an inode must move its time forward.
    public func recordChange(of inode: UInt64, begun: UInt64, known: UInt64) { touched[inode, default: []].append((begun, known)) }
    /// An inode was new: what was acknowledged of an earlier one with its number says nothing of it.
    public func recordBirth(of inode: UInt64) { touched[inode] = nil }
    /// `changed`: ctime in ns of virtual time.
    public func recordTime(of inode: UInt64, at invoked: UInt64, changed: UInt64) {
        guard let late = touched[inode]?.last(where: { $0.known <= invoked && $0.begun / 1000 > changed }) else { return }
        times.append((inode, late.begun, changed))
    }

    private func note(_ operation: TreeOperation, _ from: UInt64, _ to: UInt64) {
        func change(_ directory: UInt64, _ name: Int) {
            changes[TreeState.Key(directory: directory, name: name), default: []].append((from, to))
        }
        switch operation {
        case .make(let directory, let name, _, _, 0, _, true): change(directory, name)
        case .link(_, let directory, let name, 0), .unlink(let directory, let name, 0), .removeDirectory(let directory, let name, 0):
            change(directory, name)
        case .rename(let directory, let old, let newDirectory, let new, _, 0):
            change(directory, old)
            change(newDirectory, new)
        case .uncertain(let inner): note(inner, from, .max)
        default: break
        }
    }

    // MARK: Checking

    /// Everything that no order of the operations explains.
    /// - Parameters:
    ///   - lostSlots: whose inodes a crash may have taken.
    ///   - shards: slots that a directory's entries can be in, its own the first.
    public func check(root: UInt64, lostSlots: Set<Int> = [], shards: Int = 1, stepsMax: Int = 20_000_000) -> [Violation] {
        var violations: [Violation] = []
        let stable = meanings.filter { meaning in
            guard case .meant(let directory, let name, _) = meaning.operation else { return false }
            return isStable(TreeState.Key(directory: directory, name: name), meaning.invoked, meaning.returned)
        }
        var names = LinearizabilityChecker<TreeModel>()
        names.stepsMax = stepsMax
        report(
            names.check(tree + stable + unanswered(), from: TreeState(root: root, lostSlots: lostSlots, shards: shards)), "names",
            &violations)
        violations += plain
        for each in doubled where isStable(each.key, each.invoked, each.returned) {
            violations.append(Violation("names", "a listing of directory \(each.key.directory) has name \(each.key.name) twice"))
        }
        // A file whose creation was not answered begins as one all the same.
        for birth in creations.isEmpty ? [] : unexplainedBirths(births?.births ?? []) where !birth.isDirectory && files[birth.number] != nil
        {
            files[birth.number]?.append(Timed(.born(mode: birth.mode), invoked: birth.at, returned: birth.at + 999, thread: -2))
        }
        for inode in files.keys.sorted() {
            report(LinearizabilityChecker<FileModel>().check(files[inode] ?? [], from: FileState()), "file \(inode)", &violations)
        }
        for name in services.keys.sorted() {
            report(LinearizabilityChecker<NameModel>().check(services[name] ?? [], from: 0), "service name \(name)", &violations)
        }
        for inode in locks.keys.sorted() {
            report(LinearizabilityChecker<LockModel>().check(locks[inode] ?? [], from: LockState()), "locks of \(inode)", &violations)
        }
        for late in times {
            violations.append(
                Violation("time", "inode \(late.inode) was changed after \(late.at / 1000) ns, and its ctime is \(late.changed) ns"))
        }
        return violations
    }

    /// Whether nothing may have changed a name between two moments.
    private func isStable(_ key: TreeState.Key, _ invoked: UInt64, _ returned: UInt64) -> Bool {
        !(changes[key] ?? []).contains { $0.from <= returned && $0.to >= invoked }
    }

    /// Creations without an answer, as having made any inode that is none of an answered one's.
    private func unanswered() -> [Timed<TreeOperation>] {
        guard !creations.isEmpty else { return [] }
        let unexplained = births.map { unexplainedBirths($0.births) }
        var all: [Timed<TreeOperation>] = []
        for (index, creation) in creations.enumerated() {
            guard case .make(let directory, let name, let isDirectory, _, _, _, _) = creation.operation else { continue }
            let candidates: [UInt64]
            if let unexplained {
                candidates = unexplained.filter { $0.isDirectory == isDirectory && $0.at + 999 >= creation.invoked }.map(\.number)
            } else {
                // One that nobody saw may have been removed by its name; any number that no inode has stands for it.
                candidates = seenAndNotMade(under: TreeState.Key(directory: directory, name: name)) + [UInt64.max - UInt64(index)]
            }
            for inode in Set(candidates).sorted() where inode != 1 {
                all.append(
                    Timed(
                        .make(
                            directory: directory, name: name, isDirectory: isDirectory, opensExisting: false, status: 0, inode: inode,
                            isNew: true),
                        invoked: creation.invoked, returned: .max, thread: creation.thread))
            }
        }
        return all
    }

    /// What servers made beside what clients were told of.
    private func unexplainedBirths(_ births: [BirthLog.Birth]) -> [BirthLog.Birth] {
        var left = births
        for timed in tree {
            guard case .make(_, _, _, _, 0, let inode, true) = timed.operation else { continue }
            if let found = left.firstIndex(where: { $0.number == inode && $0.at + 999 >= timed.invoked && $0.at <= timed.returned }) {
                left.remove(at: found)
            }
        }
        return left
    }

    /// Where servers tell nobody what they make: inodes that somebody saw and nobody is known to have made, or that were seen under
    /// the name, as an earlier inode may have had its number.
    private func seenAndNotMade(under key: TreeState.Key) -> [UInt64] {
        var seen = Set<UInt64>()
        var made = Set<UInt64>()
        var meant = Set<UInt64>()
        func see(_ directory: UInt64, _ name: Int, _ inode: UInt64) {
            seen.insert(inode)
            if TreeState.Key(directory: directory, name: name) == key { meant.insert(inode) }
        }
        for timed in tree + meanings {
            switch timed.operation {
            case .make(let directory, let name, _, _, 0, let inode, let isNew):
                if isNew { made.insert(inode) } else { see(directory, name, inode) }
            case .lookup(let directory, let name, 0, let inode): see(directory, name, inode)
            case .attributes(let inode, 0, _, _): seen.insert(inode)
            case .meant(let directory, let name, let inode): if inode != 0 { see(directory, name, inode) }
            default: break
            }
        }
        return Array(seen.subtracting(made).union(meant))
    }

    private func report<Operation>(_ verdict: Verdict<Operation>, _ subject: String, _ violations: inout [Violation]) {
        switch verdict {
        case .linearizable: break
        case .undecided(let steps): violations.append(Violation(subject, "no order was found in \(steps) steps"))
        case .impossible(let after, let stuck):
            let list = stuck.prefix(12).map {
                "  thread \($0.thread), \($0.invoked / 1000) to \($0.returned == .max ? "?" : "\($0.returned / 1000)") ns: \($0.operation)"
            }
            violations.append(
                Violation(subject, "no order explains the answers; \(after) operations fit, then none of\n" + list.joined(separator: "\n")))
        }
    }
}
