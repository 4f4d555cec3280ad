#!/usr/bin/env bats
# find, xargs, sed -i, awk, perl and vim in batch mode.
load helper

@test "find: by name, type, size, time, permission, links, depth, inode, and -delete" {
    same <<'SH'
mkdir -p d/e/f g; seq 1000 > d/big; touch -d '2001-01-01' d/old; echo x > d/e/x.c; ln d/e/x.c g/hard
ln -s ../d g/link; mkfifo d/p; chmod 4711 d/big; chmod 600 d/e/x.c
f() { find "$@" | sort; }; f . -name '*.c'; f . -type l; f . -type p; f . -type d; f . -size +1k -type f
f . -empty; f . -perm -4000; f . -perm 600; f . -links 2 -type f; f . -newer d/old -type f; f . ! -newer d/old
f . -mtime +365; f . -mmin -60 -type f; f . -maxdepth 1; f . -mindepth 3; f . -samefile g/hard
f . -inum "$(stat -c %i d/e/x.c)"
f -L . -name x.c; f . -lname '*d'; f . -user "$(id -un)" | wc -l; f . -path './d/*' -prune -o -print
find . -depth -print | tail -n 1; find d -type f -printf '%P %s %m %n %y\n' | sort
find . -name '*.c' -exec grep -l x {} +; find d -type f -print0 | sort -z | xargs -0 wc -c
find . -xdev -regex '.*/[ef]' | sort; find d -delete; ls; find g -name hard -execdir pwd \; | sed 's|.*/||'
SH
}

@test "a directory is listed whole while it is changed: every entry that stays is seen once" {
    same <<'SH'
mkdir d; for i in $(seq 2000); do : > d/stay-$i; done; (for r in 1 2 3 4 5; do for i in $(seq 200); do : > d/churn-$i; done; rm -f d/churn-*; done) & w=$!
while kill -0 $w 2>/dev/null; do ls -U d | grep '^stay' > seen; [ "$(wc -l < seen)" = 2000 ] || echo "lost $(wc -l < seen)"; [ -z "$(sort seen | uniq -d)" ] || echo "twice"; done
wait; rm -f seen; rm -r d
SH
}

@test "rm -r and find -delete of directories larger than one listing" {
    same <<'SH'
mkdir a b
for i in $(seq 3000); do : > a/$i; : > b/a-rather-long-name-so-that-listings-are-cut-into-several-buffers-$i; done
ls a | wc -l; find b -name '*5' -delete; ls b | wc -l; rm -r a; find b -delete; ls
SH
}

@test "sed -i, awk, grep -r, xargs -P, sort -o in place" {
    same <<'SH'
mkdir d; for i in $(seq 50); do seq $i > d/$i; done; sed -i 's/^1/one/' d/*; sed -i.bak '1d' d/50
cat d/50 | head -n 2; cat d/50.bak | head -n 1; grep -rl one0 d | sort; grep -c one d/20
ls d | xargs -P 4 -I{} sh -c 'wc -l < d/{} > d/{}.n'; cat d/*.n | sort -n | md5sum
awk '{print > ("split" ($1 % 3))}' d/30; wc -l split*
awk -i inplace '{print NR": "$0}' split0 2>/dev/null || true; rm -f d/*.n split0
SH
}

@test "perl: -i, file tests, opendir, seekdir, utime, rename, flock, sockets, tie" {
    need perl
    same <<'SH'
cat > w.pl <<'PL'
use strict; use warnings; use Fcntl qw(:flock :seek :DEFAULT); use File::Find; use File::Copy; use File::Temp; use File::Path qw(make_path remove_tree); use IO::Socket::UNIX; use SDBM_File;
make_path("a/b/c"); for my $i (1..300) { open my $f, '>', "a/f$i" or die; print $f "x" x $i; close $f }
opendir my $d, "a" or die; my @first = map { scalar readdir $d } 1..50; my $at = telldir $d; my @rest = readdir $d; seekdir $d, $at; my @again = readdir $d; print "same after seekdir\n" if "@rest" eq "@again"; print @first + @rest, "\n"; rewinddir $d; my @all = readdir $d; print scalar(@all), "\n";
open my $f, '+<', "a/f100" or die; flock $f, LOCK_EX or die; seek $f, 50, SEEK_SET; print $f "mid"; truncate $f, 60; close $f; print -s "a/f100", " ", -e "a/none" ? 1 : 0, "\n"; utime 1000000000, 1000000001, "a/f1"; print +(stat "a/f1")[9], "\n"; copy "a/f2", "a/copy"; move "a/copy", "a/moved"; my $n = 0; find(sub { $n++ if -f }, "a"); print "$n\n";
tie my %h, 'SDBM_File', 'dbm', O_RDWR | O_CREAT, 0640 or die; $h{$_} = $_ * 2 for 1..100; untie %h; tie %h, 'SDBM_File', 'dbm', O_RDONLY, 0640; print scalar(keys %h), " $h{50}\n"; untie %h;
my $s = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => "sock", Listen => 1) or die "bind $!"; if (!fork) { my $c = IO::Socket::UNIX->new(Peer => "sock") or die; print $c "over a socket\n"; exit } my $c = $s->accept; print scalar <$c>; wait; unlink "sock"; remove_tree("a", { keep_root => 1 }); my ($tf, $tn) = File::Temp::tempfile(DIR => "."); print $tf "t"; close $tf; print -s $tn, "\n"; unlink $tn, glob("dbm.*");
PL
perl w.pl; seq 5 > n; perl -pi -e 's/3/three/' n; perl -pi.orig -e 's/4/four/' n; cat n n.orig
SH
}

@test "vim -es: edit, write, backup, undo file, swap file, write over a symbolic link and a hard link" {
    need vim
    same <<'SH'
seq 100 > f; ln f hard; ln -s f soft; v() { vim -Nu NONE -i NONE -es "$@" < /dev/null || true; }
v -c '%s/5/five/g' -c wq f; md5sum f; v -c 'set backup backupcopy=yes' -c '1d' -c wq soft; ls
cat soft | head -n 1; stat -c %h f; v -c 'set backupcopy=no' -c '$put =\"end\"' -c wq hard; stat -c %h hard f
v -c 'set undofile undodir=.' -c 'normal ggdd' -c wq f; v -c 'set undofile undodir=.' -c 'undo' -c wq f
head -n 1 f
v -c 'w new' -c q f; cmp f new; chmod 600 new; v -c 'normal ix' -c wq new; stat -c %a new
v -c 'r !echo shell' -c 'wq' new; tail -n 1 new; ls -A | grep -c 'sw[po]' || true; rm -f ./*~ .*un~
SH
}
