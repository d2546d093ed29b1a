"""The formulas in float64, at sampled query rows: what every peer must agree with before it is timed."""

import torch

from .layers import layer

# Largest ||out - formula|| / ||formula||. A layer rounds several times, one after the other.
TOLERANCE = {"f32": 2e-5, "f16": 5e-3, "bf16": 2e-2}
LAYER_FACTOR = 2.0
SEQUENCES, ROWS = 2, 8
PER_SEQUENCE = {"x", "q", "k", "v", "cache", "sum", "sum_out"}


def sampled(n, most):
    """Up to `most` of n indices, the first and the last among them."""
    if n <= most:
        return list(range(n))
    return sorted({round(i * (n - 1) / (most - 1)) for i in range(most)})


def decode(q, k, v, scale):
    """One query against all entries. q `[B, H, 1, Dk]`, k and v `[B, Hkv, L, Dk or Dv]`; `[B, H, 1, Dv]`."""
    group = q.shape[1] // k.shape[1]
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=torch.float64, device=q.device)
    # Head by head: a copy of long caches in float64 would not fit beside them.
    for head in range(q.shape[1]):
        keys, values = k[:, head // group].double(), v[:, head // group].double()
        scores = torch.einsum("bd,bld->bl", q[:, head, 0].double(), keys) * scale
        out[:, head, 0] = torch.einsum("bl,bld->bd", scores.softmax(-1), values)
    return out


def attend(q, k, v, stride, scale, rows):
    """Query i sees key j if j = i, or j < i and (j + 1) mod s = 0. q `[B, H, T, Dk]`; `[B, H, rows, Dv]`."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    out = []
    for i in rows:
        seen = torch.tensor([*range(stride - 1, i, stride), i], device=q.device)
        scores = torch.einsum("bhd,bhld->bhl", q[:, :, i].double(), k[:, :, seen].double()) * scale
        out.append(torch.einsum("bhl,bhld->bhd", scores.softmax(-1), v[:, :, seen].double()))
    return torch.stack(out, dim=2)


def expected(case, o):
    """The case by the formulas, `(float64 tensor, pick)`: `pick` takes its sequences and rows of an output."""
    sequences = sampled(case.batch, SEQUENCES)
    rows = sampled(case.length, ROWS) if case.workload == "prefill" else []
    some = {name: x[sequences] if name in PER_SEQUENCE else x for name, x in o.items()}

    def attention(q, k, v=None):
        if rows:
            return attend(q, k, v, case.stride, case.scale, rows)
        if v is None:  # absorbed
            return decode(q[:, :, None], k[:, None], k[:, None, :, : case.rank], case.scale)[:, :, 0]
        return decode(q, k, v, case.scale)

    if case.scope == "op":
        out = attention(*(some[name] for name in ("q", "k", "v", "cache") if name in some))
        return out, lambda y: y[sequences][:, :, rows] if rows else y[sequences]
    out = layer(case, attention)({name: x.double() for name, x in some.items()})
    return out, lambda y: y[sequences][:, rows] if rows else y[sequences]


def relative_error(out, reference):
    """Not below any tolerance where `out` has a NaN."""
    return ((out.double() - reference).norm() / reference.norm()).item()


def tolerance(case):
    return TOLERANCE[case.dtype] * (LAYER_FACTOR if case.scope == "layer" else 1.0)
