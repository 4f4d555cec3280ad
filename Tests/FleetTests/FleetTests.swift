// Slots, membership, and the spread of new directories.

import CFosWire
import Fleet
import Messaging
import Testing

private func mailboxes(_ count: Int) -> [MailboxAddress] { (0..<count).map { MailboxAddress(core: $0, index: 1) } }

@Suite struct SlotTableTests {
    @Test(arguments: [1, 2, 3, 7, 256]) func everySlotHasOneOwnerAndSharesAreEven(members: Int) {
        let table = SlotTable(members: members)
        var shares = [Int](repeating: 0, count: members)
        for slot in 0..<SlotTable.slots { shares[table.owner(ofSlot: slot)] += 1 }
        #expect(shares.reduce(0, +) == SlotTable.slots)
        #expect(shares.max()! - shares.min()! <= 1)
        for member in 0..<members {
            let share = table.share(of: member)
            #expect(share == shares[member])
        }
    }

    @Test func anInodeBelongsToTheOwnerOfItsSlot() {
        let table = SlotTable(members: 3)
        for inode: UInt64 in [UInt64(FOS_ROOT_INODE), 0, 1, 4095, 4096, 4097, .max, .max - 4095] {
            let owner = table.owner(ofInode: inode), expected = table.owner(ofSlot: Int(inode % 4096))
            #expect(owner == expected)
        }
    }

    @Test func movingASlotChangesItsOwnerTheSharesAndTheEpoch() {
        var table = SlotTable(members: 2)
        let before = table.epoch
        table.move(10, to: 1)
        var (owner, epoch) = (table.owner(ofSlot: 10), table.epoch)
        #expect(owner == 1 && epoch == before + 1)
        let shares = [table.share(of: 0), table.share(of: 1)]
        #expect(shares == [2047, 2049])
        table.move(10, to: 1)
        epoch = table.epoch
        #expect(epoch == before + 1)
        let added = table.addMember()
        #expect(added == 2)
        table.move(10, to: 2)
        owner = table.owner(ofSlot: 10)
        let share = table.share(of: 2)
        #expect(owner == 2 && share == 1)
    }
}

@Suite struct MembershipTests {
    @Test func indicesStayWhenMembersDieAndJoin() {
        var membership = Membership(mailboxes(3))
        var counts = [membership.count, membership.aliveCount]
        #expect(counts == [3, 3])
        let changed = membership.set(1, alive: false)
        let again = membership.set(1, alive: false)
        let none = membership.set(9, alive: false)
        #expect(changed && !again && !none)
        let lives = [0, 1, 2, -1, 256].map { membership.isAlive($0) }
        #expect(lives == [true, false, true, false, false])
        let joined = membership.append(MailboxAddress(core: 9, index: 2))
        let twice = membership.append(MailboxAddress(core: 9, index: 2))
        #expect(joined == 3 && twice == nil)
        let cores = [membership[3].core, membership[1].core]
        #expect(cores == [9, 1])
        let found = membership.index(of: MailboxAddress(core: 9, index: 2)),
            missing = membership.index(of: MailboxAddress(core: 8, index: 2))
        #expect(found == 3 && missing == nil)
        counts = [membership.count, membership.aliveCount]
        #expect(counts == [4, 3])
    }
}

@Suite struct SlotCursorTests {
    @Test func newDirectoriesGoRoundTheMembersAndTheirSlots() {
        let table = SlotTable(members: 4)
        let membership = Membership(mailboxes(4))
        var cursor = SlotCursor(start: 2)
        var owners: [Int] = []
        var slots: Set<Int> = []
        for _ in 0..<SlotTable.slots {
            guard let slot = cursor.next(table, membership) else { Issue.record("no slot"); return }
            owners.append(table.owner(ofSlot: slot))
            slots.insert(slot)
        }
        #expect(Array(owners.prefix(5)) == [3, 0, 1, 2, 3])
        #expect(slots.count == SlotTable.slots)
    }

    @Test func membersOfOneCoreKeepMostDirectories() {
        let table = SlotTable(members: 3)
        // Members 0 and 1 share a core.
        let membership = Membership([0, 0, 1].enumerated().map { MailboxAddress(core: $1, index: $0 + 1) })
        var cursor = SlotCursor(start: 0)
        var owners = [0, 0, 0]
        for _ in 0..<240 {
            guard let slot = cursor.next(table, membership) else { Issue.record("no slot"); return }
            owners[table.owner(ofSlot: slot)] += 1
        }
        #expect(owners == [150, 10, 80])
        // One that owns nothing keeps nothing.
        var moved = SlotTable(members: 2)
        for slot in 0..<SlotTable.slots where moved.owner(ofSlot: slot) == 0 { moved.move(slot, to: 1) }
        let pair = Membership([1, 2].map { MailboxAddress(core: 0, index: $0) })
        var other = SlotCursor(start: 0)
        for _ in 0..<20 {
            let owner = other.next(moved, pair).map { moved.owner(ofSlot: $0) }
            #expect(owner == 1)
        }
    }

    @Test func deadAndEmptyMembersAreLeftOut() {
        var table = SlotTable(members: 3)
        var membership = Membership(mailboxes(3))
        membership.set(1, alive: false)
        for slot in 0..<SlotTable.slots where table.owner(ofSlot: slot) == 2 { table.move(slot, to: 0) }
        var cursor = SlotCursor(start: 0)
        for _ in 0..<10 {
            let slot = cursor.next(table, membership)
            let owner = slot.map { table.owner(ofSlot: $0) }
            #expect(owner == 0)
        }
        membership.set(0, alive: false)
        let none = cursor.next(table, membership)
        #expect(none == nil)
    }
}
