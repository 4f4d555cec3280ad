#!/usr/bin/env bats
# Interception under real programs: whatever the shim does to libc's system calls, programs print, leave behind and end with
# what they would without it. Each script runs without the shim, under it, and under two builds of it that hook every
# system call: one passes each on, one makes each inside the hook.
load helper
bats_require_minimum_version 1.5.0

setup_file() {
    [ "$(uname -m)" = x86_64 ] || skip "the shim redirects x86-64's system calls"
    start_mount
    export FOS_CACHE=$BASE/cache
    mkdir -m 755 "$FOS_CACHE"
    make -s -C "$ROOT/shim" all build/libfos_pass.so build/libfos_answer.so build/make_sites >&2
    # Where every user may read them.
    mkdir -m 755 "$BASE/shims"
    cp "$ROOT/shim/build/"libfos{,_pass,_answer}.so "$BASE/shims"
    export SHIMS=$BASE/shims
    "$FOS" shim-path > /dev/null
    chmod 644 "$FOS_CACHE"/*
}

# Runs the script from standard input in a directory of its own, under the shim $1 (a name, or nothing), into $2.
under() {
    local shim=$1 out=$2 script=$3 dir=$BASE/work status=0
    rm -rf "$dir"
    mkdir "$dir"
    chmod 1777 "$dir"
    # Preloaded by the script's shell itself, so that what runs before (timeout, setpriv) is not part of it.
    (cd "$dir" && as_user env SHIM="${shim:+$SHIMS/$shim}" DIR="$dir" bash -c \
        'if [ -n "$SHIM" ]; then export LD_PRELOAD=$SHIM; fi; unset SHIM; exec bash -eu "$0"' "$script") > "$out" 2>&1 || status=$?
    echo "exit $status" >> "$out"
    find "$dir" -type f -exec md5sum {} + 2>/dev/null | sort >> "$out"
}
alike() {
    local script=$BASE/results/t$BATS_TEST_NUMBER.sh shim
    cat > "$script"
    under "" "$BASE/results/alone" "$script"
    if ! grep -q '^exit 0$' "$BASE/results/alone"; then
        echo "the script itself is wrong:"
        tail -n 20 "$BASE/results/alone"
        return 1
    fi
    for shim in libfos.so libfos_pass.so libfos_answer.so; do
        under "$shim" "$BASE/results/$shim" "$script"
        diff -u --label alone --label "$shim" "$BASE/results/alone" "$BASE/results/$shim"
    done
}

@test "the hook is there: every call of a program goes through it" {
    for shim in libfos_pass.so libfos_answer.so; do
        run env FOS_VERBOSE=1 LD_PRELOAD="$SHIMS/$shim" bash -c 'echo a; (echo b); /bin/echo c'
        [ "$output" = $'a\nb\nc' ]
        # Redirected text belongs to the process; without the shim libc's is the file's.
        LD_PRELOAD="$SHIMS/$shim" awk '/libc\.so\.6/ && /r-x/ {text = 1} /libc\.so\.6/ && !/r-x/ {text = 0}
            text && /^Private_Dirty:/ {dirty += $2} END {exit !(dirty >= 200)}' /proc/self/smaps
    done
    awk '/libc\.so\.6/ && /r-x/ {text = 1} /libc\.so\.6/ && !/r-x/ {text = 0}
        text && /^Private_Dirty:/ {dirty += $2} END {exit dirty > 0}' /proc/self/smaps
}

@test "bash: pipelines, substitution, here documents, jobs, traps, redirections, coproc" {
    alike <<'SH'
for i in $(seq 50); do echo "line $i"; done | sort -r | grep 7 | tee seven | wc -l
x=$(echo nested $(echo twice $(basename /a/b/c))); echo "$x"; cat <<E > here
here $x
E
cat here; (sleep 0.05; echo late >> here) & wait; cat here; set -m; sleep 0.05 & wait %1; set +m
trap 'echo term' TERM; kill -TERM $$; trap 'echo usr; exit 0' USR1
exec 7> seven.copy; cat seven >&7; exec 7>&-; exec 8<> rw; echo rw >&8; cat rw; diff seven seven.copy
coproc cat; echo through >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; echo "$line"; kill "$COPROC_PID"
wait 2>/dev/null || true; timeout 0.1 sleep 10 || echo "timeout $?"; (exit 3) || echo "status $?"; { (ulimit -c 0; kill -SEGV $BASHPID) || echo "signal $?"; } 2>/dev/null
echo a | (read a; echo "$a"; exec 0<&-; read b || echo closed); mkfifo f; cat f & echo fifo > f; wait; rm f; kill -USR1 $$; echo not here
SH
}

@test "programs that re-exec, clear the environment, close all descriptors, nest shells and preloads" {
    alike <<'SH'
env -i /bin/sh -c 'echo cleared; env | grep -c PRELOAD || true'
env -i PATH="$PATH" LD_PRELOAD="${LD_PRELOAD:-}" bash -c 'echo kept'
bash -c 'exec bash -c "exec bash -c \"echo deep\""'
perl -MPOSIX -e 'POSIX::close($_) for 0..255; open(my $f, ">", "out") or die; print $f fileno($f), "\n"; close $f'; cat out
bash -c 'exec 0<&- 1>&- 2>&-; exec bash -c "echo x > out2 2>&1; exit 5"' || echo "status $?"; cat out2
python3 -c 'import os; os.closerange(0, 4096); os.open("/dev/null", os.O_RDWR); os._exit(0)'; setsid -w echo session; nohup echo hup
nice -n 1 ionice -c 3 stdbuf -oL echo wrapped; xargs -P 4 -n 1 echo < <(seq 8) | sort; script -qc 'echo typed' /dev/null | tr -d '\r'
find /usr/include/linux -name 'f*.h' -exec grep -c define {} + | tail -n 3; tar -cf - -C /usr/include linux | tar -tf - | wc -l
SH
}

@test "git, gcc, make, perl, python, vim, sqlite do their work" {
    alike <<'SH'
export HOME=$DIR GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='2020-01-02T03:04:05Z' GIT_COMMITTER_DATE='2020-01-02T03:04:05Z'
git init -q -b main r; cd r; cp /usr/include/linux/f*.h .; git add .; git commit -qm 1; git rev-parse HEAD; git status --short
git gc -q; git fsck --full 2>&1 | tail -n 1; git clone -q . ../c; git -C ../c log --oneline; cd ..; rm -rf r c
printf '#include <stdio.h>\nint main(void) { return printf("built\\n") != 6; }\n' > a.c
printf 'a: a.c\n\tgcc -O2 -pipe -o a a.c\nall: a\n\t./a\n' > Makefile; make -s -j2 all; gcc -E a.c | grep -c printf; rm a
perl -e 'for my $i (1..5) { my $p = fork; if (!$p) { exit $i } waitpid $p, 0; print $? >> 8, "\n" } print `echo perl`; open my $f, ">", "p"; print $f "x" x 100000; close $f; print -s "p", "\n"'
python3 - <<'PY'
import asyncio, concurrent.futures, multiprocessing, os, signal, subprocess, tempfile, threading, shutil, glob
print(subprocess.run(["sh", "-c", "echo out; exit 3"], capture_output=True))
with concurrent.futures.ThreadPoolExecutor(8) as pool: print(sum(pool.map(lambda n: len(open("/etc/passwd").read()) * 0 + n, range(100))))
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(abs, range(-5, 0)))
async def main():
    process = await asyncio.create_subprocess_exec("echo", "async", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate())
asyncio.run(main())
signal.signal(signal.SIGALRM, lambda *_: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.02); signal.pause()
d = tempfile.mkdtemp(dir="."); shutil.copytree("/usr/include/linux", d + "/x"); print(len(glob.glob(d + "/x/**", recursive=True))); shutil.rmtree(d)
r, w = os.pipe(); pid = os.posix_spawn("/bin/echo", ["echo", "spawned"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])
os.waitpid(pid, 0); print(os.read(r, 100))
PY
vim -es -u NONE -c 'normal ihello' -c 'wq' note; cat note; sqlite3 db 'create table t(a); insert into t values (1), (2); select sum(a) from t'; rm db
SH
}

@test "python's own tests of signals, threads, processes and files have the same result" {
    python3 -c 'import test.test_signal' 2>/dev/null || skip "libpython3.11-testsuite is not installed"
    local tests=(test_signal test_posix) shim
    [ "$FOS_LONG" != 1 ] || tests+=(test_subprocess test_threading test_os test_io test_multiprocessing_fork test_fcntl test_mmap test_tempfile test_socket test_asyncio)
    local dir
    for shim in "" libfos.so libfos_pass.so libfos_answer.so; do
        [ "$FOS_LONG" = 1 ] || [ "$shim" != libfos_pass.so ] || continue
        dir=$BASE/python$shim
        mkdir "$dir"
        chmod 1777 "$dir"
        (cd "$dir" && SCRIPT_TIMEOUT=$((SCRIPT_TIMEOUT * 2)) as_user env ${shim:+LD_PRELOAD=$SHIMS/$shim} TMPDIR="$dir" \
            python3 -m test --timeout 120 "${tests[@]}") > "$BASE/results/python$shim" 2>&1 || true
        # Which tests failed, and how many ran; not how long it took.
        grep -E '^(test_[a-z_]* (failed|crashed)|FAIL:|ERROR:|(All )?[0-9]+ tests? (OK|failed|skipped)|Tests result:)' "$BASE/results/python$shim" | sort > "$BASE/results/summary$shim"
        [ -s "$BASE/results/summary$shim" ] || { tail -n 60 "$BASE/results/python$shim"; return 1; }
        diff -u "$BASE/results/summary" "$BASE/results/summary$shim" || { tail -n 60 "$BASE/results/python$shim"; return 1; }
    done
}

@test "static programs, other preloaded libraries, setuid programs and damaged tables" {
    local dir=$BASE/mixed
    mkdir -m 755 "$dir"
    printf '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("euid %%d\\n", (int)geteuid()); return 0; }\n' > "$dir/p.c"
    gcc -O2 -o "$dir/dynamic" "$dir/p.c"
    gcc -O2 -static -o "$dir/static" "$dir/p.c"
    printf '#include <unistd.h>\nuid_t geteuid(void) { return 4242; }\n__attribute__((constructor)) static void c(void) { write(1, "other\\n", 6); }\n' > "$dir/o.c"
    gcc -O2 -shared -fPIC -w -o "$dir/other.so" "$dir/o.c"
    for shim in libfos.so libfos_pass.so libfos_answer.so; do
        [ "$(LD_PRELOAD=$SHIMS/$shim "$dir/static")" = "euid $(id -u)" ]
        [ "$(LD_PRELOAD="$SHIMS/$shim:$dir/other.so" "$dir/dynamic")" = $'other\neuid 4242' ]
        [ "$(LD_PRELOAD="$dir/other.so $SHIMS/$shim" "$dir/dynamic")" = $'other\neuid 4242' ]
        if [ "$(id -u)" = 0 ]; then
            cp "$dir/dynamic" "$dir/setuid"
            chmod 4755 "$dir/setuid"
            [ "$(setpriv --reuid 65534 --clear-groups env FOS_VERBOSE=1 LD_PRELOAD="$SHIMS/$shim" "$dir/setuid" 2>/dev/null)" = "euid 0" ]
        fi
        [ "$(FOS_CACHE=$dir LD_PRELOAD=$SHIMS/$shim "$dir/dynamic" 2>&1)" = "euid $(id -u)" ]
        run env FOS_CACHE="$dir" FOS_VERBOSE=1 LD_PRELOAD="$SHIMS/$shim" "$dir/dynamic"
        [[ $output == "fos: standing aside: "*"euid $(id -u)" ]]
    done
}

@test "chroot, namespaces, system call filters: the program gets what it asked for" {
    only_root
    local root=$BASE/root
    mkdir -p "$root/bin" "$root/lib"
    printf '#include <stdio.h>\n#include <sys/stat.h>\nint main(void) { struct stat s; return printf("inside %%d\\n", stat("/etc", &s)) < 0; }\n' > "$BASE/in.c"
    gcc -static -O2 -o "$root/bin/in" "$BASE/in.c"
    for shim in libfos.so libfos_pass.so libfos_answer.so; do
        [ "$(LD_PRELOAD=$SHIMS/$shim python3 -c 'import os, sys; os.chroot(sys.argv[1]); print(os.listdir("/")); os.stat("/bin/in")' "$root" | tr -d "'")" != "" ]
        [ "$(LD_PRELOAD=$SHIMS/$shim chroot "$root" /bin/in)" = "inside -1" ]
        [ "$(LD_PRELOAD=$SHIMS/$shim unshare -m sh -c 'mount -t tmpfs none /mnt; echo x > /mnt/f; cat /mnt/f')" = x ]
        [ "$(LD_PRELOAD=$SHIMS/$shim unshare -r id -u)" = 0 ]
        [ "$(LD_PRELOAD=$SHIMS/$shim setpriv --no-new-privs bash -c 'echo $(cat /proc/self/status | grep -c NoNewPrivs:.1)')" = 1 ]
    done
    [ ! -e /mnt/f ]
}

@test "fos run: exit status, missing commands, one-line errors, statistics, environment" {
    only_fos
    run "$FOS" run -- sh -c 'exit 42'
    [ "$status" = 42 ]
    run -127 "$FOS" run -- no-such-command
    [ "$status" = 127 ] && [ "$output" = "fos: run: no-such-command: No such file or directory" ]
    run "$FOS" run -- /etc/passwd
    [ "$status" = 126 ] && [ "$output" = "fos: run: /etc/passwd: Permission denied" ]
    run -127 "$FOS" run --stats -- no-such-command
    [ "$status" = 127 ]
    run "$FOS" run
    [ "$status" = 1 ] && [ "${#lines[@]}" = 1 ]
    run "$FOS" run --mount /proc -- true
    [ "$status" = 125 ] && [[ $output == "fos: run: /proc: not on a fos mount"* ]]
    run "$FOS" run --memory=1 -- true
    [ "$status" = 125 ] && [[ $output == "fos: run: --memory 1: less than a page"* ]]
    run "$FOS" run --mount "$MOUNT" --no-cache --strict -- sh -c 'echo "$FOS_MOUNT $FOS_NO_CACHE $FOS_STRICT"'
    [ "$status" = 0 ] && [ "$output" = "$MOUNT 1 1" ]
    run "$FOS" run --stats -- sh -c '/bin/true; /bin/true; kill -TERM $$'
    [ "$status" = 143 ]
    grep -qE '^programs +3$' <<< "$output"
    # Not SIGINT or SIGHUP: whoever runs the tests in the background may have them ignored, and a shell then keeps to that.
    run "$FOS" run --stats -- sh -c 'kill -USR1 $$; exit 9'
    [ "$status" = 138 ]
    # A signal to fos run ends the command, too.
    "$FOS" run --stats -- sleep 100 2> "$BASE/results/stats" 3>&- &
    local pid=$!
    sleep 1
    kill -TERM "$pid"
    status=0
    wait "$pid" || status=$?
    [ "$status" = 143 ]
    [ "$(LD_PRELOAD=$("$FOS" shim-path) FOS_VERBOSE=1 bash -c 'echo served' 2>&1)" = served ]
    # Made when missing, in a place of its own, for this user alone.
    XDG_CACHE_HOME=$BASE/xdg FOS_CACHE='' "$FOS" run -- true
    [ "$(find "$BASE/xdg/fos" -name '*.sites' | wc -l)" -ge 1 ]
    [ "$(stat -c %a "$BASE/xdg/fos")" = 700 ]
}

@test "fos run: work on the mount is the same as without it" {
    only_fos
    local where
    for where in alone shim; do
        mkdir "$MOUNT/$where"
        (cd "$MOUNT/$where" && SHELL_COMMAND='seq 1000 > a; cp a b; mkdir d; mv b d/c; ln a e; ln -s d/c l; cat l | md5sum; ls -R; rm -r d l; wc -l a; chmod 600 a; stat -c "%a %h %s" a'
            if [ $where = shim ]; then "$FOS" run -- bash -c "$SHELL_COMMAND"; else bash -c "$SHELL_COMMAND"; fi) > "$BASE/results/$where" 2>&1
    done
    diff -u "$BASE/results/alone" "$BASE/results/shim"
    diff -r "$MOUNT/alone" "$MOUNT/shim"
}

@test "fos trace: each call with its messages and the times of their steps, as text and for Chrome" {
    only_fos
    mkdir "$MOUNT/traced"
    chmod 1777 "$MOUNT/traced"
    run "$FOS" trace -- bash -c "echo hello > '$MOUNT/traced/a'; cat '$MOUNT/traced/a'; stat '$MOUNT/traced/none'; exit 4"
    [ "$status" = 4 ]
    [ "${lines[0]}" = hello ]
    grep -qE '^ *AT +THREAD +CALL +RESULT +TOTAL +MESSAGE ' <<< "$output"
    grep -qE ' openat +[0-9]+ ' <<< "$output"
    grep -qE ' CREATE( +[0-9]+\.[0-9]{2}){8}' <<< "$output"
    # What echo writes is left in shared memory, and goes with the next message.
    grep -qE ' write +6 ' <<< "$output"
    grep -qE ' CREATE( +[0-9]+\.[0-9]{2}){9}$' <<< "$output"
    grep -qE ' (statx|newfstatat) +-ENOENT ' <<< "$output"
    # The core's part has times of its own: the server's step is not empty.
    [ "$(awk '{ for (i = 1; i <= NF; i++) if ($i == "CREATE" && $(i + 7) > 0) found = 1 } END { print found }' <<< "$output")" = 1 ]
    "$FOS" trace -o "$BASE/results/trace.json" -- sh -c "mkdir '$MOUNT/traced/d'; rmdir '$MOUNT/traced/d'"
    jq -e '[.traceEvents[] | select(.cat == "call") | .name] | contains(["mkdir", "rmdir"])' "$BASE/results/trace.json"
    # The steps of a call with one message begin with it, follow each other and end with it.
    jq -e '.traceEvents as $all | [$all[] | select(.cat == "call" and .name == "mkdir")][0] as $call |
        [$all[] | select(.cat == "step" and .tid == $call.tid and .ts >= $call.ts - 0.001 and .ts < $call.ts + $call.dur)] |
        (length >= 9) and (.[0].ts == $call.ts) and
        ((([.[].dur] | add) - $call.dur) | fabs) < 0.5 * $call.dur + 5' "$BASE/results/trace.json"
    "$FOS" trace -o "$BASE/results/trace.txt" -- touch "$MOUNT/traced/b"
    grep -q ' CREATE ' "$BASE/results/trace.txt"
    # What never comes near a mount has nothing to show.
    run "$FOS" trace -- /bin/true
    [ "$status" = 0 ] && [ "${#lines[@]}" = 1 ]
    run "$FOS" trace -o /nonexistent/x -- touch "$MOUNT/traced/not"
    [ "$status" = 125 ] && [ "$output" = "fos: trace: /nonexistent/x: No such file or directory" ] && [ ! -e "$MOUNT/traced/not" ]
    run -127 "$FOS" trace -- no-such-command
}
