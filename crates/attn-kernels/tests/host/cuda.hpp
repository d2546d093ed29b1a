// A stand-in for the CUDA language: runs a kernel's source on the host, to find what is wrong with its indexing and its
// barriers. Included before the source, by the compiler's option.
//
// Every thread of a block is a fiber. It runs until it has to wait for others, and which goes on then is drawn by lot;
// so are the blocks. Asynchronous copies spoil their place at once and arrive as late as they may, when their thread
// waits for them. Shared memory begins as NaN. So a barrier or a wait that is missing shows in the result.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
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

struct float2 {
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

[[noreturn]] inline void fail(const char *why) {
    std::fprintf(stderr, "%s\n", why);
    std::abort();
}

struct Index {
    int x, y, z;
};

// A place where threads wait for each other.
struct Meeting {
    std::vector<int> here;
    const char *purpose = nullptr;
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

inline std::vector<Thread> threads;
inline std::vector<std::unique_ptr<char[]>> stacks;
inline Thread *current;
inline jmp_buf scheduler;
inline Index grid;
inline Meeting block_meeting, named[16];
inline std::vector<Meeting> warps;
inline std::vector<std::array<char, 64>> exchanged[2];
inline std::vector<int> ready; // threads that need not wait
inline uint64_t lot;
inline std::function<void()> body;

inline uint32_t draw() {
    lot = lot * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(lot >> 33);
}

inline int number() { return current->thread.x; }

// Goes on with another thread. Jumps, and not `swapcontext`, which asks the kernel each time.
inline void leave() {
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

// Lets a thread run until it leaves.
inline void enter(Thread &thread) {
    current = &thread;
    if (_setjmp(scheduler) != 0) return;
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

// Waits until `n` threads are here for the same purpose.
inline void meet(Meeting &meeting, int n, const char *purpose) {
    if (!meeting.here.empty() && std::strcmp(meeting.purpose, purpose) != 0) fail("threads wait for different things");
    meeting.purpose = purpose;
    meeting.here.push_back(number());
    if (int(meeting.here.size()) == n) {
        ready.insert(ready.end(), meeting.here.begin(), meeting.here.end());
        meeting.here.clear();
    }
    leave();
}

inline void meet_warp(const char *purpose) { meet(warps[number() / 32], 32, purpose); }

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

inline void arrive(const std::vector<Copy> &copies) {
    for (const Copy &copy : copies) {
        if (copy.from) {
            std::memcpy(copy.to, copy.from, copy.bytes);
        } else {
            std::memset(copy.to, 0, copy.bytes);
        }
    }
}

inline void fiber() {
    body();
    current->done = true;
    leave();
}

inline void run_block(Index block, int n, char *shared, int shared_bytes) {
    std::memset(shared, 0xff, SHARED);
    block_meeting = {};
    for (Meeting &meeting : named) meeting = {};
    warps.assign(n / 32, {});
    for (auto &places : exchanged) places.assign(n, {});
    threads = std::vector<Thread>(n);
    ready.clear();
    for (int i = 0; i < n; ++i) {
        Thread &thread = threads[i];
        thread.thread = {i, 0, 0}, thread.block = block;
        if (int(stacks.size()) == i) stacks.emplace_back(new char[STACK]);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = stacks[i].get();
        thread.context.uc_stack.ss_size = STACK;
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, fiber, 0);
        ready.push_back(i);
    }
    while (!ready.empty()) {
        std::swap(ready[draw() % ready.size()], ready.back());
        Thread &next = threads[ready.back()];
        ready.pop_back();
        enter(next);
    }
    for (const Thread &thread : threads) {
        if (!thread.done) fail("threads wait for each other for ever");
        if (!thread.uncommitted.empty()) fail("a copy was never committed");
    }
    for (int i = shared_bytes; i < SHARED; ++i) {
        if (shared[i] != char(0xff)) fail("shared memory was written beyond its end");
    }
}

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
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline void __syncwarp() { host::meet_warp("warp"); }
inline void __syncthreads() { host::meet(host::block_meeting, int(host::threads.size()), "block"); }
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

alignas(128) inline char shared[host::SHARED];

// Runs a grid; `lot` decides in which order.
namespace host {
inline void run(const int (&sizes)[3], int threads, int shared_bytes, uint64_t seed, std::function<void()> kernel) {
    grid = {sizes[0], sizes[1], sizes[2]}, lot = seed, body = std::move(kernel);
    std::vector<Index> blocks;
    for (int z = 0; z < grid.z; ++z) {
        for (int y = 0; y < grid.y; ++y) {
            for (int x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
        }
    }
    for (; !blocks.empty(); blocks.pop_back()) {
        std::swap(blocks[draw() % blocks.size()], blocks.back());
        run_block(blocks.back(), threads, shared, shared_bytes);
    }
}
} // namespace host
