#!/usr/bin/env python3
"""Write the conformance fixtures of the variant crates from published packages.

Each file has the format `attn-conformance-1`: weights, input and expected results
of one attention layer, so nothing random has to match on the Rust side. Expected
values are computed in float64 from float32 weights and stored as float32.

| variant     | `expected.parallel`                       | `expected.incremental`               |
|-------------|-------------------------------------------|--------------------------------------|
| mha gqa mqa | torch scaled_dot_product_attention        | the same over a concatenated cache   |
| mla         | transformers DeepseekV3Attention (*)      | the same with DynamicCache           |
| mtla        | mtla MultiheadTemporalLatentAttention     | the same with incremental_state (**) |
| swa         | swa.py: torch, mask written out           | a ring, overwritten                  |
| gta gla tpa | gta.py, gla.py, tpa.py: torch, expanded   | arithmetic on what is cached         |

(*)  with its RMSNorms replaced by LayerNorm with bias, as MTLA's own MLA baseline has.
(**) for s = 1 the package's decode is wrong (it tests T % s == 1, never true, and adds
     every token into slot 0). There the incremental result is the last row of parallel
     calls on growing prefixes, and the cache is that of one whole-prompt call.

A second implementation must agree before a file is written: transformers' LlamaAttention
(rotate-half, with permuted q and k rows) for mha/gqa/mqa, the mtla package at s = 1 with
unit merge weights for mla, and for mtla the package as it is: the layer used has its RoPE
in float64, see `Float64Rope`. For the others it is transformers' attention of Mistral (swa),
DeepSeek-V3 (gta, gla) and Llama (tpa), with weights or modules that make it the same layer.

    make_fixtures.py                     write all files below crates/
    make_fixtures.py --check             build them again, compare with the stored bytes
    make_fixtures.py --reproduce DIR     recompute someone else's files, print the errors
"""

import argparse
import contextlib
import io
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

with contextlib.redirect_stdout(io.StringIO()):  # the package prints on import
    from mtla import MultiheadTemporalLatentAttention

from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

import gla
import gta
import swa
import tpa
from common import (
    TOLERANCE_PATHS,
    TOLERANCE_PEERS,
    WORST,
    Draw,
    check_paths,
    check_peers,
    difference,
    halves,
    linear,
    load,
    norm,
    rope,
    steps,
)
from deepseek import deepseek_layer, deepseek_paths

ROOT = Path(__file__).resolve().parents[2]
FORMAT = "attn-conformance-1"
MAX_FILE_BYTES = 120_000
MAX_TOTAL_BYTES = 2_400_000


# --- the fixtures -----------------------------------------------------------------


def heads(d_model, n_heads, n_kv_heads, head_dim, bias, rope_theta=1e4):
    config = {"d_model": d_model, "n_heads": n_heads, "head_dim": head_dim}
    if n_kv_heads != n_heads:
        config["n_kv_heads"] = n_kv_heads
    return config | {"bias": bias, "rope_theta": rope_theta}


def latent(d_model, n_heads, kv_rank, q_rank, nope_dim, rope_dim, v_dim, **more):
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "kv_rank": kv_rank,
        "q_rank": q_rank,
        "nope_dim": nope_dim,
        "rope_dim": rope_dim,
        "v_dim": v_dim,
        "bias": False,
        "rope_theta": 1e4,
        "norm_eps": 1e-5,
    } | more


def temporal(stride, *geometry, **more):
    config = latent(*geometry, **more)
    return config | {"stride": stride, "hyper_rank": config["kv_rank"] // 4}


# name: (variant, B, T, prefill, config). The head of a name is its variant.
FIXTURES = {
    "mha-nobias": ("mha", 1, 31, 0, heads(48, 3, 3, 16, False)),
    "mha-bias-narrow-heads": ("mha", 3, 13, 0, heads(48, 3, 3, 8, True)),
    "mha-theta5e5-prefill7": ("mha", 1, 23, 7, heads(40, 2, 2, 32, True, 5e5)),
    "mqa-nobias": ("mqa", 1, 23, 0, heads(48, 3, 1, 24, False)),
    "mqa-bias-prefill11": ("mqa", 3, 13, 11, heads(48, 5, 1, 8, True)),
    "gqa-nobias": ("gqa", 2, 23, 0, heads(48, 6, 2, 8, False)),
    "gqa-bias-prefill5": ("gqa", 1, 31, 5, heads(40, 6, 3, 16, True)),
    "gqa-theta5e5-prefill-all": ("gqa", 3, 13, 13, heads(36, 4, 2, 24, False, 5e5)),
    "mla-wide-values": ("mla", 2, 23, 0, latent(48, 3, 20, 0, 8, 4, 24)),
    "mla-qrank": ("mla", 1, 31, 0, latent(48, 3, 24, 20, 16, 8, 12)),
    "mla-qrank-bias-prefill9": ("mla", 3, 13, 9, latent(40, 5, 16, 12, 8, 8, 12, bias=True)),
    "mla-rope16-theta5e5-prefill6": (
        "mla", 1, 23, 6, latent(40, 3, 28, 0, 24, 16, 8, rope_theta=5e5, norm_eps=1e-2),
    ),
    "mtla-s1": ("mtla", 2, 13, 0, temporal(1, 48, 3, 24, 0, 16, 8, 12)),
    "mtla-s1-prefill5": ("mtla", 1, 23, 5, temporal(1, 48, 3, 16, 0, 8, 4, 16)),
    "mtla-s2": ("mtla", 3, 13, 0, temporal(2, 48, 3, 20, 0, 16, 8, 24)),
    "mtla-s2-prefill8": ("mtla", 1, 31, 8, temporal(2, 48, 3, 16, 0, 8, 4, 12)),
    "mtla-s2-prefill7": ("mtla", 2, 23, 7, temporal(2, 40, 5, 24, 0, 8, 8, 12)),
    "mtla-s2-bias": ("mtla", 1, 13, 4, temporal(2, 48, 3, 24, 16, 16, 8, 12, bias=True)),
    "mtla-s3-prefill8": ("mtla", 2, 23, 8, temporal(3, 48, 3, 24, 0, 16, 8, 16)),
    "mtla-s3-prefill9": ("mtla", 3, 13, 9, temporal(3, 48, 3, 16, 0, 8, 16, 12)),
    "mtla-s3-prefill20": ("mtla", 1, 31, 20, temporal(3, 48, 3, 24, 0, 16, 4, 12)),
    "mtla-s4": ("mtla", 1, 31, 0, temporal(4, 48, 3, 32, 0, 8, 16, 20)),
    "mtla-s4-qrank-prefill6": ("mtla", 2, 23, 6, temporal(4, 48, 3, 24, 20, 16, 8, 12)),
    "mtla-s5-prefill13": ("mtla", 2, 23, 13, temporal(5, 40, 2, 20, 0, 24, 8, 16)),
    "mtla-s7": ("mtla", 1, 31, 0, temporal(7, 48, 3, 24, 0, 8, 8, 16)),
    "mtla-s7-shorter-than-a-block": ("mtla", 2, 5, 3, temporal(7, 48, 3, 16, 0, 16, 4, 12)),
}

# Variants with a module of their own: `FIXTURES`, `draw_weights`, `expected_shapes`, `run`.
MODULES = {"swa": swa, "gta": gta, "gla": gla, "tpa": tpa}
for module in MODULES.values():
    FIXTURES |= module.FIXTURES


# --- random weights ---------------------------------------------------------------


def draw_weights(draw, variant, c):
    if variant in MODULES:
        return MODULES[variant].draw_weights(draw, c)
    w, m, h, bias = {}, c["d_model"], c["n_heads"], c["bias"]
    if variant in ("mha", "gqa", "mqa"):
        d = c["head_dim"]
        h_kv = c.get("n_kv_heads", h)
        linear(draw, w, "q_proj", h * d, m, bias)
        linear(draw, w, "k_proj", h_kv * d, m, bias)
        linear(draw, w, "v_proj", h_kv * d, m, bias)
        linear(draw, w, "out_proj", m, h * d, bias)
        return w
    r, d_qk = c["kv_rank"], c["nope_dim"] + c["rope_dim"]
    if c["q_rank"] == 0:
        linear(draw, w, "wq", h * d_qk, m, bias)
    else:
        linear(draw, w, "wq_a", c["q_rank"], m, bias)
        norm(draw, w, "q_norm", c["q_rank"])
        linear(draw, w, "wq_b", h * d_qk, c["q_rank"], bias)
    linear(draw, w, "wkv_a", r + c["rope_dim"], m, bias)
    norm(draw, w, "kv_norm", r)
    linear(draw, w, "wkv_b", h * (c["nope_dim"] + c["v_dim"]), r, bias)
    if bias:
        # The mtla package creates this bias and never reads it (it uses the absorbed form,
        # with the weight only). Zero is right under either reading.
        w["wkv_b.bias"].zero_()
    linear(draw, w, "wo", m, h * c["v_dim"], bias)
    if variant == "mtla":
        linear(draw, w, "hypernet_down.fc_c", c["hyper_rank"], r, True, gain=1.2)
        linear(draw, w, "hypernet_down.fc_p", c["hyper_rank"], r, True, gain=1.2)
    return w


# --- mha, gqa, mqa: torch ----------------------------------------------------------


class RopeHeads(nn.Module):
    """Projections and RoPE around torch's scaled_dot_product_attention."""

    def __init__(self, c):
        super().__init__()
        self.h, self.d = c["n_heads"], c["head_dim"]
        self.h_kv = c.get("n_kv_heads", self.h)
        self.theta = c["rope_theta"]
        m, bias = c["d_model"], c["bias"]
        self.q_proj = nn.Linear(m, self.h * self.d, bias)
        self.k_proj = nn.Linear(m, self.h_kv * self.d, bias)
        self.v_proj = nn.Linear(m, self.h_kv * self.d, bias)
        self.out_proj = nn.Linear(self.h * self.d, m, bias)
        self.double()

    def rope(self, x, start):
        return rope(x, start, self.theta)

    def forward(self, x, cache=None):
        start = 0 if cache is None else cache[0].shape[2]
        q = self.rope(self.q_proj(x).unflatten(-1, (-1, self.d)), start).transpose(1, 2)
        k = self.rope(self.k_proj(x).unflatten(-1, (-1, self.d)), start).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (-1, self.d)).transpose(1, 2)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0, enable_gqa=True)
        return self.out_proj(o.transpose(1, 2).flatten(2)), (k, v)


def run_heads(c, weights, x, prefill):
    layer = load(RopeHeads(c), weights)
    parallel, _ = layer(x)
    rows, cache = [], None
    for part in steps(x, prefill):
        y, cache = layer(part, cache)
        rows.append(y)
    incremental = torch.cat(rows, dim=1)
    peers = llama_attention(c, weights, x, prefill)
    peers["parallel"] = difference(peers["parallel"], parallel)
    peers["incremental"] = difference(peers["incremental"], incremental)
    peers["cache"] = difference(peers["k"], cache[0])
    check_peers(peers)
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.k": cache[0],
        "expected.cache.v": cache[1],
    }


def llama_attention(c, weights, x, prefill):
    """The same layer in transformers, which pairs element i with i + D/2."""
    h, d = c["n_heads"], c["head_dim"]
    config = LlamaConfig(
        hidden_size=c["d_model"],
        num_attention_heads=h,
        num_key_value_heads=c.get("n_kv_heads", h),
        head_dim=d,
        attention_bias=c["bias"],
        rope_theta=c["rope_theta"],
        attn_implementation="sdpa",
    )
    renamed = {}
    for name, value in weights.items():
        if name.startswith(("q_proj", "k_proj")):
            value = value.unflatten(0, (-1, d))[:, halves(d)].flatten(0, 1)
        renamed[name.replace("out_proj", "o_proj")] = value
    layer = load(LlamaAttention(config, layer_idx=0).double(), renamed)
    rotary = LlamaRotaryEmbedding(config)

    def call(part, start, cache):
        positions = torch.arange(start, start + part.shape[1])[None]
        return layer(part, rotary(part, positions), None, past_key_value=cache)[0]

    parallel = call(x, 0, None)
    cache, rows, start = DynamicCache(), [], 0
    for part in steps(x, prefill):
        rows.append(call(part, start, cache))
        start += part.shape[1]
    k = cache[0][0][..., torch.argsort(halves(d))]
    return {"parallel": parallel, "incremental": torch.cat(rows, dim=1), "k": k}


# --- mla: transformers -------------------------------------------------------------

def run_mla(c, weights, x, prefill):
    layer, call = deepseek_layer(c, weights)
    parallel, incremental, latent_cache, rope = deepseek_paths(c, layer, call, x, prefill)
    if c["rope_theta"] == 1e4:  # fixed in the mtla package
        check_peers(unit_gate_mtla(c, weights, x, parallel, latent_cache, rope))
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.latent": latent_cache,
        "expected.cache.rope": rope,
    }


def unit_gate_layer(c, weights):
    """MTLA with s = 1 and merge weights sigmoid(1000) = 1 is MLA."""
    r = c["kv_rank"]
    gate = {}
    for part in ("fc_c", "fc_p"):
        gate[f"hypernet_down.{part}.weight"] = torch.zeros(r // 4, r)
        gate[f"hypernet_down.{part}.bias"] = torch.full((r // 4,), math.sqrt(1000 / (r // 4)))
    return mtla_layer(c | {"stride": 1}, weights | gate)


def unit_gate_mtla(c, weights, x, parallel, latent_cache, rope):
    layer = unit_gate_layer(c, weights)
    y, state = mtla_prompt(layer, x)
    return {
        "parallel": difference(mtla_parallel(layer, x), parallel),
        "prompt": difference(y, parallel),
        "latent": difference(state["prev_kv_t"], latent_cache),
        "rope": difference(state["prev_k_pe"], rope),
    }


# --- mtla: the package -------------------------------------------------------------


class Float64Rope(MultiheadTemporalLatentAttention):
    """The package's layer, with the same RoPE computed in float64.

    The package rotates in float32 whatever its dtype, and PyTorch's complex product rounds
    differently for one token than for many: its two paths then agree to 1e-7 only.
    """

    def _compute_freqs_cis_batch(self, pos, device):
        d_r = self.qk_rope_head_dim
        inv_freq = 10000.0 ** (-torch.arange(0, d_r, 2, dtype=torch.float64) / d_r)
        angles = torch.einsum("bi,j->bij", pos.double(), inv_freq)
        return torch.polar(torch.ones_like(angles), angles)

    def _apply_rotary_emb_batch(self, x, freqs_cis):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * freqs_cis.unsqueeze(2)).flatten(3)


def mtla_layer(c, weights, module=Float64Rope):
    assert c["rope_theta"] == 1e4, "the package's theta is fixed"
    layer = module(
        embed_dim=c["d_model"],
        num_heads=c["n_heads"],
        bias=c["bias"],
        q_lora_rank=c["q_rank"],
        kv_lora_rank=c["kv_rank"],
        qk_nope_head_dim=c["nope_dim"],
        qk_rope_head_dim=c["rope_dim"],
        v_head_dim=c["v_dim"],
        down_rate=c["stride"],
        # False, the default, leaves the prompt's queries without a causal mask.
        recompute_prompt_attn=True,
    )
    layer.kv_norm.eps = c["norm_eps"]
    if c["q_rank"]:
        layer.q_norm.eps = c["norm_eps"]
    return load(layer.double(), weights)


def mtla_call(layer, x, start, state):
    positions = torch.arange(start, start + x.shape[1], dtype=torch.float32)[None]
    return layer(x, x, x, position=positions, incremental_state=state)


def mtla_parallel(layer, x):
    return mtla_call(layer, x, 0, None)


def mtla_prompt(layer, x):
    """The whole sequence as one prompt: outputs and the resulting cache."""
    state = {}
    y = mtla_call(layer, x, 0, state)
    return y, layer._get_input_buffer(state)


def run_mtla(c, weights, x, prefill):
    layer = mtla_layer(c, weights)
    parallel = mtla_parallel(layer, x)
    prompt, prompt_cache = mtla_prompt(layer, x)
    if c["stride"] == 1:
        incremental = torch.cat(
            [mtla_parallel(layer, x[:, : t + 1])[:, -1:] for t in range(x.shape[1])], dim=1
        )
        cache = prompt_cache
    else:
        state, rows, start = {}, [], 0
        for part in steps(x, prefill):
            rows.append(mtla_call(layer, part, start, state))
            start += part.shape[1]
        incremental = torch.cat(rows, dim=1)
        cache = layer._get_input_buffer(state)
    for name in ("prev_kv_t", "prev_k_pe"):
        error = difference(cache[name], prompt_cache[name])
        assert error < TOLERANCE_PATHS, f"{name} by prompt and by steps differ by {error:.1e}"
    error = difference(prompt, parallel)
    assert error < TOLERANCE_PATHS, f"prompt and parallel differ by {error:.1e}"
    untouched = mtla_layer(c, weights, MultiheadTemporalLatentAttention)
    y, state = mtla_prompt(untouched, x)
    check_peers(
        {
            "parallel": difference(mtla_parallel(untouched, x), parallel),
            "prompt": difference(y, parallel),
            "latent": difference(state["prev_kv_t"], cache["prev_kv_t"]),
            "rope": difference(state["prev_k_pe"], cache["prev_k_pe"]),
        }
    )
    return {
        "expected.parallel": parallel,
        "expected.incremental": incremental,
        "expected.cache.latent": cache["prev_kv_t"],
        "expected.cache.rope": cache["prev_k_pe"],
    }


# --- one fixture -------------------------------------------------------------------


def compute(variant, config, weights, x, prefill):
    run = {"mla": run_mla, "mtla": run_mtla}.get(variant, run_heads)
    if variant in MODULES:
        run = MODULES[variant].run
    x = x.double()
    with torch.no_grad():
        expected = run(config, weights, x, prefill)
        if variant == "gla" and config["n_kv_heads"] == 1 and config["norm"] == "layer":
            check_one_latent_head(config, weights, x, prefill, expected)
    check_paths(
        "parallel and incremental", expected["expected.parallel"], expected["expected.incremental"]
    )
    return expected


def check_one_latent_head(config, weights, x, prefill, expected):
    """GLA with one latent head is MLA, cache and all."""
    mla = run_mla(config, weights, x, prefill)
    pairs = {
        "parallel": "parallel",
        "incremental": "incremental",
        "cache.latent": "cache.k",
        "cache.rope": "cache.tail",
    }
    errors = {}
    for name, own in pairs.items():
        want = mla[f"expected.{name}"]
        errors[name] = difference(want, expected[f"expected.{own}"].view_as(want))
    check_peers(errors)


def expected_shapes(variant, config, b, t):
    m = config["d_model"]
    shapes = {"expected.parallel": (b, t, m), "expected.incremental": (b, t, m)}
    if variant in MODULES:
        return shapes | MODULES[variant].expected_shapes(config, b, t)
    if variant in ("mla", "mtla"):
        slots = math.ceil(t / config.get("stride", 1))
        shapes["expected.cache.latent"] = (b, slots, config["kv_rank"])
        shapes["expected.cache.rope"] = (b, slots, config["rope_dim"])
    else:
        h_kv = config.get("n_kv_heads", config["n_heads"])
        shapes["expected.cache.k"] = shapes["expected.cache.v"] = (b, h_kv, t, config["head_dim"])
    return shapes


def build(name):
    variant, b, t, prefill, config = FIXTURES[name]
    draw = Draw(name)
    weights = draw_weights(draw, variant, config)
    x = draw.normal(b, t, config["d_model"])
    expected = compute(variant, config, weights, x, prefill)
    shapes = {k: tuple(v.shape) for k, v in expected.items()}
    assert shapes == expected_shapes(variant, config, b, t), shapes
    tensors = {"input": x} | expected | {f"weights.{k}": v for k, v in weights.items()}
    metadata = {
        "config": json.dumps(config),
        "format": FORMAT,
        "prefill": str(prefill),
        "variant": variant,
    }
    return variant, serialize(tensors, metadata)


def serialize(tensors, metadata):
    """safetensors bytes with a sorted header: the library's own order is not fixed.

    Integers as I64, all else as F32.
    """
    header, body = {"__metadata__": metadata}, b""
    # Eight-byte elements first, so that all lie aligned.
    for name in sorted(tensors, key=lambda name: (tensors[name].is_floating_point(), name)):
        whole = not tensors[name].is_floating_point()
        dtype = torch.int64 if whole else torch.float32
        data = tensors[name].detach().to(dtype).contiguous().numpy()
        assert np.isfinite(data).all(), name
        start = len(body)
        body += data.astype("<i8" if whole else "<f4").tobytes()
        header[name] = {
            "dtype": "I64" if whole else "F32",
            "shape": list(data.shape),
            "data_offsets": [start, len(body)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def fixture_path(name, variant):
    return ROOT / "crates" / f"attn-{variant}" / "tests" / "fixtures" / f"{name}.safetensors"


# --- commands ----------------------------------------------------------------------


def write_all(check):
    # All are built before the first is written: a failed check leaves the files alone.
    files = {}
    for name in FIXTURES:
        variant, data = build(name)
        files[fixture_path(name, variant)] = data
        assert len(data) < MAX_FILE_BYTES, f"{name}: {len(data)} bytes"
    total = sum(map(len, files.values()))
    assert total < MAX_TOTAL_BYTES, f"{total} bytes in all"
    bad = 0
    for path, data in files.items():
        if check:
            same = path.is_file() and compare_stored(path, data)
            bad += not same
            print(f"{'ok' if same else 'DIFFERS':8} {path.relative_to(ROOT)}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{len(data):8} {path.relative_to(ROOT)}")
    print(f"{len(files)} files, {total} bytes")
    print(f"largest parallel - incremental difference: {WORST['paths']:.1e}")
    print(f"largest difference to the second implementation: {WORST['peers']:.1e}")
    return bad


def compare_stored(path, data):
    """Same bytes, or, on another CPU or torch, the same names and values within rounding."""
    stored = path.read_bytes()
    if stored == data:
        return True
    new = path.with_suffix(".check.tmp")
    try:
        new.write_bytes(data)
        with safe_open(path, "pt") as a, safe_open(new, "pt") as b:
            if a.metadata() != b.metadata() or set(a.keys()) != set(b.keys()):
                return False
            return all(
                a.get_tensor(k).shape == b.get_tensor(k).shape
                and difference(a.get_tensor(k), b.get_tensor(k)) < TOLERANCE_PEERS
                for k in a.keys()
            )
    finally:
        new.unlink(missing_ok=True)


def reproduce(folder):
    """Recomputes each conformance file below `folder`; prints the largest error per tensor."""
    bad = 0
    for path in sorted(Path(folder).rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                continue
            tensors = {k: file.get_tensor(k) for k in file.keys()}
        weights = {
            k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")
        }
        expected = compute(
            metadata["variant"],
            json.loads(metadata["config"]),
            weights,
            tensors["input"],
            int(metadata["prefill"]),
        )
        errors = {k: difference(v, tensors[k]) for k, v in expected.items()}
        scale = tensors["expected.parallel"].abs().max().item()
        bad += max(errors.values()) > 1e-5 * max(scale, 1.0)
        print(path.name, f"(output scale {scale:.2f})")
        for key, error in errors.items():
            print(f"  {error:.1e}  {key}")
    for config in sorted(Path(folder).rglob("config.json")):
        bad += reproduce_model(config.parent)
    return bad


def reproduce_model(folder):
    """A saved LlamaMTLAForCausalLM: its logits, in float32, and its greedy tokens."""
    from mtla import LlamaMTLAForCausalLM

    model = LlamaMTLAForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with safe_open(folder / "expected.safetensors", "pt") as file:
        stored = {k: file.get_tensor(k) for k in file.keys()}
    ids = stored["input_ids"]
    n_new = stored["expected.greedy"].shape[1]
    with torch.no_grad():
        logits = model(ids).logits
        for _ in range(n_new):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    error = difference(logits, stored["expected.logits"])
    greedy = torch.equal(ids[:, -n_new:], stored["expected.greedy"])
    print(folder.name)
    print(f"  {error:.1e}  expected.logits")
    print(f"  {'same' if greedy else 'DIFFERS'}  expected.greedy")
    return error > 1e-5 or not greedy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="compare with the stored files")
    group.add_argument("--reproduce", metavar="DIR", help="recompute the files below DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad = reproduce(args.reproduce) if args.reproduce else write_all(args.check)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
