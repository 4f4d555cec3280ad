#!/bin/bash
# Times file operations on a fos mount against memory (tmpfs) and against FUSE peers over tmpfs (bindfs and
# fuse-overlayfs), in one run on one machine, and prints times and ratios; then the same for unpacking a source tree.
# With --floor, for operations that need nothing from a file system but an answer, also against a FUSE server that
# answers at once and does nothing (empty.c): what the kernel and two switches a request take.
#
# usage: Benchmarks/files/run.sh [--smoke] [--floor] [-r ROUNDS] [-m MILLISECONDS] [-o OPERATION]... [--mount-option X]...
#
#   --smoke         the smallest run: shows that it works, its figures mean nothing
#   -r, -m, -o      as fsbench says: rounds, milliseconds for one operation, only some operations
#   --mount-option  handed to fos mount, for instance --mount-option=--cpus=1
#
# Goals: a cached read within 1.2 times of tmpfs; each metadata operation and uncached read or write at least 1.5 times
# faster than bindfs. Needs root (to mount a tmpfs); a peer that is not installed is left out.
set -eu
self=$(realpath "$0")
usage() { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$self"; }
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
FOS=${FOS:-${FOS_SCRATCH:-$ROOT/.build}/release/fos}
rounds=9 milliseconds=20 only=() unpack_rounds=5 mount_options=() smoke=0 floor=0
while [ $# -gt 0 ]; do
    case $1 in
        --smoke) smoke=1 rounds=1 milliseconds=0.5 unpack_rounds=1 ;;
        -r) rounds=$2; shift ;;
        -m) milliseconds=$2; shift ;;
        -o) only+=(-o "$2") unpack_rounds=0; shift ;;
        --floor) floor=1 unpack_rounds=0 ;;
        --mount-option=*) mount_options+=("${1#*=}") ;;
        -h|--help) usage; exit 0 ;;
        *) usage >&2; exit 1 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "$0: needs root, to mount a tmpfs" >&2; exit 1; }
[ -x "$FOS" ] || { echo "$0: $FOS is not there; build it with: swift build -c release --product fos" >&2; exit 1; }

BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-bench.XXXXXX")
clean() {
    local d
    cd /
    for d in empty fuse-overlayfs bindfs tmpfs; do ! mountpoint -q "$BASE/$d" || umount "$BASE/$d" || umount -l "$BASE/$d"; done
    ! mountpoint -q "$BASE/fos" || "$FOS" umount "$BASE/fos" || umount -l "$BASE/fos"
    rm -rf --one-file-system "$BASE"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
mkdir "$BASE/fos" "$BASE/tmpfs" "$BASE/bindfs" "$BASE/fuse-overlayfs" "$BASE/empty"

cc -O2 -Wall -Wextra -Werror -o "$BASE/fsbench" fsbench.c
mount -t tmpfs -o size=50%,mode=755 fos-bench "$BASE/tmpfs"
mkdir "$BASE/tmpfs/plain" "$BASE/tmpfs/bind" "$BASE/tmpfs/lower" "$BASE/tmpfs/upper" "$BASE/tmpfs/work"
"$FOS" mount "$BASE/fos" ${mount_options[@]+"${mount_options[@]}"}
systems=("fos=$BASE/fos" "tmpfs=$BASE/tmpfs/plain")
if command -v bindfs >/dev/null; then
    bindfs "$BASE/tmpfs/bind" "$BASE/bindfs"
    systems+=("bindfs=$BASE/bindfs")
fi
if command -v fuse-overlayfs >/dev/null; then
    fuse-overlayfs -o "lowerdir=$BASE/tmpfs/lower,upperdir=$BASE/tmpfs/upper,workdir=$BASE/tmpfs/work" "$BASE/fuse-overlayfs" 2> "$BASE/said" \
        || { cat "$BASE/said" >&2; exit 1; }
    systems+=("fuse-overlayfs=$BASE/fuse-overlayfs")
fi
if [ "$floor" = 1 ]; then
    cc -O2 -Wall -Wextra -Werror -o "$BASE/empty-server" empty.c $(pkg-config --cflags --libs fuse3)
    "$BASE/empty-server" "$BASE/empty" &
    for try in $(seq 100); do ! mountpoint -q "$BASE/empty" || break; sleep 0.05; done
    mountpoint -q "$BASE/empty" || { echo "$0: the empty server did not mount" >&2; exit 1; }
    systems+=("empty=$BASE/empty")
    # What it can answer: it finds and lists nothing.
    [ ${#only[@]} -gt 0 ] || only=(-o =create+unlink -o =create+write\ 4\ KiB+unlink -o =rename -o =mkdir+rmdir -o =link+unlink
        -o =symlink+readlink+unlink -o =chmod -o '=read 4 KiB, page dropped' -o '=write 4 KiB' -o '=read 1 MiB, pages dropped' -o '=write 1 MiB')
fi

[ "$smoke" = 0 ] || echo "(a smoke run: the figures mean nothing)"
printf '%s, %s CPUs, Linux %s; medians of %s rounds\n\n' \
    "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" "$rounds"
"$BASE/fsbench" -r "$rounds" -m "$milliseconds" ${only[@]+"${only[@]}"} "${systems[@]}"

# ---- unpacking a source tree: tar from memory, alternating, medians --------------------------------------------------
[ "$unpack_rounds" -gt 0 ] || exit 0
tar -cf "$BASE/tmpfs/source.tar" --exclude='.build*' -C "$ROOT" Sources Tests shim docs -C / usr/include/linux
files=$(tar -tf "$BASE/tmpfs/source.tar" | grep -cv '/$')
for round in $(seq "$unpack_rounds"); do
    for s in "${systems[@]}"; do
        mkdir "${s#*=}/unpack"
        start=$(date +%s%N)
        tar -xf "$BASE/tmpfs/source.tar" -C "${s#*=}/unpack"
        echo "${s%%=*} $(($(date +%s%N) - start))" >> "$BASE/unpacked"
        start=$(date +%s%N)
        rm -r "${s#*=}/unpack"
        echo "${s%%=*} $(($(date +%s%N) - start))" >> "$BASE/removed"
    done
done
report() {
    sort -k1,1 -k2,2n "$2" | awk -v what="$1" '
        { n[$1]++; t[$1, n[$1]] = $2 }
        END {
            for (s in n) median[s] = t[s, int((n[s] + 1) / 2)]
            printf "%s: fos %.1f ms, tmpfs %.1f ms (fos/tmpfs %.2f)", what, median["fos"] / 1e6, median["tmpfs"] / 1e6,
                median["fos"] / median["tmpfs"]
            for (s in n) if (s != "fos" && s != "tmpfs") printf "; %s %.1f ms (%s/fos %.2f)", s, median[s] / 1e6, s, median[s] / median["fos"]
            printf "\n"
        }'
}
echo
report "unpack a source tree of $files files with tar" "$BASE/unpacked"
report "rm -r of it" "$BASE/removed"
