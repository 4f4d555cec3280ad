#!/usr/bin/env bats
# Two users on one mount (--allow-other), and a mount that an ordinary user makes through fusermount3.
load helper

OTHER=nobody

setup() { only_fos; only_root; }

as_other() { setpriv --reuid $OTHER --regid "$(id -g $OTHER)" --clear-groups -- "$@" 3>&-; }
denied() { run as_other "$@"; [ "$status" != 0 ]; [[ $output == *"$WHY"* ]] || { echo "$output"; return 1; }; }

@test "another user sees a shared mount, and permission bits are kept" {
    local d=$MOUNT/t1
    mkdir -m 755 "$d"
    echo secret > "$d/private"; chmod 600 "$d/private"
    echo public > "$d/public"; chmod 644 "$d/public"
    mkdir -m 700 "$d/closed"; touch "$d/closed/in"
    mkdir -m 711 "$d/through"; echo known > "$d/through/known"
    [ "$(as_other cat "$d/public")" = public ]
    [ "$(as_other cat "$d/through/known")" = known ]
    WHY="Permission denied"
    denied cat "$d/private"
    denied ls "$d/closed"
    denied cat "$d/closed/in"
    denied ls "$d/through"
    denied touch "$d/new"
    denied rm -f "$d/public"
    denied mv "$d/public" "$d/moved"
    denied bash -c "echo x >> '$d/public'"
    WHY="Operation not permitted"
    denied chmod 777 "$d/public"
    denied chown $OTHER "$d/public"
    WHY="ermi"
    denied touch -d 2001-01-01 "$d/public"
    denied setfattr -n user.x -v 1 "$d/public"
    rm -r "$d"
}

@test "the sticky bit: only the owner deletes or renames" {
    local d=$MOUNT/t2
    mkdir -m 1777 "$d"
    echo root > "$d/of-root"; chmod 666 "$d/of-root"
    as_other bash -c "echo mine > '$d/mine'; echo both >> '$d/of-root'"
    WHY="Operation not permitted"
    denied rm -f "$d/of-root"
    denied mv "$d/of-root" "$d/stolen"
    denied mv -f "$d/mine" "$d/of-root"
    as_other mv "$d/mine" "$d/mine2"
    as_other rm "$d/mine2"
    rm -r "$d"
}

@test "owner and group of new files; setgid directories hand on their group" {
    local d=$MOUNT/t3
    mkdir -m 2777 "$d"; chgrp daemon "$d"; chmod 2777 "$d"
    as_other mkdir "$d/sub"
    as_other touch "$d/file" "$d/sub/file"
    [ "$(stat -c '%U %G %a' "$d/sub")" = "$OTHER daemon 2755" ]
    [ "$(stat -c '%U %G' "$d/file" "$d/sub/file" | sort -u)" = "$OTHER daemon" ]
    mkdir -m 777 "$d/../t3b"; chmod 777 "$d/../t3b"; as_other touch "$d/../t3b/f"
    [ "$(stat -c '%U %G' "$MOUNT/t3b/f")" = "$OTHER $(id -gn $OTHER)" ]
    rm -r "$d" "$MOUNT/t3b"
}

@test "writing by another user clears setuid and setgid; chown clears them" {
    local d=$MOUNT/t4
    mkdir -m 777 "$d"; chmod 777 "$d"
    cp /bin/true "$d/f"; chown $OTHER "$d/f"; chmod 6777 "$d/f"
    as_other bash -c "echo x >> '$d/f'"
    [ "$(stat -c %a "$d/f")" = 777 ]
    chmod 6755 "$d/f"; chown root "$d/f"
    [ "$(stat -c %a "$d/f")" = 755 ]
    as_other touch "$d/g"; as_other chmod 4711 "$d/g"
    [ "$(stat -c %a "$d/g")" = 4711 ]
    # Setting the group of a file to one that the user is not in takes its setgid bit away.
    as_other touch "$d/h"; chgrp daemon "$d/h"; as_other chmod 2755 "$d/h"
    [ "$(stat -c %a "$d/h")" = 755 ]
    rm -r "$d"
}

@test "group permissions by supplementary groups" {
    local d=$MOUNT/t5
    mkdir -m 750 "$d"; chgrp daemon "$d"; echo in > "$d/f"; chgrp daemon "$d/f"; chmod 640 "$d/f"
    WHY="Permission denied"; denied cat "$d/f"
    [ "$(setpriv --reuid $OTHER --regid "$(id -g $OTHER)" --groups "$(getent group daemon | cut -d: -f3)" -- cat "$d/f")" = in ]
    rm -r "$d"
}

@test "the owner changes, access follows at once, also from cached attributes" {
    local d=$MOUNT/t6
    mkdir -m 755 "$d"; echo x > "$d/f"; chmod 600 "$d/f"
    WHY="Permission denied"
    for _ in 1 2 3; do
        denied cat "$d/f"
        chown $OTHER "$d/f"
        [ "$(as_other cat "$d/f")" = x ]
        chown root "$d/f"
    done
    denied cat "$d/f"
    chmod 644 "$d/f"; [ "$(as_other cat "$d/f")" = x ]
    chmod 700 "$d"; denied cat "$d/f"
    rm -r "$d"
}

@test "devices and setuid programs: made by root only, ignored or obeyed as the mount says" {
    local d=$MOUNT/t7
    mkdir -m 777 "$d"; chmod 777 "$d"
    WHY="Operation not permitted"; denied mknod "$d/null" c 1 3
    mknod "$d/null" c 1 3; chmod 666 "$d/null"
    if findmnt -n -o OPTIONS -M "$MOUNT" | grep -q nodev; then
        WHY="ermi"; denied bash -c "echo x > '$d/null'"
    else
        as_other bash -c "echo x > '$d/null'"
    fi
    cp "$(command -v id)" "$d/id"; chmod 4755 "$d/id"
    if findmnt -n -o OPTIONS -M "$MOUNT" | grep -q nosuid; then
        [ "$(as_other "$d/id" -un)" = $OTHER ]
    else
        [ "$(as_other "$d/id" -un)" = root ]
    fi
    rm -r "$d"
}

# ---- a mount of an ordinary user's own ------------------------------------------------------------------------------

# /dev/fuse is 0600 on some machines; Debian's udev rule makes it 0666.
user_mount() {
    chmod 666 /dev/fuse
    USER_DIR=$BASE/own
    mkdir "$USER_DIR"
    chown $OTHER "$USER_DIR"
    # The command may lie where only root can look.
    as_other test -x "$FOS" || { install -m 755 "$FOS" "$BASE/fos"; FOS=$BASE/fos; }
    as_other env HOME="$HOME" timeout 60 "$FOS" mount "$USER_DIR" "$@" < /dev/null > "$BASE/said" 2>&1 || { cat "$BASE/said"; return 1; }
}

@test "an ordinary user mounts, works, sees the status and unmounts; others, root too, are kept out" {
    user_mount --size 1G
    as_other bash -c "cd '$USER_DIR'; echo x > f; mkdir d; mv f d; cp /bin/true .; ./true; ls -R" | grep -q 'd:'
    [ "$(as_other stat -c %U "$USER_DIR/d")" = $OTHER ]
    [ "$(findmnt -n -o FSTYPE -M "$USER_DIR")" = fuse.fos ]
    run ls "$USER_DIR"
    [ "$status" != 0 ]
    [[ $output == *"Permission denied"* ]]
    as_other "$FOS" status "$USER_DIR" | grep -q "$USER_DIR"
    "$FOS" status | grep -q "$USER_DIR"
    pid=$(daemon_pid "$USER_DIR")
    [ "$(stat -c %U "/proc/$pid")" = $OTHER ]
    as_other "$FOS" umount "$USER_DIR"
    refute is_mounted "$USER_DIR"
    [ ! -d "/proc/$pid" ]
    rmdir "$USER_DIR"
}

@test "fusermount3 -u by the ordinary user ends the daemon" {
    user_mount
    pid=$(daemon_pid "$USER_DIR")
    as_other fusermount3 -u "$USER_DIR"
    for _ in $(seq 50); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    [ ! -d "/proc/$pid" ]
    rmdir "$USER_DIR"
}

@test "an ordinary user is refused in one line: a directory of another's, --allow-other without leave" {
    chmod 666 /dev/fuse
    mkdir -p "$BASE/roots"
    run as_other env HOME="$HOME" "$FOS" mount "$BASE/roots"
    [ "$status" = 32 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == *"$BASE/roots"*"ermi"* ]]
    refute is_mounted "$BASE/roots"
    if ! grep -q '^user_allow_other' /etc/fuse.conf; then
        mkdir -p "$BASE/own2"; chown $OTHER "$BASE/own2"
        run as_other env HOME="$HOME" "$FOS" mount --allow-other "$BASE/own2"
        [ "$status" = 32 ]
        [ "${#lines[@]}" = 1 ]
        [[ $output == *user_allow_other* ]]
    fi
    run as_other "$FOS" umount "$MOUNT"
    [ "$status" = 32 ]
    is_mounted "$MOUNT"
}

@test "what fusermount3 has against a mount is said, not only that it has" {
    mkdir -p "$BASE/own3"; chown 54321 "$BASE/own3"
    chmod 666 /dev/fuse
    as_other test -x "$FOS" || { install -m 755 "$FOS" "$BASE/fos"; FOS=$BASE/fos; }
    # It looks up the name of who mounts.
    run setpriv --reuid 54321 --regid 54321 --clear-groups -- env HOME="$HOME" timeout 60 "$FOS" mount "$BASE/own3" < /dev/null 3>&-
    echo "$output"
    [ "$status" = 32 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == *"fusermount3: could not determine username"* ]]
    refute is_mounted "$BASE/own3"
}

teardown() {
    show_daemon_if_failed
    [ -z "${BASE:-}" ] || [ ! -d "$BASE/own" ] || { end_mount "$BASE/own"; rmdir "$BASE/own" 2>/dev/null || true; }
}
