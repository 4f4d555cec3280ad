// The board: what all cores and clients of a simulated machine read, and only servers write (fos/channel.h).

import CFosWire
public import Messaging

public struct Board: ~Copyable {
    private let owners: UnsafeMutablePointer<MailboxAddress>
    private let epochs: UnsafeMutablePointer<UInt32>
    /// Counts changes of owners.
    public private(set) var slotEpoch: UInt32 = 0

    init() {
        owners = .allocate(capacity: Int(FOS_SLOTS))
        owners.initialize(repeating: MailboxAddress(rawValue: 0), count: Int(FOS_SLOTS))
        epochs = .allocate(capacity: Int(FOS_INODE_EPOCHS))
        epochs.initialize(repeating: 0, count: Int(FOS_INODE_EPOCHS))
    }
    deinit {
        owners.deallocate()
        epochs.deallocate()
    }

    /// The hint whom to send requests on an inode to; mailbox 0 if nobody has said.
    public func owner(ofInode inode: UInt64) -> MailboxAddress { owners[Int(inode % UInt64(FOS_SLOTS))] }
    public func owner(ofSlot slot: Int) -> MailboxAddress { owners[slot] }
    public func epoch(ofInode inode: UInt64) -> UInt32 { epochs[Int(fos_inode_epoch_index(inode))] }

    public mutating func publish(slot: Int, owner: MailboxAddress) {
        owners[slot] = owner
        slotEpoch &+= 1
    }
    /// What clients keep of any inode is void: nobody knows which of them a server has lost.
    mutating func allChanged() { for index in 0..<Int(FOS_INODE_EPOCHS) { epochs[index] &+= 1 } }
    mutating func changed(inode: UInt64) { epochs[Int(fos_inode_epoch_index(inode))] &+= 1 }
}
