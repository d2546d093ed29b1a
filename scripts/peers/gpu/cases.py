"""The cases of the sweeps, as attn-bench itself plans them: one table for both sides, joined by `case_id`.

`attn-bench plan FILE --format json` needs no GPU, so the peers have our rows' sizes, FLOPs and bytes.
"""

import dataclasses
import json
import subprocess

# `--small`: every kind of case in a second or two, for a CPU and for Triton's interpreter.
SMALL = [
    "model={d_model: 64, n_heads: 4, head_dim: 16}",
    "variants=[{mha: {}}, {gqa: {n_kv_heads: 2}}, {mqa: {}}, {mla: {kv_rank: 32, rope_dim: 16}},"
    " {mtla: {kv_rank: 32, rope_dim: 16, stride: [2, 3]}}]",
    "workloads=[{decode: {context: [48], batch: 2}}, {prefill: {tokens: [48], batch: 1}}]",
    "scopes=[op, layer]",
    "measure={warmup_ms: 10, min_samples: 5, max_s: 0.1}",
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A case of a plan. `length` is the context L of `decode`, the tokens T of `prefill`.

    A cache entry of a latent layer is `rank` + `rope` wide; `rank` is 0 where keys are projected directly, and
    there `rope` is the whole head.
    """

    case_id: str
    sweep: str
    variant: str
    label: str
    scope: str
    workload: str
    batch: int
    length: int
    dtype: str
    d_model: int
    n_heads: int
    n_kv_heads: int
    score_dim: int
    v_dim: int
    rank: int
    rope: int
    stride: int
    bias: bool
    flops: int
    bytes_moved: int

    @property
    def point(self):
        """What the variants of a comparison share."""
        return (self.sweep, self.scope, self.workload, self.batch, self.length, self.dtype)

    @property
    def slots(self):
        """Cache entries that a decode step reads."""
        return -(-self.length // self.stride)

    @property
    def scale(self):
        return self.score_dim**-0.5

    def about(self):
        """The columns that name the case in a row."""
        names = "case_id sweep label scope workload batch length dtype stride d_model n_heads".split()
        return {name: getattr(self, name) for name in names}


def from_plan(sweep, case):
    g, params = case["geometry"], case["params"]
    rank = g["entry"]["values"].get("key_prefix", 0)
    rope = g["entry"]["key"] - rank
    if rank and (params["q_rank"], params["norm"], g["score_dim"]) != (0, "layer", params["nope_dim"] + rope):
        raise SystemExit(f"{sweep}, {case['label']}: the peers have no such layer")
    fields = ["case_id", "variant", "label", "scope", "workload", "batch", "dtype", "d_model", "n_heads"]
    return Case(
        **{name: case[name] for name in fields + ["flops", "bytes_moved"]},
        **{name: g[name] for name in ["n_kv_heads", "score_dim", "v_dim", "stride"]},
        sweep=sweep,
        length=case["context"] or case["tokens"],
        rank=rank,
        rope=rope,
        bias=params["bias"],
    )


def read_plans(attn_bench, files, options, only, rng):
    """The decode and prefill cases on the fused path, group by group; where `only` is given, its ids.

    The files take turns and their groups are shuffled, so that a time limit leaves something of all.
    """
    queues = []
    for file in files:
        command = [attn_bench, "plan", str(file), "--format", "json", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        plan = json.loads(done.stdout)
        groups = {}
        for case in plan["cases"]:
            wanted = (
                case["path"] == "fused"
                and case["workload"] in ("decode", "prefill")
                and case["regime"] == "hot"
            )
            if wanted and (only is None or case["case_id"] in only):
                found = from_plan(plan["name"], case)
                groups.setdefault(found.point, []).append(found)
        queue = list(groups.values())
        rng.shuffle(queue)
        queues.append(queue)
    turns = []
    while any(queues):
        turns += [queue.pop(0) for queue in queues if queue]
    return turns
