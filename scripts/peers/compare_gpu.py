#!/usr/bin/env python3
"""Lay the rows of GPU peers beside those of our runs, case by case, as a Markdown table of ratios.

    attn-bench export RUN... --format json > rows.json
    python3 scripts/peers/compare_gpu.py rows.json peers.jsonl --out gpu_result.md

A ratio is the peer's time over ours: above 1 ours is faster. Its spread is from the interquartile ranges of
both. Ours are compared with peers of the same cache regime: with the fastest that was launched kernel by
kernel, by the clock that ours were timed with, and with the fastest whose CUDA graph was replayed, by the GPU's.
"""

import argparse
import json
import math
import statistics
from collections import Counter
from pathlib import Path

FACTS = ["gpu", "driver", "torch", "cuda", "cudnn", "triton"]


def read(ours, peers):
    """Our rows by case and regime, the last of each; and the peers' rows."""
    mine = {
        (row["case_id"], row["cache_regime"]): row
        for row in json.loads(ours.read_text())
        if row["status"] == "ok"
    }
    return mine, [json.loads(line) for line in peers.read_text().splitlines()]


def peer_time(row, clock):
    """Time of a peer's row by the clock of ours; a graph is timed by the GPU's alone."""
    return row["wall_median_s"] if clock == "wall" and not row["graph"] else row["time_median_s"]


def ratio(peer, ours, clock):
    """The ratio and how far it spreads, in parts of it."""
    value = peer_time(peer, clock) / ours["time_median_s"]
    parts = [(row["time_iqr_s"] or 0.0) / row["time_median_s"] for row in (peer, ours)]
    return value, math.hypot(*parts)


def pairs(mine, rows):
    """`(our row, {graph: peer rows, fastest first})` of each case that both sides have, in our order."""
    found = {}
    for row in rows:
        key = (row["case_id"], row.get("regime"))
        if row["status"] == "ok" and key in mine:
            found.setdefault(key, {}).setdefault(row["graph"], []).append(row)
    out = []
    for key, ours in mine.items():
        clock = ours["time_clock"]
        by_graph = found.get(key, {})
        ordered = {graph: sorted(of, key=lambda row: peer_time(row, clock)) for graph, of in by_graph.items()}
        if ordered:
            out.append((ours, ordered))
    return out


def name(row):
    length = row["context"] or row["tokens"]
    return f"{row['scope']} {row['workload']} {row['dtype_resolved']} {row['label']} B {row['batch']} {length}"


def seconds(value):
    return f"{value * 1e6:.1f} µs" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def cell(peer, ours):
    """Peer, time, ratio."""
    value, spread = ratio(peer, ours, ours["time_clock"])
    time = seconds(peer_time(peer, ours["time_clock"]))
    return f"{peer['peer']} {peer['variant']} | {time} | {value:.2f} ± {value * spread:.2f}"


def fastest(compared):
    lines = [
        "| case | ours | clock, trust | fastest launched | time | ratio | fastest graph | time | ratio |",
        "|---|---:|---|---|---:|---:|---|---:|---:|",
    ]
    for ours, by_graph in compared:
        cells = [cell(by_graph[graph][0], ours) if graph in by_graph else " | | " for graph in (False, True)]
        about = f"{ours['time_clock']}, {ours['trust']}"
        lines.append(f"| {name(ours)} | {seconds(ours['time_median_s'])} | {about} | {' | '.join(cells)} |")
    return lines


def means(compared):
    """Geometric means over the fastest peers, by scope, workload, dtype and variant."""
    ratios = {}
    for ours, by_graph in compared:
        for graph, of in by_graph.items():
            kind = [ours[key] for key in ("scope", "workload", "dtype_resolved", "variant")]
            key = " ".join([*kind, "graph" if graph else "launched"])
            ratios.setdefault(key, []).append(ratio(of[0], ours, ours["time_clock"])[0])
    lines = ["| cases | number | geometric mean | least | most |", "|---|---:|---:|---:|---:|"]
    for key, of in sorted(ratios.items()):
        mean = statistics.geometric_mean(of)
        lines.append(f"| {key} | {len(of)} | {mean:.2f} | {min(of):.2f} | {max(of):.2f} |")
    return lines


def everything(compared):
    lines = [
        "| case | peer | launch | time | IQR | n | GB/s | TFLOP/s | ratio |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for ours, by_graph in compared:
        rows = [(row, "graph" if graph else "launched") for graph, of in by_graph.items() for row in of]
        for row, launch in rows:
            value, spread = ratio(row, ours, ours["time_clock"])
            iqr = seconds(row["time_iqr_s"]) if row["time_iqr_s"] is not None else ""
            rates = f"{row['bytes_per_s'] / 1e9:.0f} | {row['flops_per_s'] / 1e12:.1f}"
            lines.append(
                f"| {name(ours)} | {row['peer']} {row['variant']} | {launch} | {seconds(row['time_median_s'])} "
                f"| {iqr} | {row['n']} | {rates} | {value:.2f} ± {value * spread:.2f} |"
            )
    return lines


def not_measured(rows):
    reasons = Counter()
    for row in rows:
        if row["status"] != "ok":
            launch = " graph" if row.get("graph") else ""
            kind = f"{row['peer']} {row['variant']}{launch} | {row['scope']} {row['workload']} {row['dtype']}"
            reasons[f"{kind} | {row['status']} | {(row['reason'] or '').replace('|', '/')}"] += 1
    lines = ["| peer | cases | status | reason | number |", "|---|---|---|---|---:|"]
    return lines + [f"| {what} | {number} |" for what, number in sorted(reasons.items())]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ours", type=Path, help="rows of runs: attn-bench export --format json")
    parser.add_argument("peers", type=Path, help="rows of gpu_peers.py")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    mine, rows = read(args.ours, args.peers)
    compared = pairs(mine, rows)
    if not compared:
        parser.error("the two have no case in common that both measured")

    commits = sorted({f"{ours['commit']}{' (dirty)' if ours['dirty'] else ''}" for ours, _ in compared})
    facts = [f"{key} {value}" for key in FACTS if (value := rows[0].get(key))]
    lines = [
        "# Our attention on a GPU against PyTorch, Triton and the package mtla",
        "",
        "Written by `scripts/peers/compare_gpu.py`; `gpu_peers.py` says what the peers are. A ratio is the",
        "peer's time over ours: above 1 ours is faster. Its spread is from the interquartile ranges of both.",
        "Peers that were launched are timed by the same clock as ours, graphs by the GPU's. Caches are as in our row.",
        "",
        *means(compared),
        "",
        f"- machine: {', '.join(facts)}",
        f"- ours: commit {', '.join(commits)}",
        f"- cases: {len(compared)} of {len(mine)} of ours, each against its fastest peer",
        "",
        "## Case by case",
        "",
        *fastest(compared),
        "",
        "## All peers",
        "",
        *everything(compared),
        "",
        "## Not measured",
        "",
        *not_measured(rows),
        "",
    ]
    args.out.write_text("\n".join(lines))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
