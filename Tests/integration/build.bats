#!/usr/bin/env bats
# Compilers, make, patch and programs run from the mount.
load helper

setup_file() { start_mount; make_source_tree "$BASE/src"; export SRC=$BASE/src; }

# A small C program of several files with a static and a shared library, as a make project.
project='
mkdir -p p/src p/lib; cd p
for i in $(seq 20); do printf "#include \"all.h\"\nint f%d(int x) { return x * %d + 1; }\n" $i $i > src/f$i.c; printf "int f%d(int);\n" $i >> src/all.h; done
printf "#include <stdio.h>\n#include \"all.h\"\nextern int s(int);\nint main(void) { int x = 1;\n" > src/main.c; for i in $(seq 20); do echo "x = f$i(x) % 10007;" >> src/main.c; done
printf "printf(\"%%d %%d\\\\n\", x, s(x)); return 0; }\n" >> src/main.c; printf "int s(int x) { return x ^ 0x55; }\n" > lib/s.c
cat > Makefile <<"MK"
objects := $(patsubst src/%.c,build/%.o,$(wildcard src/*.c))
build/prog: $(objects) build/libs.so
	$(CC) -o $@ $(objects) -Lbuild -ls -Wl,-rpath,"\$$ORIGIN"
build/%.o: src/%.c | build
	$(CC) -O1 -Wall -MMD -c -o $@ $<
build/libs.so: lib/s.c | build
	$(CC) -shared -fPIC -o $@ $<
build: ; mkdir -p build
clean: ; rm -rf build
-include $(wildcard build/*.d)
MK
'

@test "make with gcc builds and runs, a second make does nothing, a touched header rebuilds" {
    same <<SH
$project
make -j3 > log 2>&1 || { cat log; exit 1; }; ./build/prog; make | tail -n 1; sleep 0.05; touch src/f3.c
make 2>&1 | grep -c -- -c; sleep 0.05; touch src/all.h; make -j2 2>&1 | grep -c -- -c; sleep 0.05; touch lib/s.c
make 2>&1 | wc -l; ./build/prog; make clean; ls; rm log
SH
}

@test "make -j2 of a real C project: Lua, from Debian's sources" {
    need apt-get
    local archive
    archive=$("$ROOT/scripts/debian-source.sh" lua5.4 "$ROOT/.build/debian-sources") || skip "the source of Lua cannot be fetched"
    [ -s "$archive" ]
    ARCHIVE=$archive same <<'SH'
tar -xf "$ARCHIVE"; cd lua-*; make -j2 linux > log 2>&1 || { tail log; exit 1; }; rm log; make -q -C src a && echo "nothing is left to do"
cat > try.lua <<'LUA'
local out = assert(io.open("out", "w"))
for i = 1, 2000 do out:write(string.format("%d %s\n", i, ("x"):rep(i % 50))) end
out:close(); local sum = 0
for line in io.lines("out") do sum = sum + #line end
print(sum, os.rename("out", "kept"), io.open("out"))
LUA
./src/lua try.lua; ./src/luac -o try.luac try.lua; ./src/lua try.luac; ./src/luac -l try.lua | head -n 3 | sed 's/ at 0x.*//'
make -s INSTALL_TOP="$PWD/installed" install; installed/bin/lua -e 'print(_VERSION)'; touch src/lvm.c; make -j2 linux | grep -c -- -o
make -s clean; find . -name '*.o' | wc -l
SH
}

@test "gcc: precompiled header, ar, ld, strip, objcopy, debug information, temporary files on the mount" {
    same <<SH
$project
export TMPDIR=\$DIR; gcc -g -O1 -c src/f*.c; ar rcs libf.a f*.o; ar t libf.a | sort | head -n 3; ranlib libf.a
nm libf.a | grep -c ' T '; gcc -g -o prog src/main.c lib/s.c libf.a; ./prog; strip -o stripped prog; ./stripped
objcopy --only-keep-debug prog prog.debug; readelf -h stripped | grep Type
gcc -x c-header -o src/all.h.gch src/all.h; gcc -c -include src/all.h src/f1.c -o f1.o
gcc -save-temps=obj -c src/f2.c -o t.o; ls t.*; gcc -E src/main.c | wc -l; ls -A \$DIR
rm -f prog* stripped libf.a *.o t.* src/*.gch
SH
}

@test "g++ with templates and exceptions across a shared library opened with dlopen" {
    need g++
    same <<'SH'
cat > lib.cc <<'CC'
#include <stdexcept>
extern "C" int boom(int x) { if (x > 3) throw std::runtime_error("too big"); return x; }
CC
cat > main.cc <<'CC'
#include <dlfcn.h>
#include <iostream>
#include <map>
int main(int, char **v) {
    std::map<std::string, int> m{{"a", 1}};
    auto f = (int (*)(int))dlsym(dlopen(v[1], RTLD_NOW), "boom");
    try { std::cout << f(m["a"]) << f(4); } catch (std::exception &e) { std::cout << e.what() << "\n"; }
}
CC
g++ -shared -fPIC -o lib.so lib.cc; g++ -o main main.cc; ./main "$DIR/lib.so"; rm lib.so main
SH
}

@test "patch and diff: apply, reject, reverse, new and deleted files, fuzz" {
    same <<'SH'
cp -r "$SRC/include/linux" a; cp -r a b; sed -i '10a inserted' b/fs.h; rm b/if.h; echo new > b/added.h
sed -i '5d' b/types.h; diff -ruN a b > d.patch || echo "differ"
(cd a; patch -p1 < ../d.patch | sort; ls if.h added.h 2>&1 | sort); diff -r a b
(cd a; patch -R -p1 -s < ../d.patch); diff -rq a b || true
sed -i '8,12d' a/fs.h; (cd a; patch -p1 -N < ../d.patch | sort | head; ls *.rej *.orig)
find . -name '*.orig' -o -name '*.rej' | sort; rm -f d.patch a/*.rej
SH
}

@test "a running program cannot be written (ETXTBSY) but can be replaced by rename, and runs on" {
    not_by_message "servers do not know which programs run"
    same <<'SH'
cp /bin/sleep prog; ./prog 30 & pid=$!
for _ in $(seq 50); do [ "$(readlink /proc/$pid/exe)" = "$DIR/prog" ] && break; sleep 0.05; done
(echo x >> prog) 2>&1 | sed 's/.*line [0-9]*: //'; cp /bin/true new; mv new prog; ./prog && echo replaced
kill -0 $pid && echo "still runs"; readlink /proc/$pid/exe | sed 's|.*/||'; kill $pid
wait $pid || echo "status $?"; cp /bin/sleep u; ./u 30 & p2=$!; sleep 0.2; rm u; kill -0 $p2; kill $p2
wait $p2 || echo "status $?"
SH
}

@test "a program written, closed and run at once, many times" {
    same <<'SH'
for i in $(seq 60); do printf '#!/bin/sh\necho %s\n' $i > s; chmod +x s; ./s; done | md5sum
for i in $(seq 20); do cp /bin/true t$((i % 3)); ./t$((i % 3)) || echo "failed $i"; done; cp /bin/echo e
./e from the mount; LD_LIBRARY_PATH=$DIR ./e libs; chmod -x e; ./e 2>/dev/null || echo "status $?"
SH
}

@test "autoconf-like configure work: hundreds of small compiles in a temporary directory" {
    same <<'SH'
mkdir conf; cd conf; n=0
for h in stdio.h stdlib.h string.h unistd.h sys/stat.h nothere.h fcntl.h math.h; do printf '#include <%s>\nint main(void) { return 0; }\n' $h > conftest.c; if gcc -o conftest conftest.c 2>conftest.err && ./conftest; then echo "#define HAVE_$(echo $h | tr a-z/. A-Z__) 1"; fi >> confdefs.h; rm -f conftest*; done
cat confdefs.h
SH
}
