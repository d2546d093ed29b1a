#!/usr/bin/env bash
# A CUDA 13.0 toolkit for machines without one: enough to build and start `--features cuda`, no GPU and no driver needed.
# Where nvcc and its libraries are installed already, this script is not needed: candle and cudarc find them.
#
#     scripts/cuda-toolkit.sh [DIR]       # DIR: target/cuda-toolkit of this checkout
#     . DIR/env.sh
#     cargo build --release --features cuda
#
# Compiler, headers and libraries are NVIDIA's own Python wheels (1.2 GB unpacked; pip's configuration says from where).
# Running again does only what is missing. Needs Python 3 with pip, a C and a C++ compiler. Exits 3 where these or the
# wheels cannot be had, 1 where something else is wrong.
set -euo pipefail

WHEELS=(
    'nvidia-cublas==13.0.*'
    'nvidia-cuda-cccl==13.0.*'
    'nvidia-cuda-crt==13.0.*'
    'nvidia-cuda-nvcc==13.0.*'
    'nvidia-cuda-nvrtc==13.0.*'
    'nvidia-cuda-runtime==13.0.*'
    'nvidia-curand==10.4.0.*' # the one of CUDA 13.0: its numbers are its own
    'nvidia-nvvm==13.0.*'
)
LIBRARIES=(cublas cublasLt cudart curand nvrtc)

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$checkout/target/cuda-toolkit}

fail() {
    printf 'cuda-toolkit: %s\n' "$*" >&2
    exit 1
}

lacks() {
    printf 'cuda-toolkit: %s\n' "$*" >&2
    exit 3
}

needs() {
    local python
    [[ $(uname -sm) == 'Linux x86_64' || $(uname -sm) == 'Linux aarch64' ]] ||
        lacks "there are no wheels for $(uname -sm), install NVIDIA's toolkit"
    for python in python3 python; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            pip=("$python" -m pip --disable-pip-version-check)
            break
        fi
    done
    [[ -n ${pip:-} ]] || lacks 'needs Python 3 with pip'
    [[ $(type -t cc) ]] || lacks 'needs a C compiler (cc)'
    [[ $(type -t c++) || $(type -t g++) ]] || lacks 'nvcc needs a C++ compiler (g++)'
}

# Unpacked beside the place and moved there, so that a download broken off is not taken for a toolkit.
wheels() {
    local stamp=$dir/wheels/versions.txt wanted
    wanted=$(printf '%s\n' "${WHEELS[@]}")
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    rm -rf "$dir/wheels" "$dir/wheels.part"
    # Into a folder of its own: no Python is changed, so that pip has nothing to warn of.
    PIP_ROOT_USER_ACTION=ignore "${pip[@]}" install --quiet --no-deps --only-binary :all: \
        --target "$dir/wheels.part" "${WHEELS[@]}" || lacks 'pip could not install the wheels'
    printf '%s\n' "$wanted" >"$dir/wheels.part/versions.txt"
    mv "$dir/wheels.part" "$dir/wheels"
}

# Linkers look for libNAME.so, the wheels have libNAME.so.MAJOR alone.
links() {
    local name found
    mkdir -p "$dir/lib"
    for name in "${LIBRARIES[@]}"; do
        found=$(find "$home/lib" -name "lib$name.so.[0-9]*" | sort | head -n 1)
        [[ -n $found ]] || fail "the wheels have no lib$name"
        ln -sfn "$found" "$dir/lib/lib$name.so"
    done
    # Where nvcc looks on its own.
    ln -sfn lib "$home/lib64"
}

# A libcuda to link against, and to start with where there is no driver: every function of cuda.h is there, and each
# answers what NVIDIA's own stub does (CUDA_ERROR_STUB_LIBRARY), so that cuInit fails in good order.
stub() {
    local names
    # The header declares a function under its newest name, or under every name it ever had.
    names=$({
        cc -E -P -I"$home/include" "$home/include/cuda.h"
        cc -E -P -I"$home/include" -D__CUDA_API_VERSION_INTERNAL "$home/include/cuda.h"
    } | grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u | grep -vxE 'cuGetError(Name|String)')
    [[ $names == *cuInit* ]] || fail "no functions found in $home/include/cuda.h"
    mkdir -p "$dir/stub"
    {
        echo '#define STUB_LIBRARY 34'
        # Of cudaProfiler.h, which these wheels do not have.
        printf 'int %s(void) { return STUB_LIBRARY; }\n' $names cuProfilerStart cuProfilerStop
        cat <<'C'
static int text(int error, const char **out, const char *stub) {
    *out = error == STUB_LIBRARY ? stub : 0;
    return *out ? 0 : 1; /* CUDA_ERROR_INVALID_VALUE */
}
int cuGetErrorName(int error, const char **out) { return text(error, out, "CUDA_ERROR_STUB_LIBRARY"); }
int cuGetErrorString(int error, const char **out) { return text(error, out, "libcuda is a stub without a driver"); }
C
    } >"$dir/stub/libcuda.c"
    cc -shared -fPIC -O1 -w -Wl,-soname,libcuda.so.1 -o "$dir/stub/libcuda.so.1" "$dir/stub/libcuda.c"
    ln -sfn libcuda.so.1 "$dir/stub/libcuda.so"
}

environment() {
    {
        printf '# Written by scripts/cuda-toolkit.sh; source it, from sh or bash.\n'
        printf 'cuda_toolkit=%q\n' "$dir"
        cat <<'SH'
export CUDA_HOME="$cuda_toolkit/wheels/nvidia/cu13"
export CUDA_PATH="$CUDA_HOME"
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"
export PATH="$CUDA_HOME/bin:$PATH"
export LIBRARY_PATH="$cuda_toolkit/lib:$cuda_toolkit/stub${LIBRARY_PATH:+:$LIBRARY_PATH}"
export LD_LIBRARY_PATH="$CUDA_HOME/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# A driver that is installed is not to be hidden by the stub, which so comes last, and not at all where ld.so has one.
if ! /sbin/ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
    export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$cuda_toolkit/stub"
fi
unset cuda_toolkit
SH
    } >"$dir/env.sh"
}

needs
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
home=$dir/wheels/nvidia/cu13
wheels
links
stub
environment
"$home/bin/nvcc" --version >/dev/null || fail 'the nvcc of the wheels does not start'
echo "CUDA $("$home/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'): . $dir/env.sh"
