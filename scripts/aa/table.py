"""Turns the comparisons of an A/A study (scripts/aa/study.sh) into a Markdown table.

    python3 scripts/aa/table.py OUT

Reads OUT/compared/<kind>-<pair>.json (`attn-bench compare --format json`) and the rows of both sides beside it
(`attn-bench export --format json`). Needs Python 3.10 and nothing else.
"""

import json
import pathlib
import statistics
import sys

KINDS = {
    "aa-alternating": "A/A alternating",
    "aa-apart": "A/A apart",
    "planted-alternating": "planted alternating",
    "planted-apart": "planted apart",
}

HEADER = [
    "kind", "pairs", "cases compared", "clean on both sides", "SLOWER", "FASTER", "SAME", "UNCLEAR",
    "median abs(ratio - 1)", "clean rows",
]


def percent(part, whole):
    return f"{100 * part / whole:.1f} % ({part})" if whole else "-"


def load(folder, kind):
    """The cases of every comparison of a kind, the number of these, and the rows of both sides."""
    cases, rows, pairs = [], [], 0
    for path in sorted(folder.glob(f"{kind}-[0-9]*.json")):
        if path.suffixes != [".json"]:
            continue
        pairs += 1
        cases += json.loads(path.read_text())["cases"]
        for side in ("base", "new"):
            rows += json.loads(path.with_suffix(f".{side}.json").read_text())
    return cases, rows, pairs


def line(kind, folder):
    cases, rows, pairs = load(folder, kind)
    if not pairs:
        return None, rows
    trusted = [case for case in cases if case["trusted"]]
    verdicts = [case["verdict"] for case in trusted]
    distances = [abs(case["ratio"] - 1) for case in trusted if case["ratio"] is not None]
    measured = [row for row in rows if row["status"] == "ok"]
    clean = [row for row in measured if row["trust"] in (None, "clean")]
    return [
        KINDS[kind],
        str(pairs),
        str(len(cases)),
        percent(len(trusted), len(cases)),
        *(percent(verdicts.count(word), len(trusted)) for word in HEADER[4:8]),
        f"{100 * statistics.median(distances):.2f} %" if distances else "-",
        percent(len(clean), len(measured)),
    ], rows


def values(rows, *columns):
    """What the rows say in these columns, each once."""
    found = {" ".join(str(row[column]) for column in columns) for row in rows}
    return ", ".join(sorted(found))


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python3 scripts/aa/table.py OUT")
    folder = pathlib.Path(sys.argv[1]) / "compared"
    lines, rows = [], []
    for kind in KINDS:
        cells, of_kind = line(kind, folder)
        if cells:
            lines.append(cells)
            rows += of_kind
    if not lines:
        sys.exit(f"{folder} has no comparison: run scripts/aa/study.sh first")
    begun = sorted(row["started_at"] for row in rows if row["started_at"])
    print(f"Sweep `{values(rows, 'sweep_name')}` on {values(rows, 'machine')}, {values(rows, 'threads')} threads, "
          f"commit {values(rows, 'commit')} ({values(rows, 'build_profile')}), "
          f"{begun[0] if begun else '?'} to {begun[-1] if begun else '?'}.")
    print()
    print("Verdicts are shares of the cases that are clean on both sides, with their number.")
    print()
    for cells in (HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *lines):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
