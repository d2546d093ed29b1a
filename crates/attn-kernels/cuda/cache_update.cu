// Cache update: the entry of one token of every sequence of MLA and MTLA, in place.
//
//   c = norm(x[..r]) rounded;  w = sigmoid(c . u[j] + b[j]);  open = (first of its block ? 0 : open) + w c
//   cache[j] = (open rounded, RoPE(x[r..]));  j = position / s.  Without a gate cache[position] = (c, RoPE(x[r..])).
//
// A block's latents are summed in f32 (`open`) and rounded when they are stored; its rope key is its newest token's.
// Positions are on the device: a graph of a step holds for every length.
//
// Mapping: a warp takes a sequence, WARPS of them are a block; lane i has the elements i, i + 32, ... of a latent.
// Sums are f32: LayerNorm's mean first, then its squares; each a lane's own elements in order, then the butterfly.
//
// Source: MTLA, arXiv 2505.13544, section 4.1. The gate's tables are those of `latents` on the CPU.
// Not yet run on a GPU.
#include "common.cuh"

// Macros: RANK r, ROPE Dr, GATED, STRIDE s (1 without a gate), LAYER_NORM (0 is RMSNorm), HALVES (pairs are i and
// i + Dr / 2, else 2 i and 2 i + 1), WARPS.

struct CacheUpdate {
    const Element *x;       // [B, r + Dr], rows at x_stride: before the norm, and before the turn
    const Element *weight;  // [r]
    const Element *bias;    // [r], with LAYER_NORM
    const float *cos;       // [positions, Dr / 2]
    const float *sin;       // [positions, Dr / 2]
    const float *u;         // [blocks, r], with GATED
    const float *b;         // [blocks], with GATED
    float *open;            // [B, r], with GATED: read and written
    Element *cache;         // [B, C, r + Dr], sequences at cache_stride
    const int *positions;   // [B], of the token; nothing is done if it is negative, or beyond the cache or the tables
    long long x_stride;     // elements
    long long cache_stride; // elements
    int batch;              // B
    int capacity;           // C
    int n_positions;        // rows of the tables
    float eps;
};
static_assert(sizeof(CacheUpdate) == 112, "CacheUpdateParams is the same");

constexpr int PER_LANE = ceil_div(RANK, WARP);

extern "C" __global__ void __launch_bounds__(WARPS *WARP) cache_update(const CacheUpdate p) {
    const int lane = threadIdx.x % WARP;
    const int sequence = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (sequence >= p.batch) return;
    const int position = p.positions[sequence];
    const int slot = position / STRIDE;
    if (position < 0 || position >= p.n_positions || slot >= p.capacity) return;

    const Element *x = p.x + sequence * p.x_stride;
    float c[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int d = lane + WARP * i;
        c[i] = d < RANK ? to_f32(x[d]) : 0.0f;
    }
    if constexpr (LAYER_NORM) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) sum += c[i];
        const float mean = sum_of_lanes<WARP>(sum) / RANK;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) c[i] = lane + WARP * i < RANK ? c[i] - mean : 0.0f;
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) squares = fmaf(c[i], c[i], squares);
    const float scale = 1.0f / sqrtf(sum_of_lanes<WARP>(squares) / RANK + p.eps);
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int d = lane + WARP * i;
        if (d >= RANK) continue;
        const float bias = LAYER_NORM ? to_f32(p.bias[d]) : 0.0f;
        c[i] = rounded(fmaf(c[i] * scale, to_f32(p.weight[d]), bias));
    }

    Element *entry = p.cache + sequence * p.cache_stride + (long long)slot * (RANK + ROPE);
    if constexpr (GATED) {
        const float *u = p.u + (long long)slot * RANK;
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            const int d = lane + WARP * i;
            if (d < RANK) dot = fmaf(c[i], u[d], dot);
        }
        const float logit = sum_of_lanes<WARP>(dot) + p.b[slot];
        const float gate = 1.0f / (1.0f + expf(-logit));
        const bool opens = position % STRIDE == 0;
        float *open = p.open + (long long)sequence * RANK;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            const int d = lane + WARP * i;
            if (d >= RANK) continue;
            // An opening token does not read what may never have been written.
            c[i] = fmaf(gate, c[i], opens ? 0.0f : open[d]);
            open[d] = c[i];
        }
    }
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int d = lane + WARP * i;
        if (d < RANK) entry[d] = from_f32(c[i]);
    }

    const float *cos = p.cos + (long long)position * (ROPE / 2);
    const float *sin = p.sin + (long long)position * (ROPE / 2);
    for (int i = lane; i < ROPE / 2; i += WARP) {
        turn_pair<ROPE, HALVES>(entry + RANK, x + RANK, i, cos[i], sin[i]);
    }
}
