"""Published numbers: complete, unique, and as printed."""

import pytest

from dynlib.book import report
from dynlib.paths import CLAIMS

KEYS = sorted(path.stem for path in CLAIMS.glob("*.csv") if path.stem not in ("orders", "tables"))


def claim_of(key, table, row, metric):
    """The one claim of a paper under these names."""
    (claim,) = report.claims(key, table).query("row == @row and metric == @metric").itertuples()
    return claim


@pytest.mark.parametrize("key", KEYS)
def test_every_claim_stands_once_and_says_in_which_unit_and_whence(key):
    claims = report.claims(key)  # numbers in known units, or notes that quote what is printed instead: it checks these
    assert len(claims) and not claims.duplicated(["table", "row", "metric"]).any()
    assert (claims[["table", "row", "metric", "unit", "source"]] != "").all(axis=None)
    assert set(claims.confidence) <= {"verified", "recalled"}


def test_the_octave_tables_join_on_their_rows():
    rows = report.claims("octconv").groupby("table").row.agg(set)
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
    assert claim.value and "slip" in claim.note and hint in claim.note


def test_a_bound_is_not_turned_into_a_number():
    claim = claim_of("octconv", "table7", "NASNet-A (N=6, F=168)", "train_memory")
    assert claim.value == "" and '">32480"' in claim.note


def test_speedups_of_the_auto_encoder_agree_with_their_times_but_for_the_slip_that_is_noted():
    by_key = {(c.table, c.row, c.metric): c for c in report.claims("wae").itertuples()}
    for (table, row, metric), claim in by_key.items():
        device = metric.removesuffix("_speedup")
        if metric in ("cpu_speedup", "gpu_speedup") and (time := by_key[table, row, f"{device}_time"].value):
            whole = by_key[table, "VGG16 (224)" if table == "table1" else "VGG16-Net", f"{device}_time"].value
            assert (abs(float(whole) / float(time) - float(claim.value)) < 0.011) != ("slip" in claim.note)
