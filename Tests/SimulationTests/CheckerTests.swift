// The checker by itself: histories that have an order, and histories that have none.

import Glibc
import Simulation
import Testing

@Suite struct CheckerTests {
    private func verdict(_ history: [(TreeOperation, UInt64, UInt64)]) -> Bool {
        let timed = history.enumerated().map { Timed($1.0, invoked: $1.1, returned: $1.2, thread: $0) }
        if case .linearizable = LinearizabilityChecker<TreeModel>().check(timed, from: TreeState(root: 1)) { return true }
        return false
    }
    private func make(_ name: Int, _ inode: UInt64, isDirectory: Bool = false, in directory: UInt64 = 1) -> TreeOperation {
        .make(directory: directory, name: name, isDirectory: isDirectory, opensExisting: false, status: 0, inode: inode, isNew: true)
    }
    private func look(_ name: Int, _ inode: UInt64, in directory: UInt64 = 1) -> TreeOperation {
        .lookup(directory: directory, name: name, status: inode == 0 ? -ENOENT : 0, inode: inode)
    }

    @Test func overlappingOperationsMayComeInAnyOrder() {
        #expect(verdict([(make(0, 5), 10, 50), (look(0, 0), 20, 30), (look(0, 5), 35, 40)]))
        #expect(!verdict([(make(0, 5), 10, 50), (look(0, 5), 20, 30), (look(0, 0), 35, 40)]))
        #expect(!verdict([(make(0, 5), 10, 20), (look(0, 0), 30, 40)]))
        #expect(!verdict([(look(0, 5), 10, 20), (make(0, 5), 30, 40)]))
    }

    @Test func renamesAreAtomic() {
        let rename = TreeOperation.rename(directory: 1, old: 0, newDirectory: 1, new: 1, flags: 0, status: 0)
        #expect(verdict([(make(0, 5), 1, 2), (rename, 10, 50), (look(0, 0), 20, 21), (look(1, 5), 30, 31)]))
        // In neither place, and in both.
        #expect(!verdict([(make(0, 5), 1, 2), (rename, 10, 50), (look(0, 0), 20, 21), (look(1, 0), 30, 31)]))
        #expect(!verdict([(make(0, 5), 1, 2), (rename, 10, 50), (look(1, 5), 20, 21), (look(0, 5), 30, 31)]))
    }

    @Test func linksAreCounted() {
        let link = TreeOperation.link(target: 5, directory: 1, name: 1, status: 0)
        let history: [(TreeOperation, UInt64, UInt64)] = [
            (make(0, 5), 1, 2), (link, 3, 4), (.unlink(directory: 1, name: 0, status: 0), 5, 6),
        ]
        #expect(verdict(history + [(.attributes(inode: 5, status: 0, isDirectory: false, links: 1), 7, 8)]))
        #expect(!verdict(history + [(.attributes(inode: 5, status: 0, isDirectory: false, links: 2), 7, 8)]))
        let gone = history + [(.unlink(directory: 1, name: 1, status: 0), 9, 10)]
        #expect(verdict(gone + [(.attributes(inode: 5, status: -ESTALE, isDirectory: false, links: 0), 11, 12)]))
        #expect(!verdict(gone + [(.attributes(inode: 5, status: 0, isDirectory: false, links: 0), 11, 12)]))
    }

    @Test func errorsMustHaveTheirReason() {
        #expect(
            verdict([
                (make(0, 5, isDirectory: true), 1, 2), (make(1, 6, in: 5), 3, 4),
                (.removeDirectory(directory: 1, name: 0, status: -ENOTEMPTY), 5, 6),
            ]))
        #expect(!verdict([(make(0, 5, isDirectory: true), 1, 2), (.removeDirectory(directory: 1, name: 0, status: -ENOTEMPTY), 5, 6)]))
        let intoItself = TreeOperation.rename(directory: 1, old: 0, newDirectory: 6, new: 0, flags: 0, status: -EINVAL)
        #expect(verdict([(make(0, 5, isDirectory: true), 1, 2), (make(0, 6, isDirectory: true, in: 5), 3, 4), (intoItself, 5, 6)]))
    }

    @Test func whatWasNeverAnsweredMayHaveHappened() {
        let unlink = TreeOperation.uncertain(.unlink(directory: 1, name: 0, status: 0))
        for after in [UInt64(0), 5] { #expect(verdict([(make(0, 5), 1, 2), (unlink, 3, .max), (look(0, after), 4, 5)])) }
        #expect(!verdict([(make(0, 5), 1, 2), (unlink, 3, .max), (look(0, 0), 4, 5), (look(0, 5), 6, 7)]))
    }

    @Test func aFilesBytesComeFromItsWrites() {
        func verdict(_ history: [(FileOperation, UInt64, UInt64)]) -> Bool {
            let timed = history.map { Timed($0.0, invoked: $0.1, returned: $0.2, thread: 0) }
            if case .linearizable = LinearizabilityChecker<FileModel>().check(timed, from: FileState()) { return true }
            return false
        }
        let born = (FileOperation.born(mode: 0o666), UInt64(1), UInt64(2))
        let writes: [(FileOperation, UInt64, UInt64)] = [
            born, (.write(word: 1, value: 7, status: 0), 3, 10), (.append(word: 2, value: 8, status: 0), 11, 12),
        ]
        #expect(verdict(writes + [(.read(words: [0, 7, 8], size: 24, status: 0), 13, 14)]))
        #expect(!verdict(writes + [(.read(words: [0, 7, 9], size: 24, status: 0), 13, 14)]))
        #expect(!verdict(writes + [(.read(words: [0, 7], size: 16, status: 0), 13, 14)]))
        #expect(!verdict([born, (.append(word: 1, value: 8, status: 0), 3, 4)]))
    }

    @Test func namesLeadToWhoRegisteredThem() {
        func verdict(_ history: [(NameOperation, UInt64, UInt64)]) -> Bool {
            let timed = history.map { Timed($0.0, invoked: $0.1, returned: $0.2, thread: 0) }
            if case .linearizable = LinearizabilityChecker<NameModel>().check(timed, from: 0) { return true }
            return false
        }
        let born = (NameOperation.register(mailbox: 7, status: 0), UInt64(1), UInt64(2))
        #expect(
            verdict([
                born, (.lookup(mailbox: 7, status: 0), 3, 4), (.register(mailbox: 8, status: -EEXIST), 5, 6),
                (.deregister(status: 0), 7, 8),
            ]))
        // Lost with its server, and from before.
        #expect(!verdict([born, (.lookup(mailbox: 0, status: -ENOENT), 3, 4)]))
        #expect(!verdict([born, (.deregister(status: 0), 3, 4), (.lookup(mailbox: 7, status: 0), 5, 6)]))
        #expect(!verdict([born, (.register(mailbox: 8, status: 0), 3, 4)]))
        #expect(verdict([born, (.uncertain(.deregister(status: 0)), 3, .max), (.lookup(mailbox: 0, status: -ENOENT), 5, 6)]))
        // It goes with its client, and nobody else's does.
        #expect(
            verdict([born, (.gone(mailbox: 7), 3, 9), (.lookup(mailbox: 7, status: 0), 4, 5), (.lookup(mailbox: 0, status: -ENOENT), 6, 7)])
        )
        #expect(!verdict([born, (.gone(mailbox: 7), 3, 4), (.lookup(mailbox: 7, status: 0), 5, 6)]))
        #expect(!verdict([born, (.gone(mailbox: 8), 3, 4), (.lookup(mailbox: 0, status: -ENOENT), 5, 6)]))
    }

    @Test func locksExclude() {
        func verdict(_ history: [(LockOperation, UInt64, UInt64)]) -> Bool {
            let timed = history.map { Timed($0.0, invoked: $0.1, returned: $0.2, thread: 0) }
            if case .linearizable = LinearizabilityChecker<LockModel>().check(timed, from: LockState()) { return true }
            return false
        }
        func lock(_ owner: UInt64, _ isExclusive: Bool, _ status: Int32) -> LockOperation {
            .lock(unit: 0, owner: owner, isExclusive: isExclusive, status: status)
        }
        #expect(verdict([(lock(1, false, 0), 1, 2), (lock(2, false, 0), 3, 4), (lock(3, true, -EAGAIN), 5, 6)]))
        #expect(!verdict([(lock(1, true, 0), 1, 2), (lock(2, true, 0), 3, 4)]))
        #expect(!verdict([(lock(1, true, 0), 1, 2), (.unlock(unit: 0, owner: 1), 3, 4), (lock(2, true, -EAGAIN), 5, 6)]))
    }
}
