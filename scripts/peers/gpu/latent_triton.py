"""Split-KV decode over a latent cache in Triton, for MLA and (with a shorter cache) MTLA.

    out[b, h] = softmax(scale * q[b, h] . cache[b, :N]) cache[b, :N, :R]

q `[B, H, R + DR]`, cache `[B, N, R + DR]`, out `[B, H, R]`. Two kernels: `split` gives every program some heads
of a sequence and a part of its entries, which it reads once, as keys and as values; heads are the rows of its
products. `combine` weighs the parts by their log-sum-exp. Sums are in f32.

With TRITON_INTERPRET=1 set before the import it runs on a CPU, in f32 and f16 alone: the interpreter's product
of bf16 is wrong. Not yet run on a GPU.
"""

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


@triton.jit
def split(
    q,
    cache,
    part,
    part_lse,
    scale_log2,
    n,
    per_split,
    H: tl.constexpr,
    R: tl.constexpr,
    DR: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence, head_block, index = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(2)
    heads = head_block * BLOCK_H + tl.arange(0, BLOCK_H)
    latent, rope = tl.arange(0, R), R + tl.arange(0, DR)
    real = heads < H
    q_row = q + (sequence.to(tl.int64) * H + heads[:, None]) * (R + DR)
    q_latent = tl.load(q_row + latent[None, :], mask=real[:, None], other=0.0)
    q_rope = tl.load(q_row + rope[None, :], mask=real[:, None], other=0.0)

    largest = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    sums = tl.zeros([BLOCK_H, R], tl.float32)
    first = index * per_split
    last = tl.minimum(first + per_split, n)
    entries = cache + sequence.to(tl.int64) * n * (R + DR)
    for start in range(first, last, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        there = rows < last
        row = entries + rows[:, None] * (R + DR)
        c = tl.load(row + latent[None, :], mask=there[:, None], other=0.0)
        k_rope = tl.load(row + rope[None, :], mask=there[:, None], other=0.0)
        scores = tl.dot(q_latent, tl.trans(c), input_precision="ieee")
        scores = tl.dot(q_rope, tl.trans(k_rope), scores, input_precision="ieee") * scale_log2
        scores = tl.where(there[None, :], scores, float("-inf"))
        # The first entry of a part is always there, so that the largest is finite.
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        sums = tl.dot(weights.to(c.dtype), c, sums * shrink[:, None], input_precision="ieee")
        largest = larger

    out = (sequence.to(tl.int64) * H + heads) * splits + index
    tl.store(part + out[:, None] * R + latent[None, :], sums / total[:, None], mask=real[:, None])
    tl.store(part_lse + out, largest + tl.log2(total), mask=real)


@triton.jit
def combine(part, part_lse, out, splits, R: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    latent = tl.arange(0, R)
    largest, total = float("-inf"), 0.0
    sums = tl.zeros([R], tl.float32)
    for index in range(splits):
        lse = tl.load(part_lse + row * splits + index)
        larger = tl.maximum(largest, lse)
        shrink, weight = tl.exp2(largest - larger), tl.exp2(lse - larger)
        sums = sums * shrink + weight * tl.load(part + (row * splits + index) * R + latent)
        total = total * shrink + weight
        largest = larger
    tl.store(out + row * R + latent, (sums / total).to(out.dtype.element_ty))


# Entries of a tile and stages of its loads, the first that fits the GPU's shared memory counts.
TILES = {2: [(64, 2), (32, 2), (32, 1), (16, 1)], 4: [(16, 2), (16, 1)]}
fitting = {}


def decode(q, cache, rank, scale, processors):
    assert q.is_contiguous() and cache.is_contiguous() and cache.shape[::2] == q.shape[::2]
    kind = (q.shape[1:], rank, q.dtype)
    if kind in fitting:
        return launch(q, cache, rank, scale, processors, *fitting[kind])
    for tile in TILES[q.element_size()]:
        try:
            out = launch(q, cache, rank, scale, processors, *tile)
        except triton.runtime.errors.OutOfResources as error:
            refused = error
            continue
        fitting[kind] = tile
        return out
    raise refused


def launch(q, cache, rank, scale, processors, block_n, stages):
    (batch, heads, key), entries = q.shape, cache.shape[1]
    block_h = 16 if heads <= 16 else 32 if heads <= 32 else 64
    head_blocks = triton.cdiv(heads, block_h)
    # Twice as many programs as processors, so that an uneven end costs less; a part has two tiles or more.
    wanted = min(triton.cdiv(2 * processors, batch * head_blocks), triton.cdiv(entries, 2 * block_n), 64)
    per_split = triton.cdiv(triton.cdiv(entries, wanted), block_n) * block_n
    splits = triton.cdiv(entries, per_split)
    part = torch.empty(batch, heads, splits, rank, dtype=torch.float32, device=q.device)
    part_lse = torch.empty(batch, heads, splits, dtype=torch.float32, device=q.device)
    out = torch.empty(batch, heads, rank, dtype=q.dtype, device=q.device)
    split[(batch, head_blocks, splits)](
        q,
        cache,
        part,
        part_lse,
        scale * LOG2_E,
        entries,
        per_split,
        H=heads,
        R=rank,
        DR=key - rank,
        BLOCK_H=block_h,
        BLOCK_N=block_n,
        num_warps=4 if block_h == 16 else 8,
        num_stages=stages,
    )
    combine[(batch * heads,)](part, part_lse, out, splits, R=rank, num_warps=4)
    return out
