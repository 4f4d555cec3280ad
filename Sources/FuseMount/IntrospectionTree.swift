// `.fos/`: what an instance tells about itself, as plain files at the top of its mount.
//
// Role: a read-only directory that only the mount has; the file service knows nothing of it. It is found by name but
// not listed in the root (as .zfs and .snapshot in other file systems), so that tools which walk or compare the tree
// do not meet it. Making an entry of that name at the top is refused.
// Protocol: each LOOKUP of a file takes a fresh snapshot under a node number of its own and an entry timeout of 0.
// Whoever opened it keeps reading the same bytes, of the size that stat said; the snapshot goes with its last FORGET.
// `open/` in it lists nothing either: `open/INODE` is the file itself, for a process that has it open by messages and
// wants a descriptor of the kernel's, and for nobody else; so the kernel asks anew at each use of the name.
// Invariant: node numbers have bit 62 set; those of the file service are below 2^52.

import CFosWire
import CFuse
import Glibc
import Synchronization

/// What `.fos/` holds.
public struct IntrospectionFiles: Sendable {
    /// Names of the files, as the listing shows them.
    public var names: [String]
    /// The bytes of one of them, made anew at each call; called on any thread, several at a time. nil: no such file.
    public var contents: @Sendable (String) -> [UInt8]?

    public init(names: [String], contents: @escaping @Sendable (String) -> [UInt8]?) {
        self.names = names
        self.contents = contents
    }
}

final class IntrospectionTree: Sendable {
    static let name: StaticString = ".fos"
    private static let mark: UInt64 = 1 << 62
    static let directory: UInt64 = mark | 1
    /// `open/`, beyond the numbers that the listing of the directory shows.
    static let openDirectory: UInt64 = mark | 2048

    /// A snapshot of one file.
    struct Snapshot {
        let bytes: [UInt8]
        let taken: timespec
        var references: UInt64
    }
    private struct State {
        var snapshots: [UInt64: Snapshot] = [:]
        var nextNode: UInt64 = IntrospectionTree.mark | 4096
    }

    let files: IntrospectionFiles
    private let state = Mutex(State())
    private let started: timespec

    init(_ files: IntrospectionFiles) {
        self.files = files
        started = Self.now()
    }

    /// True for the node numbers of `.fos/` and what is in it.
    static func owns(_ inode: UInt64) -> Bool { inode & mark != 0 }

    /// True for the name of `.fos/` in the root directory.
    static func reserves(_ parent: UInt64, _ name: UnsafePointer<CChar>?) -> Bool {
        guard parent == UInt64(FUSE_ROOT_ID), let name, name[0] == 0x2e else { return false }
        return name[1] == 0x66 && name[2] == 0x6f && name[3] == 0x73 && name[4] == 0
    }

    private static func now() -> timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time
    }

    /// An inode number in decimal, as `open/` names it; nil if the name is none.
    static func inode(named name: UnsafePointer<CChar>) -> UInt64? {
        let length = strnlen(name, 21)
        guard length > 0, length < 21 else { return nil }
        var number: UInt64 = 0
        for position in 0..<length {
            let digit = UInt8(bitPattern: name[position]) &- UInt8(ascii: "0")
            guard digit < 10, position > 0 || digit > 0 else { return nil }
            let (product, isTooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, isLarger) = product.addingReportingOverflow(UInt64(digit))
            if isTooLarge || isLarger { return nil }
            number = sum
        }
        return owns(number) ? nil : number
    }

    /// A new snapshot with one reference; nil for a name that is not there.
    func take(_ name: String) -> UInt64? {
        guard files.names.contains(name), let bytes = files.contents(name) else { return nil }
        let taken = Self.now()
        return state.withLock { state in
            let node = state.nextNode
            state.nextNode += 1
            state.snapshots[node] = Snapshot(bytes: bytes, taken: taken, references: 1)
            return node
        }
    }

    func snapshot(_ node: UInt64) -> Snapshot? { state.withLock { $0.snapshots[node] } }

    func forget(_ node: UInt64, _ count: UInt64) {
        state.withLock { state in
            guard let snapshot = state.snapshots[node] else { return }
            if snapshot.references <= count {
                state.snapshots[node] = nil
            } else {
                state.snapshots[node]?.references -= count
            }
        }
    }

    var snapshotCount: Int { state.withLock { $0.snapshots.count } }

    /// stat(2) of a node; nil if it is no longer there.
    func status(_ node: UInt64) -> stat? {
        var result = stat()
        result.st_ino = UInt(node)
        result.st_uid = geteuid()
        result.st_gid = getegid()
        result.st_blksize = preferredBlockBytes
        if node == Self.directory || node == Self.openDirectory {
            result.st_mode = FileType.directory | 0o555
            result.st_nlink = 2
            result.st_mtim = started
        } else {
            guard let snapshot = snapshot(node) else { return nil }
            result.st_mode = FileType.regular | 0o444
            result.st_nlink = 1
            result.st_size = snapshot.bytes.count
            result.st_blocks = (snapshot.bytes.count + 511) / 512
            result.st_mtim = snapshot.taken
        }
        result.st_atim = result.st_mtim
        result.st_ctim = result.st_mtim
        return result
    }
}

extension Operation {
    private var tree: IntrospectionTree { front.pointee.introspection }

    func lookupIntrospection(_ parent: UInt64, _ name: UnsafePointer<CChar>?) {
        var entry = fuse_entry_param()
        entry.attr_timeout = CacheTimeout.leased
        if parent == UInt64(FUSE_ROOT_ID) {
            entry.ino = IntrospectionTree.directory
            entry.entry_timeout = CacheTimeout.leased
        } else {
            guard let name else { return answer(-ENOENT) }
            if parent == IntrospectionTree.openDirectory { return lookupOpen(name) }
            guard parent == IntrospectionTree.directory else { return answer(-ENOTDIR) }
            if strcmp(name, "open") == 0 { return answerOpenDirectory() }
            guard let node = tree.take(String(cString: name)) else { return answer(-ENOENT) }
            entry.ino = node
        }
        guard let status = tree.status(entry.ino) else { return answer(-ENOENT) }
        entry.attr = status
        if fuse_reply_entry(request, &entry) == -ENOENT { tree.forget(entry.ino, 1) }
    }

    private func answerOpenDirectory() {
        var entry = fuse_entry_param()
        entry.ino = IntrospectionTree.openDirectory
        entry.attr_timeout = CacheTimeout.leased
        entry.entry_timeout = CacheTimeout.leased
        guard let status = tree.status(entry.ino) else { return answer(-ENOENT) }
        entry.attr = status
        fuse_reply_entry(request, &entry)
    }

    /// `open/INODE`. The entry is not to be kept: it holds for the caller alone, and would keep a file without a name.
    private func lookupOpen(_ name: UnsafePointer<CChar>) {
        guard let inode = IntrospectionTree.inode(named: name), let process = processOfCaller() else { return answer(-ENOENT) }
        let message = message(FOS_OP_LOOKUP_OPEN, inode)
        message.append(fos_lookup_open_request(pid: process, reserved: 0))
        let status = call()
        // Not -ESTALE: the kernel would look up the whole path again.
        guard status == 0 else { return answer(status == -ESTALE ? -ENOENT : status) }
        guard let attributes = payload(fos_attributes.self) else { return answer(-EIO) }
        answerEntry(attributes, entryTimeout: 0)
    }

    /// The process whose thread the kernel names as the caller.
    private func processOfCaller() -> UInt32? {
        let thread = fuse_req_ctx(request).unsafelyUnwrapped.pointee.pid
        guard thread > 0 else { return nil }
        let descriptor = Glibc.open("/proc/\(thread)/status", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1024) { text in
            let count = Glibc.read(descriptor, text.baseAddress, text.count - 1)
            guard count > 0, let start = text.baseAddress else { return nil }
            start[count] = 0
            guard let field = strstr(start, "\nTgid:") else { return nil }
            let process = strtoul(field + 6, nil, 10)
            return process > 0 && process <= UInt(Int32.max) ? UInt32(process) : nil
        }
    }

    func attributesOfIntrospection(_ node: UInt64) {
        guard var status = tree.status(node) else { return answer(-ESTALE) }
        fuse_reply_attr(request, &status, CacheTimeout.leased)
    }

    func readIntrospection(_ node: UInt64, _ size: Int, _ offset: off_t) {
        guard let snapshot = tree.snapshot(node) else { return answer(-ESTALE) }
        let start = min(max(offset, 0), snapshot.bytes.count)
        let count = min(size, snapshot.bytes.count - start)
        snapshot.bytes.withUnsafeBytes { bytes in
            _ = fuse_reply_buf(request, bytes.baseAddress.map { ($0 + start).assumingMemoryBound(to: CChar.self) }, count)
        }
    }

    func seekIntrospection(_ node: UInt64, _ offset: off_t, _ whence: Int32) {
        guard let snapshot = tree.snapshot(node) else { return answer(-ESTALE) }
        let size = off_t(snapshot.bytes.count)
        guard offset >= 0, offset < size else { return answer(-ENXIO) }
        fuse_reply_lseek(request, whence == Int32(FOS_SEEK_DATA) ? offset : size)
    }

    /// Entries are plain also for READDIRPLUS: a listing takes no snapshots.
    func listIntrospection(_ node: UInt64, _ room: Int, _ cookie: off_t, plus: Bool) {
        guard node == IntrospectionTree.directory || node == IntrospectionTree.openDirectory else { return answer(-ENOTDIR) }
        var listing = DirectoryReply(UnsafeMutableRawBufferPointer(start: worker.listing, count: room))
        let names = [".", ".."] + (node == IntrospectionTree.directory ? tree.files.names : [])
        for index in names.indices.dropFirst(Int(clamping: cookie)) {
            let above = node == IntrospectionTree.directory ? UInt64(FUSE_ROOT_ID) : IntrospectionTree.directory
            let inode = index == 0 ? node : index == 1 ? above : IntrospectionTree.directory + UInt64(index)
            let type = UInt8(index < 2 ? DT_DIR : DT_REG)
            let fits = Array(names[index].utf8).withUnsafeBytes { name in
                plus
                    ? listing.append(plus: fuse_entry_out(), inode: inode, next: UInt64(index + 1), type: type, name: name)
                    : listing.append(inode: inode, next: UInt64(index + 1), type: type, name: name)
            }
            if !fits { break }
        }
        let bytes = listing.bytes
        fuse_reply_buf(request, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
    }
}
