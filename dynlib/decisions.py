"""What is decided between the parts of a deployed network, in NumPy; see `runtime`."""

from typing import Any

import numpy as np

from dynlib.deployed import THRESHOLDS, Deployed
from dynlib.errors import InputError


class Resolutions(Deployed):
    """A predictor, then one classifier a resolution; equal choices run together. See `papers.drnet`."""

    kind = "resolutions"

    def __init__(self, *args):
        super().__init__(*args)
        self.choice_count = len(self.parts) - 1  # the predictor is no choice

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
    Raises InputError for another number of thresholds than there are exits before the last, and for what is no number.
    """

    kind = "stages"

    def __init__(self, *args):
        super().__init__(*args)
        self._plan = [(stage["reads"], stage["yields"]) for stage in self.about["stages"]]
        self._thresholds = _checked_thresholds(self.about.get(THRESHOLDS), len(self._plan) - 1)
        last = {piece: number for number, (reads, _) in enumerate(self._plan) for piece in reads}
        self._spent = [[piece for piece, at in last.items() if at == number] for number in range(len(self._plan))]
        self.choice_count = len(self._plan)

    def _decide(self, images, choices):
        count, last = len(images), len(self._plan) - 1
        if count == 1:
            return self._alone(images, choices)
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
            sure = confidence(logits) >= self._thresholds[number]
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

    def _alone(self, image, choice):
        """As `_decide`, for one image: nothing to compact, and no time lost on it."""
        kept, exits, last = {"image": image}, [], len(self._plan) - 1
        for number, (part, (reads, yields)) in enumerate(zip(self.parts.values(), self._plan, strict=True)):
            logits, *pieces = part(*map(kept.__getitem__, reads))
            exits.append(logits)
            if number == last:
                break
            sure = confidence(logits)[0] >= self._thresholds[number]
            if sure if choice is None else choice[0] <= number:
                break
            kept.update(zip(yields, pieces, strict=True))
        missing = [np.full_like(logits, np.nan)] * (last - number)
        return logits, np.array([number]), np.stack(exits + missing)


def _checked_thresholds(given: Any, count: int) -> np.ndarray:
    numbers = isinstance(given, list) and all(type(value) in (int, float) and value == value for value in given)
    if not numbers or len(given) != count:
        raise InputError(f"thresholds are {given!r}; allowed: a list of {count} numbers, one an exit but the last")
    return np.asarray(given, np.float32)


class Sampled(Deployed):
    """A network that computes sampled positions alone; chance comes in from outside. See `papers.sampling`.

    `about` has `densities`, to which masks can be forced, `seed`, and `masks`: the number and the size (H, W) of each
    that is drawn. The draws are those of torch's generator, which NumPy has too; so are the masks.
    """

    kind = "sampled"

    def __init__(self, *args):
        super().__init__(*args)
        self._draws: dict[int, list[np.ndarray]] = {}
        self.choice_count = len(self.about["densities"])

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


def confidence(logits: np.ndarray) -> np.ndarray:
    """The largest class probability (N,) of logits (N, C)."""
    return 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)


def drawn(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """`torch.rand` of a generator with the seed of one mask: 24 bits of each number of a Mersenne twister."""
    twister = np.random.MT19937()
    twister._legacy_seeding((seed * 1_000_003 + number) % 2**32)
    bits = twister.random_raw(int(np.prod(shape))) & (2**24 - 1)
    return (bits.astype(np.float32) * np.float32(2**-24)).reshape(shape)
