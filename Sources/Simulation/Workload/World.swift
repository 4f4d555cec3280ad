// What the threads of a random workload know together: directories, files, and what they may do with them.
//
// Invariants: a thread learns inodes from answers, of its own or others', as processes of one machine do; nothing here is
// hidden from the checker, since every answer is recorded.

import CFosWire
import Simulator

/// How often each kind of operation comes, and on how much.
public struct WorkloadMix: Sendable, Equatable {
    public var clients = 5
    public var threadsPerClient = 1
    /// Clients of the memory fleet, beside those of files.
    public var memoryClients = 0
    /// Clients of the name fleet. Every other one comes later, within so long.
    public var nameClients = 0
    public var newcomersNanoseconds = 300_000
    /// Names that they register.
    public var serviceNames = 24
    /// Operations of each thread.
    public var operations = 60
    /// Directories made before the clients begin.
    public var directories = 4
    /// Names that entries have.
    public var names = 4
    public var namespace = 10
    /// Renames among the operations on names.
    public var renames = true
    public var data = 4
    public var locks = 2
    public var listings = 1
    /// Clients keep what they were told under epochs, as the shim does.
    public var caching = true
    /// The longest pause between two operations of a thread, ns.
    public var thinkNanoseconds = 2000
    public init() {}
}

public final class World {
    public let mix: WorkloadMix
    public let history = History()
    public private(set) var directories: [UInt64] = [UInt64(FOS_ROOT_INODE)]
    public private(set) var files: [UInt64] = []
    /// Files whose locks the workload is about.
    public var lockFiles: [UInt64] = []
    private var nextValue: UInt64 = 0
    /// Servers that die lose what they had.
    var losesFiles = false
    /// When servers died.
    var deaths: [UInt64] = []

    public init(mix: WorkloadMix) { self.mix = mix }

    func learn(_ inode: UInt64, isDirectory: Bool) {
        if isDirectory {
            if !directories.contains(inode) { directories.append(inode) }
        } else if !files.contains(inode) {
            files.append(inode)
        }
    }
    /// Whether a server died between two moments. An operation that was answered EIO while none did met what was lost
    /// before, and has done nothing.
    func diedBetween(_ from: UInt64, _ to: UInt64) -> Bool { deaths.contains { $0 >= from && $0 <= to } }
    /// A creation whose answer never came: what it made, if anything, is seen by who finds it.
    func uncertainCreation(_ directory: UInt64, _ name: Int, isDirectory: Bool, at invoked: UInt64, thread: Int) {
        history.recordUncertainCreation(directory: directory, name: name, isDirectory: isDirectory, invoked: invoked, thread: thread)
    }
    /// A number that nobody has written before.
    func freshValue() -> UInt64 {
        nextValue += 1
        return nextValue
    }
    static func name(_ number: Int) -> String { "n\(number)" }
    /// The number of a name of the workload's; nil for another one.
    static func number(ofName bytes: UnsafeRawBufferPointer) -> Int? {
        guard bytes.count >= 2, bytes[0] == UInt8(ascii: "n") else { return nil }
        return Int(String(decoding: bytes.dropFirst(), as: UTF8.self))
    }
}

/// What one client process keeps of answers, under the epochs of the board (fos/channel.h), as the shim's cache does.
final class EpochCache {
    private struct Kept<Value, Epoch> {
        let value: Value
        let epoch: Epoch
    }
    private var meanings: [TreeState.Key: Kept<UInt64, UInt64>] = [:]
    private var attributes: [UInt64: Kept<fos_attributes, UInt32>] = [:]

    /// What a name means, 0 for nothing; nil if that is not known, or its directory has changed.
    func meaning(_ directory: UInt64, _ name: Int, _ host: SimHost) -> UInt64? {
        let key = TreeState.Key(directory: directory, name: name)
        guard let kept = meanings[key] else { return nil }
        guard kept.epoch == EpochCache.epoch(of: name, in: directory, host) else {
            meanings[key] = nil
            return nil
        }
        return kept.value
    }
    func attributes(_ inode: UInt64, _ host: SimHost) -> fos_attributes? {
        guard let kept = attributes[inode] else { return nil }
        guard kept.epoch == host.board.epoch(ofInode: inode) else {
            attributes[inode] = nil
            return nil
        }
        return kept.value
    }
    /// The epoch that an entry is true under.
    static func epoch(of name: Int, in directory: UInt64, _ host: SimHost) -> UInt64 {
        var name = World.name(name)
        return name.withUTF8 { host.board.epoch(ofEntry: UnsafeRawBufferPointer($0), in: directory) }
    }
    /// `epoch`: of the entry, from before the request was sent.
    func keepMeaning(_ directory: UInt64, _ name: Int, _ inode: UInt64, epoch: UInt64) {
        meanings[TreeState.Key(directory: directory, name: name)] = Kept(value: inode, epoch: epoch)
    }
    func keep(_ attributes: fos_attributes) {
        guard attributes.flags & (FOS_ATTRIBUTES_VOLATILE.rawValue | FOS_ATTRIBUTES_SHARDED.rawValue) == 0 else { return }
        self.attributes[attributes.inode] = Kept(value: attributes, epoch: attributes.epoch)
    }
}
