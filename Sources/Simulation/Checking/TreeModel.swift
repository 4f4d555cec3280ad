// The reference model of the namespace: directories, names, and the links of files, as one sequential object.
//
// Role: decides whether names and links behaved as if each operation had happened at one moment: lookups, creations,
// removals, links, renames of every kind. That an entry was neither lost nor doubled, and that renames are atomic, follows
// from it, since a history in which one was has no order.
// What is not in it: links of directories and listings under change, which a rename between two servers changes in two
// moments (docs/simulation.md); the state at the end of a run is checked for them.

import Glibc
import Messaging

/// One operation on the namespace and the answer it got.
public enum TreeOperation: Sendable {
    /// CREATE without O_EXCL (`opensExisting`), with it, MKDIR. `inode`: the answer's.
    case make(directory: UInt64, name: Int, isDirectory: Bool, opensExisting: Bool, status: Int32, inode: UInt64, isNew: Bool)
    case lookup(directory: UInt64, name: Int, status: Int32, inode: UInt64)
    case link(target: UInt64, directory: UInt64, name: Int, status: Int32)
    case unlink(directory: UInt64, name: Int, status: Int32)
    case removeDirectory(directory: UInt64, name: Int, status: Int32)
    case rename(directory: UInt64, old: Int, newDirectory: UInt64, new: Int, flags: UInt32, status: Int32)
    /// GETATTR: links of a file; for a directory only that it is there.
    case attributes(inode: UInt64, status: Int32, isDirectory: Bool, links: UInt32)
    /// What a name meant at a moment when nothing changed it: 0 for nothing. From caches and listings.
    case meant(directory: UInt64, name: Int, inode: UInt64)
    /// A server answered that what was asked for is lost, or that nobody knows how far it came.
    indirect case uncertain(TreeOperation)
}

public struct TreeState: Sendable {
    struct Key: Hashable, Sendable {
        let directory: UInt64
        let name: Int
    }
    struct Node: Sendable {
        var isDirectory: Bool
        /// Names of a file.
        var links: UInt32 = 1
        /// Entries of a directory.
        var entries = 0
        var parent: UInt64 = 0
    }
    private(set) var names: [Key: UInt64] = [:]
    private(set) var nodes: [UInt64: Node] = [:]
    private(set) var fingerprint: UInt64 = 0
    /// Slots whose inodes a crash may have taken; the names of what is lost can be removed, whatever it held.
    private let lostSlots: Set<Int>
    /// Slots that a directory's entries can be in, its own the first.
    private let shards: Int

    /// A tree of one directory.
    public init(root: UInt64, lostSlots: Set<Int> = [], shards: Int = 1) {
        self.lostSlots = lostSlots
        self.shards = shards
        setNode(root, Node(isDirectory: true, parent: root))
    }
    /// Whether a directory, or some of its entries, may be lost.
    func mayBeLost(_ inode: UInt64) -> Bool {
        !lostSlots.isEmpty && (0..<shards).contains { lostSlots.contains(Int((inode &+ UInt64($0)) & 4095)) }
    }

    func node(_ inode: UInt64) -> Node? { nodes[inode] }
    func child(_ directory: UInt64, _ name: Int) -> UInt64? { names[Key(directory: directory, name: name)] }

    mutating func setNode(_ inode: UInt64, _ node: Node?) {
        if let old = nodes[inode] { fingerprint ^= mark(inode, old) }
        nodes[inode] = node
        if let node { fingerprint ^= mark(inode, node) }
    }
    mutating func setName(_ directory: UInt64, _ name: Int, _ inode: UInt64?) {
        let key = Key(directory: directory, name: name)
        if let old = names[key] {
            fingerprint ^= mark(key, old)
            if var parent = nodes[directory] {
                parent.entries -= 1
                setNode(directory, parent)
            }
        }
        names[key] = inode
        guard let inode else { return }
        fingerprint ^= mark(key, inode)
        if var parent = nodes[directory] {
            parent.entries += 1
            setNode(directory, parent)
        }
    }
    mutating func addLinks(_ inode: UInt64, _ change: Int) {
        guard var node = nodes[inode] else { return }
        node.links = UInt32(Int(node.links) + change)
        setNode(inode, node.links == 0 ? nil : node)
    }
    /// A directory is gone, with what a lost shard had of its names: its number may have another one.
    mutating func endDirectory(_ inode: UInt64) {
        if let node = nodes[inode], node.entries > 0 {
            for key in names.keys where key.directory == inode { setName(inode, key.name, nil) }
        }
        setNode(inode, nil)
    }
    mutating func setParent(_ inode: UInt64, _ parent: UInt64) {
        guard var node = nodes[inode] else { return }
        node.parent = parent
        setNode(inode, node)
    }
    func isBelow(_ inode: UInt64, _ ancestor: UInt64) -> Bool {
        var current = inode
        for _ in 0...nodes.count {
            if current == ancestor { return true }
            guard let node = nodes[current], node.parent != current else { return false }
            current = node.parent
        }
        return false
    }

    private func mark(_ inode: UInt64, _ node: Node) -> UInt64 {
        mix(inode, UInt64(node.links) << 1 | (node.isDirectory ? 1 : 0), UInt64(node.entries), node.isDirectory ? node.parent : 0)
    }
    private func mark(_ key: Key, _ inode: UInt64) -> UInt64 { mix(key.directory, UInt64(key.name) | 1 << 62, inode, 7) }
    private func mix(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64) -> UInt64 {
        SeededMark(SeededMark(SeededMark(SeededMark(a).next() ^ b).next() ^ c).next() ^ d).next()
    }
}

public enum TreeModel: SequentialModel {
    public static func fingerprint(_ state: TreeState) -> UInt64 { state.fingerprint }

    public static func onlyLooks(_ operation: TreeOperation) -> Bool {
        switch operation {
        case .lookup, .attributes, .meant: true
        case .make(_, _, _, _, let status, _, let isNew): status != 0 || !isNew
        case .link(_, _, _, let status), .unlink(_, _, let status), .removeDirectory(_, _, let status), .rename(_, _, _, _, _, let status):
            status != 0
        case .uncertain: false
        }
    }

    public static func apply(_ operation: TreeOperation, to state: TreeState) -> TreeState? {
        switch operation {
        case .make(let directory, let name, let isDirectory, let opensExisting, let status, let inode, let isNew):
            make(state, directory, name, isDirectory, opensExisting, status, inode, isNew)
        case .lookup(let directory, let name, let status, let inode): lookup(state, directory, name, status, inode)
        case .link(let target, let directory, let name, let status): link(state, target, directory, name, status)
        case .unlink(let directory, let name, let status): unlink(state, directory, name, status)
        case .removeDirectory(let directory, let name, let status): removeDirectory(state, directory, name, status)
        case .rename(let directory, let old, let newDirectory, let new, let flags, let status):
            rename(state, directory, old, newDirectory, new, flags, status)
        case .attributes(let inode, let status, let isDirectory, let links):
            attributes(state, inode, status, isDirectory, links)
        case .meant(let directory, let name, let inode): (state.child(directory, name) ?? 0) == inode ? state : nil
        // One that has no effect now need not come now; it never need.
        case .uncertain(let operation): apply(operation, to: state)
        }
    }

    /// Errors of any operation that is asked of a directory; 0 if there is none.
    private static func refusal(_ state: TreeState, _ directory: UInt64) -> Int32 {
        guard let node = state.node(directory) else { return -ESTALE }
        return node.isDirectory ? 0 : -ENOTDIR
    }
    /// A directory that is gone is named by either error, as its owner or another server's finds it out.
    private static func agrees(_ status: Int32, _ expected: Int32) -> Bool {
        status == expected || (expected == -ESTALE && status == -ENOENT)
    }

    private static func make(
        _ state: TreeState, _ directory: UInt64, _ name: Int, _ isDirectory: Bool, _ opensExisting: Bool, _ status: Int32, _ inode: UInt64,
        _ isNew: Bool
    ) -> TreeState? {
        let refused = refusal(state, directory)
        guard refused == 0 else { return agrees(status, refused) ? state : nil }
        if let child = state.child(directory, name) {
            if !opensExisting { return status == -EEXIST ? state : nil }
            if state.node(child)?.isDirectory ?? false { return status == -EISDIR ? state : nil }
            return status == 0 && !isNew && inode == child ? state : nil
        }
        guard status == 0, isDirectory || !opensExisting || isNew, state.node(inode) == nil else { return nil }
        var next = state
        next.setNode(inode, TreeState.Node(isDirectory: isDirectory, parent: directory))
        next.setName(directory, name, inode)
        return next
    }

    private static func lookup(_ state: TreeState, _ directory: UInt64, _ name: Int, _ status: Int32, _ inode: UInt64) -> TreeState? {
        let refused = refusal(state, directory)
        guard refused == 0 else { return agrees(status, refused) ? state : nil }
        guard let child = state.child(directory, name) else { return status == -ENOENT ? state : nil }
        return status == 0 && inode == child ? state : nil
    }

    private static func link(_ state: TreeState, _ target: UInt64, _ directory: UInt64, _ name: Int, _ status: Int32) -> TreeState? {
        var errors: [Int32] = []
        let refused = refusal(state, directory)
        if refused != 0 { errors.append(refused) }
        if state.child(directory, name) != nil { errors.append(-EEXIST) }
        switch state.node(target)?.isDirectory {
        case nil: errors.append(-ENOENT)
        case true?: errors.append(-EPERM)
        case false?: break
        }
        guard errors.isEmpty else { return errors.contains { agrees(status, $0) } ? state : nil }
        guard status == 0 else { return nil }
        var next = state
        next.setName(directory, name, target)
        next.addLinks(target, 1)
        return next
    }

    private static func unlink(_ state: TreeState, _ directory: UInt64, _ name: Int, _ status: Int32) -> TreeState? {
        let refused = refusal(state, directory)
        guard refused == 0 else { return agrees(status, refused) ? state : nil }
        guard let child = state.child(directory, name) else { return status == -ENOENT ? state : nil }
        if state.node(child)?.isDirectory ?? false { return status == -EISDIR ? state : nil }
        guard status == 0 else { return nil }
        var next = state
        next.setName(directory, name, nil)
        next.addLinks(child, -1)
        return next
    }

    private static func removeDirectory(_ state: TreeState, _ directory: UInt64, _ name: Int, _ status: Int32) -> TreeState? {
        let refused = refusal(state, directory)
        guard refused == 0 else { return agrees(status, refused) ? state : nil }
        guard let child = state.child(directory, name) else { return status == -ENOENT ? state : nil }
        guard let node = state.node(child), node.isDirectory else { return status == -ENOTDIR ? state : nil }
        if node.entries > 0, status != 0 || !state.mayBeLost(child) { return status == -ENOTEMPTY ? state : nil }
        guard status == 0 else { return nil }
        var next = state
        next.setName(directory, name, nil)
        next.endDirectory(child)
        return next
    }

    private static func attributes(_ state: TreeState, _ inode: UInt64, _ status: Int32, _ isDirectory: Bool, _ links: UInt32) -> TreeState?
    {
        guard let node = state.node(inode) else { return status == -ESTALE ? state : nil }
        guard status == 0, node.isDirectory == isDirectory else { return nil }
        return isDirectory || node.links == links ? state : nil
    }

    /// Every error that applies. Which of them a file system names first is its own choice.
    private static func renameErrors(
        _ state: TreeState, _ directory: UInt64, _ old: Int, _ newDirectory: UInt64, _ new: Int, _ flags: UInt32
    ) -> [Int32] {
        var errors: [Int32] = []
        for each in [directory, newDirectory] {
            let refused = refusal(state, each)
            if refused != 0 { errors.append(refused) }
        }
        guard let source = state.child(directory, old) else { return errors + [-ENOENT] }
        let victim = state.child(newDirectory, new)
        let sourceIsDirectory = state.node(source)?.isDirectory ?? false
        let victimIsDirectory = victim.map { state.node($0)?.isDirectory ?? false } ?? false
        if sourceIsDirectory, directory != newDirectory, state.isBelow(newDirectory, source) { errors.append(-EINVAL) }
        if flags == 1, victim != nil { errors.append(-EEXIST) }
        if flags == 2, victim == nil { errors.append(-ENOENT) }
        guard let victim, victim != source else { return errors }
        if flags == 2 {
            if victimIsDirectory, directory != newDirectory, state.isBelow(directory, victim) { errors.append(-EINVAL) }
            return errors
        }
        if sourceIsDirectory, !victimIsDirectory { errors.append(-ENOTDIR) }
        if !sourceIsDirectory, victimIsDirectory { errors.append(-EISDIR) }
        if victimIsDirectory, (state.node(victim)?.entries ?? 0) > 0 { errors.append(-ENOTEMPTY) }
        return errors
    }

    private static func rename(
        _ state: TreeState, _ directory: UInt64, _ old: Int, _ newDirectory: UInt64, _ new: Int, _ flags: UInt32, _ status: Int32
    ) -> TreeState? {
        var errors = renameErrors(state, directory, old, newDirectory, new, flags)
        // Whether what may be lost is empty only its server knows.
        if status == 0, let victim = state.child(newDirectory, new), state.mayBeLost(victim) { errors.removeAll { $0 == -ENOTEMPTY } }
        guard errors.isEmpty else { return errors.contains { agrees(status, $0) } ? state : nil }
        guard status == 0, let source = state.child(directory, old) else { return nil }
        let victim = state.child(newDirectory, new)
        if victim == source { return state }
        var next = state
        if flags == 2, let victim {
            next.setName(directory, old, victim)
            next.setName(newDirectory, new, source)
            next.setParent(victim, directory)
        } else {
            next.setName(directory, old, nil)
            next.setName(newDirectory, new, source)
            if let victim { if next.node(victim)?.isDirectory ?? false { next.endDirectory(victim) } else { next.addLinks(victim, -1) } }
        }
        next.setParent(source, newDirectory)
        return next
    }
}
