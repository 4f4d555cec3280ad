#!/usr/bin/python3
"""Prints one line for each entry under a directory: what two trees must have in common to count as the same.

usage: snapshot.py [-w] DIR

Names, types, permission bits, owners, link counts, hard-link groups, sizes, contents (sha256), symlink targets, device
numbers and extended attributes. A modification time is printed only when somebody set it (it lies more than an hour in
the past); a time that is "now" differs between two runs of the same work and says nothing. Sizes of directories, inode
numbers and block counts belong to the file system, not to the work, and are left out. Contents of files over 64 MiB are
left out too (sparse giants).

-w ("without times") leaves all times out, for trees whose times come from elsewhere, such as a package's build.
"""
import hashlib
import os
import stat
import sys
import time

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}


def extended_attributes(path):
    """The attributes of an entry itself, sorted, or a word for why there are none."""
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return ""
    # security.* comes from the host's policy, not from the work.
    names = [n for n in names if not n.startswith("security.")]
    return " ".join("%s=%r" % (n, os.getxattr(path, n, follow_symlinks=False)) for n in names)


def contents(path, size):
    if size > 64 << 20:
        return "large"
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as f:
            while block := f.read(1 << 20):
                digest.update(block)
    except PermissionError:
        return "unreadable"
    return digest.hexdigest()[:16]


def describe(root, path, name, first_of_inode, old, with_times):
    info = os.lstat(path)
    kind = KINDS.get(stat.S_IFMT(info.st_mode), "?")
    line = [name, kind, "%04o" % stat.S_IMODE(info.st_mode), "%d:%d" % (info.st_uid, info.st_gid), "n%d" % info.st_nlink]
    if kind == "file":
        line += [str(info.st_size), contents(path, info.st_size)]
        if info.st_nlink > 1:
            line.append("= " + first_of_inode.setdefault((info.st_dev, info.st_ino), name))
    elif kind == "link":
        line += [str(info.st_size), "-> " + os.readlink(path).replace(root, "DIR")]
    elif kind in ("char", "block"):
        line.append("%d,%d" % (os.major(info.st_rdev), os.minor(info.st_rdev)))
    if with_times and info.st_mtime < old:
        line.append("mtime %d" % info.st_mtime_ns)
    line.append(extended_attributes(path))
    return " ".join(line).rstrip()


def main():
    arguments = [a for a in sys.argv[1:] if a != "-w"]
    with_times = "-w" not in sys.argv[1:]
    root = arguments[0]
    old = time.time() - 3600
    first_of_inode = {}
    out = sys.stdout.reconfigure(errors="surrogateescape") or sys.stdout
    print(describe(root, root, ".", first_of_inode, old, with_times))
    pending = [root]
    while pending:
        directory = pending.pop()
        for name in sorted(os.listdir(directory), key=os.fsencode):
            path = os.path.join(directory, name)
            out.write(describe(root, path, os.path.relpath(path, root), first_of_inode, old, with_times) + "\n")
            if stat.S_ISDIR(os.lstat(path).st_mode):
                pending.append(path)


if __name__ == "__main__":
    main()
