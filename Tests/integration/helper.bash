# What every integration suite shares: one mount a file, the same work done on the mount and in a local directory and
# compared, and a teardown that leaves no mount behind whatever happened.
#
#   FOS            the command under test (default: the release build)
#   FOS_TEST_MOUNT what makes the mount: "fos" (default), "local" (a plain directory) or a command that is run as
#                  COMMAND DIR. The last two exist to tell a wrong test from a wrong file system.
#   FOS_TEST_USER  who does the work: root (default when root) or an ordinary user's name, through setpriv
#   FOS_TEST_SHIM  1 = the work is done under `fos run`: by messages
#   FOS_TEST_OPTIONS  more options for fos mount, for instance "--cpus 0-1 -o locks=fleet"
#   FOS_LONG       1 = the long variants too
#   FOS_TEST_TMP   where mounts and local directories are made (default /tmp); a local file system with user xattrs

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
export HERE ROOT
export FOS=${FOS:-$ROOT/.build/release/fos}
export FOS_TEST_MOUNT=${FOS_TEST_MOUNT:-fos}
export FOS_TEST_USER=${FOS_TEST_USER:-$(id -un)}
export FOS_LONG=${FOS_LONG:-0}
# Seconds for a test and for one script in it, generous: a busy machine is slow, a hang is for ever.
export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-$((FOS_LONG == 1 ? 3600 : 400))}
export SCRIPT_TIMEOUT=${SCRIPT_TIMEOUT:-$((FOS_LONG == 1 ? 1800 : 180))}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC
umask 022

# ---- the mount ------------------------------------------------------------------------------------------------------

# Prints the process that serves the mount at $1: the one that holds /dev/fuse and was started with that directory.
daemon_pid() {
    local dir=$1 pid
    for pid in /proc/[0-9]*; do
        pid=${pid#/proc/}
        [ -r "/proc/$pid/cmdline" ] || continue
        # Read with tr: a bare expansion would drop the NULs that separate the arguments.
        tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$dir" || continue
        if find "/proc/$pid/fd" -lname /dev/fuse 2>/dev/null | grep -q .; then
            echo "$pid"
            return 0
        fi
    done
    return 1
}

is_mounted() { findmnt -n -M "$1" >/dev/null 2>&1; }

# Makes $MOUNT (fos) and $LOCAL (a local directory); both are then writable by everyone, as /tmp is. Arguments go to
# `fos mount`. Called by setup_file.
start_mount() {
    # What the caller's environment says to Python, pip and git is not part of the work.
    unset ${!PYTHON*} ${!PIP_*} ${!GIT_*} VIRTUAL_ENV
    BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-test.XXXXXX")
    export BASE MOUNT=$BASE/mount LOCAL=$BASE/local HOME=$BASE/home LOG=
    mkdir "$MOUNT" "$LOCAL" "$HOME" "$BASE/results"
    chmod 755 "$BASE"
    chmod 1777 "$LOCAL" "$HOME" "$BASE/results"
    local other=()
    if [ "$(id -u)" = 0 ]; then other=(--allow-other); fi
    case $FOS_TEST_MOUNT in
        local) ;;
        fos) mount_fos "$MOUNT" --name "test-${BASE##*.}" "${other[@]}" ${FOS_TEST_OPTIONS:-} "$@" ;;
        *) timeout 60 $FOS_TEST_MOUNT "$MOUNT" 3>&- ;;
    esac
    chmod 1777 "$MOUNT"
}

# For suites about mounts themselves, which make their own: a directory to make them in, one to mount on for each test, and the end.
make_base() {
    [ "$FOS_TEST_MOUNT" = fos ] || return 0
    BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-test.XXXXXX")
    export BASE LOG=
}
make_place() {
    only_fos
    only_root
    export MOUNT=$BASE/m$BATS_TEST_NUMBER
    mkdir "$MOUNT"
}
remove_base() { [ -z "${BASE:-}" ] || rm -rf --one-file-system "$BASE"; }

# Mounts fos on $1 with the options that follow. LOG is the daemon's own log, for a failing test to show.
mount_fos() {
    local dir=$1 said status=0
    shift
    [ -x "$FOS" ] || { echo "$FOS: not there; build it with: swift build -c release --product fos" >&2; return 1; }
    # To a file, not into a variable: a daemon that kept the pipe would make the caller wait for its end.
    said=$BASE/mount-said
    timeout 60 "$FOS" mount "$dir" "$@" > "$said" 2>&1 3>&- < /dev/null || status=$?
    cat "$said" >&2
    [ "$status" = 0 ] || return "$status"
    LOG=$("$FOS" status --json "$dir" | jq -r '.[0].log // empty') || true
    export LOG
}

# Ends the mount at $1: politely, then lazily, then by killing its daemon. Never fails, always leaves no mount.
end_mount() {
    local dir=$1 pid
    pid=$(daemon_pid "$dir") || pid=
    if is_mounted "$dir"; then
        if [ "$FOS_TEST_MOUNT" = fos ]; then timeout 20 "$FOS" umount "$dir" >/dev/null 2>&1 3>&- || true; fi
        if is_mounted "$dir"; then timeout 20 fusermount3 -u -z "$dir" 2>/dev/null || umount -l "$dir" 2>/dev/null || true; fi
    fi
    if [ -n "$pid" ]; then
        for _ in $(seq 50); do [ -d "/proc/$pid" ] || return 0; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    fi
    return 0
}

# Called by teardown_file.
stop_mount() {
    cd /
    [ -n "${BASE:-}" ] || return 0
    end_mount "$MOUNT"
    # One file system only: should a mount have survived, its contents are not ours to delete.
    rm -rf --one-file-system "$BASE" 2>/dev/null || true
}

only_fos() { [ "$FOS_TEST_MOUNT" = fos ] || skip "about the fos command, not about a file system"; }
only_root() { [ "$(id -u)" = 0 ] || skip "needs root"; [ "$FOS_TEST_USER" = root ] || skip "needs root"; }
only_long() { [ "$FOS_LONG" = 1 ] || skip "long: set FOS_LONG=1"; }
# For what a program under the shim sees differently; docs/shim-calls.md has the reasons.
not_by_message() { [ "${FOS_TEST_SHIM:-}" != 1 ] || skip "by message: $1"; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || skip "$c is not installed"; done; }

# Fails if the command succeeds. (A plain "! command" does not fail a test unless it is the last line.)
refute() { if "$@"; then echo "succeeded, but must not: $*"; return 1; fi; }

setup_file() { start_mount; }
teardown_file() { stop_mount; }
# A test that failed shows what the daemon wrote and whether it lives.
teardown() { show_daemon_if_failed; }
show_daemon_if_failed() { [ -n "${BATS_TEST_COMPLETED:-}" ] || show_daemon; }
show_daemon() {
    [ "$FOS_TEST_MOUNT" = fos ] && [ -n "${MOUNT:-}" ] || return 0
    echo "--- daemon of $MOUNT: $(daemon_pid "$MOUNT" || echo none)"
    [ -z "$LOG" ] || [ ! -s "$LOG" ] || { echo "--- its log:"; tail -n 40 "$LOG"; }
    return 0
}

# ---- doing work -----------------------------------------------------------------------------------------------------

# Runs a command as FOS_TEST_USER, with a time limit and no terminal, and under the shim if FOS_TEST_SHIM says so.
as_user() {
    if [ "${FOS_TEST_SHIM:-}" = 1 ]; then set -- "$FOS" run -- "$@"; fi
    if [ "$FOS_TEST_USER" = "$(id -un)" ]; then
        timeout -k 5 "$SCRIPT_TIMEOUT" "$@" 3>&- < /dev/null
    else
        timeout -k 5 "$SCRIPT_TIMEOUT" setpriv --reuid "$FOS_TEST_USER" --regid "$(id -g "$FOS_TEST_USER")" --clear-groups \
            -- "$@" 3>&- < /dev/null
    fi
}

# Makes a fresh directory of the working user under $1 and prints it.
fresh() {
    local dir=$1/${2:-t$BATS_TEST_NUMBER}
    mkdir "$dir"
    chown "$FOS_TEST_USER:$(id -g "$FOS_TEST_USER")" "$dir"
    echo "$dir"
}

# Runs the script $2 in the directory $1 and writes its output and exit status to $3. The directory's own name is
# replaced by DIR, so that the two runs can be compared.
run_script() {
    local dir=$1 script=$2 out=$3 status=0
    (cd "$dir" && as_user env DIR="$dir" bash -eu "$script") > "$out.raw" 2>&1 || status=$?
    # timeout(1) warns when the user has no timer left, which is the machine's business.
    sed "s|$dir|DIR|g; /^timeout: warning/d" "$out.raw" > "$out"
    rm -f "$out.raw"
    echo "exit $status" >> "$out"
}

# The heart of the suites: reads a bash script from standard input, runs it in a fresh directory on the mount and in one
# on the local disk, and fails unless output, exit status and the trees left behind are the same.
#   same [-w] [-s STATUS]    -w: times are not compared; -s: the exit status that the script must end with (default 0)
same() {
    local times='' want=0 option OPTIND=1
    while getopts ws: option; do
        case $option in w) times=-w ;; s) want=$OPTARG ;; *) return 2 ;; esac
    done
    local name=t$BATS_TEST_NUMBER results=$BASE/results script on_local on_mount
    script=$results/$name.sh
    cat > "$script"
    on_local=$(fresh "$LOCAL" "$name")
    on_mount=$(fresh "$MOUNT" "$name")
    run_script "$on_local" "$script" "$results/$name.local"
    run_script "$on_mount" "$script" "$results/$name.mount"
    if [ "$(tail -n 1 "$results/$name.local")" != "exit $want" ]; then
        echo "the script itself is wrong: on the local disk it ended with"
        tail -n 30 "$results/$name.local"
        return 1
    fi
    diff -u --label local --label mount "$results/$name.local" "$results/$name.mount"
    "$HERE/snapshot.py" $times "$on_local" > "$results/$name.local.tree"
    "$HERE/snapshot.py" $times "$on_mount" > "$results/$name.mount.tree"
    diff -u --label local --label mount "$results/$name.local.tree" "$results/$name.mount.tree"
    rm -rf "$on_local"
    rm -rf "$on_mount"
    [ ! -e "$on_mount" ]
}

# Runs a script from standard input on the mount only; it must end with 0. For what has no local counterpart.
on_mount() {
    local dir script=$BASE/results/t$BATS_TEST_NUMBER.sh
    cat > "$script"
    dir=$(fresh "$MOUNT")
    run_script "$dir" "$script" "$BASE/results/out"
    cat "$BASE/results/out"
    [ "$(tail -n 1 "$BASE/results/out")" = "exit 0" ]
    rm -rf "$dir"
}

# A source tree of a few hundred files to pack, copy, build and commit: this project's own, as committed or as it lies.
# Written once a file into $1.
make_source_tree() {
    local dir=$1
    mkdir -p "$dir"
    (cd "$ROOT" && tar -cf - --exclude='*/.build*' Sources Tests/integration shim docs) | tar -xf - -C "$dir"
    # And a few hundred system headers, for size and for names with odd shapes.
    mkdir "$dir/include"
    cp -r /usr/include/linux "$dir/include/linux"
    find "$dir" -exec touch -h -d '2021-03-04 05:06:07.123456789' {} +
    chmod -R a+rX "$dir"
}
