#!/usr/bin/env bats
# CPython's own work on files: imports, byte code, databases, memory maps, processes, virtual environments.
load helper

@test "json, csv, pickle, shelve, dbm, zipfile, tarfile, configparser round trips" {
    same <<'SH'
cat > w.py <<'PY'
import csv, dbm.dumb, json, os, pickle, shelve, shutil, tarfile, zipfile
data = {"n": list(range(1000)), "s": "\u00e9\u4e2d" * 100}
json.dump(data, open("a.json", "w")); assert json.load(open("a.json")) == data
pickle.dump(data, open("a.pickle", "wb")); assert pickle.load(open("a.pickle", "rb")) == data
with open("a.csv", "w", newline="") as f: csv.writer(f).writerows([[i, i * i] for i in range(500)])
assert len(list(csv.reader(open("a.csv")))) == 500
with shelve.open("shelf", flag="n") as s:
    for i in range(200): s[str(i)] = {"i": i}
with shelve.open("shelf") as s: print(sum(v["i"] for v in s.values())); del s["5"]; print(len(s))
with dbm.dumb.open("dumb", "n") as d: d[b"k"] = b"v"
print(dbm.dumb.open("dumb")[b"k"])
with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as z: z.write("a.json"); z.writestr("x/y", "z")
print(zipfile.ZipFile("a.zip").namelist(), zipfile.ZipFile("a.zip").testzip())
with tarfile.open("a.tgz", "w:gz") as t: t.add("a.csv")
tarfile.open("a.tgz").extractall("out"); print(os.listdir("out"))
shutil.copytree("out", "copy"); shutil.move("copy", "moved"); shutil.make_archive("b", "zip", "out"); shutil.rmtree("moved"); print(sorted(os.listdir(".")))
for f in ("a.zip", "a.tgz", "b.zip", "shelf", "shelf.db"):
    if os.path.exists(f): os.unlink(f)
PY
python3 w.py
SH
}

@test "os and pathlib calls with dir_fd, O_TMPFILE, link by /proc, sendfile, copy_file_range, posix_fallocate, pread, preadv" {
    same <<'SH'
cat > w.py <<'PY'
import errno, os, pathlib, stat, sys
d = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
f = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=d)
print(os.pwrite(f, b"hello world", 5), os.pread(f, 100, 0), os.pwritev(f, [b"ab", b"cd"], 20), os.preadv(f, [bytearray(3), bytearray(4)], 2))
os.posix_fallocate(f, 0, 10000); print(os.fstat(f).st_size); os.ftruncate(f, 7); print(os.lseek(f, 0, os.SEEK_END)); os.fsync(f); os.fdatasync(f); os.fchmod(f, 0o604); os.utime(f, ns=(1, 2)); print(os.fstat(f).st_mtime_ns)
def attempt(what, *a, **k):
    try: r = what(*a, **k); print(what.__name__, "ok", r if isinstance(r, (int, bytes, str)) and what is not os.open else "")
    except OSError as e: print(what.__name__, errno.errorcode[e.errno])
t = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600); os.write(t, b"unnamed"); print(os.fstat(t).st_nlink); os.link("/proc/self/fd/%d" % t, "named", src_dir_fd=d); print(open("named").read(), os.fstat(t).st_nlink)
x = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600); attempt(os.link, "/proc/self/fd/%d" % x, "refused", src_dir_fd=d)
g = os.open("g", os.O_RDWR | os.O_CREAT); print(os.sendfile(g, t, 0, 7), os.copy_file_range(t, g, 4, 0, 7), os.pread(g, 100, 0)); os.mkdir("s", dir_fd=d); os.symlink("f", "l", dir_fd=d); os.rename("s", "s2", src_dir_fd=d, dst_dir_fd=d); print(sorted(os.listdir(d)))
os.link("l", "hl", follow_symlinks=False); print(os.readlink("hl")); os.setxattr("f", "user.a", b"1", os.XATTR_CREATE); attempt(os.setxattr, "f", "user.a", b"1", os.XATTR_CREATE); attempt(os.setxattr, "f", "user.b", b"1", os.XATTR_REPLACE); attempt(os.getxattr, "f", "user.none"); attempt(os.removexattr, "f", "user.none"); print(os.listxattr("f")); os.removexattr("f", "user.a"); attempt(os.setxattr, "f", "bad", b"")
attempt(os.open, "f", os.O_CREAT | os.O_EXCL); attempt(os.open, "l", os.O_NOFOLLOW); attempt(os.open, "f", os.O_DIRECTORY); attempt(os.open, "s2", os.O_WRONLY); attempt(os.rmdir, "f"); attempt(os.unlink, "s2"); attempt(os.rename, "s2", "f"); attempt(os.rename, "f", "s2"); attempt(os.link, "s2", "x"); attempt(os.pread, os.open("s2", os.O_RDONLY), 1, 0); attempt(os.truncate, "f", -1); attempt(os.lseek, f, -5, os.SEEK_SET); attempt(os.readlink, "f"); attempt(os.mkdir, "s2/a/b"); attempt(os.stat, "f/.."); attempt(os.mknod, "fifo", stat.S_IFIFO | 0o600); attempt(os.write, os.open("f", os.O_RDONLY), b"x"); attempt(os.access, "f", os.W_OK)
p = pathlib.Path("pp/q"); p.mkdir(parents=True); (p / "r").write_text("t"); print(sorted(str(x) for x in pathlib.Path(".").rglob("*"))); print([e.name for e in sorted(os.scandir("."), key=lambda e: e.name) if e.is_dir(follow_symlinks=False)])
print(os.statvfs(".").f_namemax, os.pathconf(".", "PC_NAME_MAX"))
PY
python3 w.py
SH
}

@test "lseek finds data and holes" {
    same <<'SH'
cat > w.py <<'PY'
import os
f = os.open("f", os.O_RDWR | os.O_CREAT); B = 1 << 20
os.pwrite(f, b"a" * 4096, 0); os.pwrite(f, b"b" * 4096, B); os.ftruncate(f, 3 * B); os.fsync(f)
print(os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 0, os.SEEK_HOLE), os.lseek(f, 4096, os.SEEK_DATA), os.lseek(f, B, os.SEEK_HOLE))
for at, whence in ((2 * B, os.SEEK_DATA), (3 * B, os.SEEK_DATA), (3 * B, os.SEEK_HOLE), (9 * B, os.SEEK_HOLE)):
    try: print(os.lseek(f, at, whence))
    except OSError as e: print(e.strerror)
print(os.lseek(f, 2 * B, os.SEEK_HOLE))
PY
python3 w.py
SH
}

@test "mmap: shared writes seen by read and by another process, private ones not, resize, beyond the end" {
    same <<'SH'
cat > w.py <<'PY'
import mmap, os, signal, subprocess, sys
f = os.open("f", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 3 * 4096 + 100)
m = mmap.mmap(f, 0); m[0:5] = b"hello"; m[3 * 4096:3 * 4096 + 3] = b"end"; print(os.pread(f, 5, 0), os.pread(f, 200, 3 * 4096)[:3]); os.pwrite(f, b"WRITE", 4096); print(m[4096:4101]); m.flush()
print(subprocess.run([sys.executable, "-c", "import mmap,os;f=os.open('f',os.O_RDWR);m=mmap.mmap(f,0);print(m[:5]);m[5:10]=b'child'"], capture_output=True).stdout, m[:10])
p = mmap.mmap(f, 0, flags=mmap.MAP_PRIVATE); p[0:5] = b"PRIVA"; print(os.pread(f, 5, 0), p[:5], m[:5]); p.close(); m.resize(8192); print(os.fstat(f).st_size); m.close(); os.close(f); print(open("f", "rb").read(10))
if os.fork() == 0:
    g = os.open("f", os.O_RDWR); q = mmap.mmap(g, 8192); os.ftruncate(g, 4096); q[5000]
pid, status = os.wait(); print(os.WTERMSIG(status) == signal.SIGBUS)
PY
python3 w.py
SH
}

@test "multiprocessing, fork, locks between processes, concurrent appends" {
    same <<'SH'
cat > w.py <<'PY'
import fcntl, multiprocessing as mp, os, tempfile
def append(i):
    with open("log", "ab", buffering=0) as f:
        for n in range(100): f.write(b"%d:%d\n" % (i, n))
def count(_):
    for _ in range(50):
        with open("n", "r+") as f:
            fcntl.lockf(f, fcntl.LOCK_EX); v = int(f.read() or 0); f.seek(0); f.write(str(v + 1)); f.flush()
def flocked(_):
    for _ in range(50):
        with open("m", "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX); v = int(f.read() or 0); f.seek(0); f.write(str(v + 1)); f.flush()
if __name__ == "__main__":
    open("n", "w").write("0"); open("m", "w").write("0"); tempfile.tempdir = os.getcwd()
    with mp.Pool(4) as p: p.map(append, range(4)); p.map(count, range(4)); p.map(flocked, range(4))
    print(len(open("log").readlines()), len(set(open("log"))), open("n").read(), open("m").read()); os.unlink("log")
    with mp.Manager() as m: q = m.Queue(); q.put(1); print(q.get())
    with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile() as f, tempfile.SpooledTemporaryFile(10) as s, tempfile.TemporaryFile() as t: f.write(b"x" * 100); s.write(b"y" * 100); t.write(b"z"); f.flush(); print(os.path.getsize(f.name))
    print(sorted(os.listdir(".")))
PY
TMPDIR=$DIR python3 w.py
SH
}

@test "compileall, imports from the mount, an edited module is compiled again" {
    same -w <<'SH'
mkdir -p pkg/sub; echo 'from .m import f' > pkg/__init__.py; echo 'def f(): return 1' > pkg/m.py
touch pkg/sub/__init__.py; python3 -c 'import pkg; print(pkg.f())'; ls pkg/__pycache__
echo 'def f(): return 22' > pkg/m.py; python3 -c 'import pkg; print(pkg.f())'
cp -r /usr/lib/python3.11/json /usr/lib/python3.11/email . 2>/dev/null || cp -r "$(python3 -c 'import json,os;print(os.path.dirname(json.__file__))')" .
rm -rf json/__pycache__; python3 -m compileall -q -j 2 .; find . -name '*.pyc' | wc -l
python3 -m compileall . | grep -c Compiling || true; python3 -c 'import json; print(json.dumps([1]))'
python3 -m zipfile -c lib.zip pkg/; PYTHONPATH=lib.zip python3 -c 'import pkg' 
find . -name __pycache__ -exec rm -r {} +; rm lib.zip
SH
}

@test "venv with pip, a package installed from a local source, its script run" {
    python3 -c 'import venv, ensurepip' 2>/dev/null || skip "python3-venv is not installed"
    same -w <<'SH'
mkdir -p src/hello; echo 'def main(): print("hello from a venv")' > src/hello/__init__.py
i=src/hello-1.dist-info; mkdir $i; printf 'Metadata-Version: 2.1\nName: hello\nVersion: 1\n' > $i/METADATA
printf '[console_scripts]\nhello = hello:main\n' > $i/entry_points.txt
printf 'Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n' > $i/WHEEL
: > $i/RECORD; (cd src; python3 -m zipfile -c ../hello-1-py3-none-any.whl hello hello-1.dist-info)
python3 -m venv v; v/bin/python -c 'import sys; print(sys.prefix == sys.base_prefix)'
v/bin/pip --version | cut -d' ' -f1
v/bin/pip install -q --disable-pip-version-check --no-index ./hello-1-py3-none-any.whl; v/bin/hello
v/bin/pip list --disable-pip-version-check 2>/dev/null | grep hello; v/bin/pip uninstall -q -y hello
ls v/bin | sort; find v -name '*.py' | wc -l; rm -rf v *.whl
SH
}

@test "sqlite3 module, logging with rotation, fcntl leases refused or granted alike" {
    same <<'SH'
cat > w.py <<'PY'
import logging, logging.handlers, os, sqlite3
c = sqlite3.connect("db"); c.execute("create table t(a, b)"); c.executemany("insert into t values(?,?)", ((i, "x" * (i % 50)) for i in range(2000))); c.commit(); print(c.execute("select count(*), sum(a), max(length(b)) from t").fetchone()); c.backup(sqlite3.connect("copy")); print(sqlite3.connect("copy").execute("pragma integrity_check").fetchone())
h = logging.handlers.RotatingFileHandler("app.log", maxBytes=1000, backupCount=3); log = logging.getLogger(); log.addHandler(h)
for i in range(100): log.warning("message %03d", i)
print(sorted(os.listdir(".")), os.path.getsize("app.log.1"))
PY
python3 w.py; rm db copy
SH
}
