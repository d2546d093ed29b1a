"""Compares the rows of two runs of one sweep in all columns but those that a measurement fills.

Usage: python3 scripts/cluster/compare_rows.py A.json B.json
The files are what `attn-bench export RUN --format json` prints. Exits with 1 where a case is missing, where the order of
the cases differs, or where a column differs that should not.
"""

import json
import sys

# Columns that differ between two runs of the same sweep on the same machine, and why.
MEASURED = {
    "times, and what is computed from them": [
        "time_median_s", "time_ci_low_s", "time_ci_high_s", "time_iqr_s", "time_mean_s", "time_min_s", "wall_median_s",
        "tokens_per_s", "achieved_bytes_per_s", "achieved_flops_per_s", "bandwidth_fraction", "flops_fraction",
        "time_over_floor", "n_outliers", "replica_spread",
    ],
    "how long a step of the work took": [
        "warmup_s", "build_s", "verify_s", "sampling_s", "reset_s",
    ],
    "how many samples were enough depends on their noise": ["n_samples", "stop_rule"],
    "what the machine was doing meanwhile": [
        "trust", "trust_reason", "started_at", "cpu_mhz_start", "cpu_mhz_end", "load_1m_start", "cpu_temperature_c",
        "other_cpu_fraction", "stolen_cpu_fraction", "clock_ratio", "throttle_events",
    ],
    "memory of the process, and how its threads overlapped": [
        "peak_bytes", "peak_build_bytes", "peak_verify_bytes", "rss_peak_bytes", "rss_peak_build_bytes",
        "rss_peak_verify_bytes", "memory_limit_bytes",
    ],
    "processors of the task: Slurm gives it fewer than the machine has": ["threads"],
}


def rows(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(a_path, b_path):
    excepted = {column for columns in MEASURED.values() for column in columns}
    a, b = rows(a_path), rows(b_path)
    problems = []
    ids = [[row["case_id"] for row in side] for side in (a, b)]
    if ids[0] != ids[1]:
        problems.append(
            f"cases differ or stand in another order: {len(ids[0])} and {len(ids[1])}, "
            f"{len(set(ids[0]) ^ set(ids[1]))} in one alone"
        )
    of_b = {row["case_id"]: row for row in b}
    compared = set()
    for row in a:
        other = of_b.get(row["case_id"])
        if other is None:
            continue
        for column in sorted(set(row) | set(other)):
            if column in excepted:
                continue
            compared.add(column)
            left, right = row.get(column), other.get(column)
            if column == "null_reasons":
                # Reasons of columns that are excepted are excepted with them.
                left, right = (
                    {name: why for name, why in json.loads(cell).items() if name not in excepted}
                    for cell in (left, right)
                )
            if left != right:
                problems.append(f"{row['case_id']} {row['label']}: {column} is {left!r} and {right!r}")
    for problem in problems[:20]:
        print(problem)
    for why, columns in MEASURED.items():
        print(f"not compared, {why}: {', '.join(columns)}")
    if problems:
        sys.exit(f"{len(problems)} differences")
    print(f"{len(a)} rows equal in {len(compared)} columns, in the same order")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
