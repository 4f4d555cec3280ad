// The table of callbacks that libfuse calls, and what is agreed on with the kernel at INIT.
//
// Each callback is a C function without context: it finds its thread's worker and calls the operation. Operations
// that are absent here (poll, bmap, access, retrieve) are answered ENOSYS by libfuse, which the kernel remembers.

import CFosWire
import CFuse
import Glibc

/// - Parameter fleetLocks: the file fleet keeps locks; libfuse then offers remote locks to the kernel.
func makeCallbacks(fleetLocks: Bool) -> fuse_lowlevel_ops {
    var table = fuse_lowlevel_ops()
    table.`init` = { agree($0, $1) }
    addEntryCallbacks(&table)
    addDataCallbacks(&table)
    addAttributeCallbacks(&table)
    if fleetLocks {
        table.getlk = { Operation($0).getlk($1, $2, $3) }
        table.setlk = { Operation($0).setlk($1, $2, $3, waits: $4 != 0) }
        table.flock = { Operation($0).lockWhole($1, $2, $3) }
    }
    return table
}

private func addEntryCallbacks(_ table: inout fuse_lowlevel_ops) {
    table.lookup = { Operation($0).lookup($1, $2) }
    table.forget = { Operation($0).forget($1, $2) }
    table.forget_multi = { Operation($0).forget(UnsafeBufferPointer(start: $2, count: $1)) }
    table.mknod = { Operation($0).mknod($1, $2, $3, $4) }
    table.mkdir = { Operation($0).mkdir($1, $2, $3) }
    table.create = { Operation($0).create($1, $2, $3, $4) }
    table.symlink = { Operation($0).symlink($1, $2, $3) }
    table.unlink = { Operation($0).remove(FOS_OP_UNLINK, $1, $2) }
    table.rmdir = { Operation($0).remove(FOS_OP_RMDIR, $1, $2) }
    table.rename = { Operation($0).rename($1, $2, $3, $4, $5) }
    table.link = { Operation($0).link($1, $2, $3) }
    // ENOSYS: the kernel opens directories by itself from then on, and caches their listings.
    table.opendir = { request, _, _ in Operation(request).answer(-ENOSYS) }
    table.releasedir = { request, _, _ in Operation(request).answer(0) }
    table.readdir = { request, inode, size, offset, _ in Operation(request).readdir(inode, size, offset, plus: false) }
    table.readdirplus = { request, inode, size, offset, _ in Operation(request).readdir(inode, size, offset, plus: true) }
    table.fsyncdir = { request, inode, dataOnly, _ in Operation(request).fsync(inode, dataOnly: dataOnly != 0) }
}

private func addDataCallbacks(_ table: inout fuse_lowlevel_ops) {
    table.open = { Operation($0).open($1, $2) }
    table.release = { Operation($0).release($1, $2) }
    table.flush = { Operation($0).flush($1, $2) }
    table.read = { Operation($0).read($1, $2, $3, $4) }
    table.write = { Operation($0).write($1, $2, $3, $4, $5) }
    table.fsync = { request, inode, dataOnly, _ in Operation(request).fsync(inode, dataOnly: dataOnly != 0) }
    table.fallocate = { request, inode, mode, offset, length, _ in Operation(request).fallocate(inode, mode, offset, length) }
    table.lseek = { request, inode, offset, whence, _ in Operation(request).lseek(inode, offset, whence) }
    table.copy_file_range = { request, source, sourceOffset, _, inode, offset, _, length, flags in
        Operation(request).copyRange(source, sourceOffset, inode, offset, length, flags)
    }
    table.ioctl = { request, _, _, _, _, _, _, _, _ in Operation(request).answer(-ENOTTY) }
}

private func addAttributeCallbacks(_ table: inout fuse_lowlevel_ops) {
    table.getattr = { request, inode, _ in Operation(request).getattr(inode) }
    table.setattr = { request, inode, attributes, _, _ in Operation(request).setattr(inode, attributes) }
    table.readlink = { Operation($0).readlink($1) }
    table.statfs = { Operation($0).statfs($1) }
    table.setxattr = { Operation($0).setxattr($1, $2, $3, $4, $5) }
    table.getxattr = { Operation($0).getxattr($1, $2, $3) }
    table.listxattr = { Operation($0).listxattr($1, $2) }
    table.removexattr = { Operation($0).removexattr($1, $2) }
}

/// INIT: what of the kernel's offers is taken.
private func agree(_ userdata: UnsafeMutableRawPointer?, _ connection: UnsafeMutablePointer<fuse_conn_info>?) {
    guard let userdata, let connection else { return }
    let front = userdata.assumingMemoryBound(to: FrontEnd.self)
    func set(_ capability: Int32, _ wanted: Bool) {
        let bit = UInt32(bitPattern: capability)
        if wanted && connection.pointee.capable & bit != 0 {
            connection.pointee.want |= bit
        } else {
            connection.pointee.want &= ~bit
        }
    }
    let opens = !front.pointee.keepsNoOpens
    set(FUSE_CAP_ASYNC_READ, true)
    set(FUSE_CAP_ASYNC_DIO, true)
    set(FUSE_CAP_PARALLEL_DIROPS, true)
    set(FUSE_CAP_READDIRPLUS, true)
    set(FUSE_CAP_READDIRPLUS_AUTO, true)
    set(FUSE_CAP_EXPORT_SUPPORT, true)
    // A symbolic link never changes, so its target may be kept for as long as its inode.
    set(FUSE_CAP_CACHE_SYMLINKS, true)
    // Data is leased: it is dropped when a notice says so, never because a time differs.
    set(FUSE_CAP_EXPLICIT_INVAL_DATA, true)
    set(FUSE_CAP_AUTO_INVAL_DATA, false)
    set(FUSE_CAP_POSIX_LOCKS, opens)
    set(FUSE_CAP_FLOCK_LOCKS, opens)
    // Truncation at open is a SETATTR of its own; an open is no message.
    set(FUSE_CAP_ATOMIC_O_TRUNC, false)
    // The second version of this is accepted in the reply (WorkerLoop.swift).
    set(FUSE_CAP_HANDLE_KILLPRIV, false)
    set(FUSE_CAP_IOCTL_DIR, false)
    // Measured: none of these pays for a service in shared memory.
    set(FUSE_CAP_SPLICE_READ, false)
    set(FUSE_CAP_SPLICE_WRITE, false)
    set(FUSE_CAP_SPLICE_MOVE, false)
    set(FUSE_CAP_WRITEBACK_CACHE, false)
    set(FUSE_CAP_POSIX_ACL, false)
    set(FUSE_CAP_DONT_MASK, false)
    let transfer = UInt32(FOS_TRANSFER_BYTES_MAX)
    connection.pointee.max_write = transfer
    connection.pointee.max_read = transfer
    connection.pointee.max_readahead = min(connection.pointee.max_readahead, transfer)
    connection.pointee.max_background = 64
    connection.pointee.congestion_threshold = 48
    connection.pointee.time_gran = 1
}
