#!/usr/bin/env bats
# GNU coreutils on the mount: each case does the same on a local disk and compares outputs and trees.
load helper

@test "touch, mkdir, cat, wc, head, tail, tac, rev on small files" {
    same <<'SH'
mkdir -p a/b/c; touch a/empty; printf 'one\ntwo\nthree\n' > a/b/file
cat a/b/file a/empty; wc a/b/file; head -n 1 a/b/file; tail -n 1 a/b/file; tac a/b/file; tail -c 3 a/b/file
seq 100000 > numbers; tac numbers | head -n 3; tail -n +99999 numbers; md5sum numbers; cksum numbers a/b/file
nl a/b/file
paste a/b/file a/b/file; join <(sort a/b/file) <(sort a/b/file); comm -12 <(sort a/b/file) <(sort a/b/file)
SH
}

@test "cp -a keeps modes, times, links, xattrs and holes" {
    same <<'SH'
mkdir -p from/sub; echo hello > from/file; ln from/file from/hard; ln -s file from/soft
ln -s /nowhere from/dangling
mkfifo from/pipe; chmod 4751 from/file; chmod 2775 from/sub; chmod 600 from/pipe
truncate -s 5M from/sparse; echo middle | dd of=from/sparse bs=1 seek=2000000 conv=notrunc status=none
setfattr -n user.note -v "a value" from/file; setfattr -n user.bin -v 0x00ff10 from/sub
touch -d '2001-02-03 04:05:06.987654321' from/file from/sub/../sparse; touch -h -d '1999-01-01' from/soft
touch -d '2000-01-01 00:00:00.000000001' from/sub from
cp -a from to; cp -a --sparse=always from/sparse again; cp --reflink=auto from/file reflink; cp -r from plain
cp -l from/file linked; cp -s "$DIR/from/file" symbolic
cmp from/sparse to/sparse; cmp from/sparse again
diff <(cd from; find . -type f -exec md5sum {} + | sort) <(cd to; find . -type f -exec md5sum {} + | sort)
SH
}

@test "cp and install: overwrite, backup, update, target directory, -t, -D, --parents" {
    same <<'SH'
echo 1 > a; echo 2 > b; cp --backup=numbered a b; cp --backup=numbered a b; cat b b.~1~ b.~2~
cp -n a b; cp -u a b; mkdir d; cp -t d a b; install -m 640 a d/installed; install -D a deep/er/x
install -d -m 700 made
cp --parents deep/er/x d; cp -T a d/named; cp -f a d/installed; cp -v a b d
cp a a 2>&1 || echo "status $?"; cp d e 2>&1 || echo "status $?"; cp missing x 2>&1 || echo "status $?"
cp a d/ d/ 2>&1 || echo "status $?"
touch -d 2002-02-02 a b b.~1~ b.~2~
SH
}

@test "mv: rename, over a file, over a directory, into itself, -n, exchange of names" {
    same <<'SH'
echo 1 > a; echo 2 > b; mkdir d e f; echo x > d/x; mv a c; mv c b; cat b; mv b d; mv d e/moved; ls -R
mkdir full; touch full/y; mv -T f full 2>&1 || echo "status $?"; mv -T full f; ls -R
mv f f/inside 2>&1 || echo "status $?"; mv e/moved/x e/moved/x 2>&1 || echo "status $?"; touch p q
echo keep > p; mv -n q p; cat p
mv -T p f 2>&1 || echo "status $?"; mv -T f p 2>&1 || echo "status $?"; mv nothing x 2>&1 || echo "status $?"
mkdir g; mv p q g; ls -R
SH
}

@test "mv across the mount's edge, both ways" {
    same <<'SH'
out=$(mktemp -d /tmp/fos-edge.XXXXXX); mkdir -p tree/sub; echo data > tree/sub/file; ln tree/sub/file tree/hard
ln -s sub tree/link
touch -d '2003-03-03 03:03:03.333333333' tree/sub/file; mv tree "$out/"; ls; mv "$out/tree" back
cat back/link/file
rm -rf "$out"
SH
}

@test "ln: hard, symbolic, relative, force, errors, link counts" {
    same <<'SH'
echo a > a; ln a b; ln b c; stat -c '%n %h' a b c; rm b; stat -c '%n %h' a c; ln -s a s; ln -sf c s; readlink s
cat s
mkdir d; ln -sr c d/rel; readlink d/rel; cat d/rel; ln -sfn d sd; ln -sfn a sd; readlink sd
ln d hd 2>&1 || echo "status $?"
ln a c 2>&1 || echo "status $?"; ln -f a c; ln -s loop loop; cat loop 2>&1 || echo "status $?"
readlink -f d/rel | sed "s|$DIR|here|"; realpath --relative-to=. d/rel
ln -s "$(printf 'x%.0s' $(seq 4000))" long; readlink long | wc -c; link a e; unlink e; stat -c '%h' a
ln -P s ps; readlink ps
realpath -e nothing 2>&1 || echo "status $?"; realpath -m nothing/at/all; pwd -P | xargs basename | wc -l
SH
}

@test "truncate, dd and split: sizes, holes, offsets, appending" {
    same <<'SH'
truncate -s 10K a; truncate -s -1K a; truncate -s %4096 a; stat -c %s a; truncate -r a b; stat -c %s b
truncate -s 3 b; xxd b
seq 1 20000 > s; dd if=s of=t bs=777 count=10 skip=3 seek=5 status=none; dd if=s of=t bs=100 seek=2 conv=notrunc count=1 status=none; md5sum t
dd if=s of=u oflag=append conv=notrunc bs=1k count=3 status=none; dd if=s of=u oflag=append conv=notrunc bs=1k count=3 status=none; stat -c %s u
dd if=/dev/zero of=z bs=1M count=3 conv=fsync status=none; dd if=z of=y bs=64k conv=sparse,fdatasync status=none; cmp z y
dd if=s of=x conv=excl bs=1k status=none; dd if=s of=x conv=excl status=none 2>&1 || echo "status $?"
split -b 10000 s part-; cat part-* | cmp - s; split -l 5000 --additional-suffix=.txt -d s n; wc -l n*.txt
csplit -s s 100 '{3}'; wc -l xx*
split -n 3 s chunk; wc -c chunk*; shuf -n 5 s | wc -l; fallocate -l 1M f; stat -c %s f; fallocate -n -l 2M f
stat -c %s f; fallocate -p -o 4096 -l 8192 f; cmp -n 1048576 f /dev/zero
SH
}

@test "dd with O_DIRECT, O_SYNC and O_DSYNC" {
    same <<'SH'
dd if=/dev/urandom of=/dev/shm/random.$$ bs=4k count=64 status=none
dd if=/dev/shm/random.$$ of=direct bs=4k oflag=direct status=none; cmp direct /dev/shm/random.$$
dd if=direct bs=16k iflag=direct status=none | cmp - /dev/shm/random.$$
dd if=/dev/shm/random.$$ of=sync bs=8k oflag=sync status=none; dd if=/dev/shm/random.$$ of=dsync bs=8k oflag=dsync status=none
cmp sync dsync; dd if=sync of=nocache bs=64k iflag=nocache oflag=nocache status=none; cmp sync nocache; rm -f /dev/shm/random.$$ direct sync dsync nocache
SH
}

@test "sort -T, uniq, big temporary files on the mount" {
    same <<'SH'
mkdir tmp; seq 300000 | awk '{print ($1 * 7919) % 1000003}' > in; sort -n -S 1M -T tmp in > out; sort -c -n out
md5sum out; ls -A tmp
sort -u -S 1M --parallel=2 -T tmp in | wc -l; sort -R --random-source=in in | sort -n | cmp - out
sort -o in -n in; cmp in out; uniq -c out | head -n 2
SH
}

@test "stat formats, test operators, file types" {
    same <<'SH'
echo abc > f; chmod 1640 f; mkdir d; mkfifo p; ln -s f l; touch -d '2010-10-10 10:10:10.101010101' f
touch -a -d '2011-11-11 11:11:11' f
stat -c '%A %a %F %h %s %n %N %U %G %u %g %Y %X %y %x' f; stat -c '%F %A' d p l; stat -L -c '%F' l
stat -c '%t %T' f
for t in -e -f -d -p -L -r -w -x -s -u -g -k -O -G; do test $t f && echo "$t"; done; [ f -ef l ]
mkdir -m 700 newer; touch g; [ g -nt f ]; ls -l f | cut -c1-10
stat -c '%B' f; test "$(stat -c %o f)" -ge 512; test "$(stat -c %b f)" -ge 1
stat missing 2>&1 || echo "status $?"; stat f/x 2>&1 || echo "status $?"
SH
}

@test "touch: now, given times, -a, -m, -r, -c, -h, nanoseconds, before 1970 and after 2038" {
    same <<'SH'
touch -d '1970-01-01 00:00:00 UTC' epoch; touch -d '1960-05-05 05:05:05' before
touch -d '2040-01-02 03:04:05.678' after; touch -d '2106-02-08' later
touch -c nothing; ls; touch -r after ref; stat -c '%n %Y %X' *; touch -m -d 2001-01-01 ref
touch -a -d 2002-02-02 ref; stat -c '%n %Y %X' ref
ln -s nowhere l; touch -h -d '1998-08-08' l; stat -c '%Y' l; touch l; ls; stat -c %y before after
touch -d '@1.999999999' ns; stat -c %.9Y ns
before=$(date +%s); touch now; t=$(stat -c %Y now); [ "$t" -ge "$before" ]; [ "$t" -le $((before + 10)) ]
touch -d '2001-01-01' now; cat now; stat -c %Y now
chmod 400 now; c=$(stat -c %Z now); [ "$c" -ge "$before" ]; rm -f nowhere
SH
}

@test "times change when they must: write, read, chmod, rename, link, unlink, entries of a directory" {
    same <<'SH'
old='2005-05-05 05:05:05'
changed() { [ "$(stat -c %Y "$1")" != "$(date -d "$old" +%s)" ] && echo "$1 changed" || echo "$1 same"; }
echo a > f; mkdir d; touch -d "$old" f d; chmod 600 f; changed f; ln f g; changed f; mv g d/g; changed f
changed d; touch -d "$old" d; rm d/g; changed d
touch -d "$old" d; touch d/new; changed d; touch -d "$old" d; echo x > d/new; changed d; touch -d "$old" f
cat f; changed f; echo b >> f; changed f
touch -d "$old" f; : >> f; changed f; : > f; touch -d "$old" f; : > f; changed f; touch -d "$old" f; : > f; changed f; touch -d "$old" f; truncate -s 0 f
changed f; mkdir d/s; touch -d "$old" d d/s; mv d/new d/s/new; changed d; changed d/s
touch -d "$old" f; setfattr -n user.x -v y f; changed f; touch -d "$old" f; chown "$(id -u)" f; changed f
touch -d 2004-04-04 -h f d d/s d/s/new
SH
}

@test "chmod, chown, umask, setuid and setgid bits" {
    same <<'SH'
touch f; mkdir d
for m in 0 777 644 4755 2755 1777 u+x,g-w,o= a+X u=rwxs,g=s; do chmod "$m" f; stat -c '%a %A' f; done
chmod 2775 d; mkdir d/sub; touch d/file; stat -c '%a %g' d/sub d/file | sed "s/$(id -g)/G/"
umask 077; touch private; mkdir privated; umask 002; touch shared; mkdir shareds; umask 0; touch all; mkdir alls
stat -c '%n %a' private privated shared shareds all alls
chmod -R g-rwx d; chmod --reference=all private; stat -c %a private; chgrp "$(id -g)" f; chmod 6755 f
echo data >> f; stat -c %a f; chmod 6755 f; truncate -s 0 f; stat -c %a f
chmod 4755 f; chown "$(id -u):$(id -g)" f; stat -c %a f; ln -s f l; chown -h "$(id -u)" l; chmod 0 f
[ "$(id -u)" = 0 ] || cat f 2>&1 || echo "status $?"; chmod 644 f
SH
}

@test "rm, rmdir: recursive, force, not empty, trailing slashes, dots" {
    same <<'SH'
mkdir -p a/b/c/d e; touch a/1 a/b/2 a/b/c/3; rmdir a 2>&1 || echo "status $?"; rmdir e
rm a 2>&1 || echo "status $?"; rm -r a/b; ls -R; rm -rf a nothing; ls
mkdir -p x/y/z; rmdir -p x/y/z; ls; mkdir x; rmdir x/. 2>&1 || echo "status $?"
rm -r . 2>&1 | head -n 1 || true; rmdir x/; touch f; rmdir f 2>&1 || echo "status $?"
rm f/ 2>&1 || echo "status $?"; unlink f
mkdir m && mkdir m 2>&1 || echo "status $?"; mkdir -p m/n m/n; mkdir q/r 2>&1 || echo "status $?"; touch t
mkdir t/u 2>&1 || echo "status $?"; chmod 000 t; rm -f t; ls
SH
}

@test "ls: sorting, recursion, long format without times, colours of types" {
    same <<'SH'
mkdir -p d/e; for i in 3 10 1 2; do head -c $((i * 1000)) /dev/zero > f$i; touch -d "2001-01-$i" f$i; done
touch -d 2001-01-20 d; ln -s f1 l; mkfifo p; chmod +x f2; touch .hidden
ls; ls -a; ls -A; ls -v; ls -S f*; ls -tr f*; ls -F; ls -R; ls --color=always | cat -v; ls -p; ls -d .
ls -l f* | awk '{print $1,$2,$5,$6,$7,$8,$9}'; ls -Q; ls -m; ls nothing 2>&1 || echo "status $?"
ls -U | sort; dir; vdir f1 | awk '{print $5}'
SH
}

@test "du --apparent-size, sum of blocks, df names the mount" {
    same <<'SH'
mkdir d; head -c 100000 /dev/urandom > d/a; truncate -s 50M d/hole; du -b d/a d/hole
du -a --apparent-size -B1 d/a; [ "$(du -k d/hole | cut -f1)" -lt 100 ]; [ "$(du -k d/a | cut -f1)" -ge 96 ]
rm -r d
SH
    df -P "$MOUNT" | tail -n 1
    df -P "$MOUNT" | tail -n 1 | awk '$2 < 1024 || $4 < 1 || $4 > $2 { exit 1 }'
    df -i -P "$MOUNT" | tail -n 1 | awk '$2 < 1000 || $4 > $2 { exit 1 }'
}

@test "tail -f follows what is appended" {
    same <<'SH'
: > log; (tail -n +1 -s 0.1 -f log --pid=$$ > seen & echo $! > pid)
for i in 1 2 3 4 5; do echo "line $i" >> log; sleep 0.1; done
for _ in $(seq 50); do [ "$(wc -l < seen)" = 5 ] && break; sleep 0.1; done; kill "$(cat pid)"; cat seen; rm pid
SH
}

@test "tee, mkfifo, mktemp, shred, sync, sum, base64, od" {
    same <<'SH'
echo hi | tee a b | tee c; tee -a a < b; cat a b c; mkfifo p; (cat p > got &) ; echo through > p
for _ in $(seq 50); do [ -s got ] && break; sleep 0.05; done; cat got
t=$(mktemp "$DIR/x.XXXXXX"); stat -c '%a %s' "$t"; rm "$t"; t=$(mktemp -d "$DIR/y.XXXXXX"); stat -c %a "$t"
rmdir "$t"; TMPDIR=$DIR mktemp | sed 's/tmp\..*/tmp/'; rm tmp.*
echo secret > s; shred -n 1 s; stat -c %s s; shred -u -n 1 -z s; ls; sync a; sync -d a; sync -f a; sync
base64 a | base64 -d | cmp - a; od -c a | head -n 2; sha256sum a > sums; sha256sum -c sums; b2sum a | cut -c1-8
md5sum missing 2>&1 || echo "status $?"
SH
}

@test "errors: one errno for each wrong path" {
    same <<'SH'
touch f; mkdir d; try() { "$@" 2>&1 || echo "status $?"; }
try cat d; try cat f/x; try cat missing; try mkdir f; try mkdir missing/x; try touch f/; try touch d/x/y
try ln -s x f; try rmdir missing; try mv missing f; try cat ""; try mkdir ""
try cat "$(printf 'n%.0s' $(seq 256))"; touch "$(printf 'n%.0s' $(seq 255))"; try truncate -s -1 missing; try truncate -s 1 d; try readlink f; try readlink d; try cp f d/x/y; try mkfifo f; try dd if=f of=d status=none; try test -e f/x; try cat f/; try ls f/.
rm n*
SH
}
