// ModelNodes: the reference model, a file system in plain dictionaries.
//
// Role: says what must happen. It is written from the man pages and Linux's VFS, not from the servers, as simply as
// possible: no slots, no messages, no leases, no limits but those of POSIX.
// Invariants: links of a node are the entries that lead to it (directories: 2 + directories in it); a node without
// links lives while it is open; its clock moves one second with each `letTimePass` and 1 ns with each change.

import Glibc

final class ModelNode {
    let number: UInt64
    var mode: UInt32
    var uid: UInt32
    var gid: UInt32
    var links: UInt32
    var device: UInt64 = 0
    var accessed: Int64
    var modified: Int64
    var changed: Int64
    var attributes: [String: [UInt8]] = [:]
    /// Directory: entries with the cookie that each keeps for life.
    /// Keyed by bytes: Swift's strings compare by characters, and names that look alike are different names.
    var entries: [[UInt8]: (node: UInt64, cookie: UInt64)] = [:]
    var nextCookie: UInt64 = 1
    var parent: UInt64
    var target = ""
    /// File: pages that hold data, by index; the others are holes.
    var pages: [UInt64: [UInt8]] = [:]
    var size: UInt64 = 0
    var references = 0
    /// Made without a name (O_TMPFILE): may be given its first one.
    var isNameless = false
    /// Allocated ahead or copied: whether such pages are data or holes to SEEK_DATA is not said by POSIX.
    var hasVagueHoles = false
    var locks: [(owner: UInt64, kind: Int32, start: Int64, end: Int64)] = []
    var flocks: [UInt64: Int32] = [:]

    init(number: UInt64, mode: UInt32, uid: UInt32, gid: UInt32, time: Int64, parent: UInt64) {
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid
        links = mode & FileType.mask == FileType.directory ? 2 : 1
        accessed = time
        modified = time
        changed = time
        self.parent = parent
    }
    var type: UInt32 { mode & FileType.mask }
    var isDirectory: Bool { type == FileType.directory }
}

final class ModelNodes: NodeService {
    let name = "model"
    let features: Features = [
        .users, .groups, .handlesKeepRights, .temporaryFiles, .zeroRange, .extendedAttributes, .locks, .pageBlocks, .exactAccessTime,
        .refusesCollapse,
    ]
    let root: UInt64 = 1
    var user = User.root
    var nodes: [UInt64: ModelNode] = [:]
    private var lastNumber: UInt64 = 1
    private var clock: Int64 = 1_700_000_000_000_000_000
    static let page: UInt64 = 4_096

    init() { nodes[1] = ModelNode(number: 1, mode: FileType.directory | 0o755, uid: 0, gid: 0, time: clock, parent: 1) }

    func letTimePass() { clock += 1_000_000_000 }
    func now() -> Int64 {
        clock += 1
        return clock
    }

    func node(_ number: UInt64) throws(Errno) -> ModelNode {
        guard let found = nodes[number] else { throw Errno(ESTALE) }
        return found
    }
    func directory(_ number: UInt64) throws(Errno) -> ModelNode {
        let found = try node(number)
        guard found.isDirectory else { throw Errno(ENOTDIR) }
        return found
    }

    // MARK: Permission

    func may(_ wanted: UInt32, _ node: ModelNode) -> Bool {
        if user.uid == 0 { return wanted & 1 == 0 || node.isDirectory || node.mode & 0o111 != 0 }
        let granted: UInt32
        if user.uid == node.uid {
            granted = node.mode >> 6
        } else if isMember(node.gid) {
            granted = node.mode >> 3
        } else {
            granted = node.mode
        }
        return granted & wanted == wanted
    }
    func isMember(_ group: UInt32) -> Bool { user.gid == group || user.groups.contains(group) }
    func owns(_ node: ModelNode) -> Bool { user.uid == 0 || user.uid == node.uid }
    func require(_ wanted: UInt32, _ node: ModelNode) throws(Errno) { if !may(wanted, node) { throw Errno(EACCES) } }

    /// Search, then write: what a change of an entry needs of its directory.
    private func requireEntryChange(_ directory: ModelNode) throws(Errno) { try require(3, directory) }

    private func requireRemoval(_ directory: ModelNode, _ victim: ModelNode) throws(Errno) {
        try requireEntryChange(directory)
        if directory.mode & ModeBit.sticky != 0, user.uid != 0, user.uid != victim.uid, user.uid != directory.uid { throw Errno(EPERM) }
    }

    // MARK: Entries

    private func find(_ directory: ModelNode, _ name: String) -> ModelNode? {
        directory.entries[Array(name.utf8)].flatMap { nodes[$0.node] }
    }

    private func insert(_ directory: ModelNode, _ name: String, _ node: ModelNode) {
        directory.entries[Array(name.utf8)] = (node.number, directory.nextCookie)
        directory.nextCookie += 1
        if node.isDirectory {
            directory.links += 1
            node.parent = directory.number
        }
        let time = now()
        directory.modified = time
        directory.changed = time
    }
    private func remove(_ directory: ModelNode, _ name: String, _ node: ModelNode) {
        directory.entries[Array(name.utf8)] = nil
        if node.isDirectory { directory.links -= 1 }
        let time = now()
        directory.modified = time
        directory.changed = time
    }
    /// One link less; gone for good when it was the last and nobody has it open.
    private func drop(_ node: ModelNode) {
        node.links = node.isDirectory ? 0 : node.links - 1
        node.changed = now()
        reap(node)
    }
    private func reap(_ node: ModelNode) { if node.links == 0 && node.references == 0 { nodes[node.number] = nil } }

    private func make(_ directory: ModelNode, _ mode: UInt32) -> ModelNode {
        lastNumber += 1
        var mode = mode
        var gid = user.gid
        if directory.mode & ModeBit.setGroup != 0 {
            gid = directory.gid
            if mode & FileType.mask == FileType.directory {
                mode |= ModeBit.setGroup
            } else if mode & (ModeBit.setGroup | ModeBit.groupExecute) == ModeBit.setGroup | ModeBit.groupExecute, user.uid != 0,
                !isMember(gid)
            {
                mode &= ~ModeBit.setGroup
            }
        }
        let node = ModelNode(number: lastNumber, mode: mode, uid: user.uid, gid: gid, time: now(), parent: directory.number)
        nodes[node.number] = node
        return node
    }

    /// Common to all that make an entry: EEXIST before EACCES, as the kernel looks the name up first.
    private func requireNew(_ directory: ModelNode, _ name: String) throws(Errno) {
        try require(1, directory)
        if directory.entries[Array(name.utf8)] != nil { throw Errno(EEXIST) }
        // A directory that was removed takes no new entries.
        if directory.links == 0 { throw Errno(ENOENT) }
        try requireEntryChange(directory)
    }

    // MARK: NodeService

    func lookup(_ directory: UInt64, _ name: String) throws(Errno) -> Status {
        let directory = try self.directory(directory)
        try require(1, directory)
        if name == "." { return status(directory) }
        if name == ".." { return status(try node(directory.parent)) }
        guard let found = find(directory, name) else { throw Errno(ENOENT) }
        return status(found)
    }
    func status(_ number: UInt64) throws(Errno) -> Status { status(try node(number)) }
    func status(_ node: ModelNode) -> Status {
        Status(
            inode: node.number, mode: node.mode, links: node.links, uid: node.uid, gid: node.gid,
            size: node.type == FileType.symlink ? UInt64(node.target.utf8.count) : node.size, device: node.device,
            blocks: UInt64(node.pages.count) * 8, accessed: node.accessed, modified: node.modified, changed: node.changed)
    }

    func readlink(_ number: UInt64) throws(Errno) -> String { try node(number).target }
    func symlink(_ directory: UInt64, _ name: String, _ target: String) throws(Errno) {
        let directory = try self.directory(directory)
        try requireNew(directory, name)
        let node = make(directory, FileType.symlink | 0o777)
        node.target = target
        insert(directory, name, node)
    }
    func mknod(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno)
    {
        let directory = try self.directory(directory)
        var type = mode & FileType.mask
        if type == 0 { type = FileType.regular }
        try requireNew(directory, name)
        if type == FileType.directory { throw Errno(EPERM) }
        guard [FileType.regular, FileType.fifo, FileType.socket, FileType.character, FileType.block].contains(type) else {
            throw Errno(EINVAL)
        }
        let isDevice = type == FileType.character || type == FileType.block
        if isDevice, user.uid != 0 { throw Errno(EPERM) }
        let node = make(directory, type | mode & 0o7777 & ~umask)
        if isDevice { node.device = UInt64(device.minor & 0xff | device.major << 8 | (device.minor & ~0xff) << 12) }
        insert(directory, name, node)
    }
    func mkdir(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32) throws(Errno) {
        let directory = try self.directory(directory)
        try requireNew(directory, name)
        insert(directory, name, make(directory, FileType.directory | mode & ~umask))
    }
    func unlink(_ directory: UInt64, _ name: String) throws(Errno) {
        let directory = try self.directory(directory)
        try require(1, directory)
        guard let victim = find(directory, name) else { throw Errno(ENOENT) }
        try requireRemoval(directory, victim)
        guard !victim.isDirectory else { throw Errno(EISDIR) }
        remove(directory, name, victim)
        drop(victim)
    }
    func rmdir(_ directory: UInt64, _ name: String) throws(Errno) {
        let directory = try self.directory(directory)
        try require(1, directory)
        guard let victim = find(directory, name) else { throw Errno(ENOENT) }
        try requireRemoval(directory, victim)
        guard victim.isDirectory else { throw Errno(ENOTDIR) }
        guard victim.entries.isEmpty else { throw Errno(ENOTEMPTY) }
        remove(directory, name, victim)
        drop(victim)
    }

    func rename(_ directory: UInt64, _ name: String, _ newDirectory: UInt64, _ newName: String, _ flags: RenameFlag) throws(Errno) {
        let old = try self.directory(directory), new = try self.directory(newDirectory)
        try require(1, old)
        try require(1, new)
        guard let source = find(old, name) else { throw Errno(ENOENT) }
        let target = find(new, newName)
        if target != nil, flags.contains(.noReplace) { throw Errno(EEXIST) }
        if target == nil, flags.contains(.exchange) { throw Errno(ENOENT) }
        // A directory does not go below itself; one above the source is never empty.
        if source.isDirectory, isAncestor(source, of: new) { throw Errno(EINVAL) }
        if let target, target.isDirectory, isAncestor(target, of: old) { throw Errno(flags.contains(.exchange) ? EINVAL : ENOTEMPTY) }
        if let target, target === source { return }
        try requireRemoval(old, source)
        if let target {
            try requireRemoval(new, target)
            if !flags.contains(.exchange) {
                if source.isDirectory, !target.isDirectory { throw Errno(ENOTDIR) }
                if !source.isDirectory, target.isDirectory { throw Errno(EISDIR) }
            }
        } else {
            guard new.links > 0 else { throw Errno(ENOENT) }
            try requireEntryChange(new)
        }
        // Its ".." changes.
        if old !== new {
            if source.isDirectory { try require(2, source) }
            if flags.contains(.exchange), let target, target.isDirectory { try require(2, target) }
        }
        if let target, !flags.contains(.exchange), target.isDirectory, !target.entries.isEmpty { throw Errno(ENOTEMPTY) }
        remove(old, name, source)
        if let target { remove(new, newName, target) }
        insert(new, newName, source)
        source.changed = now()
        if let target {
            if flags.contains(.exchange) {
                insert(old, name, target)
                target.changed = now()
            } else {
                drop(target)
            }
        }
    }
    private func isAncestor(_ ancestor: ModelNode, of node: ModelNode) -> Bool {
        var place = node
        while true {
            if place === ancestor { return true }
            guard place.number != root, let next = nodes[place.parent] else { return false }
            place = next
        }
    }

    func link(_ number: UInt64, _ directory: UInt64, _ name: String) throws(Errno) {
        let directory = try self.directory(directory), target = try node(number)
        try requireNew(directory, name)
        guard !target.isDirectory else { throw Errno(EPERM) }
        guard target.links > 0 || target.isNameless else { throw Errno(ENOENT) }
        target.isNameless = false
        target.links += 1
        target.changed = now()
        insert(directory, name, target)
    }

    func create(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status {
        let directory = try self.directory(directory)
        try require(1, directory)
        if let found = find(directory, name) {
            guard flags & O_EXCL == 0 else { throw Errno(EEXIST) }
            return try open(found.number, flags)
        }
        try requireNew(directory, name)
        let node = make(directory, FileType.regular | mode & ~umask)
        insert(directory, name, node)
        node.references += 1
        return status(node)
    }
    func temporary(_ directory: UInt64, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status {
        let directory = try self.directory(directory)
        try require(3, directory)
        let node = make(directory, FileType.regular | mode & ~umask)
        node.links = 0
        node.isNameless = true
        node.references += 1
        return status(node)
    }
    func open(_ number: UInt64, _ flags: Int32) throws(Errno) -> Status {
        let node = try node(number)
        var wanted: UInt32 = [4, 2, 6, 6][Int(flags & O_ACCMODE)]
        if flags & O_TRUNC != 0 { wanted |= 2 }
        try require(wanted, node)
        if flags & OpenFlags.noAccessTime != 0, !owns(node) { throw Errno(EPERM) }
        if flags & O_TRUNC != 0, node.type == FileType.regular {
            dropPrivilege(node)
            resize(node, 0)
        }
        node.references += 1
        return status(node)
    }
    func release(_ number: UInt64, owner: UInt64) throws(Errno) {
        let node = try node(number)
        node.references -= 1
        node.locks.removeAll { $0.owner == owner }
        node.flocks[owner] = nil
        reap(node)
    }
    func sync(_ node: UInt64) throws(Errno) { _ = try self.node(node) }
    func space() throws(Errno) -> Space {
        Space(blocks: 1 << 20, available: 1 << 19, blockBytes: 4_096, nameMax: 255, files: 1 << 20, filesFree: 1 << 19)
    }
    func access(_ number: UInt64, _ mode: Int32) throws(Errno) { try require(UInt32(mode & 7), try node(number)) }

    func entries(_ directory: UInt64, from cookie: UInt64, atMost count: Int) throws(Errno) -> [NodeEntry] {
        let directory = try self.directory(directory)
        directory.accessed = now()
        let rest = directory.entries.filter { $0.value.cookie > cookie }.sorted { $0.value.cookie < $1.value.cookie }.prefix(count)
        return rest.map { name, value in
            NodeEntry(
                entry: ListedEntry(
                    name: String(decoding: name, as: UTF8.self), inode: value.node, type: UInt8((nodes[value.node]?.type ?? 0) >> 12)),
                next: value.cookie)
        }
    }
}
