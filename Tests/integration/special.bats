#!/usr/bin/env bats
# What is not a plain file, names of every kind, big directories, deep paths, locks, deleted files.
load helper

@test "a socket bound on the mount: stream, datagram, two processes, unlink, connection refused" {
    same <<'SH'
cat > w.py <<'PY'
import os, socket, stat, sys
s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen(); print(stat.S_ISSOCK(os.lstat("sock").st_mode), oct(stat.S_IMODE(os.lstat("sock").st_mode)))
if os.fork() == 0:
    c = socket.socket(socket.AF_UNIX); c.connect("sock"); c.sendall(b"hello"); print(c.recv(10)); os._exit(0)
k, _ = s.accept(); print(k.recv(10), flush=True); k.sendall(b"back"); os.wait(); s.close()
for f in (lambda: socket.socket(socket.AF_UNIX).connect("sock"), lambda: socket.socket(socket.AF_UNIX).bind("sock"), lambda: socket.socket(socket.AF_UNIX).connect("none"), lambda: open("sock")):
    try: f()
    except OSError as e: print(e.strerror)
os.rename("sock", "moved"); os.unlink("moved"); d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind("dgram"); e = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); e.sendto(b"x" * 5000, "dgram"); print(len(d.recv(9000)))
PY
python3 w.py
SH
}

@test "FIFOs between two processes: order, blocking open, EOF, renamed while open, non-blocking" {
    same <<'SH'
mkfifo p; (seq 20000 > p) & wc -l < p; wait; (cat p > out) & exec 5> p; echo a >&5; mv p q; echo b >&5; exec 5>&-; wait; cat out; timeout 0.3 cat q || echo "blocked as it should"; python3 -c 'import os
try: os.open("q", os.O_WRONLY | os.O_NONBLOCK)
except OSError as e: print(e.strerror)
r = os.open("q", os.O_RDONLY | os.O_NONBLOCK); print(os.read(r, 1)); w = os.open("q", os.O_WRONLY); os.write(w, b"nb"); print(os.read(r, 9))'; stat -c '%F %s' q; (yes | head -c 3000000 > q) & dd if=q bs=7 of=/dev/null 2>&1 | grep -o '^3000000 bytes'; wait
SH
}

@test "device nodes: made by root with the right numbers, refused to others" {
    same <<'SH'
if [ "$(id -u)" = 0 ]; then mknod null c 1 3; mknod -m 620 loop b 7 9; stat -c '%F %t %T %a' null loop; ls -l null | awk '{print $5,$6}'; rm loop; else mknod null c 1 3 2>&1 || echo "status $?"; fi
mknod fifo p; stat -c %F fifo
SH
}

@test "names: 255 bytes, every byte but NUL and slash, spaces, newlines, invalid UTF-8, case, dots" {
    same <<'SH'
python3 - <<'PY'
import os
for b in range(1, 256):
    if b == 47: continue
    n = b"x" + bytes([b]); open(n, "wb").write(bytes([b])); 
os.mkdir(b"\xff\xfe dir\n"); open(b"\xff\xfe dir\n/" + b"\xf0" * 255, "w"); os.mkdir("n" * 255); open("n" * 255 + "/" + "m" * 255, "w").close(); open("...", "w"); open("A", "w"); open("a", "w"); open(" ", "w"); open("-rf", "w"); open("caf\u00e9", "w"); open("cafe\u0301", "w")
assert len(os.listdir(b".")) == 254 + 9, len(os.listdir(b".")); assert all(open(b"x" + bytes([b]), "rb").read() == bytes([b]) for b in range(1, 256) if b != 47)
for n in ("m" * 256, "x/", "", "x\u0001/y", "n" * 255 + "/" + "m" * 256):
    try: os.mkdir(n); print("made", n)
    except OSError as e: print(e.strerror)
os.rename("n" * 255, "r" * 255); print(len(os.listdir("r" * 255)[0]))
PY
SH
}

@test "deep paths: 300 levels by chdir, PATH_MAX refused, deletion from the bottom" {
    same <<'SH'
for i in $(seq 300); do mkdir level-$i-padding-padding; cd level-$i-padding-padding; done; echo deep > f; cat f
cd "$DIR"; find . -type f | wc -c; find . | wc -l; p=$(printf 'd/%.0s' $(seq 100)); mkdir -p "$p"
echo x > "${p}f"; cat "${p}f"; rm -r level* d; ls
python3 -c 'import os
try: os.stat("/".join(["x"] * 3000))
except OSError as e: print(e.strerror)'
SH
}

@test "10,000 files in one directory: create, list, stat, rename, delete" {
    same <<'SH'
mkdir d; cd d; seq -f 'file-%05.0f' 10000 | xargs touch; ls | wc -l; ls | md5sum; ls -U | sort | uniq -d | wc -l
ls -l | wc -l; stat -c %s file-0500* | wc -l
for i in 1 5000 9999; do mv "$(printf 'file-%05d' $i)" "moved-$i"; done; ls moved*; rm file-*7; ls | wc -l
find . -type f -print0 | xargs -0 rm; ls -A | wc -l; cd ..; stat -c %h d
SH
}

@test "1,000 directories: link count of the parent follows" {
    same <<'SH'
mkdir d; cd d; seq 1000 | xargs mkdir; stat -c %h .; mkdir 1/sub; stat -c %h 1; mv 5 1/; stat -c %h . 1; mv 1 2/
stat -c %h . 2; ls -R | wc -l; rmdir [4-9]*; stat -c %h .; cd ..; rm -r d
SH
}

@test "directory moves that would make a loop are refused; parents are right after a move" {
    same <<'SH'
mkdir -p a/b/c x; mv a a/b/c 2>&1 || echo "status $?"; mv a/b x; cd x/b/c; cd ..; cd ..; ls; cd ..; ls -R; stat -c %i x | cmp - <(stat -c %i x/b/..); mv x/b/c .; (cd c; cd ..; ls); python3 -c 'import os
for a, b in (("x", "x/b/y"), ("x", "x"), ("x/b", "x"), ("x", "x/."), (".", "y"), ("x/..", "z")):
    try: os.rename(a, b); print("renamed", a, b)
    except OSError as e: print(a, b, e.strerror)'
SH
}

@test "renameat2: NOREPLACE and EXCHANGE, across directories and between kinds" {
    same <<'SH'
cat > w.py <<'PY'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags): print(a, b, flags, "ok" if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) == 0 else os.strerror(ctypes.get_errno()))
os.makedirs("d/s"); os.mkdir("e"); open("d/f", "w").write("f"); open("e/g", "w").write("g"); rename2("d/f", "e/g", 1); rename2("d/f", "e/h", 1); rename2("e/h", "e/g", 2); print(open("e/h").read(), open("e/g").read()); rename2("e/h", "d/s", 2); print(os.path.isdir("e/h"), os.path.isfile("d/s")); rename2("e", "d", 2); print(sorted(os.listdir("d")), sorted(os.listdir("e"))); rename2("d", "d/h", 2); rename2("e", "none", 2); rename2("d/g", "e/s", 8); rename2("e", "d/g", 0); rename2("e/s", "d/g", 3)
PY
python3 w.py
SH
}

@test "unlinked but open: read, write, grow, truncate, stat, link back refused, directories too" {
    same <<'SH'
cat > w.py <<'PY'
import os
f = os.open("f", os.O_RDWR | os.O_CREAT); os.write(f, b"before"); os.unlink("f"); os.write(f, b" after" * 10000); print(os.pread(f, 12, 0), os.fstat(f).st_nlink, os.fstat(f).st_size, os.listdir("."))
os.ftruncate(f, 3); print(os.pread(f, 9, 0)); os.fchmod(f, 0o600); print(oct(os.fstat(f).st_mode)); g = os.open("/proc/self/fd/%d" % f, os.O_RDONLY); print(os.read(g, 9)); os.setxattr(f, "user.x", b"1"); print(os.getxattr(f, "user.x"))
try: os.link("/proc/self/fd/%d" % f, "back", src_dir_fd=os.open(".", 0))
except OSError as e: print(e.strerror)
os.mkdir("d"); d = os.open("d", os.O_RDONLY); os.rmdir("d"); print(os.listdir(d), os.fstat(d).st_nlink)
for a in (lambda: os.open("x", os.O_CREAT, dir_fd=d), lambda: os.mkdir("y", dir_fd=d), lambda: os.stat("..", dir_fd=d).st_ino and None):
    try: print(a())
    except OSError as e: print(e.strerror)
open("a", "w").write("old"); h = open("a"); open("b", "w").write("new"); os.rename("b", "a"); print(h.read(), open("a").read())
PY
python3 w.py
SH
}

@test "flock(1): exclusive, shared, non-blocking, time-out, released by death" {
    same <<'SH'
echo 0 > n
for p in 1 2 3; do (for i in $(seq 20); do flock lock sh -c 'echo $(( $(cat n) + 1 )) > n'; done) & done; wait
cat n; flock -o lock sleep 3 & holder=$!
disown; sleep 0.3; flock -n lock true || echo "held $?"
flock -w 0.2 -E 9 lock true || echo "timed out $?"; flock -n -s lock true || echo "held $?"
kill -9 $holder; flock -w 5 lock echo free; flock -s lock flock -s -n lock echo shared; exec 9> l2; flock 9
(flock -n l2 true || echo "kept by 9"); exec 9>&-; flock -n l2 echo released
SH
}

@test "POSIX byte-range locks between processes, deadlock found" {
    same <<'SH'
cat > w.py <<'PY'
import errno, fcntl, os, struct, time
open("f", "w").write("x" * 100); f = os.open("f", os.O_RDWR)
def child(what):
    r, w = os.pipe(); pid = os.fork()
    if pid == 0:
        try: out = str(what())
        except OSError as e: out = errno.errorcode[e.errno]
        os.write(w, out.encode()); os._exit(0)
    os.wait(); os.close(w); out = os.read(r, 100).decode(); os.close(r); return out
def lock(kind, start, length, cmd=fcntl.F_SETLK, fd=None): return fcntl.fcntl(os.open("f", os.O_RDWR) if fd is None else fd, cmd, struct.pack("hhqqi4x", kind, 0, start, length, 0)) and "locked"
def query(kind, start, length): k, _, s, n, _ = struct.unpack("hhqqi4x", fcntl.fcntl(os.open("f", os.O_RDWR), fcntl.F_GETLK, struct.pack("hhqqi4x", kind, 0, start, length, 0))); return k, s, n
R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
lock(W, 10, 10, fd=f); print(child(lambda: lock(W, 15, 1)), child(lambda: lock(R, 0, 10)), child(lambda: lock(R, 19, 5)), child(lambda: query(W, 0, 0)))
lock(U, 13, 2, fd=f); print(child(lambda: lock(W, 13, 2)), child(lambda: lock(W, 12, 1)), child(lambda: query(W, 14, 9))); lock(R, 0, 0, fd=f); print(child(lambda: lock(R, 50, 1)), child(lambda: lock(W, 5000, 1)))
os.close(os.open("f", os.O_RDONLY)); print(child(lambda: lock(W, 0, 0)))
lock(W, 0, 1, fd=f)
if os.fork() == 0:
    g = os.open("f", os.O_RDWR); lock(W, 1, 1, fd=g); lock(W, 0, 1, fcntl.F_SETLKW, g); os._exit(0)
time.sleep(0.5)
try: lock(W, 1, 1, fcntl.F_SETLKW, f); print("no deadlock")
except OSError as e: print(errno.errorcode[e.errno])
lock(U, 0, 0, fd=f); print(os.wait()[1])
PY
python3 w.py
SH
}

@test "locks of open file descriptions (OFD): between two of one process, released by the last close" {
    same <<'SH'
cat > w.py <<'PY'
import errno, fcntl, os, struct
open("f", "w").write("x" * 100); a, b = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
def lock(fd, kind, start, length):
    try: fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", kind, 0, start, length, 0)); return "locked"  # F_OFD_SETLK
    except OSError as e: return errno.errorcode[e.errno]
R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
print(lock(a, W, 0, 5), lock(b, W, 0, 5), lock(b, W, 5, 5), lock(b, R, 4, 1)); c = os.dup(a); os.close(a); print(lock(b, W, 0, 5)); os.close(c); print(lock(b, W, 0, 5))
PY
python3 w.py
SH
}

@test "extended attributes: many, large, empty, binary, removed, namespaces" {
    same <<'SH'
touch f; mkdir d; for i in $(seq 30); do setfattr -n user.key-$i -v "value $i" f; done; getfattr -d f | md5sum
for i in $(seq 2 2 30); do setfattr -x user.key-$i f; done; getfattr -d f; setfattr -n user.bin -v 0x0001fe d
getfattr -e hex -n user.bin d; setfattr -n user.empty -v '' d; getfattr -d d
setfattr -n user.note -v "$(printf 'x%.0s' $(seq 2000))" f; getfattr --only-values -n user.note f | wc -c
setfattr -x user.none f 2>&1 || echo "status $?"; setfattr -n bad.ns -v 1 f 2>&1 || echo "status $?"; ln -s f l
setfattr -h -n user.x -v 1 l 2>&1 || echo "status $?"; mkfifo p
setfattr -n user.x -v 1 p 2>&1 || echo "status $?"
setfattr -n "user.$(printf 'n%.0s' $(seq 251))" -v 1 f 2>&1 || echo "status $?"
setfattr -n "user.$(printf 'n%.0s' $(seq 250))" -v 1 f; cp --preserve=xattr f g; getfattr -d g | wc -l; mv g d/
getfattr -d d/g | wc -l
[ "$(id -u)" != 0 ] || { setfattr -n trusted.t -v 1 f; getfattr -n trusted.t f; }
SH
}

@test "inotify sees create, write, rename and delete made by others through the mount" {
    not_by_message "the kernel does not see changes"
    same <<'SH'
cat > w.py <<'PY'
import ctypes, os, struct, subprocess
libc = ctypes.CDLL(None); os.mkdir("d"); fd = libc.inotify_init1(0); libc.inotify_add_watch(fd, b"d", 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200)
subprocess.run("echo x > d/a; mv d/a d/b; rm d/b", shell=True); data = os.read(fd, 65536); at = 0
while at < len(data): _, mask, _, n = struct.unpack_from("iIII", data, at); print(hex(mask), data[at + 16:at + 16 + n].rstrip(b"\0").decode()); at += 16 + n
PY
python3 w.py
SH
}
