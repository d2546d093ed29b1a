#!/usr/bin/env python3
"""Time PyTorch's attention, plain and Triton formulations of MLA and MTLA, and the package mtla on a GPU.

The cases are those of sweeps (`attn-bench plan`), so that `compare_gpu.py` can lay the rows beside a run's.
Each peer is compared with the formulas in float64 before it is timed; one that cannot do a case has a row that
says why.

    python3 scripts/peers/gpu_peers.py experiments/gpu-*.yaml --out peers.jsonl --seconds 120
    python3 scripts/peers/gpu_peers.py experiments/gpu-*.yaml --out out.jsonl --device cpu --small

The second exercises the script where there is no GPU. A row per peer, regime and way to launch, in JSON lines:

    peer, variant       sdpa (cudnn, flash, efficient, math; -folded: a group's queries as rows of their KV
                        head; -padded: values as wide as keys; masked: MTLA's mask as a tensor), absorbed
                        (matmul, triton), fact-b (MTLA's mask as causal attention and a diagonal, by flash,
                        cudnn, efficient), mtla-package (its version); -compiled: by torch.compile
    case_id ... n_heads the case as its plan says; scope `op` is attention alone, `layer` the projections too
    regime              cold (more than twice the L2 cache is read between two uses of the operands) or hot
    graph               whether a CUDA graph was replayed, or kernels were launched one by one
    time_median_s, time_iqr_s, n    device time of a call or step by CUDA events, over samples of `calls` calls
    wall_median_s       the same by the host's clock until the GPU is done; none for graphs, which are queued
    bytes, flops        the least and the useful ones by our cost model; bytes_per_s and flops_per_s follow
    error               ||out - formula|| / ||formula|| in float64, at sampled sequences and rows
    status, reason      ok, unavailable, wrong, oom, skipped
    copies              of the operands; sm_mhz, temperature_c, power_w, throttle_reasons after the point

Not yet run on a GPU.
"""

import argparse
import dataclasses
import functools
import json
import math
import random
import sys
import time
import warnings
from pathlib import Path

import torch

from gpu import attention, cases, formulas, layers, machine, operands, package, timing
from turns import without_broken_amx

# On a CPU the script is exercised, not measured: any size will do.
CPU_CACHE_BYTES = 1 << 18
# Of PyTorch's plain formula alone the operation counts, and the first thing one writes is no layer either.
OP_ONLY = {("sdpa", "math"), ("sdpa", "masked")}
LAYER_ONLY = {("sdpa", "flash-compiled"), ("sdpa", "flash-folded-compiled")}
# After these no call to CUDA works any more.
FATAL = ("illegal memory access", "misaligned address", "launch failure", "device-side assert")


class Session:
    """What all points share."""

    def __init__(self, args, out):
        self.args, self.out = args, out
        self.began = time.monotonic()
        self.rng = random.Random(args.seed)
        self.facts = machine.versions(args.device)
        self.compile_s = args.compile_seconds
        self.peers = attention.peers(args.device)
        if args.device == "cuda":
            properties = torch.cuda.get_device_properties(0)
            self.l2_bytes, self.memory_bytes = properties.L2_cache_size, properties.total_memory
        else:
            self.l2_bytes, self.memory_bytes = CPU_CACHE_BYTES, math.inf
        self.failed = False

    def over(self):
        return self.args.seconds is not None and time.monotonic() - self.began > self.args.seconds

    def row(self, case, peer, variant, **columns):
        row = {"peer": peer, "variant": variant, **case.about(), "bytes": case.bytes_moved, "flops": case.flops}
        self.out.write(json.dumps(row | columns | self.facts) + "\n")
        self.out.flush()


@dataclasses.dataclass
class Checked:
    """A peer that agrees with the formulas on a case."""

    peer: object
    call: object
    error: float
    steps: int = 1
    no_graph: str | None = None  # why none can be captured


def reason_of(error, warned):
    """The first line of an exception, and what PyTorch said of the backends it did not take."""
    said = [str(w.message).splitlines()[0].split(" (Triggered")[0] for w in warned]
    said = [line for line in said if "not used because" not in line and "runtime disabled" not in line]
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "; ".join(dict.fromkeys([first, *said]))[:500]


def check(session, case, peer, o, reference, pick):
    """Runs a peer once, and raises where it is wrong."""
    if (peer.name, peer.variant) in (OP_ONLY if case.scope == "layer" else LAYER_ONLY):
        raise attention.Unfit("for the other scope")
    operation = peer.attention(case)

    def operate(o):
        return operation(*(o[name] for name in ("q", "k", "v", "cache") if name in o))

    call = layers.layer(case, operation) if case.scope == "layer" else operate
    began = time.monotonic()
    if peer.compiled:
        if session.compile_s <= 0:
            raise attention.Unavailable("left out: the time for compiling is spent")
        call = torch.compile(call, dynamic=False)
    with torch.inference_mode(), peer.context():
        out = call(o)
        error = formulas.relative_error(pick(out), reference)
        finite = bool(out.isfinite().all())
    if peer.compiled:
        session.compile_s -= time.monotonic() - began
    if not (finite and error <= formulas.tolerance(case)):
        raise AssertionError(f"error {error:.1e}, {formulas.tolerance(case):.0e} is allowed")
    return Checked(peer, call, error)


def check_package(case, o, reference, pick):
    peer = attention.Peer(package.NAME, package.version(), None)
    with torch.inference_mode():
        run, steps, error = package.build(case, o)
        out = run()
        if error is None:
            error = formulas.relative_error(pick(out), reference)
    if not (out.isfinite().all() and error <= package.ROUNDING * formulas.tolerance(case)):
        raise AssertionError(f"error {error:.1e}, {package.ROUNDING * formulas.tolerance(case):.0e} is allowed")
    return Checked(peer, lambda _: run(), error, steps, "it waits for the host within a call")


def guarded(session, case, name, variant, attempt, **columns):
    """What `attempt` returns, or none and a row that says why."""

    def row(status, reason):
        session.row(case, name, variant, status=status, reason=reason, **columns)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            return attempt()
        except attention.Unfit:
            pass  # no news
        except attention.Unavailable as error:
            row("unavailable", str(error))
        except AssertionError as error:
            session.failed = True
            row("wrong", str(error))
        except torch.OutOfMemoryError as error:
            row("oom", reason_of(error, []))
        except Exception as error:  # of any kind: a library's kernel that refuses must not end the others
            row("unavailable", reason_of(error, warned))
            if any(text in str(error) for text in FATAL):
                raise SystemExit(f"{case.label} {name} {variant}: {error}")  # nothing works after it
    return None


def runners_of(session, case, checked, ring):
    """The ways to run a peer: cold and hot, launch by launch and as a graph."""
    peer, device = checked.peer, session.args.device

    def runner(regimes, graph, calls, work):
        return timing.Runner(case, peer, regimes, graph, calls, checked.steps, work, device)

    def replay(copies, calls):
        with torch.inference_mode(), peer.context():
            return timing.captured(checked.call, copies, calls)

    once_s = runner((), False, 1, lambda: checked.call(ring[0])).sample(keep=False)
    few = max(1, min(timing.HOT_CALLS, int(timing.HOT_S / once_s)))
    # One copy that is larger than both caches is cold on its own: one measurement serves both names.
    regimes = {("cold",): (ring, few), ("hot",): (ring[:1], few)}
    if len(ring) == 1:
        regimes = {("cold", "hot"): (ring, few)}
    if checked.no_graph:
        regimes = {("hot",): (ring[:1], 1)}  # the package keeps a cache of its own, of which there is one copy
    found = []
    for names, (copies, calls) in regimes.items():
        found.append(runner(names, False, calls, timing.eager(checked.call, copies, calls)))
        reason = checked.no_graph or ("no CUDA graphs on a CPU" if device == "cpu" else None)
        if reason:
            for regime in names:
                columns = {"regime": regime, "graph": True, "status": "unavailable", "reason": reason}
                session.row(case, peer.name, peer.variant, **columns)
            continue
        calls = max(calls, len(copies))  # a graph always goes through all copies
        work = guarded(session, case, peer.name, peer.variant, lambda: replay(copies, calls), graph=True)
        if work:
            found.append(runner(names, True, calls, work))
    return found


def parts(session, group):
    """The variants of a point in as few parts as memory for all operands at once allows."""
    part, held = [], 0
    for case in group:
        if part and held + case.bytes_moved > session.memory_bytes / 3:
            yield part
            part, held = [], 0
        part.append(case)
        held += case.bytes_moved
    yield part


def measure(session, group):
    """Variants of a point: operands, checks, then turns."""
    ready, runners = [], []
    for case in group:
        prepared = guarded(session, case, "*", "*", lambda: prepare(session, case))
        if prepared:
            ready.append(prepared)
    for case, ring, found in ready:
        for checked in found:
            name, variant = checked.peer.name, checked.peer.variant
            made = guarded(session, case, name, variant, lambda: runners_of(session, case, checked, ring))
            runners += [(case, checked, len(ring), runner) for runner in made or []]
    timing.take_turns([entry[-1] for entry in runners], session.args.rounds, session.args.max_s, session.rng)
    now = machine.conditions(session.args.device)
    for case, checked, copies, runner in runners:
        median, iqr = timing.summary(runner.times_s)
        for regime in runner.regimes:
            session.row(
                case,
                checked.peer.name,
                checked.peer.variant,
                regime=regime,
                graph=runner.graph,
                time_median_s=median,
                time_iqr_s=iqr,
                n=len(runner.times_s),
                calls=runner.calls,
                wall_median_s=None if runner.graph else timing.summary(runner.walls_s)[0],
                bytes_per_s=case.bytes_moved / median,
                flops_per_s=case.flops / median,
                error=checked.error,
                copies=copies,
                status="ok",
                reason="one measurement serves both regimes" if len(runner.regimes) > 1 else None,
                **now,
            )


def prepare(session, case):
    """The case, copies of its operands, and the peers that agree with the formulas."""
    o = operands.build(case, session.args.device)
    bytes_of_one = sum(x.nbytes for x in o.values())
    with torch.inference_mode():
        reference, pick = formulas.expected(case, o)
    attempts = [
        (peer.name, peer.variant, functools.partial(check, session, case, peer, o, reference, pick))
        for peer in session.peers
    ]
    if session.args.only in package.NAME:
        attempts.append((package.NAME, package.version(), lambda: check_package(case, o, reference, pick)))
    found = [guarded(session, case, *attempt) for attempt in attempts]
    ring = [o]
    while len(ring) < timing.copies_for(bytes_of_one, session.l2_bytes):
        ring.append({name: x.clone() for name, x in o.items()})
    return case, ring, [checked for checked in found if checked]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sweeps", nargs="+", type=Path, help="sweep files; cases of decode and prefill are taken"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--attn-bench", default="attn-bench", help="the binary that plans the sweeps")
    parser.add_argument(
        "--option", action="append", default=[], help="one more argument of `plan`: --option=--filter=..."
    )
    parser.add_argument(
        "--rows", type=Path, help="rows of a run (`export --format json`): only cases that are ok there"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    parser.add_argument("--only", default="", help="peers whose name and variant contain this text")
    parser.add_argument("--seconds", type=float, help="begin no point after so long")
    parser.add_argument(
        "--compile-seconds", type=float, default=60, help="time that torch.compile may take in all"
    )
    parser.add_argument("--rounds", type=int, default=20, help="samples of each runner")
    parser.add_argument(
        "--max-s", type=float, default=3, help="of a point's sampling, after which five samples do"
    )
    parser.add_argument("--seed", type=int, default=42, help="of the order")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that PyTorch can use; --device cpu exercises the script")
    if args.device == "cpu":
        without_broken_amx()
    torch.set_float32_matmul_precision("highest")  # no TF32

    options = args.option + ["--device", args.device]
    if args.small:
        options += [part for setting in cases.SMALL for part in ("--set", setting)]
    only = None
    if args.rows:
        only = {row["case_id"] for row in json.loads(args.rows.read_text()) if row["status"] == "ok"}
    groups = cases.read_plans(args.attn_bench, args.sweeps, options, only, random.Random(args.seed))

    with args.out.open("a") as out:
        session = Session(args, out)
        session.peers = [peer for peer in session.peers if args.only in f"{peer.name} {peer.variant}"]
        for i, group in enumerate(groups):
            point = " ".join(str(part) for part in group[0].point)
            if session.over():
                for case in group:
                    session.row(case, "*", "*", status="skipped", reason="the time was spent")
                continue
            print(
                f"{i + 1} of {len(groups)}, {time.monotonic() - session.began:.0f} s: {point}",
                file=sys.stderr,
                flush=True,
            )
            for part in parts(session, group):
                measure(session, part)
            # Compilations of other shapes count towards Dynamo's limit, and graphs keep their memory.
            torch._dynamo.reset()
            if args.device == "cuda":
                torch.cuda.empty_cache()
    sys.exit(3 if session.failed else 0)


if __name__ == "__main__":
    main()
