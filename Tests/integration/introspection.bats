#!/usr/bin/env bats
# `.fos/` at the top of a mount: read-only files about the instance, with right sizes.
load helper

setup() { only_fos; }

@test ".fos is found by name, lists its files, and is not in the listing of the top" {
    [ -d "$MOUNT/.fos" ]
    ls "$MOUNT/.fos"
    [ "$(ls "$MOUNT/.fos" | wc -l)" -ge 4 ]
    for f in names servers counters topology; do [ -f "$MOUNT/.fos/$f" ]; done
    [ "$(ls -A "$MOUNT" | grep -cx .fos)" = 0 ]
}

@test "every file has the size that cat reads" {
    local f size
    for f in "$MOUNT"/.fos/*; do
        # One descriptor, so that the size and the bytes are those of one snapshot.
        exec 8< "$f"
        size=$(stat -L -c %s /dev/fd/8)
        [ "$size" -gt 0 ]
        [ "$(wc -c <&8)" = "$size" ] || [ "$(cat <&8 | wc -c)" = "$size" ]
        exec 8<&-
    done
}

@test "names and servers say what fos names and fos status say" {
    grep -q '^/sys/file' "$MOUNT/.fos/names"
    grep -q '^/sys/name' "$MOUNT/.fos/names"
    grep -q '^/sys/privilege' "$MOUNT/.fos/names"
    [ "$(grep -c '^/sys/file/' "$MOUNT/.fos/servers")" -ge 2 ]
    [ "$(grep -c '^/sys/name/' "$MOUNT/.fos/servers")" -ge 2 ]
    "$FOS" names "$MOUNT" | grep -q '^/sys/file'
}

@test "counters count: requests grow with work" {
    total() { awk -F'\t' '$2 == "requests" { n += $3 } END { print n }' "$MOUNT/.fos/counters"; }
    local before
    before=$(total)
    for i in $(seq 50); do mkdir "$MOUNT/d$i"; rmdir "$MOUNT/d$i"; done
    [ "$(total)" -ge $((before + 100)) ]
}

@test "counters show what the mount was asked, and idle servers have no load" {
    lookups() { awk -F'\t' '$1 == "mount" && $2 == "LOOKUP" { print $3 }' "$MOUNT/.fos/counters"; }
    local before
    before=$(lookups)
    for i in $(seq 10); do [ ! -e "$MOUNT/absent$i" ]; done
    [ "$(lookups)" -ge $((before + 10)) ]
    awk -F'\t' 'NR > 1 { servers++; load += $5 } END { exit !(servers > 0 && load < servers) }' "$MOUNT/.fos/servers"
}

@test "nothing in .fos can be changed, and no entry of that name can be made" {
    local wrong=0
    try() { ! "$@" 2>/dev/null || { echo "allowed: $*"; wrong=1; }; }
    try touch "$MOUNT/.fos/new"
    try mkdir "$MOUNT/.fos/d"
    try rm -f "$MOUNT/.fos/names"
    try bash -c "echo x > '$MOUNT/.fos/names'"
    try bash -c "echo x >> '$MOUNT/.fos/names'"
    try mv "$MOUNT/.fos/names" "$MOUNT/names"
    try mv "$MOUNT/.fos" "$MOUNT/other"
    try rmdir "$MOUNT/.fos"
    try mkdir "$MOUNT/.fos"
    try ln "$MOUNT/.fos/names" "$MOUNT/linked"
    try ln -s x "$MOUNT/.fos"
    try truncate -s 0 "$MOUNT/.fos/names"
    touch "$MOUNT/plain"
    try mv -T "$MOUNT/plain" "$MOUNT/.fos"
    try chmod 777 "$MOUNT/.fos/names"
    rm "$MOUNT/plain"
    [ "$wrong" = 0 ]
}

@test "a directory called .fos further down is an ordinary one" {
    mkdir -p "$MOUNT/deeper/.fos"
    echo x > "$MOUNT/deeper/.fos/names"
    [ "$(cat "$MOUNT/deeper/.fos/names")" = x ]
    rm -r "$MOUNT/deeper"
}
