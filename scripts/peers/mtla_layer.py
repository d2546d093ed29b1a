#!/usr/bin/env python3
"""Time the attention layer of the Python package mtla at the seed's geometry, on the CPU.

Two cases, float32, inference mode:

    forward     B = 1, T = 2048, one call without a cache (training and evaluation path)
    decode512   B = 8, 512 steps of one token each, from an empty cache

Without --interactive it prints one JSON line per case:
    {"peer": "mtla 0.3.2", "case": "forward", "samples_s": [...]}

With --interactive it is one side of a comparison: it warms up, prints {"ready": true, ...},
then answers each line read ("forward", "decode512") with one run,
    {"case": "forward", "time_s": 0.3}
until "quit" or the end of its input. `compare_mtla.py` speaks the other side.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import time

# Before torch: its OpenMP pool is sized on import, and its workers must not spin
# while the other program is being timed.
os.environ.setdefault("OMP_NUM_THREADS", "2")

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
FORWARD_BATCH, FORWARD_TOKENS = 1, 2048
DECODE_BATCH, DECODE_STEPS = 8, 512


class Layer:
    def __init__(self, stride, seed):
        torch.manual_seed(seed)
        self.layer = MultiheadTemporalLatentAttention(
            **GEOMETRY, down_rate=stride, recompute_prompt_attn=True
        ).eval()
        self.prompt = torch.randn(FORWARD_BATCH, FORWARD_TOKENS, GEOMETRY["embed_dim"])
        # Each step's input is a tensor of its own, as a model above would hand it over.
        self.tokens = [
            torch.randn(DECODE_BATCH, 1, GEOMETRY["embed_dim"]) for _ in range(DECODE_STEPS)
        ]
        self.positions = torch.arange(FORWARD_TOKENS, dtype=torch.float32)[None]
        self.step_positions = [self.positions[:, t : t + 1] for t in range(DECODE_STEPS)]

    def forward(self):
        x = self.prompt
        return self.layer(x, x, x, position=self.positions)

    def decode512(self):
        state, y = {}, None
        for x, position in zip(self.tokens, self.step_positions):
            y = self.layer(x, x, x, position=position, incremental_state=state)
        return y

    def check(self):
        """Refuses to time wrong results: decoding must equal the parallel path."""
        x = torch.cat([t[:1] for t in self.tokens[:37]], dim=1)
        parallel = self.layer(x, x, x, position=self.positions[:, : x.shape[1]])
        state, rows = {}, []
        for t in range(x.shape[1]):
            part = x[:, t : t + 1]
            position = self.step_positions[t]
            rows.append(self.layer(part, part, part, position=position, incremental_state=state))
        error = (torch.cat(rows, dim=1) - parallel).abs().max().item()
        if not error < 1e-4:
            sys.exit(f"decoding and the parallel path of {PEER} differ by {error:.1e}")


CASES = {"forward": Layer.forward, "decode512": Layer.decode512}


def timed(layer, case):
    start = time.perf_counter()
    result = CASES[case](layer)
    elapsed = time.perf_counter() - start
    assert result.isfinite().all()
    return elapsed


def warm_up(layer, case, seconds):
    """At least two runs, and at least this long."""
    start, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - start < seconds:
        timed(layer, case)
        runs += 1


def say(message):
    print(json.dumps(message), flush=True)


def interactive(layer):
    say(
        {
            "ready": True,
            "peer": PEER,
            "versions": f"{PEER}, torch {torch.__version__}, Python {sys.version.split()[0]}",
            "threads": torch.get_num_threads(),
        }
    )
    for line in sys.stdin:
        case = line.strip()
        if case == "quit":
            return
        if case not in CASES:
            say({"error": f"unknown case {case!r}, use forward, decode512 or quit"})
            continue
        say({"case": case, "time_s": timed(layer, case)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactive", action="store_true", help="answer cases read from stdin")
    parser.add_argument("--stride", type=int, default=2, help="MTLA's s (2 or more)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10, help="samples per case")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS", help="per case")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    if args.stride < 2:
        parser.error("the package's decode is wrong at s = 1, use --stride 2 or more")

    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        layer = Layer(args.stride, args.seed)
        layer.check()
        for case in CASES:
            warm_up(layer, case, args.warm_up)
        if args.interactive:
            return interactive(layer)
        for case in CASES:
            samples_s = [timed(layer, case) for _ in range(args.repeats)]
            say({"peer": PEER, "case": case, "samples_s": samples_s})


if __name__ == "__main__":
    main()
