#!/usr/bin/env python3
"""Draws the ratios of a comparison, `sdpa_result.md` or `mtla_layer_result.md`: one dot a case, with its interval.

    <a Python with matplotlib> scripts/peers/figure.py scripts/peers/sdpa_result.md plots/peers/sdpa.png
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROW = re.compile(
    r"^\| (?P<case>[a-z]+ [^|]+?) \| [\d.]+ ms \| [\d.]+ ms \| (?P<ratio>[\d.]+) \| (?P<low>[\d.]+) to (?P<high>[\d.]+) \|$"
)
COLOURS = {"f32": "#1f4e79", "bf16": "#c0504d"}


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [match.groupdict() for line in source.read_text().splitlines() if (match := ROW.match(line))]
    if not rows:
        sys.exit(f"{source}: no ratios")
    # One panel for each workload and geometry, dtypes side by side.
    panels = {}
    for row in rows:
        workload, dtype, *rest = row["case"].split()
        panel = f"{workload} {rest[0]}" if len(rest) == 3 else workload
        label = f"B {rest[1]}, {rest[2]}" if len(rest) == 3 else f"s {rest[0]}, {rest[1]}"
        panels.setdefault(panel, []).append((dtype, label, row))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    most = max(len(panel) for panel in panels.values())
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.1 * columns, 0.9 + lines * (0.7 + 0.11 * most)), sharex=True, squeeze=False
    )
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for axis, (panel, points) in zip(axes.flat, panels.items()):
        labels = list(dict.fromkeys(label for _, label, _ in points))
        for dtype, label, row in points:
            y = labels.index(label) + (0.15 if dtype == "bf16" else -0.15)
            low, high, ratio = (float(row[key]) for key in ("low", "high", "ratio"))
            axis.plot([low, high], [y, y], color=COLOURS[dtype], linewidth=1.2)
            axis.plot([ratio], [y], "o", color=COLOURS[dtype], markersize=4)
        axis.axvline(1.0, color="0.5", linewidth=0.8)
        axis.set_yticks(range(len(labels)), labels, fontsize=7)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.set_xscale("log")
        axis.set_title(panel, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="x", which="both", color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
    for axis in axes[-1]:
        axis.set_xlabel("time of the peer / ours", fontsize=8)
    handles = [plt.Line2D([], [], color=colour, marker="o", markersize=4) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="upper right", fontsize=8, ncols=2, frameon=False)
    title = source.read_text().splitlines()[0].lstrip("# ")
    figure.suptitle(f"{title} (95 % intervals)", fontsize=10, x=0.02, ha="left")
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=160)


if __name__ == "__main__":
    main()
