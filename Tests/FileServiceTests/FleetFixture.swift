// A file fleet on a loop host, clients that speak in file operations, and the checks of the fleet's whole state.

import CFosWire
import FileStorage
import Fleet
import Glibc
import LoopKernel
import MemoryService
import Messaging
import Testing

@testable import FileService

typealias MemoryFileServer = FileServer<MemoryStore>

/// Servers at cores 0 and 1 in turn, several of them on a core.
final class FileFleet {
    let host: LoopHost
    let servers: [MailboxAddress]
    let pages: Int

    /// The memory server that grants the file servers their pages, if any does.
    let memory: MailboxAddress?

    /// Directories are sharded from so many entries on, in tests that do not say it: all of the suite runs either way.
    static var sharding: Sharding {
        getenv("FOS_TEST_SHARD_THRESHOLD").flatMap { Int(String(cString: $0)) }.map { Sharding(threshold: $0) } ?? .never
    }

    /// - Parameter places: members that may come to serve; those from `members` on are there and own nothing yet.
    init(
        members: Int = 2, places: Int? = nil, pagesPerMember: Int = 4096, rootMode: UInt32 = 0o755, hasMemory: Bool = false,
        sharding: Sharding = FileFleet.sharding, options: LoopOptions = LoopOptions(), manager: MailboxAddress? = nil
    ) {
        host = LoopHost(options)
        let places = places ?? members
        servers = (0..<places).map { MailboxAddress(core: $0 % 2, index: 1 + $0 / 2) }
        pages = members * pagesPerMember
        memory = hasMemory ? MailboxAddress(core: 0, index: 41) : nil
        if let memory {
            var sizes = MemoryOptions(limitBytes: 0, reserveBytes: 0)
            sizes.largeRegionBytes = 8 << 20
            host.add(MemoryServer(member: 0, members: [memory], options: sizes), at: memory)
        }
        for member in 0..<places {
            host.add(
                MemoryFileServer(
                    member: member, members: servers, credits: member < members ? pagesPerMember : 0, memory: memory,
                    root: RootAttributes(uid: 0, gid: 0, mode: rootMode, born: host.now), seed: 7, sharding: sharding, store: MemoryStore(),
                    serving: members, isJoining: member >= members, manager: manager),
                at: servers[member])
        }
        host.tick()
        host.runUntilQuiet()
    }

    func files(uid: UInt32 = 0, gid: UInt32 = 0) -> Files { Files(fleet: self, client: host.addClient(uid: uid, gid: gid)) }
    func frontEnd() -> Files { Files(fleet: self, client: host.addFrontEnd()) }

    func member(of inode: UInt64) -> Int { Int(inode % 4096) % servers.count }

    func look<R>(_ member: Int, _ body: (inout MemoryFileServer) throws -> R) rethrows -> R {
        try host.withServer(servers[member], as: MemoryFileServer.self, body)
    }

    // MARK: Checks

    struct Found {
        var mode: UInt32
        var links: UInt32
        var parent: UInt64
        var subdirectories: UInt32
        var references: UInt64
        var isDead: Bool
        var entries: [(name: String, bytes: [UInt8], inode: UInt64, kind: UInt8)]
    }

    private func forEachInode(_ body: (inout MemoryFileServer, InodePointer) -> Void) {
        for member in servers.indices {
            look(member) { server in
                for slot in 0..<SlotTable.slots {
                    var index: UInt64 = 0
                    while let inode = server.inodes.next(slot: slot, from: index) {
                        index = inode.pointee.number / 4096 + 1
                        body(&server, inode)
                    }
                }
            }
        }
    }

    /// Every inode of the fleet; what the shards of a directory have is the directory's.
    func snapshot() -> [UInt64: Found] {
        var all: [UInt64: Found] = [:]
        var shards: [(directory: UInt64, Found)] = []
        forEachInode { server, inode in
            var found = Found(
                mode: inode.pointee.mode, links: inode.pointee.links, parent: inode.pointee.parent,
                subdirectories: inode.pointee.subdirectories,
                references: inode.pointee.kernelReferences + UInt64(inode.pointee.references),
                isDead: inode.pointee.flags.contains(.dead), entries: [])
            if inode.isDirectory {
                var cookie: UInt64 = 0
                while let dentry = inode.directory.pointee.next(after: cookie) {
                    cookie = dentry.pointee.cookie
                    if dentry.pointee.flags.contains(.locked) { Issue.record("a locked entry is left in \(inode.pointee.number)") }
                    found.entries.append(
                        (String(decoding: dentry.name, as: UTF8.self), Array(dentry.name), dentry.pointee.inode, dentry.pointee.kind))
                }
                if inode.pointee.busy != 0 { Issue.record("directory \(inode.pointee.number) is busy \(inode.pointee.busy)") }
                if found.entries.count != inode.directory.pointee.count { Issue.record("a directory counts its entries wrongly") }
            }
            if inode.pointee.isShard {
                checkShard(inode, &server)
                shards.append((inode.pointee.parent, found))
                return
            }
            if all[inode.pointee.number] != nil { Issue.record("inode \(inode.pointee.number) has two owners") }
            all[inode.pointee.number] = found
        }
        for (directory, shard) in shards {
            guard let whole = all[directory] else {
                Issue.record("a shard is left of \(directory)")
                continue
            }
            if whole.mode != shard.mode { Issue.record("a shard of \(directory) has another mode") }
            all[directory]?.entries += shard.entries
            all[directory]?.subdirectories += shard.subdirectories
            all[directory]?.links += shard.links - 2
        }
        return all
    }

    private func checkShard(_ record: InodePointer, _ server: inout MemoryFileServer) {
        let number = record.pointee.parent
        if server.shards.find(number, record.pointee.shardIndex) != record { Issue.record("a shard of \(number) is not in its table") }
        if record.pointee.flags.contains(.sealed) { Issue.record("a shard of \(number) is left sealed") }
        if host.shardBits(of: number) != record.pointee.shardBits { Issue.record("a shard of \(number) does not know how many there are") }
        var cookie: UInt64 = 0
        while let dentry = record.directory.pointee.next(after: cookie) {
            cookie = dentry.pointee.cookie
            if server.shard(of: dentry.name, in: number, bits: record.pointee.shardBits) != record.pointee.shardIndex {
                Issue.record("a name of \(number) is in the wrong shard")
            }
        }
    }
    /// Sharded directories of the fleet, and how many shards each has in use.
    func shardedDirectories() -> [UInt64: Int] {
        var all: [UInt64: Int] = [:]
        forEachInode { _, inode in
            if inode.pointee.isSharded { all[inode.pointee.number] = inode.pointee.activeShards }
        }
        return all
    }

    /// What must hold whenever nothing is under way.
    func check(_ note: String = "", sourceLocation: SourceLocation = #_sourceLocation) {
        let all = snapshot()
        var names: [UInt64: Int] = [:]
        for (number, directory) in all where directory.mode & 0o170000 == 0o040000 {
            var subdirectories: UInt32 = 0
            if Set(directory.entries.map(\.bytes)).count != directory.entries.count {
                Issue.record("\(note): a name is twice in \(number)")
            }
            for entry in directory.entries {
                names[entry.inode, default: 0] += 1
                guard let child = all[entry.inode] else {
                    Issue.record("\(note): \(number)/\(entry.name) leads to no inode \(entry.inode)", sourceLocation: sourceLocation)
                    continue
                }
                if UInt8(child.mode >> 12) != entry.kind { Issue.record("\(note): kind of \(entry.name)") }
                if child.mode & 0o170000 == 0o040000 {
                    subdirectories += 1
                    if child.parent != number { Issue.record("\(note): parent of \(entry.inode) is \(child.parent), not \(number)") }
                    if child.isDead { Issue.record("\(note): a dead directory has a name") }
                }
            }
            if subdirectories != directory.subdirectories {
                Issue.record("\(note): subdirectories of \(number): \(directory.subdirectories), not \(subdirectories)")
            }
            if !directory.isDead, directory.links != 2 + subdirectories { Issue.record("\(note): links of directory \(number)") }
        }
        var reachable: Set<UInt64> = [1]
        var queue: [UInt64] = [1]
        while let next = queue.popLast() {
            for entry in all[next]?.entries ?? [] where reachable.insert(entry.inode).inserted { queue.append(entry.inode) }
        }
        for (number, inode) in all {
            let isDirectory = inode.mode & 0o170000 == 0o040000
            if number != 1, !isDirectory, Int(inode.links) != names[number, default: 0] {
                Issue.record(
                    "\(note): inode \(number) has \(inode.links) links and \(names[number, default: 0]) names",
                    sourceLocation: sourceLocation)
            }
            if isDirectory, number != 1, names[number, default: 0] != (inode.isDead ? 0 : 1) {
                Issue.record("\(note): directory \(number) has \(names[number, default: 0]) names")
            }
            if !reachable.contains(number), inode.references == 0 { Issue.record("\(note): inode \(number) is lost") }
        }
        var space = 0
        for member in servers.indices {
            look(member) { server in
                #expect(server.continuations.count == 0, "\(note): continuations of \(member)", sourceLocation: sourceLocation)
                #expect(
                    server.waiters.count == 0 && server.owing == 0 && server.asking == 0 && !server.treeIsLocked, "\(note)",
                    sourceLocation: sourceLocation)
                #expect(server.owedNotices.count == 0)
                space += server.pool.credits + server.pool.used + server.pool.held
            }
        }
        #expect(space == pages, "\(note): pages", sourceLocation: sourceLocation)
        #expect(host.violations.isEmpty, "\(note): \(host.violations)", sourceLocation: sourceLocation)
    }
}

/// A client's view: every call returns the status and what came with it.
struct Files {
    let fleet: FileFleet
    let client: LoopClient
    static let root: UInt64 = 1

    /// A call that must be answered; a test that gets stuck cannot go on. Ticks let owed messages go out.
    func call(_ call: LoopCall) -> LoopReply {
        for _ in 0..<3000 {
            let ticket = client.post(call)
            var reply = client.reply(ticket)
            for _ in 0..<200 where reply == nil {
                fleet.host.run { client.isAnswered(ticket) }
                reply = client.reply(ticket)
                if reply == nil { fleet.host.tick() }
            }
            guard let reply else { fatalError("no reply to operation \(call.operation), seed \(fleet.host.options.seed)") }
            if reply.status <= 0 { return reply }
            fleet.host.advance(nanoseconds: 1000)
            if !fleet.host.step() { fleet.host.tick() }
        }
        fatalError("operation \(call.operation) is answered try again for ever, seed \(fleet.host.options.seed)")
    }

    static func make(
        _ operation: fos_operation, _ parent: UInt64, _ name: String, mode: UInt32, umask: UInt32 = 0, device: UInt32 = 0,
        flags: UInt32 = 0,
        reference: UInt32 = 0
    ) -> LoopCall {
        LoopCall(
            operation, inode: parent,
            fos_make_request(
                mode: mode, umask: umask, device: device, open_flags: flags, name_length: UInt32(name.utf8.count), take_reference: reference
            ), name)
    }
    static func renameCall(_ parent: UInt64, _ old: String, _ newParent: UInt64, _ new: String, flags: UInt32 = 0) -> LoopCall {
        LoopCall(
            FOS_OP_RENAME, inode: parent,
            fos_rename_request(
                new_parent: newParent, flags: flags, old_length: UInt32(old.utf8.count), new_length: UInt32(new.utf8.count), reserved: 0),
            old, new)
    }
    static func linkCall(_ target: UInt64, _ parent: UInt64, _ name: String) -> LoopCall {
        LoopCall(FOS_OP_LINK, inode: parent, fos_link_request(target: target, name_length: UInt32(name.utf8.count), reserved: 0), name)
    }

    /// As stat(2) does it: what a LOOKUP cannot say exactly is asked for.
    func lookup(_ parent: UInt64, _ name: String) -> Result {
        let found = Result(call(LoopCall(FOS_OP_LOOKUP, inode: parent, name: name)))
        return found.attributes.flags & FOS_ATTRIBUTES_INEXACT.rawValue != 0 ? stat(found.inode) : found
    }
    func stat(_ inode: UInt64) -> Result { Result(call(LoopCall(FOS_OP_GETATTR, inode: inode))) }
    func mkdir(_ parent: UInt64, _ name: String, mode: UInt32 = 0o755, umask: UInt32 = 0) -> Result {
        Result(call(Files.make(FOS_OP_MKDIR, parent, name, mode: mode, umask: umask)))
    }
    func create(_ parent: UInt64, _ name: String, mode: UInt32 = 0o644, flags: UInt32 = 2, reference: UInt32 = 0) -> Result {
        Result(call(Files.make(FOS_OP_CREATE, parent, name, mode: mode, flags: flags, reference: reference)))
    }
    func mknod(_ parent: UInt64, _ name: String, mode: UInt32, device: UInt32 = 0) -> Result {
        Result(call(Files.make(FOS_OP_MKNOD, parent, name, mode: mode, device: device)))
    }
    func symlink(_ parent: UInt64, _ name: String, _ target: String) -> Result {
        Result(
            call(
                LoopCall(
                    FOS_OP_SYMLINK, inode: parent,
                    fos_symlink_request(name_length: UInt32(name.utf8.count), target_length: UInt32(target.utf8.count)), name,
                    bulk: Array(target.utf8))))
    }
    func readlink(_ inode: UInt64, room: Int = 4096) -> LoopReply { call(LoopCall(FOS_OP_READLINK, inode: inode, room: room)) }
    func unlink(_ parent: UInt64, _ name: String) -> Int32 { call(LoopCall(FOS_OP_UNLINK, inode: parent, name: name)).status }
    func rmdir(_ parent: UInt64, _ name: String) -> Int32 { call(LoopCall(FOS_OP_RMDIR, inode: parent, name: name)).status }
    func rename(_ parent: UInt64, _ old: String, _ newParent: UInt64, _ new: String, flags: UInt32 = 0) -> Int32 {
        call(Files.renameCall(parent, old, newParent, new, flags: flags)).status
    }
    func link(_ target: UInt64, _ parent: UInt64, _ name: String) -> Result { Result(call(Files.linkCall(target, parent, name))) }
    func setattr(_ inode: UInt64, _ valid: UInt32, mode: UInt32 = 0, uid: UInt32 = 0, gid: UInt32 = 0, size: UInt64 = 0, time: Int64 = 0)
        -> Result
    {
        let time = fos_time(seconds: time, nanoseconds: 5, reserved: 0)
        return Result(
            call(
                LoopCall(
                    FOS_OP_SETATTR, inode: inode,
                    fos_setattr_request(
                        valid: valid, mode: mode, uid: uid, gid: gid, size: size, accessed: time, modified: time, changed: time))))
    }
    func truncate(_ inode: UInt64, _ size: UInt64) -> Int32 { setattr(inode, FOS_SET_SIZE.rawValue, size: size).status }
    static func writeCall(_ inode: UInt64, _ offset: UInt64, _ bytes: [UInt8], flags: UInt32 = 0) -> LoopCall {
        LoopCall(FOS_OP_WRITE, inode: inode, fos_io_request(offset: offset, owner: 0, flags: flags, open_flags: 2), bulk: bytes)
    }
    /// Bytes written, or the error.
    func write(_ inode: UInt64, _ offset: UInt64, _ bytes: [UInt8], flags: UInt32 = 0) -> Int {
        let reply = call(Files.writeCall(inode, offset, bytes, flags: flags))
        return reply.status < 0 ? Int(reply.status) : Int(reply.header.bulk_length)
    }
    static func readCall(_ inode: UInt64, _ offset: UInt64, _ count: Int, flags: UInt32 = 0) -> LoopCall {
        LoopCall(FOS_OP_READ, inode: inode, fos_io_request(offset: offset, owner: 0, flags: flags, open_flags: 0), room: count)
    }
    func read(_ inode: UInt64, _ offset: UInt64, _ count: Int) -> LoopReply { call(Files.readCall(inode, offset, count)) }
    func fallocate(_ inode: UInt64, _ mode: UInt32, _ offset: UInt64, _ length: UInt64) -> Int32 {
        call(LoopCall(FOS_OP_FALLOCATE, inode: inode, fos_fallocate_request(offset: offset, length: length, mode: mode, reserved: 0)))
            .status
    }
    func seek(_ inode: UInt64, _ whence: UInt32, _ offset: UInt64) -> Int64 {
        let reply = call(LoopCall(FOS_OP_LSEEK, inode: inode, fos_lseek_request(offset: offset, whence: whence, reserved: 0)))
        return reply.status < 0 ? Int64(reply.status) : Int64(reply.fixed(fos_lseek_reply.self).offset)
    }
    func copy(_ source: UInt64, _ from: UInt64, _ target: UInt64, _ to: UInt64, _ length: UInt64) -> Int64 {
        let reply = call(
            LoopCall(
                FOS_OP_COPY_RANGE, inode: target,
                fos_copy_request(source: source, source_offset: from, offset: to, length: length, flags: 0, reserved: 0)))
        return reply.status < 0 ? Int64(reply.status) : Int64(reply.fixed(fos_copy_reply.self).bytes)
    }
    func open(_ inode: UInt64, _ flags: UInt32) -> Result {
        Result(call(LoopCall(FOS_OP_OPEN, inode: inode, fos_open_request(open_flags: flags, room: 0))))
    }
    func release(_ inode: UInt64, count: UInt32 = 1) -> Int32 {
        call(LoopCall(FOS_OP_RELEASE, inode: inode, fos_release_request(owner: 0, flags: 0, count: count))).status
    }
    func forget(_ items: [(UInt64, UInt64)]) -> Int32 {
        let payload = items.flatMap { loopBytes(of: fos_forget_item(inode: $0.0, count: $0.1)) }
        return call(LoopCall(FOS_OP_FORGET, inode: items.first?.0 ?? 1, payload: payload)).status
    }
    /// The kernel's references of an inode, asked of the owner of another one.
    func references(_ inode: UInt64, asking other: UInt64? = nil) -> UInt64 {
        let payload = loopBytes(of: fos_forget_item(inode: inode, count: 0))
        return call(LoopCall(FOS_OP_FORGET, inode: other ?? inode, payload: payload)).fixed(fos_forget_item.self).count
    }
    func access(_ inode: UInt64, _ mask: Int) -> Int32 { call(LoopCall(FOS_OP_ACCESS, inode: inode).flags(mask)).status }
    func statfs() -> fos_statfs_reply { call(LoopCall(FOS_OP_STATFS, inode: 1)).fixed() }

    struct Entry: Equatable {
        var name: String
        var inode: UInt64
        var next: UInt64
        var type: UInt8
        var attributes: UInt64?  // inode number in the attributes
    }
    /// One READDIR.
    func entries(_ inode: UInt64, cookie: UInt64 = 0, plus: Bool = false, short: Bool = false, room: Int = 65536) -> (Int32, [Entry]) {
        let flags = (plus ? FOS_READDIR_PLUS.rawValue : 0) | (short ? FOS_READDIR_SHORT.rawValue : 0)
        let reply = call(LoopCall(FOS_OP_READDIR, inode: inode, fos_readdir_request(cookie: cookie, flags: flags, filled: 0), room: room))
        var list: [Entry] = []
        var offset = 0
        while reply.status == 0, offset + 24 <= reply.bulk.count {
            let record: fos_directory_entry = loopFixed(reply.bulk, at: offset)
            #expect(record.has_attributes != (short ? 0 : 2))
            let start = offset + (record.has_attributes == 2 ? 24 : MemoryLayout<fos_directory_entry>.size)
            let name = String(decoding: reply.bulk[start..<start + Int(record.name_length)], as: UTF8.self)
            list.append(
                Entry(
                    name: name, inode: record.inode, next: record.next, type: record.type,
                    attributes: record.has_attributes == 1 ? record.attributes.inode : nil))
            offset += Int(record.record_length)
        }
        return (reply.status, list)
    }
    /// All names but the dots, sorted.
    func names(_ inode: UInt64) -> [String] {
        var all: [String] = []
        var cookie: UInt64 = 0
        while true {
            let (status, part) = entries(inode, cookie: cookie, short: true, room: 1024)
            guard status == 0, let last = part.last else { break }
            all += part.map(\.name)
            cookie = last.next
        }
        return all.filter { $0 != "." && $0 != ".." }.sorted()
    }

    struct Result {
        var status: Int32
        var flags: UInt16
        var attributes: fos_attributes
        init(_ reply: LoopReply) {
            status = reply.status
            flags = reply.header.flags
            attributes = reply.fixed()
        }
        var inode: UInt64 { attributes.inode }
        var permissions: UInt32 { attributes.mode & 0o7777 }
    }
}


// A failed expectation shows its parts by reflection, which cannot look into servers: they are not copyable.
extension FileFleet: CustomReflectable { var customMirror: Mirror { Mirror(self, children: []) } }
extension Files: CustomReflectable { var customMirror: Mirror { Mirror(self, children: []) } }
extension LeaseTests.Setup: CustomReflectable { var customMirror: Mirror { Mirror(self, children: []) } }
extension LoopClient: CustomReflectable { public var customMirror: Mirror { Mirror(self, children: []) } }
extension LoopHost: CustomReflectable { public var customMirror: Mirror { Mirror(self, children: []) } }
