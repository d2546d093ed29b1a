// NVRTC: compiles a source for the host, with the language's stand-in of attn-kernels/tests/host. What it calls a cubin
// is a shared library, with an entry and the size of its parameter for every kernel.
#include <nvrtc.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct _nvrtcProgram {
    std::string source, log, code;
};

static std::string whole_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// A kernel takes one parameter, a struct.
static std::string entries_of(const std::string &source) {
    const std::regex kernel(R"(__global__[^{;]*?\b(\w+)\s*\(\s*(?:const\s+)?(\w+)\s+\w+\s*\)\s*\{)");
    std::string text, seen;
    for (std::sregex_iterator at(source.begin(), source.end(), kernel), end; at != end; ++at) {
        const std::string name = (*at)[1], type = (*at)[2];
        // A source may have several kernels of one name, of which macros choose one.
        if (seen.find(" " + name + " ") != std::string::npos) continue;
        seen += " " + name + " ";
        text += "extern \"C\" const size_t standin_params_" + name + ";\n"
                "extern \"C\" const size_t standin_params_" + name + " = sizeof(" + type + ");\n"
                "extern \"C\" void standin_launch_" + name +
                "(const void *params, const int *grid, int threads, int shared, uint64_t seed) {\n"
                "const int sizes[3] = {grid[0], grid[1], grid[2]};\n"
                "host::run(sizes, threads, shared, seed, [&] { " + name + "(*static_cast<const " + type + " *>(params)); });\n}\n";
    }
    return text;
}

// The exit code of a command whose output goes to a file.
static int run(const std::vector<std::string> &command, const std::string &log) {
    std::vector<char *> arguments;
    for (const std::string &part : command) arguments.push_back(const_cast<char *>(part.c_str()));
    arguments.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        // A worker's limit of memory is not meant for a compiler.
        rlimit limit;
        getrlimit(RLIMIT_DATA, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_DATA, &limit);
        if (!std::freopen(log.c_str(), "w", stderr)) _exit(127);
        execvp(arguments[0], arguments.data());
        _exit(127);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

EXPORT nvrtcResult nvrtcVersion(int *major, int *minor) {
    *major = 13, *minor = 0;
    return NVRTC_SUCCESS;
}

EXPORT const char *nvrtcGetErrorString(nvrtcResult result) {
    return result == NVRTC_SUCCESS ? "NVRTC_SUCCESS" : result == NVRTC_ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "an error of the stand-in";
}

EXPORT nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *, int headers,
                                      const char *const *, const char *const *) {
    if (headers != 0) return NVRTC_ERROR_INVALID_INPUT;
    *program = new _nvrtcProgram{source, "", ""};
    return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
    delete *program;
    *program = nullptr;
    return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int n, const char *const *options) {
    const char *temporary = std::getenv("TMPDIR");
    std::string folder = std::string(temporary ? temporary : "/tmp") + "/standin-nvrtc-XXXXXX";
    if (!mkdtemp(folder.data())) return NVRTC_ERROR_INTERNAL_ERROR;
    const std::string source = folder + "/kernel.cpp", library = folder + "/kernel.so", log = folder + "/log";
    std::ofstream(source) << program->source << entries_of(program->source);
    const std::string host = HOST_FOLDER;
    std::istringstream same(HOST_OPTIONS);
    std::vector<std::string> command = {"c++"};
    std::copy(std::istream_iterator<std::string>(same), {}, std::back_inserter(command));
    command.insert(command.end(), {"-shared", "-Wl,-Bsymbolic", "-include", host + "/cuda.hpp",
                                   "-DPTX_STAND_IN=\"" + host + "/ptx.hpp\""});
    bool is_known = true;
    for (int i = 0; i < n; ++i) {
        const std::string option = options[i];
        const auto begins = [&](const char *with) { return option.rfind(with, 0) == 0; };
        if (begins("-D")) {
            command.push_back(option);
        } else if (!begins("-arch=") && option != "-std=c++17") {
            is_known = false;
        }
    }
    command.insert(command.end(), {"-o", library, source, host + "/cuda.o"});
    nvrtcResult result = NVRTC_ERROR_INVALID_OPTION;
    if (is_known) {
        result = run(command, log) == 0 ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
        program->log = whole_file(log);
        program->code = whole_file(library);
    }
    for (const std::string &file : {source, library, log}) unlink(file.c_str());
    rmdir(folder.c_str());
    return result;
}

static nvrtcResult give(const std::string &text, char *to) {
    text.copy(to, text.size());
    return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) {
    *bytes = program->code.size();
    return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *to) { return give(program->code, to); }

// A text of C, with its zero.
EXPORT nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
    *bytes = program->log.size() + 1;
    return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *to) {
    to[program->log.size()] = 0;
    return give(program->log, to);
}
