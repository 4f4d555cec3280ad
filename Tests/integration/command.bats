#!/usr/bin/env bats
# The fos command itself: what it prints, its exit status, and how a mount ends.
load helper

setup_file() { make_base; }
setup() { make_place; }
teardown() { show_daemon_if_failed; end_mount "$MOUNT"; rmdir "$MOUNT" 2>/dev/null || true; }
teardown_file() { remove_base; }

fos() { timeout 60 "$FOS" "$@" 3>&- < /dev/null; }
mount_here() { mount_fos "$MOUNT" "$@"; }
gone() { for _ in $(seq 100); do is_mounted "$MOUNT" || return 0; sleep 0.1; done; echo "still mounted"; return 1; }
dead() { for _ in $(seq 100); do [ -d "/proc/$1" ] || return 0; sleep 0.1; done; echo "pid $1 still runs"; return 1; }

# refused STATUS WORDS... -- ARGUMENTS: the command fails so, with one line on standard error that holds the words.
refused() {
    local want=$1 word words=()
    shift
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    run fos "$@"
    echo "$output"
    [ "$status" = "$want" ]
    [ "${#lines[@]}" = 1 ]
    for word in "${words[@]}"; do [[ $output == *"$word"* ]]; done
    [[ $output == fos:* ]]
}

@test "findmnt shows type fuse.fos and a source that names the instance" {
    mount_here --name speedy
    [ "$(findmnt -n -o FSTYPE -M "$MOUNT")" = fuse.fos ]
    [[ "$(findmnt -n -o SOURCE -M "$MOUNT")" == fos:*speedy* ]]
    grep -q "$MOUNT fuse.fos" /proc/mounts
}

@test "mount returns when the directory is usable; umount leaves it empty and no process" {
    mount_here
    echo x > "$MOUNT/f"
    pid=$(daemon_pid "$MOUNT")
    parent=$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")
    fos umount "$MOUNT"
    refute is_mounted "$MOUNT"
    dead "$pid"
    [ "$parent" = 1 ] || dead "$parent"
    [ -z "$(ls -A "$MOUNT")" ]
}

@test "--foreground stays, logs to standard error and ends with the mount" {
    timeout 60 "$FOS" mount --foreground "$MOUNT" > "$BASE/out" 2>&1 3>&- < /dev/null &
    for _ in $(seq 100); do is_mounted "$MOUNT" && break; sleep 0.1; done
    echo x > "$MOUNT/f"
    fos umount "$MOUNT"
    wait $!
    [ -s "$BASE/out" ]
}

@test "--log-level: each level says what it promises, and none says more" {
    logged() { grep -cE "$1" "$LOG" || true; }
    # One name for all, and so one log that nothing else writes; each part begins with an empty one.
    for level in trace debug info notice error; do
        mount_here --name "levels-${BASE##*.}" --log-level $level
        echo x > "$MOUNT/f"
        fos names "$MOUNT" > /dev/null
        fos umount "$MOUNT"
        echo "--- $level"
        cat "$LOG"
        case $level in
            trace) [ "$(logged 'trace fos: CREATE of inode 1 by pid [0-9]+ of user 0')" -ge 1 ] ;;&
            debug | info | notice | error) [ "$(logged 'trace fos:')" = 0 ] ;;&
            trace | debug) [ "$(logged 'debug fos: client [0-9]+, pid [0-9]+ of user 0, connected')" -ge 1 ] ;;&
            trace | debug) [ "$(logged 'debug fos: client [0-9]+, pid [0-9]+ of user 0, gone')" -ge 1 ] ;;&
            trace | debug | info) [ "$(logged 'info fos: core 0 on CPU [0-9]+: .*/sys/file/0')" = 1 ] ;;&
            trace | debug | info) [ "$(logged 'info fos: the kernel asked [0-9]+ times: .*CREATE 1')" = 1 ] ;;&
            info | notice | error) [ "$(logged 'debug fos:')" = 0 ] ;;&
            notice) [ "$(logged 'info fos:')" = 0 ] ;;&
            notice) [ "$(logged 'notice fos: .levels-[A-Za-z0-9]+. is mounted on')" = 1 ] ;;&
            error) [ ! -s "$LOG" ] ;;
        esac
        : > "$LOG"
    done
    rm "$LOG"
}

@test "status lists the mount, for people and as JSON" {
    mount_here --name shown --size 1G
    echo hello > "$MOUNT/f"
    # Other mounts of this machine, also broken ones, are in the list and no business of this test.
    fos status > "$BASE/list" || [ $? = 1 ]
    grep -q "$MOUNT" "$BASE/list"
    fos status "$MOUNT" > /dev/null
    fos status --json | jq -e --arg m "$MOUNT" '.[] | select(.mount_point == $m) | .name == "shown" and .reachable and .pid > 0
        and .size_bytes == 1073741824 and .used_bytes > 0 and .inodes >= 2 and .requests > 0 and .resident_bytes > 0
        and (.cores | length) >= 1 and ([.servers[].name] | any(startswith("/sys/file")))'
    [ "$(fos status --json "$MOUNT" | jq -r '.[0].pid')" = "$(daemon_pid "$MOUNT")" ]
    [ "$(fos status --json "$MOUNT" | jq '[.[0].servers[] | select(.name | startswith("/sys/file/"))] | length')" -ge 2 ]
    fos status "$MOUNT" | grep -q 'name'
}

@test "names prints the live namespace" {
    mount_here
    fos names "$MOUNT"
    for n in /sys/name /sys/privilege /sys/file /sys/file/0 /sys/file/1 /sys/name/1; do fos names "$MOUNT" | grep -q "^$n "; done
    fos names --json "$MOUNT" | jq -e 'length > 0'
}

@test "completions offer commands, options, levels and directories, in the shells themselves" {
    mkdir -p "$BASE/bin" "$BASE/work/direct"
    ln -sf "$FOS" "$BASE/bin/fos"
    fos --generate-completion-script bash > "$BASE/fos.bash"
    cat > "$BASE/try.bash" <<'SH'
source "$1"
try() {
    COMP_WORDS=($1 ${2+"$2"}) COMPREPLY=() COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _fos fos "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}
try fos mo; try "fos mount" --si; try "fos mount --log-level" not; try "fos mount" di; try "fos umount" --l
SH
    run env -C "$BASE/work" PATH="$BASE/bin:$PATH" bash "$BASE/try.bash" "$BASE/fos.bash"
    echo "$output"
    [ "${lines[*]}" = "mount --size notice direct --lazy" ]
    if command -v fish > /dev/null; then
        fos --generate-completion-script fish > "$BASE/fos.fish"
        run env -C "$BASE/work" HOME="$BASE" PATH="$BASE/bin:$PATH" fish -c "source '$BASE/fos.fish'; complete -C 'fos mo'; complete -C 'fos mount --si'; complete -C 'fos mount di'"
        echo "$output"
        [[ ${lines[0]} == mount* && ${lines[1]} == --size* && ${lines[2]} == direct/* ]]
    fi
    if command -v zsh > /dev/null; then
        mkdir -p "$BASE/functions"
        fos --generate-completion-script zsh > "$BASE/functions/_fos"
        [ "$(zsh -fc "fpath=('$BASE/functions' \$fpath); autoload -Uz compinit; compinit -u -d '$BASE/zcompdump'; autoload +X _fos; echo \${_comps[fos]}")" = _fos ]
    fi
}

@test "help, version and completions are complete; wrong use is refused with a hint" {
    for c in "" mount umount status names; do
        run fos $c --help
        [ "$status" = 0 ]
        [[ $output == *USAGE* ]]
    done
    fos mount --help | grep -q -- --cpus
    fos --version | grep -qE '[0-9]'
    for s in bash zsh fish; do [ "$(fos --generate-completion-script $s | wc -l)" -gt 20 ]; done
    fos --generate-completion-script bash | bash -n
    run fos mount
    [ "$status" = 1 ]
    run fos frobnicate
    [ "$status" = 1 ]
    run fos mount --frob "$MOUNT"
    [ "$status" = 1 ]
}

@test "a missing directory" { refused 32 "$MOUNT/none" "No such file" -- mount "$MOUNT/none"; }
@test "a file instead of a directory" { touch "$BASE/file"; refused 32 "Not a directory" -- mount "$BASE/file"; }
@test "a directory that is not empty" {
    touch "$MOUNT/f"
    refused 32 "not empty" -- mount "$MOUNT"
    rm "$MOUNT/f"
}
@test "mounting twice on one directory, and twice under one name" {
    mount_here --name once
    refused 32 "$MOUNT" mounted -- mount "$MOUNT"
    mkdir -p "$BASE/second"
    refused 32 "once" "in use" -- mount --name once "$BASE/second"
    echo alive > "$MOUNT/f"
}
@test "bad CPUs, sizes, names, options and log levels" {
    refused 1 "CPU" -- mount --cpus 4000 "$MOUNT"
    refused 1 "CPU" -- mount --cpus x,y "$MOUNT"
    refused 1 "CPU" -- mount --cpus "" "$MOUNT"
    refused 1 "size" -- mount --size 12Q "$MOUNT"
    refused 1 "size" -- mount --size -1 "$MOUNT" || refused 1 "Missing value" -- mount --size -1 "$MOUNT"
    refused 1 "frob" -- mount -o frob "$MOUNT"
    refused 1 "shout" -- mount --log-level shout "$MOUNT"
    refused 1 "a/b" -- mount --name a/b "$MOUNT"
    refute is_mounted "$MOUNT"
}
@test "no /dev/fuse: one line that says what to do" {
    run unshare -m bash -c "mount -t tmpfs none /dev; ln -s /proc/self/fd /dev/fd; '$FOS' mount '$MOUNT' 2>&1" 3>&-
    echo "$output"
    [ "$status" = 32 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == *"/dev/fuse"*"No such file"* ]]
}

@test "umount of what is not mounted, of another file system, of nothing" {
    refused 32 "$MOUNT" "not mounted" -- umount "$MOUNT"
    refused 32 "No such file" -- umount "$BASE/nothing"
    refused 32 "not a fos mount" -- umount /proc
    refused 1 "not on a fos mount" -- status /
}

@test "a busy mount says who holds it, and stays usable" {
    mount_here
    echo x > "$MOUNT/f"
    sleep 60 8< "$MOUNT/f" 3>&- &
    holder=$!
    (cd "$MOUNT"; exec sleep 60 3>&-) &
    inside=$!
    sleep 0.3
    run fos umount "$MOUNT"
    echo "$output"
    kill $holder $inside
    [ "$status" = 32 ]
    [[ $output == *"$holder"*sleep* ]]
    [[ $output == *"$inside"* ]]
    is_mounted "$MOUNT"
    [ "$(cat "$MOUNT/f")" = x ]
    wait $holder $inside || true
    fos umount "$MOUNT"
}

@test "umount --lazy with a user: detached at once, the daemon ends with the last user" {
    mount_here
    pid=$(daemon_pid "$MOUNT")
    exec 8> "$MOUNT/f"
    fos umount --lazy "$MOUNT"
    refute is_mounted "$MOUNT"
    [ -d "/proc/$pid" ]
    echo still >&8
    exec 8>&-
    dead "$pid"
}

@test "umount(8) and fusermount3 -u end the daemon" {
    for how in "umount" "fusermount3 -u"; do
        mount_here
        pid=$(daemon_pid "$MOUNT")
        touch "$MOUNT/f"
        $how "$MOUNT"
        dead "$pid"
        refute is_mounted "$MOUNT"
    done
}

@test "SIGTERM and SIGINT unmount cleanly" {
    for signal in TERM INT; do
        mount_here
        touch "$MOUNT/f"
        pid=$(daemon_pid "$MOUNT")
        kill -$signal "$pid"
        dead "$pid"
        gone
    done
}

@test "SIGKILL of the daemon: the mount goes away, programs get errors and do not hang" {
    mount_here
    cp /bin/sleep "$MOUNT/sleep"
    echo x > "$MOUNT/f"
    exec 8< "$MOUNT/f"
    (while cat "$MOUNT/f" > /dev/null 2>&1; do :; done) 3>&- &
    reader=$!
    pid=$(daemon_pid "$MOUNT")
    kill -9 "$pid"
    gone
    for _ in $(seq 50); do kill -0 $reader 2>/dev/null || break; sleep 0.1; done
    refute kill -0 $reader
    run timeout 10 stat -L /dev/fd/8
    [ "$status" != 124 ]
    exec 8<&-
    [ -z "$(ls -A "$MOUNT")" ]
    mount_here
    touch "$MOUNT/again"
}

@test "SIGKILL of the supervisor: the daemon unmounts and ends" {
    mount_here
    pid=$(daemon_pid "$MOUNT")
    parent=$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")
    [ "$parent" != 1 ] || skip "no supervisor"
    kill -9 "$parent"
    dead "$pid"
    gone
}

@test "a server that traps: the mount goes away, the log says which server, where, and its trace ring" {
    mount_here --name "trap-${BASE##*.}"
    log=$LOG
    touch "$MOUNT/f"
    pid=$(daemon_pid "$MOUNT")
    # To a thread that runs servers, as a trap is.
    python3 - "$pid" <<'PY'
import ctypes, os, signal, sys
pid = int(sys.argv[1])
core = next(t for t in os.listdir("/proc/%d/task" % pid) if open("/proc/%d/task/%s/comm" % (pid, t)).read().startswith("fos-core"))
TGKILL = 234 if os.uname().machine == "x86_64" else 131
sys.exit(ctypes.CDLL(None).syscall(TGKILL, pid, int(core), signal.SIGILL))
PY
    dead "$pid"
    gone
    tail -n 60 "$log"
    grep -qE 'server [a-z]+(/[0-9]+)? on core [0-9]+ died of SIGILL' "$log"
    grep -qE 'last [0-9]+ of [0-9]+ trace records' "$log"
    [ "$(grep -cE '^fos:   [0-9]+ (request|replied|sent|[a-z]+) ' "$log")" -ge 4 ]
    grep -q 'ended by signal 4' "$log"
    rm "$log"
}

@test "-o options: size, name, cpus, ro, noexec; mount(8) through mount.fos" {
    mount_here -o size=128M,name=opt,noatime
    [ "$(df -P -B1 "$MOUNT" | awk 'END { print $2 }')" = $((128 << 20)) ]
    findmnt -n -o SOURCE -M "$MOUNT" | grep -q opt
    fos umount "$MOUNT"
    mount_here -o ro
    run touch "$MOUNT/f"
    [[ $output == *"Read-only file system"* ]]
    fos umount "$MOUNT"
    mount_here -o noexec
    cp /bin/true "$MOUNT/true"
    run "$MOUNT/true"
    [ "$status" = 126 ]
    fos umount "$MOUNT"
    ln -s "$FOS" "$BASE/mount.fos"
    timeout 60 "$BASE/mount.fos" helped "$MOUNT" -o size=64M,rw 3>&- < /dev/null > "$BASE/out" 2>&1
    [ "$(findmnt -n -o FSTYPE -M "$MOUNT")" = fuse.fos ]
    findmnt -n -o SOURCE -M "$MOUNT" | grep -q helped
}

@test "two mounts side by side are two instances" {
    mount_here
    mkdir "$BASE/other"
    "$FOS" mount "$BASE/other" 3>&- < /dev/null > "$BASE/out" 2>&1
    echo 1 > "$MOUNT/f"
    [ ! -e "$BASE/other/f" ]
    echo 2 > "$BASE/other/f"
    [ "$(cat "$MOUNT/f" "$BASE/other/f" | tr -d '\n')" = 12 ]
    run mv "$MOUNT/f" "$BASE/other/g"
    [ "$status" = 0 ]
    [ "$(fos status --json | jq length)" -ge 2 ]
    end_mount "$BASE/other"
    rmdir "$BASE/other"
    touch "$MOUNT/alive"
}

@test "--cpus: every choice of this machine's CPUs works" {
    local list
    for list in 0 "$(($(nproc) - 1))" "0-$(($(nproc) - 1))"; do
        mount_here --cpus "$list"
        cp -r /usr/include/linux "$MOUNT/linux"
        diff -r /usr/include/linux "$MOUNT/linux"
        fos umount "$MOUNT"
    done
}

@test "mount and unmount twenty times leave nothing behind" {
    local before
    before=$(ls /proc | grep -c '^[0-9]')
    for _ in $(seq 20); do
        mount_here
        touch "$MOUNT/f"
        fos umount "$MOUNT"
    done
    refute is_mounted "$MOUNT"
    refute daemon_pid "$MOUNT"
}
