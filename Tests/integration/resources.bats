#!/usr/bin/env bats
# What a mount costs: CPU when idle, memory when empty, memory for each file.
load helper

setup() { only_fos; }

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
resident() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$1/status"; }

@test "an empty mount is under 100 MB resident" {
    local pid rss
    pid=$(daemon_pid "$MOUNT")
    rss=$(resident "$pid")
    echo "resident: $rss bytes"
    [ "$rss" -lt 100000000 ]
}

@test "idle: under 1% of a CPU over 10 s with a mount and an idle client" {
    local pid before after
    pid=$(daemon_pid "$MOUNT")
    # Some work first, so that what spins after work is counted too, and a client that only holds a file open.
    cp -r /usr/include/linux "$MOUNT/warm"
    exec 8> "$MOUNT/held"
    sleep 1
    before=$(ticks "$pid")
    sleep 10
    after=$(ticks "$pid")
    exec 8>&-
    rm -r "$MOUNT/warm" "$MOUNT/held"
    echo "ticks of 1/$(getconf CLK_TCK) s in 10 s: $((after - before))"
    [ $((after - before)) -lt $(($(getconf CLK_TCK) / 10)) ]
}

@test "empty files cost under 600 bytes each, and deleting them gives it back for the next" {
    local pid before after each n=100000
    [ "$FOS_LONG" != 1 ] || n=1000000
    pid=$(daemon_pid "$MOUNT")
    before=$(resident "$pid")
    cat > "$BASE/make.py" <<'PY'
import os, sys
top, n = sys.argv[1], int(sys.argv[2])
os.mkdir(top)
for d in range(0, n, 1000):
    os.mkdir("%s/%d" % (top, d))
    for i in range(1000): os.mknod("%s/%d/file-%d" % (top, d, d + i), 0o100644)
PY
    timeout "$SCRIPT_TIMEOUT" python3 "$BASE/make.py" "$MOUNT/many" $n
    after=$(resident "$pid")
    each=$(((after - before) / n))
    echo "$n files: $((after - before)) bytes, $each each"
    [ "$each" -lt 600 ]
    [ "$(ls "$MOUNT/many/1000" | wc -l)" = 1000 ]
    rm -r "$MOUNT/many"
    timeout "$SCRIPT_TIMEOUT" python3 "$BASE/make.py" "$MOUNT/many" $n
    echo "again: $(($(resident "$pid") - before)) bytes"
    [ $((($(resident "$pid") - before) / n)) -lt 700 ]
    rm -r "$MOUNT/many"
}

@test "the file system is empty again after all of it: inodes and space" {
    local free
    [ -z "$(ls -A "$MOUNT")" ]
    echo 2 > /proc/sys/vm/drop_caches 2>/dev/null || true
    sleep 0.5
    df -P -B1 "$MOUNT" | awk 'END { print $3; exit $3 > 4194304 }'
}
