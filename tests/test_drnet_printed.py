"""The paper's rows: counts beside the claims, our settings behind them, and the mixtures that an average allows."""

import shlex
from dataclasses import replace
from itertools import pairwise

import pytest

from dynlib import settings
from dynlib.book import chapters, recipes, records, runs
from dynlib.book.legacy import drnet_printed as printed, tables
from dynlib.book.records import Record
from dynlib.papers.drnet import Config
from dynlib.papers.drnet.layers import candidate_sizes


@pytest.fixture(scope="module")
def counted():
    return printed.counted()


def run(name, seed=0, **metrics):
    metrics = {"top1": 0.8, "top5": 0.9, "shares": [0.5, 0.25, 0.25], "uniform_top1": [0.7, 0.8]} | metrics
    return Record("drnet", "training", "public", {}, "", {"test_images": 1000}, seed, metrics, [], {}, 1.0)


@pytest.mark.parametrize(
    ("row", "metric", "digits"),
    [
        ("ResNet-50", "macs", 1),
        ("ResNet-50", "params", 1),
        ("ResNet-101", "macs", 1),
        ("ResNet-50, 192 px", "macs", 1),
        ("MobileNetV2, 192 px", "macs", 0),
        ("0.75 MobileNetV2", "macs", 0),
        ("0.75 MobileNetV2", "params", 1),
        ("DR-MobileNetV2", "params", 1),
        ("random choice, mean", "macs", 1),
    ],
)
def test_what_can_be_counted_is_what_is_printed(counted, row, metric, digits):
    claims = tables.claims("drnet").query("row == @row and metric == @metric")
    for claim in claims.itertuples():
        ours = counted[row][metric] * 10.0 ** tables.POWER[claim.unit]
        assert round(ours, digits) == float(claim.value)
    assert len(claims)


def test_the_random_row_costs_the_mean_of_three_sizes(counted):
    assert counted["random choice, mean"]["macs"] / 1e9 == pytest.approx(2.557, abs=5e-4)
    assert counted["ResNet-50, 192 px"]["macs_reduction"] == pytest.approx(0.265, abs=1e-3)


def test_every_row_that_we_answer_is_a_claim_and_every_setting_a_row_or_ours_alone():
    claimed = set(tables.claims("drnet").row)
    assert set(printed.ROWS) <= claimed
    assert set(printed.SETTINGS) - set(printed.ROWS.values()) == {
        "alpha 0.35",
        "alpha 0.35, eta 0.5",
        printed.FIRST,
        printed.SMALL,
    }


def test_the_settings_are_those_that_the_command_line_trains():
    values = {name: parameter.default for name, parameter in chapters.parameters("05_drnet").items()}
    values |= chapters.profile_values("05_drnet", "public")
    public = recipes.profile_recipe("05_drnet", "public")
    seen = set()
    for dataset, changed in printed.DATA.items():
        for name in printed.SETTINGS:
            words = shlex.split(printed.command(name, dataset, seed=2))
            assert words[-2:] == ["--seed", "2"] and words[:5] == ["python", "-m", "dynlib", "train", "drnet"]
            given = settings.parse([word for before, word in pairwise(words) if before == "-p"])
            config, recipe = (settings.build(k, settings.part_of(k, values | given)) for k in (Config, recipes.Recipe))
            if recipe.size_px:
                assert len(candidate_sizes((recipe.size_px,) * 2, config.candidates)) in (1, 3, 5)
            assert (config, recipe) == printed.setting(name, replace(public, **changed))
            seen.add(records.config_hash(settings.plain(runs.describe(config, recipe))))
    assert len(seen) == len(printed.DATA) * len(printed.SETTINGS)
    assert printed.setting(printed.PLAIN, public)[1].lr > public.lr == printed.setting("eta 0", public)[1].lr


def test_only_a_network_of_the_same_kind_has_rivals():
    of = {name: [] for name in printed.SETTINGS} | {"eta 0": [run("a")], printed.MORE: [run("b")]}
    of |= {printed.PLAIN: [run("p", 3)], printed.SMALL: [run("s")]}
    found = printed.rivals(of)
    assert found == {
        "eta 0": (of["eta 0"], {3: of[printed.PLAIN][0]}, {0: of[printed.SMALL][0]}),
        printed.MORE: (of[printed.MORE], {}, {}),
    }
    assert list(printed.choosing({"a": of})["a"]) == ["eta 0"] and set(printed.SWEEP) <= set(printed.SETTINGS)
    assert not any(printed.sweep(of).values()) and next(iter(printed.sweep({}))) == printed.MAIN


def test_records_are_gathered_by_data_and_setting_and_what_is_missing_is_told():
    recipe = recipes.profile_recipe("05_drnet", "public")
    evidence = printed.gather(lambda config, of: [run("a")] if (config.alpha, of) == (0.489, recipe) else [], recipe)
    assert list(evidence) == list(printed.DATA) and list(evidence["Imagenette"]) == list(printed.SETTINGS)
    assert {name for of in evidence.values() for name in of if of[name]} == {"alpha 0.489"}
    evidence["Imagenette"][printed.PLAIN] = [run("p")]
    assert {data: list(of) for data, of in printed.choosing(evidence).items()} == {
        "Imagenette": ["alpha 0.489"],
        "Tiny ImageNet-100": [],
    }
    told = printed.unmade(evidence).splitlines()
    lacking = len(printed.SETTINGS) - 2 + len(printed.COMPARED)
    assert len(told) == lacking + 2 and not any("Imagenette, alpha 0.489" in line for line in told)
    assert f"- Tiny ImageNet-100, alpha 0.489: `{printed.command('alpha 0.489', 'Tiny ImageNet-100')}`" in told
    made = {data: {name: [run("a")] for name in of} for data, of in evidence.items()}
    assert printed.unmade(made) == "Every setting has its record."


def test_our_histograms_are_priced_at_the_papers_networks():
    evidence = {"alpha 0.489": [run("a"), run("a", 1, shares=[0, 0, 1])], printed.PLAIN: [run("p")]}
    del evidence[printed.PLAIN][0].metrics["shares"], evidence[printed.PLAIN][0].metrics["top5"]
    rows, costs = printed.trained(evidence), printed.costs((1, 0.75, 0.5))["ResNet-50"]
    assert rows["DR-ResNet-50, alpha 2.0"] == rows["DR-ResNet-50, alpha 2.0, eta 0.2"]
    first, second = rows["DR-ResNet-50, alpha 2.0"]["macs"]
    assert second == costs["112"] + costs["predictor"]
    assert first == pytest.approx(0.5 * costs["224"] + 0.25 * costs["168"] + 0.25 * costs["112"] + costs["predictor"])
    assert rows["ResNet-50"] == {"top1": [0.8]} and rows["DR-ResNet-50"] == {}
    assert printed.chosen_shares(evidence)["DR-ResNet-50, alpha 2.0"] == [[0.5, 0.25, 0.25], [0, 0, 1]]
    assert "ResNet-50" not in printed.chosen_shares(evidence)
    five, row = run("a", shares=[0, 0.5, 0, 0, 0.5]), "DR-ResNet-50, 224/192/168/112/96 px"
    costs, rows = printed.costs(printed.FIVE), printed.trained({printed.MORE: [five], printed.MOBILE: [run("m")]})
    of = costs["ResNet-50"]
    assert rows[row]["macs"] == [pytest.approx((of["192"] + of["96"]) / 2 + of["predictor"])]
    assert 1e8 < rows["DR-MobileNetV2"]["macs"][0] < 3e8


def test_random_draws_of_all_seeds_make_the_random_row():
    rows = printed.trained({"alpha 0.611": [run("a"), run("a", 1, uniform_top1=[0.6, 0.6])]})
    assert rows["random choice, mean"]["top1"] == [0.7, 0.8, 0.6, 0.6]
    assert rows["random choice, mean"]["top1_std"] == pytest.approx([0.1 / 2**0.5, 0])


@pytest.mark.parametrize(
    ("row", "macs", "bounds"),
    [
        ("DR-ResNet-50, alpha 2.5", 2.7e9, {"224": (0, 0.44), "168": (0, 0.93), "112": (0.07, 0.56)}),
        ("DR-ResNet-101", 7.0e9, {"224": (0.64, 0.81), "168": (0, 0.36), "112": (0, 0.19)}),
        ("DR-MobileNetV2", 268e6, {"224": (0.61, 0.80), "168": (0, 0.39), "112": (0, 0.20)}),
    ],
)
def test_a_printed_average_leaves_a_mixture_open(row, macs, bounds):
    found = printed.open_shares(row, macs)
    assert {px: pytest.approx(share, abs=0.0051) for px, share in bounds.items()} == found
    assert list(printed.open_shares("DR-ResNet-50, 224/192/168/112/96 px", 3e9)) == ["224", "192", "168", "112", "96"]


def test_the_orders_of_print_are_claims_and_ours_are_decided_beyond_the_test_images():
    claimed = tables.claims("drnet").query("metric == 'top1'").set_index(["table", "row"])["value"]
    assert all((table, row) in claimed for table, *rows in printed.ORDERS.values() for row in rows)
    evidence = {name: [run(name, top1=0.6)] for name in ("alpha 0.611", "alpha 0.734", "alpha 0.489", "eta 0")}
    evidence |= {"shared batch norm": [run("x", top1=0.5)], printed.PLAIN: [run("x", top1=0.7)]}
    told = printed.orders(claimed, evidence).split("\n")
    assert [line.rpartition(", ")[2] for line in told] == [
        "as printed",
        "**the reverse**",
        "undecided",
        "**the reverse**",
    ]
    assert "claimed +1.1, ours +10.0 (n = 1 and 1; ±4." in told[0] and "ours −10.0" in told[1]
    assert printed.orders(claimed, {}) == "No record yet."
