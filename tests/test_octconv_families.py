"""Which of torchvision's networks have an octave form, and what stands in the way of the others."""

import csv
import re

import pandas as pd
import pytest
import torch
from networks import network
from torch import nn

from dynlib import backbones, cost
from dynlib.backbones.thin import thin
from dynlib.book.zoo.coverage import on_meta
from dynlib.book.zoo.octconv_survey import TRIED, survey
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.ops import OctConv2d
from dynlib.paths import SURVEYS

REFUSED = {  # name: the reason, with the node or layer it lies in
    "alexnet": r"^features\.3: 224 px become 27 px; octaves need maps that divide the image",
    "inception_v3": r"^Conv2d_2a_3x3\.conv: 299 px become 147 px; octaves need maps that divide the image",
    "convnext_tiny": r"^features\.0\.1 \(LayerNorm2d\): norms over all channels, which octaves hold at two sizes",
    "swin_t": r"^SwinTransformer: features\.0\.0 is its only convolution",
    "vit_b_16": r"^VisionTransformer: conv_proj is its only convolution",
    "mvit_v1_b": r"no rule for the operation",
}
CONVERTS = [arch for arch in TRIED if arch not in REFUSED]
# Of a family that differs in depth or width alone, one is run; all are converted and costed at full width, below.
LIKE_OTHERS = {"resnet34", "resnet101", "wide_resnet50_2", "vgg11_bn", "squeezenet1_0", "mobilenet_v3_large"}
LIKE_OTHERS |= {"mnasnet1_3", "efficientnet_b1", "efficientnet_v2_s"}


def twin(arch):
    """The network at an eighth of its width, with made-up weights and statistics: the same graph in little time."""
    torch.manual_seed(0)
    net = thin(on_meta(lambda: backbones.build(arch, 10)), 0.125).to_empty(device="cpu")
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.dim() > 1:
            nn.init.normal_(tensor, std=(2 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("weight", "var")):
            nn.init.uniform_(tensor, 0.5, 1.5)
        else:
            nn.init.zeros_(tensor) if name.endswith("tracked") else nn.init.normal_(tensor, std=0.1)
    return net.eval()


def seen(arch):
    """The smallest example that the network takes; S3D ends in a pooling of 7 px."""
    size = (64, 64) if len(TRIED[arch]) == 2 else (8, 64, 64)
    return cost.example(TRIED[arch] if arch.startswith(("squeezenet", "s3d")) else size)


@pytest.mark.parametrize("arch", [arch for arch in CONVERTS if arch not in LIKE_OTHERS])
def test_alpha_zero_is_the_original_bit_for_bit_and_a_half_runs_costs_what_is_counted_and_learns(arch):
    plain, x = twin(arch), seen(arch)
    expected = plain(x)
    assert torch.equal(convert(plain, Config(alpha=0), x)(x), expected)
    net = convert(plain, Config(alpha=0.5), x)
    logits = net(x)
    assert logits.shape == (1, 10) and logits.isfinite().all() and not torch.equal(logits, expected)
    (logits / logits.abs().max().detach()).sum().backward()  # nothing saturates, however large made-up weights are
    octave = [m for m in net.modules() if isinstance(m, OctConv2d) and m.out.low]
    assert octave and all(m.weight.grad.isfinite().all() for m in octave)
    assert sum(bool(m.weight.grad.any()) for m in octave) > 0.9 * len(octave)
    closed, counted = octconv.cost(net.to("meta"), tuple(x.shape[2:])), cost.count(net, x.to("meta"))
    assert closed.macs == counted.macs
    assert closed.params == counted.params == sum(p.numel() for p in plain.parameters())


def committed():
    with open(SURVEYS / "octconv.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_survey_lists_every_architecture_once_and_each_octave_network_saves_a_fifth_at_least():
    rows = committed()
    assert [row["arch"] for row in rows] == list(TRIED)
    saved = {row["arch"]: 1 - int(row["macs"]) / int(row["macs_static"]) for row in rows if row["arch"] in CONVERTS}
    assert 0.1 < saved.pop("shufflenet_v2_x0_5") < 0.2 < min(saved.values())  # its shuffled maps stay plain


@pytest.mark.parametrize("arch", TRIED)
def test_the_committed_survey_is_what_the_library_finds_at_full_width_and_a_refusal_names_the_node(arch):
    finding = survey(arch)
    line = pd.DataFrame([finding], dtype=object).to_csv(index=False, header=False).strip()
    assert line in (SURVEYS / "octconv.csv").read_text(encoding="utf-8").splitlines()
    assert (finding.refusal is None) == (arch in CONVERTS)
    if arch in REFUSED:
        assert re.search(REFUSED[arch], finding.refusal)


# ------------------------------------------------------------------------------------- networks of one size, or channel


class Digits(nn.Module):
    """One channel in, and a head for one size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.same, self.down = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.tiles = nn.Conv2d(8, 8, 2, 2)
        self.head = nn.Linear(8 * 7 * 7, 10)

    def forward(self, x):
        x = self.down(self.same(self.stem(x).relu()).relu()).relu()
        return self.head(self.tiles(x).relu().flatten(1))


def test_a_network_of_one_channel_and_one_size_converts_with_an_example_and_keeps_its_tiles():
    x = cost.example(28, channels=1)
    with pytest.raises(InputError, match=r"^Digits: does not run on a 1x224x224 image: .*; give an `example`$"):
        convert(Digits(), Config())
    net = convert(Digits(), Config(), x)
    assert net.same.out.low == 4 and net.down.inp.low == 4 and type(net.tiles) is nn.Conv2d
    assert octconv.cost(net, (28, 28), channels=1).macs == cost.count(net, x).macs
    assert torch.allclose(octconv.deploy(net.eval(), x)(x), net(x), atol=1e-5)


@pytest.mark.parametrize(("given", "said"), [(torch.ones(1, 28, 28), r"\(1, 28, 28\)"), (28, "28")])
def test_an_example_that_is_no_batch_is_refused(given, said):
    with pytest.raises(InputError, match=rf"^example is {said}; it is a batch of images \(N, C, H, W\)"):
        convert(Digits(), Config(), given)


def test_maps_that_do_not_divide_the_image_tie_the_network_to_the_size_of_its_example():
    x = cost.example(225)
    net = convert(network("squeezenet1_1"), Config(), x)
    deployed = octconv.deploy(net, x)
    with torch.no_grad():
        expected = net(x)
    assert torch.allclose(deployed(x), expected, atol=1e-4 * expected.abs().max().item())
    with pytest.raises(InputError, match=r"^size 224x224: .* alone: 225x225$"):
        net(cost.example(224))
    with pytest.raises(InputError, match=r"allowed: float32 \(N, 3, 225, 225\)"):
        deployed(cost.example(224))


def test_maps_that_are_odd_at_the_size_of_the_example_are_refused_by_name():
    with pytest.raises(InputError, match=r"^layer1.0.conv1: 225 px become 57 px; octaves need maps that divide"):
        convert(on_meta(lambda: backbones.build("resnet18")), Config(), cost.example(225))


def test_bands_that_do_not_meet_behind_an_unpadded_pooling_are_refused():
    body = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 1, 1), nn.MaxPool2d(4, 2), nn.Conv2d(8, 8, 3, 1, 1)]
    plain = nn.Sequential(*body, nn.Conv2d(8, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"^example is \(1, 3, 32, 32\); at this size the bands do not meet: "):
        convert(plain, Config(vanilla=("4",)), cost.example(32))
