"""`attn-bench submit --hq` against HyperQueue's own server and worker, as its Python package brings them.

Usage: python3 scripts/cluster/hyperqueue_test.py [BINARY]          # target/debug/attn-bench

Needs Python 3.11 and the package `hyperqueue`, which has no `hq` command: a stand-in takes the job's definition, whose
tasks are then submitted one by one with the numbers, outputs and dependencies that it gives them. So what runs them, what
it tells them and in which order is HyperQueue; what is not tested is how `hq job submit-file` reads the file. The merged
rows are those of a run in one piece, but for what was measured. Takes half a minute.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import hyperqueue
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.ffi.protocol import ResourceRequest

SHARDS = 3
SWEEP = """\
name: hyperqueue-test
question: Is a sweep in shards the sweep?
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - mtla: {kv_rank: 16, rope_dim: 4, stride: [2, 3]}
workloads:
  - decode: {context: [16, 64, 256], batch: [1, 2]}
measure: {warmup_ms: 10, min_samples: 10, max_samples: 10, max_s: 0.5, ceilings: false}
"""


def main():
    here = Path(__file__).resolve().parent
    default = here.parents[1] / "target" / "debug" / "attn-bench"
    binary = str(Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve())
    with tempfile.TemporaryDirectory(prefix="attn-bench hq's ") as name:
        place = Path(name)
        (place / "sweep.yaml").write_text(SWEEP)
        (place / "hq").write_text("#!/bin/sh\necho 1\n")
        (place / "hq").chmod(0o755)
        path = f"{place}{os.pathsep}{os.environ['PATH']}"

        def attn_bench(*args, codes=(0,)):
            done = subprocess.run(
                [binary, *args], cwd=place, env=os.environ | {"PATH": path}, capture_output=True, text=True
            )
            if done.returncode not in codes:
                sys.exit(f"{' '.join(args)} exited with {done.returncode}: {done.stderr}")
            return done.stdout

        attn_bench("run", "sweep.yaml", "--out", "whole", "--no-figures")
        attn_bench("submit", "sweep.yaml", "--hq", "--array", str(SHARDS), "--out", "run")
        definition = tomllib.loads((place / "run" / "job.toml").read_text())
        with LocalCluster(worker_config=WorkerConfig(cores=2)) as cluster:
            client = cluster.client()
            # The package counts tasks from 0 and the definition from 1.
            job = hyperqueue.Job(place, name=definition["name"])
            tasks = {0: job.program(["true"])}
            for task in definition["task"]:
                requests = [ResourceRequest(cpus=request["resources"]["cpus"]) for request in task.get("request", [])]
                tasks[task["id"]] = job.program(
                    task["command"],
                    stdout=task["stdout"],
                    stderr=task["stderr"],
                    deps=[tasks[id] for id in task.get("deps", [])],
                    resources=requests or None,
                )
            assert [task.task_id for task in tasks.values()] == list(range(SHARDS + 2)), "tasks have other numbers"
            client.wait_for_jobs([client.submit(job)])
        for shard in range(1, SHARDS + 1):
            environment = json.loads((place / "run" / "shards" / str(shard) / "environment.json").read_text())
            plan = environment["plan"]
            assert plan["shard"] == f"{shard}/{SHARDS}" and "HQ_TASK_ID" in plan["shard_by"], plan
        for run in ("whole", "run/merged"):
            (place / f"{Path(run).name}.json").write_text(attn_bench("export", run, "--format", "json"))
        compare = [sys.executable, here / "compare_rows.py", place / "whole.json", place / "merged.json"]
        subprocess.run(compare, check=True)
    print(f"hyperqueue {importlib.metadata.version('hyperqueue')}: ok")


if __name__ == "__main__":
    main()
