// VirtualFileSystem: paths and descriptors over a NodeService, with the rules of Linux's own name walk (path_resolution(7)).
//
// Role: what a kernel does above a file system, so that messages to file servers, and the reference model, can be
// held to the same cases as real system calls.
// Invariants: at most 40 symbolic links in a walk; components of 255 bytes, paths of 4,095; a descriptor keeps its
// access mode, its offset and a reference to its inode.

import Glibc

final class VirtualFileSystem<Nodes: NodeService>: FileSystemUnderTest {
    struct Descriptor {
        var node: UInt64
        var flags: Int32
        var offset: UInt64 = 0
        var cookie: UInt64 = 0
        var isDirectory: Bool
        var canRead: Bool { flags & O_ACCMODE != O_WRONLY && flags & OpenFlags.path == 0 }
        var canWrite: Bool { flags & O_ACCMODE != O_RDONLY && flags & OpenFlags.path == 0 }
    }

    let nodes: Nodes
    var umask: UInt32 = 0
    private var descriptors: [Handle: Descriptor] = [:]
    private var lastHandle = 2

    init(_ nodes: Nodes) { self.nodes = nodes }
    var name: String { nodes.name }
    var features: Features { nodes.features }
    var user: User {
        get { nodes.user }
        set { nodes.user = newValue }
    }
    func letTimePass() { nodes.letTimePass() }
    /// Descriptors that the tests have not closed.
    var openCount: Int { descriptors.count }

    // MARK: Walking

    /// Where the last component of a path is: its directory, and the component itself.
    struct Place {
        var directory: UInt64
        var name: String
        /// The path ended with a slash: it must be a directory.
        var wantsDirectory: Bool
    }

    private func components(_ path: String) throws(Errno) -> (names: [String], wantsDirectory: Bool) {
        guard !path.isEmpty else { throw Errno(ENOENT) }
        guard path.utf8.count < 4_096 else { throw Errno(ENAMETOOLONG) }
        return (path.split(separator: "/").map(String.init), path.hasSuffix("/"))
    }

    private func step(_ directory: UInt64, _ name: String) throws(Errno) -> Status {
        guard name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
        return try nodes.lookup(directory, name)
    }

    /// Walks all but the last component.
    private func parent(_ path: String, from start: UInt64? = nil, links: inout Int) throws(Errno) -> Place {
        var (names, wantsDirectory) = try components(path)
        var directory = path.hasPrefix("/") ? nodes.root : start ?? nodes.root
        guard let last = names.popLast() else { return Place(directory: nodes.root, name: ".", wantsDirectory: true) }
        for name in names { directory = try enter(directory, name, &links) }
        wantsDirectory = wantsDirectory || last == "." || last == ".."
        return Place(directory: directory, name: last, wantsDirectory: wantsDirectory)
    }

    /// The directory a component leads to, through symbolic links.
    private func enter(_ directory: UInt64, _ name: String, _ links: inout Int) throws(Errno) -> UInt64 {
        let found = try resolve(Place(directory: directory, name: name, wantsDirectory: true), follow: true, &links)
        return found.inode
    }

    /// The inode of a place. A symbolic link is followed if wanted, or if the path ended with a slash.
    private func resolve(_ place: Place, follow: Bool, _ links: inout Int) throws(Errno) -> Status {
        let found = try step(place.directory, place.name)
        if found.type == FileType.symlink, follow || place.wantsDirectory {
            links += 1
            guard links <= 40 else { throw Errno(ELOOP) }
            let target = try nodes.readlink(found.inode)
            guard !target.isEmpty else { throw Errno(ENOENT) }
            var next = try parent(target, from: place.directory, links: &links)
            next.wantsDirectory = next.wantsDirectory || place.wantsDirectory
            return try resolve(next, follow: true, &links)
        }
        guard !place.wantsDirectory || found.type == FileType.directory else { throw Errno(ENOTDIR) }
        return found
    }

    private func parent(_ path: String) throws(Errno) -> Place {
        var links = 0
        return try parent(path, links: &links)
    }
    private func resolve(_ path: String, follow: Bool = true) throws(Errno) -> Status {
        var links = 0
        return try resolve(try parent(path, links: &links), follow: follow, &links)
    }

    /// The place for a new entry. `directory`: what is made may have a slash behind its name.
    private func newPlace(_ path: String, directory: Bool) throws(Errno) -> Place {
        let place = try parent(path)
        guard place.name != "." && place.name != ".." else { throw Errno(EEXIST) }
        guard place.name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
        if place.wantsDirectory && !directory {
            // An existing entry is EEXIST; a file cannot be made with a slash behind its name.
            do throws(Errno) { _ = try step(place.directory, place.name) } catch { throw error }
            throw Errno(EEXIST)
        }
        return place
    }

    // MARK: Descriptors

    func open(_ path: String, _ flags: Int32, _ mode: UInt32) throws(Errno) -> Handle {
        if flags & OpenFlags.temporary == OpenFlags.temporary {
            guard flags & O_ACCMODE != O_RDONLY else { throw Errno(EINVAL) }
            let directory = try resolve(path)
            guard directory.type == FileType.directory else { throw Errno(ENOTDIR) }
            return register(try nodes.temporary(directory.inode, mode & 0o7777, umask, flags), flags)
        }
        if flags & O_CREAT != 0 && flags & O_DIRECTORY != 0 { throw Errno(EINVAL) }
        var links = 0
        var place = try parent(path, links: &links)
        if flags & O_CREAT != 0 {
            // A symbolic link to nothing is followed to make the file it names, unless O_EXCL.
            while true {
                guard !place.wantsDirectory else { throw Errno(EISDIR) }
                guard place.name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
                let found: Status
                do throws(Errno) { found = try nodes.lookup(place.directory, place.name) } catch {
                    guard error.code == ENOENT else { throw error }
                    return register(try nodes.create(place.directory, place.name, mode & 0o7777, umask, flags), flags)
                }
                guard flags & O_EXCL == 0 else { throw Errno(EEXIST) }
                guard found.type == FileType.symlink else { break }
                guard flags & O_NOFOLLOW == 0 else { throw Errno(ELOOP) }
                links += 1
                guard links <= 40 else { throw Errno(ELOOP) }
                place = try parent(try nodes.readlink(found.inode), from: place.directory, links: &links)
            }
        }
        let found = try resolve(place, follow: flags & O_NOFOLLOW == 0, &links)
        if found.type == FileType.symlink { throw Errno(ELOOP) }
        if found.type == FileType.directory {
            guard flags & O_CREAT == 0, flags & O_ACCMODE == O_RDONLY else { throw Errno(EISDIR) }
        } else {
            guard flags & O_DIRECTORY == 0 else { throw Errno(ENOTDIR) }
        }
        return register(try nodes.open(found.inode, flags), flags)
    }

    private func register(_ status: Status, _ flags: Int32) -> Handle {
        lastHandle += 1
        descriptors[lastHandle] = Descriptor(node: status.inode, flags: flags, isDirectory: status.type == FileType.directory)
        return lastHandle
    }
    private func descriptor(_ handle: Handle) throws(Errno) -> Descriptor {
        guard let found = descriptors[handle] else { throw Errno(EBADF) }
        return found
    }

    func close(_ handle: Handle) throws(Errno) {
        let found = try descriptor(handle)
        descriptors[handle] = nil
        try nodes.release(found.node, owner: UInt64(handle))
    }
    func read(_ handle: Handle, _ count: Int) throws(Errno) -> [UInt8] {
        let bytes = try pread(handle, count, at: try descriptor(handle).offset)
        descriptors[handle]?.offset += UInt64(bytes.count)
        return bytes
    }
    func pread(_ handle: Handle, _ count: Int, at offset: UInt64) throws(Errno) -> [UInt8] {
        let found = try descriptor(handle)
        guard found.canRead else { throw Errno(EBADF) }
        guard !found.isDirectory else { throw Errno(EISDIR) }
        guard offset <= UInt64(Int64.max) else { throw Errno(EINVAL) }
        if count == 0 { return [] }
        return try nodes.read(found.node, count, at: offset, found.flags)
    }
    func write(_ handle: Handle, _ bytes: [UInt8]) throws(Errno) -> Int {
        let found = try descriptor(handle)
        let done = try put(found, bytes, at: found.offset)
        descriptors[handle]?.offset = done.offset + UInt64(done.count)
        return done.count
    }
    func pwrite(_ handle: Handle, _ bytes: [UInt8], at offset: UInt64) throws(Errno) -> Int {
        try put(try descriptor(handle), bytes, at: offset).count
    }
    private func put(_ found: Descriptor, _ bytes: [UInt8], at offset: UInt64) throws(Errno) -> (offset: UInt64, count: Int) {
        guard found.canWrite else { throw Errno(EBADF) }
        guard offset <= UInt64(Int64.max) else { throw Errno(EINVAL) }
        if bytes.isEmpty { return (offset, 0) }
        // As the kernel's generic_write_checks: nothing is written beyond the largest offset.
        if found.flags & O_APPEND == 0 {
            guard offset < UInt64(Int64.max) else { throw Errno(EFBIG) }
        }
        return try nodes.write(found.node, bytes, at: offset, found.flags)
    }
    func seek(_ handle: Handle, _ offset: Int64, _ whence: Int32) throws(Errno) -> Int64 {
        let found = try descriptor(handle)
        let target: Int64
        switch whence {
        case SEEK_SET: target = offset
        case SEEK_CUR: target = Int64(found.offset) &+ offset
        case SEEK_END: target = Int64(try nodes.status(found.node).size) &+ offset
        case Seek.data, Seek.hole:
            guard offset >= 0 else { throw Errno(ENXIO) }
            target = Int64(try nodes.seek(found.node, UInt64(offset), whence))
        default: throw Errno(EINVAL)
        }
        guard target >= 0 else { throw Errno(EINVAL) }
        descriptors[handle]?.offset = UInt64(target)
        if found.isDirectory { descriptors[handle]?.cookie = UInt64(target) }
        return target
    }
    func truncate(_ handle: Handle, _ size: Int64) throws(Errno) {
        let found = try descriptor(handle)
        guard size >= 0, found.canWrite else { throw Errno(EINVAL) }
        // ftruncate sets the times also when the size stays (do_truncate).
        try nodes.change(found.node, NodeChange(size: UInt64(size), modified: .now, killsPrivilege: user.uid != 0))
    }
    func status(_ handle: Handle) throws(Errno) -> Status { try nodes.status(try descriptor(handle).node) }
    func sync(_ handle: Handle) throws(Errno) { try nodes.sync(try descriptor(handle).node) }
    func chmod(_ handle: Handle, _ mode: UInt32) throws(Errno) {
        try nodes.change(try descriptor(handle).node, NodeChange(mode: mode & 0o7777))
    }
    func allocate(_ handle: Handle, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno) {
        let found = try descriptor(handle)
        guard offset >= 0, length > 0 else { throw Errno(EINVAL) }
        // As vfs_fallocate checks before the file system is asked.
        guard mode & ~(1 | 2 | 8 | 16 | 32 | 64) == 0 else { throw Errno(EOPNOTSUPP) }
        guard mode & 18 != 18 else { throw Errno(EOPNOTSUPP) }
        guard mode & FallocateMode.punchHole == 0 || mode & FallocateMode.keepSize != 0 else { throw Errno(EOPNOTSUPP) }
        guard found.canWrite else { throw Errno(EBADF) }
        guard !offset.addingReportingOverflow(length).overflow else { throw Errno(EFBIG) }
        try nodes.allocate(found.node, mode, offset, length)
    }
    func copyRange(_ from: Handle, _ fromOffset: Int64, _ to: Handle, _ toOffset: Int64, _ length: Int) throws(Errno) -> Int {
        let source = try descriptor(from), target = try descriptor(to)
        guard !source.isDirectory, !target.isDirectory else { throw Errno(EISDIR) }
        guard source.canRead, target.canWrite, target.flags & O_APPEND == 0 else { throw Errno(EBADF) }
        guard fromOffset >= 0, toOffset >= 0 else { throw Errno(EINVAL) }
        return try nodes.copyRange(source.node, UInt64(fromOffset), target.node, UInt64(toOffset), length)
    }
    func lock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) {
        let found = try descriptor(handle)
        guard kind != F_RDLCK || found.canRead, kind != F_WRLCK || found.canWrite else { throw Errno(EBADF) }
        guard start >= 0 else { throw Errno(EINVAL) }
        try nodes.lock(found.node, owner: UInt64(handle), kind, start, length)
    }
    func getLock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound? {
        try nodes.getLock(try descriptor(handle).node, owner: UInt64(handle), kind, start, length)
    }
    func flock(_ handle: Handle, _ operation: Int32) throws(Errno) {
        try nodes.flock(try descriptor(handle).node, owner: UInt64(handle), operation)
    }
    func link(_ handle: Handle, to path: String) throws(Errno) {
        let place = try newPlace(path, directory: false)
        try nodes.link(try descriptor(handle).node, place.directory, place.name)
    }
    func nextEntries(_ handle: Handle, _ count: Int) throws(Errno) -> [ListedEntry] {
        let found = try descriptor(handle)
        guard found.isDirectory else { throw Errno(ENOTDIR) }
        let part = try nodes.entries(found.node, from: found.cookie, atMost: count)
        if let last = part.last { descriptors[handle]?.cookie = last.next }
        return part.map(\.entry)
    }

    // MARK: Paths

    func truncate(_ path: String, _ size: Int64) throws(Errno) {
        guard size >= 0 else { throw Errno(EINVAL) }
        let found = try resolve(path)
        guard found.type != FileType.directory else { throw Errno(EISDIR) }
        guard found.type == FileType.regular else { throw Errno(EINVAL) }
        try nodes.access(found.inode, W_OK)
        try nodes.change(found.inode, NodeChange(size: UInt64(size), killsPrivilege: user.uid != 0))
    }
    func status(_ path: String, follow: Bool) throws(Errno) -> Status { try resolve(path, follow: follow) }
    func mkdir(_ path: String, _ mode: UInt32) throws(Errno) {
        let place = try newPlace(path, directory: true)
        try nodes.mkdir(place.directory, place.name, mode & 0o1777, umask)
    }
    func rmdir(_ path: String) throws(Errno) {
        let place = try parent(path)
        guard place.name != ".." else { throw Errno(ENOTEMPTY) }
        guard place.name != "." else { throw Errno(EINVAL) }
        guard place.name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
        try nodes.rmdir(place.directory, place.name)
    }
    func unlink(_ path: String) throws(Errno) {
        let place = try parent(path)
        guard place.name != ".." && place.name != "." else { throw Errno(EISDIR) }
        guard place.name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
        if place.wantsDirectory {
            let found = try step(place.directory, place.name)
            throw Errno(found.type == FileType.directory ? EISDIR : ENOTDIR)
        }
        try nodes.unlink(place.directory, place.name)
    }
    func rename(_ from: String, _ to: String, _ flags: RenameFlag) throws(Errno) {
        guard flags != [.noReplace, .exchange] else { throw Errno(EINVAL) }
        let old = try parent(from), new = try parent(to)
        guard old.name != "." && old.name != ".." else { throw Errno(EBUSY) }
        guard new.name != "." && new.name != ".." else { throw Errno(flags.contains(.noReplace) ? EEXIST : EBUSY) }
        guard old.name.utf8.count <= 255, new.name.utf8.count <= 255 else { throw Errno(ENAMETOOLONG) }
        if old.wantsDirectory || new.wantsDirectory {
            let found = try step(old.directory, old.name)
            if flags.contains(.noReplace), (try? step(new.directory, new.name)) != nil { throw Errno(EEXIST) }
            guard found.type == FileType.directory else { throw Errno(ENOTDIR) }
        }
        try nodes.rename(old.directory, old.name, new.directory, new.name, flags)
    }
    func link(_ from: String, _ to: String) throws(Errno) {
        let found = try resolve(from, follow: false)
        let place = try newPlace(to, directory: false)
        try nodes.link(found.inode, place.directory, place.name)
    }
    func symlink(_ target: String, _ path: String) throws(Errno) {
        guard !target.isEmpty else { throw Errno(ENOENT) }
        guard target.utf8.count < 4_096 else { throw Errno(ENAMETOOLONG) }
        let place = try newPlace(path, directory: false)
        try nodes.symlink(place.directory, place.name, target)
    }
    func readlink(_ path: String) throws(Errno) -> String {
        let found = try resolve(path, follow: false)
        guard found.type == FileType.symlink else { throw Errno(EINVAL) }
        return try nodes.readlink(found.inode)
    }
    func chmod(_ path: String, _ mode: UInt32) throws(Errno) { try nodes.change(try resolve(path).inode, NodeChange(mode: mode & 0o7777)) }
    func chown(_ path: String, _ uid: UInt32, _ gid: UInt32, follow: Bool) throws(Errno) {
        let found = try resolve(path, follow: follow)
        try nodes.change(
            found.inode,
            NodeChange(uid: uid == .max ? nil : uid, gid: gid == .max ? nil : gid, killsPrivilege: found.type != FileType.directory))
    }
    func setTimes(_ path: String, accessed: TimeChange, modified: TimeChange, follow: Bool) throws(Errno) {
        let found = try resolve(path, follow: follow)
        if accessed == .omit && modified == .omit { return }
        try nodes.change(found.inode, NodeChange(accessed: accessed, modified: modified))
    }
    func mknod(_ path: String, _ mode: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno) {
        let place = try newPlace(path, directory: false)
        try nodes.mknod(place.directory, place.name, mode, umask, device)
    }
    func access(_ path: String, _ mode: Int32) throws(Errno) {
        let found = try resolve(path)
        if mode != F_OK { try nodes.access(found.inode, mode) }
    }
    func setAttribute(_ path: String, _ name: String, _ value: [UInt8], _ flags: Int32, follow: Bool) throws(Errno) {
        try checkAttributeName(name)
        guard value.count <= 65_536 else { throw Errno(E2BIG) }
        try nodes.setAttribute(try resolve(path, follow: follow).inode, name, value, flags)
    }
    func attribute(_ path: String, _ name: String, follow: Bool) throws(Errno) -> [UInt8] {
        try checkAttributeName(name)
        return try nodes.attribute(try resolve(path, follow: follow).inode, name)
    }
    func attributeNames(_ path: String, follow: Bool) throws(Errno) -> [String] {
        try nodes.attributeNames(try resolve(path, follow: follow).inode).filter { $0.hasPrefix("user.") }.sorted()
    }
    func removeAttribute(_ path: String, _ name: String, follow: Bool) throws(Errno) {
        try checkAttributeName(name)
        try nodes.removeAttribute(try resolve(path, follow: follow).inode, name)
    }
    private func checkAttributeName(_ name: String) throws(Errno) {
        guard (1...255).contains(name.utf8.count) else { throw Errno(ERANGE) }
    }
    func space(_ path: String) throws(Errno) -> Space {
        _ = try resolve(path)
        return try nodes.space()
    }
}
