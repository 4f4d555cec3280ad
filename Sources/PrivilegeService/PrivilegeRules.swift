// PrivilegeRules: who may do what, as an ordered list in which the last matching rule wins.
//
// Role: the policy of the privilege fleet, apart from its messages. Kernels, and servers on the machine's own
// mailboxes, are never asked about: they are the trusted part (the fixed point).
// Invariants: a bounded list; storage is allocated at `init`; a rule is replaced in place only by one for the same
// subject, and then moves to the end, so that what was set last wins.

import CFosWire

/// What a rule is about: everything but its verdict.
struct PrivilegeRule: BitwiseCopyable {
    var action: UInt32
    var subjectKind: UInt32
    var uid: UInt32
    var allow: Bool
    var mailbox: fos_mailbox
    var prefixLength: UInt8
}

struct PrivilegeRules: ~Copyable {
    /// Any user; any mailbox is FOS_MAILBOX_NONE.
    static var anyone: UInt32 { .max }
    static var prefixRoom: Int { Int(FOS_SERVICE_NAME_BYTES_MAX) + 1 }

    private let rules: UnsafeMutablePointer<PrivilegeRule>
    private let prefixes: UnsafeMutablePointer<UInt8>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        precondition(capacity > 0, "no room for rules")
        self.capacity = capacity
        rules = .allocate(capacity: capacity)
        prefixes = .allocate(capacity: capacity * Self.prefixRoom)
    }
    deinit {
        rules.deallocate()
        prefixes.deallocate()
    }

    subscript(_ index: Int) -> PrivilegeRule { rules[index] }
    func prefix(_ index: Int) -> UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: prefixes + index * Self.prefixRoom, count: Int(rules[index].prefixLength))
    }

    /// Adds a rule at the end, instead of an older one for the same subject. False when the list is full.
    mutating func set(_ rule: PrivilegeRule, prefix: UnsafeBufferPointer<UInt8>) -> Bool {
        precondition(prefix.count == Int(rule.prefixLength) && prefix.count <= Int(FOS_SERVICE_NAME_BYTES_MAX), "a prefix is not checked")
        for index in 0..<count where isSameSubject(index, rule, prefix) {
            remove(index)
            break
        }
        guard count < capacity else { return false }
        rules[count] = rule
        if let base = prefix.baseAddress { (prefixes + count * Self.prefixRoom).update(from: base, count: prefix.count) }
        count += 1
        return true
    }

    /// The verdict of the last matching rule; nil when none matches.
    func verdict(action: UInt32, kind: UInt32, uid: UInt32, mailbox: fos_mailbox, name: UnsafeBufferPointer<UInt8>) -> Bool? {
        var index = count
        while index > 0 {
            index -= 1
            let rule = rules[index]
            guard rule.action == action, rule.subjectKind == kind, rule.uid == Self.anyone || rule.uid == uid else { continue }
            if action == FOS_PRIVILEGE_SEND.rawValue, rule.mailbox != UInt32(FOS_MAILBOX_NONE), rule.mailbox != mailbox { continue }
            if action == FOS_PRIVILEGE_REGISTER.rawValue, !starts(name, with: prefix(index)) { continue }
            return rule.allow
        }
        return nil
    }

    private func starts(_ name: UnsafeBufferPointer<UInt8>, with prefix: UnsafeBufferPointer<UInt8>) -> Bool {
        guard name.count >= prefix.count else { return false }
        for index in 0..<prefix.count where name[index] != prefix[index] { return false }
        return true
    }
    private func isSameSubject(_ index: Int, _ rule: PrivilegeRule, _ prefix: UnsafeBufferPointer<UInt8>) -> Bool {
        let old = rules[index]
        return old.action == rule.action && old.subjectKind == rule.subjectKind && old.uid == rule.uid && old.mailbox == rule.mailbox
            && old.prefixLength == rule.prefixLength && starts(prefix, with: self.prefix(index))
    }
    private mutating func remove(_ index: Int) {
        for later in index + 1..<count {
            rules[later - 1] = rules[later]
            (prefixes + (later - 1) * Self.prefixRoom).update(from: prefixes + later * Self.prefixRoom, count: Self.prefixRoom)
        }
        count -= 1
    }
}
