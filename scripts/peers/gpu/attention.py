"""The operations of the peers: functions over `[B, H, T, D]`, or over a latent cache, by name and variant."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from .operands import DTYPES

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# PyTorch's plain formula keeps every score, some copies of them, and a mask: above this it is left out.
MOST_SCORES_BYTES = 4 << 30


class Unfit(Exception):
    """A peer is not made for a case."""


class Unavailable(Exception):
    """Why a peer that is made for a case does not do it here."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer: `attention(case)` gives its operation, or raises `Unfit` or `Unavailable`."""

    name: str
    variant: str
    attention: Callable
    backend: SDPBackend | None = None
    compiled: bool = False

    def context(self):
        """Around every call: entering it takes host time that a caller would spend once."""
        return sdpa_kernel([self.backend]) if self.backend else contextlib.nullcontext()


def equal_widths(k, v):
    """Values as wide as keys, for kernels that know one head size."""
    return v if v.shape[-1] == k.shape[-1] else pad(v, (0, k.shape[-1] - v.shape[-1]))


def sdpa(case, padded=False, folded=False):
    """scaled_dot_product_attention as it comes, or with the queries of a group as rows of their KV head."""
    causal = case.workload == "prefill"
    group = case.n_heads // case.n_kv_heads
    if case.rank and not causal:
        if padded or folded:
            raise Unfit("all heads are rows of one key head as it is")
        return functools.partial(sdpa_latent, case)
    if padded and case.v_dim == case.score_dim:
        raise Unfit("keys and values are equally wide, see the variant without padding")
    if folded and (causal or group == 1):
        raise Unfit("nothing to fold: heads of their own, or more than one token")
    if causal and case.stride > 1:
        raise Unfit("its causal mask has no stride, see fact-b")

    def attention(q, k, v):
        if folded:
            y = scaled_dot_product_attention(
                q.reshape(q.shape[0], -1, group, q.shape[-1]), k, v, scale=case.scale
            )
            return y.reshape(*q.shape[:-1], -1)
        y = scaled_dot_product_attention(
            q, k, equal_widths(k, v) if padded else v, is_causal=causal, scale=case.scale, enable_gqa=group > 1
        )
        return y[..., : case.v_dim]

    return attention


def sdpa_latent(case, q, cache):
    """All heads as rows over one key head, whose first columns are the values."""
    keys = cache[:, None]
    return scaled_dot_product_attention(q[:, None], keys, keys[..., : case.rank], scale=case.scale)[:, 0]


def math(case):
    queries = case.length if case.workload == "prefill" else 1
    scores = 4 * case.batch * case.n_heads * queries * case.slots
    if scores > MOST_SCORES_BYTES:
        raise Unavailable(f"left out: its scores take {scores / 2**30:.0f} GiB")
    return sdpa(case)


def absorbed(case):
    """Two products around a softmax in f32, as most code for MLA has it."""
    if not case.rank or case.workload != "decode":
        raise Unfit("for a latent cache")

    def attention(q, cache):
        scores = torch.matmul(q, cache.transpose(1, 2)).to(torch.float32) * case.scale
        return torch.matmul(scores.softmax(-1).to(q.dtype), cache[..., : case.rank])

    return attention


def triton_split(case):
    if not case.rank or case.workload != "decode":
        raise Unfit("for a latent cache")
    on_gpu = torch.cuda.is_available()
    if not on_gpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise Unavailable("no GPU, and TRITON_INTERPRET=1 is not set")
    if not on_gpu and DTYPES[case.dtype] == torch.bfloat16:
        raise Unavailable("Triton's interpreter multiplies bf16 wrongly")
    try:
        from . import latent_triton
    except ImportError as error:
        raise Unavailable(f"no Triton: {error}") from error
    processors = torch.cuda.get_device_properties(0).multi_processor_count if on_gpu else 4

    def attention(q, cache):
        return latent_triton.decode(q.contiguous(), cache, case.rank, case.scale, processors)

    return attention


def flash_with_lse(q, k, v, scale):
    """FlashAttention, causal. One KV head serves a group of query heads without a copy of it."""
    op = torch.ops.aten._scaled_dot_product_flash_attention
    return op(q, k, equal_widths(k, v), 0.0, True, False, scale=scale)[:2]


def cudnn_with_lse(q, k, v, scale):
    op = torch.ops.aten._scaled_dot_product_cudnn_attention
    return op(q, k, v, None, True, 0.0, True, False, scale=scale)[:2]


def efficient_with_lse(q, k, v, scale):
    op = torch.ops.aten._scaled_dot_product_efficient_attention
    return op(q, k, v, None, True, 0.0, True, scale=scale)[:2]


def cpu_with_lse(q, k, v, scale):
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return op(q, k, equal_widths(k, v), 0.0, True, scale=scale)[:2]


def fact_b(case, with_lse, grouped):
    """MTLA's mask as causal attention over the ends of closed blocks, and a diagonal that the LSE lets in.

    Token u of block n sees the ends of blocks 0 to n - 1, which is a causal square over blocks 1 on, and
    itself. With `grouped` the s tokens of a block are query heads that share a KV head; else they are s calls,
    without a copy.
    """
    s = case.stride
    if not case.rank or case.workload != "prefill":
        raise Unfit("for the sequences of MLA and MTLA")
    if case.length % s:
        raise Unavailable(f"{case.length} tokens are no multiple of s = {s}")

    def attention(q, k, v):
        (b, h, _, _), n = q.shape, case.length // s
        own = (q.to(torch.float32) * k).sum(-1) * case.scale
        keys, values = k[:, :, s - 1 : -1 : s], v[:, :, s - 1 : -1 : s]  # [B, H, n - 1, D]
        blocks = q.unflatten(2, (n, s))[:, :, 1:]  # [B, H, n - 1, s, D]
        if grouped:
            folded = blocks.transpose(2, 3).flatten(1, 2)  # [B, H s, n - 1, D]
            y, lse = with_lse(folded, keys, values, case.scale)
            y, lse = y.unflatten(1, (h, s)), lse.reshape(b, h, s, -1)
        else:
            parts = [with_lse(blocks[:, :, :, u], keys, values, case.scale) for u in range(s)]
            y = torch.stack([part[0] for part in parts], dim=2)
            lse = torch.stack([part[1].reshape(b, h, -1) for part in parts], dim=2)
        # [B, H, s, n - 1, D] -> [B, H, T - s, D]; some kernels pad the rows of the LSE.
        y = y[..., : case.v_dim].transpose(2, 3).flatten(2, 3)
        lse = lse[..., : n - 1].transpose(2, 3).flatten(2)
        weight = torch.sigmoid(own[:, :, s:] - lse)[..., None]
        rest = y + weight * (v[:, :, s:] - y)
        return torch.cat([v[:, :, :s], rest.to(q.dtype)], dim=2)

    return attention


def masked(case):
    """The stride's mask as a tensor, T x T: what one writes first."""
    if case.workload != "prefill" or case.stride == 1:
        raise Unfit("for the sequences of MTLA")
    if 2 * case.length**2 > MOST_SCORES_BYTES // 8:
        raise Unavailable(f"left out: a mask of {case.length} x {case.length}")
    mask = None

    def attention(q, k, v):
        nonlocal mask
        if mask is None:
            j = torch.arange(case.length, device=q.device)
            mask = (j[None] == j[:, None]) | ((j[None] < j[:, None]) & ((j[None] + 1) % case.stride == 0))
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=case.scale)

    return attention


def peers(device):
    """All of them; each says of a case itself whether it is for it."""
    out = []
    for name, backend in BACKENDS.items():
        out.append(Peer("sdpa", name, math if name == "math" else sdpa, backend))
        if name != "math":
            out.append(Peer("sdpa", f"{name}-folded", functools.partial(sdpa, folded=True), backend))
    out.append(Peer("sdpa", "flash-padded", functools.partial(sdpa, padded=True), BACKENDS["flash"]))
    out.append(Peer("sdpa", "masked", masked))
    out.append(Peer("absorbed", "matmul", absorbed))
    out.append(Peer("absorbed", "triton", triton_split))
    formulations = {
        "flash": (flash_with_lse, True),
        "cudnn": (cudnn_with_lse, True),
        "efficient": (efficient_with_lse, False),
    }
    if device == "cpu":
        formulations["cpu"] = (cpu_with_lse, False)
    for name, (with_lse, grouped) in formulations.items():
        out.append(Peer("fact-b", name, functools.partial(fact_b, with_lse=with_lse, grouped=grouped)))
    # Inductor fuses what is around the products; each of these is worth its compilation.
    compiled = {
        ("sdpa", "flash"),
        ("sdpa", "flash-folded"),
        ("absorbed", "matmul"),
        ("fact-b", "flash"),
        ("fact-b", "cpu"),
    }
    fused = [peer for peer in out if (peer.name, peer.variant) in compiled]
    return out + [
        dataclasses.replace(peer, variant=f"{peer.variant}-compiled", compiled=True) for peer in fused
    ]
