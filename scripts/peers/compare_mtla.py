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
import random
import shlex
import statistics
import sys

from turns import HERE, arguments, environment, facts, load_average, measure, ratio_interval, with_programs

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
    peer = shlex.join([sys.executable, str(HERE / "mtla_layer.py"), "--interactive"])
    arguments(parser, "target/release/examples/layer_peer", peer, 20, "mtla_layer_result.md")
    parser.add_argument(
        "--wait-policy",
        choices=["default", "passive", "active"],
        default="default",
        help="OMP_WAIT_POLICY of the peer: what its idle threads do",
    )
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("an interval needs --rounds 2 or more")

    env = environment(args.threads)
    # Passive waiting more than doubles the package's decode time: unset is how its users run it.
    env.pop("OMP_WAIT_POLICY", None)
    if args.wait_policy != "default":
        env["OMP_WAIT_POLICY"] = args.wait_policy
    rng = random.Random(args.seed)
    load_before = load_average()
    samples, abouts = with_programs(
        {"ours": args.ours, "peer": args.peer},
        env,
        lambda programs: measure(programs, CASES, args.rounds, rng),
    )

    main_table = table(samples, rng)
    print(main_table)
    known = facts(abouts, args, load_before)
    known["peer's idle threads"] = f"OMP_WAIT_POLICY {args.wait_policy}"
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
