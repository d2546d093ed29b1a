// What runs a kernel's threads on the host; linked to every kernel, since two may run at once.
#include "cuda.hpp"

#include <cstdio>
#include <cstdlib>
#include <memory>

alignas(128) char shared[host::SHARED];

namespace host {

// A place where threads wait for each other.
struct Meeting {
    std::vector<int> here;
    const char *purpose = nullptr;
};

std::vector<Thread> threads;
std::vector<std::unique_ptr<char[]>> stacks;
Thread *current;
jmp_buf scheduler;
Index grid;
Meeting block_meeting, named[16];
std::vector<Meeting> warps;
std::vector<std::array<char, 64>> exchanged[2];
std::vector<int> ready; // threads that need not wait
uint64_t lot;
std::function<void()> body;

void fail(const char *why) {
    std::fprintf(stderr, "%s\n", why);
    std::abort();
}

static uint32_t draw() {
    lot = lot * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(lot >> 33);
}

// Goes on with another thread. Jumps, and not `swapcontext`, which asks the kernel each time.
static void leave() {
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

// Lets a thread run until it leaves.
static void enter(Thread &thread) {
    current = &thread;
    if (_setjmp(scheduler) != 0) return;
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

// Waits until `n` threads are here for the same purpose.
static void meet(Meeting &meeting, int n, const char *purpose) {
    if (!meeting.here.empty() && std::strcmp(meeting.purpose, purpose) != 0) fail("threads wait for different things");
    meeting.purpose = purpose;
    meeting.here.push_back(number());
    if (int(meeting.here.size()) == n) {
        ready.insert(ready.end(), meeting.here.begin(), meeting.here.end());
        meeting.here.clear();
    }
    leave();
}

void meet_block(const char *purpose) { meet(block_meeting, int(threads.size()), purpose); }
void meet_warp(const char *purpose) { meet(warps[number() / 32], 32, purpose); }
void meet_named(int name, int n, const char *purpose) { meet(named[name], n, purpose); }

void arrive(const std::vector<Copy> &copies) {
    for (const Copy &copy : copies) {
        if (copy.from) {
            std::memcpy(copy.to, copy.from, copy.bytes);
        } else {
            std::memset(copy.to, 0, copy.bytes);
        }
    }
}

static void fiber() {
    body();
    for (const auto &group : current->groups) {
        if (!group.empty()) fail("a thread ended before its copies");
    }
    current->done = true;
    leave();
}

static void run_block(Index block, int n, int shared_bytes) {
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

void run(const int (&sizes)[3], int threads, int shared_bytes, uint64_t seed, const std::function<void()> &kernel) {
    grid = {sizes[0], sizes[1], sizes[2]}, lot = seed, body = kernel;
    std::vector<Index> blocks;
    for (int z = 0; z < grid.z; ++z) {
        for (int y = 0; y < grid.y; ++y) {
            for (int x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
        }
    }
    for (; !blocks.empty(); blocks.pop_back()) {
        std::swap(blocks[draw() % blocks.size()], blocks.back());
        run_block(blocks.back(), threads, shared_bytes);
    }
}

} // namespace host
