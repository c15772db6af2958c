"""A deployed network: ONNX graphs, called with images and written to a folder. Needs no torch."""

import hashlib
import json
import sys
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dynlib.engines import Part, allowed_threads, check_engine, check_threads
from dynlib.errors import InputError

FORMAT = 2  # of the folder; another one is refused
ABOUT = "deployed.json"
THRESHOLDS = "thresholds"  # all of deployed.json that may be changed by hand
TENSOR = "tensor"  # in a description of what a network returns


class Deployed:
    """A network for inference on a CPU in float32; `parts` are its graphs by name, `about` all else that it is.

    Args:
        about: method, `image` (C, H, W), `returns`, and what its kind needs; plain values, as in deployed.json.
        graphs: the content of an ONNX file by its name, in the order in which they run.
        engine: `onnxruntime` or `openvino`.
        threads: of each run; None is as many as the process may use.

    Raises InputError for an engine that is not there, or more threads than there are cores for this process.
    """

    kind: ClassVar[str] = "graph"

    def __init__(self, about: Mapping[str, Any], graphs: Mapping[str, bytes], engine: str, threads: int | None):
        self.about, self.engine = dict(about), check_engine(engine)
        self.threads = check_threads(allowed_threads() if threads is None else threads)
        settings = (self.engine, self.threads, len(graphs) == 1)
        self.parts = {name: Part(name, graph, *settings) for name, graph in graphs.items()}
        self._image, self._returned = tuple(about["image"]), _builder(about["returns"])
        self.choice_count = 0  # how many choices there are to force; 0 where nothing is decided

    def __call__(self, images, choices=None):
        """Images (N, C, H, W) float32 of the size that it was deployed for, any N, to what the network returns.

        `choices` (N,) int64 force what a dynamic network decides, an image each; it decides all the same, so that the
        time is that of a network that chose so. Arrays give arrays and torch tensors tensors.
        Raises InputError for other images, or choices that are none.
        """
        given, images = images, self._checked(images)
        choices = None if choices is None else self._checked_choices(choices, len(images))
        found = self._decide(images, choices)
        convert = sys.modules["torch"].from_numpy if _is_tensor(given) else (lambda array: array)
        return self._returned(map(convert, found))

    def _decide(self, images: np.ndarray, choices: np.ndarray | None) -> Sequence[np.ndarray]:
        """What the network yields, one array after another."""
        (part,) = self.parts.values()
        return part(images)

    @property
    def bytes(self) -> int:
        """Size of all graphs, almost all of it weights."""
        return sum(len(part.graph) for part in self.parts.values())

    def on(self, engine: str, threads: int | None = None) -> "Deployed":
        """The same network on another engine, or with another number of threads.

        Raises InputError for an engine that is not there, or that cannot run a part.
        """
        graphs = {name: part.graph for name, part in self.parts.items()}
        return type(self)(self.about, graphs, engine, self.threads if threads is None else threads)

    def operators_ms(self, images, choices: Sequence = (None,)) -> dict[str, float]:
        """Milliseconds by kind of ONNX operator on ONNX Runtime: of a call, the mean over one for each of `choices`."""
        net = self.on("onnxruntime")
        net(images)
        ends = [part.watch(net.threads) for part in net.parts.values()]
        for choice in choices:
            net(images, choice)
        spent = sum((end() for end in ends), Counter())
        return {operator: time_ms / len(choices) for operator, time_ms in spent.most_common()}

    def save(self, folder: str | Path) -> Path:
        """Write deployed.json and an .onnx file a part, in place of what was deployed there; the folder's path.

        Raises InputError where it cannot.
        """
        folder = Path(folder)
        files = {f"{name}.onnx": part.graph for name, part in self.parts.items()}
        sums = {name: hashlib.sha256(graph).hexdigest() for name, graph in files.items()}
        about = {"kind": self.kind, **self.about, "files": sums}
        about = {"format": FORMAT, "checksum": checksum(about), **about}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in _parts_in(folder) - files.keys():
                (folder / old).unlink(missing_ok=True)
            for name, graph in files.items():
                (folder / name).write_bytes(graph)
            (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror}; give a folder that can be written") from error
        return folder

    def __reduce__(self):
        """Raises InputError: sessions hold no weights that pickle could find."""
        raise InputError("a deployed network cannot be pickled or copied; write it with save(folder)")

    def state_dict(self):
        """Raises InputError: the weights have become part of the graphs."""
        raise InputError("a deployed network has no state_dict; write it with save(folder), read it with load(folder)")

    def _checked(self, images) -> np.ndarray:
        """The images as an array whose rows lie one after another."""
        given, where = images, ""
        if _is_tensor(images):
            torch, where = sys.modules["torch"], f" on {images.device}"
            plain = (images.dtype, images.layout, images.device.type) == (torch.float32, torch.strided, "cpu")
            images = images.numpy(force=True) if plain else None
        known = isinstance(images, np.ndarray) and images.dtype == np.float32 and images.shape[1:] == self._image
        if known and len(images):
            return np.ascontiguousarray(images)
        found = f"{given.dtype} {tuple(given.shape)}{where}" if hasattr(given, "dtype") else type(given).__name__
        allowed = f"float32 (N, {', '.join(map(str, self._image))}) on the CPU, N from 1 up, an array or a tensor"
        raise InputError(f"images are {found}; allowed: {allowed}")

    def _checked_choices(self, choices, count: int) -> np.ndarray:
        if not self.choice_count:
            raise InputError("choices are given, but this network has nothing to choose; leave them out")
        try:
            choices = choices.numpy() if _is_tensor(choices) else np.asarray(choices)
        except ValueError:  # lists of several lengths
            choices = np.asarray(choices, dtype=object)
        right = choices.dtype == np.int64 and choices.shape == (count,)
        if not right or not ((choices >= 0) & (choices < self.choice_count)).all():
            given = f"{choices.dtype} {choices.shape} {choices.flatten()[:8].tolist()}"
            raise InputError(f"choices are {given}; allowed: int64 ({count},) from 0 to {self.choice_count - 1}")
        return choices


def _parts_in(folder: Path) -> set[str]:
    """The files of what was deployed to a folder before; other people's files are none of them."""
    try:
        named = json.loads((folder / ABOUT).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in named if Path(name).name == name and name.endswith(".onnx")}


def checksum(about: Mapping[str, Any]) -> str:
    """Of a description, but for what may be changed by hand. Order counts: parts run in theirs."""
    fixed = {name: value for name, value in about.items() if name != THRESHOLDS}
    return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _builder(tree: Any) -> Callable[[Iterator], Any]:
    """What makes of arrays, in order, the thing that a network returns, by its description."""
    if tree == TENSOR:
        return next
    if isinstance(tree, list):
        parts = [_builder(part) for part in tree]
        return lambda arrays: tuple(part(arrays) for part in parts)
    if not isinstance(tree, dict):
        return lambda arrays: tree
    name, fields = next(iter(tree.items()))
    kind = dict if name == "dict" else namedtuple(name, fields)
    parts = {field: _builder(part) for field, part in fields.items()}
    return lambda arrays: kind(**{field: part(arrays) for field, part in parts.items()})
