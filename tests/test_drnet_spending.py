"""Where images go and what that costs: shares, penalties, times, and the words and rows made of them."""

import pytest
from drnet_records import dynamic, record

from dynlib.book.legacy import drnet_spending as spending


def latency(method_ms, static_ms=80.0, shares=None):
    return record(kind="latency", config={"shares": shares}, method_ms=method_ms, static_ms=static_ms)


def test_time_at_other_shares_is_the_sum_of_single_sizes_and_of_choosing():
    mixed, alone = latency(60.0, shares=[0.3, 0.25, 0.45]), [latency(80.0), latency(40.0), latency(20.0)]
    assert spending.choosing_ms(mixed, alone) == pytest.approx(60 - 24 - 10 - 9)
    found = spending.time_plane({"alpha 0.5": [dynamic()], "x": []}, mixed, alone)
    assert found["dynamic choice"] == [(pytest.approx(17 + 20 + 10 + 10), 0.83)]
    assert found["always one size"] == [(80, 0.84), (40, 0.82), (20, 0.70)]
    assert spending.time_plane({"alpha 0.5": []}, mixed, alone)["always one size"] == []
    assert spending.time_plane({}, mixed, alone) == {} == spending.time_plane({"alpha 0.5": [dynamic()]}, None, alone)
    text = spending.timing_words(mixed, alone)
    assert "take 43.0 ms; the mixture took 60.0 ms" in text and "97.0 ms, against 80.0 ms" in text
    assert "choosing costs time" in text
    assert "choosing costs time" not in spending.timing_words(latency(60.0, 100.0, [0.3, 0.25, 0.45]), alone)
    assert "`make latency`" in spending.timing_words(None, alone) == spending.timing_words(mixed, [None, *alone[1:]])


@pytest.mark.parametrize(
    ("reached", "eta", "state", "held"),
    [
        (50, 0.2, "active", True),
        (49, 0.2, "idle", None),
        (49.6, 0.2, "active", True),
        (60, 0.2, "active", False),
        (90, 0.0, "none", None),
    ],
)
def test_the_penalty_is_judged_with_the_predictor_on_both_sides(reached, eta, state, held):
    run = dynamic(gate_macs=float(reached))
    run.config["method"]["eta"] = eta
    found = spending.penalty(run)
    assert found.pop("state").startswith(state) and found.pop("held") is held
    assert found == {"target": 54, "reached": reached + 4, "spent": 54}
    assert list(spending.penalties({"alpha 0.5": [run, dynamic(3)]})) == ["alpha 0.5, seed 0", "alpha 0.5, seed 3"]


def test_it_is_told_where_an_active_penalty_does_not_hold_the_cost():
    evidence = {"a": [dynamic(gate_macs=50.0)], "b": [dynamic(gate_macs=60.0), dynamic(1, gate_macs=40.0)]}
    text = spending.penalty_words(evidence)
    assert "predictor in a (1.00); not in b (1.19). Where it holds, the argmax spends 1.00 to 1.00 times" in text
    assert "at inference. The predictor takes 4.0 %" in text
    assert "in no setting. The predictor" in spending.penalty_words({"b": evidence["b"][1:]})


def test_settings_are_compared_in_shares_of_the_cost_at_full_resolution():
    free = dynamic(top1=0.7)
    free.config["method"]["eta"] = 0.0
    found = spending.settings({"a": [dynamic(), dynamic(1)], "eta 0": [free]})
    assert found["a"]["target"] == found["a"]["expected"] == found["a"]["spent"] == [0.54, 0.54]
    assert found["eta 0"]["target"] == [] and found["eta 0"]["top1"] == [0.7] and found["a"]["permuted"] == [0.81] * 2


def test_a_histogram_at_other_costs_is_the_mean_there():
    assert spending.macs_at(dynamic(), {"224": 4000, "168": 2000, "112": 1000, "predictor": 300}) == 2300


def test_shares_of_what_is_enough_leave_out_what_is_right_nowhere():
    evidence = {"x": [], "alpha 0.5": [dynamic(), dynamic(1, shares=(0.75, 0.25, 0))], "alpha 0.9": [dynamic()]}
    rows = spending.histograms(evidence)
    assert rows.pop("enough, alpha 0.5") == pytest.approx([0.05, 0.1, 0.75, 0.1])
    assert rows == {"chosen, alpha 0.5": [0.5, 0.25, 0.25, 0.0], "chosen, alpha 0.9": [0.25, 0.25, 0.5, 0.0]}
    assert spending.segments(evidence) == ["128 px", "96 px", "64 px", "right at none"]
    assert spending.divided(evidence) is evidence["alpha 0.5"][0] and spending.divided({"x": []}) is None


def test_words_about_a_run_hold_its_numbers():
    assert "25 % at 128 px, 25 % at 96 px, 50 % at 64 px" in spending.usage_words("alpha 0.5", dynamic())


def test_images_are_grouped_by_what_is_enough_and_by_what_was_chosen():
    found = spending.groups(dynamic(sufficient="2013", choices="0222"), count=8)
    assert found == {"enough: 64 px": [0], "enough: 96 px": [2], "enough: 128 px": [1]} | {
        "sent to 64 px": [1, 2, 3],
        "sent to 128 px": [0],
    }
    many = spending.groups(dynamic(sufficient="2" * 90 + "0" * 10, choices="2" * 100), count=3)
    assert many == {"enough: 64 px": [0, 30, 60], "enough: 128 px": [90, 93, 96], "sent to 64 px": [0, 33, 66]}
