"""Published numbers: complete, unique, and as printed."""

import csv
from collections import Counter

import pytest

from dynlib.papers.sampling import released as sampling_released
from dynlib.paths import CLAIMS

COLUMNS = ["table", "row", "metric", "value", "unit", "confidence", "source", "note"]
FILES = sorted(path for path in CLAIMS.glob("*.csv") if path.stem not in ("orders", "tables"))


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def claim_of(key, table, row, metric):
    """The one claim of a paper under these names."""
    claims = read(CLAIMS / f"{key}.csv")
    (claim,) = [c for c in claims if (c["table"], c["row"], c["metric"]) == (table, row, metric)]
    return claim


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_claim_says_what_it_is_in_which_unit_and_whence(path):
    claims = read(path)
    assert claims and list(claims[0]) == COLUMNS
    for claim in claims:
        missing = [c for c in ("table", "row", "metric", "unit", "source") if not claim[c]]
        assert not missing, f"{claim} lacks {missing}"
        assert claim["confidence"] in ("verified", "recalled"), claim


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_claim_is_a_number_or_quotes_what_is_printed_instead(path):
    for claim in read(path):
        if claim["value"]:
            float(claim["value"])
        else:
            assert claim["note"].startswith('printed "'), claim


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_number_is_claimed_twice_under_one_key(path):
    keys = Counter((c["table"], c["row"], c["metric"]) for c in read(path))
    assert [key for key, times in keys.items() if times > 1] == []


@pytest.mark.parametrize(
    ("key", "table", "row", "metric", "printed"),
    [
        ("octconv", "table1", "one layer, alpha 0.5", "macs_ratio", "44 %"),
        ("octconv", "table2", "ResNet-50", "cpu_time_mkldnn", "119 ms"),
        ("octconv", "table2", "ResNet-50, alpha 0.5", "top1", "77.3 %"),
        ("octconv", "table2", "ResNet-50, alpha 0.5", "cpu_time_tvm", "74 ms"),
        ("octconv", "table3", "ResNet-50, alpha 0.5, strided convolution, both paths", "top1", "76.3 %"),
        ("octconv", "table4", "ResNet-50, alpha 0.5, 448 px", "top1_gain", "0.9 points"),
        ("octconv", "fig4_preprint", "ResNet-200, alpha 0.125", "macs", "12.623 GMAC"),
        ("octconv", "fig4_released", "ResNet-50, alpha 0.5", "top1", "77.4 %"),
        ("octconv", "table5", "0.75 MobileNet v1, alpha 0.375", "macs", "213 MMAC"),
        ("octconv", "table6", "ResNeXt-50 32x4d, alpha 0.25", "top1", "78.7 %"),
        ("octconv", "table7", "ResNet-152, alpha 0.125, 320/331 px", "macs", "22.2 GMAC"),
        ("octconv", "table8", "I3D, alpha 0.1, Kinetics-600, pretrained on ImageNet", "top1_gain", "1.7 points"),
        ("octconv", "pytorch_reimplementation", "ResNet-50, alpha 0.5, cosine 120 epochs", "top1", "77.640 %"),
        ("wae", "table1", "WAE", "macs", "4.11 GMAC"),
        ("wae", "table1", "VGG16 (112)", "top5_error", "15.73 %"),
        ("wae", "table2", "ThiNet-GAP", "cpu_time", "442.807 ms"),
        ("wae", "table2", "Decomposition+CNN", "top5_error", "12.98 %"),
        ("wae", "table3", "I_L", "top5_error", "14.20 %"),
        ("wae", "table_resnet50", "WAE", "speedup", "1.88 x"),
        ("wae", "complexity_analysis", "WAE", "theoretical_speedup", "3.76 x"),
        ("wae", "repo_readme", "WAE-VGG16", "top5", "88.27 %"),
        ("drnet", "table1", "DR-ResNet-50, shared batch norm", "top1", "80.3 %"),
        ("drnet", "table2", "DR-ResNet-50, alpha 3.0, eta 0.5", "macs", "3.1 GMAC"),
        ("drnet", "table3", "DR-ResNet-50, alpha 2.5", "macs_reduction", "34 %"),
        ("drnet", "table3", "DR-ResNet-101", "top5", "94.3 %"),
        ("drnet", "table4", "RANet", "top1", "74.0 %"),
        ("drnet", "table5", "random choice, run 1", "top1", "74.70 %"),
        ("drnet", "table6", "DR-MobileNetV2", "macs", "268 MMAC"),
        ("drnet", "rs_nets", "RS-ResNet-50, 128 px", "top1", "76.3 %"),
    ],
)
def test_claims_stand_as_printed(key, table, row, metric, printed):
    claim = claim_of(key, table, row, metric)
    assert f"{claim['value']} {claim['unit']}" == printed


def test_the_octave_tables_join_on_their_rows():
    rows = {}
    for claim in read(CLAIMS / "octconv.csv"):
        rows.setdefault(claim["table"], set()).add(claim["row"])
    assert rows["table2"] <= rows["fig4_preprint"]
    assert rows["fig4_released"] <= rows["fig4_preprint"]
    assert rows["gpu_latency_report"] - {"ResNet-50, alpha 0"} <= rows["table2"]


@pytest.mark.parametrize(
    ("table", "row", "metric", "hint"),
    [
        ("table1", "one layer, alpha 0.875", "memory_ratio", "34.375"),
        ("table4", "ResNet-50, 740 px", "top1", "704"),
        ("table8", "I3D, alpha 0.3, Kinetics-400, from scratch", "macs", "misprinted"),
    ],
)
def test_slips_in_print_are_kept_and_noted(table, row, metric, hint):
    claim = claim_of("octconv", table, row, metric)
    assert claim["value"] and "slip" in claim["note"] and hint in claim["note"]


def test_a_bound_is_not_turned_into_a_number():
    claim = claim_of("octconv", "table7", "NASNet-A (N=6, F=168)", "train_memory")
    assert claim["value"] == "" and '">32480"' in claim["note"]


def test_speedups_of_the_auto_encoder_agree_with_their_times_but_for_the_slip_that_is_noted():
    by_key = {(c["table"], c["row"], c["metric"]): c for c in read(CLAIMS / "wae.csv")}
    for (table, row, metric), claim in by_key.items():
        device = metric.removesuffix("_speedup")
        if metric in ("cpu_speedup", "gpu_speedup") and (time := by_key[table, row, f"{device}_time"]["value"]):
            whole = by_key[table, "VGG16 (224)" if table == "table1" else "VGG16-Net", f"{device}_time"]["value"]
            assert (abs(float(whole) / float(time) - float(claim["value"])) < 0.011) != ("slip" in claim["note"])


def test_the_sampling_claims_are_what_the_released_formula_gives_to_the_printed_digit():
    """The table of released models is not evaluated: their densities were learned."""
    for claim in read(CLAIMS / "sampling.csv"):
        if claim["metric"] == "map" or "gamma" in claim["row"]:
            continue
        ours = sampling_released.counted(claim["row"])[claim["metric"]] / 1e9
        digits = len(claim["value"].partition(".")[2])
        assert f"{ours:.{digits}f}" == claim["value"], claim
