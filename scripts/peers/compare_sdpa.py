#!/usr/bin/env python3
"""Compare our decode and attend kernels with PyTorch's scaled_dot_product_attention, run by run, on this machine.

Both programs read a case from stdin ("decode f32 mha 8 4096") and answer in JSON lines; only one has work at any time.
Prints a table and writes it to --out. A ratio above 1 means that ours is faster.

    cargo build --release --workspace --examples
    <a Python with torch> scripts/peers/compare_sdpa.py
"""

import argparse
import math
import random
import shlex
import statistics
import sys

from turns import HERE, arguments, environment, facts, load_average, measure, ratio_interval, with_programs

DECODE = [
    f"decode {dtype} {geometry} {batch} {context}"
    for geometry in ("mha", "gqa", "mqa", "mla", "large-gqa", "large-mla")
    for dtype in ("f32", "bf16")
    for batch in (1, 8, 32)
    for context in (1024, 4096, 16384)
]
FORWARD = [
    f"forward {dtype} {geometry} 1 {tokens}"
    for geometry in ("mha", "gqa", "mla-prefill", "large-gqa")
    for dtype in ("f32", "bf16")
    for tokens in (512, 2048, 8192)
]
# Cases that need more are left out. PyTorch gives every query head a copy of its keys and values.
MOST_BYTES = 8 << 30
HEADS = {"mha": 1, "gqa": 4, "mqa": 8, "mla": 8, "large-gqa": 4, "large-mla": 32}
WIDTH = {"mha": 1024, "gqa": 256, "mqa": 128, "mla": 288, "large-gqa": 2048, "large-mla": 576}


def fits(case):
    workload, dtype, geometry, batch, length = case.split()
    element = 4 if dtype == "f32" else 2
    if workload == "forward":
        return True
    copies = 2 * HEADS[geometry] if geometry.endswith("mla") else HEADS[geometry]
    return WIDTH[geometry] * int(batch) * int(length) * element * copies <= MOST_BYTES


def table(samples, rng):
    lines = [
        "| case | ours, median | torch, median | ratio (torch / ours) | 95 % interval |",
        "|---|---:|---:|---:|---:|",
    ]
    ratios = {}
    for case, of in samples.items():
        low, high = ratio_interval(of["ours"], of["peer"], rng, draws=2_000)
        a, b = statistics.median(of["ours"]), statistics.median(of["peer"])
        ratios.setdefault(" ".join(case.split()[:2]), []).append(b / a)
        lines.append(f"| {case} | {a * 1e3:.3f} ms | {b * 1e3:.3f} ms | {b / a:.2f} | {low:.2f} to {high:.2f} |")
    means = ["| cases | number | geometric mean | least |", "|---|---:|---:|---:|"]
    for name, all_of in ratios.items():
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in all_of))
        means.append(f"| {name} | {len(all_of)} | {mean:.2f} | {min(all_of):.2f} |")
    return "\n".join(means), "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer = shlex.join([sys.executable, str(HERE / "sdpa.py")])
    arguments(parser, "target/release/examples/sdpa_peer", peer, 7, "sdpa_result.md")
    parser.add_argument("--only", default="", help="cases that contain this text")
    args = parser.parse_args()
    cases = [case for case in DECODE + FORWARD if args.only in case and fits(case)]
    if args.rounds < 2 or not cases:
        parser.error("an interval needs --rounds 2 or more, and at least one case")

    rng = random.Random(args.seed)
    load_before = load_average()

    def measure_all(programs):
        samples = {}
        # Case by case: the operands of one at a time.
        for case in cases:
            print(case, file=sys.stderr)
            samples |= measure(programs, [case], args.rounds, rng)
        return samples

    commands = {"ours": args.ours, "peer": args.peer}
    samples, abouts = with_programs(commands, environment(args.threads), measure_all)

    means, main_table = table(samples, rng)
    print(means)
    lines = [
        "# Our attention kernels against PyTorch's scaled_dot_product_attention",
        "",
        "Written by `scripts/peers/compare_sdpa.py`. A case is workload, dtype, geometry (`sdpa.py`), batch, and context",
        "or tokens. A ratio above 1 means that ours is faster.",
        "",
        means,
        "",
        *[f"- {key}: {value}" for key, value in facts(abouts, args, load_before).items()],
        "",
        main_table,
        "",
    ]
    args.out.write_text("\n".join(lines))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
