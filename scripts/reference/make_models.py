#!/usr/bin/env python3
"""Write the whole-model references: folders that the `mtla` package saves, and beam searches of the paper's decoder.

Below `crates/attn-model/tests/fixtures/`:

- `llama-mtla-*/`: `config.json` and `model.safetensors` by `save_pretrained` of a tiny random `LlamaMTLAForCausalLM`,
  and `expected.safetensors`: `input_ids` [B, T], `expected.logits` [B, T, V], `expected.greedy` [B, N];
- `beam-*.safetensors`: weights, prefixes, logits and hypotheses of `prefix_decoder.py`, format `attn-beam-1`.

    make_models.py              write all
    make_models.py --check      build them again, compare with the stored files
"""

import argparse
import contextlib
import io
import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from make_fixtures import (
    ROOT,
    TOLERANCE_PEERS,
    WORST,
    Draw,
    compare_stored,
    difference,
    heads,
    latent,
    serialize,
    temporal,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prefix_decoder import Decoder, beam_search, draw_decoder, forced_search

with contextlib.redirect_stdout(io.StringIO()):  # the package prints on import
    from mtla import LlamaMTLAConfig, LlamaMTLAForCausalLM

FIXTURES = ROOT / "crates" / "attn-model" / "tests" / "fixtures"
MAX_FOLDER_BYTES = 150_000
MAX_TOTAL_BYTES = 1_500_000
# Smallest difference that may decide a token or a rank; float32 does about 2e-6 to a score.
MIN_MARGIN = 3e-5

# --- saved models ------------------------------------------------------------------

N_GREEDY = 12


def llama(hidden, layers, n_heads, nope, rope, v_dim, rank, q_rank, stride, vocab, inner, **more):
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": n_heads,
        # The port turns int(head_dim * rope / nope) elements, so anything but nope here fails in its first call.
        "head_dim": nope,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": v_dim,
        "kv_lora_rank": rank,
        "q_lora_rank": q_rank,
        "down_rate": stride,
        "vocab_size": vocab,
        "intermediate_size": inner,
        "max_position_embeddings": 64,
    } | more


# name: (B, T, config)
LLAMAS = {
    "llama-mtla-s1": (2, 11, llama(40, 2, 2, 16, 8, 12, 20, 0, 1, 53, 56)),
    "llama-mtla-s2-wide-rope": (3, 9, llama(32, 2, 4, 8, 8, 12, 16, 0, 2, 67, 48, rope_theta=5e5)),
    "llama-mtla-s3-qrank": (2, 13, llama(32, 3, 2, 12, 4, 16, 24, 20, 3, 61, 40, rms_norm_eps=1e-5)),
    "llama-mtla-s4-tied": (1, 18, llama(48, 1, 3, 20, 10, 8, 32, 0, 4, 71, 88, tie_word_embeddings=True)),
}


def random_model(draw, config):
    model = LlamaMTLAForCausalLM(LlamaMTLAConfig(**config)).eval()
    # Its constructor replaces the embedding after the tie was made.
    model.tie_weights()
    for name, weight in sorted(model.named_parameters()):
        if weight.dim() == 1:
            value = draw.normal(*weight.shape, scale=0.3, centre=0.0 if name.endswith("bias") else 1.0)
        else:
            # As in make_fixtures: attention that is far from uniform.
            gain = 1.0 if name == "model.embed_tokens.weight" else 1.5
            value = draw.normal(*weight.shape, scale=gain / weight.shape[-1] ** 0.5)
        weight.data.copy_(value)
    return model


def in_float64(model):
    """The model in float64; transformers has its norms and angles in float32 whatever the dtype."""

    def norm(self, x):
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    def angles(x, position_ids):
        d_r, theta = model.config.qk_rope_head_dim, model.config.rope_theta
        inv_freq = theta ** (-torch.arange(0, d_r, 2, dtype=torch.float64) / d_r)
        halves = (position_ids[..., None].double() * inv_freq).repeat(1, 1, 2)
        return halves.cos(), halves.sin()

    for module in model.double().modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = norm.__get__(module)
    model.model.rotary_emb.forward = angles
    return model


def greedy(model, ids):
    """Tokens by running the whole sequence for each, and the smallest gap to the second choice."""
    margin = float("inf")
    for _ in range(N_GREEDY):
        best = model(ids).logits[:, -1].topk(2)
        margin = min(margin, (best.values[:, 0] - best.values[:, 1]).min().item())
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    return ids[:, -N_GREEDY:], margin


def cached_generation(model, ids, tokens):
    """What comes of the same by `generate` with the package's cache; eos is a token like any other."""
    model.generation_config.eos_token_id = None
    try:
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=N_GREEDY,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    except RuntimeError as error:
        return f"fails ({error})"
    return "agrees" if torch.equal(out[:, ids.shape[1] :], tokens) else "differs"


def build_llama(name):
    b, t, config = LLAMAS[name]
    draw = Draw(name)
    model = random_model(draw, config)
    ids = torch.from_numpy(draw.rng.integers(0, config["vocab_size"], (b, t)))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        files = {f: (Path(folder) / f).read_bytes() for f in ("config.json", "model.safetensors")}
        # What was saved is what is run.
        model = LlamaMTLAForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        untouched = model(ids).logits
        untouched_tokens, _ = greedy(model, ids)
        cached = cached_generation(model, ids, untouched_tokens)
        model = in_float64(model)
        logits = model(ids).logits
        tokens, margin = greedy(model, ids)
    scale = logits.abs().max().item()
    rounding = difference(logits, untouched) / scale
    assert torch.equal(tokens, untouched_tokens), f"{name}: greedy tokens in float32 and float64 differ"
    assert margin > MIN_MARGIN, f"{name}: greedy margin {margin:.1e}"
    assert rounding < TOLERANCE_PEERS, f"{name}: float32 and float64 differ by {rounding:.1e} of the scale"
    # Wrong at s = 1: all tokens go into one slot, and generate's mask does not fit it.
    assert (cached == "agrees") == (config["down_rate"] > 1), f"{name}: cached generation {cached}"
    tensors = {"input_ids": ids, "expected.logits": logits, "expected.greedy": tokens}
    files["expected.safetensors"] = serialize(tensors, {})
    size = sum(map(len, files.values()))
    assert size < MAX_FOLDER_BYTES, f"{name}: {size} bytes"
    print(
        f"{name}: scale {scale:.1f}, greedy margin {margin:.1e}, the package's float32 is off by {rounding:.1e} of it, "
        f"the package's cached generation {cached}"
    )
    return {f"{name}/{file}": data for file, data in files.items()}


# --- beam searches -----------------------------------------------------------------

MODEL = {"decoder": "prefix", "n_layers": 2, "d_ff": 40, "vocab": 23, "eos": 2, "start": 2}
# No multiples of 2 or 3 but the last two: sentences of one batch are at different phases of a block.
PREFIX_LENS = [5, 7, 4, 9]
N_TEACHER = 12
CASES = [
    {"name": f"beam{beam}-lp{penalty}", "beam": beam, "length_penalty": penalty, "max_len": 10, "forced": False}
    for beam in (1, 3, 8, 50)
    for penalty in (1.0, 0.6)
] + [{"name": "forced", "beam": 4, "length_penalty": 1.0, "max_len": 9, "forced": True}]

# name: (variant, salt, config of its attention). Salts were tried from 0 on until every check below held.
BEAMS = {
    "beam-mha": ("mha", 13, heads(24, 3, 3, 8, True)),
    "beam-gqa": ("gqa", 9, heads(24, 4, 2, 6, False)),
    "beam-mqa": ("mqa", 0, heads(32, 4, 1, 8, True)),
    "beam-mla": ("mla", 14, latent(24, 3, 16, 0, 8, 4, 12)),
    "beam-mtla-s2": ("mtla", 22, temporal(2, 32, 4, 16, 12, 8, 4, 6)),
    "beam-mtla-s3": ("mtla", 68, temporal(3, 24, 3, 20, 0, 8, 8, 10)),
}


def run_case(case, decoder, prefixes, memos, margins):
    """Tokens [B, beam, longest], -1 after a hypothesis's end, and scores [B, beam]."""
    c, found = decoder.c, []
    search = forced_search if case["forced"] else beam_search
    for prefix, memo in zip(prefixes, memos):

        def log_probs(tokens):
            if tokens not in memo:
                logits = decoder.logits(prefix, (c["start"], *tokens))[-1]
                memo[tokens] = logits.log_softmax(-1).tolist()
            return memo[tokens]

        sizes = case["beam"], case["length_penalty"], case["max_len"]
        found.append(search(log_probs, c["vocab"], c["eos"], *sizes, margins))
        assert len(found[-1]) == case["beam"]
    longest = max(len(tokens) for sentence in found for _, tokens in sentence)
    tokens = torch.full((len(found), case["beam"], longest), -1)
    for b, sentence in enumerate(found):
        for i, (_, hypothesis) in enumerate(sentence):
            tokens[b, i, : len(hypothesis)] = torch.tensor(hypothesis)
    return tokens, torch.tensor([[score for score, _ in sentence] for sentence in found]).double()


def build_beam(name, salt=None):
    variant, chosen, attention = BEAMS[name]
    salt = chosen if salt is None else salt
    c = attention | MODEL
    draw = Draw(f"{name}/{salt}")
    weights = draw_decoder(draw, variant, c)
    prefixes = [draw.normal(s, c["d_model"]) for s in PREFIX_LENS]
    tokens = torch.from_numpy(draw.rng.integers(0, c["vocab"], (len(prefixes), N_TEACHER)))
    tokens[:, 0] = c["start"]
    padded = torch.zeros(len(prefixes), max(PREFIX_LENS), c["d_model"])
    for row, prefix in zip(padded, prefixes):
        row[: len(prefix)] = prefix
    decoder, margins = Decoder(variant, c, weights), []
    tensors = {"prefix": padded, "prefix_lens": torch.tensor(PREFIX_LENS), "tokens": tokens}
    with torch.no_grad():
        rows = [decoder.logits(p, t.tolist(), check=True) for p, t in zip(prefixes, tokens)]
        tensors["expected.logits"] = torch.stack(rows)
        memos = [{} for _ in prefixes]
        lengths = {}
        for case in CASES:
            found, scores = run_case(case, decoder, prefixes, memos, margins)
            tensors[f"expected.{case['name']}.tokens"] = found
            tensors[f"expected.{case['name']}.scores"] = scores
            lengths[case["name"]] = ends = set((found >= 0).sum(-1).flatten().tolist())
            gap = min(margins, default=math.inf)
            assert gap > MIN_MARGIN, f"salt {salt}, {case['name']}: a decision by {gap:.1e}"
            assert case["forced"] or len(ends) > 2, f"salt {salt}, {case['name']}: lengths {ends}"
    print(f"{name}, salt {salt}: smallest deciding gap {gap:.1e}")
    print("  lengths of hypotheses: " + ", ".join(f"{case} {sorted(of)}" for case, of in lengths.items()))
    tensors |= {f"weights.{k}": v for k, v in weights.items()}
    metadata = {
        "cases": json.dumps(CASES),
        "config": json.dumps(c),
        "format": "attn-beam-1",
        "variant": variant,
    }
    return {f"{name}.safetensors": serialize(tensors, metadata)}


def search_salts():
    """The first salt of each beam file that passes its checks."""
    for name in BEAMS:
        for salt in range(200):
            try:
                build_beam(name, salt)
                break
            except AssertionError as error:
                print(f"  {error}")


# --- commands ------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="compare with the stored files")
    group.add_argument("--salts", action="store_true", help="find salts for BEAMS; writes nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.salts:
        return search_salts()
    files = {}
    for name in LLAMAS:
        files |= build_llama(name)
    for name in BEAMS:
        files |= build_beam(name)
    total = sum(map(len, files.values()))
    assert total < MAX_TOTAL_BYTES, f"{total} bytes in all"
    bad = 0
    for name, data in files.items():
        path = FIXTURES / name
        if args.check:
            same = path.is_file() and same_file(path, data)
            bad += not same
            print(f"{'ok' if same else 'DIFFERS':8} {path.relative_to(ROOT)}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{len(data):8} {path.relative_to(ROOT)}")
    print(f"{len(files)} files, {total} bytes")
    print(f"largest difference to the second implementation of attention: {WORST['peers']:.1e}")
    sys.exit(1 if bad else 0)


def same_file(path, data):
    return path.read_bytes() == data if path.suffix == ".json" else compare_stored(path, data)


if __name__ == "__main__":
    main()
