"""The layer of the Python package mtla, as its own code runs."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import torch

from . import formulas, operands
from .attention import Unavailable, Unfit

NAME = "mtla-package"
# Its forward pass makes masks of T x T on the host, and scores of [B, T, H, T].
MOST_TOKENS = 8192
# Its weights of the merge and its masks are rounded where ours are not.
ROUNDING = 2.0


@functools.cache
def load():
    """The layer alone: the package's `__init__` wants transformers too, and a version of it that fits."""
    spec = importlib.util.find_spec("mtla")
    if spec is None:
        raise Unavailable("the package mtla is not installed")
    file = Path(spec.submodule_search_locations[0]) / "MTLA.py"
    spec = importlib.util.spec_from_file_location("mtla_layer_of_package", file)
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(sys.stderr):  # it greets on import
        spec.loader.exec_module(module)
    return module.MultiheadTemporalLatentAttention


def version():
    try:
        return importlib.metadata.version("mtla")
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def layer(case, o):
    if case.variant != "mtla" or case.scope != "layer":
        raise Unfit("it is a layer of MTLA")
    if case.stride < 2:
        raise Unavailable("its decode is wrong at s = 1")
    if case.workload == "prefill" and case.length > MOST_TOKENS:
        raise Unavailable(f"left out: masks of {case.length} x {case.length} on the host")
    dtype, device = o["x"].dtype, o["x"].device
    made = load()(
        embed_dim=case.d_model,
        num_heads=case.n_heads,
        bias=case.bias,
        kv_lora_rank=case.rank,
        qk_nope_head_dim=case.score_dim - case.rope,
        qk_rope_head_dim=case.rope,
        v_head_dim=case.v_dim,
        down_rate=case.stride,
        recompute_prompt_attn=True,
    )
    made = made.to(device=device, dtype=dtype).eval()
    missing = made.load_state_dict({name: o[name] for name in made.state_dict()}).missing_keys
    assert not missing, missing
    return made


def build(case, o):
    """`(run, steps, error)`: one sample's work, the steps in it, and its error where that is known already."""
    made = layer(case, o)
    x = o["x"]
    if case.workload == "prefill":
        positions = torch.arange(case.length, dtype=torch.float32, device=x.device)[None]
        return lambda: made(x, x, x, position=positions), 1, None

    # From a closed slot on: the first step opens one in a copy of the cache, so that every sample begins alike.
    s = case.stride
    past = (case.length - 1) // s * s
    first = o["cache"][:, : past // s]
    latents, keys = (part.contiguous() for part in first.split([case.rank, case.rope], dim=-1))
    lengths = torch.full((case.batch,), float(past), device=x.device)
    positions = [torch.full((1, 1), float(past + i), device=x.device) for i in range(s)]

    def steps(n):
        state = {}
        made._set_input_buffer(state, {"prev_kv_t": latents, "prev_k_pe": keys, "infer_steps": lengths})
        for position in positions[:n]:
            y = made(x, x, x, position=position, incremental_state=state)
        return y

    return lambda: steps(s), s, error_of_first_step(case, o, past, steps(1))


def error_of_first_step(case, o, past, out):
    opening = dataclasses.replace(case, length=past + 1)
    slots = opening.slots
    at = {**o, "cache": o["cache"][:, :slots].clone()}
    at |= operands.state(opening, o, o["x"].device, lambda *shape: torch.zeros(shape, device=o["x"].device))
    reference, pick = formulas.expected(opening, at)
    return formulas.relative_error(pick(out), reference)
