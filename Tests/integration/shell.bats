#!/usr/bin/env bats
# What the shell itself does to a file system: redirections, globs, here-documents, process substitution, job control.
load helper

@test "redirections: write, append, read-write, duplicate, close, order" {
    same <<'SH'
echo one > f; echo two >> f; exec 5<> f; read -r x <&5; echo "$x"; echo THREE >&5; exec 5>&-; cat f
{ echo out; echo err >&2; } > both 2>&1; cat both; { echo out; echo err >&2; } 2> err > out; cat out err
echo x &> amp; cat amp; echo y &>> amp; cat amp
exec 6> six 7< f; echo a >&6; echo b >&6; cat <&7; exec 6>&- 7<&-; cat six; : > f; wc -c < f
{ read -r a; read -r b; } < six; echo "$b$a"
echo sub > >(cat > psub); sleep 0.2; cat psub; cat < missing 2>&1 || echo "status $?"
(echo x > missing/file) 2>&1 | sed 's/.*line [0-9]*: //'
SH
}

@test "noclobber refuses an existing file and >| forces it" {
    same <<'SH'
set -C; echo 1 > f; (echo 2 > f) 2>&1 | sed 's/.*line [0-9]*: //'; cat f; echo 3 >| f; cat f; ln -s f l
(echo 4 > l) 2>&1 | sed 's/.*line [0-9]*: //'; ln -s new dangling
(echo 5 > dangling) 2>&1 | sed 's/.*line [0-9]*: //' || true; echo null > /dev/null; mkdir d
(echo 6 > d) 2>&1 | sed 's/.*line [0-9]*: //'; rm -f new
SH
}

@test "globs: classes, dotglob, globstar, extglob, nullglob, failglob, sorted by name" {
    same <<'SH'
mkdir -p a/b/c .hid/x; touch a1 a2 b1 .dot a/b/c/deep a/t.c a/b/u.c 'sp ace' $'new\nline' '*star' '[br]' ./-dash
shopt -s extglob globstar
printf '<%s>\n' *; echo [ab]?; echo ./**/*.c; echo !(a*); printf '<%s>\n' .*
(shopt -s dotglob; printf '<%s>\n' *)
echo none*x; (shopt -s nullglob; echo none*x); (shopt -s failglob; echo none*x) 2>&1 | sed 's/.*line [0-9]*: //'
echo */; echo a/*/; for f in *; do [ -e "$f" ] || echo "lost $f"; done; compgen -f a | sort; echo {a..c}{1,2}
SH
}

@test "here-documents, here-strings, command and process substitution" {
    same <<'SH'
cat > f <<END
one $((1 + 1)) $(echo three)
END
cat >> f <<-'END'
	$literal
	END
cat f; cat <<< "string" >> f; diff <(sort f) <(sort -r f) || true; x=$(< f); echo "$x"; mapfile -t lines < f
echo "${#lines[@]}"; while read -r l; do echo "[$l]"; done < f
tee >(wc -l > count) < f > /dev/null; sleep 0.2; cat count; head -c 200000 /dev/zero | tr '\0' x > big
y=$(cat big); echo ${#y}; printf '%s' "$y" | cmp - big
SH
}

@test "scripts: sourced, executed, with arguments, with #!, without x, with a missing interpreter" {
    same <<'SH'
cat > s <<'END'
#!/bin/bash
echo "script $0 got $# arguments: $*"; exit 7
END
./s 2>&1 | tail -n 1 || true; chmod +x s; ./s a 'b c' || echo "status $?"; cp s other
./other || echo "status $?"; ln -s s sym; ./sym x || echo "status $?"; PATH=.:$PATH; s found || echo "status $?"
printf '#!/no/such/interpreter\n' > bad; chmod +x bad; (./bad) > /dev/null 2>&1 || echo "status $?"
printf 'echo plain "$1"\n' > plain; chmod +x plain; ./plain p; . ./plain sourced; bash s via || echo "status $?"
printf '#! ./s --option\nignored\n' > nested; chmod +x nested; ./nested z || echo "status $?"; chmod 111 s
[ "$(id -u)" = 0 ] || { ./s 2>/dev/null || echo unreadable; }; chmod 644 s
SH
}

@test "cd, pwd, deleted working directory, renamed working directory, CDPATH, pushd" {
    same <<'SH'
mkdir -p a/b c; ln -s a/b link; cd link; pwd | sed 's|.*/DIR||; s|.*/||'; pwd -P | sed 's|.*/\(a/b\)|\1|'; cd ..
ls; cd a/b; mv ../../a ../../moved; ls ..; touch here; cd - > /dev/null; ls moved/b
cd c; rmdir ../c; ls; touch x 2>&1 || echo "status $?"; mkdir y 2>&1 || echo "status $?"; ls -a | wc -l; cd ..
cd moved; pushd b > /dev/null; popd > /dev/null; ls; cd missing 2>&1 | sed 's/.*line [0-9]*: //'
(cd /; CDPATH=$DIR; cd moved > /dev/null; ls)
SH
}

@test "pipelines of many processes appending to one file lose nothing" {
    same <<'SH'
for p in 1 2 3 4; do (for i in $(seq 250); do echo "process $p line $i" >> log; done) & done; wait; wc -l < log
sort log | md5sum; sort -o log log
for p in 1 2 3 4; do (exec >> held; for i in $(seq 500); do echo "$p-$i"; done) & done; wait; wc -l < held
sort held | uniq -d | wc -l; sort -o held held
SH
}

@test "mkdir as a lock between processes, ln as a lock" {
    same <<'SH'
echo 0 > n
for p in 1 2 3; do (for i in $(seq 30); do until mkdir lock 2>/dev/null; do sleep 0.002; done; echo $(( $(cat n) + 1 )) > n; rmdir lock; done) & done
wait; cat n
echo 0 > n
for p in 1 2 3; do (touch own$p; for i in $(seq 20); do until ln own$p l 2>/dev/null; do sleep 0.002; done; echo $(( $(cat n) + 1 )) > n; rm l; done) & done
wait; cat n
SH
}

@test "rename over a file that others read: always old or new, never a mix or nothing" {
    same <<'SH'
printf 'a%.0s' $(seq 1000) > f; (for i in $(seq 200); do c=$(printf '%d' $((i % 10))); printf "$c%.0s" $(seq 1000) > f.tmp; mv f.tmp f; done) & w=$!
bad=0
while kill -0 $w 2>/dev/null; do x=$(cat f); [ ${#x} = 1000 ] && [ -z "${x//${x:0:1}/}" ] || bad=$((bad + 1)); done
echo "bad $bad"; wait; cut -c1-5 f
SH
}

@test "file descriptors survive unlink, rename and exec" {
    not_by_message "/proc/self/fd shows the name a file was opened with"
    same <<'SH'
echo content > f; exec 5< f; rm f; cat <&5; exec 5<&-; echo c2 > g; exec 6<> g; mv g h; echo more >&6; cat h
rm h; echo gone >&6; readlink /proc/self/fd/6 | sed 's|.*/||'
bash -c 'echo inherited >&6; cat /proc/self/fd/6'; stat -L -c '%s %h' /proc/self/fd/6; exec 6>&-; ls -A
echo x > y; exec 7< y; echo yz > y; cat <&7; exec 7<&-
SH
}
