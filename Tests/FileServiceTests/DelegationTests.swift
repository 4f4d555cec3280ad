// Delegations: who is given one, when a record is taken, and that what a client may not do it cannot do by a record either.

import CFosWire
import FileStorage
import Glibc
import LoopKernel
import Testing

@testable import FileService

/// A fleet with room for delegations, a client that is left files, and others that look.
private struct Scene {
    let fleet: FileFleet
    let holder: Delegate
    let other: Files

    init(members: Int = 1, uid: UInt32 = 0, hasMemory: Bool = false, pagesPerMember: Int = 16384, rootMode: UInt32 = 0o777, options: LoopOptions = LoopOptions()) {
        fleet = FileFleet(members: members, pagesPerMember: pagesPerMember, rootMode: rootMode, hasMemory: hasMemory, sharding: .never, options: options)
        holder = Delegate(fleet, uid: uid, gid: uid)
        other = fleet.files()
    }

    /// Files that are left to the holder.
    var count: Int {
        fleet.servers.indices.reduce(0) { sum, member in
            sum + fleet.look(member) { server in
                (0..<Limits.delegations).count { server.delegations[$0].inode != 0 && server.delegations[$0].client == holder.files.client.index }
            }
        }
    }
    var held: Int { fleet.servers.indices.reduce(0) { sum, member in sum + fleet.look(member) { $0.pool.held } } }
    func content(_ inode: UInt64) -> String { String(decoding: other.read(inode, 0, 100_000).bulk, as: UTF8.self) }
    /// All is as it must be, also when nothing is delegated any more.
    func end(_ note: String = "", sourceLocation: SourceLocation = #_sourceLocation) {
        fleet.check(note, sourceLocation: sourceLocation)
        holder.files.client.die()
        other.client.die()
        fleet.host.runUntilQuiet()
        #expect(fleet.servers.indices.allSatisfy { fleet.look($0) { $0.delegations.count } == 0 })
        #expect(count == 0 && held == 0, "\(note): \(count) delegations, \(held) pages held", sourceLocation: sourceLocation)
        fleet.check(note, sourceLocation: sourceLocation)
    }
}

@Suite struct DelegationTests {
    // MARK: Granting

    @Test func whoMakesAFileForWritingAndWhoWritesOneIsLeftIt() {
        let scene = Scene()
        let (holder, other) = (scene.holder, scene.other)
        #expect(!holder.isDelegated(holder.create(1, "read", flags: 0).flags), "opened for reading")
        #expect(!holder.isDelegated(holder.files.create(1, "unopened").flags), "not opened")
        let f = holder.make("f")
        #expect(scene.count == 1 && scene.held == 2 * Limits.pagesOfRecord)
        // One that was there is another's as well.
        #expect(!holder.isDelegated(holder.create(1, "f").flags))
        // A write that tells nobody what the file is like grants nothing.
        let g = other.create(1, "g", reference: 1).inode
        #expect(holder.files.open(g, 2).status == 0)
        let untold = holder.files.call(Files.writeCall(g, 0, [1]))
        #expect(!holder.isDelegated(untold.header.flags))
        #expect(holder.write(g, 0, [1, 2]) && scene.count == 1, "the channel's earlier one is replaced")
        #expect(holder.write(g, 2, [3]), "and granted again")
        #expect(other.stat(f).status == 0 && other.stat(g).attributes.size == 3 && scene.count == 0)
        scene.end()
    }

    @Test func theKernelIsLeftNothing() {
        let scene = Scene()
        let kernel = scene.fleet.frontEnd()
        let made = Files.Result(kernel.call(Files.make(FOS_OP_CREATE, 1, "k", mode: 0o644, flags: 2, reference: 1).acting(uid: 0, gid: 0)))
        #expect(made.status == 0 && !scene.holder.isDelegated(made.flags))
        let wrote = kernel.call(Files.writeCall(made.inode, 0, [1], flags: FOS_IO_ATTRIBUTES.rawValue))
        #expect(wrote.status == 0 && !scene.holder.isDelegated(wrote.header.flags) && scene.count == 0)
        // What the kernel knows is not left to anybody.
        #expect(!scene.holder.write(made.inode, 0, [2]))
        // And what was left is taken when the kernel looks it up.
        let f = scene.holder.make("f")
        scene.holder.leave(.write("left").mode(0o600), of: f)
        let epoch = scene.holder.epoch(f)
        let seen = kernel.lookup(1, "f")
        #expect(seen.attributes.size == 4 && seen.permissions == 0o600 && scene.holder.epoch(f) != epoch && scene.count == 0)
        #expect(!scene.holder.write(f, 0, [2]))
        scene.end()
    }

    @Test func filesThatAreMoreThanTheirBytesAreNotLeft() {
        let scene = Scene()
        let holder = scene.holder
        #expect(!holder.isDelegated(holder.create(1, "setuid", mode: 0o4755).flags))
        let f = holder.make("f")
        #expect(holder.call(DataTests.setCall(f, "user.name", [1])).status == 0 && scene.count == 0)
        #expect(!holder.write(f, 0, [1]), "it has an extended attribute")
        let g = holder.make("g")
        holder.leave(.write("text"), of: g)
        #expect(holder.call(LoopCall(FOS_OP_SETATTR, inode: g, Self.set(mode: 0o2755))).status == 0 && scene.count == 0)
        #expect(scene.content(g) == "text" && !holder.write(g, 0, [1]), "a privileged user's write leaves setgid")
        scene.end()
    }
    static func set(mode: UInt32) -> fos_setattr_request {
        let none = fos_time(seconds: 0, nanoseconds: 0, reserved: 0)
        return fos_setattr_request(
            valid: FOS_SET_MODE.rawValue, mode: mode, uid: 0, gid: 0, size: 0, accessed: none, modified: none, changed: none)
    }

    @Test func nothingIsLeftWhereSpaceIsShort() {
        let scene = Scene(pagesPerMember: Limits.creditsToDelegate)
        #expect(!scene.holder.isDelegated(scene.holder.create(1, "f").flags) && scene.held == 0)
        scene.end()
    }

    // MARK: Taking

    /// Whatever another client does with a file, it does with what its holder has made of it.
    @Test(arguments: [1, 3]) func anothersUseTakesARecordFirst(members: Int) {
        let uses: [(String, (Scene, UInt64, String) -> Bool)] = [
            ("GETATTR", { scene, f, _ in scene.other.stat(f).attributes.size == 8 && scene.other.stat(f).permissions == 0o604 }),
            ("READ", { scene, f, _ in scene.content(f) == "contents" }),
            ("LOOKUP", { scene, _, name in scene.other.lookup(1, name).attributes.size == 8 }),
            ("ACCESS", { scene, f, _ in scene.other.access(f, 2) == 0 }),
            ("READDIR with attributes", { scene, _, _ in scene.other.entries(1, plus: true).0 == 0 }),
            ("COPY_RANGE", { scene, f, _ in
                let target = scene.other.create(1, "target", reference: 1).inode
                return scene.other.copy(f, 0, target, 0, 100) == 8 && scene.content(target) == "contents" && scene.other.unlink(1, "target") == 0
            }),
            ("WRITE in the middle", { scene, f, _ in scene.other.write(f, 3, Array("TENT".utf8)) == 4 && scene.content(f) == "conTENTs" }),
            ("append", { scene, f, _ in
                scene.other.write(f, 0, [65], flags: FOS_IO_APPEND.rawValue) == 1 && scene.content(f) == "contentsA"
            }),
            ("truncation", { scene, f, _ in scene.other.truncate(f, 3) == 0 && scene.content(f) == "con" }),
            ("mode", { scene, f, _ in scene.other.setattr(f, FOS_SET_MODE.rawValue, mode: 0o640).permissions == 0o640 && scene.content(f) == "contents" }),
            ("OPEN with O_TRUNC", { scene, f, _ in
                scene.other.open(f, UInt32(O_WRONLY | O_TRUNC)).attributes.size == 0 && scene.content(f) == "" && scene.other.release(f) == 0
            }),
            ("LSEEK", { scene, f, _ in scene.other.seek(f, 4, 0) == 8 }),
            ("FALLOCATE", { scene, f, _ in scene.other.fallocate(f, 0, 0, 10) == 0 && scene.content(f) == "contents\0\0" }),
            ("SETXATTR", { scene, f, _ in scene.other.call(DataTests.setCall(f, "user.a", [1])).status == 0 && scene.content(f) == "contents" }),
            ("RENAME", { scene, f, name in
                scene.other.rename(1, name, 1, "renamed") == 0 && scene.content(f) == "contents" && scene.other.rename(1, "renamed", 1, name) == 0
            }),
            ("LINK", { scene, f, name in
                let linked = scene.other.link(f, 1, "linked")
                return linked.attributes.size == 8 && linked.attributes.links == 2 && scene.other.unlink(1, "linked") == 0
            }),
        ]
        for (number, (what, use)) in uses.enumerated() {
            let scene = Scene(members: members)
            let name = "f\(number)"
            let f = scene.holder.make(name)
            scene.holder.leave(.write("contents").mode(0o604).modified(5_000_000_007), of: f)
            let epoch = scene.holder.epoch(f)
            #expect(use(scene, f, name), "\(what)")
            #expect(scene.holder.epoch(f) != epoch && !scene.holder.isPending && scene.count == 0, "\(what)")
            scene.end(what)
        }
    }

    @Test func anUnlinkedFileThatIsOpenHasItsRecord() {
        let scene = Scene()
        let f = scene.holder.make("f")
        scene.holder.leave(.write("contents"), of: f)
        #expect(scene.other.open(f, 0).status == 0 && scene.other.unlink(1, "f") == 0)
        #expect(scene.content(f) == "contents" && scene.other.stat(f).attributes.links == 0)
        scene.end()
    }

    @Test func theHoldersNextRequestTakesItAlong() {
        let scene = Scene()
        let holder = scene.holder
        let f = holder.make("f")
        let epoch = holder.epoch(f)
        holder.leave(.write("one").modified(3_000_000_004).accessed(-1_500_000_000).owner(7, 8), of: f)
        // After the answer of a request about something else.
        #expect(holder.call(LoopCall(FOS_OP_GETATTR, inode: 1)).status == 0)
        #expect(!holder.isPending && holder.epoch(f) == epoch && scene.count == 1)
        let one = holder.stat(f).attributes
        #expect(one.size == 3 && one.uid == 7 && one.gid == 8 && one.blocks == 8 && one.epoch == epoch)
        #expect(one.modified.seconds == 3 && one.modified.nanoseconds == 4)
        #expect(one.accessed.seconds == -2 && one.accessed.nanoseconds == 500_000_000)
        // Before it, when it is about the file.
        holder.leave(.write("two", at: 3), of: f)
        #expect(String(decoding: holder.call(Files.readCall(f, 0, 10)).bulk, as: UTF8.self) == "onetwo")
        // A record of the file is in the answer to the holder's own request even if it does not say so.
        holder.leave(.write("THREE", at: 1), of: f)
        #expect(String(decoding: holder.files.read(f, 0, 10).bulk, as: UTF8.self) == "oTHREE")
        #expect(!holder.isPending)
        scene.end()
    }

    @Test func twoRecordsAreTakenInTheirOrder() {
        for first in 0..<2 {
            let scene = Scene()
            let f = scene.holder.make("f")
            scene.holder.leave(.write("aaaaaa").mode(0o600), of: f, in: first)
            scene.holder.leave(.write("bbb", at: 2).mode(0o640), of: f, in: 1 - first)
            #expect(scene.content(f) == "aabbba" && scene.other.stat(f).permissions == 0o640 && !scene.holder.isPending)
            scene.end()
        }
    }

    @Test func aRecordIsAddedTo() {
        let scene = Scene()
        let f = scene.holder.make("f")
        scene.holder.leave(.write("abc"), of: f)
        scene.holder.replace(.write("abcdef").mode(0o711), of: f)
        scene.holder.replace(.write("aXcdef").mode(0o700), of: f)
        #expect(scene.content(f) == "aXcdef" && scene.other.stat(f).permissions == 0o700)
        scene.end()
    }

    @Test func recordsAreAsLargeAsTheirCellAndFilesGrowByMany() {
        let scene = Scene(hasMemory: true)
        let f = scene.holder.make("f")
        let piece = (0..<Int(FOS_DELEGATED_BYTES_MAX)).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 8) }
        for round in 0..<20 as Range<UInt64> {
            scene.holder.leave(.write(piece, at: round * UInt64(piece.count)), of: f)
            #expect(scene.holder.call(LoopCall(FOS_OP_GETATTR, inode: 1)).status == 0 && !scene.holder.isPending)
        }
        #expect(scene.count == 1)
        #expect(scene.other.stat(f).attributes.size == UInt64(20 * piece.count))
        for round in [0, 9, 19] as [UInt64] { #expect(scene.other.read(f, round * UInt64(piece.count), piece.count).bulk == piece) }
        #expect(scene.other.truncate(f, 0) == 0)
        scene.end()
    }

    @Test(arguments: [1, 3]) func theNextFileOfAChannelReplacesTheOneBefore(members: Int) {
        let scene = Scene(members: members)
        let d = scene.holder.files.mkdir(1, "d").inode
        let f = scene.holder.make("f")
        let epoch = scene.holder.epoch(f)
        scene.holder.leave(.write("first").mode(0o640), of: f)
        let isSame = scene.fleet.member(of: f) == scene.fleet.member(of: d)
        let made = Files.Result(scene.holder.call(Files.make(FOS_OP_CREATE, d, "g", mode: 0o644, flags: 2, reference: 1)))
        #expect(scene.holder.isDelegated(made.flags))
        if isSame { #expect(scene.count == 1 && !scene.holder.isPending && scene.holder.epoch(f) == epoch) }
        #expect(scene.content(f) == "first" && scene.other.stat(f).permissions == 0o640)
        scene.end()
    }

    /// Two records, one a server, of a channel that two servers have left a file to.
    @Test func eachServerTakesItsOwn() {
        let scene = Scene(members: 2)
        var places: [UInt64?] = [nil, nil]
        for index in 0..<16 where places.contains(nil) {
            let d = scene.holder.files.mkdir(1, "d\(index)").inode
            places[scene.fleet.member(of: d)] = d
        }
        guard let one = places[0], let two = places[1] else { return }
        let f = scene.holder.make("f", in: one), g = scene.holder.make("g", in: two)
        #expect(scene.count == 2)
        scene.holder.leave(.write("of one"), of: f)
        scene.holder.leave(.write("of two"), of: g)
        #expect(scene.content(g) == "of two" && scene.count == 1 && scene.holder.isPending)
        #expect(scene.content(f) == "of one" && scene.count == 0 && !scene.holder.isPending)
        scene.end()
    }

    @Test func whatAClientHasLeftOutlivesIt() {
        let scene = Scene(members: 2)
        let before = scene.other.statfs()
        let f = scene.holder.make("f")
        scene.holder.leave(.write("last words").mode(0o600), of: f)
        scene.holder.files.client.die()
        scene.fleet.host.runUntilQuiet()
        #expect(scene.count == 0 && scene.held == 0)
        let found = scene.other.lookup(1, "f")
        #expect(found.inode == f && found.attributes.size == 10 && found.permissions == 0o600 && scene.content(f) == "last words")
        #expect(scene.other.unlink(1, "f") == 0)
        let after = scene.other.statfs()
        #expect(after.blocks == before.blocks && before.blocks_free - after.blocks_free < 8)
        scene.end()
    }

    /// Whoever asks between a client's death and the news of it sees what it has done.
    @Test func whatADyingClientHasLeftIsThereAtOnce() {
        for seed in 1...20 as ClosedRange<UInt64> {
            let scene = Scene(members: 2, options: LoopOptions(seed: seed))
            let f = scene.holder.make("f")
            scene.holder.leave(.write("left"), of: f)
            scene.holder.files.client.die()
            #expect(scene.content(f) == "left", "seed \(seed)")
            scene.end("seed \(seed)")
        }
    }

    @Test func aRemovedFilesRecordIsNobodys() {
        let scene = Scene()
        let before = scene.other.statfs()
        let f = scene.holder.make("f")
        scene.holder.leave(.write("never seen"), of: f)
        #expect(scene.other.unlink(1, "f") == 0)
        #expect(scene.holder.call(LoopCall(FOS_OP_RELEASE, inode: f, fos_release_request(owner: 0, flags: 0, count: 1))).status == 0)
        #expect(!scene.holder.isPending && scene.count == 0 && scene.held == 0)
        #expect(scene.other.stat(f).status == -ESTALE)
        let after = scene.other.statfs()
        #expect(before.blocks_free - after.blocks_free < 8)
        scene.end()
    }

    // MARK: What may be in a record

    @Test func anOwnerMayWhatItMightByMessage() {
        let scene = Scene(uid: 1000)
        let f = scene.holder.make("f")
        // Privileges and the file's type are not in a mode, and giving files away is root's.
        scene.holder.leave(.write("x").mode(0o107_711).owner(0, 0), of: f)
        let seen = scene.other.stat(f).attributes
        #expect(seen.mode == 0o100_711 && seen.uid == 1000 && seen.gid == 1000 && seen.size == 1)
        scene.end()
    }

    @Test func whoMayOnlyWriteChangesNoAttributes() {
        let scene = Scene(uid: 1000)
        let f = scene.other.create(1, "f", mode: 0o666, reference: 1).inode
        #expect(scene.holder.files.open(f, 2).status == 0)
        #expect(scene.holder.write(f, 0, [1]))
        let before = scene.other.stat(f).attributes
        #expect(scene.holder.write(f, 0, [1]))
        scene.holder.leave(.write([2, 3]).mode(0o777).modified(1).accessed(1).owner(1000, 1000), of: f)
        let after = scene.other.stat(f).attributes
        #expect(after.mode == before.mode && after.uid == 0 && after.size == 2 && after.modified.seconds > 1 && after.accessed.seconds > 1)
        scene.end()
    }

    @Test func timesOfChangesAreBetweenTheLastOneAndNow() {
        let scene = Scene()
        for (when, name) in [(0, "past"), (UInt64.max, "future"), (UInt64(Int64.max), "far")] as [(UInt64, String)] {
            let f = scene.holder.make(name)
            let before = scene.holder.files.stat(f).attributes
            scene.fleet.host.advance(nanoseconds: 5_000_000_000)
            scene.holder.leave(.write("x").at(when), of: f)
            let after = scene.other.stat(f).attributes
            let (changed, modified) = (Self.number(after.changed), Self.number(after.modified))
            if when == 0 {
                #expect(changed == Self.number(before.changed) && modified == Self.number(before.modified))
            } else {
                #expect(changed > Self.number(before.changed) && changed <= scene.holder.now && modified == changed)
            }
        }
        // In between it is what the client says.
        let f = scene.holder.make("between")
        let made = scene.holder.now
        scene.fleet.host.advance(nanoseconds: 5_000_000_000)
        scene.holder.leave(.write("x").at(made + 1_000_000_000), of: f)
        #expect(Self.number(scene.other.stat(f).attributes.modified) == made + 1_000_000_000)
        scene.end()
    }
    private static func number(_ time: fos_time) -> UInt64 { UInt64(time.seconds) * 1_000_000_000 + UInt64(time.nanoseconds) }

    @Test func onlyTheFileThatIsLeftIsChanged() {
        let scene = Scene(uid: 1000)
        let secret = scene.other.create(1, "secret", mode: 0o600, reference: 1).inode
        #expect(scene.other.write(secret, 0, Array("secret".utf8)) == 6)
        let earlier = scene.holder.make("earlier")
        let f = scene.holder.make("f")
        scene.holder.leave(.write("overwritten").mode(0o666), of: secret)
        scene.holder.leave(.write("overwritten"), of: earlier)
        #expect(scene.holder.call(LoopCall(FOS_OP_GETATTR, inode: f)).status == 0)
        #expect(scene.content(secret) == "secret" && scene.other.stat(secret).permissions == 0o600)
        #expect(scene.content(earlier) == "" && scene.content(f) == "" && scene.holder.isPending)
        // A record that is left when nothing is, is nobody's.
        #expect(scene.count == 0 && scene.content(f) == "")
        scene.end()
    }

    @Test(arguments: [false, true]) func absurdRecordsAreHarmless(hasMemory: Bool) {
        let scene = Scene(hasMemory: hasMemory)
        let holder = scene.holder
        let most = Limits.fileBytes
        for (number, (offset, bytes)) in [
            (UInt64.max, 10), (most, 1), (most - 1, 1), (most - UInt64(FOS_DELEGATED_BYTES_MAX), Int(FOS_DELEGATED_BYTES_MAX)), (1 << 62, 100),
            (4095, Int(FOS_DELEGATED_BYTES_MAX)), (511 << 12, 65_000), (1 << 40, 0), ((512 << 30) - 5000, 65_000),
        ].enumerated() {
            let f = holder.make("f\(number)")
            holder.leave(.write([UInt8](repeating: 1, count: bytes), at: offset), of: f)
            let size = scene.other.stat(f).attributes.size
            #expect(size == (bytes > 0 && offset <= most - UInt64(bytes) ? offset + UInt64(bytes) : 0), "\(offset), \(bytes): \(size)")
            #expect(scene.other.unlink(1, "f\(number)") == 0 && holder.files.release(f) == 0)
            scene.fleet.check("\(offset), \(bytes)")
        }
        // More bytes than a cell has; all kinds of changes; a line and a mark that mean nothing.
        for (number, state) in [0xffff_ff00_0001 as UInt64, UInt64.max & ~0x200, UInt64.max, 0xff_ffff_01ff, 0x01_0000_0000_0040].enumerated() {
            let f = holder.make("g\(number)")
            UnsafeMutableRawPointer(holder.area).initializeMemory(as: UInt8.self, repeating: 0xff, count: Int(FOS_DELEGATION_BYTES))
            for cell in 0..<2 {
                let start = UnsafeMutableRawPointer(holder.cell(cell))
                for line in 0..<2 {
                    start.storeBytes(of: f, toByteOffset: line * 64 + 8, as: UInt64.self)
                    start.storeBytes(of: UInt64(cell) * 10, toByteOffset: line * 64 + 16, as: UInt64.self)
                }
                start.storeBytes(of: state, as: UInt64.self)
            }
            #expect(scene.other.stat(f).status == 0 && scene.other.stat(f).attributes.size <= UInt64(FOS_DELEGATED_BYTES_MAX) + 10)
            UnsafeMutableRawPointer(holder.area).initializeMemory(as: UInt8.self, repeating: 0, count: Int(FOS_DELEGATION_BYTES))
            #expect(scene.other.unlink(1, "g\(number)") == 0)
        }
        scene.end()
    }

    // MARK: Space and servers

    @Test(arguments: [false, true]) func whereSpaceIsShortAllOfItIsThere(hasMemory: Bool) {
        let scene = Scene(hasMemory: hasMemory, pagesPerMember: 9000)
        let f = scene.holder.make("f")
        scene.holder.leave(.write("left"), of: f)
        let filler = scene.other.create(1, "filler", reference: 1).inode
        let most = [UInt8](repeating: 3, count: 1 << 20)
        var written: UInt64 = 0
        while case let count = scene.other.write(filler, written, most), count > 0 { written += UInt64(count) }
        #expect(scene.other.statfs().blocks_free == 0 && scene.count == 0 && scene.held == 0)
        #expect(scene.content(f) == "left", "what was left is there, though there is no room for more")
        scene.end()
    }

    /// An inode that moves here is paid for later: a server may be short of credits that it has delegated by.
    @Test func aServerInDebtStillHasWhatItHolds() {
        let scene = Scene(members: 2)
        let f = scene.holder.make("f")
        let owner = scene.fleet.member(of: f)
        let moved = scene.fleet.look(owner) { server in
            let credits = server.pool.credits + 100
            server.pool.credits = -100
            return credits
        }
        scene.fleet.look(1 - owner) { $0.pool.credits += moved }
        scene.holder.leave(.write([UInt8](repeating: 7, count: 60_000)), of: f)
        #expect(scene.other.stat(f).attributes.size == 60_000)
        scene.end()
    }

    @Test func aPeerIsGivenWhatIsHeld() {
        let scene = Scene(members: 2)
        let d = scene.holder.files.mkdir(1, "d").inode
        let f = scene.holder.make("f", in: d)
        scene.holder.leave(.write("left"), of: f)
        let g = scene.other.create(1, "g", reference: 1).inode
        #expect(scene.other.fallocate(g, 0, 0, UInt64(2 * 16384 - 200) * 4096) == 0)
        #expect(scene.content(f) == "left" && scene.other.fallocate(g, 0, 0, 1 << 40) == -ENOSPC)
        scene.end()
    }

    @Test func aFileThatMovesTakesItsRecordAlong() {
        for seed in 1...10 as ClosedRange<UInt64> {
            let scene = Scene(members: 2, options: LoopOptions(seed: seed))
            let f = scene.holder.make("f")
            let giver = scene.fleet.member(of: f)
            scene.holder.leave(.write("moving").mode(0o600), of: f)
            let epoch = scene.holder.epoch(f)
            scene.fleet.give(from: giver, to: 1 - giver, slot: Int(f % 4096))
            scene.fleet.settleMoves()
            #expect(scene.fleet.owner(ofSlot: Int(f % 4096)) == 1 - giver && scene.count == 0 && scene.holder.epoch(f) != epoch)
            #expect(scene.content(f) == "moving" && scene.other.stat(f).permissions == 0o600)
            // There it is left again, and moves back while another record waits.
            #expect(scene.holder.write(f, 0, Array("M".utf8)))
            scene.holder.leave(.write("back", at: 1), of: f)
            scene.fleet.give(from: 1 - giver, to: giver, slot: Int(f % 4096))
            scene.fleet.settleMoves()
            #expect(scene.content(f) == "Mbackg", "seed \(seed)")
            scene.end("seed \(seed)")
        }
    }

    @Test func aMappedFileIsNotLeft() {
        let scene = Scene(hasMemory: true)
        let f = scene.holder.make("f")
        scene.holder.leave(.write([UInt8](repeating: 1, count: 60_000)), of: f)
        #expect(scene.other.open(f, 2).status == 0)
        #expect(scene.other.call(LoopCall(FOS_OP_MAP, inode: f, fos_map_request(access: 6, flags: 0))).status == 0 && scene.count == 0)
        #expect(!scene.holder.write(f, 0, [1]))
        #expect(scene.other.stat(f).attributes.size == 60_000)
        scene.end()
    }
}
