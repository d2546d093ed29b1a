"""Fixtures of tensor product attention: q, k and v of a token are sums of outer products.

arXiv 2501.06425, the sections 'Tensor Factorization of Queries, Keys, and Values' and 'RoPE
Compatibility and Acceleration'; code by its authors in tensorgi/TPA, model/T6_ropek.py (commit
3034592c) and T6_kvonly_ropek.py (commit 053d9f16, plain queries), class CPLinear: A [H, R] head by
head, B [R, D], q = A B / R. That code has one `rank` for keys and values, and turns halves of a
head by -pos, in bfloat16: RoPE on pairs with the columns of B in another order, odd ones first. Its
decode (T6_infer_ropek.py, commit a139eb9e) has pairs turned by pos, as here. The factored arithmetic
on a cache is that of decode/flashtpa_decode_torch.py (commit 094b7eae).

Here, parallel: q, k and v of each head, RoPE on q and k, torch's attention. Incremental: the cached
factors (B after RoPE, A divided by R), never k or v. Second implementation: transformers'
LlamaAttention, its projections replaced by sums of Kronecker products of A's and B's columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from common import causal, check_paths, check_peers, decode, difference, halves, linear, load
from common import probabilities, project, rope


def product(d_model, n_heads, head_dim, q_factors, k_factors, v_factors, rope_theta=1e4):
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "head_dim": head_dim,
        "q_factors": q_factors,
        "k_factors": k_factors,
        "v_factors": v_factors,
        "rope_theta": rope_theta,
    }


# name: (variant, B, T, prefill, config)
FIXTURES = {
    "tpa-q3-k2-v1": ("tpa", 2, 23, 0, product(40, 4, 12, 3, 2, 1)),
    "tpa-rank1-prefill4": ("tpa", 3, 13, 4, product(36, 3, 8, 1, 1, 1)),
    "tpa-plain-queries-prefill11": ("tpa", 1, 31, 11, product(44, 6, 10, 0, 3, 2)),
    "tpa-q4-k2-v3-theta5e5-prefill-all": ("tpa", 2, 17, 17, product(40, 5, 16, 4, 2, 3, 5e5)),
}


def draw_weights(draw, c):
    w, m, h, d = {}, c["d_model"], c["n_heads"], c["head_dim"]
    for name in "qkv":
        n = c[f"{name}_factors"]
        if n == 0:
            linear(draw, w, f"c_{name}", h * d, m, False)
            continue
        # So that elements of q, k and v have the size that a projection gives them.
        gain = math.sqrt(1.5 * math.sqrt(n))
        linear(draw, w, f"W_A_{name}", h * n, m, False, gain)
        linear(draw, w, f"W_B_{name}", n * d, m, False, gain)
    linear(draw, w, "c_proj", m, h * d, False)
    return w


def expected_shapes(c, b, t):
    width = c["head_dim"] + c["n_heads"]
    return {
        "expected.cache.k": (b, 1, t, c["k_factors"] * width),
        "expected.cache.v": (b, 1, t, c["v_factors"] * width),
    }


def run(c, weights, x, prefill):
    h, d, theta = c["n_heads"], c["head_dim"], c["rope_theta"]

    def factors(name, part):
        """A [B, T, H, R], B [B, T, R, D]."""
        n = c[f"{name}_factors"]
        a = project(weights, f"W_A_{name}", part).unflatten(-1, (h, n))
        return a, project(weights, f"W_B_{name}", part).unflatten(-1, (n, d))

    def whole(name, part):
        """[B, T, H, D]"""
        if c[f"{name}_factors"] == 0:
            return project(weights, f"c_{name}", part).unflatten(-1, (h, d))
        a, b = factors(name, part)
        return a @ b / c[f"{name}_factors"]

    def expanded(part):
        q, k = (rope(whole(name, part), 0, theta) for name in "qk")
        for name, turned in (("q", q), ("k", k)):
            if c[f"{name}_factors"]:
                a, b = factors(name, part)
                late = a @ rope(b, 0, theta) / c[f"{name}_factors"]
                check_paths(f"RoPE on {name} and on its factors", late, turned)
        q, k, v = (a.transpose(1, 2) for a in (q, k, whole("v", part)))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return project(weights, "c_proj", o.transpose(1, 2).flatten(2))

    def entries(name, part, start):
        """[B, T, R, D + H]: of each factor its B, then its A divided by R."""
        a, b = factors(name, part)
        b = rope(b, start, theta) if name == "k" else b
        return torch.cat([b, a.transpose(-1, -2) / c[f"{name}_factors"]], dim=-1)

    def factored(part, start, cache):
        k, v = (entries(name, part, start) for name in "kv")
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)
        (b_k, a_k), (b_v, a_v) = (both.split([d, h], dim=-1) for both in (k, v))
        if c["q_factors"]:
            a_q, b_q = factors("q", part)
            dots = torch.einsum("btqd,bjrd->btjqr", rope(b_q, start, theta), b_k)
            dots = torch.einsum("bthq,btjqr->bhtjr", a_q / c["q_factors"], dots)
        else:
            q = rope(whole("q", part), start, theta)
            dots = torch.einsum("bthd,bjrd->bhtjr", q, b_k)
        scores = torch.einsum("bhtjr,bjrh->bhtj", dots, a_k)
        p = probabilities(scores * d**-0.5, causal(part.shape[1], start))
        p = torch.einsum("bhtj,bjrh->bhtjr", p, a_v)
        o = torch.einsum("bhtjr,bjrd->bthd", p, b_v)
        return project(weights, "c_proj", o.flatten(2)), (k, v)

    parallel = expanded(x)
    incremental, (k, v) = decode(factored, x, prefill)
    peer = llama(c, weights, x, prefill)
    k_of_cache, v_of_cache = (
        torch.einsum("bjrd,bjrh->bhjd", *both.split([d, h], dim=-1)) for both in (k, v)
    )
    check_peers(
        {
            "parallel": difference(peer[0], parallel),
            "incremental": difference(peer[1], incremental),
            "cache.k": difference(peer[2], k_of_cache),
            "cache.v": difference(peer[3], v_of_cache),
        }
    )
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.k": k.flatten(2)[:, None],
        "expected.cache.v": v.flatten(2)[:, None],
    }


class SumOfProducts(nn.Module):
    """x -> [B, T, H D], of which head h is the mean over r of A[h, r] B[r]; columns in `order`."""

    def __init__(self, w_a, w_b, n_heads, n, order):
        super().__init__()
        # [R, H, M] and [R, D, M]
        self.a = w_a.double().unflatten(0, (n_heads, n)).transpose(0, 1)
        self.b = w_b.double().unflatten(0, (n, -1))[:, order]

    def forward(self, x):
        y = 0
        for w_a, w_b in zip(self.a, self.b, strict=True):
            y = y + ((x @ w_a.T)[..., :, None] * (x @ w_b.T)[..., None, :]).flatten(-2)
        return y / len(self.a)


def llama(c, weights, x, prefill):
    h, d = c["n_heads"], c["head_dim"]
    config = LlamaConfig(
        hidden_size=c["d_model"],
        num_attention_heads=h,
        num_key_value_heads=h,
        head_dim=d,
        rope_theta=c["rope_theta"],
        attn_implementation="sdpa",
    )
    layer, loaded = LlamaAttention(config, layer_idx=0).double(), {}
    loaded["o_proj.weight"] = weights["c_proj.weight"]
    for name in "qkv":
        order = torch.arange(d) if name == "v" else halves(d)
        if c[f"{name}_factors"] == 0:
            plain = weights[f"c_{name}.weight"].unflatten(0, (h, d))
            loaded[f"{name}_proj.weight"] = plain[:, order].flatten(0, 1)
            continue
        w_a, w_b = (weights[f"W_{part}_{name}.weight"] for part in "AB")
        n = c[f"{name}_factors"]
        setattr(layer, f"{name}_proj", SumOfProducts(w_a, w_b, h, n, order))
    load(layer, loaded)
    rotary = LlamaRotaryEmbedding(config)

    def call(part, start, cache):
        positions = torch.arange(start, start + part.shape[1])[None]
        angles = rotary(part, positions)
        return layer(part, angles, None, past_key_value=cache)[0], cache

    parallel, _ = call(x, 0, None)
    incremental, cache = decode(call, x, prefill, DynamicCache())
    k, v = cache[0]
    return parallel, incremental, k[..., torch.argsort(halves(d))], v
