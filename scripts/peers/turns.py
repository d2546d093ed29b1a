"""Two programs that take turns on this machine: what the comparisons of this folder share."""

import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Idle OpenMP and rayon workers look for work a few milliseconds before they sleep.
SETTLE_S = 0.05
# A turn begins with runs that do not count: the other program's work has taken the caches and put the threads to sleep.
WARM_S = 0.2
# Then so many runs, or one where it lasts longer than this; their median is the sample.
RUNS, LONG_S = 5, 0.1


class Program:
    """One side: a child process that runs a case when told to."""

    def __init__(self, name, command, env):
        self.name = name
        self.child = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.rss_peak_bytes = None
        self.about = self.answer("ready")

    def answer(self, key):
        for line in self.child.stdout:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library's own greeting
            if key in message:
                return message
            raise SystemExit(f"{self.name}: expected {key!r}, got {line.strip()}")
        raise SystemExit(f"{self.name}: ended with status {self.child.wait()}, expected {key!r}")

    def run(self, case):
        self.child.stdin.write(case + "\n")
        self.child.stdin.flush()
        message = self.answer("time_s")
        if message["case"] != case:
            raise SystemExit(f"{self.name}: asked for {case}, answered {message['case']}")
        self.rss_peak_bytes = message.get("rss_peak_bytes")
        return message["time_s"]

    def turn(self, case):
        """Seconds of one run, warm."""
        warm_until = time.monotonic() + WARM_S
        while True:
            time_s = self.run(case)
            if time.monotonic() >= warm_until:
                break
        runs = 1 if time_s > LONG_S else RUNS
        return statistics.median(self.run(case) for _ in range(runs))

    def quit(self):
        if self.child.poll() is None:
            try:
                self.child.stdin.write("quit\n")
                self.child.stdin.close()
                self.child.wait(timeout=10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.child.kill()


def peak_bytes(name, command, env, case, runs=3):
    """Most bytes a program has resident while it runs a case, less what it has before; a process of its own for each case."""
    program = Program(name, command, env)
    try:
        for _ in range(runs):
            program.run(case)
        before, peak = program.about.get("rss_bytes"), program.rss_peak_bytes
    finally:
        program.quit()
    return None if before is None or peak is None else peak - before


def without_broken_amx():
    """Before torch is imported: keeps oneDNN from AMX where its first product in bf16 kills the process.

    Some virtual machines have AMX but do not describe its tiles (CPUID leaf 1Dh is empty); oneDNN then configures none.
    Returns what a result has to say of it.
    """
    product = "import torch; torch.ones(64, 64).bfloat16() @ torch.ones(64, 64).bfloat16()"
    if subprocess.run([sys.executable, "-c", product], capture_output=True).returncode == 0:
        return ""
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
    return ", oneDNN kept to AVX512_CORE_BF16 because its AMX dies on this machine"


def measure(programs, cases, rounds, rng):
    """samples[case][program] in seconds; index i is round i."""
    samples = {case: {p.name: [] for p in programs} for case in cases}
    for i in range(rounds):
        turns = [(p, case) for p in programs for case in cases]
        rng.shuffle(turns)
        for program, case in turns:
            time.sleep(SETTLE_S)
            samples[case][program.name].append(program.turn(case))
        print(f"\rround {i + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return samples


def ratio_interval(ours, peer, rng, draws=10_000):
    """95 % bootstrap interval of median(peer) / median(ours), resampling whole rounds."""
    n = len(ours)
    ratios = []
    for _ in range(draws):
        rows = [rng.randrange(n) for _ in range(n)]
        ratios.append(
            statistics.median(peer[i] for i in rows) / statistics.median(ours[i] for i in rows)
        )
    ratios.sort()
    return ratios[int(0.025 * draws)], ratios[int(0.975 * draws) - 1]


def cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def load_average():
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def commit():
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text


def environment(threads):
    """The environment of both programs."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads))


def with_programs(commands, env, work):
    """Starts the programs, {name: command line}, and ends them when `work` is done with them."""
    programs = []
    try:
        for name, command in commands.items():
            try:
                programs.append(Program(name, shlex.split(command), env))
            except OSError as error:
                raise SystemExit(f"{name}: cannot start {command}: {error.strerror}")
        return work(programs), [program.about for program in programs]
    finally:
        for program in programs:
            program.quit()


def facts(abouts, args, load_before):
    """What a result has to say of its making."""
    ours, peer = abouts
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} logical cores",
        "threads": f"{args.threads} for each program, one program working at a time",
        "ours": ours.get("versions", "attn-bench") + f", commit {commit()}",
        "peer": peer.get("versions", "unknown"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "rounds": f"{args.rounds}, order shuffled with seed {args.seed}; a sample is the median of {RUNS} runs, "
        f"after runs for {WARM_S} s that do not count",
        "load average before": "unknown" if load_before is None else f"{load_before:.2f}",
    }


def arguments(parser, ours, peer, rounds, out):
    """The options that every comparison has."""
    parser.add_argument("--ours", default=ours, metavar="COMMAND")
    parser.add_argument("--peer", default=peer, metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2, help="for both programs")
    parser.add_argument("--seed", type=int, default=42, help="of the order and the bootstrap")
    parser.add_argument("--out", type=Path, default=out and HERE / out)
