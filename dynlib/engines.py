"""The engines that run ONNX graphs on a CPU, and one graph on one of them. Needs no torch."""

import importlib.util
import io
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from dynlib.errors import InputError

ENGINES = ("onnxruntime", "openvino")


def allowed_threads() -> int:
    """How many cores this process may use, by its affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int) -> int:
    """The number itself. Raises InputError for more threads than cores that this process may use."""
    most = allowed_threads()
    if not isinstance(threads, int) or not 1 <= threads <= most:
        raise InputError(f"threads is {threads}; this process may use {most} cores: 1 to {most}")
    return threads


def check_engine(engine: str) -> str:
    """The name itself. Raises InputError for an engine that is unknown or not installed."""
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; allowed: {', '.join(ENGINES)}")
    if importlib.util.find_spec(engine) is None:
        raise InputError(f"engine is {engine!r}, which is not installed: pip install {engine}")
    return engine


def installed_engines() -> list[str]:
    """Those of `ENGINES` that are installed."""
    return [engine for engine in ENGINES if importlib.util.find_spec(engine) is not None]


@lru_cache(maxsize=1)
def _openvino():
    """The one OpenVINO of this process, kept to its end.

    Its CPU plugin gives the thread that loads it a stack for signals, and takes it away when it goes. With several that
    go in another order than they came, a thread is left without: the next signal, such as a child's end, kills the
    process without a word (OpenVINO 2026.4). Its telemetry would fork this process to report to its makers.
    """
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino.Core()


class Part:
    """One ONNX graph with its session; several threads may run it at once.

    Args:
        name: of its file, without ending.
        graph: the content of that file.
        engine: one of `ENGINES`.
        threads: of each run.
        spinning: whether idle threads of the session wait busily; only where it is the only one.
    """

    def __init__(self, name: str, graph: bytes, engine: str, threads: int, spinning: bool = True):
        self.name, self.graph, self._local = name, graph, threading.local()
        start = {"onnxruntime": self._start_onnxruntime, "openvino": self._start_openvino}[engine]
        try:
            start(threads, spinning)
        except InputError:
            raise
        except Exception as error:  # the engines' own kinds; none of them is shared
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{name}: {engine} cannot run this graph: {reason}") from error

    def _start_onnxruntime(self, threads: int, spinning: bool, profile: str = ""):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.enable_profiling, options.profile_file_prefix = bool(profile), profile
        session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        self.inputs = [node.name for node in session.get_inputs()]
        run, names = session.run, self.inputs
        self._run = lambda arrays: run(None, dict(zip(names, arrays, strict=True)))
        return session

    def _start_openvino(self, threads: int, spinning: bool) -> None:
        core = _openvino()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        settings |= {"CPU_DENORMALS_OPTIMIZATION": True, "ENABLE_CPU_PINNING": False}
        model = core.compile_model(core.read_model(io.BytesIO(self.graph)), "CPU", settings)
        self.inputs = [port.any_name for port in model.inputs]

        def run(arrays):
            if not hasattr(self._local, "request"):  # a request serves one thread at a time
                self._local.request = model.create_infer_request()
            return list(self._local.request.infer(list(arrays)).values())

        self._run = run

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """What the graph yields for its inputs, in their order."""
        return self._run(arrays)

    def watch(self, threads: int) -> Callable[[], Counter]:
        """Start again, in ONNX Runtime with its profiler; what ends it tells milliseconds by operator, of all calls."""
        folder = tempfile.TemporaryDirectory()
        session = self._start_onnxruntime(threads, False, f"{folder.name}/profile")

        def end() -> Counter:
            spent = Counter()
            with folder, open(session.end_profiling()) as file:
                for event in json.load(file):
                    if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                        spent[event["args"]["op_name"]] += event["dur"] / 1e3
            return spent

        return end
