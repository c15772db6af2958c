"""What the predictor's choice is worth: everything a dynamic resolution network could have chosen, scored offline.

The network is run once over held-out images, at every candidate. Each policy is then a vector of choices (N,), and its
accuracy and cost follow from a table of what is right where. The paper has two of these policies, the predictor's and a
uniform draw; the latter costs more than the former. Candidates run from the largest to the smallest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.ops import evaluating
from dynlib.papers.drnet.layers import Size

DRAWS = 20  # repetitions of a random policy
PRICES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # of cost, for a supervised predictor
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # confidences at which a cascade stops


@dataclass(frozen=True)
class Evidence:
    """What a network says of each of N held-out images at each of m candidates."""

    logits: Tensor  # (m, N, C)
    z: Tensor  # (N, m) what the choice maximises: logits of the predictor, see `DynamicResolution.utility`
    labels: Tensor  # (N,)
    sizes: tuple[Size, ...]  # of the candidates, px
    macs: tuple[int, ...]  # of the classifier at each candidate
    predictor_macs: int

    @cached_property
    def right(self) -> Tensor:
        """(m, N) whether an image is classified rightly at a candidate."""
        return self.logits.argmax(2) == self.labels


class Score(NamedTuple):
    """What a policy yields."""

    top1: float
    macs: float  # mean of the classifier; without the predictor
    shares: tuple[float, ...]  # of the images at each candidate


@torch.no_grad()
def collect(model: nn.Module, batches: Batches, known: Tensor | None = None) -> Evidence:
    """Run a dynamic resolution network over all images, at every candidate; it keeps its modes.

    `known` are the classifier's logits (m, N, C) where they need not be computed.
    """
    device, m = next(model.parameters()).device, len(model.config.candidates)
    logits, z, labels = [], [], []
    with evaluating(model):
        for images, target in batches.epoch(None, device):
            if known is None:
                logits.append(torch.stack([model.classify(images, j) for j in range(m)]).float().cpu())
            z.append(model.utility(model.score(images), tuple(images.shape[-2:])).float().cpu())
            labels.append(target.cpu())
    size = tuple(images.shape[-2:])
    (macs, predictor), sizes = model.macs(size), model.sizes(size)[0]
    logits = torch.cat(logits, 1) if known is None else known
    return Evidence(logits, torch.cat(z), torch.cat(labels), tuple(sizes), macs, predictor)


def score(evidence: Evidence, choice: Tensor) -> Score:
    """Accuracy, mean cost and histogram of choices (N,)."""
    counts = choice.bincount(minlength=len(evidence.macs))
    shares = (counts.double() / len(choice)).tolist()
    top1 = evidence.right.gather(0, choice[None]).double().mean().item()
    pairs = zip(shares, evidence.macs, strict=True)
    macs = sum(share * cost for share, cost in pairs)  # eq-drnet-mean
    return Score(top1, macs, tuple(shares))


def top5(evidence: Evidence, choice: Tensor) -> float:
    """Share of the images with their label among the five largest logits, for choices (N,)."""
    return label_among(evidence.logits[choice, torch.arange(len(choice))], evidence.labels)


def label_among(logits: Tensor, labels: Tensor, count: int = 5) -> float:
    """Share of the images with their label (N,) among the `count` largest logits (N, C)."""
    largest = logits.topk(min(count, logits.shape[1]), 1).indices
    return (largest == labels[:, None]).any(1).double().mean().item()


def chosen(evidence: Evidence) -> Tensor:
    """The predictor's choices (N,): its argmax."""
    return evidence.z.argmax(1)


def fixed(evidence: Evidence) -> list[Score]:
    """Every image at one candidate, for each candidate."""
    return [score(evidence, torch.full_like(evidence.labels, j)) for j in range(len(evidence.macs))]


def permuted(evidence: Evidence) -> tuple[float, float]:
    """The predictor's choices dealt out to the images at random: same histogram, same cost, no knowledge.

    Mean and standard deviation of top-1 over all N! deals, in closed form: the mean is that of the fixed sizes,
    weighted by their shares; the variance is Hoeffding's for sums over a random permutation (1951).
    """
    right, count = evidence.right.double(), len(evidence.labels)  # (m, N)
    shares = chosen(evidence).bincount(minlength=len(right)).double() / count
    at_size, of_image = right.mean(1, keepdim=True), shares @ right  # (m, 1), (N,)
    mean = (shares @ at_size).item()
    rest = right - at_size - of_image + mean  # what neither the size nor the image explains
    variance = (shares @ rest.square().sum(1)).item() / (count * max(1, count - 1))
    return mean, math.sqrt(variance)


def uniform(evidence: Evidence, seed: int = 0, draws: int = DRAWS) -> list[Score]:
    """Every candidate equally often, by chance (Table 5)."""
    return _drawn(evidence, torch.ones_like(evidence.z), seed, draws)


def sampled(evidence: Evidence, seed: int = 0, draws: int = DRAWS) -> list[Score]:
    """Choices as in training, with the Gumbel noise on: draws from p = softmax(z)."""
    return _drawn(evidence, evidence.z.softmax(1), seed, draws)


def _drawn(evidence: Evidence, p: Tensor, seed: int, draws: int) -> list[Score]:
    generator = torch.Generator().manual_seed(seed)
    return [score(evidence, torch.multinomial(p, 1, generator=generator)[:, 0]) for _ in range(draws)]


def smallest_sufficient(evidence: Evidence) -> Tensor:
    """The smallest candidate (N,) that is right; the smallest of all where none is."""
    last = len(evidence.macs) - 1
    first = evidence.right.flip(0).int().argmax(0)  # the first maximum counts
    return last - first  # eq-drnet-sufficient


def cascade(evidence: Evidence, threshold: float) -> Score:
    """From the smallest candidate up until the largest probability reaches `threshold`; each attempt is paid for."""
    confident = evidence.logits.softmax(2).amax(2) >= threshold  # (m, N)
    confident[0] = True  # nothing comes after full resolution
    last = len(evidence.macs) - 1
    outcome = score(evidence, last - confident.flip(0).int().argmax(0))
    paid = [sum(evidence.macs[j:]) for j in range(last + 1)]
    return outcome._replace(macs=sum(share * macs for share, macs in zip(outcome.shares, paid, strict=True)))


def mixtures(average: float, costs: Sequence[float]) -> list[tuple[float, float]]:
    """The shares (lowest, highest) that each candidate can have where the mean cost is `average`.

    A mean fixes one equation, and with the sum of shares two, for m unknowns. The extremes lie where at most two
    candidates are used. `average` and `costs` (m,) have one unit. Raises InputError for a mean outside of the costs.
    """
    if not min(costs) <= average <= max(costs):
        raise InputError(f"average is {average}; allowed: {min(costs)} to {max(costs)}, the lowest and highest cost")
    corners = []
    for a, b in combinations(range(len(costs)), 2):
        if min(costs[a], costs[b]) <= average <= max(costs[a], costs[b]):
            share = (average - costs[b]) / (costs[a] - costs[b])
            corners.append([share if j == a else 1 - share if j == b else 0.0 for j in range(len(costs))])
    return [(min(shares), max(shares)) for shares in zip(*corners, strict=True)]


def gate_macs(evidence: Evidence) -> float:
    """Mean classifier MACs that the gate expects with its noise on, sum_j p_j C_j: what the training holds to alpha."""
    return (evidence.z.double().softmax(1) @ torch.tensor(evidence.macs, dtype=torch.float64)).mean().item()


def priced(evidence: Evidence, price: float) -> dict[str, float | list[float]]:
    """The choices of a supervised predictor at other prices than its own: accuracy, MACs, and the same permuted."""
    costs = torch.tensor(evidence.macs) / evidence.macs[0]
    others = [replace(evidence, z=evidence.z + (price - other) * costs) for other in PRICES]
    outcomes = [score(other, chosen(other)) for other in others]
    return {
        "price": price,
        "prices": list(PRICES),
        "priced_top1": [outcome.top1 for outcome in outcomes],
        "priced_macs": [outcome.macs for outcome in outcomes],
        "priced_permuted_top1": [permuted(other)[0] for other in others],
    }


def fixed_report(evidence: Evidence) -> dict[str, float | list[float]]:
    """What needs no predictor, as plain values: every fixed size, the cascade; `top1` and `top5` at full resolution."""
    outcomes = fixed(evidence)
    full, steps = torch.zeros_like(evidence.labels), [cascade(evidence, threshold) for threshold in THRESHOLDS]
    return {
        "sides_px": [height for height, _ in evidence.sizes],
        "macs_by_side": list(evidence.macs),
        "top1": outcomes[0].top1,
        "top5": top5(evidence, full),
        "fixed_top1": [outcome.top1 for outcome in outcomes],
        "cascade_thresholds": list(THRESHOLDS),
        "cascade_top1": [outcome.top1 for outcome in steps],
        "cascade_macs": [outcome.macs for outcome in steps],
    }


def report(evidence: Evidence, alpha: float) -> dict[str, float | list[float]]:
    """All policies as plain values: accuracies as fractions, costs as mean MACs an image, lists by candidate or draw.

    `macs_expected` includes the predictor; all other costs are the classifier's, as `alpha` is (a share of its cost at
    full resolution). `gate_over_alpha` near 1: the penalty held the cost to `alpha`; well below: it was idle. `choices`
    and `sufficient` have one digit an image, in stored order: the candidate's index, m where none is right.
    """
    dynamic, sufficient = score(evidence, chosen(evidence)), score(evidence, smallest_sufficient(evidence))
    chance, noisy, (blind, blind_std) = uniform(evidence), sampled(evidence), permuted(evidence)
    p = torch.distributions.Categorical(logits=evidence.z)
    return fixed_report(evidence) | {
        "macs_predictor": evidence.predictor_macs,
        "top1": dynamic.top1,
        "top5": top5(evidence, chosen(evidence)),
        "shares": list(dynamic.shares),
        "macs_classifier": dynamic.macs,
        "macs_expected": dynamic.macs + evidence.predictor_macs,
        "entropy": p.entropy().mean().item(),
        "permuted_top1": blind,
        "permuted_std": blind_std,
        "uniform_top1": [outcome.top1 for outcome in chance],
        "uniform_macs": _mean([outcome.macs for outcome in chance]),
        "sufficient_top1": sufficient.top1,
        "sufficient_shares": list(sufficient.shares),
        "sufficient_macs": sufficient.macs,
        "right_nowhere": 1 - sufficient.top1,
        "sampled_top1": [outcome.top1 for outcome in noisy],
        "sampled_macs": _mean([outcome.macs for outcome in noisy]),
        "gate_macs": gate_macs(evidence),
        "choices": _digits(chosen(evidence)),
        "sufficient": _digits(torch.where(evidence.right.any(0), smallest_sufficient(evidence), len(evidence.macs))),
        "gate_over_alpha": gate_macs(evidence) / (alpha * evidence.macs[0]),
    }


def _digits(indices: Tensor) -> str:
    return "".join(map(str, indices.tolist()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
