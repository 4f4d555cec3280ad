// FileSystemUnderTest: what the contract is about, in the words of POSIX, whoever implements it.
//
// Role: cases and random operation sequences are written once against this protocol and run on each implementation:
// real system calls under a directory (tmpfs, a disk, a fos mount), fos messages with paths walked by the client, and
// a simple reference model. Others (a simulated machine, a program under the shim) can be plugged in the same way.
// Protocol: paths are absolute in the file system; every call throws the errno that the system call would set.
// Invariants: calls act as `user`; an implementation is used by one thread at a time.

import CContractSupport
import Glibc

/// Types in st_mode (inode(7)).
enum FileType {
    static let mask: UInt32 = 0o170000
    static let fifo: UInt32 = 0o010000, character: UInt32 = 0o020000, directory: UInt32 = 0o040000, block: UInt32 = 0o060000
    static let regular: UInt32 = 0o100000, symlink: UInt32 = 0o120000, socket: UInt32 = 0o140000
}
/// Bits of st_mode that are no plain permission.
enum ModeBit {
    static let setUser: UInt32 = 0o4000, setGroup: UInt32 = 0o2000, sticky: UInt32 = 0o1000, groupExecute: UInt32 = 0o010
}
/// Flags of open(2), for calls by message as well.
enum OpenFlags {
    static let noAccessTime: Int32 = 0o1000000, temporary: Int32 = 0o20200000, path: Int32 = 0o10000000, direct: Int32 = 0o40000
}

/// lseek(2) of holes.
enum Seek {
    static let data: Int32 = 3, hole: Int32 = 4
}

/// A system call's error, by number.
struct Errno: Error, Equatable, Hashable, CustomStringConvertible {
    let code: Int32
    init(_ code: Int32) { self.code = code }
    var description: String { contract_error_name(code).map { String(cString: $0) } ?? "errno \(code)" }
}

/// Who acts. User 0 has all capabilities over files, others none.
struct User: Equatable, Sendable {
    var uid: UInt32
    var gid: UInt32
    /// Supplementary groups.
    var groups: [UInt32] = []
    static let root = User(uid: 0, gid: 0)
    static let alice = User(uid: 2001, gid: 3001)
    static let bob = User(uid: 2002, gid: 3002)
}

/// What stat(2) tells. Times are ns since 1970.
struct Status: Equatable {
    var inode: UInt64
    var mode: UInt32
    var links: UInt32
    var uid: UInt32
    var gid: UInt32
    var size: UInt64
    var device: UInt64
    var blocks: UInt64
    var accessed: Int64
    var modified: Int64
    var changed: Int64

    var type: UInt32 { mode & FileType.mask }
    var permissions: UInt32 { mode & 0o7777 }
}

struct ListedEntry: Equatable, Hashable {
    var name: String
    var inode: UInt64
    /// DT_*
    var type: UInt8
}

enum TimeChange: Equatable {
    case now, omit
    case at(Int64)
}

struct RenameFlag: OptionSet, Hashable {
    let rawValue: UInt32
    static let noReplace = RenameFlag(rawValue: 1)
    static let exchange = RenameFlag(rawValue: 2)
}

enum FallocateMode {
    static let keepSize: Int32 = 1, punchHole: Int32 = 2, collapse: Int32 = 8, zero: Int32 = 16, insert: Int32 = 32
}

struct LockFound: Equatable {
    /// F_RDLCK or F_WRLCK
    var kind: Int32
    var start: Int64
    /// 0: to the end.
    var length: Int64
}

struct Space: Equatable {
    var blocks, available: UInt64
    var blockBytes, nameMax: UInt32
    var files, filesFree: UInt64
}

/// What an implementation can do beyond the common part. A case that needs more is not run on it.
struct Features: OptionSet, Sendable {
    let rawValue: UInt32
    /// Can act as users other than root.
    static let users = Features(rawValue: 1)
    /// Acting users have supplementary groups.
    static let groups = Features(rawValue: 2)
    /// A descriptor keeps its rights when the mode of the file changes.
    static let handlesKeepRights = Features(rawValue: 4)
    static let temporaryFiles = Features(rawValue: 8)
    /// FALLOC_FL_ZERO_RANGE
    static let zeroRange = Features(rawValue: 16)
    /// Paths are resolved by the kernel: its own rules for ".", "..", trailing slashes, lengths.
    static let kernelPaths = Features(rawValue: 32)
    static let extendedAttributes = Features(rawValue: 64)
    static let locks = Features(rawValue: 128)
    /// st_size, st_blocks and times of fos: holes have no blocks, by pages of 4 KiB.
    static let pageBlocks = Features(rawValue: 256)
    /// Reading sets the time of access, at once and always.
    static let exactAccessTime = Features(rawValue: 512)
    /// FALLOC_FL_COLLAPSE_RANGE and INSERT_RANGE are refused with EOPNOTSUPP.
    static let refusesCollapse = Features(rawValue: 1024)
    /// ".." and "." are in listings.
    static let listsDots = Features(rawValue: 2048)
}

typealias Handle = Int

protocol FileSystemUnderTest: AnyObject {
    var name: String { get }
    var features: Features { get }
    var user: User { get set }
    /// File creation mask of the acting process.
    var umask: UInt32 { get set }
    /// Lets enough time pass that a change made afterwards has a later time.
    func letTimePass()

    func open(_ path: String, _ flags: Int32, _ mode: UInt32) throws(Errno) -> Handle
    func close(_ handle: Handle) throws(Errno)
    func read(_ handle: Handle, _ count: Int) throws(Errno) -> [UInt8]
    func write(_ handle: Handle, _ bytes: [UInt8]) throws(Errno) -> Int
    func pread(_ handle: Handle, _ count: Int, at offset: UInt64) throws(Errno) -> [UInt8]
    func pwrite(_ handle: Handle, _ bytes: [UInt8], at offset: UInt64) throws(Errno) -> Int
    func seek(_ handle: Handle, _ offset: Int64, _ whence: Int32) throws(Errno) -> Int64
    func truncate(_ handle: Handle, _ size: Int64) throws(Errno)
    func status(_ handle: Handle) throws(Errno) -> Status
    func sync(_ handle: Handle) throws(Errno)
    func chmod(_ handle: Handle, _ mode: UInt32) throws(Errno)
    func allocate(_ handle: Handle, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno)
    func copyRange(_ from: Handle, _ fromOffset: Int64, _ to: Handle, _ toOffset: Int64, _ length: Int) throws(Errno) -> Int
    /// F_OFD_SETLK: kind F_RDLCK, F_WRLCK, F_UNLCK; the owner is the handle. Never waits.
    func lock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno)
    func getLock(_ handle: Handle, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound?
    /// LOCK_SH, LOCK_EX, LOCK_UN; never waits.
    func flock(_ handle: Handle, _ operation: Int32) throws(Errno)
    func link(_ handle: Handle, to path: String) throws(Errno)
    /// At most `count` further entries of an open directory, in its order; none at the end. Without "." and "..".
    func nextEntries(_ handle: Handle, _ count: Int) throws(Errno) -> [ListedEntry]

    func truncate(_ path: String, _ size: Int64) throws(Errno)
    func status(_ path: String, follow: Bool) throws(Errno) -> Status
    func mkdir(_ path: String, _ mode: UInt32) throws(Errno)
    func rmdir(_ path: String) throws(Errno)
    func unlink(_ path: String) throws(Errno)
    func rename(_ from: String, _ to: String, _ flags: RenameFlag) throws(Errno)
    func link(_ from: String, _ to: String) throws(Errno)
    func symlink(_ target: String, _ path: String) throws(Errno)
    func readlink(_ path: String) throws(Errno) -> String
    func chmod(_ path: String, _ mode: UInt32) throws(Errno)
    /// UInt32.max leaves an id as it is.
    func chown(_ path: String, _ uid: UInt32, _ gid: UInt32, follow: Bool) throws(Errno)
    func setTimes(_ path: String, accessed: TimeChange, modified: TimeChange, follow: Bool) throws(Errno)
    func mknod(_ path: String, _ mode: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno)
    func access(_ path: String, _ mode: Int32) throws(Errno)
    func setAttribute(_ path: String, _ name: String, _ value: [UInt8], _ flags: Int32, follow: Bool) throws(Errno)
    func attribute(_ path: String, _ name: String, follow: Bool) throws(Errno) -> [UInt8]
    func attributeNames(_ path: String, follow: Bool) throws(Errno) -> [String]
    func removeAttribute(_ path: String, _ name: String, follow: Bool) throws(Errno)
    func space(_ path: String) throws(Errno) -> Space
}

extension FileSystemUnderTest {
    func status(_ path: String) throws(Errno) -> Status { try status(path, follow: true) }
    func rename(_ from: String, _ to: String) throws(Errno) { try rename(from, to, []) }
    func chown(_ path: String, _ uid: UInt32, _ gid: UInt32) throws(Errno) { try chown(path, uid, gid, follow: true) }
    func setTimes(_ path: String, _ accessed: TimeChange, _ modified: TimeChange) throws(Errno) {
        try setTimes(path, accessed: accessed, modified: modified, follow: true)
    }
    func attribute(_ path: String, _ name: String) throws(Errno) -> [UInt8] { try attribute(path, name, follow: true) }
    func attributeNames(_ path: String) throws(Errno) -> [String] { try attributeNames(path, follow: true) }
    func removeAttribute(_ path: String, _ name: String) throws(Errno) { try removeAttribute(path, name, follow: true) }
    func setAttribute(_ path: String, _ name: String, _ value: [UInt8], _ flags: Int32 = 0) throws(Errno) {
        try setAttribute(path, name, value, flags, follow: true)
    }

    /// Acts as another user for a while.
    func acting<R>(as user: User, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        let before = self.user
        self.user = user
        defer { self.user = before }
        return try body()
    }

    /// Opens for a while, and closes also when the work fails.
    func withOpen<R>(_ path: String, _ flags: Int32, _ mode: UInt32, _ body: (Handle) throws(Errno) -> R) throws(Errno) -> R {
        let handle = try open(path, flags, mode)
        let result: R
        do throws(Errno) { result = try body(handle) } catch {
            try? close(handle)
            throw error
        }
        try close(handle)
        return result
    }

    /// All entries of a directory, by name.
    func list(_ path: String) throws(Errno) -> [ListedEntry] {
        let all = try withOpen(path, O_RDONLY | O_DIRECTORY, 0) { handle throws(Errno) in
            var all: [ListedEntry] = []
            while true {
                let part = try nextEntries(handle, 1_000)
                if part.isEmpty { return all }
                all += part
            }
        }
        return all.sorted { $0.name < $1.name }
    }

    /// Makes a file with contents (truncating an old one).
    func store(_ path: String, _ bytes: [UInt8], _ mode: UInt32 = 0o644) throws(Errno) {
        try withOpen(path, O_WRONLY | O_CREAT | O_TRUNC, mode) { handle throws(Errno) in
            var done = 0
            while done < bytes.count { done += try pwrite(handle, Array(bytes[done...].prefix(1 << 20)), at: UInt64(done)) }
        }
    }
    func store(_ path: String, _ text: String, _ mode: UInt32 = 0o644) throws(Errno) { try store(path, Array(text.utf8), mode) }

    /// All bytes of a file.
    func contents(_ path: String) throws(Errno) -> [UInt8] {
        try withOpen(path, O_RDONLY, 0) { handle throws(Errno) in try contents(handle) }
    }
    func contents(_ handle: Handle) throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let part = try pread(handle, 1 << 20, at: UInt64(bytes.count))
            if part.isEmpty { return bytes }
            bytes += part
        }
    }
    func text(_ path: String) throws(Errno) -> String { String(decoding: try contents(path), as: UTF8.self) }
}
