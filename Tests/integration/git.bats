#!/usr/bin/env bats
# git on the mount. Dates and names are fixed, so that object names can be compared with those made on the local disk.
load helper

setup_file() {
    start_mount
    make_source_tree "$BASE/src"
    export SRC=$BASE/src
    export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
    export GIT_AUTHOR_DATE='2020-01-02T03:04:05Z' GIT_COMMITTER_DATE='2020-01-02T03:04:05Z' GIT_CONFIG_NOSYSTEM=1
    git config --global init.defaultBranch main
    git config --global gc.auto 0
    git config --global protocol.file.allow always
    chmod 644 "$HOME/.gitconfig"
}

# What git leaves in .git differs by clock and pid; each script prints what it shows of the repository and removes it.
@test "init, add, commit, log, status, diff, checkout of a source tree" {
    same <<'SH'
git init -q r; cd r; cp -r "$SRC/." .; git add .; git commit -qm first; git rev-parse HEAD HEAD^{tree}
git status --short; echo change >> include/linux/fs.h; rm include/linux/if.h; touch untracked
git status --short; git diff --stat; git checkout -q -- include/linux/if.h; git add -A; git commit -qm second
git log --format='%H %s'; git show --stat --format=%H | tail -n 3; git checkout -q HEAD~1
git status --short | wc -l; git checkout -q main; git fsck --strict --full; rm -rf .git
SH
}

@test "status trusts an index only when nothing changed, also within one second" {
    same <<'SH'
git init -q r; cd r
for i in $(seq 20); do echo "$i" > f; git add f; echo "${i}x" > f; git status --short; git commit -qam "$i"; git status --short; done
git log --oneline | wc -l; git rev-parse HEAD; chmod +x f; git status --short; rm f; ln -s x f
git status --short; rm -rf .git
SH
}

@test "clone: local with hard links, by file://, shared, bare, shallow; push and pull" {
    same <<'SH'
git init -q r; cd r; cp -r "$SRC/shim" "$SRC/Sources" .; git add .; git commit -qm 1
for i in 2 3 4; do echo $i >> new; git add new; git commit -qm $i; done; cd ..
git clone -q r hard; git clone -q "file://$PWD/r" wire; git clone -q -s r shared; git clone -q --bare r bare.git
git clone -q --depth 1 "file://$PWD/r" shallow
for c in hard wire shared bare.git shallow; do git -C $c rev-parse HEAD; git -C $c fsck --full 2>&1 | grep -v '^Checking\|^notice' || true; done
diff -r -x .git r hard; cd wire; git remote set-url origin ../bare.git; echo pushed > p; git add p
git commit -qm pushed; git push -q; cd ../hard; git remote set-url origin ../bare.git; git pull -q; cat p; cd ..
rm -rf */.git bare.git
SH
}

@test "gc, repack, prune, reflog expire, packed refs, fsck after each" {
    same <<'SH'
git init -q r; cd r; cp -r "$SRC/include" .; git add .; git commit -qm 1
for i in $(seq 10); do echo $i >> f; git add f; git commit -qm $i; git tag t$i; done; git branch old HEAD~5
git gc -q; git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'; git fsck --full; git pack-refs --all
git show-ref | wc -l; git branch -D old -q; git reset -q --hard HEAD~3
for t in t8 t9 t10; do git tag -d $t > /dev/null; done; git reflog expire --expire=now --all
git gc -q --prune=now --aggressive; git fsck --full
git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'; git repack -adfq; git fsck; git rev-parse HEAD
rm -rf .git
SH
}

@test "branch, merge with a conflict, rebase, cherry-pick, stash, bisect" {
    same <<'SH'
git init -q r; cd r; seq 20 > f; git add f; git commit -qm base; git checkout -qb side; sed -i 's/^5$/five/' f
git commit -qam five; sed -i 's/^15$/fifteen/' f; git commit -qam fifteen; git checkout -q main
sed -i 's/^10$/ten/' f; git commit -qam ten; git checkout -q side; git rebase -q main; git log --format='%s %H'
git checkout -q main; git merge -q --no-ff -m merged side; git rev-parse HEAD
git checkout -qb clash HEAD~1; sed -i 's/^5$/FIVE/' f; git commit -qam FIVE
git merge main > /dev/null || git diff --name-only --diff-filter=U; git merge --abort
git cherry-pick side~1 > /dev/null 2>&1 || { git status --short; git cherry-pick --abort; }; echo dirty >> f
git stash -q; git status --short; git stash pop -q; git status --short; git checkout -q -f main
for i in 1 2 3 4 5 6 7 8; do echo $i > n; git add n; git commit -qm n$i; done
git bisect start HEAD HEAD~8 > /dev/null 2>&1
git bisect run sh -c 'test $(cat n) -lt 5' 2>&1 | grep 'first bad'; git bisect reset > /dev/null 2>&1
rm -rf .git
SH
}

@test "worktree, submodule, sparse checkout, clean, archive, mv, rm, hooks" {
    same <<'SH'
git init -q r; cd r; cp -r "$SRC/shim" .; mkdir d; echo x > d/x; git add .; git commit -qm 1
git worktree add -q ../w -b work; echo w > ../w/w; git -C ../w add w; git -C ../w commit -qm w
git worktree list | wc -l; git worktree remove ../w; git branch; git mv d e; git rm -q -r shim/proxy
git status --short | sort | head; git reset -q --hard
touch junk d/junk; mkdir j; touch j/k; git clean -fdxq; git status --short
git archive HEAD | tar -t | head -n 3; printf '#!/bin/sh\necho hook ran\nexit 1\n' > .git/hooks/pre-commit
chmod +x .git/hooks/pre-commit; git commit --allow-empty -qm no || echo "refused"; rm .git/hooks/pre-commit
git sparse-checkout set d; ls; git sparse-checkout disable; ls; git submodule --quiet add "$PWD" sub; ls sub
cd ..; rm -rf r/.git r/.gitmodules r/sub/.git
SH
}

@test "two git processes on one repository: the lock file keeps them apart" {
    same <<'SH'
git init -q r; cd r; git commit -q --allow-empty -m 0
for p in 1 2; do (n=0; while [ $n -lt 10 ]; do if git commit -q --allow-empty -m $p 2>/dev/null; then n=$((n + 1)); fi; done) & done
wait; git rev-list --count HEAD; git fsck --no-dangling; ls .git/*.lock 2>/dev/null | wc -l; rm -rf .git
SH
}
