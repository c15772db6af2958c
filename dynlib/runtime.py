"""Deployed networks: ONNX graphs, and the decision between them in NumPy.

Nothing here needs torch: a folder written by `Deployed.save` runs wherever onnxruntime and numpy are installed.

    net = load("folder")
    logits = net(images)  # (N, C, H, W) float32, an array; a torch tensor gives tensors

What is decided between the parts of a network is its kind: nothing (`Deployed`), at which size each image is classified
(`Resolutions`), after which stage it may leave (`Stages`), or which positions chance computes (`Sampled`).
"""

import hashlib
import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from dynlib.decisions import Resolutions, Sampled, Stages, confidence, drawn
from dynlib.deployed import ABOUT, FORMAT, TENSOR, THRESHOLDS, Deployed, checksum
from dynlib.errors import InputError

__all__ = ["KINDS", "TENSOR", "Deployed", "Resolutions", "Sampled", "Stages", "confidence", "drawn", "load"]

KINDS = {kind.kind: kind for kind in (Deployed, Resolutions, Stages, Sampled)}


def load(folder: str | Path, *, engine: str = "onnxruntime", threads: int | None = None) -> Deployed:
    """The network that `Deployed.save` wrote; needs onnxruntime (or openvino) and numpy alone.

    Raises InputError for a folder that is none, of another version, with a part that is missing or damaged, or whose
    deployed.json was changed by hand in anything but thresholds.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / ABOUT} cannot be read ({error}); give a folder written by save") from error
    found = about.pop("format", None) if isinstance(about, dict) else None
    if found != FORMAT:
        raise InputError(f"{folder / ABOUT} has format {found!r}; this version reads format {FORMAT}: deploy it again")
    if about.pop("checksum", None) != checksum(about):
        raise InputError(f"{folder / ABOUT} was changed; allowed: other {THRESHOLDS}; for all else deploy it again")
    graphs = {}
    for name, expected in about.pop("files").items():
        try:
            graph = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error.strerror}; deploy it again") from error
        if (found := hashlib.sha256(graph).hexdigest()) != expected:
            raise InputError(f"{folder / name} is damaged: checksum {found[:12]}, not {expected[:12]}; deploy it again")
        graphs[name.removesuffix(".onnx")] = graph
    return KINDS[about.pop("kind")](about, graphs, engine, threads)


def _weigh(folder: str, engine: str, threads: str, batch: str) -> dict[str, float]:
    """Seconds to load a folder, and, on Linux, the most memory, MB, that this process held until it ran one batch."""
    began = time.perf_counter()
    net = load(folder, engine=engine, threads=int(threads))
    load_s = time.perf_counter() - began
    net(np.zeros((int(batch), *net.about["image"]), np.float32))
    status = Path("/proc/self/status")  # not getrusage: its figure begins with what the parent process held
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    told = {"load_s": round(load_s, 3)}
    return told | ({"peak_mb": round(int(peak[1]) * 1024 / 1e6, 1)} if peak else {})


if __name__ == "__main__":
    print(json.dumps(_weigh(*sys.argv[1:])))
