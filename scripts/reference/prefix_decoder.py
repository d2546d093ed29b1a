"""The paper's decoder and beam search, written plainly: float64, no caches, no batches.

Each hypothesis is scored by running the whole decoder over [prefix; its tokens] in one causal call. Attention is that of
`make_fixtures.py`: torch, transformers and the `mtla` package.
"""

import math

import torch
import torch.nn.functional as F
from make_fixtures import (
    TOLERANCE_PATHS,
    Float64Rope,
    MultiheadTemporalLatentAttention,
    RopeHeads,
    check_peers,
    deepseek_layer,
    difference,
    draw_weights,
    linear,
    llama_attention,
    load,
    mtla_layer,
    norm,
    unit_gate_layer,
)

# --- the decoder ---------------------------------------------------------------------


def draw_decoder(draw, variant, c):
    """All weights, under the names of the seed's fairseq modules."""
    w, m = {}, c["d_model"]
    w["embed_tokens.weight"] = draw.normal(c["vocab"], m, scale=1 / math.sqrt(m))
    for i in range(c["n_layers"]):
        layer = {f"self_attn.{k}": v for k, v in draw_weights(draw, variant, c).items()}
        norm(draw, layer, "self_attn_layer_norm", m)
        linear(draw, layer, "fc1", c["d_ff"], m, True)
        linear(draw, layer, "fc2", m, c["d_ff"], True)
        norm(draw, layer, "final_layer_norm", m)
        w |= {f"layers.{i}.{k}": v for k, v in layer.items()}
    norm(draw, w, "layer_norm", m)
    # Far from uniform: hypotheses differ clearly.
    linear(draw, w, "output_projection", c["vocab"], m, False, gain=2.0)
    return w


def under(weights, prefix):
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def attention(variant, c, weights):
    """A function of the prefix [1, S, M] and the text [1, n, M]: text queries, keys of both, [1, n, M]."""
    if variant == "mtla":
        layer = mtla_layer(c, weights, Float64Rope)
        return lambda prefix, text: mtla_queries(layer, prefix, text)
    if variant == "mla":
        _, call = deepseek_layer(c, weights)
    else:
        layer = load(RopeHeads(c), weights)

        def call(x, _start, _cache):
            return layer(x)[0]

    # Causal, so the prefix's own rows are just not wanted.
    return lambda prefix, text: call(torch.cat([prefix, text], 1), 0, None)[:, prefix.shape[1] :]


def mtla_queries(layer, prefix, text):
    """As the seed's decoder calls the package: fewer queries than keys."""
    both = torch.cat([prefix, text], 1)
    positions = torch.arange(both.shape[1], dtype=torch.float32)[None]
    return layer(text, both, both, position=positions)


def second_attention(variant, c, weights):
    """The same by the second implementation, of all positions; compared once, on the teacher-forced tokens."""
    if variant == "mtla":
        layer = mtla_layer(c, weights, MultiheadTemporalLatentAttention)
    elif variant == "mla":
        layer = unit_gate_layer(c, weights)
    else:
        return lambda x: llama_attention(c, weights, x, 0)["parallel"]
    return lambda x: mtla_queries(layer, x[:, :0], x)


class Decoder:
    def __init__(self, variant, c, weights):
        self.c = c
        self.w = {k: v.double() for k, v in weights.items()}
        names = [f"layers.{i}.self_attn." for i in range(c["n_layers"])]
        self.attention = [attention(variant, c, under(weights, name)) for name in names]
        self.second = [second_attention(variant, c, under(weights, name)) for name in names]

    def norm(self, name, x):
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-5)

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def logits(self, prefix, tokens, check=False):
        """Logits [n, V] after each of n input tokens that follow the prefix [S, M], in one causal call."""
        prefix = prefix.double()[None]
        x = self.w["embed_tokens.weight"][torch.tensor(tokens)][None] * math.sqrt(self.c["d_model"])
        for i, attend in enumerate(self.attention):
            name = f"layers.{i}"
            n = self.norm(f"{name}.self_attn_layer_norm", x)
            attended = attend(prefix, n)
            if check:
                self.check(i, prefix, n, attended)
            a = x + attended
            h = self.norm(f"{name}.self_attn_layer_norm", a)  # the same norm again
            mlp = self.linear(f"{name}.fc2", F.relu(self.linear(f"{name}.fc1", h)))
            x = self.norm(f"{name}.final_layer_norm", h + mlp)
        return self.linear("output_projection", self.norm("layer_norm", x))[0]

    def check(self, i, prefix, n, attended):
        both = torch.cat([prefix, n], 1)
        rows = attended.shape[1]
        check_peers({"attention": difference(self.second[i](both)[:, -rows:], attended)})
        # Fewer queries than keys are the last rows of as many.
        alone = torch.cat([self.attention[i](both[:, :j], both[:, j : j + 1]) for j in range(both.shape[1])], 1)
        error = difference(alone[:, -rows:], attended)
        assert error < TOLERANCE_PATHS, f"a query alone and among others differ by {error:.1e}"


# --- beam search ---------------------------------------------------------------------


def beam_search(log_probs, vocab, eos, beam, length_penalty, max_len, margins):
    """Hypotheses (score, tokens), best first, as fairseq's generator finds them; `log_probs(tokens)` is what follows.

    `max_len` counts tokens before eos: after so many, only eos can follow. A hypothesis that does not exist has no
    candidates: at the first step there is one hypothesis, hence V candidates, even if 2 beam is more. Gaps that decide
    something are added to `margins`.
    """
    live, finished = [(0.0, ())], []
    for step in range(max_len + 1):
        candidates = []  # (score, hypothesis, token)
        for i, (score, tokens) in enumerate(live):
            row = log_probs(tokens)
            allowed = range(vocab) if step < max_len else [eos]
            candidates += [(score + row[token], i, token) for token in allowed]
        candidates.sort(key=lambda c: (-c[0], c[1], c[2]))
        going_on = [c for c in candidates if c[2] != eos]
        ended = [c for c in candidates[:beam] if c[2] == eos]
        note_gaps(candidates, going_on, ended, beam, beam - len(finished), eos, margins)
        for score, i, _ in ended[: beam - len(finished)]:
            tokens = live[i][1] + (eos,)
            finished.append((score / len(tokens) ** length_penalty, tokens))
        if len(finished) == beam:
            break
        # 2 beam candidates hold at least beam that go on, as each hypothesis has one eos.
        assert going_on[:beam] == [c for c in candidates[: 2 * beam] if c[2] != eos][:beam]
        live = [(score, live[i][1] + (token,)) for score, i, token in going_on[:beam]]
    finished.sort(key=lambda hypothesis: -hypothesis[0])
    margins += [a[0] - b[0] for a, b in zip(finished, finished[1:])]
    return finished


def forced_search(log_probs, vocab, eos, beam, length_penalty, new_tokens, margins):
    """The same without eos, for `new_tokens` steps: the live hypotheses at the end."""
    live = [(0.0, ())]
    for _ in range(new_tokens):
        candidates = [
            (score + log_probs(tokens)[token], i, token)
            for i, (score, tokens) in enumerate(live)
            for token in range(vocab)
            if token != eos
        ]
        candidates.sort(key=lambda c: (-c[0], c[1], c[2]))
        note_gaps(candidates, candidates, [], beam, 0, eos, margins)
        live = [(score, live[i][1] + (token,)) for score, i, token in candidates[:beam]]
    margins += [a[0] - b[0] for a, b in zip(live, live[1:])]
    return [(score / new_tokens**length_penalty, tokens) for score, tokens in live]


def note_gaps(candidates, going_on, ended, beam, wanted, eos, margins):
    def gap(of, k):
        if 0 < k < len(of):
            margins.append(of[k - 1][0] - of[k][0])

    gap(going_on, beam)  # the last that goes on, the first that does not
    if any(c[2] == eos for c in candidates[beam - 1 : beam + 1]):
        gap(candidates, beam)  # whether an eos is among the first `beam`
    gap(ended, wanted)  # the last that is kept
