#!/usr/bin/env bash
# The A/A study: how often does `compare` see a difference where there is none, and how often does it find one
# that was planted? For each of PAIRS pairs, in turn so that all kinds meet the same weather:
#
#   aa-alternating       one run against the same binary, case by case in turn
#   planted-alternating  the same, the new side made 15 % slower by a real spin in its timed work
#   aa-apart             a run by itself, and that of the pair before
#   planted-apart        a run by itself, and one that is 15 % slower
#
# A pair takes about nine minutes with the quick sweep on two cores.
#
#   scripts/aa/study.sh OUT           # then: python3 scripts/aa/table.py OUT > OUT/table.md
#
# Environment: PAIRS (10), SWEEP (experiments/quick.yaml), BINARY (target/release/attn-bench), PLANT (*:slow=0.15).
# A study that was interrupted goes on where it stopped when it is started again with the same OUT.
set -euo pipefail

out=${1:?usage: scripts/aa/study.sh OUT}
pairs=${PAIRS:-10}
plant=${PLANT:-*:slow=0.15}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
sweep=${SWEEP:-$root/experiments/quick.yaml}
binary=${BINARY:-$root/target/release/attn-bench}
[[ -x $binary ]] || { echo "$binary is missing: cargo build --release" >&2 && exit 2; }
# A plant in the environment would be in every run.
unset ATTN_BENCH_PLANT

# Runs the sweep into a new folder: its name, then further arguments. A half-written folder is begun again.
run_into() {
    local folder=$1 code=0
    shift
    [[ ! -e $folder.done ]] || return 0
    rm -rf "$folder"
    "$binary" run "$sweep" --out "$folder" "$@" >"$folder.log" 2>&1 || code=$?
    # 3 is that some cases failed: they are rows too, and the table counts them out.
    [[ $code -eq 0 || $code -eq 3 ]] || { tail -n 20 "$folder.log" >&2 && exit "$code"; }
    touch "$folder.done"
}

# Compares two runs, and exports the rows of both: kind, pair, base, new.
compare() {
    local to=$out/compared/$1-$2
    "$binary" compare "$3" "$4" --format json >"$to.json" 2>"$to.log"
    "$binary" export "$3" --format json >"$to.base.json"
    "$binary" export "$4" --format json >"$to.new.json"
}

mkdir -p "$out/runs" "$out/compared"
before=$out/runs/00-apart
run_into "$before"
for ((i = 1; i <= pairs; i++)); do
    pair=$(printf '%02d' "$i")
    runs=$out/runs/$pair
    echo "pair $i of $pairs"
    run_into "$runs-aa" --against "$binary"
    compare aa-alternating "$pair" "$runs-aa/base" "$runs-aa"
    ATTN_BENCH_PLANT=$plant run_into "$runs-planted" --against "$binary"
    compare planted-alternating "$pair" "$runs-planted/base" "$runs-planted"
    run_into "$runs-apart"
    compare aa-apart "$pair" "$before" "$runs-apart"
    ATTN_BENCH_PLANT=$plant run_into "$runs-apart-planted"
    compare planted-apart "$pair" "$runs-apart" "$runs-apart-planted"
    before=$runs-apart
done
