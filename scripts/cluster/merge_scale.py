"""Merges simulated shards and says how long it took and how much memory: 10,000 shards of 100 rows unless told otherwise.

Usage: python3 scripts/cluster/merge_scale.py [--shards N] [--rows N] [--samples N] [--binary FILE] [--dir DIR] [--keep]

A row is one that the binary measured, with another case and other times, and as many samples as asked for; every 20th
shard has the same times. A shard has what a finished one has: both tables, sweep.yaml, environment.json and a log, which
is empty, since a merge of this size reads the tables of finished shards. Needs pyarrow, and 2 GB of disk for a million
rows. Exits with 1 where the target is missed: 60 s and 1 GiB.
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

import pyarrow
import pyarrow.parquet

TARGET_S, TARGET_BYTES = 60.0, 1 << 30
# Eight digits of a case's id, in whose place the number of its shard comes.
MARK = "@@@@@@@@"
TEMPLATES = 20
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
    row = pyarrow.parquet.read_table(seed / "rows.parquet")
    sample = pyarrow.parquet.read_table(seed / "samples.parquet").slice(0, 1)
    compression = pyarrow.parquet.read_metadata(seed / "rows.parquet").row_group(0).column(0).compression
    environment = json.loads((seed / "environment.json").read_text())
    many_rows = pyarrow.concat_tables([row] * rows).combine_chunks()
    many_samples = pyarrow.concat_tables([sample] * (rows * samples)).combine_chunks()
    many_samples = replace(many_samples, "index", [i for _ in range(rows) for i in range(samples)])
    times = [name for name in row.column_names if name.startswith("time_") and row.schema.field(name).type == "double"]
    draw = random.Random(7)
    templates = []
    for _ in range(TEMPLATES):
        # Case ids stand uncompressed in the files, so that a shard is a template with its number in their place.
        ids = [f"{MARK}{draw.getrandbits(32):08x}" for _ in range(rows)]
        table = replace(many_rows, "case_id", ids)
        table = replace(table, "context", list(range(1, rows + 1)))
        for name in times:
            table = replace(table, name, [draw.lognormvariate(-9, 1) for _ in range(rows)])
        of_samples = replace(many_samples, "case_id", [id for id in ids for _ in range(samples)])
        of_samples = replace(of_samples, "time_s", [draw.lognormvariate(-9, 1) for _ in range(rows * samples)])
        templates.append((as_parquet(table, compression), as_parquet(of_samples, compression)))
    for shard in range(shards):
        folder = place / "run" / "shards" / str(shard + 1)
        folder.mkdir(parents=True)
        for name, template in zip(("rows.parquet", "samples.parquet"), templates[shard % TEMPLATES]):
            (folder / name).write_bytes(template.replace(MARK.encode(), f"{shard:08x}".encode()))
        (folder / "log.jsonl").touch()
        environment["plan"] |= {"cases": rows, "shard": f"{shard + 1}/{shards}"}
        (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        shutil.copy(seed / "sweep.yaml", folder)


def as_parquet(table, compression):
    """The bytes of a file compressed as the binary does it, but for case ids."""
    file = pyarrow.BufferOutputStream()
    of_columns = {name: "NONE" if name == "case_id" else compression for name in table.column_names}
    pyarrow.parquet.write_table(table, file, compression=of_columns)
    return file.getvalue().to_pybytes()


def replace(table, name, values):
    """The table with other values in a column of the same type."""
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    return table.set_column(at, field, pyarrow.array(values, field.type))


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
        # The largest of all children so far; the run of one row before is small.
        peak_bytes = usage.ru_maxrss * 1024
        cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
        merged = place / "merged"
        print("| what | value |\n|---|---|")
        print(f"| shards, rows, samples | {args.shards}, {args.shards * args.rows}, {args.shards * args.rows * args.samples} |")
        print(f"| columns of a row | {len(pyarrow.parquet.read_schema(place / 'seed' / 'rows.parquet'))} |")
        print(f"| read | {size(place / 'run') / 1e9:.2f} GB in {sum(1 for _ in (place / 'run').rglob('*') if _.is_file())} files |")
        for name in ("rows.parquet", "samples.parquet"):
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
