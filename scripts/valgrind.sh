#!/bin/sh
# The kernels' tests under valgrind, on the levels that it knows (portable and AVX2): reads of memory that is not theirs
# or was never written. Needs valgrind; takes five minutes. `tests/cpu/guard.rs` does the first half on every level.
#
#     scripts/valgrind.sh [MODULE...]        # guard latents project
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- guard latents project
built=$(cargo test --workspace --test cpu --no-run 2>&1)
# Executable tests/cpu/main.rs (PATH)
binary=$(realpath "$(echo "$built" | sed -n "s|.*Executable tests/cpu/main\.rs (\(.*\))|\1|p")")
for module in "$@"; do
    echo "== $module"
    (cd crates/attn-kernels && valgrind --quiet --error-exitcode=9 "$binary" --test-threads 1 "$module::")
done
