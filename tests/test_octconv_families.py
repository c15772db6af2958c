"""Which of torchvision's networks have an octave form at 224 px, and what stands in the way of the others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynlib import backbones, cost
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv_ops import Octave, OctConv2d

IMAGE, CLIP = (224, 224), (16, 112, 112)
CONVERTS = {  # name: size
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"), IMAGE),
    **dict.fromkeys(("vgg11", "vgg11_bn", "vgg16_bn", "densenet121", "googlenet"), IMAGE),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_3"), IMAGE),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"), IMAGE),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), CLIP),
    "s3d": (16, *IMAGE),
}
REFUSED = {  # name: the reason, with the node or layer it lies in
    "alexnet": r"^features\.3: 224 px become 27 px; octaves need maps that divide the image",
    "squeezenet1_0": r"^features\.3\.squeeze: 224 px become 54 px",
    "squeezenet1_1": r"^features\.3\.squeeze: 224 px become 55 px",
    "inception_v3": r"^Conv2d_2a_3x3\.conv: 224 px become 109 px",
    "shufflenet_v2_x0_5": r"^floordiv: no rule for the operation floordiv",  # a channel shuffle crosses the bands
    "convnext_tiny": r"^permute: no rule for the operation permute",  # layer norm over the channels
    "swin_t": r"^permute: no rule for the operation permute",
    "vit_b_16": r"no rule for the operation",
    "mvit_v1_b": r"no rule for the operation",
}
SMALL = ("mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf", "efficientnet_b0", "googlenet")


def on_meta(arch):
    """The network without memory; RegNet's builder computes its widths with tensors and needs some."""
    with torch.device("cpu" if arch.startswith("regnet") else "meta"):
        net = backbones.build(arch, 10)
    return net.to("meta")


def small(arch):
    """A network with weights and, so that order matters, statistics of its own."""
    torch.manual_seed(0)
    net = backbones.build(arch, 10)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
    return net.eval()


def test_at_least_25_of_torchvisions_architectures_were_tried():
    assert len(CONVERTS | REFUSED) >= 25 and not set(CONVERTS) & set(REFUSED)


@pytest.mark.parametrize("arch", CONVERTS)
def test_it_converts_runs_and_closed_form_equals_counter(arch):
    plain, size = on_meta(arch), CONVERTS[arch]
    net, x = convert(plain, Config(alpha=0.5)), cost.example(size).to("meta")
    closed, counted, before = octconv.cost(net, size), cost.count(net, x), cost.count(plain, x)
    assert closed.macs == counted.macs < 0.8 * before.macs
    assert closed.params == before.params
    assert net(x.repeat(2, *[1] * (x.dim() - 1))).shape == (2, 10)


@pytest.mark.parametrize("arch", REFUSED)
def test_it_does_not_convert_and_the_error_names_the_node(arch):
    with pytest.raises(InputError, match=REFUSED[arch]) as error:
        convert(on_meta(arch), Config(alpha=0.5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arch", SMALL)
def test_at_alpha_zero_it_is_the_original_and_at_a_half_it_learns_and_is_deployed(arch):
    plain, x = small(arch), cost.example(64, batch=2)
    with torch.no_grad():
        assert torch.equal(convert(plain, Config(alpha=0))(x), plain(x))
        net = convert(plain, Config(alpha=0.5))
        expected = net(x)
        assert torch.allclose(octconv.deploy(net, x)(x), expected, atol=1e-4 * expected.abs().max().item())
    F.cross_entropy(net.train()(x), torch.tensor([0, 1])).backward()
    octave = [m for m in net.modules() if isinstance(m, OctConv2d)]
    assert octave and all(m.weight.grad.isfinite().all() for m in octave)
    assert sum(bool(m.weight.grad.any()) for m in octave) > 0.9 * len(octave)


def test_both_bands_of_a_network_of_gates_matter():
    net, x = convert(small("mobilenet_v3_small"), Config(alpha=0.5)), cost.example(64)
    layer = next(m for m in net.modules() if isinstance(m, OctConv2d) and m.out.low and m.inp.low)
    with torch.no_grad():
        outputs = [net(x)]
        for band in ("high", "low"):
            hook = layer.register_forward_hook(
                lambda m, a, y, band=band: Octave(**(y._asdict() | {band: getattr(y, band) + 1}))
            )
            outputs.append(net(x))
            hook.remove()
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
