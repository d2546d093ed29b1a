// What every kernel shares: elements in memory, places in shared memory, reductions in a warp; ptx.cuh has the rest.
//
// Needs no header of CUDA's, so that NVRTC compiles it where only the driver and NVRTC are installed. Every size is a
// macro that `Specialisation` defines. DTYPE is one of DTYPE_*; arithmetic is f32 whatever the elements are.
//
// Not yet run on a GPU.
#pragma once

#define DTYPE_F32 0
#define DTYPE_BF16 1
#define DTYPE_F16 2

#define DEVICE __device__ __forceinline__

// Of constants, at compile time too.
#define FUNCTION __host__ __device__ constexpr

// Every kernel uses its own part of this file.
#pragma nv_diag_suppress 177

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// ---- Constants ------------------------------------------------------------------------------------------------------

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

// Bytes of a chunk: what one thread copies at once, and what a row of `ldmatrix` is.
constexpr int CHUNK = 16;

FUNCTION int ceil_div(int a, int b) { return (a + b - 1) / b; }
FUNCTION int round_up(int a, int b) { return ceil_div(a, b) * b; }
FUNCTION int min_of(int a, int b) { return a < b ? a : b; }
FUNCTION int max_of(int a, int b) { return a > b ? a : b; }

DEVICE float minus_infinity() { return __int_as_float(0xff800000); }

// ---- Elements -------------------------------------------------------------------------------------------------------

#if DTYPE == DTYPE_F32
typedef float Element;
#else
struct Element {
    u16 bits;
};
#endif

constexpr int ELEMENT_BYTES = DTYPE == DTYPE_F32 ? 4 : 2;
// Elements of a chunk.
constexpr int IN_CHUNK = CHUNK / ELEMENT_BYTES;

// What one lane loads at once: BYTES (4, 8 or 16).
template <int BYTES> struct __align__(BYTES) Vector {
    u32 words[BYTES / 4];
};

#include "ptx.cuh"

// The nearest element as f32: what a tensor between two operations would hold.
DEVICE float rounded(float x) { return to_f32(from_f32(x)); }

// The elements of a vector.
template <int BYTES> DEVICE void widen(float (&to)[BYTES / ELEMENT_BYTES], const Vector<BYTES> &from) {
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) {
#if DTYPE == DTYPE_F32
        to[i] = __uint_as_float(from.words[i]);
#else
        to[2 * i] = to_f32(Element{u16(from.words[i] & 0xffff)});
        to[2 * i + 1] = to_f32(Element{u16(from.words[i] >> 16)});
#endif
    }
}

// Two elements side by side, `to` being that of an even column.
DEVICE void store_pair(Element *to, float low, float high) {
#if DTYPE == DTYPE_F32
    *reinterpret_cast<float2 *>(to) = make_float2(low, high);
#else
    *reinterpret_cast<u32 *>(to) = pair(low, high);
#endif
}

// ---- Shared memory --------------------------------------------------------------------------------------------------

// Where chunk `chunk` of row `row` lies in a tile of rows of CHUNKS chunks, in chunks. Eight rows of one column of
// chunks lie in eight different groups of banks, whatever CHUNKS is, without padding: an odd row length does that by
// itself, an even one has as many low bits of the column exchanged as it has trailing zeros.
// `cuda::swizzle` in Rust is the same function.
template <int CHUNKS> DEVICE int swizzled(int row, int chunk) {
    constexpr int BITS = CHUNKS % 8 == 0 ? 3 : CHUNKS % 4 == 0 ? 2 : CHUNKS % 2 == 0 ? 1 : 0;
    return row * CHUNKS + (chunk ^ ((row >> (3 - BITS)) & ((1 << BITS) - 1)));
}

// ---- Reductions and functions ---------------------------------------------------------------------------------------

// Over the LANES lanes that differ in the low bits of their number, every lane getting the result. The order is fixed.
template <int LANES> DEVICE float sum_of_lanes(float x) {
#pragma unroll
    for (int i = 1; i < LANES; i *= 2) x += __shfl_xor_sync(ALL_LANES, x, i);
    return x;
}

template <int LANES> DEVICE float max_of_lanes(float x) {
#pragma unroll
    for (int i = 1; i < LANES; i *= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, i));
    return x;
}

// RoPE of a head's pair i of DIM / 2: the elements (i, i + DIM / 2) where halves are paired, else (2 i, 2 i + 1), by
// the angle whose cosine and sine are given.
template <int DIM, bool PAIRS_HALVES>
DEVICE void turn_pair(Element *to, const Element *from, int i, float cos, float sin) {
    const int first = PAIRS_HALVES ? i : 2 * i;
    const int second = PAIRS_HALVES ? DIM / 2 + i : 2 * i + 1;
    const float a = to_f32(from[first]), b = to_f32(from[second]);
    to[first] = from_f32(a * cos - b * sin);
    to[second] = from_f32(a * sin + b * cos);
}

// What an online softmax subtracts: where there is nothing but -infinity any finite number gives the weights they
// deserve.
DEVICE float base_of(float max) { return max == minus_infinity() ? 0.0f : max; }

// What weights relative to maximum `from` are multiplied with to be relative to `to`, which is no less.
DEVICE float shrink(float from, float to, float factor) {
    // Equal ones may both be infinite.
    return from == to ? 1.0f : exp2_fast(factor * (from - to));
}
