"""The three stages of training (auto-encoder, classifier, joint) and the figures that are watched meanwhile."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.data import Batches
from dynlib.ops import evaluating
from dynlib.papers.wae.network import Output, Wae
from dynlib.papers.wae.split import classification_loss, psnr, spectrum_share, transform_loss
from dynlib.train import Group, others

WINDOW_PX = 16  # side of what stage 1 learns from: for so small a network steps count, not pixels


def window(images: Tensor) -> Tensor:
    """A batch cut to a square of `WINDOW_PX` at a place drawn by torch's generator, the same in all its images.

    Images that are smaller stay as they are.
    """
    top, left = (int(torch.randint(max(side - WINDOW_PX, 0) + 1, ())) for side in images.shape[-2:])
    return images[..., top : top + WINDOW_PX, left : left + WINDOW_PX]


def split_loss(network: nn.Module, images: Tensor, targets: Tensor, done: float, *, lam: float) -> Tensor:
    """Stage 1, L_t, on a window of the images: the towers do not run."""
    images = window(images)
    output = network(images, restore=True, classify=False)
    return transform_loss(images, output.restored, output.image_high, lam)


def score_loss(network: nn.Module, images: Tensor, targets: Tensor, done: float) -> Tensor:
    """Stage 2, L_c: the decoder does not run."""
    output = network(images)
    return classification_loss(_heads(output.low, output.fused), targets)


def joint_loss(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    done: float,
    *,
    lam: float,
    gamma_share: float,
) -> Tensor:
    """Stage 3; at its first step gamma L_t becomes `gamma_share` of L_c."""
    output = network(images, restore=True)
    scored = classification_loss(_heads(output.low, output.fused), targets)
    split = transform_loss(images, output.restored, output.image_high, lam)
    if done == 0:
        network.gamma.copy_((gamma_share * scored / split).detach())
    return scored + network.gamma * split  # eq-wae-joint


def _heads(low: Tensor, fused: Tensor | None) -> list[Tensor]:
    return [low] if fused is None else [low, fused]


def splitting(model: nn.Module) -> list[Group]:
    """The parameters of encoder and decoder."""
    return [([*model.split.parameters(), *model.decoder.parameters()], 1.0)]


def scoring(model: nn.Module) -> list[Group]:
    """All the others: encoder and decoder are frozen. The batch norms behind the split go on learning statistics."""
    return [(others(model, splitting(model)), 1.0)]


def encoder_slower(model: nn.Module) -> list[Group]:
    """The encoder at 1/100 of the learning rate, all others at the whole."""
    encoder = [(list(model.split.parameters()), 0.01)]
    return [*encoder, (others(model, encoder), 1.0)]


# ------------------------------------------------------------------------------------------------ figures, held out


def watch_split(model: Wae, valid: Batches) -> dict[str, float]:
    """How well held-out images are split; the towers do not run.

    `psnr` of I' and `psnr_low_alone` of I' with I_H zeroed, in dB; `energy_low` and `energy_high`, the mean squares of
    I_L and I_H; `variance_high`, the smallest variance of a channel of I_H, which batch norm must not take for zero;
    `detail_low` and `detail_high`, the shares of their spectra above half Nyquist. No PSNR where there is no decoder.
    """
    return _figures(model, valid, split=True, scores=False)


def watch_scores(model: Wae, valid: Batches) -> dict[str, float]:
    """Accuracy on held-out images: `top1` of the summed score, `top1_low` and `top1_fused` of the heads."""
    return _figures(model, valid, split=False, scores=True)


def watch_all(model: Wae, valid: Batches) -> dict[str, float]:
    """What `watch_scores` and `watch_split` tell, in one pass."""
    return _figures(model, valid, split=True, scores=True)


@torch.no_grad()
def _figures(model: Wae, valid: Batches, split: bool, scores: bool) -> dict[str, float]:
    device, sums, count = next(model.parameters()).device, {}, 0
    with evaluating(model):
        for images, targets in valid.epoch(None, device):
            output = model(images, restore=split and model.decoder is not None, classify=scores)
            means = _accuracies(output, targets) if scores else {}
            means |= _split_means(model, images, output) if split else {}
            sums = {name: sums.get(name, 0) + len(images) * value for name, value in means.items()}
            count += len(images)
    means = {name: value / count for name, value in sums.items()}
    if split:
        means["variance_high"] = (means.pop("square_high") - means.pop("mean_high").square()).min()
    return {name: psnr(v.item()) if name.startswith("psnr") else v.item() for name, v in means.items()}


def _accuracies(output: Output, targets: Tensor) -> dict[str, Tensor]:
    scores = {"top1": output.logits, "top1_low": output.low, "top1_fused": output.fused}
    right = {name: score.argmax(1) == targets for name, score in scores.items() if score is not None}
    return {name: hits.double().mean() for name, hits in right.items()}


def _split_means(model: Wae, images: Tensor, output: Output) -> dict[str, Tensor]:
    """Means over a batch; under the names of the PSNRs stand mean squared errors."""
    low, high = output.image_low.double(), output.image_high.double()
    means = {"energy_low": low.square().mean(), "energy_high": high.square().mean()}
    means |= {"detail_low": spectrum_share(low).mean(), "detail_high": spectrum_share(high).mean()}
    means |= {"mean_high": high.mean((0, 2, 3)), "square_high": high.square().mean((0, 2, 3))}
    if output.restored is not None:
        alone = model.decode(output.image_low, torch.zeros_like(output.image_high), images)
        means |= {"psnr": F.mse_loss(output.restored, images), "psnr_low_alone": F.mse_loss(alone, images)}
    return {name: value.double() for name, value in means.items()}
