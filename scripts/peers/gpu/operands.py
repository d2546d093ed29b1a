"""Operands of a case, the same for every peer of it: seeded, random, of the size the plan says."""

import math

import torch

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def build(case, device):
    """`{name: tensor}`; what a scope needs, and no more."""
    generator = torch.Generator(device=device).manual_seed(42)
    dtype = DTYPES[case.dtype]

    def random(*shape, std=1.0):
        # In place and in pieces of one dtype: a normal in f32 of the largest caches would not fit beside them.
        return torch.empty(shape, dtype=dtype, device=device).normal_(std=std, generator=generator)

    b, h, t = case.batch, case.n_heads, case.length
    if case.scope == "op" and case.workload == "prefill":
        return {
            "q": random(b, h, t, case.score_dim),
            "k": random(b, case.n_kv_heads, t, case.score_dim),
            "v": random(b, case.n_kv_heads, t, case.v_dim),
        }
    cache = {}
    if case.rank:
        cache["cache"] = random(b, case.slots, case.rank + case.rope)
    else:
        cache["k"] = random(b, case.n_kv_heads, case.slots, case.score_dim)
        cache["v"] = random(b, case.n_kv_heads, case.slots, case.v_dim)
    if case.scope == "op":
        q = random(b, h, case.rank + case.rope) if case.rank else random(b, h, 1, case.score_dim)
        return {"q": q, **cache}
    # Caches of a prompt are written, those of a step read and then written at one slot.
    x = random(b, 1 if case.workload == "decode" else t, case.d_model)
    out = {"x": x, **cache, **weights(case, random)}
    return out | state(case, out, device, random)


def weights(case, random):
    """Named as in the package mtla, so that its layer can be given the same."""
    m, h, r = case.d_model, case.n_heads, case.rank
    sizes = {"wq": (h * case.score_dim, m), "wo": (m, h * case.v_dim)}
    if r:
        nope = case.score_dim - case.rope
        sizes |= {"wkv_a": (r + case.rope, m), "wkv_b": (h * (nope + case.v_dim), r)}
    else:
        sizes |= {"wk": (case.n_kv_heads * case.score_dim, m), "wv": (case.n_kv_heads * case.v_dim, m)}
    out = {}
    for name, (rows, columns) in sizes.items():
        out[f"{name}.weight"] = random(rows, columns, std=1 / math.sqrt(columns))
        if case.bias:
            out[f"{name}.bias"] = random(rows, std=0.1)
    if r:
        out |= {"kv_norm.weight": 1 + random(r, std=0.1), "kv_norm.bias": random(r, std=0.1)}
    if case.variant == "mtla":
        for name in ("hypernet_down.fc_c", "hypernet_down.fc_p"):
            out[f"{name}.weight"] = random(r // 4, r, std=1 / math.sqrt(r))
            out[f"{name}.bias"] = random(r // 4, std=0.1)
    return out


def state(case, weights, device, random):
    """Rotary tables of the positions at hand; for MTLA the gate's, and the f32 sum of the open slot."""
    step = case.workload == "decode"
    positions = range(case.length - 1 if step else 0, case.length)
    out = dict(zip(("cos", "sin"), rope_table(positions, case.rope, device)))
    if case.variant == "mtla":
        blocks = range(positions[0] // case.stride, case.slots)
        out["u"], out["b"] = gate_tables(weights, blocks, case.rank, device)
        if step:
            opens = (case.length - 1) % case.stride == 0
            out["sum"] = random(case.batch, case.rank).float() * (0.0 if opens else 0.5)
            out["sum_out"] = torch.empty_like(out["sum"])
    return out


def angles(positions, width):
    """`[T, width / 2]` at theta 10000."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.tensor(positions, dtype=torch.float64)[:, None] * frequencies


def rope_table(positions, width, device):
    """Cosines and sines `[T, width / 2]`, of pairs (2i, 2i + 1)."""
    turns = angles(positions, width)
    return turns.cos().float().to(device), turns.sin().float().to(device)


def gate_tables(weights, blocks, rank, device):
    """Fact A: the weight of token i in block j is sigmoid(c_i . u[j] + b[j]). u `[n, r]`, b `[n]`."""
    names = ("fc_c.weight", "fc_c.bias", "fc_p.weight", "fc_p.bias")
    c_weight, c_bias, p_weight, p_bias = (weights[f"hypernet_down.{name}"].double() for name in names)
    turns = angles(blocks, rank).to(device)
    pe = torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(
        1
    )  # sine and cosine in turns, as the package has it
    rows = pe @ c_weight.T + c_bias
    return (rows @ p_weight).float(), (rows @ p_bias).float()
