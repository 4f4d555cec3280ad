// The board: what all cores and clients of a simulated machine read, and only servers write (fos/channel.h).

import CFosWire
public import Messaging

public struct Board: ~Copyable {
    private let owners: UnsafeMutablePointer<MailboxAddress>
    private let epochs: UnsafeMutablePointer<UInt32>
    private let sharded: UnsafeMutablePointer<fos_shard_table>
    /// Counts changes of owners.
    public private(set) var slotEpoch: UInt32 = 0

    init() {
        owners = .allocate(capacity: Int(FOS_SLOTS))
        owners.initialize(repeating: MailboxAddress(rawValue: 0), count: Int(FOS_SLOTS))
        epochs = .allocate(capacity: Int(FOS_INODE_EPOCHS))
        epochs.initialize(repeating: 0, count: Int(FOS_INODE_EPOCHS))
        sharded = .allocate(capacity: 1)
        sharded.initialize(to: fos_shard_table())
    }
    deinit {
        owners.deallocate()
        epochs.deallocate()
        sharded.deallocate()
    }

    /// The hint whom to send requests on an inode to; mailbox 0 if nobody has said.
    public func owner(ofInode inode: UInt64) -> MailboxAddress { owners[Int(inode % UInt64(FOS_SLOTS))] }
    public func owner(ofSlot slot: Int) -> MailboxAddress { owners[slot] }
    public func epoch(ofInode inode: UInt64) -> UInt32 { epochs[Int(fos_inode_epoch_index(inode))] }

    public mutating func publish(slot: Int, owner: MailboxAddress) {
        owners[slot] = owner
        slotEpoch &+= 1
    }
    /// The hint whom to send a request to: the owner of its inode, or of the shard that its name is in.
    public func owner(of request: UnsafePointer<fos_message>) -> MailboxAddress {
        let payload = UnsafeRawPointer(request + 1).assumingMemoryBound(to: UInt8.self)
        return owners[
            Int(fos_request_slot(sharded, UInt32(request.pointee.operation), request.pointee.inode, payload, request.pointee.length))]
    }
    /// Binary logarithm of a directory's shards; 0: it is whole.
    public func shardBits(of directory: UInt64) -> Int { Int(fos_shard_bits(sharded, directory)) }
    /// What a client keeps beside an entry, or its absence: which word says that it is so, and its value (fos_entry_epoch).
    public func epoch(ofEntry name: UnsafeRawBufferPointer, in directory: UInt64) -> UInt64 {
        let bits = UInt32(shardBits(of: directory))
        let key = bits == 0 ? directory : fos_shard_key(directory, fos_shard_of(directory, name.baseAddress, UInt32(name.count), bits))
        return UInt64(fos_inode_epoch_index(key)) << 32 | UInt64(epoch(ofInode: key))
    }
    func publish(directory: UInt64, shardBits: Int) -> Bool {
        if shardBits > 0 { return fos_shard_publish(sharded, directory, UInt32(shardBits)) != 0 }
        fos_shard_withdraw(sharded, directory)
        return true
    }
    /// What clients keep of any inode is void: nobody knows which of them a server has lost.
    mutating func allChanged() { for index in 0..<Int(FOS_INODE_EPOCHS) { epochs[index] &+= 1 } }
    mutating func changed(inode: UInt64) { epochs[Int(fos_inode_epoch_index(inode))] &+= 1 }
}
