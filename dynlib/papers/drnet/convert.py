"""A network gets one set of batch norms for each resolution, and a predictor in front; costs and phases."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynlib.cost import Cost, closed_form
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.networks import Settled
from dynlib.ops import has_values, image_channels
from dynlib.papers.drnet import frozen, layers, policies, predictor as predictors, training
from dynlib.papers.drnet.layers import Output, Size, at_resolution, px
from dynlib.settings import LATER, check_choice, check_number
from dynlib.tracing import copied
from dynlib.train import Phase, evaluate as task_scores, predict


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
    predictor: str = predictors.AUTO  # resnet10, inverted, or auto: inverted for networks of depthwise convolutions
    predictor_side: float | None = None  # side of its input, share of the image's; None: 128/224 or 64/224 (inverted)
    predictor_width: float = 1.0  # factor on its channels; keep its cost at or below 7 % of the classifier's
    predictor_lr: float = 0.1  # factor on the learning rate for it, above 0; 0.01 beside 0.1 in the paper
    joint: bool = True  # false, a control: the first phase for as long as both; the predictor stays untrained
    supervised: bool = field(default=False, metadata=LATER)  # ours: the predictor learns where the classifier is right
    frozen: bool = field(default=False, metadata=LATER)  # ours: the classifier is given, only the predictor learns

    def __post_init__(self):
        listed = isinstance(self.candidates, list | tuple)
        shares = [float(s) for s in self.candidates if type(s) in (int, float)] if listed else []
        falling = all(above > below > 0 for above, below in pairwise(shares))
        if not falling or shares[:1] != [1] or len(shares) < len(self.candidates):
            raise InputError(
                f"candidates is {self.candidates!r}; it is a list of falling shares of the image's side, from 1 down"
            )
        object.__setattr__(self, "candidates", tuple(shares))
        check_number(self, "eta", 0)
        for name, high in {"alpha": 1, "tau": math.inf, "predictor_width": 16, "predictor_lr": 100}.items():
            check_number(self, name, 0, high, above=True)
        check_number(self, "tau_start", 0, above=True, optional=True)
        check_number(self, "predictor_side", 0, 1, above=True, optional=True)
        for name in ("resolution_aware_bn", "routed", "antialias", "joint", "supervised", "frozen"):
            check_choice(self, name, (True, False))
        check_choice(self, "predictor", (predictors.AUTO, *predictors.SIDES))
        if self.supervised and not self.joint:
            raise InputError("supervised is true and joint false; a predictor that stays untrained learns from nothing")
        if self.frozen and not (self.joint and len(self.candidates) > 1):
            raise InputError("frozen is true, but there is no predictor to train; allowed: joint, several candidates")


class DynamicResolution(Settled):
    """A classifier with a set of batch norms for each candidate, and the predictor that picks one; see `convert`."""

    def __init__(self, model: nn.Module, config: Config):
        super().__init__()
        kind = predictors.kind_for(model) if config.predictor == predictors.AUTO else config.predictor
        m = len(config.candidates)
        self.config = config
        self.predictor_side = config.predictor_side or predictors.SIDES[kind]
        self.classifier = layers.with_resolutions(model, m if config.resolution_aware_bn else 1)
        like = next(model.parameters())
        with torch.device(like.device):
            predictor = predictors.build(kind, m, config.predictor_width, image_channels(self.classifier))
            self.predictor = predictor.to(like.dtype).train(model.training)
            if config.supervised:  # what a unit of cost must bring in probability of being right, see `utility`
                self.register_buffer("price", torch.zeros((), dtype=like.dtype))
        self.training = model.training
        self._macs: dict[Size, tuple[tuple[int, ...], int]] = {}

    def settings(self) -> str:
        """The candidates, one of which each set of batch norms is of."""
        return f"candidates {self.config.candidates}"

    def sizes(self, size: Size) -> tuple[list[Size], Size]:
        """Sizes in px of the candidates, and of the predictor's input, for images of (height, width) px."""
        return layers.candidate_sizes(size, self.config.candidates), layers.thumbnail_size(size, self.predictor_side)

    def macs(self, size: Size) -> tuple[tuple[int, ...], int]:
        """MACs of the classifier at each candidate, and of the predictor, for one image."""
        if size not in self._macs:
            sides, small = self.sizes(size)
            views = [at_resolution(self.classifier, j) for j in range(len(sides))]
            parts = map(closed_form, views, sides)
            predictor = closed_form(self.predictor, small).macs
            self._macs[size] = tuple(part.macs for part in parts), predictor
        return self._macs[size]

    def classify(self, images: Tensor, resolution: int) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W) at one candidate."""
        size = layers.candidate_sizes(tuple(images.shape[-2:]), self.config.candidates)[resolution]
        images = layers.resize(images, size, self.config.antialias)
        try:
            return self.classifier(images, resolution)
        except RuntimeError as error:
            if "shapes cannot be multiplied" not in str(error):
                raise
            raise InputError(
                f"at {px(size)} px: {error}; a linear layer reads maps of one size alone, pool it first"
            ) from error

    def score(self, images: Tensor) -> Tensor:
        """The predictor's logits z (N, m) for images (N, 3, H, W)."""
        small = layers.thumbnail_size(tuple(images.shape[-2:]), self.predictor_side)
        return self.predictor(layers.resize(images, small, self.config.antialias))

    def utility(self, z: Tensor, size: Size) -> Tensor:
        """What the choice maximises (N, m), for predictor logits z and images of (height, width) px.

        That is z itself; of a supervised predictor the probability of being right less `price` times the cost, the
        cost as a share of that at full resolution.
        """
        if not self.config.supervised:
            return z
        return z.sigmoid() - self.price * z.new_tensor(self.costs(size))  # eq-drnet-price

    def costs(self, size: Size) -> tuple[float, ...]:
        """MACs of the classifier at each candidate, as shares of those at full resolution, for (height, width) px."""
        full, *_ = macs = self.macs(size)[0]
        return tuple(part / full for part in macs)

    def forward(
        self, images: Tensor, *, resolution: int | None = None, tau: float | None = None, classify: bool = True
    ) -> Output:
        """Classify images (N, 3, H, W), each at the candidate that the predictor picks.

        In evaluation mode that is the argmax, and every image is classified once. In training mode it is a draw, at
        temperature `tau` (default: the setting), and the logits have a gradient to the predictor. With `resolution`,
        every image is classified at that candidate and the predictor is not asked. Counting runs on shapes, where
        nothing can be picked: full resolution is taken, so that `cost.count` tells the highest cost. With `classify`
        off the predictor alone runs, and the logits are its own.
        Raises InputError where a candidate is no whole number of pixels, or `resolution` is not the index of one.
        """
        if resolution is not None:
            if resolution not in range(m := len(self.config.candidates)):
                raise InputError(f"resolution is {resolution!r}; allowed: 0 to {m - 1}, the index of a candidate")
            choice = torch.full((len(images),), resolution, device=images.device)
            return Output(self.classify(images, resolution), choice)
        z = self.score(images)
        if not classify:
            return Output(z, z.argmax(1), z, costs=self.costs(tuple(images.shape[-2:])))
        if not self.training:
            choice = self.utility(z, tuple(images.shape[-2:])).argmax(1)
            if not has_values(images):
                return Output(self.classify(images, 0), choice, z)
            return Output(layers.route(images, choice, self.classify), choice, z)
        gate = layers.straight_through(z, tau or self.config.tau)
        choice = gate.argmax(1)
        if self.config.routed:
            logits = layers.route(images, choice, self.classify) * gate.gather(1, choice[:, None])
        else:
            logits = layers.combine(gate, [self.classify(images, j) for j in range(gate.shape[1])])
        return Output(logits, choice, z, gate, self.costs(tuple(images.shape[-2:])))


def convert(model: nn.Module, config: Config) -> nn.Module:
    """The dynamic resolution network of a CNN: a copy with the same weights, and a fresh predictor.

    Each set of batch norms starts as a copy of the one it came from, so a trained network classifies at full resolution
    as before. The predictor's weights are drawn from torch's global generator. With a single candidate there is nothing
    to choose, and the result is the network itself. Layers keep their modes.
    Raises InputError for a network without batch norm, of clips, with auxiliary classifiers in training mode, or that
    torch.fx cannot trace.
    """
    model = copied(model)
    return model if len(config.candidates) == 1 else DynamicResolution(model, config)


def phases(config: Config) -> tuple[Phase, ...]:
    """The paper's schedule: 70 epochs at all resolutions without predictor, then 100 together with it.

    With a single candidate, the same 170 epochs of ordinary training; without `joint`, all 170 at all resolutions.
    With `supervised`, 170 at all resolutions on nine tenths of the images; then the predictor learns, on the tenth that
    the classifier has not fitted, at which resolutions an image is classified rightly. That phase is ours. With
    `frozen`, the predictor alone, for all epochs, see `frozen`.
    """
    if len(config.candidates) == 1:
        return (Phase("full resolution", epochs=1.7, watch=training.watch_plain),)
    shape = ("candidates", "resolution_aware_bn", "antialias", "predictor", "predictor_width")  # these two: its weights
    first = Phase(
        "multi-resolution",
        training.multi_resolution(len(config.candidates)),
        epochs=0.7,
        groups=training.learning(classifier=1.0),
        watch=training.watch_candidates,
        depends_on=shape,
    )
    predictor = Phase(
        "predictor",
        lr=0.02 * config.predictor_lr,
        weight_decay=0.0,
        optimizer="adam",
        groups=training.learning(predictor=1.0),
        watch=lambda model, valid: {},
    )
    if config.frozen:
        given = frozen.Given(config)
        return (replace(predictor, objective=given, prepare=given.prepare),)
    if not config.joint:
        return (replace(first, epochs=1.7, depends_on=None),)
    if config.supervised:
        asks = training.right_or_wrong(len(config.candidates), config.alpha)
        return (
            replace(first, name="multi-resolution, nine tenths", epochs=1.7, images="most"),
            replace(predictor, objective=asks, epochs=4.0, images="rest"),
        )
    return (
        first,
        Phase(
            "joint",
            training.joint(config.alpha, config.eta, config.tau, config.tau_start),
            groups=training.learning(classifier=1.0, predictor=config.predictor_lr),
            watch=training.watch_choices,
        ),
    )


def evaluate(model: nn.Module, valid: Batches) -> dict[str, float | list[float]]:
    """All controls on images that were not trained on, see `policies.report`; `top5` where nothing is chosen.

    Without `joint`, the predictor has learnt nothing: `fixed_report`, and `top1` is that at full resolution.
    """
    if not isinstance(model, DynamicResolution):
        return {"top5": policies.label_among(*predict(model, valid))}
    known = frozen.answers(model, valid).float() if model.config.frozen else None
    evidence = policies.collect(model, valid, known)
    if not model.config.joint:
        return policies.fixed_report(evidence)
    found = policies.report(evidence, model.config.alpha)
    price = model.price.item() if model.config.supervised else None
    if price is not None:
        found |= policies.priced(evidence, price)
    if model.config.frozen:
        found["rules"] = frozen.ladder(evidence, model.right_by_class, price)
    return found


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
