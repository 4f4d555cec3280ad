#!/bin/bash
# Times a message round trip to a file server against the bare cache-line ping-pong of the same two CPUs, on a mount of
# its own, in one run.
#
# usage: Benchmarks/messages/run.sh [--smoke] [ROUNDS]      (default: 61 rounds)
#
#   --smoke   three rounds: shows that it works, its figures mean nothing
#
# Goal: within 1.5 times of the floor.
set -eu
self=$(realpath "$0")
usage() { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$self"; }
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
FOS=${FOS:-${FOS_SCRATCH:-$ROOT/.build}/release/fos}
rounds=61
while [ $# -gt 0 ]; do
    case $1 in
        --smoke) rounds=3; echo "(a smoke run: the figures mean nothing)" ;;
        [1-9]*) rounds=$1 ;;
        -h|--help) usage; exit 0 ;;
        *) usage >&2; exit 1 ;;
    esac
    shift
done
[ -x "$FOS" ] || { echo "$0: $FOS is not there; build it with: swift build -c release --product fos" >&2; exit 1; }

BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-messages.XXXXXX")
clean() {
    ! mountpoint -q "$BASE/fos" || "$FOS" umount "$BASE/fos" || umount -l "$BASE/fos"
    rm -rf --one-file-system "$BASE"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
mkdir "$BASE/fos"
make -s build/messages
"$FOS" mount "$BASE/fos"
build/messages "$BASE/fos" "$rounds"
