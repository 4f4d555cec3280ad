#!/bin/bash
# Fetches the source of a Debian package and prints where its upstream archive lies.
#
# usage: scripts/debian-source.sh PACKAGE DIR
#
# The archive is kept in DIR, so it is fetched once. It comes from where the system's own packages come from, for the release that
# runs, and is checked with Debian's keys; nothing of the system's own lists of packages is touched, and no rights are needed.
# Exit status: 0; 1 the arguments are wrong; 2 it cannot be had (no network, not a Debian), with apt's reason.
set -eu -o pipefail

[ $# = 2 ] || { sed -n '/^# usage/{s/^# //; p}' "$0" >&2; exit 1; }
package=$1
mkdir -p "$2"
cd "$2"
there() { find "$PWD" -maxdepth 1 -name "${package}_*.orig.tar.*" ! -name '*.asc' | head -n 1 | grep .; }
if there; then exit; fi

command -v apt-get >/dev/null || { echo "$0: this is not a Debian-like system" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
    awk -F'|' -v release="$release" -v keys=/usr/share/keyrings/debian-archive-keyring.gpg \
        '$1 == "Debian" && $2 == release && $3 == "main" { print "deb-src [signed-by=" keys "] " $4 " " $2 " " $3 }' |
    sort -u > "$work/sources.list"
[ -s "$work/sources.list" ] || { echo "$0: apt knows no Debian archive for '$release'" >&2; exit 2; }
apt() {
    apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 "$@" > "$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 2; }
}
apt update
apt source --download-only "$package"
there || { echo "$0: $package has no upstream archive of its own" >&2; exit 2; }
