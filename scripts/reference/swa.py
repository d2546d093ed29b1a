"""Fixtures of sliding-window attention: grouped queries over the last `window` tokens.

Mistral 7B, arXiv 2310.06825, section 2, 'Sliding Window Attention' and 'Rolling Buffer Cache':
position i lies in slot i mod W, and a query sees W keys, i - W < j <= i. That is what the ring can
hold, and transformers' mask (4.53.3, masking_utils.py, sliding_window_overlay). The paper's 'between
i - W and i' is one more, as is the prompt's mask in its authors' mistralai/mistral-inference (commit
215fc80d, one_file_ref.py), whose decode sees W keys: there the two paths differ.

Here, parallel: torch's attention with the mask written out. Incremental: a ring that is overwritten,
no mask. Second implementation: transformers' MistralAttention with its own mask and, for single
steps, SlidingWindowCache, which moves its entries instead of going round.
"""

import torch
import torch.nn.functional as F
from transformers import MistralConfig, SlidingWindowCache
from transformers.masking_utils import create_sliding_window_causal_mask
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralRotaryEmbedding

from common import add_biases, causal, check_peers, decode, difference, halves, linear, load
from common import project, rope


def sliding(d_model, n_heads, n_kv_heads, head_dim, window, bias=False, rope_theta=1e4):
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "head_dim": head_dim,
        "n_kv_heads": n_kv_heads,
        "window": window,
        "bias": bias,
        "rope_theta": rope_theta,
    }


# name: (variant, B, T, prefill, config)
FIXTURES = {
    "swa-w5": ("swa", 1, 23, 0, sliding(40, 4, 2, 12, 5)),
    "swa-w1-bias-prefill3": ("swa", 2, 13, 3, sliding(36, 3, 3, 8, 1, True)),
    "swa-w4-bias-prefill11": ("swa", 2, 19, 11, sliding(40, 6, 3, 8, 4, True)),
    "swa-w6-theta5e5-prefill12": ("swa", 1, 29, 12, sliding(44, 4, 1, 16, 6, rope_theta=5e5)),
    "swa-w40-wider-than-t": ("swa", 3, 13, 5, sliding(36, 3, 3, 12, 40)),
}


def draw_weights(draw, c):
    w, m, d, bias = {}, c["d_model"], c["head_dim"], c["bias"]
    linear(draw, w, "q_proj", c["n_heads"] * d, m, bias)
    linear(draw, w, "k_proj", c["n_kv_heads"] * d, m, bias)
    linear(draw, w, "v_proj", c["n_kv_heads"] * d, m, bias)
    linear(draw, w, "out_proj", m, c["n_heads"] * d, bias)
    return w


def expected_shapes(c, b, t):
    shape = (b, c["n_kv_heads"], min(t, c["window"]), c["head_dim"])
    return {"expected.cache.k": shape, "expected.cache.v": shape}


def run(c, weights, x, prefill):
    d, window, theta = c["head_dim"], c["window"], c["rope_theta"]

    def qkv(part, start):
        q, k, v = (
            project(weights, f"{name}_proj", part).unflatten(-1, (-1, d)) for name in "qkv"
        )
        return (a.transpose(1, 2) for a in (rope(q, start, theta), rope(k, start, theta), v))

    def banded(part, start):
        q, k, v = qkv(part, start)
        mask = causal(part.shape[1], 0) & ~causal(part.shape[1], 0).tril(-window)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return project(weights, "out_proj", o.transpose(1, 2).flatten(2)), k, v

    def step(part, start, ring):
        n = part.shape[1]
        if ring is None:
            # The prompt sees itself; the ring keeps the newest token of each slot.
            y, k, v = banded(part, start)
            size = min(x.shape[1], window)
            ring = tuple(torch.full((*a.shape[:2], size, d), torch.nan).double() for a in (k, v))
            for p in range(n):
                ring[0][:, :, p % window], ring[1][:, :, p % window] = k[:, :, p], v[:, :, p]
            return y, ring
        assert n == 1
        q, k, v = qkv(part, start)
        ring[0][:, :, start % window], ring[1][:, :, start % window] = k[:, :, 0], v[:, :, 0]
        filled = min(start + 1, window)
        k, v = (a[:, :, :filled] for a in ring)
        o = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return project(weights, "out_proj", o.transpose(1, 2).flatten(2)), ring

    parallel = banded(x, 0)[0]
    incremental, ring = decode(step, x, prefill)
    check_peers(mistral(c, weights, x, prefill, parallel, incremental, ring))
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.k": ring[0],
        "expected.cache.v": ring[1],
    }


def mistral(c, weights, x, prefill, parallel, incremental, ring):
    """The same layer in transformers, whose cache has the oldest token first instead of a ring."""
    (b, t, _), d, window = x.shape, c["head_dim"], c["window"]
    config = MistralConfig(
        hidden_size=c["d_model"],
        num_attention_heads=c["n_heads"],
        num_key_value_heads=c["n_kv_heads"],
        head_dim=d,
        num_hidden_layers=1,
        sliding_window=window,
        rope_theta=c["rope_theta"],
        attn_implementation="sdpa",
    )
    renamed = {}
    for name, value in weights.items():
        if name.startswith(("q_proj", "k_proj")):
            value = value.unflatten(0, (-1, d))[:, halves(d)].flatten(0, 1)
        renamed[name.replace("out_proj", "o_proj")] = value
    layer = MistralAttention(config, layer_idx=0)
    if c["bias"]:
        add_biases(layer)
    load(layer.double(), renamed)
    rotary = MistralRotaryEmbedding(config)

    def call(part, start, cache):
        p = torch.arange(start, start + part.shape[1])
        mask = create_sliding_window_causal_mask(config, part, None, p, cache, p[None])
        angles = rotary(part, p[None])
        y, _ = layer(part, angles, mask, past_key_value=cache, cache_position=p)
        return y, cache

    cache = SlidingWindowCache(config, b, max_cache_len=t, dtype=torch.float64)
    peer, cache = decode(call, x, prefill, cache)
    oldest = max(t - window, 0)
    slots = torch.argsort(torch.arange(oldest, t) % window)
    k = cache.key_cache[0][..., torch.argsort(halves(d))]
    return {
        "parallel": difference(call(x, 0, None)[0], parallel),
        "incremental": difference(peer, incremental),
        "cache.k": difference(k[:, :, slots], ring[0]),
        "cache.v": difference(cache.value_cache[0][:, :, slots], ring[1]),
    }
