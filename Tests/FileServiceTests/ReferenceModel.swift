// A reference model of names: what a single, simple file system would answer. As plain as it can be.

import Glibc

final class ModelNode {
    let identity: Int
    let kind: UInt8  // DT_*
    var links: Int
    var entries: [String: ModelNode] = [:]
    var parent: ModelNode?
    var content: [UInt8] = []

    init(_ identity: Int, kind: UInt8, parent: ModelNode? = nil) {
        self.identity = identity
        self.kind = kind
        self.parent = parent
        links = kind == 4 ? 2 : 1
    }
    var isDirectory: Bool { kind == 4 }
    var isDead: Bool { isDirectory && links == 0 }

    func isBelow(_ other: ModelNode) -> Bool {
        var node: ModelNode? = self
        while let current = node {
            if current === other { return true }
            node = current.parent
        }
        return false
    }
}

/// Operations as a privileged user, on nodes that exist. Each returns 0 or a negative errno.
final class Model {
    let root = ModelNode(0, kind: 4)
    private var count = 0

    func make(_ parent: ModelNode, _ name: String, kind: UInt8) -> (Int32, ModelNode?) {
        guard parent.isDirectory else { return (-ENOTDIR, nil) }
        if parent.entries[name] != nil { return (-EEXIST, nil) }
        if parent.isDead { return (-ENOENT, nil) }
        count += 1
        let node = ModelNode(count, kind: kind, parent: kind == 4 ? parent : nil)
        parent.entries[name] = node
        if kind == 4 { parent.links += 1 }
        return (0, node)
    }
    func link(_ node: ModelNode, _ parent: ModelNode, _ name: String) -> Int32 {
        guard parent.isDirectory else { return -ENOTDIR }
        if parent.entries[name] != nil { return -EEXIST }
        if parent.isDead { return -ENOENT }
        if node.isDirectory { return -EPERM }
        if node.links == 0 { return -ENOENT }
        parent.entries[name] = node
        node.links += 1
        return 0
    }
    func unlink(_ parent: ModelNode, _ name: String) -> Int32 {
        guard parent.isDirectory else { return -ENOTDIR }
        guard let node = parent.entries[name] else { return -ENOENT }
        if node.isDirectory { return -EISDIR }
        parent.entries[name] = nil
        node.links -= 1
        return 0
    }
    func rmdir(_ parent: ModelNode, _ name: String) -> Int32 {
        guard parent.isDirectory else { return -ENOTDIR }
        guard let node = parent.entries[name] else { return -ENOENT }
        guard node.isDirectory else { return -ENOTDIR }
        guard node.entries.isEmpty else { return -ENOTEMPTY }
        parent.entries[name] = nil
        parent.links -= 1
        node.links = 0
        return 0
    }
    /// All errors that apply: which of them a file system names first is its own choice.
    func refusals(_ parent: ModelNode, _ old: String, _ newParent: ModelNode, _ new: String, _ flags: UInt32) -> Set<Int32> {
        guard parent.isDirectory else { return [-ENOTDIR] }
        guard let node = parent.entries[old] else { return [-ENOENT] }
        guard newParent.isDirectory else { return [-ENOTDIR] }
        let victim = newParent.entries[new]
        var all: Set<Int32> = []
        if newParent.isDead { all.insert(-ENOENT) }
        if node.isDirectory, parent !== newParent, newParent.isBelow(node) { all.insert(-EINVAL) }
        if flags == 1, victim != nil { all.insert(-EEXIST) }
        if flags == 2, victim == nil { all.insert(-ENOENT) }
        guard let victim, victim !== node else { return all }
        if flags == 2 {
            if victim.isDirectory, parent !== newParent, parent.isBelow(victim) { all.insert(-EINVAL) }
            return all
        }
        if node.isDirectory && !victim.isDirectory { all.insert(-ENOTDIR) }
        if !node.isDirectory && victim.isDirectory { all.insert(-EISDIR) }
        if victim.isDirectory && !victim.entries.isEmpty { all.insert(-ENOTEMPTY) }
        return all
    }

    /// Does a rename that nothing refuses.
    func rename(_ parent: ModelNode, _ old: String, _ newParent: ModelNode, _ new: String, _ flags: UInt32) {
        guard let node = parent.entries[old] else { return }
        let victim = newParent.entries[new]
        if victim === node { return }
        if flags == 2, let victim {
            parent.entries[old] = victim
            newParent.entries[new] = node
            for (child, from, to) in [(node, parent, newParent), (victim, newParent, parent)] where child.isDirectory {
                from.links -= 1
                to.links += 1
                child.parent = to
            }
            return
        }
        if let victim {
            if victim.isDirectory {
                victim.links = 0
                newParent.links -= 1
            } else {
                victim.links -= 1
            }
        }
        parent.entries[old] = nil
        newParent.entries[new] = node
        if node.isDirectory {
            parent.links -= 1
            newParent.links += 1
            node.parent = newParent
        }
    }
}
