// What every kernel shares: elements in memory, copies to shared memory, products of matrices in registers, reductions
// in a warp, powers of two.
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

#if DTYPE == DTYPE_F32
DEVICE float to_f32(Element x) { return x; }
DEVICE Element from_f32(float x) { return x; }
#elif DTYPE == DTYPE_BF16
DEVICE float to_f32(Element x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE Element from_f32(float x) {
    Element y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#else
DEVICE float to_f32(Element x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE Element from_f32(float x) {
    Element y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#endif

// The nearest element as f32: what a tensor between two operations would hold.
DEVICE float rounded(float x) { return to_f32(from_f32(x)); }

#if DTYPE != DTYPE_F32
// Two elements in a register, `low` at the lower address: a quarter of an operand of `mma`.
DEVICE u32 pair(float low, float high) {
    u32 both;
#if DTYPE == DTYPE_BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
    return both;
}
#endif

// ---- Global memory -------------------------------------------------------------------------------------------------

// What one lane loads at once: BYTES (4, 8 or 16).
template <int BYTES> struct __align__(BYTES) Vector {
    u32 words[BYTES / 4];
};

// Loads what the kernel does not write and nobody on this multiprocessor reads again.
template <int BYTES> DEVICE Vector<BYTES> load_once(const void *from) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "a load has 4, 8 or 16 bytes");
    Vector<BYTES> x;
    if constexpr (BYTES == 16) {
        asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
            : "l"(from));
    } else if constexpr (BYTES == 8) {
        asm("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
            : "=r"(x.words[0]), "=r"(x.words[1])
            : "l"(from));
    } else {
        asm("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(x.words[0]) : "l"(from));
    }
    return x;
}

// Loads what other multiprocessors wrote during this kernel.
DEVICE float4 load_past_first_cache(const float4 *from) {
    float4 x;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(from)
                 : "memory");
    return x;
}

DEVICE float2 load_past_first_cache(const float2 *from) {
    float2 x;
    asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(from) : "memory");
    return x;
}

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

DEVICE u32 shared_address(const void *at) { return u32(__cvta_generic_to_shared(at)); }

// Copies BYTES (4, 8 or 16) to shared memory without waiting; zeros where there is nothing to copy, and `from` is not
// read then.
template <int BYTES> DEVICE void copy_async(u32 to, const void *from, bool exists) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "a copy has 4, 8 or 16 bytes");
    int n = exists ? BYTES : 0;
    if constexpr (BYTES == 16) {
        // Past the first cache: nobody else on this multiprocessor reads it.
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(n)
                     : "memory");
    }
}

DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's groups of copies are under way.
template <int PENDING> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Waits for `threads` threads, a multiple of WARP, that name the same barrier, 1 to 15; 0 is __syncthreads'.
DEVICE void barrier(int name, int threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// ---- Products in registers ------------------------------------------------------------------------------------------
//
// Fragments of m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). With g = lane / 4, t = lane % 4, and pairs of
// neighbours in one register:
//   A, 16 x 16:  a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..), a[3] = (g + 8, 2t + 8..)
//   B, 16 x 8:   b[0] = (2t.., g), b[1] = (2t + 8.., g)
//   C, 16 x 8:   c[0], c[1] = (g, 2t..), c[2], c[3] = (g + 8, 2t..)
// Kernels keep C's layout for f32 operands too, whose products are multiply-adds: all that stands between two products
// is written once.

#if DTYPE != DTYPE_F32
// Four 8 x 8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
DEVICE void load_matrices(u32 (&to)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

// The same, each transposed.
DEVICE void load_transposed(u32 (&to)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

// c += a b.
DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if DTYPE == DTYPE_BF16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#endif
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

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

// 2^x with a relative error of 2^-22; 0 for -infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// What an online softmax subtracts: where there is nothing but -infinity any finite number gives the weights they
// deserve.
DEVICE float base_of(float max) { return max == minus_infinity() ? 0.0f : max; }

// What weights relative to maximum `from` are multiplied with to be relative to `to`, which is no less.
DEVICE float shrink(float from, float to, float factor) {
    // Equal ones may both be infinite.
    return from == to ? 1.0f : exp2_fast(factor * (from - to));
}
