#!/usr/bin/env python3
"""Write the training fixtures: 200 steps of each variant's decoder in PyTorch, loss by loss.

The paper's decoder of `prefix_decoder.py` as one module, trained by torch.optim.AdamW on four fixed batches in turn, with
label smoothing, warm-up and cosine, gradients clipped: once in float64 and once in float32 from the same weights. Attention
is that of `make_fixtures.py`, so for MTLA the layer of the `mtla` package. Angles of RoPE are float32 in both runs, as in
the published layers.

    make_training.py             write crates/attn-model/tests/fixtures/training-*.safetensors
    make_training.py --check     train again, compare
"""

import argparse
import json
import math
import sys

import torch
import torch.nn.functional as F
from make_fixtures import (
    Draw,
    Float64Rope,
    MultiheadTemporalLatentAttention,
    RopeHeads,
    deepseek_layer,
    heads,
    latent,
    load,
    mtla_layer,
    serialize,
    temporal,
)
from make_models import FIXTURES
from prefix_decoder import draw_decoder, mtla_queries, under
from safetensors import safe_open
from torch import nn

FORMAT = "attn-training-1"
SIZES = {"n_layers": 2, "d_ff": 64, "vocab": 24}
BATCHES, BATCH, STATES, TOKENS = 4, 3, 11, 9
OPTIONS = {
    "steps": 200,
    "lr": 5e-4,
    "warmup": 20,
    "smoothing": 0.1,
    "beta1": 0.9,
    "beta2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}
VARIANTS = {
    "mha": heads(32, 4, 4, 8, True),
    "gqa": heads(32, 4, 2, 8, True),
    "mqa": heads(32, 4, 1, 8, True),
    "mla": latent(32, 4, 16, 0, 8, 4, 8),
    "mtla-s2": temporal(2, 32, 4, 16, 0, 8, 4, 8),
    "mtla-s3": temporal(3, 32, 4, 16, 0, 8, 4, 8),
}


class Heads(RopeHeads):
    """In the dtype of its input, with angles in float32."""

    def rope(self, x, start):
        t = torch.arange(start, start + x.shape[1], dtype=torch.float32)
        inv_freq = 1.0 / (self.theta ** (torch.arange(0, self.d, 2).float() / self.d))
        angles = torch.outer(t, inv_freq)
        turn = torch.complex(angles.cos().to(x.dtype), angles.sin().to(x.dtype))
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn[:, None]).flatten(-2)


class Float32Angles(Float64Rope):
    """The package's layer: angles in float32 as it has them, turned in float64."""

    def _compute_freqs_cis_batch(self, pos, device):
        turn = MultiheadTemporalLatentAttention._compute_freqs_cis_batch(self, pos, device)
        return turn.to(torch.complex128)


class Decoder(nn.Module):
    """[B, S, M] states and [B, T] tokens to logits [B, T, V], every sequence as long as the others."""

    def __init__(self, variant, c, weights, dtype):
        super().__init__()
        self.c, self.variant = c, variant
        self.layers = nn.ModuleList()
        self.calls = []
        for i in range(c["n_layers"]):
            own = under(weights, f"layers.{i}.self_attn.")
            if variant == "mtla":
                module = Float32Angles if dtype == torch.float64 else MultiheadTemporalLatentAttention
                layer = mtla_layer(c, own, module)
                call = self.call_mtla(layer)
            elif variant == "mla":
                layer, inner = deepseek_layer(c, own)
                call = self.call_plain(lambda x, inner=inner: inner(x, 0, None))
            else:
                layer = load(Heads(c), own)
                call = self.call_plain(lambda x, layer=layer: layer(x)[0])
            self.layers.append(layer)
            self.calls.append(call)
        rest = {k: v for k, v in weights.items() if ".self_attn." not in k}
        self.rest = nn.ParameterDict({k.replace(".", "/"): nn.Parameter(v.double()) for k, v in rest.items()})
        self.to(dtype)

    @staticmethod
    def call_plain(layer):
        return lambda prefix, text: layer(torch.cat([prefix, text], 1))[:, prefix.shape[1] :]

    @staticmethod
    def call_mtla(layer):
        return lambda prefix, text: mtla_queries(layer, prefix, text)

    def get(self, name):
        return self.rest[name.replace(".", "/")]

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.get(f"{name}.weight"), self.get(f"{name}.bias"), eps=1e-5)

    def feed_forward(self, name, x):
        x = F.relu(F.linear(x, self.get(f"{name}.fc1.weight"), self.get(f"{name}.fc1.bias")))
        return F.linear(x, self.get(f"{name}.fc2.weight"), self.get(f"{name}.fc2.bias"))

    def forward(self, prefix, tokens):
        x = self.get("embed_tokens.weight")[tokens] * math.sqrt(self.c["d_model"])
        for i, attend in enumerate(self.calls):
            name = f"layers.{i}"
            attended = attend(prefix, self.norm(f"{name}.self_attn_layer_norm", x))
            h = self.norm(f"{name}.self_attn_layer_norm", x + attended)
            x = self.norm(f"{name}.final_layer_norm", h + self.feed_forward(name, h))
        return F.linear(self.norm("layer_norm", x), self.get("output_projection.weight"))


def learning_rate(step):
    """Linear from lr / warmup, then half a cosine to zero."""
    if step < OPTIONS["warmup"]:
        return OPTIONS["lr"] * (step + 1) / OPTIONS["warmup"]
    done = (step - OPTIONS["warmup"]) / (OPTIONS["steps"] - OPTIONS["warmup"])
    return 0.5 * OPTIONS["lr"] * (1 + math.cos(math.pi * done))


def train(variant, c, weights, prefixes, tokens, dtype):
    """The loss of every step, before its update."""
    model = Decoder(variant, c, weights, dtype).train()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": OPTIONS["weight_decay"]},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (OPTIONS["beta1"], OPTIONS["beta2"])
    optimiser = torch.optim.AdamW(groups, lr=OPTIONS["lr"], betas=betas, eps=OPTIONS["eps"])
    losses = []
    for step in range(OPTIONS["steps"]):
        batch = step % BATCHES
        text = tokens[batch].long()
        logits = model(prefixes[batch].to(dtype), text[:, :-1])
        loss = F.cross_entropy(
            logits.flatten(0, 1), text[:, 1:].flatten(), label_smoothing=OPTIONS["smoothing"]
        )
        losses.append(loss.item())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIONS["clip_norm"])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        optimiser.step()
    return losses


def build(name):
    variant = name.split("-")[0]
    c = VARIANTS[name] | SIZES
    # Where a unit's first gradient hangs on the last bit of an activation, AdamW makes a whole step of it, and rounding
    # decides the course of a training: such a one says nothing of who computes it, and other weights are drawn.
    for salt in "abcdefgh":
        draw = Draw(f"training-{name}-{salt}")
        weights = draw_decoder(draw, variant, c)
        prefixes = draw.normal(BATCHES, BATCH, STATES, c["d_model"])
        tokens = torch.from_numpy(draw.rng.integers(0, c["vocab"], (BATCHES, BATCH, TOKENS + 1))).int()
        losses = {
            label: train(variant, c, weights, prefixes, tokens, dtype)
            for label, dtype in (("f64", torch.float64), ("f32", torch.float32))
        }
        gap = max(abs(a - b) for a, b in zip(losses["f32"], losses["f64"]))
        print(f"{name:8} {salt} {losses['f64'][0]:.4f} -> {losses['f64'][-1]:.4f}, float32 and float64 within {gap:.1e}")
        if gap < 1e-5:
            break
    else:
        sys.exit(f"{name}: rounding decides the course of every training")
    tensors = {f"weights.{k}": v for k, v in weights.items()}
    tensors |= {"prefixes": prefixes, "tokens": tokens}
    metadata = {
        "format": FORMAT,
        "variant": variant,
        "config": json.dumps(c | {"decoder": "prefix"}),
        "options": json.dumps(OPTIONS),
        # As text: the tensors of a file are float32.
        "losses": json.dumps(losses),
    }
    return tensors, metadata


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the stored files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    for name in VARIANTS:
        tensors, metadata = build(name)
        path = FIXTURES / f"training-{name}.safetensors"
        if args.check:
            bad += not same(path, metadata)
        else:
            path.write_bytes(serialize(tensors, metadata))
            print(f"{path.stat().st_size:8} {path.name}")
    sys.exit(1 if bad else 0)


def same(path, metadata):
    with safe_open(path, "pt") as file:
        stored = json.loads(file.metadata()["losses"])
    losses = json.loads(metadata["losses"])
    pairs = [pair for label in losses for pair in zip(stored[label], losses[label])]
    worst = max(abs(a - b) for a, b in pairs)
    print(f"{'ok' if worst < 1e-3 else 'DIFFERS':8} {path.name} {worst:.1e}")
    return worst < 1e-3


if __name__ == "__main__":
    main()
