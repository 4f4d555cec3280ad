#!/usr/bin/env bats
# `fos sim`: a seed is a run, bad files give one clear line, a scenario's runs are checked.
load helper

setup_file() {
    [ "$FOS_TEST_MOUNT" = fos ] || return 0
    BASE=$(mktemp -d "${FOS_TEST_TMP:-/tmp}/fos-test.XXXXXX")
    export BASE SCENARIOS=$BATS_TEST_DIRNAME/../../Scenarios
}
setup() { only_fos; }
teardown_file() { [ -z "${BASE:-}" ] || rm -rf --one-file-system "$BASE"; }

fos() { timeout 120 "$FOS" "$@" 3>&- < /dev/null; }

@test "two runs of one seed have the same hash, another seed has another" {
    one=$(fos sim --scenario "$SCENARIOS/messages.json" --seed 5 --json)
    two=$(fos sim --scenario "$SCENARIOS/messages.json" --seed 5 --json)
    other=$(fos sim --scenario "$SCENARIOS/messages.json" --seed 6 --json)
    [ "$one" = "$two" ]
    hash() { sed -n 's/.*"hash": "\([0-9a-f]*\)".*/\1/p' <<< "$1"; }
    [ "${#one}" -gt 100 ]
    [ "$(hash "$one")" != "$(hash "$other")" ]
    [ "$(hash "$one" | wc -c)" = 17 ]
}

@test "every scenario of the repository runs, and its seeds pass" {
    for file in "$SCENARIOS"/*.json; do
        run fos sim --scenario "$file" --seeds 1-40
        echo "$file: $output"
        [ "$status" = 0 ]
        [[ $output == *"40 runs, 0 failed"* ]]
    done
}

@test "machines from hwloc, and many cores" {
    run fos sim --cores 32 --topology "pack:2 l3:2 core:8 pu:1" --seed 2
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"checks       passed"* ]]
    run fos sim --cores 1024 --seed 2
    [ "$status" = 0 ]
}

@test "a trace shows the last events of every server" {
    run fos sim --seed 3 --trace
    [ "$status" = 0 ]
    [[ $output == *"/sys/file/0: the last "* ]]
    [[ $output == *"request GETATTR"* ]]
}

@test "a bad scenario is one clear line" {
    refused() {
        printf '%s' "$1" > "$BASE/bad.json"
        run fos sim --scenario "$BASE/bad.json"
        echo "$output"
        [ "$status" = 1 ]
        [ "${#lines[@]}" = 1 ]
        [[ $output == "fos: sim: $BASE/bad.json: $2"* ]]
    }
    refused '{ "cores": 16' "line 1: a comma or }"
    refused '{ "cores": 0 }' '"cores" of the scenario is no number from 1 to 4096'
    refused '{ "faults": [ { "kind": "sabotage" } ] }' 'fault "sabotage" is none of delay'
    refused '{ "worklaod": {} }' 'the scenario has no "worklaod"'
    refused '{ "topology": "cube" }' 'topology "cube" is neither'
    run fos sim --scenario "$BASE/absent.json"
    [ "$status" = 1 ]
    [[ $output == *"absent.json: No such file or directory" ]]
    run fos sim --seeds 5-1
    [ "$status" = 1 ]
    [[ $output == *"not a range"* ]]
}
