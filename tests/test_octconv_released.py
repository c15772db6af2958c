"""The authors' own networks: where octaves begin and end in MobileNets and ResNet-152, and what their rule charges."""

import pytest
from networks import on_meta

from dynlib import cost
from dynlib.book.zoo.octconv_released import SCHEDULES, regenerate, released_macs
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.ops import OctConv2d


@pytest.mark.parametrize("row", ["ResNet-50 (M), alpha 0.5", "I3D + Non-local, alpha 0.1, Kinetics-400", "NASNet-A"])
def test_a_row_whose_network_is_not_specified_is_not_regenerated(row):
    assert regenerate(row, "macs") is None


@pytest.mark.parametrize(
    ("arch", "width", "strided", "pooled"),
    [
        ("mobilenet_v1", 0.75, "325.70", "326.83"),
        ("mobilenet_v1", 1.0, "569.14", "570.65"),
        ("gluon_mobilenet_v2", 1.0, "313.68", "315.60"),
    ],
)
def test_the_rule_charges_a_plain_mobilenet_for_the_pooling_of_the_authors_code_at_share_zero(
    arch, width, strided, pooled
):
    plain, schedule = on_meta(arch, width=width), SCHEDULES[arch]
    control = convert(plain, Config(alpha=0, pooled_control=True, vanilla=schedule.vanilla))
    assert cost.closed_form(plain, 224).macs == octconv.cost(control, (224, 224)).macs
    assert [f"{released_macs(net, 224, schedule) / 1e6:.2f}" for net in (plain, control)] == [strided, pooled]


def test_mobilenet_v1_begins_and_ends_where_the_authors_code_does():
    net = convert(on_meta("mobilenet_v1"), Config(alpha=0.5, vanilla=SCHEDULES["mobilenet_v1"].vanilla))
    low = {name for name, m in net.named_modules() if isinstance(m, OctConv2d) and m.out.low}
    pointwise, depthwise = {f"features.{i}.1.0" for i in range(1, 11)}, {f"features.{i}.0.0" for i in range(2, 12)}
    assert low == pointwise | depthwise


def test_mobilenet_v2_splits_the_middle_of_its_first_13_blocks_only():
    net = convert(on_meta("gluon_mobilenet_v2"), Config(alpha=0.5, vanilla=SCHEDULES["gluon_mobilenet_v2"].vanilla))
    splits = {name: (m.inp.low > 0, m.out.low > 0) for name, m in net.named_modules() if isinstance(m, OctConv2d)}
    splits = {name: lows for name, lows in splits.items() if any(lows)}  # a pooled layer of the last blocks is plain
    lows = {"expand.0": (False, True), "depthwise.0": (True, True), "project.0": (True, False)}
    assert splits == {f"features.{block}.{name}": low for block in range(1, 14) for name, low in lows.items()}


def test_both_stems_of_resnet152_are_plain_and_keep_their_strides():
    for stem in ("v1e", "v1f"):
        arch = f"gluon_se_resnet152_{stem}"
        net = convert(on_meta(arch), Config(alpha=0.125, vanilla=SCHEDULES[arch].vanilla))
        octave = {name for name, m in net.named_modules() if isinstance(m, OctConv2d)}
        assert not any(name.startswith("stem") for name in octave)
        assert net.layer1.get_submodule("0.body.0.conv").inp.low == 0  # the first octave layer
        assert net.layer4.get_submodule("0.body.0.conv").out.low == 0  # plain at once, as the code says
    assert (
        f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f}" == "66.9"
    )  # the released one, v1e, has Table 7's 66.8
