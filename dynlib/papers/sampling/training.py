"""How a sampled network learns: its loss, the rate of its scores, and what is watched meanwhile."""

from statistics import fmean

from torch import Tensor, nn

from dynlib import tasks
from dynlib.data import Batches
from dynlib.papers.sampling.block import loss_shares
from dynlib.papers.sampling.masks import observed, samplers, set_temperature, sparse_loss, tallied, temperature
from dynlib.train import Group, Objective, Targets, others, task_loss

RAMP = 1 / 3  # of the sampled epochs, over which the price rises
SCORE_RATE = 0.1  # factor on the learning rate of the scores


def objective(gamma: float, tau: float) -> Objective:
    """The task's loss, of labels, masks or boxes, plus the sparse loss.

    Temperature and price follow from the share of the schedule that is done: one falls to tau, the other rises to gamma
    over `RAMP` of it.
    """

    def loss(network: nn.Module, images: Tensor, targets: Targets, done: float) -> Tensor:
        set_temperature(network, temperature(done, tau))
        with observed(network) as samples:
            value = task_loss(network, images, targets, done)
        price = gamma * min(1.0, done / RAMP)
        return value + sparse_loss(samples, loss_shares(network), price) if samples else value

    return loss


def groups(model: nn.Module) -> list[Group]:
    """All parameters, those of the scores at `SCORE_RATE` of the learning rate."""
    scores = [parameter for sampler in samplers(model).values() for parameter in sampler.score.parameters()]
    slow = [(scores, SCORE_RATE)] if scores else []
    return [(others(model, slow), 1.0), *slow]


def watch(model: nn.Module, batches: Batches) -> dict[str, float]:
    """The task's figure and, means over all masks, `density` and `undecided`, which tells of a collapse; held-out."""
    with tallied(model) as tally:
        figure = tasks.of(batches).watch(model, batches)
    if not tally.densities:
        return figure
    return figure | {"density": fmean(tally.densities.values()), "undecided": fmean(tally.undecided.values())}
