// The merge of training: partial sums of gated latents in every block of s tokens, and their gradients.
//
//   w_i = sigmoid(c_i . u[j] + b[j]),  sums_i = sum of w_k c_k over k <= i of i's block j = floor(i / s)
//
//   backwards, a block's tokens from the last:  later_i = grad_i + later_(i + 1)
//   a_i = (later_i . c_i) w_i (1 - w_i),  dc_i = w_i later_i + a_i u[j],  du[j] = sum a_i c_i,  db[j] = sum a_i
//
// One source, a PASS of it for each launch:
//
//   FORWARD   sums: a warp has a block of a sequence and goes through its tokens
//   BACKWARD  dc, and a into memory: the same, backwards
//   TABLES    du and db: a warp has a block of all sequences, one sequence after another, and its tokens in order
//
// Sums are f32 and rounded when they are stored; a lane has vectors of VECTOR_BYTES: lane, lane + 32, .. of a row. Dot
// products are each lane's elements in order, then the butterfly. Nothing is added up by two blocks: the same bits every
// time. Memory decides: forward reads and writes a row of each token once, backward reads two and writes one.
//
// Source: MTLA, arXiv 2505.13544, section 4.1; the gate's tables are those of `latents` on the CPU.
// Not yet run on a GPU.
#include "common.cuh"

#define PASS_FORWARD 0
#define PASS_BACKWARD 1
#define PASS_TABLES 2

// PASS; RANK r, STRIDE s, VECTOR_BYTES, WARPS.

struct Merge {
    const Element *c;    // [B, T, r]
    const float *u;      // [blocks, r]
    const float *b;      // [blocks]
    Element *sums;       // [B, T, r]
    const Element *grad; // [B, T, r], of the sums
    Element *dc;         // [B, T, r]
    float *du;           // [blocks, r]
    float *db;           // [blocks]
    float *of_logits;    // [B, T]: a
    int batch;           // B
    int tokens;          // T
};
static_assert(sizeof(Merge) == 80, "MergeParams is the same");

constexpr int IN_VECTOR = VECTOR_BYTES / ELEMENT_BYTES;
constexpr int VECTORS = RANK / IN_VECTOR;          // of a row
constexpr int PER_LANE = ceil_div(VECTORS, WARP);  // of a lane
static_assert(RANK % IN_VECTOR == 0, "rows are whole vectors");

typedef float Row[PER_LANE][IN_VECTOR]; // what a lane has of a row

// A row; zeros beyond it.
DEVICE void load_row(Row &to, const Element *from, int lane) {
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int at = lane + WARP * i;
        if (VECTORS % WARP == 0 || at < VECTORS) {
            widen<VECTOR_BYTES>(to[i], load_once<VECTOR_BYTES>(from + at * IN_VECTOR));
        } else {
#pragma unroll
            for (int e = 0; e < IN_VECTOR; ++e) to[i][e] = 0.0f;
        }
    }
}

// A row of a table of f32.
DEVICE void load_table(Row &to, const float *from, int lane) {
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int at = lane + WARP * i;
#pragma unroll
        for (int e = 0; e < IN_VECTOR; ++e) to[i][e] = at < VECTORS ? from[at * IN_VECTOR + e] : 0.0f;
    }
}

DEVICE void store_row(Element *to, const Row &from, int lane) {
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int at = lane + WARP * i;
        if (at >= VECTORS) continue;
        Vector<VECTOR_BYTES> x;
#pragma unroll
        for (int word = 0; word < VECTOR_BYTES / 4; ++word) {
#if DTYPE == DTYPE_F32
            x.words[word] = __float_as_uint(from[i][word]);
#else
            x.words[word] = pair(from[i][2 * word], from[i][2 * word + 1]);
#endif
        }
        *reinterpret_cast<Vector<VECTOR_BYTES> *>(to + at * IN_VECTOR) = x;
    }
}

DEVICE float dot(const Row &x, const Row &y) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
#pragma unroll
        for (int e = 0; e < IN_VECTOR; ++e) sum = fmaf(x[i][e], y[i][e], sum);
    }
    return sum_of_lanes<WARP>(sum);
}

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

extern "C" __global__ void __launch_bounds__(WARPS *WARP) merge(const Merge p) {
    const int lane = threadIdx.x % WARP;
    const long long warp = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
    const int blocks = ceil_div(p.tokens, STRIDE);
    const int block = int(warp % blocks), sequence = int(warp / blocks);
    const int first = block * STRIDE, n = min(STRIDE, p.tokens - first);
#if PASS == PASS_TABLES
    if (sequence > 0) return;
    Row du = {};
    float db = 0.0f;
    for (int of = 0; of < p.batch; ++of) {
        const long long at = (long long)of * p.tokens + first;
#pragma unroll 2
        for (int token = 0; token < n; ++token) {
            Row c;
            load_row(c, p.c + (at + token) * RANK, lane);
            const float of_logit = p.of_logits[at + token];
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
#pragma unroll
                for (int e = 0; e < IN_VECTOR; ++e) du[i][e] = fmaf(of_logit, c[i][e], du[i][e]);
            }
            db += of_logit;
        }
    }
    float *const to = p.du + (long long)block * RANK;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int at = lane + WARP * i;
        if (at >= VECTORS) continue;
#pragma unroll
        for (int e = 0; e < IN_VECTOR; ++e) to[at * IN_VECTOR + e] = du[i][e];
    }
    if (lane == 0) p.db[block] = db;
#else
    if (sequence >= p.batch) return;
    const long long at = (long long)sequence * p.tokens + first;
    const float bias = p.b[block];
    Row u;
    load_table(u, p.u + (long long)block * RANK, lane);
    Row sum = {};
#if PASS == PASS_FORWARD
    for (int token = 0; token < n; ++token) {
        Row c;
        load_row(c, p.c + (at + token) * RANK, lane);
        const float weight = sigmoid(dot(c, u) + bias);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
#pragma unroll
            for (int e = 0; e < IN_VECTOR; ++e) sum[i][e] = fmaf(weight, c[i][e], sum[i][e]);
        }
        store_row(p.sums + (at + token) * RANK, sum, lane);
    }
#else
    for (int token = n - 1; token >= 0; --token) {
        Row c, grad;
        load_row(c, p.c + (at + token) * RANK, lane);
        load_row(grad, p.grad + (at + token) * RANK, lane);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
#pragma unroll
            for (int e = 0; e < IN_VECTOR; ++e) sum[i][e] += grad[i][e];
        }
        const float weight = sigmoid(dot(c, u) + bias);
        const float of_logit = dot(sum, c) * weight * (1.0f - weight);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
#pragma unroll
            for (int e = 0; e < IN_VECTOR; ++e) grad[i][e] = fmaf(weight, sum[i][e], of_logit * u[i][e]);
        }
        store_row(p.dc + (at + token) * RANK, grad, lane);
        if (lane == 0) p.of_logits[at + token] = of_logit;
    }
#endif
#endif
}
