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
import os
import random
import shlex
import statistics
import sys
from pathlib import Path

from turns import HERE, Program, commit, cpu_model, load_average, measure, ratio_interval

CASES = {
    "forward": "B = 1, T = 2048, one call, no cache",
    "decode512": "B = 8, 512 steps from an empty cache",
}


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
        samples = measure(programs, CASES, args.rounds, rng)
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
