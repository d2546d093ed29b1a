// What attend and its gradients share: rows wherever they lie, their copies to tiles in shared memory, and products of
// tiles by a warp.
//
// A tile has rows of a head, of WIDTH columns, DIM rounded up to a multiple of 16 with zeros. A warp has M times 16
// rows of a product, and all of its columns: with two of them every operand that is read from shared memory is used twice.
// Products keep C's layout of m16n8k16 (common.cuh), which is A's of the product that follows: weights never leave
// registers. For f32 the same lanes have the same elements, by multiply-adds without any rounding of the operands.
//
// Macros of both: OWN, whether queries have entries of their own; STRIDE s, tokens of a closed entry.
//
// Not yet run on a GPU.
#pragma once
#include "common.cuh"

// [B, heads, N, D]; the elements of a row lie side by side. Strides in elements, multiples of a chunk.
struct Rows {
    const Element *data;
    long long batch_stride;
    long long head_stride;
    long long row_stride;
};

DEVICE const Element *row_of(const Rows &rows, int sequence, int head, int row) {
    return rows.data + sequence * rows.batch_stride + head * rows.head_stride + row * rows.row_stride;
}

// Keys and values, one of each for every entry.
struct Entries {
    Rows k;      // [B, Hkv, N, Dk - Ds]
    Rows shared; // [B, 1, N, Ds]: the last columns of the keys of all heads; not read without any
    Rows v;      // [B, Hkv, N, Dv]
};

// A number that is known when the kernel is compiled, for functions without a name.
template <int N> struct Count {
    static constexpr int VALUE = N;
};

// One chunk of a row.
typedef Vector<CHUNK> Chunk;

DEVICE Chunk load_chunk(const Element *from) { return *reinterpret_cast<const Chunk *>(from); }

// x . y of a chunk.
DEVICE float dot(const Chunk &x, const Chunk &y, float sum) {
    float a[IN_CHUNK], b[IN_CHUNK];
    widen<CHUNK>(a, x);
    widen<CHUNK>(b, y);
#pragma unroll
    for (int i = 0; i < IN_CHUNK; ++i) sum = fmaf(a[i], b[i], sum);
    return sum;
}

// Two elements side by side.
DEVICE float2 load_pair(const Element *from) {
    float x[2];
    widen<2 * ELEMENT_BYTES>(x, *reinterpret_cast<const Vector<2 * ELEMENT_BYTES> *>(from));
    return make_float2(x[0], x[1]);
}

// Chunk `chunk` of a row whose last SHARED of DIM columns are a row of their own.
template <int DIM, int SHARED> DEVICE const Element *chunk_of(const Element *row, const Element *shared, int chunk) {
    constexpr int APART = (DIM - SHARED) / IN_CHUNK;
    if constexpr (SHARED == 0) return row + chunk * IN_CHUNK;
    return chunk < APART ? row + chunk * IN_CHUNK : shared + (chunk - APART) * IN_CHUNK;
}

// Copies a tile of N rows by THREADS threads; zeros beyond `rows` and beyond DIM, since anything times zero must be
// zero. The last SHARED columns come from rows of their own.
template <int N, int DIM, int SHARED, int THREADS>
DEVICE void copy_tile(u32 to, const Element *from, long long stride, const Element *shared, long long shared_stride,
                      int rows) {
    constexpr int CHUNKS = round_up(DIM, 16) / IN_CHUNK;
    static_assert(DIM % 8 == 0 && SHARED % 8 == 0, "both parts of a row are whole chunks");
#pragma unroll 2
    for (int i = threadIdx.x; i < N * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        const Element *source = chunk_of<DIM, SHARED>(from + row * stride, shared + row * shared_stride, chunk);
        copy_async<CHUNK>(to + swizzled<CHUNKS>(row, chunk) * CHUNK, source, row < rows && chunk * IN_CHUNK < DIM);
    }
}

// Steps of a dot product that are unrolled. Of f32 each is many loads, and more of them would take registers that sums
// need.
FUNCTION int unrolled(int steps) { return DTYPE == DTYPE_F32 ? 1 : steps; }

// c += A B^T, for 16 M rows of A and 8 N rows of B in shared memory, both of WIDTH columns.
template <int M, int N, int WIDTH>
DEVICE void add_products(float (&c)[M][N][4], const char *a_rows, const char *b_rows, int lane) {
    constexpr int CHUNKS = WIDTH / IN_CHUNK, STEPS = WIDTH / 16;
    constexpr int TILE_BYTES = 16 * WIDTH * ELEMENT_BYTES; // of 16 rows, which are whole turns of the swizzle
    static_assert(N % 2 == 0, "B is read 16 rows at a time");
#pragma unroll(unrolled(STEPS))
    for (int step = 0; step < STEPS; ++step) {
#if DTYPE != DTYPE_F32
        const int matrix = lane / 8, row = lane % 8;
        const u32 a_at = swizzled<CHUNKS>(matrix % 2 * 8 + row, 2 * step + matrix / 2) * CHUNK;
        const u32 b_at = swizzled<CHUNKS>(matrix / 2 * 8 + row, 2 * step + matrix % 2) * CHUNK;
        u32 a[M][4];
#pragma unroll
        for (int tile = 0; tile < M; ++tile) {
            load_matrices(a[tile], shared_address(a_rows) + tile * TILE_BYTES + a_at);
        }
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            u32 b[4];
            load_matrices(b, shared_address(b_rows) + n / 2 * TILE_BYTES + b_at);
#pragma unroll
            for (int tile = 0; tile < M; ++tile) {
                multiply(c[tile][n], a[tile], b[0], b[1]);
                multiply(c[tile][n + 1], a[tile], b[2], b[3]);
            }
        }
#else
        const int g = lane / 4, t = lane % 4;
#pragma unroll
        for (int chunk = 4 * step; chunk < 4 * step + 4; ++chunk) {
            const auto at = [&](const char *rows, int row) {
                return *reinterpret_cast<const float4 *>(rows + swizzled<CHUNKS>(row, chunk) * CHUNK);
            };
            const auto add = [](float &to, float4 a, float4 b) {
                to = fmaf(a.x, b.x, to), to = fmaf(a.y, b.y, to), to = fmaf(a.z, b.z, to), to = fmaf(a.w, b.w, to);
            };
            float4 a[M][2];
#pragma unroll
            for (int tile = 0; tile < M; ++tile) {
                a[tile][0] = at(a_rows, 16 * tile + g), a[tile][1] = at(a_rows, 16 * tile + g + 8);
            }
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const float4 b[2] = {at(b_rows, 8 * n + 2 * t), at(b_rows, 8 * n + 2 * t + 1)};
#pragma unroll
                for (int tile = 0; tile < M; ++tile) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) add(c[tile][n][i], a[tile][i / 2], b[i % 2]);
                }
            }
        }
#endif
    }
}

// c += W B, for weights W of 16 M rows and 8 N columns, rounded to the element type, and 8 N rows of B in shared
// memory, of WIDTH columns.
template <int M, int N, int WIDTH>
DEVICE void add_weighed(float (&c)[M][WIDTH / 8][4], const float (&w)[M][N][4], const char *b_rows,
                        int lane) {
    constexpr int CHUNKS = WIDTH / IN_CHUNK;
#if DTYPE != DTYPE_F32
    constexpr int TILE_BYTES = 16 * WIDTH * ELEMENT_BYTES;
    const int matrix = lane / 8, row = lane % 8;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        u32 a[M][4];
#pragma unroll
        for (int tile = 0; tile < M; ++tile) {
            const float(&low)[4] = w[tile][n], (&high)[4] = w[tile][n + 1];
            a[tile][0] = pair(low[0], low[1]), a[tile][1] = pair(low[2], low[3]);
            a[tile][2] = pair(high[0], high[1]), a[tile][3] = pair(high[2], high[3]);
        }
#pragma unroll
        for (int columns = 0; columns < WIDTH / 16; ++columns) {
            u32 b[4];
            load_transposed(b, shared_address(b_rows) + n / 2 * TILE_BYTES +
                                   swizzled<CHUNKS>(matrix % 2 * 8 + row, 2 * columns + matrix / 2) * CHUNK);
#pragma unroll
            for (int tile = 0; tile < M; ++tile) {
                multiply(c[tile][2 * columns], a[tile], b[0], b[1]);
                multiply(c[tile][2 * columns + 1], a[tile], b[2], b[3]);
            }
        }
    }
#else
    const int t = lane % 4;
    // This lane's columns of a pair of chunks, as the pair lies and exchanged. All else of an address is known when the
    // kernel is compiled.
    const char *const own[2] = {b_rows + t / 2 * CHUNK + t % 2 * 8, b_rows + (1 - t / 2) * CHUNK + t % 2 * 8};
#pragma unroll
    for (int row = 0; row < 8 * N; ++row) {
        float weights[M][2];
#pragma unroll
        for (int tile = 0; tile < M; ++tile) {
            // Lane row / 2 of the four that have this lane's rows has the weights of this row and its neighbour.
            weights[tile][0] = __shfl_sync(ALL_LANES, w[tile][row / 8][row % 2], row % 8 / 2, 4);
            weights[tile][1] = __shfl_sync(ALL_LANES, w[tile][row / 8][2 + row % 2], row % 8 / 2, 4);
        }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n) {
            const int at = swizzled<CHUNKS>(row, 2 * n);
            const float2 b = *reinterpret_cast<const float2 *>(own[at % 2] + at / 2 * 2 * CHUNK);
#pragma unroll
            for (int tile = 0; tile < M; ++tile) {
                float(&o)[4] = c[tile][n];
                o[0] = fmaf(weights[tile][0], b.x, o[0]), o[1] = fmaf(weights[tile][0], b.y, o[1]);
                o[2] = fmaf(weights[tile][1], b.x, o[2]), o[3] = fmaf(weights[tile][1], b.y, o[3]);
            }
        }
    }
#endif
}

static_assert(OWN || STRIDE == 1, "tokens of an open block are seen by their own entries alone");

// Closed entries that a query at this position sees: those of blocks before its own, which it sees by its own entry;
// without own entries those of all tokens up to its own.
DEVICE int seen_from(int position) { return OWN ? position / STRIDE : position + 1; }
