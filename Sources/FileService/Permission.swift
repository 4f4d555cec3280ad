// The one set of permission rules: who may do what to an inode.
//
// Role: applied to every client but the FUSE front end, for which the kernel has applied the same rules already
// (default_permissions). After inode_permission, may_delete, setattr_prepare and mode_strip_sgid in Linux.
// Invariants: user 0 has CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN, CAP_FSETID and CAP_MKNOD, nobody else has any; the
// identity is the envelope's, never the message's; supplementary groups are those the client connected with.

import CFosWire
import FileStorage
import Messaging

enum Access {
    static var execute: UInt32 { 1 }
    static var write: UInt32 { 2 }
    static var read: UInt32 { 4 }
}

/// Who a request is from, as the rules see it.
struct Actor: BitwiseCopyable {
    var uid: UInt32 = 0
    var gid: UInt32 = 0
    /// Supplementary groups, ascending; the kernel's memory, of this turn only.
    var groups = UnsafeBufferPointer<UInt32>(start: nil, count: 0)
    /// False for the FUSE front end: the kernel has checked.
    var isChecked = false

    init() {}
    @inline(__always) init<K: Kernel>(_ envelope: UnsafePointer<fos_envelope>, _ kernel: K) {
        uid = envelope.pointee.uid
        gid = envelope.pointee.gid
        isChecked = UInt32(envelope.pointee.rights) & FOS_RIGHT_KERNEL_CACHE.rawValue == 0
        if isChecked, uid != 0 { groups = kernel.groups(of: envelope) }
    }

    @inline(__always) var isPrivileged: Bool { !isChecked || uid == 0 }

    /// Whether the actor is in a group (in_group_p in Linux).
    @inline(__always) func isIn(_ group: UInt32) -> Bool { gid == group || (groups.count > 0 && hasSupplementary(group)) }
    private func hasSupplementary(_ group: UInt32) -> Bool {
        var low = 0
        var high = groups.count
        while low < high {
            let middle = (low + high) / 2
            if groups[middle] < group { low = middle + 1 } else { high = middle }
        }
        return low < groups.count && groups[low] == group
    }

    /// Whether all of `wanted` (read 4, write 2, execute or search 1) is granted on an inode with these attributes.
    func may(_ wanted: UInt32, mode: UInt32, uid owner: UInt32, gid group: UInt32) -> Bool {
        guard isChecked else { return true }
        if uid == 0 {
            // Root needs one execute bit to execute a file; directories and data are open to it.
            return wanted & Access.execute == 0 || mode & Mode.typeMask == Mode.directory || mode & 0o111 != 0
        }
        let granted = uid == owner ? mode >> 6 : isIn(group) ? mode >> 3 : mode
        return granted & wanted == wanted
    }
    @inline(__always) func may(_ wanted: UInt32, _ inode: InodePointer) -> Bool {
        !isChecked || may(wanted, mode: inode.pointee.mode, uid: inode.pointee.uid, gid: inode.pointee.gid)
    }

    /// Whether the actor counts as the owner of an inode (chmod, utimes with given times, sticky deletion).
    @inline(__always) func owns(_ owner: UInt32) -> Bool { isPrivileged || uid == owner }

    /// Whether an entry of a directory may be removed, as far as the sticky bit says (unlink(2) EPERM).
    func mayRemove(from directoryMode: UInt32, _ directoryOwner: UInt32, entryOwner: UInt32) -> Bool {
        directoryMode & Mode.sticky == 0 || owns(entryOwner) || uid == directoryOwner
    }

    /// The mode and group of a new inode in a directory (setgid directories hand on their group).
    func inherit(mode: UInt32, from directory: InodePointer) -> (mode: UInt32, gid: UInt32) {
        guard directory.pointee.mode & Mode.setGroup != 0 else { return (mode, gid) }
        let group = directory.pointee.gid
        if mode & Mode.typeMask == Mode.directory { return (mode | Mode.setGroup, group) }
        // A setgid program for a group that its maker is not in would be a way into that group.
        if mode & (Mode.setGroup | Mode.groupExecute) == Mode.setGroup | Mode.groupExecute, !isPrivileged, !isIn(group) {
            return (mode & ~Mode.setGroup, group)
        }
        return (mode, group)
    }
}

extension Inode {
    /// The mode without setuid and setgid, as a write, truncate or chown leaves it. A setgid bit without group
    /// execution marks mandatory locking in old systems, and stays.
    var modeWithoutPrivilege: UInt32 {
        var mode = self.mode & ~Mode.setUser
        if mode & Mode.groupExecute != 0 { mode &= ~Mode.setGroup }
        return mode
    }
}
