// NodeService: a file system in terms of inodes, as the file service's messages have it (<fos/file.h>).
//
// Role: the seam below path walking. Messages to file servers conform, and so does the reference model; the same
// VirtualFileSystem walks paths and keeps descriptors over either.
// Invariants: as the messages: requests are self-contained and act as the given user; names are single components.

import Glibc

struct NodeChange {
    var mode: UInt32?
    var uid: UInt32?
    var gid: UInt32?
    var size: UInt64?
    var accessed: TimeChange = .omit
    var modified: TimeChange = .omit
    /// A truncate by a path or a descriptor of someone who may not set privileges drops setuid and setgid.
    var killsPrivilege = false
}

struct NodeEntry {
    var entry: ListedEntry
    var next: UInt64
}

protocol NodeService: AnyObject {
    var name: String { get }
    var features: Features { get }
    var root: UInt64 { get }
    var user: User { get set }
    func letTimePass()

    func lookup(_ directory: UInt64, _ name: String) throws(Errno) -> Status
    func status(_ node: UInt64) throws(Errno) -> Status
    func change(_ node: UInt64, _ change: NodeChange) throws(Errno)
    func readlink(_ node: UInt64) throws(Errno) -> String
    func symlink(_ directory: UInt64, _ name: String, _ target: String) throws(Errno)
    func mknod(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ device: (major: UInt32, minor: UInt32)) throws(Errno)
    func mkdir(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32) throws(Errno)
    func unlink(_ directory: UInt64, _ name: String) throws(Errno)
    func rmdir(_ directory: UInt64, _ name: String) throws(Errno)
    func rename(_ directory: UInt64, _ name: String, _ newDirectory: UInt64, _ newName: String, _ flags: RenameFlag) throws(Errno)
    func link(_ node: UInt64, _ directory: UInt64, _ name: String) throws(Errno)
    /// Opens, and counts a reference; makes the file if there is none. Honours O_EXCL and O_TRUNC.
    func create(_ directory: UInt64, _ name: String, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status
    func temporary(_ directory: UInt64, _ mode: UInt32, _ umask: UInt32, _ flags: Int32) throws(Errno) -> Status
    /// Checks access as the flags want it, truncates for O_TRUNC, and counts a reference.
    func open(_ node: UInt64, _ flags: Int32) throws(Errno) -> Status
    /// Gives a reference back and drops the owner's locks.
    func release(_ node: UInt64, owner: UInt64) throws(Errno)
    func read(_ node: UInt64, _ count: Int, at offset: UInt64, _ flags: Int32) throws(Errno) -> [UInt8]
    /// Where it was written, and how much.
    func write(_ node: UInt64, _ bytes: [UInt8], at offset: UInt64, _ flags: Int32) throws(Errno) -> (offset: UInt64, count: Int)
    func sync(_ node: UInt64) throws(Errno)
    func space() throws(Errno) -> Space
    func setAttribute(_ node: UInt64, _ name: String, _ value: [UInt8], _ flags: Int32) throws(Errno)
    func attribute(_ node: UInt64, _ name: String) throws(Errno) -> [UInt8]
    func attributeNames(_ node: UInt64) throws(Errno) -> [String]
    func removeAttribute(_ node: UInt64, _ name: String) throws(Errno)
    /// Entries from a cookie (0: the start) on, without "." and "..": some, or none at the end.
    func entries(_ directory: UInt64, from cookie: UInt64, atMost count: Int) throws(Errno) -> [NodeEntry]
    func allocate(_ node: UInt64, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno)
    /// SEEK_DATA or SEEK_HOLE.
    func seek(_ node: UInt64, _ offset: UInt64, _ whence: Int32) throws(Errno) -> UInt64
    func copyRange(_ from: UInt64, _ fromOffset: UInt64, _ to: UInt64, _ toOffset: UInt64, _ length: Int) throws(Errno) -> Int
    func access(_ node: UInt64, _ mode: Int32) throws(Errno)
    func lock(_ node: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno)
    func getLock(_ node: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound?
    func flock(_ node: UInt64, owner: UInt64, _ operation: Int32) throws(Errno)
}
