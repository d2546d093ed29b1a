// A stand-in for NVIDIA's driver, NVRTC, cuBLAS and cuRAND: the code of a build with CUDA runs as it is, on a machine
// without a GPU. `scripts/cuda-standin.sh` builds it, and says how to use it.
//
// What it is: the entry points that candle, cudarc and this project call, answering as the driver's documentation says,
// with what the driver refuses refused. Device memory is the host's, spoilt when it is allocated and when it is freed,
// with margins that are looked at after launches and at frees. Kernels of this project are compiled from their CUDA
// sources (attn-kernels/tests/host); those of candle are written anew here, by name.
//
// What it is not: a model of time (times are the host's, and mean nothing), of memory (every write is seen at once, by
// everyone), or of concurrency (an operation is done when the call that asks for it returns, or when its graph is
// launched). Addresses of the device are addresses of the host: what mixes them up works here. It says nothing about
// registers, occupancy or the instructions of a GPU.
//
// Settings, all of the environment:
// - ATTN_STANDIN_DEVICES: GPUs, 1 if it is not set.
// - ATTN_STANDIN_MEMORY: bytes of a GPU.
// - ATTN_STANDIN_PLANT: faults, `FAULT:KERNEL` with commas between them, for kernels whose name contains KERNEL:
//   `spoil` changes what it wrote, `fault` accesses an illegal address, `refuse` fails to launch, `die` ends the
//   process. `FAULT:KERNEL@N` leaves the first N launches of such kernels alone.
// - ATTN_STANDIN_LOG: a file to which is added what was refused; it is on standard error anyway.
// - ATTN_STANDIN_TRACE: launches too, on standard error.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <cuda.h>

// What the libraries share; the driver's own names are exported anyway.
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace standin {

using Bytes = std::vector<char>;

// Everything is done one after the other.
extern std::recursive_mutex everything;
using Locked = std::lock_guard<std::recursive_mutex>;

// An error after which nothing works, as after an illegal address.
extern CUresult broken;

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Says on standard error what was refused, and returns it.
CUresult refuse(CUresult error, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The same, and the context is lost.
CUresult lose(CUresult error, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Says what is done, where that is wanted.
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- The machine ----------------------------------------------------------------------------------------------------

constexpr int MULTIPROCESSORS = 4;
constexpr int SHARED_UNASKED = 48 * 1024;
constexpr int SHARED_MOST = 227 * 1024;
constexpr int SHARED_OF_MULTIPROCESSOR = 228 * 1024;

int n_devices();
size_t memory_of_device();
// That of the current context, or -1.
int current_device();

// ---- Memory ---------------------------------------------------------------------------------------------------------

enum class Kind { Plain, Pool, Graph, Host };

struct Allocation {
    char *base;
    size_t bytes;
    Kind kind;
    int device;
    bool live; // that of a graph is not, but between the nodes that allocate and free it
};

struct Usage {
    size_t used = 0, used_high = 0, reserved = 0, reserved_high = 0;
    void take(size_t bytes);
    void give(size_t bytes);
};

// By kind: the pool of a device, and the memory of its graphs.
Usage &pool_of(int device);
Usage &graphs_of(int device);

// When the host waits for a device.
void trim_pools();

// Null: there is no memory left.
Allocation *allocate(size_t bytes, Kind kind, int device, bool live);
void release(Allocation *allocation);
void spoil(Allocation &allocation);
// That which all of a range lies in.
Allocation *find(const void *at, size_t bytes);
// That which begins there.
Allocation *begins(CUdeviceptr at);
// Whether it lies in memory that was freed a while ago.
bool was_freed(const void *at);
// Ends the process where something was written beside an allocation.
void check_margins(const Allocation &allocation, const char *after);

// ---- Streams and graphs ---------------------------------------------------------------------------------------------

// What a stream does: now, or at each launch of the graph that it is captured for.
using Work = std::function<CUresult()>;

struct Node {
    std::string name;
    Work work;
};

struct Graph {
    std::vector<Node> nodes;
    std::vector<CUdeviceptr> allocated; // by its nodes
    std::set<CUdeviceptr> freed;        // by its nodes
    bool instantiated = false;
};

// Does it, or adds it to the graph that is captured.
CUresult submit(CUstream stream, const std::string &name, Work work);
// Called by what may not be called while anything is captured. Breaks captures that it concerns.
CUresult must_not_capture(const char *call);
// The capture of a stream, if any: graph nodes that allocate need it.
Graph *captured(CUstream stream, CUresult *error);
CUresult invalidate(CUstream stream, const char *why);
// Of a stream, as its device.
int device_of(CUstream stream);

// ---- Kernels --------------------------------------------------------------------------------------------------------

struct Launch {
    std::string name;
    unsigned grid[3], block[3], shared;
    Bytes params;
    std::vector<size_t> offsets;

    template <class T> T arg(int i) const {
        T value;
        std::memcpy(&value, params.data() + offsets[i], sizeof(T));
        return value;
    }
};

using Kernel = std::function<CUresult(const Launch &)>;

// candle's kernel of that name; empty if there is no stand-in for it.
Kernel candle_kernel(const std::string &name);

} // namespace standin

// For the stand-ins of the libraries above the driver.
EXPORT CUresult standin_submit(CUstream stream, const char *name, const standin::Work *work);
EXPORT bool standin_is_device_memory(const void *at, size_t bytes);
