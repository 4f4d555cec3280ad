#!/bin/bash
# Times file operations and whole programs by messages (the shim) against memory (tmpfs), in one run on one machine, and
# prints times, ratios and the goal of each. Single operations are timed in one process under the shim, where calls on the
# tmpfs pass it by (some ns each); whole programs run under the shim on fos, and without it on tmpfs.
#
# usage: Benchmarks/shim/run.sh [--smoke] [-r ROUNDS] [--only TEXT] [--operations] [--programs] [--two]
#                               (default: all three parts)
#
#   --smoke       the smallest run: shows that it works, its figures mean nothing
#   -r            rounds (default 9)
#   --only        whole programs whose name contains TEXT
#   --operations  single operations, one client
#   --programs    whole programs
#   --two         two clients at once
#
# Needs root (to mount a tmpfs), and for all programs git, python3, sqlite3, gcc and make.
set -eu
self=$(realpath "$0")
usage() { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$self"; }
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
FOS=${FOS:-${FOS_SCRATCH:-$ROOT/.build}/release/fos}
rounds=9 milliseconds=20 files=5000 inserts=10000 parts='' only='' smoke=0
while [ $# -gt 0 ]; do
    case $1 in
        --smoke) smoke=1 rounds=1 milliseconds=0.5 files=50 inserts=100 ;;
        -r) rounds=$2; shift ;;
        --only) only=$2; shift ;;
        --operations | --programs | --two) parts="$parts ${1#--}" ;;
        -h|--help) usage; exit 0 ;;
        *) usage >&2; exit 1 ;;
    esac
    shift
done
parts=${parts:-operations programs two}
[ "$(id -u)" = 0 ] || { echo "$0: needs root, to mount a tmpfs" >&2; exit 1; }
[ -x "$FOS" ] || { echo "$0: $FOS is not there; build it with: swift build -c release --product fos" >&2; exit 1; }

BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-bench.XXXXXX")
clean() {
    cd /
    ! mountpoint -q "$BASE/tmpfs" || umount "$BASE/tmpfs" || umount -l "$BASE/tmpfs"
    ! mountpoint -q "$BASE/fos" || "$FOS" umount "$BASE/fos" || umount -l "$BASE/fos"
    rm -rf --one-file-system "$BASE"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
mkdir "$BASE/fos" "$BASE/tmpfs"
cc -O2 -Wall -Wextra -Werror -o "$BASE/fsbench" ../files/fsbench.c
mount -t tmpfs -o size=50%,mode=755 fos-bench "$BASE/tmpfs"
"$FOS" mount "$BASE/fos"
SHIM=$("$FOS" shim-path)
[ "$smoke" = 0 ] || echo "(a smoke run: the figures mean nothing)"
printf '%s, %s CPUs, Linux %s; medians of %s rounds\n' \
    "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" "$rounds"

# Reads "name fos tmpfs" (tab-separated, ns) and prints a table with the goals of goals.tsv.
table() {
    awk -F '\t' -v title="$1" '
        FILENAME != "-" { goal[$1] = $2; next }
        FNR == 1 { printf "\n%-28s %14s %14s %11s %6s\n", title, "fos", "tmpfs", "fos/tmpfs", "goal" }
        $2 > 0 && $3 > 0 {
            unit = $3 >= 10e6 ? "ms" : "us"; scale = unit == "ms" ? 1e6 : 1e3
            printf "%-28s %11.2f %s %11.2f %s %11.2f %6s%s\n", $1, $2 / scale, unit, $3 / scale, unit, $2 / $3,
                ($1 in goal ? goal[$1] : ""), ($1 in goal && $2 / $3 > goal[$1] ? "  missed" : "")
        }' goals.tsv -
}

if [[ $parts == *operations* ]]; then
    LD_PRELOAD=$SHIM "$BASE/fsbench" -t -r "$rounds" -m "$milliseconds" "fos=$BASE/fos" "tmpfs=$BASE/tmpfs" | tail -n +2 |
        grep -v 'dropped\|DIRECT' | table "one client"
fi

# ---- whole programs: alternating, medians ------------------------------------------------------------------------------
mkdir "$BASE/tmpfs/input"
tar -cf "$BASE/tmpfs/input/tree.tar" --exclude='.build*' -C "$ROOT" Sources Tests shim docs -C / usr/include/linux usr/include/asm-generic
# Scripts that run in an empty directory: what is timed follows the line "--", what it needs is made before it.
programs=(
    "untar a source tree" "-- tar -xf \$INPUT/tree.tar"
    "cp -r" "tar -xf \$INPUT/tree.tar -- cp -r usr copy"
    "find" "tar -xf \$INPUT/tree.tar -- find . -name '*.h' -newer usr -size +1k > /dev/null"
    "grep -r" "tar -xf \$INPUT/tree.tar -- grep -r -c include usr > /dev/null"
    "rm -r" "tar -xf \$INPUT/tree.tar -- rm -r usr"
    "git status of many files" "git init -q .; for i in \$(seq $files); do echo \$i > f\$i; done; git add . -- git status > /dev/null"
    "git add of many files" "git init -q .; for i in \$(seq $files); do echo \$i > f\$i; done -- git add ."
    "python3 -m compileall" "cp -r /usr/lib/python3/dist-packages /usr/lib/python3.*/json /usr/lib/python3.*/email . 2> /dev/null || true -- python3 -m compileall -q -f . > /dev/null || true"
    "sqlite3, many inserts" "-- (echo 'create table t(a integer primary key, b text);'; for i in \$(seq $inserts); do echo \"insert into t values(\$i, 'row \$i');\"; done) | sqlite3 db"
    "make" "for i in \$(seq 20); do printf '#include <stdio.h>\\n#include <stdlib.h>\\nint f%d(void) { return %d; }\\n' \$i \$i > f\$i.c; done; printf 'all: \$(patsubst %%.c,%%.o,\$(wildcard *.c))\\n\\tar rc lib.a *.o\\n' > Makefile -- make -s -j2"
)
# Runs the script of program $1 on system $2 and prints the ns that it took.
run_program() {
    local directory=$BASE/$2/work.$BASHPID preload='' before=${1%%-- *} timed=${1#*-- } start
    [ "$2" = tmpfs ] || preload=$SHIM
    mkdir "$directory"
    cd "$directory"
    export INPUT=$BASE/tmpfs/input
    [ -z "$before" ] || LD_PRELOAD=$preload bash -c "$before"
    start=$(date +%s%N)
    LD_PRELOAD=$preload bash -c "$timed" || echo "failed: $timed" >&2
    echo $(($(date +%s%N) - start))
    cd /
    rm -rf "$directory"
}
median() { sort -n | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }'; }
if [[ $parts == *programs* ]]; then
    for ((p = 0; p < ${#programs[@]}; p += 2)); do
        [[ ${programs[p]} == *"$only"* ]] || continue
        : > "$BASE/fos.times"; : > "$BASE/tmpfs.times"
        for round in $(seq "$rounds"); do
            # Each is the first one as often as the other, so that what the one before it leaves to the machine hits both.
            [ $((round % 2)) = 1 ] && order="fos tmpfs" || order="tmpfs fos"
            for system in $order; do (run_program "${programs[p + 1]}" "$system") >> "$BASE/$system.times"; done
        done
        printf '%s\t%s\t%s\n' "${programs[p]}" "$(median < "$BASE/fos.times")" "$(median < "$BASE/tmpfs.times")"
    done | table "whole programs"
fi

# ---- two clients at once -------------------------------------------------------------------------------------------------
if [[ $parts == *two* ]]; then
    for operation in stat open+close create+unlink rename mkdir+rmdir "read 4 KiB, cached" "write 4 KiB"; do
        for system in fos tmpfs; do
            preload=''
            [ "$system" = tmpfs ] || preload=$SHIM
            for client in 1 2; do
                LD_PRELOAD=$preload "$BASE/fsbench" -t -r "$rounds" -m "$milliseconds" -o "=$operation" "x=$BASE/$system" | tail -n +2 | cut -f 2 > "$BASE/$system.$client" &
            done
            wait
        done
        printf '%s, two at once\t%s\t%s\n' "$operation" "$(cat "$BASE"/fos.[12] | awk '{ s += $1 } END { print s / NR }')" \
            "$(cat "$BASE"/tmpfs.[12] | awk '{ s += $1 } END { print s / NR }')"
    done | table "two clients at once"
fi
