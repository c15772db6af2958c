"""At the paper's own scale, without data or trained weights: what a method costs and how fast it is."""

import itertools
import logging
import math
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dynlib import export, latency, settings
from dynlib.backbones import build
from dynlib.book import records
from dynlib.book.recipes import with_octaves
from dynlib.book.records import Record
from dynlib.book.zoo.authors_count import AUTHORS
from dynlib.cost import count, example
from dynlib.engines import check_engine, check_threads, installed_engines
from dynlib.errors import InputError
from dynlib.papers import method
from dynlib.runtime import Deployed
from dynlib.settings import LATER


def cost_of(
    key: str, config: object, arch: str, size: tuple[int, int], classes: int = 1000, octaves: float = 0.0
) -> dict:
    """What a method makes of a network's cost for one image of (height, width) pixels, as plain values.

    MACs are integers and counted as they run; `closed_form` is the same integer from formulas. `ratio` is that of the
    untouched network's `macs_static` to `macs`. Methods with choices add `macs_by_choice`, and those that skip a given
    share of the positions `macs_expected`, with the ratio to it. With `octaves`, that share of low channels is put into
    the network before the method converts it.
    Raises InputError for a network or a size that the method cannot take.
    """
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # the exception says it all
    paper, network, image = method(key), _image_network(arch, classes), example(size)
    model = paper.convert(with_octaves(network, octaves), config)
    try:
        static = count(network, image).macs
    except (RuntimeError, AssertionError) as error:  # torch's words for a map smaller than its kernel
        reason = str(error).partition("\n")[0]
        raise InputError(f"size is {size[0]}x{size[1]}, which {arch} cannot take: {reason}") from error
    cost = count(model, image)
    closed = paper.cost(model, size)
    assert closed.macs == cost.macs, f"{key} on {arch}: closed form {closed.macs}, counted {cost.macs}"
    choices = {"macs_by_choice": paper.macs_by_choice(model, size)} if paper.macs_by_choice else {}
    if (expected := paper.macs_expected(model, size)) is not None:
        choices |= {"macs_expected": expected, "ratio_expected": static / expected}
    return {
        "key": key,
        "arch": arch,
        "size": _side(size),
        "classes": classes,
        "config": settings.plain(asdict(config)),
        "params": closed.params,  # those with an effect: masks hold others too
        "macs": cost.macs,
        "macs_static": static,
        "ratio": static / cost.macs,
        "closed_form": closed.macs,
        "authors_macs": count(model, image, formulas=AUTHORS).macs,
        "uncounted": list(cost.uncounted),
        **choices,
    }


def deploy(
    key: str, config: object, arch: str, size: tuple[int, int], classes: int = 1000, weights: Path | None = None
) -> Deployed:
    """A converted network with weights from a file, ready to save; its setting stands in `about`.

    The file holds the state of the converted network, or of the network as it was. Raises InputError where it does not
    fit either, naming what differs.
    """
    paper, network = method(key), _image_network(arch, classes)
    state = None if weights is None else _state(weights)
    if state is not None and state.keys() == network.state_dict().keys():
        _load(network, state, weights)
        state = None
    model = paper.convert(network.eval(), config).eval()
    if state is not None:
        _load(model, state, weights)
    deployed = paper.deploy(model, example(size))
    deployed.about |= {"arch": arch, "config": settings.plain(asdict(config)), "weights": weights and weights.name}
    return deployed


def _state(path: Path) -> dict[str, Tensor]:
    allowed = "a .safetensors or .pt file of tensors, as model.state_dict() gives"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how the file could be read without looking what it does
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; allowed: {allowed}") from error
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as weights alone, without running it; allowed: {allowed}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds more than tensors by their names; allowed: {allowed}")
    return state


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights, all or none. Raises InputError naming the first that is missing, unknown or of another shape."""
    own = model.state_dict()
    for name in sorted(own.keys() | state.keys()):
        found, wanted = (tuple(of[name].shape) if name in of else None for of in (state, own))
        if found != wanted:
            raise InputError(f"{path}: {name} is {found}, the network wants {wanted}; weights of another setting?")
    model.load_state_dict(state)


STREAM = 20  # decisions of a dynamic method in one round: shares are whole multiples of 1 / STREAM


@dataclass(frozen=True)
class Timing:
    """What is timed besides the method."""

    arch: str
    size: tuple[int, int]  # height, width in px
    batch: int = 1
    threads: int = 1
    engine: str | None = field(default=None, metadata=LATER)  # of the method, of `engines.ENGINES`; None: the fastest
    dtype: str = field(default=latency.FLOAT32, metadata=LATER)  # of both sides, of `latency.DTYPES`
    octaves: float = field(default=0.0, metadata=LATER)  # as in `cost_of`
    shares: tuple[float, ...] | None = field(default=None, metadata=LATER)  # in the order of `macs_by_choice`

    def described(self, config: object) -> dict:
        """What a record is found by, the machine excepted: that stands in its environment."""
        return {"method": settings.described(config)} | settings.described(self) | {"size": _side(self.size)}


def latency_pair(batch: int, key: str, config: dict, **timing) -> tuple[nn.Module, dict[str, Callable], Tensor, dict]:
    """Both sides of a measurement, with random weights: the network, the method on each engine, and their example.

    Then what `latency.weigh` tells of the method. `config` and `timing`, fields of `Timing`, are plain values.

    With `shares` the method decides as always, and then each call is told what to have decided: the choices come round
    in a shuffled order in which choice k has the share `shares[k]`, exactly so in every `STREAM` calls.
    """
    asked = Timing(**timing)
    paper, network, images = method(key), _image_network(asked.arch).eval(), example(tuple(asked.size), batch=batch)
    model = paper.convert(with_octaves(network, asked.octaves), settings.build(paper.Config, config)).eval()
    first, *others = installed_engines() if asked.engine is None else [asked.engine]
    how = {"engine": first, "threads": torch.get_num_threads()}
    how |= {} if asked.dtype == latency.FLOAT32 else {"calibrate": [images]}
    deployed, facts = latency.weigh(lambda: paper.deploy(model, images, **how), batch)
    nets, left_out, expected = {first: deployed}, {}, deployed(images)
    for name in others:
        other = deployed.on(name)
        share = export.difference(other(images), expected)
        if share <= export.CLOSE or (asked.dtype == latency.INT8 and share < math.inf):
            nets[name] = other
        else:
            left_out[f"method on {name}"] = f"its outputs differ by {share:.0e} of the largest value"
    choices = [None] * latency.CALLS
    if asked.shares is not None:
        choices = stream(asked.shares, batch)
        nets = {name: _told(net, choices) for name, net in nets.items()}
    spent = deployed.operators_ms(images, choices)
    return network, nets, images, facts | {"left_out": left_out, "operators_ms": {"method": spent}}


def _told(net: Deployed, choices: Sequence[Tensor]) -> Callable[[Tensor], object]:
    """The network with its choices forced, one after another and round again."""
    forced = itertools.cycle(choices)
    return lambda batch: net(batch, choices=next(forced))


def stream(shares: Sequence[float], batch: int) -> tuple[Tensor, ...]:
    """Choices (batch,) of `STREAM` calls in which choice k has the share `shares[k]`, in a fixed shuffled order.

    Raises InputError where the shares are not multiples of 1 / STREAM with the sum 1.
    """
    counts = [round(share * STREAM) for share in shares]
    if any(abs(count - share * STREAM) > 1e-6 or share < 0 for count, share in zip(counts, shares, strict=True)):
        raise InputError(f"shares are {list(shares)}; each is a multiple of {1 / STREAM:g}, such as 0.3,0.25,0.45")
    if sum(counts) != STREAM:
        raise InputError(f"shares are {list(shares)}; their sum is {sum(shares):g}, not 1")
    choices = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).repeat(batch)
    order = torch.randperm(len(choices), generator=torch.Generator().manual_seed(0))
    return choices[order].split(batch)


def time_latency(key: str, config: object, asked: Timing, repeats: int = 20) -> Record:
    """Time a method against its network in a process of its own; the record, unsaved, at the paper's own scale.

    Shares are for methods that decide an image at a time: random weights would decide at random. The MAC ratio is then
    that of the mean image; that of a method that skips a given share of the positions is `ratio_expected`.
    Raises InputError for an engine, threads or dtype that there are not, and for shares where there is nothing to
    choose, or none where there is.
    """
    began = time.perf_counter()
    if asked.engine is not None:
        check_engine(asked.engine)
    check_threads(asked.threads)
    if asked.dtype not in latency.DTYPES:
        raise InputError(f"dtype is {asked.dtype!r}; allowed: {', '.join(latency.DTYPES)}")
    cost, shares = cost_of(key, config, asked.arch, asked.size, octaves=asked.octaves), asked.shares
    by_choice = dict(cost.get("macs_by_choice", {}))
    always = by_choice.pop("predictor", 0)
    choices, ratio = list(by_choice.values()), cost.get("ratio_expected", cost["ratio"])
    if len(shares or ()) != len(choices) and not (shares is None and "ratio_expected" in cost):
        given = list(shares) if shares else "missing"
        wanted = f"give the share of each: {', '.join(by_choice)}" if choices else "leave shares out"
        raise InputError(f"shares are {given}; {key} on {asked.arch} has {len(choices) or 'no'} choices, {wanted}")
    cycle = 1
    if shares is not None:
        cycle = len(stream(shares, asked.batch))
        mean = always + sum(share * macs for share, macs in zip(shares, choices, strict=True))
        ratio = cost["macs_static"] / mean
    described = asked.described(config)
    arguments = {"key": key, "config": described["method"]} | settings.plain(asdict(asked))
    how = {name: arguments[name] for name in ("batch", "threads", "dtype")} | {"repeats": repeats, "cycle": cycle}
    del arguments["batch"]  # passed on with the rest
    measured = latency.in_own_process(f"{__name__}:{latency_pair.__name__}", arguments, **how)
    # efficiency: the share of the saved multiply-accumulates that the clock saw
    metrics = settings.plain(asdict(measured)) | {"macs_ratio": ratio, "efficiency": measured.speedup / ratio}
    wall_s = time.perf_counter() - began
    return records.made(key, "latency", "paper", described, metrics=metrics, wall_s=wall_s, threads=asked.threads)


def _image_network(arch: str, classes: int = 1000) -> nn.Module:
    network = build(arch, classes)
    if any(isinstance(layer, nn.Conv3d) for layer in network.modules()):
        raise InputError(f"arch is {arch}, which takes clips; allowed: networks of images, such as resnet50")
    return network


def _side(size: tuple[int, int]) -> int | list[int]:
    """As everywhere, one number is a square."""
    return size[0] if size[0] == size[1] else list(size)
