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

@test "the documentation shows the list of calls that the code has" {
    sed -n '/^| number /,/^$/p' "$ROOT/docs/shim-calls.md" | sed '/^$/d' > "$BASE/shown"
    "$ROOT/shim/build/calls_list" | diff -u "$BASE/shown" -
    [ "$(wc -l < "$BASE/shown")" -gt 150 ]
}

@test "no system call of the machine's headers is missing in the list" {
    need gcc
    gcc -E -dM -include sys/syscall.h -x c /dev/null | "$ROOT/shim/build/calls_list" missing
}

@test "random programs of file calls say and leave the same as on the local disk" {
    only_fos
    mkdir "$LOCAL/random" "$MOUNT/random"
    programs=$((FOS_LONG == 1 ? 1000 : 60))
    "$ROOT/shim/build/differential" -n "$programs" -s "${FOS_TEST_SEED:-1}" "$LIBFOS" "$LOCAL/random" "$MOUNT/random"
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

@test "an open file fails at once when its daemon goes, and a later mount is used again" {
    only_fos
    mkdir "$BASE/brief"
    mount_fos "$BASE/brief" --name "brief-${BASE##*.}"
    cat > "$BASE/outlive.py" <<'PY'
import errno, os, sys, time
mount, go, gone = sys.argv[1:]
fd = os.open(mount + '/f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'before')
open(go, 'w').close()
deadline = time.monotonic() + 60
while not os.path.exists(gone) and time.monotonic() < deadline: time.sleep(0.05)
start = time.monotonic()
try:
    os.pread(fd, 10, 4096)
    sys.exit('a read of a dead mount succeeded')
except OSError as error:
    assert error.errno in (errno.ENOTCONN, errno.EIO), error
assert time.monotonic() - start < 5
open(gone + '.again', 'w').close()
while not os.path.exists(gone + '.mounted') and time.monotonic() < deadline: time.sleep(0.05)
time.sleep(0.5)
with open(mount + '/g', 'w') as file: file.write('after')
print(open(mount + '/g').read(), os.listdir(mount))
PY
    "$FOS" run -- python3 "$BASE/outlive.py" "$BASE/brief" "$BASE/go" "$BASE/gone" > "$BASE/said" 2>&1 3>&- &
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
    [ "$(cat "$BASE/said")" = "after ['g']" ]
}
