"""Whole layers in plain PyTorch around an attention of your choice: what a peer's operation costs in its place.

Functions over a dict of tensors (`operands.py`) and not modules: `torch.compile` then takes the weights as
inputs, and copies of a layer share one compilation. In float64 they are the reference of layers in lower
precision.
"""

import torch
from torch.nn.functional import layer_norm, linear


def wide(dtype):
    return torch.promote_types(dtype, torch.float32)


def project(o, name, x):
    return linear(x, o[f"{name}.weight"], o.get(f"{name}.bias"))


def turned(x, cos, sin):
    """RoPE on pairs (2i, 2i + 1) of the last axis; cos and sin broadcast against the axes before it."""
    even, odd = x.to(wide(x.dtype)).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


def grouped(case, attention):
    """MHA, GQA and MQA. `attention(q, k, v)` over `[B, H, T, D]`."""

    def heads(x, n):
        return x.unflatten(-1, (n, -1)).transpose(1, 2)  # [B, T, n D] -> [B, n, T, D]

    def run(o):
        x, cos, sin = o["x"], o["cos"], o["sin"]
        q = turned(heads(project(o, "wq", x), case.n_heads), cos, sin)
        k = turned(heads(project(o, "wk", x), case.n_kv_heads), cos, sin)
        v = heads(project(o, "wv", x), case.n_kv_heads)
        # The newest entries are the last: of a step one, of a prompt all.
        o["k"][:, :, -x.shape[1] :] = k
        o["v"][:, :, -x.shape[1] :] = v
        y = attention(q, o["k"], o["v"])
        return project(o, "wo", y.transpose(1, 2).flatten(2))

    return run


def queries_and_latents(case, o):
    """Queries `[B, T, H, Dn + Dr]` and normalised latents `[B, T, r]` with their rotary keys `[B, T, Dr]`."""
    x, cos, sin = o["x"], o["cos"], o["sin"]
    nope = case.score_dim - case.rope
    q_nope, q_rope = project(o, "wq", x).unflatten(-1, (case.n_heads, -1)).split([nope, case.rope], dim=-1)
    latent, k_rope = project(o, "wkv_a", x).split([case.rank, case.rope], dim=-1)
    latent = layer_norm(latent, (case.rank,), o["kv_norm.weight"], o["kv_norm.bias"])
    return q_nope, turned(q_rope, cos[:, None], sin[:, None]), latent, turned(k_rope, cos, sin)


def latent_step(case, attention):
    """A step of MLA and MTLA, absorbed. `attention(q [B, H, r + Dr], cache [B, N, r + Dr]) -> [B, H, r]`."""

    def run(o):
        q_nope, q_rope, latent, k_rope = queries_and_latents(case, o)
        if case.variant == "mtla":
            c = latent[:, 0].to(o["sum"].dtype)
            weight = torch.sigmoid(c @ o["u"][0] + o["b"][0])
            c = o["sum"] + weight[:, None] * c
            # Not in place: a step that is run again must find the sum it began with.
            o["sum_out"].copy_(c)
            latent = c[:, None].to(latent.dtype)
        o["cache"][:, -1:, : case.rank] = latent
        o["cache"][:, -1:, case.rank :] = k_rope
        up = o["wkv_b.weight"].unflatten(0, (case.n_heads, -1))  # [H, Dn + Dv, r]
        nope = case.score_dim - case.rope
        q = torch.einsum("bhd,hdr->bhr", q_nope[:, 0], up[:, :nope])
        y = attention(torch.cat([q, q_rope[:, 0]], dim=-1), o["cache"])
        y = torch.einsum("bhr,hdr->bhd", y, up[:, nope:])
        return project(o, "wo", y.flatten(1))[:, None]

    return run


def latent_prompt(case, attention):
    """A prompt of MLA and MTLA, decompressed. `attention(q, k, v)` over `[B, H, T, D]` is MTLA's."""

    def run(o):
        q_nope, q_rope, latent, k_rope = queries_and_latents(case, o)
        s, (b, t, r) = case.stride, latent.shape
        if case.variant == "mtla":
            c = latent.to(o["u"].dtype).view(b, t // s, s, r)
            weight = torch.sigmoid((c * o["u"][:, None]).sum(-1) + o["b"][:, None])
            latent = (weight[..., None] * c).cumsum(2).view(b, t, r).to(latent.dtype)
        o["cache"][..., :r] = latent[:, s - 1 :: s]
        o["cache"][..., r:] = k_rope[:, s - 1 :: s]
        both = linear(latent, o["wkv_b.weight"]).unflatten(-1, (case.n_heads, -1))
        k_nope, v = both.split([case.score_dim - case.rope, case.v_dim], dim=-1)
        k = torch.cat([k_nope, k_rope[:, :, None].expand(-1, -1, case.n_heads, -1)], dim=-1)
        q = torch.cat([q_nope, q_rope], dim=-1)
        y = attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return project(o, "wo", y.transpose(1, 2).flatten(2))

    return run


def layer(case, attention):
    if not case.rank:
        return grouped(case, attention)
    return (latent_step if case.workload == "decode" else latent_prompt)(case, attention)
