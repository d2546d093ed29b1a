// Modules, functions and launches.
#include "driver.hpp"

#include <algorithm>
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

namespace standin {

struct Function {
    std::string name;
    Kernel kernel;
    std::vector<size_t> sizes; // of its parameters, in bytes
    int shared_most = SHARED_UNASKED;
    int carveout = -1;
    int launches = 0;
};

// Code of this project's kernels, made by the stand-in of NVRTC; or candle's, of which names and parameters are known.
struct Module {
    void *library = nullptr;
    std::map<std::string, std::vector<size_t>> entries;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

static std::set<Module *> modules;
static std::set<Function *> functions;

// ---- Code -----------------------------------------------------------------------------------------------------------

// The driver is not told where an image ends; sections come last in it.
static size_t size_of_elf(const Elf64_Ehdr &header) { return header.e_shoff + size_t(header.e_shnum) * header.e_shentsize; }

static void *open_code(const void *image) {
    const size_t bytes = size_of_elf(*static_cast<const Elf64_Ehdr *>(image));
    const int file = memfd_create("kernel", MFD_CLOEXEC);
    if (file < 0 || write(file, image, bytes) != ssize_t(bytes)) fail("code could not be written to memory");
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) refuse(CUDA_ERROR_INVALID_IMAGE, "%s", dlerror());
    // Left open: the loader takes another file of the same name for this library.
    return library;
}

// Bytes of a parameter as PTX declares it: `.u64 name`, or `.align 8 .b8 name[120]`.
static size_t size_of_parameter(const std::string &text) {
    const size_t bracket = text.find('[');
    if (bracket != std::string::npos) return std::strtoull(text.c_str() + bracket + 1, nullptr, 10);
    for (const auto &[type, bytes] : {std::pair{"64", 8}, {"32", 4}, {"16", 2}, {"8", 1}}) {
        for (const char *kind : {".u", ".s", ".b", ".f"}) {
            if (text.find(std::string(kind) + type + " ") != std::string::npos) return size_t(bytes);
        }
    }
    fail("a parameter of PTX that is not understood: %s", text.c_str());
}

static std::map<std::string, std::vector<size_t>> entries_of(const char *ptx) {
    std::map<std::string, std::vector<size_t>> entries;
    const char *const WORD = ".entry ";
    for (const char *at = std::strstr(ptx, WORD); at; at = std::strstr(at, WORD)) {
        at += std::strlen(WORD);
        const char *open = std::strchr(at, '('), *close = std::strchr(at, ')');
        if (!open || !close) break;
        std::vector<size_t> sizes;
        const std::string list(open + 1, close);
        for (size_t from = list.find(".param"); from != std::string::npos;) {
            const size_t next = list.find(".param", from + 1);
            sizes.push_back(size_of_parameter(list.substr(from + 6, next == std::string::npos ? next : next - from - 6)));
            from = next;
        }
        entries[std::string(at, open)] = sizes;
        at = close;
    }
    return entries;
}

// ---- Faults ---------------------------------------------------------------------------------------------------------

// Whether launch `number` is to go wrong in this way.
static bool is_planted(const char *fault, const Function &function, int number) {
    const char *text = std::getenv("ATTN_STANDIN_PLANT");
    std::string rest = text ? text : "";
    while (!rest.empty()) {
        const size_t comma = std::min(rest.find(','), rest.size()), colon = rest.find(':');
        const std::string plant = rest.substr(0, comma);
        rest.erase(0, comma + 1);
        if (colon == std::string::npos || plant.compare(0, colon, fault) != 0) continue;
        const size_t at = plant.find('@');
        const std::string name = plant.substr(colon + 1, at == std::string::npos ? at : at - colon - 1);
        const int after = at == std::string::npos ? 0 : std::atoi(plant.c_str() + at + 1);
        if (function.name.find(name) != std::string::npos && number > after) return true;
    }
    return false;
}

// Allocations that parameters point into.
static CUresult operands_of(const Launch &launch, int device, std::set<Allocation *> &operands) {
    for (size_t at = 0; at + 8 <= launch.params.size(); at += 8) {
        void *word;
        std::memcpy(&word, launch.params.data() + at, 8);
        Allocation *allocation = find(word, 0);
        const char *name = launch.name.c_str();
        if (was_freed(word) || (allocation && !allocation->live)) {
            return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: an address of memory that was freed", name);
        }
        if (!allocation || allocation->kind == Kind::Host) continue;
        if (allocation->device != device) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: memory of another GPU", name);
        operands.insert(allocation);
    }
    return CUDA_SUCCESS;
}

static CUresult execute(Function &function, const Launch &launch, int device) {
    ++function.launches;
    trace("%s, %u x %u x %u blocks of %u x %u x %u", launch.name.c_str(), launch.grid[0], launch.grid[1], launch.grid[2],
          launch.block[0], launch.block[1], launch.block[2]);
    std::set<Allocation *> operands;
    const CUresult error = operands_of(launch, device, operands);
    if (error) return error;
    if (is_planted("die", function, function.launches)) fail("%s: it was told to die", launch.name.c_str());
    if (is_planted("fault", function, function.launches)) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "%s: it was told to fault", launch.name.c_str());
    const bool spoils = is_planted("spoil", function, function.launches);
    std::map<Allocation *, Bytes> before;
    if (spoils) {
        for (Allocation *operand : operands) before[operand] = Bytes(operand->base, operand->base + operand->bytes);
    }
    const CUresult done = function.kernel(launch);
    for (const Allocation *operand : operands) check_margins(*operand, launch.name.c_str());
    for (auto &[operand, old] : before) {
        // The first word that changed, by a bit that makes another number of it in every type.
        for (size_t i = 0; i + 4 <= old.size(); i += 4) {
            if (std::memcmp(old.data() + i, operand->base + i, 4) != 0) {
                operand->base[i + 3] ^= 0x40;
                break;
            }
        }
    }
    return done;
}

static Kernel own_kernel(void *code, const std::string &name) {
    using Entry = void (*)(const void *, const int *, int, int, uint64_t);
    const auto entry = reinterpret_cast<Entry>(dlsym(code, ("standin_launch_" + name).c_str()));
    if (!entry) return {};
    return [entry](const Launch &launch) -> CUresult {
        if (launch.block[1] != 1 || launch.block[2] != 1) return refuse(CUDA_ERROR_NOT_SUPPORTED, "blocks of several dimensions");
        const int grid[3] = {int(launch.grid[0]), int(launch.grid[1]), int(launch.grid[2])};
        entry(launch.params.data(), grid, int(launch.block[0]), int(launch.shared), 42);
        return CUDA_SUCCESS;
    };
}

} // namespace standin

using namespace standin;

// ---- Modules --------------------------------------------------------------------------------------------------------

EXPORT CUresult cuModuleLoadData(CUmodule *handle, const void *image) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    const CUresult error = must_not_capture("cuModuleLoadData");
    if (error) return error;
    auto module = std::make_unique<Module>();
    const char *text = static_cast<const char *>(image);
    if (std::memcmp(image, ELFMAG, SELFMAG) == 0) {
        module->library = open_code(image);
        if (!module->library) return CUDA_ERROR_INVALID_IMAGE;
    } else if (std::strstr(text, ".version")) {
        module->entries = entries_of(text);
    } else {
        return refuse(CUDA_ERROR_INVALID_IMAGE, "a module is neither code nor PTX");
    }
    *handle = reinterpret_cast<CUmodule>(module.get());
    modules.insert(module.release());
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule handle) {
    Locked locked(everything);
    Module *module = reinterpret_cast<Module *>(handle);
    if (!modules.erase(module)) return CUDA_ERROR_INVALID_HANDLE;
    for (const auto &[name, function] : module->functions) functions.erase(function.get());
    // A library stays: a graph may still hold its code.
    delete module;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *handle, CUmodule module_handle, const char *name) {
    Locked locked(everything);
    Module *module = reinterpret_cast<Module *>(module_handle);
    if (!modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
    std::unique_ptr<Function> &known = module->functions[name];
    if (!known) {
        auto function = std::make_unique<Function>();
        function->name = name;
        if (module->library) {
            function->kernel = own_kernel(module->library, name);
            const auto *bytes = static_cast<const size_t *>(dlsym(module->library, (std::string("standin_params_") + name).c_str()));
            if (bytes) function->sizes = {*bytes};
        } else {
            const auto entry = module->entries.find(name);
            if (entry == module->entries.end()) return refuse(CUDA_ERROR_NOT_FOUND, "the module has no kernel %s", name);
            function->sizes = entry->second;
            function->kernel = candle_kernel(name);
        }
        if (!function->kernel) return refuse(CUDA_ERROR_NOT_FOUND, "there is no stand-in for the kernel %s", name);
        functions.insert(function.get());
        known = std::move(function);
    }
    *handle = reinterpret_cast<CUfunction>(known.get());
    return CUDA_SUCCESS;
}

static Function *function_of(CUfunction handle) {
    Function *function = reinterpret_cast<Function *>(handle);
    return functions.count(function) ? function : nullptr;
}

EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction handle) {
    Locked locked(everything);
    const Function *function = function_of(handle);
    if (!function) return CUDA_ERROR_INVALID_HANDLE;
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = 32; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = 0; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = 90; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = function->shared_most; break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = function->carveout; break;
    default: return refuse(CUDA_ERROR_INVALID_VALUE, "no attribute %d of a function", int(which));
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute which, int value) {
    Locked locked(everything);
    Function *function = function_of(handle);
    if (!function) return CUDA_ERROR_INVALID_HANDLE;
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || value > SHARED_MOST) return refuse(CUDA_ERROR_INVALID_VALUE, "%d bytes of shared memory", value);
        function->shared_most = value;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100) return refuse(CUDA_ERROR_INVALID_VALUE, "%d per cent of shared memory", value);
        function->carveout = value;
        return CUDA_SUCCESS;
    default: return refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d of a function cannot be set", int(which));
    }
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction handle, int threads, size_t shared) {
    Locked locked(everything);
    const Function *function = function_of(handle);
    if (!function) return CUDA_ERROR_INVALID_HANDLE;
    if (threads < 1) return CUDA_ERROR_INVALID_VALUE;
    const int of_shared = SHARED_OF_MULTIPROCESSOR / (int(shared) + 1024);
    *n = threads > 1024 || int(shared) > function->shared_most ? 0 : std::min({2048 / threads, 32, of_shared});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, CUfunction function, int threads, size_t shared,
                                                                    unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(n, function, threads, shared);
}

// ---- Launches -------------------------------------------------------------------------------------------------------

EXPORT CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **params,
                               void **extra) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    Function *function = function_of(handle);
    if (!function) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such function");
    Launch launch = {function->name, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, {}, {}};
    const char *name = launch.name.c_str();
    const uint64_t threads = uint64_t(block_x) * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || !threads) return refuse(CUDA_ERROR_INVALID_VALUE, "%s: a launch of nothing", name);
    if (threads > 1024 || block_z > 64 || grid_x > 2147483647u || grid_y > 65535 || grid_z > 65535) {
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: a launch that is too large", name);
    }
    if (int(shared) > function->shared_most) {
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of shared memory, %d were asked for", name, shared, function->shared_most);
    }
    if (extra) return refuse(CUDA_ERROR_NOT_SUPPORTED, "parameters in one buffer");
    if (is_planted("refuse", *function, function->launches + 1)) return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: it was told to", name);
    for (size_t i = 0; i < function->sizes.size(); ++i) {
        // Every one aligned, so that addresses can be found.
        launch.params.resize((launch.params.size() + 7) / 8 * 8);
        launch.offsets.push_back(launch.params.size());
        const char *from = static_cast<const char *>(params[i]);
        launch.params.insert(launch.params.end(), from, from + function->sizes[i]);
    }
    const int device = device_of(stream);
    return submit(stream, launch.name, [=] { return execute(*function, launch, device); });
}

EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
    for (unsigned i = 0; i < config->numAttrs; ++i) {
        // What changes when a kernel begins changes nothing here.
        const auto which = config->attrs[i].id;
        if (which != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION && which != CU_LAUNCH_ATTRIBUTE_PRIORITY) {
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "attribute %d of a launch", int(which));
        }
    }
    return cuLaunchKernel(function, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
                          config->blockDimY, config->blockDimZ, config->sharedMemBytes, config->hStream, params, extra);
}
