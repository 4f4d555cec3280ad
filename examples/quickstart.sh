#!/bin/bash
# A fos file system in one command: installs what is missing, builds, mounts, does real work on the mount, does the same
# work on the local disk, compares the results, and unmounts. Safe to run again.
#
# usage: examples/quickstart.sh [--no-install]
#
#   FOS_SCRATCH=DIR    build folder (default .build)
#   TMPDIR=DIR         where the mount and the local copy are made (default /tmp)
set -eu
self=$(realpath "$0")
usage() { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$self"; }
cd "$(dirname "$0")/.."
ROOT=$PWD
SCRATCH=${FOS_SCRATCH:-$ROOT/.build}
FOS=$SCRATCH/release/fos
case ${1:-} in
    --no-install) ;;
    '') scripts/dependencies.sh all ;;
    -h|--help) usage; exit 0 ;;
    *) usage >&2; exit 1 ;;
esac

say() { printf '\n%s\n' "$*"; }

say "Building fos (the first time takes a few minutes)"
swift build -c release --product fos --scratch-path "$SCRATCH" --explicit-target-dependency-import-check error
make -s -C shim all beside SCRATCH="$SCRATCH"

BASE=$(mktemp -d "${TMPDIR:-/tmp}/fos-quickstart.XXXXXX")
MOUNT=$BASE/mount LOCAL=$BASE/local
mkdir "$MOUNT" "$LOCAL"
clean() {
    cd /
    if findmnt -n -M "$MOUNT" >/dev/null 2>&1; then
        "$FOS" umount "$MOUNT" || fusermount3 -u -z "$MOUNT"
    fi
    rm -rf --one-file-system "$BASE"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

say "Mounting: fos mount $MOUNT"
"$FOS" mount "$MOUNT"
findmnt -o TARGET,SOURCE,FSTYPE,SIZE -M "$MOUNT"

# A real source tree to unpack: this project's own and the system's C headers, as a compressed tar file.
tar -czf "$BASE/source.tar.gz" --exclude='.build*' -C "$ROOT" Sources Tests shim docs -C / usr/include/linux usr/include/x86_64-linux-gnu/bits 2>/dev/null \
    || tar -czf "$BASE/source.tar.gz" --exclude='.build*' -C "$ROOT" Sources Tests shim docs -C / usr/include/linux

# ---- the work, as a script that is run once in each place; what it prints must be the same --------------------------
cat > "$BASE/work.sh" <<'WORK'
set -eu
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 PYTHONDONTWRITEBYTECODE=1 LC_ALL=C TZ=UTC
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z

step() { echo "== $1"; }
step "unpack a source tree with tar"
mkdir tree
tar -xzf "$SOURCE" -C tree
find tree -type f | wc -l

step "git init, add, commit, clone, fsck"
git -c init.defaultBranch=main init -q tree
git -C tree add .
git -C tree -c gc.auto=0 commit -qm "A source tree"
git -C tree rev-parse HEAD
git clone -q tree clone
git -C clone fsck --full
git -C clone status --short
diff -r -x .git tree clone && echo "the clone is the same"

step "build a C program with make, and run it"
mkdir build
cd build
for i in 1 2 3 4 5 6 7 8; do
    echo "int f$i(int x) { return x * $i + 1; }" > f$i.c
    echo "int f$i(int);" >> all.h
done
cat > main.c <<'C'
#include <stdio.h>
#include "all.h"
int main(void) {
    printf("%d\n", f1(f2(f3(f4(f5(f6(f7(f8(1)))))))));
    return 0;
}
C
cat > Makefile <<'MAKE'
objects := $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(objects)
	@$(CC) -o $@ $(objects)
%.o: %.c all.h
	@$(CC) -O2 -Wall -c -o $@ $<
MAKE
make -j2
./prog
make
cd ..

step "python3: modules, a database, processes"
cat > work.py <<'PYTHON'
import hashlib, multiprocessing, os, shelve, sqlite3

def digest(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()

if __name__ == "__main__":
    paths = sorted(os.path.join(d, f) for d, _, names in os.walk("tree/Sources") for f in names)
    with multiprocessing.Pool(2) as pool:
        print(hashlib.sha256("".join(pool.map(digest, paths)).encode()).hexdigest()[:16])
    with shelve.open("shelf", flag="n") as shelf:
        for i in range(100):
            shelf[str(i)] = list(range(i))
        print(sum(len(v) for v in shelf.values()))
    with sqlite3.connect("python.db") as db:
        db.execute("create table t(a)")
        db.executemany("insert into t values(?)", ((i,) for i in range(1000)))
        print(db.execute("select sum(a) from t").fetchone())
PYTHON
python3 work.py

step "sqlite3: write-ahead log, two writers, integrity check"
sqlite3 shop.db 'pragma journal_mode=wal; create table t(w, n);'
for w in 1 2; do
    (for n in $(seq 25); do sqlite3 -cmd '.timeout 20000' shop.db "insert into t values($w, $n)"; done) &
done
wait
sqlite3 shop.db 'select w, count(*), sum(n) from t group by w; pragma integrity_check'

step "move, link, delete"
mv tree/Sources moved
ln moved/../build/prog hard
ln -s build soft
stat -c '%n %h %F' hard soft
rm -rf clone tree/.git
ls
WORK

work() {
    local dir=$1 out=$2 start end
    start=$(date +%s%N)
    (cd "$dir" && SOURCE=$BASE/source.tar.gz bash "$BASE/work.sh") > "$out" 2>&1 || { cat "$out"; echo "the work failed in $dir" >&2; exit 1; }
    end=$(date +%s%N)
    TOOK=$(((end - start) / 1000000))
}
say "Real work on the mount: tar, git, make with gcc, python3, sqlite3"
work "$MOUNT" "$BASE/on-mount"
MOUNT_TOOK=$TOOK
cat "$BASE/on-mount"
say "The same work on the local disk"
work "$LOCAL" "$BASE/on-local"

# ---- the comparison -------------------------------------------------------------------------------------------------
diff -u "$BASE/on-local" "$BASE/on-mount" || { echo "the outputs differ" >&2; exit 1; }
# Databases hold times and counters of their own, so they are compared by content above.
tree() { (cd "$1" && find . -mindepth 1 ! -name '*.db*' ! -name 'shelf*' -printf '%P %y %m %n %l\n' | sort; cd "$1" && find . -type f ! -name '*.db*' ! -name 'shelf*' -exec sha256sum {} + | sort); }
tree "$LOCAL" > "$BASE/tree-local"
tree "$MOUNT" > "$BASE/tree-mount"
diff -u "$BASE/tree-local" "$BASE/tree-mount" || { echo "the trees differ" >&2; exit 1; }

say "Same output, same trees ($(wc -l < "$BASE/tree-mount") lines compared). $MOUNT_TOOK ms on fos, $TOOK ms on the local disk."
say "The mount now: fos status"
"$FOS" status "$MOUNT"
say "Unmounting: fos umount $MOUNT"
"$FOS" umount "$MOUNT"
echo "done"
