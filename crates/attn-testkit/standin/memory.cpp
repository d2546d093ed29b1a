// Memory of devices, and pinned memory of the host.
#include "driver.hpp"

#include <algorithm>
#include <deque>

namespace standin {

constexpr size_t MARGIN = 512;
constexpr char MARGIN_BYTE = char(0xa5);
constexpr char SPOILT = char(0xff); // NaN, whatever the type
// Freed memory is kept for a while, to see whether somebody still writes to it.
constexpr size_t KEPT_BYTES = 32 << 20;

using Allocations = std::map<uintptr_t, Allocation>;
static Allocations allocations, freed;
static std::deque<uintptr_t> freed_in_order;
static size_t freed_bytes = 0;

void Usage::take(size_t bytes) {
    used += bytes;
    used_high = std::max(used_high, used);
    // The driver reserves in large pieces.
    reserved = std::max(reserved, (used + (size_t(2) << 20) - 1) >> 21 << 21);
    reserved_high = std::max(reserved_high, reserved);
}

void Usage::give(size_t bytes) { used -= bytes; }

Usage &pool_of(int device) {
    static std::map<int, Usage> pools;
    return pools[device];
}

Usage &graphs_of(int device) {
    static std::map<int, Usage> graphs;
    return graphs[device];
}

static size_t plain_bytes[16];

static size_t used_of(int device) {
    return plain_bytes[device] + pool_of(device).used + graphs_of(device).used;
}

void spoil(Allocation &allocation) { std::memset(allocation.base, SPOILT, allocation.bytes); }

Allocation *allocate(size_t bytes, Kind kind, int device, bool live) {
    if (kind != Kind::Host && (bytes > memory_of_device() || used_of(device) + bytes > memory_of_device())) return nullptr;
    const size_t all = (bytes + 2 * MARGIN + 511) / 512 * 512;
    char *raw = static_cast<char *>(std::aligned_alloc(512, all));
    if (!raw) return nullptr;
    std::memset(raw, MARGIN_BYTE, all);
    Allocation allocation = {raw + MARGIN, bytes, kind, device, live};
    spoil(allocation);
    if (kind == Kind::Plain) plain_bytes[device] += bytes;
    if (kind == Kind::Pool) pool_of(device).take(bytes);
    return &(allocations[uintptr_t(allocation.base)] = allocation);
}

void check_margins(const Allocation &allocation, const char *after) {
    const auto is_whole = [](const char *from) {
        return std::all_of(from, from + MARGIN, [](char byte) { return byte == MARGIN_BYTE; });
    };
    const bool before = is_whole(allocation.base - MARGIN), behind = is_whole(allocation.base + allocation.bytes);
    if (!before || !behind) {
        fail("%s: something was written %s an allocation of %zu bytes", after, before ? "behind" : "in front of",
             allocation.bytes);
    }
}

static void forget_oldest() {
    const auto found = freed.find(freed_in_order.front());
    const Allocation oldest = found->second;
    for (size_t i = 0; i < oldest.bytes; ++i) {
        if (oldest.base[i] != SPOILT) fail("an allocation of %zu bytes was written after it was freed", oldest.bytes);
    }
    freed_bytes -= oldest.bytes;
    std::free(oldest.base - MARGIN);
    freed.erase(found);
    freed_in_order.pop_front();
}

void release(Allocation *allocation) {
    check_margins(*allocation, "freeing");
    spoil(*allocation);
    if (allocation->kind == Kind::Plain) plain_bytes[allocation->device] -= allocation->bytes;
    if (allocation->kind == Kind::Pool) pool_of(allocation->device).give(allocation->bytes);
    const uintptr_t at = uintptr_t(allocation->base);
    freed[at] = *allocation;
    freed_in_order.push_back(at);
    freed_bytes += allocation->bytes;
    allocations.erase(at);
    while (freed_bytes > KEPT_BYTES) forget_oldest();
}

static Allocation *find_in(Allocations &all, const void *at, size_t bytes) {
    auto next = all.upper_bound(uintptr_t(at));
    if (next == all.begin()) return nullptr;
    Allocation &allocation = std::prev(next)->second;
    const size_t offset = size_t(static_cast<const char *>(at) - allocation.base);
    return offset <= allocation.bytes && bytes <= allocation.bytes - offset ? &allocation : nullptr;
}

Allocation *find(const void *at, size_t bytes) { return find_in(allocations, at, bytes); }

bool was_freed(const void *at) { return find_in(freed, at, 1) != nullptr; }

Allocation *begins(CUdeviceptr at) {
    const auto found = allocations.find(uintptr_t(at));
    return found == allocations.end() ? nullptr : &found->second;
}

static bool is_device(const Allocation *allocation) { return allocation && allocation->kind != Kind::Host; }

// ---- Copies ---------------------------------------------------------------------------------------------------------

static void *host(CUdeviceptr at) { return reinterpret_cast<void *>(at); }

static CUresult must_be_device(const char *call, CUdeviceptr at, size_t bytes) {
    if (is_device(find(host(at), bytes))) return CUDA_SUCCESS;
    return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes at 0x%llx are not in one allocation of a device", call, bytes,
                  (unsigned long long)at);
}

// Looked at again when it is done: a graph may be launched after its memory was freed.
static Work copy(const char *call, void *to, const void *from, size_t bytes, bool to_device, bool from_device) {
    return [=]() -> CUresult {
        if ((to_device && !is_device(find(to, bytes))) || (from_device && !is_device(find(from, bytes)))) {
            return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: memory of the device that was freed", call);
        }
        std::memmove(to, from, bytes);
        return CUDA_SUCCESS;
    };
}

enum class Direction { Up, Down, Within };

static CUresult transfer(const char *call, void *to, const void *from, size_t bytes, Direction direction, bool waits,
                         CUstream stream) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (bytes == 0) return CUDA_SUCCESS;
    const bool to_device = direction != Direction::Down, from_device = direction != Direction::Up;
    CUresult error = CUDA_SUCCESS;
    if (to_device) error = must_be_device(call, CUdeviceptr(to), bytes);
    if (!error && from_device) error = must_be_device(call, CUdeviceptr(from), bytes);
    if (error) return error;
    if (waits) {
        error = must_not_capture(call);
        if (error) return error;
    }
    if (direction != Direction::Within) {
        if (captured(stream, &error)) {
            const void *side = to_device ? from : to;
            // A driver may capture it, and read from that address at each launch; nobody who does so means it.
            if (!find(side, bytes)) return invalidate(stream, "a copy between the device and memory that is not pinned");
        }
        if (error) return error;
    }
    return submit(stream, call, copy(call, to, from, bytes, to_device, from_device));
}

} // namespace standin

using namespace standin;

EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    return transfer("cuMemcpyHtoDAsync", host(to), from, bytes, Direction::Up, false, stream);
}

EXPORT CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return transfer("cuMemcpyDtoHAsync", to, host(from), bytes, Direction::Down, false, stream);
}

EXPORT CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return transfer("cuMemcpyDtoDAsync", host(to), host(from), bytes, Direction::Within, false, stream);
}

EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
    return transfer("cuMemcpyPeerAsync", host(to), host(from), bytes, Direction::Within, false, stream);
}

EXPORT CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
    return transfer("cuMemcpyHtoD", host(to), from, bytes, Direction::Up, true, nullptr);
}

EXPORT CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
    return transfer("cuMemcpyDtoH", to, host(from), bytes, Direction::Down, true, nullptr);
}

EXPORT CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return transfer("cuMemcpyDtoD", host(to), host(from), bytes, Direction::Within, true, nullptr);
}

static CUresult set(const char *call, CUdeviceptr at, unsigned value, size_t width, size_t n, CUstream stream) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (n == 0) return CUDA_SUCCESS;
    const CUresult error = must_be_device(call, at, n * width);
    if (error) return error;
    return submit(stream, call, [=]() -> CUresult {
        if (!find(host(at), n * width)) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: memory that was freed", call);
        for (size_t i = 0; i < n; ++i) std::memcpy(static_cast<char *>(host(at)) + i * width, &value, width);
        return CUDA_SUCCESS;
    });
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t n, CUstream stream) {
    return set("cuMemsetD8Async", at, value, 1, n, stream);
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr at, unsigned value, size_t n, CUstream stream) {
    return set("cuMemsetD32Async", at, value, 4, n, stream);
}

EXPORT CUresult cuMemsetD8(CUdeviceptr at, unsigned char value, size_t n) {
    return set("cuMemsetD8", at, value, 1, n, nullptr);
}

// ---- Allocations ----------------------------------------------------------------------------------------------------

EXPORT CUresult cuMemAlloc(CUdeviceptr *at, size_t bytes) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (bytes == 0) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemAlloc of no bytes");
    const CUresult error = must_not_capture("cuMemAlloc");
    if (error) return error;
    const Allocation *made = allocate(bytes, Kind::Plain, current_device(), true);
    if (!made) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = CUdeviceptr(made->base);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree(CUdeviceptr at) {
    Locked locked(everything);
    if (broken) return broken;
    if (at == 0) return CUDA_SUCCESS;
    const CUresult error = must_not_capture("cuMemFree");
    if (error) return error;
    Allocation *allocation = begins(at);
    if (!is_device(allocation)) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFree of what is not allocated");
    release(allocation);
    return CUDA_SUCCESS;
}

// A node of a graph that makes memory live, and spoils it.
static CUresult revive(CUdeviceptr at) {
    Allocation *allocation = begins(at);
    if (!allocation) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "the memory of a graph is gone");
    allocation->live = true;
    spoil(*allocation);
    graphs_of(allocation->device).take(allocation->bytes);
    return CUDA_SUCCESS;
}

static CUresult retire(CUdeviceptr at) {
    Allocation *allocation = begins(at);
    if (!allocation || !allocation->live) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "a graph frees what is not allocated");
    check_margins(*allocation, "freeing in a graph");
    spoil(*allocation);
    allocation->live = false;
    graphs_of(allocation->device).give(allocation->bytes);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream stream) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    // What is documented for cuMemAlloc, an error, is not what drivers of Linux do here.
    *at = 0;
    if (bytes == 0) return CUDA_SUCCESS;
    CUresult error = CUDA_SUCCESS;
    Graph *graph = captured(stream, &error);
    if (error) return error;
    const Allocation *made = allocate(bytes, graph ? Kind::Graph : Kind::Pool, device_of(stream), !graph);
    if (!made) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = CUdeviceptr(made->base);
    if (!graph) return CUDA_SUCCESS;
    graph->allocated.push_back(*at);
    return submit(stream, "cuMemAllocAsync", [at = *at] { return revive(at); });
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    Locked locked(everything);
    if (broken) return broken;
    if (at == 0) return CUDA_SUCCESS;
    CUresult error = CUDA_SUCCESS;
    Graph *graph = captured(stream, &error);
    if (error) return error;
    Allocation *allocation = begins(at);
    if (!is_device(allocation)) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFreeAsync of what is not allocated");
    if (graph) {
        const auto &own = graph->allocated;
        if (std::find(own.begin(), own.end(), at) == own.end()) {
            return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFreeAsync while capturing, of memory that the graph did not allocate");
        }
        if (!graph->freed.insert(at).second) return refuse(CUDA_ERROR_INVALID_VALUE, "a graph frees memory twice");
        return submit(stream, "cuMemFreeAsync", [at] { return retire(at); });
    }
    if (allocation->kind == Kind::Graph) {
        return allocation->live ? retire(at)
                                : refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFreeAsync of a graph's memory that is not allocated");
    }
    release(allocation);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemGetInfo(size_t *free, size_t *total) {
    Locked locked(everything);
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    *total = memory_of_device();
    *free = *total - used_of(current_device());
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    Locked locked(everything);
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    const CUresult error = must_not_capture("cuMemHostAlloc");
    if (error) return error;
    const Allocation *made = allocate(bytes, Kind::Host, -1, true);
    if (!made) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = made->base;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *at) {
    Locked locked(everything);
    Allocation *allocation = begins(CUdeviceptr(at));
    if (!allocation || allocation->kind != Kind::Host) return CUDA_ERROR_INVALID_VALUE;
    release(allocation);
    return CUDA_SUCCESS;
}

// ---- Pools ----------------------------------------------------------------------------------------------------------

static CUmemoryPool handle_of(int device) { return reinterpret_cast<CUmemoryPool>(intptr_t(0x2000) + device); }
static int device_of_pool(CUmemoryPool pool) { return int(reinterpret_cast<intptr_t>(pool) - 0x2000); }

static uint64_t thresholds[16];

EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
    *pool = handle_of(device);
    return device >= 0 && device < n_devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }

namespace standin {

// What lies unused in a pool, beyond its threshold, is given back when the host waits for the device.
void trim_pools() {
    for (int device = 0; device < n_devices(); ++device) {
        Usage &usage = pool_of(device);
        usage.reserved = std::max(usage.used, size_t(std::min<uint64_t>(thresholds[device], usage.reserved)));
    }
}

} // namespace standin

// Resetting a high mark is to write zero to it; nothing else can be written but the threshold.
static CUresult reset(size_t &high, size_t current, const void *value) {
    if (*static_cast<const uint64_t *>(value) != 0) return refuse(CUDA_ERROR_INVALID_VALUE, "a high mark is set to 0 alone");
    high = current;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute which, void *value) {
    Locked locked(everything);
    Usage &usage = pool_of(device_of_pool(pool));
    switch (which) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        thresholds[device_of_pool(pool)] = *static_cast<uint64_t *>(value);
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: return reset(usage.used_high, usage.used, value);
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return reset(usage.reserved_high, usage.reserved, value);
    default: return refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d of a pool cannot be set", int(which));
    }
}

EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute which, void *value) {
    Locked locked(everything);
    const Usage &usage = pool_of(device_of_pool(pool));
    uint64_t &out = *static_cast<uint64_t *>(value);
    switch (which) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: out = thresholds[device_of_pool(pool)]; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: out = usage.used; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: out = usage.used_high; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: out = usage.reserved; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: out = usage.reserved_high; break;
    default: return refuse(CUDA_ERROR_INVALID_VALUE, "no attribute %d of a pool", int(which));
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    Locked locked(everything);
    Usage &usage = pool_of(device_of_pool(pool));
    usage.reserved = std::max(usage.used, std::min(keep, usage.reserved));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void *value) {
    Locked locked(everything);
    const Usage &usage = graphs_of(device);
    uint64_t &out = *static_cast<uint64_t *>(value);
    switch (which) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT: out = usage.used; break;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH: out = usage.used_high; break;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT: out = usage.reserved; break;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH: out = usage.reserved_high; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void *value) {
    Locked locked(everything);
    Usage &usage = graphs_of(device);
    switch (which) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH: return reset(usage.used_high, usage.used, value);
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH: return reset(usage.reserved_high, usage.reserved, value);
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}

EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device) {
    Locked locked(everything);
    Usage &usage = graphs_of(device);
    usage.reserved = usage.used;
    return CUDA_SUCCESS;
}

EXPORT bool standin_is_device_memory(const void *at, size_t bytes) {
    Locked locked(everything);
    return is_device(find(at, bytes));
}
