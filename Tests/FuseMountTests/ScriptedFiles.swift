// A file service of a few dozen lines, behind the proxy's mock instance: one directory of small files.
//
// Role: lets the front end be mounted for real and tested by itself. It records what it was asked, and can be told to
// refuse, to delay, and to send notices. It runs on the mock's core thread; tests look at it under the lock.

import CFosWire
import CMockInstance
import Glibc
import Synchronization

/// One file, or the root directory.
struct ScriptedFile {
    var attributes = fos_attributes()
    var data: [UInt8] = []
    var references: UInt64 = 0
}

struct ScriptedState {
    var files: [UInt64: ScriptedFile] = [:]
    var entries: [(name: String, inode: UInt64)] = []
    var nextInode: UInt64 = 4097
    /// Every request but FORGET, as "operation inode name".
    var log: [String] = []
    var lastIOFlags: UInt32 = 0
    var lastReadFlags: UInt32 = 0
    /// Called once with the name of the next LOOKUP, before it is answered.
    var beforeLookup: (@Sendable (inout ScriptedState, String) -> fos_notice?)?
    /// Called once, before the next request with this operation is answered.
    var beforeAnswer: (operation: fos_operation, run: @Sendable () -> Void)?
    var lastSetBits: UInt32 = 0
    var acknowledged: [UInt64] = []
    /// How many WRITEs still answer ENOSPC.
    var fullWrites = 0
    /// Where APPEND writes go instead of the offset the kernel named.
    var trueEnd: UInt64?
    /// READs that answer RETRY until a WRITE comes, as during a transaction that waits for a dirty page.
    var readsWaitForWrite = false
    /// Owner of the one exclusive lock there is, and the channel and sequence of a request that waits for it.
    var lockOwner: UInt64?
    var lockWaiter: (channel: UInt32, sequence: UInt32)?
    /// How many CANCELs come before the request that they are to end, and do not find it.
    var earlyCancels = 0

    init() {
        var root = ScriptedFile()
        root.attributes.inode = UInt64(FOS_ROOT_INODE)
        root.attributes.mode = 0o040777
        root.attributes.links = 2
        files[UInt64(FOS_ROOT_INODE)] = root
    }

    mutating func make(_ name: String?, mode: UInt32, uid: UInt32, gid: UInt32) -> ScriptedFile {
        var file = ScriptedFile()
        file.attributes.inode = nextInode
        file.attributes.mode = mode
        file.attributes.links = name == nil ? 0 : 1
        file.attributes.uid = uid
        file.attributes.gid = gid
        file.attributes.born = fos_time(seconds: 77, nanoseconds: 5, reserved: 0)
        file.references = 1
        nextInode += 4096
        files[file.attributes.inode] = file
        if let name { entries.append((name, file.attributes.inode)) }
        return file
    }
}

private let transportRetry = Int32(FOS_TRANSPORT_RETRY.rawValue)

/// Shared with the script, which is a C function without context.
let scripted = Mutex(ScriptedState())

/// The script: the name fleet's lookup, and the file operations that the tests use.
func answerScripted(
    _ mock: UnsafeMutablePointer<mock_instance>?, _ channel: Int32, _ request: UnsafePointer<fos_message>?,
    _ reply: UnsafeMutablePointer<fos_message>?
) -> Int32 {
    guard let mock, let request, let reply else { return 0 }
    let bulkStart = Int(mock.pointee.header.pointee.bulk_offset) + Int(channel) * Int(FOS_CHANNEL_AREA_BYTES)
    let exchange = Exchange(
        request: request, reply: reply,
        bulk: UnsafeMutableRawPointer(mock.pointee.segment + bulkStart) + Int(request.pointee.bulk_offset))
    return scripted.withLock { state in
        if exchange.waits(&state, UInt32(channel)) { return 0 }
        if var notice = exchange.noticeBeforeLookup(&state) {
            mock_notify(mock, &notice)
            // Whoever takes the notice has all the time it needs to be too early.
            usleep(100_000)
        }
        if let hook = state.beforeAnswer, hook.operation.rawValue == UInt32(request.pointee.operation) {
            state.beforeAnswer = nil
            hook.run()
        }
        exchange.answer(&state)
        if let ended = exchange.endsWait(&state) { finish(mock, ended.channel, ended.sequence, ended.status) }
        return 1
    }
}

/// Answers a request that was left waiting. The client looks by itself every so often, so nothing wakes it.
private func finish(_ mock: UnsafeMutablePointer<mock_instance>, _ channel: UInt32, _ sequence: UInt32, _ status: Int32) {
    let control = mock.pointee.channel + Int(channel)
    control.pointee.reply = fos_message()
    control.pointee.reply.status = status
    control.pointee.reply.sequence = sequence
    fos_store_release_u32(&control.pointee.reply_sequence, sequence)
}

private struct Exchange {
    let request: UnsafePointer<fos_message>
    let reply: UnsafeMutablePointer<fos_message>
    let bulk: UnsafeMutableRawPointer

    private func fields<Layout: BitwiseCopyable>(_ type: Layout.Type) -> Layout {
        UnsafeRawPointer(request + 1).loadUnaligned(as: type)
    }
    private func name(at offset: Int, _ length: UInt32) -> String {
        String(decoding: UnsafeRawBufferPointer(start: UnsafeRawPointer(request + 1) + offset, count: Int(length)), as: UTF8.self)
    }
    private func answer<Layout: BitwiseCopyable>(_ value: Layout) {
        UnsafeMutableRawPointer(reply + 1).storeBytes(of: value, as: Layout.self)
        reply.pointee.length = UInt32(MemoryLayout<Layout>.size)
    }
    private func fail(_ error: Int32) { reply.pointee.status = -error }

    /// Leaves a lock request that must wait unanswered.
    func waits(_ state: inout ScriptedState, _ channel: UInt32) -> Bool {
        guard UInt32(request.pointee.operation) == FOS_OP_SETLK.rawValue else { return false }
        let lock = fields(fos_lock_request.self)
        guard lock.wait == 1, lock.kind != FOS_LOCK_UNLOCK.rawValue, let owner = state.lockOwner, owner != lock.owner else { return false }
        state.log.append("wait")
        state.lockWaiter = (channel, request.pointee.sequence)
        return true
    }

    /// The notice that the test wants out before this LOOKUP is answered.
    func noticeBeforeLookup(_ state: inout ScriptedState) -> fos_notice? {
        guard UInt32(request.pointee.operation) == FOS_OP_LOOKUP.rawValue, let hook = state.beforeLookup else { return nil }
        guard let notice = hook(&state, name(at: 0, request.pointee.length)) else { return nil }
        state.beforeLookup = nil
        return notice
    }

    /// The waiting request that this one has ended, by unlocking or by CANCEL.
    func endsWait(_ state: inout ScriptedState) -> (channel: UInt32, sequence: UInt32, status: Int32)? {
        guard let waiter = state.lockWaiter else { return nil }
        if UInt32(request.pointee.operation) == FOS_OP_CANCEL.rawValue {
            guard reply.pointee.status == 0 else { return nil }
            let wanted = fields(fos_cancel_request.self)
            guard wanted.channel == waiter.channel, wanted.sequence == waiter.sequence else { return nil }
            state.lockWaiter = nil
            return (waiter.channel, waiter.sequence, -EINTR)
        }
        guard state.lockOwner == nil else { return nil }
        state.lockWaiter = nil
        return (waiter.channel, waiter.sequence, 0)
    }

    private func lock(_ state: inout ScriptedState) {
        let lock = fields(fos_lock_request.self)
        if lock.kind == FOS_LOCK_UNLOCK.rawValue {
            if state.lockOwner == lock.owner { state.lockOwner = nil }
        } else if let owner = state.lockOwner, owner != lock.owner {
            fail(EAGAIN)
        } else {
            state.lockOwner = lock.owner
        }
    }

    func answer(_ state: inout ScriptedState) {
        let inode = request.pointee.inode
        reply.pointee.bulk_length = 0
        switch UInt32(request.pointee.operation) {
        case FOS_OP_NAME_LOOKUP.rawValue: nameLookup()
        case FOS_OP_LEASE_ACK.rawValue: state.acknowledged.append(fields(fos_lease_ack.self).cookie)
        case FOS_OP_FORGET.rawValue: forget(&state)
        case FOS_OP_LOOKUP.rawValue: lookup(&state, inode)
        case FOS_OP_MKNOD.rawValue, FOS_OP_MKDIR.rawValue, FOS_OP_TMPFILE.rawValue, FOS_OP_CREATE.rawValue: make(&state, inode)
        case FOS_OP_UNLINK.rawValue: unlink(&state, inode)
        case FOS_OP_READDIR.rawValue: list(&state, inode)
        case FOS_OP_LINK.rawValue: link(&state)
        case FOS_OP_STATFS.rawValue:
            answer(fos_statfs_reply(blocks: 1000, blocks_free: 900, blocks_available: 900, files: 50, files_free: 40, name_max: 255, block_bytes: 4096))
        case FOS_OP_GETXATTR.rawValue:
            state.log.append("getxattr \(inode) \(name(at: 16, fields(fos_xattr_request.self).name_length))")
            fail(ENODATA)
        case FOS_OP_SETLK.rawValue: lock(&state)
        case FOS_OP_CANCEL.rawValue:
            state.log.append("cancel")
            if state.earlyCancels > 0 {
                state.earlyCancels -= 1
                fail(ENOENT)
            }
        case FOS_OP_OPEN.rawValue, FOS_OP_RELEASE.rawValue:
            state.log.append(UInt32(request.pointee.operation) == FOS_OP_OPEN.rawValue ? "open \(inode)" : "release \(inode)")
        case FOS_OP_FLUSH.rawValue:
            state.log.append("flush \(inode)")
            if state.lockOwner == fields(fos_flush_request.self).owner { state.lockOwner = nil }
        default: file(&state, inode)
        }
    }

    private func nameLookup() {
        var name = fos_name_reply()
        name.members = 1
        name.version = 1
        var member = fos_name_member()
        member.mailbox = 5
        member.epoch = 7
        member.alive = 1
        answer(name)
        (UnsafeMutableRawPointer(reply + 1) + MemoryLayout<fos_name_reply>.size).storeBytes(of: member, as: fos_name_member.self)
        reply.pointee.length += UInt32(MemoryLayout<fos_name_member>.size)
    }

    private func forget(_ state: inout ScriptedState) {
        for index in 0..<Int(request.pointee.length) / 16 {
            let item = UnsafeRawPointer(request + 1).loadUnaligned(fromByteOffset: index * 16, as: fos_forget_item.self)
            if item.count == 0 { return answer(fos_forget_item(inode: item.inode, count: state.files[item.inode]?.references ?? 0)) }
            guard var file = state.files[item.inode], file.references >= item.count else {
                state.log.append("bad forget \(item.inode) \(item.count)")
                continue
            }
            file.references -= item.count
            state.files[item.inode] = file.references == 0 && file.attributes.links == 0 ? nil : file
        }
    }

    private func lookup(_ state: inout ScriptedState, _ inode: UInt64) {
        let name = name(at: 0, request.pointee.length)
        state.log.append("lookup \(inode) \(name)")
        guard let entry = state.entries.first(where: { $0.name == name }) else { return fail(ENOENT) }
        state.files[entry.inode]!.references += 1
        answer(state.files[entry.inode]!.attributes)
    }

    private func make(_ state: inout ScriptedState, _ inode: UInt64) {
        let fields = fields(fos_make_request.self)
        let named = UInt32(request.pointee.operation) != FOS_OP_TMPFILE.rawValue
        let name = named ? name(at: MemoryLayout<fos_make_request>.size, fields.name_length) : nil
        state.log.append("make \(inode) \(name ?? "-")")
        if let name, state.entries.contains(where: { $0.name == name }) { return fail(EEXIST) }
        let type: UInt32 = UInt32(request.pointee.operation) == FOS_OP_MKDIR.rawValue ? 0o040000 : fields.mode & 0o170000
        let mode = (type == 0 ? 0o100000 : type) | fields.mode & 0o7777
        answer(state.make(name, mode: mode, uid: request.pointee.uid, gid: request.pointee.gid).attributes)
    }

    private func unlink(_ state: inout ScriptedState, _ inode: UInt64) {
        let name = name(at: 0, request.pointee.length)
        state.log.append("unlink \(inode) \(name)")
        guard let index = state.entries.firstIndex(where: { $0.name == name }) else { return fail(ENOENT) }
        state.files[state.entries[index].inode]!.attributes.links -= 1
        state.entries.remove(at: index)
    }

    private func link(_ state: inout ScriptedState) {
        let fields = fields(fos_link_request.self)
        state.entries.append((name(at: MemoryLayout<fos_link_request>.size, fields.name_length), fields.target))
        state.files[fields.target]!.attributes.links += 1
        state.files[fields.target]!.references += 1
        answer(state.files[fields.target]!.attributes)
    }

    private func list(_ state: inout ScriptedState, _ inode: UInt64) {
        let fields = fields(fos_readdir_request.self)
        let plus = fields.flags & FOS_READDIR_PLUS.rawValue != 0
        state.log.append("readdir \(inode) \(plus ? "plus" : "plain")")
        let all = [(name: ".", inode: inode), (name: "..", inode: inode)] + state.entries
        var used = 0
        for index in all.indices.dropFirst(Int(fields.cookie)) {
            let file = state.files[all[index].inode]!
            // Directories come without attributes, as when another server owns them.
            let known = plus && index > 1 && file.attributes.mode & 0o170000 != 0o040000
            let bytes = record(
                Array(all[index].name.utf8), inode: all[index].inode, next: UInt64(index + 1), type: UInt8(file.attributes.mode >> 12),
                attributes: known ? file.attributes : nil)
            guard used + bytes.count <= Int(request.pointee.bulk_length) else { break }
            bytes.withUnsafeBytes { (bulk + used).copyMemory(from: $0.baseAddress!, byteCount: bytes.count) }
            used += bytes.count
            if known { state.files[all[index].inode]!.references += 1 }
        }
        reply.pointee.bulk_length = UInt32(used)
    }

    private func file(_ state: inout ScriptedState, _ inode: UInt64) {
        guard var file = state.files[inode] else { return fail(ESTALE) }
        switch UInt32(request.pointee.operation) {
        case FOS_OP_GETATTR.rawValue:
            state.log.append("getattr \(inode)")
            answer(file.attributes)
        case FOS_OP_SETATTR.rawValue:
            let fields = fields(fos_setattr_request.self)
            state.lastSetBits = fields.valid
            if fields.valid & FOS_SET_SIZE.rawValue != 0 { resize(&file, Int(fields.size)) }
            if fields.valid & FOS_SET_MODE.rawValue != 0 { file.attributes.mode = file.attributes.mode & ~0o7777 | fields.mode & 0o7777 }
            if fields.valid & FOS_SET_UID.rawValue != 0 { file.attributes.uid = fields.uid }
            answer(file.attributes)
        case FOS_OP_READ.rawValue:
            if state.readsWaitForWrite {
                reply.pointee.status = transportRetry
                return
            }
            let offset = min(Int(fields(fos_io_request.self).offset), file.data.count)
            let count = min(Int(request.pointee.bulk_length), file.data.count - offset)
            state.log.append("read \(inode)")
            state.lastReadFlags = fields(fos_io_request.self).flags
            file.data.withUnsafeBytes { if count > 0 { bulk.copyMemory(from: $0.baseAddress! + offset, byteCount: count) } }
            reply.pointee.bulk_length = UInt32(count)
        case FOS_OP_WRITE.rawValue: return write(&state, inode, file)
        case FOS_OP_LSEEK.rawValue:
            // Pages of zeros are holes.
            let wanted = fields(fos_lseek_request.self)
            let isData = { (page: Int) in file.data[page * 4096..<min((page + 1) * 4096, file.data.count)].contains { $0 != 0 } }
            var page = Int(wanted.offset) / 4096
            while page * 4096 < file.data.count, isData(page) != (wanted.whence == 3) { page += 1 }
            if page * 4096 >= file.data.count, wanted.whence == 3 { return fail(ENXIO) }
            answer(fos_lseek_reply(offset: max(wanted.offset, UInt64(min(page * 4096, file.data.count)))))
        case FOS_OP_FSYNC.rawValue: state.log.append("fsync \(inode)")
        default: return fail(EOPNOTSUPP)
        }
        state.files[inode] = file
    }

    private func write(_ state: inout ScriptedState, _ inode: UInt64, _ original: ScriptedFile) {
        state.readsWaitForWrite = false
        var file = original
        var fields = fields(fos_io_request.self)
        state.lastIOFlags = fields.flags
        state.log.append("write \(inode) \(request.pointee.bulk_length)")
        if state.fullWrites > 0 {
            state.fullWrites -= 1
            return fail(ENOSPC)
        }
        if fields.flags & FOS_IO_APPEND.rawValue != 0, let end = state.trueEnd { fields.offset = end }
        let count = Int(request.pointee.bulk_length)
        if file.data.count < Int(fields.offset) + count { resize(&file, Int(fields.offset) + count) }
        file.data.withUnsafeMutableBytes { ($0.baseAddress! + Int(fields.offset)).copyMemory(from: bulk, byteCount: count) }
        state.files[inode] = file
        reply.pointee.bulk_length = UInt32(count)
        answer(fos_io_reply(offset: fields.offset, size: UInt64(file.data.count)))
    }

    private func resize(_ file: inout ScriptedFile, _ size: Int) {
        file.data = Array(file.data.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - file.data.count))
        file.attributes.size = UInt64(size)
        file.attributes.blocks = UInt64((size + 511) / 512)
    }
}
