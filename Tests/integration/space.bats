#!/usr/bin/env bats
# A mount of 64 MiB: it fills up with ENOSPC, never beyond, and space comes back.
load helper

setup_file() {
    case $FOS_TEST_MOUNT in fos) start_mount --size 64M ;; *) start_mount ;; esac
}
setup() { only_fos; }

used() { sync -f "$MOUNT"; df -P -B1 "$MOUNT" | awk 'END { print $3 }'; }

# Waits until no more than $1 bytes are used: space of deleted files comes back when the kernel forgets them.
used_falls_to() {
    for _ in $(seq 50); do
        [ "$(used)" -gt "$1" ] || return 0
        sleep 0.1
    done
    echo "used: $(used), wanted at most $1"
    return 1
}

@test "df shows the size that was asked for" {
    [ "$(df -P -B1 "$MOUNT" | awk 'END { print $2 }')" = $((64 << 20)) ]
    [ "$(df -P -B1 "$MOUNT" | awk 'END { print $3 + $4 }')" -le $((64 << 20)) ]
    [ "$(stat -f -c %S "$MOUNT")" -ge 512 ]
    [ "$(stat -f -c %l "$MOUNT")" = 255 ]
    df -i "$MOUNT"
}

@test "writing past the limit is ENOSPC, what was written stays, deletion makes space again, ten times" {
    local before round
    before=$(used)
    for round in $(seq 10); do
        run dd if=/dev/zero of="$MOUNT/big" bs=1M count=100
        [ "$status" != 0 ]
        [[ $output == *"No space left on device"* ]]
        [ "$(stat -c %s "$MOUNT/big")" -ge $((56 << 20)) ]
        [ "$(stat -c %s "$MOUNT/big")" -le $((64 << 20)) ]
        [ "$(df -P -B1 "$MOUNT" | awk 'END { print $4 }')" -lt $((2 << 20)) ]
        rm "$MOUNT/big"
        used_falls_to $((before + (1 << 20)))
    done
}

@test "a full file system: overwriting works, appending does not, truncation frees" {
    dd if=/dev/zero of="$MOUNT/fill" bs=64k 2>/dev/null || true
    dd if=/dev/urandom of="$MOUNT/fill" bs=64k count=16 conv=notrunc 2>/dev/null
    run bash -c "head -c 100000 /dev/zero >> '$MOUNT/fill'"
    [[ $output == *"No space left on device"* ]]
    run fallocate -l 100M "$MOUNT/fill"
    [[ $output == *"No space left on device"* ]]
    truncate -s 1M "$MOUNT/fill"
    used_falls_to $((4 << 20))
    head -c 1000000 /dev/zero > "$MOUNT/after"
    rm "$MOUNT/fill" "$MOUNT/after"
}

@test "punching a hole frees its pages" {
    dd if=/dev/zero of="$MOUNT/f" bs=1M count=32 status=none
    fallocate -p -o $((1 << 20)) -l $((30 << 20)) "$MOUNT/f"
    [ "$(stat -c %s "$MOUNT/f")" = $((32 << 20)) ]
    [ "$(du -k "$MOUNT/f" | cut -f1)" -le 2100 ]
    used_falls_to $((4 << 20))
    cmp -n $((32 << 20)) "$MOUNT/f" /dev/zero
    rm "$MOUNT/f"
}

@test "a file of 1 TB of holes in 64 MiB; its end can be written and read" {
    truncate -s 1T "$MOUNT/sparse"
    echo end | dd of="$MOUNT/sparse" bs=1 seek=$(((1 << 40) - 4)) conv=notrunc status=none
    [ "$(stat -c %s "$MOUNT/sparse")" = $((1 << 40)) ]
    [ "$(tail -c 4 "$MOUNT/sparse")" = end ]
    [ "$(du -k "$MOUNT/sparse" | cut -f1)" -le 64 ]
    [ "$(dd if="$MOUNT/sparse" bs=1M skip=500000 count=4 status=none | tr -d '\0' | wc -c)" = 0 ]
    cp --sparse=always "$MOUNT/sparse" "$MOUNT/copy" &
    wait_limited $! 60
    [ "$(stat -c %s "$MOUNT/copy")" = $((1 << 40)) ]
    truncate -s 0 "$MOUNT/sparse"
    rm "$MOUNT/sparse" "$MOUNT/copy"
}

# cp finds the data of a sparse file by SEEK_DATA, so a terabyte of holes is copied at once.
wait_limited() {
    local n
    for n in $(seq $(($2 * 10))); do kill -0 "$1" 2>/dev/null || { wait "$1"; return; }; sleep 0.1; done
    kill "$1"
    echo "still running after $2 s"
    return 1
}

@test "space of an unlinked file comes back when its last user closes it" {
    local before
    before=$(used)
    exec 8> "$MOUNT/open"
    head -c $((20 << 20)) /dev/zero >&8
    rm "$MOUNT/open"
    [ "$(used)" -ge $((20 << 20)) ]
    exec 8>&-
    used_falls_to $((before + (1 << 20)))
}

@test "sizes beyond what a file may have: EFBIG or EINVAL, the daemon lives" {
    run truncate -s 8E "$MOUNT/huge"
    [ "$status" != 0 ]
    truncate -s 1P "$MOUNT/huge" || true  # as large as fos allows
    run bash -c "ulimit -f 100; head -c 1000000 /dev/zero > '$MOUNT/limited'"
    [ "$status" != 0 ]
    [ "$(stat -c %s "$MOUNT/limited")" = 102400 ]
    rm -f "$MOUNT/huge" "$MOUNT/limited"
    ls "$MOUNT"
}
