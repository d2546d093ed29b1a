#!/usr/bin/env bash
# A stand-in for a GPU with its driver, NVRTC, cuBLAS and cuRAND (crates/attn-testkit/standin says what it is and what it
# is not): a build with CUDA runs its GPU's code on the host, slowly. Tests use it; for developing,
#
#     . "$(scripts/cuda-standin.sh target/cuda-standin)/env.sh"
#     attn-bench verify --device cuda
#
# Builds into a folder of DIR that is named by what it is built of, unless it is there, and prints that folder. Needs a
# C++ compiler (c++) and the headers of the toolkit that CUDA_HOME or CUDA_PATH name. Exits 3 where these are missing.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sources=$checkout/crates/attn-testkit/standin
host=$checkout/crates/attn-kernels/tests/host
dir=${1:?where to build it}

lacks() {
    printf 'cuda-standin: %s\n' "$*" >&2
    exit 3
}

[[ $(type -t c++) ]] || lacks 'needs a C++ compiler (c++)'
home=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
[[ -f $home/include/cuda.h ]] || lacks "there is no toolkit in $home, name its folder with CUDA_HOME"

key=$({
    c++ --version
    printf '%s\n' "$home"
    cat "${BASH_SOURCE[0]}" "$sources"/* "$host"/*.[ch]pp
} | sha256sum | cut -c 1-16)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)/$key
if [[ -f $dir/env.sh ]]; then
    echo "$dir"
    exit
fi

# Beside its place, and moved there: two builds at once do not see each other.
part=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$part"' EXIT
mkdir "$part/lib" "$part/objects" "$part/kernels" "$part/host"

# As attn-kernels/tests/host/mod.rs compiles kernels, which says why.
HOST_OPTIONS='-w -O1 -std=c++17 -fPIC -fno-gnu-unique -U_FORTIFY_SOURCE'

compile() {
    c++ -std=c++17 -O2 -Wall -Wextra -fPIC -fvisibility=hidden -isystem "$home/include" -DHOST_FOLDER="\"$dir/host\"" \
        -DHOST_OPTIONS="\"$HOST_OPTIONS\"" -c -o "$part/objects/$1.o" "$sources/$1.cpp"
}

# What every kernel has in common is compiled once.
language() {
    cp "$host/cuda.hpp" "$host/ptx.hpp" "$part/host"
    c++ $HOST_OPTIONS -x c++-header -o "$part/host/cuda.hpp.gch" "$part/host/cuda.hpp"
    c++ $HOST_OPTIONS -O2 -c -o "$part/host/cuda.o" "$host/cuda.cpp"
}

# As the real library is: its name, and its name as the version of its symbols.
link() {
    local library=$1
    shift
    printf '%s { global: *; };\n' "$library" >"$part/objects/$library.map"
    c++ -shared -Wl,-soname,"$library" -Wl,--version-script,"$part/objects/$library.map" -o "$part/lib/$library" "$@"
}

# Every function of the driver that has no stand-in says its name and that it is not supported.
rest() {
    local names
    # The header declares a function under its newest name, or under every name it ever had.
    names=$(for newest in '' -D__CUDA_API_VERSION_INTERNAL; do
        c++ -x c -E -P -I"$home/include" $newest "$home/include/cuda.h"
    done | grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u)
    nm --defined-only "$part/objects"/{device,memory,modules,streams}.o | sed -n 's/.* T \(cu[A-Z].*\)/\1/p' | sort -u >"$part/objects/played"
    {
        printf '#include <cstdio>\n#define REST(NAME) extern "C" __attribute__((visibility("default"))) int NAME() {'
        printf ' std::fputs("stand-in: " #NAME " is not supported\\n", stderr); return 801; }\n'
        printf 'REST(%s)\n' $(printf '%s\n' $names cuProfilerStart cuProfilerStop | sort -u | grep -vxFf "$part/objects/played")
    } >"$part/objects/rest.cpp"
    c++ -O1 -fPIC -c -o "$part/objects/rest.o" "$part/objects/rest.cpp"
}

for name in candle cublas curand device memory modules nvrtc streams; do
    compile "$name"
done
rest
language
objects=$part/objects
# The driver has no versions of symbols.
c++ -shared -Wl,-soname,libcuda.so.1 -o "$part/lib/libcuda.so.1" "$objects"/{candle,device,memory,modules,rest,streams}.o -ldl -lpthread
link libcublas.so.13 "$objects/cublas.o" "$part/lib/libcuda.so.1"
link libcurand.so.10 "$objects/curand.o" "$part/lib/libcuda.so.1"
link libnvrtc.so.13 "$objects/nvrtc.o"
rm -r "$objects"
{
    printf 'standin=%q\n' "$dir"
    cat <<'SH'
# What is left of the toolkit, the runtime, comes behind it.
export LD_LIBRARY_PATH="$standin/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# Code for the host is not to be taken for that of a GPU.
export ATTN_KERNEL_CACHE="$standin/kernels"
unset CUDA_VISIBLE_DEVICES standin
SH
} >"$part/env.sh"
chmod 755 "$part"
mv -T "$part" "$dir" 2>/dev/null || [[ -f $dir/env.sh ]]
echo "$dir"
