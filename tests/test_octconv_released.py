"""The authors' own networks: the costs of Figure 4, of MobileNets, ResNet-152 and clips, by their rule of counting."""

import csv
from functools import cache

import pytest
import torch

from dynlib import backbones, cost
from dynlib.book.zoo.authors_count import AUTHORS
from dynlib.book.zoo.octconv_released import SCHEDULES, regenerate, released_macs
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.ops import OctConv2d
from dynlib.paths import CLAIMS


@cache
def on_meta(arch, **kw):
    with torch.device("meta"):
        return backbones.build(arch, **kw)


def count(net, formulas=None, size=224):
    return cost.count(net, cost.example(size).to("meta"), formulas=formulas)


def points():
    """(row, GMAC as read) of every point of Figure 4."""
    with open(CLAIMS / "octconv.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["table"], row["metric"]) == ("fig4_preprint", "macs")]
    return [(row["row"], float(row["value"])) for row in rows]


def test_figure_4_has_34_points_of_8_networks():
    assert len(points()) == 34 and len({row.partition(", ")[0] for row, _ in points()}) == 8


@pytest.mark.parametrize(("row", "claimed"), points())
def test_a_point_of_figure_4_costs_what_was_read_to_a_seventh_of_a_percent(row, claimed):
    assert regenerate(row, "macs") / 1e9 == pytest.approx(claimed, rel=0.0015)


@pytest.mark.parametrize(
    ("row", "metric", "printed"),
    [
        ("0.75 MobileNet v1, alpha 0.375", "macs", "0.213"),
        ("1.125 MobileNet v2, alpha 0.5", "params", "0.004"),
        ("ResNet-152 + SE, alpha 0.125, 320/331 px", "macs", "22.158"),
        ("ResNet-152 + SE, stem without pooling, alpha 0.125, 224 px", "macs", "10.848"),
        ("ResNet-152, stem with pooling, alpha 0.125, 224 px", "macs", "10.855"),
        ("I3D, alpha 0.1, Kinetics-400, from scratch", "macs", "25.534"),
    ],
)
def test_a_row_of_a_table_is_regenerated_from_its_name(row, metric, printed):
    assert f"{regenerate(row, metric) / 1e9:.3f}" == printed


@pytest.mark.parametrize("row", ["ResNet-50 (M), alpha 0.5", "I3D + Non-local, alpha 0.1, Kinetics-400", "NASNet-A"])
def test_a_row_whose_network_is_not_specified_is_not_regenerated(row):
    assert regenerate(row, "macs") is None


@pytest.mark.parametrize(
    ("alpha", "macs", "authors"),
    [(0, 4.092, 4.111), (0.125, 3.568, 3.594), (0.25, 3.106, 3.130), (0.5, 2.370, 2.389), (0.75, 1.883, 1.896)],
)
def test_se_resnet50_has_the_papers_counts_in_closed_form_and_by_both_rules(alpha, macs, authors):
    net = convert(on_meta("preact_se_resnet50"), Config(alpha=alpha))
    assert octconv.cost(net, (224, 224)).macs == count(net).macs == pytest.approx(macs * 1e9, abs=0.5e6)
    assert count(net, AUTHORS).macs == pytest.approx(authors * 1e9, abs=0.5e6)
    assert count(net).params == count(on_meta("preact_se_resnet50")).params


@pytest.mark.parametrize(
    ("arch", "width", "alpha", "macs", "authors", "params", "printed"),
    [
        ("mobilenet_v1", 0.75, 0.375, "211.38", "213.45", "2.6", "213"),
        ("mobilenet_v1", 1.0, 0.5, "318.17", "320.63", "4.2", "321"),
        ("gluon_mobilenet_v2", 1.0, 0.375, "254.03", "256.42", "3.5", "256"),
        ("gluon_mobilenet_v2", 1.125, 0.5, "292.76", "295.26", "4.2", "295"),
    ],
)
def test_the_oct_mobilenets_have_the_counts_of_table_5(arch, width, alpha, macs, authors, params, printed):
    schedule = SCHEDULES[arch]
    net = convert(on_meta(arch, width=width), Config(alpha=alpha, vanilla=schedule.vanilla))
    closed = octconv.cost(net, (224, 224))
    assert closed.macs == count(net).macs
    assert f"{closed.macs / 1e6:.2f}" == macs and f"{closed.params / 1e6:.1f}" == params
    released = released_macs(net, 224, schedule) / 1e6
    assert (f"{released:.2f}", f"{released:.0f}") == (authors, printed)


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
    assert count(control).macs == count(plain).macs
    assert [f"{released_macs(net, 224, schedule) / 1e6:.2f}" for net in (plain, control)] == [strided, pooled]


def test_mobilenet_v1_begins_and_ends_where_the_authors_code_does():
    net = convert(on_meta("mobilenet_v1"), Config(alpha=0.5, vanilla=SCHEDULES["mobilenet_v1"].vanilla))
    low = {name for name, m in net.named_modules() if isinstance(m, OctConv2d) and m.out.low}
    pointwise, depthwise = {f"features.{i}.1.0" for i in range(1, 11)}, {f"features.{i}.0.0" for i in range(2, 12)}
    assert low == pointwise | depthwise


@pytest.mark.parametrize(
    ("arch", "expansion", "depthwise", "project", "first"),
    [
        ("mobilenet_v2", "conv.0.0", "conv.1.0", "conv.2", 2),
        ("gluon_mobilenet_v2", "expand.0", "depthwise.0", "project.0", 1),
    ],
)
def test_mobilenet_v2_splits_the_middle_of_its_first_13_blocks_only(arch, expansion, depthwise, project, first):
    net = convert(on_meta(arch), Config(alpha=0.5, vanilla=SCHEDULES[arch].vanilla))
    splits = {name: (m.inp.low > 0, m.out.low > 0) for name, m in net.named_modules() if isinstance(m, OctConv2d)}
    splits = {name: lows for name, lows in splits.items() if any(lows)}  # a pooled layer of the last blocks is plain
    assert splits == {
        f"features.{block}.{name}": lows
        for block in range(first, 14)  # torchvision's first block has no expansion
        for name, lows in ((expansion, (False, True)), (depthwise, (True, True)), (project, (True, False)))
    }


@pytest.mark.parametrize(
    ("arch", "size", "macs", "authors"),
    [
        ("gluon_resnet152_v1f", 224, 10.819, 10.843),
        ("gluon_resnet152_v1f", 320, 22.078, 22.126),
        ("gluon_se_resnet152_v1e", 224, 10.839, 10.863),
        ("gluon_se_resnet152_v1e", 320, 22.111, 22.161),
    ],
)
def test_oct_resnet152_costs_what_its_code_does(arch, size, macs, authors):
    """The released code pools 4x4 at once where ours pools twice: 0.01 % of the authors' count."""
    schedule = SCHEDULES[arch]
    net = convert(on_meta(arch), Config(alpha=0.125, vanilla=schedule.vanilla))
    assert octconv.cost(net, (size, size)).macs == pytest.approx(macs * 1e9, abs=0.5e6)
    released = released_macs(net, size, schedule) / 1e9
    assert released == pytest.approx(authors, rel=0.00015)
    assert "se" not in arch or f"{released:.1f}" == {224: "10.9", 320: "22.2"}[size]  # Table 7, after rounding


def test_both_stems_of_resnet152_are_plain_and_keep_their_strides():
    for stem in ("v1e", "v1f"):
        arch = f"gluon_se_resnet152_{stem}"
        net = convert(on_meta(arch), Config(alpha=0.125, vanilla=SCHEDULES[arch].vanilla))
        octave = {name for name, m in net.named_modules() if isinstance(m, OctConv2d)}
        assert not any(name.startswith("stem") for name in octave)
        assert net.layer1.get_submodule("0.body.0.conv").inp.low == 0  # the first octave layer
        assert net.layer4.get_submodule("0.body.0.conv").out.low == 0  # plain at once, as the code says
    assert f"{count(net).params / 1e6:.1f}" == "66.9"  # the released one, v1e, has Table 7's 66.8


def test_resnet152_has_the_parameters_of_table_7():
    for arch, printed in (("gluon_resnet152_v1f", "60.2"), ("gluon_se_resnet152_v1e", "66.8")):
        assert f"{sum(p.numel() for p in on_meta(arch).parameters()) / 1e6:.1f}" == printed
