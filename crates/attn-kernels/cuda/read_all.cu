// Read all of a buffer once, as fast as memory gives it. What decode is held against, and what empties the L2 cache
// before a cold sample: it is read and not written, since lines that were written would go back to memory later, while
// something is timed.
//
//   sums[block] += the words of the block's vectors, modulo 2^32
//
// The sums are there so that no load can be left out, and so that a test sees that each word was read once.
//
// Mapping: a tile is THREADS * LOADS vectors, the blocks take tiles in turns, and in a tile a thread has every THREADS-th
// vector: a warp reads 512 bytes side by side. A thread asks for all of its vectors of a tile before it adds the first,
// so that a multiprocessor waits for some 128 KiB at a time, four times what hides the latency of an H200's memory.
//
// Not yet run on a GPU.
#include "common.cuh"

// Macros: THREADS, LOADS.

struct ReadAll {
    const void *from; // [vectors] of 16 bytes
    u32 *sums;        // [blocks], added to
    long long vectors;
};
static_assert(sizeof(ReadAll) == 24, "ReadAllParams is the same");

extern "C" __global__ void __launch_bounds__(THREADS) read_all(const ReadAll p) {
    constexpr int TILE = THREADS * LOADS;
    const auto *from = static_cast<const Vector<CHUNK> *>(p.from);
    u32 sum = 0;
    const long long step = (long long)gridDim.x * TILE;
    for (long long tile = (long long)blockIdx.x * TILE; tile < p.vectors; tile += step) {
        const long long first = tile + threadIdx.x;
        Vector<CHUNK> loaded[LOADS];
        if (tile + TILE <= p.vectors) {
#pragma unroll
            for (int i = 0; i < LOADS; ++i) loaded[i] = load_once<CHUNK>(from + first + i * THREADS);
        } else {
#pragma unroll
            for (int i = 0; i < LOADS; ++i) {
                const long long at = first + i * THREADS;
                loaded[i] = at < p.vectors ? load_once<CHUNK>(from + at) : Vector<CHUNK>{};
            }
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
#pragma unroll
            for (int word = 0; word < CHUNK / 4; ++word) sum += loaded[i].words[word];
        }
    }
#pragma unroll
    for (int i = 1; i < WARP; i *= 2) {
        sum += __float_as_uint(__shfl_xor_sync(ALL_LANES, __uint_as_float(sum), i));
    }
    if (threadIdx.x % WARP == 0) atomicAdd(p.sums + blockIdx.x, sum);
}
