// The client's side of delegations, as fos/delegation.h says it, for one channel of a simulated client.
//
// Role: makes files that are delegated, leaves records of changes in the channel's area, and says in its next request that there is one.
// Protocol: requests go one after the other over channel 0, as long as nothing else of the client is under way. A test that plays a
// client which breaks the rules writes into `area` itself.

import CFosWire
import LoopKernel
import Testing

@testable import FileService

/// A record that is being made.
struct Leaving {
    var changes: UInt32 = 0
    var offset: UInt64 = 0
    var data: [UInt8] = []
    var mode: UInt32 = 0
    var uid: UInt32 = 0
    var gid: UInt32 = 0
    var accessed: Int64 = 0
    var modified: Int64 = 0
    /// nil: now.
    var when: UInt64?

    static func write(_ text: String, at offset: UInt64 = 0) -> Leaving { write(Array(text.utf8), at: offset) }
    static func write(_ data: [UInt8], at offset: UInt64 = 0) -> Leaving {
        Leaving(changes: FOS_DELEGATED_DATA.rawValue, offset: offset, data: data)
    }
    func mode(_ mode: UInt32) -> Leaving { adding(FOS_DELEGATED_MODE) { $0.mode = mode } }
    func owner(_ uid: UInt32, _ gid: UInt32) -> Leaving {
        adding(FOS_DELEGATED_UID) { $0.uid = uid }.adding(FOS_DELEGATED_GID) { $0.gid = gid }
    }
    func accessed(_ time: Int64) -> Leaving { adding(FOS_DELEGATED_ACCESSED) { $0.accessed = time } }
    func modified(_ time: Int64) -> Leaving { adding(FOS_DELEGATED_MODIFIED) { $0.modified = time } }
    func at(_ when: UInt64) -> Leaving {
        var copy = self
        copy.when = when
        return copy
    }
    private func adding(_ change: fos_delegated_change, _ set: (inout Leaving) -> Void) -> Leaving {
        var copy = self
        copy.changes |= change.rawValue
        set(&copy)
        return copy
    }
}

/// A client that is left files.
final class Delegate {
    let files: Files
    private var order: UInt32 = 0
    private var cell = 0

    init(_ fleet: FileFleet, uid: UInt32 = 0, gid: UInt32 = 0) {
        files = fleet.files(uid: uid, gid: gid)
        // Its first request makes the channel.
        #expect(files.stat(1).status == 0)
    }

    var host: LoopHost { files.fleet.host }
    var area: UnsafeMutablePointer<fos_delegation> { files.client.delegation(channel: 0) }
    func cell(_ index: Int) -> UnsafeMutablePointer<fos_delegation_cell> {
        UnsafeMutableRawPointer(area).assumingMemoryBound(to: fos_delegation_cell.self) + index
    }
    var isPending: Bool { (0..<2).contains { fos_delegation_changes(fos_delegation_state(cell($0))) != 0 } }
    var now: UInt64 { UInt64(host.now.seconds) * 1_000_000_000 + UInt64(host.now.nanoseconds) }
    func epoch(_ inode: UInt64) -> UInt32 { host.epoch(ofInode: inode) }

    /// Makes a file for writing.
    func create(_ parent: UInt64, _ name: String, mode: UInt32 = 0o644, flags: UInt32 = 2) -> Files.Result {
        files.create(parent, name, mode: mode, flags: flags, reference: 1)
    }
    /// Makes a file, which must be delegated.
    func make(_ name: String, in parent: UInt64 = 1, mode: UInt32 = 0o644, sourceLocation: SourceLocation = #_sourceLocation) -> UInt64 {
        let made = create(parent, name, mode: mode)
        #expect(made.status == 0 && isDelegated(made.flags), sourceLocation: sourceLocation)
        return made.inode
    }
    /// WRITE that asks for attributes. Whether the file is delegated afterwards.
    func write(_ inode: UInt64, _ offset: UInt64, _ bytes: [UInt8]) -> Bool {
        let reply = files.call(carrying(Files.writeCall(inode, offset, bytes, flags: FOS_IO_ATTRIBUTES.rawValue)))
        #expect(reply.status == 0 && reply.header.bulk_length == UInt32(bytes.count))
        return isDelegated(reply.header.flags)
    }
    func isDelegated(_ flags: UInt16) -> Bool { UInt32(flags) & FOS_REPLY_DELEGATED.rawValue != 0 }

    /// What the cell for the next record is full with: a file whose owner has not taken it.
    var inTheWay: UInt64? {
        let next = cell(1 - cell)
        guard fos_delegation_changes(fos_delegation_state(next)) != 0 else { return nil }
        return (UnsafeRawPointer(next) + Int(fos_delegation_line(fos_delegation_state(next))) * 64 + 8).load(as: UInt64.self)
    }
    /// Leaves a record, in the cell after the last one's. The epoch must be the delegation's: the caller knows.
    func leave(_ change: Leaving, of inode: UInt64, in chosen: Int? = nil, sourceLocation: SourceLocation = #_sourceLocation) {
        cell = chosen ?? 1 - cell
        order &+= 1
        let before = fos_delegation_state(cell(cell))
        let isEmpty = fos_delegation_changes(before) == 0 && fos_delegation_is_taken(before) == 0
        #expect(isEmpty, "the cell is not empty", sourceLocation: sourceLocation)
        put(change, of: inode, line: 0)
        let after = fos_delegation_next(before, change.changes, 0, UInt32(change.data.count))
        #expect(fos_delegation_swap(cell(cell), before, after) != 0, sourceLocation: sourceLocation)
    }
    /// Puts what is to be into the cell's other line, and makes it the record.
    func replace(_ change: Leaving, of inode: UInt64) {
        let before = fos_delegation_state(cell(cell))
        let line = 1 - fos_delegation_line(before)
        put(change, of: inode, line: line)
        #expect(fos_delegation_swap(cell(cell), before, fos_delegation_next(before, change.changes, line, UInt32(change.data.count))) != 0)
    }
    private func put(_ change: Leaving, of inode: UInt64, line: UInt32) {
        let record = fos_delegation_record(
            inode: inode, offset: change.offset, when: change.when ?? now, accessed: change.accessed, modified: change.modified,
            mode: change.mode, uid: change.uid, gid: change.gid, order: order)
        let start = UnsafeMutableRawPointer(cell(cell))
        start.storeBytes(of: record, toByteOffset: Int(line) * 64 + 8, as: fos_delegation_record.self)
        change.data.withUnsafeBytes { if let base = $0.baseAddress { (start + 128).copyMemory(from: base, byteCount: $0.count) } }
    }

    /// The request says that there is a record, if there is.
    func carrying(_ call: LoopCall) -> LoopCall {
        var copy = call
        if isPending { copy.givenFor |= UInt16(FOS_GIVEN_RECORD.rawValue) }
        return copy
    }
    func call(_ call: LoopCall) -> LoopReply { files.call(carrying(call)) }
    func stat(_ inode: UInt64) -> Files.Result { Files.Result(call(LoopCall(FOS_OP_GETATTR, inode: inode))) }
}
