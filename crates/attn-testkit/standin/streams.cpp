// Streams, events, and graphs that are captured from streams.
#include "driver.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace standin {

struct Stream {
    int device;
    bool waits_for_legacy; // made without CU_STREAM_NON_BLOCKING
    struct Capture *capture = nullptr;
};

struct Capture {
    std::unique_ptr<Graph> graph = std::make_unique<Graph>();
    Stream *origin;
    CUstreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
    uint64_t number;
    // The last node of each stream, and the last one of it that the origin waited for.
    std::map<Stream *, size_t> last, joined;
};

struct Event {
    int device;
    unsigned flags;
    bool recorded = false;
    std::chrono::steady_clock::time_point at{};
    // Where it was recorded last, if in a capture.
    uint64_t capture = 0;
    Stream *stream = nullptr;
    size_t node = 0;
};

struct Executable {
    std::vector<Node> nodes;
    std::vector<CUdeviceptr> allocated;
    int device;
    bool frees_first;
};

static std::set<Stream *> streams;
static std::set<Event *> events;
static std::set<Graph *> graphs;
static std::set<Executable *> executables;
static std::vector<Capture *> captures;
static thread_local CUstreamCaptureMode mode_of_thread = CU_STREAM_CAPTURE_MODE_GLOBAL;

static Stream *legacy_stream(int device) {
    static std::map<int, Stream> all;
    return &all.emplace(device, Stream{device, false}).first->second;
}

static Stream *stream_of(CUstream handle) {
    const int device = current_device();
    if (handle == nullptr || handle == CU_STREAM_LEGACY) return device < 0 ? nullptr : legacy_stream(device);
    if (handle == CU_STREAM_PER_THREAD) {
        static thread_local std::map<int, Stream> own;
        return device < 0 ? nullptr : &own.emplace(device, Stream{device, true}).first->second;
    }
    Stream *stream = reinterpret_cast<Stream *>(handle);
    return streams.count(stream) ? stream : nullptr;
}

static CUresult break_capture(Capture &capture, CUresult error, const char *why) {
    capture.invalid = true;
    return refuse(error, "a capture is over: %s", why);
}

CUresult must_not_capture(const char *call) {
    CUresult error = CUDA_SUCCESS;
    if (mode_of_thread == CU_STREAM_CAPTURE_MODE_RELAXED) return error;
    for (Capture *capture : captures) {
        const bool own = capture->thread == std::this_thread::get_id();
        const bool concerns = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL
                                  ? own || mode_of_thread == CU_STREAM_CAPTURE_MODE_GLOBAL
                                  : capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && own;
        if (concerns) error = break_capture(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call);
    }
    return error;
}

static CUresult state_of(Stream *stream) {
    if (!stream) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such stream");
    if (broken) return broken;
    if (stream->capture && stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream == legacy_stream(stream->device)) {
        for (Capture *capture : captures) {
            if (capture->origin->waits_for_legacy && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
                return break_capture(*capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream was used");
            }
        }
    }
    return CUDA_SUCCESS;
}

Graph *captured(CUstream handle, CUresult *error) {
    Stream *stream = stream_of(handle);
    *error = state_of(stream);
    return *error || !stream->capture ? nullptr : stream->capture->graph.get();
}

CUresult invalidate(CUstream handle, const char *why) {
    return break_capture(*stream_of(handle)->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, why);
}

int device_of(CUstream handle) {
    const Stream *stream = stream_of(handle);
    return stream ? stream->device : -1;
}

CUresult submit(CUstream handle, const std::string &name, Work work) {
    Stream *stream = stream_of(handle);
    const CUresult error = state_of(stream);
    if (error) return error;
    if (!stream->capture) {
        const CUresult done = work();
        return broken ? CUDA_SUCCESS : done; // of what happens on a device, who waits is told
    }
    auto &nodes = stream->capture->graph->nodes;
    nodes.push_back({name, std::move(work)});
    stream->capture->last[stream] = nodes.size();
    return CUDA_SUCCESS;
}

// What waits for a stream may not be called while it is captured.
static CUresult wait_for(CUstream handle, const char *call) {
    Locked locked(everything);
    Stream *stream = stream_of(handle);
    const CUresult error = state_of(stream);
    if (error) return error;
    if (stream->capture) return break_capture(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call);
    trim_pools();
    return CUDA_SUCCESS;
}

} // namespace standin

using namespace standin;

EXPORT CUresult standin_submit(CUstream stream, const char *name, const Work *work) {
    Locked locked(everything);
    return submit(stream, name, *work);
}

// ---- Streams --------------------------------------------------------------------------------------------------------

EXPORT CUresult cuStreamCreate(CUstream *handle, unsigned flags) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    Stream *stream = new Stream{current_device(), !(flags & CU_STREAM_NON_BLOCKING)};
    streams.insert(stream);
    *handle = reinterpret_cast<CUstream>(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *handle, unsigned flags, int) { return cuStreamCreate(handle, flags); }

EXPORT CUresult cuStreamDestroy(CUstream handle) {
    Locked locked(everything);
    Stream *stream = reinterpret_cast<Stream *>(handle);
    if (!streams.erase(stream)) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such stream");
    if (stream->capture) fail("a stream was destroyed while it was captured");
    delete stream;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream handle) { return wait_for(handle, "cuStreamSynchronize"); }
EXPORT CUresult cuStreamQuery(CUstream handle) { return wait_for(handle, "cuStreamQuery"); }

EXPORT CUresult cuStreamGetCtx(CUstream handle, CUcontext *context) {
    Locked locked(everything);
    if (!stream_of(handle)) return CUDA_ERROR_INVALID_HANDLE;
    return cuDevicePrimaryCtxRetain(context, stream_of(handle)->device);
}

EXPORT CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
    Locked locked(everything);
    return submit(stream, "cuLaunchHostFunc", [=] { return function(data), CUDA_SUCCESS; });
}

// ---- Events ---------------------------------------------------------------------------------------------------------

static Event *event_of(CUevent handle) {
    Event *event = reinterpret_cast<Event *>(handle);
    return events.count(event) ? event : nullptr;
}

EXPORT CUresult cuEventCreate(CUevent *handle, unsigned flags) {
    Locked locked(everything);
    if (broken) return broken;
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    Event *event = new Event{current_device(), flags};
    events.insert(event);
    *handle = reinterpret_cast<CUevent>(event);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy(CUevent handle) {
    Locked locked(everything);
    Event *event = event_of(handle);
    if (!event) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    events.erase(event);
    delete event;
    return CUDA_SUCCESS;
}

static CUresult record(CUevent handle, CUstream stream_handle, bool external) {
    Locked locked(everything);
    Event *event = event_of(handle);
    Stream *stream = stream_of(stream_handle);
    if (!event) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    const CUresult error = state_of(stream);
    if (error) return error;
    if (event->device != stream->device) return refuse(CUDA_ERROR_INVALID_HANDLE, "an event of another device");
    if (!stream->capture || external) {
        return submit(stream_handle, "cuEventRecord", [=]() -> CUresult {
            if (!events.count(event)) return lose(CUDA_ERROR_ILLEGAL_ADDRESS, "a graph records an event that is gone");
            event->recorded = true, event->capture = 0;
            event->at = std::chrono::steady_clock::now();
            return CUDA_SUCCESS;
        });
    }
    event->capture = stream->capture->number;
    event->stream = stream;
    event->node = stream->capture->last[stream];
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) { return record(event, stream, false); }

EXPORT CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
    return record(event, stream, flags & CU_EVENT_RECORD_EXTERNAL);
}

static Capture *capture_of(const Event &event) {
    for (Capture *capture : captures) {
        if (capture->number == event.capture) return capture;
    }
    return nullptr;
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned flags) {
    Locked locked(everything);
    Event *event = event_of(event_handle);
    Stream *stream = stream_of(handle);
    if (!event) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    const CUresult error = state_of(stream);
    if (error) return error;
    Capture *of_event = capture_of(*event);
    if (stream->capture && !of_event) {
        // One that was never recorded is no reason to wait.
        if ((!event->recorded && event->capture == 0) || (flags & CU_EVENT_WAIT_EXTERNAL)) return CUDA_SUCCESS;
        return break_capture(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                             "it waits for an event of before, or of another capture");
    }
    if (!of_event) return CUDA_SUCCESS;
    if (!stream->capture) {
        stream->capture = of_event;
        of_event->last[stream] = event->node;
        of_event->joined[stream] = event->node;
    }
    if (stream->capture != of_event) return break_capture(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE, "two become one");
    if (stream == of_event->origin) {
        size_t &joined = of_event->joined[event->stream];
        joined = std::max(joined, event->node);
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventQuery(CUevent handle) {
    Locked locked(everything);
    Event *event = event_of(handle);
    if (!event) return refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    if (broken) return broken;
    if (Capture *capture = capture_of(*event)) return break_capture(*capture, CUDA_ERROR_CAPTURED_EVENT, "one waits for its event");
    return must_not_capture("cuEventQuery");
}

EXPORT CUresult cuEventSynchronize(CUevent handle) {
    Locked locked(everything);
    const CUresult error = cuEventQuery(handle);
    if (!error) trim_pools();
    return error;
}

EXPORT CUresult cuEventElapsedTime(float *ms, CUevent start_handle, CUevent end_handle) {
    Locked locked(everything);
    const Event *start = event_of(start_handle), *end = event_of(end_handle);
    if (broken) return broken;
    if (!start || !end || !start->recorded || !end->recorded) return refuse(CUDA_ERROR_INVALID_HANDLE, "an event was never recorded");
    if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) return refuse(CUDA_ERROR_INVALID_HANDLE, "an event has no time");
    *ms = std::chrono::duration<float, std::milli>(end->at - start->at).count();
    return CUDA_SUCCESS;
}

// ---- Captures -------------------------------------------------------------------------------------------------------

EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    std::swap(*mode, mode_of_thread);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    Locked locked(everything);
    Stream *stream = stream_of(handle);
    const CUresult error = state_of(stream);
    if (error) return error;
    if (stream == legacy_stream(stream->device)) {
        return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
    }
    if (stream->capture) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is captured already");
    static uint64_t count = 0;
    Capture *capture = new Capture;
    capture->origin = stream, capture->mode = mode, capture->thread = std::this_thread::get_id();
    capture->number = ++count;
    stream->capture = capture;
    captures.push_back(capture);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    Locked locked(everything);
    *graph = nullptr;
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    Capture *capture = stream->capture;
    if (!capture) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is not captured");
    if (capture->origin != stream) return break_capture(*capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "it began on another stream");
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id()) {
        return refuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "a capture ends on the thread that began it");
    }
    CUresult result = capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    for (const auto &[other, last] : capture->last) {
        if (!result && other != stream && capture->joined[other] < last) {
            result = refuse(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "another stream has work that was not waited for");
        }
    }
    for (Stream *other : streams) {
        if (other->capture == capture) other->capture = nullptr;
    }
    stream->capture = nullptr;
    captures.erase(std::find(captures.begin(), captures.end(), capture));
    if (!result) {
        Graph *made = capture->graph.release();
        graphs.insert(made);
        *graph = reinterpret_cast<CUgraph>(made);
    }
    delete capture;
    return result;
}

EXPORT CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    Locked locked(everything);
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (broken) return broken;
    *status = !stream->capture            ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                          : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

// ---- Graphs ---------------------------------------------------------------------------------------------------------

static Graph *graph_of(CUgraph handle) {
    Graph *graph = reinterpret_cast<Graph *>(handle);
    return graphs.count(graph) ? graph : nullptr;
}

static Executable *executable_of(CUgraphExec handle) {
    Executable *executable = reinterpret_cast<Executable *>(handle);
    return executables.count(executable) ? executable : nullptr;
}

EXPORT CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode *, size_t *n) {
    Locked locked(everything);
    const Graph *graph = graph_of(handle);
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    *n = graph->nodes.size();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *handle, CUgraph graph_handle, unsigned long long flags) {
    Locked locked(everything);
    Graph *graph = graph_of(graph_handle);
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    if (broken) return broken;
    const auto frees = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    if ((flags & frees) && (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)) return CUDA_ERROR_INVALID_VALUE;
    if (graph->instantiated && !graph->allocated.empty()) {
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "a graph that allocates is instantiated once");
    }
    graph->instantiated = true;
    Executable *executable = new Executable{graph->nodes, graph->allocated, current_device(), bool(flags & frees)};
    executables.insert(executable);
    *handle = reinterpret_cast<CUgraphExec>(executable);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphUpload(CUgraphExec handle, CUstream stream) {
    Locked locked(everything);
    if (!executable_of(handle)) return CUDA_ERROR_INVALID_VALUE;
    return state_of(stream_of(stream));
}

EXPORT CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    Locked locked(everything);
    const Executable *executable = executable_of(handle);
    if (!executable) return CUDA_ERROR_INVALID_VALUE;
    Stream *stream = stream_of(stream_handle);
    const CUresult error = state_of(stream);
    if (error) return error;
    if (stream->capture) return break_capture(*stream->capture, CUDA_ERROR_NOT_SUPPORTED, "graphs in graphs are not played here");
    for (CUdeviceptr at : executable->allocated) {
        const Allocation *allocation = begins(at);
        if (!allocation || !allocation->live) continue;
        if (!executable->frees_first) {
            return refuse(CUDA_ERROR_INVALID_VALUE, "a graph is launched again before what it allocated was freed");
        }
        cuMemFreeAsync(at, stream_handle);
    }
    trace("launching a graph of %zu nodes", executable->nodes.size());
    for (const Node &node : executable->nodes) {
        const CUresult error = node.work();
        if (error || broken) return CUDA_SUCCESS; // who waits is told
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec handle) {
    Locked locked(everything);
    Executable *executable = executable_of(handle);
    if (!executable) return CUDA_ERROR_INVALID_VALUE;
    executables.erase(executable);
    delete executable;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph handle) {
    Locked locked(everything);
    Graph *graph = graph_of(handle);
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    graphs.erase(graph);
    delete graph;
    return CUDA_SUCCESS;
}
