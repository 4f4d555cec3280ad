#!/usr/bin/env bats
# Locks under the shim: the kernel keeps them, for programs by message and through the mount alike, and the data of a locked
# file stays with messages.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all
    start_mount
    "$FOS" run -- true
    mkdir "$LOCAL/plain"
    (cd "$LOCAL/plain" && python3 "$HERE/locks.py") > "$BASE/results/local"
}

@test "record locks, locks of descriptions and flock say what they say on the local disk" {
    only_fos; need python3
    mkdir "$MOUNT/all"
    cd "$MOUNT/all"
    "$FOS" run -- python3 "$HERE/locks.py" > "$BASE/results/shim"
    diff -u "$BASE/results/local" "$BASE/results/shim"
}

@test "the same with every other process on the mount" {
    only_fos; need python3
    mkdir "$MOUNT/mixed" "$MOUNT/mount"
    cd "$MOUNT/mixed"
    PROBE=mount "$FOS" run -- python3 "$HERE/locks.py" > "$BASE/results/mixed"
    diff -u "$BASE/results/local" "$BASE/results/mixed"
    cd "$MOUNT/mount"
    python3 "$HERE/locks.py" > "$BASE/results/mount"
    diff -u "$BASE/results/local" "$BASE/results/mount"
}

@test "sqlite's data goes by messages: only its locks and shared memory are the kernel's" {
    only_fos; need sqlite3
    cd "$MOUNT"
    for mode in delete wal; do
        "$FOS" run --stats -- sqlite3 by-$mode.db "pragma journal_mode=$mode; create table t(a);
            $(for i in $(seq 100); do echo "insert into t values($i);"; done) select count(*) from t; pragma integrity_check;" > "$BASE/results/$mode" 2> "$BASE/results/figures"
        cat "$BASE/results/figures"
        [ "$(tail -n 2 "$BASE/results/$mode")" = $'100\nok' ]
        [ "$(awk '$1 == "pwrite64" { gsub(",", ""); print ($2 > 100) + $3 }' "$BASE/results/figures")" = 1 ]
        # The shared memory of the log is mapped; nothing else becomes the kernel's.
        grep -qE "^descriptors +$([ $mode = wal ] && echo 1 || echo 0) handed to the kernel" "$BASE/results/figures"
    done
}

@test "two writers at once, one by message and one on the mount, in both journal modes" {
    only_fos; need sqlite3
    cd "$MOUNT"
    for mode in delete wal; do
        sqlite3 two-$mode.db "pragma journal_mode=$mode; create table t(w, n);" > /dev/null
        local run='for n in $(seq 40); do sqlite3 -cmd ".timeout 30000" $DB "begin immediate; insert into t values($W, $n); insert into t values($W, (select count(*) from t)); commit;" || exit 1; done'
        DB=two-$mode.db W=1 "$FOS" run -- bash -c "$run" 3>&- &
        local shim=$!
        DB=two-$mode.db W=2 bash -c "$run" 3>&-
        wait "$shim"
        [ "$(sqlite3 two-$mode.db 'select w, count(*) from t group by w; pragma integrity_check;')" = $'1|80\n2|80\nok' ]
        [ "$("$FOS" run -- sqlite3 two-$mode.db 'select w, count(*) from t group by w; pragma integrity_check;')" = $'1|80\n2|80\nok' ]
        # Long-lived connections, so that what each has cached and mapped meets what the other does.
        cat > "$BASE/results/writer.py" <<'PY'
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for n in range(150):
    connection.execute('begin immediate')
    count = connection.execute('select count(*) from t').fetchone()[0]
    connection.execute('insert into t values(?, ?)', (int(sys.argv[2]), count))
    connection.execute('commit')
print(connection.execute('pragma integrity_check').fetchone()[0])
PY
        "$FOS" run -- python3 "$BASE/results/writer.py" two-$mode.db 3 > "$BASE/results/three" 3>&- &
        shim=$!
        [ "$(python3 "$BASE/results/writer.py" two-$mode.db 4)" = ok ]
        wait "$shim"
        [ "$(cat "$BASE/results/three")" = ok ]
        # Each insert saw all before it: the numbers are those of a single sequence.
        [ "$(sqlite3 two-$mode.db 'select count(*), count(distinct n), max(n) from t where w > 2;')" = "300|300|459" ]
    done
}
