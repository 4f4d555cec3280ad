#!/bin/bash
# Everything that must pass: dependencies, builds, unit tests, integration tests as root and as an ordinary user, the
# quick start, the benchmarks in their smallest form. The last line is "N passed, N failed, N skipped"; the exit status
# is 0 only if nothing failed.
#
# usage: Tests/run.sh [--no-install] [unit] [integration] [examples]      (default: all three)
#
#   FOS_LONG=1         the long variants too
#   FOS_SCRATCH=DIR    build folder (default .build)
set -u
self=$(realpath "$0")
usage() { sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$self"; }
cd "$(dirname "$0")/.." || exit 1
ROOT=$PWD
SCRATCH=${FOS_SCRATCH:-$ROOT/.build}
export FOS=$SCRATCH/release/fos FOS_SCRATCH=$SCRATCH
CHECK=(--scratch-path "$SCRATCH" --explicit-target-dependency-import-check error)
# The suites that make sense for an ordinary user on a mount that root made with --allow-other.
ORDINARY=(coreutils shell archives git build python sqlite find_editors special load stress)

# The suites that are run a second time with several cores and with locks in the fleet.
CORES=(coreutils special sqlite python load)

# The suites that are run a third time by messages, under the shim.
SHIM=(shell coreutils archives git python sqlite build find_editors special users shards)

install=1
parts=()
for argument in "$@"; do
    case $argument in
        --no-install) install=0 ;;
        unit | integration | examples) parts+=("$argument") ;;
        -h|--help) usage; exit 0 ;;
        *) usage >&2; exit 1 ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(unit integration examples)
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }

# Every mount of this run lies below this directory, so that whatever happens none outlives the run, and a run beside
# it is left alone.
OUT=$(mktemp -d /tmp/fos-run.XXXXXX)
chmod 755 "$OUT"
export FOS_TEST_TMP=$OUT
passed=0 failed=0 skipped=0
clean() {
    local dir
    findmnt -n -l -t fuse.fos,fuse,fuse.fuse-overlayfs,tmpfs -o TARGET 2>/dev/null | grep -F "$OUT/" | sort -r | while read -r dir; do
        echo "left behind: $dir" >&2
        umount -l "$dir" 2>/dev/null || fusermount3 -u -z "$dir"
    done
    rm -rf --one-file-system "$OUT"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

heading() { printf '\n=== %s (%s)\n' "$1" "$(date +%T)"; }
# A step that is one test: passes or fails as a whole.
step() {
    local name=$1
    shift
    heading "$name"
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}
finish() {
    heading end
    [ ! -s "$OUT/failures" ] || { echo "failed:"; sed 's/^/  /' "$OUT/failures"; }
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}

# Adds what a TAP file says to the totals.
count_tap() {
    local ok bad skips
    ok=$(grep -c '^ok ' "$1")
    skips=$(grep -c '^ok .* # skip' "$1")
    bad=$(grep -c '^not ok ' "$1")
    passed=$((passed + ok - skips)) skipped=$((skipped + skips)) failed=$((failed + bad))
    grep '^not ok ' "$1" | sed "s/^not ok [0-9]*/$2:/" >> "$OUT/failures"
}

run_bats() {
    local user=${1%% *} title=$1 status=0 planned ran
    shift
    heading "bats as $title: ${*##*/}"
    FOS_TEST_USER=$user bats --tap --timing "$@" < /dev/null | tee "$OUT/tap" || status=$?
    count_tap "$OUT/tap" "as $title"
    # A file whose set-up failed, or a runner that broke off, reports fewer tests than it announced.
    planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$OUT/tap" | head -n 1)
    ran=$(grep -cE '^(not )?ok ' "$OUT/tap")
    if [ "${planned:-0}" != "$ran" ]; then
        echo "bats announced ${planned:-0} tests and reported $ran" | tee -a "$OUT/failures"
        failed=$((failed + 1))
    fi
}

if [ "$install" = 1 ]; then
    heading dependencies
    scripts/dependencies.sh all || { failed=1; finish; }
fi

if wanted integration || wanted examples; then
    heading "release build"
    swift build -c release --product fos "${CHECK[@]}" && make -s -C shim all beside SCRATCH="$SCRATCH" || { failed=$((failed + 1)); finish; }
    passed=$((passed + 1))
fi

if wanted unit; then
    step "message proxy and shim: two compilers, libc alone, a scripted instance, interception" make -s -C shim check
    heading "unit tests"
    # One at a time: several of them time out on a machine that all of them load at once.
    swift test --disable-xctest --no-parallel "${CHECK[@]}" 2>&1 | tee "$OUT/unit" | grep -vE '^(◇|\[[0-9]+/[0-9]+\]|✔)' || true
    status=${PIPESTATUS[0]}
    if [ "$(uname -m)" = x86_64 ] && [ "$(id -u)" = 0 ]; then
        heading "contract suite through the shim"
        make -s -C shim beside SCRATCH="$SCRATCH"
        LD_PRELOAD=$("$SCRATCH/debug/fos" shim-path) FOS_CONTRACT_SHIM=1 swift test --skip-build --disable-xctest --no-parallel "${CHECK[@]}" \
            --filter 'ContractTests.Mount.*(cases|theShim|ByMessage)' 2>&1 | tee -a "$OUT/unit" | grep -vE '^(◇|\[[0-9]+/[0-9]+\]|✔)' || true
        [ "${PIPESTATUS[0]}" = 0 ] || status=1
    fi
    good=$(grep -cE '^(✔|.\[[0-9;]*m✔).* Test .* passed after' "$OUT/unit")
    bad=$(grep -cE '^(✘|.\[[0-9;]*m✘).* Test .* failed after' "$OUT/unit")
    # Swift Testing marks its closing line like a test; it counts tests of its own.
    good=$((good - $(grep -cE '✔ Test run with .* passed after' "$OUT/unit")))
    bad=$((bad - $(grep -cE '✘ Test run with .* failed after' "$OUT/unit")))
    skipped=$((skipped + $(grep -c '^➜ Test .* skipped' "$OUT/unit")))
    passed=$((passed + good)) failed=$((failed + bad))
    grep -E '✘ Test .* failed after' "$OUT/unit" | grep -v 'Test run with' | sed 's/^/unit: /' >> "$OUT/failures"
    if [ "$status" != 0 ] && [ "$bad" = 0 ] || [ "$good" = 0 ]; then
        echo "swift test ended with status $status after $good tests" | tee -a "$OUT/failures"
        failed=$((failed + 1))
    fi
fi

if wanted integration; then
    run_bats "$(id -un)" Tests/integration/*.bats
    # Every CPU a core, so that servers of one fleet run at the same time, and locks kept by the fleet.
    if [ "$(nproc)" -gt 1 ]; then
        FOS_TEST_OPTIONS="--cpus 0-$(($(nproc) < 4 ? $(nproc) - 1 : 3)) -o locks=fleet" run_bats "$(id -un)" $(printf 'Tests/integration/%s.bats ' "${CORES[@]}")
    fi
    if [ "$(uname -m)" = x86_64 ]; then
        FOS_TEST_SHIM=1 run_bats "$(id -un) by messages" $(printf 'Tests/integration/%s.bats ' "${SHIM[@]}")
    fi
    if [ "$(id -u)" = 0 ]; then
        run_bats nobody $(printf "Tests/integration/%s.bats " "${ORDINARY[@]}")
    fi
    step "file system benchmark, smallest form" Benchmarks/files/run.sh --smoke
    step "the same against an empty server" Benchmarks/files/run.sh --smoke --floor
    [ "$(uname -m)" != x86_64 ] || step "shim benchmark, smallest form" Benchmarks/shim/run.sh --smoke
    [ "$(uname -m)" != x86_64 ] || step "what the shim adds to a start, smallest form" sh -c '"$FOS" shim-path && make -s -C Benchmarks/shim run ROUNDS=20'
    # It needs a CPU beside the servers'.
    [ "$(nproc)" = 1 ] || step "message benchmark, smallest form" Benchmarks/messages/run.sh --smoke
fi
if wanted examples; then
    TMPDIR=$OUT step "quick start" examples/quickstart.sh --no-install
fi
finish
