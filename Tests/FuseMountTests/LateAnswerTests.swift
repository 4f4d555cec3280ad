// Answers that a program takes only after the notice that makes them untrue: the program is kept from running in between.
//
// How: the program's thread is pinned to a CPU, and the moment its request is about to be answered a real-time thread
// takes that CPU and keeps it. The kernel has the answer then, and has done nothing with it.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

/// Keeps all other threads from a CPU while it is told to.
private final class Occupant: Sendable {
    let cpu: Int32
    private let isWanted = Box(false)
    private let isThere = Box(false)
    private let isOver = Box(false)
    /// It may not run before all others.
    let isRefused = Box(false)

    /// A CPU for the program, if there is one more for all others, and the right to real-time threads.
    static let cpu: Int32? = {
        var cpus = [Int32](repeating: 0, count: 1024)
        guard fos_fuse_allowed_cpus(&cpus, 1024) >= 2, geteuid() == 0 else { return nil }
        return cpus[0]
    }()

    init(_ cpu: Int32) throws {
        self.cpu = cpu
        try startThread { [self] in
            _ = fos_fuse_confine(0, [cpu], 1)
            var priority = sched_param(sched_priority: 1)
            // Nothing is expected here: what the test library starts for a failure would stay on this CPU.
            isRefused.set(pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) != 0)
            while !isOver.value {
                isThere.set(isWanted.value)
                if !isWanted.value { usleep(200) }
            }
        }
    }

    func come() {
        isWanted.set(true)
        while !isThere.value { usleep(100) }
    }
    func go() { isWanted.set(false) }
    func end() {
        go()
        isOver.set(true)
    }
}

/// Runs a closure in a thread of its own.
private func startThread(_ body: @escaping @Sendable () -> Void) throws {
    var thread = pthread_t()
    let result = pthread_create(
        &thread, nil,
        { argument in
            Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
            return nil
        }, Unmanaged.passRetained(Body(body)).toOpaque())
    try #require(result == 0)
    pthread_detach(thread)
}
private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// A flag that threads share.
private final class Box: Sendable {
    private let flag: Atomic<Bool>
    init(_ value: Bool) { flag = Atomic(value) }
    var value: Bool { flag.load(ordering: .acquiring) }
    func set(_ value: Bool) { flag.store(value, ordering: .releasing) }
}

extension MountTests {
    @Suite(.enabled(if: Occupant.cpu != nil, "needs two CPUs, and root for a real-time thread")) struct LateAnswers {
        /// - Parameters:
        ///   - operation: what the program's call asks the service.
        ///   - call: of the program.
        ///   - change: what another client does after the answer, whose notice goes out while the program cannot run.
        private func overtake(
            _ scratch: Scratch, _ operation: fos_operation, _ notice: fos_notice_kind, inode: UInt64, call: @escaping @Sendable () -> Void,
            change: (inout ScriptedState) -> Void
        ) throws {
            let occupant = try Occupant(Occupant.cpu!)
            defer { occupant.end() }
            let (answered, returned) = (Box(false), Box(false))
            scripted.withLock {
                $0.beforeAnswer = (operation, {
                    occupant.come()
                    answered.set(true)
                })
            }
            try startThread {
                _ = fos_fuse_confine(0, [occupant.cpu], 1)
                call()
                returned.set(true)
            }
            for _ in 0..<5000 where !answered.value { usleep(1000) }
            try #require(answered.value && !occupant.isRefused.value)
            scripted.withLock { change(&$0) }
            scratch.send(notice, inode: inode, cookie: 41)
            // Longer than the front end needs to act on a notice.
            usleep(30_000)
            #expect(!returned.value)
            occupant.go()
            for _ in 0..<5000 where !returned.value || !scripted.withLock({ $0.acknowledged.contains(41) }) { usleep(1000) }
            #expect(returned.value && scripted.withLock { $0.acknowledged.contains(41) })
        }

        private func scratch() throws -> Scratch { try Scratch { $0.serverCPUs = [Occupant.cpu!] } }

        private func grow(_ state: inout ScriptedState) {
            state.files[4097]!.attributes.size = 5
            state.files[4097]!.attributes.mode = 0o100640
        }

        private func expectGrown(_ path: String) {
            var status = stat()
            #expect(stat(path, &status) == 0 && status.st_size == 5 && status.st_mode == 0o100640)
        }

        /// The inode is not there when the notice comes, and is made from the answer afterwards.
        @Test func ofAnInodeThatIsYetToBeMade() throws {
            let scratch = try scratch()
            defer { scratch.finish() }
            scripted.withLock {
                _ = $0.make("a", mode: 0o100644, uid: 0, gid: 0)
                $0.files[4097]!.references = 0
            }
            let file = scratch.path + "/a"
            try overtake(scratch, FOS_OP_LOOKUP, FOS_NOTICE_INODE_ATTRIBUTES, inode: 4097, call: { _ = access(file, F_OK) }, change: grow)
            expectGrown(file)
        }

        @Test func ofAListingThatMakesInodes() throws {
            let scratch = try scratch()
            defer { scratch.finish() }
            scripted.withLock {
                _ = $0.make("a", mode: 0o100644, uid: 0, gid: 0)
                $0.files[4097]!.references = 0
            }
            let path = scratch.path
            try overtake(scratch, FOS_OP_READDIR, FOS_NOTICE_INODE_ATTRIBUTES, inode: 4097, call: { _ = names(path) }, change: grow)
            expectGrown(path + "/a")
        }

        /// The kernel takes the attributes of these answers whatever came in between.
        @Test func ofChangesOfTheKernelsOwn() throws {
            let scratch = try scratch()
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, "") == 0)
            try overtake(scratch, FOS_OP_SETATTR, FOS_NOTICE_INODE_ATTRIBUTES, inode: 4097, call: { _ = chmod(file, 0o600) }, change: grow)
            expectGrown(file)
        }

        @Test func ofALink() throws {
            let scratch = try scratch()
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, "") == 0)
            try overtake(scratch, FOS_OP_LINK, FOS_NOTICE_INODE_ATTRIBUTES, inode: 4097, call: { _ = link(file, file + "2") }, change: grow)
            expectGrown(file)
        }

        /// A listing that a program keeps open shows, from its start again, what was renamed meanwhile.
        @Test func ofAListing() throws {
            let scratch = try scratch()
            defer { scratch.finish() }
            scripted.withLock { _ = $0.make("a", mode: 0o100644, uid: 0, gid: 0) }
            let directory = Directory(try #require(opendir(scratch.path)))
            defer { closedir(directory.stream) }
            try overtake(scratch, FOS_OP_READDIR, FOS_NOTICE_DIRECTORY, inode: 1, call: { _ = directory.names() }) { $0.entries[0].name = "b" }
            #expect(directory.names() == [".", "..", "b"])
        }
    }

    /// Inodes that the kernel has yet to make, with a kernel of a few lines.
    @Suite struct UnknownInodes {
        @Test func areWaitedForWhileTheServiceCountsThem() {
            var asked = 0
            var slept: UInt32 = 0
            let known = revokeOnceKnown(
                patience: 1_000_000, void: { asked += 1; return asked < 9 ? -ENOENT : 0 }, isReferred: { true }, pause: { slept += $0 })
            #expect(known == .done(0) && asked == 9 && slept > 2000)
            // Forgotten, or never known.
            asked = 0
            let forgotten = revokeOnceKnown(patience: 100, void: { -ENOENT }, isReferred: { asked += 1; return asked < 2 }, pause: { _ in })
            #expect(forgotten == .done(-ENOENT) && asked == 2)
            #expect(revokeOnceKnown(patience: 100, void: { -ENOENT }, isReferred: { true }, pause: { _ in }) == .awaited)
            // Other errors are the kernel's last word.
            #expect(revokeOnceKnown(patience: 100, void: { -EBUSY }, isReferred: { true }, pause: { _ in }) == .done(-EBUSY))
        }

        @Test func areVoidedLaterIfNeedBe() {
            var late = LateRevocations()
            let fitting = (0..<1025).map { late.append(.init(inode: UInt64($0), offset: -1, length: 0)) }
            #expect(fitting == [Bool](repeating: true, count: 1024) + [false])
            late.again { $0.inode % 2 == 0 ? .done(0) : .awaited }
            #expect(late.items.count == 512 && late.items.allSatisfy { $0.inode % 2 == 1 })
        }

        @Test func recentAnswersAreNotMissed() {
            let answers = UnversionedAnswers()
            defer { answers.deallocate() }
            #expect(!answers.isRecent(4097))
            for inode in 0..<5000 as Range<UInt64> {
                answers.note(inode * 4096 + 1)
                #expect(answers.isRecent(inode * 4096 + 1))
            }
        }
    }
}

/// An open directory stream, which one thread uses after the other.
private final class Directory: @unchecked Sendable {
    let stream: OpaquePointer
    init(_ stream: OpaquePointer) { self.stream = stream }

    /// All names, from the start.
    func names() -> [String] {
        rewinddir(stream)
        return entryNames(stream).sorted()
    }
}
