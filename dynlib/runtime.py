"""Deployed networks: ONNX graphs, and the decision between them in NumPy.

Nothing here needs torch: a folder written by `Deployed.save` runs wherever onnxruntime and numpy are installed.

    net = load("folder")
    logits = net(images)  # (N, C, H, W) float32, an array; a torch tensor gives tensors

What is decided between the parts of a network is its kind: nothing (`Deployed`), at which size each image is classified
(`Resolutions`), after which stage it may leave (`Stages`), or which positions chance computes (`Sampled`).
"""

import hashlib
import json
import sys
import time
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dynlib.engines import Part, allowed_threads, check_engine, check_threads
from dynlib.errors import InputError

FORMAT = 1  # of the folder; another one is refused
ABOUT = "deployed.json"
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

    def __call__(self, images, choices=None):
        """Images (N, C, H, W) float32 of the size that it was deployed for, any N, to what the network returns.

        `choices` (N,) int64 force what a dynamic network decides, an image each; it decides all the same, so that the
        time is that of a network that chose so. Arrays give arrays and torch tensors tensors.
        Raises InputError for other images, or choices that are none.
        """
        given, images = images, self._checked(images)
        choices = None if choices is None else self._checked_choices(choices, len(images))
        found = iter(self._decide(images, choices))
        convert = sys.modules["torch"].from_numpy if _is_tensor(given) else (lambda array: array)
        return _rebuilt(self.about["returns"], (convert(array) for array in found))

    def _decide(self, images: np.ndarray, choices: np.ndarray | None) -> Sequence[np.ndarray]:
        """What the network yields, one array after another."""
        (part,) = self.parts.values()
        return part(images)

    @property
    def choice_count(self) -> int:
        """How many choices there are to force; 0 where nothing is decided."""
        return 0

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

    def save(self, folder: str | Path) -> Path:
        """Write deployed.json and an .onnx file a part; the folder's path. Raises InputError where it cannot."""
        folder = Path(folder)
        files = {f"{name}.onnx": part.graph for name, part in self.parts.items()}
        sums = {name: hashlib.sha256(graph).hexdigest() for name, graph in files.items()}
        about = {"format": FORMAT, "kind": self.kind, **self.about, "files": sums}
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
        allowed = f"float32 (N, {', '.join(map(str, self.about['image']))}) on the CPU, N from 1 up"
        if _is_tensor(images):
            if images.device.type != "cpu" or images.dtype != sys.modules["torch"].float32:
                raise InputError(f"images are {images.dtype} on {images.device}; allowed: {allowed}")
            images = images.detach().numpy()
        if not isinstance(images, np.ndarray):
            raise InputError(f"images are of type {type(images).__name__}; allowed: an array or a tensor, {allowed}")
        if images.dtype != np.float32 or list(images.shape[1:]) != list(self.about["image"]) or not len(images):
            raise InputError(f"images are {images.dtype} {images.shape}; allowed: {allowed}")
        return np.ascontiguousarray(images)

    def _checked_choices(self, choices, count: int) -> np.ndarray:
        if not self.choice_count:
            raise InputError("choices are given, but this network has nothing to choose; leave them out")
        choices = choices.numpy() if _is_tensor(choices) else np.asarray(choices)
        right = choices.dtype == np.int64 and choices.shape == (count,)
        if not right or not ((choices >= 0) & (choices < self.choice_count)).all():
            given = f"{choices.dtype} {choices.shape} {choices.flatten()[:8].tolist()}"
            raise InputError(f"choices are {given}; allowed: int64 ({count},) from 0 to {self.choice_count - 1}")
        return choices


class Resolutions(Deployed):
    """A predictor, then one classifier a resolution; equal choices run together. See `papers.drnet`."""

    kind = "resolutions"

    @property
    def choice_count(self) -> int:
        """As many as there are candidate resolutions."""
        return len(self.parts) - 1

    def _decide(self, images, choices):
        predictor, *classifiers = self.parts.values()
        (z,) = predictor(images)
        choice = z.argmax(1) if choices is None else choices
        used = np.unique(choice)
        if len(used) == 1:
            return classifiers[used[0]](images)[0], choice, z
        logits = None
        for j in used:
            rows = np.flatnonzero(choice == j)
            (part,) = classifiers[j](images[rows])
            logits = np.empty((len(images), *part.shape[1:]), part.dtype) if logits is None else logits
            logits[rows] = part
        return logits, choice, z


class Stages(Deployed):
    """One graph a stage; an image leaves after the first whose confidence reaches `thresholds`. See `papers.s2dnas`.

    `about` has `thresholds` and `stages`: for each the names of the pieces that it reads and of those that it yields
    behind its logits, the image being "image". At batch 1 what comes after the exit does not run; in a batch, images
    that have left are dropped from all pieces where that spares at least `compact_from` of it.
    """

    kind = "stages"

    def __init__(self, *args):
        super().__init__(*args)
        self._plan = [(stage["reads"], stage["yields"]) for stage in self.about["stages"]]
        last = {piece: number for number, (reads, _) in enumerate(self._plan) for piece in reads}
        self._spent = [[piece for piece, at in last.items() if at == number] for number in range(len(self._plan))]

    @property
    def choice_count(self) -> int:
        """As many as there are exits."""
        return len(self._plan)

    def _decide(self, images, choices):
        count, last = len(images), len(self._plan) - 1
        thresholds = np.asarray(self.about["thresholds"], np.float32)
        kept = {"image": images}
        rows, active = np.arange(count), np.ones(count, bool)  # who is there, who has not left
        taken, exits = np.full(count, last), None
        for number, (part, (reads, yields)) in enumerate(zip(self.parts.values(), self._plan, strict=True)):
            logits, *pieces = part(*(kept[piece] for piece in reads))
            if exits is None:
                exits = np.full((last + 1, count, *logits.shape[1:]), np.nan, logits.dtype)
            exits[number, rows] = logits
            if number == last:
                break
            sure = confidence(logits) >= thresholds[number]
            leaves = active & (sure if choices is None else choices[rows] <= number)
            taken[rows[leaves]] = number
            active &= ~leaves
            if not active.any():
                break
            kept.update(zip(yields, pieces, strict=True))
            for piece in self._spent[number]:
                del kept[piece]
            if (~active).sum() >= self.about["compact_from"] * len(active):
                kept = {piece: value[active] for piece, value in kept.items()}
                rows, active = rows[active], active[active]
        return exits[taken, np.arange(count)], taken, exits


class Sampled(Deployed):
    """A network that computes sampled positions alone; chance comes in from outside. See `papers.sampling`.

    `about` has `densities`, to which masks can be forced, `seed`, and `masks`: the number and the size (H, W) of each
    that is drawn. The draws are those of torch's generator, which NumPy has too; so are the masks.
    """

    kind = "sampled"

    def __init__(self, *args):
        super().__init__(*args)
        self._draws: dict[int, list[np.ndarray]] = {}

    @property
    def choice_count(self) -> int:
        """As many as there are densities."""
        return len(self.about["densities"])

    def _decide(self, images, choices):
        count = len(images)
        draws = self._draws.get(count)
        if draws is None:  # of the last size of a batch alone; two threads at worst both compute it
            masks = self.about["masks"]
            draws = [drawn(self.about["seed"], number, (count, 1, *size)) for number, *size in masks]
            self._draws = {count: draws}
        forced = np.full(count, np.nan, np.float32)
        if choices is not None:
            density = np.asarray(self.about["densities"], np.float64)[choices]
            with np.errstate(divide="ignore"):
                forced = (np.log(density) - np.log1p(-density)).astype(np.float32)
        (part,) = self.parts.values()
        return part(images, forced, *draws)


KINDS = {kind.kind: kind for kind in (Deployed, Resolutions, Stages, Sampled)}


def load(folder: str | Path, *, engine: str = "onnxruntime", threads: int | None = None) -> Deployed:
    """The network that `Deployed.save` wrote; needs onnxruntime (or openvino) and numpy alone.

    Raises InputError for a folder that is none, of another version, or with a part that is missing or damaged.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / ABOUT} cannot be read ({error}); give a folder written by save") from error
    found = about.pop("format", None) if isinstance(about, dict) else None
    if found != FORMAT:
        raise InputError(f"{folder / ABOUT} has format {found!r}; this version reads format {FORMAT}: deploy it again")
    if about.get("kind") not in KINDS or not {"files", "image", "returns"} <= about.keys():
        raise InputError(
            f"{folder / ABOUT} has kind {about.get('kind')!r}; allowed: {', '.join(KINDS)}: deploy it again"
        )
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


def confidence(logits: np.ndarray) -> np.ndarray:
    """The largest class probability (N,) of logits (N, C)."""
    return 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)


def drawn(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """`torch.rand` of a generator with the seed of one mask: 24 bits of each number of a Mersenne twister."""
    twister = np.random.MT19937()
    twister._legacy_seeding((seed * 1_000_003 + number) % 2**32)
    bits = twister.random_raw(int(np.prod(shape))) & (2**24 - 1)
    return (bits.astype(np.float32) * np.float32(2**-24)).reshape(shape)


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _rebuilt(tree: Any, arrays: Iterator) -> Any:
    """What a network returns, from its description and the arrays in order."""
    if tree == TENSOR:
        return next(arrays)
    if isinstance(tree, list):
        return tuple(_rebuilt(part, arrays) for part in tree)
    if not isinstance(tree, dict):
        return tree
    name, fields = next(iter(tree.items()))
    values = {field: _rebuilt(part, arrays) for field, part in fields.items()}
    return values if name == "dict" else _named(name, tuple(fields))(**values)


@lru_cache
def _named(name: str, fields: tuple[str, ...]) -> type:
    return namedtuple(name, fields)


def _weigh(folder: str, engine: str, threads: str, batch: str) -> dict[str, float]:
    """Seconds to load a folder, and the most memory, MB, that this process held until it had run one batch."""
    import resource

    began = time.perf_counter()
    net = load(folder, engine=engine, threads=int(threads))
    load_s = time.perf_counter() - began
    net(np.zeros((int(batch), *net.about["image"]), np.float32))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {"load_s": round(load_s, 3), "peak_mb": round(peak * 1024 / 1e6, 1)}


if __name__ == "__main__":
    print(json.dumps(_weigh(*sys.argv[1:])))
