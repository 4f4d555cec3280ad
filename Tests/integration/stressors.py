#!/usr/bin/python3
"""Two of stress-ng's file stressors that the version in Debian 12 (0.15) does not have yet.

usage: stressors.py unlink|metamix DIR SECONDS

unlink   processes make, link, open (with flags at random), write and unlink files of the same few names. What is open is
         read back through its descriptor after its name has gone, and its link count is checked.
metamix  processes, each with a file of its own in a shared directory, mix metadata and data at random: seek and write,
         read back, truncate, rename, fsync, chmod, utime, stat. Each compares what it sees with what it has done.

Prints the seed and the number of operations; the exit status is 1, with a line on standard error, at the first difference.
DIR is empty again at the end.
"""
import os
import random
import sys
import time

PROCESSES = 3


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def unlink(directory, chance, until):
    done = 0
    opened = []
    while time.monotonic() < until:
        path = os.path.join(directory, "name-%d" % chance.randrange(8))
        text = b"%d " % chance.getrandbits(60) * chance.randrange(1, 900)
        try:
            flags = chance.choice([os.O_RDWR, os.O_RDWR | os.O_EXCL, os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_NOATIME])
            # Another process may have the name, or take it away between any two of these.
            private = path + "-%d" % os.getpid()
            descriptor = os.open(private, flags | os.O_CREAT, 0o600)
            os.write(descriptor, text)
            try:
                os.link(private, path)
            except FileExistsError:
                pass
            os.unlink(private)
            opened.append((descriptor, text))
            if chance.randrange(2):
                os.unlink(path)
        except FileNotFoundError:
            pass
        while len(opened) > chance.randrange(20):
            descriptor, text = opened.pop(chance.randrange(len(opened)))
            status = os.fstat(descriptor)
            check(status.st_size == len(text), "size of an open file changed to %d from %d" % (status.st_size, len(text)))
            check(status.st_nlink <= 1, "%d links of a file with at most one name" % status.st_nlink)
            check(os.pread(descriptor, len(text) + 1, 0) == text, "an open file lost its content")
            os.close(descriptor)
        done += 1
    for descriptor, text in opened:
        check(os.pread(descriptor, len(text) + 1, 0) == text, "an open file lost its content")
        os.close(descriptor)
    return done


def metamix(directory, chance, until):
    path = os.path.join(directory, "mix-%d" % os.getpid())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    content = bytearray()
    mode = 0o600
    done = 0

    def write():
        at = chance.randrange(1 << 16)
        piece = chance.randbytes(chance.randrange(1, 5000))
        if at > len(content):
            content.extend(bytes(at - len(content)))
        content[at:at + len(piece)] = piece
        check(os.pwrite(descriptor, piece, at) == len(piece), "a short write")

    def read():
        at, count = chance.randrange(1 << 16), chance.randrange(1, 9000)
        check(os.pread(descriptor, count, at) == bytes(content[at:at + count]), "bytes read at %d differ" % at)

    def truncate():
        size = chance.randrange(1 << 16)
        os.ftruncate(descriptor, size)
        del content[size:]
        content.extend(bytes(size - len(content)))

    def rename():
        nonlocal path
        other = os.path.join(directory, "mix-%d-%d" % (os.getpid(), chance.randrange(4)))
        os.rename(path, other)
        path = other

    def change_mode():
        nonlocal mode
        mode = chance.choice([0o600, 0o640, 0o644, 0o400])
        os.chmod(path, mode)

    def change_times():
        stamp = chance.randrange(1 << 60)
        os.utime(path, ns=(stamp, stamp + 1))
        status = os.stat(path)
        check((status.st_atime_ns, status.st_mtime_ns) == (stamp, stamp + 1), "times differ from what was set")

    def look():
        status, named = os.fstat(descriptor), os.stat(path)
        check(status.st_ino == named.st_ino and status.st_nlink == 1, "the name leads to another file")
        check(status.st_size == len(content), "size %d instead of %d" % (status.st_size, len(content)))
        check(status.st_mode & 0o7777 == mode, "mode %o instead of %o" % (status.st_mode & 0o7777, mode))
        check(os.path.basename(path) in os.listdir(directory), "the name is missing in the listing")

    def sync():
        chance.choice([os.fsync, os.fdatasync])(descriptor)

    while time.monotonic() < until:
        chance.choice([write, write, read, read, truncate, rename, change_mode, change_times, look, sync])()
        done += 1
    check(os.pread(descriptor, len(content) + 1, 0) == bytes(content), "the content differs at the end")
    os.close(descriptor)
    os.unlink(path)
    return done


def main():
    what, directory, seconds = {"unlink": unlink, "metamix": metamix}[sys.argv[1]], sys.argv[2], float(sys.argv[3])
    seed = int(os.environ.get("FOS_SEED") or random.SystemRandom().randrange(1 << 30))
    print("%s: seed %d" % (sys.argv[1], seed), flush=True)
    until = time.monotonic() + seconds
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                print("process %d: %d operations" % (number, what(directory, random.Random(seed + number), until)), flush=True)
            except Exception as problem:
                print("process %d: %s: %s" % (number, type(problem).__name__, problem), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    for left in os.listdir(directory):
        check(what is unlink and left.startswith("name-"), "left behind: " + left)
        os.unlink(os.path.join(directory, left))
    sys.exit(1 if failed else 0)


main()
