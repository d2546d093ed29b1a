#!/usr/bin/env python3
"""Compare our MTLA layer with the Python package mtla, run by run, on this machine.

Starts both programs; each case is run once by either in every round, in a random order, so that what the machine does
meanwhile meets both. Only one program has work at any time. Prints a table and writes it to --out:

    case, median of ours, median of the peer, ratio (peer / ours: above 1 ours is faster),
    95 % interval of the ratio (bootstrap over rounds, both programs resampled together)

    cargo build --release --workspace --examples
    <a Python with torch and mtla> scripts/peers/compare_mtla.py
"""

import argparse
import random
import shlex
import statistics
import sys

from turns import HERE, arguments, environment, facts, load_average, measure, ratio_interval, with_programs

# A case is workload, dtype, stride and length (`mtla_layer.py`).
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


def table(samples, rng):
    lines = [
        "| case | ours, median | peer, median | ratio (peer / ours) | 95 % interval |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, of in samples.items():
        ours, peer = of["ours"], of["peer"]
        low, high = ratio_interval(ours, peer, rng)
        a, b = statistics.median(ours), statistics.median(peer)
        lines.append(f"| {case} | {a * 1e3:.2f} ms | {b * 1e3:.2f} ms | {b / a:.2f} | {low:.2f} to {high:.2f} |")
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
    arguments(parser, "target/release/examples/layer_peer", peer, 9, "mtla_layer_result.md")
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
    cases = [case for case in CASES if args.only in case]
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

    samples, abouts = with_programs({"ours": args.ours, "peer": args.peer}, env, measure_all)

    main_table = table(samples, rng)
    print(main_table)
    known = facts(abouts, args, load_before)
    known["peer's idle threads"] = f"OMP_WAIT_POLICY {args.wait_policy}"
    known["freed memory"] = "kept by both" if args.keep_memory else "kept by ours, given back by the peer as it comes"
    text = "\n".join(
        [
            "# Our MTLA layer against the Python package's",
            "",
            "Written by `scripts/peers/compare_mtla.py`. One attention layer: d_model 512, 8 heads, nope 64, rope 32, v 64,",
            "kv_rank 256, q_rank 0. A case is workload, dtype, s, and tokens or context; `mtla_layer.py` says what they",
            "are. A ratio above 1 means that ours is faster.",
            "",
            main_table,
            "",
            *[f"- {key}: {value}" for key, value in known.items()],
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
