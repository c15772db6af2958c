"""A network is wrapped: the split, the network on the low image, a twin on the high one; costs, phases, inference."""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial

from torch import Tensor, nn

from dynlib import export
from dynlib.backbones.thin import thin
from dynlib.cost import Cost, closed_form
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.ops import LinearResize, image_channels
from dynlib.papers.wae.network import Even, Single, Wae
from dynlib.papers.wae.split import Decoder, Encoder
from dynlib.papers.wae.towers import Anatomy
from dynlib.papers.wae.training import (
    encoder_slower,
    joint_loss,
    score_loss,
    scoring,
    split_loss,
    splitting,
    watch_all,
    watch_scores,
    watch_split,
)
from dynlib.papers.wae.wavelet import WAVELETS, Approximation, Downscale, Wavelet
from dynlib.runtime import Deployed
from dynlib.settings import check_choice, check_number
from dynlib.tracing import copied
from dynlib.train import Phase, cross_entropy

PIXELS = "unit"  # images on the scale 0 .. 1: the two batch norms behind the split do the normalising

LEARNED, TWO = ("wae", "low"), ("wae", "decomposition", "wavelet")  # split by the transform loss; two towers
VARIANTS = ("wae", "decomposition", "low", "wavelet", "approximation", "downscaled", "full")
HEADS = {"released": (1 / 4, 1 / 2), "wide": (1.0, 1.0)}  # factors on the hidden layers of the low and fusion head
USED_BY = {  # settings that not every variant has a use for
    "lam": LEARNED,
    "gamma_share": LEARNED,
    "twin": TWO,
    "heads": (*TWO, "low"),
    "wavelet": ("wavelet", "approximation"),
    "sizes": VARIANTS[:-1],
}


@dataclass(frozen=True)
class Config:
    """Settings of a wrapped network; each value is checked and a bad one named.

    Variants: `wae` is the method. `decomposition` is the same network trained by the classification loss alone.
    `low`: I_L alone. `wavelet`: a fixed wavelet in place of the auto-encoder, its nine details for the twin.
    `approximation`: its low band alone. `downscaled`: the image at half its side. `full`: the network itself.
    """

    variant: str = "wae"
    lam: float = 1.0  # lambda, weight of the energy of I_H in the transform loss
    gamma_share: float = 0.1  # transform loss over classification loss where the joint stage begins
    twin: float = 0.25  # widths of the twin over those of the network, (0, 1] (Sec. 3.2)
    heads: str = "released"  # released: hidden layers of 1/4 (low) and 1/2 (fusion) of the network's; wide: the same
    wavelet: str = "cdf97"  # of the fixed split: cdf97, haar
    sizes: str = "reject"  # reject: an odd side is an error; pad: a row or column of zeros below or to the right

    def __post_init__(self):
        allowed = {"variant": VARIANTS, "heads": HEADS, "wavelet": WAVELETS, "sizes": ("reject", "pad")}
        for name, values in allowed.items():
            check_choice(self, name, values)
        check_number(self, "lam", 0)
        check_number(self, "gamma_share", 0)
        check_number(self, "twin", 0, 1, above=True)
        for field in fields(self):
            value, users = getattr(self, field.name), USED_BY.get(field.name, VARIANTS)
            if value != field.default and self.variant not in users:
                raise InputError(f"{field.name} is {value!r}; variant {self.variant!r} has no use for it")


def convert(model: nn.Module, config: Config, example: Tensor | None = None) -> nn.Module:
    """The wrapped network of a classifier, a copy: the tower has the model's weights, all else is new.

    The model is read as it stands for an image of 224 px; where it takes one size alone, an `example` says which.
    Takes images (N, 3, H, W) on the scale 0 .. 1 with even sides. Two-image variants and `low` yield an `Output`, the
    others logits (N, C). Training or evaluation mode as the model.
    Raises InputError for a network with another kind of head than `towers.Anatomy` knows, or an operation that nobody
    taught us.
    """
    return _wrapped(model, config, example).to(next(model.parameters())).train(model.training)


def _wrapped(model: nn.Module, config: Config, example: Tensor | None) -> nn.Module:
    model = copied(model)
    if config.variant == "full":
        return Single(nn.Identity(), model)
    if (channels := image_channels(model)) != 3:
        raise InputError(f"{type(model).__name__} takes images of {channels} channels; the split is one of images of 3")
    anatomy, even = Anatomy(model, example), Even(config.sizes == "pad")
    if config.variant in ("approximation", "downscaled"):
        half = Downscale() if config.variant == "downscaled" else Approximation(config.wavelet)
        layers = {"tower": anatomy.tower(), "head": anatomy.head(anatomy.channels, 1.0)}
        return Single(nn.Sequential(even, half), nn.Sequential(OrderedDict(layers)))
    share_low, share_fused = HEADS[config.heads]
    parts = {"even": even, "split": Wavelet(config.wavelet) if config.variant == "wavelet" else Encoder()}
    if config.variant in LEARNED:  # drawn before the rest, so that one seed gives both the same auto-encoder
        parts["decoder"] = Decoder()
    parts |= {"tower": anatomy.tower(), "head_low": anatomy.head(anatomy.channels, share_low)}
    if config.variant in TWO:
        small = Anatomy(thin(model, config.twin), example)
        parts["channels_high"] = 9 if config.variant == "wavelet" else 3
        parts["twin"] = small.tower(parts["channels_high"])
        parts["head_fused"] = anatomy.head(anatomy.channels + small.channels, share_fused)
    return Wae(**parts)


def phases(config: Config) -> tuple[Phase, ...]:
    """The schedule, as shares of a recipe: 20 and 10 of the paper's epochs are those of classifier and joint tuning.

    A recipe's lr of 0.1 is that of the classifier; Adam trains the auto-encoder at 3/100 of it, three times as many
    epochs but on windows, and all parts together at 1/1000 in the end. The variants without an auto-encoder to learn
    have the two stages of classification, of the same lengths and learning rates, with the classification loss alone.
    In `decomposition` the encoder learns from the start, at 1/100: a batch norm behind it hides its scale, and at the
    full rate that grows without end.
    """
    shared = tuple(field.name for field in fields(config) if field.name != "gamma_share")
    if config.variant in LEARNED:
        split_ = partial(split_loss, lam=config.lam)
        joint = partial(joint_loss, lam=config.lam, gamma_share=config.gamma_share)
        return (
            Phase("split", split_, 3.0, 0.03, 0.0, "adam", splitting, watch_split, shared, augment=False),
            Phase("classifier", score_loss, groups=scoring, watch=watch_scores, depends_on=shared),
            Phase("joint", joint, 0.5, 0.001, optimizer="adam", watch=watch_all),
        )
    loss, watch = (score_loss, watch_scores) if config.variant in TWO else (cross_entropy, None)
    groups = encoder_slower if config.variant == "decomposition" else None
    return (
        Phase("classifier", loss, groups=groups, watch=watch, depends_on=shared),
        Phase("tuning", loss, 0.5, 0.001, optimizer="adam", watch=watch),
    )


def evaluate(model: nn.Module, valid: Batches) -> dict[str, float]:
    """Accuracy of each head and how well held-out images are split, see `watch_split`; `gamma` as it was settled."""
    if isinstance(model, Single):
        return {}
    return watch_all(model, valid) | ({} if model.decoder is None else {"gamma": model.gamma.item()})


def cost(module: nn.Module, input_size: int | tuple[int, int]) -> Cost:
    """All multiply-accumulates of a network from `convert` for one image.

    The decoder and, for I_L alone, the branch of I_H do not run at inference
    and cost nothing; `params` has them.
    """
    return closed_form(module, input_size)


def macs_by_part(module: nn.Module, input_size: int | tuple[int, int]) -> dict[str, int]:
    """The cost by what stands in the network: split, tower, twin, head_low, head_fused."""
    parts: dict[str, int] = {}
    for layer, macs in cost(module, input_size).by_layer.items():
        part = layer.partition(".")[0]
        parts[part] = parts.get(part, 0) + macs
    return parts


def conv_macs(network: nn.Module, input_size: int | tuple[int, int]) -> int:
    """The paper's way to count: convolutions alone (Sec. 3.3)."""
    by_layer = closed_form(network, input_size).by_layer
    layers = dict(network.named_modules())
    convs = [n for n in by_layer if isinstance(layers[n], nn.Conv2d)]
    return sum(by_layer[name] for name in convs)  # eq-wae-macs


def printed_speedup(side: float = 1 / 2, twin: float = 1 / 4) -> float:
    """As printed: the convolutions of tower and twin, nothing else."""
    return 1 / (side**2 + side**2 * twin**2)  # eq-wae-printed


def deploy(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU in float32, without the decoder, see `dynlib.runtime`.

    `example` (N, 3, H, W) has the size of the images that it will take, any N; outputs equal the module's in evaluation
    mode within float32 rounding. With `calibrate`, a few batches of images, it is in int8, see `dynlib.quantise`.
    Raises InputError for a size that the network does not take, and names what cannot be exported.
    """
    export.check(module, example, engine, threads)
    network, even = copy.deepcopy(module), tuple(side + side % 2 for side in example.shape[-2:])
    for name, part in [*network.named_modules()]:
        if isinstance(part, Downscale):  # engines differ in its filter
            network.set_submodule(name, LinearResize(even, (even[0] // 2, even[1] // 2), True))
    return export.single("wae", network, example, engine, threads, calibrate)
