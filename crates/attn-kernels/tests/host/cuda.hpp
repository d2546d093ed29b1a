// A stand-in for the CUDA language: runs a kernel's source on the host, to find what is wrong with its indexing and its
// barriers. Included before the source, by the compiler's option.
//
// Every thread of a block is a fiber. It runs until it has to wait for others, and which goes on then is drawn by lot;
// so are the blocks. Asynchronous copies spoil their place at once and arrive as late as they may, when their thread
// waits for them. Shared memory begins as NaN. So a barrier or a wait that is missing shows in the result.
// cuda.cpp has what is the same for all kernels, and is compiled once.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__
#define __align__(n) __attribute__((aligned(n)))

// Aligned as CUDA's, which kernels rely on.
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {

constexpr int SHARED = 256 * 1024;
constexpr int STACK = 64 * 1024; // of a thread

// Ends the process: what is wrong is a kernel.
[[noreturn]] void fail(const char *why);

struct Index {
    int x, y, z;
};

struct Copy {
    char *to;
    const char *from; // null for zeros
    int bytes;
};

struct Thread {
    ucontext_t context; // where it begins
    jmp_buf place;      // where it goes on
    bool begun = false;
    Index thread, block;
    bool done = false;
    int exchanges = 0;
    std::vector<Copy> uncommitted;
    std::deque<std::vector<Copy>> groups;
};

extern std::vector<Thread> threads;
extern Thread *current;
extern Index grid;
extern std::vector<std::array<char, 64>> exchanged[2];

// The number of this thread.
inline int number() { return current->thread.x; }

// Each waits for others that come for the same purpose: those of the block, of the warp, or `n` of them.
void meet_block(const char *purpose);
void meet_warp(const char *purpose);
void meet_named(int name, int n, const char *purpose);

// What every lane of this warp gives; all lanes call it. Places are used in turns: who writes to one again has met
// everybody since they read it.
template <class T> std::array<T, 32> of_warp(const T &own, const char *purpose) {
    static_assert(sizeof(T) <= 64);
    auto &places = exchanged[current->exchanges++ % 2];
    std::memcpy(places[number()].data(), &own, sizeof(T));
    meet_warp(purpose);
    std::array<T, 32> all;
    for (int lane = 0; lane < 32; ++lane) std::memcpy(&all[lane], places[number() / 32 * 32 + lane].data(), sizeof(T));
    return all;
}

// What copies were to bring is there.
void arrive(const std::vector<Copy> &copies);

// Runs a grid; `lot` decides in which order.
void run(const int (&sizes)[3], int threads, int shared_bytes, uint64_t lot, const std::function<void()> &kernel);

} // namespace host

#define threadIdx (host::current->thread)
#define blockIdx (host::current->block)
#define gridDim (host::grid)

inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(int(bits)); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline void __syncwarp() { host::meet_warp("warp"); }
inline void __syncthreads() { host::meet_block("block"); }
inline void __threadfence() {}
inline float __shfl_xor_sync(unsigned, float x, int mask) {
    return host::of_warp(x, "xor")[(host::number() % 32) ^ mask];
}
inline float __shfl_sync(unsigned, float x, int from, int width = 32) {
    return host::of_warp(x, "shuffle")[host::number() % 32 / width * width + from % width];
}
inline bool __any_sync(unsigned, bool x) {
    bool any = false;
    for (bool one : host::of_warp(x, "any")) any |= one;
    return any;
}
inline unsigned atomicAdd(unsigned *at, unsigned x) {
    const unsigned before = *at;
    *at += x;
    return before;
}

// What kernels declare by that name.
extern char shared[host::SHARED];
