// `.fos/`: snapshots that live as long as the kernel knows them.

import CFuse
import Synchronization
import Testing

@testable import FuseMount

@Suite struct IntrospectionTests {
    private func tree() -> IntrospectionTree {
        let calls = Mutex(0)
        return IntrospectionTree(
            IntrospectionFiles(names: ["names", "empty"]) { name in
                name == "empty" ? [] : calls.withLock { calls in
                    calls += 1
                    return Array("call \(calls)\n".utf8)
                }
            })
    }

    @Test func eachLookupTakesAFreshSnapshot() throws {
        let tree = tree()
        let first = try #require(tree.take("names"))
        let second = try #require(tree.take("names"))
        #expect(first != second)
        #expect(tree.snapshot(first).map { String(decoding: $0.bytes, as: UTF8.self) } == "call 1\n")
        #expect(tree.snapshot(second).map { String(decoding: $0.bytes, as: UTF8.self) } == "call 2\n")
        #expect(tree.status(second)?.st_size == 7)
        #expect(tree.take("missing") == nil)
    }

    @Test func forgetFreesAtZero() throws {
        let tree = tree()
        let node = try #require(tree.take("empty"))
        #expect(IntrospectionTree.owns(node))
        #expect(tree.snapshotCount == 1)
        tree.forget(node, 1)
        #expect(tree.snapshotCount == 0)
        #expect(tree.status(node) == nil)
        tree.forget(node, 1)
    }

    @Test func onlyTheRootReservesTheName() {
        #expect(IntrospectionTree.reserves(UInt64(FUSE_ROOT_ID), ".fos"))
        #expect(!IntrospectionTree.reserves(UInt64(FUSE_ROOT_ID), ".fos2"))
        #expect(!IntrospectionTree.reserves(UInt64(FUSE_ROOT_ID), ".fo"))
        #expect(!IntrospectionTree.reserves(4097, ".fos"))
        #expect(!IntrospectionTree.owns(1))
        #expect(tree().status(IntrospectionTree.directory)?.st_nlink == 2)
    }
}
