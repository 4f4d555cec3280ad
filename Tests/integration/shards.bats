#!/usr/bin/env bats
# Directories of three entries and more are spread over the file servers, while their number changes: real programs see what
# they see on a local disk.
load helper

setup_file() { start_mount --servers 1-4 -o shards=3; }

@test "a directory grows, is listed, renamed, changed and removed" {
    "$FOS" fleet --file 3 "$MOUNT" > /dev/null
    same <<'SH'
mkdir d; cd d; for i in $(seq 200); do echo "$i" > f$i; done; ls | sort -V | tail -3; ls | wc -l
mkdir $(seq -f 'sub%g' 20); ls -d sub* | wc -l
for i in $(seq 1 2 200); do mv f$i g$i; done; ls | sort -V | md5sum; cat g77 f78
ln f2 l2; ln -s f4 s4; mv -f f6 f8; cat f8 l2 s4; mkdir f10 2>&1 || :; ls f6 2>&1 || :
chmod 500 .; stat -c %a .; chmod 755 .; touch -d '2020-01-02 03:04:05' .; stat -c %Y .; touch new; [ "$(stat -c %Y .)" -gt 1600000000 ] && echo newer
rmdir ../d 2>&1 || :; find . -type f | sort | md5sum; rm -rf ./* ; ls -A | wc -l; cd ..; rmdir d; ls -A
SH
}

@test "a tree of many directories is unpacked, searched, copied and removed" {
    same <<'SH'
mkdir src; cd src; for d in $(seq 12); do mkdir -p p$d/q$d; for f in $(seq 9); do echo "$d $f" > p$d/f$f.c; ln -s ../f$f.c p$d/q$d/l$f; done; done; cd ..
tar cf src.tar src; mkdir out; tar xf src.tar -C out; diff -r src out/src && echo same; cp -a src copy; diff -r src copy && echo same
find src -name '*.c' -newer src.tar | sort; find copy -type l | sort | md5sum; find out -type f -delete; find out -type f | wc -l; du -a copy | wc -l
rm -r out; rm -r src/p1 src/p2; find src -type d | sort | md5sum; mv src/p3 copy/p3b; find copy -name 'f5.c' | sort; rm -rf src copy src.tar; ls -A
SH
}

@test "git, tar and find work in large directories while the fleet grows and shrinks" {
    busy=$BATS_TEST_TMPDIR/busy
    touch "$busy"
    while [ -e "$busy" ]; do
        for size in 4 1 3 2; do "$FOS" fleet --file "$size" "$MOUNT" > /dev/null || echo "$size" >> "$busy.failed"; done
    done & mover=$!
    same <<'SH'
mkdir r; cd r; git init -q .; for i in $(seq 300); do echo "$i" > f$i; done; git add .; git -c user.name=a -c user.email=a@b commit -qm one
for i in $(seq 1 3 300); do git mv f$i m$i; done; git -c user.name=a -c user.email=a@b commit -qm two; git status --short; git fsck --strict 2>&1
git checkout -q HEAD~1; ls | sort -V | md5sum; cd ..; tar cf r.tar r; mkdir q; tar xf r.tar -C q; diff -r r q/r && echo same; rm -rf r q r.tar; ls -A
SH
    rm "$busy"
    wait "$mover"
    [ ! -e "$busy.failed" ] || { cat "$busy.failed"; false; }
}
