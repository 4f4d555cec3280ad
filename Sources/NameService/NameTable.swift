// NameTable: one server's share of the namespace.
//
// Role: names by hash, each with a list of members (mailboxes) or a redirect to another name.
// Invariants: everything is allocated by `init`, and pages are touched only as names come; an entry is on exactly one
// bucket chain or on the free list; a member is on exactly one entry's list or on the free list; an entry without
// redirect has at least one member; indices are UInt32 with `none` as the end of a list.

import CFosWire

/// A name as bytes somewhere else, valid as long as they are.
struct NameView {
    let bytes: UnsafePointer<UInt8>
    let count: Int

    var hash: UInt64 { fos_name_hash(bytes, count) }

    func hasPrefix(_ prefix: StaticString) -> Bool {
        guard count >= prefix.utf8CodeUnitCount else { return false }
        for index in 0..<prefix.utf8CodeUnitCount where bytes[index] != prefix.utf8Start[index] { return false }
        return true
    }
}

struct NameEntry: BitwiseCopyable {
    var version: UInt64
    var hash: UInt64
    /// Next entry in the bucket, or on the free list.
    var next: UInt32
    var firstMember: UInt32
    var memberCount: UInt32
    var ownerUID: UInt32
    /// The client that made a redirect; its death ends it. 0 with generation 0: none.
    var client: UInt32
    var clientGeneration: UInt32
    var nameLength: UInt8
    var targetLength: UInt8
    var isMany: Bool
    var isUsed: Bool
}

struct NameMemberEntry: BitwiseCopyable {
    var member: fos_name_member
    var next: UInt32
    /// The entry it belongs to; `none` on the free list.
    var entry: UInt32
    var ownerUID: UInt32
    var client: UInt32
    var clientGeneration: UInt32
}

struct NameTable: ~Copyable {
    static var none: UInt32 { .max }
    static var nameRoom: Int { Int(FOS_SERVICE_NAME_BYTES_MAX) + 1 }

    let entries: UnsafeMutablePointer<NameEntry>
    /// Name, then target, of each entry: 2 × 128 bytes.
    private let texts: UnsafeMutablePointer<UInt8>
    let members: UnsafeMutablePointer<NameMemberEntry>
    private let buckets: UnsafeMutablePointer<UInt32>
    private let bucketMask: UInt64
    private let limits: NameLimits
    private var freeEntry = NameTable.none
    private var freeMember = NameTable.none
    /// Entries and members ever used: the bound of scans.
    private(set) var entriesUsed: UInt32 = 0
    private(set) var membersUsed: UInt32 = 0
    private(set) var count = 0
    private var version: UInt64 = 0

    init(_ limits: NameLimits) {
        precondition(limits.names > 0 && limits.names < Int(UInt32.max) && limits.members > 0 && limits.members < Int(UInt32.max))
        self.limits = limits
        var size = 1
        while size < limits.names * 2 { size *= 2 }
        bucketMask = UInt64(size - 1)
        buckets = .allocate(capacity: size)
        buckets.initialize(repeating: Self.none, count: size)
        entries = .allocate(capacity: limits.names)
        texts = .allocate(capacity: limits.names * 2 * Self.nameRoom)
        members = .allocate(capacity: limits.members)
    }

    deinit {
        buckets.deallocate()
        entries.deallocate()
        texts.deallocate()
        members.deallocate()
    }

    func name(_ entry: UInt32) -> NameView {
        NameView(bytes: texts + Int(entry) * 2 * Self.nameRoom, count: Int(entries[Int(entry)].nameLength))
    }
    func target(_ entry: UInt32) -> NameView {
        NameView(bytes: texts + Int(entry) * 2 * Self.nameRoom + Self.nameRoom, count: Int(entries[Int(entry)].targetLength))
    }

    /// The entry of a name, or `none`.
    func find(_ name: NameView, hash: UInt64) -> UInt32 {
        var index = buckets[Int(hash & bucketMask)]
        while index != Self.none {
            if entries[Int(index)].hash == hash, Int(entries[Int(index)].nameLength) == name.count, isEqual(index, name) { return index }
            index = entries[Int(index)].next
        }
        return Self.none
    }
    private func isEqual(_ entry: UInt32, _ name: NameView) -> Bool {
        let own = self.name(entry)
        for index in 0..<name.count where own.bytes[index] != name.bytes[index] { return false }
        return true
    }

    /// A new entry without members; `none` when the table is full. The name is at most FOS_SERVICE_NAME_BYTES_MAX.
    mutating func insert(_ name: NameView, hash: UInt64, ownerUID: UInt32, isMany: Bool) -> UInt32 {
        guard hasRoomForName else { return Self.none }
        let index: UInt32
        if freeEntry != Self.none {
            index = freeEntry
            freeEntry = entries[Int(index)].next
        } else {
            index = entriesUsed
            entriesUsed += 1
        }
        let bucket = Int(hash & bucketMask)
        (texts + Int(index) * 2 * Self.nameRoom).update(from: name.bytes, count: name.count)
        entries[Int(index)] = NameEntry(
            version: nextVersion(), hash: hash, next: buckets[bucket], firstMember: Self.none, memberCount: 0, ownerUID: ownerUID,
            client: 0, clientGeneration: 0, nameLength: UInt8(name.count), targetLength: 0, isMany: isMany, isUsed: true)
        buckets[bucket] = index
        count += 1
        return index
    }

    mutating func setTarget(_ entry: UInt32, _ target: NameView, client: UInt32, generation: UInt32) {
        (texts + Int(entry) * 2 * Self.nameRoom + Self.nameRoom).update(from: target.bytes, count: target.count)
        entries[Int(entry)].targetLength = UInt8(target.count)
        entries[Int(entry)].client = client
        entries[Int(entry)].clientGeneration = generation
        entries[Int(entry)].version = nextVersion()
    }

    /// Removes an entry and all its members.
    mutating func remove(_ entry: UInt32) {
        precondition(entries[Int(entry)].isUsed, "a name is removed twice")
        while entries[Int(entry)].firstMember != Self.none { _ = unlinkFirstMember(entry) }
        let bucket = Int(entries[Int(entry)].hash & bucketMask)
        if buckets[bucket] == entry {
            buckets[bucket] = entries[Int(entry)].next
        } else {
            var before = buckets[bucket]
            while entries[Int(before)].next != entry { before = entries[Int(before)].next }
            entries[Int(before)].next = entries[Int(entry)].next
        }
        entries[Int(entry)].isUsed = false
        entries[Int(entry)].next = freeEntry
        freeEntry = entry
        count -= 1
        version &+= 1
    }

    var hasRoomForName: Bool { freeEntry != Self.none || entriesUsed < UInt32(limits.names) }
    func hasRoomForMember(of entry: UInt32) -> Bool { entries[Int(entry)].memberCount < NameLimits.membersOfName && hasRoomForMember }
    var hasRoomForMember: Bool { freeMember != Self.none || membersUsed < UInt32(limits.members) }

    /// The member of an entry with a mailbox, or `none`.
    func member(_ entry: UInt32, mailbox: fos_mailbox) -> UInt32 {
        var index = entries[Int(entry)].firstMember
        while index != Self.none {
            if members[Int(index)].member.mailbox == mailbox { return index }
            index = members[Int(index)].next
        }
        return Self.none
    }

    /// Adds a member. False when the name or the table is full.
    mutating func addMember(_ entry: UInt32, _ member: fos_name_member, ownerUID: UInt32, client: UInt32, generation: UInt32) -> Bool {
        guard hasRoomForMember(of: entry) else { return false }
        let index: UInt32
        if freeMember != Self.none {
            index = freeMember
            freeMember = members[Int(index)].next
        } else {
            index = membersUsed
            membersUsed += 1
        }
        members[Int(index)] = NameMemberEntry(
            member: member, next: entries[Int(entry)].firstMember, entry: entry, ownerUID: ownerUID, client: client,
            clientGeneration: generation)
        entries[Int(entry)].firstMember = index
        entries[Int(entry)].memberCount += 1
        entries[Int(entry)].version = nextVersion()
        return true
    }

    /// Removes a member, and its name if it was the last one.
    mutating func removeMember(_ member: UInt32) {
        let entry = members[Int(member)].entry
        precondition(entry != Self.none, "a member is removed twice")
        if entries[Int(entry)].firstMember == member {
            _ = unlinkFirstMember(entry)
        } else {
            var before = entries[Int(entry)].firstMember
            while members[Int(before)].next != member { before = members[Int(before)].next }
            members[Int(before)].next = members[Int(member)].next
            release(member)
            entries[Int(entry)].memberCount -= 1
        }
        entries[Int(entry)].version = nextVersion()
        if entries[Int(entry)].memberCount == 0 { remove(entry) }
    }

    mutating func touch(_ entry: UInt32) { entries[Int(entry)].version = nextVersion() }

    private mutating func unlinkFirstMember(_ entry: UInt32) -> UInt32 {
        let member = entries[Int(entry)].firstMember
        entries[Int(entry)].firstMember = members[Int(member)].next
        entries[Int(entry)].memberCount -= 1
        release(member)
        return member
    }
    private mutating func release(_ member: UInt32) {
        members[Int(member)].entry = Self.none
        members[Int(member)].next = freeMember
        freeMember = member
    }
    /// Versions grow over the whole table, so that a name removed and made again does not repeat one.
    private mutating func nextVersion() -> UInt64 {
        version &+= 1
        return version
    }
}
