// Names here that renames of other servers have locked: which coordinator holds which, from PREPARE to COMMIT or ABORT.
//
// Why: a coordinator that dies sends neither. Its names are let go when the microkernel tells of its death, or they would
// be locked for ever.
// Invariants: a name of another server's rename is locked exactly while it is in this table; there is room before a name is
// locked; the table is small and dense, as renames between servers are few at once.

import CFosWire
import FileStorage
import Messaging

struct PreparedName: BitwiseCopyable {
    let coordinator: MailboxAddress
    /// The coordinator's.
    let cookie: UInt64
    let directory: UInt64
    let dentry: DentryPointer
    var doubt = Doubt.none

    /// Whether the coordinator may have aborted it and this server has not heard: one of both has crashed since.
    enum Doubt { case none, open, asked }
}

struct PreparedNames: ~Copyable {
    private let names: UnsafeMutablePointer<PreparedName>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        names = .allocate(capacity: capacity)
    }
    deinit { names.deallocate() }

    var isFull: Bool { count == capacity }

    mutating func add(_ name: PreparedName) {
        precondition(count < capacity, "a name is prepared without room to remember it")
        (names + count).initialize(to: name)
        count += 1
    }
    /// The name of a coordinator's transaction, which is then forgotten.
    mutating func take(_ coordinator: MailboxAddress, _ cookie: UInt64) -> PreparedName? {
        for index in 0..<count where names[index].cookie == cookie && names[index].coordinator == coordinator { return remove(index) }
        return nil
    }
    /// Any name of a coordinator, which is then forgotten.
    mutating func takeAny(of coordinator: MailboxAddress) -> PreparedName? {
        for index in 0..<count where names[index].coordinator == coordinator { return remove(index) }
        return nil
    }
    func contains(_ coordinator: MailboxAddress, _ cookie: UInt64) -> Bool { find(coordinator, cookie) != nil }
    func find(_ coordinator: MailboxAddress, _ cookie: UInt64) -> PreparedName? {
        for index in 0..<count where names[index].cookie == cookie && names[index].coordinator == coordinator { return names[index] }
        return nil
    }

    // MARK: Doubts

    var hasDoubts: Bool { (0..<count).contains { names[$0].doubt != .none } }
    func nextToAsk() -> PreparedName? {
        for index in 0..<count where names[index].doubt == .open { return names[index] }
        return nil
    }
    func setDoubt(_ doubt: PreparedName.Doubt, _ coordinator: MailboxAddress, _ cookie: UInt64) {
        for index in 0..<count where names[index].cookie == cookie && names[index].coordinator == coordinator { names[index].doubt = doubt }
    }
    func doubt(allOf coordinator: MailboxAddress) {
        for index in 0..<count where names[index].coordinator == coordinator { names[index].doubt = .open }
    }
    func doubtAll() { for index in 0..<count { names[index].doubt = .open } }

    private mutating func remove(_ index: Int) -> PreparedName {
        let name = names[index]
        count -= 1
        names[index] = names[count]
        return name
    }
}
