"""Whether choosing beats being smaller, told from records with known numbers."""

from types import SimpleNamespace

import pytest
from stage_records import CHEAP, DEAR, MIDDLE, STAGED, outcome, run, thinned

from dynlib.book.legacy import s2dnas_answer
from dynlib.book.legacy.s2dnas_evidence import FIXED, FOUND, STATIC


def test_what_is_picked_within_a_budget_is_picked_by_the_held_out_images_alone():
    better_on_test = outcome(0.59, 30, 0.99, 30)
    one = run(0, 0.7, 60, outcomes=(CHEAP, better_on_test, MIDDLE, DEAR), exits=3)
    assert s2dnas_answer.within(one, 50) == MIDDLE
    assert s2dnas_answer.within(one, 80) == DEAR
    assert s2dnas_answer.within(one, 19) is None


def test_against_a_thinned_network_only_seeds_with_both_count():
    runs = {FIXED: STAGED, "thinned to width 8": [thinned(0, 0.55, 45)], "thinned to width 2": [thinned(0, 0.1, 5)]}
    table = s2dnas_answer.against(FIXED, runs)
    row = table["thinned to width 8"]
    assert (row["budget"], row["ours"], row["macs"], row["at"]) == ([45], [0.58], [41], [[0.4]])
    assert row["gain"] == [pytest.approx(0.03)]
    assert (table["thinned to width 2"]["gain"], table["thinned to width 2"]["dear"]) == ([], [5])
    assert s2dnas_answer.against(FOUND, runs)["thinned to width 8"]["gain"] == []


def test_a_rival_with_exits_sets_the_budget_that_its_held_out_images_promised():
    rival = run(0, 0.6, 60, outcomes=(MIDDLE, DEAR), exits=5)
    table = s2dnas_answer.against(FIXED, {FIXED: STAGED, "MSDNet": [rival], "exits on layers": []}, ["MSDNet"])
    assert list(table) == ["MSDNet"] and table["MSDNet"]["budget"] == [40]
    assert table["MSDNet"]["gain"] == [pytest.approx(0.58 - 0.6)]


def table_of(*gains, same=()):
    """Gains by width; those in `same` chose the thresholds of the width before."""
    table = {}
    for n, of in enumerate(gains):
        at = [[n - (n in same), seed] for seed in range(len(of))]
        table[f"thinned to width {n}"] = {"gain": list(of), "seed": [*range(len(of))], "at": at, "dear": []}
    return table


def test_budgets_within_which_every_seed_chooses_alike_are_one_operating_point():
    table = table_of((0.01, 0.02), (0.03, 0.04), (0.05, 0.06), same=[2])
    names = list(table)
    assert s2dnas_answer.operating_points(table) == [names[:1], names[1:]]
    assert s2dnas_answer.by_seed(table) == [pytest.approx(0.025), pytest.approx(0.035)]
    table[names[2]]["at"][1] = "others in one seed"
    assert s2dnas_answer.operating_points(table) == [[name] for name in names]
    few = table_of((0.01,), (0.03, 0.04), (), same=[1])  # what both have is the same
    assert s2dnas_answer.operating_points(few) == [[*few][:2]]
    assert s2dnas_answer.by_seed(table_of((), ())) == []


def test_an_operating_point_is_ahead_only_where_it_is_ahead_at_each_of_its_budgets():
    gains = (0.02, 0.022), (0.01, 0.011), (-0.03, -0.031)
    names = list(table_of(*gains))
    assert s2dnas_answer.ahead(table_of(*gains)) == ([names[:1], names[1:2]], 2)
    assert s2dnas_answer.ahead(table_of(*gains), -1) == ([names[2:]], 1)
    assert s2dnas_answer.ahead(table_of(*gains, same=[2])) == ([names[:1]], 1)
    assert s2dnas_answer.ahead(table_of(*gains, same=[2]), -1) == ([], 0)


def test_the_verdict_says_plainly_whether_three_operating_points_were_shown():
    clear = (0.02, 0.022), (0.03, 0.031), (0.01, 0.011)
    good = s2dnas_answer.verdict("x", table_of(*clear))
    assert (
        "above uniform thinning at 3 of 3 operating points (width 0, 1, 2), at 3 of them" in good and "and is." in good
    )
    assert "On average over the operating points: +2.07 ± 0.09 (n = 2), beyond the 95 % bound" in good
    twice = s2dnas_answer.verdict("x", table_of(*clear, same=[2]))
    assert (
        "at 2 of 2 operating points (width 0, 1, 2)" in twice
        and "**A lead at three was to be shown: it is not.**" in twice
    )
    assert "Within the budgets of width 1, 2 every seed chooses the same" in twice
    worse = s2dnas_answer.verdict("x", table_of((-0.02, -0.022), (0.03, 0.031), (0.01, -0.011)))
    assert "it is below at 2 of 3 operating points (width 0, 2), at 1 beyond it" in worse
    lucky = s2dnas_answer.verdict("x", table_of((0.02, 0.022), (0.01, 0.03), (0.01, 0.011)))
    assert "at 2 of them beyond" in lucky and "but not beyond chance at three" in lucky
    assert "+1.72 ± 0.54 (n = 2), **within** the 95 % bound" in lucky
    uneven = s2dnas_answer.verdict("x", table_of((0.02, 0.09), (0.01,), (0.03,)))
    assert "+2.00 (n = 1), but one seed" in uneven
    bad = s2dnas_answer.verdict("x", table_of((0.02, 0.05), (-0.01, -0.02), (0.001, 0.03)))
    assert "at 2 of 3 operating points (width 0, 2), at 0 of them" in bad and "it is not" in bad
    one = s2dnas_answer.verdict("x", table_of((0.02,)))
    assert "at 1 of 1 operating points (width 0), at 0 of them" in one and "to be shown" not in one


def test_budgets_below_the_first_exit_s_cost_are_named():
    dear = table_of((0.02,), (), ())
    dear["thinned to width 1"]["dear"] = [5]
    words = s2dnas_answer.verdict("x", dear)
    assert "at 1 of 1 operating points (width 0)" in words and "it is not" in words
    assert "first exit costs more than all of width 1." in words
    dear = table_of((), ())
    assert s2dnas_answer.verdict("x", dear).endswith("no record yet.")
    dear["thinned to width 1"]["dear"] = [5]
    assert s2dnas_answer.verdict("x", dear).endswith("than all of width 1. No other budget has a record yet.")


def test_the_found_stages_are_judged_against_the_fixed_ones_within_the_same_costs_seed_by_seed():
    better = [
        outcome(o["held_out_top1"], o["held_out_macs"], o["top1"] + gain, o["macs"])
        for o, gain in ((CHEAP, 0.02), (DEAR, 0.04))
    ]
    runs = {FIXED: STAGED, "thinned to width 8": [thinned(0, 0.55, 30)], "thinned to width 12": [thinned(0, 0.6, 90)]}
    runs |= {
        "thinned to width 2": [thinned(0, 0.1, 5)],
        FOUND: [run(seed, 0.7, 60, outcomes=better) for seed in (0, 1, 7)],
    }
    words = s2dnas_answer.found_against_fixed(runs)
    assert "width 8 +2.00 ± 0.00; width 12 +4.00 ± 0.00. On average +3.00 ± 0.00 (n = 2), beyond" in words
    runs["thinned to width 13"] = [thinned(0, 0.6, 95)]
    words = s2dnas_answer.found_against_fixed(runs)
    assert "width 12, 13 +4.00 ± 0.00. On average +3.00" in words
    assert "no seed has records" in s2dnas_answer.found_against_fixed(runs | {FOUND: runs[FOUND][2:]})


def test_every_backbone_with_stages_is_answered():
    runs = {FIXED: STAGED, FOUND: [], "thinned to width 8": [thinned(0, 0.55, 45)]}
    tables, told = s2dnas_answer.answers({"A": runs, "B": {FIXED: []}})
    assert list(tables) == ["A: stages, 0 2 4 8"]
    assert "A. **Found against fixed cuts**" in told and "B. **Found" not in told and told.count("no record yet") == 2


def test_the_page_begins_with_what_was_won_and_what_it_cost():
    runs = {STATIC: [thinned(seed, 0.8, 100) for seed in (0, 1)], "thinned to width 8": [thinned(0, 0.55, 45)]}
    metrics = {"weights_s": 60.0, "candidates_s": 30.0, "retraining_s": 30.0, "clock": "processor"}
    timed = {"small": SimpleNamespace(metrics={"speedup": 1.25, "macs_ratio": 5.0}), "large": None}
    told = s2dnas_answer.in_short(
        {"ResNet-20": runs | {FIXED: STAGED, FOUND: []}}, SimpleNamespace(metrics=metrics), timed
    )
    assert "with the fixed cuts at 1 of 1 operating points (width 8), at 0 of them beyond chance" in told
    assert "on average by +3.00 points of top-1 (n = 1)" in told
    assert "Beside the whole network: the fixed cuts 40 % fewer MACs at −10.00 ± 0.00 points of top-1." in told
    assert "**not beyond chance**. Its mean is ahead with the fixed cuts at" in told and "Beside MSDNet" not in told
    assert "took 2 minutes of processor time" in told and "1.2 to 1.2 times as fast for 5.0 to 5.0" in told
    assert "the cuts found" not in told
    worse = {**runs, "thinned to width 8": [thinned(0, 0.9, 45)], FIXED: STAGED}
    lost = s2dnas_answer.in_short({"ResNet-20": worse}, None, {})
    assert "**not beyond chance**. Its mean is ahead with the fixed cuts at 0 of 1 operating points, at 0" in lost
    assert "it does" not in lost and "−32.00 points" in lost
    none = s2dnas_answer.in_short({"ResNet-20": {STATIC: [], FIXED: []}}, None, {"small": None})
    assert none.count("no record yet") == 1 and "took" not in none and "Time" not in none


def test_what_is_left_of_the_saved_macs_on_the_clock_is_told_by_network():
    timed = {"small": SimpleNamespace(metrics={"speedup": 1.25, "macs_ratio": 5.0}), "large": None}
    assert s2dnas_answer.speed_words(timed).endswith("small, 1.25 times as fast for 5.00 times fewer MACs.")
    assert s2dnas_answer.speed_words({"small": None}) == "Nothing has been timed yet."


def test_stages_are_set_beside_a_rival_at_each_of_its_budgets():
    rival = run(1, 0.6, 50, outcomes=[outcome(0.6, 45, 0.6, 46), outcome(0.5, 90, 0.61, 88)], exits=2)
    told = s2dnas_answer.beside({FIXED: STAGED, "MSDNet": [rival]})
    assert told.endswith("each of its budgets: the fixed cuts −2.0 to +10.0 points (n = 1). ")
    assert s2dnas_answer.beside({FIXED: STAGED, "MSDNet": []}) == ""
