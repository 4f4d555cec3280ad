#!/bin/bash
# Installs the Debian packages that fos needs and that are missing; says so in one line if none is.
#
# usage: scripts/dependencies.sh [build|test|all]      (default: build)
#
#   build  what `swift build` links with and what a mount needs
#   test   what the integration tests and the benchmarks run besides
#   all    both
#
# This is the only list of packages: the README's commands, examples/quickstart.sh and Tests/run.sh call it. Uses sudo
# when not root. Swift itself is not a Debian package; without it, this says where to get it and fails.
set -eu

build=(libfuse3-dev libhwloc-dev libcapstone-dev pkg-config fuse3 gcc libc6-dev make git)
test=(
    bats jq bindfs fuse-overlayfs fio dbench stress-ng                # the test runner, the peers, the load
    rsync zip unzip cpio xz-utils bzip2 sqlite3 vim perl attr patch   # programs whose work is compared
    g++ python3 python3-venv libpython3.11-testsuite busybox-static xxd procps psmisc util-linux
)

case ${1:-build} in
    build) wanted=("${build[@]}") ;;
    test) wanted=("${test[@]}") ;;
    all) wanted=("${build[@]}" "${test[@]}") ;;
    -h | --help) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$0"; exit 0 ;;
    *) echo "usage: $0 [build|test|all]" >&2; exit 1 ;;
esac

if ! command -v swift >/dev/null; then
    echo "$0: swift is not installed, or not on PATH; fos needs Swift 6.2 or later: https://www.swift.org/install/linux/" >&2
    exit 1
fi

missing_of() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || echo "$package"
    done
}

if ! command -v dpkg-query >/dev/null; then
    echo "$0: this is not a Debian-like system; install what corresponds to: ${wanted[*]}" >&2
    exit 1
fi
mapfile -t missing < <(missing_of "${wanted[@]}")
if [ ${#missing[@]} = 0 ]; then
    echo "dependencies: nothing is missing"
    exit 0
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "$0: missing: ${missing[*]}; install them as root (there is no sudo)" >&2
        exit 1
    fi
    as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q "$@"; }

echo "dependencies: installing ${missing[*]}"
# The lists of packages may be absent or old; only when the first try fails is it worth the time to fetch them.
if ! apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    # One list that cannot be fetched (a third party's) must not stand in the way of Debian's own.
    apt update >/dev/null 2>&1 || true
    apt install -y --no-install-recommends "${missing[@]}" >/dev/null
fi
