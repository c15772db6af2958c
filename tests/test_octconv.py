"""Octave networks: what paths cost, limits, what goes where in the graph, deployed forms, refusals."""

import copy

import onnx
import people
import pytest
import torch
import torch.nn.functional as F
from networks import assert_deployed, images, network, on_meta, pointwise, strange
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from dynlib import backbones, cost
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.deploy import folded
from dynlib.papers.octconv.ops import Octave, OctConv2d


def chain(*layers, channels=8):
    """A plain stem, the layers, a strided last stage and a classifier."""
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
    tail = (nn.Conv2d(channels, channels, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    return nn.Sequential(*stem, *layers, *tail).eval()


def conv(stride=1, **kw):
    return nn.Conv2d(8, 8, 3, stride, 1, **kw)


# ------------------------------------------------------------------------------------------- counts, to printed digits


@pytest.mark.parametrize(
    ("low_to_high", "high_to_low", "printed"),
    [(True, True, "2.367"), (False, True, "2.092"), (True, False, "2.174"), (False, False, "1.898")],
)
def test_paths_switched_off_cost_what_they_did_in_the_papers_ablation(low_to_high, high_to_low, printed):
    net = convert(on_meta("resnet50"), Config(low_to_high=low_to_high, high_to_low=high_to_low))
    macs = cost.count(net, cost.example(224).to("meta")).macs
    assert octconv.cost(net, (224, 224)).macs == macs and f"{macs / 1e9:.3f}" == printed


def test_the_stem_and_the_last_stage_are_plain_and_the_band_ends_where_the_last_stage_begins():
    net = convert(on_meta("resnet50"), Config())
    splits = {name: (m.inp, m.out) for name, m in net.named_modules() if isinstance(m, OctConv2d)}
    assert "conv1" not in splits
    assert splits["layer1.0.conv1"] == ((64, 0), (32, 32))
    assert splits["layer1.0.downsample.0"] == ((64, 0), (128, 128))
    assert splits["layer4.0.conv1"] == ((512, 512), (512, 0))  # at 14 x 14, and already plain
    assert splits["layer4.0.downsample.0"] == ((512, 512), (2048, 0))
    assert splits["layer4.0.conv2"] == ((512, 0), (512, 0))  # plain, but pooled before it
    assert not any(name.startswith(("layer4.1", "layer4.2")) for name in splits)


# -------------------------------------------------------------------------------------------------------------- limits


def test_the_pooled_control_is_the_network_with_every_stride_behind_the_stem_moved_into_a_pooling():
    plain = strange(ResNet(BasicBlock, [1, 1, 1, 1], 10))
    by_hand = copy.deepcopy(plain)
    for name, m in plain.named_modules():
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and name != "conv1":
            unstrided = copy.deepcopy(m)
            unstrided.stride = (1, 1)
            by_hand.set_submodule(name, nn.Sequential(nn.AvgPool2d(2), unstrided))
    control, x = convert(plain, Config(alpha=0, pooled_control=True)), images(2, 64)
    assert torch.allclose(control(x), by_hand(x), atol=1e-5)
    assert not torch.allclose(control(x), plain(x), atol=1e-2)
    assert octconv.cost(control, (64, 64)).macs == cost.count(plain, images(1, 64)).macs


KEPT = [(name, 0.5) for name in ("projection", "dense", "depthwise", "branches", "gated")]


@pytest.mark.parametrize(("name", "alpha"), [("pad", 0.25), ("cifar_resnet20", 1), ("dense", 0.25), *KEPT])
def test_on_a_constant_image_pointwise_kernels_make_no_difference_so_every_channel_kept_its_place(name, alpha):
    plain = pointwise(network(name))
    x = torch.randn(2, 3, 1, 1).expand(2, 3, 64, 64).contiguous()
    net = convert(plain, Config(alpha=alpha))
    with torch.no_grad():
        expected = plain(x)
        assert torch.allclose(net(x), expected, atol=1e-4 * expected.abs().max().item())
    assert any(isinstance(m, OctConv2d) and m.out.low for m in net.modules())


def test_a_dense_block_has_its_kernels_in_the_order_of_the_concatenated_splits():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(6, 4, 1, bias=False)
            self.tail = nn.Conv2d(10, 4, 1, 2)

        def forward(self, x):
            x = self.stem(x)
            x = torch.cat([x, self.a(x)], 1)
            return self.tail(torch.cat([x, self.b(x)], dim=1)).mean((2, 3))

    torch.manual_seed(0)
    plain = Dense()
    net, x = convert(plain, Config(alpha=0.5)), images(2, 8)
    assert torch.equal(net.b.weight, plain.b.weight[:, [0, 1, 2, 3, 4, 5]])  # 2 + 2 high, then 2 low
    assert torch.equal(net.tail.weight, plain.tail.weight[:, [0, 1, 2, 3, 6, 7, 4, 5, 8, 9]])

    def pool(t):
        return F.avg_pool2d(t, 2)

    stem, w = plain.stem(x), plain.b.weight
    a_h, a_l = plain.a(stem)[:, :2], plain.a(pool(stem))[:, 2:]
    high, low = torch.cat([stem, a_h], 1), a_l
    b_h = F.conv2d(high, w[:2, :4]) + F.interpolate(F.conv2d(low, w[:2, 4:]), scale_factor=2.0)
    b_l = F.conv2d(pool(high), w[2:, :4]) + F.conv2d(low, w[2:, 4:])
    half = torch.cat([pool(stem), pool(a_h), a_l, pool(b_h), b_l], 1)  # in the plain order
    assert torch.allclose(net(x), F.conv2d(half, plain.tail.weight, plain.tail.bias).mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("paths_on", [True, False])
def test_without_both_paths_the_bands_do_not_know_each_other_between_first_and_last_layer(paths_on):
    net = convert(chain(conv(), conv(), conv()), Config(alpha=0.5, high_to_low=paths_on, low_to_high=paths_on))
    first, deep = net.get_submodule("3"), net.get_submodule("4")
    assert first.inp.low == 0 and deep.out.low > 0

    def bands(change):
        """What the deep layer sends out when one band of the first layer is changed by so much."""
        seen = []
        hooks = (
            first.register_forward_hook(lambda m, x, y: Octave(y.high + change[0], y.low + change[1])),
            deep.register_forward_hook(lambda m, x, y: seen.append(y)),
        )
        net(images())
        for hook in hooks:
            hook.remove()
        return seen[0]

    base = bands((0, 0))
    for mine, other in ((0, 1), (1, 0)):
        changed = bands((1 - mine, mine))
        assert not torch.equal(changed[mine], base[mine])
        assert torch.equal(changed[other], base[other]) is not paths_on


# -------------------------------------------------------------------------------------------------------------- sizes


def test_an_image_whose_maps_do_not_halve_is_refused_with_the_layer_and_the_nearest_sizes():
    net = convert(backbones.build("cifar_resnet20", 10, width=8), Config())
    with pytest.raises(InputError) as error:
        net(torch.zeros(1, 3, 30, 32))
    says = "size 30x32: layer2.0.downsample needs sides that are multiples of 4, the network of 4; "
    assert str(error.value) == says + "nearest sizes that work: 28x32 or 32x32; or set sizes=pad"


# ----------------------------------------------------------------------------------------------- what stands where


def test_names_in_vanilla_stand_in_place_of_the_last_stage():
    net = convert(CifarResNet(20, width=8), Config(vanilla=("layer2.*", "layer3.*")))
    low = {name for name, m in net.named_modules() if isinstance(m, OctConv2d) and m.out.low}
    assert low == {f"layer1.{block}.conv{i}" for block in range(3) for i in (1, 2)}
    net(images())


class Called(nn.Module):
    """Activations and poolings as functions and methods, or as modules."""

    def __init__(self, functional):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b, self.tail = nn.Conv2d(3, 8, 3, 1, 1), conv(), conv(), conv(2)
        self.norm, self.functional = nn.BatchNorm2d(8), functional
        self.relu, self.pool, self.silu = nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.SiLU(inplace=True)

    def forward(self, x):
        if self.functional:
            x = F.relu(self.a(self.stem(x)), inplace=True)
            x = F.max_pool2d(input=x, kernel_size=3, stride=2, padding=1)
            x = F.silu(self.norm(self.b(x)).relu_() + x)
            return torch.flatten(F.adaptive_avg_pool2d(self.tail(x), 1), 1)
        x = self.pool(self.relu(self.a(self.stem(x))))
        x = self.silu(self.relu(self.norm(self.b(x))) + x)
        return self.tail(x).mean((2, 3))


def test_functions_and_methods_do_what_modules_do():
    modules, functions = (convert(Called(functional).eval(), Config()) for functional in (False, True))
    assert torch.equal(modules(images()), functions(images()))
    assert functions.b.out.low == 4


def test_an_activation_may_serve_several_places():
    relu = nn.ReLU()
    shared, own = (chain(conv(), a, conv(), b) for a, b in ((relu, relu), (nn.ReLU(), nn.ReLU())))
    own.load_state_dict(shared.state_dict())
    assert torch.equal(convert(shared, Config())(images()), convert(own, Config())(images()))


class Sum(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.stem, self.a, self.tail, self.join = nn.Conv2d(3, 8, 3, 1, 1), conv(), conv(2), join

    def forward(self, x):
        x = self.stem(x)
        return self.tail(self.join(x, self.a(x)))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (chain(conv(), nn.GroupNorm(2, 8)), r"^4: no rule for the operation GroupNorm; the closest known are "),
        (Sum(lambda x, y: torch.add(x, y, alpha=2)), r"add: only the plain sum of two maps"),
        (Sum(lambda x, y: torch.cat([x, y], 2)), r"cat: only a concatenation of channels"),
    ],
)
def test_what_has_no_octave_form_is_refused_by_name_in_one_line(net, says):
    with pytest.raises(InputError, match=says) as error:
        convert(net, Config(alpha=0.25))
    assert "\n" not in str(error.value)


def test_a_name_in_vanilla_that_fits_no_layer_is_named():
    with pytest.raises(InputError, match=r"vanilla names 'stage9.*', but no convolution"):
        convert(CifarResNet(20, width=8), Config(vanilla=("layer3.*", "stage9.*")))


# ------------------------------------------------------------------------------------------------------------ deployed


def test_no_batch_norm_of_an_octave_is_left_behind_a_sum():
    deployed = assert_deployed(octconv, convert(strange(CifarResNet(8, width=8, shortcut="B")), Config()))
    graph = onnx.load_from_string(deployed.parts["network"].graph).graph
    writer = {name: node.op_type for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert all(writer[node.input[0]] == "Conv" for node in norms)  # which the runtime folds


def test_a_batch_norm_is_not_folded_into_a_convolution_that_others_read_too():
    def use(n, x):
        y = n.c(x)
        return n.bn(y) + y

    net = convert(people.Body(use).eval(), Config())
    assert torch.allclose(folded(net)(images()), net(images()), atol=1e-5)


def test_a_deployed_network_refuses_or_pads_the_sizes_that_the_module_refuses_or_pads():
    plain = strange(CifarResNet(8, width=8, shortcut="A"))
    with pytest.raises(InputError, match="size 30x30: layer2"):
        octconv.deploy(convert(plain, Config()), images(1, 30))
    padded = convert(plain, Config(sizes="pad"))
    assert torch.allclose(octconv.deploy(padded, images(1, 30))(images(2, 30)), padded(images(2, 30)), atol=1e-5)
