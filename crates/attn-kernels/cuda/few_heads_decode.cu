// Decode for few heads: MHA, and GQA of small groups, `out = softmax(scale q K^T) V`.
//
// Queries q [B, H, D] against keys [B, Hkv, C, D] and values [B, Hkv, C, Dv]; g = H / Hkv heads share a KV head and one
// pass over its entries. So few multiply-adds come with a byte that these need no matrix units: products are f32
// multiply-adds, operands are widened in registers, and nothing is staged.
//
// Mapping: ENTRY_LANES lanes of a warp have an entry, each of them VECTOR bytes of its key and its value, so that a
// warp has SETS = 32 / ENTRY_LANES entries at once, and KEYS such in a step: loads of a whole step, values too, are
// under way before the first product. Every set of lanes is a flash-decoding stream of its own; sets, then warps, then
// blocks are joined.
//
//   per step:  s = q . k over a lane's elements in order, then the butterfly over ENTRY_LANES;  m, l, o by streams.cuh
//
// Grid: x sequence and KV head, z splits of the entries. Threads: WARPS warps.
// Source: Flash-Decoding (Dao et al., 2023). Combined as combine.cuh says.
// Not yet run on a GPU.
#include "combine.cuh"

// Macros: KEY_DIM, VALUE_DIM, HEADS (g), VECTOR, ENTRY_LANES, KEYS, WARPS, BLOCKS (of a multiprocessor), SHARED_BYTES.

constexpr int SETS = WARP / ENTRY_LANES;
constexpr int STEP = SETS * KEYS; // entries of a warp's step
constexpr int THREADS = WARPS * WARP;
constexpr int IN_VECTOR = VECTOR / ELEMENT_BYTES;
constexpr int KEY_VECTORS = KEY_DIM / IN_VECTOR, VALUE_VECTORS = VALUE_DIM / IN_VECTOR;
constexpr int OWN_KEY_VECTORS = ceil_div(KEY_VECTORS, ENTRY_LANES); // of a lane
constexpr int OWN_VALUE_VECTORS = ceil_div(VALUE_VECTORS, ENTRY_LANES);
constexpr int VALUE_WIDTH = round_up(VALUE_DIM, 4);
static_assert(KEY_DIM % IN_VECTOR == 0 && VALUE_DIM % IN_VECTOR == 0, "rows are whole vectors");
// Parts and sums of the warps.
constexpr int PART_BYTES = WARPS * HEADS * VALUE_WIDTH * 4;
static_assert(SHARED_BYTES == PART_BYTES + WARPS * HEADS * 8, "the plan has the same sizes");

DEVICE float max_over_sets(float x) {
#pragma unroll
    for (int i = ENTRY_LANES; i < WARP; i *= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, i));
    return x;
}

DEVICE float sum_over_sets(float x) {
#pragma unroll
    for (int i = ENTRY_LANES; i < WARP; i *= 2) x += __shfl_xor_sync(ALL_LANES, x, i);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) few_heads_decode(const Decode p) {
    extern __shared__ __align__(128) char shared[];
    float *const parts = reinterpret_cast<float *>(shared);                // [WARPS, HEADS, VALUE_WIDTH]
    float2 *const sums = reinterpret_cast<float2 *>(shared + PART_BYTES);  // [WARPS, HEADS]

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int own = lane % ENTRY_LANES, set = lane / ENTRY_LANES;
    const int sequence_head = blockIdx.x;
    const int sequence = sequence_head / p.n_kv_heads, kv_head = sequence_head % p.n_kv_heads;
    const Range range = range_of(p.positions[sequence], 1, p.capacity, blockIdx.z, gridDim.z, STEP);
    if (blockIdx.z >= range.active) return;
    const Element *keys = p.keys + sequence * p.key_batch_stride + kv_head * p.key_head_stride;
    const Element *values = p.values + sequence * p.value_batch_stride + kv_head * p.value_head_stride;

    float q[HEADS][OWN_KEY_VECTORS][IN_VECTOR];
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
#pragma unroll
        for (int i = 0; i < OWN_KEY_VECTORS; ++i) {
            const int vector = own + ENTRY_LANES * i;
            Vector<VECTOR> x = {};
            if (vector < KEY_VECTORS) {
                x = load_once<VECTOR>(p.q + ((long long)sequence_head * HEADS + h) * KEY_DIM + vector * IN_VECTOR);
            }
            widen<VECTOR>(q[h][i], x);
        }
    }
    float o[HEADS][OWN_VALUE_VECTORS][IN_VECTOR] = {};
    float m[HEADS], l[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; ++h) m[h] = minus_infinity(), l[h] = 0.0f;

    for (int first = range.from + warp * STEP; first < range.to; first += WARPS * STEP) {
        Vector<VECTOR> k[KEYS][OWN_KEY_VECTORS], v[KEYS][OWN_VALUE_VECTORS];
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
            // Neighbouring sets have neighbouring entries.
            const int entry = first + j * SETS + set;
#pragma unroll
            for (int i = 0; i < OWN_KEY_VECTORS; ++i) {
                const int vector = own + ENTRY_LANES * i;
                k[j][i] = {};
                if (entry < range.to && vector < KEY_VECTORS) {
                    k[j][i] = load_once<VECTOR>(keys + (long long)entry * p.key_row_stride + vector * IN_VECTOR);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
            const int entry = first + j * SETS + set;
#pragma unroll
            for (int i = 0; i < OWN_VALUE_VECTORS; ++i) {
                const int vector = own + ENTRY_LANES * i;
                v[j][i] = {};
                if (entry < range.to && vector < VALUE_VECTORS) {
                    v[j][i] = load_once<VECTOR>(values + (long long)entry * p.value_row_stride + vector * IN_VECTOR);
                }
            }
        }

        float s[KEYS][HEADS] = {};
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
#pragma unroll
            for (int i = 0; i < OWN_KEY_VECTORS; ++i) {
                float x[IN_VECTOR];
                widen<VECTOR>(x, k[j][i]);
#pragma unroll
                for (int h = 0; h < HEADS; ++h) {
#pragma unroll
                    for (int d = 0; d < IN_VECTOR; ++d) s[j][h] = fmaf(q[h][i][d], x[d], s[j][h]);
                }
            }
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                s[j][h] = sum_of_lanes<ENTRY_LANES>(s[j][h]);
                if (first + j * SETS + set >= range.to) s[j][h] = minus_infinity();
            }
        }

        bool moved = false;
        float top[HEADS];
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            top[h] = m[h];
#pragma unroll
            for (int j = 0; j < KEYS; ++j) top[h] = fmaxf(top[h], s[j][h]);
            moved |= top[h] != m[h];
        }
        if (__any_sync(ALL_LANES, moved)) {
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                const float by = shrink(m[h], top[h], p.factor);
                m[h] = top[h];
                l[h] *= by;
#pragma unroll
                for (int i = 0; i < OWN_VALUE_VECTORS; ++i) {
#pragma unroll
                    for (int d = 0; d < IN_VECTOR; ++d) o[h][i][d] *= by;
                }
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            const float base = p.factor * base_of(m[h]);
#pragma unroll
            for (int j = 0; j < KEYS; ++j) {
                s[j][h] = exp2_fast(fmaf(s[j][h], p.factor, -base));
                l[h] += s[j][h];
            }
        }
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
#pragma unroll
            for (int i = 0; i < OWN_VALUE_VECTORS; ++i) {
                float x[IN_VECTOR];
                widen<VECTOR>(x, v[j][i]);
#pragma unroll
                for (int h = 0; h < HEADS; ++h) {
#pragma unroll
                    for (int d = 0; d < IN_VECTOR; ++d) o[h][i][d] = fmaf(s[j][h], x[d], o[h][i][d]);
                }
            }
        }
    }

    // Sets of a warp.
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const float top = max_over_sets(m[h]);
        const float by = shrink(m[h], top, p.factor);
        m[h] = top;
        l[h] = sum_over_sets(l[h] * by);
#pragma unroll
        for (int i = 0; i < OWN_VALUE_VECTORS; ++i) {
#pragma unroll
            for (int d = 0; d < IN_VECTOR; ++d) o[h][i][d] = sum_over_sets(o[h][i][d] * by);
        }
        if (lane == 0) sums[warp * HEADS + h] = make_float2(m[h], l[h]);
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const float by = shrink(m[h], total_of<WARPS, HEADS>(sums, h, p.factor).x, p.factor);
        float *const part = parts + (warp * HEADS + h) * VALUE_WIDTH;
#pragma unroll
        for (int i = 0; i < OWN_VALUE_VECTORS; ++i) {
            const int vector = own + ENTRY_LANES * i;
            if (set != 0 || vector >= VALUE_VECTORS) continue;
#pragma unroll
            for (int d = 0; d < IN_VECTOR; ++d) part[vector * IN_VECTOR + d] = by * o[h][i][d];
        }
    }
    __syncthreads();
    finish<WARPS, HEADS, VALUE_WIDTH, HEADS, VALUE_DIM, VALUE_WIDTH, THREADS>(p, parts, sums, range, sequence_head, 0);
}
