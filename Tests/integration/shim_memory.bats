#!/usr/bin/env bats
# Memory of unmodified programs: `fos run --memory` serves private anonymous memory from the memory fleet, with Linux's meaning.
# Random programs of memory calls against plain runs, real programs, zeros, forks, limits, kills, and the daemon's end.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all build/memory_differential build/memory_pages build/memory_escapes
    start_mount
    export FOS_CACHE=$BASE/tables LIBFOS
    LIBFOS=$("$FOS" shim-path)
    [ -z "$(FOS_VERBOSE=1 LD_PRELOAD=$LIBFOS true 2>&1)" ]
}

# A mount without a memory fleet has nothing to test.
setup() { [ "$("$FOS" status --json "$MOUNT" | jq '.[0].memory.limit_bytes // 0')" -gt 0 ] || skip "the mount has no memory fleet"; }

served() { "$FOS" run --mount "$MOUNT" --memory="${THRESHOLD:-1M}" -- "$@"; }
# For the background: the process that is started is the program itself, so that it can be killed.
served_itself() { exec "$FOS" run --mount "$MOUNT" --memory="${THRESHOLD:-1M}" -- "$@"; }
# Runs a command plainly and served, both from the local directory, and compares what they print.
same() {
    cd "$LOCAL"
    "$@" > "$BASE/plain" 2>&1
    served "$@" > "$BASE/served" 2>&1 || { cat "$BASE/served"; return 1; }
    cmp "$BASE/plain" "$BASE/served" || { diff "$BASE/plain" "$BASE/served" | head -20; return 1; }
}
# Bytes that programs have of the fleet, or may still have.
held() { "$FOS" status --json "$MOUNT" | jq '.[0].memory | ([.frames[] | .granted_bytes + .retired_bytes] | add) - .servers_bytes'; }
# All that programs had is the fleet's again: what became free is noticed in idle time.
nothing_is_held() {
    for _ in $(seq 150); do
        [ "$(held)" = 0 ] && return 0
        sleep 0.2
    done
    "$FOS" status --json "$MOUNT" | jq '.[0].memory'
    return 1
}

@test "random programs of memory calls say and leave the same as without fos" {
    only_fos
    programs=$((FOS_LONG == 1 ? 1500 : 40))
    FOS_MEMORY=65536 FOS_MOUNT=$MOUNT "$ROOT/shim/build/memory_differential" -n "$programs" -s "${FOS_TEST_SEED:-1}" "$LIBFOS"
    nothing_is_held
}

@test "--stats says what was served, and what was left to Linux and why" {
    only_fos
    need python3
    cat > "$BASE/some.py" <<'PY'
import mmap
data = bytearray(50_000_000)
assert not any(data[::4096])
data[::4096] = b'x' * len(data[::4096])
reservation = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
given_up = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
given_up.write(b'y' * (4 << 20))
given_up.madvise(mmap.MADV_DONTNEED)
assert not any(given_up[:])
PY
    "$FOS" run --mount "$MOUNT" --memory --stats -- python3 "$BASE/some.py" 2> "$BASE/figures" || { cat "$BASE/figures"; return 1; }
    cat "$BASE/figures"
    grep -qE '^memory +[1-9][0-9,]* requests served with [1-9]' "$BASE/figures"
    grep -q 'a reservation that stays sparse' "$BASE/figures"
    grep -q 'given up by MADV_DONTNEED' "$BASE/figures"
    nothing_is_held
}

@test "a threshold that is none is refused" {
    only_fos
    for size in 0 100 x 1Q; do
        run "$FOS" run --memory="$size" -- true
        echo "$output"
        [ "$status" = 125 ] && [ "$(wc -l <<< "$output")" = 1 ]
    done
}

@test "python: large arrays, multiprocessing, fork with writes on both sides" {
    need python3
    cat > "$BASE/work.py" <<'PY'
import array, hashlib, multiprocessing, os, subprocess, sys, threading
def work(size):
    data = bytearray(size)
    assert not any(data[::4096])
    for i in range(0, size, 997): data[i] = i & 255
    return hashlib.md5(data).hexdigest()
if __name__ == '__main__':
    big = array.array('d', [0.0]) * 2_000_000
    for i in range(0, len(big), 1000): big[i] = i
    print(hashlib.md5(big.tobytes()).hexdigest())
    with multiprocessing.get_context('fork').Pool(3) as pool: print(pool.map(work, [1_000_000 * k for k in range(1, 7)]))
    print(subprocess.run(['sh', '-c', 'echo from a child'], capture_output=True).stdout)
    rows = [bytearray(k * 20_000) for k in range(1, 200)]
    del rows[::2]
    print(hashlib.md5(b''.join(rows)).hexdigest())
    stop = threading.Event()
    def churn():
        while not stop.is_set(): assert not any(bytearray(3_000_000)[::4096])
    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads: thread.start()
    for n in range(8):  # from a threaded program
        pid = os.fork()
        if pid == 0:
            big[5] += 7 + n
            os._exit(0 if sum(big[:1000]) == 7 + n else 1)
        big[2000] += 1
        print(os.waitpid(pid, 0)[1], sum(big))
    stop.set()
    for thread in threads: thread.join()
PY
    same python3 "$BASE/work.py"
    nothing_is_held
}

@test "gcc, perl, sqlite3 and sort with a large buffer" {
    need gcc perl sqlite3 sort
    cd "$LOCAL"
    cp "$ROOT/shim/tests/differential.c" program.c
    gcc -O2 -std=gnu17 -c -o plain.o program.c
    THRESHOLD=64K served gcc -O2 -std=gnu17 -c -o served.o program.c
    cmp plain.o served.o
    same perl -e 'my %h; $h{$_ % 70001} .= chr(65 + $_ % 26) x 7 for 1 .. 600000; my $n = 0; $n = ($n * 31 + length $h{$_}) % 1000003 for sort keys %h; print "$n\n"'
    same sqlite3 :memory: "PRAGMA cache_size=-200000; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) INSERT INTO t SELECT i, hex(i * 7919) FROM n;
        CREATE INDEX x ON t(b); SELECT count(*), sum(length(b)), min(b), max(b) FROM t WHERE b > '4';"
    seq 1 500000 | awk '{ print ($1 * 7919) % 500009 }' > numbers
    same sort -S 64M numbers
    nothing_is_held
}

@test "stress-ng: vm, mmap, malloc, brk, mremap, fork, vfork, madvise, mprotect, mlock, with verification" {
    only_fos
    need stress-ng
    seconds=$((FOS_LONG == 1 ? 60 : 2))
    for kind in vm mmap malloc brk mremap bigheap fork vfork madvise mprotect mlock; do
        THRESHOLD=64K served timeout 300 stress-ng --"$kind" 2 --verify -t "$seconds" --vm-bytes 64M --mmap-bytes 32M --mremap-bytes 16M \
            --temp-path "$LOCAL" > "$BASE/said" 2>&1 || { echo "$kind"; cat "$BASE/said"; return 1; }
        ! grep -qiE 'fail:|verif.*fail|corrupt' "$BASE/said" || { echo "$kind"; cat "$BASE/said"; return 1; }
    done
    nothing_is_held
}

@test "zero means zero, among programs that spoil all they have, and some that are killed" {
    only_fos
    export THRESHOLD=64K
    rounds=$((FOS_LONG == 1 ? 400 : 25))
    for killed in $(seq $((FOS_LONG == 1 ? 60 : 12))); do
        served_itself "$ROOT/shim/build/memory_pages" 24 100000 "$killed" 3>&- &
        victim=$!
        sleep "0.$((RANDOM % 5))"
        kill -9 "$victim"
        wait "$victim" || true
    done &
    killer=$!
    others=()
    for one in 1 2; do
        served "$ROOT/shim/build/memory_pages" 24 "$rounds" "$((100 + one))" 3>&- &
        others+=($!)
    done
    status=0
    for other in "${others[@]}"; do wait "$other" || status=$?; done
    # Not for all children: one of them is the clock of this test.
    wait "$killer"
    [ "$status" = 0 ]
    nothing_is_held
}

@test "no page is lost by programs that are killed, or whose children outlive them" {
    only_fos
    need python3
    cat > "$BASE/outlive.py" <<'PY'
import os, sys, time
data = bytearray(20_000_000)
data[::4096] = b'p' * len(data[::4096])
if os.fork() == 0:
    open(sys.argv[1] + '.forked', 'w').close()
    time.sleep(0.5)
    ok = data[::4096].count(b'p') == len(data[::4096])
    more = bytearray(5_000_000)
    open(sys.argv[1], 'a').write('ok\n' if ok and not any(more[::4096]) else 'spoilt\n')
    os._exit(0)
time.sleep(30)
PY
    : > "$BASE/survivors"
    for i in $(seq $((FOS_LONG == 1 ? 50 : 5))); do
        served_itself python3 "$BASE/outlive.py" "$BASE/survivors" 3>&- &
        for _ in $(seq 100); do [ -e "$BASE/survivors.forked" ] && break; sleep 0.1; done
        kill -9 $!
        wait $! || true
        rm -f "$BASE/survivors.forked"
    done
    for _ in $(seq 50); do [ "$(wc -l < "$BASE/survivors")" -ge $((FOS_LONG == 1 ? 40 : 3)) ] && break; sleep 0.2; done
    cat "$BASE/survivors"
    [ "$(grep -c ok "$BASE/survivors")" -ge 1 ]
    refute grep -q spoilt "$BASE/survivors"
    nothing_is_held
}

@test "pipes, zero copy, asynchronous I/O, io_uring, userfaultfd, guard pages, sparse reservations" {
    only_fos
    local name plain status spoiler
    # Who gets a frame too early spoils it.
    served_itself "$ROOT/shim/build/memory_pages" 16 1000000 7 > /dev/null 2>&1 &
    spoiler=$!
    for name in $("$ROOT/shim/build/memory_escapes"); do
        status=0
        "$ROOT/shim/build/memory_escapes" "$name" > "$BASE/plain" 2>&1 || status=$?
        [ "$status" != 77 ] || { echo "$name: $(cat "$BASE/plain")"; continue; }
        [ "$status" = 0 ] || { kill "$spoiler"; cat "$BASE/plain"; return 1; }
        served "$ROOT/shim/build/memory_escapes" "$name" > "$BASE/served" 2>&1 || status=$?
        [ "$status" = 0 ] && cmp "$BASE/plain" "$BASE/served" ||
            { kill "$spoiler"; echo "$name: status $status"; diff "$BASE/plain" "$BASE/served"; return 1; }
    done
    kill "$spoiler" 2>/dev/null || true
    wait "$spoiler" || true
    nothing_is_held
}

@test "limits on address space and data hold" {
    only_fos
    need python3
    cat > "$BASE/limit.py" <<'PY'
import resource, sys
data = bytearray(10_000_000)
which = getattr(resource, sys.argv[1])
resource.setrlimit(which, (200_000_000, resource.RLIM_INFINITY))
data[::4096] = b'x' * len(data[::4096])
try:
    bytearray(300_000_000)
    print('no limit')
except MemoryError:
    print('limited', data[::4096].count(b'x'))
PY
    for which in RLIMIT_AS RLIMIT_DATA; do same python3 "$BASE/limit.py" "$which"; done
    (ulimit -v 400000; same python3 -c 'print(sum(bytearray(30_000_000)))')
    nothing_is_held
}

@test "memory outlives the daemon; what comes after is Linux's" {
    only_fos
    need python3
    mkdir -p "$BASE/brief"
    mount_fos "$BASE/brief" --name "memory-${BASE##*.}"
    cat > "$BASE/after.py" <<'PY'
import os, sys, time
go, gone = sys.argv[1:]
data = bytearray(30_000_000)
data[::4096] = b'x' * len(data[::4096])
open(go, 'w').close()
deadline = time.monotonic() + 60
while not os.path.exists(gone) and time.monotonic() < deadline: time.sleep(0.05)
more = [bytearray(5_000_000) for _ in range(5)]
assert not any(any(part[::4096]) for part in more)
pid = os.fork()
if pid == 0:
    data[0] = 1
    os._exit(0 if data[4096] == ord('x') else 1)
assert os.waitpid(pid, 0)[1] == 0
assert data[::4096].count(b'x') == len(data[::4096])
print('as before')
PY
    "$FOS" run --mount "$BASE/brief" --memory -- python3 "$BASE/after.py" "$BASE/go" "$BASE/gone" > "$BASE/said" 2>&1 3>&- &
    work=$!
    for _ in $(seq 600); do [ -e "$BASE/go" ] && break; sleep 0.1; done
    kill -9 "$(daemon_pid "$BASE/brief")"
    for _ in $(seq 100); do is_mounted "$BASE/brief" || break; sleep 0.1; done
    touch "$BASE/gone"
    status=0; wait "$work" || status=$?
    end_mount "$BASE/brief"
    cat "$BASE/said"
    [ "$status" = 0 ]
    [ "$(cat "$BASE/said")" = "as before" ]
}

@test "without a mount, programs run with Linux's memory" {
    only_fos
    FOS_MOUNT=/nowhere run "$FOS" run --memory -- sort --version
    [ "$status" = 0 ]
}
