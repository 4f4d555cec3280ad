#!/usr/bin/env bats
# Programs under the shim, static programs, and programs without the shim at work on one tree, and what they hand each other:
# descriptors with shared offsets, pipelines, redirections. What they say and leave is what it is on the local disk.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all
    start_mount
    need busybox
    cp "$(command -v busybox)" "$BASE/busybox"
    chmod 755 "$BASE/busybox"
    # A program that the shim cannot be in, and one that it is not in.
    export FOS_TEST_SHIM=1 STATIC=$BASE/busybox PLAIN="env -u LD_PRELOAD"
}
setup() { only_fos; }

@test "a shell under the shim redirects for static programs and for programs without the shim" {
    same <<'SH'
seq 300 > a; $STATIC cat < a > b; cmp a b; $PLAIN cat < b > c; cmp b c
{ echo one; $STATIC echo two; $PLAIN echo three; echo four; } > log; cat log
for i in 1 2 3 4 5; do echo "shim $i"; $STATIC echo "static $i"; $PLAIN echo "plain $i"; done >> log; $STATIC wc -l < log; wc -c < log
exec 3<> both; echo first >&3; $STATIC echo second >&3; $PLAIN echo third >&3; echo fourth >&3; exec 3>&-; cat both
exec 4< a; read -r x <&4; $STATIC sh -c 'read -r z; echo $z' <&4; read -r y <&4; echo "$x $y"; exec 4<&-
$STATIC sh -c 'echo from a static shell > s; cat s; mkdir d; mv s d/s; ln -s d/s l'; cat l; readlink l
echo more >> d/s; $STATIC cat d/s; $PLAIN cat d/s; $STATIC rm d/s; test ! -e d/s; $PLAIN rmdir d; test ! -e d; echo "$?"
SH
}

@test "pipelines and here-documents across all three" {
    same <<'SH'
seq 20000 | $STATIC sort -r | $PLAIN tee t1 | tail -n 5; $STATIC md5sum < t1; md5sum t1 | cut -c 1-32
$PLAIN sh -c 'seq 1000 > in'; sort -n in | $STATIC uniq | tee out | $PLAIN wc -l; cmp in out
cat <<A | $STATIC tee h1 | $PLAIN tee h2
text $((6 * 7))
A
cmp h1 h2; paste <($STATIC seq 5) <(seq 6 10) <($PLAIN seq 11 15) > p; cat p
tar -cf - in out h1 | $STATIC tar -tf -; $STATIC tar -cf x.tar in out; $PLAIN tar -xOf x.tar out | cmp - out; rm x.tar
find . -name 'h*' | $STATIC sort | $PLAIN xargs cat | wc -c
SH
}

@test "one file and one directory in turns, by message, through the mount and with an empty environment" {
    same <<'SH'
for i in $(seq 40); do echo "$i" > f; [ "$($STATIC cat f)" = "$i" ]; $STATIC sh -c "echo s$i > f"; [ "$(cat f)" = "s$i" ]; env -i PATH="$PATH" sh -c "echo p$i >> f"; [ "$(wc -l < f)" = 2 ]; done; cat f
for i in $(seq 30); do mkdir "d$i"; $STATIC touch "d$i/x"; [ -e "d$i/x" ]; $PLAIN chmod 640 "d$i/x"; stat -c %a "d$i/x"; mv "d$i/x" "d$i/y"; $STATIC ls "d$i"; $STATIC rm -r "d$i"; [ ! -e "d$i" ]; done | sort | uniq -c
(for i in $(seq 200); do echo "a$i" >> both; done) & (for i in $(seq 100); do $STATIC echo "b$i" >> both; done) & wait; wc -l < both; sort both | uniq -d | wc -l; sort both > sorted; rm both
truncate -s 100000 big; $STATIC stat -c %s big; $PLAIN truncate -s 10 big; stat -c %s big; : > big; $STATIC wc -c < big
SH
}

@test "files that one maps and others change and make longer" { same <<< "python3 '$HERE/map.py'; rm m"; }

@test "forks, execs, duplicates and closes around shared offsets" {
    local seed=${FOS_TEST_SEED:-$RANDOM} count=$((FOS_LONG == 1 ? 100 : 2)) i
    echo "seeds $seed to $((seed + count - 1))"
    for i in $(seq "$seed" $((seed + count - 1))); do same <<< "python3 '$HERE/offsets.py' $i 120"; done
}

@test "signals, jumps, cancellation and forks in the middle of calls" {
    make -s -C "$ROOT/shim" build/signals
    mkdir "$LOCAL/signals"
    (cd "$LOCAL/signals" && timeout 60 "$ROOT/shim/build/signals") > "$BASE/expected"
    # Where a signal finds a call is chance.
    for round in 1 2 3; do
        mkdir "$MOUNT/signals$round"
        (cd "$MOUNT/signals$round" && timeout 60 "$FOS" run -- "$ROOT/shim/build/signals") | diff -u "$BASE/expected" -
    done
    [ "$(wc -l < "$BASE/expected")" = 7 ]
}

@test "perl and git under the shim, with a repository that others work on" {
    need git perl
    same -w <<'SH'
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main r; cd r
perl -e 'for my $i (1..60) { open my $f, ">", "f$i" or die $!; print $f "line $_ of $i\n" for 1..$i; close $f or die $! } rename "f1", "g1" or die; link "f2", "h2" or die; symlink "f3", "s3" or die; utime 1, 2, "f4"; my @s = stat "f4"; print "@s[8,9]\n"; opendir my $d, "." or die; print scalar(grep /^f/, readdir $d), "\n"'
git add -A; git commit -qm one; $PLAIN git status --short | wc -l; $PLAIN sh -c 'echo plain >> f10'; git status --short; git commit -qam two
$PLAIN git checkout -q -b side HEAD~1; echo side >> f20; git commit -qam three; git checkout -q main; $PLAIN git merge -q side -m merged > /dev/null; git log --format=%s | cat
$STATIC sed -i s/line/LINE/ f30; git diff --stat | tail -n 1; git stash -q; git status --short | wc -l; git stash pop -q; git gc -q; git fsck; git clone -q . ../c; git -C ../c log --oneline | wc -l
perl -pi -e 's/of/OF/' f*; git diff --shortstat; git reset -q --hard; git rev-parse HEAD^{tree}; cd ..; rm -rf r/.git c/.git
SH
}

@test "fio: several threads of one process, verified" {
    need fio
    local fio=("$FOS" run --stats -- fio --directory="$MOUNT/fio" --thread --ioengine=psync --verify=crc32c --verify_fatal=1 --do_verify=1
        --verify_state_save=0 --group_reporting --output="$BASE/results/fio")
    mkdir "$MOUNT/fio"
    "${fio[@]}" --name=threads --size=4m --numjobs=3 --rw=randrw --bs=4k --randseed=7 2> "$BASE/results/figures" || { tail -n 40 "$BASE/results/fio"; return 1; }
    refute grep -iE 'verify: bad|err= *[1-9]' "$BASE/results/fio"
    "${fio[@]}" --name=one --filename=shared --size=1m --numjobs=4 --offset_increment=1m --rw=randwrite --bsrange=512-16k --bs_unaligned --randseed=9 \
        2> "$BASE/results/more" || { tail -n 40 "$BASE/results/fio"; return 1; }
    # By messages, or nothing was shown.
    cat "$BASE/results/figures"
    [ "$(awk '$1 == "pwrite64" { gsub(",", ""); print ($2 > 1000) }' "$BASE/results/figures")" = 1 ]
}

@test "who owns a file, and its mode, are what a program without the shim is judged by right after a change by message" {
    only_fos
    [ "$(id -u)" = 0 ] || skip "needs two users"
    local f=$MOUNT/judged
    : > "$f"
    chown 1 "$f"
    chmod 644 "$f"
    as() { setpriv --reuid "$1" --regid "$1" --clear-groups -- "${@:2}" 3>&-; }
    # chmod(1) looks first; this does not.
    local plain='import os, sys
try: os.chmod(sys.argv[1], int(sys.argv[2], 8)); print("done")
except PermissionError: print("refused")'
    mode() { as "$1" /usr/bin/python3 -c "$plain" "$f" "$2"; }
    [ "$(mode 1 640)" = done ] && [ "$(mode 2 600)" = refused ]
    for how in 'os.chown(f, 2, 2)' 'fd = os.open(f, os.O_RDONLY); os.chown(fd, 2, 2)' 'os.chdir(os.path.dirname(f)); os.chown("judged", 2, 2)'; do
        chown 1:1 "$f"
        [ "$(mode 1 644)" = done ]
        "$FOS" run -- /usr/bin/python3 -c "import os, sys; f = sys.argv[1]; $how" "$f"
        [ "$(mode 1 600)" = refused ] && [ "$(mode 2 664)" = done ]
    done
}

@test "names that a program without the shim missed: made by message it sees them at once, and for other names nobody waits for the kernel" {
    only_fos
    local d=$MOUNT/missed i name before
    revoked() { "$FOS" status --json "$MOUNT" | jq '[.. | .leases_revoked? // empty] | add'; }
    mkdir "$d" "$d/from"
    for i in 1 2 3; do
        touch "$d/from/moved" "$d/from/linked"
        for name in made touched linked pointed moved; do refute [ -e "$d/$name" ]; done
        "$FOS" run -- bash -c 'cd "$1"; mkdir made; : > touched; ln from/linked linked; ln -s from pointed; mv from/moved moved' - "$d"
        [ -d "$d/made" ] && [ -f "$d/touched" ] && [ -f "$d/linked" ] && [ -d "$d/pointed" ] && [ -f "$d/moved" ]
        "$FOS" run -- bash -c 'cd "$1"; rmdir made; rm touched linked pointed moved' - "$d"
        for name in made touched linked pointed moved; do refute [ -e "$d/$name" ]; done
        # The kernel has missed them all again; one at a time now, each looked for right after.
        for name in made touched; do "$FOS" run -- touch "$d/$name"; [ -f "$d/$name" ]; done
        rm "$d/made" "$d/touched"
    done
    before=$(revoked)
    "$FOS" run -- python3 -c 'import os, sys
os.chdir(sys.argv[1])
for i in range(100):
    os.mkdir("d"); os.rmdir("d"); open("f", "w").close(); os.link("f", "g"); os.rename("g", "h"); os.unlink("h"); os.unlink("f")' "$d"
    echo "$(($(revoked) - before)) notices"
    # Of the directory, and of what python3 itself looks at through the kernel.
    [ $(($(revoked) - before)) -lt 20 ]
}
