// PosixFileSystem: real system calls under a directory of this machine.
//
// Role: the reference (a tmpfs or a disk), and the way to a fos mount through FUSE.
// Invariants: every call runs with the acting user's file system identity and mask, and goes back to root's, in one
// thread without suspension; so tests on it can share a process.

import CContractSupport
import Glibc
import LoopKernel

final class PosixFileSystem: FileSystemUnderTest {
    let name: String
    let root: String
    let features: Features
    var user = User.root
    var umask: UInt32 = 0
    /// Decides for each call with a path whether it goes around a preloaded shim, through the mount. An open file stays with
    /// whoever opened it. nil: none does.
    var chance: LoopRandom?
    /// What getdents gave beyond what was asked for, by descriptor.
    private var pending: [Int: [ListedEntry]] = [:]

    /// - Parameter root: an existing directory; absolute paths of the tests begin there.
    init(name: String, root: String, features: Features) {
        self.name = name
        self.root = root
        self.features = features
    }

    /// A kernel's clock for files moves in ticks of up to 10 ms.
    func letTimePass() { usleep(12_000) }

    private func path(_ path: String) -> String { path.isEmpty ? "" : root + path }

    @discardableResult
    private func call(_ body: () -> Int) throws(Errno) -> Int {
        let oldMask = contract_umask(umask)
        if user != .root {
            let status = contract_become(user.uid, user.gid, user.groups, user.groups.count)
            precondition(status == 0, "the contract suite acts as other users and must run as root")
        }
        let result = body()
        if user != .root { precondition(contract_become(0, 0, nil, 0) == 0, "cannot become root again") }
        _ = contract_umask(oldMask)
        guard result >= 0 else { throw Errno(Int32(-result)) }
        return result
    }

    /// A call that names a path.
    @discardableResult
    private func pathCall(_ body: () -> Int) throws(Errno) -> Int {
        guard chance?.below(2) == 1 else { return try call(body) }
        return try call {
            contract_go_around(1)
            defer { contract_go_around(0) }
            return body()
        }
    }

    /// The kernel decides who may change a file by the owner and mode that it saw last; a change by message it sees when
    /// somebody looks (docs/shim-calls.md). So whoever goes around the shim looks first.
    private func changing(_ path: String, follow: Bool, _ body: () -> Int) throws(Errno) {
        try pathCall {
            var found = contract_status()
            if chance != nil { _ = contract_stat(self.path(path), follow ? 1 : 0, &found) }
            return body()
        }
    }

    func open(_ path: String, _ flags: Int32, _ mode: UInt32) throws(Errno) -> Handle {
        try pathCall { contract_open(self.path(path), flags, mode) }
    }
    func close(_ handle: Handle) throws(Errno) {
        pending[handle] = nil
        try call { contract_close(Int32(handle)) }
    }
    func read(_ handle: Handle, _ count: Int) throws(Errno) -> [UInt8] {
        try bytes(count) { contract_read(Int32(handle), $0, count) }
    }
    func pread(_ handle: Handle, _ count: Int, at offset: UInt64) throws(Errno) -> [UInt8] {
        try bytes(count) { contract_pread(Int32(handle), $0, count, offset) }
    }
    private func bytes(_ room: Int, onPath: Bool = false, _ body: (UnsafeMutableRawPointer?) -> Int) throws(Errno) -> [UInt8] {
        var buffer = [UInt8](repeating: 0xee, count: max(room, 1))
        let filled = { buffer.withUnsafeMutableBytes { body($0.baseAddress) } }
        let count = onPath ? try pathCall(filled) : try call(filled)
        return Array(buffer.prefix(count))
    }
    func write(_ handle: Handle, _ bytes: [UInt8]) throws(Errno) -> Int { try call { contract_write(Int32(handle), bytes, bytes.count) } }
    func pwrite(_ handle: Handle, _ bytes: [UInt8], at offset: UInt64) throws(Errno) -> Int {
        try call { contract_pwrite(Int32(handle), bytes, bytes.count, offset) }
    }
    func seek(_ handle: Handle, _ offset: Int64, _ whence: Int32) throws(Errno) -> Int64 {
        Int64(try call { contract_lseek(Int32(handle), offset, whence) })
    }
    func truncate(_ handle: Handle, _ size: Int64) throws(Errno) { try call { contract_ftruncate(Int32(handle), size) } }
    func status(_ handle: Handle) throws(Errno) -> Status {
        var found = contract_status()
        try call { contract_fstat(Int32(handle), &found) }
        return Status(found)
    }
    func sync(_ handle: Handle) throws(Errno) { try call { contract_fsync(Int32(handle)) } }
    func chmod(_ handle: Handle, _ mode: UInt32) throws(Errno) { try call { contract_fchmod(Int32(handle), mode) } }
    func allocate(_ handle: Handle, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno) {
        try call { contract_fallocate(Int32(handle), mode, offset, length) }
    }
    func copyRange(_ from: Handle, _ fromOffset: Int64, _ to: Handle, _ toOffset: Int64, _ length: Int) throws(Errno) -> Int {
        try call { contract_copy_range(Int32(from), fromOffset, Int32(to), toOffset, length) }
    }
    func lock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) {
        try call { contract_lock(Int32(handle), kind, start, length) }
    }
    func getLock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound? {
        var found = LockFound(kind: 0, start: 0, length: 0)
        let count = try call { contract_getlock(Int32(handle), kind, start, length, &found.kind, &found.start, &found.length) }
        return count > 0 ? found : nil
    }
    func flock(_ handle: Handle, _ operation: Int32) throws(Errno) { try call { contract_flock(Int32(handle), operation | LOCK_NB) } }
    func link(_ handle: Handle, to path: String) throws(Errno) { try call { contract_link_handle(Int32(handle), self.path(path)) } }

    func nextEntries(_ handle: Handle, _ count: Int) throws(Errno) -> [ListedEntry] {
        var found = pending[handle] ?? []
        while found.count < count {
            let raw = try bytes(32_768) { contract_getdents(Int32(handle), $0, 32_768) }
            if raw.isEmpty { break }
            raw.withUnsafeBytes { buffer in
                var place = 0
                while place < buffer.count {
                    // struct linux_dirent64: inode, offset, record length, type, name.
                    let inode = buffer.loadUnaligned(fromByteOffset: place, as: UInt64.self)
                    let length = Int(buffer.loadUnaligned(fromByteOffset: place + 16, as: UInt16.self))
                    let name = String(decoding: buffer[(place + 19)..<(place + length)].prefix { $0 != 0 }, as: UTF8.self)
                    if name != "." && name != ".." { found.append(ListedEntry(name: name, inode: inode, type: buffer[place + 18])) }
                    place += length
                }
            }
        }
        pending[handle] = Array(found.dropFirst(count))
        return Array(found.prefix(count))
    }

    func truncate(_ path: String, _ size: Int64) throws(Errno) { try pathCall { contract_truncate(self.path(path), size) } }
    func status(_ path: String, follow: Bool) throws(Errno) -> Status {
        var found = contract_status()
        try pathCall { contract_stat(self.path(path), follow ? 1 : 0, &found) }
        return Status(found)
    }
    func mkdir(_ path: String, _ mode: UInt32) throws(Errno) { try pathCall { contract_mkdir(self.path(path), mode) } }
    func rmdir(_ path: String) throws(Errno) { try pathCall { contract_rmdir(self.path(path)) } }
    func unlink(_ path: String) throws(Errno) { try pathCall { contract_unlink(self.path(path)) } }
    func rename(_ from: String, _ to: String, _ flags: RenameFlag) throws(Errno) {
        try pathCall { contract_rename(self.path(from), self.path(to), flags.rawValue) }
    }
    func link(_ from: String, _ to: String) throws(Errno) { try pathCall { contract_link(self.path(from), self.path(to)) } }
    /// An absolute target is meant inside the file system.
    func symlink(_ target: String, _ path: String) throws(Errno) {
        try pathCall { contract_symlink(target.hasPrefix("/") ? self.path(target) : target, self.path(path)) }
    }
    func readlink(_ path: String) throws(Errno) -> String {
        let target = String(decoding: try bytes(8_192, onPath: true) { contract_readlink(self.path(path), $0, 8_192) }, as: UTF8.self)
        return target.hasPrefix(root) ? String(target.dropFirst(root.count)) : target
    }
    func chmod(_ path: String, _ mode: UInt32) throws(Errno) { try changing(path, follow: true) { contract_chmod(self.path(path), mode) } }
    func chown(_ path: String, _ uid: UInt32, _ gid: UInt32, follow: Bool) throws(Errno) {
        try changing(path, follow: follow) { contract_chown(self.path(path), follow ? 1 : 0, uid, gid) }
    }
    func setTimes(_ path: String, accessed: TimeChange, modified: TimeChange, follow: Bool) throws(Errno) {
        func value(_ change: TimeChange) -> Int64 {
            switch change {
            case .now: .min
            case .omit: .min + 1
            case .at(let time): time
            }
        }
        try changing(path, follow: follow) { contract_utimes(self.path(path), follow ? 1 : 0, value(accessed), value(modified)) }
    }
    func mknod(_ path: String, _ mode: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno) {
        try pathCall { contract_mknod(self.path(path), mode, contract_makedev(device.major, device.minor)) }
    }
    func access(_ path: String, _ mode: Int32) throws(Errno) { try pathCall { contract_access(self.path(path), mode) } }
    func setAttribute(_ path: String, _ name: String, _ value: [UInt8], _ flags: Int32, follow: Bool) throws(Errno) {
        try changing(path, follow: follow) { contract_setxattr(self.path(path), follow ? 1 : 0, name, value, value.count, flags) }
    }
    func attribute(_ path: String, _ name: String, follow: Bool) throws(Errno) -> [UInt8] {
        try bytes(65_536, onPath: true) { contract_getxattr(self.path(path), follow ? 1 : 0, name, $0, 65_536) }
    }
    func attributeNames(_ path: String, follow: Bool) throws(Errno) -> [String] {
        let raw = try bytes(65_536, onPath: true) {
            contract_listxattr(self.path(path), follow ? 1 : 0, $0?.assumingMemoryBound(to: CChar.self), 65_536)
        }
        return raw.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.filter { $0.hasPrefix("user.") }.sorted()
    }
    func removeAttribute(_ path: String, _ name: String, follow: Bool) throws(Errno) {
        try changing(path, follow: follow) { contract_removexattr(self.path(path), follow ? 1 : 0, name) }
    }
    func space(_ path: String) throws(Errno) -> Space {
        var space = Space(blocks: 0, available: 0, blockBytes: 0, nameMax: 0, files: 0, filesFree: 0)
        try call {
            contract_statfs(
                self.path(path), &space.blocks, &space.available, &space.blockBytes, &space.nameMax, &space.files, &space.filesFree)
        }
        return space
    }
}

extension Status {
    init(_ found: contract_status) {
        self.init(
            inode: found.inode, mode: found.mode, links: found.links, uid: found.uid, gid: found.gid, size: found.size,
            device: found.device, blocks: found.blocks, accessed: found.accessed, modified: found.modified, changed: found.changed)
    }
}
