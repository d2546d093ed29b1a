#!/usr/bin/env python3
"""Compare our MTLA layer with the Python package mtla, run by run, on this machine.

Starts both programs, lets them warm up, then runs every (program, case) pair once per round
in a random order, so that what the machine does meanwhile meets both. Only one program has
work at any time. Prints a table and writes it to --out:

    case, median of ours, median of the peer, ratio (peer / ours: above 1 ours is faster),
    95 % interval of the ratio (bootstrap over rounds, both programs resampled together)

Both programs read "forward", "decode512" or "quit" from stdin and answer in JSON lines:
{"ready": true} once, after warming up, then {"case": ..., "time_s": ...} per run. In its
ready line a program may name its "versions" and "threads".

    cargo build --release --example layer_peer
    <the reference environment's python> scripts/peers/compare_mtla.py
"""

import argparse
import datetime
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASES = {
    "forward": "B = 1, T = 2048, one call, no cache",
    "decode512": "B = 8, 512 steps from an empty cache",
}
# Idle OpenMP and rayon workers look for work a few milliseconds before they sleep.
SETTLE_S = 0.05


class Program:
    """One side: a child process that runs a case when told to."""

    def __init__(self, name, command, env):
        self.name = name
        self.child = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
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
        return message["time_s"]

    def quit(self):
        if self.child.poll() is None:
            try:
                self.child.stdin.write("quit\n")
                self.child.stdin.close()
                self.child.wait(timeout=10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.child.kill()


def measure(programs, rounds, rng):
    """samples[case][program] in seconds; index i is round i."""
    samples = {case: {p.name: [] for p in programs} for case in CASES}
    for i in range(rounds):
        turns = [(p, case) for p in programs for case in CASES]
        rng.shuffle(turns)
        for program, case in turns:
            time.sleep(SETTLE_S)
            samples[case][program.name].append(program.run(case))
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


def table(samples, rng):
    lines = [
        "| case | workload | ours, median | peer, median | ratio (peer / ours) | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for case, workload in CASES.items():
        ours, peer = samples[case]["ours"], samples[case]["peer"]
        low, high = ratio_interval(ours, peer, rng)
        a, b = statistics.median(ours), statistics.median(peer)
        lines.append(
            f"| {case} | {workload} | {a * 1e3:.2f} ms | {b * 1e3:.2f} ms "
            f"| {b / a:.2f} | {low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines)


def spread(samples):
    lines = ["| case | program | fastest | first quartile | third quartile | slowest |"]
    lines.append("|---|---|---|---|---|---|")
    for case in CASES:
        for name, values in samples[case].items():
            q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
            cells = " | ".join(f"{v * 1e3:.2f} ms" for v in (min(values), q1, q3, max(values)))
            lines.append(f"| {case} | {name} | {cells} |")
    return "\n".join(lines)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", default="target/release/examples/layer_peer", metavar="COMMAND")
    peer = shlex.join([sys.executable, str(HERE / "mtla_layer.py"), "--interactive"])
    parser.add_argument("--peer", default=peer, metavar="COMMAND", help="default: mtla_layer.py")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="for both programs")
    parser.add_argument(
        "--wait-policy",
        choices=["default", "passive", "active"],
        default="default",
        help="OMP_WAIT_POLICY of the peer: what its idle threads do",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the order and the bootstrap")
    parser.add_argument("--out", type=Path, default=HERE / "mtla_layer_result.md")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("an interval needs --rounds 2 or more")

    threads = str(args.threads)
    env = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAYON_NUM_THREADS": threads,
    }
    # Passive waiting more than doubles the package's decode time: unset is how its users run it.
    env.pop("OMP_WAIT_POLICY", None)
    if args.wait_policy != "default":
        env["OMP_WAIT_POLICY"] = args.wait_policy
    rng = random.Random(args.seed)
    load_before = load_average()
    programs = []
    try:
        for name, command in (("ours", shlex.split(args.ours)), ("peer", shlex.split(args.peer))):
            try:
                programs.append(Program(name, command, env))
            except OSError as error:
                raise SystemExit(f"{name}: cannot start {command[0]}: {error.strerror}")
        samples = measure(programs, args.rounds, rng)
    finally:
        for program in programs:
            program.quit()

    main_table = table(samples, rng)
    print(main_table)
    ours, peer = (p.about for p in programs)
    facts = {
        "CPU": f"{cpu_model()}, {os.cpu_count()} logical cores",
        "threads": f"{threads} for each program, one program working at a time",
        "ours": ours.get("versions", "attn-bench") + f", commit {commit()}",
        "peer": peer.get("versions", "unknown"),
        "peer's idle threads": f"OMP_WAIT_POLICY {args.wait_policy}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "rounds": f"{args.rounds}, order shuffled with seed {args.seed}",
        "load average before": "unknown" if load_before is None else f"{load_before:.2f}",
    }
    text = "\n".join(
        [
            "# Our MTLA layer against the Python package's",
            "",
            "Written by `scripts/peers/compare_mtla.py`. One attention layer, f32: d_model 512,",
            "8 heads, nope 64, rope 32, v 64, kv_rank 256, q_rank 0, s = 2. A ratio above 1 means",
            "that ours is faster.",
            "",
            main_table,
            "",
            *[f"- {key}: {value}" for key, value in facts.items()],
            "",
            "## Spread",
            "",
            spread(samples),
            "",
        ]
    )
    args.out.write_text(text)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
