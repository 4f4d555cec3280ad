// The reference model of one name of the name service: whose mailbox it leads to.
//
// Role: names are independent, so each is one sequential object (linearizability is compositional). The workload's names have
// one member each, and every mailbox that is registered is a number of its own, so an answer from before has no place in any order.

import Glibc

public enum NameOperation: Sendable {
    case register(mailbox: UInt32, status: Int32)
    /// `mailbox` 0: there was none.
    case lookup(mailbox: UInt32, status: Int32)
    case deregister(status: Int32)
    /// The client that had registered the mailbox is dead.
    case gone(mailbox: UInt32)
    /// Its server died, and nobody knows how far it came.
    indirect case uncertain(NameOperation)
}

public enum NameModel: SequentialModel {
    public static func fingerprint(_ mailbox: UInt32) -> UInt64 { SeededMark(UInt64(mailbox)).next() }

    public static func onlyLooks(_ operation: NameOperation) -> Bool {
        switch operation {
        case .register(_, let status), .deregister(let status): status != 0
        case .lookup: true
        case .uncertain, .gone: false
        }
    }

    /// The state is the mailbox; 0: there is no such name.
    public static func apply(_ operation: NameOperation, to mailbox: UInt32) -> UInt32? {
        switch operation {
        case .register(let wanted, let status):
            if mailbox == 0 || mailbox == wanted { return status == 0 ? wanted : nil }
            return status == -EEXIST ? mailbox : nil
        case .lookup(let found, let status):
            return status == (mailbox == 0 ? -ENOENT : 0) && found == mailbox ? mailbox : nil
        case .deregister(let status):
            return status == (mailbox == 0 ? -ENOENT : 0) ? 0 : nil
        case .gone(let dead): return mailbox == dead ? 0 : mailbox
        case .uncertain(let inner): return apply(inner, to: mailbox)
        }
    }
}
