#!/usr/bin/env bats
# stress-ng's file stressors, each with --verify, each a few seconds. A stressor that fails on the mount is run on the
# local disk too: what fails or is skipped there as well says nothing about the mount.
load helper

SECONDS_EACH=2

setup() { need stress-ng; [ "$FOS_LONG" != 1 ] || SECONDS_EACH=20; }

# stress STRESSOR [OPTIONS]: two instances on the mount.
stress() {
    local name=$1 dir result
    shift
    dir=$(fresh "$MOUNT")
    result=$(run_stressor "$dir" "$name" "$@")
    # On a busy machine the time may end before the first operation does.
    if [ "$result" = "was not possible" ]; then
        SECONDS_EACH=$((SECONDS_EACH * 4))
        result=$(run_stressor "$dir" "$name" "$@")
    fi
    # Whatever ran left nothing behind.
    [ -z "$(ls -A "$dir")" ] || { echo "left behind: $(ls -A "$dir")"; return 1; }
    rm -rf "$dir"
    [ "$result" != worked ] || return 0
    tail -n 30 "$BASE/results/stress"
    dir=$(fresh "$LOCAL" "local-$BATS_TEST_NUMBER")
    if [ "$(run_stressor "$dir" "$name" "$@")" = "$result" ]; then
        skip "$name $result on the local disk too"
    fi
    echo "$name $result on the mount, not on the local disk"
    return 1
}

# own STRESSOR: one that stress-ng of Debian 12 lacks, by a program of ours.
own() {
    local dir
    dir=$(fresh "$MOUNT")
    as_user "$BATS_TEST_DIRNAME/stressors.py" "$1" "$dir" "$SECONDS_EACH"
    rmdir "$dir"
}

# Prints what became of a stressor: "worked", "failed", or "was not possible" (refused, or no operation done).
run_stressor() {
    local dir=$1 name=$2 out=$BASE/results/stress
    shift 2
    as_user stress-ng --temp-path "$dir" "--$name" 2 --timeout "${SECONDS_EACH}s" --verify --no-rand-seed --metrics-brief "$@" \
        > "$out" 2>&1 || { echo failed; return; }
    if grep -q 'fail:\|FAILED' "$out"; then
        echo failed
    elif grep -q 'skipping stress' "$out" || ! grep -qE "metrc:.* $name +[1-9]" "$out"; then
        echo "was not possible"
    else
        echo worked
    fi
}

@test "stress-ng access" { stress access; }
@test "stress-ng aio" { stress aio; }
@test "stress-ng chattr" { stress chattr; }
@test "stress-ng chdir" { stress chdir --chdir-dirs 256; }
@test "stress-ng chmod" { stress chmod; }
@test "stress-ng chown" { stress chown; }
@test "stress-ng copy-file" { stress copy-file --copy-file-bytes 128m; }
@test "stress-ng dentry" { stress dentry --dentries 1024; }
@test "stress-ng dir" { stress dir --dir-dirs 512; }
@test "stress-ng dirdeep" { stress dirdeep --dirdeep-inodes 2000; }
@test "stress-ng dirmany" { stress dirmany; }
@test "stress-ng dup" { stress dup; }
@test "stress-ng fallocate" { stress fallocate --fallocate-bytes 32m; }
@test "stress-ng fcntl" { stress fcntl; }
@test "stress-ng fiemap is refused politely" {
    [ "$FOS_TEST_MOUNT" != local ] || skip "about a mount"
    local dir
    dir=$(fresh "$MOUNT")
    [ "$(run_stressor "$dir" fiemap --fiemap-bytes 16m)" = "was not possible" ]
    grep -q 'FIEMAP not supported' "$BASE/results/stress"
    rmdir "$dir"
}
@test "stress-ng file-ioctl" { stress file-ioctl; }
@test "stress-ng filename" { stress filename; }
@test "stress-ng flock" { stress flock; }
@test "stress-ng fpunch" { stress fpunch; }
@test "stress-ng fsize" { stress fsize; }
@test "stress-ng fstat" { stress fstat; }
@test "stress-ng getdent" { stress getdent; }
@test "stress-ng hdd" { stress hdd --hdd-bytes 32m; }
@test "stress-ng hdd with direct, sync and vectored writes" { stress hdd --hdd-bytes 8m --hdd-opts direct,dsync,iovec,wr-rnd,rd-rnd; }
@test "stress-ng inode-flags" { stress inode-flags; }
@test "stress-ng inotify" { stress inotify; }
@test "stress-ng io" { stress io; }
@test "stress-ng iomix" { stress iomix --iomix-bytes 32m; }
@test "stress-ng lease" { stress lease; }
@test "stress-ng link" { stress link; }
@test "stress-ng locka" { stress locka; }
@test "stress-ng lockf" { stress lockf; }
@test "stress-ng lockofd" { stress lockofd; }
@test "metadata mixed with data, as stress-ng metamix" { own metamix; }
@test "stress-ng mknod" { stress mknod; }
@test "stress-ng mmap of files" { stress mmap --mmap-file --mmap-bytes 16m; }
@test "stress-ng msync" { stress msync --msync-bytes 8m; }
@test "stress-ng open" { stress open; }
@test "stress-ng readahead" { stress readahead --readahead-bytes 16m; }
@test "stress-ng rename" { stress rename; }
@test "stress-ng seek" { stress seek --seek-size 16m; }
@test "stress-ng seek with holes punched" { stress seek --seek-size 16m --seek-punch; }
@test "stress-ng sendfile" { stress sendfile --sendfile-size 2m; }
@test "stress-ng splice" { stress splice; }
@test "stress-ng symlink" { stress symlink; }
@test "stress-ng sync-file" { stress sync-file --sync-file-bytes 8m; }
@test "stress-ng tee" { stress tee; }
@test "stress-ng touch" { stress touch; }
@test "unlinking of open files, as stress-ng unlink" { own unlink; }
@test "stress-ng utime" { stress utime --utime-fsync; }
@test "stress-ng xattr" {
    # It makes 4,096 attributes of one file before it counts anything, where others say ENOSPC after a few.
    SECONDS_EACH=8
    stress xattr
}

@test "stress-ng: all of these at once" {
    local dir
    dir=$(fresh "$MOUNT")
    as_user stress-ng --temp-path "$dir" --verify --timeout "$((SECONDS_EACH * 4))s" --dentry 1 --dentries 512 --rename 1 --link 1 \
        --symlink 1 --dir 1 --dir-dirs 256 --hdd 1 --hdd-bytes 16m --flock 1 --lockf 1 --getdent 1 --touch 1 --utime 1 --xattr 1 \
        > "$BASE/results/all" 2>&1 || { tail -n 30 "$BASE/results/all"; return 1; }
    refute grep 'fail:' "$BASE/results/all"
    rm -rf "$dir"
}
