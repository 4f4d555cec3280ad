// Attributes between the wire and the kernel: fos_attributes to struct stat, to the kernel's fuse_attr, and back.
//
// Invariant: timeouts are as good as infinite, because the file service records what the kernel may have cached at
// the moment it answers, and revokes it with a notice before a change by anyone else is acknowledged. But for the absence of
// names, of which the service knows for some time only (`AbsentNames`).

import CFosWire
import CFuse
import Glibc

enum CacheTimeout {
    /// Seconds for which the kernel may keep an entry or attributes: 31 years. The notice comes sooner.
    static let leased = 1e9
    static let leasedSeconds: UInt64 = 1_000_000_000
    /// Seconds for which the kernel may believe that a name is absent.
    static let absent = Double(FOS_ABSENT_SECONDS)
}

/// Preferred I/O size of a file, stat(2) st_blksize. It is what stdio and coreutils take for their buffers' unit.
let preferredBlockBytes = 4096

/// The type bits of a mode (inode(7)), which two imported modules define.
enum FileType {
    static let mask: UInt32 = 0o170000
    static let regular: UInt32 = 0o100000
    static let directory: UInt32 = 0o040000
}

extension fos_attributes {
    /// As stat(2) shows it. `device` already has the kernel's encoding, whose low 32 bits glibc's dev_t shares.
    var status: stat {
        var result = stat()
        result.st_ino = UInt(inode)
        result.st_mode = mode
        result.st_nlink = UInt(links)
        result.st_uid = uid
        result.st_gid = gid
        result.st_rdev = UInt(device)
        result.st_size = Int(truncatingIfNeeded: size)
        result.st_blksize = preferredBlockBytes
        result.st_blocks = Int(truncatingIfNeeded: blocks)
        result.st_atim = accessed.timespec
        result.st_mtim = modified.timespec
        result.st_ctim = changed.timespec
        return result
    }

    /// As READDIRPLUS hands it to the kernel (linux/fuse.h, struct fuse_attr).
    var kernelAttributes: fuse_attr {
        var result = fuse_attr()
        result.ino = inode
        result.size = size
        result.blocks = blocks
        result.atime = UInt64(bitPattern: accessed.seconds)
        result.mtime = UInt64(bitPattern: modified.seconds)
        result.ctime = UInt64(bitPattern: changed.seconds)
        result.atimensec = accessed.nanoseconds
        result.mtimensec = modified.nanoseconds
        result.ctimensec = changed.nanoseconds
        result.mode = mode
        result.nlink = links
        result.uid = uid
        result.gid = gid
        result.rdev = device
        result.blksize = UInt32(preferredBlockBytes)
        return result
    }

    /// An entry under lease, as LOOKUP and the makers of files answer it.
    var entry: fuse_entry_param {
        var result = fuse_entry_param()
        result.ino = inode
        result.generation = UInt64(generation)
        result.attr = status
        result.attr_timeout = CacheTimeout.leased
        result.entry_timeout = CacheTimeout.leased
        return result
    }

    /// The same in the kernel's own layout.
    var kernelEntry: fuse_entry_out {
        var result = fuse_entry_out()
        result.nodeid = inode
        result.generation = UInt64(generation)
        result.entry_valid = CacheTimeout.leasedSeconds
        result.attr_valid = CacheTimeout.leasedSeconds
        result.attr = kernelAttributes
        return result
    }
}

extension fos_time {
    var timespec: Glibc.timespec { Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(nanoseconds)) }

    /// Nanoseconds are clamped to a second; utimensat(2) has checked them already.
    init(_ time: Glibc.timespec) {
        self.init(seconds: Int64(time.tv_sec), nanoseconds: UInt32(clamping: min(max(time.tv_nsec, 0), 999_999_999)), reserved: 0)
    }
}

/// Which FATTR_* bits (linux/fuse.h) of a SETATTR request become which enum fos_set_attribute bits.
///
/// - Parameters:
///   - kernel: `valid` of struct fuse_setattr_in, as the kernel wrote it.
///   - handlesPrivilege: FUSE_HANDLE_KILLPRIV_V2 was negotiated. A change of owner then always drops the setuid and
///     setgid bits; a truncation only when the kernel says so (the caller lacks CAP_FSETID). A request that sets
///     nothing is what is left of file_remove_privs() before a write, or of chown(-1, -1), once the kernel has taken
///     ATTR_KILL_SUID and ATTR_MODE away (fs/fuse/dir.c, fuse_setattr): it drops them too, and its reply tells the
///     kernel the new mode.
func setAttributeBits(kernel valid: UInt32, handlesPrivilege: Bool) -> UInt32 {
    var bits: UInt32 = 0
    if valid & UInt32(FATTR_MODE) != 0 { bits |= FOS_SET_MODE.rawValue }
    if valid & UInt32(FATTR_UID) != 0 { bits |= FOS_SET_UID.rawValue }
    if valid & UInt32(FATTR_GID) != 0 { bits |= FOS_SET_GID.rawValue }
    if valid & UInt32(FATTR_SIZE) != 0 { bits |= FOS_SET_SIZE.rawValue }
    if valid & UInt32(FATTR_CTIME) != 0 { bits |= FOS_SET_CHANGED.rawValue }
    // The kernel sets ATIME together with ATIME_NOW; the wire takes one of them.
    if valid & UInt32(FATTR_ATIME_NOW) != 0 {
        bits |= FOS_SET_ACCESSED_NOW.rawValue
    } else if valid & UInt32(FATTR_ATIME) != 0 {
        bits |= FOS_SET_ACCESSED.rawValue
    }
    if valid & UInt32(FATTR_MTIME_NOW) != 0 {
        bits |= FOS_SET_MODIFIED_NOW.rawValue
    } else if valid & UInt32(FATTR_MTIME) != 0 {
        bits |= FOS_SET_MODIFIED.rawValue
    }
    // The kernel leaves the times of a truncation to the server and does not say whether it comes from open(O_TRUNC),
    // ftruncate or truncate. The first two mark the file modified also when its size stays; so do all three here.
    if valid & UInt32(FATTR_SIZE) != 0 && valid & UInt32(FATTR_MTIME) == 0 { bits |= FOS_SET_MODIFIED_NOW.rawValue }
    if handlesPrivilege {
        let ownerChange = valid & UInt32(FATTR_UID | FATTR_GID) != 0
        if ownerChange || bits == 0 || valid & UInt32(FATTR_KILL_SUIDGID) != 0 { bits |= FOS_SET_KILL_PRIVILEGE.rawValue }
    }
    return bits
}
