#!/usr/bin/env bats
# fos study, in its smallest form.

load helper

@test "study scale prints a table, and the same one again" {
    run "$FOS" study scale --cores 1,4 --workloads stat,create-shared --operations 300
    [ "$status" -eq 0 ]
    [[ "$output" == *"stat of a file of one's own (stat)"* ]]
    [[ "$output" == *"one server"* ]]
    first="$output"
    run "$FOS" study scale --cores 4,1,1 --workloads stat,create-shared --operations 300
    [ "$output" = "$first" ]
}

@test "study scale writes a figure and JSON" {
    figure="$BATS_TEST_TMPDIR/scale.svg"
    "$FOS" study scale --cores 4,16 --workloads stat --operations 300 --seed 7 --plot "$figure" --json > "$BATS_TEST_TMPDIR/scale.json"
    python3 - "$BATS_TEST_TMPDIR/scale.json" "$figure" <<'PY'
import json, sys, xml.dom.minidom
report = json.load(open(sys.argv[1]))
assert report["seed"] == 7 and report["operations"] == 300
points = [(p["cores"], p["singleServer"]) for p in report["points"]]
assert points == [(4, False), (4, True), (16, False), (16, True)], points
assert all(p["messages"] >= 1.9 for p in report["points"])
assert len(report["placements"]) == 3
svg = xml.dom.minidom.parse(sys.argv[2])
assert len(svg.getElementsByTagName("polyline")) == 3
PY
}

@test "study scale reads more files than one server maps" {
    run "$FOS" study scale --cores 300 --workloads read-private --operations 1000
    [ "$status" -eq 0 ]
    [[ "$output" == *"one server"* ]]
}

@test "study scale has fleets of more members than a name has" {
    run "$FOS" study scale --cores 2100 --workloads name-lookup --operations 1000
    [ "$status" -eq 0 ]
    [[ "$output" == *"2100"* ]]
}

@test "study scale says what is wrong with its options" {
    run "$FOS" study scale --cores 0,4
    [ "$status" -eq 1 ]
    [[ "$output" == *"--cores is a list of numbers from 1 to 4096"* ]]
    run "$FOS" study scale --cores 4 --workloads nothing
    [ "$status" -eq 1 ]
    [[ "$output" == *"no workload 'nothing'"* ]]
    run "$FOS" study scale --cores 4 --workloads stat --operations 10 --plot "$BATS_TEST_TMPDIR/no/such.svg"
    [ "$status" -eq 1 ]
    [[ "$output" == *"No such file or directory"* ]]
}
