"""What all fixtures share: seeded numbers, weights, RoPE, the steps of a decode, and the two checks."""

import math
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# Two paths of one implementation, both in float64.
TOLERANCE_PATHS = 1e-9
# Two implementations, one of which has RoPE's angles or rotation in float32: an angle of
# 30 radians is then off by 1e-6, and a key of size 5 by 5e-6.
TOLERANCE_PEERS = 1e-5


# --- random weights ---------------------------------------------------------------


class Draw:
    """Seeded normal numbers. PCG64 and `standard_normal` are stable across numpy versions."""

    def __init__(self, name):
        self.rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))

    def normal(self, *shape, scale=1.0, centre=0.0):
        values = centre + scale * self.rng.standard_normal(shape)
        return torch.from_numpy(values.astype(np.float32))


def linear(draw, weights, name, d_out, d_in, bias, gain=1.5):
    # A gain above one keeps the attention weights away from the uniform distribution,
    # which hides errors in masks and in RoPE.
    weights[f"{name}.weight"] = draw.normal(d_out, d_in, scale=gain / math.sqrt(d_in))
    if bias:
        weights[f"{name}.bias"] = draw.normal(d_out, scale=0.3)


def norm(draw, weights, name, size, kind="layer"):
    weights[f"{name}.weight"] = draw.normal(size, scale=0.3, centre=1.0)
    if kind == "layer":
        weights[f"{name}.bias"] = draw.normal(size, scale=0.3)


# --- layers -----------------------------------------------------------------------


def load(module, weights):
    """Puts float32 weights into a module, by name, in float64. Every name must match."""
    module.load_state_dict({k: v.double() for k, v in weights.items()}, strict=True)
    return module.eval()


def project(weights, name, x):
    """A Linear, with a bias where there is one, in the input's dtype."""
    bias = weights.get(f"{name}.bias")
    weight = weights[f"{name}.weight"].to(x.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def add_biases(layer):
    """Gives each Linear of a published layer a bias: those have one on some projections, or none."""
    for name, part in list(layer.named_children()):
        if isinstance(part, nn.Linear):
            setattr(layer, name, nn.Linear(part.in_features, part.out_features))


def rope(x, start, theta):
    """Neighbouring elements (2i, 2i + 1) are one complex number, turned in float64. [B, T, ..., D]"""
    t = torch.arange(start, start + x.shape[1], dtype=torch.float64)
    inv_freq = theta ** (-torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
    angles = torch.outer(t, inv_freq)
    turn = torch.polar(torch.ones_like(angles), angles)
    turn = turn.view(len(t), *[1] * (x.dim() - 3), -1)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


def halves(size):
    """Order of elements with which rotate-half RoPE is RoPE on neighbouring pairs."""
    return torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])


def causal(n_queries, start):
    """[Tq, start + Tq], true where a query sees a key; the first query is at `start`."""
    i = torch.arange(start, start + n_queries)[:, None]
    return torch.arange(start + n_queries)[None] <= i


def probabilities(scores, mask):
    """Softmax over keys, written out: the other path goes through torch's attention."""
    scores = scores.masked_fill(~mask, -torch.inf)
    e = torch.exp(scores - scores.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


# --- checks -----------------------------------------------------------------------


def steps(x, prefill):
    """`prefill` tokens in one call, if any, then one token at a time."""
    parts = [x[:, :prefill]] if prefill else []
    return parts + [x[:, t : t + 1] for t in range(prefill, x.shape[1])]


def decode(call, x, prefill, cache=None):
    """All steps through `call(part, start, cache) -> (y, cache)`: outputs and the last cache."""
    rows, start = [], 0
    for part in steps(x, prefill):
        y, cache = call(part, start, cache)
        rows.append(y)
        start += part.shape[1]
    return torch.cat(rows, dim=1), cache


def difference(a, b):
    assert a.shape == b.shape, f"{tuple(a.shape)} and {tuple(b.shape)}"
    error = (a.double() - b.double()).abs().max().item()
    assert math.isfinite(error), "a value is infinite or no number"
    return error


WORST = {"paths": 0.0, "peers": 0.0}


def check_peers(errors):
    errors = {k: v for k, v in errors.items() if isinstance(v, float)}
    assert errors
    for name, error in errors.items():
        assert error < TOLERANCE_PEERS, f"second implementation, {name}: {error:.1e}"
        WORST["peers"] = max(WORST["peers"], error)


def check_paths(name, a, b):
    error = difference(a, b)
    assert error < TOLERANCE_PATHS, f"{name} differ by {error:.1e}"
    WORST["paths"] = max(WORST["paths"], error)
