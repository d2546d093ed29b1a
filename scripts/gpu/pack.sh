#!/usr/bin/env bash
# What a GPU machine without Rust and without a network needs for `session.sh`, in one folder that git ignores: the
# binary with CUDA, stripped and compressed (6 MB), and the wheel of the package mtla for the peers.
#
#     scripts/gpu/pack.sh [--binary FILE] [--no-wheel] [DIR]      # DIR: target/gpu-kit of this checkout
#
# Builds the binary (`cargo build --release --features cuda`, with the toolkit of scripts/cuda-toolkit.sh where it is),
# unless --binary names one. The checkout travels too: session.sh reads experiments/, scripts/ and fixtures from it.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$checkout/target/gpu-kit binary='' wheel=mtla==0.3.2

fail() {
    printf 'pack: %s\n' "$*" >&2
    exit 1
}

while [[ $# -gt 0 ]]; do
    case $1 in
    --binary) binary=${2:?--binary FILE} && shift ;;
    --no-wheel) wheel='' ;;
    -*) fail "unknown option $1" ;;
    *) dir=$1 ;;
    esac
    shift
done

if [[ -z $binary ]]; then
    if ! command -v nvcc >/dev/null && [[ -f $checkout/target/cuda-toolkit/env.sh ]]; then
        # shellcheck source=/dev/null
        . "$checkout/target/cuda-toolkit/env.sh"
    fi
    (cd "$checkout" && cargo build --release --features cuda)
    binary=$checkout/target/release/attn-bench
fi
[[ -x $binary ]] || fail "$binary is no program"
needed=$(objdump -p "$binary" | awk '$1 == "NEEDED" { print $2 }')
[[ $needed == *libcuda.so.1* ]] || fail "$binary is built without CUDA: cargo build --release --features cuda"

mkdir -p "$dir/wheels"
strip -o "$dir/attn-bench" "$binary"
xz -9e --force --threads 0 "$dir/attn-bench"
if [[ -n $wheel ]]; then
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$dir/wheels" "$wheel" || fail "pip could not fetch $wheel; --no-wheel leaves that peer out"
fi

glibc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
{
    printf 'commit %s\n' "$(git -C "$checkout" describe --always --dirty 2>/dev/null || echo unknown)"
    printf 'needs %s\n' "$glibc" "${needed//$'\n'/ }"
    (cd "$dir" && find attn-bench.xz wheels -type f -exec sha256sum {} +)
} >"$dir/manifest.txt"
cat "$dir/manifest.txt"
# Ubuntu 22.04 has 2.35, 24.04 has 2.39.
if [[ $(printf '%s\nGLIBC_2.35\n' "$glibc" | sort -V | tail -n 1) != GLIBC_2.35 ]]; then
    echo "pack: warning: the binary needs $glibc, newer than Ubuntu 22.04 has" >&2
fi
du -sh "$dir"
