#!/usr/bin/env python3
"""Compare our MTLA layer with the Python package mtla, run by run, on this machine.

`--seedlike` asks another question: whether our seed-like path costs what the seed's code costs, neither crippled nor
improved. Ratios are then ours / peer, all should lie in 0.5 to 2, and go to a CSV file for the figures too.

Starts both programs; each case is run once by either in every round, in a random order, so that what the machine does
meanwhile meets both. Only one program has work at any time. Prints a table and writes it to --out:

    case, median of ours, median of the peer, ratio (peer / ours: above 1 ours is faster),
    95 % interval of the ratio (bootstrap over rounds, both programs resampled together)

    cargo build --release --workspace --examples
    <a Python with torch and mtla> scripts/peers/compare_mtla.py [--seedlike]
"""

import argparse
import csv
import random
import shlex
import statistics
import sys
from pathlib import Path

from turns import (
    HERE,
    ROOT,
    arguments,
    cpu_model,
    environment,
    facts,
    load_average,
    measure,
    peak_bytes,
    ratio_interval,
    with_programs,
)

# A case is workload, dtype, stride, length and, where it is not 8, the batch of a decode (`mtla_layer.py`).
CASES = [
    "forward f32 2 2048",
    "forward f32 4 2048",
    "forward bf16 2 2048",
    "forward bf16 4 2048",
    "forward f32 2 8192",
    "forward f32 4 8192",
    "decode f32 2 512",
    "decode f32 2 4096",
    "decode f32 4 4096",
    "train f32 2 2048",
    "train f32 4 2048",
]
SEEDLIKE_CASES = [
    *[f"forward f32 {s} {t}" for t in (512, 2048) for s in (2, 4)],
    *[f"decode f32 {s} {context}" for context in (512, 4096) for s in (2, 4)],
    *[f"decode f32 {s} 160 32" for s in (2, 4)],  # hypotheses of a beam search
]
HEAD = [
    "# Our MTLA layer against the Python package's",
    "",
    "Written by `scripts/peers/compare_mtla.py`. One attention layer: d_model 512, 8 heads, nope 64, rope 32, v 64,",
    "kv_rank 256, q_rank 0. A case is workload, dtype, s, and tokens or context; `mtla_layer.py` says what they",
    "are. A ratio above 1 means that ours is faster.",
]
SEEDLIKE_HEAD = [
    "# Our seed-like path against the Python package",
    "",
    "Written by `scripts/peers/compare_mtla.py --seedlike`. One attention layer: d_model 512, 8 heads, nope 64,",
    "rope 32, v 64, kv_rank 256, q_rank 0. A case is workload, dtype, s, tokens or context, and the batch where it is",
    "not 1 (forward) or 8 (decode); `mtla_layer.py` says what they are. A ratio above 1 means that ours is slower. The",
    "seed-like path is there to cost what the seed's code costs, operation by operation, neither crippled nor improved.",
]
# Within which our seed-like path is what the seed's code is.
ALIKE = (0.5, 2.0)
SEEDLIKE_CSV = ROOT / "crates" / "attn-figures" / "data" / "seedlike-ratio.csv"


def ratios(samples, rng, names):
    """For each case: the median of ours and the peer's, their ratio (the first of `names` over the second), its interval."""
    found = {}
    for case, of in samples.items():
        medians = {name: statistics.median(values) for name, values in of.items()}
        above, below = names
        ratio = medians[above] / medians[below]
        found[case] = medians["ours"], medians["peer"], ratio, *ratio_interval(of[below], of[above], rng)
    return found


def table(found, names):
    lines = [
        f"| case | ours, median | peer, median | ratio ({' / '.join(names)}) | 95 % interval |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, (ours, peer, ratio, low, high) in found.items():
        lines.append(f"| {case} | {ours * 1e3:.2f} ms | {peer * 1e3:.2f} ms | {ratio:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def write_csv(path, found, threads):
    machine = f"{cpu_model()}; {threads} thread{'s' if threads > 1 else ''}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow("workload stride length batch ratio ci_low ci_high machine".split())
        for case, (_, _, *numbers) in found.items():
            workload, _, stride, length, *batch = case.split()
            batch = batch[0] if batch else {"decode": 8}.get(workload, 1)
            rows.writerow([workload, stride, length, batch, *[f"{number:.4f}" for number in numbers], machine])


def verdict(found):
    low, high = ALIKE
    outside = [f"{case} ({ratio:.2f})" for case, (_, _, ratio, *_) in found.items() if not low <= ratio <= high]
    if outside:
        return f"**Outside {low} to {high}:** " + ", ".join(outside) + "."
    return f"All {len(found)} ratios lie in {low} to {high}."


def memory_table(cases, programs, env):
    lines = [
        "Most bytes resident while a case runs three times, less what a program has before it: operands, weights, results.",
        "",
        "| case | ours | peer | ratio (peer / ours) |",
        "|---|---:|---:|---:|",
    ]
    for case in cases:
        peaks = {name: peak_bytes(name, shlex.split(command), env, case) for name, command in programs.items()}
        if None in peaks.values():
            lines.append(f"| {case} | not measured | not measured | - |")
            continue
        ours, peer = peaks["ours"], peaks["peer"]
        lines.append(f"| {case} | {ours / 2**20:.0f} MiB | {peer / 2**20:.0f} MiB | {peer / ours:.1f} |")
    return "\n".join(lines)


def spread(samples):
    lines = ["| case | program | fastest | first quartile | third quartile | slowest |"]
    lines.append("|---|---|---|---|---|---|")
    for case, of in samples.items():
        for name, values in of.items():
            q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
            cells = " | ".join(f"{v * 1e3:.2f} ms" for v in (min(values), q1, q3, max(values)))
            lines.append(f"| {case} | {name} | {cells} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer = shlex.join([sys.executable, str(HERE / "mtla_layer.py")])
    arguments(parser, "target/release/examples/layer_peer", peer, 9, None)
    parser.add_argument("--seedlike", action="store_true", help="our seed-like path, and its cases")
    parser.add_argument("--csv", type=Path, default=SEEDLIKE_CSV, help="of --seedlike")
    parser.add_argument(
        "--wait-policy",
        choices=["default", "passive", "active"],
        default="default",
        help="OMP_WAIT_POLICY of the peer: what its idle threads do",
    )
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="let the peer keep freed memory too (glibc), as our workers do: its large tensors else cost page faults",
    )
    parser.add_argument("--only", default="", help="cases that contain this text")
    args = parser.parse_args()
    cases = [case for case in (SEEDLIKE_CASES if args.seedlike else CASES) if args.only in case]
    names = ("ours", "peer") if args.seedlike else ("peer", "ours")
    args.out = args.out or HERE / ("mtla_seedlike_result.md" if args.seedlike else "mtla_layer_result.md")
    ours = args.ours + (" --seedlike" if args.seedlike else "")
    if args.rounds < 2 or not cases:
        parser.error("an interval needs --rounds 2 or more, and at least one case")

    env = environment(args.threads)
    # Passive waiting more than doubles the package's decode time: unset is how its users run it.
    env.pop("OMP_WAIT_POLICY", None)
    if args.wait_policy != "default":
        env["OMP_WAIT_POLICY"] = args.wait_policy
    if args.keep_memory:
        env["GLIBC_TUNABLES"] = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"
    rng = random.Random(args.seed)
    load_before = load_average()

    def measure_all(programs):
        samples = {}
        # Case by case: the operands of one at a time.
        for case in cases:
            print(case, file=sys.stderr)
            samples |= measure(programs, [case], args.rounds, rng)
        return samples

    samples, abouts = with_programs({"ours": ours, "peer": args.peer}, env, measure_all)

    memory = memory_table(cases, {"ours": ours, "peer": args.peer}, env)
    found = ratios(samples, rng, names)
    main_table = table(found, names)
    print(main_table)
    known = facts(abouts, args, load_before)
    known["peer's idle threads"] = f"OMP_WAIT_POLICY {args.wait_policy}"
    known["freed memory"] = "kept by both" if args.keep_memory else "kept by ours, given back by the peer as it comes"
    text = "\n".join(
        [
            *(SEEDLIKE_HEAD if args.seedlike else HEAD),
            "",
            *([verdict(found), ""] if args.seedlike else []),
            main_table,
            "",
            *[f"- {key}: {value}" for key, value in known.items()],
            "",
            "## Memory",
            "",
            memory,
            "",
            "## Spread",
            "",
            spread(samples),
            "",
        ]
    )
    args.out.write_text(text)
    print(f"written to {args.out}")
    if args.seedlike:
        print(verdict(found))
        write_csv(args.csv, found, args.threads)
        print(f"written to {args.csv}")


if __name__ == "__main__":
    main()
