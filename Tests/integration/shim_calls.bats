#!/usr/bin/env bats
# The calls that the preload shim answers: its list against the documentation and the headers, random programs of file
# calls with and without it, and what a process meets when the daemon goes.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all build/differential build/calls_list
    start_mount
    export FOS_CACHE=$BASE/tables LIBFOS
    LIBFOS=$("$FOS" shim-path)
    "$FOS" run -- true
    # A shim that stood aside would make the comparisons below compare nothing.
    [ -z "$(FOS_VERBOSE=1 LD_PRELOAD=$LIBFOS true 2>&1)" ]
}

# $BASE/NAME.py prints the same of a new local directory and, by messages, of one on the mount; $BASE/expected has what it printed.
says_the_same() {
    mkdir "$LOCAL/$1" "$MOUNT/$1"
    /usr/bin/python3 "$BASE/$1.py" "$LOCAL/$1" > "$BASE/expected"
    "$FOS" run -- /usr/bin/python3 "$BASE/$1.py" "$MOUNT/$1" > "$BASE/printed"
    diff -u "$BASE/expected" "$BASE/printed"
}

@test "the documentation shows the list of calls that the code has" {
    sed -n '/^| number /,/^$/p' "$ROOT/docs/shim-calls.md" | sed '/^$/d' > "$BASE/shown"
    "$ROOT/shim/build/calls_list" | diff -u "$BASE/shown" -
    [ "$(wc -l < "$BASE/shown")" -gt 150 ]
}

@test "no system call of the machine's headers is missing in the list" {
    need gcc
    gcc -E -dM -include sys/syscall.h -x c /dev/null | "$ROOT/shim/build/calls_list" missing
}

@test "the calls that the memory side sees are in the list as such" {
    "$ROOT/shim/build/calls_list" memory
}

@test "random programs of file calls say and leave the same as on the local disk" {
    only_fos
    mkdir "$LOCAL/random" "$MOUNT/random"
    programs=$((FOS_LONG == 1 ? 1000 : 60))
    "$ROOT/shim/build/differential" -n "$programs" -s "${FOS_TEST_SEED:-1}" "$LIBFOS" "$LOCAL/random" "$MOUNT/random"
}

# 20531: the flags of a directory that is the kernel's. 60137: after a fork a file grows by message, and then by the kernel.
@test "random programs that once differed" {
    only_fos
    mkdir "$LOCAL/once" "$MOUNT/once"
    for seed in 20531:120 60137:120 400230:300 400558:300 7100014:300 7100197:300 8100086:300 8400358:120; do
        "$ROOT/shim/build/differential" -n 1 -s ${seed%:*} -c ${seed#*:} "$LIBFOS" "$LOCAL/once" "$MOUNT/once"
    done
}

@test "a directory that was removed while it was open is reached by forked children, other programs and the kernel" {
    only_fos
    cat > "$BASE/removed.py" <<'PY'
import errno, fcntl, os, select, subprocess, sys
def attempt(what):
    try: return what()
    except OSError as error: return errno.errorcode[error.errno]
os.chdir(sys.argv[1])
os.mkdir('gone')
os.mkdir('there')
gone, there = os.open('gone', os.O_RDONLY), os.open('there', os.O_RDONLY)
os.rmdir('gone')
def look(who):
    print(who, attempt(lambda: (os.fstat(gone).st_nlink, oct(os.fstat(gone).st_mode))), attempt(lambda: os.listdir(gone)),
          attempt(lambda: os.open('x', os.O_CREAT | os.O_RDWR, dir_fd=gone)), attempt(lambda: os.stat('x', dir_fd=gone)),
          attempt(lambda: os.listdir(there)), flush=True)
def poll(fd):
    polled = select.poll()
    polled.register(fd, select.POLLIN | select.POLLOUT)
    return [events for _, events in polled.poll(0)]
def child(who, then):
    if os.fork() == 0:
        then()
        os._exit(0)
    os.wait()
look('parent')
child('child', lambda: (look('child'), child('grandchild', lambda: look('grandchild')), look('child')))
child('silent child', lambda: child('grandchild', lambda: look('grandchild')))
look('parent')
os.rmdir('there')
print(attempt(lambda: poll(there)), attempt(lambda: fcntl.flock(there, fcntl.LOCK_EX)), attempt(lambda: fcntl.flock(there, fcntl.LOCK_UN)))
os.mkdir('later')
later = os.open('later', os.O_RDONLY)
os.rmdir('later')
code = f"import os; print(os.fstat({later}).st_nlink, oct(os.fstat({later}).st_mode), os.listdir({later}))"
print(subprocess.run([sys.executable, '-c', code], pass_fds=[later], capture_output=True, text=True).stdout)
os.fchdir(later)
print(attempt(lambda: open('x', 'w')), flush=True)
os.set_inheritable(later, True)
os.execv(sys.executable, [sys.executable, '-c', code])
PY
    says_the_same removed
    [ "$(wc -l < "$BASE/expected")" = 11 ]
}

@test "epoll takes no files, as on other file systems" {
    only_fos
    cat > "$BASE/epoll.py" <<'PY'
import errno, os, select, socket, sys
def attempt(what):
    try: return what()
    except OSError as error: return errno.errorcode[error.errno]
os.chdir(sys.argv[1])
os.mkdir('d')
os.mkfifo('fifo')
open('mapped', 'w').write('x' * 5000)
held = socket.socket()
opened = {'file': os.open('f', os.O_CREAT | os.O_RDWR), 'directory': os.open('d', os.O_RDONLY), 'name': os.open('f', os.O_PATH),
          'name only': os.open('f', os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC),
          'fifo': os.open('fifo', os.O_RDWR), 'socket': held.fileno(), 'closed': 900}
# One that is the kernel's: a child has its offset too.
shared = opened['shared'] = os.open('mapped', os.O_RDWR)
if os.fork() == 0: os._exit(0)
os.wait()
os.read(shared, 1)
watcher = select.epoll()
for what, fd in opened.items():
    print(what, attempt(lambda: watcher.register(fd, select.EPOLLIN)), attempt(lambda: watcher.modify(fd, select.EPOLLOUT)), attempt(lambda: watcher.unregister(fd)))
print(attempt(lambda: select.epoll.fromfd(opened['file']).register(opened['file'])), attempt(lambda: select.epoll.fromfd(opened['file']).register(opened['fifo'])))
PY
    says_the_same epoll
    [ "$(grep -c EPERM "$BASE/expected")" = 4 ]
}

@test "a descriptor that only names a file is one by message, and by every other way what Linux makes of it" {
    only_fos
    cat > "$BASE/names.py" <<'PY'
import errno, fcntl, os, socket, stat, subprocess, sys
def attempt(what):
    try: return what()
    except OSError as error: return errno.errorcode[error.errno]
def name(path): return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
def mode(path): return oct(os.stat(path).st_mode)
os.chdir(sys.argv[1])
os.umask(0o022)
os.mkdir('d')
os.mkdir('d/gone')
with open('f', 'w') as file: file.write('some text')
os.mkfifo('pipe')
os.symlink('f', 'link')
fds = {path: name(path) for path in ('d', 'd/gone', 'f', 'pipe', 'link', '.')}
for path, fd in fds.items():
    proc = '/proc/self/fd/%d' % fd
    size = lambda seen: seen.st_size if stat.S_ISREG(seen.st_mode) else None
    print(path, oct(os.fstat(fd).st_mode), size(os.fstat(fd)), fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_PATH | os.O_NOFOLLOW | os.O_CREAT),
          fcntl.fcntl(fd, fcntl.F_GETFD))
    if path == 'link': continue
    # What a change of mode that follows no link does (fchmodat(3)).
    os.chmod(proc, 0o751)
    print(mode(path), oct(os.fstat(fd).st_mode), oct(os.stat(proc).st_mode), os.access(proc, os.X_OK))
    os.utime(proc, (5, 6))
    print(os.stat(path).st_mtime)
for path in ('f', 'd'):
    fd = name(path)
    print(path, [attempt(what) for what in (
        lambda: os.read(fd, 10), lambda: os.write(fd, b'x'), lambda: os.pread(fd, 10, 0), lambda: os.lseek(fd, 0, 0), lambda: os.fchmod(fd, 0o700),
        lambda: os.fchown(fd, 0, 0), lambda: os.ftruncate(fd, 0), lambda: os.fsync(fd), lambda: os.listxattr(fd), lambda: fcntl.flock(fd, fcntl.LOCK_SH),
        lambda: fcntl.lockf(fd, fcntl.LOCK_SH), lambda: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND), lambda: os.isatty(fd),
        lambda: os.utime(fd, (1, 2)), lambda: os.readlink('/proc/self/fd/%d' % fd) == os.getcwd() + '/' + path,
        lambda: os.stat('/proc/self/fd/%d' % fd).st_nlink > 0, lambda: os.close(os.dup(fd)))])
    os.close(fd)
data = os.open('f', os.O_RDWR)
fd = name('f')
print(attempt(lambda: os.sendfile(data, fd, 0, 4)), attempt(lambda: os.copy_file_range(fd, data, 4)))
# The name is closed, the locks of the process stay.
fcntl.lockf(data, fcntl.LOCK_EX)
os.close(name('f'))
os.close(fd)
check = "import fcntl, sys\ntry: fcntl.lockf(open('f', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\nexcept OSError: print('locked')"
print(subprocess.run([sys.executable, '-c', check], stdout=subprocess.PIPE).stdout)
print(os.read(data, 4), os.pread(data, 4, 5))
# Removed, and the directory that others are named in.
gone = fds['d/gone']
os.rmdir('d/gone')
print(os.fstat(gone).st_nlink, attempt(lambda: os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=gone)), attempt(lambda: os.chmod('/proc/self/fd/%d' % gone, 0o700)),
      oct(os.fstat(gone).st_mode))
d = name('d')
os.close(os.open('made', os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=d))
print(os.listdir('d'), os.stat('made', dir_fd=d).st_size, attempt(lambda: os.open('.', os.O_RDONLY, dir_fd=d)) != -1)
listener = socket.socket(socket.AF_UNIX)
listener.bind('/proc/self/fd/%d/socket' % d)
listener.listen()
d2 = name('d')
client = socket.socket(socket.AF_UNIX)
client.connect('/proc/self/fd/%d/socket' % d2)
datagrams, sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagrams.bind('d/datagrams')
d3 = name('d')
sender.sendto(b'text', '/proc/self/fd/%d/datagrams' % d3)
print(datagrams.recv(10), sorted(os.listdir('d')))
# Passed on, inherited, and entered.
fd = name('f')
left, right = socket.socketpair()
socket.send_fds(left, [b'x'], [fd])
passed = socket.recv_fds(right, 1, 1)[1][0]
print(os.fstat(passed).st_ino == os.stat('f').st_ino, attempt(lambda: os.read(passed, 1)))
os.set_inheritable(fd, True)
look = 'import os, sys; print(oct(os.fstat(%d).st_mode), os.readlink("/proc/self/fd/%d").endswith("/f"))' % (fd, fd)
print(subprocess.run([sys.executable, '-c', look], close_fds=False, stdout=subprocess.PIPE).stdout)
if os.fork() == 0:
    print(attempt(lambda: os.fstat(fd).st_size), attempt(lambda: os.read(fd, 1)), flush=True)
    os._exit(0)
os.wait()
os.fchdir(name('d'))
print(os.getcwd().endswith('/d'), sorted(os.listdir('.')))
PY
    says_the_same names
}

@test "an archive's directories get their modes by message" {
    only_fos
    mkdir -p "$BASE/archived/a/b/c" "$MOUNT/unpacked"
    echo text > "$BASE/archived/a/b/c/f"
    chmod 701 "$BASE/archived/a/b" && chmod 750 "$BASE/archived/a"
    tar -C "$BASE" -cf "$BASE/archived.tar" archived
    cd "$BASE"
    "$FOS" run --strict -- tar -xpf "$BASE/archived.tar" -C mount/unpacked
    [ "$(stat -c %a "$MOUNT/unpacked/archived/a" "$MOUNT/unpacked/archived/a/b")" = "$(printf '750\n701')" ]
}

@test "--strict ends a program whose call must go through the kernel, and says which" {
    only_fos
    echo text > "$MOUNT/strict"
    run "$FOS" run --strict -- python3 -c 'import mmap, sys; f = open(sys.argv[1], "r+"); print(mmap.mmap(f.fileno(), 5)[0])' "$MOUNT/strict"
    [ "$status" = 125 ] && [ "$output" = "fos: strict: system call 9 on a mount goes to the kernel: mmap" ]
    run "$FOS" run --strict -- cat "$MOUNT/strict"
    [ "$status" = 0 ] && [ "$output" = text ]
}

@test "the same without a cache" {
    only_fos
    mkdir "$LOCAL/uncached" "$MOUNT/uncached"
    FOS_NO_CACHE=1 "$ROOT/shim/build/differential" -n 20 -s "${FOS_TEST_SEED:-1}" "$LIBFOS" "$LOCAL/uncached" "$MOUNT/uncached"
}

@test "data that is read again and again, in shared memory too, is what was written last" {
    only_fos
    cat > "$BASE/again.py" <<'PY'
import os, random, sys
path, seed = sys.argv[1] + '/large', int(sys.argv[2])
random.seed(seed)
data = os.urandom(3000000)
with open(path, 'wb') as file: file.write(data)
fd = os.open(path, os.O_RDWR)
for i in range(2000):
    offset, count = random.randrange(len(data)), random.choice([1, 10, 4096, 20000, 100000])
    assert os.pread(fd, count, offset) == data[offset:offset + count], (seed, i)
    if i % 40 == 0:
        offset, new = random.randrange(len(data) - 100), os.urandom(100)
        os.pwrite(fd, new, offset)
        data = data[:offset] + new + data[offset + 100:]
    if i == 900:
        os.ftruncate(fd, 2000000)
        data = data[:2000000]
    if i == 1300:
        assert os.pwrite(fd, b'x' * 3000000, 2000000) == 3000000
        data += b'x' * 3000000
PY
    cd "$BASE"
    "$FOS" run --strict --stats -- python3 "$BASE/again.py" mount "${FOS_TEST_SEED:-$RANDOM}" > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    cat "$BASE/figures"
    # By the relative path, and mostly without a message.
    copies=$(sed -n 's/.* written; \([0-9,]*\) calls as memory copies.*/\1/p' "$BASE/figures" | tr -d ,)
    [ "$copies" -gt 500 ]
}

@test "what was fetched ahead of its use, and where a listing ended, is what is there now" {
    only_fos
    cat > "$BASE/ahead.py" <<'PY'
import os, random, subprocess, sys
top, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
os.mkdir(top)
names = ['f%d' % i for i in range(3000)]
for name in names:
    with open(top + '/' + name, 'w') as file: file.write(name)
# Another program, by the mount. It is there from the beginning: to make one would hand this one's files to the kernel.
other = subprocess.Popen(['env', '-u', 'LD_PRELOAD', 'sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=top)
os.chdir(top)
def others(command):
    other.stdin.write((command + ' && echo done\n').encode())
    other.stdin.flush()
    assert other.stdout.readline() == b'done\n', command
for turn in range(6):
    for name in names[:200]: assert os.lstat(name).st_size == len(name), (seed, turn, name)
    changed = random.sample(names, 20)
    others('; '.join('printf %s > %s' % ('y' * (turn + 20), name) for name in changed))
    for name in changed: assert os.lstat(name).st_size == turn + 20, (seed, turn, name)
    for name in names:
        assert os.lstat(name).st_size == (turn + 20 if name in changed else len(name)), (seed, turn, name)
    for name in changed:
        with open(name, 'w') as file: file.write(name)
    gone = random.choice(names)
    others('rm ' + gone + '; ln -s nowhere link')
    assert not os.path.lexists(gone) and os.path.islink('link'), (seed, turn)
    others('rm link; printf %s > %s' % (gone, gone))
# A listing that has ended goes on when something came.
fd = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
import ctypes
libc, room = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(1 << 20)
def part(): return libc.getdents64(fd, room, len(room))
while part() > 0: pass
assert part() == 0
others('touch late')
assert part() > 0 and b'late' in room.raw[:64], seed
assert part() == 0 and part() == 0
os.lseek(fd, 0, os.SEEK_SET)
assert part() > 0
PY
    cd "$BASE"
    "$FOS" run --strict --stats -- /usr/bin/python3 "$BASE/ahead.py" "$MOUNT/ahead" "${FOS_TEST_SEED:-$RANDOM}" > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    # 36,000 names were asked for, most of them without a message.
    messages=$(sed -n 's/^messages *\([0-9,]*\) over.*/\1/p' "$BASE/figures" | tr -d ,)
    [ "$messages" -lt 20000 ] || { cat "$BASE/figures"; return 1; }
}

@test "a name just made or removed, and a listing, are known without a message, and are what others make of them" {
    only_fos
    cat > "$BASE/changes.py" <<'PY'
import os, random, subprocess, sys
top, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
os.mkdir(top)
# Another program, by the mount, there from the beginning.
other = subprocess.Popen(['env', '-u', 'LD_PRELOAD', 'sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=top)
os.chdir(top)
def others(command):
    other.stdin.write((command + ' && echo done\n').encode())
    other.stdin.flush()
    assert other.stdout.readline() == b'done\n', command
there = set()
def make(name):
    kind = random.randrange(4)
    if kind == 0: os.mkdir(name)
    elif kind == 1: os.symlink('nowhere', name)
    elif kind == 2: os.mknod(name)
    else: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    there.add(name)
def remove(name):
    os.rmdir(name) if not os.path.islink(name) and os.path.isdir(name) else os.unlink(name)
    there.discard(name)
names = ['n%d' % i for i in range(12)]
for turn in range(1500):
    name = random.choice(names)
    (remove if name in there else make)(name)
    if random.randrange(20) == 0:
        theirs = random.choice(names)
        others('rm -r ' + theirs if theirs in there else 'touch ' + theirs)
        there ^= {theirs}
        assert os.path.lexists(theirs) == (theirs in there), (seed, turn, theirs)
    assert os.path.lexists(name) == (name in there), (seed, turn, name)
    if random.randrange(3) == 0:
        for again in range(3): assert set(os.listdir('.')) == there, (seed, turn, again)
PY
    cd "$BASE"
    "$FOS" run --strict --stats -- /usr/bin/python3 "$BASE/changes.py" "$MOUNT/changes" "${FOS_TEST_SEED:-$RANDOM}" > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    # 3,000 looks at names and 1,500 listings, beside 1,500 changes.
    messages=$(sed -n 's/^messages *\([0-9,]*\) over.*/\1/p' "$BASE/figures" | tr -d ,)
    [ "$messages" -lt 5500 ] || { cat "$BASE/figures"; return 1; }
}

@test "the end of a file, a file just written and a name just moved are known without a message, and are what others make of them" {
    only_fos
    cat > "$BASE/ends.py" <<'PY'
import os, random, subprocess, sys
top, seed, quiet = sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3
random.seed(seed)
os.mkdir(top)
os.mkdir(top + '/sub')
# Another program, by the mount, there from the beginning.
other = subprocess.Popen(['env', '-u', 'LD_PRELOAD', 'sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=top)
os.chdir(top)
def others(command):
    other.stdin.write((command + ' && echo done\n').encode())
    other.stdin.flush()
    assert other.stdout.readline() == b'done\n', command
for turn in range(400):
    where = (seed, turn)
    text = os.urandom(random.randrange(1, 6000)).hex().encode()
    fd = os.open('new', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, text)
    assert os.fstat(fd).st_size == len(text), where
    os.close(fd)
    os.link('new', 'linked')
    what = -1 if quiet else random.randrange(6)
    if what == 0: others('printf more >> linked'); text += b'more'
    if what == 1: others('chmod 600 new')
    assert os.stat('new').st_nlink == 2 and os.stat('new').st_size == len(text), where
    name = random.choice(['moved', 'sub/moved'])
    os.rename('new', name)
    if what == 2: others('mv linked elsewhere && mv elsewhere linked')
    assert not os.path.lexists('new') and os.stat(name).st_size == len(text), where
    if what == 3: others(f'printf x > {name}'); text = b'x'
    fd = os.open(name, os.O_RDONLY)
    assert os.read(fd, 20000) == text and os.read(fd, 20000) == b'', where
    if what == 4:
        others('printf last >> linked')
        assert os.read(fd, 4) == b'last' and os.read(fd, 4) == b'', where
    if what == 5:
        others('truncate -s 0 linked && printf abcd > linked')
        assert os.pread(fd, 100, 0) == b'abcd' and os.pread(fd, 100, 4) == b'', where
    os.close(fd)
    os.unlink(name)
    os.unlink('linked')
PY
    cd "$BASE"
    "$FOS" run --strict --stats -- /usr/bin/python3 "$BASE/ends.py" "$MOUNT/ends" 1 quietly > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    # 400 times create, write, link, a look at a name beside it, rename, in half of them by way of the other directory, open, read and
    # twice unlink; the attributes of what was written or moved, and each file's end, would be 1,200 and more.
    awk '/^messages/ { gsub(",", "", $2); if ($2 > 5200) exit 1; found = 1 } END { exit !found }' "$BASE/figures" || { cat "$BASE/figures"; return 1; }
    "$FOS" run -- /usr/bin/python3 "$BASE/ends.py" "$MOUNT/ended" "${FOS_TEST_SEED:-$RANDOM}"
}

@test "a file that is opened, read and closed again and again needs no message, and is what it is now" {
    only_fos
    cat > "$BASE/reopen.py" <<'PY'
import os, random, stat, subprocess, sys, time
top, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
names = [f'{top}/f{i}' for i in range(10)]
def plain(command):
    environment = {name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}
    subprocess.run(['sh', '-c', command], check=True, env=environment)
def content(name):
    fd = os.open(name, os.O_RDONLY)
    data = os.read(fd, 100)
    os.close(fd)
    return data
for name in names:
    with open(name, 'w') as file: file.write(name)
for _ in range(500):
    for name in names: assert content(name) == name.encode(), (seed, name)
    assert len(os.listdir(top)) == len(names), seed
if sys.argv[3] == 'quietly': sys.exit(0)
for round in range(40):
    name = random.choice(names)
    what = random.choice(['write', 'remove', 'replace', 'forbid'])
    content(name)
    if what == 'write':
        text = f'{round} {name}'
        plain(f'printf "%s" "{text}" > {name}')
        assert content(name) == text.encode(), (seed, round, what)
    elif what == 'remove':
        # The inode is gone with its name: nothing here keeps it for long, and the name leads nowhere.
        (plain if round % 2 else lambda command: os.unlink(name))(f'rm {name}')
        try: content(name)
        except FileNotFoundError: pass
        else: raise AssertionError((seed, round, what))
        with open(name, 'w') as file: file.write('new')
        assert content(name) == b'new', (seed, round, what)
    elif what == 'replace':
        with open(name + '.new', 'w') as file: file.write('other')
        (plain if round % 2 else lambda command: os.rename(name + '.new', name))(f'mv {name}.new {name}')
        assert content(name) == b'other', (seed, round, what)
    elif os.getuid() != 0:
        plain(f'chmod 200 {name}')
        try: content(name)
        except PermissionError: pass
        else: raise AssertionError((seed, round, what))
        plain(f'chmod 600 {name}')
PY
    mkdir "$MOUNT/reopen" "$MOUNT/reopened"
    chmod 1777 "$MOUNT/reopened"
    "$FOS" run --strict --stats -- /usr/bin/python3 "$BASE/reopen.py" "$MOUNT/reopen" 1 quietly > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    # 500 rounds of 10 files, and of a listing.
    awk '/^messages/ { gsub(",", "", $2); if ($2 > 900) exit 1; found = 1 } END { exit !found }' "$BASE/figures" || { cat "$BASE/figures"; return 1; }
    "$FOS" run -- /usr/bin/python3 "$BASE/reopen.py" "$MOUNT/reopened" "${FOS_TEST_SEED:-$RANDOM}" changes
}

@test "names beside those that a program changes itself stay known, and what others do to them is seen" {
    only_fos
    cat > "$BASE/beside.py" <<'PY'
# In one directory: changes of one's own, and looks at all the others. With workers, these change names in between, by message and
# through the mount; what each has done is seen at the next look, and so it is by another thread.
import os, random, subprocess, sys, threading
directory, seed, rounds, kinds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
print('seed', seed)
random.seed(seed)
os.chdir(directory)
worker = """import os, sys
for line in sys.stdin:
    what, *names = line.split()
    if what == 'make': os.close(os.open(names[0], os.O_CREAT | os.O_WRONLY))
    elif what == 'remove': os.unlink(names[0])
    else: os.rename(*names)
    print('done', flush=True)"""
workers = []
for kind in kinds:
    environment = {name: value for name, value in os.environ.items() if name != 'LD_PRELOAD' or kind == 'message'}
    workers.append(subprocess.Popen(['/usr/bin/python3', '-c', worker], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
names = [f'name{i}' for i in range(30)]
there = set()
def change(do):
    what = random.choice(('make', 'remove', 'rename'))
    present, absent = sorted(there), [name for name in names if name not in there]
    if what == 'make' and absent:
        name = random.choice(absent)
        do('make', name)
        there.add(name)
    elif what == 'remove' and present:
        name = random.choice(present)
        do('remove', name)
        there.remove(name)
    elif what == 'rename' and present:
        old, new = random.choice(present), random.choice([name for name in names])
        if old == new: return
        do('rename', old, new)
        there.remove(old)
        there.add(new)
def myself(what, *named):
    if what == 'make': os.close(os.open(named[0], os.O_CREAT | os.O_WRONLY))
    elif what == 'remove': os.unlink(named[0])
    else: os.rename(*named)
def by(process):
    def tell(what, *named):
        process.stdin.write(' '.join((what, *named)) + '\n')
        process.stdin.flush()
        assert process.stdout.readline() == 'done\n'
    return tell
def look(round):
    for name in names: assert os.access(name, os.F_OK) == (name in there), (seed, round, name, name in there)
def in_thread(what, *named):
    thread = threading.Thread(target=myself, args=(what, *named))
    thread.start()
    thread.join()
for round in range(rounds):
    change(myself)
    if workers and random.random() < 0.3: change(by(random.choice(workers)))
    if workers and random.random() < 0.1: change(in_thread)
    look(round)
for process in workers:
    process.stdin.close()
    process.wait()
PY
    mkdir "$MOUNT/beside" "$MOUNT/beside2"
    chmod 1777 "$MOUNT/beside2"
    "$FOS" run --stats -- /usr/bin/python3 "$BASE/beside.py" "$MOUNT/beside" 1 1000 > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    # A change of its own and 30 looks a round.
    awk '/^messages/ { gsub(",", "", $2); if ($2 > 2000) exit 1; found = 1 } END { exit !found }' "$BASE/figures" || { cat "$BASE/figures"; return 1; }
    "$FOS" run -- /usr/bin/python3 "$BASE/beside.py" "$MOUNT/beside2" "${FOS_TEST_SEED:-$RANDOM}" 2000 message mount
}

@test "a program that is executed goes on with the connection of the one before" {
    only_fos
    mkdir "$MOUNT/exec"
    printf one > "$MOUNT/exec/one"
    connections() { sed -n 's/^messages .* over \([0-9]*\) connections.*/\1/p' "$BASE/figures"; }
    # Lists a directory, so that it connects; fails to execute something; goes on; leaves the rest to others, which list it too.
    cat > "$BASE/leave.py" <<'PY'
import os, sys
what = sys.argv[1]
os.chdir(sys.argv[2])
assert os.listdir('.') == ['one'] and os.stat('one').st_size == 3
try: os.execv('./missing', ['missing'])
except FileNotFoundError: pass
assert sorted(os.listdir('.')) == ['one'] and open('one').read() == 'one'
if what == 'open':
    file = os.open('one', os.O_RDONLY)  # closed by the exec, so its reference must be given back
if what == 'inherited':
    os.dup2(os.open('one', os.O_RDONLY), 0)
if what == 'bare': os.execve('/usr/bin/env', ['env', '-i', '/bin/cat', 'one'], {})
os.execv('/bin/sh', ['sh', '-c', 'exec cat' if what == 'inherited' else 'env | grep -E "FOS_KEPT|FOS_SEEN"; exec cat *'])
PY
    for what in plain:1 open:2 inherited:1 bare:1; do
        "$FOS" run --stats -- /usr/bin/python3 "$BASE/leave.py" "${what%:*}" "$MOUNT/exec" > "$BASE/said" 2> "$BASE/figures" < /dev/null
        [ "$(cat "$BASE/said")" = one ] || { cat "$BASE/said" "$BASE/figures"; return 1; }
        [ "$(connections)" = "${what#*:}" ] || { echo "$what"; cat "$BASE/figures"; return 1; }
    done
    # A program without the shim finds nothing of it: not a static one, nor one that has no table.
    cat > "$BASE/bare.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
int main(int count, char **arguments) {
    char text[64], link[256];
    int own = open("/etc/passwd", O_RDONLY), replaced = 0, kept = 0;
    for (int fd = 3; fd < 1100; fd++) {
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(text, link, sizeof link - 1);
        link[length > 0 ? length : 0] = 0;
        if (strstr(link, "memfd:fos") == NULL) continue;
        // Where it has one, the shim's numbers are the program's own as soon as it wants them.
        if (count == 1) printf("%s\n", link);
        else replaced += dup2(own, fd) == fd;
    }
    for (char **word = environ; *word != NULL; word++) {
        if (strncmp(*word, "FOS_KEPT", 8) == 0) puts(*word);
    }
    if (count == 1) return 0;
    int file = open(arguments[1], O_RDONLY);
    for (int fd = 3; fd < 1100; fd++) kept += fd != file && fd != own && pread(fd, text, 4, 0) == 4 && memcmp(text, "root", 4) == 0;
    printf("%s %d\n", read(file, text, 3) == 3 && memcmp(text, "one", 3) == 0 ? "read" : "not read", kept == replaced);
    return 0;
}
C
    gcc -o "$BASE/bare" "$BASE/bare.c"
    gcc -static -o "$BASE/bare.static" "$BASE/bare.c"
    [ -z "$("$FOS" run -- bash -c 'read -r x < "$0"; exec "$1"' "$MOUNT/exec/one" "$BASE/bare.static" < /dev/null)" ]
    [ -z "$("$FOS" run -- bash -c 'read -r x < "$0"; FOS_CACHE=/nonexistent exec "$1"' "$MOUNT/exec/one" "$BASE/bare" < /dev/null)" ]
    [ -z "$("$FOS" run -- bash -c 'read -r x < "$0"; unset FOS_CACHE XDG_CACHE_HOME HOME; exec "$1"' "$MOUNT/exec/one" "$BASE/bare" < /dev/null)" ]
    [ "$("$FOS" run -- bash -c 'read -r x < "$0"; exec "$1" "$0"' "$MOUNT/exec/one" "$BASE/bare" < /dev/null)" = "read 1" ]
    # A word that lies is no harm.
    FOS_KEPT=0,1,2 "$FOS" run -- cat "$MOUNT/exec/one" > "$BASE/said" < /dev/null
    [ "$(cat "$BASE/said")" = one ]
    FOS_KEPT=77,88,99 "$FOS" run -- ls "$MOUNT/exec"
    for word in 0 0,1,2 "1,zz" "" ffffffffffffffffff,1,1,1,1,1,1; do
        [ "$(FOS_SEEN=$word "$FOS" run -- sh -c "env | grep FOS_SEEN; ls $MOUNT/exec")" = one ] || { echo "$word"; return 1; }
    done
    # Nothing of the programs that ended is left. One look must do: another right after it may see that of the one before.
    local left
    for _ in $(seq 100); do
        left=$("$FOS" status "$MOUNT" | grep '^clients')
        [[ $left != *" 0" ]] || break
        sleep 0.1
    done
    [[ $left == *" 0" ]] || { echo "$left"; return 1; }
}

@test "files that a program leaves open go on by message in the next one, with their offsets" {
    only_fos
    mkdir "$MOUNT/next"
    cd "$MOUNT/next"
    # next ADOPTED COMMANDS: a shell that executes, with what it has opened itself; how many descriptions go on by message.
    next() {
        "$FOS" run --stats -- bash -c "$2" 2> "$BASE/figures"
        local adopted
        adopted=$(sed -n 's/^descriptors.* \([0-9,]*\) adopted.*/\1/p' "$BASE/figures")
        [ "$adopted" = "$1" ] || { echo "$2: $adopted instead of $1"; cat "$BASE/figures"; return 1; }
    }
    seq 1 20000 > "$BASE/numbers"
    next 1 'exec seq 1 20000 > out'
    cmp out "$BASE/numbers"
    # Behind what the shell wrote itself, in a child, at the end, and with one file under two numbers.
    next 1 'exec > out; echo first; exec seq 2 100'
    [ "$(md5sum < out)" = "$( (echo first; seq 2 100) | md5sum)" ]
    next 1 'seq 1 10 > out; true'
    next 1 'seq 11 100 >> out; true'
    seq 1 100 | cmp - out
    next 1 'exec perl -e "\$| = 1; for (1..100) { print STDOUT qq(o\$_\n); print STDERR qq(e\$_\n) }" > out 2>&1'
    [ "$(wc -l < out)" = 200 ] && [ "$(sed -n 199,200p out | tr -d '\n')" = o100e100 ]
    # Read from where it was left; a reader goes over when it has read much.
    next 2 'exec < '"$BASE"'/numbers; exec 0< out; read -r line; exec perl -e "my \$n; while (sysread(STDIN, \$_, 1)) { \$n++; sysseek(STDIN, 0, 1) for 1..1000 } print \$n" > count'
    [ "$(cat count)" = $(($(stat -c %s out) - 3)) ]
    # On from there: a program that forks, one that executes yet another, one without the shim, and back.
    next 1 'exec > out; echo a; exec bash -c "echo b; (echo c); echo d; /bin/echo e"'
    [ "$(tr -d '\n' < out)" = abcde ]
    next 2 'exec > out; echo a; exec perl -e "\$| = 1; print qq(b\n); exec qw(perl -e), q(print qq(c\n))"'
    [ "$(tr -d '\n' < out)" = abc ]
    next 1 'exec > out; echo a; exec perl -e "\$| = 1; print qq(b\n); delete \$ENV{LD_PRELOAD}; exec qw(bash -c), q(echo c; /bin/echo d)"'
    [ "$(tr -d '\n' < out)" = abcd ]
    next 0 'exec > out; echo a; unset LD_PRELOAD; exec bash -c "echo b; (echo c); exec /bin/echo d"'
    [ "$(tr -d '\n' < out)" = abcd ]
    # An exec that fails after all was made ready for it.
    cat > "$BASE/fails.py" <<'PY'
import os, shutil
shutil.copy('/bin/true', 't')
os.chmod('t', 0o644)
os.write(1, b'b')
for attempt in range(2):
    try: os.execv('./t', ['t'])
    except PermissionError: os.write(1, b'c%d' % os.lseek(1, 0, os.SEEK_CUR))
os.execv('/bin/echo', ['echo', 'd'])
PY
    rm out  # which the kernel has read: where it uses a file too, that is left to it
    next 2 "exec > out; echo a; exec /usr/bin/python3 '$BASE/fails.py'"
    [ "$(tr -d '\n' < out)" = abc3c5d ]
    # A script, which is its interpreter; what is closed, copied over and passed on.
    printf '#!/bin/bash\necho script; exec 3>&1 >&-; echo three >&3; exec 1>other; echo other\n' > script
    chmod +x script
    next 1 'exec > out; echo shell; exec ./script'
    [ "$(cat out other | tr -d '\n')" = shellscriptthreeother ]
    # A description is adopted while threads and a handler use it: every write is there, none on top of another.
    cat > "$BASE/crowd.py" <<'PY'
import os, signal, threading
lines = []
signal.signal(signal.SIGALRM, lambda *_: lines.append(os.write(1, b'%07d\n' % 9999999)))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.004)
def write(who):
    for i in range(300): os.write(1, b'%07d\n' % (who * 1000 + i))
threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
os.write(2, b'written %d\n' % (1800 + len(lines)))
PY
    next 1 "exec /usr/bin/python3 '$BASE/crowd.py' > out"
    [ "$(wc -l < out)" = "$(sed -n 's/^written //p' "$BASE/figures")" ]
    [ "$(grep -v 9999999 out | sort | uniq | wc -l)" = 1800 ]
    # What was not used is given back when it is closed: the file's memory with it.
    cat > "$BASE/unused.py" <<'PY'
import os
def free(): return os.statvfs('.').f_bfree
before = free()
os.unlink('large')
assert free() - before < 100
os.close(7)
os.listdir('.')
assert free() - before > 1000, (before, free())
PY
    head -c 8M /dev/zero > large
    next 0 "exec 7< large; exec /usr/bin/python3 '$BASE/unused.py'"
    cd /
}

@test "after a fork, calls that use no offset go on by message, and both sides see one file" {
    only_fos
    mkdir "$MOUNT/forked"
    cat > "$BASE/forked.py" <<'PY'
import fcntl, mmap, os, random, signal, subprocess, sys
signal.alarm(100)
os.chdir(sys.argv[1])
seed = int(sys.argv[2])
print('seed', seed)
random.seed(seed)
fd = os.open('db', os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
data = bytearray(random.randbytes(20000))
assert os.write(fd, data) == len(data) and os.lseek(fd, 100, 0) == 100
subprocess.run(['/bin/true'], check=True)
def place(most): return random.randrange(len(data) - most), random.randrange(1, most)
def many(count):
    for i in range(count):
        offset, size = place(3000)
        new = random.randbytes(size)
        assert os.pwrite(fd, new, offset) == size
        data[offset:offset + size] = new
        offset, size = place(3000)
        assert os.pread(fd, size, offset) == data[offset:offset + size], (seed, i)
        assert os.fstat(fd).st_size == os.stat('db').st_size == len(data)
many(500)
# A child that does what it is told, on the descriptor that it shares.
down, up = os.pipe(), os.pipe()
if os.fork() == 0:
    while (what := os.read(down[0], 100).decode().split()):
        if what[0] == 'write': result = os.pwrite(fd, bytes.fromhex(what[2]), int(what[1]))
        elif what[0] == 'sum': result = sum(os.pread(fd, 1 << 20, 0))
        elif what[0] == 'next': result = os.read(fd, 10).hex()
        elif what[0] == 'flags': result = fcntl.fcntl(fd, fcntl.F_SETFL, int(what[1]))
        elif what[0] == 'size': result = (os.ftruncate(fd, int(what[1])), os.fstat(fd).st_size)[1]
        elif what[0] == 'map':
            with mmap.mmap(fd, 0) as memory: memory[int(what[1])] = int(what[2]); result = sum(memory[:])
        elif what[0] == 'gone': result = os.unlink('db')
        elif what[0] == 'end': os._exit(0)
        os.write(up[1], str(result).encode())
def child(*what):
    os.write(down[1], ' '.join(str(one) for one in what).encode())
    return os.read(up[0], 100).decode()
many(500)
for round in range(60):
    what = random.choice(['write', 'sum', 'size', 'map', 'many'])
    if what == 'write':
        offset, size = place(30)
        data[offset:offset + size] = new = random.randbytes(size)
        assert child('write', offset, new.hex()) == str(size)
    elif what == 'size':
        size = random.randrange(10000, 20000)
        data = data[:size] + bytes(max(0, size - len(data)))
        assert child('size', size) == str(size)
    elif what == 'map':
        data[round] = round
        assert child('map', round, round) == str(sum(data)), (seed, round)
    elif what == 'sum': assert child('sum') == str(sum(data)), (seed, round)
    else: many(10)
    many(1)
# The offset and the flags are everybody's.
assert child('next') == data[100:110].hex() and os.read(fd, 10) == data[110:120] and child('next') == data[120:130].hex()
assert os.lseek(fd, 0, 1) == 130
child('flags', os.O_APPEND)
assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND and os.pwrite(fd, b'end', 0) == 3  # appends, as Linux does
data += b'end'
child('flags', 0)
assert child('sum') == str(sum(data)) and os.fstat(fd).st_size == len(data)
child('gone')
assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 1 << 20, 0) == data
os.write(down[1], b'end')
os.wait()
assert os.pwrite(fd, b'last', 0) == 4 and os.pread(fd, 4, 0) == b'last'
PY
    "$FOS" run --stats -- /usr/bin/python3 "$BASE/forked.py" "$MOUNT/forked" "${FOS_TEST_SEED:-$RANDOM}" > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    awk '$1 == "pwrite64" { gsub(",", "", $2); found = $2 >= 1000 } END { exit !found }' "$BASE/figures" || { cat "$BASE/figures"; return 1; }
}

@test "data that is overwritten in shared memory is what others read, with its times, by message and on the mount" {
    only_fos
    cat > "$BASE/overwrite.py" <<'PY'
import os, random, subprocess, sys, time
path, seed = sys.argv[1] + '/overwritten', int(sys.argv[2])
random.seed(seed)
SIZE = 400000
data = bytearray(os.urandom(SIZE))
with open(path, 'wb') as file: file.write(data)
plain = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}
# Reads what it is told to and writes what it is told to: through the mount, and by messages of its own.
script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for line in sys.stdin:
    what, offset, value = line.split()
    if what == 'r': print(os.pread(fd, int(value), int(offset)).hex(), flush=True)
    elif what == 'w': print(os.pwrite(fd, bytes.fromhex(value), int(offset)), flush=True)
    else: print(os.fstat(fd).st_mtime_ns, os.fstat(fd).st_size, flush=True)
"""
others = [subprocess.Popen([sys.executable, '-c', script, path], env=e, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for e in (plain, None)]
# Opened now: what is open at a fork becomes the kernel's.
fd, other = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
def ask(who, *what):
    who.stdin.write('%s %s %s\n' % what)
    who.stdin.flush()
    return who.stdout.readline().strip()
def place(most): return random.randrange(len(data) - most), random.randrange(1, most)
modified = os.stat(path).st_mtime_ns
for round in range(40):
    began = time.time_ns()
    for i in range(200):
        offset, count = place(6000)
        new = os.urandom(count)
        assert os.pwrite(random.choice([fd, other]), new, offset) == count
        data[offset:offset + count] = new
        if i % 10 == 0:
            offset, count = place(20000)
            assert os.pread(fd, count, offset) == data[offset:offset + count], (seed, round, i)
    wrote = time.time_ns()
    who = random.choice(others)
    if round % 3 == 0:
        time.sleep(0.02)
        now, size = map(int, ask(who, 's', 0, 0).split())
        # Clocks for files move in ticks of up to 10 ms.
        assert began - 10000000 <= now <= wrote + 10000000 and now >= modified and size == len(data), (seed, round, began, modified, now, wrote)
        modified = now
    for _ in range(3):
        offset, count = place(500)
        assert bytes.fromhex(ask(who, 'r', offset, count)) == data[offset:offset + count], (seed, round)
    if round % 4 == 1:
        offset, count = place(500)
        new = os.urandom(count)
        assert int(ask(who, 'w', offset, new.hex())) == count
        data[offset:offset + count] = new
        offset = max(0, offset - 10)
        assert os.pread(fd, 600, offset) == data[offset:offset + 600], (seed, round)
        modified = os.stat(path).st_mtime_ns
    if round == 30:
        os.ftruncate(fd, 300000)
        data = data[:300000]
        os.pwrite(fd, b'end', SIZE - 3)
        data += bytes(SIZE - 3 - 300000) + b'end'
        modified = os.stat(path).st_mtime_ns
for who in others:
    who.stdin.close()
    assert who.wait() == 0
assert open(path, 'rb').read() == data and subprocess.run(['cat', path], env=plain, stdout=subprocess.PIPE).stdout == data
PY
    cd "$BASE"
    "$FOS" run --stats -- python3 "$BASE/overwrite.py" mount "${FOS_TEST_SEED:-$RANDOM}" > "$BASE/figures" 2>&1 || { cat "$BASE/figures"; return 1; }
    cat "$BASE/figures"
    copies=$(sed -n 's/.* written; \([0-9,]*\) calls as memory copies.*/\1/p' "$BASE/figures" | tr -d ,)
    [ "$copies" -gt 3000 ]
}

@test "an open file fails at once when its daemon goes, and a later mount is used again" {
    only_fos
    mkdir "$BASE/brief"
    mount_fos "$BASE/brief" --name "brief-${BASE##*.}"
    cat > "$BASE/outlive.py" <<'PY'
import errno, os, sys, time
mount, go, gone = sys.argv[1:]
fd = os.open(mount + '/f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'before')
for _ in range(1000): os.fsync(fd)
open(go, 'w').close()
deadline = time.monotonic() + 60
while not os.path.exists(gone) and time.monotonic() < deadline: time.sleep(0.05)
start = time.monotonic()
for what in (lambda: os.fsync(fd), lambda: os.fdatasync(fd), lambda: os.pread(fd, 10, 4096)):
    try:
        what()
        sys.exit('a call on a dead mount succeeded')
    except OSError as error:
        assert error.errno in (errno.ENOTCONN, errno.EIO), error
assert time.monotonic() - start < 5
open(gone + '.again', 'w').close()
while not os.path.exists(gone + '.mounted') and time.monotonic() < deadline: time.sleep(0.05)
time.sleep(0.5)
with open(mount + '/g', 'w') as file: file.write('after')
print(open(mount + '/g').read(), os.listdir(mount))
PY
    "$FOS" run --stats -- python3 "$BASE/outlive.py" "$BASE/brief" "$BASE/go" "$BASE/gone" > "$BASE/said" 2>&1 3>&- &
    work=$!
    for _ in $(seq 600); do [ -e "$BASE/go" ] && break; sleep 0.1; done
    kill -9 "$(daemon_pid "$BASE/brief")"
    for _ in $(seq 100); do is_mounted "$BASE/brief" || break; sleep 0.1; done
    touch "$BASE/gone"
    for _ in $(seq 300); do [ -e "$BASE/gone.again" ] && break; sleep 0.1; done
    mount_fos "$BASE/brief" --name "again-${BASE##*.}"
    touch "$BASE/gone.mounted"
    status=0; wait "$work" || status=$?
    end_mount "$BASE/brief"
    cat "$BASE/said"
    [ "$status" = 0 ]
    [ "$(head -n 1 "$BASE/said")" = "after ['g']" ]
    # There is nothing to sync, which a server says once.
    awk '/^messages/ { gsub(",", "", $2); if ($2 > 100) exit 1; found = 1 } END { exit !found }' "$BASE/said"
}
