"""When to leave: thresholds on the largest probability, chosen on held-out logits that are collected once.

Everything here is a pure function of logits (E, N, C), labels (N,) and the cumulative cost of each exit, so any rule
can be tried without running the network again. What a rule found on held-out images is then applied to others:

    logits, labels = collect(model, held_out)
    best = budget(front(logits, labels, costs))
    on_test = leave(*collect(model, test), costs, best.thresholds)

`choices` does this for every rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.papers.s2dnas.layers import ExitRule
from dynlib.train import predict

NEVER = 2.0  # a threshold that no probability reaches
SHARED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)  # thresholds tried for a candidate of the search
QUOTIENTS = tuple(round(0.05 * step, 2) for step in range(1, 40))  # of the shares of neighbouring exits, as MSDNet's
TOLERANCES = (0.002, 0.005, 0.01, 0.02, 0.05)  # accuracy that a budget may lose
MOST_CELLS = 200_000_000  # combinations of thresholds times images that `front` holds in memory


class Outcome(NamedTuple):
    """What happens under one choice of thresholds."""

    thresholds: tuple[float, ...]  # E - 1 probabilities
    top1: float  # under early exits
    macs: float  # of the average image
    shares: tuple[float, ...]  # of the images that leave at each exit
    leaver_top1: tuple[float | None, ...]  # over those; None: nobody leaves there
    exit_top1: tuple[float, ...]  # of each exit over all images


def collect(model: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    """Logits (E, N, C) of every exit and labels (N,) of all samples in order, on the CPU; the model keeps its modes."""
    exits, labels = predict(model, batches, lambda output: output.exits.transpose(0, 1))  # (N, E, C)
    return exits.transpose(0, 1).contiguous(), labels


def confidence(logits: Tensor) -> Tensor:
    """Largest probability (E - 1, N) at each exit before the last."""
    return logits[:-1].softmax(-1).amax(-1)


def leave(logits: Tensor, labels: Tensor, costs: Sequence[int], thresholds: Sequence[float]) -> Outcome:
    """What happens where exit j lets go whoever is at least `thresholds[j]` sure, and the last exit all others."""
    count, taken = len(labels), ExitRule(thresholds, len(logits))(logits).taken
    right = logits.argmax(-1) == labels  # (E, N)
    there = [taken == exit for exit in range(len(logits))]
    leavers = [int(mask.sum()) for mask in there]
    hits = [int((row & mask).sum()) for row, mask in zip(right, there, strict=True)]
    return Outcome(
        tuple(map(float, thresholds)),
        sum(hits) / count,
        sum(n * macs for n, macs in zip(leavers, costs, strict=True)) / count,
        tuple(n / count for n in leavers),
        tuple(hit / n if n else None for hit, n in zip(hits, leavers, strict=True)),
        tuple(row.double().mean().item() for row in right),
    )


def shared(logits: Tensor, labels: Tensor, costs: Sequence[int], thresholds: Sequence[float] = SHARED) -> list[Outcome]:
    """One threshold for all exits, each of those given in turn."""
    return [leave(logits, labels, costs, (value,) * (len(logits) - 1)) for value in thresholds]


def quota(
    logits: Tensor, labels: Tensor, costs: Sequence[int], quotients: Sequence[float] = QUOTIENTS
) -> list[Outcome]:
    """MSDNet's rule: exit k lets go the share q^k / (q + q^2 + ...) that is surest there, for each q in turn.

    The threshold is the confidence of the last one of its quota among those still there; ties may shift the shares.
    """
    return [leave(logits, labels, costs, _quota_thresholds(confidence(logits), q)) for q in quotients]


def _quota_thresholds(sure: Tensor, q: float) -> tuple[float, ...]:
    exits, count = len(sure) + 1, sure.shape[1]
    total = sum(q**k for k in range(1, exits + 1))
    alive, thresholds = torch.ones(count, dtype=torch.bool), []
    for exit, row in enumerate(sure):
        ranked = row[alive].sort(descending=True).values
        wanted = min(int(count * q ** (exit + 1) / total), len(ranked))
        thresholds.append(ranked[wanted - 1].item() if wanted else NEVER)
        alive &= row < thresholds[-1]
    return tuple(thresholds)


def front(logits: Tensor, labels: Tensor, costs: Sequence[int], *, points: int = 50) -> list[Outcome]:
    """The thresholds that no others beat in both accuracy and cost, from the cheapest to the most accurate.

    All combinations of `points` quantiles of each exit's confidences are tried, and NEVER besides.

    Raises InputError where there are too many combinations to try.
    """
    sure, right = confidence(logits), logits.argmax(-1) == labels
    exits, count = len(logits), len(labels)
    combinations = (points + 1) ** (exits - 1)
    if points < 1 or combinations * count > MOST_CELLS:
        raise InputError(
            f"points is {points}: {combinations} combinations of {count} images; at least 1, and fewer for many exits"
        )
    steps = torch.linspace(0, 1, points)
    grids = [torch.cat([torch.quantile(row, steps, interpolation="nearest"), torch.tensor([NEVER])]) for row in sure]
    alive = torch.ones(1, count, dtype=torch.bool)  # (combinations so far, N)
    hits, macs = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    for row, grid, correct, price in zip(sure, grids, right, costs, strict=False):
        lets_go = row >= grid[:, None]  # (G, N)
        leaving = alive[:, None] & lets_go  # (A, G, N)
        hits = (hits[:, None] + (leaving & correct).sum(-1)).flatten()
        macs = (macs[:, None] + leaving.sum(-1) * price).flatten()
        alive = (alive[:, None] & ~lets_go).flatten(0, 1)
    hits = hits + (alive & right[-1]).sum(-1)
    macs = macs + alive.sum(-1) * costs[-1]
    found, most = [], -1
    for place in sorted(range(combinations), key=lambda at: (macs[at].item(), -hits[at].item())):
        if hits[place] > most:
            most, sizes = hits[place], [len(grid) for grid in grids]
            places = torch.unravel_index(torch.tensor(place), sizes) if grids else ()
            thresholds = [grid[at].item() for grid, at in zip(grids, places, strict=True)]
            found.append(leave(logits, labels, costs, thresholds))
    return found


def budget(of: Sequence[Outcome], tolerance: float = 0.002) -> Outcome:
    """The cheapest of a `front` within `tolerance` of the best single exit.

    If none is accurate enough, it is the most accurate.
    """
    enough = max(of[-1].exit_top1) - tolerance - 1e-9  # rounding is no image
    return next((outcome for outcome in of if outcome.top1 >= enough), of[-1])


def choices(
    held_out: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], costs: Sequence[int]
) -> dict[str, list[dict]]:
    """What each rule finds on held-out logits and labels, and what that does on others, as plain values for a record.

    Rule -> outcomes: `shared` over SHARED, `quota` over every other one of QUOTIENTS, `budget` over TOLERANCES, and the
    whole `front`. Each has its thresholds, what it promised (`held_out_top1`, `held_out_macs`), and `top1`, `macs`,
    `shares` on the others.
    """
    exits, count = held_out[0].shape[:2]
    points = 50 if exits == 1 else min(50, int((MOST_CELLS / count) ** (1 / (exits - 1))) - 1)
    best = front(*held_out, costs, points=points)
    found = {
        "shared": shared(*held_out, costs),
        "quota": quota(*held_out, costs, QUOTIENTS[::2]),
        "budget": [budget(best, tolerance) for tolerance in TOLERANCES],
        "front": best,
    }
    return {rule: [_applied(outcome, others, costs) for outcome in outcomes] for rule, outcomes in found.items()}


def _applied(promised: Outcome, others: tuple[Tensor, Tensor], costs: Sequence[int]) -> dict:
    kept = leave(*others, costs, promised.thresholds)
    return {
        "thresholds": list(promised.thresholds),
        "held_out_top1": promised.top1,
        "held_out_macs": round(promised.macs),
        "top1": kept.top1,
        "macs": round(kept.macs),
        "shares": list(kept.shares),
    }


def set_thresholds(model: nn.Module, thresholds: Sequence[float]) -> None:
    """Make a network from `convert` leave at these. Raises InputError for another number of exits."""
    kept = model.exit_rule.thresholds
    if len(thresholds) != len(kept):
        raise InputError(f"thresholds are {list(thresholds)}; this network has {len(kept)} exits before the last")
    kept.copy_(torch.tensor(list(thresholds)))
