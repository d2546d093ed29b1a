"""Fixtures of grouped latent attention: MLA with its latent in parts, one for a group of heads.

arXiv 2505.21487, the section 'Grouped Latent Attention (GLA)'; code by its authors in
Dao-AILab/grouped-latent-attention, commit d008e74c, modeling_llama_GLA.py, class LlamaFlashGLA:
two latent heads with a norm (RMSNorm) and a decompression each, heads in order, one rope key for
all, scale (Dn + Dr)^-1/2. That code needs FlashAttention 3. It has biases on `wkv_b` too, and its
cache has latents before the norm and rope keys before RoPE, which it then turns by the newest
token's angle: only its path without a cache says what GLA is.

Here, parallel: latents decompressed to keys and values of each head, by torch's attention.
Incremental: absorbed, the decompression goes into queries and outputs, so that only the cached
latents are read. Second implementation: transformers' DeepseekV3Attention, since GLA is MLA with a
`wkv_b` that is zero outside a head's own part of the latent, and a norm for each part.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common import causal, check_peers, decode, difference, linear, norm, probabilities, project
from common import rope
from deepseek import deepseek_layer, deepseek_paths, norm_module


def grouped(d_model, n_heads, n_kv_heads, kv_rank, q_rank, nope_dim, rope_dim, v_dim, kind, **more):
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "kv_rank": kv_rank,
        "q_rank": q_rank,
        "nope_dim": nope_dim,
        "rope_dim": rope_dim,
        "v_dim": v_dim,
        "bias": False,
        "rope_theta": 1e4,
        "norm_eps": 1e-5,
        "norm": kind,
    } | more


# name: (variant, B, T, prefill, config)
FIXTURES = {
    "gla-one-head": ("gla", 2, 13, 0, grouped(40, 3, 1, 20, 0, 8, 4, 12, "layer")),
    "gla-layer-qrank-bias-prefill7": (
        "gla", 1, 23, 7, grouped(44, 4, 2, 24, 16, 8, 8, 8, "layer", bias=True),
    ),
    "gla-rms-prefill9": ("gla", 2, 19, 9, grouped(40, 6, 3, 30, 0, 12, 4, 8, "rms")),
    "gla-rms-qrank-bias-theta5e5": (
        "gla", 3, 13, 0,
        grouped(36, 4, 4, 24, 14, 8, 6, 16, "rms", bias=True, rope_theta=5e5, norm_eps=1e-2),
    ),
}


def draw_weights(draw, c):
    w, m, h, r, bias, kind = {}, c["d_model"], c["n_heads"], c["kv_rank"], c["bias"], c["norm"]
    d_qk = c["nope_dim"] + c["rope_dim"]
    if c["q_rank"] == 0:
        linear(draw, w, "wq", h * d_qk, m, bias)
    else:
        linear(draw, w, "wq_a", c["q_rank"], m, bias)
        norm(draw, w, "q_norm", c["q_rank"], kind)
        linear(draw, w, "wq_b", h * d_qk, c["q_rank"], bias)
    linear(draw, w, "wkv_a", r + c["rope_dim"], m, bias)
    norm(draw, w, "kv_norm", r, kind)
    # Latent heads of different sizes, so that one norm over all of them is not the same.
    size = torch.linspace(0.5, 2.0, c["n_kv_heads"]).repeat_interleave(r // c["n_kv_heads"])
    w["wkv_a.weight"][:r] *= size[:, None]
    linear(draw, w, "wkv_b", h * (c["nope_dim"] + c["v_dim"]), r // c["n_kv_heads"], False)
    linear(draw, w, "wo", m, h * c["v_dim"], bias)
    return w


def expected_shapes(c, b, t):
    return {
        "expected.cache.k": (b, c["n_kv_heads"], t, c["kv_rank"] // c["n_kv_heads"]),
        "expected.cache.tail": (b, 1, t, c["rope_dim"]),
    }


def normalise(c, weights, name, x, parts=1):
    """LayerNorm (biased variance) or RMSNorm of each part by itself. [..., size]"""
    x = x.unflatten(-1, (parts, -1))
    if c["norm"] == "layer":
        x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["norm_eps"])
    x = x.flatten(-2) * weights[f"{name}.weight"].double()
    return x + weights[f"{name}.bias"].double() if c["norm"] == "layer" else x


def run(c, weights, x, prefill):
    h, h_c, r = c["n_heads"], c["n_kv_heads"], c["kv_rank"]
    d_n, d_r, d_v, theta = c["nope_dim"], c["rope_dim"], c["v_dim"], c["rope_theta"]
    scale = (d_n + d_r) ** -0.5
    # Rows per head: Dn of the key, then Dv of the value. [Hc, H / Hc, Dn or Dv, r / Hc]
    up = weights["wkv_b.weight"].double().view(h_c, h // h_c, d_n + d_v, r // h_c)
    up_k, up_v = up[:, :, :d_n], up[:, :, d_n:]

    def states(part, start):
        """Queries [B, T, Hc, H / Hc, Dn and Dr], latents [B, T, Hc, r / Hc], rope keys [B, T, Dr]."""
        if c["q_rank"]:
            low = normalise(c, weights, "q_norm", project(weights, "wq_a", part))
            q = project(weights, "wq_b", low)
        else:
            q = project(weights, "wq", part)
        q = q.unflatten(-1, (h_c, h // h_c, d_n + d_r))
        q_r = rope(q[..., d_n:], start, theta)
        both = project(weights, "wkv_a", part)
        latents = normalise(c, weights, "kv_norm", both[..., :r], h_c).unflatten(-1, (h_c, -1))
        return q[..., :d_n], q_r, latents, rope(both[..., r:], start, theta)

    def decompressed(part):
        q_n, q_r, latents, key = states(part, 0)
        q = torch.cat([q_n, q_r], dim=-1).flatten(2, 3).transpose(1, 2)
        k = torch.einsum("btcr,cgdr->bcgtd", latents, up_k).flatten(1, 2)
        v = torch.einsum("btcr,cgdr->bcgtd", latents, up_v).flatten(1, 2)
        k = torch.cat([k, key[:, None].expand(-1, h, -1, -1)], dim=-1)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return project(weights, "wo", o.transpose(1, 2).flatten(2))

    def absorbed(part, start, cache):
        q_n, q_r, latents, key = states(part, start)
        if cache is not None:
            latents = torch.cat([cache[0], latents], dim=1)
            key = torch.cat([cache[1], key], dim=1)
        q_c = torch.einsum("btcgd,cgdr->btcgr", q_n, up_k)
        scores = torch.einsum("btcgr,bjcr->bcgtj", q_c, latents)
        scores = scores + torch.einsum("btcgd,bjd->bcgtj", q_r, key)
        p = probabilities(scores * scale, causal(part.shape[1], start))
        o = torch.einsum("bcgtj,bjcr->btcgr", p, latents)
        o = torch.einsum("btcgr,cgdr->btcgd", o, up_v)
        return project(weights, "wo", o.flatten(2)), (latents, key)

    parallel = decompressed(x)
    incremental, (latents, key) = decode(absorbed, x, prefill)
    peer = deepseek(c, weights, x, prefill)
    check_peers(
        {
            "parallel": difference(peer[0], parallel),
            "incremental": difference(peer[1], incremental),
            "cache.k": difference(peer[2], latents.flatten(2)),
            "cache.tail": difference(peer[3], key),
        }
    )
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.k": latents.transpose(1, 2),
        "expected.cache.tail": key[:, None],
    }


class NormOfEach(nn.ModuleList):
    """A norm for each latent head."""

    def forward(self, x):
        parts = x.chunk(len(self), dim=-1)
        return torch.cat([norm(part) for norm, part in zip(self, parts, strict=True)], dim=-1)


def deepseek(c, weights, x, prefill):
    h, h_c, r = c["n_heads"], c["n_kv_heads"], c["kv_rank"]
    renamed = {k: v for k, v in weights.items() if not k.startswith(("kv_norm.", "wkv_b."))}
    for name in (name for name in weights if name.startswith("kv_norm.")):
        for i, part in enumerate(weights[name].chunk(h_c)):
            renamed[name.replace("kv_norm.", f"kv_norm.{i}.")] = part
    blocks = weights["wkv_b.weight"].chunk(h)
    wide = []
    for head, block in enumerate(blocks):
        own = head // (h // h_c)
        wide.append(F.pad(block, (own * r // h_c, (h_c - 1 - own) * r // h_c)))
    renamed["wkv_b.weight"] = torch.cat(wide)
    if c["bias"]:
        renamed["wkv_b.bias"] = torch.zeros(len(renamed["wkv_b.weight"]))
    norms = NormOfEach(norm_module(c, r // h_c) for _ in range(h_c))
    layer, call = deepseek_layer(c, renamed, kv_norm=norms)
    return deepseek_paths(c, layer, call, x, prefill)
