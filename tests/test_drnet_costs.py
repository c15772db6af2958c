"""What dynamic resolution costs: the paper's counts to the printed digit, and what its printed averages allow."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from dynlib import backbones, cost
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.book import paperscale, report
from dynlib.book.cli import main
from dynlib.book.report import table
from dynlib.errors import InputError
from dynlib.papers import drnet
from dynlib.papers.drnet import Config, convert, predictor as drnet_predictor
from dynlib.papers.drnet.layers import at_resolution
from dynlib.papers.drnet.policies import mixtures

FIVE = (1, 6 / 7, 3 / 4, 1 / 2, 3 / 7)
THIN = Config(predictor_width=1 / 8)


@cache
def on_meta(arch, candidates=(1, 0.75, 0.5)):
    with torch.device("meta"):
        return convert(backbones.build(arch), Config(candidates=candidates))


def test_the_predictors_weigh_and_cost_what_is_printed():
    sizes = {}
    for kind, side in (("resnet10", 128), ("inverted", 64)):
        with torch.device("meta"):
            counted = cost.count(drnet_predictor.build(kind, 3), cost.example(side).to("meta"))
        sizes[kind] = (counted.params, round(counted.macs / 1e9, 4))
    assert sizes == {"resnet10": (4_907_331, 0.2902), "inverted": (259_203, 0.0104)}
    assert drnet.macs_by_choice(on_meta("resnet50"), (224, 224))["predictor"] == 290_194_944
    assert drnet.macs_by_choice(on_meta("mobilenet_v2"), (224, 224))["predictor"] == 10_435_296


def test_each_choice_costs_what_the_counter_counts_for_it():
    net = convert(CifarResNet(8), Config(candidates=FIVE, predictor_width=1 / 8))
    counted = [
        cost.count(at_resolution(net.classifier, j), cost.example(size)).macs
        for j, size in enumerate(net.sizes((28, 28))[0])
    ]
    assert list(drnet.macs_by_choice(net, (28, 28)).values())[:-1] == counted


def test_a_uniform_draw_costs_the_random_row_of_table_5():
    *sizes, _ = drnet.macs_by_choice(on_meta("resnet50"), (224, 224)).values()
    assert sum(sizes) / 3e9 == pytest.approx(2.557, abs=5e-4)


@pytest.mark.parametrize(("printed", "share"), [(2.0, 0.489), (2.5, 0.611), (3.0, 0.734), (3.5, 0.856)])
def test_alphas_are_the_papers_as_shares_of_full_resolution(printed, share):
    full = drnet.macs_by_choice(on_meta("resnet50"), (224, 224))["224"]
    assert printed * 1e9 / full == pytest.approx(share, abs=5e-4)
    assert printed != 2.5 or Config().alpha == share


def test_our_predictor_costs_at_most_2_percent_of_a_resnet20():
    (study,) = [row for row in report.rows("drnet", "cifar10") if row.name == "alpha 0.489"]
    with torch.device("meta"):
        net = convert(backbones.build(study.recipe.arch, 10), study.config)
    (full, *_), predictor = net.macs((32, 32))
    assert predictor <= 0.02 * full


@pytest.mark.parametrize(
    ("row", "arch", "px", "changed"),
    [
        ("ResNet-50", "resnet50", 224, {}),
        ("ResNet-101", "resnet101", 224, {}),
        ("ResNet-50, 192 px", "resnet50", 192, {}),
        ("MobileNetV2, 192 px", "mobilenet_v2", 192, {}),
        ("0.75 MobileNetV2", "mobilenet_v2", 224, {"width_mult": 0.75}),
    ],
)
def test_fixed_networks_count_what_is_printed(row, arch, px, changed):
    with torch.device("meta"):
        counted = cost.closed_form(backbones.build(arch, **changed), px)
    claims = report.claims("drnet").query("row == @row and metric in ['macs', 'params']")
    assert len(claims) >= 2
    for claim in claims.itertuples():
        assert table.rounded(getattr(counted, claim.metric), claim.unit, claim.value) == claim.value


@pytest.mark.parametrize(("row", "arch"), [("DR-ResNet-50", "resnet50"), ("DR-MobileNetV2", "mobilenet_v2")])
def test_the_printed_weights_are_network_and_predictor_without_the_further_batch_norms(row, arch):
    with torch.device("meta"):
        parts = backbones.build(arch), on_meta(arch).predictor
    weight = sum(p.numel() for part in parts for p in part.parameters())
    printed = report.claims("drnet").query("row == @row and metric == 'params'").value.unique()
    assert [table.rounded(weight, "M", value) for value in printed] == [*printed]


def test_mixtures_hold_every_mixture_with_their_mean_and_refuse_others():
    drawn = torch.distributions.Dirichlet(torch.ones(5)).sample((200,)).double()
    costs = [4.0, 3.0, 2.5, 1.0, 0.7]
    for shares in drawn.tolist():
        average = sum(s * c for s, c in zip(shares, costs, strict=True))
        assert all(
            low - 1e-9 <= s <= high + 1e-9 for s, (low, high) in zip(shares, mixtures(average, costs), strict=True)
        )
    with pytest.raises(InputError, match=r"average is 4\.2; allowed: 0\.7 to 4\.0"):
        mixtures(4.2, costs)


def test_the_command_tells_the_cost_of_every_choice(capsys):
    thin = ("cost", "drnet", "--arch", "cifar_resnet20", "--classes", "10", "-p", "predictor_width=0.125", "--size")
    assert main([*thin, "32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["macs_by_choice"]) == ["32", "24", "16", "predictor"]
    assert told["macs_by_choice"]["32"] == told["macs_static"] == 40_551_040
    assert told["closed_form"] == told["macs"] == 40_551_040 + told["macs_by_choice"]["predictor"]
    assert main([*thin, "30"]) == 2
    assert "candidate 0.75 of an image of 30x30 px is 22.5 px" in capsys.readouterr().err


def test_a_timed_mixture_has_the_macs_of_its_mean_image_and_predictor(stopwatch):
    shares = (0.3, 0.25, 0.45)
    asked = paperscale.Timing("cifar_resnet20", (32, 32), shares=shares)
    record = paperscale.time_latency("drnet", THIN, asked)
    macs = drnet.macs_by_choice(convert(backbones.build("cifar_resnet20"), THIN), (32, 32))
    mean = macs["predictor"] + 0.3 * macs["32"] + 0.25 * macs["24"] + 0.45 * macs["16"]
    assert record.metrics["macs_ratio"] == pytest.approx(macs["32"] / mean)
    inside = paperscale.time_latency("drnet", THIN, replace(asked, octaves=0.5))
    assert inside.metrics["macs_ratio"] > 1.2 * record.metrics["macs_ratio"], "against the network without either"
    assert inside.config == record.config | {"octaves": 0.5}


def test_the_timed_method_takes_its_decisions_from_outside():
    config = {"predictor_width": 0.125, "candidates": [1.0, 0.5]}
    asked = {"arch": "cifar_resnet8", "size": [32, 32], "shares": [0.75, 0.25]}
    network, methods, images, facts = paperscale.latency_pair(4, "drnet", config, **asked)
    assert isinstance(network, nn.Module) and facts.keys() == {
        "export_s",
        "load_s",
        "peak_mb",
        "left_out",
        "operators_ms",
    }
    assert list(methods) == ["onnxruntime", "openvino"] and not facts["left_out"]
    for method in methods.values():
        choices = torch.cat([method(images).choice for _ in range(paperscale.STREAM)])
        assert (choices.bincount() / len(choices)).tolist() == [0.75, 0.25]
