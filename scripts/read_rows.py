"""Prints the shape and a few columns of a run's tables, read by pandas: a check that other tools can.

Usage: python scripts/read_rows.py results/<run>
Needs pandas and pyarrow.
"""

import sys
from pathlib import Path

import pandas
import pyarrow.parquet

COLUMNS = ["label", "workload", "batch", "context", "status", "time_median_s", "kv_bytes"]


def main(folder: Path) -> None:
    for name in ("rows.parquet", "samples.parquet"):
        path = folder / name
        metadata = pyarrow.parquet.read_metadata(path).metadata or {}
        ours = {k.decode(): v.decode() for k, v in metadata.items() if k.startswith(b"attn_bench.")}
        frame = pandas.read_parquet(path)
        print(name, frame.shape, ours)
        shown = [column for column in COLUMNS if column in frame] or list(frame)
        print(frame[shown].head(10).to_string(index=False), end="\n\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
