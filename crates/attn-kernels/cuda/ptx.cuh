// Instructions that C++ has no words for: conversions, copies to shared memory, barriers, products of matrices in
// registers, powers of two. Included by common.cuh, whose types it uses.
//
// Not yet run on a GPU.
#pragma once

#ifdef PTX_STAND_IN
// The same functions in C++, with which tests run kernels on a host.
#include PTX_STAND_IN
#else

// ---- Elements -------------------------------------------------------------------------------------------------------

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

// ---- Global memory --------------------------------------------------------------------------------------------------

// Loads what the kernel does not write and nobody on this multiprocessor reads again. Volatile, so that a load behind a
// condition stays there.
template <int BYTES> DEVICE Vector<BYTES> load_once(const void *from) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "a load has 4, 8 or 16 bytes");
    Vector<BYTES> x;
    if constexpr (BYTES == 16) {
        asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.words[0]), "=r"(x.words[1]), "=r"(x.words[2]), "=r"(x.words[3])
                     : "l"(from));
    } else if constexpr (BYTES == 8) {
        asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
                     : "=r"(x.words[0]), "=r"(x.words[1])
                     : "l"(from));
    } else {
        asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(x.words[0]) : "l"(from));
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

// ---- Shared memory --------------------------------------------------------------------------------------------------

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

// ---- Functions ------------------------------------------------------------------------------------------------------

// 2^x with a relative error of 2^-22; 0 for -infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
