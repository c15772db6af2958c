"""What a network is trained for: to name images, to name every pixel, or to find objects. The data tell which.

The default objective, `train.task_loss`, asks the targets; here is the rest of what the three do not have in common.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import backbones, train
from dynlib.backbones import hosts
from dynlib.data import IGNORED, Batches, DetectionBatches, FolderBatches, Loader
from dynlib.ops import evaluating

Size = tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """Networks for a task and their scores."""

    name: str  # as the catalogue of data sets has it
    metric: str  # the score that stands in the curve, a fraction
    archs: Callable[[], list[str]]  # what `build` knows
    build: Callable[[str, int, int | None], nn.Module]  # (arch, classes, width) -> network with random weights
    evaluate: Callable[[nn.Module, Batches], dict[str, float]]  # scores on held-out batches; `metric` is one of them
    # (network, px) -> the part that MACs are of, its px
    counted: Callable[[nn.Module, Size], tuple[nn.Module, Size]] = lambda model, size: (model, size)

    def watch(self, model: nn.Module, valid: Batches) -> dict[str, float]:
        """The figure of the curve."""
        return {self.metric: self.evaluate(model, valid)[self.metric]}


def of(batches: Batches | FolderBatches | Loader) -> Task:
    """The task that batches are for; a Loader's is classification."""
    if isinstance(batches, Loader):
        return TASKS["classification"]
    if isinstance(batches, DetectionBatches):
        return TASKS["detection"]
    return TASKS["segmentation" if batches.samples.labels is None else "classification"]


# --------------------------------------------------------------------------------------------------------------- scores


@torch.no_grad()
def score_masks(model: nn.Module, batches: Batches) -> dict[str, float]:
    """`miou`, `pixel_accuracy` and mean cross-entropy `loss` over all pixels that are not void."""
    from torchmetrics.classification import MulticlassConfusionMatrix  # slow to import

    device = next(model.parameters()).device
    confusion = MulticlassConfusionMatrix(len(batches.samples.classes), ignore_index=IGNORED, validate_args=False)
    confusion, loss = confusion.to(device), 0.0
    with evaluating(model):
        for images, masks in batches.epoch(None, device):
            logits = train.logits_of(model(images)).float()
            confusion.update(logits.argmax(1), masks)
            loss += F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum").double().item()
    matrix = confusion.compute()
    pixels = matrix.sum().item()
    return {"miou": miou(matrix), "pixel_accuracy": matrix.trace().item() / pixels, "loss": loss / pixels}


def miou(confusion: Tensor) -> float:
    """Intersection over union, mean over the classes that occur, from pixel counts (K target classes, K predicted)."""
    both = confusion.diag().double()
    either = confusion.sum(0) + confusion.sum(1) - both
    return (both / either)[either > 0].mean().item()


@torch.no_grad()
def score_boxes(model: nn.Module, batches: DetectionBatches) -> dict[str, float]:
    """`map50` and `map`: mean average precision at an intersection over union of 0.5, and of 0.5 to 0.95 as in COCO."""
    from torchmetrics.detection import MeanAveragePrecision  # slow to import

    metric, device = MeanAveragePrecision(), next(model.parameters()).device
    with evaluating(model):
        for images, targets in batches.epoch(None, device):
            metric.update(_on_cpu(model(images)), _on_cpu(targets))
    found = metric.compute()
    return {"map50": found["map_50"].item(), "map": found["map"].item()}


def _on_cpu(found: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: tensor.cpu() for name, tensor in image.items()} for image in found]


# ---------------------------------------------------------------------------------------------------------------- costs


def _pyramid(model: nn.Module, size: Size) -> tuple[nn.Module, Size]:
    """Backbone and pyramid, for the image as padded: what comes behind depends on what is in the image."""
    return model.backbone, tuple(side + -side % model.transform.size_divisible for side in size)


TASKS = {
    task.name: task
    for task in (
        Task("classification", "top1", backbones.names, backbones.build, train.evaluate),
        Task("segmentation", "miou", hosts.names, hosts.segmenter, score_masks),
        Task("detection", "map50", hosts.names, hosts.detector, score_boxes, _pyramid),
    )
}
