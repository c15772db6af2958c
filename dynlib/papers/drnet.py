"""Dynamic resolution: Zhu et al., "Dynamic Resolution Network", NeurIPS 2021 (arXiv 2106.02898).

Not every image needs all its pixels: a small predictor looks at a thumbnail and picks the resolution at which one
shared classifier sees the image. Both learn together, through a straight-through Gumbel gate and a penalty on the
mean cost; only the batch norms have one set for each resolution.

Symbols -> names: X `images`; r_j `candidates[j]`, shares of the image's side from 1 down; R(X) = z `z` (N, m); h `gate`
(N, m); y_j logits at candidate j; C_j `costs[j]`; alpha `alpha`; eta `eta`; tau `tau`. All `candidates`, `choice`s and
lists run from the largest resolution to the smallest.

Departures from the paper, each with its reason:

- Costs and `alpha` are shares of the classifier's cost at full resolution, not giga-operations: one setting means the
  same at 64 px and at 224. As in the paper's tables, `alpha` bounds the classifier alone.
- The candidates are shares of the side (1, 3/4, 1/2 are the paper's 224, 168, 112 px), for the same reason.
- The published text combines the predictions of all candidates, the submission ran only the chosen one, in
  sub-batches: the first is the default, the second is `routed`.
- Every batch norm has its sets, as the text says; the released code forgets those of the shortcuts.
- At inference the argmax is taken, as the text says; the released evaluation keeps the noise. tau is not stated: 1.
- The learning rate follows this book's cosine, not steps, and the momentum is Nesterov's; phases keep the paper's
  70 : 100 epochs. The paper's rates, 0.1 and 0.01 for the predictor, are for batches of 256 and schedules of many days;
  those of our recipe were chosen on held-out training images, the predictor's being `predictor_lr` times the other.
- The predictor's MobileNetV2 form has our channels, see `drnet_predictor.py`.
- With several devices the penalty is on the mean of each device's own batch; the paper does not say.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynlib import export
from dynlib.cost import Cost, closed_form
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.papers import drnet_controls, drnet_predictor, drnet_training
from dynlib.papers.drnet_deploy import deployed
from dynlib.papers.drnet_layers import (
    Output,
    Size,
    at_resolution,
    candidate_sizes,
    combine,
    has_values,
    px,
    resize,
    route,
    straight_through,
    thumbnail_size,
    with_resolutions,
)
from dynlib.runtime import Deployed
from dynlib.train import Phase, predict
from dynlib.train import evaluate as task_scores


@dataclass(frozen=True)
class Config:
    """Settings of a dynamic resolution network; each value is checked and a bad one named."""

    candidates: tuple[float, ...] = (1.0, 0.75, 0.5)  # shares of the side, from 1 down; 224, 168, 112 px in the paper
    alpha: float = 0.611  # target mean cost, share of that at full resolution, (0, 1]; 2.5 of ResNet-50's 4.089 GMAC
    eta: float = 0.2  # weight of the penalty on cost above alpha, 0 up; 0.1 to 1 in Table 2
    tau: float = 1.0  # temperature of the gate's gradient, above 0; not stated, 1 in the released module
    tau_start: float | None = None  # fall to tau from here, by one factor a step; None: tau throughout
    resolution_aware_bn: bool = True  # a set of batch norms for each candidate (Table 1)
    routed: bool = False  # training runs the chosen resolution only, in sub-batches, as the submission did
    antialias: bool = False  # low-pass filter before images are made smaller; the released code has none
    predictor: str = (
        drnet_predictor.AUTO
    )  # resnet10, inverted, or auto: inverted for networks of depthwise convolutions
    predictor_side: float | None = None  # side of its input, share of the image's; None: 128/224 or 64/224 (inverted)
    predictor_width: float = 1.0  # factor on its channels; keep its cost at or below 7 % of the classifier's
    predictor_lr: float = 0.1  # factor on the learning rate for it, above 0; 0.01 beside 0.1 in the paper
    joint: bool = True  # false, a control: the first phase for as long as both; the predictor stays untrained

    def __post_init__(self):
        """Refuse what makes no sense."""
        listed = isinstance(self.candidates, list | tuple) and all(map(_is_number, self.candidates))
        shares = [float(share) for share in self.candidates] if listed else []
        falling = all(above > below > 0 for above, below in pairwise(shares))
        if not shares or shares[0] != 1 or not falling:
            raise InputError(
                f"candidates is {self.candidates!r}; it is a list of falling shares of the image's side, from 1 down"
            )
        object.__setattr__(self, "candidates", tuple(shares))
        bounds = {"alpha": (0, 1, False), "eta": (0, math.inf, True), "tau": (0, math.inf, False)}
        bounds |= {"predictor_width": (0, 16, False), "predictor_lr": (0, 100, False)}
        bounds |= {"tau_start": (0, math.inf, False)} if self.tau_start is not None else {}
        bounds |= {"predictor_side": (0, 1, False)} if self.predictor_side is not None else {}
        for name, (low, high, closed) in bounds.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high or (value == low and not closed):
                above = f"from {low}" if closed else f"above {low}"
                raise InputError(f"{name} is {value!r}; it is a number {above}{f' up to {high}' * (high < math.inf)}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one setting and have one hash
        for name in ("resolution_aware_bn", "routed", "antialias", "joint"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed: true, false")
        if self.predictor not in (kinds := (drnet_predictor.AUTO, *drnet_predictor.SIDES)):
            raise InputError(f"predictor is {self.predictor!r}; allowed: {', '.join(kinds)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class DynamicResolution(nn.Module):
    """A classifier with a set of batch norms for each candidate, and the predictor that picks one; see `convert`."""

    def __init__(self, model: nn.Module, config: Config):
        super().__init__()
        kind = drnet_predictor.kind_for(model) if config.predictor == drnet_predictor.AUTO else config.predictor
        m = len(config.candidates)
        self.config = config
        self.predictor_side = config.predictor_side or drnet_predictor.SIDES[kind]
        self.classifier = with_resolutions(model, m if config.resolution_aware_bn else 1)
        like = next(model.parameters())
        with torch.device(like.device):
            self.predictor = drnet_predictor.build(kind, m, config.predictor_width).to(like.dtype).train(model.training)
        self.training = model.training
        self._macs: dict[Size, tuple[tuple[int, ...], int]] = {}

    def sizes(self, size: Size) -> tuple[list[Size], Size]:
        """Sizes in px of the candidates, and of the predictor's input, for images of (height, width) px."""
        return candidate_sizes(size, self.config.candidates), thumbnail_size(size, self.predictor_side)

    def macs(self, size: Size) -> tuple[tuple[int, ...], int]:
        """MACs of the classifier at each candidate, and of the predictor, for one image of (height, width) px."""
        if size not in self._macs:
            candidates, small = self.sizes(size)
            parts = (closed_form(at_resolution(self.classifier, j), s).macs for j, s in enumerate(candidates))
            self._macs[size] = tuple(parts), closed_form(self.predictor, small).macs
        return self._macs[size]

    def classify(self, images: Tensor, resolution: int) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W) at one candidate."""
        size = candidate_sizes(tuple(images.shape[-2:]), self.config.candidates)[resolution]
        return self.classifier(resize(images, size, self.config.antialias), resolution)

    def score(self, images: Tensor) -> Tensor:
        """The predictor's logits z (N, m) for images (N, 3, H, W)."""
        small = thumbnail_size(tuple(images.shape[-2:]), self.predictor_side)
        return self.predictor(resize(images, small, self.config.antialias))

    def forward(self, images: Tensor, *, resolution: int | None = None, tau: float | None = None) -> Output:
        """Classify images (N, 3, H, W), each at the candidate that the predictor picks.

        In evaluation mode that is the argmax, and every image is classified once. In training mode it is a draw, at
        temperature `tau` (default: the setting), and the logits have a gradient to the predictor. With `resolution`,
        every image is classified at that candidate and the predictor is not asked. Counting runs on shapes, where
        nothing can be picked: full resolution is taken, so that `cost.count` tells the highest cost.
        Raises InputError where a candidate is no whole number of pixels, or `resolution` is not the index of one.
        """
        if resolution is not None:
            if resolution not in range(m := len(self.config.candidates)):
                raise InputError(f"resolution is {resolution!r}; allowed: 0 to {m - 1}, the index of a candidate")
            choice = torch.full((len(images),), resolution, device=images.device)
            return Output(self.classify(images, resolution), choice)
        z = self.score(images)
        if not self.training:
            choice = z.argmax(1)
            if not has_values(images):
                return Output(self.classify(images, 0), choice, z)
            return Output(route(images, choice, self.classify), choice, z)
        gate = straight_through(z, tau or self.config.tau)
        choice = gate.argmax(1)
        if self.config.routed:
            logits = route(images, choice, self.classify) * gate.gather(1, choice[:, None])
        else:
            logits = combine(gate, [self.classify(images, j) for j in range(gate.shape[1])])
        full, *_ = macs = self.macs(tuple(images.shape[-2:]))[0]
        return Output(logits, choice, z, gate, tuple(part / full for part in macs))


def convert(model: nn.Module, config: Config) -> nn.Module:
    """The dynamic resolution network of a CNN: a copy with the same weights, and a fresh predictor.

    Each set of batch norms starts as a copy of the one it came from, so a trained network classifies at full resolution
    as before. The predictor's weights are drawn from torch's global generator. With a single candidate there is nothing
    to choose, and the result is the network itself. Layers keep their modes.
    Raises InputError for a network without batch norm, of clips, with auxiliary classifiers in training mode, or that
    torch.fx cannot trace.
    """
    model = copy.deepcopy(model)
    return model if len(config.candidates) == 1 else DynamicResolution(model, config)


def phases(config: Config) -> tuple[Phase, ...]:
    """The paper's schedule: 70 epochs at all resolutions without predictor, then 100 together with it.

    With a single candidate, the same 170 epochs of ordinary training; without `joint`, all 170 at all resolutions.
    """
    if len(config.candidates) == 1:
        return (Phase("full resolution", epochs=1.7, watch=drnet_training.watch_plain),)
    shape = ("candidates", "resolution_aware_bn", "antialias", "predictor", "predictor_width")  # these two: its weights
    first = Phase(
        "multi-resolution",
        drnet_training.multi_resolution(len(config.candidates)),
        epochs=0.7,
        groups=drnet_training.classifier_alone,
        watch=drnet_training.watch_candidates,
        depends_on=shape,
    )
    if not config.joint:
        return (replace(first, epochs=1.7, depends_on=None),)
    return (
        first,
        Phase(
            "joint",
            drnet_training.joint(config.alpha, config.eta, config.tau, config.tau_start),
            groups=drnet_training.classifier_and_predictor(config.predictor_lr),
            watch=drnet_training.watch_choices,
        ),
    )


def evaluate(model: nn.Module, valid: Batches) -> dict[str, float | list[float]]:
    """All controls on images that were not trained on, see `drnet_controls.report`; `top5` where nothing is chosen.

    Without `joint`, the predictor has learnt nothing: `fixed_report`, and `top1` is that at full resolution.
    """
    if not isinstance(model, DynamicResolution):
        return {"top5": drnet_controls.label_among(*predict(model, valid))}
    evidence = drnet_controls.collect(model, valid)
    if not model.config.joint:
        return drnet_controls.fixed_report(evidence)
    return drnet_controls.report(evidence, model.config.alpha)


def choose(model: nn.Module, held_out: Batches, valid: Batches) -> dict[str, float | list[float]]:
    """Where training images are held out, all figures are of these: settings are chosen without the test images."""
    return task_scores(model, held_out) | evaluate(model, held_out)


def cost(module: nn.Module, input_size: int | Size) -> Cost:
    """The highest cost of an image of (height, width) px: full resolution and the predictor, see `macs_by_choice`.

    That is also what the counter counts: it runs on shapes, where nothing can be chosen.
    """
    return closed_form(module, input_size)


def macs_by_choice(model: nn.Module, size: Size) -> dict[str, int]:
    """MACs of the classifier at each candidate, by its px, and under "predictor" what comes on top of every choice.

    Of a network with a single candidate nothing: there is no choice.
    """
    if not isinstance(model, DynamicResolution):
        return {}
    macs, predictor = model.macs(size)
    return dict(zip(map(px, model.sizes(size)[0]), macs, strict=True)) | {"predictor": predictor}


def deploy(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU in float32, a callable `(images, choices=None)`.

    The predictor and each candidate's classifier are ONNX graphs, with the candidate's batch norms in its kernels; only
    the predictor and the chosen classifiers run, see `dynlib.runtime.Resolutions`. `example` (N, 3, H, W) has the size
    of the images that it will take, any N. Outputs equal the module's in evaluation mode within float32 rounding. With
    a single candidate nothing is chosen. With `calibrate`, a few batches of images, all graphs are in int8, see
    `dynlib.quantise`. Raises InputError for a size whose candidates are no whole pixels, and names
    what cannot be exported.
    """
    if not isinstance(module, DynamicResolution):
        return export.single("drnet", module, example, engine, threads, calibrate)
    return deployed(module, example, engine, threads, calibrate)
