// The gradients of attend by recomputation: weights come again from the logarithms of their sums, no [T, T] is kept.
//
//   P = e^(scale Q K^T - lse),  D = rowsum(dO o O),  dS = P o (dO V^T - D)
//   dV = P^T dO,  dQ = scale dS K,  dK = scale dS^T Q
//
// A query's own entry is one more key, which it alone sees. One source, a PASS of it for each launch, in this order:
//
//   ROWS     D of every row, with its logarithm; of its own entry P and dS
//   QUERIES  dQ: a block has ROWS queries of a head and goes through tiles of COLUMNS closed entries
//   ENTRIES  dK and dV: a block has ROWS closed entries of a KV head and goes through tiles of COLUMNS queries, of one
//            head of the group after another; the transposed products give P^T and dS^T in registers
//   KEYS, VALUES  the same for dK alone and dV alone, where sums of both take more registers than there are
//   OWN_ENTRIES   dK and dV of own entries that close no block
//   SHARED   columns that all heads share: the sum of what each KV head has
//
// No two threads add to one place and no sum depends on when a block runs: the same bits every time. Where closed
// entries are rows of the own ones, gradients go to those rows: ENTRIES begins with the own entry's terms. Weights and
// their gradients are rounded to the element type for products, which add up in f32.
//
// A warp's 16 ROW_TILES rows are of A, tiles of COLUMNS of B, and the products those of attend.cuh; the next tile is
// copied while one is computed.
// Source: FlashAttention-2 (Dao, 2023), section 3.1.2; D and the order of the loops.
// Not yet run on a GPU.
#include "attend.cuh"

#define PASS_ROWS 0
#define PASS_QUERIES 1
#define PASS_ENTRIES 2
#define PASS_KEYS 3
#define PASS_VALUES 4
#define PASS_OWN_ENTRIES 5
#define PASS_SHARED 6

// PASS; KEY_DIM Dk, SHARED_DIM Ds of it, VALUE_DIM Dv; WARPS. Of the passes with tiles: ROW_TILES, COLUMNS, BLOCKS (of a
// multiprocessor), SHARED_BYTES.

struct AttendBackward {
    Rows q;                   // [B, H, T, Dk]
    Entries closed;           // N entries
    Entries own;              // T entries, with OWN
    Rows grad;                // [B, H, T, Dv]: dO
    const Element *out;       // [B, T, H, Dv]
    const float *lse;         // [B, H, T]
    float2 *rows;             // [B, H, T]: lse log2(e), and D
    float2 *own_weights;      // [B, H, T]: P and dS of own entries, with OWN
    float *shared_parts;      // [B, Hkv, M, Ds]
    Element *dq;              // [B, T, H, Dk]
    Element *dk;              // [B, M, Hkv, Dk - Ds] at the strides below, M = T with OWN and otherwise N
    Element *dv;              // [B, M, Hkv, Dv] at the strides below
    Element *dshared;         // [B, M, Ds]
    long long dk_row_stride;  // elements, as all strides
    long long dk_head_stride;
    long long dv_row_stride;
    long long dv_head_stride;
    int batch;                // B
    int n_heads;              // H
    int n_kv_heads;           // Hkv
    int tokens;               // T
    int n_keys;               // N
    int start;                // position of the first query
    float factor;             // of the scores, times log2(e)
    float scale;              // of the scores
};
static_assert(sizeof(AttendBackward) == 392, "AttendBackwardParams is the same");

constexpr int THREADS = WARPS * WARP;
constexpr int KEY_CHUNKS = KEY_DIM / IN_CHUNK;
constexpr int VALUE_CHUNKS = VALUE_DIM / IN_CHUNK;

// Number of a row of [B, H, T].
DEVICE long long place_of(const AttendBackward &p, int sequence, int head, int token) {
    return ((long long)sequence * p.n_heads + head) * p.tokens + token;
}

// Entries that have gradients, M.
DEVICE int n_entries(const AttendBackward &p) { return OWN ? p.tokens : p.n_keys; }

// Which of them closed entry `j` is.
DEVICE int entry_of(int j) { return OWN ? (j + 1) * STRIDE - 1 : j; }

#if PASS == PASS_ROWS

// Lanes of a row.
constexpr int LANES = 8;

extern "C" __global__ void __launch_bounds__(THREADS) attend_backward(const AttendBackward p) {
    const int lane = threadIdx.x % LANES;
    const long long n = (long long)p.batch * p.tokens * p.n_heads;
    const long long at = (long long)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    // Rows beyond the last one are it again: every lane takes part in the sums.
    const long long row = at < n ? at : n - 1;
    const int head = int(row % p.n_heads), token = int(row / p.n_heads % p.tokens);
    const int sequence = int(row / p.n_heads / p.tokens);
    const Element *const out = p.out + row * VALUE_DIM;
    const Element *const grad = row_of(p.grad, sequence, head, token);
    float d = 0.0f;
    for (int chunk = lane; chunk < VALUE_CHUNKS; chunk += LANES) {
        d = dot(load_chunk(grad + chunk * IN_CHUNK), load_chunk(out + chunk * IN_CHUNK), d);
    }
    d = sum_of_lanes<LANES>(d);
    const long long place = place_of(p, sequence, head, token);
    const float lse = p.lse[place] * LOG2_E;
    if (at < n && lane == 0) p.rows[place] = make_float2(lse, d);
#if OWN
    const int kv_head = head / (p.n_heads / p.n_kv_heads);
    const Element *const q = row_of(p.q, sequence, head, token);
    const Element *const key = row_of(p.own.k, sequence, kv_head, token);
    const Element *const shared_key = SHARED_DIM > 0 ? row_of(p.own.shared, sequence, 0, token) : key;
    const Element *const value = row_of(p.own.v, sequence, kv_head, token);
    float score = 0.0f, dp = 0.0f;
    for (int chunk = lane; chunk < KEY_CHUNKS; chunk += LANES) {
        const Element *const of_key = chunk_of<KEY_DIM, SHARED_DIM>(key, shared_key, chunk);
        score = dot(load_chunk(q + chunk * IN_CHUNK), load_chunk(of_key), score);
    }
    for (int chunk = lane; chunk < VALUE_CHUNKS; chunk += LANES) {
        dp = dot(load_chunk(grad + chunk * IN_CHUNK), load_chunk(value + chunk * IN_CHUNK), dp);
    }
    score = sum_of_lanes<LANES>(score), dp = sum_of_lanes<LANES>(dp);
    const float weight = exp2_fast(fmaf(score, p.factor, -lse));
    if (at < n && lane == 0) p.own_weights[place] = make_float2(weight, weight * (dp - d));
#endif
}

#elif PASS == PASS_OWN_ENTRIES

// A thread has a chunk of a row of dK or dV.
extern "C" __global__ void __launch_bounds__(THREADS) attend_backward(const AttendBackward p) {
    constexpr int CHUNKS = KEY_CHUNKS + VALUE_CHUNKS;
    const long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    const long long row = at / CHUNKS;
    const int chunk = int(at % CHUNKS);
    const int kv_head = int(row % p.n_kv_heads), token = int(row / p.n_kv_heads % p.tokens);
    const int sequence = int(row / p.n_kv_heads / p.tokens);
    const bool closes = token % STRIDE == STRIDE - 1 && token / STRIDE < p.n_keys;
    if (sequence >= p.batch || closes) return;
    const bool is_key = chunk < KEY_CHUNKS;
    const int column = (is_key ? chunk : chunk - KEY_CHUNKS) * IN_CHUNK;
    const int group = p.n_heads / p.n_kv_heads;
    float sum[IN_CHUNK] = {};
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const float2 weights = p.own_weights[place_of(p, sequence, head, token)];
        const float weight = is_key ? weights.y : weights.x;
        const Element *const from = row_of(is_key ? p.q : p.grad, sequence, head, token) + column;
        float x[IN_CHUNK];
        widen<CHUNK>(x, load_chunk(from));
#pragma unroll
        for (int i = 0; i < IN_CHUNK; ++i) sum[i] = fmaf(weight, x[i], sum[i]);
    }
    const long long entry = (long long)sequence * p.tokens + token;
    if (is_key) {
#pragma unroll
        for (int i = 0; i < IN_CHUNK; ++i) sum[i] *= p.scale;
    }
    if (is_key && column >= KEY_DIM - SHARED_DIM) {
        const long long part = ((long long)sequence * p.n_kv_heads + kv_head) * p.tokens + token;
        float *const to = p.shared_parts + part * SHARED_DIM + column - (KEY_DIM - SHARED_DIM);
#pragma unroll
        for (int i = 0; i < IN_CHUNK; ++i) to[i] = sum[i];
        return;
    }
    Element *const to = is_key ? p.dk + entry * p.dk_row_stride + kv_head * p.dk_head_stride + column
                               : p.dv + entry * p.dv_row_stride + kv_head * p.dv_head_stride + column;
#pragma unroll
    for (int i = 0; i < IN_CHUNK; i += 2) store_pair(to + i, sum[i], sum[i + 1]);
}

#elif PASS == PASS_SHARED

// A thread has four columns of an entry.
extern "C" __global__ void __launch_bounds__(THREADS) attend_backward(const AttendBackward p) {
    constexpr int FOURS = SHARED_DIM / 4;
    const long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    const long long row = at / FOURS, n = n_entries(p);
    const int column = int(at % FOURS) * 4;
    const long long sequence = row / n, entry = row % n;
    if (sequence >= p.batch) return;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (int kv_head = 0; kv_head < p.n_kv_heads; ++kv_head) {
        const float *const from = p.shared_parts + ((sequence * p.n_kv_heads + kv_head) * n + entry) * SHARED_DIM + column;
        const float4 one = *reinterpret_cast<const float4 *>(from);
        sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
    }
    Element *const to = p.dshared + row * SHARED_DIM + column;
    store_pair(to, sum.x, sum.y);
    store_pair(to + 2, sum.z, sum.w);
}

#else

constexpr bool OF_QUERIES = PASS == PASS_QUERIES;
constexpr bool HAS_KEYS = PASS != PASS_VALUES;                    // dQ or dK is added up
constexpr bool HAS_VALUES = PASS == PASS_ENTRIES || PASS == PASS_VALUES; // dV is
constexpr int WARP_ROWS = 16 * ROW_TILES;
constexpr int ROWS = WARPS * WARP_ROWS; // of a block
constexpr int KEY_WIDTH = round_up(KEY_DIM, 16);     // elements of a row of Q and K in shared memory
constexpr int VALUE_WIDTH = round_up(VALUE_DIM, 16); // of dO and V
constexpr int N = COLUMNS / 8;                       // tiles of 16 x 8 of the weights

// Shared memory, in bytes: rows of Q or K, then of dO or V; two stages of tiles of the others. Where columns are queries
// a stage also has their logarithms and D.
constexpr int FIRST_BYTES = ROWS * KEY_WIDTH * ELEMENT_BYTES;
constexpr int SECOND_BYTES = ROWS * VALUE_WIDTH * ELEMENT_BYTES;
constexpr int FIRST_TILE_BYTES = COLUMNS * KEY_WIDTH * ELEMENT_BYTES;
constexpr int SECOND_TILE_BYTES = COLUMNS * VALUE_WIDTH * ELEMENT_BYTES;
constexpr int STAGE_BYTES = FIRST_TILE_BYTES + SECOND_TILE_BYTES + (OF_QUERIES ? 0 : COLUMNS * 8);
static_assert(SHARED_BYTES == FIRST_BYTES + SECOND_BYTES + 2 * STAGE_BYTES, "the plan has the same sizes");

// c += weight x for the columns that a lane has of a row.
template <int TILES> DEVICE void add_row(float (&c)[TILES][4], int r, float weight, const Element *from, int column) {
    const float2 x = load_pair(from);
    c[column][2 * r] = fmaf(weight, x.x, c[column][2 * r]);
    c[column][2 * r + 1] = fmaf(weight, x.y, c[column][2 * r + 1]);
}

// Grid: x heads (query heads of QUERIES, else KV heads), y blocks of rows, those with the most columns first, z sequences.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attend_backward(const AttendBackward p) {
    extern __shared__ __align__(128) char shared[];
    char *const first_rows = shared;
    char *const second_rows = shared + FIRST_BYTES;
    char *const ring = second_rows + SECOND_BYTES;

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int g = lane / 4, t = lane % 4;
    const int group = p.n_heads / p.n_kv_heads, sequence = blockIdx.z;
    const int kv_head = OF_QUERIES ? blockIdx.x / group : blockIdx.x;
    const int first_head = OF_QUERIES ? blockIdx.x : kv_head * group;
    const int all_rows = OF_QUERIES ? p.tokens : p.n_keys;
    const int first = (OF_QUERIES ? gridDim.y - 1 - blockIdx.y : blockIdx.y) * ROWS;
    const int rows = min(ROWS, all_rows - first);
    const auto seen_by = [&](int token) { return seen_from(p.start + token); };

    // Tiles of columns: of entries those that the last query sees; of queries those from the first that sees the first
    // entry, for each head of the group.
    const int seen = seen_by(first + rows - 1);
    const int first_token = max((OWN ? (first + 1) * STRIDE : first) - p.start, 0);
    const int first_tile = OF_QUERIES ? 0 : first_token / COLUMNS;
    const int last_column = OF_QUERIES ? seen : p.tokens;
    const int head_tiles = max(ceil_div(last_column, COLUMNS) - first_tile, 0);
    const int tiles = OF_QUERIES ? head_tiles : group * head_tiles;

    const auto copy_entries = [&](auto count, u32 to, u32 values_to, int from, int left) {
        constexpr int COUNT = decltype(count)::VALUE;
        const Element *const keys = row_of(p.closed.k, sequence, kv_head, from);
        const Element *const shared_keys = SHARED_DIM > 0 ? row_of(p.closed.shared, sequence, 0, from) : keys;
        const Element *const values = row_of(p.closed.v, sequence, kv_head, from);
        copy_tile<COUNT, KEY_DIM, SHARED_DIM, THREADS>(to, keys, p.closed.k.row_stride, shared_keys,
                                                       p.closed.shared.row_stride, left);
        copy_tile<COUNT, VALUE_DIM, 0, THREADS>(values_to, values, p.closed.v.row_stride, values, 0, left);
    };
    const auto copy_queries = [&](auto count, u32 to, u32 grad_to, int head, int from, int left) {
        constexpr int COUNT = decltype(count)::VALUE;
        const Element *const q = row_of(p.q, sequence, head, from);
        const Element *const grad = row_of(p.grad, sequence, head, from);
        copy_tile<COUNT, KEY_DIM, 0, THREADS>(to, q, p.q.row_stride, q, 0, left);
        copy_tile<COUNT, VALUE_DIM, 0, THREADS>(grad_to, grad, p.grad.row_stride, grad, 0, left);
    };
    const auto copy_stage = [&](int tile) {
        const u32 to = shared_address(ring + tile % 2 * STAGE_BYTES);
        if constexpr (OF_QUERIES) {
            copy_entries(Count<COLUMNS>(), to, to + FIRST_TILE_BYTES, tile * COLUMNS, seen - tile * COLUMNS);
        } else {
            const int head = first_head + tile / head_tiles, from = (first_tile + tile % head_tiles) * COLUMNS;
            const int left = p.tokens - from;
            copy_queries(Count<COLUMNS>(), to, to + FIRST_TILE_BYTES, head, from, left);
            const float2 *const stats = p.rows + place_of(p, sequence, head, from);
            const u32 stats_to = to + FIRST_TILE_BYTES + SECOND_TILE_BYTES;
            for (int i = threadIdx.x; i < COLUMNS; i += THREADS) copy_async<8>(stats_to + 8 * i, stats + i, i < left);
        }
    };
    {
        const u32 to = shared_address(first_rows), second_to = shared_address(second_rows);
        if constexpr (OF_QUERIES) {
            copy_queries(Count<ROWS>(), to, second_to, first_head, first, rows);
        } else {
            copy_entries(Count<ROWS>(), to, second_to, first, rows);
        }
    }
    if (tiles > 0) copy_stage(0);
    copies_commit();

    const int warp_first = warp * WARP_ROWS;
    // Of this lane: row g + 8 r of row tile i, as far as there is one.
    const auto row_at = [&](int i, int r) { return first + warp_first + 16 * i + 8 * r + g; };
    float keys[ROW_TILES][KEY_WIDTH / 8][4] = {};     // dQ or dK
    float values[ROW_TILES][VALUE_WIDTH / 8][4] = {}; // dV
    float2 stats[ROW_TILES][2];                       // of rows that are queries
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = min(row_at(i, r), all_rows - 1);
            if constexpr (OF_QUERIES) {
                const long long place = place_of(p, sequence, first_head, row);
                stats[i][r] = p.rows[place];
                if constexpr (OWN) {
                    const float weight = p.own_weights[place].y;
                    const Element *const key = row_of(p.own.k, sequence, kv_head, row) + 2 * t;
                    const Element *const shared_key =
                        SHARED_DIM > 0 ? row_of(p.own.shared, sequence, 0, row) + 2 * t : key;
#pragma unroll
                    for (int n = 0; n < KEY_DIM / 8; ++n) {
                        constexpr int APART = (KEY_DIM - SHARED_DIM) / 8;
                        const Element *const from = n < APART ? key + 8 * n : shared_key + 8 * (n - APART);
                        add_row(keys[i], r, weight, from, n);
                    }
                }
            } else if constexpr (OWN) {
                const int token = entry_of(row);
                for (int head = first_head; head < first_head + group; ++head) {
                    const float2 weights = p.own_weights[place_of(p, sequence, head, token)];
                    if constexpr (HAS_KEYS) {
                        const Element *const q = row_of(p.q, sequence, head, token) + 2 * t;
#pragma unroll
                        for (int n = 0; n < KEY_DIM / 8; ++n) add_row(keys[i], r, weights.y, q + 8 * n, n);
                    }
                    if constexpr (HAS_VALUES) {
                        const Element *const grad = row_of(p.grad, sequence, head, token) + 2 * t;
#pragma unroll
                        for (int n = 0; n < VALUE_DIM / 8; ++n) add_row(values[i], r, weights.x, grad + 8 * n, n);
                    }
                }
            }
        }
    }

    const char *const own_first = first_rows + warp_first * KEY_WIDTH * ELEMENT_BYTES;
    const char *const own_second = second_rows + warp_first * VALUE_WIDTH * ELEMENT_BYTES;
    const int warp_rows = min(WARP_ROWS, rows - warp_first);
    for (int tile = 0; tile < tiles; ++tile) {
        copies_wait<0>();
        // Every copy of the tile is seen, and the stage that was read last is free.
        __syncthreads();
        if (tile + 1 < tiles) copy_stage(tile + 1);
        copies_commit();
        const int from = (OF_QUERIES ? tile : first_tile + tile % head_tiles) * COLUMNS;
        const int last = min(from + COLUMNS, last_column) - 1;
        // The most and the least that a query sees, against the first and the last entry, of the warp's rows and the tile.
        const int first_row = first + warp_first, last_row = first_row + warp_rows - 1;
        const int most = seen_by(OF_QUERIES ? last_row : last), least = seen_by(OF_QUERIES ? first_row : from);
        const int first_entry = OF_QUERIES ? from : first_row, last_entry = OF_QUERIES ? from + COLUMNS - 1 : last_row;
        if (warp_rows <= 0 || most <= first_entry) continue;
        const char *const first_tile_rows = ring + tile % 2 * STAGE_BYTES;
        const char *const second_tile_rows = first_tile_rows + FIRST_TILE_BYTES;
        const float2 *const column_stats = reinterpret_cast<const float2 *>(second_tile_rows + SECOND_TILE_BYTES);

        float s[ROW_TILES][N][4] = {};
        float ds[ROW_TILES][N][4] = {};
        add_products<ROW_TILES, N, KEY_WIDTH>(s, own_first, first_tile_rows, lane);
        if constexpr (HAS_KEYS) add_products<ROW_TILES, N, VALUE_WIDTH>(ds, own_second, second_tile_rows, lane);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            float2 of_column[2];
            if constexpr (!OF_QUERIES) of_column[0] = column_stats[8 * n + 2 * t], of_column[1] = column_stats[8 * n + 2 * t + 1];
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float2 stat = OF_QUERIES ? stats[i][e / 2] : of_column[e % 2];
                    s[i][n][e] = exp2_fast(fmaf(s[i][n][e], p.factor, -stat.x));
                    ds[i][n][e] = s[i][n][e] * (ds[i][n][e] - stat.y);
                }
            }
        }
        if (least <= last_entry) {
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
                for (int n = 0; n < N; ++n) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const int row = row_at(i, e / 2), column = from + 8 * n + 2 * t + e % 2;
                        const bool hidden = OF_QUERIES ? column >= seen_by(row) : row >= seen_by(column);
                        if (hidden) s[i][n][e] = ds[i][n][e] = 0.0f;
                    }
                }
            }
        }
        if constexpr (HAS_VALUES) add_weighed<ROW_TILES, N, VALUE_WIDTH>(values, s, second_tile_rows, lane);
        if constexpr (HAS_KEYS) add_weighed<ROW_TILES, N, KEY_WIDTH>(keys, ds, first_tile_rows, lane);
    }
    copies_wait<0>();

#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = row_at(i, r);
            if (row >= all_rows) continue;
            if constexpr (OF_QUERIES) {
                Element *const to =
                    p.dq + (((long long)sequence * p.tokens + row) * p.n_heads + first_head) * KEY_DIM + 2 * t;
#pragma unroll
                for (int n = 0; n < KEY_DIM / 8; ++n) {
                    store_pair(to + 8 * n, keys[i][n][2 * r] * p.scale, keys[i][n][2 * r + 1] * p.scale);
                }
                continue;
            }
            const int entry = entry_of(row);
            const long long at = (long long)sequence * n_entries(p) + entry;
            if constexpr (HAS_KEYS) {
                constexpr int APART = (KEY_DIM - SHARED_DIM) / 8;
                Element *const to = p.dk + at * p.dk_row_stride + kv_head * p.dk_head_stride + 2 * t;
                const long long part = ((long long)sequence * p.n_kv_heads + kv_head) * n_entries(p) + entry;
                float *const shared_to = p.shared_parts + part * SHARED_DIM + 2 * t;
#pragma unroll
                for (int n = 0; n < KEY_DIM / 8; ++n) {
                    const float low = keys[i][n][2 * r] * p.scale, high = keys[i][n][2 * r + 1] * p.scale;
                    if (n < APART) {
                        store_pair(to + 8 * n, low, high);
                    } else {
                        *reinterpret_cast<float2 *>(shared_to + 8 * (n - APART)) = make_float2(low, high);
                    }
                }
            }
            if constexpr (HAS_VALUES) {
                Element *const to = p.dv + at * p.dv_row_stride + kv_head * p.dv_head_stride + 2 * t;
#pragma unroll
                for (int n = 0; n < VALUE_DIM / 8; ++n) {
                    store_pair(to + 8 * n, values[i][n][2 * r], values[i][n][2 * r + 1]);
                }
            }
        }
    }
}

#endif
