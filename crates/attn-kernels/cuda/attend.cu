// Attend: causal attention of whole sequences, block-strided with a diagonal; of prefill and training.
//
//   out_i = sum_j softmax(scale q_i k_j) v_j over closed entries j < floor(i / s) and the query's own entry;
//   without own entries (OWN 0, s = 1) over j <= i. lse_i = ln sum_j e^(scale q_i k_j).
//
// Closed entries may be rows of the own ones, every s-th: that is a matter of strides. A block has ROWS tokens of one
// query head and goes through tiles of KEYS keys, of which the next is copied while one is computed:
//
//   before:    m = q_i k_i, l = 1, o = v_i of the own entry; without it m = -infinity, l = 0, o = 0
//   per tile:  s = Q K^T (f32);  m' = max(m, s);  p = 2^(factor (s - m'));  l = l 2^(factor (m - m')) + sum p
//              o = o 2^(factor (m - m')) + P V, P rounded to the element type; o is touched only where m moved
//   behind:    out = o / l, lse = scale m + ln l
//
// Tiles that no query of the block sees are not copied, those that no query of a warp sees are not computed by it, and
// hidden keys are looked for only where the first query of a warp does not see a whole tile. A value that is NaN spoils
// the queries of a warp that sees its tile, and not only those that see the entry.
//
// Grid: x query heads, y blocks of tokens, the last of them first since they see most, z sequences.
// Source: FlashAttention-2 (Dao, 2023); MTLA, arXiv 2505.13544, section 4.3, for the mask.
// Not yet run on a GPU.
#include "attend.cuh"

// KEY_DIM Dk, SHARED_DIM Ds of it, VALUE_DIM Dv; OWN, STRIDE s; WARPS, ROW_TILES, KEYS, BLOCKS (of a multiprocessor),
// SHARED_BYTES.

struct Attend {
    Rows q;         // [B, H, T, Dk]
    Entries closed; // N entries
    Entries own;    // T entries, with OWN
    Element *out;   // [B, T, H, Dv]
    float *lse;     // [B, H, T], or null
    int n_heads;    // H
    int group;      // H / Hkv
    int tokens;     // T
    int start;      // position of the first query
    float factor;   // of the scores, times log2(e)
    float scale;    // of the scores
};
static_assert(sizeof(Attend) == 264, "AttendParams is the same");

constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int ROWS = WARPS * WARP_ROWS; // tokens of a block
constexpr int THREADS = WARPS * WARP;
constexpr int KEY_WIDTH = round_up(KEY_DIM, 16);     // elements of a row in shared memory
constexpr int VALUE_WIDTH = round_up(VALUE_DIM, 16); // the same of values
constexpr int SCORE_TILES = KEYS / 8;                // of 16 x 8
constexpr int COLUMN_TILES = VALUE_WIDTH / 8;        // the same of values

// Shared memory, in bytes: queries; two stages of keys with values behind them.
constexpr int QUERY_BYTES = ROWS * KEY_WIDTH * ELEMENT_BYTES;
constexpr int KEY_TILE_BYTES = KEYS * KEY_WIDTH * ELEMENT_BYTES;
constexpr int STAGE_BYTES = KEY_TILE_BYTES + KEYS * VALUE_WIDTH * ELEMENT_BYTES;
static_assert(SHARED_BYTES == QUERY_BYTES + 2 * STAGE_BYTES, "the plan has the same sizes");

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attend(const Attend p) {
    extern __shared__ __align__(128) char shared[];
    char *const queries = shared;
    char *const ring = shared + QUERY_BYTES;

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int g = lane / 4, t = lane % 4;
    const int head = blockIdx.x, kv_head = head / p.group, sequence = blockIdx.z;
    const int first = (gridDim.y - 1 - blockIdx.y) * ROWS;
    const int rows = min(ROWS, p.tokens - first);
    const auto seen_by = [&](int row) { return seen_from(p.start + first + row); };
    const int seen = seen_by(rows - 1), tiles = ceil_div(seen, KEYS);

    const Element *const keys = row_of(p.closed.k, sequence, kv_head, 0);
    const Element *const shared_keys = SHARED_DIM > 0 ? row_of(p.closed.shared, sequence, 0, 0) : keys;
    const Element *const values = row_of(p.closed.v, sequence, kv_head, 0);
    const auto copy_stage = [&](int tile) {
        const u32 to = shared_address(ring + tile % 2 * STAGE_BYTES);
        const long long from = (long long)tile * KEYS;
        const int left = seen - tile * KEYS;
        copy_tile<KEYS, KEY_DIM, SHARED_DIM, THREADS>(
            to, keys + from * p.closed.k.row_stride, p.closed.k.row_stride,
            shared_keys + from * p.closed.shared.row_stride, p.closed.shared.row_stride, left);
        copy_tile<KEYS, VALUE_DIM, 0, THREADS>(to + KEY_TILE_BYTES, values + from * p.closed.v.row_stride,
                                               p.closed.v.row_stride, values, 0, left);
    };
    const Element *const q = row_of(p.q, sequence, head, first);
    copy_tile<ROWS, KEY_DIM, 0, THREADS>(shared_address(queries), q, p.q.row_stride, q, 0, rows);
    copies_commit();
    if (tiles > 0) copy_stage(0);
    copies_commit();
    copies_wait<1>();
    __syncthreads();

    // Of this lane: rows g + 8 r of row tile i are this many rows behind the block's first.
    const int warp_first = warp * WARP_ROWS;
    const auto row_at = [&](int i, int r) { return warp_first + 16 * i + 8 * r + g; };
    const char *const own_queries = queries + warp_first * KEY_WIDTH * ELEMENT_BYTES;
    float o[ROW_TILES][COLUMN_TILES][4] = {};
    float m[ROW_TILES][2];
    float l[ROW_TILES][2]; // of this lane's columns alone
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            m[i][r] = minus_infinity(), l[i][r] = 0.0f;
            if constexpr (OWN) {
                // Rows beyond the last one take its entry, so that every lane has one.
                const int token = first + min(row_at(i, r), rows - 1);
                const Element *const key = row_of(p.own.k, sequence, kv_head, token);
                const Element *const shared_key = SHARED_DIM > 0 ? row_of(p.own.shared, sequence, 0, token) : key;
                const Element *const value = row_of(p.own.v, sequence, kv_head, token);
                float score = 0.0f;
#pragma unroll 2
                for (int chunk = t; chunk < KEY_DIM / IN_CHUNK; chunk += 4) {
                    const int at = swizzled<KEY_WIDTH / IN_CHUNK>(16 * i + 8 * r + g, chunk) * CHUNK;
                    score = dot(*reinterpret_cast<const Chunk *>(own_queries + at),
                                load_chunk(chunk_of<KEY_DIM, SHARED_DIM>(key, shared_key, chunk)), score);
                }
                m[i][r] = sum_of_lanes<4>(score);
                l[i][r] = t == 0 ? 1.0f : 0.0f;
#pragma unroll
                for (int n = 0; n < VALUE_DIM / 8; ++n) {
                    const float2 v = load_pair(value + 8 * n + 2 * t);
                    o[i][n][2 * r] = v.x, o[i][n][2 * r + 1] = v.y;
                }
            }
        }
    }

    // Keys that are seen by the warp's last query, and by all of them.
    const int warp_rows = min(WARP_ROWS, rows - warp_first);
    const int warp_seen = warp_rows > 0 ? seen_by(warp_first + warp_rows - 1) : 0;
    const int warp_whole = seen_by(warp_first);
    for (int tile = 0; tile < tiles; ++tile) {
        copies_wait<0>();
        // Every copy of the tile is seen, and the stage that was read last is free.
        __syncthreads();
        if (tile + 1 < tiles) copy_stage(tile + 1);
        copies_commit();
        const int from = tile * KEYS;
        if (from >= warp_seen) continue;
        const char *const key_tile = ring + tile % 2 * STAGE_BYTES;

        float s[ROW_TILES][SCORE_TILES][4] = {};
        add_products<ROW_TILES, SCORE_TILES, KEY_WIDTH>(s, own_queries, key_tile, lane);
        if (from + KEYS > warp_whole) {
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
                const int left[2] = {seen_by(row_at(i, 0)) - from, seen_by(row_at(i, 1)) - from};
#pragma unroll
                for (int n = 0; n < SCORE_TILES; ++n) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        if (8 * n + 2 * t + e % 2 >= left[e / 2]) s[i][n][e] = minus_infinity();
                    }
                }
            }
        }

        float top[ROW_TILES][2];
        bool moved = false;
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                top[i][r] = m[i][r];
#pragma unroll
                for (int n = 0; n < SCORE_TILES; ++n) {
                    top[i][r] = fmaxf(top[i][r], fmaxf(s[i][n][2 * r], s[i][n][2 * r + 1]));
                }
                top[i][r] = max_of_lanes<4>(top[i][r]);
                moved |= top[i][r] != m[i][r];
            }
        }
        if (__any_sync(ALL_LANES, moved)) {
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const float by = shrink(m[i][r], top[i][r], p.factor);
                    l[i][r] *= by, m[i][r] = top[i][r];
#pragma unroll
                    for (int n = 0; n < COLUMN_TILES; ++n) o[i][n][2 * r] *= by, o[i][n][2 * r + 1] *= by;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
            const float base[2] = {p.factor * base_of(m[i][0]), p.factor * base_of(m[i][1])};
#pragma unroll
            for (int n = 0; n < SCORE_TILES; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    s[i][n][e] = exp2_fast(fmaf(s[i][n][e], p.factor, -base[e / 2]));
                    l[i][e / 2] += s[i][n][e];
                }
            }
        }
        add_weighed<ROW_TILES, SCORE_TILES, VALUE_WIDTH>(o, s, key_tile + KEY_TILE_BYTES, lane);
    }

#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float sum = sum_of_lanes<4>(l[i][r]);
            const int row = row_at(i, r), token = first + row;
            if (row >= rows) continue;
            const float inverse = 1.0f / sum;
            Element *const out = p.out + (((long long)sequence * p.tokens + token) * p.n_heads + head) * VALUE_DIM;
#pragma unroll
            for (int n = 0; n < VALUE_DIM / 8; ++n) {
                store_pair(out + 8 * n + 2 * t, o[i][n][2 * r] * inverse, o[i][n][2 * r + 1] * inverse);
            }
            if (p.lse != nullptr && t == 0) {
                p.lse[((long long)sequence * p.n_heads + head) * p.tokens + token] = p.scale * m[i][r] + logf(sum);
            }
        }
    }
}
