#!/usr/bin/env bats
# The memory fleet as a user sees it: what it tells, the setting for frames of 2 MiB, and the study of figure 1.
load helper

setup() { only_fos; }

SETTING=/sys/kernel/mm/transparent_hugepage/shmem_enabled
setting() { sed 's/.*\[\(.*\)\].*/\1/' "$SETTING"; }

@test "status and .fos/memory tell of page frames" {
    fos() { "$FOS" "$@"; }
    fos status "$MOUNT" | grep '^pages ' | grep -q 'frames'
    fos status "$MOUNT" | grep -q '^/sys/memory/0 '
    fos status --json "$MOUNT" | jq -e '.[0].memory | .limit_bytes > 0 and (.frames | length) == 2 and .frames[0].frame_bytes == 4096'
    [ "$(head -1 "$MOUNT/.fos/memory" | cut -f1-3)" = "$(printf 'server\tframe\tgranted')" ]
    fos names "$MOUNT" | grep -q '^/sys/memory '
}

@test "files get their pages from the memory fleet, and give them back" {
    local before during after
    before=$("$FOS" status --json "$MOUNT" | jq '.[0].memory.servers_bytes')
    dd if=/dev/zero of="$MOUNT/large" bs=1M count=64 status=none
    sync "$MOUNT/large"
    during=$("$FOS" status --json "$MOUNT" | jq '.[0].memory.servers_bytes')
    rm "$MOUNT/large"
    # What was needed in the last ten seconds is kept.
    for _ in $(seq 300); do
        after=$("$FOS" status --json "$MOUNT" | jq '.[0].memory.servers_bytes')
        [ "$after" -gt $((during - 40000000)) ] || break
        sleep 0.1
    done
    echo "before $before, during $during, after $after"
    [ $((during - before)) -ge 60000000 ]
    [ "$after" -le $((during - 40000000)) ]
}

@test "a reserve larger than the memory is refused" {
    local dir=$BASE/refused
    mkdir "$dir"
    run timeout 60 "$FOS" mount --memory 64M --memory-reserve 128M "$dir"
    [ "$status" = 1 ]
    [[ $output == *"more than the memory"* ]]
    rmdir "$dir"
}

@test "the setting for frames of 2 MiB is made by root's mounts, and given back by the last, also after a crash" {
    [ "$(id -u)" = 0 ] || skip "only root can make it"
    [ -w "$SETTING" ] || skip "this kernel has no such setting"
    # Other mounts of root on this machine keep it.
    [ "$(setting)" != never ] || false
    local others pid dir=$BASE/second
    others=$(findmnt -rn -t fuse.fos -o TARGET | grep -cv "^$BASE/" || true)
    mkdir "$dir"
    timeout 60 "$FOS" mount "$dir"
    pid=$(daemon_pid "$dir")
    kill -9 "$pid"
    for _ in $(seq 100); do is_mounted "$dir" || break; sleep 0.1; done
    # The first mount still needs it.
    [ "$(setting)" != never ]
    [ "$others" = 0 ] || skip "other mounts of root are there, which keep the setting"
    end_mount "$MOUNT"
    for _ in $(seq 100); do [ -e /run/fos.shmem_enabled ] || break; sleep 0.1; done
    echo "setting: $(setting)"
    [ ! -e /run/fos.shmem_enabled ]
    timeout 60 "$FOS" mount "$MOUNT" --allow-other
}

@test "study pages: a table, JSON and a figure" {
    run timeout 120 "$FOS" study pages --processes 2 --gib 0.05 --rounds 1 --json --plot "$BASE/figure.svg"
    echo "$output" | tail -5
    [ "$status" = 0 ]
    echo "$output" | sed '/^fos: /d' | jq -e '(.results | length) >= 12 and all(.results[]; .total_s | tonumber > 0)'
    grep -q '</svg>' "$BASE/figure.svg"
    python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$BASE/figure.svg"
    run timeout 60 "$FOS" study pages --gib 0
    [ "$status" != 0 ]
    [[ $output == *"--gib"* ]]
}

@test "study pages killed in the middle leaves no mount and no daemon" {
    "$FOS" study pages --processes 1 --gib 0.1 --rounds 100 > /dev/null 2>&1 3>&- &
    local study=$! pid
    for _ in $(seq 100); do findmnt -rn -t fuse.fos | grep -q "study-$study" && break; sleep 0.1; done
    findmnt -rn -t fuse.fos | grep "study-$study"
    pid=$(daemon_pid "$(findmnt -rn -t fuse.fos -o TARGET,SOURCE | grep "study-$study" | cut -d' ' -f1)")
    kill -9 "$study"
    for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    [ ! -d "/proc/$pid" ]
    ! findmnt -rn -t fuse.fos | grep "study-$study"
}
