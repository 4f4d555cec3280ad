// A thread of the random workload: names, files and locks, in an order that its stream of chance decides.
//
// Role: the workload that the checker is for. Files: RandomProgram+Record takes answers into the history.
// Invariants: a thread that waits for a lock holds none, so no deadlock is to be found; every request is recorded, also
// one that is never answered (`abandon`).

import CFosWire
import Glibc
import Messaging
public import Simulator

public final class RandomProgram: SimProgram {
    /// What was asked, so that the answer can be read.
    enum Asked {
        case nothing
        case make(directory: UInt64, name: Int, isDirectory: Bool, opensExisting: Bool)
        case lookup(directory: UInt64, name: Int, epoch: UInt64)
        case link(target: UInt64, directory: UInt64, name: Int)
        case unlink(directory: UInt64, name: Int)
        case removeDirectory(directory: UInt64, name: Int)
        case rename(directory: UInt64, old: Int, newDirectory: UInt64, new: Int, flags: UInt32)
        case attributes(UInt64)
        /// The entries after a cookie; a listing goes on until nothing comes.
        case list(UInt64, after: UInt64)
        case write(UInt64, word: Int, value: UInt64)
        case append(UInt64, value: UInt64)
        case read(UInt64)
        case truncate(UInt64, size: UInt64)
        case changeMode(UInt64, UInt32)
        case lock(UInt64, unit: Int, isExclusive: Bool)
        case unlock(UInt64, unit: Int)
    }

    let world: World
    let identity: Int
    let cache: EpochCache?
    private var left: Int
    /// Questions to ask in order, instead of random ones: preparations, and the look at everything in the end.
    var script: [Asked] = []
    /// What a listing has brought so far, and when it began.
    var listing: (found: [Int: UInt64], begun: VirtualTime) = ([:], 0)
    var asked = Asked.nothing
    /// The lock that it holds.
    var held: (file: UInt64, unit: Int)?
    /// Its client is dead.
    var isAbandoned = false
    static var fileWords: Int { 8 }

    init(world: World, identity: Int, cache: EpochCache?) {
        self.world = world
        self.identity = identity
        self.cache = cache
        left = world.mix.operations
    }

    init(world: World, identity: Int, script: [Asked]) {
        self.world = world
        self.identity = identity
        self.script = script.reversed()
        cache = nil
        left = 0
    }

    var owner: UInt64 { UInt64(identity) + 1 }

    public override func step(_ thread: SimThread) -> SimStep {
        if case .nothing = asked {} else {
            record(thread)
            asked = .nothing
            if let next = script.popLast() {
                ask(next, thread)
                return .call
            }
            let pause = thread.random.below(world.mix.thinkNanoseconds * 1000)
            if pause > 0, left > 0 { return .pause(VirtualTime(pause)) }
        }
        if let next = script.popLast() {
            ask(next, thread)
            return .call
        }
        while left > 0 {
            left -= 1
            if choose(thread) { return .call }
            // Answered from the cache.
            return .pause(thread.host.costs.clientWork + 1)
        }
        // It leaves no lock behind.
        if let held { ask(.unlock(held.file, unit: held.unit), thread) } else { return .end }
        return .call
    }

    /// What a server did for a dead client it did: the answer says what, and which number a new inode has, though no client
    /// of the machine hears it. Only this way the files that dead clients made have a birth in the history.
    public override func answeredUnheard(_ thread: SimThread) {
        // Whoever waits when its client dies, for a lock or a server, is answered EIO.
        if thread.status == -EIO { recordUncertain(thread) } else { record(thread) }
        asked = .nothing
        // A lock that was granted went with the client.
        guard let held else { return }
        world.history.record(.allGone(owner: owner), of: held.file, invoked: thread.invoked, returned: .max, thread: identity)
    }

    /// Builds a request. False: the cache had the answer, or there is nothing to ask of.
    private func choose(_ thread: SimThread) -> Bool {
        let mix = world.mix
        var choice = thread.random.below(max(mix.namespace + mix.data + mix.locks + mix.listings, 1))
        if choice < mix.namespace { return chooseName(thread) }
        choice -= mix.namespace
        if choice < mix.data { return chooseData(thread) }
        choice -= mix.data
        if choice < mix.locks { return chooseLock(thread) }
        ask(.list(pick(world.directories, thread), after: 0), thread)
        return true
    }

    private func pick(_ inodes: [UInt64], _ thread: SimThread) -> UInt64 { inodes[thread.random.below(min(inodes.count, 24))] }

    private func chooseName(_ thread: SimThread) -> Bool {
        let directory = pick(world.directories, thread)
        let name = thread.random.below(world.mix.names)
        switch thread.random.below(16) {
        case 0, 1: ask(.make(directory: directory, name: name, isDirectory: false, opensExisting: false), thread)
        case 2: ask(.make(directory: directory, name: name, isDirectory: false, opensExisting: true), thread)
        case 3, 4: ask(.make(directory: directory, name: name, isDirectory: true, opensExisting: false), thread)
        case 5, 6:
            guard !world.files.isEmpty else { return false }
            ask(.link(target: pick(world.files, thread), directory: directory, name: name), thread)
        case 7: ask(.unlink(directory: directory, name: name), thread)
        case 8: ask(.removeDirectory(directory: directory, name: name), thread)
        case 9...11 where world.mix.renames:
            let flags = UInt32([0, 0, 0, 1, 2][thread.random.below(5)])
            ask(
                .rename(
                    directory: directory, old: name, newDirectory: pick(world.directories, thread),
                    new: thread.random.below(world.mix.names),
                    flags: flags), thread)
        case 12, 13: return look(up: directory, name, thread)
        default: return stat(pick(world.files.isEmpty || thread.random.chance(64) ? world.directories : world.files, thread), thread)
        }
        return true
    }

    private func chooseData(_ thread: SimThread) -> Bool {
        guard !world.files.isEmpty else { return false }
        let file = pick(world.files, thread)
        switch thread.random.below(10) {
        case 0, 1, 2: ask(.write(file, word: thread.random.below(RandomProgram.fileWords), value: world.freshValue()), thread)
        case 3: ask(.append(file, value: world.freshValue()), thread)
        case 4: ask(.truncate(file, size: UInt64(thread.random.below(RandomProgram.fileWords)) * 8), thread)
        case 5: ask(.changeMode(file, UInt32(0o600 + thread.random.below(8))), thread)
        case 6: return stat(file, thread)
        default: ask(.read(file), thread)
        }
        return true
    }

    private func chooseLock(_ thread: SimThread) -> Bool {
        if let held {
            ask(.unlock(held.file, unit: held.unit), thread)
            return true
        }
        guard !world.lockFiles.isEmpty else { return false }
        let file = pick(world.lockFiles, thread)
        ask(.lock(file, unit: thread.random.below(3), isExclusive: thread.random.chance(160)), thread)
        return true
    }

    private func look(up directory: UInt64, _ name: Int, _ thread: SimThread) -> Bool {
        if let meaning = cache?.meaning(directory, name, thread.host) {
            let now = thread.host.time
            world.history.recordMeaning(directory: directory, name: name, inode: meaning, invoked: now, returned: now, thread: identity)
            return false
        }
        ask(.lookup(directory: directory, name: name, epoch: EpochCache.epoch(of: name, in: directory, thread.host)), thread)
        return true
    }

    private func stat(_ inode: UInt64, _ thread: SimThread) -> Bool {
        if let kept = cache?.attributes(inode, thread.host) {
            recordAttributes(kept, of: inode, status: 0, invoked: thread.host.time, returned: thread.host.time)
            return false
        }
        ask(.attributes(inode), thread)
        return true
    }

    func ask(_ question: Asked, _ thread: SimThread) {
        asked = question
        switch question {
        case .nothing: break
        case .make(let directory, let name, true, _): thread.makeDirectory(directory, World.name(name))
        case .make(let directory, let name, false, let opensExisting): thread.create(directory, World.name(name), exclusive: !opensExisting)
        case .lookup(let directory, let name, _): thread.lookup(directory, World.name(name))
        case .link(let target, let directory, let name): thread.link(target, directory, World.name(name))
        case .unlink(let directory, let name): thread.unlink(directory, World.name(name))
        case .removeDirectory(let directory, let name): thread.removeDirectory(directory, World.name(name))
        case .rename(let directory, let old, let newDirectory, let new, let flags):
            thread.rename(directory, World.name(old), to: newDirectory, World.name(new), flags: flags)
        case .attributes(let inode): thread.getAttributes(inode)
        case .list(let directory, let cookie): thread.readDirectory(directory, cookie: cookie)
        case .write(let file, let word, let value):
            thread.bulk.storeBytes(of: value, as: UInt64.self)
            thread.write(file, offset: UInt64(word) * 8, count: 8)
        case .append(let file, let value):
            thread.bulk.storeBytes(of: value, as: UInt64.self)
            thread.write(file, offset: 0, count: 8, append: true)
        case .read(let file): thread.read(file, offset: 0, count: 4096)
        case .truncate(let file, let size): thread.truncate(file, size: size)
        case .changeMode(let file, let mode): thread.changeMode(file, mode)
        case .lock(let file, let unit, let isExclusive):
            let waits = thread.random.chance(128)
            thread.lock(
                file, owner: owner, start: UInt64(unit) * 10, end: UInt64(unit) * 10 + 9,
                kind: isExclusive ? FOS_LOCK_WRITE : FOS_LOCK_READ,
                wait: waits)
        case .unlock(let file, let unit):
            thread.lock(file, owner: owner, start: UInt64(unit) * 10, end: UInt64(unit) * 10 + 9, kind: FOS_LOCK_UNLOCK, wait: false)
        }
    }
}
