"""Merges simulated shards and says how long it took and how much memory: 10,000 shards of 100 rows unless told otherwise.

Usage: python3 scripts/cluster/merge_scale.py [--shards N] [--rows N] [--samples N] [--binary FILE] [--dir DIR] [--keep]

A row is one that the binary measured, with another case, group and times for each, and as many samples as asked for. A
shard has what a finished one has: its log, the footer of its table, sweep.yaml and environment.json. Groups of five rows
are dealt to the shards in turns, so that the merge has to bring every shard's rows between those of the others. Needs
about 13 GB of disk for a million rows. Exits with 1 where the target is missed: 60 s and 1 GiB.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_S, TARGET_BYTES = 60.0, 1 << 30
GROUP = 5
SWEEP = """\
name: scale
question: How long does it take to merge?
model: {d_model: 32, n_heads: 4}
variants: [mha]
workloads:
  - decode: {context: 8, batch: 1}
measure: {warmup_ms: 1, min_samples: 10, max_samples: 10, max_s: 1, ceilings: false}
"""


def simulate(binary, place, shards, rows, samples):
    """Writes the shards below `place`."""
    (place / "sweep.yaml").write_text(SWEEP)
    subprocess.run(
        [binary, "run", "sweep.yaml", "--out", "seed", "--no-figures"], cwd=place, check=True, stdout=subprocess.DEVNULL
    )
    seed = place / "seed"
    row = json.loads((seed / "log.jsonl").read_text().splitlines()[0])
    sample = row.pop("samples")[0]
    environment = json.loads((seed / "environment.json").read_text())
    # What differs from row to row is put in by name: writing a million rows as JSON takes too long otherwise.
    row |= {"case_id": "@case", "group": "@group", "context": "@context"}
    row |= {name: "@time" for name in row if name.startswith("time_") and isinstance(row[name], float)}
    row["samples"] = [sample | {"case_id": "@case", "index": i, "time_s": "@time"} for i in range(samples)]
    text = json.dumps(row, separators=(",", ":"))
    for name in ("group", "context", "time"):
        text = text.replace(f'"@{name}"', f"@{name}")
    draw = random.Random(7)
    for shard in range(shards):
        folder = place / "run" / "shards" / str(shard + 1)
        folder.mkdir(parents=True)
        lines = []
        for i in range(rows):
            line = text.replace("@case", f"{draw.getrandbits(64):016x}")
            line = line.replace("@group", str(i // GROUP * shards + shard)).replace("@context", str(i + 1))
            parts = line.split("@time")
            times = [repr(draw.lognormvariate(-9, 1)) for _ in parts[1:]]
            lines.append("".join(a + b for a, b in zip(parts, times + [""])) + "\n")
        (folder / "log.jsonl").write_text("".join(lines))
        environment["plan"] |= {"cases": rows, "shard": f"{shard + 1}/{shards}"}
        (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        shutil.copy(seed / "sweep.yaml", folder)
        if shard == 0:
            # A table of as many rows, which every shard gets: of a finished shard only the number of its rows is read.
            subprocess.run(
                [binary, "merge", str(folder), "--out", str(place / "one")], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        shutil.copy(place / "one" / "rows.parquet", folder)


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--binary", default="target/release/attn-bench")
    parser.add_argument("--dir", help="where shards are written; they stay there with --keep")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    binary = str(Path(args.binary).resolve())
    place = Path(args.dir or tempfile.mkdtemp(prefix="attn-merge-")).resolve()
    place.mkdir(parents=True, exist_ok=True)
    try:
        if not (place / "run").is_dir():
            began = time.monotonic()
            simulate(binary, place, args.shards, args.rows, args.samples)
            print(f"simulated in {time.monotonic() - began:.0f} s", file=sys.stderr)
        shutil.rmtree(place / "merged", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        merge = subprocess.run(
            [binary, "merge", "run", "--out", "merged"], cwd=place, stdout=subprocess.PIPE, text=True
        )
        took_s = time.monotonic() - began
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        if merge.returncode != 0:
            sys.exit(f"merge exited with {merge.returncode}")
        # The largest of all children so far; the run of one row and the merge of one shard before are small.
        peak_bytes = usage.ru_maxrss * 1024
        cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
        merged = place / "merged"
        print("| what | value |\n|---|---|")
        print(f"| shards, rows, samples | {args.shards}, {args.shards * args.rows}, {args.shards * args.rows * args.samples} |")
        print(f"| columns of a row | {len(json.loads((place / 'seed' / 'log.jsonl').open().readline())) - 1} |")
        print(f"| read | {size(place / 'run') / 1e9:.2f} GB in {sum(1 for _ in (place / 'run').rglob('*') if _.is_file())} files |")
        for name in ("log.jsonl", "rows.parquet", "samples.parquet"):
            print(f"| written, {name} | {(merged / name).stat().st_size / 1e9:.2f} GB |")
        print(f"| time | {took_s:.1f} s ({cpu_s:.0f} s of processors, {os.cpu_count()} of them) |")
        print(f"| peak of memory | {peak_bytes / 2**20:.0f} MiB |")
        is_met = took_s < TARGET_S and peak_bytes < TARGET_BYTES
        print(f"| target, {TARGET_S:.0f} s and {TARGET_BYTES >> 20} MiB | {'met' if is_met else 'MISSED'} |")
        sys.exit(0 if is_met else 1)
    finally:
        if not args.keep:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
