#!/usr/bin/env bats
# The file fleet grows and shrinks while real programs work on the mount: nothing fails, and results are as elsewhere.
load helper

# Changes the size of the fleet until the file $1 is gone; the number of changes is left in $1.changes.
resize_until_gone() {
    local changes=0 size
    while [ -e "$1" ]; do
        for size in 4 1 3 2; do
            "$FOS" fleet --file "$size" "$MOUNT" > /dev/null || { echo "fleet --file $size failed" > "$1.failed"; return; }
            changes=$((changes + 1))
        done
    done
    echo "$changes" > "$1.changes"
}

@test "fos fleet shows members and slots; sizes are set and checked" {
    "$FOS" fleet "$MOUNT" | grep -q '^/sys/file/0 .*serving'
    "$FOS" fleet --file 3 "$MOUNT" | grep -q '^last change took .* slots'
    [ "$("$FOS" fleet --json "$MOUNT" | jq '[.servers[] | select(.state == "serving")] | length')" -eq 3 ]
    [ "$("$FOS" fleet --json "$MOUNT" | jq '[.servers[].slots] | add')" -eq 4096 ]
    "$FOS" fleet --file 1 "$MOUNT" > /dev/null
    [ "$("$FOS" fleet --json "$MOUNT" | jq '.servers[0].slots')" -eq 4096 ]
    grep -q '^/sys/file/0	.*	serving	4096	' "$MOUNT/.fos/placement"
    "$FOS" fleet --file 2 "$MOUNT" > /dev/null
    run "$FOS" fleet --file 99 "$MOUNT"
    [ "$status" -ne 0 ] && [[ "$output" == *"bad number of file servers '99'"* ]]
    run "$FOS" fleet --file many "$MOUNT"
    [ "$status" -ne 0 ]
    "$FOS" fleet --file auto --json "$MOUNT" | jq -e '.automatic'
}

@test "git, python, sqlite and tar work while the fleet grows and shrinks" {
    busy=$BATS_TEST_TMPDIR/busy
    touch "$busy"
    resize_until_gone "$busy" & mover=$!
    same <<SH
mkdir r; cd r; git init -q .; for i in \$(seq 40); do mkdir -p d\$((i % 7)); echo "\$i" > d\$((i % 7))/f\$i; done
git add .; git -c user.name=a -c user.email=a@b commit -qm one; git mv d1 e1; git -c user.name=a -c user.email=a@b commit -qm two
git status --short; git fsck --strict 2>&1; git log --format=%s; git gc -q; git checkout -q HEAD~1; ls; cd ..; rm -rf r
SH
    same <<SH
sqlite3 s.db 'pragma journal_mode=delete; create table t(a integer primary key, b); begin; with recursive n(x) as (select 1 union all select x+1 from n where x<2000) insert into t select x, zeroblob(x % 200) from n; commit; update t set b = a where a % 3 = 0; pragma integrity_check; select count(*), sum(length(b)) from t;'
for i in \$(seq 30); do sqlite3 s.db "insert into t(b) values(\$i)"; done; sqlite3 s.db 'select count(*) from t; pragma integrity_check;'; rm s.db
SH
    same <<SH
python3 - <<'PY'
import os, hashlib, random
random.seed(3); sums = {}
for i in range(300):
    d = 'p/%d/%d' % (i % 9, i % 5); os.makedirs(d, exist_ok=True); f = '%s/f%d' % (d, i)
    data = random.randbytes(random.randrange(0, 60000)); open(f, 'wb').write(data); sums[f] = hashlib.sha256(data).hexdigest()
for i, f in enumerate(sorted(sums)):
    if i % 4 == 0: os.rename(f, f + '.n'); sums[f + '.n'] = sums.pop(f)
for f, s in sums.items(): assert hashlib.sha256(open(f, 'rb').read()).hexdigest() == s, f
print(len(sums), sum(len(x[2]) for x in os.walk('p')))
PY
tar cf p.tar p; mkdir q; tar xf p.tar -C q; diff -r p q/p && echo same; rm -rf p q p.tar; ls
SH
    rm "$busy"
    wait "$mover"
    [ ! -e "$busy.failed" ] || { cat "$busy.failed"; false; }
    echo "$(cat "$busy.changes") changes of size"
    [ "$(cat "$busy.changes")" -ge 4 ]
    "$FOS" fleet --file 2 "$MOUNT"
    [ "$("$FOS" fleet --json "$MOUNT" | jq '[.servers[].slots] | add')" -eq 4096 ]
}
