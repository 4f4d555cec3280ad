#!/usr/bin/env bats
# Spatial scheduling of programs: what fos knows of where they run, and `fos run --near`.
load helper
bats_require_minimum_version 1.5.0

setup_file() {
    # Named, so that its cores stay there: the last of those that the tests may use.
    start_mount --cpus "$(python3 -c 'import os; print(max(os.sched_getaffinity(0)))')"
    # Those that fos has, those that it leaves, and one of the latter, as numbers.
    export FOS_CPUS="$("$FOS" status --json "$MOUNT" | jq -r '[.. | .cores? // empty | .[].cpu] | map(tostring) | join(" ")')"
    local cpu
    for cpu in $(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'); do
        case " $FOS_CPUS " in *" $cpu "*) ;; *) FREE_CPUS="${FREE_CPUS:+$FREE_CPUS }$cpu" ;; esac
    done
    export FREE_CPUS FREE_CPU=${FREE_CPUS%% *}
    [ -n "$FREE_CPU" ] || skip "fos has all CPUs"
}
allowed='import os; print(*sorted(os.sched_getaffinity(0)))'

@test "a program near its servers has CPUs that fos leaves, and hands them down" {
    cd "$MOUNT"
    run -0 "$FOS" run --near -- python3 -c "$allowed"
    [ -n "$output" ]
    for cpu in $output; do [[ " $FREE_CPUS " == *" $cpu "* ]]; done
    local near=$output
    run -0 "$FOS" run --near -- sh -c "python3 -c '$allowed'"
    [ "$output" = "$near" ]
    # The same from elsewhere, and with figures at the end.
    cd /
    run -0 --separate-stderr "$FOS" run --near --mount "$MOUNT" --stats -- python3 -c "$allowed"
    [ "$output" = "$near" ]
    # Without it, nothing changes.
    [ "$("$FOS" run --mount "$MOUNT" -- python3 -c "$allowed")" = "$(python3 -c "$allowed")" ]
    # Results are what they are elsewhere.
    same <<SH
mkdir near; for i in \$(seq 50); do echo \$i > near/\$i; done; cat near/* | sort -n | md5sum; nproc > /dev/null; rm -r near
SH
}

@test "a command that may use fos's CPUs only is told so; so is one without a mount" {
    run -125 taskset -c "${FOS_CPUS// /,}" "$FOS" run --near --mount "$MOUNT" -- true
    [[ "$output" == *"--near: $MOUNT: fos has all CPUs that the command may use ("*"mount it with fewer (--cpus), or leave --near out"* ]]
    run -125 "$FOS" run --near --mount /proc -- true
    [[ "$output" == *"/proc: not on a fos mount"* ]]
}

@test "fos fleet says from where programs ask each server" {
    "$FOS" fleet "$MOUNT" | grep -q 'ASKED FROM$'
    cd "$MOUNT"
    echo x > asked
    local work='
import os, time
end = time.monotonic() + 1
while time.monotonic() < end:
    for _ in range(200): os.stat("asked")
    time.sleep(0.01)'
    local before
    for try in 1 2 3 4 5 6 7 8; do
        taskset -c "$FREE_CPU" "$FOS" run --no-cache -- python3 -c "$work"
        "$FOS" fleet --json "$MOUNT" | jq -e --argjson cpu "$FREE_CPU" \
            '.servers | max_by(.requests) | .asked_from_cpu == $cpu and .asked_from_percent > 50' && return 0
    done
    "$FOS" fleet "$MOUNT"
    return 1
}
