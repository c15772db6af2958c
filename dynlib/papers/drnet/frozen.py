"""A classifier that is given: its weights stay, and only the predictor learns, from answers that are computed once.

So a network that took weeks to train can be made dynamic in minutes, and a predictor is judged on choices that matter.
This schedule is ours. It is exact: what the classifier says of a photograph at a size never changes, so its logits are
a table, made by one pass over the images and kept in `data/runs` under a checksum of weights, pixels and sizes.
"""

import hashlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import checkpoints
from dynlib.data import Batches
from dynlib.ops import evaluating, renewing
from dynlib.papers.drnet import layers, policies, training
from dynlib.paths import RUNS

ESTIMATED_ON = 1024  # training images from which the statistics of a smaller size are taken
SPENDINGS = 25  # prices at which a curve of policies is read


class Given:
    """The predictor's objective on a table of answers; `prepare` fills it.

    With `supervised` the predictor learns whether the classifier is right at each candidate, as
    `training.right_or_wrong` has it; else it is the paper's gate, `training.joint`, without gradient to the classifier.
    """

    def __init__(self, config):
        self.config, self.logits, self.labels, self.costs = config, None, None, ()

    def prepare(self, model: nn.Module, batches: Batches) -> Batches:
        """Settle the batch norms of the smaller sizes, fill the table, and return what the predictor sees of `batches`.

        That are its thumbnails, each labelled by its place in the table. In training they are moved as the data set has
        it, while the answers stay those of the images as they are.
        """
        if model.config.resolution_aware_bn:
            settle(model, batches)
        size = tuple(batches.samples.images.shape[-2:])
        self.logits, self.labels, self.costs = answers(model, batches), batches.samples.labels, model.costs(size)
        model.right_by_class = _right_by_class(self.logits, self.labels)
        side = layers.thumbnail_size(size, model.predictor_side)
        parts = batches.samples.images.split(256)
        small = [layers.resize(part.float(), side, model.config.antialias).round().byte() for part in parts]
        places = torch.arange(len(batches.samples))
        return replace(batches, samples=replace(batches.samples, images=torch.cat(small), labels=places))

    def __call__(self, network, thumbnails: Tensor, places: Tensor, done: float) -> Tensor:
        """The loss of the predictor's logits for thumbnails (N, 3, h, w) at `places` (N,) of the table."""
        config = self.config
        z, places = network.predictor(thumbnails), places.cpu()  # the table stays in memory
        logits, labels = self.logits[:, places].to(z), self.labels[places].to(z.device)
        costs = z.new_tensor(self.costs)
        if not config.supervised:
            gate = layers.straight_through(z, training.temperature(config.tau, config.tau_start, done))
            penalty = training.excess(gate, self.costs, config.alpha)
            return F.cross_entropy(layers.combine(gate, logits), labels) + config.eta * penalty
        right = (logits.argmax(2) == labels).float().T  # (N, m)
        training.reprice(network.price, z, costs, config.alpha, done)
        return F.binary_cross_entropy_with_logits(z, right)


def settle(model: nn.Module, batches: Batches) -> None:
    """Take the statistics of every smaller size's batch norms anew, from `ESTIMATED_ON` images drawn of `batches`.

    Scale and shift stay. Full resolution keeps the statistics that its weights were trained with. The draw is mixed,
    the same for every seed: images lie in the order of their classes, and a batch of one class has other statistics.
    """
    mixed = torch.randperm(len(batches.samples), generator=torch.Generator().manual_seed(0))[:ESTIMATED_ON]
    some = replace(batches, samples=batches.samples.subset(mixed), augment=None)
    for j in range(1, len(model.config.candidates)):
        norms = [norm.at(j) for norm in model.classifier.modules() if isinstance(norm, layers.ResolutionNorm)]
        with renewing(model, norms):
            for images, _ in some.epoch(None, next(model.parameters()).device):
                model.classify(images, j)


@torch.no_grad()
def answers(model: nn.Module, batches: Batches) -> Tensor:
    """Logits (m, N, C), float16, of all images as they are at every candidate; read where they are known already."""
    sizes = model.sizes(tuple(batches.samples.images.shape[-2:]))[0]
    known = hashlib.sha256(f"{batches.samples.checksum} {batches.mean} {batches.std} {sizes}".encode())
    for tensor in model.classifier.state_dict().values():
        known.update(tensor.cpu().contiguous().numpy().tobytes())
    path = RUNS / "drnet" / f"answers-{known.hexdigest()[:16]}.safetensors"
    if path.is_file():
        return checkpoints.read(path, "a file of answers; remove it")[0]["logits"]
    found, plain = [], replace(batches, augment=None)
    with evaluating(model):
        for images, _ in plain.epoch(None, next(model.parameters()).device):
            found.append(torch.stack([model.classify(images, j) for j in range(len(sizes))]).half().cpu())
    logits = torch.cat(found, 1)
    checkpoints.write(path, {"logits": logits})
    return logits


def _right_by_class(logits: Tensor, labels: Tensor) -> Tensor:
    """(m, C): the share of each class's images that are classified rightly at each candidate; 0 for classes unseen."""
    right = (logits.argmax(2) == labels).float()
    count = torch.zeros(logits.shape[2]).index_add(0, labels, torch.ones(len(labels)))
    return torch.zeros(len(logits), logits.shape[2]).index_add(1, labels, right) / count.clamp(min=1)


def ladder(found: policies.Evidence, right_by_class: Tensor, price: float | None) -> dict[str, list[dict[str, float]]]:
    """What more and more knowledge buys, each as a curve of (`macs`, `top1`) over the price of a MAC.

    `fixed`: every image at one size. `class`: the true class is known, and how well each class was classified at each
    size on training images (m, C). `priced`: a supervised predictor, whose own price is given. `oracle`: at which sizes
    an image is classified rightly.
    """
    costs = torch.tensor(found.macs) / found.macs[0]
    worth = {"class": right_by_class.T[found.labels], "oracle": found.right.float().T}
    if price is not None:
        worth["priced"] = found.z + price * costs
    curves = {"fixed": sorted((score.macs, score.top1) for score in policies.fixed(found))}
    for name, value in worth.items():
        prices = torch.linspace(0, 1, SPENDINGS) ** 2 * 2
        curves[name] = sorted({policies.score(found, (value - p * costs).argmax(1))[:2][::-1] for p in prices})
    return {name: [{"macs": macs, "top1": top1} for macs, top1 in curve] for name, curve in curves.items()}
