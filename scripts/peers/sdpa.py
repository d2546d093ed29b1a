#!/usr/bin/env python3
"""Time PyTorch's scaled_dot_product_attention on the CPU: one side of `compare_sdpa.py`.

Prints {"ready": true, ...}, then answers each line read with one run, {"case": ..., "time_s": ...}, until "quit" or the
end of its input. A case is six words: decode or forward, f32 or bf16, a geometry, batch, context (or tokens).
"""

import json
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")

from turns import without_broken_amx

ISA = without_broken_amx()

import torch

# Query heads, KV heads, key size, value size; None where values are the first columns of the keys.
GEOMETRIES = {
    "mha": (8, 8, 64, 64),
    "gqa": (8, 2, 64, 64),
    "mqa": (8, 1, 64, 64),
    "mla": (8, 1, 288, -256),
    "mla-prefill": (8, 8, 96, 64),
    "large-gqa": (32, 8, 128, 128),
    "large-mla": (32, 1, 576, -512),
}
# A run is calls one after the other for so long, as a model decodes token by token; `time_s` is that of one.
RUN_S = 0.002
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def operands(case):
    workload, dtype, geometry, batch, length = case.split()
    heads, kv_heads, key_dim, value_dim = GEOMETRIES[geometry]
    batch, length, dtype = int(batch), int(length), DTYPES[dtype]
    queries = 1 if workload == "decode" else length
    q = torch.randn(batch, heads, queries, key_dim, dtype=dtype)
    k = torch.randn(batch, kv_heads, length, key_dim, dtype=dtype)
    v = k[..., :-value_dim] if value_dim < 0 else torch.randn(batch, kv_heads, length, value_dim, dtype=dtype)
    return q, k, v, workload == "forward", heads != kv_heads


@torch.inference_mode()
def run(case, known):
    if case not in known:
        known.clear()  # one case's operands at a time
        known[case] = operands(case)
        attend(*known[case])
    q, k, v, causal, grouped = known[case]
    calls, began = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - began < RUN_S:
        attend(q, k, v, causal, grouped)
        calls += 1
    return (time.perf_counter() - began) / calls


def attend(q, k, v, causal, grouped):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def main():
    torch.manual_seed(42)
    known = {}
    about = {"ready": True, "versions": f"torch {torch.__version__}{ISA}", "threads": torch.get_num_threads()}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        case = line.strip()
        if case == "quit":
            break
        print(json.dumps({"case": case, "time_s": run(case, known)}), flush=True)


if __name__ == "__main__":
    main()
