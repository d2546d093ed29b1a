// Decode by streams: every team of warps is a flash-decoding stream of its own over tiles of ENTRIES entries, with its
// own ring of STAGES tiles in shared memory; a block's streams take its tiles in turns and are joined at the end.
//
// A team has a warp for each of HEAD_TILES x COLUMN_GROUPS: 16 query heads (the rows of `mma`; heads that do not exist
// are zeros) and a share of the value columns. A tile is copied once for the whole team, and read as keys and, where
// values are the first columns of the keys, as values too. Warps of one head tile also share its scores: each has every
// COLUMN_GROUPS-th step of the dot products, and partial scores are added through shared memory, always in the same
// order, so that all of them have the same bits. A team of one warp needs no barrier of a block in its loop.
//
//   per tile:  s = Q K^T (f32);  m' = max(m, s);  p = 2^(factor (s - m'));  l = l 2^(factor (m - m')) + sum p
//              o = o 2^(factor (m - m')) + P V, P rounded to the element type; o is touched only where m moved
//
// Scores keep C's layout of m16n8k16, which is A's of the next product: lane (g, t) has rows g and g + 8, columns 2t
// and 2t + 1. For f32 the same lanes have the same scores and values, computed by multiply-adds without any rounding of
// the operands, ENTRIES being 8 then.
//
// Grid: x sequence and KV head, y blocks of 16 HEAD_TILES heads, z splits of the entries. Threads: TEAMS teams.
// Source: Flash-Decoding (Dao et al., 2023); keys read as values: FlashMLA. Combined as combine.cuh says.
// Not yet run on a GPU.
#pragma once
#include "combine.cuh"

// Macros: KEY_DIM, VALUE_DIM, VALUES_APART, HEADS (of a KV head), HEAD_TILES, COLUMN_GROUPS, TEAMS, ENTRIES, STAGES,
// COPY_BYTES, STRIDE (tokens of an entry), BLOCKS (of a multiprocessor), SHARED_BYTES.

constexpr int ROWS = 16 * HEAD_TILES; // heads of a block
constexpr int TEAM_WARPS = HEAD_TILES * COLUMN_GROUPS;
constexpr int TEAM_THREADS = TEAM_WARPS * WARP;
constexpr int THREADS = TEAMS * TEAM_THREADS;

constexpr int KEY_WIDTH = round_up(KEY_DIM, 16);     // elements of a row in shared memory
constexpr int VALUE_WIDTH = round_up(VALUE_DIM, 16); // the same of values, and of rows of results
constexpr int KEY_CHUNKS = KEY_WIDTH / IN_CHUNK;
constexpr int VALUE_CHUNKS = VALUES_APART ? VALUE_WIDTH / IN_CHUNK : KEY_CHUNKS;
constexpr int STEPS = KEY_WIDTH / 16;                                     // of a dot product
constexpr int COLUMN_TILES = VALUE_WIDTH / 16;                            // all
constexpr int OWN_COLUMN_TILES = ceil_div(COLUMN_TILES, COLUMN_GROUPS);   // of a warp
constexpr int SCORE_TILES = ENTRIES / 8;                                  // of 16 x 8

// Steps of a dot product that are unrolled. Of f32 each is sixteen loads, and more of them would take registers that
// the values need.
constexpr int UNROLLED_STEPS = DTYPE == DTYPE_F32 ? 1 : STEPS;

// Shared memory, in bytes: queries; stages, afterwards the parts; partial scores; maxima and sums of teams.
constexpr int KEY_TILE_BYTES = ENTRIES * KEY_WIDTH * ELEMENT_BYTES;
constexpr int STAGE_BYTES = KEY_TILE_BYTES + (VALUES_APART ? ENTRIES * VALUE_WIDTH * ELEMENT_BYTES : 0);
// Eight floats more than the columns: rows g and g + 1 of a fragment are written to different banks.
constexpr int PART_FLOATS = VALUE_WIDTH + 8;
constexpr int QUERY_BYTES = ROWS * KEY_WIDTH * ELEMENT_BYTES;
constexpr int RING_BYTES = max_of(TEAMS * STAGES * STAGE_BYTES, TEAMS * ROWS * PART_FLOATS * 4);
constexpr int SCORE_BYTES = COLUMN_GROUPS > 1 ? TEAMS * TEAM_WARPS * SCORE_TILES * WARP * 16 : 0;
constexpr int SUM_BYTES = TEAMS * ROWS * 8;
static_assert(SHARED_BYTES == QUERY_BYTES + RING_BYTES + SCORE_BYTES + SUM_BYTES, "the plan has the same sizes");
static_assert(DTYPE == DTYPE_F32 ? ENTRIES == 8 : ENTRIES == 16, "a tile of weights is one operand of mma");
static_assert(STAGES >= 2 && TEAMS <= 15, "a stage is filled while another is read; there are 15 barriers");

// Copies rows of DIM elements to a tile of N rows, by COUNT threads; zeros beyond `rows` and beyond DIM, since
// anything times zero must be zero.
template <int N, int DIM, int COUNT>
DEVICE void copy_rows(u32 to, const Element *from, int row_stride, int rows, int thread) {
    constexpr int WIDTH = round_up(DIM, 16);
    constexpr int CHUNKS = WIDTH / IN_CHUNK;
    constexpr int PIECES = WIDTH * ELEMENT_BYTES / COPY_BYTES; // of a row
    constexpr int REAL = DIM * ELEMENT_BYTES / COPY_BYTES;
    static_assert(DIM * ELEMENT_BYTES % COPY_BYTES == 0, "rows are whole pieces");
    int row = thread / PIECES, piece = thread % PIECES;
#pragma unroll 2
    for (int i = thread; i < N * PIECES; i += COUNT) {
        const int byte = piece * COPY_BYTES;
        const u32 at = to + swizzled<CHUNKS>(row, byte / CHUNK) * CHUNK + byte % CHUNK;
        const Element *source = from + (long long)row * row_stride + byte / ELEMENT_BYTES;
        copy_async<COPY_BYTES>(at, source, row < rows && piece < REAL);
        row += COUNT / PIECES, piece += COUNT % PIECES;
        if (piece >= PIECES) piece -= PIECES, ++row;
    }
    // Products need all lanes of a warp together, and some had a piece less.
    if constexpr (N * PIECES % COUNT != 0) __syncwarp();
}

// s += the dot products of 16 heads and ENTRIES entries over step `step`, 16 elements.
DEVICE void add_scores(float (&s)[SCORE_TILES][4], const char *queries, const char *keys, int step, int lane) {
#if DTYPE != DTYPE_F32
    u32 a[4], b[4];
    const int matrix = lane / 8, row = lane % 8;
    load_matrices(a, shared_address(queries) +
                         swizzled<KEY_CHUNKS>(matrix % 2 * 8 + row, 2 * step + matrix / 2) * CHUNK);
    load_matrices(b, shared_address(keys) +
                         swizzled<KEY_CHUNKS>(matrix / 2 * 8 + row, 2 * step + matrix % 2) * CHUNK);
    multiply(s[0], a, b[0], b[1]);
    multiply(s[1], a, b[2], b[3]);
#else
    const int g = lane / 4, t = lane % 4;
    const auto at = [&](const char *tile, int row, int chunk) {
        return *reinterpret_cast<const float4 *>(tile + swizzled<KEY_CHUNKS>(row, chunk) * CHUNK);
    };
    const auto add = [](float &to, float4 a, float4 b) {
        to = fmaf(a.x, b.x, to), to = fmaf(a.y, b.y, to), to = fmaf(a.z, b.z, to), to = fmaf(a.w, b.w, to);
    };
#pragma unroll
    for (int chunk = 4 * step; chunk < 4 * step + 4; ++chunk) {
        const float4 q[2] = {at(queries, g, chunk), at(queries, g + 8, chunk)};
        const float4 k[2] = {at(keys, 2 * t, chunk), at(keys, 2 * t + 1, chunk)};
#pragma unroll
        for (int i = 0; i < 4; ++i) add(s[0][i], q[i / 2], k[i % 2]);
    }
#endif
}

// o += P V for the 16 columns of tile `tile`; `o` are its two halves.
DEVICE void add_values(float (&low)[4], float (&high)[4], const float (&s)[SCORE_TILES][4], const char *values,
                       int tile, int lane) {
#if DTYPE != DTYPE_F32
    u32 b[4];
    // Rounded here and not before the loop: four registers for the compiler to keep or not.
    const u32 a[4] = {pair(s[0][0], s[0][1]), pair(s[0][2], s[0][3]), pair(s[1][0], s[1][1]), pair(s[1][2], s[1][3])};
    const int matrix = lane / 8, row = lane % 8;
    load_transposed(b, shared_address(values) +
                           swizzled<VALUE_CHUNKS>(matrix % 2 * 8 + row, 2 * tile + matrix / 2) * CHUNK);
    multiply(low, a, b[0], b[1]);
    multiply(high, a, b[2], b[3]);
#else
    const int t = lane % 4;
#pragma unroll
    for (int entry = 0; entry < ENTRIES; ++entry) {
        // Lane t of the four that have this lane's rows has the weights of entries 2t and 2t + 1.
        const float weight = __shfl_sync(ALL_LANES, s[0][entry % 2], entry / 2, 4);
        const float below = __shfl_sync(ALL_LANES, s[0][2 + entry % 2], entry / 2, 4);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int chunk = 4 * tile + 2 * half + t / 2;
            const float2 v = *reinterpret_cast<const float2 *>(
                values + swizzled<VALUE_CHUNKS>(entry, chunk) * CHUNK + t % 2 * 8);
            float(&o)[4] = half == 0 ? low : high;
            o[0] = fmaf(weight, v.x, o[0]), o[1] = fmaf(weight, v.y, o[1]);
            o[2] = fmaf(below, v.x, o[2]), o[3] = fmaf(below, v.y, o[3]);
        }
    }
#endif
}

DEVICE void team_barrier(int team) {
    if constexpr (TEAM_WARPS == 1) {
        __syncwarp();
    } else {
        barrier(1 + team, TEAM_THREADS);
    }
}

DEVICE void decode_by_streams(const Decode &p) {
    extern __shared__ __align__(128) char shared[];
    char *const queries = shared;
    char *const ring = shared + QUERY_BYTES;
    float4 *const partial_scores = reinterpret_cast<float4 *>(ring + RING_BYTES);
    float2 *const sums = reinterpret_cast<float2 *>(ring + RING_BYTES + SCORE_BYTES); // [TEAMS, ROWS]

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int team = warp / TEAM_WARPS, member = warp % TEAM_WARPS;
    const int head_tile = member / COLUMN_GROUPS, column_group = member % COLUMN_GROUPS;
    const int team_thread = threadIdx.x % TEAM_THREADS;
    const int sequence_head = blockIdx.x;
    const int sequence = sequence_head / p.n_kv_heads, kv_head = sequence_head % p.n_kv_heads;
    const int first_head = blockIdx.y * ROWS;
    const Range range = range_of(p.positions[sequence], STRIDE, p.capacity, blockIdx.z, gridDim.z, ENTRIES);
    if (blockIdx.z >= range.active) return;
    const int entries = range.to - range.from, tiles = ceil_div(entries, ENTRIES);

    const Element *keys =
        p.keys + sequence * p.key_batch_stride + kv_head * p.key_head_stride + (long long)range.from * p.key_row_stride;
    const Element *values = p.values + sequence * p.value_batch_stride + kv_head * p.value_head_stride +
                            (long long)range.from * p.value_row_stride;
    char *const own_ring = ring + team * STAGES * STAGE_BYTES;
    const auto copy_tile = [&](int tile, int stage) {
        const u32 to = shared_address(own_ring + stage * STAGE_BYTES);
        const int first = tile * ENTRIES;
        copy_rows<ENTRIES, KEY_DIM, TEAM_THREADS>(to, keys + (long long)first * p.key_row_stride, p.key_row_stride,
                                                  entries - first, team_thread);
        if constexpr (VALUES_APART) {
            copy_rows<ENTRIES, VALUE_DIM, TEAM_THREADS>(to + KEY_TILE_BYTES,
                                                        values + (long long)first * p.value_row_stride,
                                                        p.value_row_stride, entries - first, team_thread);
        }
    };

    copy_rows<ROWS, KEY_DIM, THREADS>(shared_address(queries),
                                      p.q + ((long long)sequence_head * HEADS + first_head) * KEY_DIM, KEY_DIM,
                                      HEADS - first_head, threadIdx.x);
    copies_commit();
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        const int tile = team + stage * TEAMS;
        if (tile < tiles) copy_tile(tile, stage);
        // Groups are counted, so that an empty one is one too.
        copies_commit();
    }
    // The queries, which are the whole block's.
    copies_wait<STAGES - 1>();
    __syncthreads();

    float o[2 * OWN_COLUMN_TILES][4];
#pragma unroll
    for (int i = 0; i < 2 * OWN_COLUMN_TILES; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;
    float m[2] = {minus_infinity(), minus_infinity()}; // of rows g and g + 8
    float l[2] = {0.0f, 0.0f};                         // of this lane's columns alone
    const char *const own_queries = queries + head_tile * 16 * KEY_WIDTH * ELEMENT_BYTES;

    int stage = 0;
    for (int tile = team; tile < tiles; tile += TEAMS) {
        copies_wait<STAGES - 2>();
        // Every copy of the tile is seen, and the stage that was read last is free.
        team_barrier(team);
        {
            const int next = tile + (STAGES - 1) * TEAMS;
            if (next < tiles) copy_tile(next, stage == 0 ? STAGES - 1 : stage - 1);
            copies_commit();
        }
        const char *const key_tile = own_ring + stage * STAGE_BYTES;
        const char *const value_tile = VALUES_APART ? key_tile + KEY_TILE_BYTES : key_tile;
        stage = stage == STAGES - 1 ? 0 : stage + 1;

        float s[SCORE_TILES][4] = {};
#pragma unroll UNROLLED_STEPS
        for (int i = 0; i < ceil_div(STEPS, COLUMN_GROUPS); ++i) {
            const int step = column_group + i * COLUMN_GROUPS;
            if (STEPS % COLUMN_GROUPS == 0 || step < STEPS) add_scores(s, own_queries, key_tile, step, lane);
        }
        if constexpr (COLUMN_GROUPS > 1) {
            float4 *const shared_scores =
                partial_scores + (team * TEAM_WARPS + head_tile * COLUMN_GROUPS) * SCORE_TILES * WARP;
#pragma unroll
            for (int n = 0; n < SCORE_TILES; ++n) {
                shared_scores[(column_group * SCORE_TILES + n) * WARP + lane] =
                    make_float4(s[n][0], s[n][1], s[n][2], s[n][3]);
            }
            team_barrier(team);
#pragma unroll
            for (int n = 0; n < SCORE_TILES; ++n) {
                s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll
                for (int group = 0; group < COLUMN_GROUPS; ++group) {
                    const float4 part = shared_scores[(group * SCORE_TILES + n) * WARP + lane];
                    s[n][0] += part.x, s[n][1] += part.y, s[n][2] += part.z, s[n][3] += part.w;
                }
            }
        }

        const int left = entries - tile * ENTRIES;
        if (left < ENTRIES) {
#pragma unroll
            for (int n = 0; n < SCORE_TILES; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (8 * n + lane % 4 * 2 + i % 2 >= left) s[n][i] = minus_infinity();
                }
            }
        }

        float top[2] = {m[0], m[1]};
#pragma unroll
        for (int n = 0; n < SCORE_TILES; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], s[n][i]);
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) top[r] = max_of_lanes<4>(top[r]);
        if (__any_sync(ALL_LANES, top[0] != m[0] || top[1] != m[1])) {
            const float by[2] = {shrink(m[0], top[0], p.factor), shrink(m[1], top[1], p.factor)};
            l[0] *= by[0], l[1] *= by[1];
            m[0] = top[0], m[1] = top[1];
#pragma unroll
            for (int i = 0; i < 2 * OWN_COLUMN_TILES; ++i) {
                o[i][0] *= by[0], o[i][1] *= by[0], o[i][2] *= by[1], o[i][3] *= by[1];
            }
        }
        const float base[2] = {p.factor * base_of(m[0]), p.factor * base_of(m[1])};
#pragma unroll
        for (int n = 0; n < SCORE_TILES; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[n][i] = exp2_fast(fmaf(s[n][i], p.factor, -base[i / 2]));
                l[i / 2] += s[n][i];
            }
        }
#pragma unroll
        for (int i = 0; i < OWN_COLUMN_TILES; ++i) {
            const int column_tile = column_group * OWN_COLUMN_TILES + i;
            if (COLUMN_TILES % COLUMN_GROUPS == 0 || column_tile < COLUMN_TILES) {
                add_values(o[2 * i], o[2 * i + 1], s, value_tile, column_tile, lane);
            }
        }
    }

    // Every stage has been read, and no copy is under way: the ring becomes the place of the parts.
    copies_wait<0>();
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        l[r] = sum_of_lanes<4>(l[r]);
        if (column_group == 0 && t == 0) sums[team * ROWS + head_tile * 16 + g + 8 * r] = make_float2(m[r], l[r]);
    }
    __syncthreads();
    float *const parts = reinterpret_cast<float *>(ring);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = head_tile * 16 + g + 8 * r;
        if (first_head + row >= HEADS) continue;
        const float by = shrink(m[r], total_of<TEAMS, ROWS>(sums, row, p.factor).x, p.factor);
        float *const part = parts + (team * ROWS + row) * PART_FLOATS;
#pragma unroll
        for (int i = 0; i < 2 * OWN_COLUMN_TILES; ++i) {
            const int column = 16 * column_group * OWN_COLUMN_TILES + 8 * i + 2 * t;
            if (column >= VALUE_WIDTH) continue;
            *reinterpret_cast<float2 *>(part + column) = make_float2(by * o[i][2 * r], by * o[i][2 * r + 1]);
        }
    }
    __syncthreads();
    finish<TEAMS, ROWS, PART_FLOATS, HEADS, VALUE_DIM, VALUE_WIDTH, THREADS>(p, parts, sums, range, sequence_head,
                                                                             first_head);
}
