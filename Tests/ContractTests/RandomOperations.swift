// Random operation sequences, done on two implementations side by side and compared errno for errno, value for value.
//
// Role: finds what nobody thought of as a case. A seed is a sequence: it chooses operations, names, users and sizes from
// a small world, so that operations meet. At the end both trees must be equal: names, types, modes, owners, link
// counts, sizes, contents, targets, extended attributes, and which names are one file.
// Invariants: only what POSIX or Linux defines is compared; the first difference ends the run and is reported with the
// seed and the last operations.

import Glibc
import LoopKernel
import Testing

final class RandomOperations {
    private let one: any FileSystemUnderTest
    private let two: any FileSystemUnderTest
    private let seed: UInt64
    private var random: LoopRandom
    private let features: Features
    /// Whether the sequence looks for holes, or makes ones of which POSIX does not say whether they are found.
    private let seeksHoles: Bool
    private let usesUsers: Bool
    /// File servers that are asked without a kernel between: which of several broken rules is reported first is
    /// theirs to choose (POSIX does not say).
    private let choosesErrors: Bool
    /// The directory of the sequence. Links in `base` lead at most one level out of it, and so stay in `top`.
    private let top: String
    private let base: String
    private var handles: [(one: Handle, two: Handle, user: User)] = []
    private var log: [String] = []
    private(set) var difference: String?
    private(set) var done = 0

    init(_ one: any FileSystemUnderTest, _ two: any FileSystemUnderTest, seed: UInt64) {
        self.one = one
        self.two = two
        self.seed = seed
        random = LoopRandom(seed: seed)
        features = one.features.intersection(two.features)
        // The kernel has a rule for hard links of its own (protected_hardlinks), so users are compared among equals.
        usesUsers = features.contains(.users) && one.features.contains(.kernelPaths) == two.features.contains(.kernelPaths)
        choosesErrors = !one.features.contains(.kernelPaths) && !two.features.contains(.kernelPaths)
        seeksHoles = seed % 2 == 0
        top = "/random-\(seed)"
        base = top + "/in"
    }

    /// Runs a sequence and compares the trees. False, with an issue recorded, when the two differ.
    @discardableResult
    func run(steps: Int) -> Bool {
        for fs in [one, two] {
            fs.user = .root
            fs.umask = 0
            for directory in [top, base] {
                try? fs.mkdir(directory, 0o755)
                try? fs.chmod(directory, 0o777)
            }
        }
        while done < steps, difference == nil {
            step()
            done += 1
        }
        act(.root)
        for handle in handles {
            try? one.close(handle.one)
            try? two.close(handle.two)
        }
        if difference == nil {
            let left = Tree.snapshot(one, top), right = Tree.snapshot(two, top)
            if left != right { difference = "the trees differ:\n\(Tree.difference(left, right))" }
        }
        for fs in [one, two] { Tree.remove(fs, top) }
        guard let difference else { return true }
        Issue.record(
            "\(one.name) against \(two.name), seed \(seed), step \(done): \(difference)\nlast operations:\n\(log.suffix(25).joined(separator: "\n"))"
        )
        return false
    }

    // MARK: Chance

    private func act(_ user: User) {
        one.user = user
        two.user = user
    }
    private func pick<Value>(_ values: [Value]) -> Value { values[random.below(values.count)] }
    private func path() -> String {
        var path = base
        for _ in 0..<1 + random.below(3) { path += "/" + pick(["a", "b", "c", "d"]) }
        return path
    }
    private func size() -> Int { pick([0, 1, 100, 4_095, 4_096, 4_097, 10_000, 70_000]) + random.below(3) }
    private func offset() -> Int { pick([0, 1, 4_096, 8_190, 40_000, 100_000]) + random.below(5_000) * random.below(2) }
    private func data(_ count: Int) -> [UInt8] {
        let start = random.below(251)
        return (0..<count).map { UInt8(truncatingIfNeeded: (start + $0) % 251) }
    }
    private func mode() -> UInt32 { pick([0o644, 0o755, 0o600, 0o777, 0o000, 0o666, 0o1777, 0o2755, 0o4755, 0o444]) }

    // MARK: Comparison

    /// Does one operation on both. `show` tells what is compared of its value.
    private func both<Value>(
        _ text: String, anyErrorOf group: Set<String> = [], _ show: (Value) -> String,
        _ body: (any FileSystemUnderTest, Bool) throws -> Value
    ) -> (Value, Value)? {
        func run(_ fs: any FileSystemUnderTest, _ isFirst: Bool) -> (String, Value?) {
            do {
                let value = try body(fs, isFirst)
                return (show(value), value)
            } catch { return ("\(error)", nil) }
        }
        let left = run(one, true), right = run(two, false)
        log.append("\(one.user == .root ? "" : "as \(one.user.uid): ")\(text) = \(left.0.prefix(120))")
        if log.count > 200 { log.removeFirst(100) }
        if left.0 != right.0, !group.isSuperset(of: [left.0, right.0]) {
            difference = "\(text) gives \(left.0.prefix(400)) and \(right.0.prefix(400))"
        }
        guard let first = left.1, let second = right.1 else { return nil }
        return (first, second)
    }
    private func both(_ text: String, _ body: (any FileSystemUnderTest, Bool) throws -> Void) { _ = both(text, { "ok" }, body) }

    private func show(_ status: Status) -> String {
        let isSized = status.type == FileType.regular
        return
            "mode \(String(status.mode, radix: 8)) links \(status.links) owner \(status.uid):\(status.gid)\(isSized ? " size \(status.size)" : "")"
    }
    private func show(_ bytes: [UInt8]) -> String {
        var hash = LoopHash()
        bytes.withUnsafeBytes { hash.mix($0) }
        return "\(bytes.count) bytes \(String(hash.value, radix: 16))"
    }
    private func show(_ entries: [ListedEntry]) -> String { entries.map { "\($0.name):\($0.type)" }.joined(separator: " ") }

    // MARK: Operations

    private func step() {
        act(usesUsers ? pick([.root, .root, .alice, .bob]) : .root)
        switch random.below(100) {
        case 0..<14: createFile()
        case 14..<24: makeDirectory()
        case 24..<30: remove("unlink") { fs, path in try fs.unlink(path) }
        case 30..<34: remove("rmdir") { fs, path in try fs.rmdir(path) }
        case 34..<46: rename()
        case 46..<50: link()
        case 50..<53: symlink()
        case 53..<56: changeMode()
        case 56..<58: changeOwner()
        case 58..<61: _ = path2("stat", show) { fs, path in try fs.status(path, follow: true) }
        case 61..<63: _ = path2("lstat", show) { fs, path in try fs.status(path, follow: false) }
        case 63..<66: _ = path2("list", show) { fs, path in try fs.list(path) }
        case 66..<68: _ = path2("readlink", { $0 }) { fs, path in try fs.readlink(path) }
        case 68..<70: truncate()
        case 70..<74: attributes()
        case 74..<76: readAll()
        case 76..<77: access()
        case 77..<80: openFile()
        default: useHandle()
        }
    }

    private func path2<Value>(_ text: String, _ show: (Value) -> String, _ body: (any FileSystemUnderTest, String) throws -> Value) -> (
        Value, Value
    )? {
        let path = path()
        return both("\(text) \(path)", show) { fs, _ in try body(fs, path) }
    }
    private func both2(_ text: String, _ body: (any FileSystemUnderTest, String) throws -> Void) {
        _ = path2(text, { "ok" }) { fs, path in try body(fs, path) }
    }

    private func createFile() {
        let path = path(), mode = mode(), bytes = data(size())
        if random.chance(40) {
            let type = pick([FileType.fifo, FileType.socket])
            return both("mknod \(path) \(type)") { fs, _ in try fs.mknod(path, type | mode & 0o777, (0, 0)) }
        }
        let flags = O_RDWR | O_CREAT | O_NONBLOCK | pick([0, O_EXCL, O_TRUNC])
        keep(path, flags, mode, writing: bytes)
    }
    private func openFile() {
        keep(path(), pick([O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND]) | O_NONBLOCK, 0, writing: [])
    }

    /// Opens on both, writes, and keeps the descriptors or closes them.
    private func keep(_ path: String, _ flags: Int32, _ mode: UInt32, writing bytes: [UInt8]) {
        if blocksOpening(path) { return }
        guard
            let pair = both(
                "open \(path) flags \(String(flags, radix: 8)) mode \(String(mode, radix: 8))", { _ in "a descriptor" },
                { fs, _ in
            try fs.open(path, flags, mode)
        }) else { return }
        if !bytes.isEmpty {
            _ = both("write \(bytes.count) bytes", { "\($0)" }) { fs, isFirst in try fs.write(isFirst ? pair.0 : pair.1, bytes) }
        }
        if handles.count < 6, random.chance(128) {
            handles.append((pair.0, pair.1, one.user))
        } else {
            both("close") { fs, isFirst in try fs.close(isFirst ? pair.0 : pair.1) }
        }
    }

    /// What opening a fifo or socket does is the kernel's affair, and may wait for ever.
    private func blocksOpening(_ path: String) -> Bool {
        let kind = try? one.acting(as: .root) { () throws(Errno) in try one.status(path, follow: true).type }
        return kind != nil && kind != FileType.regular && kind != FileType.directory
    }
    private func readAll() {
        let path = path()
        if blocksOpening(path) { return }
        _ = both("contents \(path)", show) { fs, _ in try fs.contents(path) }
    }

    private func makeDirectory() {
        let mode = pick([0o755, 0o777, 0o700, 0o1777, 0o555] as [UInt32])
        both2("mkdir \(String(mode, radix: 8))") { fs, path in try fs.mkdir(path, mode) }
    }
    private func remove(_ text: String, _ body: (any FileSystemUnderTest, String) throws -> Void) {
        let path = path(), group: Set<String> = choosesErrors ? ["ENOTDIR", "EISDIR", "ENOTEMPTY", "EACCES", "EPERM"] : []
        _ = both("\(text) \(path)", anyErrorOf: group, { _ in "ok" }) { fs, _ in try body(fs, path) }
    }
    private func rename() {
        let from = path(), to = path(), flags = pick([RenameFlag(), RenameFlag(), .noReplace, .exchange])
        if choosesErrors, isSame(from, to) { return }
        let group: Set<String> = choosesErrors ? ["EINVAL", "ENOENT", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EEXIST", "EACCES", "EPERM"] : []
        _ = both("rename \(from) \(to) \(flags.rawValue)", anyErrorOf: group, { _ in "ok" }) { fs, _ in try fs.rename(from, to, flags) }
    }
    /// Moving a file onto itself does nothing; whether that needs permission is one of the choices.
    private func isSame(_ from: String, _ to: String) -> Bool {
        let inodes = [from, to].map { path in try? two.acting(as: .root) { () throws(Errno) in try two.status(path, follow: false).inode } }
        return inodes[0] != nil && inodes[0] == inodes[1]
    }
    private func link() {
        let from = path(), to = path()
        both("link \(from) \(to)") { fs, _ in try fs.link(from, to) }
    }
    private func symlink() {
        let target = pick(["a", "../b", "b/c", "./c/d", "missing", "."]), path = path()
        both("symlink \(target) \(path)") { fs, _ in try fs.symlink(target, path) }
    }
    private func changeMode() {
        let mode = mode()
        both2("chmod \(String(mode, radix: 8))") { fs, path in try fs.chmod(path, mode) }
    }
    private func changeOwner() {
        // Not both left as they are: Linux answers that differently for a privileged file on a FUSE mount (0, where others say
        // EPERM), without asking whoever serves it.
        let uid = pick([UInt32.max, 0, User.alice.uid, User.bob.uid])
        let gid = uid == .max ? pick([0, User.alice.gid, User.bob.gid]) : pick([UInt32.max, 0, User.alice.gid, User.bob.gid])
        let follow = random.chance(128)
        both2("chown \(uid):\(gid)\(follow ? "" : " of the link")") { fs, path in try fs.chown(path, uid, gid, follow: follow) }
    }
    private func truncate() {
        let size = Int64(size())
        both2("truncate \(size)") { fs, path in try fs.truncate(path, size) }
    }
    private func access() {
        let mode = pick([R_OK, W_OK, X_OK, R_OK | W_OK])
        both2("access \(mode)") { fs, path in try fs.access(path, mode) }
    }
    private func attributes() {
        guard features.contains(.extendedAttributes) else { return }
        let name = pick(["user.one", "user.two", "user.three"]), value = data(random.below(300)), flags = pick([0, 0, 1, 2] as [Int32])
        switch random.below(5) {
        case 0, 1:
            both2("setxattr \(name) \(value.count) bytes, flags \(flags)") { fs, path in try fs.setAttribute(path, name, value, flags) }
        case 2: _ = path2("getxattr \(name)", show) { fs, path in try fs.attribute(path, name) }
        case 3: _ = path2("listxattr", { $0.joined(separator: " ") }) { fs, path in try fs.attributeNames(path) }
        default: both2("removexattr \(name)") { fs, path in try fs.removeAttribute(path, name) }
        }
    }

    private func useHandle() {
        guard !handles.isEmpty else { return openFile() }
        let index = random.below(handles.count), handle = handles[index]
        let which = { (isFirst: Bool) in isFirst ? handle.one : handle.two }
        act(handle.user)
        let offset = offset(), count = size()
        switch random.below(13) {
        case 0:
            handles.remove(at: index)
            both("close handle \(index)") { fs, first in try fs.close(which(first)) }
        case 1, 2:
            _ = both("pread handle \(index) \(count) at \(offset)", show) { fs, first in
                try fs.pread(which(first), count, at: UInt64(offset))
            }
        case 3, 4:
            let bytes = data(count)
            _ = both("pwrite handle \(index) \(count) at \(offset)", { "\($0)" }) { fs, first in
                try fs.pwrite(which(first), bytes, at: UInt64(offset))
            }
        case 5:
            let bytes = data(count)
            _ = both("write handle \(index) \(count)", { "\($0)" }) { fs, first in try fs.write(which(first), bytes) }
        case 6: _ = both("read handle \(index) \(count)", show) { fs, first in try fs.read(which(first), count) }
        case 7: both("ftruncate handle \(index) \(offset)") { fs, first in try fs.truncate(which(first), Int64(offset)) }
        case 8: _ = both("fstat handle \(index)", show) { fs, first in try fs.status(which(first)) }
        case 9:
            let mode = mode()
            both("fchmod handle \(index) \(String(mode, radix: 8))") { fs, first in try fs.chmod(which(first), mode) }
        case 10: allocateOrSeek(index, which, offset, count)
        case 11: copyOrSync(index, which, offset, count)
        default:
            let place = Int64(offset), whence = pick([SEEK_SET, SEEK_END])
            // Directory offsets are cookies, which nobody else understands.
            guard let status = try? one.status(handle.one), status.type == FileType.regular else { return }
            _ = both("lseek handle \(index) \(place) \(whence)", { "\($0)" }) { fs, first in try fs.seek(which(first), place, whence) }
        }
    }

    private func allocateOrSeek(_ index: Int, _ which: (Bool) -> Handle, _ offset: Int, _ count: Int) {
        guard let status = try? one.status(which(true)), status.type == FileType.regular else { return }
        let punch = FallocateMode.punchHole | FallocateMode.keepSize
        if seeksHoles {
            if random.chance(100), features.contains(.pageBlocks) {
                return both("punch handle \(index) \(offset) \(count)") { fs, first in
                    try fs.allocate(which(first), punch, Int64(offset), Int64(count))
                }
            }
            guard features.contains(.pageBlocks) else { return }
            let whence = pick([Seek.data, Seek.hole])
            // Where data is inside a page of the size's end is the same for all; beyond, ENXIO.
            _ = both("lseek handle \(index) \(offset) \(whence)", { "\($0)" }) { fs, first in
                try fs.seek(which(first), Int64(offset), whence)
            }
        } else {
            let zero = features.contains(.zeroRange) ? [FallocateMode.zero, FallocateMode.zero | FallocateMode.keepSize] : []
            let mode = pick([0, FallocateMode.keepSize, punch] + zero)
            both("fallocate handle \(index) mode \(mode) \(offset) \(count)") { fs, first in
                try fs.allocate(which(first), mode, Int64(offset), Int64(count))
            }
        }
    }
    private func copyOrSync(_ index: Int, _ which: (Bool) -> Handle, _ offset: Int, _ count: Int) {
        guard !seeksHoles, random.chance(180) else {
            return both("fsync handle \(index)") { fs, first in try fs.sync(which(first)) }
        }
        let target = handles[random.below(handles.count)], to = self.offset()
        // How much is copied at once is each one's choice: the loop goes on to the end, as programs do.
        _ = both("copy_file_range handle \(index) \(offset) to \(to), \(count)", { (count: Int) in "\(count)" }) { fs, first in
            var done = 0
            while done < count {
                let part = try fs.copyRange(
                    which(first), Int64(offset + done), first ? target.one : target.two, Int64(to + done), count - done)
                if part == 0 { break }
                done += part
            }
            return done
        }
    }
}
