#!/bin/sh
# The kernels' tests under valgrind, on the levels that it knows (portable and AVX2): reads of memory that is not theirs
# or was never written. Needs valgrind; takes five minutes. `tests/guard.rs` does the first half on every level.
#
#     scripts/valgrind.sh [TEST...]        # guard latents project
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- guard latents project
for test in "$@"; do
    built=$(cargo test --workspace --test "$test" --no-run 2>&1)
    # Executable tests/NAME.rs (PATH)
    binary=$(realpath "$(echo "$built" | sed -n "s|.*Executable tests/$test\.rs (\(.*\))|\1|p")")
    echo "== $test"
    (cd crates/attn-kernels && valgrind --quiet --error-exitcode=9 "$binary" --test-threads 1)
done
