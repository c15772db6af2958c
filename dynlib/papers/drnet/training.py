"""How a dynamic resolution network learns: two objectives, their parameter groups, and what is watched meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.data import Batches, Loader
from dynlib.ops import evaluating
from dynlib.papers.drnet import policies
from dynlib.papers.drnet.layers import px
from dynlib.train import Group, Objective, evaluate

WATCHED = 500  # images that a point of the curve is taken on
PRICE_RATE = 0.02  # change of a price for a mean cost that is all of the full cost too high; falls to 0


def excess(gate: Tensor, costs: Sequence[float], alpha: float) -> Tensor:
    """L_reg: how far the mean cost of gates (N, m) lies above alpha; 0 below it.

    As a share of what choosing can change. `costs` (m,) and `alpha` are in one unit,
    here shares of the cost at full resolution.
    """
    pairs = zip(costs, gate.unbind(1), strict=True)
    mean = sum(cost * h_j for cost, h_j in pairs).mean()
    return ((mean - alpha) / (max(costs) - min(costs))).clamp(min=0)


def temperature(tau: float, tau_start: float | None, done: float) -> float:
    """tau, or what lies between `tau_start` and tau when the share `done` of the steps is behind: geometric."""
    return tau if tau_start is None else tau_start * (tau / tau_start) ** done


def multi_resolution(count: int) -> Objective:
    """The first phase: the sum of the cross-entropies at all `count` candidates."""

    def objective(network, images, targets, done):
        each = [network(images, resolution=j).logits for j in range(count)]
        return sum(F.cross_entropy(logits, targets) for logits in each)  # eq-drnet-first

    return objective


def joint(alpha: float, eta: float, tau: float, tau_start: float | None) -> Objective:
    """The second phase: cross-entropy of the gated logits, and eta for all cost above alpha."""

    def objective(network, images, targets, done):
        output = network(images, tau=temperature(tau, tau_start, done))
        penalty = excess(output.gate, output.costs, alpha)
        return F.cross_entropy(output.logits, targets) + eta * penalty  # eq-drnet-loss

    return objective


def right_or_wrong(count: int, alpha: float) -> Objective:
    """Ours: the predictor learns whether the classifier is right at each candidate.

    The classifier does not learn. The price of cost rises while the mean cost of a
    batch's choices is above `alpha`, and falls while it is below.
    """

    def objective(network, images, targets, done):
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        with torch.no_grad(), evaluating(network):
            each = [network(images, resolution=j).logits for j in range(count)]
        right = torch.stack([y.argmax(1) == labels for y in each], 1).float()  # (N, m)
        output = network(images, classify=False)
        reprice(network.price, output.z, output.z.new_tensor(output.costs), alpha, done)
        return F.binary_cross_entropy_with_logits(output.z, right)

    return objective


def reprice(price: Tensor, z: Tensor, costs: Tensor, alpha: float, done: float) -> None:
    """Raise the price, in place, where the choices by z (N, m) at costs (m,) spend more than alpha; else lower it."""
    utility = z.detach().sigmoid() - price * costs
    dear = costs[utility.argmax(1)].mean() - alpha
    price.add_(PRICE_RATE * (1 - done) * dear).clamp_(min=0)


def learning(**rates: float) -> Callable[[nn.Module], list[Group]]:
    """What learns: the parameters of the parts that are named, each with its factor on the learning rate."""
    return lambda model: [(list(getattr(model, part).parameters()), rate) for part, rate in rates.items()]


def some(valid: Batches | Loader) -> Batches | Loader:
    """At most WATCHED of the images, evenly spaced in stored order: enough for a curve; of a Loader, all."""
    if isinstance(valid, Loader):
        return valid
    count = len(valid.samples)
    spread = torch.arange(WATCHED) * count // WATCHED
    return valid if count <= WATCHED else replace(valid, samples=valid.samples.subset(spread))


def watch_plain(model: nn.Module, valid: Batches) -> dict[str, float]:
    """Held-out top-1 of a network without choices."""
    return {"top1": evaluate(model, some(valid))["top1"]}


def watch_candidates(model: nn.Module, valid: Batches) -> dict[str, float]:
    """Held-out top-1 at every candidate, by its px; `top1` is that at full resolution."""
    seen = policies.collect(model, some(valid))
    top1 = (seen.right.sum(1) / len(seen.labels)).tolist()
    return {"top1": top1[0]} | {f"top1_at_{px(size)}_px": share for size, share in zip(seen.sizes, top1, strict=True)}


@torch.no_grad()
def watch_choices(model: nn.Module, valid: Batches) -> dict[str, float]:
    """Held-out top-1, share of the images at every candidate, mean entropy of p in nats, mean MACs with predictor."""
    used, right, entropy, seen = torch.zeros(len(model.config.candidates), dtype=torch.int64), 0, 0.0, 0
    with evaluating(model):
        for images, labels in some(valid).epoch(None, next(model.parameters()).device):
            output, size = model(images), tuple(images.shape[-2:])
            seen, right = seen + len(images), right + (output.logits.argmax(1) == labels).sum().item()
            used += output.choice.bincount(minlength=len(used)).cpu()
            entropy += torch.distributions.Categorical(logits=output.z.float()).entropy().sum().item()
    (macs, predictor), sizes = model.macs(size), model.sizes(size)[0]
    shares = (used / seen).tolist()
    by_side = {f"share_at_{px(side)}_px": share for side, share in zip(sizes, shares, strict=True)}
    spent = predictor + sum(share * cost for share, cost in zip(shares, macs, strict=True))
    return {"top1": right / seen, **by_side, "entropy": entropy / seen, "macs_expected": spent}
