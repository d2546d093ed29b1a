"""Device time of a call, by events around launches or around a CUDA graph's replay, with cold and hot caches.

Cold: copies of the operands take turns, and between two uses of one more than twice the L2 cache is read. Hot:
one copy, again and again. A sample is several calls, divided by their number.
"""

import dataclasses
import random
import statistics
import time
from collections.abc import Callable

import torch

# For all runners of a case together; each runs once at least.
WARM_S = 0.2
# Calls of a sample with hot caches, or so many as take this long.
HOT_CALLS, HOT_S = 10, 0.002
# A kernel that waits while the host queues events and graph: else the time of a launch would count.
QUEUE_CYCLES, CYCLES_OF_CALL = 600_000, 2_000


@dataclasses.dataclass
class Runner:
    """A peer in one way to run it. `work` makes `calls` calls of `steps` steps each."""

    case: object
    peer: object
    regimes: tuple[str, ...]
    graph: bool
    calls: int
    steps: int
    work: Callable
    device: str
    times_s: list = dataclasses.field(default_factory=list)
    walls_s: list = dataclasses.field(default_factory=list)

    def sample(self, keep=True):
        """Takes one sample; seconds of device time of one step."""
        with torch.inference_mode(), self.peer.context():
            time_s, wall_s = self.measured()
        per = self.calls * self.steps
        if keep:
            self.times_s.append(time_s / per)
            self.walls_s.append(wall_s / per)
        return wall_s

    def measured(self):
        if self.device == "cpu":
            began = time.perf_counter()
            self.work()
            elapsed = time.perf_counter() - began
            return elapsed, elapsed
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        if self.graph:
            torch.cuda._sleep(QUEUE_CYCLES + CYCLES_OF_CALL * self.calls)
        began = time.perf_counter()
        start.record()
        self.work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3, time.perf_counter() - began

    def warm(self, seconds):
        began = time.perf_counter()
        self.sample(keep=False)
        while time.perf_counter() - began < seconds:
            self.sample(keep=False)


def copies_for(bytes_of_one, l2_bytes):
    """Copies that together are more than twice the cache."""
    return 2 * l2_bytes // bytes_of_one + 1


def eager(call, copies, calls):
    """Calls one after the other; the copies go on where the sample before ended."""
    at = 0

    def work():
        nonlocal at
        for _ in range(calls):
            call(copies[at % len(copies)])
            at += 1

    return work


def captured(call, copies, calls):
    """A graph's replay of `calls` calls over the copies in turn. The call has run before."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(copies[0])  # what libraries set up for a stream, they must not while it is captured
        stream.synchronize()
        # Other threads, of libraries, may go on with what a capture forbids.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for i in range(calls):
                call(copies[i % len(copies)])
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


def take_turns(runners, rounds, max_s, rng: random.Random):
    """Warms every runner before any is timed, then samples all in random order, round by round."""
    of_case = {}
    for runner in runners:
        of_case.setdefault(runner.case, []).append(runner)
    for siblings in of_case.values():
        for runner in siblings:
            runner.warm(WARM_S / len(siblings))
    began = time.perf_counter()
    for done in range(rounds):
        if done >= 5 and time.perf_counter() - began > max_s:
            break
        rng.shuffle(runners)
        for runner in runners:
            runner.sample()


def summary(samples):
    """Median and interquartile range."""
    if len(samples) < 2:
        return samples[0], None
    q1, _, q3 = statistics.quantiles(samples, n=4, method="inclusive")
    return statistics.median(samples), q3 - q1
