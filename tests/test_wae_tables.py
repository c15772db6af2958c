"""The chapter's frames: counts as printed, errors beside claims, dashes for what nobody measured."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import nn

from dynlib import backbones
from dynlib.book.legacy import plots, tables, wae_tables
from dynlib.book.legacy.wae_evidence import pairs
from dynlib.book.records import Record
from dynlib.papers import wae

CLAIMS = tables.claims("wae", "table2")


@pytest.fixture(scope="module")
def vgg16():
    with torch.device("meta"):
        network = backbones.build("vgg16")
        return network, *(wae.convert(network, wae.Config(variant=variant)) for variant in ("downscaled", "wae"))


def test_the_steps_lead_from_the_printed_speed_up_to_all_that_runs(vgg16):
    network, _, wrapped = vgg16
    frame = wae_tables.steps(network, wrapped, 224)
    assert list(frame["ratio"]) == ["3.76", "3.74", "3.76", "3.53"]
    assert list(frame["wrapped, GMACs"]) == ["4.0805", "4.1077", "4.1182", "4.3819"]


def test_the_printed_costs_of_table_1_come_out_to_the_digit(vgg16):
    claimed = tables.claims("wae", "table1").query("metric == 'macs'").set_index("row")["value"]
    counted = {row: f"{macs / 1e9:.2f}" for row, (macs, _) in wae_tables.as_printed(*vgg16, 224).items()}
    assert counted == claimed.to_dict()


def test_table_1_has_each_row_by_its_own_rule_and_all_that_runs(vgg16):
    frame = wae_tables.printed_costs(tables.claims("wae", "table1"), *vgg16, 224).set_index("row")
    assert list(frame["claimed, G"]) == list(frame["so counted, G"]) == ["15.36", "3.89", "4.11"]
    assert list(frame["all that runs"]) == ["15,470,264,320", "3,891,085,312", "4,381,913,088"]
    assert list(frame["ratio"]) == ["1.00", "3.98", "3.53"]


def test_accuracies_stand_by_variant_with_their_seeds_and_costs():
    of = dict.fromkeys(wae.VARIANTS, ()) | {"wae": [record(top1=0.5, macs=32e6), record(1, top1=0.6, macs=32e6)]}
    of["low"] = [record(top1=0.4567, macs=31.04e6)]
    frame = wae_tables.accuracies({"net": of}).set_index("variant")
    assert list(frame.loc["wae"]) == ["55.00 ± 7.07 (n = 2)", "32.0"]
    assert list(frame.loc["low"]) == ["45.67 (n = 1)", "31.0"]
    assert set(frame.drop(index=["wae", "low"]).to_numpy().ravel()) == {"–"} and len(frame) == 7


def test_the_parts_add_up(vgg16):
    network, _, wrapped = vgg16
    column = wae_tables.parts({"VGG16": (network, wrapped)}, 224).set_index("GMACs of")["VGG16"]
    assert sum(float(column[part]) for part in wae_tables.PARTS) == pytest.approx(float(column["all parts"]), abs=3e-4)
    assert (column["all parts"], column["the network alone"], column["ratio"]) == ("4.3819", "15.4703", "3.53")


def record(seed=0, **metrics):
    return Record("wae", "training", "public", {}, "", {"test_images": 1500}, seed, metrics, [], {}, 1.0)


def test_every_claimed_row_stays_and_what_nobody_has_is_a_dash():
    of = {
        "wae": [record(top1=0.8, top1_low=0.7), record(1, top1=0.9, top1_low=0.7)],
        "full": [record(top1=0.75)],
        "low": [],
    }
    rows = {
        "WAE": ("wae", "top1"),
        "VGG16-Net": ("full", "top1"),
        "low head": ("wae", "top1_low"),
        "alone": ("low", "top1"),
    }
    frame = wae_tables.against(CLAIMS, ["top5_error", "cpu_time"], {"net": of}, rows).set_index("row")
    assert list(frame.index) == [*CLAIMS.row.unique(), "low head", "alone"]
    assert list(frame.columns) == ["claimed top-5 error, %", "claimed CPU time, ms", "our net, top-1 error, %"]
    assert list(frame.loc["WAE"]) == ["11.87", "411.63", "15.00 ± 7.07"]
    assert list(frame.loc["Taylor-1"]) == ["13.00", "–", "–"]
    assert frame.loc["VGG16-Net"].iloc[2] == "25.00"
    assert list(frame.loc["low head"]) == ["–", "–", "30.00 ± 0.00"] and list(frame.loc["alone"]) == ["–"] * 3


def test_the_resnet_table_shows_what_there_is_of_it():
    claims = tables.claims("wae", "table_resnet50")
    timings = {"batch 1": record(speedup=2.345), "batch 8": None}
    of = {"full": [record(top1=0.8)], "wae": [record(top1=0.79)]}
    frame = wae_tables.resnet50(claims, of, timings, {"v1": "2.84"})
    assert frame.to_numpy().tolist() == [
        ["accuracy lost, points", "0.8", "+1.00 ± 1.47, n = 1"],
        ["speed-up", "1.88", "by batch, below"],
        ["batch 1", "–", "2.35"],
        ["batch 8", "–", "–"],
        ["v1", "–", "2.84"],
    ]
    assert wae_tables.resnet50(claims, of | {"wae": []}, {}, {})["ours"][0] == "–"


def test_points_are_drawn_one_series_a_variant_from_the_costliest_on():
    frame = wae_tables.points({"wae": (2e9, 0.8), "full": (4e9, 0.9)})
    figure, ax = plt.subplots()
    plots.tradeoff(ax, None, frame)
    assert [line.get_xdata().tolist() for line in ax.lines[1:]] == [[4.0], [2.0]]
    plt.close(figure)


def test_figures_are_written_in_their_form_and_missing_ones_are_dashes():
    frame = wae_tables.figures({"a": {"psnr": 27.1234, "energy_high": 0.00019}, "b": {}})
    assert list(frame.iloc[0])[:5] == ["a", "27.12", "–", "–", "0.00019"]
    assert set(frame.iloc[1][1:]) == {"–"}


def test_the_order_has_every_pair_whether_measured_or_not():
    claimed = {"wae": 11.87, "low": 14.2, "full": 11.65}
    found = {"net": pairs(claimed, {"wae": {0: 0.8}, "full": {0: 0.9}}, 1500), "other": []}
    frame = wae_tables.order(found, claimed)
    assert list(frame["the paper's order"]) == ["full before wae", "full before low", "wae before low"]
    assert list(frame["claimed gap, points"]) == ["0.22", "2.55", "2.33"]
    assert frame["net"][0] == "+10.00 ± 1.29, n = 1: agrees" and list(frame["net"][1:]) == ["–", "–"]
    assert isinstance(frame, pd.DataFrame) and set(frame["other"]) == {"–"}


def test_linear_layers_are_weighed_without_their_biases():
    network = nn.Sequential(nn.Linear(1000, 250), nn.Conv2d(3, 8, 3))
    assert wae_tables.linear_weights({"a": network, "b": nn.ReLU()}) == "a 1 MB, b 0 MB"


def test_rows_stand_beside_the_linear_codes_they_beat():
    levels = {"psnr_6_of_12": 37.0, "psnr_3_of_12": 25.0}
    rows = {"a": {"psnr": 36.0, "psnr_low_alone": 26.0}, "b": {"psnr": 36.5, "psnr_low_alone": 22.0}, "c": {}}
    text = wae_tables.beside_codes(rows, levels)
    assert "I' is above the best linear code of 6 of 12 (37.00 dB) for none" in text
    assert text.endswith("I_L alone is above the best linear code of 3 of 12 (25.00 dB) for a.")
    assert wae_tables.beside_codes(rows, {}) == "" == wae_tables.beside_codes({"a": {}}, levels)
