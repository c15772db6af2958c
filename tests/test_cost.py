"""Costs: closed form against the counter, the authors' rule, and networks that look at values."""

import pytest
import torch
from networks import on_meta
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from dynlib import backbones, cost
from dynlib.book.zoo.authors_count import AUTHORS
from dynlib.errors import InputError


def count(net, size=224, **kw):
    return cost.count(net, cost.example(size).to("meta"), **kw)


class Odd(nn.Module):
    """Every plain layer once, the shared one twice, and sizes that do not divide."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 8, (3, 5), stride=2, dilation=(1, 2), groups=2)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, groups=2)
        self.line = nn.Conv1d(4, 5, 3)
        self.line_up = nn.ConvTranspose1d(5, 2, 4)
        self.fc = nn.Linear(2, 7)

    def forward(self, x):
        x = self.up(self.shared(self.shared(self.conv(x))))
        return self.fc(self.line_up(self.line(x.flatten(2))).transpose(1, 2))


def test_closed_form_covers_groups_dilation_transposition_and_shared_layers():
    net, size = Odd().train(), (13, 17)
    counted = cost.count(net, cost.example(size, channels=6))
    assert cost.closed_form(net, size, channels=6).by_layer == counted.by_layer
    h, w = 6, 5  # of the first convolution: (13 - 3) // 2 + 1 and (17 - 9) // 2 + 1
    assert counted.by_layer["conv"] == 8 * h * w * 3 * 3 * 5
    assert counted.by_layer["shared"] == 2 * 8 * h * w * 8 * 9
    assert counted.by_layer["up"] == 8 * h * w * 2 * 9  # each input pixel meets each weight of its group


def test_counting_leaves_mode_weights_and_buffers_alone():
    net = backbones.build("cifar_resnet20", 10).train()
    net.layer1.eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    cost.count(net, cost.example(32))
    cost.layer_sizes(net, 32)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


def test_a_thousand_pixels_need_no_arithmetic():
    net = on_meta("resnet50")  # a network on the meta device could not compute if it wanted to
    assert count(net, 1000).macs > 19 * count(net).macs


class Early(nn.Module):
    """Leaves after the first layer if the input is bright: a decision on values."""

    def __init__(self, look):
        super().__init__()
        self.look, self.first, self.second = look, nn.Linear(4, 4), nn.Linear(4, 5)
        nn.init.ones_(self.first.weight)

    def forward(self, x):
        assert not self.training
        x = self.first(x)
        return x if self.look(x) else self.second(x)


@pytest.mark.parametrize(
    "look",
    [lambda x: x.sum() > -100, lambda x: x.numpy().sum() > -100, lambda x: len(x[x > -100]) == 4],
    ids=["if", "numpy", "mask"],
)
def test_a_network_that_looks_at_values_is_counted_while_it_really_runs(look):
    net = Early(look).train()
    net.second.eval()
    assert cost.count(net, torch.ones(1, 4)).by_layer == {"first": 16}
    assert cost.count(net, torch.full((1, 4), -1e9)).by_layer == {"first": 16, "second": 20}
    assert net.training and net.first.training and not net.second.training


def test_a_mistake_in_the_input_keeps_its_own_message():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cost.count(nn.Linear(3, 2), torch.ones(1, 4))


class Products(nn.Module):
    """A product of the network itself, beside a layer inside a list."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(4, 4, bias=False)])

    def forward(self, x):
        x = self.inner[0](x)
        return (x.mT @ x).softmax(-1)


def test_products_outside_any_layer_belong_to_the_network_and_the_rest_is_reported():
    counted = cost.count(Products(), torch.ones(1, 3, 4))
    assert counted.by_layer == {"inner.0": 3 * 4 * 4, "": 4 * 3 * 4}
    assert counted.macs == sum(counted.by_layer.values())
    assert counted.uncounted == ("_softmax",)


@torch.library.custom_op("dynlib_test::known", mutates_args=())
def known(x: torch.Tensor) -> torch.Tensor:
    """An operator of our own with a formula."""
    return x * 2


@torch.library.custom_op("dynlib_test::unknown", mutates_args=())
def unknown(x: torch.Tensor) -> torch.Tensor:
    """An operator of our own without a formula."""
    return x * 2


known.register_fake(torch.empty_like)
unknown.register_fake(torch.empty_like)
register_flop_formula(torch.ops.dynlib_test.known)(lambda x, *_, out_shape, **__: 2 * 5 * x.numel())


class Custom(nn.Module):
    def forward(self, x):
        return known(unknown(x))


def test_an_operator_of_our_own_counts_by_its_formula_or_is_reported():
    assert cost.count(Custom(), torch.ones(1, 6)) == cost.Cost(30, 0, {"": 30}, ("dynlib_test.unknown",))


# ------------------------------------------------------------------------------------------------ the authors' rule


@pytest.mark.parametrize(("arch", "giga"), [("resnet50", "4.101"), ("densenet121", "2.852")])
def test_authors_rule_on_torchvision_networks(arch, giga):
    assert f"{count(on_meta(arch), formulas=AUTHORS).macs / 1e9:.3f}" == giga


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 7), 6 * 3 * 5 * (2 * 9 + 1)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), (4, 3, 3), 4 * 9 * 6 * 4),
        (nn.Linear(4, 6), (4,), 4 * 6 + 6),
        (nn.Linear(4, 6, bias=False), (4,), 4 * 6),
        (nn.MaxPool2d(3, 2), (4, 7, 7), 9 * 4 * 3 * 3),
        (nn.AvgPool2d((2, 3)), (4, 6, 6), 6 * 4 * 3 * 2),
        (nn.MaxPool3d(2), (4, 4, 4, 4), 8 * 4 * 2**3),
        (nn.AvgPool3d((1, 2, 2)), (4, 3, 4, 4), 4 * 4 * 3 * 2 * 2),
        (nn.AdaptiveAvgPool2d(1), (4, 5, 6), 4 * 5 * 6),
        (nn.AdaptiveAvgPool2d(2), (4, 5, 4), 4 * (3 + 3) * (2 + 2)),
        (nn.AdaptiveAvgPool3d(2), (4, 2, 2, 4), 4 * 2 * 2 * 4),
        (nn.ReLU(), (4, 5), 20),
        (nn.BatchNorm2d(4), (4, 5, 5), 0),
        (nn.ReLU6(), (4, 5), 0),
        (nn.UpsamplingNearest2d(scale_factor=2), (4, 5, 5), 0),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_authors_rule_of_each_operator(layer, shape, expected):
    assert cost.count(layer, torch.ones(1, *shape), formulas=AUTHORS).macs == expected


# ------------------------------------------------------------------------------------------------ closed form, inputs


class Split(nn.Module):
    """A paper's own module: parameters used by a functional, a pair out, one side absent."""

    def __init__(self):
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.ones(5, 3, 1, 1)), nn.Conv2d(5, 5, 1)

    def forward(self, x):
        return self.inner(F.conv2d(x, self.weight)), None


def test_a_papers_own_module_brings_its_formula_and_stands_for_all_inside_it():
    seen = []

    class Known(cost.Costed, Split):
        def macs(self, inputs, output):
            seen.append((inputs, output))
            return cost.conv_macs(self, output[0][1:]) + cost.conv_macs(self.inner, output[0][1:])

    net = Known()
    closed = cost.closed_form(net, (4, 6))
    assert seen == [(((3, 4, 6),), ((5, 4, 6), None))]
    assert closed.macs == cost.count(net, cost.example((4, 6))).macs == 24 * 15 + 24 * 25


def test_parameters_without_a_formula_are_refused_by_name():
    with pytest.raises(InputError, match=r"^0 is a Split, which has parameters and no formula"):
        cost.closed_form(nn.Sequential(Split()), 4)


def test_layer_sizes_are_outputs_without_the_batch():
    sizes = cost.layer_sizes(backbones.build("cifar_resnet20", 10), (32, 40))
    assert sizes["conv1"] == (16, 32, 40)
    assert sizes["layer2.0.downsample"] == (32, 16, 20)
    assert sizes["layer3.2.bn2"] == (64, 8, 10)
    assert sizes["fc"] == (10,)
    assert list(sizes)[:2] == ["conv1", "bn1"] and list(sizes)[-1] == "fc"


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("480x640", (480, 640))])
def test_sizes_are_read_as_height_by_width(text, size):
    assert cost.parse_size(text) == size
    assert cost.example(size, channels=1, batch=2).shape == (2, 1, *size)


@pytest.mark.parametrize("text", ["", "x", "224x", "0", "12x0", "1x2x3", "-3", "3.5", "224 px", "²"])
def test_other_sizes_are_refused_with_the_form(text):
    with pytest.raises(InputError, match="write S or HxW"):
        cost.parse_size(text)


def test_the_example_is_always_the_same_and_never_empty():
    assert torch.equal(cost.example(8), cost.example((8, 8)))
    with pytest.raises(InputError, match=r"\(1, 3, 0, 0\)"):
        cost.example(0)


def test_a_cost_is_that_of_one_image():
    with pytest.raises(InputError, match="batch 2"):
        cost.count(nn.ReLU(), torch.ones(2, 3))


class Free(nn.Module):
    """What the counter answers itself where there are only shapes, before layers whose count depends on the answer."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
        self.clips, self.head = nn.Conv3d(4, 4, 1), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.norm(x)
        y = self.conv(F.interpolate(x, scale_factor=2.0) + F.interpolate(x.relu(), scale_factor=2.0))
        z = self.clips(F.interpolate(y[:, :, None], scale_factor=[3.0, 2.0, 1.0]))
        return z, self.head(x + x.mean((0, 2, 3))[:, None, None])


def test_shapes_that_cost_nothing_are_those_of_a_real_run():
    x, net = cost.example((6, 5)), Free()
    real = FlopCounterMode(display=False)
    with real:
        net.eval()(x)
    for device in ("cpu", "meta"):
        counted = cost.count(net.to(device), x.to(device))
        assert 2 * counted.macs == real.get_total_flops()
        assert counted.macs == cost.closed_form(net, (6, 5)).macs
        assert {"native_batch_norm", "upsample_nearest2d", "upsample_nearest3d", "add"} <= set(counted.uncounted)
