#!/usr/bin/env bats
# sqlite3: every journal mode, two writers, a crash in the middle.
load helper

fill="create table t(id integer primary key, a text, b blob); create index i on t(a); begin;
insert into t(a, b) with recursive n(x) as (select 1 union all select x + 1 from n where x < 3000) select printf('row %d', x * 7919 % 3001), zeroblob(x % 300) from n; commit;"

@test "rollback journal: delete, truncate, persist, memory, off" {
    same <<SH
for m in delete truncate persist memory off; do sqlite3 \$m.db "pragma journal_mode=\$m; $fill update t set a = a || '+' where id % 3 = 0; delete from t where id % 5 = 0; select count(*), sum(length(b)), min(a), max(a) from t; pragma integrity_check;"; sqlite3 \$m.db 'begin; delete from t; rollback; select count(*) from t; vacuum; pragma integrity_check;'; done
ls; rm *.db*
SH
}

@test "write-ahead log: shared memory file, checkpoint, readers beside a writer" {
    same <<SH
sqlite3 w.db "pragma journal_mode=wal; $fill"
sqlite3 w.db 'pragma wal_autocheckpoint=0; update t set a = id; select count(*) from t; pragma wal_checkpoint(truncate); pragma integrity_check;'
(for i in \$(seq 20); do sqlite3 -cmd '.timeout 20000' w.db "insert into t(a) values('w\$i');"; done) & for i in \$(seq 20); do sqlite3 -cmd '.timeout 20000' w.db 'select count(*) >= 3000 from t;'; done | sort | uniq -c; wait; sqlite3 w.db "select count(*) from t where a like 'w%'; pragma integrity_check;"; ls; rm w.db*
SH
}

two_writers='
sqlite3 c.db "pragma journal_mode=$MODE; create table t(w, n);"
for w in 1 2; do (for n in $(seq 60); do sqlite3 -cmd ".timeout 30000" c.db "begin immediate; insert into t values($w, $n); insert into t values($w, (select count(*) from t)); commit;" || echo "writer $w failed at $n"; done) & done; wait
sqlite3 c.db "select w, count(*) from t group by w; pragma integrity_check;"; rm c.db*'

@test "two concurrent writers, rollback journal" { same <<< "MODE=delete; $two_writers"; }
@test "two concurrent writers, write-ahead log" { same <<< "MODE=wal; $two_writers"; }

@test "a writer killed in a transaction leaves a hot journal that rolls back" {
    same <<SH
for m in delete wal; do sqlite3 k.db "pragma journal_mode=\$m; $fill" > /dev/null
mkfifo in; sqlite3 k.db < in > out & exec 5> in
printf 'pragma cache_size=5; begin; update t set b = randomblob(400);\n.print ready\n' >&5
for _ in \$(seq 200); do grep -qs ready out && break; sleep 0.05; done; kill -9 \$!; wait \$! 2>/dev/null || true
exec 5>&-; sqlite3 -cmd '.timeout 5000' k.db 'pragma integrity_check; select count(*), sum(length(b)) from t;'
rm k.db* out in; done
SH
}

@test "attach, full-text search, memory-mapped pages, dump and restore, large blobs" {
    same <<SH
sqlite3 a.db "pragma mmap_size=268435456; $fill attach 'b.db' as b; create table b.u as select * from t; select count(*) from b.u; create virtual table f using fts5(x); insert into f select a from t; select count(*) from f where f match '100'; insert into t(b) values(zeroblob(20000000)); select max(length(b)) from t; pragma integrity_check;"
sqlite3 b.db .dump | sqlite3 r.db; sqlite3 r.db 'select count(*), sum(id) from u; pragma integrity_check;'
sqlite3 a.db '.backup back.db' ; sqlite3 back.db 'pragma integrity_check;'; sqlite3 a.db "vacuum into 'v.db';"
sqlite3 v.db 'select count(*) from t;'; rm *.db
SH
}
