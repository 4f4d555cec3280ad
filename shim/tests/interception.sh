#!/bin/bash
# Checks of interception and of served memory that need no mount: what the library needs, what the table maker finds, which tables are believed,
# and that a program notices nothing under a hook of every system call. Run by `make check`; needs what `make` has built.
#
# usage: interception.sh BUILD-DIRECTORY
set -u
cd "$1" || exit 1
BUILD=$PWD
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
unset LD_PRELOAD XDG_CACHE_HOME FOS_VERBOSE FOS_STATS FOS_STRICT FOS_MOUNT FOS_NO_CACHE FOS_MEMORY
export FOS_CACHE=$TMP/cache LC_ALL=C
failed=0 passed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED: $*" >&2; }
expect() { local name=$1; shift; if "$@"; then ok; else bad "$name"; fi; }

# ---- the library: libc alone, of it nothing that allocates, prints or makes system calls; nothing exported
needed=$(readelf -dW libfos.so | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
expect "needs: $needed" [ "$needed" = "libc.so.6 " ]
expect "exports something" [ -z "$(nm -D --defined-only libfos.so)" ]
allowed=' clock_gettime dl_iterate_phdr getauxval pthread_key_create pthread_setspecific sched_getcpu '
for symbol in $(nm -D --undefined-only libfos.so | awk '$1 == "U" {sub("@.*", "", $2); print $2}'); do
    expect "libfos.so uses $symbol" [ "${allowed/ $symbol /}" != "$allowed" ]
done
expect "starts first" grep -q INITFIRST <(readelf -dW libfos.so)
expect "a segment is writable and executable" [ "$(readelf -lW libfos.so | grep -c 'LOAD.*RWE')" = 0 ]
# General registers only: a vector register in the hook would be the program's.
expect "vector registers are used" [ "$(objdump -d --no-show-raw-insn libfos.so | grep -cE '%[xyz]mm|%st|%mm[0-7]')" = 0 ]

# ---- the table: each `syscall` instruction of libc and ld.so is a site, or left alone with a reason
mkdir "$FOS_CACHE"
# The dynamic linker is not redirected, but its `syscall` instructions are as good a test of the maker.
linker=$(readelf -lW make_sites | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
./make_sites "$FOS_CACHE" "$linker" > "$TMP/made" || bad "make_sites"
expect "libc and ld.so have tables" [ "$(find "$FOS_CACHE" -name '*.sites' | wc -l)" -ge 2 ]
libc=$(sed -n 's/^\(.*libc\.so\.6\): .*/\1/p' "$TMP/made")
for library in $(sed -n 's/^\(\/.*\): [0-9]* sites.*/\1/p' "$TMP/made"); do
    sed -n "\|^$library: |,\$p" "$TMP/made" | sed '1d; /^\//,$d' | awk '{print $2}' | sort > "$TMP/listed"
    objdump -d --no-show-raw-insn "$library" | awk '$2 == "syscall" {sub(":", "", $1); print $1}' | sort > "$TMP/present"
    expect "$library: the sites are not those that objdump sees" diff "$TMP/present" "$TMP/listed"
done
# The calls that a file system shim cannot do without are all redirected.
expect "too much is left alone" [ "$(grep -c '^left' "$TMP/made")" -le 10 ]
id=$(readelf -n "$libc" | sed -n 's/.*Build ID: //p')
table=$FOS_CACHE/$id.sites
expect "named by build-id" [ -s "$table" ]
expect "nothing else is left in the cache" [ -z "$(find "$FOS_CACHE" -type f ! -name '*.sites')" ]

# ---- which tables are believed. The program runs in every case, and says why it stands aside only when asked.
stands_aside() {
    local name=$1 said
    said=$(LD_PRELOAD=$BUILD/libfos.so FOS_VERBOSE=1 /bin/echo ran 2>&1)
    case $said in *ran*) ok ;; *) bad "$name: the program failed: $said" ;; esac
    case $said in "fos: standing aside: "*libc.so.6*) ok ;; *) bad "$name: the table was believed" ;; esac
    expect "$name: more than one line" [ "$(wc -l <<< "$said")" = 2 ]
    expect "$name: speaks unasked" [ "$(LD_PRELOAD=$BUILD/libfos.so /bin/echo ran 2>&1)" = ran ]
}
serves() { expect "$1: stands aside" [ "$(LD_PRELOAD=$BUILD/libfos.so FOS_VERBOSE=1 /bin/echo ran 2>&1)" = ran ]; }
serves "a good table"
# Since glibc 2.34 libpthread is an empty shell, which old programs still load.
said=$(LD_PRELOAD=$BUILD/libfos.so:libpthread.so.0 FOS_VERBOSE=1 /bin/echo ran 2>&1)
expect "with libpthread: $said" [ "$said" = ran ]
cp -a "$FOS_CACHE" "$TMP/good"
for kind in magic version build-id length count bit last bytes one-site outside below order kind window short long header empty; do
    ./spoil_sites "$table" $kind || bad "spoil_sites $kind"
    stands_aside "damaged: $kind"
    cp "$TMP/good/$id.sites" "$table"
done
serves "the good table again"
for mode in 0664 0646 0666; do chmod $mode "$table"; stands_aside "mode $mode"; done
chmod 0644 "$table"
if [ "$(id -u)" = 0 ]; then
    chown 65534 "$table"
    stands_aside "another user's table"
    chown 0 "$table"
    # Root's table serves everybody, another user's only that user.
    chmod 755 "$TMP" "$FOS_CACHE"
    cp libfos.so "$TMP/libfos.so"
    expect "root's table serves nobody" \
        [ "$(setpriv --reuid 65534 --clear-groups env LD_PRELOAD="$TMP/libfos.so" FOS_VERBOSE=1 /bin/echo ran 2>&1)" = ran ]
fi
mv "$table" "$TMP/elsewhere"
stands_aside "no table"
ln -s "$TMP/elsewhere" "$table"; stands_aside "a symbolic link"; rm "$table"
mkfifo "$table"; stands_aside "a FIFO"; rm "$table"
mkdir "$table"; stands_aside "a directory"; rmdir "$table"
mv "$TMP/elsewhere" "$table"
FOS_CACHE=/nonexistent stands_aside "no cache directory"
FOS_CACHE=relative HOME=$TMP stands_aside "a relative cache directory"
(unset HOME FOS_CACHE; [ "$(LD_PRELOAD=$BUILD/libfos.so /bin/echo ran 2>&1)" = ran ]) && ok || bad "no HOME"
serves "the good table at the end"

# ---- a program notices nothing; without the shim, with all calls passed on, with all calls made in the hook
export SITES=$table
for library in "" libfos_pass.so libfos_answer.so; do
    said=$(LD_PRELOAD=${library:+$BUILD/$library} ./hook_tests 2>&1) && ok || bad "hook_tests under '$library': $said"
done

# ---- memory from a fleet in the process: random programs say and leave what they do without, with small frames and with large
for strict in 0 1; do
    said=$(FOS_MEMORY=65536 FOS_STRICT=$strict ./memory_differential -n 25 -s "${FOS_TEST_SEED:-1}" "$BUILD/libfos_pass.so" 2>&1) && ok ||
        bad "memory_differential, FOS_STRICT=$strict: $said"
done

echo "interception: $passed passed, $failed failed"
[ "$failed" = 0 ]
