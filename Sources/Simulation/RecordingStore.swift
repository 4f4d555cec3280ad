// A store for the simulator: what a file server has committed, kept where a crash does not reach, and read back into the
// server that takes its place.
//
// Invariants: it is told of every change in the turn that makes it (StateStore), so between two turns it has exactly what
// the server has; it keeps bytes, never pointers.

import CFosWire
public import FileService
import FileStorage
import Fleet
import Messaging
public import Simulator

/// What one member has committed.
public final class StoredState {
    private var inodes: [UInt64: StoredInode] = [:]
    private var open: [UInt64: StoredDecision] = [:]
    private var done: [StoredEffect] = []
    /// The highest generation that each slot has given, also to inodes that are gone.
    private var generations: [Int: UInt32] = [:]
    private var lives: UInt32 = 0
    public init() {}

    /// Fills a server that has just been made without a root; false: there is no room for it all.
    public func restore(_ server: inout FileServer<RecordingStore>) -> Bool {
        lives += 1
        return server.restore(all, generations: generations)
            && server.recover(open.values.sorted { $0.record.cookie < $1.record.cookie }, effects: done, life: lives)
    }
    /// Transactions that the member could not take back, and has not finished.
    public var openDecisions: Int { open.count }

    public var all: [StoredInode] { inodes.values.sorted { $0.record.number < $1.record.number } }

    func apply(_ change: Change) {
        switch change {
        case .inode(let inode): note(inode)
        case .freed(let number), .departed(let number): inodes[number] = nil
        case .entry(let record, let name, let inode, let kind, let place):
            inodes[record]?.entries[Array(name)] = StoredInode.Entry(inode: inode, kind: kind, place: place)
        case .entryRemoved(let record, let name): inodes[record]?.entries[Array(name)] = nil
        case .prepared(let record, let name, let coordinator, let cookie, let place):
            let prepared = StoredInode.Prepared(coordinator: coordinator, cookie: cookie)
            let key = Array(name)
            if inodes[record]?.entries[key] != nil {
                inodes[record]?.entries[key]?.prepared = prepared
            } else {
                inodes[record]?.entries[key] = StoredInode.Entry(inode: 0, kind: 0, place: place, prepared: prepared)
            }
        case .released(let record, let name):
            let key = Array(name)
            guard let entry = inodes[record]?.entries[key] else { return }
            if entry.inode == 0 { inodes[record]?.entries[key] = nil } else { inodes[record]?.entries[key]?.prepared = nil }
        case .decision(let record, let name, let message):
            open[record.cookie] = StoredDecision(record: record, name: Array(name), message: Array(message))
        case .forgotten(let cookie): open[cookie] = nil
        case .effect(let inode, let cookie, let coordinator):
            done.append(StoredEffect(inode: inode, cookie: cookie, coordinator: coordinator))
            if done.count > StoredEffect.kept { done.removeFirst() }
        case .data(let inode, let offset, let length):
            if inodes[inode.pointee.number] == nil { note(inode) }
            let first = offset / 4096
            for index in first...max(first, (offset + max(length, 1) - 1) / 4096) { notePage(inode, index) }
        case .attributes(let inode): noteAttributes(inode)
        }
    }

    private func note(_ inode: InodePointer) {
        let number = inode.pointee.number
        let slot = SlotTable.slot(ofInode: number)
        generations[slot] = max(generations[slot, default: 0], inode.pointee.generation)
        var stored = inodes[number] ?? StoredInode(record: inode.pointee)
        let shrank = inode.pointee.size < stored.record.size
        stored.record = inode.pointee
        if inode.isSymlink { stored.target = Array(inode.symlink.pointee.bytes) }
        inodes[number] = stored
        guard shrank, inode.isRegular else { return }
        let pages = (inode.pointee.size + 4095) / 4096
        inodes[number]?.pages = stored.pages.filter { $0.key < pages }
        if inode.pointee.size % 4096 != 0 { notePage(inode, pages - 1) }
    }

    private func notePage(_ inode: InodePointer, _ index: UInt64) {
        let page = inode.pageMap.pointee.page(index)
        inodes[inode.pointee.number]?.pages[index] = page.map { Array(UnsafeRawBufferPointer(start: UnsafeRawPointer($0), count: 4096)) }
    }

    private func noteAttributes(_ inode: InodePointer) {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: inode.pointee.xattrs.listBytes(), alignment: 1)
        defer { room.deallocate() }
        guard inode.pointee.xattrs.list(into: room) != nil else { return }
        let names = room.split(separator: 0).map { Array($0) }
        inodes[inode.pointee.number]?.attributes = names.compactMap { name in
            name.withUnsafeBytes { inode.pointee.xattrs.get($0) }.map { (name, Array($0)) }
        }
    }
}

public struct RecordingStore: StateStore {
    let state: StoredState
    let births: BirthLog?
    let loses: ((Change) -> Bool)?
    /// - Parameter loses: of a store that is broken on purpose: changes that it does not keep.
    public init(_ state: StoredState, births: BirthLog? = nil, loses: ((Change) -> Bool)? = nil) {
        self.state = state
        self.births = births
        self.loses = loses
    }
    public static var outlivesServer: Bool { true }
    public mutating func committed(_ change: Change) {
        births?.note(change)
        if loses?(change) != true { state.apply(change) }
    }
}

/// A member of the file fleet whose store is the simulation's: it survives the member, or looks on.
public final class StoredFileMember<Store: StateStore>: SimServer, InspectableFileServer {
    public var server: FileServer<Store>
    public init(_ server: consuming FileServer<Store>) {
        self.server = server
        super.init()
    }
    public override func receive(_ request: Request, _ kernel: SimKernel) { server.receive(request, kernel) }
    public override func resume(_ response: Response, _ kernel: SimKernel) { server.resume(response, kernel) }
    public override func describe(_ statistics: inout fos_statistics) { server.describe(&statistics) }
    public func forEachInode(_ body: (InodeReport) -> Void) { server.forEachInode(body) }
    public var work: WorkReport { server.work }
    public var giving: (slot: Int, taker: Int)? { server.slotOnItsWay }
    public func owner(ofSlot slot: Int) -> Int { server.owner(ofSlot: slot) }
}
