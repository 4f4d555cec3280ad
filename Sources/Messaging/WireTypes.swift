// The fixed parts of messages that servers read and write, for modules that specialise servers.
//
// Why: a release build optimises across modules (Package.swift), so the module that puts a server on a kernel takes the server's
// code out of the server's module. It must then know that the fixed parts are BitwiseCopyable; as they are C's, Swift 6.3 finds
// that out only for those that the module itself has asked about, and stops at the first other one. `findConformances(of:)` asks
// about all.

public import CFosWire

public typealias WireTypes = (FileWireTypes, PeerWireTypes, FleetWireTypes)

public typealias FileWireTypes = (
    fos_time, fos_attributes, fos_made, fos_setattr_request, fos_symlink_request, fos_make_request, fos_rename_request,
    fos_link_request, fos_io_request, fos_page_place, fos_io_reply, fos_statfs_reply, fos_xattr_request, fos_xattr_reply,
    fos_readdir_request, fos_directory_entry, fos_fallocate_request, fos_lseek_request, fos_lseek_reply, fos_copy_request,
    fos_copy_reply, fos_lock_request, fos_flock_request, fos_cancel_request, fos_forget_item, fos_open_request,
    fos_lookup_open_request, fos_release_request, fos_flush_request, fos_lease_ack
)

public typealias PeerWireTypes = (
    fos_peer_create, fos_peer_change, fos_peer_rename, fos_peer_reply, fos_peer_ancestry, fos_peer_credits, fos_peer_space,
    fos_peer_read, fos_peer_slot, fos_peer_piece, fos_peer_inode, fos_peer_entry, fos_peer_open, fos_peer_lock, fos_peer_link,
    fos_peer_taken, fos_peer_table, fos_peer_shard, fos_peer_shard_entry, fos_peer_shard_summary
)

public typealias FleetWireTypes = (
    fos_fleet_members, fos_fleet_give, fos_fleet_sender, fos_fleet_report, fos_fleet_take, fos_memory_extent, fos_memory_request,
    fos_memory_grant, fos_memory_free, fos_statistics
)

/// Called by nobody: that it compiles is its use.
@inlinable public func findConformances<Types: BitwiseCopyable>(of: Types.Type) {}
