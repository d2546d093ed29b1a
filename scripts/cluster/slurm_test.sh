#!/usr/bin/env bash
# `attn-bench submit --slurm` against real Slurm: munged, slurmctld and slurmd on this machine, without systemd, in a
# folder of their own. An array of 4 over a small sweep; one task is requeued in the middle, of another the runner is
# killed and the task requeued, a third is told that its time is up; the dependent job merges; the merged rows are those of a run in one piece, but for what
# was measured (compare_rows.py lists those columns).
#
#     scripts/cluster/slurm_test.sh [BINARY]        # target/debug/attn-bench
#
# Exits with 3, and one line, where Slurm cannot be had: it is installed with apt-get, which needs root and Debian's
# archive. Takes about a minute.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-$here/../../target}/debug/attn-bench}")
[[ -x $binary ]] || { echo "slurm: $binary is no program, build it first" >&2 && exit 1; }

cannot() {
    echo "slurm: not tested, $*"
    exit 3
}

programs=(munged slurmctld slurmd sbatch squeue scontrol scancel)
PATH=$PATH:/usr/sbin:/sbin
if ! command -v "${programs[@]}" >/dev/null 2>&1 || [[ $(command -v "${programs[@]}" | wc -l) -lt ${#programs[@]} ]]; then
    [[ $EUID -eq 0 ]] || cannot 'Slurm is not installed and only root can install it'
    command -v apt-get >/dev/null || cannot 'Slurm is not installed and there is no apt-get'
    # In run level 1 no package starts its daemon.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    install=(apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge)
    timeout 300 "${install[@]}" >/dev/null 2>&1 || { timeout 120 apt-get update && timeout 300 "${install[@]}"; } \
        >/dev/null 2>&1 || cannot 'apt-get cannot install slurmctld, slurmd, slurm-client and munge here'
fi
[[ $EUID -eq 0 ]] || cannot 'its daemons need root'
command -v python3 >/dev/null || cannot 'rows are compared by Python 3, which is not there'

# A space and a quote: paths of users have them.
scratch=$(mktemp -d "/tmp/attn-bench slurm's.XXXXXX")
state=$(mktemp -d /tmp/attn-slurm.XXXXXX)
daemons=()

finish() {
    local code=$?
    scancel --user=root --quiet 2>/dev/null || true
    # The last to start is the first to end.
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
        for _ in {1..50}; do
            kill -0 "${daemons[i]}" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "${daemons[i]}" 2>/dev/null || true
    done
    if [[ $code -ne 0 ]]; then
        tail -n 20 "$state"/*.log "$scratch"/run/output/* 2>/dev/null || true
    fi
    rm -rf "$scratch" "$state"
    exit "$code"
}
trap finish EXIT

# Fails with what was waited for.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    local until=$((SECONDS + seconds))
    until "$@"; do
        [[ $SECONDS -lt $until ]] || { echo "slurm: $what, not within $seconds s" >&2 && exit 1; }
        sleep 0.2
    done
}

start() {
    "$@" >>"$state/daemons.log" 2>&1 &
    daemons+=($!)
}

# --- Slurm on the loopback device -------------------------------------------------------------------------------------
host=$(hostname -s)
mkdir "$state"/{state,spool}
chmod 700 "$state"
dd if=/dev/urandom of="$state/munge.key" bs=1024 count=1 2>/dev/null
chmod 400 "$state/munge.key"
port=$((20000 + RANDOM % 20000))
cat >"$state/slurm.conf" <<CONF
ClusterName=attn
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Slurm waits until credentials have expired before it starts a requeued job: two minutes as it comes.
AuthInfo=socket=$state/munge.socket,cred_expire=5
StateSaveLocation=$state/state
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=0,defer
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$state/slurm.conf
start munged --foreground --force --key-file="$state/munge.key" --socket="$state/munge.socket" \
    --pid-file="$state/munge.pid" --log-file="$state/munge.log" --seed-file="$state/munge.seed"
wait_for 10 'munged did not start' test -S "$state/munge.socket"
start slurmctld -D
start slurmd -D
is_idle() { [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; }
wait_for 30 'the node did not come up' is_idle
echo "slurm: $(sinfo --version) on one node, $SECONDS s"

# --- a run in one piece, and an array of 4 ----------------------------------------------------------------------------
cd "$scratch"
cat >"the sweep.yaml" <<'SWEEP'
name: slurm-test
question: Is a sweep in shards the sweep?
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mtla: {kv_rank: 16, rope_dim: 4, stride: [2, 3]}
workloads:
  - decode: {context: [16, 64, 256], batch: [1, 2, 3, 4]}
measure: {warmup_ms: 50, min_samples: 20, max_samples: 20, max_s: 0.5, ceilings: false, cooldown_ms: 800, replicas: 3}
SWEEP
# Pauses between replicas make a group last two seconds, so that tasks are met in the middle; they cost no processor.
"$binary" run 'the sweep.yaml' --out whole --no-figures --filter "context<=256" >whole.txt 2>&1
echo "slurm: a run in one piece, $SECONDS s"
"$binary" submit 'the sweep.yaml' --slurm --array 4 --out run --cpus-per-task 1 --time 10 --filter "context<=256" \
    --sbatch-option=--comment="it's a test" | tee submitted.txt
job=$(sed -n 's/^submitted: job \([0-9]*\),.*/\1/p' submitted.txt)
merge=$(sed -n 's/^submitted:.* job \([0-9]*\) that merges$/\1/p' submitted.txt)
[[ -n $job && -n $merge ]] || { echo 'slurm: submit told no numbers of jobs' >&2 && exit 1; }

rows() { if [[ -e run/shards/$1/log.jsonl ]]; then wc -l <"run/shards/$1/log.jsonl"; else echo 0; fi; }
has_rows() { [[ $(rows "$1") -ge ${2:-1} ]]; }
# The process that has the shard's log open.
runner_of() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(readlink "$process"/fd/* 2>/dev/null) == *"/run/shards/$1/log.jsonl"* ]]; then
            basename "$process"
            return
        fi
    done
}

# Shard 1 in the middle of its groups: Slurm takes the task away and starts it again later.
wait_for 60 'shard 1 stored no row' has_rows 1
scontrol requeue "${job}_1"
cp run/shards/1/log.jsonl before-1.jsonl
echo "slurm: task 1 requeued with $(rows 1) rows, $SECONDS s"
# Of shard 2 the runner dies without a word.
wait_for 60 'shard 2 stored no row' has_rows 2
runner=$(runner_of 2)
[[ -n $runner ]] || { echo 'slurm: nobody has the log of shard 2' >&2 && exit 1; }
kill -9 "$runner"
cp run/shards/2/log.jsonl before-2.jsonl
echo "slurm: runner of task 2 killed with $(rows 2) rows, $SECONDS s"
has_ended() { [[ $(scontrol show job "${job}_2" | grep -c 'JobState=FAILED') -eq 1 ]]; }
wait_for 30 'the task of a killed runner did not fail' has_ended
scontrol requeue "${job}_2"
# Shard 3 is told that its time limit is near, as Slurm does it.
wait_for 60 'shard 3 stored no row' has_rows 3
scancel --batch --signal=INT "${job}_3"
"$binary" status run
# A merge of what is there already, while shards run: it says what is missing.
"$binary" merge run --out early >early.txt 2>&1 && code=0 || code=$?
[[ $code -eq 3 ]] && grep -q 'not done: run/shards/' early.txt || { cat early.txt && exit 1; }

is_merged() { [[ $(scontrol show job "$merge" | grep -c 'JobState=COMPLETED') -eq 1 ]]; }
wait_for 120 'the shards were not merged' is_merged
echo "slurm: merged, $SECONDS s"
"$binary" status run
for shard in 1 2; do
    grep -q ": start 1, " run/output/"${job}_$shard.out" || { echo "slurm: task $shard was not started again" && exit 1; }
    # Nothing that was stored is lost or measured again.
    head -n "$(wc -l <before-$shard.jsonl)" run/shards/$shard/log.jsonl | cmp - before-$shard.jsonl
    [[ $(rows $shard) -gt $(wc -l <before-$shard.jsonl) ]] || { echo "slurm: shard $shard was done before" && exit 1; }
done
"$binary" export whole --format json >whole.json
"$binary" export run/merged --format json >merged.json
python3 "$here/compare_rows.py" whole.json merged.json
grep -q 'requeued at the time limit' run/output/"${job}_3.out" || { cat run/output/"${job}_3.out" && exit 1; }
"$binary" show run/merged >/dev/null
[[ -n $(find run/merged/plots -name '*.svg' -size +0) ]] || { echo 'slurm: no figures of the merged run' && exit 1; }
echo "slurm: ok, $SECONDS s"
