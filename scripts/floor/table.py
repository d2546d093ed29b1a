"""Turns the runs of scripts/floor/run.sh into a Markdown table.

    python3 scripts/floor/table.py OUT

Reads OUT/floor.json and OUT/floor-large.json (`attn-bench export --format json`). Needs Python 3.10 and nothing else.
"""

import json
import pathlib
import sys

# Share of the floor to reach: where reading takes at least twice as long as computing, and otherwise.
BOUND_BY_MEMORY, OTHERWISE = 0.80, 0.60


def line(row):
    bytes_s = row["bytes_moved"] / row["ceiling_bytes_per_s"]
    flops_s = row["flops"] / row["ceiling_flops_per_s"]
    share = row["floor_s"] / row["time_median_s"]
    target = BOUND_BY_MEMORY if bytes_s >= 2 * flops_s else OTHERWISE
    reached = "-" if row["scope"] != "op" else "yes" if share >= target else "no"
    cells = [
        row["label"],
        row["dtype_resolved"],
        row["scope"],
        f"{row['kv_bytes'] / 2**20:.0f} MiB",
        f"{row['time_median_s'] * 1e3:.2f} ms",
        f"{bytes_s * 1e3:.2f} ms",
        f"{flops_s * 1e3:.2f} ms",
        f"{share:.2f}",
        f"{target:.2f}" if row["scope"] == "op" else "-",
        reached,
        row["trust"],
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    out = pathlib.Path(sys.argv[1])
    print("# Decode against the roofline floor\n")
    print("Written by `scripts/floor/run.sh`. The floor is the larger of two times: bytes moved over the read bandwidth,")
    print("and operations over the rate of a matrix product of the same dtype, both measured in the same run. Rows of a")
    print("layer hold its projections too, which `bytes_moved` and `flops` count.")
    for name in ("floor", "floor-large"):
        rows = json.loads((out / f"{name}.json").read_text())
        rows = [row for row in rows if row["status"] == "ok"]
        first = rows[0]
        rates = sorted({(row["dtype_resolved"], row["ceiling_flops_per_s"]) for row in rows})
        rates = ", ".join(f"{dtype} {rate * 1e-9:.0f} GFLOP/s" for dtype, rate in rates)
        print(f"\n## {name}\n")
        print(f"- context {first['context']}, batch {first['batch']}, {first['cpu_level'].split(',')[0]}")
        print(f"- CPU: {first['machine']}, {first['threads']} threads")
        print(f"- reads {first['ceiling_bytes_per_s'] * 1e-9:.1f} GB/s; matrix products: {rates}\n")
        head = ["variant", "dtype", "scope", "cache", "time", "bytes", "operations", "floor / time", "target",
                "reached", "trust"]
        print("| " + " | ".join(head) + " |")
        print("|---" * 3 + "|---:" * 6 + "|---" * 2 + "|")
        for row in rows:
            print(line(row))


if __name__ == "__main__":
    main()
