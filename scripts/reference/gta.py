"""Fixtures of grouped-tied attention: one state a KV head is value and, in part, key.

arXiv 2505.21487, the section 'Grouped-Tied Attention (GTA)'; code by its authors in
Dao-AILab/grouped-latent-attention, commit d008e74c, modeling_llama_GTA.py, class LlamaFlashGTA:
the first D - Dr columns of the tied state are the key's, a projection of its own gives one rope
key for all heads, and the last Dr columns of each query are turned; scale D^-1/2. That code needs
FlashAttention 3. It has RoPE by rotate-half, and a bias on W_rope_k whatever `attention_bias` says.

Here, parallel: each query head has its own keys and values, by torch's attention. Incremental: the
cached states as they are, a group of queries at a time. Second implementation: transformers'
DeepseekV3Attention, since GTA is MLA without a norm, with the tied states of all heads as the
latent and a `wkv_b` of zeros and ones that picks a head's columns.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common import causal, check_peers, decode, difference, linear, probabilities, project, rope
from deepseek import deepseek_layer, deepseek_paths


def tied(d_model, n_heads, n_kv_heads, head_dim, rope_dim, bias=False, rope_theta=1e4):
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "head_dim": head_dim,
        "n_kv_heads": n_kv_heads,
        "rope_dim": rope_dim,
        "bias": bias,
        "rope_theta": rope_theta,
    }


# name: (variant, B, T, prefill, config)
FIXTURES = {
    "gta-narrow-rope": ("gta", 2, 23, 0, tied(40, 6, 2, 12, 4)),
    "gta-half-bias-prefill9": ("gta", 1, 31, 9, tied(48, 4, 2, 16, 8, True)),
    "gta-one-head-theta5e5-prefill-all": ("gta", 3, 13, 13, tied(36, 3, 1, 10, 6, False, 5e5)),
    "gta-ungrouped-bias-prefill6": ("gta", 2, 17, 6, tied(36, 3, 3, 8, 2, True)),
}


def draw_weights(draw, c):
    w, m, h, d, bias = {}, c["d_model"], c["n_heads"], c["head_dim"], c["bias"]
    linear(draw, w, "q_proj", h * d, m, bias)
    linear(draw, w, "kv_proj", c["n_kv_heads"] * d, m, bias)
    linear(draw, w, "W_rope_k", c["rope_dim"], m, bias)
    linear(draw, w, "o_proj", m, h * d, bias)
    return w


def expected_shapes(c, b, t):
    return {
        "expected.cache.k": (b, c["n_kv_heads"], t, c["head_dim"]),
        "expected.cache.tail": (b, 1, t, c["rope_dim"]),
    }


def run(c, weights, x, prefill):
    d, d_r, theta = c["head_dim"], c["rope_dim"], c["rope_theta"]
    d_n, group = d - d_r, c["n_heads"] // c["n_kv_heads"]

    def states(part, start):
        """Queries in two parts [B, T, H, .], tied states [B, T, Hkv, D], rope keys [B, T, Dr]."""
        q = project(weights, "q_proj", part).unflatten(-1, (-1, d))
        kv = project(weights, "kv_proj", part).unflatten(-1, (-1, d))
        key = rope(project(weights, "W_rope_k", part), start, theta)
        return q[..., :d_n], rope(q[..., d_n:], start, theta), kv, key

    def expanded(part):
        q_n, q_r, kv, key = states(part, 0)
        q = torch.cat([q_n, q_r], dim=-1).transpose(1, 2)
        v = kv.repeat_interleave(group, dim=2).transpose(1, 2)
        key = key[:, None].expand(-1, c["n_heads"], -1, -1)
        k = torch.cat([v[..., :d_n], key], dim=-1)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return project(weights, "o_proj", o.transpose(1, 2).flatten(2))

    def grouped(part, start, cache):
        q_n, q_r, kv, key = states(part, start)
        if cache is not None:
            kv, key = torch.cat([cache[0], kv], dim=1), torch.cat([cache[1], key], dim=1)
        q_n, q_r = (q.unflatten(2, (-1, group)) for q in (q_n, q_r))
        scores = torch.einsum("btkgd,bjkd->bkgtj", q_n, kv[..., :d_n])
        scores = scores + torch.einsum("btkgd,bjd->bkgtj", q_r, key)
        p = probabilities(scores * d**-0.5, causal(part.shape[1], start))
        o = torch.einsum("bkgtj,bjkd->btkgd", p, kv).flatten(2)
        return project(weights, "o_proj", o), (kv, key)

    parallel = expanded(x)
    incremental, (kv, key) = decode(grouped, x, prefill)
    peer = deepseek(c, weights, x, prefill)
    check_peers(
        {
            "parallel": difference(peer[0], parallel),
            "incremental": difference(peer[1], incremental),
            "cache.k": difference(peer[2], kv.flatten(2)),
            "cache.tail": difference(peer[3], key),
        }
    )
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.k": kv.transpose(1, 2),
        "expected.cache.tail": key[:, None],
    }


def deepseek(c, weights, x, prefill):
    h, h_kv, d, d_n = c["n_heads"], c["n_kv_heads"], c["head_dim"], c["head_dim"] - c["rope_dim"]
    latent = c | {"kv_rank": h_kv * d, "q_rank": 0, "nope_dim": d_n, "v_dim": d}
    columns = torch.eye(h_kv * d).view(h_kv, d, h_kv * d)
    rows = []
    for head in range(h):
        own = columns[head // (h // h_kv)]
        rows += [own[:d_n], own]
    renamed = {"wkv_b.weight": torch.cat(rows)}
    if c["bias"]:
        renamed["wkv_b.bias"] = torch.zeros(h * (d_n + d))
    for part in ["weight", "bias"] if c["bias"] else ["weight"]:
        renamed[f"wq.{part}"] = weights[f"q_proj.{part}"]
        both = [weights[f"{name}.{part}"] for name in ("kv_proj", "W_rope_k")]
        renamed[f"wkv_a.{part}"] = torch.cat(both)
        renamed[f"wo.{part}"] = weights[f"o_proj.{part}"]
    layer, call = deepseek_layer(latent, renamed, kv_norm=nn.Identity())
    return deepseek_paths(latent, layer, call, x, prefill)
