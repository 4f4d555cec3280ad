#!/usr/bin/env bats
# Python's own regression tests about files, in a directory of the mount under the shim: the same results as in a local one.

load helper

setup_file() {
    make -s -C "$ROOT/shim" all
    start_mount
    "$FOS" run -- true
}

# The results of python's test modules in a directory: which tests ran and how each ended, without times.
results() {
    local dir=$1 out=$2
    shift 2
    mkdir -p "$dir"
    chmod 1777 "$dir"
    (cd "$dir" && SCRIPT_TIMEOUT=$((SCRIPT_TIMEOUT * 2)) as_user env TMPDIR="$dir" python3 -m test --timeout $((FOS_LONG == 1 ? 900 : 150)) -v "$@") > "$out.raw" 2>&1 || true
    sed -nE 's/^(test[A-Za-z0-9_]* \([A-Za-z0-9_.]*\)).* \.\.\. (ok|FAIL|ERROR|skipped|expected failure|unexpected success).*$/\1 \2/p' "$out.raw" | sort > "$out"
    [ "$(wc -l < "$out")" -gt 20 ] || { tail -n 40 "$out.raw"; return 1; }
}

same_results() {
    only_fos
    python3 -c 'import test.test_os' 2> /dev/null || skip "libpython3.11-testsuite is not installed"
    results "$LOCAL/python" "$BASE/results/python.local" "$@"
    FOS_TEST_SHIM=1 results "$MOUNT/python" "$BASE/results/python.mount" "$@"
    # What fails in the local directory (a time that a busy machine does not keep) says nothing about the mount.
    for where in local mount; do
        awk 'NR == FNR { if ($NF ~ /^(FAIL|ERROR)$/) fails[$1 $2] = 1; next } !(($1 $2) in fails)' \
            "$BASE/results/python.local" "$BASE/results/python.$where" > "$BASE/results/$where"
    done
    diff -u "$BASE/results/local" "$BASE/results/mount" || { grep -A 30 -E '^(FAIL|ERROR):' "$BASE/results/python.mount.raw" | head -n 120; return 1; }
}

@test "files, paths, databases and archives" { same_results test_shutil test_tempfile test_zipfile64 test_dbm test_dbm_dumb test_fileio test_glob; }
@test "pathlib, mmap, fcntl, posix" { same_results test_pathlib test_mmap test_fcntl test_posix test_filecmp; }
@test "os" { same_results test_os; }
@test "tarfile and sqlite3" { only_long; same_results test_tarfile test_sqlite3; }
@test "io, zipfile" { only_long; same_results test_io test_zipfile; }
@test "subprocess, signals and threads" { only_long; same_results test_subprocess test_signal test_threading; }
