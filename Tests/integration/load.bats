#!/usr/bin/env bats
# fio with verification of every block, and dbench: data under load is what was written.
load helper

setup() { MEGABYTES=16; [ "$FOS_LONG" != 1 ] || MEGABYTES=512; }

# fio_verify OPTIONS: random and sequential mixes that end with every block checked by its checksum.
fio_verify() {
    need fio
    local dir
    dir=$(fresh "$MOUNT")
    as_user fio --name=verify --directory="$dir" --size=${MEGABYTES}m --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 \
        --verify_state_save=0 --group_reporting --output="$BASE/results/fio" "$@" || { tail -n 40 "$BASE/results/fio"; return 1; }
    refute grep -iE 'verify: bad|err= *[1-9]' "$BASE/results/fio"
    rm -rf "$dir"
}

@test "fio: random read and write, psync, 4 KiB" { fio_verify --ioengine=psync --rw=randrw --bs=4k; }
@test "fio: random write of odd sizes, then verification" { fio_verify --ioengine=psync --rw=randwrite --bsrange=512-64k --bs_unaligned; }
@test "fio: random read and write, mmap engine" { fio_verify --ioengine=mmap --rw=randrw --bs=4k; }
@test "fio: direct=1, 4 KiB" { fio_verify --ioengine=psync --rw=randrw --bs=4k --direct=1; }
@test "fio: sequential write, 1 MiB, fsync every 4" { fio_verify --ioengine=psync --rw=write --bs=1m --fsync=4; }
@test "fio: libaio, depth 16, direct" { fio_verify --ioengine=libaio --iodepth=16 --rw=randwrite --bs=16k --direct=1; }
@test "fio: four jobs, each its own file, pvsync2" { fio_verify --ioengine=pvsync2 --rw=randrw --bs=8k --numjobs=4 --size=4m; }
@test "fio: four jobs on ranges of one file" {
    fio_verify --ioengine=psync --rw=randwrite --bs=4k --numjobs=4 --filename=shared --size=4m --offset_increment=4m
}
@test "fio: pages dropped before and during verification" {
    fio_verify --ioengine=psync --rw=randwrite --bs=4k --invalidate=1 --fadvise_hint=0 --verify_backlog=64
}
@test "fio: many small files" { fio_verify --ioengine=psync --rw=randwrite --bs=4k --nrfiles=200 --openfiles=20; }
@test "fio: io_uring, depth 8" {
    fio --enghelp 2>/dev/null | grep -q io_uring || skip "fio has no io_uring"
    fio_verify --ioengine=io_uring --iodepth=8 --rw=randrw --bs=4k
}

@test "dbench with 4 clients ends without an error" {
    need dbench
    local dir seconds=5
    [ "$FOS_LONG" != 1 ] || seconds=60
    dir=$(fresh "$MOUNT")
    as_user dbench -D "$dir" -t "$seconds" 4 > "$BASE/results/dbench" 2>&1 || { tail -n 30 "$BASE/results/dbench"; return 1; }
    grep Throughput "$BASE/results/dbench"
    # The processes of one dbench start together by a semaphore of the whole machine; another dbench may hold it.
    sed -i '/barrier semaphore/d' "$BASE/results/dbench"
    refute grep -iE 'ERROR|failed' "$BASE/results/dbench"
    rm -rf "$dir"
}

@test "two processes write, read, rename and delete in one tree for seconds; what is left agrees" {
    on_mount <<'SH'
cat > w.py <<'PY'
import os, random, sys, time
r = random.Random(int(sys.argv[1])); end = time.time() + 4; me = sys.argv[1]; own = {}
os.makedirs("t/" + me, exist_ok=True)
while time.time() < end:
    n = r.randrange(60); p = "t/%s/%d" % (me, n); q = "t/shared-%d" % r.randrange(20); k = r.randrange(6)
    try:
        if k < 2: own[n] = os.urandom(r.randrange(20000)); open(p, "wb").write(own[n])
        elif k == 2 and n in own: m = r.randrange(60); os.rename(p, "t/%s/%d" % (me, m)); d = own.pop(n); own[m] = d
        elif k == 3 and n in own: os.unlink(p); del own[n]
        elif k == 4 and n in own: assert open(p, "rb").read() == own[n], p
        else: r.choice([lambda: open(q, "w").close(), lambda: os.unlink(q), lambda: os.rename(q, q + "x"), lambda: os.rename(q + "x", q), lambda: os.link(q, q + "y"), lambda: os.unlink(q + "y")])()
    except (FileNotFoundError, FileExistsError): pass
assert sorted(map(int, os.listdir("t/" + me))) == sorted(own); assert all(open("t/%s/%d" % (me, n), "rb").read() == d for n, d in own.items())
PY
python3 w.py 1 & a=$!; python3 w.py 2 & b=$!; wait $a; wait $b; for f in t/shared*; do [ -e "$f" ]; done
find . | wc -l
SH
}

@test "large reads past the cache, of holes and of overwritten data, and while the file is cut" {
    same <<'SH'
cat > w.py <<'PY'
import os, random, threading
r = random.Random(5); data = bytearray(r.randbytes(6 << 20)); f = os.open("big", os.O_RDWR | os.O_CREAT)
os.pwrite(f, data[:3 << 20], 0); os.ftruncate(f, len(data)); os.pwrite(f, data[4 << 20:], 4 << 20); data[3 << 20:4 << 20] = bytes(1 << 20)
def drop(fd): os.fsync(fd); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
for i in range(150):
    at, n = r.randrange(len(data)), r.randrange(1, 1 << 20); drop(f)
    if os.pread(f, n, at) != data[at:at + n]: print("wrong bytes", at, n)
    if i % 7 == 0: b = r.randbytes(r.randrange(1, 300000)); at = r.randrange(len(data) - 300000); os.pwrite(f, b, at); data[at:at + len(b)] = b
# What a reader sees of a file that is cut and filled again is its bytes or zeros, never those of another file.
size = 4 << 20; g = os.open("cut", os.O_RDWR | os.O_CREAT); other = os.open("other", os.O_RDWR | os.O_CREAT); over = threading.Event()
def read():
    h = os.open("cut", os.O_RDONLY)
    while not over.is_set():
        os.posix_fadvise(h, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(h, size, 0).translate(None, b"\0\x07"): print("another file's bytes")
readers = [threading.Thread(target=read) for _ in range(2)]
for t in readers: t.start()
for i in range(40): os.pwrite(g, bytes([7]) * size, 0); os.ftruncate(g, 0); os.pwrite(other, b"\x55" * (1 << 20), i % 4 << 20)
over.set()
for t in readers: t.join()
print("read")
PY
python3 w.py; rm big cut other
SH
}
