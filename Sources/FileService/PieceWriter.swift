// Pieces of an inode, as messages: the giver's side of the layouts in fos/file_peer.h (the taker's is SlotMove+Take).
//
// Each function writes the next piece of one kind and moves the position behind it; false means that there is none left,
// and that the stage given is the next one.

import CFosWire
import FileStorage
import Messaging

extension fos_peer_inode {
    init(_ inode: InodePointer) {
        self.init()
        number = inode.pointee.number
        size = inode.pointee.size
        version = inode.pointee.version
        kernel_references = inode.pointee.kernelReferences
        parent = inode.pointee.parent
        next_cookie = inode.isDirectory ? inode.directory.pointee.nextCookie : 0
        accessed = fos_time(inode.pointee.accessed)
        modified = fos_time(inode.pointee.modified)
        changed = fos_time(inode.pointee.changed)
        born = fos_time(inode.pointee.born)
        mode = inode.pointee.mode
        uid = inode.pointee.uid
        gid = inode.pointee.gid
        links = inode.pointee.links
        device = inode.pointee.device
        generation = inode.pointee.generation
        subdirectories = inode.pointee.subdirectories
        leases = inode.pointee.leases.rawValue
        flags = inode.pointee.flags.rawValue
    }
}

extension fos_peer_slot {
    init(slot: UInt32, owner: UInt32, version: UInt32, generation: UInt32, _ numbering: SlotNumbering = SlotNumbering(incarnation: 0, hasLosses: false)) {
        self.init(
            slot: slot, owner: owner, version: version, generation: generation, incarnation: numbering.incarnation,
            has_losses: numbering.hasLosses ? 1 : 0, reserved: 0)
    }
    var numbering: SlotNumbering { SlotNumbering(incarnation: incarnation, hasLosses: has_losses != 0) }
}

extension fos_peer_lock {
    init(_ lock: LockRequest, isFlock: Bool, generation: UInt32) {
        self.init(
            owner: lock.owner.id, start: lock.start, end: lock.end, client: lock.owner.client, generation: generation, pid: lock.pid,
            kind: lock.kind.rawValue, is_description: lock.owner.isDescription ? 1 : 0, is_flock: isFlock ? 1 : 0, reserved: 0)
    }
    /// nil if the kind is none.
    var request: LockRequest? {
        guard let kind = LockKind(rawValue: kind) else { return nil }
        return LockRequest(
            owner: LockOwner(id: owner, client: client, isDescription: is_description != 0), kind: kind, start: start, end: end, pid: pid)
    }
}

struct PieceWriter {
    let message: UnsafeMutablePointer<fos_message>
    private var piece = fos_peer_piece()
    /// Bytes of content so far.
    private(set) var used = 0

    init(message: UnsafeMutablePointer<fos_message>) { self.message = message }

    private var room: Int { Limits.bytesOfPiece - used }
    private var body: UnsafeMutableRawPointer { message.body + MemoryLayout<fos_peer_piece>.size }

    mutating func begin(_ kind: fos_piece_kind) { piece.kind = kind.rawValue }
    mutating func append<Fixed: BitwiseCopyable>(_ fixed: Fixed) {
        (body + used).storeBytes(of: fixed, as: Fixed.self)
        used += MemoryLayout<Fixed>.size
    }
    private mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if let base = bytes.baseAddress { (body + used).copyMemory(from: base, byteCount: bytes.count) }
        used += bytes.count
    }
    func finish() {
        message.body.storeBytes(of: piece, as: fos_peer_piece.self)
        message.pointee.length = UInt32(MemoryLayout<fos_peer_piece>.size + used)
    }

    mutating func xattr(of inode: InodePointer, _ next: inout Giving) -> Bool {
        guard let (name, value) = inode.pointee.xattrs.at(Int(next.position)) else {
            next.stage = inode.isDirectory ? .entries : inode.isRegular ? .data : inode.isSymlink ? .target : .opens
            return false
        }
        begin(FOS_PIECE_XATTR)
        piece.count = UInt32(name.count)
        piece.total = UInt32(value.count)
        piece.offset = UInt64(next.offset)
        append(name)
        let count = min(value.count - next.offset, room)
        append(UnsafeRawBufferPointer(rebasing: value[next.offset..<next.offset + count]))
        next.offset += count
        if next.offset == value.count {
            next.position += 1
            next.offset = 0
        }
        return true
    }

    mutating func target(of inode: InodePointer, _ next: inout Giving) -> Bool {
        let bytes = inode.symlink.pointee.bytes
        guard next.offset < bytes.count else {
            next.stage = .opens
            return false
        }
        begin(FOS_PIECE_TARGET)
        piece.total = UInt32(bytes.count)
        piece.offset = UInt64(next.offset)
        let count = min(bytes.count - next.offset, room)
        append(UnsafeRawBufferPointer(rebasing: bytes[next.offset..<next.offset + count]))
        next.offset += count
        return true
    }

    mutating func data(of inode: InodePointer, _ next: inout Giving) -> Bool {
        guard let index = inode.pageMap.pointee.nextData(from: next.position), let page = inode.pageMap.pointee.page(index) else {
            next.stage = .opens
            return false
        }
        if index != next.position { next.offset = 0 }
        begin(FOS_PIECE_DATA)
        piece.offset = index * UInt64(Limits.pageBytes) + UInt64(next.offset)
        let count = min(Limits.pageBytes - next.offset, room)
        append(UnsafeRawBufferPointer(start: page + next.offset, count: count))
        next.position = index
        next.offset += count
        if next.offset == Limits.pageBytes {
            next.position += 1
            next.offset = 0
        }
        return true
    }

    mutating func entries(of inode: InodePointer, _ next: inout Giving) -> Bool {
        begin(FOS_PIECE_ENTRIES)
        while let dentry = inode.directory.pointee.next(after: next.position) {
            let name = dentry.name
            guard MemoryLayout<fos_peer_entry>.size + name.count <= room else { return true }
            append(
                fos_peer_entry(
                    inode: dentry.pointee.inode, cookie: dentry.pointee.cookie, flags: dentry.pointee.flags.rawValue, kind: dentry.pointee.kind,
                    name_length: UInt8(name.count), reserved: 0))
            append(name)
            piece.count += 1
            next.position = dentry.pointee.cookie
        }
        if piece.count > 0 { return true }
        next.stage = .opens
        return false
    }

    mutating func opens<K: Kernel>(of inode: InodePointer, _ next: inout Giving, _ table: borrowing OpenFileTable, _ kernel: K) -> Bool {
        begin(FOS_PIECE_OPEN)
        var client = UInt32(next.position)
        while inode.pointee.references > 0, room >= MemoryLayout<fos_peer_open>.size, let found = table.nextClient(from: client) {
            client = found + 1
            guard let held = table.held(found, inode.pointee.number) else { continue }
            append(
                fos_peer_open(
                    client: found, generation: kernel.generation(ofClient: found), count: held.count, readers: held.readers, writers: held.writers,
                    reserved: 0))
            piece.count += 1
        }
        next.position = UInt64(client)
        if piece.count > 0 { return true }
        next.stage = .locks
        return false
    }

    mutating func locks<K: Kernel>(of inode: InodePointer, _ next: inout Giving, _ table: borrowing LockTable, _ kernel: K) -> Bool {
        begin(FOS_PIECE_LOCK)
        while room >= MemoryLayout<fos_peer_lock>.size, let held = table.held(inode, at: Int(next.position)) {
            append(fos_peer_lock(held.lock, isFlock: held.isFlock, generation: kernel.generation(ofClient: held.lock.owner.client)))
            piece.count += 1
            next.position += 1
        }
        if piece.count > 0 { return true }
        next.stage = .taken
        return false
    }

    mutating func taken(of inode: InodePointer, _ next: inout Giving, _ links: borrowing TakenLinks) -> Bool {
        begin(FOS_PIECE_TAKEN)
        while room >= MemoryLayout<fos_peer_link>.size, let found = links.next(of: inode.pointee.number, from: Int(next.position)) {
            append(found.link)
            piece.count += 1
            next.position = UInt64(found.place + 1)
        }
        if piece.count > 0 { return true }
        next.stage = .finish
        return false
    }
}
