#!/usr/bin/env bash
# Everything a GPU is wanted for, in one go of under nine minutes: correctness, memory checks, the sweeps
# experiments/gpu-*.yaml, PyTorch and Triton beside them, a profile.
#
#     scripts/gpu/pack.sh                            # where there is Rust: the binary, into target/gpu-kit
#     scripts/gpu/session.sh [FOLDER]                # on the GPU machine, in the same checkout with target/gpu-kit
#
#     --only a,b      these stages alone             --minutes N     for all of them (9)
#     --dry-run       stages, their time, commands   --kit DIR       of pack.sh (target/gpu-kit)
#     --binary FILE   instead of the kit's
#
# FOLDER ($OUT, else gpu-session) receives few files, and has them after every stage, should the machine vanish:
# summary.md (each stage's result and time), rows.json (our rows), peers.jsonl, comparison.md, session.tar.gz (all
# else: logs, runs with samples and figures, the profile).
#
# The machine needs a driver, CUDA 13's libraries (its own or those of PyTorch's wheels), Python 3 with PyTorch;
# compute-sanitizer and ncu are used where they are. No stage ends the others. Each has a share of the time; what one
# leaves over goes to the next, and a sweep that is cut off keeps the rows it has.
#
# The sweeps hold 400 cases, some ten to fifteen minutes; what the stages below leave out of them is in `sweep`.
# In full, without a time limit:
#     for f in experiments/gpu-*.yaml; do attn-bench run $f --out FOLDER/$(basename $f .yaml); done
#
# Not yet run on a GPU.
# shellcheck disable=SC2329 # stages are called by their names
set -uo pipefail

# Stages in order, each with its share of nine minutes in seconds, most wanted first. Checks come before times, and the
# peers after the sweeps whose cases they take.
STAGES=(
    environment:10 doctor:8 verify:70 context:80 prefill:55 long:20 large:45
    peers:105 memcheck:25 batch:25 racecheck:25 compression:20 heads:15 profile:20 compare:7
)
RESERVE_S=8 # for summary and archive at the end

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder='' only='' minutes=9 dry='' kit=$checkout/target/gpu-kit binary=''

die() {
    printf 'session: %s\n' "$*" >&2
    exit 2
}

while [[ $# -gt 0 ]]; do
    case $1 in
    --only) only=${2:?--only STAGES} && shift ;;
    --minutes) minutes=${2:?--minutes N} && shift ;;
    --kit) kit=$(realpath -m "${2:?--kit DIR}") && shift ;;
    --binary) binary=$(realpath -m "${2:?--binary FILE}") && shift ;;
    --dry-run) dry=yes ;;
    -*) die "unknown option $1" ;;
    *) folder=$1 ;;
    esac
    shift
done
folder=$(realpath -m "${folder:-${OUT:-gpu-session}}")
cd "$checkout" || exit 1
total=$(awk -v m="$minutes" 'BEGIN { if (m + 0 <= 0) exit 1; printf "%d", m * 60 }') || die "--minutes $minutes"

names=()
for stage in "${STAGES[@]}"; do
    [[ -z $only || ,$only, == *,${stage%%:*},* ]] && names+=("$stage")
done
IFS=, read -ra asked <<<"$only"
for name in "${asked[@]}"; do
    [[ " ${STAGES[*]}" == *" $name:"* ]] || die "no stage $name, there are: ${STAGES[*]%%:*}"
done

# The shares, as parts of the time there is: of all of it with --only too.
sum=0
for stage in "${names[@]}"; do sum=$((sum + ${stage##*:})); done
share() { echo $((${1##*:} * (total - RESERVE_S) / sum)); }

# The sweep of a stage, and what of it: file, then arguments. About half of all cases; large caches and `op`, where
# attention stands alone, come first.
sweep() {
    case $1 in
    context) echo gpu-context.yaml --filter 'context>=4096' ;;                  # 72 of 96 cases
    prefill) echo gpu-prefill.yaml --filter 'tokens<=8192' ;;                   # 40 of 60
    long) echo gpu-prefill.yaml --filter 'workload=prefill,tokens=32768' ;;     # 10 of 60
    large) echo gpu-context-large.yaml --filter 'scope=op,context>=32768' ;;    # 24 of 96
    batch) echo gpu-batch.yaml --filter 'scope=op' ;;                           # 30 of 60
    compression) echo gpu-compression.yaml --filter 'scope=op,batch=64' ;;      # 18 of 72
    heads) echo gpu-heads.yaml ;;                                               # all 16
    *) return 1 ;;
    esac
}
SWEEPS=(gpu-context.yaml gpu-prefill.yaml gpu-context-large.yaml gpu-batch.yaml gpu-compression.yaml gpu-heads.yaml)

if [[ $dry ]]; then
    printf '%-12s %6s  %s\n' stage share what
    for stage in "${names[@]}"; do
        name=${stage%%:*}
        if what=$(sweep "$name"); then
            read -ra arguments <<<"$what"
            what="attn-bench run experiments/$what"
            [[ $binary ]] && cases=$("$binary" plan "experiments/${arguments[0]}" "${arguments[@]:1}" 2>/dev/null |
                sed -n 's/^\([0-9]* cases\) in.*/\1/p') && what="$what ($cases)"
        else
            what=$(sed -n "s/^${name}() { *# *//p" scripts/gpu/session.sh)
        fi
        printf '%-12s %4d s  %s\n' "$name" "$(share "$stage")" "$what"
    done
    printf '%-12s %4d s\n' 'all' "$total"
    exit 0
fi

mkdir -p "$folder" || exit 1
work=$(mktemp -d) # what becomes session.tar.gz, and beside it what does not
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/session/rows" "$work/session/runs" "$work/tools"
logs=$work/session
export ATTN_KERNEL_CACHE=$work/tools/kernels # kernels that one process compiled serve the next
export PYTHONUNBUFFERED=1
began=$SECONDS

python=''
for candidate in "${PYTHON:-}" python3 python; do
    [[ -n $candidate ]] || continue
    "$candidate" -c 'from importlib.util import find_spec as f; exit(f("torch") is None)' 2>/dev/null || continue
    python=$candidate
    break
done
[[ -n $python ]] || python=python3 # the peers will say that there is no PyTorch

# The binary where it can run, `attn-bench` on the PATH where there is no kit.
unpack() {
    if [[ -z $binary && -f $kit/attn-bench.xz ]]; then
        binary=$work/tools/attn-bench
        if command -v xz >/dev/null; then
            xz -dc "$kit/attn-bench.xz" >"$binary"
        else
            "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' \
                "$kit/attn-bench.xz" >"$binary"
        fi || die "cannot unpack $kit/attn-bench.xz"
        chmod +x "$binary"
    fi
    binary=$(command -v "${binary:-attn-bench}") || die 'there is no attn-bench: scripts/gpu/pack.sh, or --binary FILE'
    local wheel
    for wheel in "$kit"/wheels/*.whl; do
        [[ -f $wheel ]] && "$python" -m zipfile -e "$wheel" "$work/tools/site"
    done
    export PYTHONPATH=$work/tools/site${PYTHONPATH:+:$PYTHONPATH}
}

# Has the binary find CUDA's libraries where the system does not know them: the toolkit's, else those of PyTorch's
# wheels. For the binary alone: PyTorch has its own.
libraries() {
    local places library place path=${LD_LIBRARY_PATH:-}
    places=$({
        printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64 /usr/local/nvidia/lib64 /usr/lib/wsl/lib
        "$python" -c 'import nvidia, glob; print(*glob.glob(list(nvidia.__path__)[0] + "/*/lib"), sep="\n")'
    } 2>/dev/null)
    # NVRTC is opened when the first kernel is compiled, the others when the program starts.
    for library in $(ldd "$binary" 2>/dev/null | awk '/not found/ { print $1 }') libnvrtc.so.13; do
        /sbin/ldconfig -p 2>/dev/null | grep -qF "$library " && continue
        for place in $places; do
            [[ -e $place/$library ]] || continue
            [[ :$path: == *:$place:* ]] || path=${path:+$path:}$place
            break
        done
    done
    printf '#!/bin/bash\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$path" "$binary" >"$work/tools/bench"
    chmod +x "$work/tools/bench"
    binary=$work/tools/bench
}

# limited SIGNAL SECONDS COMMAND...: ends the command in good order, and some seconds later at once.
limited() {
    local signal=$1 seconds=$(($2 > 1 ? $2 : 1))
    shift 2
    timeout --signal="$signal" --kill-after=6 "$seconds" "$@"
}

# The worst of two exit codes: a check that failed counts more than one that was cut off.
worse() {
    if [[ $1 -eq 0 || ($1 -eq 124 && $2 -ne 0) ]]; then echo "$2"; else echo "$1"; fi
}

environment() { # nvidia-smi -q, nvcc, Python's versions, the binary's libraries
    nvidia-smi
    nvidia-smi -q >"$logs/nvidia-smi.txt" 2>&1
    nvcc --version
    limited TERM "$1" "$python" - <<'P'
import sys, torch
print(sys.version, torch.__config__.show(), "CUDA", torch.cuda.is_available(), sep="\n")
import triton
print("triton", triton.__version__)
P
    uname -a
    cat /etc/os-release "$kit/manifest.txt" 2>/dev/null
    cat "$binary"
    "$binary" --version
}

doctor() { # attn-bench doctor --device cuda
    limited TERM "$1" "$binary" doctor --device cuda
}

verify() { # attn-bench verify --device cuda: fixtures, then the suite on every path and dtype
    local rc=0 what until=$((SECONDS + $1)) left=5
    # On path seedlike the suite is defined in f32 alone.
    for what in 'crates/attn-*/tests/fixtures/*.safetensors' '--path fused --dtype f32' '--path fused --dtype bf16' \
        '--path fused --dtype f16' '--path seedlike --dtype f32'; do
        echo "-- verify $what"
        # shellcheck disable=SC2086 # several arguments, or a pattern
        limited TERM $(((until - SECONDS) / left)) "$binary" verify --device cuda $what
        rc=$(worse "$rc" $?)
        left=$((left - 1))
    done
    return "$rc"
}

sanitize() { # one tool of compute-sanitizer on the fixtures
    local tool=$1 rc=0 until=$((SECONDS + $2)) left=2 dtype sanitizer
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || return 77
    for dtype in bf16 f32; do
        limited TERM $(((until - SECONDS) / left)) "$sanitizer" --tool "$tool" --target-processes all \
            --error-exitcode 9 "$binary" verify --device cuda --path fused --dtype "$dtype" \
            crates/attn-mtla/tests/fixtures/mtla-s3-prefill8.safetensors \
            crates/attn-gqa/tests/fixtures/gqa-bias-prefill5.safetensors
        rc=$(worse "$rc" $?)
        left=$((left - 1))
    done
    return "$rc"
}

memcheck() { # compute-sanitizer --tool memcheck on two fixtures
    sanitize memcheck "$1"
}

racecheck() { # compute-sanitizer --tool racecheck on two fixtures
    sanitize racecheck "$1"
}

# Ctrl-C stores what was measured; rows are exported at once.
run_sweep() {
    local name=$1 rc arguments
    read -ra arguments <<<"$(sweep "$name")"
    limited INT $(($2 - 7)) "$binary" run "experiments/${arguments[0]}" "${arguments[@]:1}" --out "$logs/runs/$name"
    rc=$?
    "$binary" export "$logs/runs/$name" --format json >"$logs/rows/$name.json" || rm -f "$logs/rows/$name.json"
    merge
    return "$rc"
}

merge() {
    "$python" - "$folder/rows.json" "$logs"/rows/*.json <<'P'
import json, sys
rows = [row for file in sys.argv[2:] for row in json.load(open(file))]
json.dump(rows, open(sys.argv[1], "w"))
P
}

# "70 ok, 2 oom; 12 fallback" of a stage's rows.
counts() {
    "$python" - "$1" <<'P'
import collections, json, sys
rows = json.load(open(sys.argv[1]))
status = collections.Counter(row["status"] for row in rows)
trust = collections.Counter(row["trust"] for row in rows if row["trust"])
print("; ".join(", ".join(f"{n} {what}" for what, n in of.most_common()) for of in (status, trust) if of))
P
}

peers() { # scripts/peers/gpu_peers.py on the cases that the sweeps measured
    local rows=()
    [[ -s $folder/rows.json ]] && rows=(--rows "$folder/rows.json")
    # A point that has begun is measured to its end.
    local most=$(($1 > 40 ? $1 - 20 : $1 / 2))
    limited TERM $(($1 - 7)) "$python" scripts/peers/gpu_peers.py "${SWEEPS[@]/#/experiments/}" --attn-bench "$binary" \
        "${rows[@]}" --seconds "$most" --compile-seconds $(($1 / 4)) --max-s 1.5 --out "$folder/peers.jsonl"
}

profile() { # ncu on decode steps of MLA and MTLA
    local ncu rc
    ncu=$(command -v ncu || ls /usr/local/cuda/bin/ncu 2>/dev/null) || return 77
    # Clocks stay as they are. The first launches are a kernel's trial on small operands.
    limited TERM $(($1 - 7)) "$ncu" --clock-control none --target-processes all --force-overwrite \
        --kernel-name 'regex:decode|update' --launch-skip 12 --launch-count 6 \
        --section SpeedOfLight --section MemoryWorkloadAnalysis --section Occupancy --section WarpStateStats \
        --section LaunchStats --export "$logs/profile" \
        "$binary" run experiments/gpu-context.yaml --filter 'scope=op,context=32768,batch=64,variant!=mha' \
        --set measure.ceilings=false --set measure.warmup_ms=0 --set measure.max_s=0.05 --out "$work/tools/profiled"
    rc=$?
    [[ -f $logs/profile.ncu-rep ]] && "$ncu" --import "$logs/profile.ncu-rep" --page details >"$logs/profile.txt"
    return "$rc"
}

compare() { # scripts/peers/compare_gpu.py: ratios of the peers' times to ours
    "$python" scripts/peers/compare_gpu.py "$folder/rows.json" "$folder/peers.jsonl" --out "$folder/comparison.md"
}

# result STAGE CODE: what an exit code means.
result() {
    case $2 in
    0) echo ok ;;
    3) echo 'done, but some cases failed' ;;
    77) echo 'not run: not found' ;;
    124 | 137) echo 'cut off by its time' ;;
    *) echo "FAILED ($2)" ;;
    esac
    [[ -s $logs/rows/$1.json ]] && counts "$logs/rows/$1.json" | grep .
}

lines=()
summary() {
    {
        echo '# GPU session'
        echo
        local gpu
        gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) || gpu='no GPU'
        echo "$(date -u +%FT%TZ), $gpu"
        echo "$("$binary" --version 2>/dev/null), $(head -n 1 "$kit/manifest.txt" 2>/dev/null || echo no kit)"
        echo
        echo '| stage | result | seconds | of |'
        echo '|---|---|---:|---:|'
        printf '%s\n' "${lines[@]}"
        echo
        echo "$((SECONDS - began)) s in all. Logs, runs and profile are in session.tar.gz."
    } >"$folder/summary.md"
    # Figures are there as SVG too.
    tar -czf "$folder/session.tar.gz" -C "$work" --exclude='*.png' session
}

unpack
libraries
failed=0
for i in "${!names[@]}"; do
    stage=${names[$i]} name=${names[$i]%%:*}
    # All the time there is, but for what the stages after it are to have.
    limit=$((total - RESERVE_S - (SECONDS - began)))
    for later in "${names[@]:i+1}"; do limit=$((limit - $(share "$later"))); done
    if [[ $limit -lt 3 ]]; then
        lines+=("| $name | not run: no time left | 0 | 0 |")
        echo "== $name: not run, no time left"
        continue
    fi
    echo "== $name, at most $limit s"
    start=$SECONDS
    if sweep "$name" >/dev/null; then
        run_sweep "$name" "$limit"
    else
        "$name" "$limit"
    fi >"$logs/$name.log" 2>&1
    code=$?
    [[ $code -eq 0 || $code -eq 77 || $code -eq 124 || $code -eq 137 ]] || failed=1
    [[ $code -eq 0 ]] || tail -n 5 "$logs/$name.log" | cut -c 1-200
    outcome=$(result "$name" "$code" | paste -sd ';' | sed 's/;/; /')
    echo "   $outcome, $((SECONDS - start)) s"
    lines+=("| $name | $outcome | $((SECONDS - start)) | $limit |")
    summary
done
echo
cat "$folder/summary.md"
exit $failed
