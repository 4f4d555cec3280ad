#!/usr/bin/env bats
# Files whose small writes, times, owner and mode are left in shared memory (shim/preload/delegations.c): whoever looks, by whatever
# way, sees after each call what the call has done.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all
    start_mount
    export FOS_CACHE=$BASE/tables
    "$FOS" run -- true
    write_programs
}
setup() { only_fos; }

# What the programs share. `Others`: who looks at files meanwhile, each there from the beginning, since a fork makes open files the
# kernel's: a program without the shim, and one with a connection of its own.
write_programs() {
    cat > "$BASE/others.py" <<'PY'
import os, queue, subprocess, sys, threading
sys.stdout.reconfigure(line_buffering=True)
LOOK = """
import os, sys
for line in sys.stdin:
    path = line.rstrip()
    seen = os.stat(path)
    print((seen.st_size, oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_blocks, seen.st_nlink), open(path, 'rb').read().hex(), sep='|', flush=True)
"""
def shown(seen):
    return str((seen.st_size, oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_blocks, seen.st_nlink))
class Program:
    def __init__(self, plain):
        environment = {name: value for name, value in os.environ.items() if not plain or name != 'LD_PRELOAD'}
        self.process = subprocess.Popen(['/usr/bin/python3', '-c', LOOK], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    def look(self, path):
        self.process.stdin.write(path + '\n')
        self.process.stdin.flush()
        attributes, _, content = self.process.stdout.readline().rstrip().rpartition('|')
        return attributes, bytes.fromhex(content)
class Thread:  # with a channel of its own
    def __init__(self):
        self.asked, self.answered = queue.Queue(), queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        while True:
            path = self.asked.get()
            attributes = shown(os.stat(path))
            with open(path, 'rb') as file: self.answered.put((attributes, file.read()))
    def look(self, path):
        self.asked.put(path)
        return self.answered.get()
class Same:  # this thread, by whatever it knows
    def look(self, path):
        attributes = shown(os.stat(path))
        with open(path, 'rb') as file: return attributes, file.read()
KINDS = {'mount': lambda: Program(True), 'message': lambda: Program(False), 'thread': Thread, 'same': Same}
PY
    cat > "$BASE/steps.py" <<'PY'
# One file after the other: some steps, and after each of them, or now and then, somebody looks.
import fcntl, os, random, sys
sys.path.insert(0, os.path.dirname(sys.argv[0]))
from others import *
top, seed, rounds, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
kinds = sys.argv[5:]
print('seed', seed)
random.seed(seed)
os.makedirs(top, exist_ok=True)
os.chdir(top)
others = {kind: KINDS[kind]() for kind in kinds}
for round in range(rounds):
    name, done = f'f{round}', []
    mode = random.choice([0o600, 0o644, 0o640])
    fd = os.open(name, os.O_CREAT | os.O_EXCL | random.choice([os.O_RDWR, os.O_WRONLY]) | random.choice([0, 0, os.O_APPEND]), mode)
    appends = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
    data, place, modified, names, owner = bytearray(), 0, None, [name], None
    closed = False
    often = random.choice([1, 1, 3, 8])
    for step in range(random.randrange(1, 14)):
        what = random.choice(['write', 'write', 'write', 'overlap', 'large', 'mode', 'times', 'now', 'owner', 'truncate', 'link', 'rename', 'next', 'seek', 'vector', 'close', 'read'])
        if closed and what in ('write', 'overlap', 'large', 'truncate', 'seek', 'vector', 'read'): continue
        new = random.randbytes(random.choice([1, 10, 500, 4096, 5000]))
        if what == 'write':
            assert os.write(fd, new) == len(new)
            at = len(data) if appends else place
            if at > len(data): data += bytes(at - len(data))
            data[at:at + len(new)] = new
            place, modified = at + len(new), None
        elif what == 'vector':
            assert os.writev(fd, [new[:len(new) // 2], b'', new[len(new) // 2:]]) == len(new)
            at = len(data) if appends else place
            if at > len(data): data += bytes(at - len(data))
            data[at:at + len(new)] = new
            place, modified = at + len(new), None
        elif what == 'overlap':
            at = random.randrange(len(data) + 1)
            assert os.pwrite(fd, new, at) == len(new)
            if appends: at = len(data)
            data[at:at + len(new)] = new
            modified = None
        elif what == 'large':
            new = random.randbytes(random.choice([30000, 65408, 65409, 140000]))
            assert os.write(fd, new) == len(new)
            at = len(data) if appends else place
            if at > len(data): data += bytes(at - len(data))
            data[at:at + len(new)] = new
            place, modified = at + len(new), None
        elif what == 'seek': place = os.lseek(fd, random.randrange(len(data) + 100), os.SEEK_SET)
        elif what == 'read':
            assert os.fstat(fd).st_size == len(data), (seed, round, done)
        elif what == 'mode':
            mode = random.choice([0o600, 0o644, 0o666, 0o755, 0o711, 0o400])
            os.fchmod(fd, mode) if not closed and step % 2 else os.chmod(names[0], mode)
        elif what == 'times':
            modified = random.choice([0, 1, 1234567890123456789, 4000000000999999999])
            os.utime(fd if not closed and step % 2 else names[0], ns=(5, modified))
        elif what == 'now': os.utime(names[0]); modified = None
        elif what == 'owner' and os.getuid() == 0:
            owner = random.choice([(1, 2), (0, 0), (65534, 5)])
            os.chown(names[0], *owner)
        elif what == 'truncate':
            size = random.randrange(len(data) + 2000)
            os.ftruncate(fd, size)
            data = data[:size] + bytes(max(0, size - len(data)))
            modified = None
        elif what == 'link' and len(names) < 3:
            names.append(f'{name}-{len(names)}')
            os.link(names[0], names[-1])
        elif what == 'rename':
            os.rename(names[0], names[0] + 'r')
            names[0] += 'r'
        elif what == 'next':
            with open('beside', 'w') as file: file.write('x')
            if random.randrange(2): os.unlink('beside')
        elif what == 'close' and not closed:
            os.close(fd)
            closed = True
        done.append(what)
        if random.randrange(often): continue
        kind = random.choice(kinds)
        path = random.choice(names)
        seen, content = others[kind].look(path)
        where = (seed, round, kind, path, done)
        assert content == data, (where, len(content), len(data))
        here = os.stat(path)
        assert seen == shown(here), (where, seen, shown(here))
        assert here.st_size == len(data) and here.st_mode & 0o7777 == mode and here.st_nlink == len(names), (where, seen)
        if modified is not None: assert here.st_mtime_ns == modified, (where, seen)
        if owner is not None: assert (here.st_uid, here.st_gid) == owner, (where, seen)
    if not closed: os.close(fd)
    for path in names: os.unlink(path)
    assert not os.path.lexists(names[0])
PY
    chmod 755 "$BASE"/*.py
}
steps() { "$FOS" run -- /usr/bin/python3 "$BASE/steps.py" "$@"; }

@test "after each step others see the file as it is: on the mount" { steps "$MOUNT/mount" "${FOS_TEST_SEED:-$RANDOM}" 150 0 mount; }
@test "by messages of another program" { steps "$MOUNT/message" "${FOS_TEST_SEED:-$RANDOM}" 200 0 message; }
@test "another thread" { steps "$MOUNT/thread" "${FOS_TEST_SEED:-$RANDOM}" 250 0 thread; }
@test "the same thread, which knows them" { steps "$MOUNT/same" "${FOS_TEST_SEED:-$RANDOM}" 300 0 same; }
@test "all of them in turns" { steps "$MOUNT/all" "${FOS_TEST_SEED:-$RANDOM}" 250 0 mount message thread same; }
@test "where nothing is kept" { FOS_NO_CACHE=1 steps "$MOUNT/uncached" "${FOS_TEST_SEED:-$RANDOM}" 60 0 mount message thread same; }

@test "an ordinary user's" {
    only_root
    mkdir -m 1777 "$MOUNT/nobodys"
    chmod 755 "$BASE/tables"
    setpriv --reuid nobody --regid "$(id -g nobody)" --clear-groups -- "$FOS" run -- /usr/bin/python3 -B "$BASE/steps.py" \
        "$MOUNT/nobodys/d" "${FOS_TEST_SEED:-$RANDOM}" 100 1 mount message thread same 3>&-
}

@test "a program that is killed, executes another, forks or just ends has written what it wrote" {
    mkdir "$MOUNT/ends"
    cd "$MOUNT/ends"
    local i how
    for i in 1 2 3 4 5; do
        "$FOS" run -- /usr/bin/python3 -c "
import os, signal
fd = os.open('killed$i', os.O_CREAT | os.O_WRONLY)
os.write(fd, b'first ')
os.write(fd, b'last')
os.chmod('killed$i', 0o640)
os.utime('killed$i', (5, 6))
os.kill(os.getpid(), signal.SIGKILL)" || true
        [ "$(cat "killed$i")" = "first last" ] && [ "$(stat -c '%a %Y' "killed$i")" = "640 6" ]
    done
    # The new program, which is the same process, and others.
    "$FOS" run -- /usr/bin/python3 -c "
import os
fd = os.open('executed', os.O_CREAT | os.O_WRONLY)
os.write(fd, b'text')
os.chmod('executed', 0o604)
os.execv('/bin/bash', ['bash', '-c', 'stat -c \"%a %s\" executed; cat executed; env -u LD_PRELOAD cat executed; echo more >> executed; cat executed'])" > said
    [ "$(cat said)" = "$(printf '604 4\ntexttexttextmore')" ]
    # With the descriptor open in it, and the offset that it has.
    "$FOS" run -- /usr/bin/python3 -c "
import os
fd = os.open('handed', os.O_CREAT | os.O_RDWR)
os.write(fd, b'one ')
os.set_inheritable(fd, True)
os.write(fd, b'two ')
os.execv('/usr/bin/python3', ['python3', '-c', f'import os; os.write({fd}, b\"three\"); print(os.pread({fd}, 100, 0), os.fstat({fd}).st_size, open(\"handed\").read())'])" > said
    [ "$(cat said)" = "b'one two three' 13 one two three" ]
    # A child sees it through its descriptor and by its name, and the parent what the child does.
    "$FOS" run -- /usr/bin/python3 -c "
import os
for turn in range(20):
    fd = os.open(f'forked{turn}', os.O_CREAT | os.O_RDWR)
    os.write(fd, b'parent ')
    if os.fork() == 0:
        assert os.pread(fd, 100, 0) == b'parent ' == open(f'forked{turn}', 'rb').read() and os.fstat(fd).st_size == 7
        os.write(fd, b'child ')
        new = os.open(f'of-child{turn}', os.O_CREAT | os.O_WRONLY)
        os.write(new, b'left by a child')
        os._exit(0)
    os.wait()
    assert open(f'of-child{turn}').read() == 'left by a child' and os.stat(f'of-child{turn}').st_size == 15
    os.write(fd, b'again')
    assert open(f'forked{turn}').read() == 'parent child again'
"
    # No close, and a script that goes on at once.
    "$FOS" run -- bash -c 'for i in $(seq 30); do perl -e "open(my \$f, q(>), q(p$i)); syswrite(\$f, q(left)); chmod 0600, q(p$i); POSIX::_exit(0) if 0"; [ "$(cat p$i)" = left ] || exit 1; done'
    cd /
}

@test "files that grow by small appends and much more than one record" {
    same -w <<SH
"$FOS" run -- /usr/bin/python3 -c "
import os, random
random.seed(5)
for name, flags in (('a', os.O_APPEND), ('b', 0)):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | flags)
    for i in range(4000): os.write(fd, random.randbytes(random.randrange(1, 200)))
    for i in range(3): os.write(fd, random.randbytes(65408))
    for i in range(5): os.write(fd, random.randbytes(65000))
    print(os.fstat(fd).st_size, os.stat(name).st_size)
fds = [os.open('c%d' % i, os.O_CREAT | os.O_WRONLY) for i in range(20)]
for i in range(4000): os.write(random.choice(fds), random.randbytes(random.randrange(1, 100)))
"
md5sum a b c*
"$FOS" run -- dd if=a of=d bs=1000 status=none; cmp a d
"$FOS" run -- dd if=a of=d bs=700 seek=3 conv=notrunc status=none; md5sum d
SH
}

@test "a file that is removed while a record waits is gone, with what it had" {
    mkdir "$MOUNT/removed"
    "$FOS" run -- /usr/bin/python3 -c "
import os, sys
os.chdir(sys.argv[1])
before = os.statvfs('.')
for turn in range(100):
    fd = os.open('f', os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.write(fd, b'x' * 60000)
    os.unlink('f')
    if turn % 3 == 0: assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 10, 59995) == b'xxxxx'
    if turn % 3 == 1: os.write(fd, b'more'); assert os.fstat(fd).st_size == 60004
    os.close(fd)
    assert os.listdir('.') == [], turn
os.stat('.')
after = os.statvfs('.')
assert after.f_ffree == before.f_ffree and before.f_bfree - after.f_bfree < 40, (before, after)
" "$MOUNT/removed"
}

@test "two mounts in one program" {
    mkdir "$BASE/second"
    mount_fos "$BASE/second" --name "second-${BASE##*.}"
    "$FOS" run -- /usr/bin/python3 -c "
import os, subprocess, sys
one, two = sys.argv[1:]
for turn in range(50):
    a, b = f'{one}/a{turn}', f'{two}/b{turn}'
    fd = os.open(a, os.O_CREAT | os.O_RDWR)
    os.write(fd, b'of the first')
    other = os.open(b, os.O_CREAT | os.O_RDWR)
    os.write(other, b'of the second')
    assert os.pread(fd, 100, 0) == b'of the first' and os.pread(other, 100, 0) == b'of the second', turn
    os.write(fd, b'!')
    assert os.pread(fd, 100, 0) == b'of the first!' and os.fstat(other).st_size == 13, turn
    if turn % 10 == 0: assert subprocess.run(['cat', a, b], stdout=subprocess.PIPE).stdout == b'of the first!of the second'
" "$MOUNT" "$BASE/second" || status=$?
    end_mount "$BASE/second"
    [ "${status:-0}" = 0 ]
}

@test "on a small mount there is no space at the write that finds none, and nothing written is lost" {
    mkdir "$BASE/small"
    mount_fos "$BASE/small" --name "small-${BASE##*.}" --size 48M
    "$FOS" run -- /usr/bin/python3 -c "
import errno, os, sys
os.chdir(sys.argv[1])
written, files = {}, 0
full = False
while not full:
    name = f'f{files}'
    try:
        fd = os.open(name, os.O_CREAT | os.O_WRONLY)
        files += 1
        written[name] = 0
        for i in range(40): written[name] += os.write(fd, bytes([files & 255]) * 30000)
        os.close(fd)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        full = True
total = sum(written.values())
assert total > 40 << 20, total
for name, size in written.items(): assert os.stat(name).st_size == size, (name, size)
print(total)
" "$BASE/small" > "$BASE/total" || status=$?
    [ "${status:-0}" != 0 ] || [ "$(cat "$BASE"/small/f* | wc -c)" = "$(cat "$BASE/total")" ] || status=2
    end_mount "$BASE/small"
    [ "${status:-0}" = 0 ]
}

@test "an archive is unpacked with fewer than three messages a file" {
    mkdir -p "$BASE/packed/d" "$MOUNT/unpacked"
    local i
    for i in $(seq 500); do echo "file $i" > "$BASE/packed/d/f$i"; done
    chmod 640 "$BASE"/packed/d/*
    touch -d '2021-03-04 05:06:07.123456789' "$BASE"/packed/d/*
    tar -C "$BASE" -cf "$BASE/packed.tar" packed
    "$FOS" run --stats -- tar -xpf "$BASE/packed.tar" -C "$MOUNT/unpacked" 2> "$BASE/figures"
    diff -r "$BASE/packed" "$MOUNT/unpacked/packed"
    diff <(cd "$BASE/packed/d" && stat -c '%n %a %U %s %Y' *) <(cd "$MOUNT/unpacked/packed/d" && stat -c '%n %a %U %s %Y' *)
    awk '/^messages/ { gsub(",", "", $2); if ($2 > 1500) exit 1; found = 1 } END { exit !found }' "$BASE/figures" || { cat "$BASE/figures"; return 1; }
}

# An open that would replace what is left to the thread is left by a jump: the file that it had before is asked for again.
@test "calls that a signal handler jumps out of" {
    need gcc
    cat > "$BASE/jump.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
static sigjmp_buf back;
static volatile sig_atomic_t armed, jumps;
static void jump(int signal) {
    (void)signal;
    if (armed) armed = 0, jumps++, siglongjmp(back, 1);
}
int main(int count, char **arguments) {
    int down[2], up[2], wrong = 0;
    if (count != 2 || chdir(arguments[1]) != 0 || pipe(down) != 0 || pipe(up) != 0) return 2;
    if (fork() == 0) {
        close(down[1]);
        close(up[0]);
        dup2(down[0], 0);
        dup2(up[1], 1);
        unsetenv("LD_PRELOAD");
        execlp("sh", "sh", "-c", "while read -r name; do stat -c %s \"$name\"; done", (char *)NULL);
        _exit(127);
    }
    FILE *said = fdopen(up[0], "r");
    signal(SIGALRM, jump);
    for (int turn = 0; turn < 300; turn++) {
        char name[32], other[32], line[64];
        snprintf(name, sizeof name, "y%d", turn);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, "a", 1) != 1) return 3;
        static volatile int made;
        if (sigsetjmp(back, 1) == 0) {
            armed = 1;
            setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 100 + turn % 37 * 10}, NULL);
            for (;;) {
                snprintf(other, sizeof other, "x%d", made++ % 50);
                close(open(other, O_CREAT | O_WRONLY, 0644));
                unlink(other);
            }
        }
        if (write(fd, "b", 1) != 1) return 4;
        dprintf(down[1], "%s\n", name);
        if (fgets(line, sizeof line, said) == NULL) return 5;
        if (atoi(line) != 2) wrong++;
        close(fd);
    }
    printf("%d jumps, %d wrong\n", (int)jumps, wrong);
    return wrong != 0;
}
C
    gcc -O1 -o "$BASE/jump" "$BASE/jump.c"
    mkdir "$MOUNT/jumps"
    timeout 30 "$FOS" run -- "$BASE/jump" "$MOUNT/jumps"
}
