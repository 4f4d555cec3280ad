#!/usr/bin/env bats
# Where a mount may lie and what may lie around it: odd names of directories, other mounts over and under it, a mount that
# is detached while another takes its place, and the ways in which mount(8) asks for one.
load helper

setup_file() { make_base; }
setup() { make_place; }
teardown() {
    show_daemon_if_failed
    [ -z "${BASE:-}" ] || findmnt -n -l -o TARGET | { grep -F "$BASE/" || true; } | sort -r | while read -r dir; do end_mount "$(printf %b "$dir")"; done
}
teardown_file() { remove_base; }

fos() { timeout 60 "$FOS" "$@" 3>&- < /dev/null; }
mount_here() { mount_fos "$MOUNT" "$@"; }
pid_of() { fos status --json | jq -r --arg n "$1" '.[] | select(.name == $n) | .pid'; }
dead() { for _ in $(seq 100); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; echo "pid $1 still runs"; return 1; }

@test "odd names of directories: mounted, listed, refused while busy, unmounted, each message one line" {
    local name dir holder
    for name in 'a b' $'new\nline' $'tab\tq"u\'o\\' '-dash' '#hash%p$x*?' $'\xcc\x81first' $'caf\xc3\xa9' $'\r'; do
        dir=$MOUNT/$name
        mkdir -- "$dir"
        (cd "$MOUNT" && fos mount -- "$name")
        [ "$(findmnt -n -o FSTYPE -M "$dir")" = fuse.fos ]
        fos status --json -- "$dir" | jq -e --arg m "$dir" '.[0].mount_point == $m'
        [ "$(fos status | grep -c "$MOUNT")" = 1 ]
        run fos mount -- "$dir"
        [ "$status" = 32 ]
        [ "${#lines[@]}" = 1 ]
        sleep 60 8> "$dir/f" 3>&- &
        holder=$!
        sleep 0.2
        run fos umount -- "$dir"
        echo "$output"
        [ "$status" = 32 ]
        [ "${#lines[@]}" = 3 ]
        kill $holder
        wait $holder || true
        (cd "$MOUNT" && fos umount -- "$name")
        refute is_mounted "$dir"
        rmdir -- "$dir"
    done
}

@test "two names that look the same are two directories" {
    local one=$MOUNT/$'caf\xc3\xa9' other=$MOUNT/$'cafe\xcc\x81'
    mkdir "$one" "$other"
    fos mount "$one"
    run fos umount "$other"
    [ "$status" = 32 ]
    [[ $output == *"not mounted"* ]]
    fos mount "$other"
    touch "$one/in-one"
    [ ! -e "$other/in-one" ]
    fos umount "$other"
    [ -e "$one/in-one" ]
    fos umount "$one"
}

@test "a name that is not UTF-8, and none: one line" {
    mkdir "$MOUNT"/$'x\xff'
    run fos mount "$MOUNT"/$'x\xff'
    echo "$output"
    [ "$status" = 1 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == *UTF-8* ]]
    run fos mount ""
    [ "$status" = 32 ]
    [[ $output == *"'': No such file or directory"* ]]
    run fos umount ""
    [ "$status" = 32 ]
    [[ $output == *"'': No such file or directory"* ]]
    # A command that is run gets what it was given.
    [ "$(fos run -- printf '%s' $'x\xff' | od -An -tx1)" = " 78 ff" ]
}

@test "a working directory that has been removed: nothing is mounted, least of all on the root" {
    mkdir "$MOUNT/gone"
    run bash -c "cd '$MOUNT/gone' && rmdir '$MOUNT/gone' && '$FOS' mount . < /dev/null" 3>&-
    echo "$output"
    [ "$status" = 32 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == *"working directory has been removed"* ]]
    [ -z "$(findmnt -n -t fuse.fos -M /)" ]
    # By an absolute path it goes.
    bash -c "mkdir '$MOUNT/gone' && cd '$MOUNT/gone' && rmdir '$MOUNT/gone' && '$FOS' mount '$MOUNT' < /dev/null" 3>&-
    is_mounted "$MOUNT"
}

@test "a mount that is detached lazily leaves alone what is mounted in its place, however it ends" {
    local old
    mount_here --name old-$BATS_TEST_NUMBER
    old=$(pid_of old-$BATS_TEST_NUMBER)
    exec 8> "$MOUNT/held"
    fos umount --lazy "$MOUNT"
    mount_here --name new-$BATS_TEST_NUMBER
    echo precious > "$MOUNT/data"
    kill -TERM "$old"
    dead "$old"
    exec 8>&-
    sleep 0.3
    [ "$(cat "$MOUNT/data")" = precious ]
    fos umount "$MOUNT"
    # The same with the ways in which a command ends it.
    mount -t tmpfs below "$MOUNT"
    touch "$MOUNT/below"
    mount_here -o nonempty
    exec 8> "$MOUNT/held"
    fos umount --force "$MOUNT"
    exec 8>&-
    sleep 0.3
    [ -e "$MOUNT/below" ]
    umount "$MOUNT"
}

@test "SIGKILL and SIGTERM of the daemon of a mount that is covered: the cover stays" {
    local signal pid
    for signal in KILL TERM; do
        mount_here --name covered
        pid=$(pid_of covered)
        mount -t tmpfs cover "$MOUNT"
        touch "$MOUNT/cover"
        kill -$signal "$pid"
        dead "$pid"
        sleep 0.3
        [ -e "$MOUNT/cover" ]
        umount "$MOUNT"
        run stat "$MOUNT"
        [[ $output == *"not connected"* ]]
        fos umount "$MOUNT"
        refute is_mounted "$MOUNT"
    done
}

@test "mounts inside a mount, and a mount in two places" {
    mount_here
    mkdir "$MOUNT/inner" "$BASE/second"
    fos mount "$MOUNT/inner"
    run fos umount "$MOUNT"
    [ "$status" = 32 ]
    [[ $output == *"mounted inside: $MOUNT/inner (fuse.fos)"* ]]
    fos umount "$MOUNT/inner"
    echo x > "$MOUNT/f"
    mount --bind "$MOUNT" "$BASE/second"
    [ "$(fos status | grep -c "$BASE")" = 2 ]
    fos umount "$BASE/second"
    refute is_mounted "$BASE/second"
    [ "$(cat "$MOUNT/f")" = x ]
    fos umount "$MOUNT"
    rmdir "$BASE/second"
}

@test "mount(8): lines of an fstab with one source, a path as a source, a name that a daemon is just leaving" {
    ln -s "$FOS" "$BASE/mount.fos"
    helper() { timeout 60 "$BASE/mount.fos" "$@" 3>&- < /dev/null > "$BASE/out" 2>&1 || { cat "$BASE/out"; return 1; }; }
    mkdir "$BASE/second"
    helper shared "$MOUNT" -o rw,size=64M
    helper shared "$BASE/second" -o rw,size=64M
    [ "$(findmnt -n -o SOURCE -M "$MOUNT") $(findmnt -n -o SOURCE -M "$BASE/second")" = "fos:shared fos:shared-2" ]
    umount "$BASE/second"
    helper /srv/of/paths "$BASE/second" -o rw
    [ "$(findmnt -n -o SOURCE -M "$BASE/second")" = fos:paths ]
    umount "$BASE/second" "$MOUNT"
    for _ in 1 2 3; do
        helper x "$MOUNT" -o name=insists
        umount "$MOUNT"
    done
    rmdir "$BASE/second"
    rm "$BASE/mount.fos"
}

@test "mount.fuse3(8) and remounting" {
    need mount.fuse3
    mkdir "$BASE/bin"
    ln -s "$FOS" "$BASE/bin/fos"
    PATH=$BASE/bin:$PATH timeout 60 mount.fuse3 "fos#by-fuse" "$MOUNT" -o size=64M,noexec 3>&- < /dev/null > "$BASE/out" 2>&1
    [ "$(findmnt -n -o SOURCE -M "$MOUNT")" = fos:by-fuse ]
    [ "$(df -P -B1 "$MOUNT" | awk 'END { print $2 }')" = $((64 << 20)) ]
    findmnt -n -o OPTIONS -M "$MOUNT" | grep -q noexec
    PATH=$BASE/bin:$PATH mount.fuse3 "fos#by-fuse" "$MOUNT" -o remount,ro 3>&- < /dev/null
    run touch "$MOUNT/f"
    [[ $output == *"Read-only file system"* ]]
    PATH=$BASE/bin:$PATH mount.fuse3 "fos#by-fuse" "$MOUNT" -o remount,rw 3>&- < /dev/null
    touch "$MOUNT/f"
    rm -r "$BASE/bin"
}
