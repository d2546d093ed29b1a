#!/bin/sh
# How near decoding is to the roofline floor of this machine: runs experiments/floor*.yaml on an idle machine and writes
# the table to scripts/floor/result.md. Needs Python 3.10 beside Rust; takes five minutes.
#
#     scripts/floor/run.sh [OUT]
set -eu
cd "$(dirname "$0")/../.."
out=${1:-$(mktemp -d)}
cargo build --release
for sweep in floor floor-large; do
    target/release/attn-bench run "experiments/$sweep.yaml" --out "$out/$sweep"
    target/release/attn-bench export "$out/$sweep" --format json > "$out/$sweep.json"
done
python3 scripts/floor/table.py "$out" > scripts/floor/result.md
cat scripts/floor/result.md
