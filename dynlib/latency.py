"""The timing protocol: one network against another on this CPU, fairly.

Both sides run in one process of their own, whose threads and huge pages are set before torch is imported. They are
warmed up and then timed in turn, round by round, so that whatever else the machine does meets both; denormals are
flushed to zero on both. Each side is the fastest of its variants: the network eager, channels last, compiled, and on
the engines that are installed; the method on these. A variant that fails, or that yields other numbers, is left out
with a word. The result is the median and quartiles of the rounds' ratios, never a ratio of two runs.

`python -m dynlib.latency` is that process: a specification as JSON on standard input, one JSON line on standard output.
"""

import contextlib
import gc
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import median, quantiles
from time import perf_counter, perf_counter_ns
from typing import Any

import torch
from torch import Tensor

from dynlib.engines import check_threads
from dynlib.errors import InputError
from dynlib.runtime import Deployed
from dynlib.variants import FLOAT32, INT8, Net, variants_of

DTYPES = FLOAT32, INT8
LOST, FEW = 1.5, 3  # times as slow as the fastest of its side; rounds in which such a variant is timed all the same
CALLS = 10  # over which the time of each operator is a mean


@dataclass(frozen=True)
class Latency:
    """Milliseconds are medians over rounds, for the whole batch."""

    batch: int
    threads: int
    dtype: str
    static_ms: float  # of the fastest variant
    method_ms: float  # of its fastest
    speedup: float  # median over rounds of static / method
    speedup_iqr: tuple[float, float]  # its lower and upper quartile
    static_variant: str  # the name of the fastest
    variants_ms: dict[str, float]  # every static variant
    repeats: int  # rounds
    left_out: dict[str, str] = field(default_factory=dict)  # static variants that failed, and how
    engine: str | None = None  # the method's fastest variant
    engines_ms: dict[str, float] = field(default_factory=dict)  # every variant of the method
    operators_ms: dict[str, dict[str, float]] = field(default_factory=dict)  # of both sides in ONNX Runtime, a call
    export_s: float | None = None  # to make the method's graphs; these three where it is a `Deployed`
    load_s: float | None = None  # from its folder until it can run, in a process without torch
    peak_mb: float | None = None  # the most memory that such a process holds


# ---------------------------------------------------------------------------------------------------- in this process


@torch.no_grad()
def compare(
    static: Mapping[str, Net],
    method: Mapping[str, Net],
    example: Tensor,
    *,
    repeats: int = 20,
    min_seconds: float = 0.2,
    cycle: int = 1,
) -> Latency:
    """Time every variant of the network and of the method on `example`, (N, ...), interleaved.

    A round times a block of calls of each, starting with another one each round. A block lasts about `min_seconds`:
    enough calls in a row that each network finds its own weights in the cache, as it would in use. The clock is read
    here because torch's benchmark timer measures one statement at a time, with at least two warm-up calls of its own in
    every block, which would double the run of a large network. A method that takes its decisions from a list in turn
    is called whole multiples of `cycle` times in a block, so that each block holds the same mixture. A variant that has
    `LOST` after the warm-up is timed in `FEW` rounds alone.
    Raises InputError for fewer than 2 repeats, or a block of no time.
    """
    _check(repeats, min_seconds, cycle)
    nets = {("static", name): net for name, net in static.items()}
    nets |= {("method", name): net for name, net in method.items()}
    warm = {name: _warm_up(net, example, min_seconds) for name, net in nets.items()}
    fastest = {side: min(ns for (of, _), ns in warm.items() if of == side) for side, _ in nets}
    lost = {name for name, ns in warm.items() if ns > LOST * fastest[name[0]]}
    calls = {name: ceil(min_seconds * 1e9 / ns) for name, ns in warm.items()}
    calls |= {name: ceil(count / cycle) * cycle for name, count in calls.items() if name[0] == "method"}
    names = list(nets)
    times: dict[tuple[str, str], list[float]] = {name: [] for name in names}  # ms per call, a number a round
    gc.collect()
    gc.disable()
    try:
        for start in range(repeats):
            for name in names[start % len(names) :] + names[: start % len(names)]:
                if start < FEW or name not in lost:
                    times[name].append(_block(nets[name], example, calls[name]) / 1e6)
    finally:
        gc.enable()
    variants_ms, engines_ms = (
        {name: median(of) for (side, name), of in times.items() if side == wanted} for wanted in ("static", "method")
    )
    best, engine = (
        min((name for name in of if (side, name) not in lost), key=of.__getitem__)
        for side, of in (("static", variants_ms), ("method", engines_ms))
    )
    pairs = zip(times["static", best], times["method", engine], strict=True)
    ratios = [static_ms / method_ms for static_ms, method_ms in pairs]
    lower, middle, upper = quantiles(ratios, n=4, method="inclusive")
    return Latency(
        batch=len(example),
        threads=torch.get_num_threads(),
        dtype=str(example.dtype).removeprefix("torch."),
        static_ms=variants_ms[best],
        method_ms=engines_ms[engine],
        speedup=middle,
        speedup_iqr=(lower, upper),
        static_variant=best,
        variants_ms=variants_ms,
        repeats=repeats,
        engine=engine,
        engines_ms=engines_ms,
    )


def _warm_up(net: Net, example: Tensor, min_seconds: float) -> int:
    """Run for `min_seconds` and at least three times; the fastest call in ns. The first one may compile."""
    times, begin = [], perf_counter_ns()
    while len(times) < 3 or perf_counter_ns() - begin < min_seconds * 1e9:
        times.append(_block(net, example, 1))
    return max(1, int(min(times)))


def _block(net: Net, example: Tensor, calls: int) -> float:
    """Nanoseconds per call of a block. One call before it brings the weights back; a single long call needs no help."""
    if calls > 1:
        net(example)
    begin = perf_counter_ns()
    for _ in range(calls):
        net(example)
    return (perf_counter_ns() - begin) / calls


# ------------------------------------------------------------------------------------------------- in its own process


def in_own_process(
    factory: str,
    arguments: Mapping[str, Any],
    *,
    batch: int = 1,
    threads: int = 1,
    repeats: int = 20,
    min_seconds: float = 0.2,
    cycle: int = 1,
    dtype: str = FLOAT32,
) -> Latency:
    """`compare` in a fresh process with `threads` threads and transparent huge pages for both sides.

    Args:
        factory: "package.module:function"; called there as `function(batch=batch, **arguments)`, it returns the static
            network, the method as callables by name, and the float32 example that all take, (batch, ...); perhaps
            facts on top, fields of `Latency` by name.
        arguments: anything JSON can carry.
        batch: images in the example.
        threads: of every library that has some.
        repeats: rounds, at least 2.
        min_seconds: of one network in one round.
        cycle: calls of the method in a block are a multiple of it.
        dtype: float32, or int8 with the static engines in int8 too.

    Raises InputError where a value is out of range, or the factory found something wrong with its arguments, and
    RuntimeError where the process failed; its traceback is on standard error.
    """
    if factory.count(":") != 1 or not all(factory.split(":")):
        raise InputError(f"factory is {factory!r}; write package.module:function")
    if batch < 1:
        raise InputError(f"batch is {batch}; at least 1 image")
    check_threads(threads)
    _check(repeats, min_seconds, cycle)
    spec = {"factory": factory, "arguments": dict(arguments), "batch": batch, "threads": threads, "dtype": dtype}
    child = subprocess.run(
        [sys.executable, "-m", "dynlib.latency"],
        input=json.dumps(spec | {"repeats": repeats, "min_seconds": min_seconds, "cycle": cycle}),
        env=_environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(child.stderr)
    if child.returncode:
        last = (child.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"measuring {factory} ended with exit status {child.returncode}: {last}")
    answer = json.loads(child.stdout)
    if "input_error" in answer:
        raise InputError(answer["input_error"])
    return Latency(**answer | {"speedup_iqr": tuple(answer["speedup_iqr"])})


def _environment(threads: int) -> dict[str, str]:
    """What must be set before torch is imported; and the child finds the modules that this process finds."""
    fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return os.environ | fixed | {"THP_MEM_ALLOC_ENABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _check(repeats: int, min_seconds: float, cycle: int) -> None:
    if repeats < 2:
        raise InputError(f"repeats is {repeats}; quartiles need at least 2 rounds")
    if not min_seconds > 0:
        raise InputError(f"min_seconds is {min_seconds}; it must be above 0")
    if cycle < 1:
        raise InputError(f"cycle is {cycle}; at least 1 call")


def _child(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The measurement that `in_own_process` asked for, ready for JSON."""
    torch.set_num_threads(spec["threads"])
    torch.set_flush_denormal(True)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # tells CPU users that there is no CUDA
    module_name, function = spec["factory"].split(":")
    make = getattr(importlib.import_module(module_name), function)
    try:
        module, method, example, *facts = make(batch=spec["batch"], **spec["arguments"])
    except InputError as error:
        return {"input_error": str(error)}
    assert len(example) == spec["batch"] and example.dtype == torch.float32
    variants, left_out = variants_of(module, example, spec["threads"], spec["dtype"])
    rounds = {name: spec[name] for name in ("repeats", "min_seconds", "cycle")}
    measured = asdict(compare(variants, method, example, **rounds))
    told = facts[0] if facts else {}
    static = variants.get({FLOAT32: "onnxruntime", INT8: "onnxruntime_int8"}[spec["dtype"]])
    if static is not None and "operators_ms" in told:
        told["operators_ms"]["static"] = static.operators_ms(example, [None] * CALLS)
    return measured | told | {"left_out": left_out | told.get("left_out", {}), "dtype": spec["dtype"]}


def weigh(deploy: Callable[[], Deployed], batch: int) -> tuple[Deployed, dict[str, Any]]:
    """What `deploy` makes; the time that took, and time and memory that it takes elsewhere, as fields of `Latency`."""
    began = perf_counter()
    deployed = deploy()
    facts = {"export_s": round(perf_counter() - began, 2)}
    with tempfile.TemporaryDirectory() as folder:
        asked = [str(deployed.save(folder)), deployed.engine, str(deployed.threads), str(batch)]
        told = subprocess.run([sys.executable, "-m", "dynlib.runtime", *asked], capture_output=True, check=True)
    return deployed, facts | json.loads(told.stdout)


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints, the answer stays one line
        answer = _child(json.load(sys.stdin))
    print(json.dumps(answer))
