#!/usr/bin/env bats
# tar, rsync, zip and cpio: whole trees go in and out and stay the same.
load helper

setup_file() { start_mount; make_source_tree "$BASE/src"; export SRC=$BASE/src; }

# A tree with one of everything that an archive can hold.
zoo='
mkdir -p zoo/dir/sub zoo/empty; echo data > zoo/file; ln zoo/file zoo/dir/hard; ln -s ../file zoo/dir/soft; ln -s /dangling zoo/dangling
mkfifo zoo/pipe; chmod 4755 zoo/file; chmod 1777 zoo/empty; chmod 600 zoo/pipe; truncate -s 3M zoo/sparse; echo x | dd of=zoo/sparse bs=1 seek=1500000 conv=notrunc status=none
touch "zoo/sp ace" zoo/$(printf "n%.0s" $(seq 200)) "zoo/$(printf "\303\251\001")"; setfattr -n user.key -v value zoo/file; setfattr -n user.dir -v 1 zoo/dir
find zoo -exec touch -h -d "2007-07-07 07:07:07.777777777" {} +
'

@test "tar: pack and unpack one of everything, with xattrs and holes" {
    same <<SH
$zoo
tar --xattrs --xattrs-include='user.*' --sparse --numeric-owner -cpf a.tar zoo; mkdir out
tar --xattrs --xattrs-include='user.*' -xpf a.tar -C out; tar -tf a.tar | LC_ALL=C sort; tar --compare -f a.tar
[ "\$(du -k out/zoo/sparse | cut -f1)" -lt 3000 ]; getfattr -d out/zoo/file; rm a.tar
tar -C out -cf - zoo | tar -C out -df -
SH
}

@test "tar: a source tree in gz and xz, extracted over itself, with --delete, --update and --remove-files" {
    same <<'SH'
tar -C "$SRC" -czf src.tgz .; mkdir a b; tar -xzf src.tgz -C a; tar -xzf src.tgz -C a --overwrite
diff -r "$SRC" a; tar -C a -cJf - Sources | tar -xJf - -C b; diff -r a/Sources b/Sources
tar -C a -cf t.tar include; echo new > a/include/new; touch -d '2030-01-01' a/include/new
tar -C a -uf t.tar include/new; tar -tf t.tar | tail -n 1; tar --delete -f t.tar include/new
tar -tf t.tar | grep -c new$ || true
tar -C b -cf r.tar --remove-files Sources; ls b; rm t.tar r.tar src.tgz
SH
}

@test "tar --listed-incremental sees what changed" {
    same <<'SH'
mkdir d; echo 1 > d/a; echo 2 > d/b; tar -g snap -cf 0.tar d; sleep 1.1; echo 3 > d/c; rm d/a
tar -g snap -cf 1.tar d; tar -tf 1.tar; mkdir r; tar -g /dev/null -xf 0.tar -C r
tar -g /dev/null -xf 1.tar -C r; ls r/d; rm snap 0.tar 1.tar
SH
}

@test "rsync -aHAX: the second pass transfers nothing, a change transfers one file" {
    need rsync
    same <<SH
$zoo
rsync -aHX --specials zoo/ copy/; rsync -aHX --specials -i zoo/ copy/; cp -r "$SRC/include" zoo/include
rsync -aHX --specials zoo/ copy/ --stats | grep -E 'Number of (regular files transferred|created)'
rsync -aHX --specials --checksum -i zoo/ copy/; echo more >> zoo/include/linux/fs.h
touch -d '2008-08-08' zoo/include/linux/fs.h; rsync -aHX --specials -i zoo/ copy/; rm -r zoo/include
rsync -aHX --specials --delete -i zoo/ copy/ | grep deleting | tail -n 1; cp -a copy/file loc; rsync --inplace loc copy/file
rsync -S zoo/sparse sp; [ "\$(du -k sp | cut -f1)" -lt 3000 ]; rm sp loc
SH
}

@test "rsync from the local disk to the mount and back with -aHAX" {
    need rsync
    same <<'SH'
rsync -aHAX "$SRC/" in/; rsync -aHAXi "$SRC/" in/; rsync -aHAX --no-whole-file in/ out/; rsync -aHAXni in/ out/
diff -r "$SRC" out; rsync -a --partial --append-verify in/include/linux/fs.h part
cmp part in/include/linux/fs.h; rsync -aR in/./include/linux/fs.h rel/; find rel
SH
}

@test "zip and unzip with symlinks and modes" {
    need zip unzip
    same <<'SH'
mkdir -p d/e; seq 5000 > d/seq; echo x > d/e/x; chmod 755 d/e/x; ln -s e d/l
touch -d '2009-09-09 09:09:08' d d/* d/e/x; zip -qry a.zip d; unzip -tq a.zip; mkdir out; unzip -q a.zip -d out
zip -qd a.zip d/seq; unzip -Z1 a.zip | sort; unzip -qo a.zip -d out; diff -r --no-dereference d out/d; rm a.zip
SH
}

@test "cpio in and out, newc format, pass-through" {
    need cpio
    same <<SH
$zoo
find zoo -print0 | sort -z | cpio -0 -o -H newc --quiet > a.cpio; mkdir out pass
(cd out; cpio -idm --quiet < ../a.cpio); find zoo -depth -print0 | cpio -0 -pdm --quiet pass
cmp out/zoo/file zoo/file; rm a.cpio
find out pass zoo -type d -exec touch -d 2007-07-07 {} +
SH
}

@test "gzip, bzip2, xz in place keep times and modes" {
    same <<'SH'
for c in gzip bzip2 xz; do seq 20000 > on-$c; chmod 640 on-$c; touch -d 2006-06-06 on-$c; $c on-$c; ls on-$c.*; $c -t on-$c.*; $c -d on-$c.*; stat -c '%a %Y %s' on-$c; done
SH
}
