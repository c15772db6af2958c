"""One rule says whether A is above B: on records made up here, and the verdicts of the committed ones."""

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dynlib.book import records, report
from dynlib.book.report.claims import claims, orders
from dynlib.book.report.table import rounded
from dynlib.errors import InputError
from dynlib.paths import RESULTS

module = importlib.import_module("dynlib.book.report.compare")  # the package has a function of the name


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01, 0.012, 0.011], "supported"),
        ([-0.01, -0.012, -0.011], "contradicted"),
        ([0.01, -0.012, 0.011], "undecided"),
        ([0.01, 0.01], "not tested"),
        ([0.01], "not tested"),
        ([], "not tested"),
        ([0.01, 0.012, math.nan], "not tested"),
    ],
)
def test_the_verdict_follows_from_the_interval_of_three_seeds_at_least(differences, verdict):
    assert report.paired(differences).verdict == verdict


def test_the_interval_is_students():
    values = [0.3, 0.1, 0.25, 0.2, 0.05]
    found = report.paired(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    half_width = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
    assert (found.high - found.low) / 2 == pytest.approx(half_width)


@pytest.fixture
def made_up(monkeypatch):
    """Three seeds of a point `a`, two points of a curve, and a row that has but one seed."""
    lines = []
    for seed in range(3):
        front = {"rules": {"front": [{"macs": 10, "top1": 0.5}, {"macs": 40, "top1": 0.8}]}}
        lines += [
            ("s", "a", seed, 20.0, 0.7 + 0.001 * seed),
            ("s", "low", seed, 10.0, 0.5),
            ("s", "high", seed, 30.0, 0.6),
        ]
    lines.append(("s", "alone", 0, 20.0, 0.9))
    frame = pd.DataFrame(lines, columns=["study", "row", "seed", "cost", "top1"])
    frame["other"] = frame.top1 - 0.1
    frame["record"] = [SimpleNamespace(metrics=front)] * len(frame)
    monkeypatch.setattr(module, "trainings", lambda key: frame)
    named = [SimpleNamespace(study="s", name=row) for row in ("a", "low", "high", "alone", "unborn")]
    monkeypatch.setattr(module, "rows", lambda key: named)


def test_points_are_compared_seed_by_seed(made_up):
    found = report.compare("x", "s/a", "s/low")
    assert (found.seeds, found.mean, found.verdict) == (3, pytest.approx(0.201), "supported")
    assert report.compare("x", "s/a", "s/a:other").mean == pytest.approx(0.1)
    assert report.compare("x", "s/a", "s/alone").seeds == 1
    assert report.compare("x", "s/a", "s/unborn").verdict == "not tested"


def test_a_curve_is_read_at_equal_cost_and_nowhere_outside(made_up):
    assert report.compare("x", "s/a", "s/low|s/high", cost="macs").mean == pytest.approx(0.701 - 0.55)
    assert report.compare("x", "s/low|s/high", "s/a", cost="macs").mean == pytest.approx(0.55 - 0.701)
    assert report.compare("x", "s/a@front", "s/high", cost="macs").mean == pytest.approx(0.7 - 0.6)
    assert report.compare("x", "s/a", "s/low", cost="macs").seeds == 0  # one point has no curve at another cost


def test_a_row_that_no_study_has_is_refused_by_its_name(made_up):
    with pytest.raises(InputError, match="'s/b' is no row of a study of x; allowed: s/a; s/alone"):
        report.compare("x", "s/b", "s/a")


def test_every_claimed_order_names_rows_that_exist_and_gets_a_verdict():
    found = report.verdicts()
    assert len(found) == len(orders()) and not found.id.duplicated().any()
    assert set(found.verdict) <= {"supported", "contradicted", "undecided", "not tested"}


def test_a_page_stops_where_its_words_no_longer_hold():
    report.expect("one is one", True)
    with pytest.raises(InputError, match="'one is two', which the records no longer bear out"):
        report.expect("one is two", False)


def test_a_frame_has_the_records_that_a_study_asks_for_and_their_files():
    frame = report.trainings("octconv")
    for line in frame.itertuples():
        assert records.load(line.path).metrics["top1"] == line.top1
    scratch = report.summary("octconv", "scratch")
    assert list(scratch.row)[:2] == ["vanilla", "pooled"]
    vanilla = frame[(frame.study == "scratch") & (frame.row == "vanilla")]
    assert scratch["mean"][0] == pytest.approx(vanilla.top1.mean())


def test_a_row_without_records_stands_in_the_summary_with_what_it_takes():
    msdnet = report.summary("s2dnas", "resnet20").set_index("row").loc["MSDNet"]
    if msdnet.seeds == 0:
        assert math.isnan(msdnet["mean"])
    assert msdnet.minutes > 0


def test_ours_stands_beside_the_claim_in_its_digits():
    frame = report.beside("octconv", "table2", {"ResNet-50": {"macs": 4_103_000_000}}, {"macs": "GMAC"})
    assert list(frame.columns) == ["row", "GMAC, claimed", "GMAC, ours"]
    assert tuple(frame.iloc[0]) == ("ResNet-50", "4.1", "4.1")
    with pytest.raises(InputError, match="top9 of 'ResNet-50' has no claim in table2"):
        report.beside("octconv", "table2", {"ResNet-50": {"top9": 0.5}}, {})


def test_a_table_can_be_reached_by_keyboard_and_by_link_and_shows_no_nan():
    html = report.show(
        pd.DataFrame({"row": ["a<b"], "gain": [-0.5], "seeds": [math.nan]}), "A caption", "tab-x", gain="+.1f"
    )
    text = html._repr_html_()
    for part in ('tabindex="0"', 'id="tab-x"', "a&lt;b", "−0.5", "–"):
        assert part in text
    assert "nan" not in text


def test_two_values_for_one_claim_are_refused(tmp_path):
    lines = (RESULTS.parent / "claims" / "octconv.csv").read_text().splitlines()
    name = lines[1].split(",100,")[0]
    (tmp_path / "octconv.csv").write_text("\n".join([*lines, f'{name},99,%,verified,"T",']) + "\n")
    with pytest.raises(InputError, match="is claimed with two values"):
        claims("octconv", folder=tmp_path)


def test_the_committed_summary_is_what_the_records_say():
    committed, found = pd.read_csv(RESULTS / "summary.csv").set_index("id"), report.summarised().set_index("id")
    for part in ("verdict", "seeds", "claim"):
        assert committed[part].dropna().to_dict() == found[part].dropna().to_dict(), (
            "renew it: python -m dynlib verdicts --write"
        )


def test_a_cell_may_lead_to_its_proof_and_prints_as_its_words():
    frame = pd.DataFrame({"row": ["a"], "gain": [report.badge("not tested", "x.html#y")], "n": [1.5]})
    table = report.show(frame, "A caption", "tab-x")
    assert '<a class="verdict not-tested" href="x.html#y">not tested</a>' in table._repr_html_()
    assert "not tested" in repr(table) and "href" not in repr(table)


def test_a_value_has_the_digits_of_its_claim_and_halves_go_up():
    found = [rounded(value, "%", "12.0") for value in (0.1225, 0.1235, -0.1225, -0.0004)]
    assert found == ["12.3", "12.4", "−12.3", "0.0"]
