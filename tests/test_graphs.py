"""Reading networks as graphs: shapes without computing, roles by table, and classes of channels."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynlib import backbones
from dynlib.backbones.cifar_resnet import PadShortcut
from dynlib.errors import InputError
from dynlib.graphs import (
    ADD,
    CAT,
    CONV,
    FLATTEN,
    GLOBAL_POOL,
    INPUT,
    LINEAR,
    NORM,
    OUTPUT,
    POINTWISE,
    POOL,
    Classes,
    find_role,
    reduction,
    role,
    trace,
)


class Everything(nn.Module):
    """One node of each role, as a module, a function or a method."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        x = torch.cat([x, F.relu(x) + x], 1)
        return self.fc(F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).flatten(1))


def test_every_node_has_the_role_of_its_operation():
    traced = trace(Everything())
    roles = [role(traced, node) for node in traced.graph.nodes]
    first = [INPUT, CONV, NORM, POINTWISE, POINTWISE, ADD, CAT]
    assert roles == [*first, POOL, GLOBAL_POOL, FLATTEN, LINEAR, OUTPUT]


def test_shapes_are_those_of_one_image_and_reductions_follow():
    traced = trace(Everything(), size=64)
    shapes = {node.name: node.meta["shape"] for node in traced.graph.nodes}
    assert shapes["conv"] == (1, 4, 32, 32)
    assert shapes["cat"] == (1, 8, 32, 32)
    assert shapes["fc"] == (1, 2)
    pool = next(node for node in traced.graph.nodes if node.name == "max_pool2d")
    assert reduction(pool) == 4


def test_leaves_stay_whole_and_have_the_role_that_the_method_gives_them():
    traced = trace(backbones.build("cifar_resnet20", 10), leaves=(PadShortcut,))
    node = next(node for node in traced.graph.nodes if node.target == "layer2.0.downsample")
    assert find_role(traced, node) is None
    assert role(traced, node, {PadShortcut: "shortcut"}) == "shortcut"


def test_without_a_size_a_network_is_traced_for_any_input():
    traced = trace(nn.Sequential(nn.Conv2d(5, 2, 1)), size=None)
    assert all("shape" not in node.meta for node in traced.graph.nodes)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Calls(torch.sin), r"^sin: no rule for the operation sin; the closest known are "),
        (Calls(lambda x: x.cos()), r"^cos: no rule for the operation cos"),
        (Calls(operator.neg), r"^neg: no rule"),
        (nn.Sequential(nn.InstanceNorm2d(3)), r"^0: no rule for the operation InstanceNorm2d"),
    ],
)
def test_an_operation_that_nobody_taught_us_names_its_node(net, says):
    traced = trace(net)
    node = list(traced.graph.nodes)[1]
    assert find_role(traced, node) is None
    with pytest.raises(InputError, match=says) as error:
        role(traced, node)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Calls(lambda x: x if x.sum() > 0 else -x), r"^Calls: torch.fx cannot trace it \(.*\); allowed are models"),
        (nn.Sequential(nn.ReLU(), nn.Sequential(Calls(bool))), r"^Sequential: torch.fx cannot trace 1.0 \("),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(5, 2)), r"^Sequential: does not run on a 1x224x224 image: "),
    ],
)
def test_a_model_that_cannot_be_read_is_refused_by_name(net, says):
    with pytest.raises(InputError, match=says) as error:
        trace(net)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("marked_first", [True, False])
def test_a_mark_holds_for_all_that_was_ever_joined(marked_first):
    classes = Classes()
    for item in "abcde":
        classes.add(item)
    if marked_first:
        classes.mark("c")
    classes.union("a", "b")
    classes.union("b", "c")
    if not marked_first:
        classes.mark("c")
    classes.union("d", "e")
    assert [classes.marked(item) for item in "abcde"] == [True, True, True, False, False]
    assert classes.find("a") == classes.find("c") != classes.find("d")
    classes.add("a")  # once more changes nothing
    assert classes.marked("a")


class Headed(nn.Module):
    """A network with a head as people write them."""

    def __init__(self, head):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3, 1, 1), nn.AdaptiveAvgPool2d(2), head

    def forward(self, x):
        return self.head(self, self.pool(F.relu(self.conv(x))))


@pytest.mark.parametrize(
    "head",
    [
        lambda net, x: x.view(x.size(0), -1),
        lambda net, x: x.view(x.shape[0], -1),
        lambda net, x: torch.mean(x, (2, 3)),
        lambda net, x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    ],
)
def test_the_usual_heads_have_roles(head):
    traced = trace(Headed(head))
    assert all(role(traced, node) for node in traced.graph.nodes)


def test_a_slice_of_a_map_has_no_role():
    traced = trace(Headed(lambda net, x: x[:, :2]))
    assert [node.name for node in traced.graph.nodes if find_role(traced, node) is None] == ["getitem"]


def test_a_functional_dropout_follows_the_mode_after_tracing():
    traced = trace(Headed(lambda net, x: F.dropout(x, 0.5, training=net.training)))
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))  # so many that no two masks agree
    assert not traced.train()(x).equal(traced(x))
    assert traced.eval()(x).equal(traced(x))


def test_the_reason_why_a_model_does_not_run_is_told_and_nothing_is_printed(capfd):
    with pytest.raises(InputError, match=r"does not run on a 3x224x224 image: .*75264"):
        trace(nn.Sequential(nn.Conv2d(3, 6, 2, 2), nn.Flatten(), nn.Linear(7, 2)))
    assert capfd.readouterr().err == ""
