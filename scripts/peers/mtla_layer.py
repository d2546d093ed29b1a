#!/usr/bin/env python3
"""Time the attention layer of the Python package mtla at the seed's geometry: one side of `compare_mtla.py`.

Prints {"ready": true, ...}, then answers each line read with one run, {"case": ..., "time_s": ...}, until "quit" or the
end of its input. A case is workload, dtype, stride, length and, where it is another, the batch:

    forward f32 2 2048    B = 1, T = 2048, one call without a cache (training and evaluation path), inference mode
    train f32 2 2048      the same, and the gradients of all weights
    decode f32 2 512      B = 8, one token each from a context of 512 on: the mean of 64 steps, cache given
    decode f32 2 160 32   the same with B = 32
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import time

# Before torch: its OpenMP pool is sized on import.
os.environ.setdefault("OMP_NUM_THREADS", "2")

from turns import without_broken_amx

ISA = without_broken_amx()

import torch

with contextlib.redirect_stdout(sys.stderr):  # the package prints on import
    from mtla import MultiheadTemporalLatentAttention

PEER = f"mtla {importlib.metadata.version('mtla')}"
GEOMETRY = {
    "embed_dim": 512,
    "num_heads": 8,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "kv_lora_rank": 256,
    "q_lora_rank": 0,
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
DECODE_BATCH, DECODE_STEPS = 8, 64


class Case:
    """The layer and the operands of a case."""

    def __init__(self, case):
        self.workload, dtype, stride, length, *batch = case.split()
        self.batch = int(batch[0]) if batch else DECODE_BATCH
        self.dtype, self.stride, self.length = DTYPES[dtype], int(stride), int(length)
        if self.stride < 2:
            sys.exit("the package's decode is wrong at s = 1, use a stride of 2 or more")
        torch.manual_seed(42)
        layer = MultiheadTemporalLatentAttention(
            **GEOMETRY, down_rate=self.stride, recompute_prompt_attn=True
        )
        self.layer = layer.eval()
        with torch.inference_mode():
            self.check()
        self.layer = layer.to(self.dtype)
        self.prompt = torch.randn(1, self.length, GEOMETRY["embed_dim"], dtype=self.dtype)
        # Each step's input is a tensor of its own, as a model above would hand it over.
        self.tokens = [
            torch.randn(self.batch, 1, GEOMETRY["embed_dim"], dtype=self.dtype) for _ in range(DECODE_STEPS)
        ]
        self.run()

    def check(self):
        """Refuses to time wrong results: decoding must equal the parallel path."""
        x = torch.randn(1, 37, GEOMETRY["embed_dim"])
        positions = torch.arange(37, dtype=torch.float32)[None]
        parallel = self.layer(x, x, x, position=positions)
        state, rows = {}, []
        for t in range(37):
            part = x[:, t : t + 1]
            rows.append(self.layer(part, part, part, position=positions[:, t : t + 1], incremental_state=state))
        error = (torch.cat(rows, dim=1) - parallel).abs().max().item()
        if not error < 1e-4:
            sys.exit(f"decoding and the parallel path of {PEER} differ by {error:.1e}")

    def run(self):
        """Seconds of one run."""
        if self.workload == "decode":
            with torch.inference_mode():
                return self.decode()
        positions = torch.arange(self.length, dtype=torch.float32)[None]
        if self.workload == "forward":
            with torch.inference_mode():
                began = time.perf_counter()
                y = self.layer(self.prompt, self.prompt, self.prompt, position=positions)
                elapsed = time.perf_counter() - began
        else:
            began = time.perf_counter()
            y = self.layer(self.prompt, self.prompt, self.prompt, position=positions)
            torch.autograd.grad(y.sum(), list(self.layer.parameters()))
            elapsed = time.perf_counter() - began
        assert y.isfinite().all()
        return elapsed

    def decode(self):
        slots = -(-self.length // self.stride)
        positions = [torch.full((1, 1), float(self.length + t)) for t in range(DECODE_STEPS)]
        state = {}
        self.layer._set_input_buffer(
            state,
            {
                "prev_kv_t": torch.randn(self.batch, slots, GEOMETRY["kv_lora_rank"], dtype=self.dtype),
                "prev_k_pe": torch.randn(self.batch, slots, GEOMETRY["qk_rope_head_dim"], dtype=self.dtype),
                "infer_steps": torch.full((self.batch,), float(self.length)),
            },
        )
        began = time.perf_counter()
        for x, position in zip(self.tokens, positions):
            y = self.layer(x, x, x, position=position, incremental_state=state)
        elapsed = time.perf_counter() - began
        assert y.isfinite().all()
        return elapsed / DECODE_STEPS


def status_bytes(key):
    """A line of /proc/self/status in bytes; None where there is none."""
    try:
        with open("/proc/self/status") as file:
            found = [line.split()[1] for line in file if line.startswith(f"{key}:")]
    except OSError:
        return None
    return int(found[0]) * 1024 if found else None


def main():
    versions = f"{PEER}, torch {torch.__version__}{ISA}, Python {sys.version.split()[0]}"
    about = {"ready": True, "versions": versions, "threads": torch.get_num_threads()}
    print(json.dumps(about | {"rss_bytes": status_bytes("VmRSS")}), flush=True)
    name, case = None, None
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        if line.strip() != name:
            case = None  # one case's operands at a time
            name, case = line.strip(), Case(line)
        time_s = case.run()
        print(json.dumps({"case": name, "time_s": time_s, "rss_peak_bytes": status_bytes("VmHWM")}), flush=True)


if __name__ == "__main__":
    main()
